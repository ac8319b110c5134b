//! Seven days of backlog, made on the fly: how fast and in how much memory they are read, and what other ways take.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use chrono::{TimeDelta, Utc};
use ingest::ledger::{BlobState, Ledger};
use runtime::log::embedded::Embedded;
use simulate::{Backlog, FakeTenant, Options};

use super::Arguments;
use super::client::Client;
use super::process::{Told, configure, cpu_seconds, peak_memory_kib};
use crate::faults::group::Group;

const PARTITIONS: u32 = 4;
const TICK: Duration = Duration::from_millis(20);
/// How long a reader may take.
const READ_TIME_MAX: Duration = Duration::from_secs(4 * 3_600);
/// Connections of the download that is compared with, as many as harrier has.
const CONNECTIONS: usize = 8;

/// What a reader took.
struct Taken {
    seconds: f64,
    cpu: Option<f64>,
    peak_mebibytes: Option<u64>,
    records: u64,
    bytes: u64,
}

pub fn run(arguments: &Arguments, records: u64) -> anyhow::Result<()> {
    println!("| reader | records | MB | seconds | records/s | CPU-s a million | peak MiB |");
    println!("|---|---|---|---|---|---|---|");
    print("bare download, 1 connection", &download(arguments, records, 1)?);
    print(&format!("bare download, {CONNECTIONS} connections"), &download(arguments, records, CONNECTIONS)?);
    print("harrier, role ingest", &harrier(arguments, records)?);
    for ways in [1, 50] {
        let name = if ways == 1 { "Python, one by one".to_owned() } else { format!("Python, asyncio, {ways} at once") };
        match python(arguments, records, ways) {
            Ok(taken) => print(&name, &taken),
            Err(error) => println!("skipped: {name}: {error:#}"),
        }
    }
    Ok(())
}

fn print(name: &str, taken: &Taken) {
    let Taken { seconds, cpu, peak_mebibytes, records, bytes } = taken;
    let cpu = cpu.map_or(String::new(), |cpu| format!("{:.1}", cpu * 1e6 / *records as f64));
    let peak = peak_mebibytes.map_or(String::new(), |peak| peak.to_string());
    let (megabytes, rate) = (bytes / 1_000_000, *records as f64 / seconds);
    println!("| {name} | {records} | {megabytes} | {seconds:.1} | {rate:.0} | {cpu} | {peak} |");
}

/// A tenant with the backlog, always the same one.
fn serve(
    arguments: &Arguments,
    records: u64,
    executor: &tokio::runtime::Runtime,
) -> anyhow::Result<(FakeTenant, Options)> {
    let mut options = Options::new(Utc::now());
    options.seed = arguments.seed;
    options.subscribed = true;
    options.delivery.page_size = 200;
    options.delivery.duplicates = false;
    options.backlog = Some(Backlog { records, blob_records: arguments.blob_records });
    let tenant = executor.block_on(FakeTenant::start(options.clone(), (Ipv4Addr::LOCALHOST, 0).into()))?;
    Ok((tenant, options))
}

fn executor() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// The paths of all blobs.
fn list(client: &mut Client, options: &Options) -> anyhow::Result<Vec<String>> {
    let stamp = |at: chrono::DateTime<Utc>| at.format("%Y-%m-%dT%H:%M:%S").to_string();
    let mut paths = Vec::new();
    for content_type in ["Audit.AzureActiveDirectory", "Audit.Exchange", "Audit.SharePoint", "Audit.General"] {
        for day in 0..7 {
            let start = options.end - TimeDelta::days(7 - day);
            paths.extend(client.list(&format!(
                "/api/v1.0/{}/activity/feed/subscriptions/content?contentType={content_type}&startTime={}&endTime={}",
                options.tenant_id,
                stamp(start),
                stamp(start + TimeDelta::days(1))
            ))?);
        }
    }
    Ok(paths)
}

/// What loopback and the service cost by themselves.
fn download(arguments: &Arguments, records: u64, connections: usize) -> anyhow::Result<Taken> {
    let executor = executor()?;
    let (tenant, options) = serve(arguments, records, &executor)?;
    let began = Instant::now();
    let paths = list(&mut Client::sign_in(tenant.address(), &options)?, &options)?;
    let bytes = std::thread::scope(|scope| -> anyhow::Result<u64> {
        let part = |number: usize| {
            let (paths, options, address) = (&paths, &options, tenant.address());
            move || -> anyhow::Result<u64> {
                let mut client = Client::sign_in(address, options)?;
                paths.iter().skip(number).step_by(connections).map(|path| client.download(path)).sum()
            }
        };
        let threads: Vec<_> = (0..connections).map(|number| scope.spawn(part(number))).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a download panicked"))?).sum()
    })?;
    let served = tenant.served();
    anyhow::ensure!(served.records == records, "{} records of {records}", served.records);
    let seconds = began.elapsed().as_secs_f64();
    // Client and service share a process here: there is no number for the client alone.
    Ok(Taken { seconds, cpu: None, peak_mebibytes: None, records, bytes })
}

/// Watches a process until a condition holds; what it cost.
fn watch(
    child: &mut std::process::Child,
    mut is_done: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<(f64, f64, u64)> {
    let (began, mut cpu, mut peak) = (Instant::now(), 0.0, 0);
    loop {
        cpu = cpu_seconds(child.id()).unwrap_or(cpu);
        peak = peak_memory_kib(child.id()).unwrap_or(peak);
        let ended = child.try_wait()?;
        if let Some(status) = ended {
            anyhow::ensure!(status.success(), "it ended with {status}");
        }
        if ended.is_some() || is_done()? {
            return Ok((began.elapsed().as_secs_f64(), cpu, peak / 1024));
        }
        anyhow::ensure!(began.elapsed() < READ_TIME_MAX, "it takes longer than {READ_TIME_MAX:?}");
        std::thread::sleep(TICK);
    }
}

fn harrier(arguments: &Arguments, records: u64) -> anyhow::Result<Taken> {
    let executor = executor()?;
    let (tenant, options) = serve(arguments, records, &executor)?;
    let group = Group::new(std::path::absolute(arguments.folder.join(format!("run-{}", std::process::id())))?)?;
    let told = Told { name: "contoso".to_owned(), options: &options, address: tenant.address() };
    let config = configure(&group.folder().join("all"), "10s", "90s", &[told])?;
    let said = std::fs::File::create(group.folder().join("ingest.log"))?;
    let mut command = group.command(std::path::absolute(&arguments.harrier)?);
    command.args(["run", "--role", "ingest", "--config"]).arg(&config).stdout(Stdio::null()).stderr(said);
    let mut child = command.spawn().with_context(|| format!("cannot start {}", arguments.harrier.display()))?;
    let file = group.folder().join("all/data/log.sqlite");
    // The last blobs are served before they are committed.
    let result = watch(&mut child, || {
        let served = tenant.served();
        let is_served = served.blobs_fetched_once == served.blobs_total;
        Ok(is_served && executor.block_on(committed(&file))? == served.blobs_total)
    });
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status()?;
    let _ = child.wait();
    let (seconds, cpu, peak) = result?;
    let log = Arc::new(Embedded::open(&file, PARTITIONS)?);
    let blobs = executor.block_on(crate::faults::ledger::read(log, &"contoso".parse()?))?;
    let served = tenant.served();
    eprintln!("harrier: {blobs:?}, {served:?}");
    anyhow::ensure!(blobs.committed == served.blobs_total && blobs.surplus == 0, "not all is in the log: {blobs:?}");
    Ok(Taken { seconds, cpu: Some(cpu), peak_mebibytes: Some(peak), records, bytes: served.bytes })
}

/// Blobs that the ledger calls committed, read beside the process that writes it.
async fn committed(file: &Path) -> anyhow::Result<u64> {
    let ledger = Ledger::read(&Embedded::open(file, PARTITIONS)?, &"contoso".parse()?).await?;
    let rows = ledger.blobs.values().flat_map(|rows| rows.values());
    Ok(rows.filter(|row| matches!(row.state, BlobState::Committed { .. })).count() as u64)
}

/// A poller as one writes it in an afternoon.
fn python(arguments: &Arguments, records: u64, ways: u32) -> anyhow::Result<Taken> {
    let executor = executor()?;
    let (tenant, options) = serve(arguments, records, &executor)?;
    let group = Group::new(std::path::absolute(arguments.folder.join(format!("run-{}", std::process::id())))?)?;
    let mut command = group.command("python3");
    command.arg(std::path::absolute(&arguments.python_poller)?).arg(tenant.address().to_string());
    command.args([&options.tenant_id, &options.client_id, &options.client_secret, &ways.to_string()]);
    command.arg(options.end.format("%Y-%m-%dT%H:%M:%S").to_string()).arg(group.folder().join("records.jsonl"));
    let mut child = command.spawn().context("cannot start python3")?;
    let (seconds, cpu, peak) = watch(&mut child, || Ok(false))?;
    let served = tenant.served();
    anyhow::ensure!(served.records >= records, "{} records of {records}", served.records);
    Ok(Taken { seconds, cpu: Some(cpu), peak_mebibytes: Some(peak), records, bytes: served.bytes })
}
