//! One message in place of many: for findings that are too old to wake anybody, and for storms. It names every finding
//! that it stands for, as far as one message can, so that nothing is lost in it.
//!
//! A digest speaks of one tenant: what a receiver passes on must not mix two customers.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use schemas::finding::{Finding, Level};
use schemas::json::key_id;
use schemas::tenant::Tenant;
use serde::{Deserialize, Serialize};

use crate::body::{self, Message, to_line};
use crate::entry::{How, Tries};

/// The schema name that every digest carries.
pub const SCHEMA: &str = "harrier.digest/1";

/// Most deliveries that one digest names: with their 48 bytes each the body stays below 20 kB.
pub const FINDINGS_MAX: usize = 250;

/// Most rules that one digest counts by name; the others are counted together.
const RULES_MAX: usize = 16;

/// Longest name of a rule in a digest.
const RULE_ID_CHARACTERS_MAX: usize = 60;

/// Digests of old findings follow one another no faster: until one has gone, it takes in what comes.
pub const INTERVAL: TimeDelta = TimeDelta::minutes(10);

/// A digest that waits to be delivered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Digest {
    /// Its `webhook-id`.
    pub id: String,
    pub tenant: Tenant,
    pub how: How,
    pub created: DateTime<Utc>,
    pub not_before: DateTime<Utc>,
    pub count: u64,
    by_rule: BTreeMap<String, RuleCount>,
    pub first_event: DateTime<Utc>,
    pub last_event: DateTime<Utc>,
    /// The `webhook-id` each finding would have gone out under.
    pub findings: Vec<String>,
    pub sending: bool,
    pub tries: Tries,
    #[serde(skip)]
    pub partition: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct RuleCount {
    level: Level,
    count: u64,
}

impl Digest {
    pub(crate) fn new(sink: &str, first: &Finding, how: How, partition: u32, now: DateTime<Utc>) -> Digest {
        let made = now.timestamp_micros().to_string();
        // Of a finding's revision, a moment and a sink there is one: no two digests share an id.
        let id = format!("digest_{}", &key_id(&[sink, &body::webhook_id(first), &made])[..24]);
        Digest {
            id,
            tenant: first.tenant.clone(),
            how,
            created: now,
            not_before: now,
            count: 0,
            by_rule: BTreeMap::new(),
            first_event: first.first_event,
            last_event: first.last_event,
            findings: Vec::new(),
            sending: false,
            tries: Tries::default(),
            partition,
        }
    }

    /// Whether it may still change: what may have arrived must stay as it is.
    pub(crate) fn is_untouched(&self) -> bool {
        !self.sending && self.tries == Tries::default()
    }

    pub(crate) fn add(&mut self, finding: &Finding) {
        self.count += 1;
        let mut rule: String = finding.rule.id.chars().take(RULE_ID_CHARACTERS_MAX).collect();
        if !self.by_rule.contains_key(&rule) && self.by_rule.len() >= RULES_MAX {
            rule = "(other rules)".to_owned();
        }
        let level = finding.rule.level;
        let entry = self.by_rule.entry(rule).or_insert(RuleCount { level, count: 0 });
        entry.count += 1;
        entry.level = entry.level.max(level);
        self.first_event = self.first_event.min(finding.first_event);
        self.last_event = self.last_event.max(finding.last_event);
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(body::webhook_id(finding));
        }
    }

    pub(crate) fn due_at(&self) -> DateTime<Utc> {
        if self.sending { self.not_before } else { self.tries.at.unwrap_or(self.not_before) }
    }

    /// The body, on one line.
    pub(crate) fn body(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Data<'a> {
            schema: &'static str,
            id: &'a str,
            tenant: &'a str,
            reason: String,
            count: u64,
            by_rule: &'a BTreeMap<String, RuleCount>,
            first_event: DateTime<Utc>,
            last_event: DateTime<Utc>,
            findings: &'a [String],
            not_listed: u64,
            next: &'static str,
        }
        to_line(&Message {
            kind: "finding.digest",
            timestamp: self.created,
            data: Data {
                schema: SCHEMA,
                id: &self.id,
                tenant: self.tenant.as_str(),
                reason: self.reason(),
                count: self.count,
                by_rule: &self.by_rule,
                first_event: self.first_event,
                last_event: self.last_event,
                findings: &self.findings,
                not_listed: self.count.saturating_sub(self.findings.len() as u64),
                next: "harrier findings list",
            },
        })
    }

    fn reason(&self) -> String {
        match self.how {
            How::Old => "these findings began longer ago than this sink's max_age".to_owned(),
            How::Backlog => "more messages are waiting for this sink than are kept one by one".to_owned(),
            How::Storm | How::Single => format!(
                "more than {} messages in {} minutes: until the storm is over, findings are collected in digests",
                crate::outbox::STORM_MESSAGES_MAX,
                crate::outbox::STORM_WINDOW.num_minutes()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{HOSTILE, finding, start};

    #[test]
    fn a_full_digest_is_small_and_counts_what_it_does_not_list() {
        let template = finding(&"0".repeat(32), 1);
        let mut digest = Digest::new("soc", &template, How::Old, 0, start());
        for number in 0..1_000 {
            let mut finding = finding(&format!("{number:032x}"), 99);
            finding.status = schemas::finding::Status::Superseded;
            finding.rule.id = format!("{number}{}", HOSTILE[number % HOSTILE.len()].repeat(9));
            digest.add(&finding);
        }
        let bytes = digest.body();
        assert!(bytes.len() <= crate::body::BODY_BYTES_MAX, "{}", bytes.len());
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(value["data"]["count"], 1_000);
        assert_eq!(value["data"]["not_listed"], 1_000 - FINDINGS_MAX);
        assert_eq!(value["data"]["by_rule"].as_object().unwrap().len(), RULES_MAX + 1);
    }
}
