//! What can be wrong with an archive, and how it is said.

use std::fmt;

/// Something that is not as harrier wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Below the archive's folder.
    pub file: String,
    pub kind: Kind,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// It is not there.
    Missing,
    /// Nothing says that it should be there.
    Added,
    /// The first byte that is not as it was lies from `from` on and before `to`.
    Altered { from: u64, to: u64 },
    /// It ends early.
    Cut { bytes: u64, expected: u64 },
    /// It goes on where it should end.
    Longer { bytes: u64, expected: u64 },
    /// A commit that says nothing of itself: put there by another program, or altered so that it cannot be read.
    NoStatement,
    /// The statement does not go with its signature.
    Forged,
    /// The newest commits are not signed.
    NotSigned,
    /// The statement is signed with a key that was not given.
    OtherKey { key: String },
    /// The commit belongs elsewhere: it was moved or copied here.
    Misplaced { table: String, version: u64 },
    /// The commit does not follow on the one before it: that one, or this, is not the one that was there.
    NotNext,
    /// What the commit says it read from the log does not begin where the one before ended.
    PositionGap { source: String, from: u64, expected: u64 },
    /// The commit takes out a file that was not there.
    RemovesUnknown { path: String },
    /// The commit says that it takes out what is past its time, and takes out more.
    RemovesKept { path: String },
    /// The commit says that it only moves rows, and does not.
    RowsChanged,
    /// The commit says that it erases rows, and what is gone is not what it says.
    ErasesOther,
    /// A head that was given is not in the archive: it was brought back to an older state, or is another archive.
    HeadMissing { head: String },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The name of an added file is whatever somebody has given it.
        let file = schemas::text::escape_controls(&self.file);
        match &self.kind {
            Kind::Missing => write!(f, "{file}: is missing"),
            Kind::Added => write!(f, "{file}: does not belong there"),
            Kind::Altered { from, to } if to - from <= 1 => write!(f, "{file}: altered at byte {from}"),
            Kind::Altered { from, to } => write!(f, "{file}: altered between byte {from} and byte {to}"),
            Kind::Cut { bytes, expected } => write!(f, "{file}: ends at byte {bytes} of {expected}"),
            Kind::Longer { bytes, expected } => {
                write!(f, "{file}: has {} bytes added after byte {expected}", bytes - expected)
            }
            Kind::NoStatement => write!(f, "{file}: the commit says nothing of itself that can be read"),
            Kind::Forged => write!(f, "{file}: altered: what it says does not go with its signature"),
            Kind::NotSigned => write!(f, "{file}: the newest commits from here on are not signed"),
            Kind::OtherKey { key } => {
                let key = if key.is_empty() { "none" } else { key };
                write!(f, "{file}: signed with a key that was not given ({})", schemas::text::escape_controls(key))
            }
            Kind::Misplaced { table, version } => {
                let table = schemas::text::escape_controls(table);
                write!(f, "{file}: is the commit of version {version} of {table}")
            }
            Kind::NotNext => write!(f, "{file}: does not follow on the commit before it"),
            Kind::PositionGap { source, from, expected } => {
                let source = schemas::text::escape_controls(source);
                write!(f, "{file}: reads {source} from offset {from}, but the commits before ended at {expected}")
            }
            Kind::RemovesUnknown { path } => {
                write!(f, "{file}: takes out {}, which was not there", schemas::text::escape_controls(path))
            }
            Kind::RemovesKept { path } => {
                write!(f, "{file}: takes out {}, which was not past its time", schemas::text::escape_controls(path))
            }
            Kind::RowsChanged => write!(f, "{file}: says that no row changes, but the files hold other rows"),
            Kind::ErasesOther => write!(f, "{file}: says that it erases rows, but others are gone than it says"),
            Kind::HeadMissing { head } => write!(
                f,
                "the head {} is not in the archive: it was brought back to an older state, or is another one",
                schemas::text::escape_controls(head)
            ),
        }
    }
}
