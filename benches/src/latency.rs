//! How long a record is under way: from `records` to its finding in `findings`, and to the webhook.
//!
//! Ordinary traffic flows at a steady rate, and a few records among it are each a finding of their own. Detection, the
//! archive and notification run as in `harrier run`, on either backend. A record's time begins when it was due to be
//! committed, not when its commit was called: a log that makes its writer late is not excused.
//!
//! The storm brake of a webhook collects more than sixty messages of ten minutes in a digest. Notification is given a
//! clock that runs ahead, so that each finding is sent by itself; nothing is measured with that clock.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use archive::Store;
use archive::archiver::{Archiver, Settings as ArchiveSettings};
use archive::history::Past;
use chrono::{TimeDelta, Utc};
use detect::places::NoPlaces;
use notify::Sink;
use runtime::clock::Clock;
use runtime::log::embedded::Embedded;
use runtime::log::{Log, ReadLimit, Topic, Txn};
use runtime::metrics::Metrics;
use runtime::shutdown;
use schemas::message::FindingMessage;
use schemas::tenant::Tenant;
use schemas::{RuleBook, RuleText};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::kafka::Broker;
use crate::record::{output, polled};

/// How often a step of records is due.
const BEAT: Duration = Duration::from_millis(50);

/// How far notification's clock goes on at each beat.
const CLOCK_LEAP: TimeDelta = TimeDelta::seconds(30);

/// How long to wait for the last finding.
const LAST_WITHIN: Duration = Duration::from_secs(60);

/// Before this, caches fill and groups settle: records of these first seconds are not counted.
const WARM_UP: Duration = Duration::from_secs(10);

/// What is asked for.
pub struct Load {
    pub records_per_second: u32,
    /// One record in so many is a finding.
    pub marked_every: u32,
    pub seconds: u32,
}

/// When each marked record was due, and when it was seen on the other side.
#[derive(Default)]
struct Times {
    due: HashMap<u32, Instant>,
    found: HashMap<u32, Duration>,
    sent: HashMap<u32, Duration>,
}

type Shared = Arc<Mutex<Times>>;

fn locked(times: &Shared) -> std::sync::MutexGuard<'_, Times> {
    times.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn run(backends: &[String], load: &Load) -> anyhow::Result<()> {
    let executor = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for backend in backends {
        let folder = tempfile::tempdir()?;
        match backend.as_str() {
            "embedded" => {
                let log = Arc::new(Embedded::open(&folder.path().join("log.sqlite"), 4)?);
                executor.block_on(measure(backend, log, folder.path(), load))?;
            }
            "kafka" => {
                let broker = Broker::start()?;
                let log = Arc::new(broker.open("latency", &folder.path().join("cache"))?);
                executor.block_on(measure(backend, log, folder.path(), load))?;
            }
            other => anyhow::bail!("{other} is no backend: embedded or kafka"),
        }
    }
    Ok(())
}

async fn measure(backend: &str, log: Arc<dyn Log>, folder: &Path, load: &Load) -> anyhow::Result<()> {
    let tenant: Tenant = "t1".parse()?;
    let times = Shared::default();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let receiver = tokio::spawn(receive(listener, times.clone()));
    let (trigger, shutdown) = shutdown::channel();
    let metrics = Metrics::new("bench");
    let files = rules::pack().iter().map(|(file, text)| RuleText { file: (*file).into(), text: (*text).into() });
    let domains = BTreeMap::from([(tenant.clone(), vec!["contoso.example".to_owned()])]);
    let book = RuleBook { files: files.collect(), domains, ..RuleBook::default() };
    detect::service::offer(&*log, &book, true).await?;
    let places = Arc::new(NoPlaces);
    std::fs::create_dir(folder.join("archive"))?;
    let store = Store::folder(&folder.join("archive"))?;
    let past = Arc::new(Past::new(store.clone()));
    let detecting = detect::service::run(log.clone(), places, past, Clock::system(), metrics.clone(), shutdown.clone());
    let archiver = Archiver::new(log.clone(), store, Clock::system(), ArchiveSettings::default(), metrics.clone());
    let (ahead, hand) = Clock::manual(Utc::now());
    let mut sink = Sink::new("bench", "webhook");
    sink.url = Some(format!("http://{address}/").parse()?);
    sink.allow_private_addresses = true;
    let notifying = notify::run(log.clone(), vec![sink], ahead, shutdown.clone(), metrics);
    let services = tokio::spawn(async move {
        tokio::try_join!(
            async { detecting.await.map_err(anyhow::Error::from) },
            async { archiver.run(shutdown).await.map_err(anyhow::Error::from) },
            async { notifying.await.map_err(anyhow::Error::from) },
        )
    });
    let watching = tokio::spawn(watch(log.clone(), times.clone()));
    let late = send(&*log, load, &tenant, &times, || hand.advance(CLOCK_LEAP)).await?;
    let waited = Instant::now();
    let is_waiting = || {
        let times = locked(&times);
        times.sent.len() < times.due.len()
    };
    while is_waiting() && waited.elapsed() < LAST_WITHIN {
        hand.advance(CLOCK_LEAP);
        tokio::time::sleep(BEAT).await;
    }
    watching.abort();
    receiver.abort();
    trigger.stop();
    services.await??;
    let times = locked(&times);
    anyhow::ensure!(
        times.sent.len() == times.due.len(),
        "{} of {} findings arrived",
        times.sent.len(),
        times.due.len()
    );
    println!(
        "latency, {backend}: {} records/s for {} s, {} findings; the writer was at most {late:.0?} late",
        load.records_per_second,
        load.seconds,
        times.due.len()
    );
    println!("  records to findings: {}", spread(&times.found));
    println!("  records to webhook:  {}", spread(&times.sent));
    Ok(())
}

/// Commits records as they fall due. Returns by how much a commit was ever late.
async fn send(
    log: &dyn Log,
    load: &Load,
    tenant: &Tenant,
    times: &Shared,
    beat: impl Fn(),
) -> anyhow::Result<Duration> {
    let per_beat = (f64::from(load.records_per_second) * BEAT.as_secs_f64()) as usize;
    let beats = (f64::from(load.seconds) / BEAT.as_secs_f64()) as u32;
    let mut traffic = simulate::traffic(1, 2_000, per_beat * beats as usize);
    let began = Instant::now() + BEAT;
    let (mut number, mut step, mut late) = (0, 0, Duration::ZERO);
    while step < beats {
        tokio::time::sleep_until((began + BEAT * step).into()).await;
        let mut outputs = Vec::with_capacity(per_beat);
        // Whatever has fallen due while the last commit was under way goes with this one.
        while step < beats && (began + BEAT * step).elapsed() > Duration::ZERO {
            let due = began + BEAT * step;
            late = late.max(due.elapsed());
            for _ in 0..per_beat {
                number += 1;
                let json = if number % load.marked_every == 0 {
                    if BEAT * step > WARM_UP {
                        locked(times).due.insert(number, due);
                    }
                    marked(number)
                } else {
                    traffic.next().map(|record| record.json).unwrap_or_default()
                };
                outputs.push(output(polled(tenant, "Audit.SharePoint", json.into_bytes()))?);
            }
            step += 1;
            beat();
        }
        log.commit(Txn { outputs, ..Txn::default() }).await?;
    }
    Ok(late)
}

/// A record that is a finding by itself, and tells which it is.
fn marked(number: u32) -> String {
    let now = Utc::now().format("%Y-%m-%dT%H:%M:%S");
    format!(
        r#"{{"Id":"{number:08x}-0000-4000-8000-000000000000","CreationTime":"{now}","RecordType":14,"Workload":"OneDrive","Operation":"AnonymousLinkCreated","UserId":"marked-{number}@contoso.example","UserType":0,"ClientIP":"203.0.113.77","SiteUrl":"https://contoso.example/s","ObjectId":"https://contoso.example/s/a.xlsx"}}"#
    )
}

/// The number of the marked record that a text speaks of.
fn number_in(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("marked-")?;
    rest.split_once('@')?.0.parse().ok()
}

/// Notes when each finding can be read.
async fn watch(log: Arc<dyn Log>, times: Shared) -> anyhow::Result<()> {
    let mut positions = vec![0; log.partitions() as usize];
    loop {
        for (partition, position) in (0..).zip(&mut positions) {
            let messages = log.read(Topic::Findings, partition, *position, ReadLimit::default()).await?;
            let seen = Instant::now();
            for message in messages {
                *position = message.offset + 1;
                if let FindingMessage::Finding(finding) = serde_json::from_slice(&message.value)? {
                    note(&times, number_in(&finding.reason), seen, |times| &mut times.found);
                }
            }
        }
        log.wait(Duration::from_millis(2)).await;
    }
}

fn note(times: &Shared, number: Option<u32>, seen: Instant, to: impl Fn(&mut Times) -> &mut HashMap<u32, Duration>) {
    let mut times = locked(times);
    if let Some(number) = number
        && let Some(&due) = times.due.get(&number)
    {
        to(&mut times).entry(number).or_insert(seen - due);
    }
}

/// A receiver of webhooks that answers 204 to everything.
async fn receive(listener: TcpListener, times: Shared) -> anyhow::Result<()> {
    loop {
        let (connection, _) = listener.accept().await?;
        tokio::spawn(serve(connection, times.clone()));
    }
}

async fn serve(connection: TcpStream, times: Shared) -> anyhow::Result<()> {
    let mut connection = BufReader::new(connection);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if connection.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        connection.read_exact(&mut body).await?;
        let seen = Instant::now();
        connection.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await?;
        note(&times, number_in(&String::from_utf8_lossy(&body)), seen, |times| &mut times.sent);
    }
}

fn spread(times: &HashMap<u32, Duration>) -> String {
    let mut sorted: Vec<Duration> = times.values().copied().collect();
    sorted.sort_unstable();
    let at = |share: f64| {
        let index = (sorted.len() as f64 * share).ceil() as usize;
        sorted.get(index.saturating_sub(1)).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    };
    format!("p50 {:.0} ms, p99 {:.0} ms, p99.9 {:.0} ms, max {:.0} ms", at(0.5), at(0.99), at(0.999), at(1.0))
}
