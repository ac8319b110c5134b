//! The services of one process, wired together over one log and one archive.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use archive::archiver::{Archiver, Settings};
use detect::matcher::Matcher;
use detect::rule::{RuleSet, Source, Tuning};
use runtime::clock::Clock;
use runtime::config::{Config, KafkaConfig, LogKind};
use runtime::log::embedded::Embedded;
use runtime::log::{Consumer, Log, ReadLimit, Topic};
use runtime::metrics::Metrics;
use runtime::shutdown::{self, Shutdown, Trigger};
use schemas::tenant::Tenant;
use tokio::task::JoinSet;

use crate::cli::Global;
use crate::exit::ConfigurationError;

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

/// The embedded pack and the rules beside it, or every problem in them.
pub fn rules(config: &Config) -> anyhow::Result<RuleSet> {
    let tuning = match &config.rules.tuning_file {
        None => Tuning::default(),
        Some(file) => {
            let text = std::fs::read_to_string(file)
                .map_err(|error| ConfigurationError(format!("{}: {error}", file.display())))?;
            Tuning::parse(&file.display().to_string(), &text)
                .map_err(|errors| ConfigurationError(errors.to_string()))?
        }
    };
    RuleSet::load(rule_sources(config)?, &tuning).map_err(|errors| ConfigurationError(errors.to_string()).into())
}

/// The texts of all rules.
pub fn rule_sources(config: &Config) -> anyhow::Result<Vec<Source>> {
    let mut sources: Vec<Source> = rules::pack()
        .iter()
        .map(|(file, text)| Source { file: (*file).to_owned(), text: (*text).to_owned() })
        .collect();
    for path in &config.rules.paths {
        read_rules(path, 0, &mut sources)
            .map_err(|error| ConfigurationError(format!("{}: {error}", path.display())))?;
    }
    Ok(sources)
}

fn read_rules(path: &Path, depth: usize, sources: &mut Vec<Source>) -> std::io::Result<()> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_dir() {
        if depth >= RULE_FOLDERS_DEEP {
            return Err(std::io::Error::other("folders of rules are nested too deep"));
        }
        let mut entries: Vec<PathBuf> =
            std::fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
        entries.sort();
        for entry in entries {
            let is_rule = entry.extension().is_some_and(|extension| extension == "yml" || extension == "yaml");
            if is_rule || entry.is_dir() {
                read_rules(&entry, depth + 1, sources)?;
            }
        }
        return Ok(());
    }
    if metadata.len() > RULE_FILE_BYTES_MAX {
        return Err(std::io::Error::other("a rule file of more than 1 MiB"));
    }
    sources.push(Source { file: path.display().to_string(), text: std::fs::read_to_string(path)? });
    Ok(())
}

/// What the services of one process share.
pub struct Core {
    pub config: Config,
    pub log: Arc<dyn Log>,
    pub store: archive::Store,
    pub rules: RuleSet,
    pub matcher: Arc<Matcher>,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
}

impl Core {
    /// Opens log and archive in the data folder, making what is missing. `domains` are added to those configured.
    pub fn open(config: Config, domains: &[(Tenant, Vec<String>)], metrics: Arc<Metrics>) -> anyhow::Result<Core> {
        let rules = rules(&config)?;
        let mut inside: BTreeMap<Tenant, Vec<String>> = BTreeMap::new();
        let configured = config.tenants.iter().map(|tenant| (tenant.name.clone(), tenant.domains.clone()));
        for (tenant, names) in configured.chain(domains.iter().cloned()) {
            inside.entry(tenant).or_default().extend(names);
        }
        let matcher = Arc::new(Matcher::new(rules.clone(), inside));
        let folder = config.data_dir.join("archive");
        make_private_folder(&config.data_dir)?;
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let log = open_log(&config)?;
        let store = archive::Store::folder(&folder)?;
        metrics.engine.rules_loaded.with(["enabled"]).set_count(rules.rules().len() as u64);
        for rule in rules.rules() {
            metrics.begin(&[("rule", &rule.id), ("level", rule.level.as_str())]);
        }
        for tenant in &config.tenants {
            metrics.begin(&[("tenant", tenant.name.as_str())]);
        }
        Ok(Core { config, log, store, rules, matcher, metrics, clock: Clock::system() })
    }

    /// The archiver, with its flush interval from the configuration.
    pub fn archiver(&self) -> Archiver {
        let settings = Settings { flush_interval: self.config.archive.flush_interval, ..Settings::default() };
        Archiver::new(self.log.clone(), self.store.clone(), self.clock.clone(), settings, self.metrics.clone())
    }
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
    use runtime::log::kafka::{BROKERS_WITHIN, Kafka, Sasl, Security, Settings};
    let sasl = kafka.sasl.as_ref().map(|sasl| {
        let password = sasl.password.read().map_err(|error| ConfigurationError(format!("[log.security]: {error}")))?;
        Ok::<_, ConfigurationError>(Sasl {
            mechanism: sasl.mechanism.into(),
            username: sasl.username.clone(),
            password,
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

/// How long detection may take to judge what came last, once the end is asked for. What is left is judged by the next.
const LAST_JUDGED_WITHIN: Duration = Duration::from_secs(20);

/// Services under way. The first that fails ends the wait for anything else.
pub struct Services {
    stages: [Running; 3],
}

struct Running {
    tasks: JoinSet<anyhow::Result<()>>,
    trigger: Trigger,
    shutdown: Shutdown,
}

impl Running {
    fn new() -> Running {
        let (trigger, shutdown) = shutdown::channel();
        Running { tasks: JoinSet::new(), trigger, shutdown }
    }

    async fn stop(self) -> anyhow::Result<()> {
        let Running { mut tasks, trigger, .. } = self;
        trigger.stop();
        let mut result = Ok(());
        while let Some(ended) = tasks.join_next().await {
            let ended = ended.context("a service was lost").and_then(|ended| ended);
            if result.is_ok() {
                result = ended;
            }
        }
        result
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
        self.stages[stage as usize]
            .tasks
            .spawn(async move { service.await.map_err(|error| error.into().context(format!("{name} has stopped"))) });
    }

    pub fn spawn_detect(&mut self, core: &Core) {
        let (log, rules, matcher) = (core.log.clone(), core.rules.clone(), core.matcher.clone());
        let shutdown = self.shutdown(Stage::Detect);
        let service = detect::service::run(log, rules, matcher, core.clock.clone(), core.metrics.clone(), shutdown);
        self.spawn(Stage::Detect, "detection", service);
    }

    /// Lets `work` go on until it is done, or a service fails.
    pub async fn until<T>(&mut self, work: impl Future<Output = T>) -> anyhow::Result<T> {
        tokio::pin!(work);
        let [ingest, detect, rest] = &mut self.stages;
        loop {
            let ended = tokio::select! {
                output = &mut work => return Ok(output),
                Some(ended) = ingest.tasks.join_next() => ended,
                Some(ended) = detect.tasks.join_next() => ended,
                Some(ended) = rest.tasks.join_next() => ended,
            };
            ended.context("a service was lost")??;
        }
    }

    /// Asks every service to end, stage by stage, and waits until all have: so that what has been received is judged,
    /// and what has been judged is archived. Every stage is ended also if one before it failed.
    pub async fn stop(self, log: &dyn Log) -> anyhow::Result<()> {
        let [ingest, detect, rest] = self.stages;
        let ingested = ingest.stop().await;
        if !detect.tasks.is_empty() {
            let judged = async {
                consumed(log, Consumer::Match, Topic::Records).await?;
                consumed(log, Consumer::Correlate, Topic::Matches).await
            };
            match tokio::time::timeout(LAST_JUDGED_WITHIN, judged).await {
                Ok(judged) => judged?,
                Err(_) => tracing::warn!(event = "stopped_before_all_was_judged"),
            }
        }
        let detected = detect.stop().await;
        // Who reads to the end must be able to read what has just been committed.
        log.settle().await?;
        let rested = rest.stop().await;
        ingested.and(detected).and(rested)
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
    for (partition, end) in (0..).zip(ends(log, topic).await?) {
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
