//! The log on Apache Kafka: for many hosts.
//!
//! # The guarantee
//!
//! A step is one producer transaction: its outputs, its changes of state (a compacted topic for each store) and the
//! offsets of its inputs. Who reads, reads what is committed. So a step is done once, as on the embedded log, though any
//! number of processes work on it and any of them may be killed, stopped or cut off at any moment.
//!
//! Who may take a step is decided twice. A consumer group assigns every partition of a consumer's input to one process,
//! which is what a lease is here: it saves work, and moves it when a process joins or leaves. What makes it right is the
//! transactional id of the partition: whoever takes the partition over fences all who had it before ([`tenure`]).
//!
//! # What is held here
//!
//! State is kept in a local copy ([`cache`]), made from its topic when a partition is taken over, changed only after a
//! commit, and dropped with the partition. Where a consumer stands is kept in a topic of our own beside the group's
//! offsets: Kafka forgets a group's offsets after a week of silence (`offsets.retention.minutes`), ours it never forgets.

mod cache;
mod fault;
mod member;
mod producer;
mod reader;
mod replay;
mod settings;
mod tenure;
mod token;
mod topics;
mod unit;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerGroupMetadata};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::Notify;

use super::{
    Committed, Consumer, Lease, Log, LogError, Message, ReadLimit, Refused, StateRow, Store, Topic, Txn, broken,
};
use cache::Folder;
use fault::{Faults, fault};
use member::Member;
use reader::Reader;
use replay::{Partition, replay};
use tenure::{Free, Tenure};
use unit::{Unit, by_partition};

pub use settings::{BROKERS_WITHIN, Sasl, Security, Settings};

const ASK: Duration = Duration::from_secs(10);

/// Calls that wait for brokers at once: a few for each partition of a large log.
const THREADS_MAX: usize = 256;

/// How long [`Log::settle`] waits for transactions to be decided: longer than any may stay open.
const SETTLED_WITHIN: Duration = Duration::from_secs(40);

/// The log on Kafka. Cheap to share behind an `Arc`; leaves its groups when dropped.
pub struct Kafka {
    inner: Arc<Inner>,
    /// Threads of our own: calls to librdkafka wait for brokers, and those who wait must not keep others from computing.
    threads: Option<tokio::runtime::Runtime>,
}

impl Drop for Kafka {
    fn drop(&mut self) {
        if let Some(threads) = self.threads.take() {
            // Calls under way end by themselves; each holds what it needs.
            threads.shutdown_background();
        }
    }
}

struct Inner {
    settings: Settings,
    faults: Faults,
    id: String,
    topic_names: HashMap<Topic, String>,
    folder: Folder,
    reader: Reader,
    news: Arc<Notify>,
    members: Mutex<HashMap<Consumer, Arc<Member>>>,
    tenures: Mutex<HashMap<Unit, Arc<Tenure>>>,
    /// One at a time begins a tenure of a unit; others wait for it.
    beginning: Mutex<HashMap<Unit, Arc<Mutex<()>>>>,
    tenures_begun: AtomicU64,
    /// Leases given out in this process, by consumer and number.
    leases: Mutex<HashMap<(Consumer, u32), Held>>,
    /// Ask how far groups have come of which this process is no member.
    observers: Mutex<HashMap<Consumer, Arc<BaseConsumer<Faults>>>>,
    /// What `offsets` held, by its partition, with the end at which it did.
    own_offsets: Mutex<HashMap<u32, OwnOffsets>>,
    free: Free,
    /// Names this process's own producer.
    free_name: String,
}

/// The end of a partition, and the positions that it held.
type OwnOffsets = (u64, HashMap<(Topic, u32), u64>);

struct Held {
    owner: String,
    tenure: u64,
    until: Instant,
}

impl Kafka {
    /// Connects, makes the topics that are missing, and checks those that are there. Waits for brokers for a while.
    pub fn open(settings: Settings) -> Result<Kafka, LogError> {
        let faults = Faults::new(&settings);
        let id = topics::prepare(&settings, &faults)?;
        let folder = Folder::open(&settings.cache_folder).map_err(|error| {
            Refused::File(format!("cannot make the folder {}: {error}", settings.cache_folder.display()))
        })?;
        let news = Arc::new(Notify::new());
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let unique = schemas::json::key_id(&[
            &since.as_nanos().to_string(),
            &std::process::id().to_string(),
            &format!("{:p}", &faults),
        ]);
        let inner = Inner {
            reader: Reader::new(&settings, &faults, news.clone())?,
            topic_names: Topic::ALL.into_iter().map(|topic| (topic, settings.name(topic.name()))).collect(),
            id,
            folder,
            news,
            members: Mutex::default(),
            tenures: Mutex::default(),
            beginning: Mutex::default(),
            tenures_begun: AtomicU64::new(0),
            leases: Mutex::default(),
            observers: Mutex::default(),
            own_offsets: Mutex::default(),
            free: Free::new(),
            free_name: format!("free-{unique}"),
            settings,
            faults,
        };
        let threads = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(THREADS_MAX)
            .thread_name("log")
            .build()
            .map_err(|_| LogError::Closed)?;
        Ok(Kafka { inner: Arc::new(inner), threads: Some(threads) })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let inner = self.inner.clone();
        let threads = self.threads.as_ref().ok_or(LogError::Closed)?;
        threads.spawn_blocking(move || work(&inner)).await.map_err(|_| LogError::Closed)?
    }
}

#[async_trait]
impl Log for Kafka {
    fn partitions(&self) -> u32 {
        self.inner.settings.partitions
    }

    fn id(&self) -> &str {
        &self.inner.id
    }

    async fn commit_shared(&self, txn: Arc<Txn>) -> Result<Committed, LogError> {
        let committed = self.blocking(move |inner| inner.commit(&txn)).await?;
        self.inner.news.notify_waiters();
        Ok(committed)
    }

    async fn read(&self, topic: Topic, partition: u32, from: u64, limit: ReadLimit) -> Result<Vec<Message>, LogError> {
        self.blocking(move |inner| inner.reader.read(topic, partition, from, limit)).await
    }

    async fn settle(&self) -> Result<(), LogError> {
        self.blocking(Inner::settle).await
    }

    async fn committed(&self, consumer: Consumer, topic: Topic, partition: u32) -> Result<u64, LogError> {
        self.blocking(move |inner| inner.committed(consumer, topic, partition)).await
    }

    async fn end(&self, topic: Topic, partition: u32) -> Result<u64, LogError> {
        self.blocking(move |inner| Ok(inner.reader.bounds(topic, partition)?.1)).await
    }

    async fn scan(&self, store: Store, partition: u32, prefix: &[u8]) -> Result<Vec<StateRow>, LogError> {
        let prefix = prefix.to_vec();
        self.blocking(move |inner| inner.scan(store, partition, &prefix)).await
    }

    async fn scan_each(
        &self,
        store: Store,
        partition: u32,
        prefixes: Vec<Vec<u8>>,
    ) -> Result<Vec<Vec<StateRow>>, LogError> {
        self.blocking(move |inner| prefixes.iter().map(|prefix| inner.scan(store, partition, prefix)).collect()).await
    }

    async fn look(&self, store: Store) -> Result<Vec<StateRow>, LogError> {
        self.blocking(move |inner| tenure::look(inner, store)).await
    }

    async fn acquire(&self, lease: &Lease, hold: Duration) -> Result<bool, LogError> {
        let lease = lease.clone();
        self.blocking(move |inner| inner.acquire(&lease, hold)).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), LogError> {
        let lease = lease.clone();
        self.blocking(move |inner| {
            inner.release(&lease);
            Ok(())
        })
        .await
    }

    async fn wait(&self, timeout: Duration) {
        let _ = tokio::time::timeout(timeout, self.inner.news.notified()).await;
    }

    async fn trim(&self, before: DateTime<Utc>) -> Result<u64, LogError> {
        self.blocking(move |inner| inner.trim(before)).await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn lost(unit: Unit) -> LogError {
    LogError::LeaseLost { consumer: unit.consumer.name(), partition: unit.slot }
}

impl Inner {
    fn commit(&self, txn: &Txn) -> Result<Committed, LogError> {
        let unit = match (&txn.lease, txn.inputs.first()) {
            (Some(lease), _) => Unit::of_lease(lease),
            (None, Some(input)) => Unit::of_input(input),
            (None, None) => return self.free.commit(self, txn),
        };
        let tenure = lock(&self.tenures).get(&unit).cloned().ok_or_else(|| lost(unit))?;
        if let Some(lease) = &txn.lease {
            let leases = lock(&self.leases);
            let held = leases.get(&(lease.consumer, lease.partition));
            if !held.is_some_and(|held| held.owner == lease.owner && held.tenure == tenure.number) {
                return Err(LogError::LeaseLost { consumer: lease.consumer.name(), partition: lease.partition });
            }
        }
        if let Some([first, second]) = broken::halves(txn) {
            let first = tenure.commit(self, &first)?;
            crate::failpoint::reached("log_half_committed");
            return Ok(broken::whole(first, tenure.commit(self, &second)?));
        }
        tenure.commit(self, txn)
    }

    /// The membership under which a unit commits; nothing if its assignment is not what it was.
    fn membership(&self, unit: Unit, assignment: u64) -> Option<ConsumerGroupMetadata> {
        let member = lock(&self.members).get(&unit.consumer).cloned()?;
        if member.assignment_now(unit.slot) != Some(assignment) {
            return None;
        }
        member.metadata()
    }

    fn settle(&self) -> Result<(), LogError> {
        let mut open = Vec::new();
        for topic in Topic::ALL {
            for partition in 0..self.settings.partitions {
                open.push((topic, partition, self.reader.bounds_undecided(topic, partition)?.1));
            }
        }
        let began = Instant::now();
        loop {
            let mut still = Vec::new();
            for (topic, partition, end) in open {
                if self.reader.bounds(topic, partition)?.1 < end {
                    still.push((topic, partition, end));
                }
            }
            open = still;
            if open.is_empty() {
                return Ok(());
            }
            if began.elapsed() > SETTLED_WITHIN {
                return Err(LogError::Broker("a transaction stays open for longer than it may".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn committed(&self, consumer: Consumer, topic: Topic, partition: u32) -> Result<u64, LogError> {
        let unit = Unit { consumer, slot: if by_partition(consumer) { partition } else { 0 } };
        let tenure = lock(&self.tenures).get(&unit).cloned();
        if let Some(tenure) = tenure
            && !tenure.is_over()
            && self.membership(unit, tenure.assignment).is_some()
        {
            return Ok(tenure.committed(topic, partition));
        }
        let failed = |error| fault(&error, &format!("to read from the group {}", self.group(consumer)));
        let mut question = TopicPartitionList::new();
        question.add_partition(&self.settings.name(topic.name()), partition as i32);
        let member = lock(&self.members).get(&consumer).cloned();
        let answer = match member {
            Some(member) => member.committed(question, ASK).map_err(failed)?,
            None => self.observer(consumer)?.committed_offsets(question, ASK).map_err(failed)?,
        };
        match answer.elements().first().map(|element| element.offset()) {
            Some(Offset::Offset(offset)) => Ok(offset as u64),
            // Never committed, or forgotten by the group.
            _ => self.own_offset(unit, topic, partition),
        }
    }

    fn own_offset(&self, unit: Unit, topic: Topic, partition: u32) -> Result<u64, LogError> {
        let Some(own) = unit.offsets_partition(self.settings.partitions) else { return Ok(0) };
        let name = self.settings.name("offsets");
        let (_, end) = self.reader.bounds_of(&name, own)?;
        let mut known = lock(&self.own_offsets);
        let (known_end, positions) = known.entry(own).or_default();
        if *known_end != end {
            positions.clear();
            replay(&self.settings, &self.faults, &[Partition { topic: &name, partition: own }], |_, _, key, value| {
                let next = value.and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
                if let (Some(place), Some(next)) = (tenure::offset_of_key(key), next) {
                    positions.insert(place, next);
                }
                Ok(())
            })?;
            *known_end = end;
        }
        Ok(positions.get(&(topic, partition)).copied().unwrap_or(0))
    }

    fn observer(&self, consumer: Consumer) -> Result<Arc<BaseConsumer<Faults>>, LogError> {
        let mut observers = lock(&self.observers);
        if let Some(observer) = observers.get(&consumer) {
            self.faults.serve(observer);
            return Ok(observer.clone());
        }
        let config = self.settings.member(&self.group(consumer))?;
        let observer: BaseConsumer<Faults> =
            config.create_with_context(self.faults.clone()).map_err(|error| fault(&error, "a consumer"))?;
        self.faults.serve(&observer);
        let observer = Arc::new(observer);
        observers.insert(consumer, observer.clone());
        Ok(observer)
    }

    fn group(&self, consumer: Consumer) -> String {
        self.settings.identity(consumer.name())
    }

    fn scan(&self, store: Store, partition: u32, prefix: &[u8]) -> Result<Vec<StateRow>, LogError> {
        let (consumer, _) = topics::writer_of(store);
        if topics::by_slot(store) {
            // Rows of one tenant lie in the slot of its lease, and its name begins their keys.
            let tenures: Vec<Arc<Tenure>> =
                lock(&self.tenures).values().filter(|tenure| tenure.unit.consumer == consumer).cloned().collect();
            let mut rows = Vec::new();
            for tenure in &tenures {
                for cache in tenure.caches_of(store) {
                    rows.extend(cache.scan(prefix)?);
                }
            }
            rows.sort();
            return Ok(rows);
        }
        let unit = Unit { consumer, slot: if by_partition(consumer) { partition } else { 0 } };
        let tenure = lock(&self.tenures).get(&unit).cloned().ok_or_else(|| lost(unit))?;
        tenure.cache(store, partition).ok_or_else(|| lost(unit))?.scan(prefix)
    }

    fn acquire(&self, lease: &Lease, hold: Duration) -> Result<bool, LogError> {
        let unit = Unit::of_lease(lease);
        let key = (lease.consumer, lease.partition);
        let Some(assignment) = self.member(lease.consumer)?.assignment(unit.slot)? else {
            lock(&self.tenures).remove(&unit);
            let mut leases = lock(&self.leases);
            if leases.get(&key).is_some_and(|held| held.owner == lease.owner) {
                leases.remove(&key);
            }
            return Ok(false);
        };
        if self.is_held_by_other(lease) {
            return Ok(false);
        }
        let tenure = self.tenure(unit, assignment)?;
        let mut leases = lock(&self.leases);
        let until = Instant::now() + hold;
        match leases.get_mut(&key) {
            Some(held) if held.owner == lease.owner && held.tenure != tenure.number => {
                // The tenure that it was given under is over, and somebody else may have worked since.
                leases.remove(&key);
                Ok(false)
            }
            Some(held) if held.owner == lease.owner => {
                held.until = until;
                Ok(true)
            }
            Some(held) if held.until > Instant::now() && held.tenure == tenure.number => Ok(false),
            _ => {
                leases.insert(key, Held { owner: lease.owner.clone(), tenure: tenure.number, until });
                Ok(true)
            }
        }
    }

    fn is_held_by_other(&self, lease: &Lease) -> bool {
        let leases = lock(&self.leases);
        let held = leases.get(&(lease.consumer, lease.partition));
        held.is_some_and(|held| held.owner != lease.owner && held.until > Instant::now())
    }

    fn member(&self, consumer: Consumer) -> Result<Arc<Member>, LogError> {
        let mut members = lock(&self.members);
        if let Some(member) = members.get(&consumer) {
            return Ok(member.clone());
        }
        let topic = match consumer {
            Consumer::Match => self.settings.name(Topic::Records.name()),
            Consumer::Correlate => self.settings.name(Topic::Matches.name()),
            Consumer::Notify | Consumer::Archive | Consumer::Poll | Consumer::Search => self.settings.name("slots"),
        };
        let member = Arc::new(Member::join(&self.settings, &self.faults, &self.group(consumer), &topic)?);
        members.insert(consumer, member.clone());
        Ok(member)
    }

    /// The tenure of a unit that is assigned to us; begun if it is not there or is not what it was.
    fn tenure(&self, unit: Unit, assignment: u64) -> Result<Arc<Tenure>, LogError> {
        let beginning = lock(&self.beginning).entry(unit).or_default().clone();
        let _one_at_a_time = lock(&beginning);
        let known = lock(&self.tenures).get(&unit).cloned();
        if let Some(tenure) = known
            && tenure.assignment == assignment
            && !tenure.is_over()
        {
            return Ok(tenure);
        }
        lock(&self.tenures).remove(&unit);
        let number = self.tenures_begun.fetch_add(1, Ordering::Relaxed);
        let tenure = Arc::new(Tenure::open(self, unit, assignment, number)?);
        lock(&self.tenures).insert(unit, tenure.clone());
        Ok(tenure)
    }

    fn release(&self, lease: &Lease) {
        let key = (lease.consumer, lease.partition);
        let unit = Unit::of_lease(lease);
        let mut leases = lock(&self.leases);
        if leases.get(&key).is_some_and(|held| held.owner == lease.owner) {
            leases.remove(&key);
        }
        let of_unit = |(consumer, partition): &(Consumer, u32)| {
            let lease = Lease { consumer: *consumer, partition: *partition, owner: String::new() };
            Unit::of_lease(&lease) == unit
        };
        if !leases.keys().any(of_unit) {
            lock(&self.tenures).remove(&unit);
        }
        // Who holds nothing keeps nothing from others: the group gives it to them at once. Also who has waited in vain,
        // else the group might give it what nobody works on.
        let done = !leases.keys().any(|(consumer, _)| *consumer == lease.consumer);
        drop(leases);
        if done {
            let member = lock(&self.members).remove(&lease.consumer);
            drop(member);
        }
    }

    fn trim(&self, before: DateTime<Utc>) -> Result<u64, LogError> {
        let mut upto = TopicPartitionList::new();
        let mut trimmed = 0;
        for topic in Topic::ALL {
            for partition in 0..self.settings.partitions {
                let mut target = match self.reader.offset_at(topic, partition, before.timestamp_millis())? {
                    Some(offset) => offset,
                    None => self.reader.bounds(topic, partition)?.1,
                };
                for &consumer in Consumer::of(topic) {
                    target = target.min(self.committed(consumer, topic, partition)?);
                }
                let (begins, _) = self.reader.bounds(topic, partition)?;
                if target > begins {
                    trimmed += target - begins;
                    upto.add_partition_offset(
                        &self.settings.name(topic.name()),
                        partition as i32,
                        Offset::Offset(target as i64),
                    )
                    .map_err(|error| fault(&error, "to delete records"))?;
                }
            }
        }
        if trimmed == 0 {
            return Ok(0);
        }
        let admin: AdminClient<Faults> = self
            .settings
            .reading()?
            .create_with_context(self.faults.clone())
            .map_err(|error| fault(&error, "an admin client"))?;
        self.faults.provide(&admin)?;
        let options = AdminOptions::new().request_timeout(Some(ASK)).operation_timeout(Some(ASK));
        let answer =
            topics::wait(admin.delete_records(&upto, &options))?.map_err(|error| fault(&error, "to delete records"))?;
        for element in answer.elements() {
            element.error().map_err(|error| fault(&error, "to delete records"))?;
        }
        Ok(trimmed)
    }
}
