//! The pack loads, and so do SigmaHQ's rules for Microsoft 365.

use std::path::{Path, PathBuf};

use detect::rule::condition::Occurs;
use detect::rule::{RuleSet, Source, Tuning};

fn source(file: &str, text: &str) -> Source {
    Source { file: file.to_owned(), text: text.to_owned() }
}

#[test]
fn the_pack_loads() {
    let sources = rules::pack().iter().map(|(file, text)| source(file, text)).collect();
    let set = RuleSet::load(sources, &Tuning::default()).unwrap_or_else(|errors| panic!("\n{errors}"));
    assert!(set.rules().is_sorted_by(|a, b| a.id < b.id));
    for rule in set.rules() {
        assert!(!rule.generates || !rule.tests.is_empty(), "{} carries no test", rule.name);
        assert_eq!(set.get(&rule.id).map(|found| &found.id), Some(&rule.id));
    }
}

fn sigma_hq(folder: &str) -> Vec<PathBuf> {
    let root = std::env::var("HARRIER_TEST_DATA").unwrap_or_else(|_| "../../shared/data".to_owned());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(root).join("sigma").join(folder);
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("skipped: {} is not there", folder.display());
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// For each rule of SigmaHQ whether it can ever speak here: `rules/SIGMAHQ.md`, by file and field names alone.
/// `UPDATE_GOLDEN=1` writes it anew.
#[test]
fn the_table_of_sigma_hq_rules_says_which_can_occur() {
    let mut out = String::from(
        "# SigmaHQ's rules for m365 and azure\n\nWhich of them load, and whether their fields can occur in the records of \
         the unified audit log. By file name; the rules\nthemselves are SigmaHQ's (Detection Rule License 1.1) and are not \
         part of harrier. Made by `cargo test -p detect` where the\nfiles are.\n",
    );
    for folder in ["m365", "entra"] {
        let files = sigma_hq(folder);
        if files.is_empty() {
            return;
        }
        let mut lines = String::new();
        let mut loaded = 0;
        for file in &files {
            let name = file.file_name().unwrap().to_str().unwrap();
            let text = std::fs::read_to_string(file).unwrap();
            let verdict = match RuleSet::load(vec![source("", &text)], &Tuning::default()) {
                Ok(rules) => {
                    loaded += 1;
                    fields_of(&rules)
                }
                Err(errors) => {
                    let mut reasons: Vec<&str> =
                        errors.reports().iter().map(|report| report.message.as_str()).collect();
                    reasons.dedup();
                    format!("does not load | {}", reasons.join("; "))
                }
            };
            let short = name.rsplit("__").next().unwrap_or(name);
            lines.push_str(&format!("| {short} | {verdict} |\n"));
        }
        out.push_str(&format!(
            "\n## {folder}: {loaded} of {} load\n\n| file | verdict | fields |\n|---|---|---|\n{lines}",
            files.len()
        ));
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rules/SIGMAHQ.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &out).unwrap();
    }
    let known = std::fs::read_to_string(&golden).unwrap_or_default();
    assert!(known == out, "rules/SIGMAHQ.md is not what is found now: UPDATE_GOLDEN=1 writes it");
}

fn fields_of(rules: &RuleSet) -> String {
    let asks: Vec<_> =
        rules.rules().iter().filter_map(|rule| rule.detection()).flat_map(|detection| &detection.asks).collect();
    let unheard = asks.iter().any(|asked| asked.occurs == Occurs::Unheard);
    let verdict = match (asks.is_empty(), unheard) {
        (true, _) => "can occur (keywords)",
        (_, true) => "asks for a field nobody has seen",
        _ => "can occur",
    };
    let fields = asks.iter().map(|asked| {
        let note = if asked.occurs == Occurs::Unheard { " (unheard of)" } else { "" };
        match asked.means.as_slice() {
            [same] if *same == asked.name => format!("{}{note}", asked.name),
            means => format!("{} = {}{note}", asked.name, means.join(", ")),
        }
    });
    format!("{verdict} | {}", fields.collect::<Vec<_>>().join("; "))
}

/// The files that do not load, with the reasons.
fn refused(files: &[PathBuf]) -> Vec<String> {
    let mut refused = Vec::new();
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(file).unwrap();
        if let Err(errors) = RuleSet::load(vec![source(name, &text)], &Tuning::default()) {
            refused.push(errors.to_string());
        }
    }
    refused
}

#[test]
fn every_rule_of_sigma_hq_for_m365_loads() {
    let refused = refused(&sigma_hq("m365"));
    assert!(refused.is_empty(), "\n{}", refused.join("\n"));
}

#[test]
fn rules_of_sigma_hq_for_azure_load_where_the_unified_log_has_the_data() {
    let files = sigma_hq("entra");
    let refused = refused(&files);
    println!("{} of {} load; the others:\n{}", files.len() - refused.len(), files.len(), refused.join("\n"));
    let only_data = ["harrier has no records", "the unified audit log", "is not a field"];
    for reason in refused.iter().flat_map(|reasons| reasons.lines()) {
        assert!(only_data.iter().any(|expected| reason.contains(expected)), "{reason}");
    }
    assert!(files.is_empty() || refused.len() * 2 < files.len(), "more than half are refused");
}
