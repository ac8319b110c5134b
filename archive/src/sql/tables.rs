//! The tables that a question names, as of its start.
//!
//! Only the Delta logs of the tables that are named are read. What was read is kept for the next question of this process,
//! which then reads only the commits that came since. Within one question a table has one snapshot, however often it is
//! named; questions of several steps take the snapshots of all tables before the first.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{MemorySchemaProvider, SchemaProvider, TableProvider};
use datafusion::datasource::TableType;
use datafusion::error::{DataFusionError, Result};
use futures::future::try_join_all;
use tokio::sync::{Mutex, OnceCell};

use super::provider::{DeltaProvider, Reading};
use crate::delta::DeltaTable;
use crate::error::Error;
use crate::store::Store;
use crate::table::{TABLES, Table};

/// Tables as they were last read, shared by all questions of one [`super::Sql`].
#[derive(Default)]
pub(super) struct Kept {
    tables: HashMap<&'static str, Mutex<Option<Opened>>>,
}

struct Opened {
    delta: DeltaTable,
    provider: Arc<DeltaProvider>,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Kept").finish_non_exhaustive()
    }
}

impl Kept {
    pub(super) fn new() -> Kept {
        Kept { tables: TABLES.iter().map(|table| (table.name, Mutex::new(None))).collect() }
    }

    /// The table at its newest version.
    async fn newest(
        &self,
        store: &Store,
        table: &'static Table,
        reading: &Reading,
    ) -> Result<Arc<DeltaProvider>, Error> {
        let Some(slot) = self.tables.get(table.name) else { return Err(Error::Worker) };
        let mut slot = slot.lock().await;
        // Taken out, so that one that fails or is given up half way is opened anew.
        let opened = match slot.take() {
            Some(Opened { mut delta, provider }) => {
                let before = delta.snapshot().version;
                delta.refresh().await?;
                let is_same = before.is_some() && delta.snapshot().version == before;
                let provider = if is_same { provider } else { Arc::new(DeltaProvider::new(&delta, reading)) };
                Opened { delta, provider }
            }
            None => {
                let delta = DeltaTable::open(store.clone(), table).await?;
                let provider = Arc::new(DeltaProvider::new(&delta, reading));
                Opened { delta, provider }
            }
        };
        let provider = opened.provider.clone();
        *slot = Some(opened);
        Ok(provider)
    }
}

/// The tables of one question: those of the archive, and those that its earlier steps have found.
pub(super) struct Snapshots {
    store: Store,
    reading: Reading,
    kept: Arc<Kept>,
    taken: HashMap<&'static str, OnceCell<Arc<DeltaProvider>>>,
    found: MemorySchemaProvider,
}

impl std::fmt::Debug for Snapshots {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Snapshots").finish_non_exhaustive()
    }
}

impl Snapshots {
    pub(super) fn new(store: Store, reading: Reading, kept: Arc<Kept>) -> Snapshots {
        let taken = TABLES.iter().map(|table| (table.name, OnceCell::new())).collect();
        Snapshots { store, reading, kept, taken, found: MemorySchemaProvider::new() }
    }

    /// Takes the snapshots of all tables now, rather than when each is first named.
    pub(super) async fn take_all(&self) -> Result<(), Error> {
        try_join_all(TABLES.iter().map(|table| self.taken(table))).await.map(drop)
    }

    async fn taken(&self, table: &'static Table) -> Result<Arc<DeltaProvider>, Error> {
        let Some(cell) = self.taken.get(table.name) else { return Err(Error::Worker) };
        let taking = || self.kept.newest(&self.store, table, &self.reading);
        cell.get_or_try_init(taking).await.cloned()
    }
}

fn find(name: &str) -> Option<&'static Table> {
    TABLES.iter().copied().find(|table| table.name == name)
}

#[async_trait]
impl SchemaProvider for Snapshots {
    fn table_names(&self) -> Vec<String> {
        let names = TABLES.iter().map(|table| table.name.to_owned());
        names.chain(self.found.table_names()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some(table) = find(name) else { return self.found.table(name).await };
        let provider = self.taken(table).await.map_err(|error| DataFusionError::External(Box::new(error)))?;
        Ok(Some(provider))
    }

    /// Without reading a log: a list of tables should cost nothing.
    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        match find(name) {
            Some(_) => Ok(Some(TableType::Base)),
            None => self.found.table_type(name).await,
        }
    }

    fn register_table(&self, name: String, table: Arc<dyn TableProvider>) -> Result<Option<Arc<dyn TableProvider>>> {
        if find(&name).is_some() {
            return Err(DataFusionError::Plan(format!("{name} is a table of the archive")));
        }
        self.found.register_table(name, table)
    }

    fn table_exist(&self, name: &str) -> bool {
        find(name).is_some() || self.found.table_exist(name)
    }
}
