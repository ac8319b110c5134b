//! What correlate may forget, and when: members older than the horizon, once the archive surely has their records.
//!
//! # The guarantee
//!
//! A member is forgotten only after the archive has committed its record, and every match that may touch forgotten time is
//! judged with what the archive has of it ([`thawing`](super::thawing)). So what is found does not depend on what was
//! forgotten.
//!
//! # How
//!
//! | step | what |
//! |---|---|
//! | horizon | of a tenant: the least completeness mark of its feeds, less [`HOT`]. No mark, no horizon: nothing expires |
//! | fence | the horizons and the ends of `records` are noted. What is in the state at this moment was received before |
//! | waiting | until the archive has committed all before those ends. What comes meanwhile is *young*, and stays |
//! | a pass | over the days before the horizons, a slice at a time, beside the messages and in steps of its own |
//!
//! What was forgotten is told by the meaning of a rule, not by the tenant: a rule that came later begins with nothing
//! forgotten, and is shown the past without a look at the archive for every match. While many late matches come for it, an
//! import or a rule that is behind, nothing of it is forgotten.
//!
//! | key | what |
//! |---|---|
//! | 4, tenant, 0, feed, 0, partition | its newest mark that this partition of `records` has passed on, to the hour; and from when on it speaks |
//! | 5, meaning | the latest horizon that members of it were forgotten by |
//! | 6 | how far the archive was then: one that has less is not asked |

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use runtime::log::{Log, LogError, StateChange, Store};
use schemas::envelope::Mark;
use schemas::json::key_hash;
use schemas::message::Match;
use schemas::tenant::Tenant;
use tokio::time::Instant;

use super::judging_again::{archived, ends};
use super::layout::{Day, Layout, SLICES, Slice};
use crate::correlate::row_day;
use crate::rule::Rule;

/// How long members stay beyond the mark: Microsoft lists content for seven days, so what a feed may still bring is
/// judged without a look at the archive.
const HOT: TimeDelta = TimeDelta::days(7);

/// How much later a mark must be to be noted, and a horizon to be worth a pass: the rows of a pass are of whole days.
const NOTED_EVERY: TimeDelta = TimeDelta::hours(1);

/// Most rows that are young, by hashes of eight bytes. More is an import of old records: the fence is set up anew later.
pub(super) const YOUNG_MAX: usize = 500_000;

/// From so many late matches on, nothing is forgotten of what a rule means, until the horizon is a day further.
const LATE_MANY: usize = 1_000;
const LATE_REST: TimeDelta = TimeDelta::days(1);

/// Slices of a day that are looked at in one step, and rows after which it ends: a step stays short.
const SLICES_AT_ONCE: usize = 16;
const ROWS_AT_ONCE: usize = 2_000;

/// How often to look whether the archive has come far enough.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(if cfg!(test) { 0 } else { 500 });

const MARKS: u8 = 4;
const FORGOTTEN: u8 = 5;
const ARCHIVED: u8 = 6;

/// What may be forgotten in one partition.
pub(super) struct Forgetting {
    partition: u32,
    /// By tenant, feed and partition of `records`.
    marks: BTreeMap<(Tenant, String, u32), Reach>,
    forgotten: HashMap<u128, DateTime<Utc>>,
    archived: Vec<u64>,
    /// How many late matches came for a meaning, since the horizon was there.
    late: HashMap<u128, (usize, DateTime<Utc>)>,
    state: State,
    /// The horizons of the last pass.
    done: BTreeMap<Tenant, DateTime<Utc>>,
    /// Days on which nothing that expires was left when they were looked at.
    lasting: BTreeSet<Day>,
    looked: Option<Instant>,
}

/// From when to when all of a feed is there, as its newest mark says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    /// None: it began before anybody asked.
    pub(super) since: Option<DateTime<Utc>>,
    pub(super) until: DateTime<Utc>,
}

impl Reach {
    fn value(&self) -> String {
        let times = [Some(self.until), self.since];
        times.iter().flatten().map(DateTime::to_rfc3339).collect::<Vec<_>>().join(" ")
    }

    fn read(value: &[u8]) -> Option<Reach> {
        let mut times = std::str::from_utf8(value).ok()?.split(' ');
        let until = times.next()?.parse().ok()?;
        Some(Reach { since: times.next().map(str::parse).transpose().ok()?, until })
    }
}

enum State {
    Idle,
    Waiting(Fence),
    Passing(Fence, Pass),
}

/// What was there at one moment.
struct Fence {
    horizons: BTreeMap<Tenant, DateTime<Utc>>,
    ends: Vec<u64>,
    /// Hashes of rows that were written since.
    young: HashSet<u64>,
}

/// How far a pass is.
struct Pass {
    /// The next day is the last.
    days: Vec<Day>,
    /// The next slice of it; none before the first.
    part: Option<u8>,
    /// Rows that are left of the day so far, and those of them that may expire later.
    left: usize,
    expiring: usize,
}

/// Names what a rule means for a tenant.
pub(super) fn meaning_key(tenant: &Tenant, rule: &Rule) -> u128 {
    key_hash(&["meaning", tenant.as_str(), &rule.id, &rule.version])
}

impl Forgetting {
    /// What is committed.
    pub(super) async fn load(log: &dyn Log, partition: u32) -> Result<Forgetting, LogError> {
        let mut forgetting = Forgetting {
            partition,
            marks: BTreeMap::new(),
            forgotten: HashMap::new(),
            archived: Vec::new(),
            late: HashMap::new(),
            state: State::Idle,
            done: BTreeMap::new(),
            lasting: BTreeSet::new(),
            looked: None,
        };
        let prefixes = vec![vec![MARKS], vec![FORGOTTEN], vec![ARCHIVED]];
        for (key, value) in log.scan_each(Store::Correlate, partition, prefixes).await?.into_iter().flatten() {
            let time = || std::str::from_utf8(&value).ok()?.parse().ok();
            match key.split_first() {
                Some((&MARKS, name)) => {
                    // Without a mark less is forgotten, and the next one comes within the hour.
                    forgetting.marks.extend(feed_of(name).zip(Reach::read(&value)));
                }
                Some((&FORGOTTEN, meaning)) => {
                    // What cannot be read is taken for the latest: then the archive is asked for more than needed.
                    let Ok(meaning) = meaning.try_into() else { continue };
                    let horizon = time().unwrap_or(DateTime::<Utc>::MAX_UTC);
                    forgetting.forgotten.insert(u128::from_be_bytes(meaning), horizon);
                }
                Some(_) => forgetting.archived = serde_json::from_slice(&value).unwrap_or_default(),
                None => {}
            }
        }
        Ok(forgetting)
    }

    /// Takes note of a mark.
    pub(super) fn mark(&mut self, partition: u32, mark: Mark, out: &mut Vec<StateChange>) {
        let name = format!("{}\0{}\0{partition}", mark.tenant, mark.content_type);
        let key = [&[MARKS][..], name.as_bytes()].concat();
        let feed = (mark.tenant, mark.content_type, partition);
        let reach = Reach { since: mark.since, until: mark.until };
        let is_news =
            |known: &Reach| known.since != reach.since || reach.until.signed_duration_since(known.until) >= NOTED_EVERY;
        if self.marks.get(&feed).is_none_or(is_news) {
            self.marks.insert(feed, reach);
            out.push(self.row(key, reach.value()));
        }
    }

    fn row(&self, key: Vec<u8>, value: String) -> StateChange {
        StateChange { store: Store::Correlate, partition: self.partition, key, value: Some(value.into_bytes()) }
    }

    /// What is known of each feed, in each partition, to the hour.
    pub(super) fn marks(&self) -> impl Iterator<Item = (&(Tenant, String, u32), &Reach)> {
        self.marks.iter()
    }

    /// Before which moment members may be gone, of shards with this meaning.
    pub(super) fn horizon(&self, meaning: u128) -> Option<DateTime<Utc>> {
        self.forgotten.get(&meaning).copied()
    }

    /// How far the archive must be to have all that was forgotten.
    pub(super) fn archived(&self) -> &[u64] {
        &self.archived
    }

    /// Where the horizon of each tenant is now.
    fn horizons(&self) -> BTreeMap<Tenant, DateTime<Utc>> {
        let mut least: BTreeMap<Tenant, DateTime<Utc>> = BTreeMap::new();
        for ((tenant, ..), reach) in &self.marks {
            let horizon = reach.until.checked_sub_signed(HOT).unwrap_or(DateTime::<Utc>::MIN_UTC);
            let known = least.entry(tenant.clone()).or_insert(horizon);
            *known = horizon.min(*known);
        }
        least
    }

    /// Takes note of what a step writes of a shard.
    pub(super) fn written(
        &mut self,
        tenant: &Tenant,
        (meaning, shard): (u128, u128),
        matches: &[Match],
        rows: &[(Vec<u8>, Option<Vec<u8>>)],
    ) {
        if let State::Waiting(fence) | State::Passing(fence, _) = &mut self.state
            && let Some(horizon) = fence.horizons.get(tenant)
        {
            let members = rows.iter().filter(|(_, value)| value.is_some());
            let old = members.filter(|(row, _)| row_day(row).is_some_and(|day| day <= horizon.date_naive()));
            fence.young.extend(old.map(|(row, _)| young_key(shard, row)));
            if fence.young.len() > YOUNG_MAX {
                self.state = State::Idle;
            }
        }
        // Of a tenant with one feed or ten: the horizon is that of the marks.
        let of_tenant = self.marks.range((tenant.clone(), String::new(), 0)..);
        let marks = of_tenant.take_while(|((whose, ..), _)| whose == tenant);
        let Some(horizon) = marks.map(|(_, reach)| reach.until).min().and_then(|least| least.checked_sub_signed(HOT))
        else {
            return;
        };
        let came = matches.iter().filter(|matched| matched.event_time < horizon).count();
        if came > 0 {
            let (many, since) = self.late.entry(meaning).or_insert((0, horizon));
            if *since + LATE_REST < horizon {
                (*many, *since) = (0, horizon);
            }
            *many += came;
        }
    }

    /// The next slices to look at. None if there is nothing to forget now.
    pub(super) async fn next(&mut self, log: &dyn Log, layout: &mut Layout) -> Result<Option<Slice>, LogError> {
        if let State::Idle = self.state {
            let horizons = self.horizons();
            let is_further = |(tenant, horizon): (&Tenant, &DateTime<Utc>)| {
                self.done.get(tenant).is_none_or(|done| horizon.signed_duration_since(*done) >= NOTED_EVERY)
            };
            if !horizons.iter().any(is_further) {
                return Ok(None);
            }
            let ends = ends(log, runtime::log::Topic::Records).await?;
            self.state = State::Waiting(Fence { horizons, ends, young: HashSet::new() });
        }
        if let State::Waiting(fence) = &self.state {
            if self.looked.is_some_and(|looked| looked.elapsed() < LOOK_INTERVAL) {
                return Ok(None);
            }
            self.looked = Some(Instant::now());
            let mut reached = archived(log, &fence.ends).await?;
            if runtime::failpoint::is_broken("forget-unarchived") {
                reached.get_or_insert_default();
            }
            let Some(archived) = reached else { return Ok(None) };
            let latest = fence.horizons.values().max().map(DateTime::date_naive);
            let mut days = latest.map_or(Vec::new(), |latest| layout.days_until(latest));
            days.retain(|day| !self.lasting.contains(day) || layout.is_written(*day));
            days.reverse();
            if let State::Waiting(fence) = std::mem::replace(&mut self.state, State::Idle) {
                self.archived = archived;
                self.state = State::Passing(fence, Pass { days, part: None, left: 0, expiring: 0 });
            }
        }
        let State::Passing(fence, pass) = &mut self.state else { return Ok(None) };
        let Some(day) = pass.days.last().copied() else {
            self.done = std::mem::take(&mut fence.horizons);
            self.state = State::Idle;
            return Ok(None);
        };
        let part = match pass.part {
            None => {
                layout.watch(day);
                (pass.left, pass.expiring) = (0, 0);
                0
            }
            Some(part) => part,
        };
        Ok(Some(Slice { day, part }))
    }

    /// By which horizon a shard forgets in this pass; none if it does not.
    pub(super) fn horizon_of(&self, tenant: &Tenant, meaning: u128) -> Option<DateTime<Utc>> {
        let State::Passing(fence, _) = &self.state else { return None };
        let horizon = *fence.horizons.get(tenant)?;
        let (many, since) = self.late.get(&meaning).copied().unwrap_or_default();
        (many < LATE_MANY || since + LATE_REST < horizon).then_some(horizon)
    }

    /// Whether a row was written since the fence was set up.
    pub(super) fn is_young(&self, shard: u128, row: &[u8]) -> bool {
        let (State::Waiting(fence) | State::Passing(fence, _)) = &self.state else { return true };
        fence.young.contains(&young_key(shard, row)) && !runtime::failpoint::is_broken("forget-young")
    }

    /// What is to be committed with the deletion of members of this meaning.
    pub(super) fn forget(&mut self, meaning: u128, horizon: DateTime<Utc>, out: &mut Vec<StateChange>) {
        if self.forgotten.get(&meaning).is_some_and(|known| *known >= horizon) {
            return;
        }
        self.forgotten.insert(meaning, horizon);
        out.push(self.row([&[FORGOTTEN][..], &meaning.to_be_bytes()].concat(), horizon.to_rfc3339()));
        out.push(self.archived_row());
    }

    fn archived_row(&self) -> StateChange {
        self.row(vec![ARCHIVED], serde_json::to_string(&self.archived).unwrap_or_default())
    }

    /// What is to be committed with the deletion of members when the archive was so far.
    pub(super) fn forget_early(&mut self, archived: Vec<u64>, out: &mut Vec<StateChange>) {
        if self.archived != archived {
            self.archived = archived;
            out.push(self.archived_row());
        }
    }

    /// A slice is done: `left` rows of its day are left, `expiring` of them may expire later. After the last of a day that
    /// has no row any more the day is dropped.
    pub(super) fn end_slice(&mut self, layout: &mut Layout, (left, expiring): (usize, usize)) -> Option<StateChange> {
        let State::Passing(_, pass) = &mut self.state else { return None };
        pass.left += left;
        pass.expiring += expiring;
        pass.part = pass.part.map_or(1, |part| part + 1).into();
        if pass.part < Some(SLICES) {
            return None;
        }
        pass.part = None;
        let day = pass.days.pop()?;
        if layout.is_written(day) || pass.expiring > 0 {
            self.lasting.remove(&day);
            return None;
        }
        if pass.left > 0 {
            self.lasting.insert(day);
            return None;
        }
        Some(layout.drop_day(self.partition, day))
    }
}

/// The feed and partition that a row of marks names.
fn feed_of(name: &[u8]) -> Option<(Tenant, String, u32)> {
    let mut parts = std::str::from_utf8(name).ok()?.split('\0');
    Some((parts.next()?.parse().ok()?, parts.next()?.to_owned(), parts.next()?.parse().ok()?))
}

/// How much one step looks at.
pub(super) struct Piece {
    slices: usize,
    rows: usize,
}

impl Piece {
    pub(super) fn new() -> Piece {
        Piece { slices: SLICES_AT_ONCE, rows: ROWS_AT_ONCE }
    }

    /// Whether there is room for another slice after one with so many rows.
    pub(super) fn has_room(&mut self, rows: usize) -> bool {
        self.slices = self.slices.saturating_sub(1);
        self.rows = self.rows.saturating_sub(rows);
        self.slices > 0 && self.rows > 0
    }
}

pub(super) fn young_key(shard: u128, row: &[u8]) -> u64 {
    // Two rows of one hash are both young: they stay a pass longer.
    let mut hasher = DefaultHasher::new();
    (shard, row).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
