//! The log on a real Apache Kafka: detectors side by side, and what librdkafka itself can do on the same broker.
//!
//! The broker is one node on loopback from `deploy/kafka/kafka.sh`, fresh for each program.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use runtime::log::kafka::{BROKERS_WITHIN, Kafka, Security, Settings};
use runtime::log::{Consumer, Log, Output, ReadLimit, Topic, Txn};
use schemas::json::key_id;
use schemas::message::FindingMessage;

use crate::record::{imported, output};

pub const PARTITIONS: u32 = 6;

/// Records or rows of one step.
const STEP: usize = 2_000;

/// A broker that ends with its value.
pub struct Broker {
    script: PathBuf,
    folder: tempfile::TempDir,
    address: String,
}

impl Broker {
    pub fn start() -> anyhow::Result<Broker> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kafka/kafka.sh");
        let folder = tempfile::tempdir()?;
        let started =
            Command::new(&script).args(["start", "1"]).arg(folder.path()).stderr(Stdio::inherit()).output()?;
        anyhow::ensure!(started.status.success(), "Kafka could not be started");
        let address = String::from_utf8(started.stdout)?.trim().to_owned();
        Ok(Broker { script, folder, address })
    }

    pub fn open(&self, prefix: &str, cache: &Path) -> anyhow::Result<Kafka> {
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

    /// What `harrier run --config` has to know to work on the same log.
    pub fn configuration(&self, prefix: &str, data_dir: &Path) -> String {
        format!(
            "data_dir = {data_dir:?}\n[http]\nlisten = \"127.0.0.1:0\"\n[log]\nkind = \"kafka\"\nbrokers = [{:?}]\nprefix = {prefix:?}\npartitions = {PARTITIONS}\nreplication = 1\n",
            self.address
        )
    }

    /// Where the broker keeps everything.
    pub fn folder(&self) -> &Path {
        self.folder.path()
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

fn outputs(file: &Path, count: usize) -> anyhow::Result<Vec<Output>> {
    let tenant = "t1".parse()?;
    let lines = std::io::BufReader::new(std::fs::File::open(file)?).split(b'\n').take(count);
    lines.map(|line| output(imported(&tenant, line?))).collect()
}

/// The same records judged by one detector and by several, and moved by librdkafka alone.
pub fn detect(harrier: &Path, counts: &[u32], records: usize, file: &Path) -> anyhow::Result<()> {
    let messages = outputs(file, records)?;
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
    std::fs::write(&config, broker.configuration(prefix, &folder.join(format!("data-{number}"))))?;
    detector(harrier, &config)
}

/// A detector as a process of its own.
pub fn detector(harrier: &Path, config: &Path) -> anyhow::Result<Child> {
    Command::new(harrier)
        .args(["run", "--quiet", "--role", "detect", "--config"])
        .arg(config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", harrier.display()))
}

pub async fn fill(log: &dyn Log, messages: &[Output]) -> anyhow::Result<()> {
    for step in messages.chunks(STEP) {
        log.commit(Txn { outputs: step.to_vec(), ..Txn::default() }).await?;
    }
    Ok(log.settle().await?)
}

/// Waits until all records have been matched, and all matches correlated.
pub async fn judged(log: &dyn Log) -> anyhow::Result<()> {
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
fn limit(broker: &Broker, messages: &[Output]) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    // Makes the topics.
    drop(broker.open("limit", folder.path())?);
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &broker.address).set("compression.type", "zstd").set("compression.level", "1");
    config.set("linger.ms", "5").set("group.id", "limit").set("auto.offset.reset", "earliest");
    config.set("message.max.bytes", "100000000").set("enable.partition.eof", "true").set("enable.auto.commit", "false");
    let producer: ThreadedProducer<rdkafka::producer::DefaultProducerContext> = config.create()?;
    let began = Instant::now();
    for (partition, message) in (0..PARTITIONS as i32).cycle().zip(messages) {
        let mut record: BaseRecord<'_, [u8], [u8]> =
            BaseRecord::to("limit.records").partition(partition).payload(message.value.as_slice());
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
