//! All of detection in memory: records in, findings out, no log. For the tests that rules carry, and as the plainest
//! statement of what the services do.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use schemas::envelope::Received;
use schemas::event::NotARecord;
use schemas::finding::Finding;
use schemas::message::{Match, MatchMessage, Observation, Verdict};
use schemas::{Event, tenant::Tenant};

use crate::admit::Admit;
use crate::correlate::{Past, Shard};
use crate::matcher::Matcher;
use crate::rule::{Operator, RuleSet};
use crate::shard_key;

/// A detector that forgets everything when it is dropped.
pub struct Offline<'r> {
    rules: &'r RuleSet,
    matcher: &'r Matcher,
    admit: Admit,
    shards: BTreeMap<u128, Shard>,
    /// Of the shards that wait for completeness: whose they are.
    waiting: BTreeMap<u128, String>,
    findings: BTreeMap<(Tenant, String), Finding>,
}

impl<'r> Offline<'r> {
    pub fn new(rules: &'r RuleSet, matcher: &'r Matcher) -> Offline<'r> {
        Offline {
            rules,
            matcher,
            admit: Admit::default(),
            shards: BTreeMap::new(),
            waiting: BTreeMap::new(),
            findings: BTreeMap::new(),
        }
    }

    /// Takes in a batch of records.
    pub fn feed(&mut self, records: &[Received]) -> Result<(), NotARecord> {
        let mut found = Vec::new();
        for record in records {
            let event = Event::read(record)?;
            if self.admit.judge(&event) != Verdict::Duplicate {
                self.matcher.matches(&event, &mut found);
            }
        }
        self.correlate(found);
        Ok(())
    }

    /// Takes in records that have been admitted, each once: those of the archive. Nothing is remembered of them but what
    /// rules make of them.
    pub fn feed_admitted(&mut self, events: &[Event]) {
        let mut found = Vec::new();
        events.iter().for_each(|event| drop(self.matcher.matches(event, &mut found)));
        self.correlate(found);
    }

    /// Nothing that became available before this moment is still to come.
    pub fn complete(&mut self, until: DateTime<Utc>) {
        for (key, rule_id) in &self.waiting {
            let (Some(rule), Some(shard)) = (self.rules.find(rule_id), self.shards.get_mut(key)) else { continue };
            let Operator::Absence(absence) = &rule.operator else { continue };
            let whole = [absence.whole(DateTime::<Utc>::MIN_UTC, until)];
            let past = Past { whole: &whole, ..Past::default() };
            for finding in shard.apply_after(rule, &past, &[], &[]).findings {
                self.findings.insert((finding.tenant.clone(), finding.id.clone()), finding);
            }
        }
    }

    /// How many members, episodes and sightings it holds. Cost: the number of groups.
    pub fn entries(&self) -> usize {
        self.shards.values().map(Shard::entries).sum()
    }

    fn correlate(&mut self, found: Vec<MatchMessage>) {
        let mut matches: BTreeMap<(String, u128), (Vec<Match>, Vec<Observation>)> = BTreeMap::new();
        for message in found {
            match message {
                MatchMessage::Match(found) => {
                    let Some(rule) = self.rules.find(&found.rule_id) else { continue };
                    let key = shard_key(&found.tenant, rule, &found.shard);
                    matches.entry((rule.id.clone(), key)).or_default().0.push(found);
                }
                MatchMessage::Observation(seen) => {
                    let Some(rule) = self.rules.find(&seen.rule_id) else { continue };
                    let key = shard_key(&seen.tenant, rule, &seen.shard);
                    matches.entry((rule.id.clone(), key)).or_default().1.push(seen);
                }
                MatchMessage::Mark(_)
                | MatchMessage::Heartbeat(_)
                | MatchMessage::Rules(_)
                | MatchMessage::Followed(_) => {}
            }
        }
        for ((rule_id, key), (matches, observations)) in matches {
            let Some(rule) = self.rules.find(&rule_id) else { continue };
            if let Operator::Absence(_) = rule.operator {
                self.waiting.insert(key, rule_id);
            }
            let change = self.shards.entry(key).or_default().apply(rule, &matches, &observations);
            for finding in change.findings {
                self.findings.insert((finding.tenant.clone(), finding.id.clone()), finding);
            }
        }
    }

    /// The findings that stand.
    pub fn standing(&self) -> impl Iterator<Item = &Finding> {
        self.findings.values().filter(|finding| finding.status.stands())
    }
}
