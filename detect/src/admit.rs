//! Admit: whether a record has been seen before.
//!
//! # The guarantee
//!
//! A record is known by tenant, id and content. Of all deliveries of one record exactly one is *admitted*, and which one
//! does not matter, because they are the same record; the others are *duplicates*. A known id with other content is a
//! *variant*: a record of its own.
//!
//! | id known | content known | verdict |
//! |---|---|---|
//! | no | – | admitted |
//! | yes | yes | duplicate |
//! | yes | no | variant |
//!
//! Nothing is ever forgotten while the archive keeps the record; days that its retention has taken out are
//! ([`retiring`](crate::service)). What is known is kept in segments by event day: 32
//! bytes a record, loaded when a record of that day comes, put aside when too many days are in memory. A
//! redelivery says the same event time, so it looks in the same segment.

use std::collections::{BTreeMap, HashMap};

use chrono::NaiveDate;
use schemas::Event;
use schemas::json::key_hash;
use schemas::message::Verdict;

/// Most records held in memory by one partition; about 60 bytes each. Days used longest ago are put aside first.
pub const ENTRIES_MAX: usize = 4_000_000;

/// Bytes of one entry: id hash and content hash, 128 bits each.
const ENTRY_BYTES: usize = 32;

/// What one partition knows.
#[derive(Default)]
pub struct Admit {
    days: HashMap<NaiveDate, Segment>,
    entries: usize,
    /// Counts batches, to tell which day was used longest ago.
    batch: u64,
    /// Entries since the last [`Admit::take_rows`], by day.
    pending: BTreeMap<NaiveDate, Vec<u8>>,
}

#[derive(Default)]
struct Segment {
    /// Content hashes by id hash. Variants are rare, so there is nearly always one.
    known: HashMap<u128, Contents>,
    used: u64,
}

enum Contents {
    One(u128),
    Many(Vec<u128>),
}

/// The stored rows of a day are not whole: the log is damaged.
#[derive(Debug, thiserror::Error)]
#[error("a segment of known records is damaged")]
pub struct DamagedSegment;

impl Admit {
    /// Whether the segment of that day must be loaded before a record of it can be judged.
    pub fn is_loaded(&self, day: NaiveDate) -> bool {
        self.days.contains_key(&day)
    }

    /// Key prefix of the rows of a day.
    pub fn prefix(day: NaiveDate) -> [u8; 4] {
        // Days count from year 1; offset to be positive and ordered as bytes.
        (i64::from(chrono::Datelike::num_days_from_ce(&day)) + (1 << 31)).to_be_bytes()[4..]
            .try_into()
            .unwrap_or_default()
    }

    /// Takes in the rows of a day as [`Admit::take_rows`] wrote them.
    pub fn load(&mut self, day: NaiveDate, rows: impl IntoIterator<Item = Vec<u8>>) -> Result<(), DamagedSegment> {
        let mut segment = Segment { used: self.batch, ..Segment::default() };
        for row in rows {
            let (entries, rest) = row.as_chunks::<ENTRY_BYTES>();
            if !rest.is_empty() {
                return Err(DamagedSegment);
            }
            for entry in entries {
                let (id, content) = entry.split_at(16);
                segment.insert(number(id), number(content));
                self.entries += 1;
            }
        }
        self.days.insert(day, segment);
        Ok(())
    }

    /// Judges one record, whose day must be loaded, and remembers it.
    pub fn judge(&mut self, event: &Event) -> Verdict {
        let day = event.time().date_naive();
        let id = key_hash(&[event.tenant().as_str(), event.id()]);
        let content = event.content_hash();
        let segment = self.days.entry(day).or_default();
        segment.used = self.batch;
        let verdict = segment.insert(id, content);
        if verdict != Verdict::Duplicate {
            self.entries += 1;
            let row = self.pending.entry(day).or_default();
            row.extend_from_slice(&id.to_be_bytes());
            row.extend_from_slice(&content.to_be_bytes());
        }
        verdict
    }

    /// The rows that remember what was judged since the last call, for the batch that begins at this offset.
    pub fn take_rows(&mut self, first_offset: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.batch += 1;
        let pending = std::mem::take(&mut self.pending);
        let rows = pending.into_iter().map(|(day, row)| {
            let key = [&Admit::prefix(day)[..], &first_offset.to_be_bytes()].concat();
            (key, row)
        });
        let rows = rows.collect();
        self.put_aside();
        rows
    }

    /// How many records a row remembers.
    pub fn records_of(row: &[u8]) -> u64 {
        (row.len() / ENTRY_BYTES) as u64
    }

    /// Forgets what is in memory of a day; what is stored of it is loaded when a record of it comes. Between batches only.
    pub fn unload(&mut self, day: NaiveDate) {
        if let Some(segment) = self.days.remove(&day) {
            self.entries -= segment.len().min(self.entries);
        }
    }

    fn put_aside(&mut self) {
        while self.entries > ENTRIES_MAX && self.days.len() > 1 {
            let Some(day) = self.days.iter().min_by_key(|(day, segment)| (segment.used, **day)).map(|(day, _)| *day)
            else {
                return;
            };
            self.unload(day);
        }
    }
}

impl Segment {
    fn insert(&mut self, id: u128, content: u128) -> Verdict {
        use std::collections::hash_map::Entry;
        match self.known.entry(id) {
            Entry::Vacant(vacant) => {
                vacant.insert(Contents::One(content));
                Verdict::Admitted
            }
            Entry::Occupied(mut occupied) => match occupied.get_mut() {
                Contents::One(known) if *known == content => Verdict::Duplicate,
                Contents::Many(known) if known.contains(&content) => Verdict::Duplicate,
                Contents::Many(known) => {
                    known.push(content);
                    Verdict::Variant
                }
                Contents::One(known) => {
                    let many = Contents::Many(vec![*known, content]);
                    occupied.insert(many);
                    Verdict::Variant
                }
            },
        }
    }

    fn len(&self) -> usize {
        let variants = self.known.values().map(|contents| match contents {
            Contents::One(_) => 1,
            Contents::Many(many) => many.len(),
        });
        variants.sum()
    }
}

fn number(bytes: &[u8]) -> u128 {
    bytes.try_into().map(u128::from_be_bytes).unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use schemas::envelope::{Origin, Received};

    pub(crate) fn event(record: &str) -> Event {
        let origin = Origin {
            tenant: "t1".parse().unwrap(),
            source: "import".into(),
            content_type: String::new(),
            blob_id: String::new(),
            received: chrono::DateTime::UNIX_EPOCH,
            notify: true,
        };
        Event::read(&Received { origin, bytes: record.as_bytes().to_vec() }).unwrap()
    }

    fn judge(admit: &mut Admit, record: &str) -> Verdict {
        admit.judge(&event(record))
    }

    const A: &str = r#"{"Id":"a","CreationTime":"2026-11-22T10:00:00","Operation":"x"}"#;
    const A_REORDERED: &str = r#"{"Operation" : "x", "CreationTime":"2026-11-22T10:00:00","Id":"a"}"#;
    const A_OTHER: &str = r#"{"Id":"a","CreationTime":"2026-11-22T10:00:00","Operation":"y"}"#;
    const B: &str = r#"{"Id":"b","CreationTime":"2026-11-23T10:00:00","Operation":"x"}"#;

    #[test]
    fn each_record_is_admitted_once_and_other_content_is_a_variant() {
        let mut admit = Admit::default();
        let verdicts: Vec<_> =
            [A, A, A_REORDERED, A_OTHER, A_OTHER, A, B].iter().map(|record| judge(&mut admit, record)).collect();
        use Verdict::*;
        assert_eq!(verdicts, [Admitted, Duplicate, Duplicate, Variant, Duplicate, Duplicate, Admitted]);
    }

    #[test]
    fn what_was_written_is_known_after_a_restart() {
        let mut admit = Admit::default();
        judge(&mut admit, A);
        judge(&mut admit, B);
        let mut rows = admit.take_rows(0);
        judge(&mut admit, A_OTHER);
        rows.extend(admit.take_rows(2));
        assert!(admit.take_rows(3).is_empty());

        let mut restarted = Admit::default();
        for record in [A, B] {
            let day = event(record).time().date_naive();
            assert!(!restarted.is_loaded(day));
            let of_day =
                rows.iter().filter(|(key, _)| key.starts_with(&Admit::prefix(day))).map(|(_, row)| row.clone());
            restarted.load(day, of_day.collect::<Vec<_>>()).unwrap();
        }
        for record in [A, A_OTHER, B] {
            assert_eq!(judge(&mut restarted, record), Verdict::Duplicate);
        }
        assert!(restarted.load(NaiveDate::default(), [vec![0; 31]]).is_err());
    }

    #[test]
    fn prefixes_order_as_days_do() {
        let day = |text: &str| Admit::prefix(text.parse().unwrap());
        assert!(day("1601-01-01") < day("1969-12-31"));
        assert!(day("1969-12-31") < day("1970-01-01"));
        assert!(day("1970-01-01") < day("2026-11-22"));
    }
}
