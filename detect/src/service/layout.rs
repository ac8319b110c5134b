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
//! | 0, shard, `d` | the earliest day on which the shard has rows |
//! | 1, day, shard, row | rows about a moment of that day: members, sightings |
//! | 2, day | the partition has rows of that day |
//! | 3, told, row | findings: where each stands, whatever the rule meant when it was told |
//!
//! A shard that is read again is looked for on its first day and every later one that has rows. Days before 2000 and
//! after 2099 count as one: a hostile clock must not make a search of millions of days.

use std::collections::BTreeSet;

use chrono::NaiveDate;
use runtime::log::{Log, LogError, StateChange, Store};

use crate::correlate::{is_record_row, row_day};

const ABOUT: u8 = 0;
const OF_DAY: u8 = 1;
const DAYS: u8 = 2;
const TOLD: u8 = 3;

/// The row that holds a shard's first day; no row of a shard begins with this letter.
const FIRST_DAY: &[u8] = b"d";

/// A day as it is kept: 1 for 2000-01-01 and so on; 0 for all days outside the century.
type Day = u16;

/// Days of a century.
const DAYS_MAX: i64 = 36_525;

/// The days on which a partition has rows.
#[derive(Default)]
pub(super) struct Layout {
    days: BTreeSet<Day>,
}

/// Names of a shard: of what it holds, which another meaning of its rule begins anew, and of what it has told, which goes
/// on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub(super) shard: u128,
    pub(super) told: u128,
}

/// A shard's rows as [`Shard::load`](crate::correlate::Shard::load) takes them, and its first day.
pub(super) struct Found {
    pub(super) rows: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) first_day: Option<Day>,
}

impl Layout {
    /// What is committed.
    pub(super) async fn load(log: &dyn Log, partition: u32) -> Result<Layout, LogError> {
        let rows = log.scan(Store::Correlate, partition, &[DAYS]).await?;
        Ok(Layout { days: rows.iter().filter_map(|(key, _)| day_of(&key[1..])).collect() })
    }

    /// All rows of these shards, in their order.
    pub(super) async fn read(&self, log: &dyn Log, partition: u32, shards: &[Place]) -> Result<Vec<Found>, LogError> {
        let about = shards.iter().map(|place| prefix(&[ABOUT], place.shard)).collect();
        let about = log.scan_each(Store::Correlate, partition, about).await?;
        let mut found: Vec<Found> = about
            .into_iter()
            .map(|rows| {
                let mut found = Found { rows: Vec::with_capacity(rows.len()), first_day: None };
                for (key, value) in rows {
                    match &key[1 + size_of::<u128>()..] {
                        FIRST_DAY => found.first_day = day_of(&value),
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
            for day in found[at].first_day.into_iter().flat_map(|first| self.days.range(first..)) {
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

    /// The changes that put a shard's rows where they belong. `first_day` is kept up to date.
    pub(super) fn write(
        &mut self,
        partition: u32,
        place: Place,
        first_day: &mut Option<Day>,
        rows: Vec<(Vec<u8>, Option<Vec<u8>>)>,
        out: &mut Vec<StateChange>,
    ) {
        let mut put = |key: Vec<u8>, value| out.push(StateChange { store: Store::Correlate, partition, key, value });
        let Place { shard, told } = place;
        let before = *first_day;
        for (row, value) in rows {
            let place = match row_day(&row).map(day) {
                None if is_record_row(&row) => prefix(&[TOLD], told),
                None => prefix(&[ABOUT], shard),
                Some(day) => {
                    if self.days.insert(day) {
                        put([&[DAYS][..], &day.to_be_bytes()].concat(), Some(Vec::new()));
                    }
                    *first_day = Some(first_day.map_or(day, |first| first.min(day)));
                    prefix(&of_day(day), shard)
                }
            };
            put([place, row].concat(), value);
        }
        if let Some(day) = first_day.filter(|_| *first_day != before) {
            put([&prefix(&[ABOUT], shard), FIRST_DAY].concat(), Some(day.to_be_bytes().to_vec()));
        }
    }
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

fn day(date: NaiveDate) -> Day {
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

    async fn rows_of(log: &dyn Log, shard: u128) -> (Vec<Vec<u8>>, Option<Day>) {
        let layout = Layout::load(log, 0).await.unwrap();
        let found = layout.read(log, 0, &[at(1), at(shard)]).await.unwrap().pop().unwrap();
        let mut rows: Vec<Vec<u8>> = found.rows.into_iter().map(|(row, _)| row).collect();
        rows.sort();
        (rows, found.first_day)
    }

    #[tokio::test]
    async fn a_shard_finds_all_its_rows_again_whatever_their_days_and_order() {
        let folder = tempfile::tempdir().unwrap();
        let log = Embedded::open(&folder.path().join("log.sqlite"), 1).unwrap();
        let mut layout = Layout::default();
        let (mut first, mut written) = (None, Vec::new());
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
            layout.write(0, at(2), &mut first, rows, &mut txn.state);
            // Another shard's rows of the same days stay its own.
            layout.write(0, at(3), &mut None, vec![(on("2026-11-22T10:00:00Z"), Some(vec![1]))], &mut txn.state);
            log.commit(txn).await.unwrap();
            written.sort();
            assert_eq!(rows_of(&log, 2).await, (written.clone(), first));
        }
        assert_eq!(rows_of(&log, 4).await, (vec![], None));
    }

    #[test]
    fn days_outside_the_century_are_one() {
        let of = |text: &str| day(text.parse().unwrap());
        assert_eq!((of("1999-12-31"), of("2000-01-01"), of("2099-12-31"), of("2100-01-01")), (0, 1, 36_525, 0));
        assert!(of("2026-11-21") < of("2026-11-22"));
    }
}
