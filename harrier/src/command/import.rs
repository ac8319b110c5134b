//! `harrier import`: records from files, through every stage, to the end.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use ingest::import::{Options, Progress, Report, import};
use runtime::log::{Log, Range, ReadLimit, Topic};
use runtime::metrics::Metrics;
use runtime::shutdown;
use schemas::Finding;
use schemas::finding::Level;
use schemas::message::{FindingMessage, Verdict, Verdicts};
use schemas::text::escape_controls;

use crate::cli::{Global, Import};
use crate::exit::Outcome;
use crate::services::{Core, Services, config, ends};
use crate::show::{ProgressLine, grouped, shell_quoted};

/// How often the progress display changes.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// Rows of an import wait for so long at most. It ends by flushing anyway; but a group that grows large has to wait with what
/// it leaves to the archive until it is there.
const FLUSH_INTERVAL: Duration = Duration::from_secs(60);

pub async fn run(global: &Global, options: &Import, metrics: Arc<Metrics>) -> anyhow::Result<Outcome> {
    let mut config = config(global)?;
    config.archive.flush_interval = FLUSH_INTERVAL;
    let domains = [(options.tenant.clone(), options.domains.clone())];
    let core = Core::open(config, &domains, metrics)?;
    core.check_archive().await?;
    let started = Instant::now();
    let before = Before::read(&*core.log).await?;
    let mut services = Services::new();
    services.begin_intake(&core, true).await?;
    let progress = Arc::new(Progress::default());
    let report = {
        let work = with_progress(read(&core, options, &progress), &progress, global.quiet);
        services.until(work).await??
    };
    services.end_intake(&core).await?;
    let counts = count(&*core.log, &before, &report.ranges).await?;
    let findings = new_findings(&*core.log, &before).await?;
    summarise(global, options, &report, &counts, &findings, started.elapsed())?;
    for (limit, what) in detect::service::LIMITS {
        let times = core.metrics.engine.limits_reached.with([limit]).value();
        if times > 0 {
            eprintln!("warning: {} {what}", grouped(times));
        }
    }
    let found = options.fail_on.is_some_and(|level| findings.created.iter().any(|finding| finding.rule.level >= level));
    Ok(match () {
        () if found => Outcome::Found,
        () if report.rejected > 0 || !report.problems.is_empty() || report.is_not_complete() => Outcome::Incomplete,
        () => Outcome::Done,
    })
}

async fn read(core: &Core, options: &Import, progress: &Arc<Progress>) -> anyhow::Result<Report> {
    let options = Options {
        paths: options.paths.clone(),
        tenant: options.tenant.clone(),
        notify: options.notify,
        complete: options.complete,
    };
    let (trigger, shutdown) = shutdown::channel();
    // Ctrl-C ends the reading; what has been read is judged and archived, and the next import goes on from there.
    let stopper = tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            trigger.stop();
        }
    });
    let report = import(&core.log, &options, &core.clock, &core.metrics, progress, &shutdown).await;
    stopper.abort();
    Ok(report?)
}

async fn with_progress<T>(work: impl Future<Output = T>, progress: &Progress, quiet: bool) -> T {
    tokio::pin!(work);
    let mut line = ProgressLine::new(quiet);
    let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
    loop {
        tokio::select! {
            output = &mut work => return output,
            _ = ticks.tick() => {
                let (read, total) = (progress.bytes_read.load(Ordering::Relaxed), progress.bytes_total.load(Ordering::Relaxed));
                let percent = (read * 100).checked_div(total).unwrap_or(0).min(100);
                line.set(&format!("reading: {} records, {percent} %", grouped(progress.received.load(Ordering::Relaxed))));
            }
        }
    }
}

/// Where the topics that the summary reads stood before.
struct Before {
    verdicts: Vec<u64>,
    findings: Vec<u64>,
}

impl Before {
    async fn read(log: &dyn Log) -> anyhow::Result<Before> {
        Ok(Before { verdicts: ends(log, Topic::Verdicts).await?, findings: ends(log, Topic::Findings).await? })
    }
}

/// How many records of the import got which verdict.
#[derive(Default)]
struct Counts {
    admitted: u64,
    variant: u64,
    duplicate: u64,
    /// Rejected by admit; those that could not even be read are counted by the import.
    rejected: u64,
}

/// Reads the verdicts on the offsets where the import's records lie.
async fn count(log: &dyn Log, before: &Before, ranges: &[Range]) -> anyhow::Result<Counts> {
    let mut counts = Counts::default();
    for (partition, &from) in (0..).zip(&before.verdicts) {
        let mut ours: Vec<(u64, u64)> =
            ranges.iter().filter(|range| range.partition == partition).map(|range| (range.from, range.next)).collect();
        ours.sort_unstable();
        let mut at = from;
        loop {
            let messages = log.read(Topic::Verdicts, partition, at, ReadLimit::default()).await?;
            let Some(last) = messages.last() else { break };
            at = last.offset + 1;
            for message in &messages {
                let verdicts: Verdicts = serde_json::from_slice(&message.value)?;
                for (offset, code) in verdicts.each() {
                    let next = ours.partition_point(|&(from, _)| from <= offset);
                    if next == 0 || offset >= ours[next - 1].1 {
                        continue;
                    }
                    match Verdict::from_code(code) {
                        Some(Verdict::Admitted) => counts.admitted += 1,
                        Some(Verdict::Variant) => counts.variant += 1,
                        Some(Verdict::Duplicate) => counts.duplicate += 1,
                        Some(Verdict::Rejected) => counts.rejected += 1,
                        Some(Verdict::Control) | None => {}
                    }
                }
            }
        }
    }
    Ok(counts)
}

/// What the import changed among the findings.
#[derive(Default)]
struct Findings {
    created: Vec<Finding>,
    updated: Vec<Finding>,
}

async fn new_findings(log: &dyn Log, before: &Before) -> anyhow::Result<Findings> {
    // Newest revision, and whether the first was among those read.
    let mut newest: BTreeMap<String, (Finding, bool)> = BTreeMap::new();
    for (partition, &from) in (0..).zip(&before.findings) {
        let mut at = from;
        loop {
            let messages = log.read(Topic::Findings, partition, at, ReadLimit::default()).await?;
            let Some(last) = messages.last() else { break };
            at = last.offset + 1;
            for message in messages {
                if let FindingMessage::Finding(finding) = serde_json::from_slice(&message.value)? {
                    let is_new = finding.revision == 1 || newest.get(&finding.id).is_some_and(|(_, is_new)| *is_new);
                    newest.insert(finding.id.clone(), (*finding, is_new));
                }
            }
        }
    }
    let mut findings = Findings::default();
    for (finding, is_new) in newest.into_values().filter(|(finding, _)| finding.status.stands()) {
        if is_new { findings.created.push(finding) } else { findings.updated.push(finding) }
    }
    Ok(findings)
}

fn summarise(
    global: &Global,
    options: &Import,
    report: &Report,
    counts: &Counts,
    findings: &Findings,
    elapsed: Duration,
) -> anyhow::Result<()> {
    for problem in &report.problems {
        eprintln!("{}: {}", escape_controls(&problem.place), problem.reason);
    }
    if report.problems_more > 0 {
        eprintln!("and {} more like these: harrier dead-letters list", grouped(report.problems_more));
    }
    for warning in &report.warnings {
        eprintln!("warning: {warning}");
    }
    let mut out = std::io::stdout().lock();
    let rejected = report.rejected + counts.rejected;
    let numbers = [
        ("received", report.received),
        ("admitted", counts.admitted),
        ("variant", counts.variant),
        ("duplicate", counts.duplicate),
        ("rejected", rejected),
    ];
    for (name, number) in numbers {
        writeln!(out, "{name:<10}{:>12}", grouped(number))?;
    }
    if let Some((from, to)) = options.complete.filter(|_| !report.is_not_complete()) {
        let time = |time: DateTime<Utc>| time.format("%F %T");
        eprintln!("taken to be complete from {} to {} UTC, as was said", time(from), time(to));
    }
    let seconds = elapsed.as_secs_f64();
    eprintln!("in {seconds:.1} s, {} records/s", grouped((report.received as f64 / seconds.max(0.001)) as u64));
    writeln!(out)?;
    print_findings(&mut out, findings)?;
    let folder = global
        .data_dir
        .as_deref()
        .map_or_else(String::new, |folder| format!(" --data-dir {}", shell_quoted(&folder.to_string_lossy())));
    let config = global
        .config
        .as_deref()
        .map_or_else(String::new, |file| format!(" --config {}", shell_quoted(&file.to_string_lossy())));
    let next =
        findings.created.iter().max_by_key(|finding| (finding.rule.level, std::cmp::Reverse(finding.first_event)));
    let next = match next {
        Some(finding) => format!("harrier findings show {}", &finding.id[..finding.id.len().min(12)]),
        None => format!("harrier sql \"SELECT * FROM coverage WHERE tenant = '{}'\"", options.tenant),
    };
    eprintln!("next: {next}{folder}{config}");
    Ok(())
}

fn print_findings(out: &mut impl Write, findings: &Findings) -> std::io::Result<()> {
    if findings.created.is_empty() {
        writeln!(out, "no new findings; what that is worth depends on what the files leave out")?;
    } else {
        writeln!(out, "{} new findings", findings.created.len())?;
    }
    let mut by_rule: BTreeMap<(std::cmp::Reverse<Level>, &str), u64> = BTreeMap::new();
    for finding in &findings.created {
        *by_rule.entry((std::cmp::Reverse(finding.rule.level), &finding.rule.title)).or_default() += 1;
    }
    for ((level, title), count) in by_rule {
        writeln!(out, "{count:>6}  {:13}  {}", level.0.as_str(), escape_controls(title))?;
    }
    if !findings.updated.is_empty() {
        writeln!(out, "{} earlier findings have grown", findings.updated.len())?;
    }
    Ok(())
}
