//! Judges files of JSON lines in memory and prints the findings: the quickest way to try rules on real records.
//!
//! `cargo run -p detect --example judge -- [--rules DIR] [--domains a.com,b.com] [--json] FILE...`
//!
//! With `--json` each finding is a line of JSON, with the ids of its records.

// An example may stop at the first thing that is not as it should be; linted with the rest for the features it brings.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use detect::matcher::Matcher;
use detect::offline::Offline;
use detect::rule::{RuleSet, Source, Tuning};
use schemas::envelope::{Origin, Received};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (mut folder, mut domains, mut files) = (PathBuf::from("rules"), Vec::new(), Vec::new());
    let mut json = false;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--rules" => folder = arguments.next().expect("a folder").into(),
            "--domains" => domains = arguments.next().expect("domains").split(',').map(str::to_owned).collect(),
            "--json" => json = true,
            file => files.push(file.to_owned()),
        }
    }
    let mut sources = Vec::new();
    collect(&folder, &mut sources);
    let rules = RuleSet::load(sources, &Tuning::default()).unwrap_or_else(|errors| panic!("{errors}"));
    let tenant: schemas::tenant::Tenant = "t1".parse().expect("a tenant name");
    let matcher = Matcher::new(rules.clone(), BTreeMap::from([(tenant.clone(), domains)]));
    let mut offline = Offline::new(&rules, &matcher);
    let (mut records, mut unreadable) = (0, 0);
    for file in &files {
        for line in std::fs::read_to_string(file).expect("a file of text").lines() {
            let origin = Origin {
                tenant: tenant.clone(),
                source: "import".into(),
                content_type: String::new(),
                blob_id: String::new(),
                received: DateTime::<Utc>::UNIX_EPOCH,
                notify: true,
            };
            records += 1;
            unreadable += usize::from(offline.feed(&[Received { origin, bytes: line.as_bytes().to_vec() }]).is_err());
        }
    }
    let mut by_rule: BTreeMap<&str, usize> = BTreeMap::new();
    let mut findings: Vec<_> = offline.standing().collect();
    findings.sort_by_key(|finding| (finding.first_event, &finding.rule.title));
    if json {
        findings.iter().for_each(|finding| println!("{}", serde_json::to_string(finding).expect("a finding")));
        return;
    }
    for finding in &findings {
        *by_rule.entry(&finding.rule.title).or_default() += 1;
        println!(
            "{} {:13} {}  [{} records]",
            finding.first_event.format("%F %T"),
            finding.rule.level.as_str(),
            finding.rule.title,
            finding.event_count
        );
        println!("    {}", finding.reason);
        finding.notes.iter().for_each(|note| println!("    note: {note}"));
    }
    println!("\n{records} records, {unreadable} unreadable, {} findings", findings.len());
    by_rule.iter().for_each(|(title, count)| println!("{count:6}  {title}"));
}

fn collect(folder: &Path, sources: &mut Vec<Source>) {
    let mut entries: Vec<_> =
        std::fs::read_dir(folder).expect("a folder of rules").map(|entry| entry.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "yml") {
            let text = std::fs::read_to_string(&path).expect("a rule file");
            sources.push(Source { file: path.display().to_string(), text });
        }
    }
}
