//! A record as the rest of harrier sees it: the typed values of [`FIELDS`](crate::FIELDS), the parsed record for
//! everything else, and what was odd about it.
//!
//! [`Event::read`] is total over JSON objects: whatever an object holds, an event comes out, with a list of
//! [`Defect`]s where something could not be read as its field's type. Nothing is dropped and nothing fails later.
//!
//! A field is read when it is first asked for. All of them cost twice the parsing, and most who look at a record want
//! few: the first stage three, a rule that does not hold one or two. What a field says follows from the record and its
//! delivery alone, so it does not matter when it is read.

use std::sync::OnceLock;

use chrono::{DateTime, Utc};

use crate::document::{Document, Node};
use crate::envelope::{Origin, Received};
use crate::field::{self, FIELDS, FieldId};
use crate::json::{self, InvalidJson};
use crate::tenant::Tenant;

/// The value of one field.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Value {
    /// The record does not say, or says it in a form that is listed as a defect.
    #[default]
    Null,
    Text(String),
    Integer(i64),
    Boolean(bool),
    Time(DateTime<Utc>),
    TextList(Vec<String>),
}

/// Something odd about a record: kept, but worth knowing. `field` is the field's name in [`FIELDS`](crate::FIELDS).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defect {
    pub field: &'static str,
    pub kind: DefectKind,
}

/// What is odd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DefectKind {
    /// The record has no value where every record should.
    Missing,
    /// The value cannot be read as the field's type; the raw record still has it.
    Unreadable,
    /// A key stands twice in one object; the last one was read.
    RepeatedKey,
    /// A list was longer than harrier keeps; the raw record still has the rest.
    Truncated,
}

impl DefectKind {
    pub fn as_str(self) -> &'static str {
        match self {
            DefectKind::Missing => "missing",
            DefectKind::Unreadable => "unreadable",
            DefectKind::RepeatedKey => "repeated_key",
            DefectKind::Truncated => "truncated",
        }
    }
}

/// What a field was found to be.
type Looked = (Value, Option<DefectKind>);

/// A normalised audit record.
#[derive(Clone, Debug)]
pub struct Event {
    origin: Origin,
    record: Document,
    /// In the order of [`FIELDS`](crate::FIELDS), with what was odd about each. Of most records nobody asks any: then
    /// there is no room for them either.
    values: OnceLock<Box<[OnceLock<Looked>]>>,
    content_hash: OnceLock<u128>,
}

/// Why bytes are not an audit record. The sender's fault; retrying does not help.
#[derive(Debug, thiserror::Error)]
pub enum NotARecord {
    #[error("not JSON: {0}")]
    Json(#[from] InvalidJson),
    #[error("not a JSON object")]
    NotAnObject,
}

/// Equal is what says the same, whatever has been read of it so far.
impl PartialEq for Event {
    fn eq(&self, other: &Event) -> bool {
        self.origin == other.origin
            && self.record == other.record
            && self.values().eq(other.values())
            && self.defects().eq(other.defects())
    }
}

impl Event {
    /// Reads a received record.
    pub fn read(received: &Received) -> Result<Event, NotARecord> {
        let parsed = json::parse(&received.bytes)?;
        if !parsed.root().is_object() {
            return Err(NotARecord::NotAnObject);
        }
        // With a key twice, the parsed form does not hold all that the bytes say.
        let content_hash = match parsed.repeated_key() {
            Some(_) => OnceLock::from(json::content_hash(&parsed, &received.bytes)),
            None => OnceLock::new(),
        };
        Ok(Event { origin: received.origin.clone(), record: parsed, values: OnceLock::new(), content_hash })
    }

    /// The value of a field.
    pub fn get(&self, field: FieldId) -> &Value {
        &self.read_field(field.index()).0
    }

    /// The values of all fields, in the order of [`FIELDS`](crate::FIELDS).
    pub fn values(&self) -> impl Iterator<Item = &Value> {
        (0..FIELDS.len()).map(|index| &self.read_field(index).0)
    }

    /// What was odd, in the order of [`FIELDS`](crate::FIELDS).
    pub fn defects(&self) -> impl Iterator<Item = Defect> {
        let of_field = |(index, field): (usize, &field::Field)| {
            let kind = self.read_field(index).1?;
            Some(Defect { field: field.name, kind })
        };
        let repeated = self.record.repeated_key().map(|_| Defect { field: "raw", kind: DefectKind::RepeatedKey });
        FIELDS.iter().enumerate().filter_map(of_field).chain(repeated)
    }

    fn read_field(&self, index: usize) -> &(Value, Option<DefectKind>) {
        const NOTHING: &(Value, Option<DefectKind>) = &(Value::Null, None);
        let values = self.values.get_or_init(|| FIELDS.iter().map(|_| OnceLock::new()).collect());
        values.get(index).map_or(NOTHING, |value| value.get_or_init(|| crate::normalise::read_field(self, index)))
    }

    /// The text of a field that has text.
    pub fn text(&self, field: FieldId) -> Option<&str> {
        match self.get(field) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn tenant(&self) -> &Tenant {
        &self.origin.tenant
    }

    /// The circumstances of its arrival.
    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The record id; made from the content where the record has none.
    pub fn id(&self) -> &str {
        self.text(field::ID).unwrap_or_default()
    }

    /// Event time (UTC). 1970-01-01 where the record has no readable time, which is a defect: the result must not
    /// depend on when the record happened to arrive.
    pub fn time(&self) -> DateTime<Utc> {
        match self.get(field::EVENT_TIME) {
            Value::Time(time) => *time,
            _ => DateTime::UNIX_EPOCH,
        }
    }

    /// When harrier received it (UTC).
    pub fn received(&self) -> DateTime<Utc> {
        match self.get(field::RECEIVED_TIME) {
            Value::Time(time) => *time,
            _ => DateTime::UNIX_EPOCH,
        }
    }

    /// False if it must alert nobody.
    pub fn notify(&self) -> bool {
        self.origin.notify
    }

    /// The parsed record, a JSON object.
    pub fn record(&self) -> Node<'_> {
        self.record.root()
    }

    /// Hash of what the record says: see [`json::content_hash`].
    pub fn content_hash(&self) -> u128 {
        *self.content_hash.get_or_init(|| json::node_hash(self.record.root()))
    }
}
