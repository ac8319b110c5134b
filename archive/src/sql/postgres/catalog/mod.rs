//! `pg_catalog`, as far as clients ask it before they show anything: psql's `\d`, `\dt`, `\l`, JDBC, psycopg, pgx.
//!
//! It is made of the list of tables and nothing else: asking it opens no file and reads no log. What an archive does not
//! have (indexes, constraints, triggers, ...) are tables without rows, and queries that could only find rows in those are
//! answered so by [`rewrite`], without asking the engine for what it cannot plan.
//!
//! The crate `datafusion-pg-catalog` is not used: it takes the engine with all of its default features, which compiles
//! compression and file formats into harrier that nothing here reads.

mod empty;
mod functions;
pub(super) mod rewrite;
mod tables;

use std::sync::Arc;

use arrow::datatypes::Schema;
use async_trait::async_trait;
use datafusion::catalog::{MemTable, SchemaProvider, TableProvider};
use datafusion::error::{DataFusionError, Result};
use datafusion::prelude::SessionContext;

use super::Session;

/// The database that clients see.
pub(super) const DATABASE: &str = "harrier";

/// The name of the schema.
pub(super) const SCHEMA: &str = "pg_catalog";

/// Who owns everything.
const OWNER: &str = "harrier";

/// Adds the schema and its functions to the context of one question.
pub(super) fn register(context: &SessionContext, session: &Arc<Session>) -> Result<()> {
    let missing = || DataFusionError::Internal("there is no catalog".to_owned());
    let schema = Arc::new(PgCatalog { session: session.clone() });
    context.catalog(DATABASE).ok_or_else(missing)?.register_schema(SCHEMA, schema)?;
    functions::register(context, session);
    Ok(())
}

/// Whether a table of this name is in the schema.
fn is_known(name: &str) -> bool {
    tables::RELATIONS.iter().any(|relation| relation.name == name) || empty::find(name).is_some()
}

#[derive(Debug)]
struct PgCatalog {
    session: Arc<Session>,
}

#[async_trait]
impl SchemaProvider for PgCatalog {
    fn table_names(&self) -> Vec<String> {
        let full = tables::RELATIONS.iter().map(|relation| relation.name);
        full.chain(empty::names()).map(ToOwned::to_owned).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let (schema, batches) = if let Some(relation) = tables::RELATIONS.iter().find(|known| known.name == name) {
            let batch = relation.batch(&self.session)?;
            (batch.schema(), vec![batch])
        } else if let Some(columns) = empty::find(name) {
            (Arc::new(Schema::new(tables::fields(columns))), Vec::new())
        } else {
            return Ok(None);
        };
        Ok(Some(Arc::new(MemTable::try_new(schema, vec![batches])?)))
    }

    fn table_exist(&self, name: &str) -> bool {
        is_known(name)
    }
}
