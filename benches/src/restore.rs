//! How long a detector takes from its start to its first finding when there is much state, on both backends.
//!
//! The state is real: failed sign-ins, three from each address, go through `harrier run --role detect` and leave their
//! windows behind. Known ids are written as admit writes them, spread over ninety days. Then a fourth failed sign-in is
//! put into the log and a detector is started: its finding needs the window of the other three, and admit's segment of
//! the day.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::Context;
use chrono::{DateTime, TimeDelta, Utc};
use detect::admit::Admit;
use runtime::log::embedded::Embedded;
use runtime::log::{Consumer, Input, Lease, Log, Output, ReadLimit, StateChange, Store, To, Topic, Txn};
use schemas::envelope::Envelope;
use schemas::json::key_hash;
use schemas::message::FindingMessage;

use crate::kafka::{Broker, PARTITIONS, detector, judged};
use crate::process::{peak_memory_kib, resident_kib};
use crate::record::{output, polled};

/// Accounts that an address failed on: one more makes a finding.
const FAILURES: u32 = 3;

/// Records of one step.
const STEP: u32 = 2_000;

/// Known ids of one row: what a quiet tenant's step leaves behind for a day.
const IDS_A_ROW: u64 = 100;

/// Rows of one step: about 3 MB.
const ROWS_A_STEP: u64 = 1_000;

const ID_BYTES: usize = 32;

const DAYS: u64 = 90;

const FOUND_WITHIN: Duration = Duration::from_secs(1_200);

/// A log of one backend, and how processes reach it.
struct Bed {
    folder: tempfile::TempDir,
    broker: Option<Broker>,
}

impl Bed {
    fn new(backend: &str) -> anyhow::Result<Bed> {
        let broker = match backend {
            "embedded" => None,
            "kafka" => Some(Broker::start()?),
            other => anyhow::bail!("{other} is no backend: embedded or kafka"),
        };
        let bed = Bed { folder: tempfile::tempdir()?, broker };
        std::fs::create_dir(bed.data_dir())?;
        let text = match &bed.broker {
            None => format!("data_dir = {:?}\n[http]\nlisten = \"127.0.0.1:0\"\n", bed.data_dir()),
            Some(broker) => broker.configuration("restore", &bed.data_dir()),
        };
        std::fs::write(bed.config(), text)?;
        Ok(bed)
    }

    fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("harrier.toml")
    }

    fn open(&self) -> anyhow::Result<Box<dyn Log>> {
        Ok(match &self.broker {
            None => Box::new(Embedded::open(&self.data_dir().join("log.sqlite"), PARTITIONS)?),
            Some(broker) => Box::new(broker.open("restore", &self.folder.path().join("cache-of-bench"))?),
        })
    }

    /// Bytes of the log, and of what a detector keeps beside it.
    fn sizes(&self) -> anyhow::Result<(u64, u64)> {
        let own = folder_bytes(&self.data_dir())?;
        Ok(match &self.broker {
            None => (own, 0),
            Some(broker) => (folder_bytes(broker.folder())?, own),
        })
    }
}

/// A detector that ends with its value.
struct Detector(Child);

impl Drop for Detector {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn run(harrier: &Path, backends: &[String], windowed: u32, known: u64) -> anyhow::Result<()> {
    let executor = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for backend in backends {
        let bed = Bed::new(backend)?;
        executor.block_on(measure(backend, &bed, harrier, windowed, known))?;
    }
    Ok(())
}

async fn measure(backend: &str, bed: &Bed, harrier: &Path, windowed: u32, known: u64) -> anyhow::Result<()> {
    let log = bed.open()?;
    let addresses = windowed / FAILURES;
    let empty = bed.sizes()?;
    let idle = {
        let detector = Detector(detector(harrier, &bed.config())?);
        found(&*log, &failures(0, FAILURES + 1)?, 0).await?;
        resident_kib(detector.0.id()).context("the detector has ended")?
    };
    fill(&*log, addresses).await?;
    {
        let detector = Detector(detector(harrier, &bed.config())?);
        let began = Instant::now();
        judged(&*log).await?;
        let seconds = began.elapsed().as_secs_f64();
        let resident = resident_kib(detector.0.id()).context("the detector has ended")?;
        println!(
            "restore, {backend}: {windowed} records into windows in {seconds:.0} s; the detector holds {} MiB, {} MiB when idle",
            resident / 1024,
            idle / 1024
        );
    }
    let windows = bed.sizes()?;
    say_sizes(backend, "record in windows", empty, windows, u64::from(windowed));
    if known > 0 {
        know(&*log, known).await?;
        say_sizes(backend, "known id", windows, bed.sizes()?, known);
    }
    for (next, cold) in (1..).zip([false, false, false, true, true]) {
        if cold {
            if bed.broker.is_none() {
                break;
            }
            std::fs::remove_dir_all(bed.data_dir())?;
        }
        let began = Instant::now();
        let detector = Detector(detector(harrier, &bed.config())?);
        found(&*log, &failures(next, FAILURES + 1)?[FAILURES as usize..], next).await?;
        println!(
            "restore, {backend}{}: first finding {:.2} s after the detector's start; peak {} MiB",
            if cold { ", its local copy gone" } else { "" },
            began.elapsed().as_secs_f64(),
            peak_memory_kib(detector.0.id()).unwrap_or(0) / 1024
        );
    }
    Ok(())
}

fn say_sizes(backend: &str, what: &str, before: (u64, u64), after: (u64, u64), count: u64) {
    let each = |before: u64, after: u64| after.saturating_sub(before) as f64 / count as f64;
    println!(
        "restore, {backend}: {:.0} bytes of log and {:.0} of local copy a {what}",
        each(before.0, after.0),
        each(before.1, after.1)
    );
}

/// Failed sign-ins of so many accounts from one address.
fn failures(address: u32, accounts: u32) -> anyhow::Result<Vec<Output>> {
    let [_, second, third, fourth] = address.to_be_bytes();
    // Spread over a week: windows of one moment are not what a tenant has.
    let at = (midnight() - TimeDelta::minutes(i64::from(address % 10_080))).format("%Y-%m-%dT%H:%M:%S");
    let tenant = "t1".parse()?;
    (0..accounts)
        .map(|account| {
            let json = format!(
                r#"{{"Id":"{address:08x}-0000-4000-8000-{account:012}","CreationTime":"{at}","RecordType":15,"Workload":"AzureActiveDirectory","Operation":"UserLoginFailed","ResultStatus":"Success","ErrorNumber":"50126","LogonError":"InvalidUserNameOrPassword","UserType":0,"UserId":"a{account}-{address}@contoso.example","ClientIP":"20.{second}.{third}.{fourth}"}}"#
            );
            output(polled(&tenant, "Audit.AzureActiveDirectory", json.into_bytes()))
        })
        .collect()
}

fn midnight() -> DateTime<Utc> {
    Utc::now().date_naive().and_time(chrono::NaiveTime::MIN).and_utc()
}

async fn fill(log: &dyn Log, addresses: u32) -> anyhow::Result<()> {
    let mut outputs = Vec::new();
    for address in 1..=addresses {
        outputs.extend(failures(address, FAILURES)?);
        if outputs.len() >= STEP as usize || address == addresses {
            log.commit(Txn { outputs: std::mem::take(&mut outputs), ..Txn::default() }).await?;
        }
    }
    Ok(log.settle().await?)
}

/// Puts records into the log and waits for the finding about this address.
async fn found(log: &dyn Log, outputs: &[Output], address: u32) -> anyhow::Result<()> {
    let mut positions = Vec::new();
    for partition in 0..log.partitions() {
        positions.push(log.end(Topic::Findings, partition).await?);
    }
    log.commit(Txn { outputs: outputs.to_vec(), ..Txn::default() }).await?;
    let account = format!("a{FAILURES}-{address}@");
    let began = Instant::now();
    while began.elapsed() < FOUND_WITHIN {
        for (partition, position) in (0..).zip(&mut positions) {
            for message in log.read(Topic::Findings, partition, *position, ReadLimit::default()).await? {
                *position = message.offset + 1;
                if let FindingMessage::Finding(finding) = serde_json::from_slice(&message.value)?
                    && finding.reason.contains(&account)
                {
                    return Ok(());
                }
            }
        }
        log.wait(Duration::from_millis(5)).await;
    }
    anyhow::bail!("there is no finding about {account}")
}

/// Writes what admit knows, as its own steps would: each consumes a message and leaves rows behind.
async fn know(log: &dyn Log, known: u64) -> anyhow::Result<()> {
    let partitions = log.partitions();
    let rows = known / IDS_A_ROW / u64::from(partitions);
    for partition in 0..partitions {
        let lease = Lease { consumer: Consumer::Match, partition, owner: format!("bench-{}", std::process::id()) };
        let began = Instant::now();
        while !log.acquire(&lease, Duration::from_secs(600)).await? {
            anyhow::ensure!(began.elapsed() < Duration::from_secs(60), "the partition is never given");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut row = 0;
        while row < rows {
            let until = rows.min(row + ROWS_A_STEP);
            let state = (row..until).map(|row| known_row(partition, row, rows)).collect();
            step(log, partition, state).await?;
            row = until;
        }
        log.release(&lease).await?;
    }
    Ok(())
}

fn known_row(partition: u32, row: u64, rows: u64) -> StateChange {
    let day = midnight() - TimeDelta::days((row * DAYS / rows) as i64);
    let mut value = Vec::with_capacity(IDS_A_ROW as usize * ID_BYTES);
    for id in 0..IDS_A_ROW {
        let number = (row * IDS_A_ROW + id).to_string();
        for of in ["id", "content"] {
            value.extend_from_slice(&key_hash(&[of, &partition.to_string(), &number]).to_be_bytes());
        }
    }
    // Far beyond the offsets of the records before, so that no row takes another's place.
    let key = [&Admit::prefix(day.date_naive())[..], &((1_u64 << 40) + row).to_be_bytes()].concat();
    StateChange { store: Store::Admit, partition, key, value: Some(value) }
}

/// Consumes a heartbeat and leaves these rows behind.
async fn step(log: &dyn Log, partition: u32, state: Vec<StateChange>) -> anyhow::Result<()> {
    let heartbeat = Envelope::Heartbeat(schemas::envelope::Heartbeat { sent: Utc::now() });
    let output = Output { topic: Topic::Records, to: To::Partition(partition), value: heartbeat.encode() };
    log.commit(Txn { outputs: vec![output], ..Txn::default() }).await?;
    log.settle().await?;
    let from = log.committed(Consumer::Match, Topic::Records, partition).await?;
    let read = log.read(Topic::Records, partition, from, ReadLimit { messages: 1, bytes: 0 }).await?;
    let next = read.last().context("what was written can be read")?.offset + 1;
    let input = Input { consumer: Consumer::Match, topic: Topic::Records, partition, from, next };
    log.commit(Txn { inputs: vec![input], state, ..Txn::default() }).await?;
    Ok(())
}

fn folder_bytes(folder: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        // A file may be gone by now: segments are renamed and deleted while we look.
        let Ok(metadata) = entry.metadata() else { continue };
        bytes += if metadata.is_dir() { folder_bytes(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}
