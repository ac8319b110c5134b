//! A record as the rest of harrier sees it: the typed values of [`FIELDS`](crate::FIELDS), the parsed record for
//! everything else, and what was odd about it.
//!
//! [`Event::read`] is total over JSON objects: whatever an object holds, an event comes out, with a list of
//! [`Defect`]s where something could not be read as its field's type. Nothing is dropped and nothing fails later.

use std::sync::OnceLock;

use chrono::{DateTime, Utc};

use crate::document::{Document, Node};
use crate::envelope::Received;
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

/// A normalised audit record.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    tenant: Tenant,
    values: Vec<Value>,
    record: Document,
    /// Made when it is first asked for: only admit and records without an id need it.
    content_hash: OnceLock<u128>,
    notify: bool,
    /// What was odd, in the order of `FIELDS`.
    pub defects: Vec<Defect>,
}

/// What a record is sent on its way by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The record id; made from the content where the record has none.
    pub id: String,
    /// Event time (UTC); 1970-01-01 where it has none.
    pub time: DateTime<Utc>,
    /// In the record's spelling; empty where it has none.
    pub workload: String,
}

/// Why bytes are not an audit record. The sender's fault; retrying does not help.
#[derive(Debug, thiserror::Error)]
pub enum NotARecord {
    #[error("not JSON: {0}")]
    Json(#[from] InvalidJson),
    #[error("not a JSON object")]
    NotAnObject,
}

impl Event {
    /// Reads a received record.
    pub fn read(received: &Received) -> Result<Event, NotARecord> {
        let mut event = Event::parse(received)?;
        crate::normalise::read_fields(received, &mut event, FIELDS.len());
        if event.record.repeated_key().is_some() {
            event.defects.push(Defect { field: "raw", kind: DefectKind::RepeatedKey });
        }
        Ok(event)
    }

    /// Reads only what a record is sent on its way by. Refuses what [`Event::read`] refuses and says what it says, at
    /// half the cost: the first stage needs no more, and the next one reads the record anyway.
    pub fn read_head(received: &Received) -> Result<Head, NotARecord> {
        let mut event = Event::parse(received)?;
        crate::normalise::read_fields(received, &mut event, field::WORKLOAD.index() + 1);
        let workload = event.text(field::WORKLOAD).unwrap_or_default().to_owned();
        Ok(Head { time: event.time(), id: event.id().to_owned(), workload })
    }

    /// The parsed record, its fields not read yet.
    fn parse(received: &Received) -> Result<Event, NotARecord> {
        let parsed = json::parse(&received.bytes)?;
        if !parsed.root().is_object() {
            return Err(NotARecord::NotAnObject);
        }
        // With a key twice, the parsed form does not hold all that the bytes say.
        let content_hash = match parsed.repeated_key() {
            Some(_) => OnceLock::from(json::content_hash(&parsed, &received.bytes)),
            None => OnceLock::new(),
        };
        Ok(Event {
            tenant: received.origin.tenant.clone(),
            values: Vec::with_capacity(FIELDS.len()),
            record: parsed,
            content_hash,
            notify: received.origin.notify,
            defects: Vec::new(),
        })
    }

    /// The value of a field.
    pub fn get(&self, field: FieldId) -> &Value {
        debug_assert!(field.index() < self.values.len(), "{} is read from a field below it", field.field().name);
        self.values.get(field.index()).unwrap_or(&Value::Null)
    }

    /// The values of all fields, in the order of [`FIELDS`](crate::FIELDS).
    pub fn values(&self) -> impl Iterator<Item = &Value> {
        self.values.iter()
    }

    /// The text of a field that has text.
    pub fn text(&self, field: FieldId) -> Option<&str> {
        match self.get(field) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn tenant(&self) -> &Tenant {
        &self.tenant
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
        self.notify
    }

    /// The parsed record, a JSON object.
    pub fn record(&self) -> Node<'_> {
        self.record.root()
    }

    /// Hash of what the record says: see [`json::content_hash`].
    pub fn content_hash(&self) -> u128 {
        *self.content_hash.get_or_init(|| json::node_hash(self.record.root()))
    }

    pub(crate) fn push(&mut self, value: Value) {
        self.values.push(value);
    }
}
