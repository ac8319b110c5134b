//! The pack loads, and so do SigmaHQ's rules for Microsoft 365.

use std::path::{Path, PathBuf};

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
