//! The Office 365 Management Activity API: audit records as content blobs, listed by when they became available.
//!
//! # The guarantee
//!
//! Every blob that the service lists gets a row in the [`ledger`](crate::ledger), and every row ends as `committed`, with
//! all records of the blob in the log, or as a gap that `coverage` names. Whatever is killed when: the row and the last
//! records of its blob are one transaction, and the cursor moves in the transaction that writes the rows of its window.
//!
//! | killed | what the next life finds | what it does |
//! |---|---|---|
//! | before a window is listed to its end | the old cursor, perhaps some rows | lists the window again; known blobs are skipped |
//! | while a blob is read | the row `listed`, perhaps some chunks of records in the log | fetches all of it again |
//! | after the blob's last transaction | the row `committed` | nothing |
//!
//! Records are committed in chunks while a blob is still arriving, so that the memory it takes has a bound, and so they
//! may be in the log twice, or be there although their blob broke off. Both are harmless: admit removes the second
//! delivery of a record, and a record that was read whole is a record whatever comes behind it. What must not happen is
//! that the blob counts as done before its end was seen to be valid, and it cannot: that is said in its last
//! transaction only. A truncated body is fetched again.
//!
//! The service itself delivers twice, late and unordered. Nothing here is decided by the time of a record.
//!
//! # Design
//!
//! What to ask, when, and what to make of an answer is a value without I/O (`machine`, `lane`, `feed`, `limits`, `wire`,
//! `code`); the tests play a week of polling against a list of blobs and a number for a clock. Around it lies a thin
//! driver (`driver`, `fetch`, `writer`).

pub(crate) mod code;
mod driver;
mod effect;
mod feed;
mod fetch;
mod lane;
mod limits;
mod machine;
mod report;
mod settings;
mod skew;
mod watch;
mod window;
pub(crate) mod wire;
mod writer;

pub use code::{CODES, Class, Code};
pub use driver::{PollError, Poller};
pub use settings::{CONTENT_TYPES, Pace, SettingsError, TenantSource};

/// The name of this door in envelopes, dead letters and metrics.
pub const SOURCE: &str = schemas::envelope::MANAGEMENT_ACTIVITY;

#[cfg(test)]
mod tests;
