//! `dead_letters`: what could not be used, with its place, its reason and its bytes.

use schemas::message::{DeadLetter, Topic};

use super::{Cell, Column, Kind, Row, Table, integer, optional, text, time};

pub static DEAD_LETTERS: Table = Table {
    name: "dead_letters",
    doc: "What could not be used: records that are not records, and messages that could not be delivered.",
    columns,
    partition_columns: &["tenant"],
    statistics: &[],
    bloom_filters: &[],
    topic: Topic::DeadLetters,
    sorted_by: &["received_time", "place"],
    rows_of_event: None,
};

fn columns() -> Vec<Column> {
    vec![
        Column::new("tenant", Kind::Text, "The tenant's name."),
        Column::new("source", Kind::Text, "The stage and door: import, management_activity, sink:NAME."),
        Column::new("place", Kind::Text, "File and line, blob and position, or sink and finding."),
        Column::new("reason", Kind::Text, "What is wrong."),
        Column::new("received_time", Kind::Time, "When it came (UTC)."),
        Column::new("bytes", Kind::Bytes, "The bytes; only the first 64 KiB where there were more than 16 MiB."),
        Column::new("length", Kind::Integer, "How many bytes there were."),
        Column::new("sha256", Kind::Text, "Hash of all bytes, where only the first of them are kept."),
    ]
}

pub(crate) fn row(letter: &DeadLetter) -> Row<'_> {
    vec![
        text(letter.tenant.as_str()),
        text(&letter.source),
        text(&letter.place),
        text(&letter.reason),
        time(letter.received),
        Cell::Bytes(&letter.bytes),
        integer(letter.whole.as_ref().map_or(letter.bytes.len() as u64, |whole| whole.length)),
        optional(letter.whole.as_ref().map(|whole| whole.sha256.as_str())),
    ]
}
