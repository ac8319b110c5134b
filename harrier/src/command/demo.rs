//! `harrier demo`: a fake tenant and all services in one process, an account takeover played in fast time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use archive::sql::Sql;
use archive::sql::output::Format;
use chrono::{TimeDelta, Utc};
use ingest::source::management_activity::Pace;
use investigate::timeline::Question;
use runtime::config::Config;
use runtime::http::{Operators, Readiness};
use runtime::log::{Consumer, ReadLimit, Topic};
use runtime::metrics::Metrics;
use schemas::Finding;
use schemas::finding::Level;
use schemas::message::FindingMessage;
use schemas::text::escape_controls;
use simulate::FakeTenant;

use crate::cli::{Demo, Global, Role};
use crate::exit::Outcome;
use crate::services::{Core, REVISION, Services, Stage, consumed, judged};
use crate::show::{ProgressLine, grouped, shell_quoted};

/// How long the story day takes.
const PLAYED_IN: Duration = Duration::from_secs(12);

/// How long the whole demo may take before it gives up.
const PATIENCE: Duration = Duration::from_secs(180);

/// How often findings are looked for.
const TICK: Duration = Duration::from_millis(200);

pub async fn run(global: &Global, options: &Demo, metrics: Arc<Metrics>) -> anyhow::Result<Outcome> {
    let folder = folder(global)?;
    let mut world = simulate::Options::new(Utc::now());
    world.seed = options.seed;
    world.pace = simulate::Pace::Fast { real: PLAYED_IN };
    let tenant = FakeTenant::start(world.clone(), ([127, 0, 0, 1], 0).into()).await?;
    let story = tenant.world().story.clone();
    println!(
        "A fake Microsoft 365 tenant with {} users and {} days of mail, files and sign-ins plays on",
        world.users, world.days
    );
    println!("http://{}. Somebody is about to take over the mailbox of {}.\n", tenant.address(), story.victim);

    let config = config(&folder, &world, tenant.address())?;
    let core = Core::open(config, &[], metrics)?;
    let mut services = Services::new();
    let readiness = Readiness::default();
    super::run::start(&core, &mut services, Role::All, &readiness, pace())?;
    let operators = Operators { metrics: core.metrics.clone(), readiness, revision: REVISION };
    let server = runtime::http::serve(([127, 0, 0, 1], 0).into(), operators, services.shutdown(Stage::Rest)).await?;
    let address = server.address();

    let played = tokio::select! {
        result = services.until(play(&core, &tenant, global.quiet)) => result?,
        _ = tokio::signal::ctrl_c() => {
            println!("\nstopped; what was collected so far is in {}", folder.display());
            services.stop(&*core.log, None).await?;
            return Ok(Outcome::Incomplete);
        }
    };
    let (findings, records) = played?;
    services.stop(&*core.log, None).await?;
    server.finished().await;
    // After the services have ended, so that it says what they did in the end.
    let text = core.metrics.text()?;
    tenant.stop().await;
    println!("\n{} records collected, {} findings.\n", grouped(records), findings);
    questions(&folder, &story.victim).await?;
    println!(
        "While it ran, http://{address}/metrics had {} series, among them:",
        text.lines().filter(|line| !line.starts_with('#')).count()
    );
    for name in ["harrier_events_received_total", "harrier_archive_rows_total", "harrier_findings_total"] {
        let lines = text.lines().filter(|line| line.starts_with(name) && !line.ends_with(" 0"));
        lines.take(2).for_each(|line| println!("  {line}"));
    }
    println!(
        "\nLog, archive and findings are in {0}. Go on asking:\n  harrier sql --data-dir {1} \"DESCRIBE events\"",
        folder.display(),
        shell_quoted(&folder.to_string_lossy())
    );
    Ok(Outcome::Done)
}

/// A new folder below the data folder, so that each demo begins with nothing.
fn folder(global: &Global) -> anyhow::Result<PathBuf> {
    let parent = global.data_dir.clone().unwrap_or_else(|| PathBuf::from("harrier-data"));
    let folder = parent.join(format!("demo-{}", Utc::now().format("%Y%m%d-%H%M%S")));
    anyhow::ensure!(!folder.exists(), "{} exists already", folder.display());
    Ok(folder)
}

fn config(folder: &Path, world: &simulate::Options, address: std::net::SocketAddr) -> anyhow::Result<Config> {
    let file = super::simulate::write_config(folder, world, address)?;
    let mut config = Config::load(&file).map_err(|errors| anyhow::anyhow!("{errors}"))?;
    config.data_dir = folder.to_owned();
    config.archive.flush_interval = Duration::from_secs(2);
    Ok(config)
}

/// The service's pace, but for a world where a day passes in seconds.
fn pace() -> Pace {
    Pace {
        poll_interval: TimeDelta::milliseconds(700),
        settle: TimeDelta::seconds(1),
        mark_step: TimeDelta::seconds(1),
        coverage_step: TimeDelta::seconds(5),
        backoff: TimeDelta::milliseconds(500),
        // The played subscriptions have their content at once.
        warm_up: TimeDelta::zero(),
        start_interval: TimeDelta::seconds(1),
        requests_per_minute: 60_000,
        ..Pace::default()
    }
}

/// Prints findings as they come, until the tenant has told all it has and every stage has dealt with it.
async fn play(core: &Core, tenant: &FakeTenant, quiet: bool) -> anyhow::Result<(usize, u64)> {
    let started = Instant::now();
    let mut progress = ProgressLine::new(quiet);
    let mut seen = Seen::default();
    loop {
        tokio::time::sleep(TICK).await;
        let served = tenant.served();
        seen.print_new(core, &mut progress).await?;
        progress.set(&format!(
            "{:>3} s   {} of {} blobs fetched, {} findings",
            started.elapsed().as_secs(),
            served.blobs_fetched_once,
            served.blobs_total,
            seen.standing()
        ));
        if served.blobs_fetched_once >= served.blobs_total {
            break;
        }
        anyhow::ensure!(
            started.elapsed() < PATIENCE,
            "the demo takes too long: {} of {} blobs",
            served.blobs_fetched_once,
            served.blobs_total
        );
    }
    // The last blob is in the log a moment after it has been fetched.
    let records = settled(core, tenant).await?;
    judged(&*core.log).await?;
    seen.print_new(core, &mut progress).await?;
    Ok((seen.standing(), records))
}

/// Waits until the log holds every record of the world; returns how many deliveries that took.
async fn settled(core: &Core, tenant: &FakeTenant) -> anyhow::Result<u64> {
    let expected = tenant.world().records.len() as u64;
    let started = Instant::now();
    loop {
        consumed(&*core.log, Consumer::Match, Topic::Records).await?;
        let name = "contoso";
        let received = core.metrics.ingest.received.with([name, "management_activity"]).value();
        let again = core.metrics.ingest.duplicates.with([name]).value();
        if received >= expected && received - again >= expected {
            return Ok(received - again);
        }
        anyhow::ensure!(started.elapsed() < PATIENCE, "{} of {expected} records have come", received - again);
        tokio::time::sleep(TICK).await;
    }
}

/// Findings printed so far.
#[derive(Default)]
struct Seen {
    offsets: BTreeMap<u32, u64>,
    newest: BTreeMap<String, Finding>,
}

impl Seen {
    async fn print_new(&mut self, core: &Core, progress: &mut ProgressLine) -> anyhow::Result<()> {
        for partition in 0..core.log.partitions() {
            let from = self.offsets.entry(partition).or_default();
            for message in core.log.read(Topic::Findings, partition, *from, ReadLimit::default()).await? {
                *from = message.offset + 1;
                let FindingMessage::Finding(finding) = serde_json::from_slice(&message.value)? else { continue };
                if finding.revision == 1 && finding.status.stands() && finding.rule.level >= Level::Medium {
                    progress.clear();
                    println!("{:8}  {}", finding.rule.level.as_str(), escape_controls(&finding.reason));
                }
                self.newest.insert(finding.id.clone(), *finding);
            }
        }
        Ok(())
    }

    fn standing(&self) -> usize {
        self.newest.values().filter(|finding| finding.status.stands()).count()
    }
}

/// The questions an analyst would ask now, with the commands that ask them.
async fn questions(folder: &Path, victim: &str) -> anyhow::Result<()> {
    let data_dir = shell_quoted(&folder.to_string_lossy());
    let sql = Sql::over(crate::store::to_read(&Config::for_data_dir(folder)).await?);
    println!("$ harrier timeline {victim} --data-dir {data_dir}");
    let question = Question { value: victim.to_owned(), since: None, until: None };
    super::timeline::show(&sql, &question, false).await?;
    for (asks, query) in [
        (
            "Was it the only account? Who signed in from the addresses that the victim's findings name:",
            "SELECT user_id, client_ip, outcome, count(*) AS sign_ins, min(event_time) AS first \
             FROM events WHERE operation IN ('UserLoggedIn', 'UserLoginFailed') AND client_network IN \
             (SELECT client_network FROM events JOIN evidence ON events.id = evidence.event_id WHERE operation = 'New-InboxRule') \
             GROUP BY user_id, client_ip, outcome ORDER BY first",
        ),
        (
            "What was taken? Messages opened, by address and kind of access:",
            "SELECT mailbox_owner, client_ip, mail_access_type, sum(item_count) AS items, count(*) AS records, \
             bool_or(is_throttled) AS throttled FROM events WHERE operation = 'MailItemsAccessed' AND id IN \
             (SELECT event_id FROM evidence) GROUP BY ALL ORDER BY items DESC",
        ),
        (
            "What was left behind? Rules and forwarding, with where they send mail:",
            "SELECT event_time, operation, user_id, client_ip, param(raw, 'Name') AS rule_name, forward_targets \
             FROM events WHERE operation LIKE '%InboxRule%' AND id IN (SELECT event_id FROM evidence) \
             AND (cardinality(forward_targets) > 0 OR operation = 'New-InboxRule') \
             OR operation = 'Set-Mailbox' AND cardinality(forward_targets) > 0 ORDER BY event_time",
        ),
    ] {
        println!("\n{asks}\n$ harrier sql --data-dir {data_dir} \"{}\"", query.replace("  ", " "));
        super::sql::print(&sql, query, Format::Table).await?;
    }
    println!();
    Ok(())
}
