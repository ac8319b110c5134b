//! SQL over the archive, read-only, also while another process writes.
//!
//! Each query sees the tables as of its start: a snapshot of every Delta log. Statements that change anything are
//! refused by the planner's own options, not by looking at the text.

mod expanding;
mod footers;
mod functions;
mod limits;
pub mod named;
pub mod output;
pub mod postgres;
mod provider;
pub mod records;
mod skip;
mod tables;
mod texts;
mod yielding;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use chrono::{DateTime, Utc};
use datafusion::dataframe::DataFrame;
use datafusion::error::DataFusionError;
use datafusion::execution::cache::default_cache::DefaultCache;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SendableRecordBatchStream, SessionStateBuilder};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::{SQLOptions, SessionConfig, SessionContext};
use datafusion::scalar::ScalarValue;
use futures::future::BoxFuture;
use futures::{FutureExt, stream};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::error::Error;
use crate::retention::Kept as Retained;
use crate::store::Store;
use crate::table::{TABLES, Table};
pub use limits::Limits;
use limits::{Depth, OPERATORS_MAX, PLANNING_STACK_BYTES, QUERY_BYTES_MAX, RELATIONS_MAX, bounded, depth, too_long};
use named::{NamedQuery, ParameterError};
use provider::{ARCHIVE_URL, Reading};
use skip::Filters;
use tables::{Kept, Snapshots};
use texts::as_text;
use yielding::Yielding;

/// The rows of an answer, as they come.
pub type Rows = SendableRecordBatchStream;

/// How much of files' footers, with the indexes of their pages, is kept between questions; the longest unused leave first. In
/// the file of a day of `events` with two hundred thousand records they take some 400 KiB.
const FOOTER_BYTES_MAX: usize = 256 * 1024 * 1024;

/// What is read from the end of a file, to have its footer at once. Footers of ours have some 10 KiB.
const FOOTER_READ_BYTES: usize = 64 * 1024;

/// SQL over one archive. Clones share what they keep of its files.
#[derive(Clone, Debug)]
pub struct Sql {
    store: Store,
    limits: Limits,
    reading: Reading,
    kept: Arc<Kept>,
}

/// A record as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawRecord {
    pub tenant: String,
    pub sha256: String,
    pub bytes: Vec<u8>,
}

/// Why a query gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    #[error(transparent)]
    Archive(#[from] Error),
    #[error("the query has {bytes} bytes: at most {QUERY_BYTES_MAX} are read")]
    TooLong { bytes: usize },
    #[error(
        "the query has {operators} operators and {relations} tables and subqueries; at most {OPERATORS_MAX} and \
         {RELATIONS_MAX} are planned: write many values as IN (...)"
    )]
    TooDeep { operators: usize, relations: usize },
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// What the planner or the engine says: usually a mistake in the query.
    #[error("{}", plain(.0))]
    Query(Box<DataFusionError>),
}

impl From<DataFusionError> for QueryError {
    fn from(error: DataFusionError) -> QueryError {
        match error {
            // Ours, on its way through the engine.
            DataFusionError::External(error) => match error.downcast::<Error>() {
                Ok(error) => QueryError::Archive(*error),
                Err(error) => QueryError::Query(Box::new(DataFusionError::External(error))),
            },
            error => QueryError::Query(Box::new(error)),
        }
    }
}

/// DataFusion's message without its layers of context.
fn plain(error: &DataFusionError) -> String {
    error.find_root().strip_backtrace()
}

impl Sql {
    /// Over an archive wherever it lies.
    pub fn over(store: Store) -> Sql {
        let footers = Arc::new(DefaultCache::new(FOOTER_BYTES_MAX));
        let reading = Reading { footers, filters: Arc::new(Filters::default()), leaves_nothing_out: false };
        Sql { store, limits: Limits::default(), reading, kept: Arc::new(Kept::new()) }
    }

    /// Every file is read for every question: what answers are compared with, to see that nothing is left out that
    /// belongs to them.
    pub fn leaving_nothing_out(self) -> Sql {
        let reading = Reading { leaves_nothing_out: true, ..self.reading };
        Sql { reading, kept: Arc::new(Kept::new()), ..self }
    }

    /// Queries may take so much.
    pub fn with_limits(self, limits: Limits) -> Sql {
        Sql { limits, ..self }
    }

    /// What queries may take.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// From which day on records are kept, where older ones were past their time.
    pub async fn retained(&self) -> Result<Vec<Retained>, QueryError> {
        Ok(crate::retention::kept(&self.store).await?)
    }

    /// Runs one query and returns its rows as they come.
    pub async fn query(&self, text: &str) -> Result<Rows, QueryError> {
        if let Some(table) = described(text) {
            return Ok(describe(table).map_err(DataFusionError::from)?);
        }
        self.begin(text, Vec::new()).await
    }

    /// Asks a named query. `moment` reads the times among the parameters.
    pub async fn ask(
        &self,
        query: &'static NamedQuery,
        given: &[(String, String)],
        moment: impl Fn(&str) -> Result<DateTime<Utc>, String>,
    ) -> Result<Rows, QueryError> {
        let (sql, values) = (self.clone(), named::values(given, moment)?);
        self.run(async move { Ok(query.plan(&sql.context_of_all().await?, &values).await?) }.boxed()).await
    }

    /// The same, collected: for queries whose answers are known to be small.
    pub async fn collect(&self, text: &str) -> Result<Vec<RecordBatch>, QueryError> {
        Ok(datafusion::physical_plan::common::collect(self.query(text).await?).await?)
    }

    /// Rows as lines of JSON, with named parameters (`$name`), which are text values and never part of the query.
    pub async fn query_ndjson(&self, text: &str, parameters: &[(&str, &str)]) -> Result<Vec<u8>, QueryError> {
        let rows = self.begin(text, values(parameters)).await?;
        let mut writer = arrow::json::LineDelimitedWriter::new(Vec::new());
        for batch in datafusion::physical_plan::common::collect(rows).await? {
            writer.write(&batch).map_err(DataFusionError::from)?;
        }
        writer.finish().map_err(DataFusionError::from)?;
        Ok(writer.into_inner())
    }

    /// The records of that id, each with its bytes as received: more than one, if an id came with different contents or
    /// in several tenants.
    pub async fn raw(&self, id: &str, tenant: Option<&str>) -> Result<Vec<RawRecord>, QueryError> {
        let text = "SELECT tenant, raw FROM events WHERE id = $id AND ($tenant = '' OR tenant = $tenant) ORDER BY 1, 2";
        let rows = self.begin(text, values(&[("id", id), ("tenant", tenant.unwrap_or_default())])).await?;
        let mut records = Vec::new();
        for batch in datafusion::physical_plan::common::collect(rows).await? {
            let (tenants, raws) = (records::texts(&batch, "tenant")?, records::texts(&batch, "raw")?);
            for row in 0..batch.num_rows() {
                let bytes = raws.value(row).as_bytes().to_vec();
                let sha256 = crate::delta::statement::sha256(&bytes);
                records.push(RawRecord { tenant: tenants.value(row).to_owned(), sha256, bytes });
            }
        }
        Ok(records)
    }

    /// Plans a query and begins it, on a thread whose stack is large: planning goes as deep as the query does.
    async fn begin(&self, text: &str, values: Vec<(String, ScalarValue)>) -> Result<Rows, QueryError> {
        let (sql, text) = (self.clone(), text.to_owned());
        let planning = async move {
            let plan = sql.plan(&text).await?;
            Ok(if values.is_empty() { plan } else { plan.with_param_values(values)? })
        };
        self.run(planning.boxed()).await
    }

    async fn run(&self, plan: BoxFuture<'static, Result<DataFrame, QueryError>>) -> Result<Rows, QueryError> {
        let (asked, limits) = (Instant::now(), self.limits);
        let planning = async move {
            // A plan may rest on answers that are found first.
            let planning = async { Ok::<_, QueryError>(plan.await?.execute_stream().await?) };
            timeout_at(asked + limits.time, planning).await.map_err(|_| too_long(limits.time))?
        };
        let planning = planning.boxed();
        Ok(as_text(bounded(self.on_a_deep_stack(planning).await??, limits, asked)))
    }

    /// Carries out what goes as deep as a query does. It ends when nobody waits for it any more. What plans a query is as
    /// large as it is deep, so it comes in a box: those who wait have small stacks.
    async fn on_a_deep_stack<T: Send + 'static>(&self, work: BoxFuture<'static, T>) -> Result<T, QueryError> {
        let runtime = Handle::current();
        let (mut send, receive) = oneshot::channel();
        let thread = std::thread::Builder::new().name("plan".to_owned()).stack_size(PLANNING_STACK_BYTES);
        let spawned = thread.spawn(move || {
            let done = runtime.block_on(async {
                tokio::select! {
                    biased;
                    () = send.closed() => None,
                    done = work => Some(done),
                }
            });
            if let Some(done) = done {
                drop(send.send(done));
            }
        });
        spawned.map_err(|_| Error::Worker)?;
        Ok(receive.await.map_err(|_| Error::Worker)?)
    }

    async fn plan(&self, text: &str) -> Result<DataFrame, QueryError> {
        if text.len() > QUERY_BYTES_MAX {
            return Err(QueryError::TooLong { bytes: text.len() });
        }
        let Depth { operators, relations } = depth(text);
        if operators > OPERATORS_MAX || relations > RELATIONS_MAX {
            return Err(QueryError::TooDeep { operators, relations });
        }
        let (context, _) = self.context()?;
        let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        Ok(context.sql_with_options(text, options).await?)
    }

    /// For a question of several steps: all of them see the tables as of now.
    async fn context_of_all(&self) -> Result<SessionContext, QueryError> {
        let (context, snapshots) = self.context()?;
        snapshots.take_all().await?;
        Ok(context)
    }

    fn context(&self) -> Result<(SessionContext, Arc<Snapshots>), QueryError> {
        self.context_of(SessionConfig::new(), "datafusion")
    }

    /// A context of its own for each question, with its tables, in a database of this name.
    fn context_of(
        &self,
        config: SessionConfig,
        database: &str,
    ) -> Result<(SessionContext, Arc<Snapshots>), QueryError> {
        let mut config = config
            .with_information_schema(true)
            .with_create_default_catalog_and_schema(true)
            .with_default_catalog_and_schema(database, "public");
        let parquet = &mut config.options_mut().execution.parquet;
        // Whether filters are pushed down each scan says for itself.
        parquet.reorder_filters = true;
        parquet.bloom_filter_on_read = true;
        parquet.metadata_size_hint = Some(FOOTER_READ_BYTES);
        if self.reading.leaves_nothing_out {
            parquet.pruning = false;
            parquet.bloom_filter_on_read = false;
            parquet.enable_page_index = false;
        }
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(self.limits.memory_bytes)))
            .with_max_temp_directory_size(self.limits.spill_bytes)
            .build_arc()?;
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(runtime)
            .with_default_features()
            .with_physical_optimizer_rule(Arc::new(Yielding))
            .build();
        let context = SessionContext::new_with_state(state);
        context.register_object_store(ARCHIVE_URL.as_ref(), self.store.objects().clone());
        functions::register(&context);
        expanding::bound(&context);
        let snapshots = Arc::new(Snapshots::new(self.store.clone(), self.reading.clone(), self.kept.clone()));
        if let Some(catalog) = context.catalog(database) {
            catalog.register_schema("public", snapshots.clone())?;
        }
        Ok((context, snapshots))
    }
}

fn values(parameters: &[(&str, &str)]) -> Vec<(String, ScalarValue)> {
    parameters.iter().map(|&(name, value)| (name.to_owned(), ScalarValue::Utf8(Some(value.to_owned())))).collect()
}

/// The table of a `DESCRIBE table` statement, which we answer ourselves because it should say what the columns mean.
fn described(text: &str) -> Option<&'static Table> {
    let mut words = text.trim().trim_end_matches(';').split_whitespace();
    let verb = words.next()?;
    let name = words.next()?;
    let is_describe = verb.eq_ignore_ascii_case("describe") || verb.eq_ignore_ascii_case("desc");
    let table = TABLES.iter().find(|table| table.name.eq_ignore_ascii_case(name))?;
    (is_describe && words.next().is_none()).then_some(table)
}

fn describe(table: &Table) -> Result<SendableRecordBatchStream, arrow::error::ArrowError> {
    let columns = table.columns();
    let texts = |text: fn(&crate::table::Column) -> String| -> ArrayRef {
        Arc::new(columns.iter().map(|column| Some(text(column))).collect::<StringArray>())
    };
    let field = |name: &str| Field::new(name, DataType::Utf8, false);
    let schema = Arc::new(Schema::new(vec![field("column_name"), field("data_type"), field("description")]));
    let arrays = vec![texts(|c| c.name.to_owned()), texts(|c| c.kind.name().to_owned()), texts(|c| c.doc.to_owned())];
    let batch = RecordBatch::try_new(schema.clone(), arrays)?;
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream::iter([Ok(batch)]))))
}
