//! Rows waiting to be written: columns that grow, one set for each partition of a table.
//!
//! A row is taken apart as it comes and its cells are appended to their columns, so that what waits costs what it holds
//! and little more: a flush's worth of records waits for every file that is written.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Int64Builder, ListBuilder, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field};
use chrono::NaiveDate;
use schemas::Value;

use crate::table::{Cell, Kind, Row, Table};

/// Rows waiting to be written, by partition.
pub(crate) struct Rows {
    kinds: Vec<Kind>,
    /// For each column, whether it lives in the path of the file and not in it.
    in_path: Vec<bool>,
    by_partition: BTreeMap<Vec<String>, PartitionRows>,
    pub(crate) rows: u64,
    pub(crate) bytes: usize,
}

/// The rows of one partition, column by column, without those that live in the path.
pub(crate) struct PartitionRows(Vec<Column>);

impl Rows {
    pub(crate) fn new(table: &Table) -> Rows {
        let columns = table.columns();
        Rows {
            kinds: columns.iter().map(|column| column.kind).collect(),
            in_path: columns.iter().map(|column| table.is_partition(column.name)).collect(),
            by_partition: BTreeMap::new(),
            rows: 0,
            bytes: 0,
        }
    }

    /// Adds a row, which has a cell for each of the table's columns. Its bytes are counted by the caller's measure, for
    /// the limit on what is held.
    pub(crate) fn push(&mut self, row: &Row<'_>, bytes: usize) {
        let cells = || row.iter().zip(&self.in_path);
        let key = cells().filter(|(_, in_path)| **in_path).map(|(cell, _)| path_text(cell)).collect();
        let new = || {
            let stored = self.kinds.iter().zip(&self.in_path).filter(|(_, in_path)| !**in_path);
            PartitionRows(stored.map(|(kind, _)| Column::new(*kind)).collect())
        };
        let partition = self.by_partition.entry(key).or_insert_with(new);
        for (column, (cell, _)) in partition.0.iter_mut().zip(row.iter().zip(&self.in_path).filter(|(_, path)| !**path))
        {
            column.push(cell);
        }
        self.rows += 1;
        self.bytes += bytes;
    }

    pub(crate) fn into_partitions(self) -> impl Iterator<Item = (Vec<String>, PartitionRows)> {
        self.by_partition.into_iter()
    }
}

impl PartitionRows {
    /// The columns as arrays.
    pub(crate) fn finish(self) -> Vec<ArrayRef> {
        self.0.into_iter().map(Column::finish).collect()
    }
}

fn path_text(cell: &Cell<'_>) -> String {
    match cell {
        Cell::Text(text) => text.clone().into_owned(),
        Cell::Value(Value::Text(text)) => text.clone(),
        Cell::Date(date) => date.to_string(),
        // No table is partitioned by anything else.
        _ => String::new(),
    }
}

enum Column {
    Text(StringBuilder),
    Integer(Int64Builder),
    Boolean(BooleanBuilder),
    Time(TimestampMicrosecondBuilder),
    Date(Date32Builder),
    TextList(ListBuilder<StringBuilder>),
    Bytes(BinaryBuilder),
}

impl Column {
    /// Empty, and without room kept for rows: many tenants have few rows each.
    fn new(kind: Kind) -> Column {
        match kind {
            Kind::Text => Column::Text(StringBuilder::with_capacity(0, 0)),
            Kind::Integer => Column::Integer(Int64Builder::with_capacity(0)),
            Kind::Boolean => Column::Boolean(BooleanBuilder::with_capacity(0)),
            Kind::Time => Column::Time(TimestampMicrosecondBuilder::with_capacity(0).with_timezone("UTC")),
            Kind::Date => Column::Date(Date32Builder::with_capacity(0)),
            Kind::TextList => {
                let element = Field::new("element", DataType::Utf8, true);
                Column::TextList(ListBuilder::with_capacity(StringBuilder::with_capacity(0, 0), 0).with_field(element))
            }
            Kind::Bytes => Column::Bytes(BinaryBuilder::with_capacity(0, 0)),
        }
    }

    /// Appends a cell; one of another type than the column's is null.
    fn push(&mut self, cell: &Cell<'_>) {
        match self {
            Column::Text(builder) => builder.append_option(match cell {
                Cell::Text(text) => Some(text.as_ref()),
                Cell::Value(Value::Text(text)) => Some(text.as_str()),
                _ => None,
            }),
            Column::Integer(builder) => builder.append_option(match cell {
                Cell::Integer(number) | Cell::Value(Value::Integer(number)) => Some(*number),
                _ => None,
            }),
            Column::Boolean(builder) => builder.append_option(match cell {
                Cell::Value(Value::Boolean(value)) => Some(*value),
                _ => None,
            }),
            Column::Time(builder) => builder.append_option(match cell {
                Cell::Time(time) | Cell::Value(Value::Time(time)) => Some(time.timestamp_micros()),
                _ => None,
            }),
            Column::Date(builder) => builder.append_option(match cell {
                Cell::Date(date) => i32::try_from((*date - NaiveDate::default()).num_days()).ok(),
                _ => None,
            }),
            Column::TextList(builder) => match cell {
                Cell::Texts(texts) => append_list(builder, texts),
                Cell::Value(Value::TextList(texts)) => append_list(builder, texts),
                _ => builder.append(false),
            },
            Column::Bytes(builder) => builder.append_option(match cell {
                Cell::Bytes(bytes) => Some(*bytes),
                _ => None,
            }),
        }
    }

    fn finish(self) -> ArrayRef {
        match self {
            Column::Text(mut builder) => Arc::new(builder.finish()),
            Column::Integer(mut builder) => Arc::new(builder.finish()),
            Column::Boolean(mut builder) => Arc::new(builder.finish()),
            Column::Time(mut builder) => Arc::new(builder.finish()),
            Column::Date(mut builder) => Arc::new(builder.finish()),
            Column::TextList(mut builder) => Arc::new(builder.finish()),
            Column::Bytes(mut builder) => Arc::new(builder.finish()),
        }
    }
}

fn append_list(builder: &mut ListBuilder<StringBuilder>, texts: &[String]) {
    texts.iter().for_each(|text| builder.values().append_value(text));
    builder.append(true);
}
