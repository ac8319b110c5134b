//! What travels in the `records` topic: a record's bytes exactly as received with the circumstances of their arrival,
//! or a control message that must keep its place among them.
//!
//! On the wire: the header's length (u32, little endian), the header as JSON, then the record's bytes untouched, or a
//! rule book as JSON. A record's bytes are never re-encoded, so what the archive keeps is what Microsoft sent.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::rule_book::RuleBook;
use crate::tenant::Tenant;

/// The name of the source that polls the Management Activity API. What comes by it is news: nobody asked for it.
pub const MANAGEMENT_ACTIVITY: &str = "management_activity";

/// The name of the source that reads files; and of the feed whose marks say that an import was whole.
pub const IMPORT: &str = "import";

/// One message of the `records` topic.
#[derive(Clone, Debug, PartialEq)]
pub enum Envelope {
    /// An audit record.
    Record(Received),
    /// Everything of this feed that became available before `until` has been committed before this message.
    Mark(Mark),
    /// A synthetic message that proves the path while the tenant is quiet.
    Heartbeat(Heartbeat),
    /// A process asks for this rule set. `again`: also if it was in force before and has been replaced.
    RulesOffered { book: RuleBook, again: bool },
    /// From here on, records of this partition are judged by this rule set.
    RulesInForce { epoch: u64, book: RuleBook },
}

/// A record's bytes and where, when and how they came.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    pub origin: Origin,
    /// The record exactly as received: one JSON object in UTF-8.
    pub bytes: Vec<u8>,
}

/// The circumstances of a record's arrival.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    pub tenant: Tenant,
    /// Which door it came through: `management_activity`, `import`.
    pub source: String,
    /// The feed, in Microsoft's spelling (`Audit.Exchange`); empty where the source has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub content_type: String,
    /// The content blob, or the file and line of an import.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub blob_id: String,
    /// When harrier received it (UTC).
    pub received: DateTime<Utc>,
    /// False for records that must alert nobody: an import without `--notify`.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub notify: bool,
}

/// The completeness mark of one feed. One of [`IMPORT`] is no mark that moves: it says of a stretch of event time, both ends
/// in it, that all records of the tenant have been imported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub tenant: Tenant,
    pub content_type: String,
    /// From when on (UTC); none: nobody says that anything before was missed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
    /// All that became available from then on and before this moment has been fetched (UTC).
    pub until: DateTime<Utc>,
}

impl Mark {
    /// Whether it speaks of an import.
    pub fn is_of_import(&self) -> bool {
        self.content_type == IMPORT
    }
}

/// A sign of life that passes every stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// When it was sent (UTC).
    pub sent: DateTime<Utc>,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Header {
    Record(Origin),
    Mark(Mark),
    Heartbeat(Heartbeat),
    RulesOffered { again: bool },
    RulesInForce { epoch: u64 },
}

/// The same, of what belongs to someone else.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum HeaderOf<'a> {
    Record(&'a Origin),
    Mark(&'a Mark),
    Heartbeat(&'a Heartbeat),
    RulesOffered { again: bool },
    RulesInForce { epoch: u64 },
}

/// The bytes in the log are not an envelope: the log was written by something else or is damaged.
#[derive(Debug, thiserror::Error)]
#[error("not an envelope")]
pub struct InvalidEnvelope;

impl Envelope {
    /// The bytes that go into the log.
    pub fn encode(&self) -> Vec<u8> {
        // A book is texts: it always serialises.
        let text = |book| Cow::Owned(serde_json::to_vec(book).unwrap_or_default());
        let (header, bytes): (HeaderOf<'_>, Cow<'_, [u8]>) = match self {
            Envelope::Record(received) => (HeaderOf::Record(&received.origin), Cow::Borrowed(&received.bytes)),
            Envelope::Mark(mark) => (HeaderOf::Mark(mark), Cow::default()),
            Envelope::Heartbeat(heartbeat) => (HeaderOf::Heartbeat(heartbeat), Cow::default()),
            Envelope::RulesOffered { book, again } => (HeaderOf::RulesOffered { again: *again }, text(book)),
            Envelope::RulesInForce { book, epoch } => (HeaderOf::RulesInForce { epoch: *epoch }, text(book)),
        };
        // A header is a struct of strings, times and booleans: it always serialises.
        let header = serde_json::to_vec(&header).unwrap_or_default();
        let mut out = Vec::with_capacity(4 + header.len() + bytes.len());
        out.extend_from_slice(&(header.len() as u32).to_le_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(&bytes);
        out
    }

    /// The envelope that [`Envelope::encode`] wrote.
    pub fn decode(wire: &[u8]) -> Result<Envelope, InvalidEnvelope> {
        let (length, rest) = wire.split_first_chunk::<4>().ok_or(InvalidEnvelope)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (header, bytes) = rest.split_at_checked(length).ok_or(InvalidEnvelope)?;
        Ok(match serde_json::from_slice(header).map_err(|_| InvalidEnvelope)? {
            Header::Record(origin) => Envelope::Record(Received { origin, bytes: bytes.to_vec() }),
            Header::Mark(mark) => Envelope::Mark(mark),
            Header::Heartbeat(heartbeat) => Envelope::Heartbeat(heartbeat),
            Header::RulesOffered { again } => Envelope::RulesOffered { book: book(bytes)?, again },
            Header::RulesInForce { epoch } => Envelope::RulesInForce { book: book(bytes)?, epoch },
        })
    }
}

fn book(json: &[u8]) -> Result<RuleBook, InvalidEnvelope> {
    serde_json::from_slice(json).map_err(|_| InvalidEnvelope)
}

fn yes() -> bool {
    true
}

fn is_true(value: &bool) -> bool {
    *value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule_book::RuleText;

    #[test]
    fn bytes_come_back_untouched_and_damage_is_an_error() {
        let received: DateTime<Utc> = "2026-11-22T10:00:00Z".parse().unwrap();
        let envelope = Envelope::Record(Received {
            origin: Origin {
                tenant: "t1".parse().unwrap(),
                source: "import".into(),
                content_type: String::new(),
                blob_id: "a.jsonl:7".into(),
                received,
                notify: false,
            },
            bytes: b"{ \"Id\" : \"x\" ,\"a\":1.50 }".to_vec(),
        });
        let wire = envelope.encode();
        assert_eq!(Envelope::decode(&wire).unwrap(), envelope);
        for cut in [0, 3, 4, 20] {
            assert!(Envelope::decode(&wire[..cut]).is_err());
        }
    }

    #[test]
    fn a_rule_book_comes_back_as_it_was() {
        let text = RuleText { file: "a.yml".into(), text: "title: \"\u{1b}\"\n".into() };
        let book = RuleBook { files: vec![text], ..RuleBook::default() };
        for envelope in [
            Envelope::RulesOffered { book: book.clone(), again: true },
            Envelope::RulesInForce { book: book.clone(), epoch: 7 },
        ] {
            assert_eq!(Envelope::decode(&envelope.encode()).unwrap(), envelope);
        }
    }
}
