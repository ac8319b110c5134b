//! A Delta table as DataFusion reads it: the files of one snapshot, with the values that live in their paths.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use chrono::{DateTime, NaiveDate, Utc};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, Statistics, ToDFSchema};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::scalar::ScalarValue;

use crate::delta::{Add, DeltaTable, FileStatistics};
use crate::table::{Kind, Table};

/// The name under which a session knows the archive's store.
pub(super) static ARCHIVE_URL: LazyLock<ObjectStoreUrl> =
    LazyLock::new(|| match ObjectStoreUrl::parse("archive://files") {
        Ok(url) => url,
        // The text is a constant and a valid URL.
        Err(_) => ObjectStoreUrl::local_filesystem(),
    });

/// One snapshot of one table.
#[derive(Debug)]
pub(super) struct DeltaProvider {
    table: &'static Table,
    files: Vec<PartitionedFile>,
    schema: SchemaRef,
    /// File columns, then partition columns: how the reader orders them.
    stored: TableSchema,
}

impl DeltaProvider {
    pub(super) fn new(delta: &DeltaTable) -> DeltaProvider {
        let table = delta.table();
        let file_schema = Arc::new(table.file_schema());
        let columns = table.columns();
        let partition_fields = table.partition_columns.iter().filter_map(|&name| {
            columns.iter().find(|column| column.name == name).map(|column| Arc::new(column.field()))
        });
        let stored = TableSchema::builder(file_schema.clone())
            .with_table_partition_cols(partition_fields.collect::<Vec<_>>())
            .build();
        let files = delta.snapshot().files.values().map(|add| file(delta, &file_schema, add)).collect();
        DeltaProvider { table, files, schema: Arc::new(table.schema()), stored }
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

#[async_trait]
impl TableProvider for DeltaProvider {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // The reader skips files, row groups and pages; the filter itself is applied again above it.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut source =
            ParquetSource::new(self.stored.clone()).with_table_parquet_options(state.table_options().parquet.clone());
        if let Some(filter) = conjunction(filters.to_vec()) {
            let schema = self.stored.table_schema().clone().to_dfschema()?;
            source = source.with_predicate(state.create_physical_expr(filter, &schema)?);
        }
        let groups = groups(&self.files, state.config().target_partitions());
        let config = FileScanConfigBuilder::new(ARCHIVE_URL.clone(), Arc::new(source))
            .with_file_groups(groups)
            .with_projection_indices(Some(self.stored_positions(projection)?))?
            .with_limit(limit)
            .build();
        tracing::debug!(event = "archive_scan", table = self.table.name, files = self.files.len());
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
