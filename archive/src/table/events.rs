//! `events`: one row for each admitted record, with every field of `FIELDS` and the bytes as received.

use schemas::envelope::Received;
use schemas::message::Topic;
use schemas::{Event, FIELDS, Value};

use super::{Cell, Column, Kind, Row, Table, field_columns, texts};

pub static EVENTS: Table = Table {
    name: "events",
    doc: "One row for each audit record: typed fields, and the record exactly as received in raw.",
    columns,
    partition_columns: &["tenant", "day"],
    statistics: &["event_time"],
    bloom_filters: &["id", "user_id", "client_ip", "session_id"],
    topic: Topic::Verdicts,
    sorted_by: "event_time",
};

fn columns() -> Vec<Column> {
    let mut columns: Vec<Column> = field_columns().collect();
    columns.push(Column::new(
        "defects",
        Kind::TextList,
        "What was odd about the record: field and kind (missing, unreadable, repeated_key).",
    ));
    columns.push(Column::new("day", Kind::Date, "The UTC day of event_time, by which the table is partitioned."));
    columns
}

pub(crate) fn row(event: &Event, received: &Received) -> Row {
    let mut row: Row = FIELDS
        .iter()
        .map(|field| match schemas::field::by_name(field.name) {
            Some(id) => Cell::Value(event.get(id).clone()),
            // `raw` is not a value of the event: the bytes themselves are kept.
            None => Cell::Value(Value::Text(String::from_utf8_lossy(&received.bytes).into_owned())),
        })
        .collect();
    let defects: Vec<String> = event.defects.iter().map(|d| format!("{} {}", d.field, d.kind.as_str())).collect();
    row.push(texts(&defects));
    row.push(Cell::Date(event.time().date_naive()));
    row
}
