//! `blobs`: what became of every content blob, which the ledger itself forgets after some days.
//!
//! With the hash of each blob's body a service's own copy can be held against what was received, and through the hash of
//! the file that a row lies in, which commits sign, it is under the same proof as the records.

use schemas::message::{Blob, BlobEnd, Topic};

use super::{Cell, Column, Kind, Row, Table, integer, optional, text, time};

pub static BLOBS: Table = Table {
    name: "blobs",
    doc: "What became of each content blob that a source listed: taken whole, or lost and why.",
    columns,
    partition_columns: &["tenant"],
    statistics: &["created_time"],
    bloom_filters: &["blob_id"],
    topic: Topic::Coverage,
    sorted_by: &["created_time", "blob_id"],
    rows_of_event: None,
};

fn columns() -> Vec<Column> {
    vec![
        Column::new("tenant", Kind::Text, "The tenant's name."),
        Column::new("source", Kind::Text, "The door: management_activity, audit_search."),
        Column::new("content_type", Kind::Text, "The feed; null for a search."),
        Column::new("blob_id", Kind::Text, "events.blob_id: the content blob, or the search."),
        Column::new(
            "created_time",
            Kind::Time,
            "When it became available (UTC); of a search, the start of what it searched.",
        ),
        Column::new(
            "finished_time",
            Kind::Time,
            "When all of it was in the log, or when it was known to be lost (UTC).",
        ),
        Column::new("state", Kind::Text, "taken, gone or expired."),
        Column::new("reason", Kind::Text, "Why it is gone."),
        Column::new(
            "records",
            Kind::Integer,
            "Records in it. Those that had come before are in events under another blob_id.",
        ),
        Column::new("rejected", Kind::Integer, "What in it was no record: in dead_letters."),
        Column::new("length", Kind::Integer, "Bytes of its body as received."),
        Column::new("sha256", Kind::Text, "Hash of its body as received."),
    ]
}

pub(crate) fn row(blob: &Blob) -> Row<'_> {
    let mut row = vec![
        text(blob.tenant.as_str()),
        text(&blob.source),
        optional(Some(blob.content_type.as_str()).filter(|feed| !feed.is_empty())),
        text(&blob.blob_id),
        time(blob.created),
        time(blob.finished),
        text(blob.end.as_str()),
    ];
    row.extend(match &blob.end {
        BlobEnd::Taken { records, rejected, bytes, sha256 } => {
            [Cell::Null, integer(*records), integer(*rejected), integer(*bytes), text(sha256)]
        }
        BlobEnd::Gone { reason } => [text(reason), Cell::Null, Cell::Null, Cell::Null, Cell::Null],
        BlobEnd::Expired => [Cell::Null, Cell::Null, Cell::Null, Cell::Null, Cell::Null],
    });
    row
}
