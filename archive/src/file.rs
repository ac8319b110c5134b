//! Rows to Parquet files, one for each partition of a table, and the few columns the archiver reads back.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::compute::{SortColumn, lexsort_to_indices, max, min, take_record_batch};
use arrow::datatypes::TimestampMicrosecondType;
use chrono::DateTime;
use object_store::ObjectStoreExt;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;

use crate::delta::{DeltaTable, FileStatistics};
use crate::error::Error;
use crate::rows::PartitionRows;
use crate::table::{Kind, Table};

/// Rows of a row group: large enough to compress, small enough that a point question reads little.
const ROW_GROUP_ROWS_MAX: usize = 131_072;

/// Pages of 2,048 rows or 256 KiB: a look-up of one user with `raw` reads a page, not a row group. Costs 4 % of size.
const PAGE_ROWS_MAX: usize = 2_048;
const PAGE_BYTES_MAX: usize = 256 * 1024;

/// A written file.
pub(crate) struct Written {
    pub(crate) bytes: Vec<u8>,
    pub(crate) statistics: FileStatistics,
}

/// Writes the rows of one partition as a Parquet file.
pub(crate) fn write(table: &'static Table, rows: PartitionRows) -> Result<Written, Error> {
    let schema = Arc::new(table.file_schema());
    let batch = RecordBatch::try_new(schema.clone(), rows.finish())?;
    let batch = sorted(table, batch)?;
    let statistics = statistics(table, &batch);
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties(table, batch.num_rows())))?;
    writer.write(&batch)?;
    Ok(Written { bytes: writer.into_inner()?, statistics })
}

fn properties(table: &Table, rows: usize) -> WriterProperties {
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS_MAX))
        .set_data_page_row_count_limit(PAGE_ROWS_MAX)
        .set_data_page_size_limit(PAGE_BYTES_MAX)
        .set_bloom_filter_max_ndv(rows.clamp(1, ROW_GROUP_ROWS_MAX) as u64);
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

/// By the table's column and then by id, so that equal rows make equal files whatever order they came in.
fn sorted(table: &Table, batch: RecordBatch) -> Result<RecordBatch, Error> {
    let by = [table.sorted_by, "id"].into_iter().filter_map(|name| batch.column_by_name(name));
    let by: Vec<SortColumn> = by.map(|values| SortColumn { values: values.clone(), options: None }).collect();
    if by.is_empty() {
        return Ok(batch);
    }
    Ok(take_record_batch(&batch, &lexsort_to_indices(&by, None)?)?)
}

fn statistics(table: &Table, batch: &RecordBatch) -> FileStatistics {
    let mut statistics = FileStatistics { num_records: batch.num_rows() as u64, ..FileStatistics::default() };
    for name in table.statistics {
        let times = batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
        let Some(times) = times else { continue };
        let (Some(least), Some(greatest)) = (min(times), max(times)) else { continue };
        // The protocol allows milliseconds here; the upper bound is rounded up so that it stays one.
        let text = |micros: i64| {
            let time = DateTime::from_timestamp_micros(micros).unwrap_or_default();
            serde_json::Value::from(time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
        };
        statistics.min_values.insert((*name).to_owned(), text(least));
        statistics.max_values.insert((*name).to_owned(), text(greatest.saturating_add(999)));
    }
    statistics
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
