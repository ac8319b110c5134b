//! Watches the feeds themselves: one that has fallen silent, cannot be listed, or was disabled is worth an alarm. Pure.
//!
//! An alarm is an audit record of harrier's own, with workload `harrier`, in the log beside Microsoft's: so that rules
//! judge it, people are told by the same sinks, and the archive keeps when the collector saw what.
//!
//! # Guarantee
//!
//! * Each episode is told once, across restarts: what was told is in the ledger, written in the transaction of the
//!   record, whose id follows from the episode.
//! * Silence is judged against the same hours of earlier weeks, at least two of them: a night or a Sunday without
//!   records is no alarm where it never had any. It is judged only while the feed is being listed, so that our own
//!   trouble is never told as the tenant's silence.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use runtime::log::Output;
use schemas::envelope::Origin;
use schemas::json::key_hash;
use serde_json::json;

use super::code::shown;
use super::effect::Note;
use crate::ledger::{BlobRow, BlobState, Change, HistoryRow, Ledger};
use crate::record::prepare;
use crate::splitter::{Body, Element};

/// What rules and people know these records by.
pub const WORKLOAD: &str = "harrier";

/// Weeks looked back to. Four see over a holiday, and a month of hours is a row of some kilobytes.
const WEEKS_MAX: i64 = 4;

/// Weeks without which nothing is said: one alone may have been the odd one.
const WEEKS_MIN: usize = 2;

const WEEK_HOURS: i64 = 7 * 24;

/// Whole hours without content before silence is looked into. Microsoft itself takes an hour or two.
const SILENT_HOURS_MIN: i64 = 3;

/// Longest silence compared: beyond a day the hours of the last day say as much.
const SILENT_HOURS_MAX: i64 = 24;

/// Records that each earlier week must have had in the same hours. Fewer can be missing by chance.
const EXPECTED_MIN: u64 = 30;

/// A feed that was listed within this is being listed.
const LISTED_WITHIN: TimeDelta = TimeDelta::minutes(15);

/// An alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    Silent,
    ListingFails,
    Disabled,
}

impl Alarm {
    fn operation(self) -> &'static str {
        match self {
            Alarm::Silent => "FeedSilent",
            Alarm::ListingFails => "FeedListingFails",
            Alarm::Disabled => "FeedSubscriptionDisabled",
        }
    }
}

/// What is watched of a tenant.
#[derive(Clone, Debug)]
pub struct Watch {
    feeds: BTreeMap<String, Watched>,
    listing_fails_after: TimeDelta,
}

#[derive(Clone, Debug)]
struct Watched {
    row: HistoryRow,
    /// The row differs from the one in the ledger.
    is_changed: bool,
    /// Since when the feed has not been listed: its last listing, or our own beginning.
    listed: DateTime<Utc>,
    was_listed: bool,
    /// Found not enabled although it had been listed before.
    disabled: bool,
    existed: bool,
    trouble: String,
}

/// What is to be committed.
#[derive(Debug, Default)]
pub struct Told {
    pub changes: Vec<Change>,
    pub records: Vec<Output>,
}

impl Watch {
    /// Goes on where the ledger says. A ledger without a history gives the one that its blobs tell.
    pub fn new(content_types: &[String], ledger: &Ledger, listing_fails_after: TimeDelta, now: DateTime<Utc>) -> Watch {
        let watched = |content_type: &String| {
            let row = ledger.histories.get(content_type).cloned();
            let is_changed = row.is_none();
            let blobs = || ledger.blobs.get(content_type).into_iter().flat_map(|rows| rows.values());
            let row = row.unwrap_or_else(|| from_blobs(blobs()));
            let existed = ledger.feeds.get(content_type).is_some_and(|feed| feed.cursor.is_some());
            let disabled = false;
            let watched =
                Watched { row, is_changed, listed: now, was_listed: false, disabled, existed, trouble: String::new() };
            (content_type.clone(), watched)
        };
        Watch { feeds: content_types.iter().map(watched).collect(), listing_fails_after }
    }

    /// Takes in what has happened.
    pub fn heard(&mut self, note: &Note, now: DateTime<Utc>) {
        match note {
            Note::Listed { feed } => self.with(feed, |feed| {
                (feed.listed, feed.was_listed, feed.existed) = (now, true, true);
                feed.trouble.clear();
                feed.end(Alarm::ListingFails);
            }),
            Note::BlobFetched { feed, created, records, .. } => self.with(feed, |feed| {
                let count = feed.row.hours.entry(hour(*created)).or_default();
                *count = count.saturating_add(u32::try_from(*records).unwrap_or(u32::MAX));
                feed.is_changed = true;
            }),
            Note::Subscription { feed, enabled } => self.with(feed, |feed| {
                feed.disabled |= !enabled && feed.existed;
                if *enabled && !feed.disabled && feed.holds(Alarm::Disabled) {
                    // From here on it can be listed again.
                    feed.listed = now;
                    feed.end(Alarm::Disabled);
                }
            }),
            // A listing may be refused, and the subscription started, before the list of subscriptions is looked at.
            Note::SubscriptionStarted { feed } => self.with(feed, |feed| feed.disabled |= feed.existed),
            Note::Trouble { feed: Some(feed), error, .. } => self.with(feed, |feed| feed.trouble.clone_from(error)),
            Note::Stopped { feed: Some(feed), reason } => self.with(feed, |feed| feed.trouble.clone_from(reason)),
            Note::Trouble { feed: None, error: reason, .. } | Note::Stopped { feed: None, reason } => {
                self.feeds.values_mut().for_each(|feed| feed.trouble.clone_from(reason));
            }
            _ => {}
        }
    }

    fn with(&mut self, feed: &str, work: impl FnOnce(&mut Watched)) {
        if let Some(feed) = self.feeds.get_mut(feed) {
            work(feed);
        }
    }

    /// What is to be told now, and the rows that remember it.
    pub fn judge(&mut self, origin: &Origin, now: DateTime<Utc>) -> Told {
        let mut told = Told::default();
        for (content_type, feed) in &mut self.feeds {
            for (alarm, since, detail) in feed.alarms(self.listing_fails_after, now) {
                if !feed.row.told.contains_key(alarm.operation()) {
                    feed.row.told.insert(alarm.operation().to_owned(), since);
                    feed.is_changed = true;
                    told.records.push(record(origin, content_type, alarm, since, &detail, now));
                }
            }
            let oldest = hour(now) - WEEKS_MAX * WEEK_HOURS - SILENT_HOURS_MAX;
            if feed.row.hours.first_key_value().is_some_and(|(first, _)| *first < oldest) {
                feed.row.hours = feed.row.hours.split_off(&oldest);
                feed.is_changed = true;
            }
            if std::mem::take(&mut feed.is_changed) {
                told.changes.push(Change::History(content_type.clone(), feed.row.clone()));
            }
        }
        told
    }
}

impl Watched {
    /// It has been told, and is not over.
    fn holds(&self, alarm: Alarm) -> bool {
        self.row.told.contains_key(alarm.operation())
    }

    fn end(&mut self, alarm: Alarm) {
        self.is_changed |= self.row.told.remove(alarm.operation()).is_some();
    }

    /// The alarms that hold now, each with its beginning.
    fn alarms(&mut self, fails_after: TimeDelta, now: DateTime<Utc>) -> Vec<(Alarm, DateTime<Utc>, String)> {
        let mut alarms = Vec::new();
        if std::mem::take(&mut self.disabled) {
            alarms.push((Alarm::Disabled, now, "found disabled or removed; harrier starts it once".to_owned()));
        } else if now - self.listed >= fails_after && self.existed && !self.holds(Alarm::Disabled) {
            alarms.push((Alarm::ListingFails, self.listed, self.trouble.clone()));
        }
        let is_listed = self.was_listed && now - self.listed <= LISTED_WITHIN;
        match self.silence(now) {
            Some((since, expected)) if is_listed => {
                let detail = format!("at least {expected} records in the same hours of each earlier week");
                alarms.push((Alarm::Silent, since, detail));
            }
            Some(_) => {}
            None => self.end(Alarm::Silent),
        }
        alarms
    }

    /// Since when it is silent against its own past, and how many records it should have had.
    fn silence(&self, now: DateTime<Utc>) -> Option<(DateTime<Utc>, u64)> {
        let (last, _) = self.row.hours.iter().rfind(|(_, records)| **records > 0)?;
        let (first, _) = self.row.hours.first_key_value()?;
        // The present hour is not over.
        let silent = last + 1..hour(now);
        let hours = silent.end - silent.start;
        if hours < SILENT_HOURS_MIN {
            return None;
        }
        let compared = silent.end - hours.min(SILENT_HOURS_MAX)..silent.end;
        let week = |weeks: i64| {
            let shift = weeks * WEEK_HOURS;
            let is_known = *first <= compared.start - shift;
            let of = self.row.hours.range(compared.start - shift..compared.end - shift);
            is_known.then(|| of.map(|(_, records)| u64::from(*records)).sum())
        };
        let weeks: Vec<u64> = (1..=WEEKS_MAX).filter_map(week).collect();
        let expected = weeks.iter().copied().min().filter(|_| weeks.len() >= WEEKS_MIN)?;
        let since = DateTime::from_timestamp(silent.start * 3_600, 0)?;
        (expected >= EXPECTED_MIN).then_some((since, expected))
    }
}

fn hour(time: DateTime<Utc>) -> i64 {
    time.timestamp().div_euclid(3_600)
}

fn from_blobs<'a>(blobs: impl Iterator<Item = &'a BlobRow>) -> HistoryRow {
    let mut row = HistoryRow::default();
    for blob in blobs {
        if let BlobState::Committed { records, .. } = &blob.state {
            let count: &mut u32 = row.hours.entry(hour(blob.created)).or_default();
            *count = count.saturating_add(u32::try_from(*records).unwrap_or(u32::MAX));
        }
    }
    row
}

/// The record that tells it. Its id follows from the episode, so that it is one record however often it is made.
fn record(
    origin: &Origin,
    content_type: &str,
    alarm: Alarm,
    since: DateTime<Utc>,
    detail: &str,
    now: DateTime<Utc>,
) -> Output {
    let stamp = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
    let operation = alarm.operation();
    let id = key_hash(&[WORKLOAD, origin.tenant.as_str(), content_type, operation, &stamp(since)]);
    let record = json!({
        "Id": format!("harrier-{id:032x}"),
        "CreationTime": stamp(now).trim_end_matches('Z'),
        "Workload": WORKLOAD,
        "Operation": operation,
        "UserId": WORKLOAD,
        "UserType": 4,
        "ObjectId": content_type,
        "Since": stamp(since),
        "Detail": shown(detail),
    });
    let bytes = record.to_string();
    let element = Element { index: 0, offset: 0, body: Body::Whole(bytes.as_bytes()) };
    let origin = Origin { source: WORKLOAD.to_owned(), content_type: content_type.to_owned(), ..origin.clone() };
    prepare(&origin, element, String::new).output
}

#[cfg(test)]
mod tests;
