//! The log: where the services meet, and the only place where anything takes effect.
//!
//! # The guarantee
//!
//! All effects of a step go through one atomic call, [`Log::commit`]: the inputs it has consumed, the messages it
//! puts out and the state it changes. Nothing else commits. A [`Txn`] whose inputs do not begin exactly where the
//! log says its consumer stands is refused, and a refusal changes nothing:
//!
//! | stored offset | `from` of the Txn | outcome |
//! |---|---|---|
//! | equal | equal | committed; the stored offset becomes `next` |
//! | greater | smaller | refused: another process has done this work; drop local state and read on from the stored offset |
//! | smaller | greater | refused: the caller skipped records; the same cure |
//!
//! So a step is done once, whatever is killed when: it is either in the log with all its effects, or it never was.
//!
//! # Two backends
//!
//! [`Embedded`](embedded::Embedded) is one SQLite file for one host, several processes. [`kafka`] (a feature) is Apache
//! Kafka for many hosts. One interface fits both: outputs name a key and never rely on the client's partitioner, state
//! is addressed by the partition of the input that made it (a co-partitioned changelog topic), and reads are by offset.
//!
//! # What a caller must not assume
//!
//! Offsets rise and never come twice, but they are not dense: on Kafka the markers of transactions take some. So the
//! offset after a message is the least that the next may have, not the one it has.

mod broken;
pub mod embedded;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod options;
mod refused;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
pub use schemas::message::Topic;

pub use refused::Refused;

/// One atomic step.
#[derive(Clone, Debug, Default)]
pub struct Txn {
    pub inputs: Vec<Input>,
    pub outputs: Vec<Output>,
    pub state: Vec<StateChange>,
    /// Refuse the step unless this lease is still held: for work that has no input offset to guard it, such as polling.
    pub lease: Option<Lease>,
}

/// A stretch of one partition that a consumer has consumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    pub consumer: Consumer,
    pub topic: Topic,
    pub partition: u32,
    /// Where the consumer stood before.
    pub from: u64,
    /// Where it stands now: one past the last offset consumed.
    pub next: u64,
}

/// A message to append.
#[derive(Clone, Debug)]
pub struct Output {
    pub topic: Topic,
    pub to: To,
    pub value: Vec<u8>,
}

/// Which partition a message goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// The partition that follows from this key hash: see [`partition_of`].
    Key(u128),
    Partition(u32),
    /// A copy into every partition: marks and heartbeats.
    Everywhere,
}

/// One change of one row of state. Rows belong to a partition, and only the owner of the partition touches them.
#[derive(Clone, Debug)]
pub struct StateChange {
    pub store: Store,
    pub partition: u32,
    pub key: Vec<u8>,
    /// `None` removes the row.
    pub value: Option<Vec<u8>>,
}

/// Key and value of one row of state.
pub type StateRow = (Vec<u8>, Vec<u8>);

/// Who consumes. The list is closed, so that retention knows whom to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Consumer {
    Match,
    Correlate,
    Notify,
    /// The archive's view of its own progress; the truth lies in its commits.
    Archive,
    /// Not a consumer of topics: the lease name of the pollers.
    Poll,
}

impl Consumer {
    pub fn name(self) -> &'static str {
        match self {
            Consumer::Match => "match",
            Consumer::Correlate => "correlate",
            Consumer::Notify => "notify",
            Consumer::Archive => "archive",
            Consumer::Poll => "poll",
        }
    }

    /// Who reads a topic: messages stay until each of them has.
    pub fn of(topic: Topic) -> &'static [Consumer] {
        match topic {
            Topic::Records => &[Consumer::Match, Consumer::Archive],
            Topic::Matches => &[Consumer::Correlate],
            Topic::Findings => &[Consumer::Archive, Consumer::Notify],
            Topic::Verdicts | Topic::Coverage | Topic::DeadLetters => &[Consumer::Archive],
        }
    }
}

/// A named set of state rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Store {
    /// Known record ids and contents, by event day.
    Admit,
    /// Which rule set each partition of `records` is judged by.
    Rules,
    /// Windows, histories and episodes.
    Correlate,
    /// The rule sets that matches on their way may come from.
    Editions,
    /// Content blobs and how far each is.
    Ledger,
    /// What each sink still has to deliver, and what it has.
    Outbox,
    /// Standing findings of a tenant, for telling incidents.
    Incidents,
}

impl Store {
    pub fn name(self) -> &'static str {
        match self {
            Store::Admit => "admit",
            Store::Rules => "rules",
            Store::Correlate => "correlate",
            Store::Editions => "editions",
            Store::Ledger => "ledger",
            Store::Outbox => "outbox",
            Store::Incidents => "incidents",
        }
    }
}

/// The right to work on one partition for one consumer, for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub consumer: Consumer,
    /// The partition, or for pollers the slot of a tenant.
    pub partition: u32,
    /// Names the process and is never used again by another.
    pub owner: String,
}

/// Where the outputs of a committed step lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    pub ranges: Vec<Range>,
}

/// Offsets `from..next` of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub topic: Topic,
    pub partition: u32,
    pub from: u64,
    pub next: u64,
}

/// A message as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub offset: u64,
    pub value: Vec<u8>,
}

/// How much one read may return. At least one message is returned if there is one.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimit {
    pub messages: usize,
    pub bytes: usize,
}

impl Default for ReadLimit {
    /// 2,000 messages or 8 MiB: large enough that a commit's cost is spread over thousands of records, small enough
    /// that a dozen partitions being worked on at once stay far below a gigabyte.
    fn default() -> Self {
        ReadLimit { messages: 2_000, bytes: 8 * 1024 * 1024 }
    }
}

/// The log.
#[async_trait]
pub trait Log: Send + Sync {
    /// How many partitions every topic has. Fixed when the log is made.
    fn partitions(&self) -> u32;

    /// Names this log among all logs: offsets mean nothing in another one. Fixed when the log is made.
    fn id(&self) -> &str;

    /// Takes the step, all or nothing: see the module.
    async fn commit(&self, txn: Txn) -> Result<Committed, LogError> {
        self.commit_shared(Arc::new(txn)).await
    }

    /// The same for a caller that keeps the step, to take it again where it has failed: nothing of it is copied.
    async fn commit_shared(&self, txn: Arc<Txn>) -> Result<Committed, LogError>;

    /// Messages from an offset on; empty at the end of the log.
    async fn read(&self, topic: Topic, partition: u32, from: u64, limit: ReadLimit) -> Result<Vec<Message>, LogError>;

    /// Returns when all that was committed before this call, by any process, can be read. A broker tells a committer
    /// before it has told every partition.
    async fn settle(&self) -> Result<(), LogError> {
        Ok(())
    }

    /// Where a consumer stands: the next offset it will consume.
    async fn committed(&self, consumer: Consumer, topic: Topic, partition: u32) -> Result<u64, LogError>;

    /// One past the last offset that can be read now.
    async fn end(&self, topic: Topic, partition: u32) -> Result<u64, LogError>;

    /// State rows of one partition whose key begins with `prefix`, in key order.
    async fn scan(&self, store: Store, partition: u32, prefix: &[u8]) -> Result<Vec<StateRow>, LogError>;

    /// The same for several prefixes, in their order.
    async fn scan_each(
        &self,
        store: Store,
        partition: u32,
        prefixes: Vec<Vec<u8>>,
    ) -> Result<Vec<Vec<StateRow>>, LogError> {
        let mut found = Vec::with_capacity(prefixes.len());
        for prefix in prefixes {
            found.push(self.scan(store, partition, &prefix).await?);
        }
        Ok(found)
    }

    /// Takes or renews a lease for a while. False while another owner holds it, and once where it was lost since the
    /// last call: what the caller holds in memory is then out of date.
    async fn acquire(&self, lease: &Lease, hold: Duration) -> Result<bool, LogError>;

    /// Gives a lease back, so that the next owner need not wait.
    async fn release(&self, lease: &Lease) -> Result<(), LogError>;

    /// Returns when something may have been appended, or after `timeout`.
    async fn wait(&self, timeout: Duration);

    /// Deletes what every consumer has consumed and what was appended before `before`. Returns how many messages went.
    async fn trim(&self, before: DateTime<Utc>) -> Result<u64, LogError>;
}

/// The partition of a key, the same in every backend and every version: the key hash, modulo.
pub fn partition_of(key: u128, partitions: u32) -> u32 {
    (key % u128::from(partitions.max(1))) as u32
}

/// What can go wrong with the log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// Another process has taken over: drop what is held in memory for this partition and begin again from the log.
    #[error(
        "{consumer} stands at offset {stored} of {topic}/{partition}, not at {from}: another process has taken over"
    )]
    Moved { consumer: &'static str, topic: &'static str, partition: u32, from: u64, stored: u64 },
    /// The lease that guarded the step has gone to another process.
    #[error("the lease {consumer}/{partition} is not held any more")]
    LeaseLost { consumer: &'static str, partition: u32 },
    /// Messages that a consumer had not read are gone. Never skipped in silence: this is a gap, for an operator to see.
    #[error("{topic}/{partition} begins at offset {begins}, but offset {wanted} was asked for: messages are missing")]
    Trimmed { topic: &'static str, partition: u32, wanted: u64, begins: u64 },
    /// The file is of another version or damaged. Not for retrying.
    #[error("the log cannot be used: {0}")]
    Unusable(#[from] Unusable),
    /// SQLite or the file system failed: a full disk, a lock that was not released. Retrying may help.
    #[error("the log's storage failed: {0}")]
    Storage(Arc<rusqlite::Error>),
    /// A broker, or the way to it, failed. Nothing of the step has happened; trying again may help.
    #[error("Kafka: {0}")]
    Broker(String),
    /// No broker said for long whether the step has been taken. Only the log knows: begin again from it.
    #[error("Kafka: it is not known whether a step has been taken: {0}")]
    Undecided(String),
    /// Kafka will not do what is asked of it before an operator has changed something. Not for retrying.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The log is shutting down.
    #[error("the log is closed")]
    Closed,
}

/// Why a log file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unusable {
    #[error("it was written by format {found}, this harrier reads format {known}")]
    Format { found: String, known: &'static str },
    #[error("SQLite {found} has a defect in its write-ahead log; 3.51.3 or later is needed")]
    Sqlite { found: &'static str },
    #[error("a batch at offset {first} of {topic}/{partition} is damaged")]
    Batch { topic: &'static str, partition: u32, first: u64 },
    #[error("state of {store}/{partition} is damaged in its run {number}")]
    Run { store: &'static str, partition: u32, number: i64 },
    /// State that no committed step can have made: another tool wrote to the topic, or a guarantee of ours is broken.
    #[error("state in {topic}/{partition} was made by offset {made_by}, but its consumer stands at {committed}")]
    Ahead { topic: String, partition: u32, made_by: u64, committed: u64 },
    #[error("the topic {topic} holds what no harrier has written")]
    Foreign { topic: String },
}

impl From<rusqlite::Error> for LogError {
    fn from(error: rusqlite::Error) -> LogError {
        LogError::Storage(Arc::new(error))
    }
}

impl LogError {
    /// Whether the same step may succeed if it is tried again as it is.
    pub fn retryable(&self) -> bool {
        matches!(self, LogError::Storage(_) | LogError::Broker(_))
    }

    /// Whether the caller must drop its state and begin again from the log.
    pub fn must_reload(&self) -> bool {
        matches!(self, LogError::Moved { .. } | LogError::LeaseLost { .. } | LogError::Undecided(_))
    }
}
