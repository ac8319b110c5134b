//! Small files into large ones, beside the writing.
//!
//! # The guarantee
//!
//! A compaction is one commit that takes files out and puts others in, and says that no row has changed. It is made only
//! after the new file has been read back from where it lies and holds the same rows, each as often, as the files it
//! stands for ([`crate::content`]). A reader sees the table before or after, never between. Killed at any moment, it
//! leaves at worst a file that no commit names, which vacuum takes. The files it replaces stay until vacuum takes them, a
//! day later, for readers of older snapshots.
//!
//! A file that cannot be merged is left as it is, and so is its partition, until the next start: it is said, counted, and
//! holds up nothing else.

mod merge;
mod plan;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::convert::Infallible;
use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use object_store::ObjectStoreExt;
use runtime::clock::Clock;
use runtime::metrics::Metrics;

use crate::delta::{Add, Changes, DeltaTable, Operation, Outcome};
use crate::error::Error;
use crate::file;
use crate::store::Store;
use crate::table::{TABLES, Table};
use merge::Merged;
pub(crate) use merge::{Reader, Source, content};
pub use plan::Plan;
use plan::{Candidate, choose};

/// How long to wait until tables are looked at again.
const ROUND_INTERVAL: Duration = Duration::from_secs(60);

/// Makes small files large.
pub struct Compactor {
    store: Store,
    clock: Clock,
    metrics: Arc<Metrics>,
    plan: Plan,
    round_interval: Duration,
}

/// What has been done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    pub merges: u64,
    pub files_before: u64,
    pub bytes_before: u64,
    pub bytes_after: u64,
    pub rows: u64,
    /// Partitions that could not be compacted.
    pub failures: u64,
}

impl AddAssign for Compacted {
    fn add_assign(&mut self, other: Compacted) {
        self.merges += other.merges;
        self.files_before += other.files_before;
        self.bytes_before += other.bytes_before;
        self.bytes_after += other.bytes_after;
        self.rows += other.rows;
        self.failures += other.failures;
    }
}

impl Compactor {
    pub fn new(store: Store, clock: Clock, metrics: Arc<Metrics>, plan: Plan) -> Compactor {
        Compactor { store, clock, metrics, plan, round_interval: ROUND_INTERVAL }
    }

    /// Looks at the tables more or less often.
    pub fn every(mut self, round_interval: Duration) -> Compactor {
        self.round_interval = round_interval;
        self
    }

    /// Compacts whenever it is due, until it is dropped.
    pub(crate) async fn run(&self) -> Infallible {
        let mut tables: Vec<Option<DeltaTable>> = TABLES.iter().map(|_| None).collect();
        let mut set_aside = HashSet::new();
        loop {
            tokio::time::sleep(self.round_interval).await;
            for (table, opened) in TABLES.iter().zip(&mut tables) {
                if let Err(error) = self.round(table, opened, &mut set_aside).await {
                    tracing::warn!(event = "archive_compaction_retry", table = table.name, error = %error);
                    self.metrics.archive.failures.with([table.name]).inc();
                    *opened = None;
                }
            }
        }
    }

    /// Compacts all that there is to compact, table by table.
    pub async fn all(&self) -> Result<Vec<(&'static Table, Compacted)>, Error> {
        let mut done = Vec::with_capacity(TABLES.len());
        for &table in TABLES {
            done.push((table, self.round(table, &mut None, &mut HashSet::new()).await?));
        }
        Ok(done)
    }

    /// Compacts every partition of a table in which it is due.
    async fn round(
        &self,
        table: &'static Table,
        opened: &mut Option<DeltaTable>,
        set_aside: &mut HashSet<String>,
    ) -> Result<Compacted, Error> {
        let delta = match opened {
            Some(delta) => {
                delta.refresh().await?;
                delta
            }
            None => opened.insert(DeltaTable::open(self.store.clone(), table).await?),
        };
        let mut done = Compacted::default();
        let folders: BTreeSet<String> = delta.snapshot().files.keys().map(|path| folder_of(path).to_owned()).collect();
        for folder in folders {
            let name = format!("{}/{folder}", table.name);
            if set_aside.contains(&name) {
                continue;
            }
            match self.partition(delta, &folder).await {
                Ok(compacted) => done += compacted,
                Err(error) if error.retryable() => return Err(error),
                Err(error) => {
                    tracing::error!(event = "archive_not_compacted", table = table.name, partition = folder, error = %error);
                    self.metrics.archive.failures.with([table.name]).inc();
                    set_aside.insert(name);
                    done.failures += 1;
                }
            }
        }
        Ok(done)
    }

    async fn partition(&self, delta: &mut DeltaTable, folder: &str) -> Result<Compacted, Error> {
        let mut done = Compacted::default();
        loop {
            let chosen: Vec<Add> = {
                let files = files_in(delta, folder);
                let candidates: Vec<Candidate<'_>> = files
                    .values()
                    .map(|add| Candidate { path: &add.path, bytes: add.size, modified: add.modification_time })
                    .collect();
                let chosen = choose(&candidates, self.plan, self.clock.now());
                chosen.iter().map(|file| files[file.path].clone()).collect()
            };
            if chosen.is_empty() {
                return Ok(done);
            }
            done += self.merge(delta, chosen).await?;
        }
    }

    /// Makes one file of these, and commits it if it holds the same.
    async fn merge(&self, delta: &mut DeltaTable, chosen: Vec<Add>) -> Result<Compacted, Error> {
        let table = delta.table();
        let Merged { written, content } = merged(delta, &chosen).await?;
        let paths: Vec<String> = chosen.iter().map(|add| add.path.clone()).collect();
        let name = schemas::json::key_id(&paths.iter().map(String::as_str).collect::<Vec<_>>());
        let partition = chosen.first().map(|add| add.partition_values.clone()).unwrap_or_default();
        let mut add = file::put(delta, "c", &name, partition, written, self.clock.now()).await?;
        add.data_change = false;
        // Not when it was merged but when its rows came: that is what tells whether a partition rests.
        add.modification_time = chosen.iter().map(|add| add.modification_time).max().unwrap_or(add.modification_time);
        // What counts is not what was meant to be written but what lies there.
        let stored = delta.store().objects().get(&delta.location(&add.path)).await?.bytes().await?;
        let stored = tokio::task::spawn_blocking(move || merge::content(stored)).await.map_err(|_| Error::Worker)??;
        if stored != content {
            return Err(Error::Unequal { path: add.path });
        }
        delta.store().make_durable(vec![delta.location(&add.path)]).await?;
        runtime::failpoint::reached_by("archive_compact_before_commit", table.name);
        let done = Compacted {
            merges: 1,
            files_before: chosen.len() as u64,
            bytes_before: chosen.iter().map(|add| add.size).sum(),
            bytes_after: add.size,
            rows: content.rows,
            failures: 0,
        };
        let changes = Changes { operation: Operation::Optimize, add: vec![add], remove: paths, ..Changes::default() };
        let outcome = delta.commit(changes, self.clock.now()).await?;
        runtime::failpoint::reached_by("archive_compact_after_commit", table.name);
        match outcome {
            Outcome::Committed => {
                tracing::info!(
                    event = "archive_compacted",
                    table = table.name,
                    files = done.files_before,
                    rows = done.rows
                );
                Ok(done)
            }
            // Others have changed these files: what is there now is looked at anew.
            Outcome::Overtaken => Ok(Compacted::default()),
        }
    }
}

/// Reads the files and merges them, on a thread of its own that ends when nobody waits for it any more.
async fn merged(delta: &DeltaTable, chosen: &[Add]) -> Result<Merged, Error> {
    let table = delta.table();
    let mut sources = Vec::with_capacity(chosen.len());
    for add in chosen {
        let bytes = delta.store().objects().get(&delta.location(&add.path)).await?.bytes().await?;
        sources.push(Source { path: add.path.clone(), bytes, content: add.content() });
    }
    let stop = StopOnDrop(Arc::new(AtomicBool::new(false)));
    let stopped = stop.0.clone();
    let merging = tokio::task::spawn_blocking(move || merge::merge(table, sources, &stopped));
    merging.await.map_err(|_| Error::Worker)?
}

struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The folder of a file, with its last slash.
fn folder_of(path: &str) -> &str {
    path.rfind('/').map_or("", |slash| &path[..=slash])
}

/// The live files of a folder, by path. Paths are in order: nothing else is looked at.
fn files_in<'a>(delta: &'a DeltaTable, folder: &str) -> BTreeMap<&'a str, &'a Add> {
    let from = delta.snapshot().files.range(folder.to_owned()..);
    let inside = from.take_while(|(path, _)| path.starts_with(folder)).filter(|(path, _)| folder_of(path) == folder);
    inside.map(|(path, add)| (path.as_str(), add)).collect()
}
