//! Sources of audit records, and the way from them into the log.
//!
//! A source is polled or read from files; either way its bytes are cut into records by the [`splitter`], wrapped with
//! the circumstances of their arrival, and committed together with the [`ledger`] row that says so.

pub mod identity;
pub mod import;
pub mod ledger;
pub mod preflight;
pub mod record;
pub mod source;
pub mod splitter;
pub mod status;

/// Bytes as lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing into a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
