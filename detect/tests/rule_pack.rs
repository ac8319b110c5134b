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
    let never = rules.rules().iter().find_map(|rule| rule.detection()?.never()).map(|never| format!("never: {never}"));
    let has = |occurs: Occurs| asks.iter().any(|asked| asked.occurs == occurs);
    let verdict = never.as_deref().unwrap_or_else(|| match asks.is_empty() {
        true => "can occur (keywords)",
        _ if has(Occurs::Nowhere) => "can occur in part",
        _ if has(Occurs::Unheard) => "asks for a field nobody has seen",
        _ => "can occur",
    });
    let fields = asks.iter().map(|asked| {
        let note = if asked.occurs == Occurs::Unheard { " (unheard of)" } else { "" };
        match asked.means.as_slice() {
            [] => format!("{} (nothing like it)", asked.name),
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
fn every_rule_of_sigma_hq_loads() {
    for folder in ["m365", "entra"] {
        let refused = refused(&sigma_hq(folder));
        assert!(refused.is_empty(), "\n{}", refused.join("\n"));
    }
}

#[test]
fn rules_of_another_log_load_and_are_known_never_to_match() {
    let rule = |service: &str, detection: &str| {
        format!("title: A\nid: a\nlogsource: {{product: azure, service: {service}}}\ndetection: {{{detection}}}\n")
    };
    let never = |text: String| {
        let rules = RuleSet::load(vec![source("a.yml", &text)], &Tuning::default()).unwrap();
        let never = rules.rules()[0].detection().unwrap().never().map(|never| never.to_string());
        let notes: Vec<String> = detect::rule::notes(&rules).iter().map(ToString::to_string).collect();
        (never, notes.join("\n"))
    };
    let (reason, notes) = never(rule("riskdetection", "s: {riskEventType: x}, condition: s"));
    assert_eq!(reason.as_deref(), Some("harrier has no records of azure/riskdetection"));
    assert_eq!(notes, "a.yml:1: a: never matches: harrier has no records of azure/riskdetection");
    let nothing = "the unified audit log has nothing like AuthenticationRequirement";
    let one = "s: {AuthenticationRequirement: single, UserId: x}, condition: s";
    assert_eq!(never(rule("signinlogs", one)).0.as_deref(), Some(nothing));
    // A filter that never holds takes nothing away; an alternative leaves the other one.
    let filtered = "s: {OperationName: x}, f: {AuthenticationRequirement: single}, condition: s and not f";
    let (reason, notes) = never(rule("signinlogs", filtered));
    assert_eq!(reason, None);
    let line = "a line that asks for it never holds";
    assert!(notes.contains("nothing like 'AuthenticationRequirement'") && notes.contains(line), "{notes}");
    let either = "s: {OperationName: x}, f: {AuthenticationRequirement: single}, condition: 1 of them";
    assert_eq!(never(rule("signinlogs", either)).0, None);
    // A word of the portal's that the log does not have; a part of one that it has.
    let (denied, part) = ("s: {Status: MFA Denied}, condition: s", "s: {Status|contains: fail}, condition: s");
    let nothing = "the unified audit log has nothing like Status: 'MFA Denied'";
    assert_eq!(never(rule("signinlogs", denied)).0.as_deref(), Some(nothing));
    assert_eq!(never(rule("signinlogs", part)).0, None);
    let absent = "s: {AuthenticationRequirement: null}, condition: s";
    assert_eq!(never(rule("signinlogs", absent)).0, None);
}
