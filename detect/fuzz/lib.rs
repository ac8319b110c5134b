//! What the targets share: rules, a tenant, records.

use std::collections::BTreeMap;

use detect::matcher::Matcher;
use detect::rule::{RuleSet, Source, Tuning};
use schemas::Event;
use schemas::envelope::{Origin, Received};
use schemas::tenant::Tenant;

pub fn tenant() -> Tenant {
    "t".parse().unwrap()
}

pub fn received(bytes: &[u8]) -> Received {
    let origin = Origin {
        tenant: tenant(),
        source: "fuzz".into(),
        content_type: String::new(),
        blob_id: String::new(),
        received: chrono::DateTime::UNIX_EPOCH,
        notify: true,
    };
    Received { origin, bytes: bytes.to_vec() }
}

/// The embedded pack.
pub fn pack() -> RuleSet {
    let source = |(file, text): &(&str, &str)| Source { file: (*file).to_owned(), text: (*text).to_owned() };
    RuleSet::load(rules::pack().iter().map(source).collect(), &Tuning::default()).unwrap()
}

pub fn matcher(rules: RuleSet) -> Matcher {
    Matcher::new(rules, BTreeMap::from([(tenant(), vec!["contoso.example".to_owned()])]))
}

/// The records of the pack's own tests: one for most of what rules look at.
pub fn samples() -> Vec<Event> {
    let rules = pack();
    let tests = rules.rules().iter().flat_map(|rule| rule.tests.iter().take(1));
    let records = tests.flat_map(|test| test.records.iter().take(1));
    records.filter_map(|record| Event::read(&received(record.to_string().as_bytes())).ok()).collect()
}

/// Holds the index to its word: what it leaves out does not match.
pub fn assert_like_naive(matcher: &Matcher, event: &Event) {
    let (mut found, mut expected) = (Vec::new(), Vec::new());
    matcher.matches(event, &mut found);
    matcher.naive(event, &mut expected);
    assert!(found == expected, "the index leaves out what the naive matcher finds, or the other way round");
}
