//! The topics: made with the settings they need, or checked for them.
//!
//! | topic | partitions | what |
//! |---|---|---|
//! | `<prefix>.records`, `.verdicts`, ... | as configured | the messages; kept until they are trimmed |
//! | `<prefix>.state.<store>` | of its consumer | state by key, compacted: the newest value of each is kept |
//! | `<prefix>.offsets` | one a tenure | where each consumer stands, compacted |
//! | `<prefix>.slots` | [`SLOTS`] | always empty: who is assigned one has the leases of that number |
//! | `<prefix>.meta` | 1 | the log's id |
//!
//! Every partition of `state` and `offsets` has one writer, the holder of one tenure. So once that writer is fenced, all
//! that it has committed can be read: nobody else's open transaction lies before it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};

use super::fault::{EVENTS_AT_ONCE, Faults, fault, of_code};
use super::producer::{Deliveries, initialise};
use super::replay::{Partition, replay};
use super::settings::{MESSAGE_BYTES_MAX, Settings};
use crate::log::{Consumer, LogError, Refused, Store, Topic, Unusable};

/// Leases that belong to no partition of a topic are spread over so many slots: at most so many processes poll.
pub(super) const SLOTS: u32 = 16;

const FORMAT: &str = "harrier-kafka/1";

const ADMIN_TIMEOUT: Duration = Duration::from_secs(20);

/// How long one question for metadata may take, so that a refused sign-in is seen between two.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// Settings that a topic was made with. Those in the second list of [`Wanted`] must hold in one that is there already.
struct Wanted {
    name: String,
    partitions: u32,
    settings: Vec<(&'static str, String)>,
    checked: Vec<Check>,
}

enum Check {
    Is(&'static str, &'static str),
    AtLeast(&'static str, i64),
}

pub(super) fn state_topic(settings: &Settings, store: Store) -> String {
    settings.name(&format!("state.{}", store.name()))
}

/// Who writes a store, and the topic whose offsets its rows name.
pub(super) fn writer_of(store: Store) -> (Consumer, Option<Topic>) {
    match store {
        Store::Admit | Store::Rules => (Consumer::Match, Some(Topic::Records)),
        Store::Correlate | Store::Editions => (Consumer::Correlate, Some(Topic::Matches)),
        Store::Outbox | Store::Incidents => (Consumer::Notify, Some(Topic::Findings)),
        Store::Ledger => (Consumer::Poll, None),
        Store::Searches => (Consumer::Search, None),
    }
}

/// Whether a store's rows lie in the slot of their tenant's lease, which has one writer.
pub(super) fn by_slot(store: Store) -> bool {
    matches!(store, Store::Ledger | Store::Searches)
}

pub(super) fn partitions_of(settings: &Settings, store: Store) -> u32 {
    if by_slot(store) { SLOTS } else { settings.partitions }
}

pub(super) const STORES: [Store; 8] = [
    Store::Admit,
    Store::Rules,
    Store::Correlate,
    Store::Editions,
    Store::Ledger,
    Store::Searches,
    Store::Outbox,
    Store::Incidents,
];

fn wanted(settings: &Settings) -> Vec<Wanted> {
    let in_sync = if settings.replication >= 3 { "2" } else { "1" };
    let large = MESSAGE_BYTES_MAX.to_string();
    let topic = |name: String, partitions, own: &[(&'static str, &str)], mut checked: Vec<Check>| {
        let mut all = vec![
            ("min.insync.replicas", in_sync.to_owned()),
            ("max.message.bytes", large.clone()),
            ("unclean.leader.election.enable", "false".to_owned()),
            ("compression.type", "producer".to_owned()),
        ];
        all.extend(own.iter().map(|(key, value)| (*key, (*value).to_owned())));
        checked.push(Check::AtLeast("max.message.bytes", MESSAGE_BYTES_MAX as i64));
        checked.push(Check::AtLeast("min.insync.replicas", in_sync.parse().unwrap_or(1)));
        Wanted { name, partitions, settings: all, checked }
    };
    // Brokers delete nothing by themselves: messages go when every consumer has read them, and not before.
    let kept = [
        ("cleanup.policy", "delete"),
        ("retention.ms", "-1"),
        ("retention.bytes", "-1"),
        ("message.timestamp.type", "LogAppendTime"),
    ];
    let kept_checked = || {
        vec![
            Check::Is("cleanup.policy", "delete"),
            Check::Is("retention.ms", "-1"),
            Check::Is("retention.bytes", "-1"),
            Check::Is("message.timestamp.type", "LogAppendTime"),
        ]
    };
    let compacted = [("cleanup.policy", "compact")];
    let compacted_checked = || vec![Check::Is("cleanup.policy", "compact")];
    let mut topics = Vec::new();
    for topic_of in Topic::ALL {
        topics.push(topic(settings.name(topic_of.name()), settings.partitions, &kept, kept_checked()));
    }
    for store in STORES {
        topics.push(topic(
            state_topic(settings, store),
            partitions_of(settings, store),
            &compacted,
            compacted_checked(),
        ));
    }
    let tenures = super::unit::OFFSETS_EXTRA + 2 * settings.partitions;
    topics.push(topic(settings.name("offsets"), tenures, &compacted, compacted_checked()));
    topics.push(topic(settings.name("meta"), 1, &compacted, compacted_checked()));
    topics.push(topic(settings.name("slots"), SLOTS, &[], Vec::new()));
    topics
}

/// Said of a setting that the broker does not tell.
const UNKNOWN: &str = "unknown";

/// How long the settings of a topic may take to be told.
const SETTINGS_KNOWN_WITHIN: Duration = Duration::from_secs(10);

/// Makes what is missing, checks what is there, and returns the log's id.
pub(super) fn prepare(settings: &Settings, faults: &Faults) -> Result<String, LogError> {
    let reading = settings.reading()?;
    let consumer: BaseConsumer<Faults> =
        reading.create_with_context(faults.clone()).map_err(|error| fault(&error, "a consumer"))?;
    let known = look(&consumer, settings, faults)?;
    let wanted = wanted(settings);
    let missing: Vec<&Wanted> = wanted.iter().filter(|topic| !known.contains_key(&topic.name)).collect();
    let admin: AdminClient<Faults> =
        reading.create_with_context(faults.clone()).map_err(|error| fault(&error, "an admin client"))?;
    faults.provide(&admin)?;
    if !missing.is_empty() {
        create(&admin, &missing, settings)?;
        await_topics(&consumer, settings, faults, &missing)?;
    }
    let there: Vec<&Wanted> = wanted.iter().filter(|topic| known.contains_key(&topic.name)).collect();
    for topic in &there {
        let (partitions, replicas) = known.get(&topic.name).copied().unwrap_or_default();
        if partitions != topic.partitions as usize {
            let wanted = topic.partitions;
            return Err(Refused::Partitions { topic: topic.name.clone(), found: partitions, wanted }.into());
        }
        if replicas < usize::from(settings.replication) {
            let wanted = settings.replication;
            return Err(Refused::Replicas { topic: topic.name.clone(), found: replicas, wanted }.into());
        }
    }
    check_once_known(&admin, &there)?;
    // Clients take their time to end.
    std::thread::spawn(move || drop((admin, consumer)));
    log_id(settings, faults)
}

/// Partitions and least number of replicas of the topics with our prefix, once a broker answers.
fn look(
    consumer: &BaseConsumer<Faults>,
    settings: &Settings,
    faults: &Faults,
) -> Result<BTreeMap<String, (usize, usize)>, LogError> {
    let began = Instant::now();
    loop {
        faults.serve(consumer);
        let error = match consumer.fetch_metadata(None, LOOK_TIMEOUT) {
            Ok(metadata) => {
                let prefix = settings.name("");
                let ours = metadata.topics().iter().filter(|topic| topic.name().starts_with(&prefix));
                return Ok(ours
                    .map(|topic| {
                        let replicas = topic.partitions().iter().map(|partition| partition.replicas().len()).min();
                        (topic.name().to_owned(), (topic.partitions().len(), replicas.unwrap_or(0)))
                    })
                    .collect());
            }
            Err(error) => error,
        };
        // What went wrong in the background is told here only.
        for _ in 0..EVENTS_AT_ONCE {
            consumer.poll(Duration::ZERO);
        }
        if let Some(refused) = faults.refused() {
            return Err(refused.into());
        }
        if began.elapsed() > settings.brokers_within {
            let reason = faults.last().unwrap_or_else(|| error.to_string());
            let brokers = settings.brokers.join(", ");
            return Err(LogError::Broker(format!(
                "no broker of {brokers} answers: {reason}; is `brokers` right, and does Kafka run?"
            )));
        }
    }
}

/// A topic is there for everybody some time after it was made.
fn await_topics(
    consumer: &BaseConsumer<Faults>,
    settings: &Settings,
    faults: &Faults,
    topics: &[&Wanted],
) -> Result<(), LogError> {
    let began = Instant::now();
    loop {
        let known = look(consumer, settings, faults)?;
        let ready = |topic: &&&Wanted| known.get(&topic.name).is_some_and(|(n, _)| *n == topic.partitions as usize);
        if topics.iter().filter(ready).count() == topics.len() {
            return Ok(());
        }
        if began.elapsed() > ADMIN_TIMEOUT {
            return Err(LogError::Broker("topics were made, but the brokers do not show them".to_owned()));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn create(admin: &AdminClient<Faults>, topics: &[&Wanted], settings: &Settings) -> Result<(), LogError> {
    let new: Vec<NewTopic<'_>> = topics
        .iter()
        .map(|topic| {
            let new = NewTopic::new(
                &topic.name,
                topic.partitions as i32,
                TopicReplication::Fixed(i32::from(settings.replication)),
            );
            topic.settings.iter().fold(new, |new, (key, value)| new.set(key, value))
        })
        .collect();
    let options = AdminOptions::new().operation_timeout(Some(ADMIN_TIMEOUT)).request_timeout(Some(ADMIN_TIMEOUT));
    let results = wait(admin.create_topics(&new, &options))?.map_err(|error| fault(&error, "to create topics"))?;
    for result in results {
        match result {
            // Another process was faster; what it made is checked at the next start.
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code @ RDKafkaErrorCode::InvalidReplicationFactor)) => {
                let wanted = settings.replication;
                return Err(Refused::TooFewBrokers { wanted, reason: code.to_string() }.into());
            }
            Err((topic, code)) => {
                return Err(of_code(code, &format!("to create the topic {topic}"))
                    .unwrap_or_else(|| LogError::Broker(format!("the topic {topic} could not be made: {code}"))));
            }
        }
    }
    Ok(())
}

/// A broker that has just started, or has just been told of a topic, may know the topic but not its settings yet.
fn check_once_known(admin: &AdminClient<Faults>, topics: &[&Wanted]) -> Result<(), LogError> {
    let began = Instant::now();
    loop {
        match check(admin, topics) {
            Err(LogError::Refused(Refused::Setting { found, .. }))
                if found == UNKNOWN && began.elapsed() < SETTINGS_KNOWN_WITHIN =>
            {
                std::thread::sleep(Duration::from_millis(200));
            }
            result => return result,
        }
    }
}

fn check(admin: &AdminClient<Faults>, topics: &[&Wanted]) -> Result<(), LogError> {
    if topics.is_empty() {
        return Ok(());
    }
    let resources: Vec<ResourceSpecifier<'_>> =
        topics.iter().map(|topic| ResourceSpecifier::Topic(&topic.name)).collect();
    let options = AdminOptions::new().request_timeout(Some(ADMIN_TIMEOUT));
    let results = wait(admin.describe_configs(&resources, &options))?
        .map_err(|error| fault(&error, "to describe the settings of topics"))?;
    for (topic, result) in topics.iter().zip(results) {
        let found = result.map_err(|code| {
            of_code(code, &format!("to describe the settings of the topic {}", topic.name))
                .unwrap_or_else(|| LogError::Broker(format!("settings of {}: {code}", topic.name)))
        })?;
        let found: BTreeMap<&str, &str> =
            found.entries.iter().filter_map(|entry| Some((entry.name.as_str(), entry.value.as_deref()?))).collect();
        for check in &topic.checked {
            let (setting, wanted, holds) = match *check {
                Check::Is(setting, wanted) => {
                    (setting, wanted.to_owned(), found.get(setting).is_some_and(|found| *found == wanted))
                }
                Check::AtLeast(setting, least) => {
                    let number = found.get(setting).and_then(|found| found.parse::<i64>().ok());
                    (setting, format!("at least {least}"), number.is_some_and(|number| number >= least))
                }
            };
            if !holds {
                let found = found.get(setting).copied().unwrap_or(UNKNOWN).to_owned();
                return Err(Refused::Setting { topic: topic.name.clone(), setting, found, wanted }.into());
            }
        }
    }
    Ok(())
}

/// The id of the log: the first one written. Two processes that start together may both write one, and then agree.
fn log_id(settings: &Settings, faults: &Faults) -> Result<String, LogError> {
    let name = settings.name("meta");
    if let Some(id) = first_id(settings, faults, &name)? {
        return Ok(id);
    }
    let moment = Instant::now();
    let id = schemas::json::key_id(&[
        &name,
        &format!("{moment:?} {:?}", std::time::SystemTime::now()),
        &std::process::id().to_string(),
    ]);
    let id = id.get(..16).unwrap_or(&id).to_owned();
    let unique = settings.identity(&format!("meta-{id}"));
    let producer: ThreadedProducer<Deliveries> = settings
        .producing(&unique)?
        .create_with_context(Deliveries::new(faults.clone()))
        .map_err(|error| fault(&error, "a producer"))?;
    let failed = |error| fault(&error, "to write the log's id");
    initialise(&producer, "to write the log's id")?;
    producer.begin_transaction().map_err(failed)?;
    let value = format!("{FORMAT} {id}");
    let record = BaseRecord::with_opaque_to(&name, usize::MAX).partition(0).key(&id).payload(&value);
    producer.send(record).map_err(|(error, _)| failed(error))?;
    producer.commit_transaction(ADMIN_TIMEOUT).map_err(failed)?;
    let began = Instant::now();
    loop {
        if let Some(id) = first_id(settings, faults, &name)? {
            return Ok(id);
        }
        if began.elapsed() > ADMIN_TIMEOUT {
            return Err(LogError::Broker("the log's id was written and cannot be read".to_owned()));
        }
    }
}

fn first_id(settings: &Settings, faults: &Faults, name: &str) -> Result<Option<String>, LogError> {
    let mut first = None;
    replay(settings, faults, &[Partition { topic: name, partition: 0 }], |_, _, _, value| {
        if first.is_none() {
            first = value.map(|value| String::from_utf8_lossy(value).into_owned());
        }
        Ok(())
    })?;
    let Some(value) = first else { return Ok(None) };
    match value.split_once(' ') {
        Some((FORMAT, id)) => Ok(Some(id.to_owned())),
        Some((found, _)) if found.starts_with("harrier-") => {
            Err(Unusable::Format { found: found.to_owned(), known: FORMAT }.into())
        }
        _ => Err(Unusable::Foreign { topic: name.to_owned() }.into()),
    }
}

/// Waits for an answer of librdkafka's own threads, wherever it is called from.
pub(super) fn wait<F>(future: F) -> Result<F::Output, LogError>
where
    F: Future + Send,
    F::Output: Send,
{
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().ok()?;
            Some(runtime.block_on(future))
        });
        waiting.join().ok().flatten().ok_or(LogError::Closed)
    })
}
