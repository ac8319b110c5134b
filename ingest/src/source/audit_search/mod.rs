//! The audit search of Microsoft Graph (`/security/auditLog/queries`): records older than the seven days of the feeds, up
//! to the tenant's retention, and whatever a feed has lost.
//!
//! # The guarantee
//!
//! The stretch asked for is cut into windows, and each gets a row in the [`ledger`](crate::ledger), which ends as
//! `committed`, with all records that the search found in the log, or as a gap that `coverage` names. A window whose
//! search reached the service's limit, or failed again and again, is cut in two until it does not; one that cannot be cut
//! any more is a gap. Whatever is killed when, the next run goes on: windows that are committed are not asked for again,
//! and a search that is still running is taken up by the id in its row.
//!
//! The row and the last records of its window are one transaction. Records that were committed before a kill come a
//! second time and are removed by admit, as are those that had come by the feed: what the search calls `auditData` is
//! the record itself, with the same id and the same content. Annotations that Graph adds to it (`@odata.type`) are no
//! part of the record and are taken out.
//!
//! # What it does not prove
//!
//! The service gives no list to compare with. A window is complete if its search said that it succeeded, said of no
//! limit that it was exceeded, and every page was read: that is the service's word, and `coverage` says whose.
//!
//! `plan` (which window next) and `wire` (shapes) are pure; `driver` sends and commits.

mod driver;
mod plan;
mod wire;

use std::time::Duration;

use chrono::{DateTime, Utc};
use url::Url;

use super::management_activity::TenantSource;

pub use driver::{SearchError, search};

/// The name of this door in envelopes, dead letters and coverage, and of its rows in the ledger.
pub const SOURCE: &str = "audit_search";

/// What is to be searched.
#[derive(Clone, Debug)]
pub struct Search {
    /// The tenant and its credential; the feeds in it mean nothing here.
    pub source: TenantSource,
    /// Root of Microsoft Graph, such as `https://graph.microsoft.com`. Tokens are sent nowhere else.
    pub graph: Url,
    /// What the token is for: Graph's root in the tenant's cloud. Differs from `graph` behind a proxy.
    pub audience: String,
    /// By the time of the events.
    pub from: DateTime<Utc>,
    pub until: DateTime<Utc>,
    /// Whether findings that these records cause are delivered.
    pub notify: bool,
}

/// Waits. The defaults are for the real service, where a search takes minutes to hours.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// From one look at a search to the next: the first, which doubles, and the longest.
    pub poll_first: Duration,
    pub poll: Duration,
    pub backoff: Duration,
    pub backoff_max: Duration,
    /// A search that is not done by then is given up and its window cut.
    pub search_max: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            poll_first: Duration::from_secs(2),
            poll: Duration::from_secs(30),
            backoff: Duration::from_secs(10),
            backoff_max: Duration::from_secs(300),
            search_max: Duration::from_secs(6 * 3_600),
        }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub windows_done: u64,
    /// Windows that were cut because their search was not complete.
    pub windows_cut: u64,
    /// Windows that are gaps: in `coverage`.
    pub windows_missing: u64,
    /// Windows that an earlier run had done.
    pub windows_known: u64,
    pub records: u64,
    pub rejected: u64,
}
