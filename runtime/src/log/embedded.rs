//! The log as one SQLite file: for one host, without a broker, several processes.
//!
//! WAL and `synchronous=FULL`: what [`Log::commit`] has acknowledged survives a power cut. One thread per process
//! writes; steps that wait together are committed together, each in its own savepoint, so that one refused step does
//! not take the others with it. Messages of one step for one partition are one compressed row.
//!
//! Local file systems only: SQLite's locks are not to be trusted over a network.

mod process;
mod state;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use tokio::sync::{Notify, oneshot};

use super::{
    Committed, Consumer, Input, Lease, Log, LogError, Message, Range, ReadLimit, StateRow, Store, To, Topic, Txn,
    Unusable, broken, partition_of,
};
use state::State;

const FORMAT: &str = "harrier-log/3";

/// Partitions of a new log. More than the cores of one host gains nothing, and every partition costs a lease, a worker
/// and a share of each flush.
pub const PARTITIONS_DEFAULT: u32 = 4;

/// Steps committed together at most, so that one commit stays short and no step waits for long.
const GROUP_STEPS_MAX: usize = 64;

/// Steps that may wait for the writer. A full queue makes callers wait, which is the back-pressure.
const QUEUE_STEPS_MAX: usize = 256;

/// How long SQLite waits for another process's commit before it gives up.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// Level 1: the log is written once and read two or three times; disk is not what it saves, but writes.
const ZSTD_LEVEL: i32 = 1;

/// Pages that the writer keeps: state is found by key, all over the file.
const WRITER_CACHE_KIB: i32 = 65_536;

/// Pages that each reading connection keeps. Messages are read in order and seldom twice; there are as many connections
/// as reads at once.
const READER_CACHE_KIB: i32 = 4_096;

/// Pages of the write-ahead log before they are moved into the file (64 MiB): a page of state is changed by many steps,
/// and moved once.
const CHECKPOINT_PAGES: i32 = 16_384;

/// Most bytes one batch may unpack to: a damaged length must not take the memory.
const BATCH_BYTES_MAX: usize = 1 << 30;

/// The embedded log. Cheap to share behind an `Arc`; closed when dropped.
pub struct Embedded {
    partitions: u32,
    id: String,
    writer: Option<mpsc::SyncSender<Request>>,
    thread: Option<std::thread::JoinHandle<()>>,
    readers: Arc<Readers>,
    state: Arc<State>,
    appended: Arc<Notify>,
}

struct Request {
    work: Work,
    answer: oneshot::Sender<Result<Committed, LogError>>,
}

enum Work {
    Step(Arc<Txn>),
    Acquire(Lease, Duration),
    Release(Lease),
    Trim(DateTime<Utc>),
}

impl Embedded {
    /// Opens the log, or makes it with `partitions` partitions. An existing log keeps its own count.
    pub fn open(path: &Path, partitions: u32) -> Result<Embedded, LogError> {
        if rusqlite::version_number() < 3_051_003 {
            return Err(Unusable::Sqlite { found: rusqlite::version() }.into());
        }
        let mut connection = connect(path, WRITER_CACHE_KIB)?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        let (partitions, id) = prepare(&mut connection, partitions.max(1))?;
        let (sender, receiver) = mpsc::sync_channel(QUEUE_STEPS_MAX);
        let (appended, state) = (Arc::new(Notify::new()), Arc::new(State::default()));
        let thread = {
            let (appended, state) = (appended.clone(), state.clone());
            std::thread::Builder::new()
                .name("log-writer".into())
                .spawn(move || write_until_closed(connection, partitions, &state, &receiver, &appended))
                .map_err(|_| LogError::Closed)?
        };
        let readers = Arc::new(Readers { path: path.to_owned(), idle: Mutex::new(Vec::new()) });
        Ok(Embedded { partitions, id, writer: Some(sender), thread: Some(thread), readers, state, appended })
    }

    async fn ask(&self, work: Work) -> Result<Committed, LogError> {
        let sender = self.writer.clone().ok_or(LogError::Closed)?;
        let (answer, reply) = oneshot::channel();
        let request = Request { work, answer };
        // The queue is bounded: sending may have to wait for the writer, which must not hold up the runtime's threads.
        if let Err(back) = sender.try_send(request) {
            let request = match back {
                mpsc::TrySendError::Full(request) => request,
                mpsc::TrySendError::Disconnected(_) => return Err(LogError::Closed),
            };
            tokio::task::spawn_blocking(move || sender.send(request))
                .await
                .map_err(|_| LogError::Closed)?
                .map_err(|_| LogError::Closed)?;
        }
        reply.await.map_err(|_| LogError::Closed)?
    }

    async fn query<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let readers = self.readers.clone();
        tokio::task::spawn_blocking(move || readers.with(work)).await.map_err(|_| LogError::Closed)?
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.writer = None;
        if let Some(thread) = self.thread.take() {
            // The writer ends when its queue is empty and closed; a panic in it has already failed its callers.
            let _ = thread.join();
        }
    }
}

#[async_trait]
impl Log for Embedded {
    fn partitions(&self) -> u32 {
        self.partitions
    }

    fn id(&self) -> &str {
        &self.id
    }

    async fn commit_shared(&self, txn: Arc<Txn>) -> Result<Committed, LogError> {
        if let Some([first, second]) = broken::halves(&txn) {
            let first = self.ask(Work::Step(Arc::new(first))).await?;
            crate::failpoint::reached("log_half_committed");
            return Ok(broken::whole(first, self.ask(Work::Step(Arc::new(second))).await?));
        }
        self.ask(Work::Step(txn)).await
    }

    async fn read(&self, topic: Topic, partition: u32, from: u64, limit: ReadLimit) -> Result<Vec<Message>, LogError> {
        self.query(move |connection| read(connection, topic, partition, from, limit)).await
    }

    async fn committed(&self, consumer: Consumer, topic: Topic, partition: u32) -> Result<u64, LogError> {
        self.query(move |connection| Ok(committed(connection, consumer, topic, partition)?)).await
    }

    async fn end(&self, topic: Topic, partition: u32) -> Result<u64, LogError> {
        self.query(move |connection| Ok(end(connection, topic, partition)?)).await
    }

    async fn scan(&self, store: Store, partition: u32, prefix: &[u8]) -> Result<Vec<StateRow>, LogError> {
        Ok(self.scan_each(store, partition, vec![prefix.to_vec()]).await?.pop().unwrap_or_default())
    }

    async fn scan_each(
        &self,
        store: Store,
        partition: u32,
        prefixes: Vec<Vec<u8>>,
    ) -> Result<Vec<Vec<StateRow>>, LogError> {
        if prefixes.is_empty() {
            return Ok(Vec::new());
        }
        let state = self.state.clone();
        self.query(move |connection| state.scan_each(connection, store, partition, &prefixes)).await
    }

    async fn acquire(&self, lease: &Lease, hold: Duration) -> Result<bool, LogError> {
        match self.ask(Work::Acquire(lease.clone(), hold)).await {
            Ok(_) => Ok(true),
            Err(LogError::LeaseLost { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn release(&self, lease: &Lease) -> Result<(), LogError> {
        self.ask(Work::Release(lease.clone())).await.map(drop)
    }

    async fn wait(&self, timeout: Duration) {
        // Only this process's commits wake it; those of others are seen at the timeout.
        let _ = tokio::time::timeout(timeout, self.appended.notified()).await;
    }

    async fn trim(&self, before: DateTime<Utc>) -> Result<u64, LogError> {
        let committed = self.ask(Work::Trim(before)).await?;
        Ok(committed.ranges.iter().map(|range| range.next - range.from).sum())
    }
}

/// Connections for reading, made as needed and kept.
struct Readers {
    path: std::path::PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    fn with<T>(&self, work: impl FnOnce(&Connection) -> Result<T, LogError>) -> Result<T, LogError> {
        let idle = self.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => connect(&self.path, READER_CACHE_KIB)?,
        };
        let result = work(&connection);
        self.idle().push(connection);
        result
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn connect(path: &Path, cache_kib: i32) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// Makes the tables if they are not there and returns the number of partitions and the log's id.
fn prepare(connection: &mut Connection, partitions: u32) -> Result<(u32, String), LogError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(
        "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS batches (
             topic TEXT NOT NULL, partition INTEGER NOT NULL, first INTEGER NOT NULL, next INTEGER NOT NULL,
             appended INTEGER NOT NULL, bytes BLOB NOT NULL);
         CREATE UNIQUE INDEX IF NOT EXISTS batches_by_offset ON batches (topic, partition, next);
         CREATE TABLE IF NOT EXISTS ends (
             topic TEXT NOT NULL, partition INTEGER NOT NULL, next INTEGER NOT NULL, begins INTEGER NOT NULL,
             PRIMARY KEY (topic, partition)) WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS offsets (
             consumer TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL, next INTEGER NOT NULL,
             PRIMARY KEY (consumer, topic, partition)) WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS leases (
             consumer TEXT NOT NULL, partition INTEGER NOT NULL, owner TEXT NOT NULL, until INTEGER NOT NULL,
             PRIMARY KEY (consumer, partition)) WITHOUT ROWID;",
    )?;
    transaction.execute_batch(state::TABLES)?;
    transaction.execute("INSERT OR IGNORE INTO meta VALUES ('format', ?1)", [FORMAT])?;
    transaction.execute("INSERT OR IGNORE INTO meta VALUES ('partitions', ?1)", [partitions.to_string()])?;
    transaction.execute("INSERT OR IGNORE INTO meta VALUES ('id', lower(hex(randomblob(8))))", [])?;
    let value = |key: &str| {
        transaction.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get::<_, String>(0))
    };
    let format = value("format")?;
    let stored = value("partitions")?;
    let id = value("id")?;
    if format != FORMAT {
        return Err(Unusable::Format { found: format, known: FORMAT }.into());
    }
    let partitions = stored.parse().map_err(|_| Unusable::Format { found: stored, known: FORMAT })?;
    transaction.commit()?;
    Ok((partitions, id))
}

fn write_until_closed(
    mut connection: Connection,
    partitions: u32,
    state: &State,
    requests: &mpsc::Receiver<Request>,
    appended: &Notify,
) {
    while let Ok(first) = requests.recv() {
        let mut group = vec![first];
        while group.len() < GROUP_STEPS_MAX
            && let Ok(request) = requests.try_recv()
        {
            group.push(request);
        }
        let (mut works, mut answers) = (Vec::new(), Vec::new());
        for request in group {
            works.push(request.work);
            answers.push(request.answer);
        }
        match write_group(&mut connection, partitions, state, &works) {
            Ok(results) => {
                for (answer, result) in answers.into_iter().zip(results) {
                    // A caller that has gone away does not need its answer.
                    let _ = answer.send(result);
                }
                appended.notify_waiters();
            }
            Err(error) => {
                tracing::warn!(event = "log_commit_failed", error = %error);
                state.forget();
                // Nothing of the group has happened; the cause is everybody's.
                for answer in answers {
                    let _ = answer.send(Err(LogError::Storage(error.clone())));
                }
            }
        }
    }
}

/// Commits a group. A refusal of one step is its own result; a storage failure is everybody's.
fn write_group(
    connection: &mut Connection,
    partitions: u32,
    state: &State,
    works: &[Work],
) -> Result<Vec<Result<Committed, LogError>>, Arc<rusqlite::Error>> {
    let mut transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut results = Vec::with_capacity(works.len());
    for work in works {
        let savepoint = transaction.savepoint()?;
        let result = match work {
            Work::Step(txn) => step(&savepoint, partitions, state, txn),
            Work::Acquire(lease, hold) => acquire(&savepoint, lease, *hold),
            Work::Release(lease) => release(&savepoint, lease),
            Work::Trim(before) => trim(&savepoint, *before),
        };
        match result {
            Ok(committed) => {
                savepoint.commit()?;
                results.push(Ok(committed));
            }
            Err(LogError::Storage(error)) => return Err(error),
            // Dropping the savepoint rolls it back: a refused step leaves nothing behind.
            Err(refused) => results.push(Err(refused)),
        }
    }
    crate::failpoint::reached("log_before_commit");
    transaction.commit()?;
    crate::failpoint::reached("log_after_commit");
    Ok(results)
}

fn step(connection: &Connection, partitions: u32, state: &State, txn: &Txn) -> Result<Committed, LogError> {
    if let Some(lease) = &txn.lease {
        held(connection, lease)?;
    }
    for input in &txn.inputs {
        consume(connection, input)?;
    }
    crate::failpoint::reached("log_after_offsets");
    let mut batches: BTreeMap<(Topic, u32), Batch> = BTreeMap::new();
    for output in &txn.outputs {
        let targets = match output.to {
            To::Key(key) => partition_of(key, partitions)..partition_of(key, partitions) + 1,
            To::Partition(partition) => partition..partition + 1,
            To::Everywhere => 0..partitions,
        };
        for partition in targets {
            batches.entry((output.topic, partition)).or_default().push(&output.value);
        }
    }
    let mut ranges = Vec::with_capacity(batches.len());
    for ((topic, partition), batch) in batches {
        ranges.push(append(connection, topic, partition, &batch)?);
    }
    crate::failpoint::reached("log_after_outputs");
    state.write(connection, &txn.state).inspect_err(|_| state.forget())?;
    Ok(Committed { ranges })
}

fn consume(connection: &Connection, input: &Input) -> Result<(), LogError> {
    let stored = committed(connection, input.consumer, input.topic, input.partition)?;
    if stored != input.from {
        return Err(LogError::Moved {
            consumer: input.consumer.name(),
            topic: input.topic.name(),
            partition: input.partition,
            from: input.from,
            stored,
        });
    }
    connection
        .prepare_cached("INSERT INTO offsets VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET next = excluded.next")?
        .execute(params![input.consumer.name(), input.topic.name(), input.partition, input.next])?;
    Ok(())
}

/// Messages of one step for one partition: length and bytes of each, compressed together.
#[derive(Default)]
struct Batch {
    count: u64,
    bytes: Vec<u8>,
}

impl Batch {
    fn push(&mut self, value: &[u8]) {
        self.count += 1;
        self.bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(value);
    }
}

fn append(connection: &Connection, topic: Topic, partition: u32, batch: &Batch) -> Result<Range, LogError> {
    let from = end(connection, topic, partition)?;
    let next = from + batch.count;
    let bytes = zstd::bulk::compress(&batch.bytes, ZSTD_LEVEL).map_err(|_| Unusable::Batch {
        topic: topic.name(),
        partition,
        first: from,
    })?;
    connection
        .prepare_cached(
            "INSERT INTO batches (topic, partition, first, next, appended, bytes) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![topic.name(), partition, from, next, Utc::now().timestamp_micros(), bytes])?;
    connection
        .prepare_cached("INSERT INTO ends VALUES (?1, ?2, ?3, 0) ON CONFLICT DO UPDATE SET next = excluded.next")?
        .execute(params![topic.name(), partition, next])?;
    Ok(Range { topic, partition, from, next })
}

fn end(connection: &Connection, topic: Topic, partition: u32) -> Result<u64, rusqlite::Error> {
    let next = connection
        .prepare_cached("SELECT next FROM ends WHERE topic = ?1 AND partition = ?2")?
        .query_row(params![topic.name(), partition], |row| row.get(0))
        .optional()?;
    Ok(next.unwrap_or(0))
}

fn committed(
    connection: &Connection,
    consumer: Consumer,
    topic: Topic,
    partition: u32,
) -> Result<u64, rusqlite::Error> {
    let next = connection
        .prepare_cached("SELECT next FROM offsets WHERE consumer = ?1 AND topic = ?2 AND partition = ?3")?
        .query_row(params![consumer.name(), topic.name(), partition], |row| row.get(0))
        .optional()?;
    Ok(next.unwrap_or(0))
}

fn read(
    connection: &Connection,
    topic: Topic,
    partition: u32,
    from: u64,
    limit: ReadLimit,
) -> Result<Vec<Message>, LogError> {
    let mut messages = Vec::new();
    let mut bytes_read = 0;
    let mut expected = from;
    let mut statement = connection.prepare_cached(
        "SELECT first, next, bytes FROM batches WHERE topic = ?1 AND partition = ?2 AND next > ?3 ORDER BY next",
    )?;
    let mut rows = statement.query(params![topic.name(), partition, from])?;
    while let Some(row) = rows.next()? {
        let (first, next): (u64, u64) = (row.get(0)?, row.get(1)?);
        if first > expected {
            return Err(LogError::Trimmed { topic: topic.name(), partition, wanted: expected, begins: first });
        }
        let packed = row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
        let damaged = || Unusable::Batch { topic: topic.name(), partition, first };
        let size = zstd::zstd_safe::get_frame_content_size(packed).ok().flatten().unwrap_or(0) as usize;
        let unpacked = if size > BATCH_BYTES_MAX {
            Err(damaged())
        } else {
            zstd::bulk::decompress(packed, size).map_err(|_| damaged())
        }?;
        let mut rest = unpacked.as_slice();
        for offset in first..next {
            let (length, tail) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
            let (value, tail) = tail.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(damaged)?;
            rest = tail;
            if offset >= from {
                if !messages.is_empty() && (messages.len() >= limit.messages || bytes_read + value.len() > limit.bytes)
                {
                    return Ok(messages);
                }
                bytes_read += value.len();
                messages.push(Message { offset, value: value.to_vec() });
            }
        }
        expected = next;
    }
    // Nothing at or after `from`: is it the end, or has the tail been trimmed away?
    let begins = connection
        .prepare_cached("SELECT begins FROM ends WHERE topic = ?1 AND partition = ?2")?
        .query_row(params![topic.name(), partition], |row| row.get::<_, u64>(0))
        .optional()?
        .unwrap_or(0);
    if messages.is_empty() && from < begins {
        return Err(LogError::Trimmed { topic: topic.name(), partition, wanted: from, begins });
    }
    Ok(messages)
}

fn lease_row(connection: &Connection, lease: &Lease) -> Result<Option<(String, i64)>, rusqlite::Error> {
    connection
        .prepare_cached("SELECT owner, until FROM leases WHERE consumer = ?1 AND partition = ?2")?
        .query_row(params![lease.consumer.name(), lease.partition], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
}

fn lost(lease: &Lease) -> LogError {
    LogError::LeaseLost { consumer: lease.consumer.name(), partition: lease.partition }
}

/// As in the table: with the process, so that others can see when it is gone.
fn owner_of(lease: &Lease) -> String {
    format!("{}{}", process::mark(), lease.owner)
}

/// A lease is held until somebody else has taken it: its end only says when they may.
fn held(connection: &Connection, lease: &Lease) -> Result<(), LogError> {
    match lease_row(connection, lease)? {
        Some((owner, _)) if owner == owner_of(lease) => Ok(()),
        _ => Err(lost(lease)),
    }
}

fn acquire(connection: &Connection, lease: &Lease, hold: Duration) -> Result<Committed, LogError> {
    let now = Utc::now().timestamp_millis();
    let holder = owner_of(lease);
    if let Some((owner, until)) = lease_row(connection, lease)?
        && owner != holder
        && !process::is_gone(&owner)
        // A lease that ends impossibly late was taken under a clock that has since been set back.
        && (now..now + LEASE_MILLIS_MAX).contains(&until)
    {
        return Err(lost(lease));
    }
    let until = now + (hold.as_millis() as i64).min(LEASE_MILLIS_MAX - 1);
    connection
        .prepare_cached("INSERT INTO leases VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET owner = excluded.owner, until = excluded.until")?
        .execute(params![lease.consumer.name(), lease.partition, holder, until])?;
    Ok(Committed::default())
}

/// Longest lease. A process that is not seen to be gone keeps its partitions from others for at most so long.
const LEASE_MILLIS_MAX: i64 = 60_000;

fn release(connection: &Connection, lease: &Lease) -> Result<Committed, LogError> {
    connection
        .prepare_cached("DELETE FROM leases WHERE consumer = ?1 AND partition = ?2 AND owner = ?3")?
        .execute(params![lease.consumer.name(), lease.partition, owner_of(lease)])?;
    Ok(Committed::default())
}

fn trim(connection: &Connection, before: DateTime<Utc>) -> Result<Committed, LogError> {
    let mut ranges = Vec::new();
    for topic in Topic::ALL {
        let mut statement = connection.prepare_cached("SELECT partition FROM ends WHERE topic = ?1")?;
        let partitions: Vec<u32> =
            statement.query_map([topic.name()], |row| row.get(0))?.collect::<Result<_, rusqlite::Error>>()?;
        for partition in partitions {
            let mut consumed = u64::MAX;
            for &consumer in Consumer::of(topic) {
                consumed = consumed.min(committed(connection, consumer, topic, partition)?);
            }
            let doomed: Option<(Option<u64>, Option<u64>)> = connection
                .prepare_cached(
                    "SELECT min(first), max(next) FROM batches WHERE topic = ?1 AND partition = ?2 AND next <= ?3 AND appended < ?4",
                )?
                .query_row(params![topic.name(), partition, consumed, before.timestamp_micros()], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let Some((Some(from), Some(next))) = doomed else { continue };
            connection
                .prepare_cached("DELETE FROM batches WHERE topic = ?1 AND partition = ?2 AND next <= ?3")?
                .execute(params![topic.name(), partition, next])?;
            connection
                .prepare_cached("UPDATE ends SET begins = ?3 WHERE topic = ?1 AND partition = ?2")?
                .execute(params![topic.name(), partition, next])?;
            ranges.push(Range { topic, partition, from, next });
        }
    }
    Ok(Committed { ranges })
}

#[cfg(test)]
mod tests;
