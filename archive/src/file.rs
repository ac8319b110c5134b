//! Rows to Parquet files, one for each partition of a table, and the few columns the archiver reads back.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Int64Builder, ListBuilder, RecordBatch, StringArray,
    StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field};
use chrono::{DateTime, NaiveDate};
use object_store::ObjectStoreExt;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use schemas::Value;

use crate::delta::{DeltaTable, FileStatistics};
use crate::error::Error;
use crate::table::{Cell, Column, Kind, Row, Table};

/// Rows of a row group: large enough to compress, small enough that a point question reads little.
const ROW_GROUP_ROWS_MAX: usize = 131_072;

/// Pages of 2,048 rows or 256 KiB: a look-up of one user with `raw` reads a page, not a row group. Costs 4 % of size.
const PAGE_ROWS_MAX: usize = 2_048;
const PAGE_BYTES_MAX: usize = 256 * 1024;

/// Rows waiting to be written, by partition.
pub(crate) struct Rows {
    partition_positions: Vec<usize>,
    by_partition: BTreeMap<Vec<String>, Vec<Row>>,
    pub(crate) rows: u64,
    pub(crate) bytes: usize,
}

impl Rows {
    pub(crate) fn new(table: &Table) -> Rows {
        let columns = table.columns();
        let positions = (0..columns.len()).filter(|&position| table.is_partition(columns[position].name));
        Rows { partition_positions: positions.collect(), by_partition: BTreeMap::new(), rows: 0, bytes: 0 }
    }

    /// Adds a row. Its bytes are counted by the caller's measure, for the limit on what is held.
    pub(crate) fn push(&mut self, row: Row, bytes: usize) {
        let key = self.partition_positions.iter().map(|&position| partition_text(&row[position])).collect();
        self.by_partition.entry(key).or_default().push(row);
        self.rows += 1;
        self.bytes += bytes;
    }

    pub(crate) fn into_partitions(self) -> impl Iterator<Item = (Vec<String>, Vec<Row>)> {
        self.by_partition.into_iter()
    }
}

fn partition_text(cell: &Cell) -> String {
    match cell {
        Cell::Value(Value::Text(text)) => text.clone(),
        Cell::Date(date) => date.format("%Y-%m-%d").to_string(),
        // No table is partitioned by anything else.
        _ => String::new(),
    }
}

/// A written file.
pub(crate) struct Written {
    pub(crate) bytes: Vec<u8>,
    pub(crate) statistics: FileStatistics,
}

/// Writes rows of one partition as a Parquet file.
pub(crate) fn write(table: &'static Table, mut rows: Vec<Row>) -> Result<Written, Error> {
    let columns = table.columns();
    sort(table, &columns, &mut rows);
    let mut arrays: Vec<ArrayRef> = Vec::new();
    let mut statistics = FileStatistics { num_records: rows.len() as u64, ..FileStatistics::default() };
    for (index, column) in columns.iter().enumerate() {
        if table.is_partition(column.name) {
            continue;
        }
        arrays.push(array(column.kind, rows.iter().map(|row| &row[index])));
        if table.statistics.contains(&column.name) {
            bounds(&mut statistics, column.name, rows.iter().map(|row| &row[index]));
        }
    }
    drop(rows);
    let schema = Arc::new(table.file_schema());
    let batch = RecordBatch::try_new(schema.clone(), arrays)?;
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties(table)))?;
    writer.write(&batch)?;
    Ok(Written { bytes: writer.into_inner()?, statistics })
}

fn properties(table: &Table) -> WriterProperties {
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS_MAX))
        .set_data_page_row_count_limit(PAGE_ROWS_MAX)
        .set_data_page_size_limit(PAGE_BYTES_MAX);
    for name in table.bloom_filters {
        builder = builder.set_column_bloom_filter_enabled(ColumnPath::from(*name), true);
    }
    for column in table.columns() {
        // Values that never repeat gain nothing from a dictionary.
        if matches!(column.name, "raw" | "id" | "finding" | "bytes") {
            builder = builder.set_column_dictionary_enabled(ColumnPath::from(column.name), false);
        }
        if column.kind == Kind::Time {
            let path = ColumnPath::from(column.name);
            builder = builder
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
        }
    }
    builder.build()
}

/// By the table's column and then by everything, so that equal rows make equal files whatever order they came in.
fn sort(table: &Table, columns: &[Column], rows: &mut [Row]) {
    let Some(first) = columns.iter().position(|column| column.name == table.sorted_by) else { return };
    let id = columns.iter().position(|column| column.name == "id");
    rows.sort_by(|a, b| {
        order(&a[first], &b[first]).then_with(|| id.map_or(std::cmp::Ordering::Equal, |id| order(&a[id], &b[id])))
    });
}

fn order(a: &Cell, b: &Cell) -> std::cmp::Ordering {
    match (a, b) {
        (Cell::Value(Value::Time(a)), Cell::Value(Value::Time(b))) => a.cmp(b),
        (Cell::Value(Value::Text(a)), Cell::Value(Value::Text(b))) => a.cmp(b),
        _ => std::cmp::Ordering::Equal,
    }
}

fn bounds<'a>(statistics: &mut FileStatistics, name: &str, cells: impl Iterator<Item = &'a Cell>) {
    let times = cells.filter_map(|cell| match cell {
        Cell::Value(Value::Time(time)) => Some(*time),
        _ => None,
    });
    let Some((least, greatest)) = times.fold(None, |range, time| match range {
        None => Some((time, time)),
        Some((least, greatest)) => Some((time.min(least), time.max(greatest))),
    }) else {
        return;
    };
    // The protocol allows milliseconds here; the upper bound is rounded up so that it stays one.
    let greatest = greatest + chrono::TimeDelta::microseconds(999);
    let text = |time: DateTime<chrono::Utc>| time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    statistics.min_values.insert(name.to_owned(), text(least).into());
    statistics.max_values.insert(name.to_owned(), text(greatest).into());
}

fn array<'a>(kind: Kind, cells: impl Iterator<Item = &'a Cell>) -> ArrayRef {
    match kind {
        Kind::Text => {
            let mut builder = StringBuilder::new();
            cells.for_each(|cell| match cell {
                Cell::Value(Value::Text(text)) => builder.append_value(text),
                _ => builder.append_null(),
            });
            Arc::new(builder.finish())
        }
        Kind::Integer => Arc::new(
            cells
                .fold(Int64Builder::new(), |mut builder, cell| {
                    builder.append_option(match cell {
                        Cell::Value(Value::Integer(number)) => Some(*number),
                        _ => None,
                    });
                    builder
                })
                .finish(),
        ),
        Kind::Boolean => Arc::new(
            cells
                .fold(BooleanBuilder::new(), |mut builder, cell| {
                    builder.append_option(match cell {
                        Cell::Value(Value::Boolean(value)) => Some(*value),
                        _ => None,
                    });
                    builder
                })
                .finish(),
        ),
        Kind::Time => Arc::new(
            cells
                .fold(TimestampMicrosecondBuilder::new().with_timezone("UTC"), |mut builder, cell| {
                    builder.append_option(match cell {
                        Cell::Value(Value::Time(time)) => Some(time.timestamp_micros()),
                        _ => None,
                    });
                    builder
                })
                .finish(),
        ),
        Kind::Date => Arc::new(
            cells
                .fold(Date32Builder::new(), |mut builder, cell| {
                    builder.append_option(match cell {
                        Cell::Date(date) => i32::try_from((*date - NaiveDate::default()).num_days()).ok(),
                        _ => None,
                    });
                    builder
                })
                .finish(),
        ),
        Kind::TextList => text_list(cells),
        Kind::Bytes => {
            let mut builder = BinaryBuilder::new();
            cells.for_each(|cell| match cell {
                Cell::Bytes(bytes) => builder.append_value(bytes),
                _ => builder.append_null(),
            });
            Arc::new(builder.finish())
        }
    }
}

fn text_list<'a>(cells: impl Iterator<Item = &'a Cell>) -> ArrayRef {
    let element = Field::new("element", DataType::Utf8, true);
    let mut builder = ListBuilder::new(StringBuilder::new()).with_field(element);
    for cell in cells {
        match cell {
            Cell::Value(Value::TextList(list)) => {
                list.iter().for_each(|text| builder.values().append_value(text));
                builder.append(true);
            }
            _ => builder.append(false),
        }
    }
    Arc::new(builder.finish())
}

/// Reads text columns of a whole table, row by row; null reads as empty. Partition columns come from the commit.
pub(crate) async fn read_text_columns<const N: usize>(
    delta: &DeltaTable,
    names: [&str; N],
) -> Result<Vec<[String; N]>, Error> {
    let mut rows = Vec::new();
    for add in delta.snapshot().files.values() {
        let bytes = delta.store().objects().get(&delta.location(&add.path)).await?.bytes().await?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
        let mask = ProjectionMask::columns(builder.parquet_schema(), names);
        for batch in builder.with_projection(mask).build()? {
            let batch = batch?;
            let columns: [Option<&StringArray>; N] =
                names.map(|name| batch.column_by_name(name).and_then(|column| column.as_any().downcast_ref()));
            for row in 0..batch.num_rows() {
                rows.push(std::array::from_fn(|index| match columns[index] {
                    Some(column) if column.is_valid(row) => column.value(row).to_owned(),
                    Some(_) => String::new(),
                    None => add.partition_values.get(names[index]).cloned().flatten().unwrap_or_default(),
                }));
            }
        }
    }
    Ok(rows)
}
