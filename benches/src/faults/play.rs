//! One run: a world, its tenant, the pipeline as processes of its own, and what became of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use chrono::Utc;
use runtime::log::Log;
use runtime::log::embedded::Embedded;
use runtime::log::kafka::{BROKERS_WITHIN, Kafka, Security, Settings};
use simulate::{Fault as Spoilt, Options, Pace};

use super::broker::Broker;
use super::cast::Actor;
use super::dice::Dice;
use super::group::Group;
use super::judged::Judged;
use super::ledger::{self, Blobs};
use super::network::Network;
use super::tenant::Tenant;
use super::truth::{Archived, Difference, Reader};
use super::{Arguments, Backend};

const PARTITIONS: u32 = 4;

/// How long Kafka waits for a silent member, short so that a bench need not wait for long.
pub const SESSION: Duration = Duration::from_secs(3);

/// How long all records may take to arrive once nothing is broken any more.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(900);

/// Nothing has changed for so long: nothing will. Longer than leases, sessions and transactions last, and than a question
/// to a broker that has just come back may take, on a busy machine.
const QUIET: Duration = Duration::from_secs(120);

/// Between two looks at the archive, each of which is a process.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

const TICK: Duration = Duration::from_millis(20);

/// What a fault needs to find.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setup {
    /// Brokers, where there are any; none means one.
    pub nodes: u32,
    /// Every blob is served a second time under another name.
    pub twice: bool,
    /// The data lies on a file system of so many MiB.
    pub disk_mebibytes: Option<u64>,
    /// Some processes run in a network of their own.
    pub network: bool,
    /// A second poller and a second archiver, which wait to take over.
    pub spare: bool,
    /// For how long records arrive.
    pub played: Duration,
}

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    pub kills: u32,
    pub records: usize,
    pub difference: Difference,
    pub blobs: Blobs,
    pub blobs_total: u64,
    pub ended_by_themselves: u32,
    pub seconds: u64,
}

impl Outcome {
    pub fn is_clean(&self) -> bool {
        self.difference.is_none()
            && self.blobs.committed == self.blobs_total
            && self.blobs.open == 0
            && self.blobs.surplus == 0
    }
}

pub struct Play {
    pub backend: Backend,
    pub dice: Dice,
    /// How often harm is to be done, and has been.
    pub kills: u32,
    pub done: u32,
    pub cast: Vec<Actor>,
    pub broker: Option<Broker>,
    pub network: Option<Network>,
    /// Where the data lies, on the small file system if there is one.
    pub data: PathBuf,
    archive: PathBuf,
    options: Options,
    reader: Reader,
    tenant: Tenant,
    began: Instant,
    // Last: what it ends is used by all the others.
    pub group: Group,
}

impl Play {
    pub fn begin(arguments: &Arguments, backend: Backend, setup: &Setup) -> anyhow::Result<Play> {
        let folder = arguments.folder.join(format!("run-{}", std::process::id()));
        let group = Group::new(std::path::absolute(folder)?)?;
        let data = group.folder().join("data");
        std::fs::create_dir_all(&data)?;
        if let Some(mebibytes) = setup.disk_mebibytes {
            super::disk_full::mount(&group, &data, mebibytes)?;
        }
        let network = setup.network.then(|| Network::new(&group)).transpose()?;
        let host = network.as_ref().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |network| network.host.into());
        let broker = match backend {
            Backend::Embedded => None,
            Backend::Kafka => Some(Broker::start(&group, setup.nodes.max(1), &host.to_string())?),
        };
        let mut options = Options::new(Utc::now());
        (options.seed, options.users, options.days) = (arguments.seed % 1_000, arguments.users, arguments.days);
        options.delivery.blob_records = 6;
        options.delivery.twice = setup.twice;
        options.pace = Pace::Fast { real: setup.played };
        // One is enough to make some blobs wait: more of them make the bench wait for minutes.
        options.faults = vec![Spoilt::TruncatedBody];
        let tenant = Tenant::start(&options)?;
        let harrier = std::path::absolute(&arguments.harrier)?;
        let mut play = Play {
            backend,
            dice: Dice::new(arguments.seed),
            kills: arguments.kills,
            done: 0,
            cast: Vec::new(),
            broker,
            network,
            archive: data.join(if backend == Backend::Kafka { "archive" } else { "all" }).join("data"),
            data,
            options,
            reader: Reader { harrier: harrier.clone() },
            tenant,
            began: Instant::now(),
            group,
        };
        let roles: &[&str] = if setup.spare {
            &["ingest", "ingest", "detect", "detect", "archive", "archive", "notify"]
        } else {
            &["ingest", "detect", "detect", "archive", "notify"]
        };
        for role in roles {
            play.join(role, &harrier)?;
        }
        Ok(play)
    }

    /// Adds a process, not started yet. Returns its index.
    fn join(&mut self, role: &str, harrier: &Path) -> anyhow::Result<usize> {
        let role = ["ingest", "detect", "archive", "notify"].into_iter().find(|known| *known == role);
        let role = role.context("no such role")?;
        let number = 1 + self.cast.iter().filter(|actor| actor.role == role).count();
        let name = format!("{role}-{number}");
        let folder = match (self.backend, role) {
            (Backend::Embedded, _) => "all",
            // Archivers share the archive, and nobody else shares anything.
            (Backend::Kafka, "archive") => "archive",
            (Backend::Kafka, _) => &name,
        };
        let config = self.configure(&self.data.join(folder))?;
        self.cast.push(Actor::new(role, name, config, harrier));
        Ok(self.cast.len() - 1)
    }

    /// Adds a process and starts it.
    pub fn joins(&mut self, role: &str) -> anyhow::Result<usize> {
        let harrier = self.reader.harrier.clone();
        let index = self.join(role, &harrier)?;
        self.start(index, None)?;
        Ok(index)
    }

    fn configure(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join("client-secret"), &self.options.client_secret)?;
        let log = match &self.broker {
            None => String::new(),
            Some(broker) => {
                let options: String =
                    kafka_options().iter().map(|(key, value)| format!("{key:?} = {value:?}\n")).collect();
                format!(
                    "[log]\nkind = \"kafka\"\nbrokers = {brokers:?}\nprefix = \"faults\"\npartitions = {PARTITIONS}\n\
                     replication = {replication}\n\n[log.options]\n{options}\n",
                    brokers = broker.addresses,
                    replication = broker.addresses.len(),
                )
            }
        };
        let text = format!(
            r#"data_dir = "data"

{log}
[poll]
interval = "1s"

[archive]
flush_interval = "1s"

[http]
listen = "127.0.0.1:0"

[[tenant]]
name = "contoso"
tenant_id = "{tenant_id}"
client_id = "{client_id}"
client_secret_file = "client-secret"
domains = ["{domain}"]

[tenant.endpoints]
login = "http://{address}"
management = "http://{address}"

[[sink]]
name = "file"
kind = "file"
path = "findings.ndjson"
min_level = "low"
"#,
            tenant_id = self.options.tenant_id,
            client_id = self.options.client_id,
            domain = self.options.domain,
            address = self.tenant.fake.address(),
        );
        let file = folder.join("harrier.toml");
        std::fs::write(&file, text)?;
        Ok(file)
    }

    pub fn start(&mut self, index: usize, failpoint: Option<&str>) -> anyhow::Result<()> {
        match self.cast.get_mut(index) {
            Some(actor) => actor.start(&self.group, failpoint),
            None => Ok(()),
        }
    }

    pub fn start_all(&mut self) -> anyhow::Result<()> {
        (0..self.cast.len()).try_for_each(|index| self.start(index, None))
    }

    /// Those of a role.
    pub fn of(&self, role: &str) -> Vec<usize> {
        (0..self.cast.len()).filter(|&index| self.cast[index].role == role).collect()
    }

    pub fn tend(&mut self) -> anyhow::Result<()> {
        self.cast.iter_mut().try_for_each(|actor| actor.tend(&self.group))
    }

    /// Lets the pipeline work for a while.
    pub fn wait(&mut self, time: Duration) -> anyhow::Result<()> {
        self.until(time, |_| Ok(false)).map(drop)
    }

    /// Lets it work until something has happened. Whether it has in time.
    pub fn until(
        &mut self,
        longest: Duration,
        mut happened: impl FnMut(&mut Play) -> anyhow::Result<bool>,
    ) -> anyhow::Result<bool> {
        let began = Instant::now();
        loop {
            if happened(self)? {
                return Ok(true);
            }
            if began.elapsed() >= longest {
                return Ok(false);
            }
            self.tend()?;
            std::thread::sleep(TICK);
        }
    }

    /// Says what is done to whom.
    pub fn tell(&self, what: std::fmt::Arguments<'_>) {
        let served = self.tenant.fake.served();
        eprintln!(
            "{:6.1} s, {} of {} blobs: {what}",
            self.began.elapsed().as_secs_f64(),
            served.blobs_fetched_once,
            served.blobs_total
        );
    }

    pub fn blobs_had(&self) -> u64 {
        self.tenant.fake.served().blobs_fetched_once
    }

    /// How often a table of the archive has been committed to.
    pub fn versions_of(&self, table: &str) -> usize {
        let log = self.archive.join("archive").join(table).join("_delta_log");
        // A table that is not there yet has none.
        std::fs::read_dir(log).map_or(0, Iterator::count)
    }

    /// Whether every blob has been asked for.
    pub fn is_served(&self) -> bool {
        let served = self.tenant.fake.served();
        served.blobs_fetched_once == served.blobs_total
    }

    /// Lets everything come to rest, ends it, and compares.
    pub fn end(mut self) -> anyhow::Result<Outcome> {
        let records = self.tenant.fake.world().records.len();
        let arrived = self.await_records(records as u64)?;
        self.tell(format_args!("all records are in the archive: {arrived}"));
        let truth = self.reader.truth(&self.group, self.tenant.fake.world(), &self.options)?;
        self.await_rest(&truth)?;
        for role in ["ingest", "detect", "archive", "notify"] {
            for index in self.of(role) {
                if let Err(error) = self.cast[index].terminate(&self.group) {
                    eprintln!("{error:#}");
                }
            }
        }
        let difference = Difference::between(&truth, &self.reader.archived(&self.group, &self.archive)?);
        let blobs = self.blobs()?;
        if !difference.is_none() {
            self.keep_logs()?;
        }
        Ok(Outcome {
            kills: self.done,
            records,
            difference,
            blobs,
            blobs_total: self.tenant.fake.served().blobs_total,
            ended_by_themselves: self.cast.iter().map(|actor| actor.ended_by_itself).sum(),
            seconds: self.began.elapsed().as_secs(),
        })
    }

    /// Until every record has a row, or nothing comes any more. Whether every record has.
    fn await_records(&mut self, records: u64) -> anyhow::Result<bool> {
        let query = "SELECT count(*) FROM events WHERE source <> 'harrier'";
        let (began, mut changed, mut before) = (Instant::now(), Instant::now(), (0, 0));
        while began.elapsed() < SETTLE_TIME_MAX {
            // A table that is not there yet has no rows.
            let rows = self.reader.number(&self.group, &self.archive, query).unwrap_or(0);
            let now = (self.blobs_had(), rows);
            if self.is_served() && rows >= records {
                return Ok(true);
            }
            if now != before {
                (changed, before) = (Instant::now(), now);
            }
            // A blob that could not be fetched is tried again after minutes at most.
            if self.is_served() && changed.elapsed() > QUIET {
                return Ok(false);
            }
            self.wait(LOOK_INTERVAL)?;
        }
        Ok(false)
    }

    /// Until all is as it must be, or nothing changes any more.
    fn await_rest(&mut self, truth: &Archived) -> anyhow::Result<()> {
        let began = Instant::now();
        let (mut changed, mut before) = (Instant::now(), Archived::default());
        while began.elapsed() < SETTLE_TIME_MAX && changed.elapsed() < QUIET {
            let found = self.reader.archived(&self.group, &self.archive)?;
            if found == *truth {
                break;
            }
            if found != before {
                (changed, before) = (Instant::now(), found);
            }
            self.wait(LOOK_INTERVAL)?;
        }
        // What is there twice may come late.
        self.wait(LOOK_INTERVAL)
    }

    fn blobs(&self) -> anyhow::Result<Blobs> {
        self.tenant.executor.block_on(ledger::read(self.log()?, &"contoso".parse()?))
    }

    /// The log of the run, to look into. One at a time.
    fn log(&self) -> anyhow::Result<Arc<dyn Log>> {
        Ok(match &self.broker {
            None => Arc::new(Embedded::open(&self.archive.join("log.sqlite"), PARTITIONS)?),
            Some(broker) => Arc::new(Kafka::open(Settings {
                brokers: broker.addresses.clone(),
                prefix: "faults".to_owned(),
                partitions: PARTITIONS,
                replication: broker.addresses.len() as u16,
                security: Security::default(),
                options: kafka_options(),
                cache_folder: self.group.folder().join("ledger"),
                brokers_within: BROKERS_WITHIN,
            })?),
        })
    }

    pub fn judged(&self) -> anyhow::Result<Judged> {
        Ok(Judged::new(self.log()?, self.tenant.executor.handle().clone()))
    }

    /// What the processes said, for whoever looks for the cause.
    fn keep_logs(&self) -> anyhow::Result<()> {
        let kept = self.group.folder().with_extension("logs");
        std::fs::create_dir_all(&kept)?;
        for actor in &self.cast {
            let file = actor.log_file(&self.group);
            if file.exists() {
                std::fs::copy(file, kept.join(format!("{}.log", actor.name)))?;
            }
        }
        eprintln!("what the processes said is in {}", kept.display());
        Ok(())
    }
}

fn kafka_options() -> BTreeMap<String, String> {
    let option = |key: &str, value: u128| (key.to_owned(), value.to_string());
    let session = SESSION.as_millis();
    BTreeMap::from([option("session.timeout.ms", session), option("heartbeat.interval.ms", session / 6)])
}
