//! Pages made of the rules: `RULES.md` for people, `attack-layer.json` for the ATT&CK Navigator.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use detect::rule::Rule;
use serde_json::json;

use super::{PACK, golden, peers};

fn generating() -> impl Iterator<Item = &'static Rule> {
    PACK.rules().iter().map(|rule| &**rule).filter(|rule| rule.generates)
}

/// The first sentence of a description, on one line.
fn gist(rule: &Rule) -> String {
    let text = rule.description.split_whitespace().collect::<Vec<_>>().join(" ");
    text.split_inclusive(". ").next().unwrap_or_default().trim().replace('|', "\\|")
}

#[test]
fn the_page_of_all_rules_is_current() {
    let mut by_peer: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in peers::table() {
        for name in line.ours {
            by_peer.entry(name).or_default().insert(line.peer.clone());
        }
    }
    let mut by_folder: BTreeMap<&str, Vec<&Rule>> = BTreeMap::new();
    for rule in generating() {
        by_folder.entry(rule.file.split('/').next().unwrap()).or_default().push(rule);
    }
    let count = generating().count();
    let mut out = format!(
        "# The rules of the pack\n\n{count} rules make findings. Made of the rules by `UPDATE_GOLDEN=1 cargo test -p detect \
         --test pack_judged`; `harrier rules explain` tells\nmore of each. *Peers* have a rule for the same behaviour: \
         see [peers.tsv](peers.tsv).\n"
    );
    for (folder, mut rules) in by_folder {
        rules.sort_by_key(|rule| (std::cmp::Reverse(rule.level), rule.name.clone()));
        writeln!(out, "\n## {folder}\n\n| rule | level | what it sees | ATT&CK | answers | feeds | peers |\n|---|---|---|---|---|---|---|").unwrap();
        for rule in rules {
            let peers =
                by_peer.get(&rule.name).map(|peers| peers.iter().map(String::as_str).collect::<Vec<_>>().join(", "));
            writeln!(
                out,
                "| [{}]({}) | {} | **{}.** {} | {} | {} | {} | {} |",
                rule.name,
                rule.file,
                rule.level.as_str(),
                rule.title.replace('|', "\\|"),
                gist(rule),
                rule.attack.join(" "),
                rule.answers.join(", "),
                rule.needs.feeds.iter().map(|feed| feed.trim_start_matches("Audit.")).collect::<Vec<_>>().join(", "),
                peers.unwrap_or_else(|| "none".to_owned()),
            )
            .unwrap();
        }
    }
    golden("RULES.md", &out);
}

#[test]
fn the_attack_layer_is_current() {
    let mut techniques: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for rule in generating() {
        for technique in &rule.attack {
            techniques.entry(technique).or_default().insert(&rule.name);
        }
    }
    let most = techniques.values().map(BTreeSet::len).max().unwrap_or_default();
    let listed: Vec<_> = techniques
        .iter()
        .map(|(technique, rules)| {
            let names = rules.iter().copied().collect::<Vec<_>>().join(", ");
            json!({"techniqueID": technique, "score": rules.len(), "comment": names, "enabled": true})
        })
        .collect();
    let layer = json!({
        "name": "harrier",
        "versions": {"layer": "4.5", "navigator": "5.1.0", "attack": "17"},
        "domain": "enterprise-attack",
        "description": "What the rule pack of harrier makes findings of. The score is the number of rules.",
        "filters": {"platforms": ["Office Suite", "Identity Provider", "SaaS"]},
        "gradient": {"colors": ["#d9e8f5ff", "#08519cff"], "minValue": 1, "maxValue": most},
        "techniques": listed,
    });
    golden("attack-layer.json", &format!("{}\n", serde_json::to_string_pretty(&layer).unwrap()));
}

#[test]
fn the_schema_for_editors_is_current() {
    golden("rule.schema.json", &format!("{:#}\n", detect::rule::schema()));
}
