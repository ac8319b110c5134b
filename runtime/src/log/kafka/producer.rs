//! One producer transaction: outputs, state, offsets, all or nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Message as _, TopicPartitionList};

use super::fault::{Faults, fault};
use super::settings::Settings;
use crate::log::{LogError, Refused};

/// How long to wait for the answer to a question of the transaction's coordinator before asking again.
const CALL: Duration = Duration::from_secs(10);

/// How long a transaction that must be decided is asked after. A broker that restarts takes less.
const DECIDED_WITHIN: Duration = Duration::from_secs(60);

/// Most messages that wait in librdkafka's queue are bounded by it; a full one is waited for so long at a time.
const QUEUE_WAIT: Duration = Duration::from_millis(20);

/// How long a group's coordinator may take to note offsets. Longer than [`CALL`], which librdkafka does not keep to here.
const OFFSETS_WITHIN: Duration = Duration::from_secs(15);

/// Between the word of the last message and its event being done with.
const EVENT_WAIT: Duration = Duration::from_micros(50);

/// Receives what became of each message.
pub(super) struct Deliveries {
    faults: Faults,
    outcome: Mutex<Outcome>,
    told: Condvar,
}

#[derive(Default)]
struct Outcome {
    /// Messages sent, and those of which it is known what became of them.
    sent: usize,
    done: usize,
    /// Index of the message, and its offset.
    offsets: Vec<(usize, u64)>,
    /// The first error, and the length of the message it came for.
    failed: Option<(KafkaError, usize)>,
}

impl Deliveries {
    pub(super) fn new(faults: Faults) -> Deliveries {
        Deliveries { faults, outcome: Mutex::default(), told: Condvar::new() }
    }

    /// Waits until it is known what became of every message; false if it takes too long.
    fn wait(&self) -> bool {
        let pending = |outcome: &mut Outcome| outcome.done < outcome.sent;
        let (outcome, _) =
            self.told.wait_timeout_while(self.lock(), DECIDED_WITHIN, pending).unwrap_or_else(PoisonError::into_inner);
        outcome.done >= outcome.sent
    }

    fn lock(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Deliveries {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.faults.token()
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.faults.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.faults.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    /// Index of the message in its step; `usize::MAX` for those whose place nobody asks for.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        let mut outcome = self.lock();
        outcome.done += 1;
        if outcome.done >= outcome.sent {
            self.told.notify_all();
        }
        match result {
            Ok(message) if index != usize::MAX => outcome.offsets.push((index, message.offset() as u64)),
            Ok(_) => {}
            Err((error, message)) => {
                outcome.failed.get_or_insert_with(|| (error.clone(), message.payload_len()));
            }
        }
    }
}

/// One message of a step.
pub(super) struct Post<'m> {
    pub topic: &'m str,
    pub partition: u32,
    pub key: Option<&'m [u8]>,
    pub value: Option<&'m [u8]>,
    /// Told back with its offset.
    pub index: usize,
}

/// Offsets that move with a step, for the group and so for everybody's tools.
pub(super) struct Moves {
    pub offsets: TopicPartitionList,
    pub group: ConsumerGroupMetadata,
}

/// Why a transaction could not be filled.
enum NotFilled {
    /// With the length of the message that it came for, if it was one.
    Failed(KafkaError, usize),
    /// A call does not come back, so nothing more can be asked of this producer, not even to abort.
    Stuck(KafkaError),
}

/// What became of a step that was not taken.
#[derive(Debug)]
pub(super) enum NotTaken {
    /// It was aborted. The same may be tried again.
    Aborted(KafkaError),
    /// The membership that it was committed under is out of date. It was aborted.
    OldMembership(KafkaError),
    /// Somebody else has the transactional id now, or this producer can do nothing more.
    Fenced(KafkaError),
    /// Nobody knows.
    Undecided(KafkaError),
    /// Not for retrying; it was aborted.
    Refused(LogError),
}

/// A producer that has fenced all who had its transactional id before.
pub(super) struct Producer {
    inner: Arc<ThreadedProducer<Deliveries>>,
    /// A message could not be delivered. librdkafka then begins its numbering anew, and purges what is sent meanwhile.
    spent: AtomicBool,
}

impl Producer {
    /// Fences the predecessor and waits until what it had begun is aborted, or committed where it had decided so.
    pub(super) fn open(settings: &Settings, faults: &Faults, transactional_id: &str) -> Result<Producer, LogError> {
        let what = format!("to write as {transactional_id}");
        let inner: ThreadedProducer<Deliveries> = settings
            .producing(transactional_id)?
            .create_with_context(Deliveries::new(faults.clone()))
            .map_err(|error| fault(&error, &what))?;
        initialise(&inner, &what)?;
        Ok(Producer { inner: Arc::new(inner), spent: AtomicBool::new(false) })
    }

    /// Whether this producer should take no further step: open another.
    pub(super) fn is_spent(&self) -> bool {
        self.spent.load(Ordering::Relaxed)
    }

    /// Takes a step: returns the offsets of its messages by index.
    pub(super) fn transact<'m>(
        &self,
        posts: impl Iterator<Item = Post<'m>>,
        moves: Option<Moves>,
    ) -> Result<Vec<(usize, u64)>, NotTaken> {
        *self.inner.context().lock() = Outcome::default();
        self.inner.begin_transaction().map_err(NotTaken::Fenced)?;
        crate::failpoint::reached("kafka_begun");
        match self.fill(posts, moves) {
            Ok(()) => {}
            Err(NotFilled::Failed(error, bytes)) => return Err(self.give_up(error, bytes)),
            Err(NotFilled::Stuck(error)) => return Err(NotTaken::Fenced(error)),
        }
        crate::failpoint::reached("kafka_before_commit");
        let began = Instant::now();
        loop {
            match self.inner.commit_transaction(CALL) {
                Ok(()) => break,
                Err(error) if is_retriable(&error) && began.elapsed() < DECIDED_WITHIN => {}
                // It has been asked for, and nobody has said no.
                Err(error) if is_retriable(&error) => return Err(NotTaken::Undecided(error)),
                Err(error) => {
                    // A message that could not be delivered says more.
                    let failed = self.inner.context().lock().failed.take();
                    self.spent.store(failed.is_some(), Ordering::Relaxed);
                    let (error, bytes) = failed.unwrap_or((error, 0));
                    return Err(self.give_up(error, bytes));
                }
            }
        }
        crate::failpoint::reached("kafka_after_commit");
        Ok(std::mem::take(&mut self.inner.context().lock().offsets))
    }

    fn fill<'m>(&self, posts: impl Iterator<Item = Post<'m>>, moves: Option<Moves>) -> Result<(), NotFilled> {
        for post in posts {
            let mut record = BaseRecord::<[u8], [u8], usize>::with_opaque_to(post.topic, post.index)
                .partition(post.partition as i32);
            record.key = post.key;
            record.payload = post.value;
            while let Err((error, back)) = self.inner.send(record) {
                if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                    return Err(NotFilled::Failed(error, post.value.map_or(0, <[u8]>::len)));
                }
                std::thread::sleep(QUEUE_WAIT);
                record = back;
            }
            self.inner.context().lock().sent += 1;
        }
        // `commit_transaction` would wait for them as well, but in steps of a tenth of a second.
        if !self.inner.context().wait() {
            return Err(NotFilled::Failed(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut), 0));
        }
        while self.inner.in_flight_count() > 0 {
            std::thread::sleep(EVENT_WAIT);
        }
        crate::failpoint::reached("kafka_outputs_written");
        moves.map_or(Ok(()), |moves| self.send_offsets(moves))
    }

    /// On a thread, because librdkafka does not keep to the timeout of this one call (its issue 5456): where the
    /// coordinator of the group has gone, it may come back when another broker comes or goes, and so never (5511). A
    /// thread that is left behind ends then; whoever opens this transactional id next fences what it does.
    fn send_offsets(&self, moves: Moves) -> Result<(), NotFilled> {
        let (inner, (told, answer)) = (self.inner.clone(), mpsc::channel());
        let send = move || {
            let sent = inner.send_offsets_to_transaction(&moves.offsets, &moves.group, CALL);
            // Before anybody is told: the last to hold the producer waits for its threads.
            drop(inner);
            // Nobody listens any more if it took too long.
            let _ = told.send(sent);
        };
        let timed_out = KafkaError::ConsumerCommit(RDKafkaErrorCode::OperationTimedOut);
        if std::thread::Builder::new().name("log-offsets".into()).spawn(send).is_err() {
            return Err(NotFilled::Failed(timed_out, 0));
        }
        match answer.recv_timeout(OFFSETS_WITHIN) {
            Ok(sent) => sent.map_err(|error| NotFilled::Failed(error, 0)),
            Err(_) => Err(NotFilled::Stuck(timed_out)),
        }
    }

    /// Aborts, if that is what is left, and says what it comes to.
    fn give_up(&self, error: KafkaError, bytes: usize) -> NotTaken {
        if is_fatal(&error) || self.inner.client().fatal_error().is_some() {
            return NotTaken::Fenced(error);
        }
        let began = Instant::now();
        loop {
            match self.inner.abort_transaction(CALL) {
                Ok(()) => break,
                Err(abort) if is_retriable(&abort) && began.elapsed() < DECIDED_WITHIN => {}
                // What is left open is aborted by whoever comes next under this id.
                Err(abort) => return NotTaken::Fenced(abort),
            }
        }
        use RDKafkaErrorCode as Code;
        match error.rdkafka_error_code() {
            Some(
                Code::IllegalGeneration
                | Code::UnknownMemberId
                | Code::RebalanceInProgress
                | Code::FencedInstanceId
                | Code::FencedMemberEpoch
                | Code::StaleMemberEpoch,
            ) => NotTaken::OldMembership(error),
            Some(Code::MessageSizeTooLarge | Code::MessageBatchTooLarge) => {
                NotTaken::Refused(Refused::TooLarge { bytes }.into())
            }
            _ => match fault(&error, "to write") {
                refused if !refused.retryable() => NotTaken::Refused(refused),
                _ => NotTaken::Aborted(error),
            },
        }
    }
}

/// Contiguous stretches of offsets.
pub(super) fn stretches(mut offsets: Vec<u64>) -> Vec<(u64, u64)> {
    offsets.sort_unstable();
    let mut stretches: Vec<(u64, u64)> = Vec::new();
    for offset in offsets {
        match stretches.last_mut() {
            Some((_, next)) if *next == offset => *next += 1,
            _ => stretches.push((offset, offset + 1)),
        }
    }
    stretches
}

/// Offsets told back, by where their messages went.
pub(super) fn by_place<P: Ord + Copy>(offsets: Vec<(usize, u64)>, places: &[P]) -> BTreeMap<P, Vec<u64>> {
    let mut by_place: BTreeMap<P, Vec<u64>> = BTreeMap::new();
    for (index, offset) in offsets {
        if let Some(place) = places.get(index) {
            by_place.entry(*place).or_default().push(offset);
        }
    }
    by_place
}

/// Fences whoever had the transactional id. A broker that has just begun takes its time to know its transactions.
pub(super) fn initialise(producer: &ThreadedProducer<Deliveries>, doing: &str) -> Result<(), LogError> {
    let began = Instant::now();
    loop {
        match producer.init_transactions(CALL) {
            Ok(()) => return Ok(()),
            Err(error) if is_retriable(&error) && began.elapsed() < DECIDED_WITHIN => {}
            Err(error) => return Err(fault(&error, doing)),
        }
    }
}

fn is_retriable(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Transaction(error) if error.is_retriable())
}

fn is_fatal(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(error, KafkaError::Transaction(error) if error.is_fatal())
        || matches!(
            error.rdkafka_error_code(),
            Some(
                Code::Fenced
                    | Code::ProducerFenced
                    | Code::InvalidProducerEpoch
                    | Code::Fatal
                    | Code::InvalidProducerIdMapping
            )
        )
}

#[cfg(test)]
mod tests {
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    use rdkafka::mocking::{MockCluster, MockCoordinator};

    use super::*;
    use crate::log::kafka::{BROKERS_WITHIN, Security};

    /// A mock broker, because what is shown is how long a call takes, not that a transaction is one.
    #[test]
    fn a_group_whose_coordinator_is_gone_holds_nobody_up() {
        let cluster = MockCluster::new(2).unwrap();
        cluster.create_topic("t", 1, 1).unwrap();
        cluster.coordinator(MockCoordinator::Transaction("id".into()), 1).unwrap();
        cluster.coordinator(MockCoordinator::Group("g".into()), 2).unwrap();
        let settings = Settings {
            brokers: vec![cluster.bootstrap_servers()],
            prefix: "harrier".into(),
            partitions: 1,
            replication: 1,
            security: Security::default(),
            options: BTreeMap::new(),
            cache_folder: std::path::PathBuf::new(),
            brokers_within: BROKERS_WITHIN,
        };
        let producer = Producer::open(&settings, &Faults::default(), "id").unwrap();
        let member: BaseConsumer<Faults> =
            settings.member("g").unwrap().create_with_context(Faults::default()).unwrap();
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset("t", 0, rdkafka::Offset::Offset(1)).unwrap();
        let moves = Moves { offsets, group: member.group_metadata().unwrap() };
        cluster.broker_down(2).unwrap();
        let began = Instant::now();
        let taken = producer.transact(std::iter::empty(), Some(moves));
        assert!(matches!(taken, Err(NotTaken::Fenced(_) | NotTaken::Aborted(_))), "{taken:?}");
        assert!(began.elapsed() < 4 * OFFSETS_WITHIN, "{:?}", began.elapsed());
    }
}
