//! Admit forgets days that the archive does not keep any more.
//!
//! # The guarantee
//!
//! What is forgotten of a day are the records that the archive had, all of which its retention has taken out: the day lies
//! well before the one from which records are kept, nobody has a record of it there, and it had come past them. A day under a
//! hold is there, so it stays known; so does what is not archived yet. What is delivered once more after that is new, and
//! goes at the next round of the retention.
//!
//! Without it what admit knows would grow for ever: 32 bytes a record.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{Days, NaiveDate};
use runtime::log::{Consumer, Log, StateChange, Store, Topic};
use schemas::history::{History, HistoryError};
use tokio::time::Instant;

use super::Error;
use crate::admit::Admit;

/// How often to ask the archive: its retention takes out days, and does so once an hour at most.
const LOOK_INTERVAL: Duration = Duration::from_secs(3_600);

/// Days that stay known a while longer: Microsoft lists content for seven, and somebody may keep records for one.
const LEEWAY_DAYS: u64 = 14;

/// How far back to look for days: Microsoft keeps no audit record for longer than ten years.
const DAYS_MAX: u64 = 3_660;

/// Days without a row that one step looks at, and rows that it deletes: a step stays short.
const DAYS_AT_ONCE: usize = 200;
const ROWS_AT_ONCE: usize = 2_000;

/// Offsets that one batch of admit may reach over. It is of 2,000 messages, but offsets are not dense in every log; what the
/// last of them hold stays known a while longer.
const BATCH_OFFSETS_MAX: u64 = if cfg!(test) { 20 } else { 100_000 };

/// What one partition has to forget.
pub(super) struct Retiring {
    history: Arc<dyn History>,
    looked: Instant,
    /// The last is the next.
    days: Vec<NaiveDate>,
    /// How far the archive was when it was asked.
    archived: u64,
}

/// A day of which something is forgotten.
pub(super) struct Retired {
    pub(super) day: NaiveDate,
    pub(super) rows: Vec<StateChange>,
    pub(super) records: u64,
}

impl Retiring {
    pub(super) fn new(history: Arc<dyn History>) -> Retiring {
        Retiring { history, looked: Instant::now(), days: Vec::new(), archived: 0 }
    }

    /// Something to forget; none if there is nothing now. The first look is an hour after a worker has begun.
    pub(super) async fn next(&mut self, log: &dyn Log, partition: u32) -> Result<Option<Retired>, Error> {
        if self.days.is_empty() {
            if self.looked.elapsed() < LOOK_INTERVAL {
                return Ok(None);
            }
            self.looked = Instant::now();
            self.archived = log.committed(Consumer::Archive, Topic::Records, partition).await?;
            match self.gone(log).await {
                Ok(days) => self.days = days,
                // Nothing waits for it: it is asked again in an hour.
                Err(error) => tracing::debug!(event = "retirement_waits", partition, error = %error),
            }
        }
        for _ in 0..DAYS_AT_ONCE {
            let Some(day) = self.days.last().copied() else { return Ok(None) };
            let retired = self.of_day(log, partition, day).await?;
            if retired.rows.len() < ROWS_AT_ONCE {
                self.days.pop();
            }
            if !retired.rows.is_empty() {
                return Ok(Some(retired));
            }
        }
        Ok(None)
    }

    /// The days of which the archive has had records, perhaps, and has none.
    async fn gone(&self, log: &dyn Log) -> Result<Vec<NaiveDate>, HistoryError> {
        let snapshot = self.history.snapshot(log.id(), &[]).await?;
        let Some(since) = snapshot.kept_since() else { return Ok(Vec::new()) };
        let there: BTreeSet<NaiveDate> = snapshot.days().await?.into_iter().map(|(_, day)| day).collect();
        let back = (LEEWAY_DAYS + 1..=LEEWAY_DAYS + DAYS_MAX).map_while(|days| since.checked_sub_days(Days::new(days)));
        let mut days: Vec<NaiveDate> = back.filter(|day| !there.contains(day)).collect();
        days.reverse();
        Ok(days)
    }

    async fn of_day(&self, log: &dyn Log, partition: u32, day: NaiveDate) -> Result<Retired, Error> {
        let mut retired = Retired { day, rows: Vec::new(), records: 0 };
        for (key, value) in log.scan(Store::Admit, partition, &Admit::prefix(day)).await? {
            if retired.rows.len() < ROWS_AT_ONCE && self.is_archived(&key) {
                retired.records += Admit::records_of(&value);
                retired.rows.push(StateChange { store: Store::Admit, partition, key, value: None });
            }
        }
        Ok(retired)
    }

    /// Whether the archive was past the whole batch that a row is of.
    fn is_archived(&self, key: &[u8]) -> bool {
        let offset = key.last_chunk::<8>().map(|offset| u64::from_be_bytes(*offset));
        let end = offset.and_then(|offset| offset.checked_add(BATCH_OFFSETS_MAX));
        let is_past = end.is_some_and(|end| end <= self.archived);
        is_past || runtime::failpoint::is_broken("retire-unarchived")
    }
}

#[cfg(test)]
mod tests;
