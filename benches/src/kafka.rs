//! The log on a real Apache Kafka: detectors side by side, what librdkafka itself can do on the same broker, and how
//! long a start takes with much state.
//!
//! The broker is one node on loopback from `deploy/kafka/kafka.sh`, fresh for each program.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use chrono::{DateTime, Utc};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use runtime::log::embedded::Embedded;
use runtime::log::kafka::{BROKERS_WITHIN, Kafka, Security, Settings};
use runtime::log::{Consumer, Input, Lease, Log, Output, ReadLimit, StateChange, Store, To, Topic, Txn};
use schemas::envelope::{Envelope, Origin, Received};
use schemas::json::{key_hash, key_id};
use schemas::message::FindingMessage;

const PARTITIONS: u32 = 6;

/// Records or rows of one step.
const STEP: usize = 2_000;

/// A broker that ends with its value.
struct Broker {
    script: PathBuf,
    folder: tempfile::TempDir,
    address: String,
}

impl Broker {
    fn start() -> anyhow::Result<Broker> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kafka/kafka.sh");
        let folder = tempfile::tempdir()?;
        let started =
            Command::new(&script).args(["start", "1"]).arg(folder.path()).stderr(Stdio::inherit()).output()?;
        anyhow::ensure!(started.status.success(), "Kafka could not be started");
        let address = String::from_utf8(started.stdout)?.trim().to_owned();
        Ok(Broker { script, folder, address })
    }

    fn open(&self, prefix: &str, cache: &Path) -> anyhow::Result<Kafka> {
        Ok(Kafka::open(Settings {
            brokers: vec![self.address.clone()],
            prefix: prefix.to_owned(),
            partitions: PARTITIONS,
            replication: 1,
            security: Security::default(),
            options: BTreeMap::new(),
            cache_folder: cache.to_owned(),
            brokers_within: BROKERS_WITHIN,
        })?)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // A broker that is left over is the operator's to stop; nothing here depends on it.
        let _ = Command::new(&self.script).arg("stop").arg(self.folder.path()).status();
    }
}

/// Processes that end with their value.
struct Detectors(Vec<Child>);

impl Drop for Detectors {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn envelopes(file: &Path, records: usize) -> anyhow::Result<Vec<(u128, Vec<u8>)>> {
    let tenant: schemas::tenant::Tenant = "t1".parse()?;
    let lines = std::io::BufReader::new(std::fs::File::open(file)?).split(b'\n').take(records);
    lines
        .map(|line| {
            let origin = Origin {
                tenant: tenant.clone(),
                source: "import".into(),
                content_type: String::new(),
                blob_id: "bench".into(),
                received: DateTime::<Utc>::UNIX_EPOCH,
                notify: true,
            };
            let received = Received { origin, bytes: line? };
            let id = schemas::Event::read_head(&received)?.id;
            Ok((key_hash(&["t1", &id]), Envelope::Record(received).encode()))
        })
        .collect()
}

/// The same records judged by one detector and by several, and moved by librdkafka alone.
pub fn detect(harrier: &Path, counts: &[u32], records: usize, file: &Path) -> anyhow::Result<()> {
    let messages = envelopes(file, records)?;
    let broker = Broker::start()?;
    let executor = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    limit(&broker, &messages)?;
    for (round, count) in counts.iter().enumerate() {
        let cache = tempfile::tempdir()?;
        let prefix = format!("detect-{round}");
        let log = broker.open(&prefix, cache.path())?;
        let filled = Instant::now();
        executor.block_on(fill(&log, &messages))?;
        let filling = messages.len() as f64 / filled.elapsed().as_secs_f64();
        let folder = tempfile::tempdir()?;
        let started = Instant::now();
        let detectors = Detectors(
            (0..*count)
                .map(|number| start(harrier, folder.path(), number, &broker, &prefix))
                .collect::<Result<_, _>>()?,
        );
        executor.block_on(judged(&log))?;
        let seconds = started.elapsed().as_secs_f64();
        drop(detectors);
        let (findings, digest) = executor.block_on(standing(&log))?;
        println!(
            "kafka detect: {} records, {count} detectors: {seconds:.1} s from start to done = {:.0} records/s; {findings} findings, digest {digest}; committed by one writer at {filling:.0} records/s",
            messages.len(),
            messages.len() as f64 / seconds
        );
    }
    Ok(())
}

fn start(harrier: &Path, folder: &Path, number: u32, broker: &Broker, prefix: &str) -> anyhow::Result<Child> {
    let config = folder.join(format!("{number}.toml"));
    let data_dir = folder.join(format!("data-{number}"));
    let text = format!(
        "data_dir = {data_dir:?}\n[http]\nlisten = \"127.0.0.1:0\"\n[log]\nkind = \"kafka\"\nbrokers = [{:?}]\nprefix = {prefix:?}\npartitions = {PARTITIONS}\nreplication = 1\n",
        broker.address
    );
    std::fs::write(&config, text)?;
    Command::new(harrier)
        .args(["run", "--quiet", "--role", "detect", "--config"])
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", harrier.display()))
}

async fn fill(log: &dyn Log, messages: &[(u128, Vec<u8>)]) -> anyhow::Result<()> {
    for step in messages.chunks(STEP) {
        let output =
            |(key, value): &(u128, Vec<u8>)| Output { topic: Topic::Records, to: To::Key(*key), value: value.clone() };
        log.commit(Txn { outputs: step.iter().map(output).collect(), ..Txn::default() }).await?;
    }
    Ok(log.settle().await?)
}

/// Waits until all records have been matched, and all matches correlated.
async fn judged(log: &dyn Log) -> anyhow::Result<()> {
    for (consumer, topic) in [(Consumer::Match, Topic::Records), (Consumer::Correlate, Topic::Matches)] {
        for partition in 0..log.partitions() {
            loop {
                log.settle().await?;
                let at = log.committed(consumer, topic, partition).await?;
                let limit = ReadLimit { messages: 1, bytes: 0 };
                if log.read(topic, partition, at, limit).await?.is_empty() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    Ok(())
}

/// How many findings stand, and a digest of them.
async fn standing(log: &dyn Log) -> anyhow::Result<(usize, String)> {
    log.settle().await?;
    let mut newest = BTreeMap::new();
    for partition in 0..log.partitions() {
        let mut at = 0;
        loop {
            let messages = log.read(Topic::Findings, partition, at, ReadLimit::default()).await?;
            let Some(last) = messages.last() else { break };
            at = last.offset + 1;
            for message in &messages {
                if let FindingMessage::Finding(finding) = serde_json::from_slice(&message.value)? {
                    newest.insert(finding.id.clone(), *finding);
                }
            }
        }
    }
    newest.retain(|_, finding| finding.status.stands());
    let told: Vec<String> = newest
        .values()
        .map(|f| format!("{} {} {} {} {}", f.id, f.first_event, f.last_event, f.event_count, f.reason))
        .collect();
    let parts: Vec<&str> = told.iter().map(String::as_str).collect();
    Ok((newest.len(), key_id(&parts)[..12].to_owned()))
}

/// Producing and consuming the same messages with librdkafka alone: no transactions, nothing judged.
fn limit(broker: &Broker, messages: &[(u128, Vec<u8>)]) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    // Makes the topics.
    drop(broker.open("limit", folder.path())?);
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &broker.address).set("compression.type", "zstd").set("compression.level", "1");
    config.set("linger.ms", "5").set("group.id", "limit").set("auto.offset.reset", "earliest");
    config.set("message.max.bytes", "100000000").set("enable.partition.eof", "true").set("enable.auto.commit", "false");
    let producer: ThreadedProducer<rdkafka::producer::DefaultProducerContext> = config.create()?;
    let began = Instant::now();
    for (key, value) in messages {
        let partition = (key % u128::from(PARTITIONS)) as i32;
        let mut record: BaseRecord<'_, [u8], [u8]> =
            BaseRecord::to("limit.records").partition(partition).payload(value.as_slice());
        while let Err((_, back)) = producer.send(record) {
            std::thread::sleep(Duration::from_millis(1));
            record = back;
        }
    }
    producer.flush(Duration::from_secs(60))?;
    let produced = messages.len() as f64 / began.elapsed().as_secs_f64();
    let consumer: BaseConsumer = config.create()?;
    let mut assignment = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        assignment.add_partition_offset("limit.records", partition as i32, Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    let began = Instant::now();
    let (mut read, mut bytes) = (0, 0);
    while read < messages.len() {
        if let Some(Ok(message)) = consumer.poll(Duration::from_secs(1)) {
            read += 1;
            bytes += message.payload().map_or(0, <[u8]>::len);
        }
        anyhow::ensure!(began.elapsed() < Duration::from_secs(120), "only {read} messages came");
    }
    let consumed = messages.len() as f64 / began.elapsed().as_secs_f64();
    println!(
        "librdkafka alone: {} messages, {} MB: produced at {produced:.0}/s, consumed at {consumed:.0}/s",
        messages.len(),
        bytes / 1_000_000
    );
    Ok(())
}

/// Opens a log once more.
type Open<'a> = dyn Fn() -> anyhow::Result<Box<dyn Log>> + 'a;

/// From opening the log to the first step of a consumer whose state has so many rows, on both backends.
pub fn restore(rows: usize) -> anyhow::Result<()> {
    let executor = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let broker = Broker::start()?;
    let folder = tempfile::tempdir()?;
    for (store, consumer, topic) in
        [(Store::Correlate, Consumer::Correlate, Topic::Matches), (Store::Admit, Consumer::Match, Topic::Records)]
    {
        let file = folder.path().join(format!("{}.sqlite", store.name()));
        let embedded = || -> anyhow::Result<Box<dyn Log>> { Ok(Box::new(Embedded::open(&file, 1)?)) };
        let kafka = || -> anyhow::Result<Box<dyn Log>> {
            Ok(Box::new(broker.open(store.name(), &folder.path().join("cache"))?))
        };
        let backends: [(&str, &Open<'_>); 2] = [("embedded", &embedded), ("kafka", &kafka)];
        for (name, open) in backends {
            executor.block_on(write_state(&*open()?, store, consumer, topic, rows))?;
            let began = Instant::now();
            let log = open()?;
            executor.block_on(hold(&*log, consumer))?;
            let held = began.elapsed().as_secs_f64();
            let found = executor.block_on(log.scan(store, 0, &key_of(rows / 2)))?;
            anyhow::ensure!(found.len() == 1, "a row is missing");
            println!(
                "restore {}, {name}: {rows} rows: {held:.2} s from opening the log to holding the partition, first row read after {:.2} s",
                store.name(),
                began.elapsed().as_secs_f64()
            );
        }
        println!("restore {}: the embedded log holds {} MB", store.name(), std::fs::metadata(&file)?.len() / 1_000_000);
    }
    Ok(())
}

fn lease(consumer: Consumer) -> Lease {
    Lease { consumer, partition: 0, owner: format!("bench-{}", std::process::id()) }
}

async fn hold(log: &dyn Log, consumer: Consumer) -> anyhow::Result<()> {
    let began = Instant::now();
    while !log.acquire(&lease(consumer), Duration::from_secs(60)).await? {
        anyhow::ensure!(began.elapsed() < Duration::from_secs(60), "the partition is never given");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn key_of(row: usize) -> Vec<u8> {
    key_hash(&[&row.to_string()]).to_be_bytes().to_vec()
}

/// Rows as they are: a member of a window, or a batch of 60 known records.
async fn write_state(log: &dyn Log, store: Store, consumer: Consumer, topic: Topic, rows: usize) -> anyhow::Result<()> {
    let value = vec![b'x'; if store == Store::Correlate { 230 } else { 60 * 32 }];
    hold(log, consumer).await?;
    let mut written = 0;
    while written < rows {
        let output = Output { topic, to: To::Partition(0), value: b"1".to_vec() };
        log.commit(Txn { outputs: vec![output], ..Txn::default() }).await?;
        log.settle().await?;
        let from = log.committed(consumer, topic, 0).await?;
        let read = log.read(topic, 0, from, ReadLimit::default()).await?;
        let next = read.last().context("what was written can be read")?.offset + 1;
        let until = rows.min(written + 20_000);
        let change = |row| StateChange { store, partition: 0, key: key_of(row), value: Some(value.clone()) };
        let txn = Txn {
            inputs: vec![Input { consumer, topic, partition: 0, from, next }],
            state: (written..until).map(change).collect(),
            ..Txn::default()
        };
        log.commit(txn).await?;
        written = until;
    }
    log.release(&lease(consumer)).await?;
    Ok(())
}
