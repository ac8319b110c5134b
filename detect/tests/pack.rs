//! The embedded rule pack: every rule loads, carries a test that finds and one that does not, and all of them hold,
//! whatever order the records come in. And the index over them loses nothing.

use std::collections::BTreeMap;

use detect::matcher::Matcher;
use detect::rule::{RuleSet, Source, Tuning};
use detect::rule_test;
use schemas::Event;
use schemas::envelope::{Origin, Received};
use serde_json::{Value as Json, json};

#[test]
fn every_rule_of_the_pack_does_what_its_tests_say() {
    let sources = rules::pack().iter().map(|(file, text)| Source { file: (*file).into(), text: (*text).into() });
    let rules = RuleSet::load(sources.collect(), &Tuning::default()).unwrap_or_else(|errors| panic!("{errors}"));
    let outcome = rule_test::run(&rules, None);
    for failure in &outcome.failures {
        eprintln!("{}", rule_test::printable(failure));
    }
    assert!(outcome.failures.is_empty(), "{} of {} tests do not hold", outcome.failures.len(), outcome.tests);
    assert_eq!(outcome.untested, Vec::<String>::new(), "rules without a test that finds and one that does not");
}

/// Every record of the pack's own tests, and what becomes of it when its operation is written in another way.
fn records(rules: &RuleSet) -> Vec<Json> {
    let originals = rules.rules().iter().flat_map(|rule| &rule.tests).flat_map(|test| &test.records);
    let originals: Vec<Json> = originals.cloned().collect();
    let mut records = originals.clone();
    for record in originals {
        let Some(operation) = record["Operation"].as_str().map(str::to_owned) else { continue };
        let spellings =
            [operation.to_uppercase().into(), format!(" {operation}. ").into(), json!([operation]), json!(7)];
        for spelling in spellings {
            let mut record = record.clone();
            record["Operation"] = spelling;
            records.push(record);
        }
    }
    records
}

#[test]
fn the_index_leaves_every_rule_in_that_holds() {
    let own = r#"
title: Alternatives
id: alternatives
logsource: {product: m365}
detection:
    one: {Operation: [userloggedin, New-InboxRule]}
    two: {operation_key|contains: rule}
    three: {operation_key: add member to role, Workload: AzureActiveDirectory}
    not_this: {Operation: UserLoginFailed}
    condition: (one or three) or (two and not not_this) or 1 of t*
"#;
    let sources = rules::pack().iter().map(|(file, text)| Source { file: (*file).into(), text: (*text).into() });
    let sources = sources.chain([Source { file: "own.yml".into(), text: own.into() }]);
    let rules = RuleSet::load(sources.collect(), &Tuning::default()).unwrap_or_else(|errors| panic!("{errors}"));
    let matcher = Matcher::new(rules.clone(), BTreeMap::new());
    let events: Vec<Event> = records(&rules).iter().map(event).collect();
    let by_index = |event: &Event| {
        let mut found = Vec::new();
        (matcher.matches(event, &mut found), found)
    };
    let guessed: Vec<_> = events.iter().map(by_index).collect();
    matcher.measure(events.iter());
    for (event, guessed) in events.iter().zip(guessed) {
        let mut found = Vec::new();
        let naive = (matcher.naive(event, &mut found), found);
        assert_eq!(guessed, naive, "{}", event.id());
        assert_eq!(by_index(event), naive, "{}: measured", event.id());
    }
}

fn event(record: &Json) -> Event {
    let origin = Origin {
        tenant: "t1".parse().unwrap(),
        source: "import".into(),
        content_type: String::new(),
        blob_id: String::new(),
        received: "2026-11-22T10:00:00Z".parse().unwrap(),
        notify: true,
    };
    Event::read(&Received { origin, bytes: record.to_string().into_bytes() }).unwrap()
}
