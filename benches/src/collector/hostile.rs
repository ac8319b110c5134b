//! One run: a fake tenant with some faults, the whole binary against it, and what became of each record.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use runtime::log::embedded::Embedded;
use serde_json::Value;
use simulate::{FakeTenant, Fault, Options, Served, Truth};

use super::Arguments;
use super::process::{Told, configure};
use crate::faults::cast::Actor;
use crate::faults::dice::Dice;
use crate::faults::group::Group;
use crate::faults::ledger::{self, Blobs};
use crate::faults::truth::Reader;

/// What was collected. Harrier's own records about its feeds are not the tenant's.
const EVENTS_COUNT: &str = "SELECT count(*) FROM events WHERE source <> 'harrier'";

/// How long everything may take to arrive.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(1_200);
/// Nothing has changed for so long: nothing will. Longer than two sweeps: a minute lies between them, and where every
/// third page fails one takes minutes.
const QUIET: Duration = Duration::from_secs(400);
/// Between two looks at the archive, each of which is a process.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(20);
/// A life ends within so long.
const LIFE: (Duration, Duration) = (Duration::from_millis(900), Duration::from_millis(4_000));

const PARTITIONS: u32 = 4;

/// What a run came to.
pub struct Outcome {
    kills: u32,
    truth: Truth,
    served: Served,
    admitted: u64,
    lost: u64,
    doubled: u64,
    /// Blobs that cannot be had and of which `coverage` says nothing.
    unnamed: u64,
    dead_letters: u64,
    blobs: Blobs,
    seconds: u64,
}

impl Outcome {
    pub fn is_clean(&self) -> bool {
        self.lost == 0
            && self.doubled == 0
            && self.unnamed == 0
            && self.dead_letters == self.truth.malformed
            // What cannot be had is finished too, without being committed; and half a blob may come beside a whole one.
            && self.blobs.committed >= self.truth.blobs
            && self.unfinished() == 0
    }

    /// Blobs of the ledger that are neither committed nor known to be lost; an entry that named no blob has a row too.
    fn unfinished(&self) -> u64 {
        self.blobs.open.saturating_sub(self.blobs.lost)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome { kills, truth, served, admitted, lost, doubled, unnamed, dead_letters, seconds, .. } = self;
        write!(
            f,
            "{kills} | {} | {} | {} | {} | {admitted} | {lost} | {doubled} | {unnamed} | {dead_letters} | {} | {} | {} | {} | {seconds} |",
            truth.blobs,
            truth.lost_blobs.len(),
            truth.record_count,
            served.records,
            truth.malformed,
            self.unfinished(),
            served.requests,
            served.faults,
        )
    }
}

struct Run {
    tenant: FakeTenant,
    reader: Reader,
    actor: Actor,
    data: std::path::PathBuf,
    began: Instant,
    // Last: what it ends is used by all the others.
    group: Group,
}

pub fn play(arguments: &Arguments, faults: &[Fault], kills: u32) -> anyhow::Result<Outcome> {
    let executor = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut options = Options::new(Utc::now());
    (options.seed, options.users, options.days) = (arguments.seed, arguments.users, arguments.days);
    options.delivery.blob_records = 10;
    options.faults = faults.to_vec();
    options.big_blob_bytes = arguments.big_blob_mebibytes << 20;
    // As an earlier life of harrier would have left it: the service wants a quarter of an hour between two starts.
    options.subscribed = true;
    let tenant = executor.block_on(FakeTenant::start(options.clone(), (Ipv4Addr::LOCALHOST, 0).into()))?;
    let group = Group::new(std::path::absolute(arguments.folder.join(format!("run-{}", std::process::id())))?)?;
    let told = Told { name: "contoso".to_owned(), options: &options, address: tenant.address() };
    let config = configure(&group.folder().join("all"), "1s", "5s", &[told])?;
    let harrier = std::path::absolute(&arguments.harrier)?;
    let mut run = Run {
        tenant,
        reader: Reader { harrier: harrier.clone() },
        actor: Actor::new("all", "all".to_owned(), config, &harrier),
        data: group.folder().join("all/data"),
        began: Instant::now(),
        group,
    };
    run.actor.start(&run.group, None)?;
    let done = run.kill(&mut Dice::new(arguments.seed), kills)?;
    run.settle()?;
    run.actor.terminate(&run.group)?;
    let outcome = run.compare(&executor, done)?;
    if !outcome.is_clean() {
        let kept = run.group.folder().with_extension("log");
        std::fs::copy(run.actor.log_file(&run.group), &kept)?;
        eprintln!("what the collector said is in {}", kept.display());
    }
    Ok(outcome)
}

impl Run {
    /// Ends the collector by SIGKILL again and again, each time somewhere else.
    fn kill(&mut self, dice: &mut Dice, kills: u32) -> anyhow::Result<u32> {
        for _ in 0..kills {
            let due = Instant::now() + dice.moment(LIFE.0, LIFE.1);
            while Instant::now() < due {
                self.actor.tend(&self.group)?;
                std::thread::sleep(TICK);
            }
            self.actor.kill();
            self.actor.start(&self.group, None)?;
        }
        Ok(kills)
    }

    /// Until every record that can be had has a row, or nothing comes any more.
    fn settle(&mut self) -> anyhow::Result<()> {
        let (began, mut changed, mut before) = (Instant::now(), Instant::now(), (0, 0, 0));
        while began.elapsed() < SETTLE_TIME_MAX && changed.elapsed() < QUIET {
            let rows = self.reader.number(&self.group, &self.data, EVENTS_COUNT).unwrap_or(0);
            let missing = "SELECT count(*) FROM coverage WHERE state = 'missing'";
            let missing = self.reader.number(&self.group, &self.data, missing).unwrap_or(0);
            let (served, truth) = (self.tenant.served(), self.tenant.truth());
            let now = (served.blobs_fetched_once, rows, missing);
            let listed: BTreeSet<_> = truth.lost_blobs.iter().filter(|blob| blob.is_listed).map(second_of).collect();
            if now.0 >= truth.blobs && rows >= truth.record_count && missing >= listed.len() as u64 {
                // What is there twice may come late.
                std::thread::sleep(LOOK_INTERVAL);
                return Ok(());
            }
            if now != before {
                (changed, before) = (Instant::now(), now);
            }
            let look = Instant::now();
            while look.elapsed() < LOOK_INTERVAL {
                self.actor.tend(&self.group)?;
                std::thread::sleep(TICK);
            }
        }
        Ok(())
    }

    fn compare(&self, executor: &tokio::runtime::Runtime, kills: u32) -> anyhow::Result<Outcome> {
        let (truth, served) = (self.tenant.truth(), self.tenant.served());
        let mut rows: BTreeMap<String, u64> = BTreeMap::new();
        for row in self.rows("SELECT id FROM events WHERE source <> 'harrier'")? {
            *rows.entry(text(&row, "id")).or_default() += 1;
        }
        let lost = truth.records.iter().filter(|id| !rows.contains_key(*id)).count() as u64;
        let is_known = |id: &String| truth.records.contains(id) || truth.unrecoverable.contains(id);
        let doubled = rows.iter().map(|(id, times)| if is_known(id) { times - 1 } else { *times }).sum();
        let named: BTreeSet<(String, DateTime<Utc>)> = self
            .rows("SELECT feed, window_start FROM coverage WHERE state = 'missing'")?
            .iter()
            .filter_map(|row| Some((text(row, "feed"), text(row, "window_start").parse().ok()?)))
            .collect();
        let stretches = self.rows("SELECT feed, window_start, window_end FROM coverage WHERE state <> 'complete'")?;
        let is_within = |blob: &simulate::LostBlob| {
            let time = |row: &Value, name: &str| text(row, name).parse::<DateTime<Utc>>().ok();
            stretches.iter().any(|row| {
                text(row, "feed") == blob.content_type
                    && time(row, "window_start") <= Some(blob.created)
                    && Some(blob.created) <= time(row, "window_end")
            })
        };
        let is_named = |blob: &&simulate::LostBlob| {
            if blob.is_listed { named.contains(&second_of(blob)) } else { is_within(blob) }
        };
        let unnamed = truth.lost_blobs.iter().filter(|blob| !is_named(blob)).count() as u64;
        let letters: BTreeSet<String> =
            self.rows("SELECT place, bytes FROM dead_letters")?.iter().map(Value::to_string).collect();
        let log = Arc::new(Embedded::open(&self.data.join("log.sqlite"), PARTITIONS)?);
        Ok(Outcome {
            kills,
            admitted: rows.values().sum(),
            lost,
            doubled,
            unnamed,
            dead_letters: letters.len() as u64,
            blobs: executor.block_on(ledger::read(log, &"contoso".parse()?))?,
            seconds: self.began.elapsed().as_secs(),
            truth,
            served,
        })
    }

    fn rows(&self, query: &str) -> anyhow::Result<Vec<Value>> {
        self.reader.rows(&self.group, Path::new(&self.data), query)
    }
}

fn text(row: &Value, name: &str) -> String {
    row[name].as_str().unwrap_or_default().to_owned()
}

/// The feed and the second in which a blob became available, as `coverage` names it.
fn second_of(blob: &simulate::LostBlob) -> (String, DateTime<Utc>) {
    let created = blob.created.duration_trunc(TimeDelta::seconds(1)).unwrap_or(blob.created);
    (blob.content_type.to_owned(), created)
}
