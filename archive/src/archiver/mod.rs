//! The service that moves the log into the tables.
//!
//! # The guarantee
//!
//! Every message is in its table exactly once. For each table and partition the archiver begins where the table's own
//! last commit says it stands ([`crate::delta`]): rows and position are one put, so a kill at any moment leaves either both or neither,
//! and rows of a flush that was not committed are simply read again. The log's offsets for
//! [`Consumer::Archive`] follow behind and decide nothing but what the log may forget.
//!
//! A row of `events` is written if admit's verdict for its offset says so; the archive keeps no memory of records.
//!
//! One archiver works on a log at a time (a lease); were two to overlap, the positions let only one commit.

mod derive;
mod evidence;
mod feed;
mod standing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt};
use runtime::clock::Clock;
use runtime::log::{Consumer, Input, Lease, Log, Topic, Txn};
use runtime::shutdown::Shutdown;

use crate::compactor::{Compactor, Plan};
use crate::delta::{Add, Changes, Cleaned, DeltaTable, Outcome};
use crate::error::Error;
use crate::file;
use crate::retention::{Retention, Retired};
use crate::rows::Rows;
use crate::store::Store;
use crate::table::{EVENTS, EVIDENCE, FINDINGS, TABLES, Table};
use evidence::KnownEvidence;
use feed::{Batch, News};
use standing::Standing;

/// Data files written at once. Compressing them is what a flush's time goes to.
const FILES_AT_ONCE: usize = 2;

/// How long the lease is held without renewal.
const LEASE_HOLD: Duration = Duration::from_secs(20);

/// How long to wait for news when there is nothing to do, and before a table is looked at again that had none.
const IDLE_WAIT: Duration = Duration::from_millis(200);

/// How long to wait after a failure that may pass.
const RETRY_WAIT: Duration = Duration::from_secs(2);

/// When rows become a commit.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Rows wait at most so long. Each flush makes a file a tenant and day, so shorter means more and smaller files.
    pub flush_interval: Duration,
    /// Or until so many bytes of raw records are held. Memory is about three times this: columns that have grown, and
    /// the file being written.
    pub flush_bytes: usize,
    /// When small files become large ones.
    pub compaction: Plan,
    /// How often tables are looked at for that.
    pub compaction_interval: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            flush_interval: Duration::from_secs(30),
            flush_bytes: 64 * 1024 * 1024,
            compaction: Plan::default(),
            compaction_interval: Duration::from_secs(60),
        }
    }
}

/// Moves the log into the tables.
pub struct Archiver {
    log: Arc<dyn Log>,
    store: Store,
    clock: Clock,
    settings: Settings,
    metrics: Arc<runtime::metrics::Metrics>,
}

impl Archiver {
    pub fn new(
        log: Arc<dyn Log>,
        store: Store,
        clock: Clock,
        settings: Settings,
        metrics: Arc<runtime::metrics::Metrics>,
    ) -> Archiver {
        Archiver { log, store, clock, settings, metrics }
    }

    /// Works until the end is asked for; then flushes what is held.
    pub async fn run(&self, shutdown: Shutdown) -> Result<(), Error> {
        let lease = Lease { consumer: Consumer::Archive, partition: 0, owner: owner(&self.clock) };
        loop {
            // Even when the end has been asked for already: what has come by then is archived.
            let ending = shutdown.is_requested();
            match self.work(&lease, &shutdown).await {
                Ok(()) => {}
                Err(error) if error.retryable() || overtaken(&error) => {
                    tracing::warn!(event = "archive_retry", error = %error);
                    self.metrics.archive.failures.with(["all"]).inc();
                    shutdown.sleep(RETRY_WAIT).await;
                }
                Err(error) => return Err(error),
            }
            if ending || shutdown.is_requested() {
                return Ok(self.log.release(&lease).await?);
            }
        }
    }

    /// Takes out what is past its time.
    pub async fn retire(&self, retention: &Retention) -> Result<Vec<Retired>, Error> {
        let retired = retention.retire(&self.store, self.clock.now()).await?;
        for gone in &retired {
            self.metrics.archive.retired_rows.with([gone.table]).add(gone.rows);
        }
        Ok(retired)
    }

    /// Deletes files that left the tables, or never entered them, before `before`. Returns how many went.
    pub async fn vacuum(&self, before: DateTime<Utc>) -> Result<u64, Error> {
        let mut gone = 0;
        for table in TABLES {
            gone += DeltaTable::open(self.store.clone(), table).await?.vacuum(before).await?;
        }
        Ok(gone)
    }

    /// Copies what old commits say, and deletes them from the logs of the tables.
    pub async fn clean(&self) -> Result<Cleaned, Error> {
        let mut cleaned = Cleaned::default();
        for table in TABLES {
            cleaned += DeltaTable::open(self.store.clone(), table).await?.clean(self.clock.now()).await?;
        }
        Ok(cleaned)
    }

    /// Holds the lease and works; returns when the lease is somebody else's or the end is asked for.
    async fn work(&self, lease: &Lease, shutdown: &Shutdown) -> Result<(), Error> {
        if !self.log.acquire(lease, LEASE_HOLD).await? {
            shutdown.sleep(RETRY_WAIT).await;
            return Ok(());
        }
        let writers = self.open().await?;
        let (store, clock, metrics) = (self.store.clone(), self.clock.clone(), self.metrics.clone());
        let compactor = Compactor::new(store, clock, metrics, self.settings.compaction);
        let compactor = compactor.every(self.settings.compaction_interval);
        // Whoever writes compacts beside it, and no longer than it writes.
        tokio::select! {
            done = self.keep_up(writers, lease, shutdown) => done,
            never = compactor.run() => match never {},
        }
    }

    async fn keep_up(&self, mut writers: Vec<Writer>, lease: &Lease, shutdown: &Shutdown) -> Result<(), Error> {
        let mut renewed = tokio::time::Instant::now();
        let mut goal = None;
        loop {
            if renewed.elapsed() > LEASE_HOLD / 4 {
                if !self.log.acquire(lease, LEASE_HOLD).await? {
                    return Ok(());
                }
                renewed = tokio::time::Instant::now();
            }
            let ending = shutdown.is_requested();
            if ending && goal.is_none() {
                goal = Some(ends(&*self.log).await?);
            }
            let mut moved = false;
            for writer in &mut writers {
                // Most tables are quiet most of the time; asking each of them each time would be most of the questions.
                if ending || writer.quiet_since.is_none_or(|since| since.elapsed() >= IDLE_WAIT) {
                    let has_moved = writer.fill(&*self.log, &self.metrics).await?;
                    writer.quiet_since = (!has_moved).then(tokio::time::Instant::now);
                    moved |= has_moved;
                }
            }
            // What others still write after the end was asked for is the next archiver's: with them it would never come.
            let done = ending && (!moved || goal.as_ref().is_some_and(|goal| have_reached(goal, &writers)));
            if !self.flush_due(&mut writers, done).await? {
                // Another archiver has committed: what is held is theirs already.
                return Ok(());
            }
            if done {
                return Ok(());
            }
            if !moved {
                self.log.wait(IDLE_WAIT).await;
            }
        }
    }

    async fn open(&self) -> Result<Vec<Writer>, Error> {
        let mut writers = Vec::with_capacity(TABLES.len());
        let events = DeltaTable::open(self.store.clone(), &EVENTS).await?;
        for table in TABLES {
            let mut delta = DeltaTable::open(self.store.clone(), table).await?;
            if table.is_derived() && delta.snapshot().version.is_none() && events.snapshot().version.is_some() {
                derive::begin(&mut delta, &events, self.clock.now()).await?;
            }
            writers.push(Writer::new(delta, &*self.log).await?);
        }
        Ok(writers)
    }

    /// Flushes the tables whose rows are old or many. False if another archiver has overtaken this one.
    async fn flush_due(&self, writers: &mut [Writer], all: bool) -> Result<bool, Error> {
        let mut flushed = false;
        for writer in writers.iter_mut() {
            let held = writer.since.is_some_and(|since| since.elapsed() >= self.settings.flush_interval);
            if writer.since.is_some() && (all || held || writer.rows.bytes >= self.settings.flush_bytes) {
                if writer.flush(self.clock.now(), &self.metrics).await? == Outcome::Overtaken {
                    return Ok(false);
                }
                flushed = true;
            }
        }
        if flushed {
            self.note_progress(writers).await?;
        }
        let now = self.clock.now();
        for writer in writers.iter() {
            self.metrics.archive.uncommitted_rows.with([writer.table().name]).set_count(writer.rows.rows);
            if writer.since.is_none() {
                self.metrics.archive.last_commit.set([writer.table().name], now);
            }
        }
        Ok(true)
    }

    /// Tells the log how far every table has come.
    async fn note_progress(&self, writers: &[Writer]) -> Result<(), Error> {
        let mut least: BTreeMap<(Topic, u32), u64> = BTreeMap::new();
        for writer in writers {
            for source in &writer.sources {
                let next = least.entry((writer.table().topic, source.partition)).or_insert(source.committed);
                *next = source.committed.min(*next);
                if writer.table().topic == Topic::Verdicts {
                    let records = (Topic::Records, source.partition);
                    let next = least.entry(records).or_insert(source.records_committed);
                    *next = source.records_committed.min(*next);
                }
            }
        }
        let mut inputs = Vec::new();
        for ((topic, partition), next) in least {
            let from = self.log.committed(Consumer::Archive, topic, partition).await?;
            if next > from {
                inputs.push(Input { consumer: Consumer::Archive, topic, partition, from, next });
            }
        }
        if !inputs.is_empty() {
            self.log.commit(Txn { inputs, ..Txn::default() }).await?;
        }
        Ok(())
    }
}

/// Where every partition of every topic that a table is fed from ends.
async fn ends(log: &dyn Log) -> Result<BTreeMap<(Topic, u32), u64>, Error> {
    let mut ends = BTreeMap::new();
    for table in TABLES {
        for partition in 0..log.partitions() {
            ends.insert((table.topic, partition), log.end(table.topic, partition).await?);
        }
    }
    Ok(ends)
}

/// Offsets are not dense in every log, so a partition may end before its last offset: nothing found is the end as well.
fn have_reached(goal: &BTreeMap<(Topic, u32), u64>, writers: &[Writer]) -> bool {
    writers.iter().all(|writer| {
        let reached = |source: &Source| {
            !source.moved || goal.get(&(writer.table().topic, source.partition)).is_none_or(|end| source.next >= *end)
        };
        writer.sources.iter().all(reached)
    })
}

fn overtaken(error: &Error) -> bool {
    matches!(error, Error::Log(error) if error.must_reload())
}

/// A name that no other process bears: process id and start time.
fn owner(clock: &Clock) -> String {
    format!("{}-{}", std::process::id(), clock.now().timestamp_micros())
}

/// One partition of the topic that a table is fed from.
pub(crate) struct Source {
    pub(crate) partition: u32,
    /// Where the table's last commit stands.
    committed: u64,
    /// Where reading stands: the rows between are held.
    pub(crate) next: u64,
    /// Whether the last look found anything.
    moved: bool,
    /// The same for the partition of `records` that verdicts speak of; zero for other topics.
    records_committed: u64,
    pub(crate) records_next: u64,
}

/// One table being written.
struct Writer {
    delta: DeltaTable,
    log_id: String,
    sources: Vec<Source>,
    rows: Rows,
    /// When it was last seen that nothing had come.
    quiet_since: Option<tokio::time::Instant>,
    /// When the oldest thing not committed was read.
    since: Option<tokio::time::Instant>,
    standing: Standing,
    evidence: KnownEvidence,
}

impl Writer {
    async fn new(delta: DeltaTable, log: &dyn Log) -> Result<Writer, Error> {
        let table = delta.table();
        let log_id = log.id().to_owned();
        check_log(&delta, log).await?;
        let partitions = log.partitions();
        let sources = (0..partitions)
            .map(|partition| {
                let committed =
                    delta.snapshot().positions.get(&source_name(&log_id, table.topic, partition)).copied().unwrap_or(0);
                let records = delta
                    .snapshot()
                    .positions
                    .get(&source_name(&log_id, Topic::Records, partition))
                    .copied()
                    .unwrap_or(0);
                Source {
                    partition,
                    committed,
                    next: committed,
                    moved: false,
                    records_committed: records,
                    records_next: records,
                }
            })
            .collect();
        let standing = if std::ptr::eq(table, &FINDINGS) { Standing::load(&delta).await? } else { Standing::default() };
        let evidence =
            if std::ptr::eq(table, &EVIDENCE) { KnownEvidence::load(&delta).await? } else { KnownEvidence::default() };
        Ok(Writer {
            rows: Rows::new(table),
            delta,
            log_id,
            sources,
            quiet_since: None,
            since: None,
            standing,
            evidence,
        })
    }

    fn table(&self) -> &'static Table {
        self.delta.table()
    }

    /// Reads what has come and turns it into rows. Whether anything had come.
    async fn fill(&mut self, log: &dyn Log, metrics: &runtime::metrics::Metrics) -> Result<bool, Error> {
        let table = self.table();
        let reads = self.sources.iter().map(|source| feed::read(table, log, source));
        let batches: Vec<Batch> = futures::future::try_join_all(reads).await?;
        let mut moved = false;
        for (source, batch) in self.sources.iter_mut().zip(&batches) {
            source.moved = batch.next > source.next;
            moved |= source.moved;
            source.next = batch.next;
            source.records_next = batch.records_next;
        }
        if !moved {
            return Ok(false);
        }
        let mut rows = std::mem::replace(&mut self.rows, Rows::new(table));
        let decode = move || -> Result<(Rows, News), Error> {
            let mut news = News::default();
            for batch in batches {
                feed::decode(table, batch, &mut rows, &mut news)?;
            }
            Ok((rows, news))
        };
        // Were it to fail, this writer would be made anew from the table: nothing of a half is kept.
        let (rows, news) = tokio::task::spawn_blocking(decode).await.map_err(|_| Error::Worker)??;
        self.rows = rows;
        for finding in news.findings {
            if std::ptr::eq(table, &EVIDENCE) {
                for event_id in self.evidence.add(&finding) {
                    let row = crate::table::evidence_row(&finding.id, finding.tenant.as_str(), event_id);
                    self.rows.push(&row, event_id.len());
                }
            } else {
                self.standing.put(finding);
            }
        }
        if let Some(sent) = news.heartbeat {
            metrics.own.heartbeat.set(["archive"], sent);
        }
        if self.since.is_none() {
            self.since = Some(tokio::time::Instant::now());
        }
        Ok(true)
    }

    /// Writes the files, then commits them with the positions they bring the table to.
    async fn flush(&mut self, now: DateTime<Utc>, metrics: &runtime::metrics::Metrics) -> Result<Outcome, Error> {
        let table = self.table();
        let mut changes = Changes { positions: self.positions(), ..Changes::default() };
        if std::ptr::eq(table, &FINDINGS) {
            let dirty = self.standing.take_dirty();
            changes.remove = self
                .delta
                .snapshot()
                .files
                .values()
                .filter(|add| in_tenants(add, &dirty))
                .map(|add| add.path.clone())
                .collect();
            for tenant in &dirty {
                for row in self.standing.rows(tenant) {
                    self.rows.push(&row, 0);
                }
            }
        }
        let rows = std::mem::replace(&mut self.rows, Rows::new(table));
        let count = rows.rows;
        // The name follows from what is in it: a flush that is done again after a crash writes the same file again.
        let name = schemas::json::key_id(&[table.name, &format!("{:?}", changes.positions)]);
        changes.add = self.write_files(rows, &name, now).await?;
        let bytes = changes.add.iter().map(|add| add.size).sum();
        let files = changes.add.iter().map(|add| self.delta.location(&add.path)).collect();
        self.delta.store().make_durable(files).await?;
        runtime::failpoint::reached_by("archive_before_commit", table.name);
        let outcome = self.delta.commit(changes, now).await?;
        runtime::failpoint::reached_by("archive_after_commit", table.name);
        if outcome == Outcome::Committed {
            self.since = None;
            for source in &mut self.sources {
                source.committed = source.next;
                source.records_committed = source.records_next;
            }
            metrics.archive.rows.with([table.name]).add(count);
            metrics.archive.bytes.with([table.name]).add(bytes);
            metrics.archive.commits.with([table.name]).inc();
            metrics.archive.last_commit.set([table.name], now);
        }
        Ok(outcome)
    }

    fn positions(&self) -> Vec<(String, u64, u64)> {
        let topic = self.table().topic;
        let mut positions = Vec::new();
        for source in &self.sources {
            if source.next > source.committed {
                positions.push((source_name(&self.log_id, topic, source.partition), source.committed, source.next));
            }
            if source.records_next > source.records_committed {
                positions.push((
                    source_name(&self.log_id, Topic::Records, source.partition),
                    source.records_committed,
                    source.records_next,
                ));
            }
        }
        positions
    }

    async fn write_files(&self, rows: Rows, name: &str, now: DateTime<Utc>) -> Result<Vec<Add>, Error> {
        let table = self.table();
        let files = rows.into_partitions().map(|(key, rows)| async move {
            let written =
                tokio::task::spawn_blocking(move || file::write(table, rows)).await.map_err(|_| Error::Worker)??;
            let columns = table.partition_columns.iter().map(|&column| column.to_owned());
            let partition_values = columns.zip(key.into_iter().map(Some)).collect();
            file::put(&self.delta, "h", name, partition_values, written, now).await
        });
        futures::stream::iter(files).buffered(FILES_AT_ONCE).try_collect().await
    }
}

/// The name of a position: it holds for one log only.
pub(crate) fn source_name(log_id: &str, topic: Topic, partition: u32) -> String {
    format!("{SOURCE_PREFIX}{log_id}/{}/{partition}", topic.name())
}

const SOURCE_PREFIX: &str = "harrier/";

/// Refuses a log that the table was not filled from, or that ends before the table's position: reading on from there
/// would skip records in silence.
async fn check_log(delta: &DeltaTable, log: &dyn Log) -> Result<(), Error> {
    let table = delta.table().name;
    let ours = format!("{SOURCE_PREFIX}{}/", log.id());
    let positions = &delta.snapshot().positions;
    if positions.keys().any(|name| name.starts_with(SOURCE_PREFIX) && !name.starts_with(&ours)) {
        return Err(Error::OtherLog { table });
    }
    for topic in [delta.table().topic, Topic::Records] {
        for partition in 0..log.partitions() {
            let position = positions.get(&source_name(log.id(), topic, partition)).copied().unwrap_or(0);
            let end = log.end(topic, partition).await?;
            if position > end {
                return Err(Error::LogBehind { table, topic: topic.name(), partition, position, end });
            }
        }
    }
    Ok(())
}

fn in_tenants(add: &Add, tenants: &[String]) -> bool {
    add.partition_values
        .get("tenant")
        .is_some_and(|value| value.as_ref().is_some_and(|tenant| tenants.contains(tenant)))
}
