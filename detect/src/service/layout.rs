//! Where the rows of a shard lie in the state of a partition.
//!
//! A shard's name is a hash, so rows kept by shard alone would lie all over the state, and every row written would cost
//! a page of it, the more the longer the history. But most rows are about a moment, and records come more or less in
//! the order of their time: rows are kept by day first and by shard within the day, so that what a step writes lies
//! together, however much history there is.
//!
//! | key | what |
//! |---|---|
//! | 0, shard, row | rows about the shard as a whole: its groups |
//! | 0, shard, `d` | the earliest day on which the shard has rows, and how its members expire |
//! | 1, day, shard, row | rows about a moment of that day: members, sightings |
//! | 2, day | the partition has rows of that day |
//! | 3, told, row | findings: where each stands, whatever the rule meant when it was told |
//! | 4 .. 6 | what may be forgotten: see [`forgetting`](super::forgetting) |
//! | 7 .. 9 | what waits: see [`awaiting`](super::awaiting) |
//!
//! A shard that is read again is looked for on its first day and every later one that has rows. Days before 2000 and
//! after 2099 count as one: a hostile clock must not make a search of millions of days. Old days are found without their
//! shards, so that what has expired can be looked for, a [`Slice`] of a day at a time.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{NaiveDate, TimeDelta};
use runtime::log::{Log, LogError, StateChange, Store};

use crate::correlate::{is_record_row, row_day};

const ABOUT: u8 = 0;
const OF_DAY: u8 = 1;
const DAYS: u8 = 2;
const TOLD: u8 = 3;

/// The row that holds a shard's first day; no row of a shard begins with this letter.
const FIRST_DAY: &[u8] = b"d";

/// A day as it is kept: 1 for 2000-01-01 and so on; 0 for all days outside the century.
pub(super) type Day = u16;

/// Days of a century.
const DAYS_MAX: i64 = 36_525;

/// The days on which a partition has rows.
#[derive(Default)]
pub(super) struct Layout {
    days: BTreeSet<Day>,
    /// Days of which rows were written since somebody asked: see [`Layout::watch`].
    written: BTreeSet<Day>,
}

/// Names of a shard: of what it holds, which another meaning of its rule begins anew, and of what it has told, which goes
/// on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub(super) shard: u128,
    pub(super) told: u128,
}

/// How a shard's members expire. A shard is named by hashes, so its rule is not known to who finds only its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expiry {
    pub(super) told: u128,
    /// Names the tenant and what the rule means.
    pub(super) meaning: u128,
    /// [`look_back`](crate::correlate::look_back) of the rule.
    pub(super) reach: TimeDelta,
}

impl Expiry {
    fn read(bytes: &[u8]) -> Option<Expiry> {
        let (told, rest) = bytes.split_first_chunk::<16>()?;
        let (meaning, reach) = rest.split_first_chunk::<16>()?;
        let seconds = i64::from_be_bytes(reach.try_into().ok()?);
        Some(Expiry {
            told: u128::from_be_bytes(*told),
            meaning: u128::from_be_bytes(*meaning),
            reach: TimeDelta::try_seconds(seconds)?,
        })
    }

    fn bytes(&self) -> Vec<u8> {
        let seconds = self.reach.num_seconds();
        [&self.told.to_be_bytes()[..], &self.meaning.to_be_bytes(), &seconds.to_be_bytes()].concat()
    }
}

/// What is kept of a shard as a whole beside its groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Root {
    /// The first day of which it has rows.
    pub(super) first_day: Option<Day>,
    /// None where its members do not expire, or it has not been touched since they do.
    pub(super) expiry: Option<Expiry>,
}

impl Root {
    fn read(value: &[u8]) -> Root {
        let Some((day, expiry)) = value.split_first_chunk::<2>() else { return Root::default() };
        Root { first_day: day_of(day), expiry: Expiry::read(expiry) }
    }

    fn value(&self) -> Option<Vec<u8>> {
        let mut value = self.first_day?.to_be_bytes().to_vec();
        value.extend(self.expiry.iter().flat_map(Expiry::bytes));
        Some(value)
    }
}

/// A day is looked through in so many slices.
pub(super) const SLICES: u8 = 16;

/// A piece of a day: the shards whose names begin with this hex digit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slice {
    pub(super) day: Day,
    pub(super) part: u8,
}

/// Rows of a shard, or that they are gone.
type RowChanges = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// A shard's rows as [`Shard::load`](crate::correlate::Shard::load) takes them.
pub(super) struct Found {
    pub(super) rows: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) root: Root,
}

impl Layout {
    /// What is committed.
    pub(super) async fn load(log: &dyn Log, partition: u32) -> Result<Layout, LogError> {
        let rows = log.scan(Store::Correlate, partition, &[DAYS]).await?;
        let days = rows.iter().filter_map(|(key, _)| day_of(&key[1..])).collect();
        Ok(Layout { days, written: BTreeSet::new() })
    }

    /// The days up to this one that have rows.
    pub(super) fn days_until(&self, date: NaiveDate) -> Vec<Day> {
        self.days.range(..=day(date)).copied().collect()
    }

    /// How many rows each shard of a slice has on its day.
    pub(super) async fn slice(
        &self,
        log: &dyn Log,
        partition: u32,
        slice: Slice,
    ) -> Result<BTreeMap<u128, usize>, LogError> {
        let bytes = (0..16_u8).map(|low| slice.part << 4 | low);
        let prefixes = bytes.map(|byte| [&of_day(slice.day)[..], &[byte]].concat()).collect();
        let mut shards = BTreeMap::new();
        for (key, _) in log.scan_each(Store::Correlate, partition, prefixes).await?.into_iter().flatten() {
            let name = key.get(of_day(0).len()..).and_then(|rest| rest.first_chunk::<16>());
            if let Some(name) = name {
                *shards.entry(u128::from_be_bytes(*name)).or_default() += 1;
            }
        }
        Ok(shards)
    }

    /// What is kept of these shards as a whole, in their order.
    pub(super) async fn roots(&self, log: &dyn Log, partition: u32, shards: &[u128]) -> Result<Vec<Root>, LogError> {
        let prefixes = shards.iter().map(|shard| [&prefix(&[ABOUT], *shard), FIRST_DAY].concat()).collect();
        let found = log.scan_each(Store::Correlate, partition, prefixes).await?;
        Ok(found.iter().map(|rows| rows.first().map_or(Root::default(), |(_, value)| Root::read(value))).collect())
    }

    /// From here on, notes whether rows of this day are written.
    pub(super) fn watch(&mut self, day: Day) {
        self.written.remove(&day);
    }

    /// Whether rows of this day were written since it is watched.
    pub(super) fn is_written(&self, day: Day) -> bool {
        self.written.contains(&day)
    }

    /// Forgets a day that has no row any more.
    pub(super) fn drop_day(&mut self, partition: u32, day: Day) -> StateChange {
        self.days.remove(&day);
        let key = [&[DAYS][..], &day.to_be_bytes()].concat();
        StateChange { store: Store::Correlate, partition, key, value: None }
    }

    /// All rows of these shards, in their order.
    pub(super) async fn read(&self, log: &dyn Log, partition: u32, shards: &[Place]) -> Result<Vec<Found>, LogError> {
        let about = shards.iter().map(|place| prefix(&[ABOUT], place.shard)).collect();
        let about = log.scan_each(Store::Correlate, partition, about).await?;
        let mut found: Vec<Found> = about
            .into_iter()
            .map(|rows| {
                let mut found = Found { rows: Vec::with_capacity(rows.len()), root: Root::default() };
                for (key, value) in rows {
                    match &key[1 + size_of::<u128>()..] {
                        FIRST_DAY => found.root = Root::read(&value),
                        row => found.rows.push((row.to_vec(), value)),
                    }
                }
                found
            })
            .collect();
        let (mut owners, mut prefixes) = (Vec::new(), Vec::new());
        for (at, place) in shards.iter().enumerate() {
            owners.push((at, [TOLD].len()));
            prefixes.push(prefix(&[TOLD], place.told));
            for day in found[at].root.first_day.into_iter().flat_map(|first| self.days.range(first..)) {
                owners.push((at, of_day(0).len()));
                prefixes.push(prefix(&of_day(*day), place.shard));
            }
        }
        let others = log.scan_each(Store::Correlate, partition, prefixes).await?;
        for ((at, skipped), rows) in owners.into_iter().zip(others) {
            let skipped = skipped + size_of::<u128>();
            found[at].rows.extend(rows.into_iter().map(|(key, value)| (key[skipped..].to_vec(), value)));
        }
        Ok(found)
    }

    /// The changes that put a shard's rows where they belong. `root` is kept up to date.
    pub(super) fn write(
        &mut self,
        partition: u32,
        place: Place,
        (root, expiry): (&mut Root, Option<Expiry>),
        rows: RowChanges,
        out: &mut Vec<StateChange>,
    ) {
        let mut put = |key: Vec<u8>, value| out.push(StateChange { store: Store::Correlate, partition, key, value });
        let before = *root;
        root.expiry = expiry;
        for (row, value) in rows {
            if let (Some(day), Some(_)) = (row_day(&row).map(day), &value) {
                self.written.insert(day);
                if self.days.insert(day) {
                    put([&[DAYS][..], &day.to_be_bytes()].concat(), Some(Vec::new()));
                }
                root.first_day = Some(root.first_day.map_or(day, |first| first.min(day)));
            }
            put(key_of(place, &row), value);
        }
        if *root != before && root.first_day.is_some() {
            put([&prefix(&[ABOUT], place.shard), FIRST_DAY].concat(), root.value());
        }
    }

    /// The changes that delete a shard's rows, and put down how far that went, of which the first that is left is of `first`.
    pub(super) fn delete(
        partition: u32,
        place: Place,
        root: &mut Root,
        (rows, first): (RowChanges, Option<NaiveDate>),
        out: &mut Vec<StateChange>,
    ) {
        let mut put = |key: Vec<u8>, value| out.push(StateChange { store: Store::Correlate, partition, key, value });
        rows.into_iter().for_each(|(row, value)| put(key_of(place, &row), value));
        if root.first_day != first.map(day) {
            root.first_day = first.map(day);
            put([&prefix(&[ABOUT], place.shard), FIRST_DAY].concat(), root.value());
        }
    }
}

/// Where a row of a shard lies.
fn key_of(Place { shard, told }: Place, row: &[u8]) -> Vec<u8> {
    let place = match row_day(row).map(day) {
        None if is_record_row(row) => prefix(&[TOLD], told),
        None => prefix(&[ABOUT], shard),
        Some(day) => prefix(&of_day(day), shard),
    };
    [place, row.to_vec()].concat()
}

fn prefix(place: &[u8], shard: u128) -> Vec<u8> {
    [place, &shard.to_be_bytes()].concat()
}

fn of_day(day: Day) -> [u8; 3] {
    let [high, low] = day.to_be_bytes();
    [OF_DAY, high, low]
}

fn day_of(bytes: &[u8]) -> Option<Day> {
    Some(Day::from_be_bytes(bytes.try_into().ok()?))
}

pub(super) fn day(date: NaiveDate) -> Day {
    let since = date.signed_duration_since(NaiveDate::from_ymd_opt(2000, 1, 1).unwrap_or_default()).num_days();
    if (0..DAYS_MAX).contains(&since) { since as Day + 1 } else { 0 }
}

#[cfg(test)]
mod tests {
    use runtime::log::Txn;
    use runtime::log::embedded::Embedded;

    use super::*;
    use crate::correlate::member_row;

    fn on(date: &str) -> Vec<u8> {
        member_row(7, date.parse().unwrap(), 9)
    }

    fn at(shard: u128) -> Place {
        Place { shard, told: shard % 2 }
    }

    async fn rows_of(log: &dyn Log, shard: u128) -> (Vec<Vec<u8>>, Root) {
        let layout = Layout::load(log, 0).await.unwrap();
        let found = layout.read(log, 0, &[at(1), at(shard)]).await.unwrap().pop().unwrap();
        let mut rows: Vec<Vec<u8>> = found.rows.into_iter().map(|(row, _)| row).collect();
        rows.sort();
        (rows, found.root)
    }

    #[tokio::test]
    async fn a_shard_finds_all_its_rows_again_whatever_their_days_and_order() {
        let folder = tempfile::tempdir().unwrap();
        let log = Embedded::open(&folder.path().join("log.sqlite"), 1).unwrap();
        let mut layout = Layout::default();
        let (mut root, mut written) = (Root::default(), Vec::new());
        let expiry = Some(Expiry { told: 0, meaning: 9, reach: TimeDelta::seconds(90) });
        let group = [&b"g"[..], &[0; 16]].concat();
        let steps = [
            vec![group, on("2026-11-22T10:00:00Z")],
            vec![on("2026-11-25T10:00:00Z")],
            // Late, and from clocks that are wrong.
            vec![on("2026-11-20T10:00:00Z"), on("9999-12-31T10:00:00Z"), on("0001-01-01T00:00:00Z")],
        ];
        for rows in steps {
            written.extend(rows.clone());
            let mut txn = Txn::default();
            let rows = rows.into_iter().map(|row| (row, Some(vec![1]))).collect();
            layout.write(0, at(2), (&mut root, expiry), rows, &mut txn.state);
            // Another shard's rows of the same days stay its own.
            layout.write(
                0,
                at(3),
                (&mut Root::default(), None),
                vec![(on("2026-11-22T10:00:00Z"), Some(vec![1]))],
                &mut txn.state,
            );
            log.commit(txn).await.unwrap();
            written.sort();
            assert_eq!(rows_of(&log, 2).await, (written.clone(), root));
        }
        assert_eq!(rows_of(&log, 4).await, (vec![], Root::default()));
        // All but the last goes.
        let mut txn = Txn::default();
        let gone: Vec<_> = written.iter().filter(|row| **row != on("2026-11-25T10:00:00Z")).cloned().collect();
        let rows = gone.into_iter().map(|row| (row, None)).collect();
        let first = "2026-11-25".parse().unwrap();
        Layout::delete(0, at(2), &mut root, (rows, Some(first)), &mut txn.state);
        log.commit(txn).await.unwrap();
        assert_eq!((root.first_day, root.expiry), (Some(day(first)), expiry));
        assert_eq!(rows_of(&log, 2).await, (vec![on("2026-11-25T10:00:00Z")], root));
    }

    #[test]
    fn days_outside_the_century_are_one() {
        let of = |text: &str| day(text.parse().unwrap());
        assert_eq!((of("1999-12-31"), of("2000-01-01"), of("2099-12-31"), of("2100-01-01")), (0, 1, 36_525, 0));
        assert!(of("2026-11-21") < of("2026-11-22"));
    }
}
