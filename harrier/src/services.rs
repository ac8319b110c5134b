//! The services of one process, wired together over one log and one archive.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use archive::archiver::{Archiver, Settings};
use archive::retention::{Hold, Retention};
use detect::matcher::Matcher;
use detect::places::Atlas;
use detect::rule::{RuleSet, Source};
use runtime::clock::Clock;
use runtime::config::{Config, KafkaConfig, LogKind};
use runtime::log::embedded::Embedded;
use runtime::log::{Consumer, Log, ReadLimit, Topic};
use runtime::metrics::Metrics;
use runtime::shutdown::{self, Shutdown, Trigger};
use schemas::tenant::Tenant;
use schemas::{RuleBook, RuleText};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::cli::Global;
use crate::exit::ConfigurationError;
use crate::places::PlaceFiles;
use crate::watch::{WATCH_FILE_NAME, WatchList};

/// The revision this binary was built from, where the build says so.
pub const REVISION: &str = match option_env!("HARRIER_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// Folder used when neither `--config` nor `--data-dir` is given.
const DATA_DIR_DEFAULT: &str = "harrier-data";

/// Largest rule file; a rule is kilobytes.
const RULE_FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Deepest folder of rules that is looked into.
const RULE_FOLDERS_DEEP: usize = 8;

/// The configuration that the options make.
pub fn config(global: &Global) -> anyhow::Result<Config> {
    let mut config = match (&global.config, &global.data_dir) {
        (Some(file), _) => Config::load(file).map_err(|errors| ConfigurationError(errors.to_string()))?,
        (None, Some(folder)) => Config::for_data_dir(folder),
        (None, None) => Config::for_data_dir(Path::new(DATA_DIR_DEFAULT)),
    };
    if let Some(folder) = &global.data_dir {
        config.data_dir = folder.clone();
    }
    config.rules.paths.extend(global.rules.iter().cloned());
    Ok(config)
}

/// The embedded pack and the rules beside it, with the operator's tuning, as text.
pub fn rule_book(config: &Config) -> anyhow::Result<RuleBook> {
    let text = |file: &PathBuf| {
        let text = std::fs::read_to_string(file)
            .map_err(|error| ConfigurationError(format!("{}: {error}", file.display())))?;
        Ok::<_, ConfigurationError>(RuleText { file: file.display().to_string(), text })
    };
    let domains = config.tenants.iter().map(|tenant| (tenant.name.clone(), tenant.domains.clone()));
    Ok(RuleBook {
        files: rule_sources(config)?.into_iter().map(|Source { file, text }| RuleText { file, text }).collect(),
        tuning: config.rules.tuning_file.as_ref().map(text).transpose()?,
        domains: domains.collect(),
        places: PlaceFiles::of(config).name().map_err(|error| places_error(config, &error))?,
    })
}

/// The rules that a configuration makes, or every problem in them.
pub fn rules(config: &Config) -> anyhow::Result<RuleSet> {
    Ok(compile(&rule_book(config)?)?.rules().clone())
}

/// The rule book that a configuration makes, known to compile, and how many rules that gives.
pub fn compiled_book(config: &Config) -> anyhow::Result<(RuleBook, usize)> {
    let book = rule_book(config)?;
    let rules = compile(&book)?.rules().rules().len();
    Ok((book, rules))
}

fn compile(book: &RuleBook) -> anyhow::Result<Matcher> {
    let bytes: usize = book.files.iter().map(|file| file.text.len()).sum();
    if bytes > detect::service::BOOK_BYTES_MAX {
        let most = detect::service::BOOK_BYTES_MAX >> 20;
        return Err(
            ConfigurationError(format!("rules of {} MiB: at most {most} can travel in the log", bytes >> 20)).into()
        );
    }
    Ok(detect::service::compile(book)?)
}

/// The texts of all rules.
pub fn rule_sources(config: &Config) -> anyhow::Result<Vec<Source>> {
    let mut sources: Vec<Source> = rules::pack()
        .iter()
        .map(|(file, text)| Source { file: (*file).to_owned(), text: (*text).to_owned() })
        .collect();
    sources.extend(watched(config)?);
    for path in &config.rules.paths {
        read_rules(path, &mut sources).map_err(|error| ConfigurationError(format!("{}: {error}", path.display())))?;
    }
    Ok(sources)
}

fn watched(config: &Config) -> Result<Option<Source>, ConfigurationError> {
    let list = WatchList::read(&watch_file(config)).map_err(|error| ConfigurationError(error.to_string()))?;
    Ok(list.as_rules())
}

fn places_error(config: &Config, error: &std::io::Error) -> ConfigurationError {
    let path = config.rules.places_file.as_deref().unwrap_or(Path::new("places_file"));
    ConfigurationError(format!("{}: {error}", path.display()))
}

/// The matcher of a configuration's rules for whoever asks without a log, with its places.
pub fn matcher(
    config: &Config,
    rules: RuleSet,
    domains: BTreeMap<Tenant, Vec<String>>,
) -> Result<Matcher, ConfigurationError> {
    let (matcher, files) = (Matcher::new(rules, domains), PlaceFiles::of(config));
    let Some(name) = files.name().map_err(|error| places_error(config, &error))? else { return Ok(matcher) };
    Ok(matcher.with_places(files.open(&name).map_err(|error| ConfigurationError(error.to_string()))?))
}

/// Where the watch list is kept.
pub fn watch_file(config: &Config) -> PathBuf {
    config.rules.watch_file.clone().unwrap_or_else(|| config.data_dir.join(WATCH_FILE_NAME))
}

fn read_rules(path: &Path, sources: &mut Vec<Source>) -> std::io::Result<()> {
    let mut files = Vec::new();
    files_below(path, 0, &mut files)?;
    for file in files {
        if std::fs::metadata(&file)?.len() > RULE_FILE_BYTES_MAX {
            return Err(std::io::Error::other("a rule file of more than 1 MiB"));
        }
        sources.push(Source { file: file.display().to_string(), text: std::fs::read_to_string(&file)? });
    }
    Ok(())
}

/// The rule files that a path of the configuration means, in order: itself, or those below it.
pub fn files_below(path: &Path, depth: usize, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if std::fs::metadata(path)?.is_dir() {
        if depth >= RULE_FOLDERS_DEEP {
            return Err(std::io::Error::other("folders of rules are nested too deep"));
        }
        let mut entries: Vec<PathBuf> =
            std::fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
        entries.sort();
        for entry in entries {
            let is_rule = entry.extension().is_some_and(|extension| extension == "yml" || extension == "yaml");
            if is_rule || entry.is_dir() {
                files_below(&entry, depth + 1, files)?;
            }
        }
        return Ok(());
    }
    files.push(path.to_owned());
    Ok(())
}

/// What the services of one process share.
pub struct Core {
    pub config: Config,
    pub log: Arc<dyn Log>,
    pub store: archive::Store,
    pub places: Arc<PlaceFiles>,
    /// What this process asks for; the log says what is in force.
    pub book: RuleBook,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
}

impl Core {
    /// Opens log and archive in the data folder, making what is missing, for a process that judges: its rules compile, or
    /// it does not start. `domains` are added to those configured.
    pub fn open(config: Config, domains: &[(Tenant, Vec<String>)], metrics: Arc<Metrics>) -> anyhow::Result<Core> {
        let mut book = rule_book(&config)?;
        for (tenant, names) in domains.iter().filter(|(_, names)| !names.is_empty()) {
            book.domains.entry(tenant.clone()).or_default().extend(names.iter().cloned());
        }
        let matcher = compile(&book)?;
        let core = Core::open_with(config, book, metrics)?;
        if let Some(name) = &core.book.places {
            core.places.keep(name).map_err(|error| places_error(&core.config, &error))?;
        }
        let rules = matcher.rules();
        core.metrics.engine.rules_loaded.with(["enabled"]).set_count(rules.rules().len() as u64);
        for rule in rules.rules() {
            core.metrics.begin(&[("rule", &rule.id), ("level", rule.level.as_str())]);
        }
        Ok(core)
    }

    /// The same for a process that judges nothing: it needs no rules, which are half of the memory of one that polls.
    pub fn open_without_rules(config: Config, metrics: Arc<Metrics>) -> anyhow::Result<Core> {
        Core::open_with(config, RuleBook::default(), metrics)
    }

    fn open_with(config: Config, book: RuleBook, metrics: Arc<Metrics>) -> anyhow::Result<Core> {
        make_private_folder(&config.data_dir)?;
        let log = open_log(&config)?;
        let store = crate::store::to_write(&config)?;
        for tenant in &config.tenants {
            metrics.begin(&[("tenant", tenant.name.as_str())]);
        }
        let places = Arc::new(PlaceFiles::of(&config));
        Ok(Core { config, log, store, places, book, metrics, clock: Clock::system() })
    }

    /// Asks an object store whether commits can be made there. What is for an operator to change ends the process; for a
    /// store that cannot be reached the archiver waits, while all else goes on.
    pub async fn check_archive(&self) -> anyhow::Result<()> {
        match self.store.check().await {
            Err(error) if error.retryable() && !error.is_for_operator() => {
                tracing::warn!(event = "archive_not_reached", archive = self.store.name(), error = %error);
                Ok(())
            }
            checked => checked.map_err(|error| crate::store::told(&self.store.name(), error)),
        }
    }

    /// The archiver, with its flush interval from the configuration.
    pub fn archiver(&self) -> Archiver {
        let settings = Settings { flush_interval: self.config.archive.flush_interval, ..Settings::default() };
        Archiver::new(self.log.clone(), self.store.clone(), self.clock.clone(), settings, self.metrics.clone())
    }
}

/// How long the archive keeps what, as the configuration says.
pub fn retention(config: &Config) -> Retention {
    use archive::table::{EVENTS, MAIL_ITEMS, SIGN_INS};
    let archive = &config.archive;
    let kept = [
        (&EVENTS, archive.keep),
        (&MAIL_ITEMS, archive.keep_mail_items.or(archive.keep)),
        (&SIGN_INS, archive.keep_sign_ins.or(archive.keep)),
    ];
    let days = |keep: Duration| u32::try_from(keep.as_secs().div_ceil(86_400)).unwrap_or(u32::MAX);
    let keep = kept.into_iter().filter_map(|(table, keep)| Some((table, days(keep?))));
    let holds =
        archive.holds.iter().map(|hold| Hold { tenant: hold.tenant.clone(), from: hold.from, until: hold.until });
    Retention::new(keep, holds.collect())
}

/// Who signs the archive's commits; the key is made when it is first needed.
pub fn signer(config: &Config) -> Result<archive::signer::Signer, ConfigurationError> {
    archive::signer::Signer::open(&config.data_dir).map_err(|error| ConfigurationError(error.to_string()))
}

/// Whether there is a log to open without making one.
pub fn has_log(config: &Config) -> bool {
    match config.log.kind {
        LogKind::Embedded => config.data_dir.join("log.sqlite").exists(),
        LogKind::Kafka(_) => true,
    }
}

/// The log that the configuration names. What only an operator can change is a fault of the configuration.
pub fn open_log(config: &Config) -> anyhow::Result<Arc<dyn Log>> {
    match &config.log.kind {
        LogKind::Embedded => {
            let log = Embedded::open(&config.data_dir.join("log.sqlite"), config.log.partitions)
                .with_context(|| format!("cannot open the log in {}", config.data_dir.display()))?;
            Ok(Arc::new(log))
        }
        LogKind::Kafka(kafka) => open_kafka(config, kafka),
    }
}

#[cfg(not(feature = "kafka"))]
fn open_kafka(_: &Config, _: &KafkaConfig) -> anyhow::Result<Arc<dyn Log>> {
    Err(ConfigurationError("this harrier was built without Kafka: use `kind = \"embedded\"` in [log]".into()).into())
}

#[cfg(feature = "kafka")]
fn open_kafka(config: &Config, kafka: &KafkaConfig) -> anyhow::Result<Arc<dyn Log>> {
    use runtime::config::SaslConfig;
    use runtime::log::kafka::{BROKERS_WITHIN, Kafka, Sasl, Security, Settings};
    let sasl = kafka.sasl.as_ref().map(|sasl| {
        let secret = sasl.secret().read().map_err(|error| ConfigurationError(format!("[log.security]: {error}")))?;
        Ok::<_, ConfigurationError>(match sasl.clone() {
            SaslConfig::Password { mechanism, username, .. } => {
                Sasl::Password { mechanism: mechanism.to_owned(), username, password: secret }
            }
            SaslConfig::Token { endpoint, client_id, scope, .. } => {
                Sasl::Token { endpoint, client_id, client_secret: secret, scope }
            }
        })
    });
    let settings = Settings {
        brokers: kafka.brokers.clone(),
        prefix: kafka.prefix.clone(),
        partitions: config.log.partitions,
        replication: kafka.replication,
        security: Security { tls: kafka.tls, tls_ca_file: kafka.tls_ca_file.clone(), sasl: sasl.transpose()? },
        options: kafka.options.clone(),
        cache_folder: config.data_dir.join("state"),
        brokers_within: BROKERS_WITHIN,
    };
    Ok(Arc::new(Kafka::open(settings)?))
}

/// Records are evidence and personal data: the folder is the operator's alone.
fn make_private_folder(folder: &Path) -> anyhow::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).with_context(|| format!("cannot make the folder {}", folder.display()))
}

/// What ends before what: whoever writes, before whoever reads what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Ingest,
    Detect,
    /// Archive, notification, and what looks after them.
    Rest,
}

/// How long to wait before rules are offered again to a log that could not take them.
const OFFER_RETRY: Duration = Duration::from_secs(2);

/// How long detection may take to judge what came last, once the end is asked for. What is left is judged by the next.
const LAST_JUDGED_WITHIN: Duration = Duration::from_secs(20);

/// How often to look whether rules are behind: on Kafka a look reads a topic.
const BEHIND_LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// How long rules may be shown nothing more before whoever waits for it goes on: longer than an archiver's flush.
const BEHIND_STILL_MAX: Duration = Duration::from_secs(45);

/// How long the log may take to answer one small question before it counts as silent.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// How long a stage may take to end while the log is silent: steps under way may wait for it for minutes.
const SILENT_STAGE_WITHIN: Duration = Duration::from_secs(10);

/// The end was asked for, and some services were in steps that the log did not let them finish.
#[derive(Debug)]
pub struct BrokenOff(Vec<&'static str>);

impl std::fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} did not end in time and was broken off within a step; nothing is lost, the next start takes it again",
            self.0.join(", ")
        )
    }
}

impl std::error::Error for BrokenOff {}

/// Services under way. The first that fails ends the wait for anything else.
pub struct Services {
    stages: [Running; 3],
}

struct Running {
    tasks: JoinSet<(&'static str, anyhow::Result<()>)>,
    /// The services that have not ended.
    open: Vec<&'static str>,
    trigger: Trigger,
    shutdown: Shutdown,
}

impl Running {
    fn new() -> Running {
        let (trigger, shutdown) = shutdown::channel();
        Running { tasks: JoinSet::new(), open: Vec::new(), trigger, shutdown }
    }

    /// The end of the next service that ends, if one is left.
    async fn next_end(&mut self) -> Option<anyhow::Result<()>> {
        let ended = self.tasks.join_next().await?;
        Some(ended.context("a service was lost").and_then(|(name, ended)| {
            if let Some(place) = self.open.iter().position(|open| *open == name) {
                self.open.swap_remove(place);
            }
            ended.with_context(|| format!("{name} has stopped"))
        }))
    }

    /// Asks for the end and waits for it, until a deadline if there is one. Who has not ended by then is broken off: a
    /// step is taken as a whole or not at all, so the next process finds nothing half done.
    async fn stop(mut self, until: Option<Instant>, broken_off: &mut Vec<&'static str>) -> anyhow::Result<()> {
        self.trigger.stop();
        let mut result = Ok(());
        loop {
            let ended = match until {
                Some(until) => tokio::time::timeout_at(until, self.next_end()).await,
                None => Ok(self.next_end().await),
            };
            match ended {
                Ok(Some(ended)) if result.is_ok() => result = ended,
                Ok(Some(_)) => {}
                Ok(None) => return result,
                Err(_) => {
                    broken_off.append(&mut self.open);
                    return result;
                }
            }
        }
    }
}

impl Services {
    pub fn new() -> Services {
        Services { stages: [Running::new(), Running::new(), Running::new()] }
    }

    /// Asked for when a stage is to end.
    pub fn shutdown(&self, stage: Stage) -> Shutdown {
        self.stages[stage as usize].shutdown.clone()
    }

    pub fn spawn<E: Into<anyhow::Error> + 'static>(
        &mut self,
        stage: Stage,
        name: &'static str,
        service: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let stage = &mut self.stages[stage as usize];
        stage.open.push(name);
        stage.tasks.spawn(async move { (name, service.await.map_err(Into::into)) });
    }

    pub fn spawn_detect(&mut self, core: &Core) {
        let shutdown = self.shutdown(Stage::Detect);
        let (log, places, metrics) = (core.log.clone(), core.places.clone(), core.metrics.clone());
        let past = Arc::new(archive::history::Past::new(core.store.clone()));
        let service = detect::service::run(log, places, past, core.clock.clone(), metrics, shutdown);
        self.spawn(Stage::Detect, "detection", service);
    }

    /// Starts detection and the archive for what is to be taken in once, with the rules of this process in force before the
    /// first record, in every partition. `again`: also if they were replaced before.
    pub async fn begin_intake(&mut self, core: &Core, again: bool) -> anyhow::Result<()> {
        self.spawn_detect(core);
        detect::service::offer(&*core.log, &core.book, again).await?;
        self.until(consumed(&*core.log, Consumer::Match, Topic::Records)).await??;
        self.spawn_archive(core);
        Ok(())
    }

    pub fn spawn_archive(&mut self, core: &Core) {
        let (archiver, shutdown) = (core.archiver(), self.shutdown(Stage::Rest));
        self.spawn(Stage::Rest, "the archive", async move { archiver.run(shutdown).await });
    }

    /// Ends every service once all that has been received is judged, by rules that came with it also what was there before,
    /// and returns when it is in the archive.
    pub async fn end_intake(mut self, core: &Core) -> anyhow::Result<()> {
        let log = &*core.log;
        self.until(judged(log)).await??;
        if !detect::service::rules_behind(log).await?.rules.is_empty() {
            // They are shown what is archived. An archiver flushes when it ends; another one takes what they find.
            let archiver = std::mem::replace(&mut self.stages[Stage::Rest as usize], Running::new());
            archiver.stop(None, &mut Vec::new()).await?;
            self.spawn_archive(core);
            self.until(judged_again(log)).await??;
        }
        // What comes after this is that of others.
        let mut archived = Vec::new();
        for topic in [Topic::Verdicts, Topic::Findings, Topic::DeadLetters, Topic::Coverage] {
            archived.push((topic, ends(log, topic).await?));
        }
        self.stop(log, None).await?;
        // Where another process is the archiver, its next flush has our rows.
        for (topic, ends) in archived {
            consumed_to(log, Consumer::Archive, topic, ends).await?;
        }
        Ok(())
    }

    /// Asks for the rule set of this process. `again`: also if it has been in force and was replaced.
    pub fn spawn_offer(&mut self, core: &Core, again: bool) {
        let (log, book, shutdown) = (core.log.clone(), core.book.clone(), self.shutdown(Stage::Detect));
        self.spawn(Stage::Detect, "the offer of rules", async move {
            while let Err(error) = detect::service::offer(&*log, &book, again).await {
                if !error.retryable() {
                    return Err(error);
                }
                tracing::warn!(event = "rules_not_offered", error = %error);
                if !shutdown.sleep(OFFER_RETRY).await {
                    return Ok(());
                }
            }
            tracing::info!(event = "rules_offered", rule_set = book.name());
            Ok(())
        });
    }

    /// Lets `work` go on until it is done, or a service fails.
    pub async fn until<T>(&mut self, work: impl Future<Output = T>) -> anyhow::Result<T> {
        tokio::pin!(work);
        let [ingest, detect, rest] = &mut self.stages;
        loop {
            let ended = tokio::select! {
                output = &mut work => return Ok(output),
                Some(ended) = ingest.next_end() => ended,
                Some(ended) = detect.next_end() => ended,
                Some(ended) = rest.next_end() => ended,
            };
            ended?;
        }
    }

    /// Asks every service to end, stage by stage, and waits until all have: so that what has been received is judged,
    /// and what has been judged is archived. Every stage is ended also if one before it failed.
    ///
    /// With a budget it returns in time whatever the log does, and says by [`BrokenOff`] whom it did not wait for.
    pub async fn stop(self, log: &dyn Log, within: Option<Duration>) -> anyhow::Result<()> {
        let began = Instant::now();
        let answer = tokio::time::timeout(ANSWERED_WITHIN, log.end(Topic::Records, 0)).await;
        let silent = !matches!(answer, Ok(Ok(_)));
        if silent {
            tracing::warn!(event = "stopping_without_the_log");
        }
        let until = |quarters: u32| {
            within.map(|within| {
                let usual = began + within / 4 * quarters;
                if silent { usual.min(Instant::now() + SILENT_STAGE_WITHIN) } else { usual }
            })
        };
        let mut broken_off = Vec::new();
        let [ingest, detect, rest] = self.stages;
        let ingested = ingest.stop(until(1), &mut broken_off).await;
        if !silent && !detect.tasks.is_empty() {
            judge_the_last(log).await;
        }
        let detected = detect.stop(until(3), &mut broken_off).await;
        // Who reads to the end must be able to read what has just been committed.
        let settled = match until(3) {
            _ if silent => Ok(()),
            Some(until) => tokio::time::timeout_at(until, log.settle()).await.unwrap_or(Ok(())),
            None => log.settle().await,
        };
        let rested = rest.stop(until(4), &mut broken_off).await;
        ingested.and(detected).and(rested)?;
        settled?;
        if broken_off.is_empty() { Ok(()) } else { Err(BrokenOff(broken_off).into()) }
    }
}

/// Waits until all that has been received is judged. Matches exist only once their records have been looked at, so the
/// order of these two matters.
pub async fn judged(log: &dyn Log) -> anyhow::Result<()> {
    consumed(log, Consumer::Match, Topic::Records).await?;
    consumed(log, Consumer::Correlate, Topic::Matches).await
}

/// Waits until no rule is behind, or nobody shows them more of the archive, and what that brought has become findings.
async fn judged_again(log: &dyn Log) -> anyhow::Result<()> {
    tracing::info!(event = "waiting_for_rules_behind");
    let (mut seen, mut since) = (detect::service::rules_behind(log).await?, Instant::now());
    while !seen.rules.is_empty() {
        tokio::time::sleep(BEHIND_LOOK_INTERVAL).await;
        let now = detect::service::rules_behind(log).await?;
        if now != seen {
            (seen, since) = (now, Instant::now());
        } else if since.elapsed() > BEHIND_STILL_MAX {
            // Whoever works on partition 0 of many hosts may not reach the archive. Rules stay behind until somebody does.
            tracing::warn!(event = "rules_are_behind", rules = seen.rules.len());
            break;
        }
    }
    judged(log).await
}

/// Waits until all that has been received is judged, for a while.
async fn judge_the_last(log: &dyn Log) {
    match tokio::time::timeout(LAST_JUDGED_WITHIN, judged(log)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(event = "stopped_before_all_was_judged", error = format!("{error:#}")),
        Err(_) => tracing::warn!(event = "stopped_before_all_was_judged"),
    }
}

/// Where every partition of a topic ends.
pub async fn ends(log: &dyn Log, topic: Topic) -> anyhow::Result<Vec<u64>> {
    let mut ends = Vec::new();
    for partition in 0..log.partitions() {
        ends.push(log.end(topic, partition).await?);
    }
    Ok(ends)
}

/// Waits until a consumer has consumed all that is in a topic now, whichever process does it.
pub async fn consumed(log: &dyn Log, consumer: Consumer, topic: Topic) -> anyhow::Result<()> {
    log.settle().await?;
    consumed_to(log, consumer, topic, ends(log, topic).await?).await
}

/// The same, up to these ends of the partitions.
async fn consumed_to(log: &dyn Log, consumer: Consumer, topic: Topic, ends: Vec<u64>) -> anyhow::Result<()> {
    for (partition, end) in (0..).zip(ends) {
        loop {
            let at = log.committed(consumer, topic, partition).await?;
            if at >= end || is_void(log, topic, partition, at, end).await? {
                break;
            }
            log.wait(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

/// Whether no message lies between: offsets are not dense in every log.
async fn is_void(log: &dyn Log, topic: Topic, partition: u32, from: u64, end: u64) -> anyhow::Result<bool> {
    let first = log.read(topic, partition, from, ReadLimit { messages: 1, bytes: 0 }).await?;
    Ok(first.first().is_none_or(|message| message.offset >= end))
}
