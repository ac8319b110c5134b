//! Running the tests that rules carry: each as written, and again in ways that must not matter.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use schemas::envelope::{Origin, Received};
use schemas::tenant::Tenant;
use schemas::text::escape_controls;

use crate::matcher::Matcher;
use crate::offline::Offline;
use crate::rule::RuleSet;
use crate::rule::model::{Rule, RuleTest};

/// How a test's records are delivered. The findings must not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    AsWritten,
    Reversed,
    OneByOne,
    Twice,
    /// Every second record first, the others late.
    HalfLate,
}

impl Delivery {
    pub const ALL: [Delivery; 5] =
        [Delivery::AsWritten, Delivery::Reversed, Delivery::OneByOne, Delivery::Twice, Delivery::HalfLate];

    fn batches(self, records: &[Received]) -> Vec<Vec<Received>> {
        let all = records.to_vec();
        match self {
            Delivery::AsWritten => vec![all],
            Delivery::Reversed => vec![all.into_iter().rev().collect()],
            Delivery::OneByOne => all.into_iter().map(|record| vec![record]).collect(),
            Delivery::Twice => vec![all.clone(), all],
            Delivery::HalfLate => {
                let half = |parity| records.iter().skip(parity).step_by(2).cloned().collect();
                vec![half(0), half(1)]
            }
        }
    }
}

/// A test that did not hold.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{file}:{line}: test '{test}' of '{rule}', records {delivery:?}: {kind}")]
pub struct Failure {
    pub file: String,
    pub line: usize,
    pub rule: String,
    pub test: String,
    pub delivery: Delivery,
    pub kind: FailureKind,
}

/// What did not hold.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FailureKind {
    #[error("{found} findings, {expected} expected{}", shown(.reasons))]
    Count { found: usize, expected: usize, reasons: Vec<String> },
    #[error("no reason contains '{wanted}'{}", shown(.reasons))]
    Reason { wanted: String, reasons: Vec<String> },
    #[error("a record cannot be read")]
    Record,
}

fn shown(reasons: &[String]) -> String {
    reasons.iter().map(|reason| format!("\n    {reason}")).collect()
}

/// How many tests ran, and which did not hold.
#[derive(Debug, Default)]
pub struct Outcome {
    pub tests: usize,
    pub failures: Vec<Failure>,
    /// Rules without a test of each kind: one that finds something, and one that does not.
    pub untested: Vec<String>,
}

/// Runs the tests of every rule, or of the rule with this id or name, against the whole set.
pub fn run(rules: &RuleSet, only: Option<&str>) -> Outcome {
    let mut outcome = Outcome::default();
    let mut matchers = Matchers { rules, by_world: BTreeMap::new() };
    for rule in rules.rules().iter().filter(|rule| only.is_none_or(|name| rule.id == name || rule.name == name)) {
        let positive = rule.tests.iter().any(|test| test.findings > 0);
        let negative = rule.tests.iter().any(|test| test.findings == 0);
        if !(positive && negative) && rule.generates {
            outcome.untested.push(rule.name.clone());
        }
        for test in &rule.tests {
            outcome.tests += 1;
            let failure = Delivery::ALL.iter().find_map(|&delivery| {
                let kind = check(&mut matchers, rule, test, delivery).err()?;
                let (file, line, name) = (rule.file.clone(), test.line, test.name.clone());
                Some(Failure { file, line, rule: rule.name.clone(), test: name, delivery, kind })
            });
            outcome.failures.extend(failure);
        }
    }
    outcome
}

/// Whether the tests of the rule of this name hold with records as they are written; asks no further after the first that
/// does not. For whoever has changed a rule and wants to know whether its tests notice.
pub fn hold_as_written(rules: &RuleSet, name: &str) -> bool {
    let mut matchers = Matchers { rules, by_world: BTreeMap::new() };
    let named = rules.rules().iter().filter(|rule| rule.name == name);
    named
        .flat_map(|rule| rule.tests.iter().map(move |test| (rule, test)))
        .all(|(rule, test)| check(&mut matchers, rule, test, Delivery::AsWritten).is_ok())
}

/// Making a matcher costs far more than a test does, and most tests are of one organisation.
struct Matchers<'r> {
    rules: &'r RuleSet,
    by_world: BTreeMap<(&'r [String], String), Matcher>,
}

impl<'r> Matchers<'r> {
    fn of(&mut self, tenant: &Tenant, test: &'r RuleTest) -> &Matcher {
        self.by_world.entry((&test.domains, format!("{:?}", test.places))).or_insert_with(|| {
            let domains = BTreeMap::from([(tenant.clone(), test.domains.clone())]);
            Matcher::new(self.rules.clone(), domains).with_places(Arc::new(test.places.clone()))
        })
    }
}

fn check<'r>(
    matchers: &mut Matchers<'r>,
    rule: &Rule,
    test: &'r RuleTest,
    delivery: Delivery,
) -> Result<(), FailureKind> {
    let Ok(tenant) = "test".parse::<Tenant>() else { return Err(FailureKind::Record) };
    let rules = matchers.rules;
    let matcher = matchers.of(&tenant, test);
    let records: Vec<Received> = test.records.iter().map(|record| received(&tenant, record)).collect();
    let mut offline = Offline::new(rules, matcher);
    for batch in delivery.batches(&records) {
        offline.feed(&batch).map_err(|_| FailureKind::Record)?;
    }
    // A test is a whole story: nothing comes after it.
    offline.complete(DateTime::<Utc>::MAX_UTC);
    let reasons: Vec<String> =
        offline.standing().filter(|finding| finding.rule.id == rule.id).map(|f| f.reason.clone()).collect();
    if reasons.len() != test.findings {
        return Err(FailureKind::Count { found: reasons.len(), expected: test.findings, reasons });
    }
    match test.reason_contains.iter().find(|wanted| !reasons.iter().any(|reason| reason.contains(*wanted))) {
        Some(wanted) => Err(FailureKind::Reason { wanted: wanted.clone(), reasons }),
        None => Ok(()),
    }
}

fn received(tenant: &Tenant, record: &serde_json::Value) -> Received {
    let origin = Origin {
        tenant: tenant.clone(),
        source: "test".into(),
        content_type: String::new(),
        blob_id: String::new(),
        received: DateTime::<Utc>::UNIX_EPOCH,
        notify: true,
    };
    Received { origin, bytes: record.to_string().into_bytes() }
}

/// A failure's text for a terminal: nothing in it acts.
pub fn printable(failure: &Failure) -> String {
    failure.to_string().split('\n').map(escape_controls).collect::<Vec<_>>().join("\n")
}
