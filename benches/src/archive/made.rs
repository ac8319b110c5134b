//! Records, and the archive made of them by the services' own code.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use archive::Store;
use archive::archiver::{Archiver, Settings};
use archive::compactor::{Compactor, Plan};
use archive::delta::DeltaTable;
use archive::signer::{PUBLIC_KEY_FILE, PublicKey, Signer};
use archive::table::{EVENTS, TABLES};
use archive::verify::Verifier;
use chrono::{DateTime, Utc};
use runtime::clock::Clock;
use runtime::log::embedded::Embedded;
use runtime::log::{Consumer, Input, Log, Output, To, Topic, Txn};
use runtime::metrics::Metrics;
use runtime::shutdown;
use schemas::envelope::Envelope;
use schemas::message::Verdicts;
use schemas::tenant::Tenant;
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use crate::record::imported;

/// The records, for engines that read them as they are.
pub const JSON_FILE: &str = "records.jsonl.zst";

/// Records of one step, as the services commit them.
const STEP_RECORDS: usize = 2_000;

/// Records that are put into the log between two turns of the archiver: so many that its flushes are of full size.
const TURN_RECORDS: usize = 400_000;

const PARTITIONS: u32 = 4;

/// What a complete folder says of itself.
#[derive(Debug, Deserialize, Serialize)]
pub struct Made {
    pub records: usize,
    pub users: u32,
    pub seed: u64,
    pub json_bytes: u64,
    pub zstd_bytes: u64,
    pub archive_seconds: f64,
    pub compact_seconds: f64,
    /// Files and bytes of all tables.
    pub landed: (usize, u64),
    pub compacted: (usize, u64),
    pub events: (usize, u64),
}

/// The archive of these numbers in this folder: the one that is there, if it is complete, else a new one.
pub fn made(executor: &Runtime, folder: &Path, records: usize, users: u32, seed: u64) -> anyhow::Result<Made> {
    let note = folder.join("made.json");
    if let Ok(text) = std::fs::read_to_string(&note) {
        let made: Made = serde_json::from_str(&text)?;
        let same = (made.records, made.users, made.seed) == (records, users, seed);
        anyhow::ensure!(
            same,
            "{} holds {} records of seed {}: choose another folder",
            folder.display(),
            made.records,
            made.seed
        );
        return Ok(made);
    }
    // What a run that was stopped has left.
    for name in ["archive", "log.sqlite", "log.sqlite-wal", "log.sqlite-shm", JSON_FILE, "signing-key.pem"] {
        let path = folder.join(name);
        let _ = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
    }
    std::fs::create_dir(folder.join("archive"))?;
    let mut made = Made {
        records,
        users,
        seed,
        json_bytes: 0,
        zstd_bytes: 0,
        archive_seconds: 0.0,
        compact_seconds: 0.0,
        landed: (0, 0),
        compacted: (0, 0),
        events: (0, 0),
    };
    let log: Arc<dyn Log> = Arc::new(Embedded::open(&folder.join("log.sqlite"), PARTITIONS)?);
    let file = std::fs::File::create(folder.join(JSON_FILE))?;
    let mut json = zstd::Encoder::new(file, 3)?;
    let mut next = vec![0; PARTITIONS as usize];
    let mut traffic = simulate::traffic(seed, users, records).map(|record| record.json).peekable();
    while traffic.peek().is_some() {
        let mut turn = traffic.by_ref().take(TURN_RECORDS);
        loop {
            let lines: Vec<String> = turn.by_ref().take(STEP_RECORDS).collect();
            if lines.is_empty() {
                break;
            }
            for line in &lines {
                json.write_all(line.as_bytes())?;
                json.write_all(b"\n")?;
                made.json_bytes += line.len() as u64 + 1;
            }
            executor.block_on(put(&*log, &mut next, lines))?;
        }
        made.archive_seconds += executor.block_on(drained(log.clone(), folder))?;
        // What is archived goes, or the log would take more of the disk than all that is measured.
        executor.block_on(log.trim(DateTime::<Utc>::MAX_UTC))?;
    }
    json.finish()?.sync_all()?;
    made.zstd_bytes = std::fs::metadata(folder.join(JSON_FILE))?.len();
    made.landed = executor.block_on(size(folder, None))?;
    made.compact_seconds = executor.block_on(compacted(folder))?;
    made.compacted = executor.block_on(size(folder, None))?;
    made.events = executor.block_on(size(folder, Some(EVENTS.name)))?;
    std::fs::write(&note, serde_json::to_vec_pretty(&made)?)?;
    Ok(made)
}

/// One step: records of a partition, all of them admitted.
async fn put(log: &dyn Log, next: &mut [u64], lines: Vec<String>) -> anyhow::Result<()> {
    let tenant: Tenant = "contoso".parse()?;
    // The partition that is furthest behind.
    let (partition, from) =
        next.iter().enumerate().min_by_key(|(_, next)| **next).map(|(at, &next)| (at, next)).context("no partition")?;
    let verdicts = Verdicts { partition: partition as u32, from, codes: "a".repeat(lines.len()), gaps: Vec::new() };
    next[partition] += lines.len() as u64;
    // Nobody matches here; who does not say that it has read holds the log.
    let read = Input {
        consumer: Consumer::Match,
        topic: Topic::Records,
        partition: partition as u32,
        from,
        next: next[partition],
    };
    let to = To::Partition(partition as u32);
    let output = |topic, value| Output { topic, to, value };
    let mut outputs: Vec<Output> = lines
        .into_iter()
        .map(|line| output(Topic::Records, Envelope::Record(imported(&tenant, line.into_bytes())).encode()))
        .collect();
    outputs.push(output(Topic::Verdicts, serde_json::to_vec(&verdicts)?));
    log.commit(Txn { inputs: vec![read], outputs, ..Txn::default() }).await?;
    Ok(())
}

fn store(folder: &Path) -> anyhow::Result<Store> {
    Ok(Store::folder(&folder.join("archive"))?.signed_by(Signer::open(folder)?))
}

/// Archives what is in the log; how many seconds that took. Compaction is measured by itself.
async fn drained(log: Arc<dyn Log>, folder: &Path) -> anyhow::Result<f64> {
    let archiver = Archiver::new(log, store(folder)?, Clock::system(), Settings::default(), Metrics::new("bench"));
    let (trigger, shutdown) = shutdown::channel();
    trigger.stop();
    let started = Instant::now();
    archiver.run(shutdown).await?;
    Ok(started.elapsed().as_secs_f64())
}

/// Compacts until nothing is left to be merged.
async fn compacted(folder: &Path) -> anyhow::Result<f64> {
    let plan = Plan { rests_after: Duration::ZERO, ..Plan::default() };
    let compactor = Compactor::new(store(folder)?, Clock::system(), Metrics::new("bench"), plan);
    let started = Instant::now();
    for (table, done) in compactor.all().await? {
        anyhow::ensure!(done.failures == 0, "{}: {} partitions were not compacted", table.name, done.failures);
    }
    Ok(started.elapsed().as_secs_f64())
}

/// How long it takes to hold every byte of the archive to what was signed: seconds, and bytes of the files.
pub async fn verified(folder: &Path) -> anyhow::Result<(f64, u64)> {
    let keys = vec![PublicKey::read(&folder.join(PUBLIC_KEY_FILE))?];
    let verifier = Verifier { store: store(folder)?, keys, heads: Vec::new(), now: Utc::now() };
    let started = Instant::now();
    let report = verifier.run().await?;
    anyhow::ensure!(report.is_whole(), "the archive is not whole: {:?}", report.faults);
    Ok((started.elapsed().as_secs_f64(), report.tables.iter().map(|table| table.bytes).sum()))
}

/// Files and bytes of one table, or of all.
async fn size(folder: &Path, of: Option<&str>) -> anyhow::Result<(usize, u64)> {
    let mut sum = (0, 0);
    for &table in TABLES.iter().filter(|table| of.is_none_or(|name| name == table.name)) {
        let delta = DeltaTable::open(store(folder)?, table).await?;
        sum.0 += delta.snapshot().files.len();
        sum.1 += delta.snapshot().files.values().map(|add| add.size).sum::<u64>();
    }
    Ok(sum)
}

/// The files that are in each table.
pub async fn live_files(folder: &Path) -> anyhow::Result<BTreeMap<&'static str, Vec<PathBuf>>> {
    let mut files = BTreeMap::new();
    for &table in TABLES {
        let delta = DeltaTable::open(store(folder)?, table).await?;
        let paths =
            delta.snapshot().files.keys().map(|path| folder.join("archive").join(delta.location(path).as_ref()));
        files.insert(table.name, paths.collect());
    }
    Ok(files)
}
