//! Which rows of a table are a person's. Pure: one file's rows at a time.
//!
//! Of records: what the person did, or what was done in their mailbox, by the columns that say so. Of findings and dead
//! letters: those whose text names them. Of evidence: what led to one of either.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, StringArray};
use bytes::Bytes;
use chrono::{DateTime, NaiveDate};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use schemas::json::key_hash;

use super::Subject;
use crate::error::Error;
use crate::file::{text_columns, time_column};
use crate::table::{DEAD_LETTERS, EVENTS, EVIDENCE, FINDING_COLUMN, FINDING_REVISIONS, FINDINGS, Table};

/// Every column that a choice looks at, in whatever table.
const COLUMNS: [&str; 12] = [
    "id",
    "event_id",
    "finding_id",
    "user_id",
    "mailbox_owner",
    FINDING_COLUMN,
    "first_event",
    "last_event",
    "received_time",
    "place",
    "reason",
    "bytes",
];

/// What is known to go, by hashes of ids. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    events: Arc<HashSet<u128>>,
    findings: Arc<HashSet<u128>>,
}

/// What of the subject is in a file.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) rows: u64,
    /// Hashes of their ids, of tables whose ids others name.
    pub(super) ids: Vec<u128>,
}

impl Known {
    pub(super) fn add(&mut self, table: &Table, ids: Vec<u128>) {
        let known = if std::ptr::eq(table, &EVENTS) { &mut self.events } else { &mut self.findings };
        Arc::make_mut(known).extend(ids);
    }
}

/// What of the subject is in a file, of which only the columns that say so are read.
pub(super) fn look(table: &'static Table, bytes: Bytes, subject: &Subject, known: &Known) -> Result<Found, Error> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns(table));
    let mut found = Found::default();
    for batch in builder.with_projection(mask).build()? {
        let batch = batch?;
        let [ids] = text_columns(&batch, ["id"]);
        for row in of_subject(table, &batch, subject, known).iter().enumerate() {
            if let (row, Some(true)) = row {
                found.rows += 1;
                found.ids.extend(text(ids, row).map(|id| key_hash(&[id])));
            }
        }
    }
    Ok(found)
}

fn columns(table: &Table) -> impl Iterator<Item = &'static str> {
    // Records have a time and perhaps a reason as well, and neither matters there.
    let is_of_records = table.rows_of_event.is_some();
    COLUMNS.into_iter().filter(move |name| !is_of_records || !matches!(*name, "received_time" | "place" | "reason"))
}

/// For each row whether it is the subject's.
pub(super) fn of_subject(table: &Table, batch: &RecordBatch, subject: &Subject, known: &Known) -> BooleanArray {
    let rows = 0..batch.num_rows();
    let [user_id, mailbox_owner, event_id, finding_id] =
        text_columns(batch, ["user_id", "mailbox_owner", "event_id", "finding_id"]);
    if std::ptr::eq(table, &EVIDENCE) {
        let is_known =
            |known: &HashSet<u128>, ids, row| text(ids, row).is_some_and(|id| known.contains(&key_hash(&[id])));
        return rows
            .map(|row| Some(is_known(&known.events, event_id, row) || is_known(&known.findings, finding_id, row)))
            .collect();
    }
    if std::ptr::eq(table, &FINDINGS) || std::ptr::eq(table, &FINDING_REVISIONS) {
        let [finding] = text_columns(batch, [FINDING_COLUMN]);
        return rows
            .map(|row| {
                let is_then = match (day(batch, "first_event", row), day(batch, "last_event", row)) {
                    (Some(first), Some(last)) => subject.overlaps(first, last),
                    _ => true,
                };
                Some(is_then && text(finding, row).is_some_and(|finding| subject.is_named_in(finding)))
            })
            .collect();
    }
    if std::ptr::eq(table, &DEAD_LETTERS) {
        let [place, reason] = text_columns(batch, ["place", "reason"]);
        let bytes = batch.column_by_name("bytes").and_then(|column| column.as_binary_opt::<i32>());
        return rows
            .map(|row| {
                let is_then = day(batch, "received_time", row).is_none_or(|day| subject.has_day(day));
                let bytes =
                    bytes.filter(|bytes| bytes.is_valid(row)).map(|bytes| String::from_utf8_lossy(bytes.value(row)));
                let texts = [text(place, row), text(reason, row), bytes.as_deref()];
                Some(is_then && texts.into_iter().flatten().any(|text| subject.is_named_in(text)))
            })
            .collect();
    }
    let is_one_of = |names: &[String], column, row| {
        text(column, row).is_some_and(|value: &str| names.contains(&value.to_lowercase()))
    };
    rows.map(|row| Some(is_one_of(&subject.users, user_id, row) || is_one_of(&subject.mailboxes, mailbox_owner, row)))
        .collect()
}

fn text(column: Option<&StringArray>, row: usize) -> Option<&str> {
    column.filter(|column| column.is_valid(row)).map(|column| column.value(row))
}

fn day(batch: &RecordBatch, column: &str, row: usize) -> Option<NaiveDate> {
    let times = time_column(batch, column).filter(|times| times.is_valid(row))?;
    Some(DateTime::from_timestamp_micros(times.value(row))?.date_naive())
}

/// Whether a text in lower case has this name as a word: `ann@x.example` is not in `joann@x.example`, nor in
/// `ann@x.example.org`.
pub(super) fn mentions(text: &str, name: &str) -> bool {
    let in_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '+' | '@');
    let before = |text: &str| !text.ends_with(|c: char| in_name(c) || c == '.');
    let after = |text: &str| {
        let rest = text.strip_prefix('.').unwrap_or(text);
        // A full stop ends a sentence, or goes on as a longer name.
        !rest.starts_with(in_name)
    };
    !name.is_empty() && text.match_indices(name).any(|(at, _)| before(&text[..at]) && after(&text[at + name.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_as_a_whole_and_only_so() {
        for (text, is_there) in [
            ("ann@x.example", true),
            ("{\"entity\":\"ann@x.example\"}", true),
            ("by ann@x.example. then", true),
            ("of ann@x.example's, ann@x.example", true),
            ("smtp:ann@x.example;", true),
            ("joann@x.example", false),
            ("jo.ann@x.example", false),
            ("ann@x.example.org", false),
            ("ann@x.examples", false),
            ("", false),
        ] {
            assert_eq!(mentions(text, "ann@x.example"), is_there, "{text}");
        }
        assert!(!mentions("anything", ""));
    }
}
