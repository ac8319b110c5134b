//! `rules/peers.tsv`: every rule that peers publish, with ours beside it or why there is none.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{PACK, rules_folder};

/// One line of the table.
pub struct Line {
    pub peer: String,
    pub rule: String,
    pub ours: Vec<String>,
    pub why: String,
}

pub fn table() -> Vec<Line> {
    let text = std::fs::read_to_string(rules_folder().join("peers.tsv")).unwrap();
    let line = |line: &str| {
        let cells: Vec<&str> = line.split('\t').collect();
        assert_eq!(cells.len(), 5, "{line}");
        let ours = cells[3].split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Line { peer: cells[0].to_owned(), rule: cells[1].to_owned(), ours, why: cells[4].to_owned() }
    };
    text.lines().skip(1).map(line).collect()
}

#[test]
fn each_line_names_rules_that_exist_or_says_why_there_is_none() {
    let mut seen = BTreeSet::new();
    for line in table() {
        assert!(seen.insert((line.peer.clone(), line.rule.clone())), "{} {} stands twice", line.peer, line.rule);
        assert!(!line.ours.is_empty() || !line.why.is_empty(), "{} {} says nothing", line.peer, line.rule);
        for name in &line.ours {
            let found = PACK.rules().iter().find(|rule| rule.name == *name);
            assert!(found.is_some_and(|rule| rule.generates), "{} {}: we have no rule {name}", line.peer, line.rule);
        }
    }
}

/// Their lists lie outside the tree; where they are, nothing of them is left out.
#[test]
fn every_rule_of_the_peers_lists_is_in_the_table() {
    let root = std::env::var("HARRIER_TEST_DATA").unwrap_or_else(|_| "../../shared/data".to_owned());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(root).join("peer-rules");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("skipped: {} is not there", folder.display());
        return;
    };
    let known: BTreeSet<(String, String)> = table().into_iter().map(|line| (line.peer, line.rule)).collect();
    let mut missing: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|end| end == "tsv"))
    {
        let text = std::fs::read_to_string(&file).unwrap();
        for line in text.lines().skip(1) {
            let cells: Vec<&str> = line.split('\t').collect();
            let in_scope = cells.get(8).is_some_and(|scope| OUR_SCOPES.iter().any(|ours| scope.starts_with(ours)));
            if in_scope && !known.contains(&(cells[0].to_owned(), cells[1].to_owned())) {
                missing.entry(cells[0].to_owned()).or_default().push(cells[1].to_owned());
            }
        }
    }
    assert!(missing.is_empty(), "rules/peers.tsv lacks {missing:?}");
}

/// What their rules are about, as the lists say; everything else is another product's.
const OUR_SCOPES: [&str; 2] = ["M365", "Entra"];
