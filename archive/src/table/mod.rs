//! The tables of the archive: one file each, one line each in [`TABLES`].
//!
//! A table is a list of documented columns, the topic its rows come from, and how it is partitioned. The list drives
//! the Parquet and Delta schemas, SQL, `DESCRIBE`, and the archiver.

mod blobs;
mod coverage;
mod dead_letters;
mod events;
mod evidence;
mod finding_revisions;
mod findings;
mod mail_items;
mod sign_ins;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use chrono::{DateTime, NaiveDate, Utc};
use schemas::envelope::Received;
use schemas::field::Kind as FieldKind;
use schemas::message::Topic;
use schemas::{Event, FIELDS, Value};
use serde_json::json;
use std::borrow::Cow;
use std::sync::Arc;

pub use blobs::BLOBS;
pub use coverage::COVERAGE;
pub use dead_letters::DEAD_LETTERS;
pub use events::EVENTS;
pub use evidence::EVIDENCE;
pub use finding_revisions::FINDING_REVISIONS;
pub use findings::FINDINGS;
pub use mail_items::MAIL_ITEMS;
pub use sign_ins::SIGN_INS;

pub(crate) use blobs::row as blob_row;
pub(crate) use coverage::row as coverage_row;
pub(crate) use dead_letters::row as dead_letter_row;
pub(crate) use evidence::row as evidence_row;
pub(crate) use finding_revisions::row as finding_revision_row;
pub(crate) use findings::{FINDING_COLUMN, row as finding_row};

/// Every table, in the order in which they are shown.
pub static TABLES: &[&Table] =
    &[&EVENTS, &MAIL_ITEMS, &SIGN_INS, &FINDINGS, &FINDING_REVISIONS, &EVIDENCE, &COVERAGE, &BLOBS, &DEAD_LETTERS];

/// One table.
#[derive(Debug)]
pub struct Table {
    pub name: &'static str,
    pub doc: &'static str,
    pub(crate) columns: fn() -> Vec<Column>,
    /// Columns that live in the path of a file and not in it. All of them are among `columns`.
    pub(crate) partition_columns: &'static [&'static str],
    /// Columns whose least and greatest value each commit records, so that readers can skip files.
    pub(crate) statistics: &'static [&'static str],
    /// Columns with Bloom filters: those one looks up a single value in.
    pub(crate) bloom_filters: &'static [&'static str],
    /// Where its rows come from.
    pub(crate) topic: Topic,
    /// Rows of a file are sorted by these columns.
    pub(crate) sorted_by: &'static [&'static str],
    /// The rows that an admitted record makes, for tables that are made from records.
    pub(crate) rows_of_event: Option<RowsOfEvent>,
}

/// One column.
#[derive(Clone, Debug)]
pub struct Column {
    pub name: &'static str,
    pub kind: Kind,
    pub doc: &'static str,
}

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Integer,
    Boolean,
    /// Microseconds, UTC.
    Time,
    Date,
    TextList,
    Bytes,
}

/// One value of a row, borrowed from what the row is made of.
#[derive(Clone, Debug)]
pub(crate) enum Cell<'a> {
    Null,
    Value(&'a Value),
    Text(Cow<'a, str>),
    Texts(Cow<'a, [String]>),
    Integer(i64),
    Time(DateTime<Utc>),
    Date(NaiveDate),
    Bytes(&'a [u8]),
}

/// Calls back with each row that a record makes.
pub(crate) type RowsOfEvent = for<'e> fn(&'e Event, &'e Received, &mut dyn FnMut(Row<'e>));

/// A row, in the order of the table's columns.
pub(crate) type Row<'a> = Vec<Cell<'a>>;

impl Table {
    /// The columns in the order in which SQL shows them.
    pub fn columns(&self) -> Vec<Column> {
        (self.columns)()
    }

    pub(crate) fn is_partition(&self, name: &str) -> bool {
        self.partition_columns.contains(&name)
    }

    /// Whether it is made from records beside `events`.
    pub(crate) fn is_derived(&self) -> bool {
        self.rows_of_event.is_some() && self.name != EVENTS.name
    }

    /// The schema of a file: without the partition columns.
    pub(crate) fn file_schema(&self) -> Schema {
        let stored = self.columns().into_iter().filter(|column| !self.is_partition(column.name));
        Schema::new(stored.map(|column| column.field()).collect::<Vec<_>>())
    }

    /// The schema in Delta's own notation.
    pub(crate) fn delta_schema(&self) -> serde_json::Value {
        let fields: Vec<_> = self
            .columns()
            .iter()
            .map(|column| {
                let delta = match column.kind {
                    Kind::Text => json!("string"),
                    Kind::Integer => json!("long"),
                    Kind::Boolean => json!("boolean"),
                    Kind::Time => json!("timestamp"),
                    Kind::Date => json!("date"),
                    Kind::TextList => json!({"type": "array", "elementType": "string", "containsNull": true}),
                    Kind::Bytes => json!("binary"),
                };
                json!({"name": column.name, "type": delta, "nullable": true, "metadata": {"comment": column.doc}})
            })
            .collect();
        json!({"type": "struct", "fields": fields})
    }
}

impl Column {
    pub(crate) const fn new(name: &'static str, kind: Kind, doc: &'static str) -> Column {
        Column { name, kind, doc }
    }

    pub(crate) fn field(&self) -> Field {
        Field::new(self.name, self.kind.data_type(), true)
    }
}

impl Kind {
    pub(crate) fn data_type(self) -> DataType {
        match self {
            Kind::Text => DataType::Utf8,
            Kind::Integer => DataType::Int64,
            Kind::Boolean => DataType::Boolean,
            Kind::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Kind::Date => DataType::Date32,
            Kind::TextList => DataType::List(Arc::new(Field::new("element", DataType::Utf8, true))),
            Kind::Bytes => DataType::Binary,
        }
    }

    /// The type's name in the documentation.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Text => "text",
            Kind::Integer => "integer",
            Kind::Boolean => "boolean",
            Kind::Time => "timestamp (UTC)",
            Kind::Date => "date",
            Kind::TextList => "list of text",
            Kind::Bytes => "bytes",
        }
    }
}

impl From<FieldKind> for Kind {
    fn from(kind: FieldKind) -> Kind {
        match kind {
            FieldKind::Text => Kind::Text,
            FieldKind::Integer => Kind::Integer,
            FieldKind::Boolean => Kind::Boolean,
            FieldKind::Time => Kind::Time,
            FieldKind::TextList => Kind::TextList,
        }
    }
}

/// The columns that come from [`FIELDS`].
fn field_columns() -> impl Iterator<Item = Column> {
    FIELDS.iter().map(|field| Column { name: field.name, kind: field.kind.into(), doc: field.doc })
}

pub(crate) fn text<'a>(text: impl Into<Cow<'a, str>>) -> Cell<'a> {
    Cell::Text(text.into())
}

pub(crate) fn texts(list: &[String]) -> Cell<'_> {
    Cell::Texts(Cow::Borrowed(list))
}

pub(crate) fn optional(value: Option<&str>) -> Cell<'_> {
    value.map_or(Cell::Null, text)
}

pub(crate) fn time<'a>(time: DateTime<Utc>) -> Cell<'a> {
    Cell::Time(time)
}

pub(crate) fn integer<'a>(number: u64) -> Cell<'a> {
    Cell::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_in_this_folder_is_a_table_in_the_list() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/table");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter_map(|name| name.strip_suffix(".rs").map(str::to_owned))
            .filter(|name| name != "mod")
            .collect();
        files.sort();
        let mut names: Vec<String> = TABLES.iter().map(|table| table.name.to_owned()).collect();
        names.sort();
        assert_eq!(files, names);
    }

    #[test]
    fn partition_and_statistics_columns_exist() {
        for table in TABLES {
            let names: Vec<_> = table.columns().iter().map(|column| column.name).collect();
            let mentioned = table.partition_columns.iter().chain(table.statistics).chain(table.bloom_filters);
            for name in mentioned.chain(table.sorted_by) {
                assert!(names.contains(name), "{}.{name}", table.name);
            }
        }
    }
}
