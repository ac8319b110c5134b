//! What waits to be complete: findings that say something did not happen, and may be told once nothing more can come.
//!
//! # The guarantee
//!
//! A shard is told where the set is whole only if every match of that time is already in it: each partition of `records`
//! passes marks on behind what they speak of. Of the feeds of a tenant the latest beginning and the least mark are taken; a
//! stretch that was imported whole stands beside that, and moves no mark. A rule that came later, or means something else
//! now, is told nothing until it has been shown the archive, which partition 0 says of the rules of its epoch.
//!
//! | key | what |
//! |---|---|
//! | 7, tenant, 0, second, shard, told | rule and version: at this moment the shard may have something to decide |
//! | 8, tenant, 0, since, until, partition | this partition of `records` has passed on that the stretch was imported whole |
//! | 9 | the epoch of partition 0, and which of its rules were behind |

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use runtime::log::{Log, LogError, StateChange, Store};
use schemas::envelope::Mark;
use schemas::message::{Match, Passed};
use schemas::tenant::Tenant;

use super::forgetting::{Forgetting, Reach};
use super::layout::Place;
use super::rule_books::Editions;
use crate::rule::model::Absence;
use crate::rule::{Operator, Rule};

const DUE: u8 = 7;
const IMPORTED: u8 = 8;
const RULES: u8 = 9;

/// Moments are kept to this many seconds: a burst is one row.
const GRAIN_SECS: i64 = 60;

/// Stretches of one tenant that were imported whole and do not touch one another: every other day of some three years.
/// More are not taken down: what waits for them is not told.
const IMPORTED_MAX: usize = 500;

/// A stretch of event time, both ends in it.
type Stretch = (DateTime<Utc>, DateTime<Utc>);

/// The stretches that were imported whole, with the partitions that have passed it on.
type Imported = BTreeMap<Stretch, BTreeSet<u32>>;

/// Where the set is whole, and who waits for it.
pub(super) struct Awaiting {
    partition: u32,
    /// By tenant, feed and partition of `records`.
    marks: BTreeMap<(Tenant, String, u32), Reach>,
    imported: BTreeMap<Tenant, Imported>,
    /// Those of whom an import was whole, or something came that may be decided by one, since all that waits was last
    /// looked at.
    fresh: BTreeSet<Tenant>,
    /// What was true of rules when partition 0 last said so.
    epoch: u64,
    behind: BTreeSet<String>,
    due: BTreeMap<Tenant, BTreeSet<Due>>,
    /// What is due and lies where the set is not whole, from before the feeds: an import may make it so.
    early: BTreeMap<Tenant, BTreeSet<Due>>,
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
        let second = sortable(self.second);
        let Place { shard, told } = self.place;
        [&[DUE][..], tenant.as_str().as_bytes(), b"\0", &second, &shard.to_be_bytes(), &told.to_be_bytes()].concat()
    }

    fn read(key: &[u8], value: &[u8]) -> Option<(Tenant, Due)> {
        let (tenant, rest) = tenant_of(key)?;
        let (second, rest) = rest.split_first_chunk::<8>()?;
        let (shard, told) = rest.split_first_chunk::<16>()?;
        let (rule, version) = serde_json::from_slice(value).ok()?;
        let place = Place { shard: u128::from_be_bytes(*shard), told: u128::from_be_bytes(told.try_into().ok()?) };
        Some((tenant, Due { second: sorted(*second), place, rule, version }))
    }

    /// Whether some of the records that it is about may be decided, and whether all are.
    fn decided(&self, rule: &Absence, whole: &[Stretch]) -> (bool, bool) {
        // They lie in the minute before this, less what they wait.
        let last = self.second.saturating_sub(rule.wait().num_seconds());
        let followed = rule.timespan.num_seconds();
        let first = last.saturating_sub(GRAIN_SECS);
        let touches =
            |(since, until): &Stretch| since.timestamp() <= last && first.saturating_add(followed) <= until.timestamp();
        let holds =
            |(since, until): &Stretch| since.timestamp() < first && last.saturating_add(followed) <= until.timestamp();
        (whole.iter().any(touches), whole.iter().any(holds))
    }
}

/// The tenant that a row is of, and what follows.
fn tenant_of(key: &[u8]) -> Option<(Tenant, &[u8])> {
    let name = key.get(1..)?;
    let (name, rest) = name.split_at_checked(name.iter().position(|byte| *byte == 0)?)?;
    Some((std::str::from_utf8(name).ok()?.parse().ok()?, rest.get(1..)?))
}

/// Held at the end of time.
fn later(time: DateTime<Utc>, delta: TimeDelta) -> DateTime<Utc> {
    time.checked_add_signed(delta).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// A moment as bytes that sort as it does.
fn sortable(second: i64) -> [u8; 8] {
    (second as u64 ^ (1 << 63)).to_be_bytes()
}

fn sorted(bytes: [u8; 8]) -> i64 {
    (u64::from_be_bytes(bytes) ^ (1 << 63)) as i64
}

fn imported_key(tenant: &Tenant, (since, until): Stretch, partition: u32) -> Vec<u8> {
    let (since, until) = (sortable(since.timestamp()), sortable(until.timestamp()));
    [&[IMPORTED][..], tenant.as_str().as_bytes(), b"\0", &since, &until, &partition.to_be_bytes()].concat()
}

fn read_imported(key: &[u8]) -> Option<(Tenant, Stretch, u32)> {
    let (tenant, rest) = tenant_of(key)?;
    let (since, rest) = rest.split_first_chunk::<8>()?;
    let (until, partition) = rest.split_first_chunk::<8>()?;
    let moment = |bytes: [u8; 8]| DateTime::from_timestamp(sorted(bytes), 0);
    Some((tenant, (moment(*since)?, moment(*until)?), u32::from_be_bytes(partition.try_into().ok()?)))
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
        let mut imported: BTreeMap<Tenant, Imported> = BTreeMap::new();
        for (key, _) in log.scan(Store::Correlate, partition, &[IMPORTED]).await? {
            if let Some((tenant, stretch, of)) = read_imported(&key) {
                imported.entry(tenant).or_default().entry(stretch).or_default().insert(of);
            }
        }
        let fresh = imported.keys().cloned().collect();
        let marks = forgetting.marks().map(|(feed, reach)| (feed.clone(), *reach)).collect();
        let rules = log.scan(Store::Correlate, partition, &[RULES]).await?;
        // Where it cannot be read nobody is caught up until partition 0 says it again.
        let rules = rules.first().and_then(|(_, value)| serde_json::from_slice(value).ok());
        let (epoch, behind) = rules.unwrap_or_default();
        let early = BTreeMap::new();
        Ok(Awaiting { partition, marks, imported, fresh, epoch, behind, due, early })
    }

    /// Takes note of what one of `partitions` partitions of `records` has passed on. False if there was no room for it.
    pub(super) fn passed(&mut self, passed: &Passed, partitions: u32, out: &mut Vec<StateChange>) -> bool {
        let Passed { partition, epoch, behind, mark } = passed;
        let rules = (*epoch, behind.iter().cloned().collect::<BTreeSet<String>>());
        if *partition == 0 && (self.epoch, &self.behind) != (rules.0, &rules.1) {
            let value = Some(serde_json::to_vec(&rules).unwrap_or_default());
            out.push(StateChange { store: Store::Correlate, partition: self.partition, key: vec![RULES], value });
            (self.epoch, self.behind) = rules;
        }
        let Some(Mark { tenant, content_type, since, until }) = mark else { return true };
        if let (Some(mark), Some(since)) = (mark.as_ref().filter(|mark| mark.is_of_import()), since) {
            // To whole seconds, as rows are, and never to more than was said.
            let (until, whole) = (mark.until.trunc_subsecs(0), since.trunc_subsecs(0));
            let since = if whole < *since { later(whole, TimeDelta::seconds(1)) } else { whole };
            return since > until || self.import((tenant, (since, until), *partition), partitions, out);
        }
        let newest = self.marks.entry((tenant.clone(), content_type.clone(), *partition));
        let newest = newest.or_insert(Reach { since: *since, until: *until });
        *newest = Reach { since: *since, until: newest.until.max(*until) };
        true
    }

    fn import(
        &mut self,
        (tenant, stretch, partition): (&Tenant, Stretch, u32),
        partitions: u32,
        out: &mut Vec<StateChange>,
    ) -> bool {
        let imported = self.imported.entry(tenant.clone()).or_default();
        if imported.len() >= IMPORTED_MAX && !imported.contains_key(&stretch) {
            return false;
        }
        let before = imported.clone();
        let passed = imported.entry(stretch).or_default();
        passed.insert(partition);
        if passed.len() == partitions as usize {
            join(imported, partitions);
            self.fresh.insert(tenant.clone());
        }
        let rows = |imported: &Imported| -> BTreeSet<(Stretch, u32)> {
            let each = imported.iter().flat_map(|(stretch, of)| of.iter().map(|partition| (*stretch, *partition)));
            each.collect()
        };
        let (before, now) = (rows(&before), rows(imported));
        let change = |(stretch, of): &(Stretch, u32), value| StateChange {
            store: Store::Correlate,
            partition: self.partition,
            key: imported_key(tenant, *stretch, *of),
            value,
        };
        out.extend(before.difference(&now).map(|row| change(row, None)));
        out.extend(now.difference(&before).map(|row| change(row, Some(Vec::new()))));
        true
    }

    /// Where this rule has all matches of a tenant, as far as `partitions` partitions of `records` have said; nowhere if it
    /// does not ask.
    pub(super) fn whole(&self, tenant: &Tenant, rule: &Rule, (editions, partitions): (&Editions, u32)) -> Vec<Stretch> {
        match &rule.operator {
            Operator::Absence(absence) if self.is_caught_up(rule, editions) => {
                self.stretches(tenant, absence, partitions)
            }
            _ => Vec::new(),
        }
    }

    fn stretches(&self, tenant: &Tenant, rule: &Absence, partitions: u32) -> Vec<Stretch> {
        let of_feeds = self
            .reach(tenant, partitions)
            .map(|Reach { since, until }| rule.whole(since.unwrap_or(DateTime::<Utc>::MIN_UTC), until));
        let imported = self.imported.get(tenant).into_iter().flatten();
        let imported = imported.filter(|(_, passed)| passed.len() == partitions as usize);
        of_feeds.into_iter().chain(imported.map(|(stretch, _)| *stretch)).collect()
    }

    /// Whether a rule was shown all that was there before it.
    fn is_caught_up(&self, rule: &Rule, editions: &Editions) -> bool {
        !self.behind.contains(&rule.id)
            && editions.rule(self.epoch, &rule.id).is_some_and(|known| known.version == rule.version)
    }

    /// From the latest beginning of a tenant's feeds to their least mark, once all partitions have passed on one of each.
    fn reach(&self, tenant: &Tenant, partitions: u32) -> Option<Reach> {
        let from = (tenant.clone(), String::new(), 0);
        let of_tenant = self.marks.range(from..).take_while(|((whose, ..), _)| whose == tenant);
        let (mut least, mut count) = (None::<Reach>, 0_u64);
        let mut feeds: BTreeSet<&str> = BTreeSet::new();
        for ((_, feed, _), reach) in of_tenant {
            feeds.insert(feed);
            count += 1;
            least = Some(least.map_or(*reach, |least| Reach {
                since: least.since.max(reach.since),
                until: least.until.min(reach.until),
            }));
        }
        least.filter(|_| count == feeds.len() as u64 * u64::from(partitions))
    }

    /// Notes when the shard has to be asked again, for matches that it cannot decide yet.
    pub(super) fn wait_for(
        &mut self,
        tenant: &Tenant,
        place: Place,
        rule: &Rule,
        (matches, whole): (&[Match], &[Stretch]),
        out: &mut Vec<StateChange>,
    ) {
        let Operator::Absence(absence) = &rule.operator else { return };
        for matched in matches.iter().filter(|matched| !absence.expect.contains(&matched.member)) {
            let Some(at) = matched.event_time.checked_add_signed(absence.wait()) else { continue };
            let followed = matched.event_time + absence.timespan;
            if whole.iter().any(|(since, until)| *since <= matched.event_time && followed <= *until) {
                continue;
            }
            let second = at.timestamp().div_euclid(GRAIN_SECS).saturating_add(1).saturating_mul(GRAIN_SECS);
            let due = Due { second, place, rule: rule.id.clone(), version: rule.version.clone() };
            let value = serde_json::to_vec(&(&due.rule, &due.version)).unwrap_or_default();
            let (key, partition) = (due.key(tenant), self.partition);
            // It waits for its rule, then, and no mark need come.
            let imported: Vec<Stretch> = self.imported.get(tenant).into_iter().flatten().map(|(one, _)| *one).collect();
            if due.decided(absence, &imported).0 {
                self.fresh.insert(tenant.clone());
            }
            if self.due.entry(tenant.clone()).or_default().insert(due) {
                out.push(StateChange { store: Store::Correlate, partition, key, value: Some(value) });
            }
        }
    }

    /// Who may have something to decide now, each shard once. Those that have decided all are not named again, and what waits
    /// for a rule that is not there any more is dropped. Cost: what is due, and what is due and waits for its rule; after
    /// an import that was whole, all that waits.
    pub(super) fn take_due(
        &mut self,
        editions: &Editions,
        partitions: u32,
        out: &mut Vec<StateChange>,
    ) -> Vec<(Tenant, Due)> {
        let mut taken: BTreeMap<(Tenant, Place), Due> = BTreeMap::new();
        let tenants: BTreeSet<Tenant> = self.due.keys().chain(&self.fresh).cloned().collect();
        for tenant in tenants {
            let reached = self.reach(&tenant, partitions).map(|reach| reach.until.timestamp());
            let mut waiting = self.due.remove(&tenant).unwrap_or_default();
            let is_fresh = self.fresh.remove(&tenant);
            if is_fresh {
                waiting.append(&mut self.early.remove(&tenant).unwrap_or_default());
            }
            let (come, mut left) = due_at(waiting, if is_fresh { i64::MAX } else { reached.unwrap_or(i64::MIN) });
            let mut whole: BTreeMap<String, Vec<Stretch>> = BTreeMap::new();
            for due in come {
                let newest = editions.newest(&due.rule).map(|(_, rule)| rule);
                let rule = newest.filter(|rule| rule.version == due.version);
                if rule.is_some_and(|rule| !self.is_caught_up(rule, editions)) {
                    left.insert(due);
                    if is_fresh {
                        self.fresh.insert(tenant.clone());
                    }
                    continue;
                }
                let absence = rule.and_then(|rule| match &rule.operator {
                    Operator::Absence(absence) => Some(absence),
                    _ => None,
                });
                let (some, all) = absence.map_or((false, true), |absence| {
                    let whole = whole.entry(due.rule.clone());
                    due.decided(absence, whole.or_insert_with(|| self.stretches(&tenant, absence, partitions)))
                });
                if some {
                    taken.insert((tenant.clone(), due.place), due.clone());
                }
                if all {
                    let (key, partition) = (due.key(&tenant), self.partition);
                    out.push(StateChange { store: Store::Correlate, partition, key, value: None });
                } else if reached.is_some_and(|reached| due.second <= reached) {
                    self.early.entry(tenant.clone()).or_default().insert(due);
                } else {
                    left.insert(due);
                }
            }
            if !left.is_empty() {
                self.due.insert(tenant, left);
            }
        }
        taken.into_iter().map(|((tenant, _), due)| (tenant, due)).collect()
    }
}

/// Makes one of the stretches that all partitions have passed on and that touch.
fn join(imported: &mut Imported, partitions: u32) {
    let whole: Vec<Stretch> =
        imported.extract_if(.., |_, passed| passed.len() == partitions as usize).map(|(stretch, _)| stretch).collect();
    let mut joined: Vec<Stretch> = Vec::with_capacity(whole.len());
    for (since, until) in whole {
        match joined.last_mut() {
            Some(last) if since <= last.1 => last.1 = last.1.max(until),
            _ => joined.push((since, until)),
        }
    }
    imported.extend(joined.into_iter().map(|stretch| (stretch, (0..partitions).collect())));
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
