//! What waits to be complete: findings that say something did not happen, and may be told once nothing more can come.
//!
//! # The guarantee
//!
//! A shard is told how far the set is complete only if every match up to then is already in it: each partition of `records`
//! passes the marks of its feeds on behind what they speak of, and the least of all is taken. A rule that came later, or
//! means something else now, is told nothing until it has been shown the archive. What is true of rules is not kept: a detector that was
//! restarted decides nothing until partition 0 passes the next mark on, some minutes later.
//!
//! | key | what |
//! |---|---|
//! | 7, tenant, 0, second, shard, told | rule and version: at this moment the shard may have something to decide |

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use runtime::log::{Log, LogError, StateChange, Store};
use schemas::envelope::Mark;
use schemas::message::{Match, Passed};
use schemas::tenant::Tenant;

use super::forgetting::Forgetting;
use super::layout::Place;
use super::rule_books::Editions;
use crate::rule::{Operator, Rule};

const DUE: u8 = 7;

/// Moments are kept to this many seconds: a burst is one row.
const GRAIN_SECS: i64 = 60;

/// How far the feeds of each tenant have come, and who waits for it.
pub(super) struct Awaiting {
    partition: u32,
    /// By tenant, feed and partition of `records`.
    marks: BTreeMap<(Tenant, String, u32), DateTime<Utc>>,
    /// What was true of rules when partition 0 last passed a mark on.
    epoch: u64,
    behind: BTreeSet<String>,
    due: BTreeMap<Tenant, BTreeSet<Due>>,
}

/// A shard that may have something to decide at a moment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due {
    second: i64,
    pub(super) place: Place,
    pub(super) rule: String,
    version: String,
}

impl Due {
    fn key(&self, tenant: &Tenant) -> Vec<u8> {
        let second = (self.second as u64 ^ (1 << 63)).to_be_bytes();
        let Place { shard, told } = self.place;
        [&[DUE][..], tenant.as_str().as_bytes(), b"\0", &second, &shard.to_be_bytes(), &told.to_be_bytes()].concat()
    }

    fn read(key: &[u8], value: &[u8]) -> Option<(Tenant, Due)> {
        let (name, rest) = key.get(1..)?.split_at_checked(key.get(1..)?.iter().position(|byte| *byte == 0)?)?;
        let (second, rest) = rest.get(1..)?.split_first_chunk::<8>()?;
        let (shard, told) = rest.split_first_chunk::<16>()?;
        let (rule, version) = serde_json::from_slice(value).ok()?;
        let second = (u64::from_be_bytes(*second) ^ (1 << 63)) as i64;
        let place = Place { shard: u128::from_be_bytes(*shard), told: u128::from_be_bytes(told.try_into().ok()?) };
        Some((std::str::from_utf8(name).ok()?.parse().ok()?, Due { second, place, rule, version }))
    }
}

impl Awaiting {
    /// What is committed.
    pub(super) async fn load(log: &dyn Log, partition: u32, forgetting: &Forgetting) -> Result<Awaiting, LogError> {
        let mut due: BTreeMap<Tenant, BTreeSet<Due>> = BTreeMap::new();
        for (key, value) in log.scan(Store::Correlate, partition, &[DUE]).await? {
            if let Some((tenant, one)) = Due::read(&key, &value) {
                due.entry(tenant).or_default().insert(one);
            }
        }
        let marks = forgetting.marks().map(|(feed, until)| (feed.clone(), *until)).collect();
        Ok(Awaiting { partition, marks, epoch: 0, behind: BTreeSet::new(), due })
    }

    /// Takes note of a mark.
    pub(super) fn mark(&mut self, passed: &Passed) {
        let Passed { partition, epoch, behind, mark: Mark { tenant, content_type, until } } = passed;
        if *partition == 0 {
            (self.epoch, self.behind) = (*epoch, behind.iter().cloned().collect());
        }
        let newest = self.marks.entry((tenant.clone(), content_type.clone(), *partition)).or_insert(*until);
        *newest = (*until).max(*newest);
    }

    /// Up to when this rule has all matches of a tenant, as far as `partitions` partitions of `records` have said.
    pub(super) fn complete(
        &self,
        tenant: &Tenant,
        rule: &Rule,
        (editions, partitions): (&Editions, u32),
    ) -> Option<DateTime<Utc>> {
        self.least(tenant, partitions).filter(|_| self.is_caught_up(rule, editions))
    }

    /// Whether a rule was shown all that was there before it.
    fn is_caught_up(&self, rule: &Rule, editions: &Editions) -> bool {
        !self.behind.contains(&rule.id)
            && editions.rule(self.epoch, &rule.id).is_some_and(|known| known.version == rule.version)
    }

    /// The least mark of a tenant's feeds, once all partitions have passed on one of each.
    fn least(&self, tenant: &Tenant, partitions: u32) -> Option<DateTime<Utc>> {
        let from = (tenant.clone(), String::new(), 0);
        let of_tenant = self.marks.range(from..).take_while(|((whose, ..), _)| whose == tenant);
        let (mut least, mut count) = (None::<DateTime<Utc>>, 0_u64);
        let mut feeds: BTreeSet<&str> = BTreeSet::new();
        for ((_, feed, _), until) in of_tenant {
            feeds.insert(feed);
            count += 1;
            least = Some(least.map_or(*until, |least| least.min(*until)));
        }
        least.filter(|_| count == feeds.len() as u64 * u64::from(partitions))
    }

    /// Notes when the shard has to be asked again, for matches that it cannot decide yet.
    pub(super) fn wait_for(
        &mut self,
        tenant: &Tenant,
        place: Place,
        rule: &Rule,
        (matches, complete): (&[Match], Option<DateTime<Utc>>),
        out: &mut Vec<StateChange>,
    ) {
        let Operator::Absence(absence) = &rule.operator else { return };
        for matched in matches.iter().filter(|matched| !absence.expect.contains(&matched.member)) {
            let Some(at) = matched.event_time.checked_add_signed(absence.wait()) else { continue };
            if complete.is_some_and(|complete| at <= complete) {
                continue;
            }
            let second = at.timestamp().div_euclid(GRAIN_SECS).saturating_add(1).saturating_mul(GRAIN_SECS);
            let due = Due { second, place, rule: rule.id.clone(), version: rule.version.clone() };
            let value = serde_json::to_vec(&(&due.rule, &due.version)).unwrap_or_default();
            let (key, partition) = (due.key(tenant), self.partition);
            if self.due.entry(tenant.clone()).or_default().insert(due) {
                out.push(StateChange { store: Store::Correlate, partition, key, value: Some(value) });
            }
        }
    }

    /// Who may have something to decide now, each shard once; they are not named again. What waits for a rule that is not
    /// there any more is dropped. Cost: what is due, and what is due and waits for its rule.
    pub(super) fn take_due(
        &mut self,
        editions: &Editions,
        partitions: u32,
        out: &mut Vec<StateChange>,
    ) -> Vec<(Tenant, Due)> {
        let mut taken: BTreeMap<(Tenant, Place), Due> = BTreeMap::new();
        let tenants: Vec<Tenant> = self.due.keys().cloned().collect();
        for tenant in tenants {
            let Some(least) = self.least(&tenant, partitions) else { continue };
            let waiting = self.due.remove(&tenant).unwrap_or_default();
            let (come, mut left) = due_at(waiting, least.timestamp());
            for due in come {
                let newest = editions.newest(&due.rule).map(|(_, rule)| rule);
                let rule = newest.filter(|rule| rule.version == due.version);
                if rule.is_some_and(|rule| !self.is_caught_up(rule, editions)) {
                    left.insert(due);
                    continue;
                }
                let (key, partition) = (due.key(&tenant), self.partition);
                out.push(StateChange { store: Store::Correlate, partition, key, value: None });
                if rule.is_some() {
                    taken.insert((tenant.clone(), due.place), due);
                }
            }
            if !left.is_empty() {
                self.due.insert(tenant, left);
            }
        }
        taken.into_iter().map(|((tenant, _), due)| (tenant, due)).collect()
    }
}

/// What is due at this second, and the rest. What waits is in the order of its seconds.
fn due_at(mut waiting: BTreeSet<Due>, second: i64) -> (Vec<Due>, BTreeSet<Due>) {
    let mut come = Vec::new();
    while waiting.first().is_some_and(|due| due.second <= second) {
        come.extend(waiting.pop_first());
    }
    (come, waiting)
}

#[cfg(test)]
mod tests;
