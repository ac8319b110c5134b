//! The heads of the archive's tables on their way to a sink: one message a day, so that somebody elsewhere can tell an
//! archive that was brought back to an older state.
//!
//! # The guarantee
//!
//! As for findings: at least once, under one `webhook-id` for all attempts, and what a sink never takes ends in the dead
//! letters. Each day has a row of its own, so that one which waits for a sink that is down is not replaced by the next.
//! A day of which the sink has a row already is none again, whoever says it how often; nor is one on which nothing has
//! changed. They take no room from findings: they go out when those that are due have gone, and the storm brake does not
//! count them.

use chrono::{DateTime, NaiveDate, Utc};
use schemas::json::key_id;
use schemas::message::{ArchiveHead, ArchiveHeads};
use serde::{Deserialize, Serialize};

use crate::body::{Message, to_line};
use crate::entry::Tries;

/// The schema name that every message of heads carries.
pub const SCHEMA: &str = "harrier.archive_heads/1";

/// How its receiver uses it.
const NEXT: &str = "keep this where nobody who can write to the archive can; harrier archive verify --head @FILE";

/// The heads of one day, for one sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DayHeads {
    pub heads: ArchiveHeads,
    /// When they came to wait.
    pub since: DateTime<Utc>,
    /// An attempt has begun and its end is not known.
    pub sending: bool,
    pub tries: Tries,
    /// Delivered, or given up: kept to know the day again.
    pub ended: bool,
    /// The partition that the row lies in; the row's place says it.
    #[serde(skip)]
    pub partition: u32,
}

impl DayHeads {
    pub(crate) fn new(heads: &ArchiveHeads, partition: u32, now: DateTime<Utc>) -> DayHeads {
        let (sending, tries, ended) = (false, Tries::default(), false);
        DayHeads { heads: heads.clone(), since: now, sending, tries, ended, partition }
    }

    /// The UTC day that they were taken on.
    pub(crate) fn day(&self) -> NaiveDate {
        self.heads.taken.date_naive()
    }

    /// Its `webhook-id`: two archives that tell the same receiver do not have the same heads.
    pub(crate) fn id(&self) -> String {
        let heads: Vec<&str> = self.heads.heads.iter().map(|head| head.head.as_str()).collect();
        format!("heads_{}_{}", self.day(), &key_id(&heads)[..16])
    }

    pub(crate) fn due_at(&self) -> Option<DateTime<Utc>> {
        match self.ended {
            true => None,
            false if self.sending => Some(self.since),
            false => Some(self.tries.at.unwrap_or(self.since)),
        }
    }

    /// Whether a row is to be made of these: of a later day than the newest, and not the same heads. A newest one that is
    /// still to come was told by a clock that was ahead, and silences nobody until then.
    pub(crate) fn is_news(heads: &ArchiveHeads, newest: Option<&DayHeads>, today: NaiveDate) -> bool {
        let newest = newest.filter(|newest| newest.day() <= today);
        let is_new = |newest: &DayHeads| heads.taken.date_naive() > newest.day() && heads.heads != newest.heads.heads;
        !heads.heads.is_empty() && newest.is_none_or(is_new)
    }

    /// The body, on one line.
    pub(crate) fn body(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Data<'a> {
            schema: &'static str,
            id: String,
            day: NaiveDate,
            public_key: Option<&'a str>,
            heads: &'a [ArchiveHead],
            next: &'static str,
        }
        to_line(&Message {
            kind: "archive.heads",
            timestamp: self.heads.taken,
            data: Data {
                schema: SCHEMA,
                id: self.id(),
                day: self.day(),
                public_key: self.heads.public_key.as_deref(),
                heads: &self.heads.heads,
                next: NEXT,
            },
        })
    }
}
