//! Which blob holds which record, and when it becomes available.
//!
//! Guarantee: every record of the world lies in at least one blob; a blob never becomes available before its newest
//! record happened, nor so long ago that the listing's seven days no longer reach it.
//!
//! The listing reaches seven days back but baselines want weeks. So records older than the oldest blob are packed into
//! blobs of that day: a late delivery, which the real service does too.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};

use crate::backlog::{Backlog, Stretch, Templates};
use crate::dice::Dice;
use crate::faults::FaultPlan;
use crate::records::CONTENT_TYPES;
use crate::{Fault, Options, Pace, World};

/// A day less than the listing reaches, so that a server that runs overnight still serves everything.
const OLDEST_BLOB: TimeDelta = TimeDelta::days(6);
/// The backlog of older history arrives over this long.
const BACKLOG: TimeDelta = TimeDelta::hours(20);
/// What a fast pace stretches over real time: the story begins five hours before the end.
const PLAYED: TimeDelta = TimeDelta::hours(6);
const EXPIRY: TimeDelta = TimeDelta::days(7);
/// A blob's second listing comes this long after its first.
const RELISTED_AFTER: TimeDelta = TimeDelta::minutes(10);
/// A blob that is listed late became available so long ago at least: beyond what a reader looks at again by itself.
const LATE_AT_LEAST: TimeDelta = TimeDelta::hours(3);
/// How far back a backlog reaches: seven days, less what it takes to be read.
const BACKLOG_REACH: TimeDelta = TimeDelta::hours(166);
/// Out of a hundred records, how many come again days later where that is the fault.
const OLD_DUPLICATES_PERCENT: u64 = 15;

#[derive(Debug)]
pub(crate) struct Blob {
    pub(crate) id: String,
    pub(crate) content_type: &'static str,
    pub(crate) created: DateTime<Utc>,
    /// From when on listings show it.
    pub(crate) listed: DateTime<Utc>,
    pub(crate) content: Content,
    /// Shown again in the window that holds this moment.
    relisted: Option<DateTime<Utc>>,
}

/// What is in a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// Places in `World::records`.
    Records(Vec<usize>),
    /// Made when it is asked for.
    Made(Stretch),
}

impl Blob {
    pub(crate) fn expires(&self) -> DateTime<Utc> {
        self.created + EXPIRY
    }

    /// Places in `World::records`; none where the records are made when asked for.
    pub(crate) fn records(&self) -> &[usize] {
        match &self.content {
            Content::Records(records) => records,
            Content::Made(_) => &[],
        }
    }

    pub(crate) fn count(&self) -> u64 {
        match &self.content {
            Content::Records(records) => records.len() as u64,
            Content::Made(stretch) => stretch.count,
        }
    }
}

pub(crate) struct Shelf {
    blobs: Vec<Blob>,
    by_id: HashMap<String, usize>,
}

/// One record on its way.
struct Arrival {
    at: DateTime<Utc>,
    tie: u64,
    record: usize,
}

impl Shelf {
    pub(crate) fn pack(world: &World, options: &Options, plan: &FaultPlan) -> Shelf {
        let mut dice = Dice::new(options.seed, "delivery", 0);
        let history = world.records.first().map_or(options.end, |record| record.created);
        let mut blobs = Vec::new();
        for content_type in CONTENT_TYPES {
            let mut arrivals = Vec::new();
            for (index, record) in world.records.iter().enumerate() {
                if record.content_type == content_type {
                    schedule(&mut dice, options, plan, history, (index, record.created), &mut arrivals);
                }
            }
            arrivals.sort_by_key(|arrival| (arrival.at, arrival.tie));
            fill(&mut dice, options, content_type, &arrivals, &mut blobs);
        }
        if options.delivery.twice {
            repeat(options, &mut blobs);
        }
        if plan.has(Fault::SameMillisecond) {
            crowd(options, &mut blobs);
        }
        for blob in &mut blobs {
            if blob.created < options.end - LATE_AT_LEAST
                && let Some(mut dice) = plan.marks(Fault::LateListing, &blob.id)
            {
                let within = options.late_within.as_millis() as i64;
                blob.listed = options.end + TimeDelta::milliseconds(dice.between(within / 4, within));
            }
        }
        Shelf::of(blobs)
    }

    /// A backlog, spread evenly over the days that a listing reaches.
    pub(crate) fn backlog(backlog: &Backlog, templates: &Templates, options: &Options) -> Shelf {
        let mut dice = Dice::new(options.seed, "backlog", 0);
        let content_types: Vec<&'static str> = templates.content_types().collect();
        let count = backlog.records.div_ceil(backlog.blob_records.max(1));
        let mut next = vec![0; content_types.len()];
        let mut blobs = Vec::new();
        for number in 0..count {
            let place = (number % content_types.len().max(1) as u64) as usize;
            let (Some(&content_type), Some(next)) = (content_types.get(place), next.get_mut(place)) else { break };
            let records = backlog.blob_records.min(backlog.records - number * backlog.blob_records);
            let share = number as f64 / count as f64;
            let since = TimeDelta::milliseconds((share * BACKLOG_REACH.num_milliseconds() as f64) as i64);
            let created = options.end - BACKLOG_REACH + since;
            let content = Content::Made(Stretch { content_type, first: *next, count: records });
            *next += records;
            let id = content_id(&mut dice, content_type, created, created);
            blobs.push(Blob { id, content_type, created, listed: created, content, relisted: None });
        }
        Shelf::of(blobs)
    }

    fn of(blobs: Vec<Blob>) -> Shelf {
        let by_id = blobs.iter().enumerate().map(|(place, blob)| (blob.id.clone(), place)).collect();
        Shelf { blobs, by_id }
    }

    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Blob> {
        self.blobs.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.blobs.len()
    }

    pub(crate) fn find(&self, id: &str) -> Option<(usize, &Blob)> {
        let place = *self.by_id.get(id)?;
        self.blobs.get(place).map(|blob| (place, blob))
    }

    /// The blobs of `[start, end)` that exist by `now`, in the order in which they appeared; what appears later comes
    /// after what is there, so that a page's offset stays true.
    pub(crate) fn window(
        &self,
        content_type: &str,
        (start, end): (DateTime<Utc>, DateTime<Utc>),
        now: DateTime<Utc>,
    ) -> Vec<&Blob> {
        let mut shown: Vec<(DateTime<Utc>, &Blob)> = self
            .blobs
            .iter()
            .filter(|blob| blob.content_type == content_type)
            .flat_map(|blob| [Some(blob.created), blob.relisted].into_iter().flatten().map(move |at| (at, blob)))
            .filter(|(at, blob)| (start..end).contains(at) && *at <= now && blob.listed <= now)
            .collect();
        shown.sort_by(|one, other| (one.0, &one.1.id).cmp(&(other.0, &other.1.id)));
        shown.into_iter().map(|(_, blob)| blob).collect()
    }
}

/// Decides when a record becomes available, and whether it comes again.
fn schedule(
    dice: &mut Dice,
    options: &Options,
    plan: &FaultPlan,
    history: DateTime<Utc>,
    (record, created): (usize, DateTime<Utc>),
    arrivals: &mut Vec<Arrival>,
) {
    let delivery = &options.delivery;
    let mut latency =
        if delivery.shuffled { TimeDelta::seconds(dice.between(300, 4_500)) } else { TimeDelta::minutes(20) };
    if delivery.late && dice.percent(4) {
        latency += TimeDelta::seconds(dice.between(2 * 3_600, 25 * 3_600));
    }
    let mut latencies = vec![latency];
    if delivery.duplicates && dice.percent(4) {
        latencies.push(latency + TimeDelta::seconds(dice.between(1, 1_800)));
    }
    if delivery.duplicates && dice.percent(1) {
        latencies.push(latency + TimeDelta::seconds(dice.between(86_400, 4 * 86_400)));
    }
    if plan.has(Fault::OldDuplicates) {
        // Dice of their own: the other deliveries are those of a world without the fault.
        let mut dice = Dice::new(options.seed, "old duplicates", record as u64);
        if dice.percent(OLD_DUPLICATES_PERCENT) {
            latencies.push(latency + TimeDelta::seconds(dice.between(86_400, 5 * 86_400)));
        }
    }
    for latency in latencies {
        let at = match options.pace {
            Pace::Fast { real } if created >= options.end - PLAYED => {
                played(options.end, TimeDelta::from_std(real).unwrap_or(TimeDelta::zero()), created, latency)
            }
            Pace::Fast { .. } | Pace::AllAtOnce => placed(dice, options, history, created, latency),
        };
        let tie = if delivery.shuffled { dice.next() } else { record as u64 };
        arrivals.push(Arrival { at, tie, record });
    }
}

/// The moment of availability for what is there from the start.
fn placed(
    dice: &mut Dice,
    options: &Options,
    history: DateTime<Utc>,
    created: DateTime<Utc>,
    latency: TimeDelta,
) -> DateTime<Utc> {
    let (oldest, latest) = (options.end - OLDEST_BLOB, options.end - TimeDelta::seconds(1));
    let natural = created + latency;
    if natural < oldest {
        let share = (created - history).num_seconds() as f64 / (oldest - history).num_seconds().max(1) as f64;
        return oldest + TimeDelta::milliseconds((share * BACKLOG.num_milliseconds() as f64) as i64);
    }
    if natural <= latest {
        return natural;
    }
    if !options.delivery.shuffled {
        return latest;
    }
    let earliest = created.max(latest - TimeDelta::minutes(15)) + TimeDelta::seconds(1);
    earliest + TimeDelta::milliseconds(dice.between(0, (latest - earliest).num_milliseconds()))
}

/// The moment of availability in a world played fast: hours shrink to seconds after `end`. A quarter of the latency is
/// kept, enough to unorder the records and to let late ones come last.
fn played(end: DateTime<Utc>, real: TimeDelta, created: DateTime<Utc>, latency: TimeDelta) -> DateTime<Utc> {
    let position = (created - (end - PLAYED)) + latency / 4;
    let share = (position.num_milliseconds() as f64 / PLAYED.num_milliseconds() as f64).clamp(0.0, 1.0);
    end + TimeDelta::milliseconds((share * real.num_milliseconds() as f64) as i64)
}

/// Cuts a content type's arrivals into blobs. A blob is available when its last record is.
fn fill(dice: &mut Dice, options: &Options, content_type: &'static str, arrivals: &[Arrival], blobs: &mut Vec<Blob>) {
    let mut rest = arrivals;
    while let Some(first) = rest.first() {
        let is_played = first.at >= options.end;
        let longest = match options.pace {
            Pace::Fast { real } if is_played => TimeDelta::from_std(real / 30).unwrap_or(TimeDelta::zero()),
            Pace::Fast { .. } | Pace::AllAtOnce => TimeDelta::hours(1),
        };
        let count = rest
            .iter()
            .take(options.delivery.blob_records.max(1))
            .take_while(|arrival| arrival.at - first.at <= longest)
            // History must not wait for the story in one blob with it.
            .take_while(|arrival| (arrival.at >= options.end) == is_played)
            .count();
        let (chunk, remaining) = rest.split_at(count.max(1));
        rest = remaining;
        let created = chunk.last().map_or(first.at, |last| last.at);
        let mut records: Vec<usize> = chunk.iter().map(|arrival| arrival.record).collect();
        if options.delivery.shuffled {
            dice.shuffle(&mut records);
        }
        let relisted = (options.delivery.duplicates && dice.percent(15)).then_some(created + RELISTED_AFTER);
        blobs.push(Blob {
            id: content_id(dice, content_type, first.at, created),
            content_type,
            created,
            listed: created,
            content: Content::Records(records),
            relisted,
        });
    }
}

/// Gives every blob a twin of another name. It comes while the story plays, for the most part; where nothing is played,
/// a minute later or at the end.
fn repeat(options: &Options, blobs: &mut Vec<Blob>) {
    // Dice of their own: the first copies are those of a world without twins.
    let mut dice = Dice::new(options.seed, "twice", 0);
    let twins: Vec<Blob> = blobs
        .iter()
        .map(|blob| {
            let created = match options.pace {
                Pace::Fast { real } => {
                    let later = TimeDelta::milliseconds(dice.between(0, real.as_millis() as i64));
                    blob.created.max(options.end) + later
                }
                Pace::AllAtOnce => (blob.created + TimeDelta::minutes(1)).min(options.end - TimeDelta::seconds(1)),
            };
            let id = content_id(&mut dice, blob.content_type, blob.created, created);
            let (content_type, content) = (blob.content_type, blob.content.clone());
            Blob { id, content_type, created, listed: created, content, relisted: None }
        })
        .collect();
    blobs.extend(twins);
}

/// Makes every fifth blob and the two before it available in one millisecond, the latest of theirs.
fn crowd(options: &Options, blobs: &mut [Blob]) {
    for last in (2..blobs.len()).step_by(5) {
        let Some([one, other, latest]) = blobs.get_mut(last - 2..=last) else { continue };
        for blob in [one, other] {
            let is_played = [blob.created, latest.created].map(|created| created >= options.end);
            if blob.content_type == latest.content_type && is_played[0] == is_played[1] {
                (blob.created, blob.listed, blob.relisted) = (latest.created, latest.created, None);
            }
        }
    }
}

/// Two stamps of 23 digits, the content type twice, the region twice: opaque to clients, and full of `$`.
fn content_id(dice: &mut Dice, content_type: &str, opened: DateTime<Utc>, closed: DateTime<Utc>) -> String {
    let mut stamp = |at: DateTime<Utc>| format!("{}{:06}", at.format("%Y%m%d%H%M%S%3f"), dice.between(0, 1_000_000));
    let (opened, closed) = (stamp(opened), stamp(closed));
    let name = content_type.replace('.', "_");
    format!("{opened}${closed}${}${name}$emea0042$emea0042", name.to_lowercase())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn pack(world: &World, options: &Options) -> Shelf {
        Shelf::pack(world, options, &FaultPlan::new(options.seed, &options.faults, false))
    }

    fn options(pace: Pace) -> Options {
        let end = DateTime::from_timestamp(1_795_255_471, 0).unwrap();
        Options { users: 4, days: 16, pace, ..Options::new(end) }
    }

    #[test]
    fn everything_is_packed_and_nothing_is_available_before_it_happened() {
        let options = options(Pace::AllAtOnce);
        let world = World::generate(&options);
        let shelf = pack(&world, &options);
        let mut deliveries = vec![0_u32; world.records.len()];
        for blob in &shelf.blobs {
            assert!(blob.created < options.end && blob.created >= options.end - OLDEST_BLOB, "{blob:?}");
            for record in blob.records() {
                assert!(world.records[*record].created < blob.created);
                deliveries[*record] += 1;
            }
        }
        assert!(deliveries.iter().all(|count| *count >= 1));
        assert!(deliveries.iter().any(|count| *count >= 2));
    }

    #[test]
    fn twins_hold_the_same_and_come_later() {
        for pace in [Pace::AllAtOnce, Pace::Fast { real: Duration::from_secs(15) }] {
            let mut options = options(pace);
            let world = World::generate(&options);
            let once = pack(&world, &options).blobs;
            options.delivery.twice = true;
            let blobs = pack(&world, &options).blobs;
            let (first, second) = blobs.split_at(once.len());
            assert_eq!(first.len(), second.len());
            for ((once, first), second) in once.iter().zip(first).zip(second) {
                assert_eq!((&once.id, once.created), (&first.id, first.created));
                assert!(second.id != first.id && second.created >= first.created);
                assert_eq!(second.content, first.content);
            }
        }
    }

    #[test]
    fn faults_of_the_shelf_lose_nothing() {
        let mut options = options(Pace::AllAtOnce);
        options.faults = vec![Fault::SameMillisecond, Fault::LateListing, Fault::OldDuplicates];
        let world = World::generate(&options);
        let shelf = pack(&world, &options);
        let mut deliveries = vec![0_u32; world.records.len()];
        for blob in &shelf.blobs {
            blob.records().iter().for_each(|record| deliveries[*record] += 1);
            assert!(blob.records().iter().all(|record| world.records[*record].created < blob.created));
        }
        assert!(deliveries.iter().all(|count| *count >= 1));
        assert!(deliveries.iter().filter(|count| **count >= 2).count() > world.records.len() / 8);
        let week = (options.end - TimeDelta::days(7), options.end);
        let shown = |now| -> usize { CONTENT_TYPES.iter().map(|name| shelf.window(name, week, now).len()).sum() };
        assert!(shown(options.end) < shown(options.end + TimeDelta::minutes(1)));
        let at_once = shelf.blobs.windows(2).filter(|pair| pair[0].created == pair[1].created).count();
        assert!(at_once > shelf.len() / 5, "{at_once} of {}", shelf.len());
    }

    #[test]
    fn a_fast_world_shows_history_at_once_and_the_story_by_and_by() {
        let real = Duration::from_secs(15);
        let options = options(Pace::Fast { real });
        let world = World::generate(&options);
        let shelf = pack(&world, &options);
        let shown = |seconds: i64| -> usize {
            shelf.blobs.iter().filter(|blob| blob.created <= options.end + TimeDelta::seconds(seconds)).count()
        };
        assert!(shown(0) > 0);
        let growth = [0, 5, 10, 15].map(shown);
        assert!(growth.is_sorted_by(|earlier, later| earlier < later), "{growth:?}");
        assert_eq!(shown(15), shelf.len());
        for blob in shelf.blobs.iter().filter(|blob| blob.created <= options.end) {
            for record in blob.records() {
                assert!(!world.records[*record].malicious);
            }
        }
    }
}
