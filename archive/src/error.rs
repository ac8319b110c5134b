//! What can go wrong with the archive.

/// An error of the archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The log failed: see its own classes.
    #[error(transparent)]
    Log(#[from] runtime::log::LogError),
    /// The disk or object store failed: full, unreachable, not permitted. Retrying may help.
    #[error("the archive's storage failed: {}", said(.0))]
    Store(#[from] object_store::Error),
    /// Nobody has put anything there yet.
    #[error("there is no archive in {place}: nothing has been collected or imported there yet")]
    NoArchive { place: String },
    /// Two who commit at once would both believe to have done it. For an operator: another store, or no proxy before this one.
    #[error(
        "{place} cannot hold an archive: it overwrites what it was asked to keep (a put with If-None-Match), so commits would be lost"
    )]
    Overwrites { place: String },
    /// The folder cannot be made.
    #[error("cannot make {path}", path = path.display())]
    Folder { path: std::path::PathBuf, source: std::io::Error },
    /// The certificates to trust cannot be read.
    #[error("the certificates in {path} cannot be read", path = path.display())]
    Authority { path: std::path::PathBuf, source: std::io::Error },
    /// A key of the store cannot be read.
    #[error(transparent)]
    Secret(#[from] runtime::config::SecretError),
    /// The disk could not be brought to keep what was written. Retrying may help.
    #[error("the archive's files could not be made durable: {0}")]
    Sync(#[source] std::io::Error),
    /// The table's log cannot be read: damaged, or of a protocol that this harrier does not know. Not for retrying.
    #[error("the table {table} is damaged at version {version}")]
    Damaged { table: &'static str, version: u64 },
    /// Parquet could not be written: a defect of ours.
    #[error("a Parquet file could not be written: {0}")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// Rows could not be put into columns: a defect of ours.
    #[error("rows could not be put into columns: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    /// A message of the log is not what its topic holds: the log is damaged.
    #[error("offset {offset} of {topic}/{partition} is not what it should be")]
    Message { topic: &'static str, partition: u32, offset: u64 },
    /// The table was filled from another log than the one in use: its position means nothing here. The log was lost or
    /// replaced while the archive was kept, or the other way round. For an operator: restore the log that belongs to the archive, or begin with a
    /// new data folder and keep this archive for reading.
    #[error("the table {table} was filled from another log; use the log that belongs to it, or a new data folder")]
    OtherLog { table: &'static str },
    /// The table has read further than the log reaches: the log is an older copy than the archive.
    #[error(
        "the table {table} has read up to offset {position} of {topic}/{partition}, but the log ends at {end}: the log is older than the archive"
    )]
    LogBehind { table: &'static str, topic: &'static str, partition: u32, position: u64, end: u64 },
    /// A file does not hold the rows that its commit says: it was altered, or the disk has. Restore it from a copy.
    #[error("{path} does not hold what its commit says: it is damaged or was altered")]
    Altered { path: String },
    /// A copy of what commits say does not hold what they say, so they were not deleted: it was altered, or the disk has.
    /// Put it aside, and it is made anew from the commits.
    #[error("{path} does not hold what the commits say that it is a copy of: it is damaged or was altered")]
    CopyDiffers { path: String },
    /// A merged file does not hold what the files did that it was made of: a defect of ours. It was not committed.
    #[error("{path} does not hold the rows of the files it was made of, and was not committed")]
    Unequal { path: String },
    /// A file was written by a newer harrier: it has a column that this one would lose.
    #[error(
        "{path} has a column `{column}` that this harrier does not know: use the harrier that wrote it, or a newer one"
    )]
    UnknownColumn { path: String, column: String },
    /// A file's rows are not in the order that it says.
    #[error("the rows of {path} are not in the order that the file says")]
    Unsorted { path: String },
    /// Days of the tenant are evidence: somebody has said so in the configuration.
    #[error("tenant {tenant} is under a hold from {from} until {until}: nothing of these days is erased")]
    Held { tenant: String, from: chrono::NaiveDate, until: chrono::NaiveDate },
    /// Others change the files of the table faster than they can be written again.
    #[error("others keep changing the files of {table}: try again, or while nothing is compacted")]
    Busy { table: &'static str },
    /// A column is of a type that no table has.
    #[error("the column `{column}` is of a type that no table has")]
    ColumnType { column: String },
    /// A log entry could not be written as JSON: a defect of ours.
    #[error("a commit could not be written: {0}")]
    Json(#[from] serde_json::Error),
    /// A worker thread was lost.
    #[error("a worker of the archive was lost")]
    Worker,
}

impl Error {
    pub(crate) fn damaged(table: &'static str, version: u64) -> Error {
        Error::Damaged { table, version }
    }

    /// Whether it is for whoever runs harrier to change something: access, an address, another store.
    pub fn is_for_operator(&self) -> bool {
        match self {
            Error::Overwrites { .. } | Error::Authority { .. } | Error::Secret(_) => true,
            Error::Store(error) => is_refusal(error),
            _ => false,
        }
    }

    /// Whether the same step may succeed if it is tried again.
    pub fn retryable(&self) -> bool {
        match self {
            Error::Store(_) | Error::Sync(_) => true,
            Error::Log(error) => error.retryable(),
            _ => false,
        }
    }
}

/// How a list, whose errors have no kinds, says that access is refused, that there is no such bucket or that it is elsewhere.
const REFUSALS: [&str; 4] = ["status code: 401", "status code: 403", "status code: 404", "redirect without LOCATION"];

/// Whether a store has answered, and the answer is no, or there is nothing to ask it with.
fn is_refusal(error: &object_store::Error) -> bool {
    use object_store::Error as Store;
    match error {
        Store::PermissionDenied { .. } | Store::Unauthenticated { .. } | Store::NotFound { .. } => true,
        Store::Generic { source, .. } => {
            let text = source.to_string();
            source.is::<runtime::config::SecretError>() || REFUSALS.iter().any(|refusal| text.contains(refusal))
        }
        _ => false,
    }
}

/// Longest text of a store that is passed on.
const SAID_CHARACTERS_MAX: usize = 400;

/// What a store says, in a line: of an answer in XML its code and message. Neither holds a secret: requests are signed, and
/// what they are signed with is in none.
pub(crate) fn said(error: &object_store::Error) -> String {
    let text = error.to_string();
    let element = |name: &str| {
        let from = text.find(&format!("<{name}>"))? + name.len() + 2;
        let to = text[from..].find(&format!("</{name}>"))? + from;
        Some(&text[from..to])
    };
    let answer = match (element("Code"), element("Message")) {
        (Some(code), Some(message)) => format!("the store answers {code}: {message}"),
        (Some(code), None) => format!("the store answers {code}"),
        _ => text.clone(),
    };
    let line: String = answer.split_whitespace().collect::<Vec<_>>().join(" ");
    schemas::text::escape_controls(&line.chars().take(SAID_CHARACTERS_MAX).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_store_says_is_one_line_of_bounded_length() {
        let generic = |text: String| Error::Store(object_store::Error::Generic { store: "S3", source: text.into() });
        let xml = "403: <Error><Code>SignatureDoesNotMatch</Code>\n<Message>It does not.</Message><StringToSign>x</StringToSign>";
        assert_eq!(
            generic(xml.into()).to_string(),
            "the archive's storage failed: the store answers SignatureDoesNotMatch: It does not."
        );
        let long = generic(format!("a\n\u{1b}[31m{}", "x".repeat(9_000))).to_string();
        assert!(long.len() < 500 && !long.contains(['\n', '\u{1b}']), "{long}");
    }
}
