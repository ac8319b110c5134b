//! Reading by offset, of what is committed.
//!
//! A cursor reads one partition on and has the next messages ready; who reads on from where a cursor stands takes it.
//! Several may read one partition from several places, so cursors are spread over clients (*lanes*): within one client
//! a partition can be read from one place only.
//!
//! # The end
//!
//! `read` gives nothing only where nothing that is committed lies between `from` and the end, as the broker says after
//! the call has begun. Markers of transactions and what was aborted take offsets too, so "not there yet" and "nothing
//! there" look alike from outside. Three things tell them apart: the position that librdkafka has come to, its word that
//! an end was reached, and, where that may be an old word, the same question anew from `from`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use tokio::sync::Notify;

use super::fault::{Faults, bounds, fault, is_passing};
use super::settings::Settings;
use crate::log::{LogError, Message, ReadLimit, Topic};

/// Most places that one partition is read from at once. The archive reads `findings` for three tables, notify for itself.
const LANES_MAX: usize = 6;

/// How many offsets a cursor reads over rather than being moved: moving one drops what it has ready and waits for the
/// fetch under way. Readers who go by what others say of a partition step over the markers of its transactions.
const READ_OVER_MAX: u64 = 64;

/// How long the word that an end was reached is left to be overtaken by a message under way, before asking anew.
const OVERTAKEN_WITHIN: Duration = Duration::from_millis(50);

/// A cursor that nobody has used for so long is given up, with what it holds ready.
const IDLE_MAX: Duration = Duration::from_secs(60);

const ASK: Duration = Duration::from_secs(10);

/// How long to wait for messages that the broker says are there.
const FETCHED_WITHIN: Duration = Duration::from_secs(20);

type Place = (Topic, u32);

pub(super) struct Reader {
    settings: Settings,
    faults: Faults,
    /// Told when a partition that was read to its end has more.
    news: Arc<Notify>,
    /// Asks where partitions end, for who reads what is committed.
    ends: BaseConsumer<Faults>,
    /// The same, with what is not decided yet.
    undecided_ends: BaseConsumer<Faults>,
    lanes: Mutex<Lanes>,
}

#[derive(Default)]
struct Lanes {
    clients: Vec<Arc<BaseConsumer<Faults>>>,
    cursors: HashMap<Place, Vec<Arc<Shared>>>,
    swept: Option<Instant>,
}

/// A cursor and what is known of it without waiting for its user.
struct Shared {
    lane: usize,
    client: Arc<BaseConsumer<Faults>>,
    at: Mutex<(u64, Instant)>,
    /// Made by its first user, who may wait for brokers.
    cursor: Mutex<Option<Cursor>>,
}

struct Cursor {
    client: Arc<BaseConsumer<Faults>>,
    queue: PartitionQueue<Faults>,
    /// The offset from which it reads on.
    at: u64,
    /// A message that did not fit into the last answer.
    held: Option<Message>,
    /// librdkafka has said that an end was reached, since the last message.
    ended: bool,
    /// It has been moved and has read nothing since: librdkafka's position is that of before.
    moved: bool,
    /// Nothing lies between `at` and this offset.
    void_until: u64,
}

impl Reader {
    pub(super) fn new(settings: &Settings, faults: &Faults, news: Arc<Notify>) -> Result<Reader, LogError> {
        let asking = |config: rdkafka::ClientConfig| {
            config.create_with_context(faults.clone()).map_err(|error| fault(&error, "a consumer"))
        };
        Ok(Reader {
            ends: asking(settings.reading()?)?,
            undecided_ends: asking(settings.asking_undecided()?)?,
            settings: settings.clone(),
            faults: faults.clone(),
            news,
            lanes: Mutex::default(),
        })
    }

    /// Where a partition begins, and one past the last offset that is decided.
    pub(super) fn bounds(&self, topic: Topic, partition: u32) -> Result<(u64, u64), LogError> {
        self.ask(&self.ends, topic, partition)
    }

    /// As [`Reader::bounds`], of any topic.
    pub(super) fn bounds_of(&self, topic: &str, partition: u32) -> Result<(u64, u64), LogError> {
        bounds(&self.ends, topic, partition)
    }

    /// As [`Reader::bounds`], with what is not decided yet.
    pub(super) fn bounds_undecided(&self, topic: Topic, partition: u32) -> Result<(u64, u64), LogError> {
        self.ask(&self.undecided_ends, topic, partition)
    }

    fn ask(&self, consumer: &BaseConsumer<Faults>, topic: Topic, partition: u32) -> Result<(u64, u64), LogError> {
        bounds(consumer, &self.settings.name(topic.name()), partition)
    }

    /// The first offset that was appended at this moment or later, in milliseconds; nothing if there is none.
    pub(super) fn offset_at(&self, topic: Topic, partition: u32, millis: i64) -> Result<Option<u64>, LogError> {
        let name = self.settings.name(topic.name());
        let failed = |error| fault(&error, &format!("to read the topic {name}"));
        let mut question = TopicPartitionList::new();
        question.add_partition_offset(&name, partition as i32, Offset::Offset(millis)).map_err(failed)?;
        let answer = self.ends.offsets_for_times(question, ASK).map_err(failed)?;
        Ok(answer.elements().first().and_then(|element| match element.offset() {
            Offset::Offset(offset) => Some(offset as u64),
            _ => None,
        }))
    }

    pub(super) fn read(
        &self,
        topic: Topic,
        partition: u32,
        from: u64,
        limit: ReadLimit,
    ) -> Result<Vec<Message>, LogError> {
        let shared = self.cursor(topic, partition, from)?;
        let mut cursor = shared.cursor.lock().unwrap_or_else(PoisonError::into_inner);
        let result = match &mut *cursor {
            Some(cursor) => Ok(cursor),
            None => self.begin(&shared.client, topic, partition, from).map(|begun| cursor.insert(begun)),
        }
        .and_then(|cursor| {
            let messages = self.read_with(cursor, (topic, partition), from, limit)?;
            *shared.at.lock().unwrap_or_else(PoisonError::into_inner) = (cursor.at, Instant::now());
            Ok(messages)
        });
        drop(cursor);
        if result.is_err() {
            // Where it stands after an error is not worth knowing.
            self.give_up((topic, partition), &shared);
        }
        result
    }

    fn read_with(
        &self,
        cursor: &mut Cursor,
        place: Place,
        from: u64,
        limit: ReadLimit,
    ) -> Result<Vec<Message>, LogError> {
        let (topic, partition) = place;
        let name = self.settings.name(topic.name());
        // Serves what concerns the client as a whole.
        cursor.client.poll(Duration::ZERO);
        if cursor.at != from && !cursor.read_over_to(from) {
            cursor.seek(&name, partition, from)?;
        }
        let mut messages = Vec::new();
        cursor.drain(limit, &mut messages).map_err(|error| self.failed(&error, place, from))?;
        if !messages.is_empty() {
            return Ok(messages);
        }
        let (begins, end) = self.bounds(topic, partition)?;
        if from < begins {
            return Err(LogError::Trimmed { topic: topic.name(), partition, wanted: from, begins });
        }
        let began = Instant::now();
        let mut asked_anew = false;
        while messages.is_empty() && from < end && cursor.void_until < end {
            if cursor.position(&name, partition).is_some_and(|position| position >= end) || (cursor.ended && asked_anew)
            {
                cursor.void_until = end;
                break;
            }
            if cursor.ended && began.elapsed() >= OVERTAKEN_WITHIN {
                cursor.seek(&name, partition, from)?;
                asked_anew = true;
            }
            match cursor.queue.poll(Duration::from_millis(50)).map(|event| event.map(|message| own(&message))) {
                Some(event) => cursor.note(event).map_err(|error| self.failed(&error, place, from))?,
                None if began.elapsed() > FETCHED_WITHIN => {
                    let reason = self.faults.last().unwrap_or_else(|| "the broker sends nothing".to_owned());
                    return Err(LogError::Broker(format!("reading {name}/{partition}: {reason}")));
                }
                None => {}
            }
            cursor.drain(limit, &mut messages).map_err(|error| self.failed(&error, place, from))?;
        }
        Ok(messages)
    }

    fn failed(&self, error: &KafkaError, (topic, partition): Place, from: u64) -> LogError {
        let trimmed = matches!(
            error.rdkafka_error_code(),
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
        );
        if trimmed
            && let Ok((begins, _)) = self.bounds(topic, partition)
            && from < begins
        {
            return LogError::Trimmed { topic: topic.name(), partition, wanted: from, begins };
        }
        fault(error, &format!("to read the topic {}", self.settings.name(topic.name())))
    }

    /// A cursor that nobody uses, best one that stands where it is to read or just before. Waits for nobody: it holds up all others.
    fn cursor(&self, topic: Topic, partition: u32, from: u64) -> Result<Arc<Shared>, LogError> {
        let mut lanes = self.lock();
        self.sweep(&mut lanes);
        let known = lanes.cursors.entry((topic, partition)).or_default();
        let standing = |shared: &Shared| *shared.at.lock().unwrap_or_else(PoisonError::into_inner);
        let near = |shared: &&Arc<Shared>| standing(shared).0 <= from && from - standing(shared).0 <= READ_OVER_MAX;
        let free = |shared: &&Arc<Shared>| shared.cursor.try_lock().is_ok();
        if let Some(shared) = known.iter().filter(near).filter(free).max_by_key(|shared| standing(shared).0) {
            return Ok(shared.clone());
        }
        let taken: Vec<usize> = known.iter().map(|shared| shared.lane).collect();
        if let Some(lane) = (0..LANES_MAX).find(|lane| !taken.contains(lane)) {
            while lanes.clients.len() <= lane {
                let client: BaseConsumer<Faults> = self
                    .settings
                    .reading()?
                    .create_with_context(self.faults.clone())
                    .map_err(|error| fault(&error, "a consumer"))?;
                lanes.clients.push(Arc::new(client));
            }
            let (client, at) = (lanes.clients[lane].clone(), Mutex::new((from, Instant::now())));
            let shared = Arc::new(Shared { lane, client, at, cursor: Mutex::new(None) });
            lanes.cursors.entry((topic, partition)).or_default().push(shared.clone());
            return Ok(shared);
        }
        let idle = known.iter().min_by_key(|shared| standing(shared).1);
        idle.cloned().ok_or(LogError::Closed)
    }

    fn begin(
        &self,
        client: &Arc<BaseConsumer<Faults>>,
        topic: Topic,
        partition: u32,
        from: u64,
    ) -> Result<Cursor, LogError> {
        let name = self.settings.name(topic.name());
        let failed = |error: KafkaError| fault(&error, &format!("to read the topic {name}"));
        // A client that does not know who leads a partition looks only twice a second: so it is made to look now.
        bounds(client, &name, partition)?;
        // Before the assignment: messages that come between the two would go to the client's common queue.
        let mut queue = client
            .split_partition_queue(&name, partition as i32)
            .ok_or_else(|| LogError::Broker(format!("{name}/{partition} cannot be read")))?;
        let news = self.news.clone();
        queue.set_nonempty_callback(move || news.notify_waiters());
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(&name, partition as i32, Offset::Offset(from as i64)).map_err(failed)?;
        client.incremental_assign(&assignment).map_err(failed)?;
        let client = client.clone();
        Ok(Cursor { client, queue, at: from, held: None, ended: false, moved: true, void_until: 0 })
    }

    fn sweep(&self, lanes: &mut Lanes) {
        if lanes.swept.is_some_and(|swept| swept.elapsed() < IDLE_MAX) {
            return;
        }
        lanes.swept = Some(Instant::now());
        for ((topic, partition), cursors) in &mut lanes.cursors {
            cursors.retain(|shared| {
                let idle = shared.at.lock().unwrap_or_else(PoisonError::into_inner).1.elapsed() > IDLE_MAX;
                let Some(cursor) = shared.cursor.try_lock().ok().filter(|_| idle) else { return true };
                if cursor.is_some() {
                    self.unassign(&shared.client, *topic, *partition);
                }
                false
            });
        }
    }

    fn give_up(&self, (topic, partition): Place, gone: &Arc<Shared>) {
        let mut lanes = self.lock();
        let Some(cursors) = lanes.cursors.get_mut(&(topic, partition)) else { return };
        let before = cursors.len();
        cursors.retain(|shared| !Arc::ptr_eq(shared, gone));
        if cursors.len() < before {
            self.unassign(&gone.client, topic, partition);
        }
    }

    fn unassign(&self, client: &BaseConsumer<Faults>, topic: Topic, partition: u32) {
        let mut gone = TopicPartitionList::new();
        gone.add_partition(&self.settings.name(topic.name()), partition as i32);
        if let Err(error) = client.incremental_unassign(&gone) {
            tracing::debug!(event = "unassign_failed", topic = topic.name(), partition, error = %error);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cursor {
    /// Lets go of what lies before an offset that is little further on. False where it does not.
    fn read_over_to(&mut self, from: u64) -> bool {
        let near = self.at < from && from - self.at <= READ_OVER_MAX;
        if near {
            self.at = from;
            self.held.take_if(|held| held.offset < from);
        }
        near
    }

    fn seek(&mut self, name: &str, partition: u32, from: u64) -> Result<(), LogError> {
        let failed = |error: KafkaError| LogError::Broker(format!("reading {name}/{partition}: {error}"));
        self.client.seek(name, partition as i32, Offset::Offset(from as i64), ASK).map_err(failed)?;
        self.at = from;
        self.held = None;
        self.ended = false;
        self.moved = true;
        self.void_until = 0;
        Ok(())
    }

    /// Takes what is there, up to the limit.
    fn drain(&mut self, limit: ReadLimit, messages: &mut Vec<Message>) -> Result<(), KafkaError> {
        let mut bytes = 0;
        loop {
            if self.held.is_none() {
                let Some(event) = self.queue.poll(Duration::ZERO) else { break };
                let taken = event.map(|message| own(&message));
                self.note(taken)?;
                continue;
            }
            let Some(message) = self.held.take() else { break };
            let full = messages.len() >= limit.messages || bytes + message.value.len() > limit.bytes;
            if full && !messages.is_empty() {
                self.held = Some(message);
                break;
            }
            bytes += message.value.len();
            self.at = message.offset + 1;
            messages.push(message);
        }
        Ok(())
    }

    fn note(&mut self, event: Result<Message, KafkaError>) -> Result<(), KafkaError> {
        match event {
            // Of before a seek.
            Ok(message) if message.offset < self.at => {}
            Ok(message) => {
                self.ended = false;
                self.moved = false;
                self.held = Some(message);
            }
            Err(KafkaError::PartitionEOF(_)) => self.ended = true,
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// How far librdkafka has come, markers included; nothing where it has read nothing since it was moved.
    fn position(&self, name: &str, partition: u32) -> Option<u64> {
        if self.moved {
            return None;
        }
        let positions = self.client.position().ok()?;
        match positions.find_partition(name, partition as i32)?.offset() {
            Offset::Offset(offset) => Some(offset as u64),
            _ => None,
        }
    }
}

fn own(message: &rdkafka::message::BorrowedMessage<'_>) -> Message {
    Message { offset: message.offset() as u64, value: message.payload().unwrap_or_default().to_vec() }
}
