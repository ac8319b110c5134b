//! How complete each feed is, from its ledger alone: nobody is asked, and harrier need not run. Pure.
//!
//! Guarantee: what is said here is what the ledger proves. A feed that the ledger does not know is *unknown*, and never
//! counts as complete; what is missing stays in the answer for as long as its row does.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use crate::ledger::{BlobRow, BlobState, FeedRow, Ledger};

/// A running harrier lists once a minute: a feed that was not listed for so long is not being listed.
const LISTED_WITHIN: TimeDelta = TimeDelta::hours(1);

/// Delays are those of blobs that became available within the last day.
const DELAYS_OF: TimeDelta = TimeDelta::hours(24);

/// How long Audit (Standard) keeps records; Premium keeps longer.
const RETENTION_LEAST: TimeDelta = TimeDelta::days(180);

/// Blobs that cannot be had are told one by one up to here; the rest are counted.
const MISSING_SHOWN_MAX: usize = 20;

/// Where one feed stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FeedStatus {
    pub content_type: String,
    pub standing: Standing,
    /// All that became available before is in the log, but for what is missing.
    pub complete_until: Option<DateTime<Utc>>,
    /// All that became available before has been listed.
    pub listed_until: Option<DateTime<Utc>>,
    /// The newest content that Microsoft has made available.
    pub newest_content: Option<DateTime<Utc>>,
    /// Blobs listed and not fetched yet.
    pub backlog: u64,
    /// When a blob that failed is tried again.
    pub next_try: Option<DateTime<Utc>>,
    /// From the oldest event of a blob to its availability: Microsoft's delay, in seconds.
    pub microsoft_delay: Option<Delay>,
    /// From availability to the log: ours, in seconds.
    pub own_delay: Option<Delay>,
    pub missing: Vec<Missing>,
    /// Missing blobs beyond those in `missing`.
    pub missing_more: u64,
}

/// What the ledger knows of a feed as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    Complete,
    /// A new subscription may take twelve hours to its first content.
    WarmingUp,
    CatchingUp,
    /// Something is missing.
    Incomplete,
    /// Nobody lists it.
    Stale,
    Disabled,
    Unknown,
}

/// Middle and longest of many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Delay {
    pub median_seconds: i64,
    pub longest_seconds: i64,
}

/// A blob that is not in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    pub blob_id: String,
    /// When it became available.
    pub available: DateTime<Utc>,
    pub reason: String,
    /// Until when the feed still has it; none where it does not.
    pub in_feed_until: Option<DateTime<Utc>>,
    /// Until when a search of the audit log can still find its records, at the least.
    pub in_search_until: DateTime<Utc>,
}

/// The status of each of these feeds.
pub fn of(ledger: &Ledger, content_types: &[String], now: DateTime<Utc>) -> Vec<FeedStatus> {
    let none = BTreeMap::new();
    let status = |content_type: &String| {
        let blobs = ledger.blobs.get(content_type).unwrap_or(&none);
        feed(content_type, ledger.feeds.get(content_type), blobs, now)
    };
    content_types.iter().map(status).collect()
}

fn feed(
    content_type: &str,
    row: Option<&FeedRow>,
    blobs: &BTreeMap<String, BlobRow>,
    now: DateTime<Utc>,
) -> FeedStatus {
    let mut status = FeedStatus {
        content_type: content_type.to_owned(),
        standing: Standing::Unknown,
        complete_until: row.and_then(|row| row.mark),
        listed_until: row.and_then(|row| row.cursor),
        newest_content: blobs.values().map(|blob| blob.created).max(),
        backlog: 0,
        next_try: None,
        microsoft_delay: None,
        own_delay: None,
        missing: Vec::new(),
        missing_more: 0,
    };
    // What had been there before harrier began is not its delay.
    let begun = blobs.values().filter_map(|blob| match &blob.state {
        BlobState::Committed { at, .. } => Some(*at),
        _ => None,
    });
    let begun = begun.min().unwrap_or(now);
    let (mut at_microsoft, mut own) = (Vec::new(), Vec::new());
    for (id, blob) in blobs {
        match &blob.state {
            BlobState::Listed => status.backlog += 1,
            BlobState::Retrying(retrying) => {
                status.backlog += 1;
                status.next_try = status.next_try.into_iter().chain([retrying.next_try]).min();
                if retrying.is_gap {
                    let reason = format!("{} attempts so far: {}", retrying.attempts, retrying.last_error);
                    status.miss(id, blob, reason, blob.expires);
                }
            }
            BlobState::Committed { at, oldest_event, .. } => {
                if blob.created >= now - DELAYS_OF {
                    own.extend((blob.created >= begun).then(|| (*at - blob.created).num_seconds().max(0)));
                    at_microsoft.extend(oldest_event.map(|event| (blob.created - event).num_seconds().max(0)));
                }
            }
            BlobState::Gone { reason, .. } => status.miss(id, blob, reason.clone(), None),
            BlobState::Expired { .. } => {
                status.miss(id, blob, "it expired before it was fetched".to_owned(), None);
            }
        }
    }
    (status.microsoft_delay, status.own_delay) = (Delay::of(at_microsoft), Delay::of(own));
    status.standing = status.standing(row, now);
    status
}

impl FeedStatus {
    fn miss(&mut self, id: &str, blob: &BlobRow, reason: String, in_feed_until: Option<DateTime<Utc>>) {
        if self.missing.len() == MISSING_SHOWN_MAX {
            self.missing_more += 1;
            return;
        }
        let (blob_id, available) = (id.to_owned(), blob.created);
        let in_search_until = available + RETENTION_LEAST;
        self.missing.push(Missing { blob_id, available, reason, in_feed_until, in_search_until });
    }

    fn standing(&self, row: Option<&FeedRow>, now: DateTime<Utc>) -> Standing {
        let Some(row) = row else { return Standing::Unknown };
        if row.disabled {
            return Standing::Disabled;
        }
        let Some(cursor) = row.cursor else {
            return if row.warming_since.is_some() { Standing::WarmingUp } else { Standing::Unknown };
        };
        if now - cursor > LISTED_WITHIN {
            Standing::Stale
        } else if !self.missing.is_empty() {
            Standing::Incomplete
        } else if row.warming_since.is_some() {
            Standing::WarmingUp
        } else if self.backlog > 0 || row.mark.is_none_or(|mark| now - mark > LISTED_WITHIN) {
            Standing::CatchingUp
        } else {
            Standing::Complete
        }
    }
}

impl Standing {
    pub fn as_str(self) -> &'static str {
        match self {
            Standing::Complete => "complete",
            Standing::WarmingUp => "warming up",
            Standing::CatchingUp => "catching up",
            Standing::Incomplete => "incomplete",
            Standing::Stale => "not listed",
            Standing::Disabled => "disabled",
            Standing::Unknown => "unknown",
        }
    }

    /// Whether somebody should do something.
    pub fn needs_attention(self) -> bool {
        matches!(self, Standing::Incomplete | Standing::Stale | Standing::Disabled | Standing::Unknown)
    }
}

impl Delay {
    fn of(mut seconds: Vec<i64>) -> Option<Delay> {
        seconds.sort_unstable();
        let longest_seconds = *seconds.last()?;
        Some(Delay { median_seconds: *seconds.get(seconds.len() / 2)?, longest_seconds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Retrying;

    fn at(text: &str) -> DateTime<Utc> {
        format!("2026-11-22T{text}Z").parse().unwrap()
    }

    fn blob(created: &str, state: BlobState) -> BlobRow {
        let created = at(created);
        BlobRow { created, expires: Some(created + TimeDelta::days(7)), uri: String::new(), state }
    }

    fn committed(at_text: &str, event: &str) -> BlobState {
        let (at, oldest_event) = (at(at_text), Some(at(event)));
        BlobState::Committed { records: 1, rejected: 0, bytes: 1, sha256: String::new(), at, oldest_event }
    }

    /// The status of a feed that was listed at ten, seen at ten past ten.
    fn seen(blobs: &[(&str, BlobRow)], change: impl Fn(&mut FeedRow)) -> FeedStatus {
        let mut row = FeedRow { cursor: Some(at("10:00:00")), mark: Some(at("09:55:00")), ..FeedRow::default() };
        change(&mut row);
        let blobs = blobs.iter().map(|(id, blob)| ((*id).to_owned(), blob.clone())).collect();
        let ledger = Ledger {
            feeds: BTreeMap::from([("Audit.Exchange".to_owned(), row)]),
            histories: BTreeMap::new(),
            blobs: BTreeMap::from([("Audit.Exchange".to_owned(), blobs)]),
        };
        of(&ledger, &["Audit.Exchange".to_owned()], at("10:10:00")).remove(0)
    }

    #[test]
    fn delays_are_told_apart() {
        let blobs = [
            ("before we began", blob("01:00:00", committed("08:00:00", "00:30:00"))),
            ("a", blob("09:00:00", committed("09:00:10", "08:30:00"))),
            ("b", blob("09:30:00", committed("09:30:30", "09:00:00"))),
            ("c", blob("09:40:00", committed("09:41:40", "07:40:00"))),
        ];
        let status = seen(&blobs, |_| {});
        assert_eq!(status.standing, Standing::Complete);
        assert_eq!(status.microsoft_delay, Some(Delay { median_seconds: 1_800, longest_seconds: 7_200 }));
        assert_eq!(status.own_delay, Some(Delay { median_seconds: 30, longest_seconds: 100 }));
    }

    #[test]
    fn what_is_missing_says_why_and_until_when_it_can_be_had() {
        let retrying = |is_gap| {
            let (first_failure, next_try) = (at("03:00:00"), at("10:11:00"));
            BlobState::Retrying(Retrying { attempts: 9, first_failure, next_try, last_error: "no".into(), is_gap })
        };
        let gone = BlobState::Gone { reason: "HTTP 404".into(), at: at("09:00:00") };
        let status = seen(&[("a", blob("02:00:00", retrying(true))), ("b", blob("03:00:00", gone))], |_| {});
        assert_eq!((status.standing, status.backlog, status.next_try), (Standing::Incomplete, 1, Some(at("10:11:00"))));
        let [one, other] = &status.missing[..] else { panic!("{status:?}") };
        assert_eq!(
            (&*one.reason, one.in_feed_until),
            ("9 attempts so far: no", Some(at("02:00:00") + TimeDelta::days(7)))
        );
        assert_eq!((other.in_feed_until, other.in_search_until), (None, at("03:00:00") + TimeDelta::days(180)));
        // One that fails for the first hours is backlog, and not missing yet.
        assert_eq!(seen(&[("a", blob("09:59:00", retrying(false)))], |_| {}).standing, Standing::CatchingUp);
    }

    #[test]
    fn empty_is_never_complete() {
        let unknown = of(&Ledger::default(), &["DLP.All".to_owned()], at("10:00:00")).remove(0);
        assert_eq!((unknown.standing, unknown.complete_until), (Standing::Unknown, None));
        assert_eq!(seen(&[], |row| row.cursor = Some(at("08:00:00"))).standing, Standing::Stale);
        assert_eq!(seen(&[], |row| row.disabled = true).standing, Standing::Disabled);
        assert_eq!(seen(&[], |row| row.warming_since = Some(at("09:00:00"))).standing, Standing::WarmingUp);
        assert_eq!(seen(&[], |row| row.mark = Some(at("01:00:00"))).standing, Standing::CatchingUp);
    }

    #[test]
    fn a_flood_of_missing_blobs_is_counted() {
        let gone = || BlobState::Gone { reason: String::new(), at: at("09:00:00") };
        let names: Vec<String> = (0..100).map(|number| number.to_string()).collect();
        let blobs: Vec<(&str, BlobRow)> = names.iter().map(|name| (&**name, blob("03:00:00", gone()))).collect();
        let status = seen(&blobs, |_| {});
        assert_eq!((status.missing.len(), status.missing_more), (MISSING_SHOWN_MAX, 80));
    }
}
