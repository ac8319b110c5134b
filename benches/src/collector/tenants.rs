//! Many tenants in one process, ten of them broken for good in ten ways: whether the others notice.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use chrono::Utc;
use simulate::{FakeTenant, Fault, Options, Pace, Scenario};

use super::Arguments;
use super::process::{Told, configure, cpu_seconds, peak_memory_kib};
use crate::faults::group::Group;

/// One in so many tenants is broken.
const BROKEN: [Fault; 10] = [
    Fault::NoAnswer,
    Fault::Reset,
    Fault::Throttle,
    Fault::Throttle429,
    Fault::ServerError,
    Fault::ExpiredToken,
    Fault::FreeText,
    Fault::ObjectBody,
    Fault::TruncatedBody,
    Fault::SlowBytes,
];

const TICK: Duration = Duration::from_millis(100);
/// After the last blob has appeared, for the last ones to be fetched.
const AFTER: Duration = Duration::from_secs(30);
/// Requests a minute and tenant that harrier allows itself.
const BUDGET: u64 = 1_000;

pub fn run(arguments: &Arguments, count: u32) -> anyhow::Result<()> {
    println!(
        "| tenants | broken | minutes | blobs of the others | not fetched | lag p50 | p99 | max, s | requests a minute and tenant, most | connections | peak MiB | CPU-s |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    // The same tenants with and without broken ones: what the others notice is the difference.
    for broken in [0, BROKEN.len().min(count as usize / 2)] {
        play(arguments, count, broken)?;
    }
    Ok(())
}

fn play(arguments: &Arguments, count: u32, broken: usize) -> anyhow::Result<()> {
    let executor = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let played = Duration::from_secs_f64(arguments.minutes * 60.0);
    let mut tenants: Vec<(FakeTenant, Options)> = Vec::new();
    for number in 0..count {
        let mut options = Options::new(Utc::now());
        (options.seed, options.users, options.days) = (u64::from(number) + 1, 2, 0);
        options.tenant_id = format!("11111111-1111-1111-1111-{number:012}");
        options.story = Scenario::Quiet;
        options.subscribed = true;
        options.pace = Pace::Fast { real: played };
        options.delivery.blob_records = 4;
        if let Some(fault) = BROKEN.get(number as usize).filter(|_| (number as usize) < broken) {
            (options.faults, options.always_faulty) = (vec![*fault], true);
        }
        let tenant = executor.block_on(FakeTenant::start(options.clone(), (Ipv4Addr::LOCALHOST, 0).into()))?;
        tenants.push((tenant, options));
    }
    let group = Group::new(std::path::absolute(arguments.folder.join(format!("run-{}", std::process::id())))?)?;
    let told: Vec<Told<'_>> = tenants
        .iter()
        .enumerate()
        .map(|(number, (tenant, options))| Told { name: format!("t{number}"), options, address: tenant.address() })
        .collect();
    let config = configure(&group.folder().join("all"), "10s", "20s", &told)?;
    let said = std::fs::File::create(group.folder().join("ingest.log"))?;
    let mut command = group.command(std::path::absolute(&arguments.harrier)?);
    command.args(["run", "--role", "ingest", "--config"]).arg(&config).stdout(Stdio::null()).stderr(said);
    let mut child = command.spawn().with_context(|| format!("cannot start {}", arguments.harrier.display()))?;
    let (began, mut cpu, mut peak) = (Instant::now(), 0.0, 0);
    while began.elapsed() < played + AFTER {
        cpu = cpu_seconds(child.id()).unwrap_or(cpu);
        peak = peak_memory_kib(child.id()).unwrap_or(peak);
        if let Some(status) = child.try_wait()? {
            anyhow::bail!("the collector ended with {status}");
        }
        std::thread::sleep(TICK);
    }
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status()?;
    let _ = child.wait();
    let others = &tenants[broken..];
    let mut lags: Vec<f64> = others.iter().flat_map(|(tenant, _)| tenant.lags()).map(|lag| lag.as_secs_f64()).collect();
    lags.sort_by(f64::total_cmp);
    let at = |share: f64| lags.get(((lags.len() as f64 * share) as usize).min(lags.len().saturating_sub(1)));
    let lag = |share| at(share).copied().unwrap_or(f64::NAN);
    let total: u64 = others.iter().map(|(tenant, _)| tenant.served().blobs_total).sum();
    let most = tenants.iter().map(|(tenant, _)| tenant.served().requests_per_minute_most).max().unwrap_or(0);
    let connections: u64 = tenants.iter().map(|(tenant, _)| tenant.served().connections_most).sum();
    println!(
        "| {count} | {broken} | {} | {total} | {} | {:.1} | {:.1} | {:.1} | {most} of {BUDGET} | {connections} | {} | {cpu:.0} |",
        arguments.minutes,
        total - lags.len() as u64,
        lag(0.5),
        lag(0.99),
        lag(1.0),
        peak / 1024,
    );
    for (tenant, options) in &tenants[..broken] {
        eprintln!("{:?}: {:?}", options.faults, tenant.served());
    }
    Ok(())
}
