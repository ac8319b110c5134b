//! Every construct of the rule language as a rule of its own, with records that it selects and records that it does not:
//! `<section>/<construct>.yml`, in the form of any rule file. The table of them is `rules/CONFORMANCE.md`;
//! `UPDATE_GOLDEN=1` writes it anew.
//!
//! Each test runs in every order of arrival, and for each record the index must leave in what the naive matcher finds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use detect::matcher::Matcher;
use detect::rule::{CORRELATION_TYPES, MODIFIERS, Rule, RuleSet, Source, Tuning};
use detect::rule_test;
use schemas::Event;
use schemas::envelope::{Origin, Received};

/// The sections, in the order of the table, and what each is about.
const SECTIONS: &[(&str, &str)] = &[
    ("modifiers", "Modifiers"),
    ("values", "Values, fields and searches"),
    ("conditions", "Conditions"),
    ("filters", "Filters"),
    ("logsources", "Logsources and the names of other people's fields"),
    ("correlations", "Correlations"),
];

struct Case {
    section: &'static str,
    name: String,
    text: String,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance")
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (section, _) in SECTIONS {
        let entries = std::fs::read_dir(folder().join(section)).unwrap();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            cases.push(Case { section, name, text: std::fs::read_to_string(path).unwrap() });
        }
    }
    cases
}

fn load(case: &Case) -> RuleSet {
    let file = format!("{}/{}.yml", case.section, case.name);
    RuleSet::load(vec![Source { file, text: case.text.clone() }], &Tuning::default())
        .unwrap_or_else(|errors| panic!("\n{errors}"))
}

/// The rule that the file is about: the one with tests.
fn subject(rules: &RuleSet) -> &Rule {
    rules.rules().iter().find(|rule| !rule.tests.is_empty()).expect("a rule with tests")
}

#[test]
fn every_construct_does_what_its_file_says() {
    for case in cases() {
        let rules = load(&case);
        let outcome = rule_test::run(&rules, Some(&subject(&rules).id));
        let failures: Vec<String> = outcome.failures.iter().map(rule_test::printable).collect();
        assert!(failures.is_empty(), "{}", failures.join("\n"));
        assert_eq!(
            outcome.untested,
            Vec::<String>::new(),
            "{}/{}: finds, or does not, in every test",
            case.section,
            case.name
        );
    }
}

#[test]
fn the_index_leaves_in_what_the_naive_matcher_finds() {
    // All rules in one set, so that the index has something to leave out; filters for any rule would meet all of them.
    let cases: Vec<Case> = cases().into_iter().filter(|case| case.name != "any").collect();
    let source = |case: &Case| Source { file: case.name.clone(), text: case.text.clone() };
    let rules = RuleSet::load(cases.iter().map(source).collect(), &Tuning::default())
        .unwrap_or_else(|errors| panic!("\n{errors}"));
    let matcher = Matcher::new(rules.clone(), BTreeMap::new());
    let records: BTreeSet<String> = rules
        .rules()
        .iter()
        .flat_map(|rule| &rule.tests)
        .flat_map(|test| &test.records)
        .map(|record| record.to_string())
        .collect();
    assert!(records.len() > 200);
    let (mut by_index, mut naive) = (Vec::new(), Vec::new());
    let events: Vec<Event> = records.iter().map(|record| event(record.as_bytes())).collect();
    for (at, (record, event)) in records.iter().chain(&records).zip(events.iter().chain(&events)).enumerate() {
        if at == records.len() {
            // Once more by what was measured.
            matcher.measure(events.iter());
        }
        let dropped = matcher.matches(event, &mut by_index);
        assert_eq!(dropped, matcher.naive(event, &mut naive), "{record}");
        assert_eq!(by_index, naive, "{record}");
        by_index.clear();
        naive.clear();
    }
}

/// Writes the questions for `detect/second-opinion`: each rule, and of every record whether it is selected.
#[test]
fn what_another_engine_is_asked() {
    let Some(path) = std::env::var_os("HARRIER_SECOND_OPINION") else {
        eprintln!("skipped: HARRIER_SECOND_OPINION names no file");
        return;
    };
    let cases: Vec<Case> = cases().into_iter().filter(|case| case.section != "correlations").collect();
    let sets: Vec<RuleSet> = cases.iter().map(load).collect();
    let records: BTreeSet<String> = sets
        .iter()
        .flat_map(|rules| &subject(rules).tests)
        .flat_map(|test| &test.records)
        .map(|record| {
            // What tests add to every record would only be more text for keywords.
            let mut record = record.clone();
            record.as_object_mut().unwrap().retain(|key, _| !matches!(key.as_str(), "Id" | "CreationTime"));
            record.to_string()
        })
        .collect();
    let mut out = String::new();
    for (case, rules) in cases.iter().zip(&sets) {
        let matcher = Matcher::new(rules.clone(), BTreeMap::new());
        let answers: Vec<serde_json::Value> = records
            .iter()
            .map(|record| {
                let mut found = Vec::new();
                matcher.naive(&event(record.as_bytes()), &mut found);
                serde_json::json!([serde_json::from_str::<serde_json::Value>(record).unwrap(), !found.is_empty()])
            })
            .collect();
        let name = format!("{}/{}", case.section, case.name);
        writeln!(out, "{}", serde_json::json!({"case": name, "rule": case.text, "answers": answers})).unwrap();
    }
    std::fs::write(path, out).unwrap();
}

#[test]
fn every_modifier_and_every_type_of_correlation_has_its_file() {
    let cases = cases();
    let has = |section: &str, name: &str| cases.iter().any(|case| case.section == section && case.name == name);
    for (name, _) in MODIFIERS {
        assert!(has("modifiers", name), "modifiers/{name}.yml");
    }
    for (name, _) in CORRELATION_TYPES {
        assert!(has("correlations", name), "correlations/{name}.yml");
    }
}

#[test]
fn the_table_is_that_of_the_files() {
    let mut out = String::from(
        "# Conformance\n\nEvery construct of the rule language with its test: a rule file with records that it selects and \
         records that it does not,\nin `detect/tests/conformance`. Made from those files by `cargo test -p detect`; \
         `UPDATE_GOLDEN=1` writes it anew.\n",
    );
    for (section, title) in SECTIONS {
        write!(out, "\n## {title}\n\n| construct | meaning | finds | does not |\n|---|---|---|---|\n").unwrap();
        for case in cases().iter().filter(|case| case.section == *section) {
            let rules = load(case);
            let rule = subject(&rules);
            let finds = rule.tests.iter().filter(|test| test.findings > 0).count();
            let silent = rule.tests.len() - finds;
            let link = format!("../detect/tests/conformance/{section}/{}.yml", case.name);
            let meaning = rule.title.replace('|', "\\|");
            writeln!(out, "| [{}]({link}) | {meaning} | {finds} | {silent} |", case.name).unwrap();
        }
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rules/CONFORMANCE.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &out).unwrap();
    }
    let known = std::fs::read_to_string(&golden).unwrap_or_default();
    assert!(known == out, "rules/CONFORMANCE.md is not that of the files: UPDATE_GOLDEN=1 writes it");
}

/// Lines that speak of operations in every way there is, and some that do not.
const LINES: &[&str] = &[
    "Operation: Set",
    "Operation: [Set, 'New*']",
    "Operation: [a1, b1, c1, d1, e1, f1, g1, h1, Set]",
    "Operation|expand: '%operations%'",
    "Operation|neq: Set",
    "Operation|cased: Set",
    "Operation|contains: e",
    "Operation|contains|all: [s, e]",
    "Operation|re: '^S'",
    "Operation|exists: false",
    "Operation: null",
    "operation_key: set",
    "operation_key|expand: '%operations%'",
    "A: x",
    "Target[any]: {Operation: Set}",
    "Target[all]: {Operation|neq: New}",
    "Target[Operation=Set].Operation: set",
    "A|fieldref: Operation",
];

const CONDITIONS: &[&str] =
    &["a", "not a", "a and b", "a or b", "a and not b", "1 of them", "all of them", "2 of them", "not (a or b)"];

const FILTERS: &[&str] = &["", "condition: a", "condition: not b, x-mode: include", "condition: 1 of them"];

const RECORDS: &[&str] = &[
    r#"{"Operation":"Set"}"#,
    r#"{"Operation":"sET."}"#,
    r#"{"Operation":"New","A":"x"}"#,
    r#"{"Operation":"H1","A":"h1"}"#,
    r#"{"Operation":["Set"],"A":"x"}"#,
    r#"{"Operation":null}"#,
    r#"{"Operation":7,"Target":[{"Operation":"Set"}]}"#,
    r#"{"Target":[{"Operation":"Set"},{"Operation":"New"}],"A":"x"}"#,
    r#"{"A":"x"}"#,
];

proptest::proptest! {
    #[test]
    fn the_index_loses_nothing_of_any_rule(
        rules in proptest::collection::vec((0..LINES.len(), 0..LINES.len(), 0..CONDITIONS.len()), 1..6),
        filter in (0..LINES.len(), 0..LINES.len(), 0..FILTERS.len()),
        is_measured in proptest::bool::ANY,
    ) {
        let mut text = String::from("x-lists: {operations: [Set, h1, 'N?w']}\n");
        for (at, (a, b, condition)) in rules.iter().enumerate() {
            write!(
                text,
                "---\ntitle: R\nid: r{at}\nlogsource: {{product: m365}}\ndetection:\n  a:\n    {}\n  b:\n    - {}\n    - {}\n  condition: {}\n",
                LINES[*a], LINES[*b], LINES[*a], CONDITIONS[*condition]
            )
            .unwrap();
        }
        let (a, b, condition) = filter;
        if !FILTERS[condition].is_empty() {
            write!(
                text,
                "---\ntitle: F\nid: f\nlogsource: {{product: m365}}\nfilter:\n  rules: any\n  a:\n    {}\n  b:\n    {}\n  {}\n",
                LINES[a], LINES[b], FILTERS[condition].replace(", ", "\n  ")
            )
            .unwrap();
        }
        let rules = RuleSet::load(vec![Source { file: "t.yml".into(), text: text.clone() }], &Tuning::default())
            .unwrap_or_else(|errors| panic!("{text}\n{errors}"));
        let matcher = Matcher::new(rules, BTreeMap::new());
        let events: Vec<Event> = RECORDS.iter().map(|record| event(record.as_bytes())).collect();
        if is_measured {
            matcher.measure(events.iter());
        }
        for record in RECORDS {
            let (mut by_index, mut naive) = (Vec::new(), Vec::new());
            let event = event(record.as_bytes());
            matcher.matches(&event, &mut by_index);
            matcher.naive(&event, &mut naive);
            assert_eq!(by_index, naive, "{text}\n{record}");
        }
    }
}

fn event(bytes: &[u8]) -> Event {
    let origin = Origin {
        tenant: "t1".parse().unwrap(),
        source: "import".into(),
        content_type: String::new(),
        blob_id: String::new(),
        received: "2026-11-22T10:00:00Z".parse().unwrap(),
        notify: true,
    };
    Event::read(&Received { origin, bytes: bytes.to_vec() }).unwrap()
}
