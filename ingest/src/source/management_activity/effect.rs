//! What the state machine wants done in the world. It does nothing itself.

use chrono::{DateTime, TimeDelta, Utc};
use schemas::message::{Coverage, CoverageState};
use schemas::tenant::Tenant;

use crate::ledger::Change;

/// What is to be committed, in one transaction, and what is to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    pub changes: Vec<Change>,
    /// Completeness marks: content type, from when on, and up to when.
    pub marks: Vec<(String, Option<DateTime<Utc>>, DateTime<Utc>)>,
    pub coverage: Vec<Coverage>,
    pub unreadable: Vec<Unreadable>,
    /// For logs and metrics; nothing depends on them.
    pub notes: Vec<Note>,
}

/// An entry of a listing that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    pub content_type: String,
    pub bytes: Vec<u8>,
}

impl Effects {
    /// Whether there is nothing to commit.
    pub fn is_idle(&self) -> bool {
        self.changes.is_empty() && self.marks.is_empty() && self.coverage.is_empty() && self.unreadable.is_empty()
    }

    pub fn merge(&mut self, more: Effects) {
        self.changes.extend(more.changes);
        self.marks.extend(more.marks);
        self.coverage.extend(more.coverage);
        self.unreadable.extend(more.unreadable);
        self.notes.extend(more.notes);
    }

    pub fn note(note: Note) -> Effects {
        Effects { notes: vec![note], ..Effects::default() }
    }
}

/// Something that happened. Texts in it are safe to print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    Token {
        ok: bool,
    },
    /// A whole window was listed.
    Listed {
        feed: String,
    },
    /// A page brought so many blobs that were not known before.
    BlobsListed {
        feed: String,
        count: u64,
        behind_mark: u64,
    },
    /// A reconciliation has found blobs that no earlier listing had shown.
    ListedLate {
        feed: String,
        count: u64,
    },
    BlobFetched {
        feed: String,
        blob: String,
        records: u64,
        created: DateTime<Utc>,
    },
    BlobFailed {
        feed: String,
        blob: String,
        error: String,
        wait: TimeDelta,
    },
    /// It cannot be had: gone, or expired before it was fetched.
    BlobLost {
        feed: String,
        blob: String,
        expired: bool,
        reason: String,
    },
    /// The service named an address that is not its own; no token was sent there.
    ForeignAddress {
        feed: String,
        kind: &'static str,
    },
    /// The machine's clock and the service's differ by more than can be explained by the way between them.
    ClockOff {
        ahead_seconds: i64,
    },
    Throttled {
        wait: TimeDelta,
    },
    /// A request that will be tried again.
    Trouble {
        feed: Option<String>,
        error: String,
        wait: TimeDelta,
    },
    /// Nothing more is tried here for a while: somebody has to change something.
    Stopped {
        feed: Option<String>,
        reason: String,
    },
    SubscriptionStarted {
        feed: String,
    },
    Subscription {
        feed: String,
        enabled: bool,
    },
}

/// A row of coverage.
pub fn coverage(
    tenant: &Tenant,
    feed: &str,
    (window_start, window_end): (DateTime<Utc>, DateTime<Utc>),
    state: CoverageState,
    reason: &str,
) -> Coverage {
    Coverage {
        tenant: tenant.clone(),
        feed: feed.to_owned(),
        window_start,
        window_end,
        state,
        reason: reason.to_owned(),
    }
}
