//! A Delta table as DataFusion reads it: the files of one snapshot, with the values that live in their paths.
//!
//! When a question is planned, files are left out that cannot have a row of the answer, before any of them is opened: by the
//! values in their paths and the times that their commits say, then by their Bloom filters ([`super::skip`]). The reader
//! does the same again with row groups and pages, and the filter itself is applied to every row that is left: what is left
//! out here is time, never a row.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use chrono::{DateTime, NaiveDate, Utc};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::pruning::PrunableStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, Statistics, ToDFSchema};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result;
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::scalar::ScalarValue;
use futures::{StreamExt, TryStreamExt, stream};

use super::footers::Footers;
use super::skip::{Condition, Filters};
use super::texts::as_views;
use crate::delta::{Add, DeltaTable, FileStatistics};
use crate::table::{Kind, Table};

/// The name under which a session knows the archive's store.
pub(super) static ARCHIVE_URL: LazyLock<ObjectStoreUrl> =
    LazyLock::new(|| match ObjectStoreUrl::parse("archive://files") {
        Ok(url) => url,
        // The text is a constant and a valid URL.
        Err(_) => ObjectStoreUrl::local_filesystem(),
    });

/// Files whose filters are read at once, when they are read for the first time: object stores answer in tens of milliseconds.
const FILES_READ_AT_ONCE: usize = 16;

/// What is kept of files between questions.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    /// What files say of themselves at their end. A file never changes, so that a question need not read it again.
    pub(super) footers: Arc<FileMetadataCache>,
    pub(super) filters: Arc<Filters>,
    /// Nothing is left out: what the tests compare with.
    pub(super) leaves_nothing_out: bool,
}

/// One snapshot of one table.
pub(super) struct DeltaProvider {
    table: &'static Table,
    files: Vec<PartitionedFile>,
    /// What paths and commits say of each file. As exact, though times are rounded outwards: this is only asked whether a value
    /// can be in a file, never what it is.
    bounds: PrunableStatistics,
    schema: SchemaRef,
    /// File columns, then partition columns: how the reader orders them.
    stored: TableSchema,
    /// Reads what is not among the kept footers, and puts it there.
    reader: Footers,
    reading: Reading,
}

impl std::fmt::Debug for DeltaProvider {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("DeltaProvider").field("table", &self.table.name).finish_non_exhaustive()
    }
}

impl DeltaProvider {
    pub(super) fn new(delta: &DeltaTable, reading: &Reading) -> DeltaProvider {
        let table = delta.table();
        let file_schema = Arc::new(as_views(&table.file_schema()));
        let columns = table.columns();
        let partition_fields = table.partition_columns.iter().filter_map(|&name| {
            columns.iter().find(|column| column.name == name).map(|column| Arc::new(column.field()))
        });
        let stored = TableSchema::builder(file_schema.clone())
            .with_table_partition_cols(partition_fields.collect::<Vec<_>>())
            .build();
        let files: Vec<_> = delta.snapshot().files.values().map(|add| file(delta, &file_schema, add)).collect();
        let bounds = files.iter().map(|file| Arc::new(bounds(file, stored.table_schema())));
        let bounds = PrunableStatistics::new(bounds.collect(), stored.table_schema().clone());
        let plain = CachedParquetFileReaderFactory::new(delta.store().objects().clone(), reading.footers.clone());
        let reader = Footers { plain: Arc::new(plain) };
        let stored_schema = stored.table_schema();
        let columns = columns.iter().filter_map(|column| stored_schema.field_with_name(column.name).ok().cloned());
        let schema = Arc::new(Schema::new(columns.collect::<Vec<_>>()));
        DeltaProvider { table, files, bounds, schema, stored, reader, reading: reading.clone() }
    }

    /// The files that may have rows which meet the condition; what it was made from is given as a predicate too.
    async fn files(
        &self,
        condition: &Condition,
        predicate: Option<&Arc<dyn PhysicalExpr>>,
    ) -> Result<Vec<PartitionedFile>> {
        let may_hold = predicate.and_then(|predicate| {
            let pruning = PruningPredicateBuilder::new().with_file_schema(self.stored.table_schema().clone());
            // What cannot be asked of bounds is answered by the rows.
            pruning.try_build(predicate.clone()).ok()?.prune(&self.bounds).ok()
        });
        let may_hold = may_hold.unwrap_or_else(|| vec![true; self.files.len()]);
        let files: Vec<PartitionedFile> =
            self.files.iter().zip(may_hold).filter(|(_, may_hold)| *may_hold).map(|(file, _)| file.clone()).collect();
        if *condition == Condition::Unknown {
            return Ok(files);
        }
        let asked = stream::iter(files).map(|file| self.reading.filters.left_of(condition, file, &*self.reader.plain));
        asked.buffered(FILES_READ_AT_ONCE).try_filter_map(|file| async { Ok(file) }).try_collect().await
    }

    /// Whether columns of files are asked for that the filters do not look at.
    fn reads_more(&self, projection: Option<&Vec<usize>>, filters: &[Expr]) -> bool {
        let looked_at =
            |name: &str| filters.iter().any(|filter| filter.column_refs().iter().any(|of| of.name() == name));
        let all = self.schema.fields().iter().enumerate();
        let mut asked = all.filter(|(at, _)| projection.is_none_or(|projection| projection.contains(at)));
        asked.any(|(_, field)| !self.table.is_partition(field.name()) && !looked_at(field.name()))
    }

    /// Positions in the reader's order of the columns asked for in ours.
    fn stored_positions(&self, projection: Option<&Vec<usize>>) -> Result<Vec<usize>> {
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let wanted = projection.unwrap_or(&all);
        wanted
            .iter()
            .map(|&position| Ok(self.stored.table_schema().index_of(self.schema.field(position).name())?))
            .collect()
    }
}

fn file(delta: &DeltaTable, file_schema: &Schema, add: &Add) -> PartitionedFile {
    let table = delta.table();
    let columns = table.columns();
    let mut file = PartitionedFile::new(delta.location(&add.path).to_string(), add.size);
    file.partition_values = table
        .partition_columns
        .iter()
        .map(|&name| {
            let text = add.partition_values.get(name).cloned().flatten();
            let is_date = columns.iter().any(|column| column.name == name && column.kind == Kind::Date);
            if !is_date {
                return ScalarValue::Utf8(text);
            }
            let day = text.and_then(|text| text.parse::<NaiveDate>().ok());
            ScalarValue::Date32(day.and_then(|day| i32::try_from((day - NaiveDate::default()).num_days()).ok()))
        })
        .collect();
    file.with_statistics(Arc::new(statistics(file_schema, add)))
}

/// What the commit says of the file, so that files outside a question's time are never opened.
fn statistics(file_schema: &Schema, add: &Add) -> Statistics {
    let mut statistics = Statistics::new_unknown(file_schema);
    let Some(known) = add.stats.as_deref().and_then(|text| serde_json::from_str::<FileStatistics>(text).ok()) else {
        return statistics;
    };
    statistics.num_rows = Precision::Exact(known.num_records as usize);
    for (position, field) in file_schema.fields().iter().enumerate() {
        let bound = |values: &std::collections::BTreeMap<String, serde_json::Value>| {
            let time: DateTime<Utc> = values.get(field.name())?.as_str()?.parse().ok()?;
            Some(Precision::Inexact(ScalarValue::TimestampMicrosecond(
                Some(time.timestamp_micros()),
                Some("UTC".into()),
            )))
        };
        if let (Some(min_value), Some(max_value)) = (bound(&known.min_values), bound(&known.max_values)) {
            statistics.column_statistics[position] =
                ColumnStatistics { min_value, max_value, ..ColumnStatistics::new_unknown() };
        }
    }
    statistics
}

/// The same with the values of the path, over all columns of the table.
fn bounds(file: &PartitionedFile, schema: &Schema) -> Statistics {
    let mut bounds = Statistics::new_unknown(schema);
    let known = file.statistics.iter().flat_map(|statistics| &statistics.column_statistics);
    for (bound, known) in bounds.column_statistics.iter_mut().zip(known) {
        bound.min_value = exact(&known.min_value);
        bound.max_value = exact(&known.max_value);
    }
    let first = schema.fields().len() - file.partition_values.len();
    for (bound, value) in bounds.column_statistics[first..].iter_mut().zip(&file.partition_values) {
        if !value.is_null() {
            bound.min_value = Precision::Exact(value.clone());
            bound.max_value = Precision::Exact(value.clone());
        }
    }
    bounds
}

fn exact(value: &Precision<ScalarValue>) -> Precision<ScalarValue> {
    value.get_value().map_or(Precision::Absent, |value| Precision::Exact(value.clone()))
}

#[async_trait]
impl TableProvider for DeltaProvider {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // Left out here are files; the filter itself is the optimizer's, which gives it to the reader or applies it above.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let filters = if self.reading.leaves_nothing_out { &[] } else { filters };
        let condition = Condition::of(self.table, filters);
        let mut options = state.table_options().parquet.clone();
        // What the filters know is in the plan then. A join may bring values that only come while it runs: for them the
        // reader looks itself.
        options.global.bloom_filter_on_read &= condition == Condition::Unknown;
        // The reader applies the filter before it reads the rest of a row, which is worth an order of magnitude for
        // questions about one user; where there is no rest, the columns are only gone through twice.
        options.global.pushdown_filters = !self.reading.leaves_nothing_out && self.reads_more(projection, filters);
        // The optimizer tells it the filter. Told here as well, it would apply it twice.
        let source = ParquetSource::new(self.stored.clone())
            .with_table_parquet_options(options)
            .with_parquet_file_reader_factory(Arc::new(self.reader.clone()));
        let mut predicate = None;
        if let Some(filter) = conjunction(filters.to_vec()) {
            let schema = self.stored.table_schema().clone().to_dfschema()?;
            predicate = Some(state.create_physical_expr(filter, &schema)?);
        }
        let files = self.files(&condition, predicate.as_ref()).await?;
        let groups = groups(&files, state.config().target_partitions());
        let config = FileScanConfigBuilder::new(ARCHIVE_URL.clone(), Arc::new(source))
            .with_file_groups(groups)
            .with_projection_indices(Some(self.stored_positions(projection)?))?
            .with_limit(limit)
            .build();
        tracing::debug!(event = "archive_scan", table = self.table.name, files = files.len(), of = self.files.len());
        Ok(DataSourceExec::from_data_source(config))
    }
}

/// Files dealt to the threads in turn: neighbours in time go to different ones.
fn groups(files: &[PartitionedFile], threads: usize) -> Vec<FileGroup> {
    let count = threads.clamp(1, files.len().max(1));
    let mut groups: Vec<Vec<PartitionedFile>> = vec![Vec::new(); count];
    for (index, file) in files.iter().enumerate() {
        groups[index % count].push(file.clone());
    }
    groups.into_iter().map(FileGroup::new).collect()
}
