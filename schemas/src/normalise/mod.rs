//! Reading the fields of a record: a total function from JSON objects to the values of [`FIELDS`].
//!
//! Every value follows from the record and its delivery alone: no clock, no directory, no network, so that a replay in
//! ten years reads the same. Nothing is refused. What cannot be read becomes null and a
//! [`Defect`], which counts drift in Microsoft's format as it happens; the raw record keeps what was written.

pub(crate) mod address;
pub(crate) mod forwarding;
pub(crate) mod identity;
pub(crate) mod operation;
pub(crate) mod record_type;
pub(crate) mod text;
pub(crate) mod when;

use std::sync::LazyLock;

use crate::document::Node;
use crate::event::{DefectKind, Event, Value};
use crate::field::{self, FIELDS, FieldId, Read, Reading};
use crate::path::{Path, Scalar};

/// Fields that every record has by Microsoft's schema: their absence is a defect. `id` sees to it itself.
const EXPECTED: &[FieldId] = &[field::EVENT_TIME, field::OPERATION];

/// The sources of every field, parsed once: this runs for every record.
static SOURCES: LazyLock<Vec<Vec<Path>>> =
    LazyLock::new(|| FIELDS.iter().map(|field| field.sources.iter().map(|text| Path::parse(text)).collect()).collect());

/// Where a field is read from.
pub(crate) fn sources(field: FieldId) -> &'static [Path] {
    SOURCES.get(field.index()).map_or(&[], Vec::as_slice)
}

/// Reads one field of an event: its value, and what is odd about it.
pub(crate) fn read_field(event: &Event, index: usize) -> (Value, Option<DefectKind>) {
    let (Some(field), Some(sources)) = (FIELDS.get(index), SOURCES.get(index)) else { return (Value::Null, None) };
    let reading = match field.read {
        Read::Delivery(read) => Reading::Value(read(event.origin())),
        Read::First(read) => first(sources, read, event.record()),
        Read::Computed(read) => read(event),
    };
    match reading {
        Reading::Value(value) => (value, None),
        Reading::Odd(value, kind) => (value, Some(kind)),
        Reading::Nothing => (Value::Null, is_expected(field.name).then_some(DefectKind::Missing)),
        Reading::Unreadable => (Value::Null, Some(DefectKind::Unreadable)),
    }
}

fn is_expected(name: &str) -> bool {
    EXPECTED.iter().any(|field| field.field().name == name)
}

/// The first value that a source gives. Sources that cannot be read are a defect only if none gives a value: a bad
/// `ClientIP` beside a good `ActorIpAddress` costs nothing.
pub(crate) fn first(sources: &[Path], read: fn(&Scalar<'_>) -> Reading, record: Node<'_>) -> Reading {
    let mut unreadable = false;
    for path in sources {
        match first_of(path, read, record) {
            Reading::Nothing => {}
            Reading::Unreadable => unreadable = true,
            value => return value,
        }
    }
    if unreadable { Reading::Unreadable } else { Reading::Nothing }
}

/// The first value at one source, which may select several.
fn first_of(path: &Path, read: fn(&Scalar<'_>) -> Reading, record: Node<'_>) -> Reading {
    if let Some(key) = path.top_level_key() {
        match record.get(key).map(Scalar::of) {
            None => return Reading::Nothing,
            Some(Some(scalar)) => return read(&scalar),
            Some(None) => {}
        }
    }
    let mut found = Vec::new();
    let present = path.select_record(record, &mut found);
    // An object or an empty list where one value belongs.
    let mut unreadable = present && found.is_empty();
    for scalar in &found {
        match read(scalar) {
            Reading::Nothing => {}
            Reading::Unreadable => unreadable = true,
            value => return value,
        }
    }
    if unreadable { Reading::Unreadable } else { Reading::Nothing }
}
