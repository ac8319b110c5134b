//! Rows to Parquet files, one for each partition of a table, and the few columns the archiver reads back.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::compute::{SortColumn, lexsort_to_indices, max, min, take_record_batch};
use arrow::datatypes::TimestampMicrosecondType;
use chrono::{DateTime, Utc};
use object_store::{ObjectStoreExt, PutPayload};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::{ParquetMetaData, SortingColumn};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use ring::digest::{SHA256, digest};

use crate::content::Content;
use crate::delta::{Add, CONTENT_TAG, DeltaTable, FileStatistics, SHA256_TAG};
use crate::error::Error;
use crate::rows::PartitionRows;
use crate::table::{Column, Kind, Table};

/// Rows of a row group: large enough to compress, small enough that a point question reads little.
const ROW_GROUP_ROWS_MAX: usize = 131_072;

/// How hard files that stay are compressed: above 3, five per cent less costs four times the time.
const COMPACTED_ZSTD_LEVEL: i32 = 3;

/// Pages of 2,048 rows or 256 KiB: a look-up of one user with `raw` reads a page, not a row group. Costs 4 % of size.
const PAGE_ROWS_MAX: usize = 2_048;
const PAGE_BYTES_MAX: usize = 256 * 1024;

/// How often a Bloom filter takes a value for one that is there: of ninety days' files one is opened for nothing, for one
/// or two bytes a value.
const BLOOM_FILTER_ERRORS: f64 = 0.01;

/// A written file.
pub(crate) struct Written {
    pub(crate) bytes: Vec<u8>,
    pub(crate) statistics: FileStatistics,
    pub(crate) content: Content,
}

/// Writes the rows of one partition as a Parquet file.
pub(crate) fn write(table: &'static Table, rows: PartitionRows) -> Result<Written, Error> {
    let batch = RecordBatch::try_new(Arc::new(table.file_schema()), rows.finish())?;
    let batch = sorted(table, batch)?;
    let mut writer = FileWriter::new(table, batch.num_rows() as u64, false)?;
    writer.write(&batch)?;
    writer.finish()
}

/// A Parquet file that grows by rows in the table's order.
pub(crate) struct FileWriter {
    writer: ArrowWriter<Vec<u8>>,
    ranges: Vec<(&'static str, Option<(i64, i64)>)>,
    content: Content,
}

impl FileWriter {
    /// `is_to_stay`: compressed with more care, because it is written once and read for years.
    pub(crate) fn new(table: &'static Table, rows: u64, is_to_stay: bool) -> Result<FileWriter, Error> {
        let writer =
            ArrowWriter::try_new(Vec::new(), Arc::new(table.file_schema()), Some(properties(table, rows, is_to_stay)))?;
        let ranges = table.statistics.iter().map(|&name| (name, None)).collect();
        Ok(FileWriter { writer, ranges, content: Content::default() })
    }

    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        self.content.add_batch(batch)?;
        for (name, range) in &mut self.ranges {
            let Some(times) = time_column(batch, name) else { continue };
            let (Some(least), Some(greatest)) = (min(times), max(times)) else { continue };
            let (known_least, known_greatest) = range.unwrap_or((least, greatest));
            *range = Some((least.min(known_least), greatest.max(known_greatest)));
        }
        Ok(self.writer.write(batch)?)
    }

    pub(crate) fn finish(self) -> Result<Written, Error> {
        let mut statistics = FileStatistics { num_records: self.content.rows, ..FileStatistics::default() };
        // The protocol allows milliseconds here; the upper bound is rounded up so that it stays one.
        let text = |micros: i64| {
            let time = DateTime::from_timestamp_micros(micros).unwrap_or_default();
            serde_json::Value::from(time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
        };
        for (name, range) in self.ranges {
            let Some((least, greatest)) = range else { continue };
            statistics.min_values.insert(name.to_owned(), text(least));
            statistics.max_values.insert(name.to_owned(), text(greatest.saturating_add(999)));
        }
        Ok(Written { bytes: self.writer.into_inner()?, statistics, content: self.content })
    }
}

/// Stores a file in its partition's folder. Its name follows from `name` and from its bytes: done again after a crash it
/// is the same file again, and never another under the name of one that a commit has named.
pub(crate) async fn put(
    delta: &DeltaTable,
    prefix: &str,
    name: &str,
    partition_values: BTreeMap<String, Option<String>>,
    written: Written,
    now: DateTime<Utc>,
) -> Result<Add, Error> {
    let sha256 = hex(digest(&SHA256, &written.bytes).as_ref());
    let file = format!("{prefix}-{}.parquet", schemas::json::key_id(&[name, &sha256]));
    // Values are a tenant's name, whose alphabet is closed, and a date: never text of a record.
    let folder = delta.table().partition_columns.iter().map(|&column| {
        let value = partition_values.get(column).and_then(Option::as_deref).unwrap_or_default();
        format!("{column}={value}")
    });
    let path = folder.chain([file]).collect::<Vec<_>>().join("/");
    let size = written.bytes.len() as u64;
    delta.store().objects().put(&delta.location(&path), PutPayload::from(written.bytes)).await?;
    let tags = [(SHA256_TAG.to_owned(), sha256), (CONTENT_TAG.to_owned(), written.content.to_text())];
    Ok(Add {
        path,
        partition_values,
        size,
        modification_time: now.timestamp_millis(),
        data_change: true,
        stats: Some(serde_json::to_string(&written.statistics)?),
        tags: Some(tags.into()),
    })
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn properties(table: &Table, rows: u64, is_to_stay: bool) -> WriterProperties {
    let level =
        if is_to_stay { ZstdLevel::try_new(COMPACTED_ZSTD_LEVEL).unwrap_or_default() } else { ZstdLevel::default() };
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_sorting_columns(Some(sorting_columns(table)))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS_MAX))
        .set_data_page_row_count_limit(PAGE_ROWS_MAX)
        .set_data_page_size_limit(PAGE_BYTES_MAX)
        .set_bloom_filter_fpp(BLOOM_FILTER_ERRORS)
        .set_bloom_filter_max_ndv(rows.clamp(1, ROW_GROUP_ROWS_MAX as u64));
    for column in table.columns() {
        if table.bloom_filters.contains(&column.name) {
            builder = builder.set_column_bloom_filter_enabled(leaf(&column), true);
        }
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

/// Where a column's values lie in a file.
fn leaf(column: &Column) -> ColumnPath {
    match column.kind {
        Kind::TextList => ColumnPath::new([column.name, "list", "element"].map(str::to_owned).to_vec()),
        _ => ColumnPath::from(column.name),
    }
}

/// Rows in the table's order.
pub(crate) fn sorted(table: &Table, batch: RecordBatch) -> Result<RecordBatch, Error> {
    let by = table.sorted_by.iter().filter_map(|name| batch.column_by_name(name));
    let by: Vec<SortColumn> = by.map(|values| SortColumn { values: values.clone(), options: None }).collect();
    Ok(take_record_batch(&batch, &lexsort_to_indices(&by, None)?)?)
}

/// The table's order as a file says it: least first, and before it what has no value.
fn sorting_columns(table: &Table) -> Vec<SortingColumn> {
    let schema = table.file_schema();
    let positions = table.sorted_by.iter().filter_map(|name| schema.index_of(name).ok());
    positions
        .map(|position| SortingColumn {
            column_idx: i32::try_from(position).unwrap_or(i32::MAX),
            descending: false,
            nulls_first: true,
        })
        .collect()
}

/// Whether a file says that its rows are in the table's order, whichever columns it has.
pub(crate) fn is_sorted(table: &Table, metadata: &ParquetMetaData) -> bool {
    let columns = metadata.file_metadata().schema_descr();
    metadata.row_groups().iter().all(|group| {
        let said = group.sorting_columns().map(|said| {
            let name = |by: &SortingColumn| {
                let root = columns.get_column_root(usize::try_from(by.column_idx).ok()?);
                (!by.descending && by.nulls_first).then(|| root.name())
            };
            said.iter().map(name).collect::<Option<Vec<&str>>>()
        });
        said.flatten().is_some_and(|said| said == table.sorted_by)
    })
}

/// The columns of these names that are text; nothing for one that the file does not have.
pub(crate) fn text_columns<'b, const N: usize>(
    batch: &'b RecordBatch,
    names: [&str; N],
) -> [Option<&'b StringArray>; N] {
    names.map(|name| batch.column_by_name(name).and_then(|column| column.as_any().downcast_ref()))
}

/// The column of that name, if it holds moments.
pub(crate) fn time_column<'b>(
    batch: &'b RecordBatch,
    name: &str,
) -> Option<&'b arrow::array::PrimitiveArray<TimestampMicrosecondType>> {
    batch.column_by_name(name)?.as_primitive_opt()
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
            let columns = text_columns(&batch, names);
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
