//! `events`: one row for each admitted record, with every field of `FIELDS` and the bytes as received.

use std::borrow::Cow;

use schemas::envelope::Received;
use schemas::message::Topic;
use schemas::{Event, field};

use super::{Cell, Column, Kind, Row, Table, field_columns};

pub static EVENTS: Table = Table {
    name: "events",
    doc: "One row for each audit record: typed fields, and the record exactly as received in raw.",
    columns,
    partition_columns: &["tenant", "day"],
    statistics: &["event_time"],
    bloom_filters: &["id", "user_id", "client_ip", "session_id", "internet_message_ids"],
    topic: Topic::Verdicts,
    sorted_by: &["user_id", "event_time", "id"],
    rows_of_event: Some(|event, received, push| push(row(event, received))),
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

fn row<'a>(event: &'a Event, received: &'a Received) -> Row<'a> {
    let mut row: Row<'a> = event.values().map(Cell::Value).collect();
    // `raw` is not a value of the event: the bytes themselves are kept.
    row[field::RAW.index()] = Cell::Text(String::from_utf8_lossy(&received.bytes));
    let defects = event.defects().map(|defect| format!("{} {}", defect.field, defect.kind.as_str()));
    row.push(Cell::Texts(Cow::Owned(defects.collect())));
    row.push(Cell::Date(event.time().date_naive()));
    row
}
