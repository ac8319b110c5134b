//! A rule around an operator, and a shard that is restarted after every batch and compared with one that never is.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use detect::correlate::{Change, Shard};
use detect::rule::model::{Kind, Needs, Operator, Rule};
use detect::rule::text::Template;
use schemas::finding::{Finding, Level};
use schemas::message::{Match, Observation};

use super::oracle;

/// Midnight of the day that tests count from.
pub fn base() -> DateTime<Utc> {
    "2026-10-05T00:00:00Z".parse().unwrap()
}

pub fn rule(operator: Operator, gap: TimeDelta) -> Rule {
    Rule {
        id: "rule".to_owned(),
        name: "rule".to_owned(),
        version: "0123456789ab".to_owned(),
        title: "A rule".to_owned(),
        description: String::new(),
        level: Level::Medium,
        attack: Vec::new(),
        false_positives: Vec::new(),
        references: Vec::new(),
        answers: Vec::new(),
        needs: Needs::default(),
        kind: Kind::Correlation { members: Vec::new(), learn_from: Vec::new() },
        group_by: vec!["group".to_owned()],
        gap,
        operator,
        weight: None,
        values: Vec::new(),
        stages: Vec::new(),
        outside: None,
        generates: true,
        reason: Template::parse("{user}: {count} of {weight} [{values}] in {minutes} min, usual {usual}").unwrap(),
        next: Vec::new(),
        entities: vec![("user".to_owned(), "user".to_owned())],
        shown: Vec::new(),
        tests: Vec::new(),
        file: String::new(),
        line: 1,
    }
}

/// A shard under test.
pub struct Runner {
    pub rule: Rule,
    shard: Shard,
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Newest revision of every finding.
    pub findings: BTreeMap<String, Finding>,
}

impl Runner {
    pub fn new(rule: Rule) -> Runner {
        Runner { rule, shard: Shard::default(), rows: BTreeMap::new(), findings: BTreeMap::new() }
    }

    /// Applies a batch, checks what must hold of every change, and returns it.
    pub fn apply(&mut self, matches: &[Match], observations: &[Observation]) -> Change {
        let mut restarted = Shard::load(self.rows.clone()).unwrap();
        let after_restart = restarted.apply(&self.rule, matches, observations);
        let change = self.shard.apply(&self.rule, matches, observations);
        assert_eq!(after_restart, change, "a restart before this batch changes it");
        let again = self.shard.apply(&self.rule, matches, observations);
        assert_eq!(again, Change::default(), "the same batch twice changes something");
        for (key, value) in &change.rows {
            match value {
                Some(value) => assert_ne!(self.rows.insert(key.clone(), value.clone()).as_ref(), Some(value)),
                None => assert!(self.rows.remove(key).is_some()),
            }
        }
        for finding in &change.findings {
            let before = self.findings.insert(finding.id.clone(), finding.clone());
            assert_eq!(finding.revision, before.as_ref().map_or(1, |before| before.revision + 1));
            assert_eq!(finding.superseded_by.is_some(), ["superseded", "merged"].contains(&finding.status.as_str()));
            if let Some(before) = before {
                assert!(before.status.stands() || finding.status.stands(), "told twice that it ended");
                let reads_the_same = oracle::of_finding(&before) == oracle::of_finding(finding);
                assert!(before.status != finding.status || !reads_the_same, "told twice");
                assert_eq!(before.created, finding.created);
                assert!(before.updated <= finding.updated);
            }
        }
        for successor in self.findings.values().filter_map(|finding| finding.superseded_by.as_ref()) {
            assert!(self.findings.contains_key(successor), "a successor that was never told");
        }
        change
    }

    /// From here on, a shard that was loaded from rows.
    pub fn restart(&mut self) {
        self.shard = Shard::load(self.rows.clone()).unwrap();
    }

    pub fn standing(&self) -> Vec<&Finding> {
        self.findings.values().filter(|finding| finding.status.stands()).collect()
    }
}
