//! A tenure: this process owns a unit, its predecessors are fenced, and its state is here.
//!
//! # The order in which a tenure begins
//!
//! 1. The group assigns the unit to this process.
//! 2. `init_transactions` under the unit's transactional id. From here on no predecessor can commit: what it had begun is
//!    aborted, what it had decided to commit is committed before the call returns.
//! 3. Offsets, then state, are read from partitions that only holders of this unit write to, to their end.
//!
//! Were 3 before 2, a predecessor could still commit what has not been read. Every row of state carries the offset at
//! which the step began that wrote it: one that is not below the offset that the consumer stands at breaks the tenure
//! off, because then the order, or somebody's topic, is not what it should be.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::TopicPartitionList;

use super::Inner;
use super::cache::{Cache, Filling};
use super::producer::{Moves, NotTaken, Post, Producer, by_place, stretches};
use super::replay::{Partition, replay};
use super::topics::{STORES, by_slot, partitions_of, state_topic, writer_of};
use super::unit::{Unit, by_partition};
use crate::log::{
    Committed, Input, LogError, Output, Range, StateChange, StateRow, Store, To, Topic, Txn, Unusable, partition_of,
};

/// Attempts at a step whose membership was out of date: rebalances pass.
const MEMBERSHIP_ATTEMPTS_MAX: u32 = 20;

/// The wait between them.
const MEMBERSHIP_WAIT: std::time::Duration = std::time::Duration::from_millis(100);

/// So long after its state a tenure begins that was told to begin in the wrong order: for the fault bench to let a
/// predecessor go on meanwhile.
const RESTORED_TOO_EARLY: std::time::Duration = std::time::Duration::from_secs(5);

/// Begins a row of state that no input made.
const NO_INPUT: u64 = u64::MAX;

pub(super) struct Tenure {
    pub unit: Unit,
    /// The group's assignment that it rests on.
    pub assignment: u64,
    /// Tells it from every other tenure of this process.
    pub number: u64,
    caches: HashMap<(Store, u32), Cache>,
    work: Mutex<Work>,
}

struct Work {
    producer: Producer,
    offsets: HashMap<(Topic, u32), u64>,
    /// Set when the producer can do nothing more.
    over: bool,
}

/// What a step writes, resolved to partitions.
struct Resolved<'t> {
    places: Vec<(Topic, u32)>,
    values: Vec<&'t [u8]>,
}

impl Tenure {
    pub(super) fn open(inner: &Inner, unit: Unit, assignment: u64, number: u64) -> Result<Tenure, LogError> {
        let id = inner.settings.identity(&format!("{}-{}", unit.consumer.name(), unit.slot));
        let mut stores = stores_of(unit, inner.settings.partitions);
        let mut caches = HashMap::new();
        for &(store, partition) in &stores {
            caches.insert((store, partition), Cache::new(&inner.folder, store, partition)?);
        }
        if crate::failpoint::is_broken("state-before-offsets") {
            restore(inner, unit, &stores, &caches, &mut HashMap::new())?;
            std::thread::sleep(RESTORED_TOO_EARLY);
            stores.clear();
        }
        let producer = Producer::open(&inner.settings, &inner.faults, &id)?;
        crate::failpoint::reached("kafka_fenced");
        let mut offsets = HashMap::new();
        restore(inner, unit, &stores, &caches, &mut offsets)?;
        crate::failpoint::reached("kafka_restored");
        let work = Mutex::new(Work { producer, offsets, over: false });
        Ok(Tenure { unit, assignment, number, caches, work })
    }

    pub(super) fn is_over(&self) -> bool {
        self.lock().over
    }

    pub(super) fn committed(&self, topic: Topic, partition: u32) -> u64 {
        self.lock().offsets.get(&(topic, partition)).copied().unwrap_or(0)
    }

    pub(super) fn cache(&self, store: Store, partition: u32) -> Option<&Cache> {
        self.caches.get(&(store, partition))
    }

    pub(super) fn caches_of(&self, store: Store) -> impl Iterator<Item = &Cache> {
        self.caches.iter().filter(move |((of, _), _)| *of == store).map(|(_, cache)| cache)
    }

    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost(&self) -> LogError {
        LogError::LeaseLost { consumer: self.unit.consumer.name(), partition: self.unit.slot }
    }

    /// Takes a step. Memory changes only when the log has it.
    pub(super) fn commit(&self, inner: &Inner, txn: &Txn) -> Result<Committed, LogError> {
        let mut work = self.lock();
        if work.over {
            return Err(self.lost());
        }
        for input in &txn.inputs {
            let stored = work.offsets.get(&(input.topic, input.partition)).copied().unwrap_or(0);
            if Unit::of_input(input) != self.unit {
                return Err(LogError::LeaseLost { consumer: input.consumer.name(), partition: input.partition });
            }
            if stored != input.from {
                return Err(moved(input, stored));
            }
        }
        for change in &txn.state {
            if self.cache(change.store, self.state_partition(change)).is_none() {
                let consumer = writer_of(change.store).0.name();
                return Err(LogError::LeaseLost { consumer, partition: change.partition });
            }
        }
        if txn.inputs.is_empty() && txn.outputs.is_empty() && txn.state.is_empty() {
            return Ok(Committed::default());
        }
        let resolved = resolve(&txn.outputs, inner.settings.partitions);
        let offsets = self.transact(inner, txn, &resolved, &mut work)?;
        for input in &txn.inputs {
            work.offsets.insert((input.topic, input.partition), input.next);
        }
        let mut changes: HashMap<(Store, u32), Vec<&StateChange>> = HashMap::new();
        for change in &txn.state {
            changes.entry((change.store, self.state_partition(change))).or_default().push(change);
        }
        for ((store, partition), changes) in changes {
            let Some(cache) = self.cache(store, partition) else { continue };
            let applied = cache.apply(changes.iter().map(|change| (change.key.as_slice(), change.value.as_deref())));
            if let Err(error) = applied {
                // The step is taken, only our copy is not: it must be made again.
                tracing::warn!(event = "state_cache_failed", store = store.name(), partition, error = %error);
                work.over = true;
                return Err(self.lost());
            }
        }
        Ok(Committed { ranges: ranges(offsets, &resolved.places) })
    }

    fn transact(
        &self,
        inner: &Inner,
        txn: &Txn,
        resolved: &Resolved<'_>,
        work: &mut Work,
    ) -> Result<Vec<(usize, u64)>, LogError> {
        let state = self.state_posts(inner, txn);
        let positions = self.offset_posts(inner, txn);
        let names = &inner.topic_names;
        for attempt in 1.. {
            let group = inner.membership(self.unit, self.assignment).ok_or_else(|| {
                work.over = true;
                self.lost()
            })?;
            let moves = (!txn.inputs.is_empty()).then(|| self.moves(inner, txn)).transpose()?;
            let moves = moves.map(|offsets| Moves { offsets, group });
            let outputs =
                resolved.places.iter().zip(&resolved.values).enumerate().map(|(index, (place, value))| Post {
                    topic: names.get(&place.0).map_or("", String::as_str),
                    partition: place.1,
                    key: None,
                    value: Some(value),
                    index,
                });
            let own = state.iter().chain(&positions).map(|post| Post {
                topic: &post.topic,
                partition: post.partition,
                key: Some(&post.key),
                value: post.value.as_deref(),
                index: usize::MAX,
            });
            match work.producer.transact(outputs.chain(own), moves) {
                Ok(offsets) => return Ok(offsets),
                Err(NotTaken::OldMembership(error)) if attempt < MEMBERSHIP_ATTEMPTS_MAX => {
                    tracing::debug!(event = "step_begun_again", consumer = self.unit.consumer.name(), error = %error);
                    std::thread::sleep(MEMBERSHIP_WAIT);
                }
                Err(NotTaken::Aborted(error) | NotTaken::OldMembership(error)) => {
                    // Another producer may be opened only together with another look at the offsets: somebody may have
                    // taken over, whom it would fence.
                    work.over = work.producer.is_spent();
                    return Err(LogError::Broker(format!("a step was not taken: {error}")));
                }
                Err(NotTaken::Refused(error)) => {
                    work.over = work.producer.is_spent();
                    return Err(error);
                }
                Err(NotTaken::Fenced(error) | NotTaken::Undecided(error)) => {
                    tracing::info!(
                        event = "tenure_over", consumer = self.unit.consumer.name(), partition = self.unit.slot,
                        reason = %error
                    );
                    work.over = true;
                    return Err(self.lost());
                }
            }
        }
        Err(self.lost())
    }

    /// Where a row lies: as its change says, or in the partition of the slot.
    fn state_partition(&self, change: &StateChange) -> u32 {
        if by_slot(change.store) { self.unit.slot } else { change.partition }
    }

    fn state_posts(&self, inner: &Inner, txn: &Txn) -> Vec<OwnPost> {
        let post = |change: &StateChange| {
            let (_, topic) = writer_of(change.store);
            let input = txn.inputs.iter().find(|i| Some(i.topic) == topic && i.partition == change.partition);
            let made_by = input.map_or(NO_INPUT, |input| input.from);
            let value = change.value.as_ref().map(|value| [&made_by.to_be_bytes()[..], value].concat());
            OwnPost {
                topic: state_topic(&inner.settings, change.store),
                partition: self.state_partition(change),
                key: change.key.clone(),
                value,
            }
        };
        txn.state.iter().map(post).collect()
    }

    fn offset_posts(&self, inner: &Inner, txn: &Txn) -> Vec<OwnPost> {
        let Some(partition) = self.unit.offsets_partition(inner.settings.partitions) else { return Vec::new() };
        let post = |input: &Input| OwnPost {
            topic: inner.settings.name("offsets"),
            partition,
            key: offset_key(input.topic, input.partition),
            value: Some(input.next.to_string().into_bytes()),
        };
        txn.inputs.iter().map(post).collect()
    }

    fn moves(&self, inner: &Inner, txn: &Txn) -> Result<TopicPartitionList, LogError> {
        let mut offsets = TopicPartitionList::new();
        for input in &txn.inputs {
            let name = inner.settings.name(input.topic.name());
            offsets
                .add_partition_offset(&name, input.partition as i32, rdkafka::Offset::Offset(input.next as i64))
                .map_err(|error| LogError::Broker(error.to_string()))?;
        }
        Ok(offsets)
    }
}

/// A message of our own topics.
struct OwnPost {
    topic: String,
    partition: u32,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

fn moved(input: &Input, stored: u64) -> LogError {
    LogError::Moved {
        consumer: input.consumer.name(),
        topic: input.topic.name(),
        partition: input.partition,
        from: input.from,
        stored,
    }
}

fn stores_of(unit: Unit, partitions: u32) -> Vec<(Store, u32)> {
    let mut stores = Vec::new();
    for store in STORES.into_iter().filter(|store| writer_of(*store).0 == unit.consumer) {
        if by_partition(unit.consumer) || by_slot(store) {
            stores.push((store, unit.slot));
        } else if unit.slot == 0 {
            stores.extend((0..partitions).map(|partition| (store, partition)));
        }
    }
    stores
}

/// A row's value as it was written, and the step that wrote it.
fn unpacked(value: &[u8]) -> Option<(u64, &[u8])> {
    let (step, value) = value.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*step), value))
}

/// All rows of a store as they are committed, whoever holds it.
pub(super) fn look(inner: &Inner, store: Store) -> Result<Vec<StateRow>, LogError> {
    let topic = state_topic(&inner.settings, store);
    let partitions: Vec<Partition<'_>> =
        (0..partitions_of(&inner.settings, store)).map(|partition| Partition { topic: &topic, partition }).collect();
    let mut rows = BTreeMap::new();
    replay(&inner.settings, &inner.faults, &partitions, |_, _, key, value| {
        let Some(value) = value else {
            rows.remove(key);
            return Ok(());
        };
        let (_, value) = unpacked(value).ok_or_else(|| Unusable::Foreign { topic: topic.clone() })?;
        rows.insert(key.to_vec(), value.to_vec());
        Ok(())
    })?;
    Ok(rows.into_iter().collect())
}

fn restore(
    inner: &Inner,
    unit: Unit,
    stores: &[(Store, u32)],
    caches: &HashMap<(Store, u32), Cache>,
    offsets: &mut HashMap<(Topic, u32), u64>,
) -> Result<(), LogError> {
    let mut topics: Vec<(String, u32)> = Vec::new();
    let own_offsets = unit.offsets_partition(inner.settings.partitions);
    if let Some(partition) = own_offsets {
        topics.push((inner.settings.name("offsets"), partition));
    }
    let first_store = topics.len();
    topics.extend(stores.iter().map(|(store, partition)| (state_topic(&inner.settings, *store), *partition)));
    if topics.is_empty() {
        return Ok(());
    }
    let mut filling: Vec<Filling<'_>> = stores.iter().filter_map(|store| caches.get(store)).map(Filling::new).collect();
    // The latest step that any row of the store says it was made by.
    let mut made_by: Vec<Option<u64>> = vec![None; stores.len()];
    let partitions: Vec<Partition<'_>> =
        topics.iter().map(|(topic, partition)| Partition { topic, partition: *partition }).collect();
    let began = std::time::Instant::now();
    let mut rows: u64 = 0;
    replay(&inner.settings, &inner.faults, &partitions, |index, _, key, value| {
        rows += 1;
        let foreign = || Unusable::Foreign { topic: topics[index].0.clone() };
        let Some(at) = index.checked_sub(first_store) else {
            let next = value.and_then(|value| std::str::from_utf8(value).ok()?.parse().ok()).ok_or_else(foreign)?;
            offsets.insert(offset_of_key(key).ok_or_else(foreign)?, next);
            return Ok(());
        };
        let Some(filling) = filling.get_mut(at) else { return Ok(()) };
        match value {
            None => filling.push(key, None),
            Some(value) => {
                let (step, value) = unpacked(value).ok_or_else(foreign)?;
                if step != NO_INPUT {
                    made_by[at] = made_by[at].max(Some(step));
                }
                filling.push(key, Some(value))
            }
        }
    })?;
    filling.iter_mut().try_for_each(Filling::flush)?;
    for (&(store, partition), made_by) in stores.iter().zip(&made_by) {
        let (Some(made_by), Some(topic)) = (*made_by, writer_of(store).1) else { continue };
        let committed = offsets.get(&(topic, partition)).copied().unwrap_or(0);
        if made_by >= committed {
            let topic = state_topic(&inner.settings, store);
            return Err(Unusable::Ahead { topic, partition, made_by, committed }.into());
        }
    }
    tracing::debug!(
        event = "state_restored",
        consumer = unit.consumer.name(),
        partition = unit.slot,
        rows,
        seconds = began.elapsed().as_secs_f64()
    );
    Ok(())
}

pub(super) fn offset_key(topic: Topic, partition: u32) -> Vec<u8> {
    format!("{}/{partition}", topic.name()).into_bytes()
}

pub(super) fn offset_of_key(key: &[u8]) -> Option<(Topic, u32)> {
    let (name, partition) = std::str::from_utf8(key).ok()?.split_once('/')?;
    let topic = Topic::ALL.into_iter().find(|topic| topic.name() == name)?;
    Some((topic, partition.parse().ok()?))
}

fn resolve(outputs: &[Output], partitions: u32) -> Resolved<'_> {
    let mut resolved =
        Resolved { places: Vec::with_capacity(outputs.len()), values: Vec::with_capacity(outputs.len()) };
    for output in outputs {
        let targets = match output.to {
            To::Key(key) => partition_of(key, partitions)..partition_of(key, partitions) + 1,
            To::Partition(partition) => partition..partition + 1,
            To::Everywhere => 0..partitions,
        };
        for partition in targets {
            resolved.places.push((output.topic, partition));
            resolved.values.push(&output.value);
        }
    }
    resolved
}

fn ranges(offsets: Vec<(usize, u64)>, places: &[(Topic, u32)]) -> Vec<Range> {
    let mut ranges = Vec::new();
    for ((topic, partition), offsets) in by_place(offsets, places) {
        // Others write between ours: only what is contiguous is one range.
        ranges.extend(stretches(offsets).into_iter().map(|(from, next)| Range { topic, partition, from, next }));
    }
    ranges
}

/// Writes steps that have neither inputs nor a lease: heartbeats and imports. Its transactional id is its own, so it
/// fences nobody.
pub(super) struct Free {
    producer: Mutex<Option<Producer>>,
}

impl Free {
    pub(super) fn new() -> Free {
        Free { producer: Mutex::new(None) }
    }

    pub(super) fn commit(&self, inner: &Inner, txn: &Txn) -> Result<Committed, LogError> {
        if let Some(change) = txn.state.first() {
            let consumer = writer_of(change.store).0.name();
            return Err(LogError::LeaseLost { consumer, partition: change.partition });
        }
        if txn.outputs.is_empty() {
            return Ok(Committed::default());
        }
        let mut producer = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        let open = match producer.take() {
            Some(open) => open,
            None => Producer::open(&inner.settings, &inner.faults, &inner.settings.identity(&inner.free_name))?,
        };
        let resolved = resolve(&txn.outputs, inner.settings.partitions);
        let posts = resolved.places.iter().zip(&resolved.values).enumerate().map(|(index, (place, value))| Post {
            topic: inner.topic_names.get(&place.0).map_or("", String::as_str),
            partition: place.1,
            key: None,
            value: Some(value),
            index,
        });
        match open.transact(posts, None) {
            Ok(offsets) => {
                *producer = Some(open);
                Ok(Committed { ranges: ranges(offsets, &resolved.places) })
            }
            Err(NotTaken::Aborted(error) | NotTaken::OldMembership(error)) => {
                *producer = Some(open).filter(|open| !open.is_spent());
                Err(LogError::Broker(format!("a step was not taken: {error}")))
            }
            Err(NotTaken::Refused(error)) => {
                *producer = Some(open).filter(|open| !open.is_spent());
                Err(error)
            }
            // The producer is dropped: the next step opens another under the same id, which aborts what is left.
            Err(NotTaken::Fenced(error)) => Err(LogError::Broker(format!("a step was not taken: {error}"))),
            Err(NotTaken::Undecided(error)) => Err(LogError::Undecided(error.to_string())),
        }
    }
}
