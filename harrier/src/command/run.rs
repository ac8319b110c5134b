//! `harrier run`: the services, until SIGTERM or Ctrl-C.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use ingest::identity::Credential;
use ingest::source::management_activity::{Pace, Poller, TenantSource};
use ingest::source::{HEARTBEAT_INTERVAL, Health, beat};
use notify::{SigningSecret, Sink};
use runtime::config::{Config, SinkKind, TenantConfig};
use runtime::http::{Operators, Part, Readiness};
use runtime::log::Log;
use runtime::metrics::Metrics;
use runtime::shutdown::Shutdown;

use crate::cli::{Global, Role, Run};
use crate::exit::{ConfigurationError, Outcome};
use crate::reload::Watch;
use crate::services::{BrokenOff, Core, REVISION, Services, Stage, config};

/// How often what everybody has consumed is deleted from the log, and what left the archive's tables from the disk.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(3600);

/// Files stay so long after they left a table: readers of an older snapshot may still want them.
const VACUUM_AFTER: TimeDelta = TimeDelta::hours(24);

/// How often readiness and the gauges of the process are brought up to date.
const WATCH_INTERVAL: Duration = Duration::from_secs(5);

/// How long services may take to finish their steps.
const STOP_BUDGET: Duration = Duration::from_secs(80);

pub async fn run(global: &Global, options: &Run, metrics: Arc<Metrics>) -> anyhow::Result<Outcome> {
    let config = config(global)?;
    for warning in &config.warnings {
        tracing::warn!(event = "configuration", %warning);
    }
    let core = match options.role {
        Role::Sql => return super::door::run(config, metrics).await,
        Role::All | Role::Detect => Core::open(config, &[], metrics)?,
        Role::Ingest | Role::Archive | Role::Notify => Core::open_without_rules(config, metrics)?,
    };
    if matches!(options.role, Role::All | Role::Archive) {
        core.check_archive().await?;
    }
    let readiness = Readiness::default();
    let mut services = Services::new();
    start(&core, &mut services, options.role, &readiness, pace(&core.config))?;
    let operators = Operators { metrics: core.metrics.clone(), readiness, revision: REVISION };
    let server = runtime::http::serve(core.config.http.listen, operators, services.shutdown(Stage::Rest)).await?;
    let stop = stop_signal()?;
    // Who detects reads its rules again. Nobody ends, whatever the role.
    let _hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?;
    tracing::info!(event = "started", http = %server.address(), data_dir = %core.config.data_dir.display());
    services.until(stop).await??;
    tracing::info!(event = "stopping");
    match services.stop(&*core.log, Some(STOP_BUDGET)).await {
        // As good an end as any other, but for the time that the steps will take again.
        Err(error) if error.is::<BrokenOff>() => tracing::warn!(event = "stopped_within_steps", %error),
        stopped => stopped?,
    }
    server.finished().await;
    Ok(Outcome::Done)
}

/// The service's pace, at the interval of the configuration. Whoever looks more often than by default does not want to
/// wait longer after a failure than between two looks, and for everything else in proportion.
fn pace(config: &Config) -> Pace {
    let defaults = Pace::default();
    let delta = |duration, default| TimeDelta::from_std(duration).unwrap_or(default);
    let poll_interval = delta(config.poll.interval, defaults.poll_interval);
    let looks = |default: TimeDelta, count: i32| default.min(poll_interval * count);
    Pace {
        poll_interval,
        idle_timeout: delta(config.poll.timeout, defaults.idle_timeout),
        backoff: defaults.backoff.min(poll_interval),
        backoff_max: looks(defaults.backoff_max, 15),
        config_retry: looks(defaults.config_retry, 15),
        subscriptions_interval: looks(defaults.subscriptions_interval, 10),
        sweep_interval: looks(defaults.sweep_interval, 60),
        ..defaults
    }
}

/// Waits until the process is asked to end. From this call on SIGTERM does not end it by itself.
pub fn stop_signal() -> anyhow::Result<impl Future<Output = anyhow::Result<()>>> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => Ok(()),
            result = tokio::signal::ctrl_c() => Ok(result?),
        }
    })
}

/// Starts the services of a role.
pub fn start(
    core: &Core,
    services: &mut Services,
    role: Role,
    readiness: &Readiness,
    pace: Pace,
) -> anyhow::Result<()> {
    let runs = |of| role == Role::All || role == of;
    if runs(Role::Ingest) {
        start_ingest(core, services, readiness, pace)?;
    }
    if runs(Role::Detect) {
        // One process of all roles is all there is, so what it was started with is what its operator wants. A detector is
        // one of many: that it restarts in the middle of a roll-out must not take the others back.
        services.spawn_offer(core, role == Role::All);
        services.spawn_detect(core);
        let watch = Watch::new(core.config.clone(), core.log.clone(), core.metrics.clone(), &core.book);
        services.spawn(Stage::Detect, "the watch over rules", watch.run(services.shutdown(Stage::Detect)));
    }
    if runs(Role::Archive) {
        services.spawn_archive(core);
        let (log, store, clock) = (core.log.clone(), core.store.clone(), core.clock.clone());
        let heads = archive::heads::run(log, store, clock, services.shutdown(Stage::Rest));
        services.spawn(Stage::Rest, "the heads of the archive", heads);
    }
    if runs(Role::Notify) {
        let sinks = sinks(&core.config)?;
        for sink in &sinks {
            core.metrics.begin(&[("sink", &sink.name), ("type", &sink.kind)]);
        }
        let (log, clock, metrics) = (core.log.clone(), core.clock.clone(), core.metrics.clone());
        let notify = notify::run(log, sinks, clock, services.shutdown(Stage::Rest), metrics);
        services.spawn(Stage::Rest, "notification", notify);
    }
    let part = readiness.part("log");
    services.spawn(
        Stage::Rest,
        "housekeeping",
        housekeeping(
            core.log.clone(),
            core.archiver(),
            core.config.clone(),
            core.clock.clone(),
            core.metrics.clone(),
            part,
            services.shutdown(Stage::Rest),
        ),
    );
    Ok(())
}

fn start_ingest(core: &Core, services: &mut Services, readiness: &Readiness, pace: Pace) -> anyhow::Result<()> {
    let health = Health::default();
    let part = readiness.part("ingest");
    let shutdown = services.shutdown(Stage::Ingest);
    services.spawn(Stage::Ingest, "the watch over sources", watch(health.clone(), part, shutdown.clone()));
    let (log, clock, metrics) = (core.log.clone(), core.clock.clone(), core.metrics.clone());
    services.spawn(Stage::Ingest, "the heartbeat", beat(log, clock, HEARTBEAT_INTERVAL, shutdown.clone(), metrics));
    for tenant in &core.config.tenants {
        let Some(source) = source(tenant)? else { continue };
        let poller = Poller::new(source, pace.clone())?;
        let (log, clock, metrics) = (core.log.clone(), core.clock.clone(), core.metrics.clone());
        let (shutdown, health) = (shutdown.clone(), health.clone());
        services.spawn(
            Stage::Ingest,
            "polling",
            async move { poller.run(log, clock, shutdown, metrics, health).await },
        );
    }
    Ok(())
}

/// What the poller is told of a tenant; nothing for a tenant that only imports name. Its credential is read again for
/// each token; what cannot be read at all is told before anything starts.
fn source(tenant: &TenantConfig) -> anyhow::Result<Option<TenantSource>> {
    let source = unchecked_source(tenant)?;
    if let Some(source) = &source {
        source.credential.check(chrono::Utc::now()).map_err(|error| ConfigurationError(error.to_string()))?;
    }
    Ok(source)
}

/// The same, whatever is the matter with the credential.
pub fn unchecked_source(tenant: &TenantConfig) -> anyhow::Result<Option<TenantSource>> {
    let Some(access) = &tenant.access else { return Ok(None) };
    let credential = Credential::Files(access.credential.clone());
    let publisher = access.publisher_id.as_ref().unwrap_or(&access.tenant_id);
    Ok(Some(TenantSource {
        tenant: tenant.name.clone(),
        tenant_id: access.tenant_id.as_str().to_owned(),
        client_id: access.client_id.as_str().to_owned(),
        credential,
        content_types: access.content_types.iter().map(|content_type| content_type.as_str().to_owned()).collect(),
        publisher_id: publisher.as_str().to_owned(),
        login: access.endpoints.login.parse()?,
        management: access.endpoints.management.parse()?,
        audience: access.management_resource.clone(),
    }))
}

/// The sinks of the configuration, with their secrets read.
pub fn sinks(config: &Config) -> anyhow::Result<Vec<Sink>> {
    let mut sinks = Vec::new();
    for configured in &config.sinks {
        let mut sink = Sink::new(&configured.name, configured.kind.as_str());
        sink.min_level = configured.min_level;
        sink.max_age = TimeDelta::from_std(configured.max_age).ok();
        sink.archive_heads = configured.archive_heads;
        match &configured.kind {
            SinkKind::Webhook { url, signing_secret, allow_private_addresses } => {
                let wrong = |what: &str| ConfigurationError(format!("sink {}: {what}", configured.name));
                let url = url.read().map_err(|error| wrong(&error.to_string()))?;
                sink.url = Some(url.expose().parse().map_err(|error| wrong(&format!("{error}")))?);
                if let Some(secret) = signing_secret {
                    let secret = secret.read().map_err(|error| wrong(&error.to_string()))?;
                    sink.signing_secrets =
                        SigningSecret::parse_all(secret.expose()).map_err(|error| wrong(&format!("{error}")))?;
                }
                sink.allow_private_addresses = *allow_private_addresses;
            }
            SinkKind::File { path } => sink.path = Some(path.clone()),
            SinkKind::Stdout => {}
        }
        sinks.push(sink);
    }
    Ok(sinks)
}

/// Tells readiness what keeps the sources from being polled.
async fn watch(health: Health, part: Part, shutdown: Shutdown) -> anyhow::Result<()> {
    loop {
        match health.problems().as_slice() {
            [] => part.ready(),
            problems => part.not_ready(&problems.join("; ")),
        }
        if !shutdown.sleep(WATCH_INTERVAL).await {
            return Ok(());
        }
    }
}

/// Trims the log, vacuums the archive and cleans its logs, and measures the process, until the end.
async fn housekeeping(
    log: Arc<dyn Log>,
    archiver: archive::archiver::Archiver,
    config: Config,
    clock: runtime::clock::Clock,
    metrics: Arc<Metrics>,
    part: Part,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let mut cleaned = tokio::time::Instant::now();
    loop {
        if let Ok(space) = rustix::fs::statvfs(&config.data_dir) {
            metrics.own.data_dir_free.with([]).set((space.f_bavail * space.f_frsize) as f64);
        }
        match measure(&*log, &metrics).await {
            Ok(()) => part.ready(),
            Err(error) => part.not_ready(&error.to_string()),
        }
        if cleaned.elapsed() >= HOUSEKEEPING_INTERVAL {
            cleaned = tokio::time::Instant::now();
            let keep = TimeDelta::from_std(config.log.keep).unwrap_or(TimeDelta::days(7));
            let trimmed = log.trim(clock.now() - keep).await;
            for gone in archiver.retire(&crate::services::retention(&config)).await.unwrap_or_else(|error| {
                tracing::warn!(event = "archive_retention_retry", error = %error);
                Vec::new()
            }) {
                let (table, since, rows) = (gone.table, gone.since.to_string(), gone.rows);
                tracing::info!(event = "archive_retired", table, tenant = gone.tenant, since, rows);
            }
            let vacuumed = archiver.vacuum(clock.now() - VACUUM_AFTER).await;
            let cleaned = archiver.clean().await;
            tracing::info!(event = "housekeeping", ?trimmed, ?vacuumed, ?cleaned);
        }
        if !shutdown.sleep(WATCH_INTERVAL).await {
            return Ok(());
        }
    }
}

/// How far every consumer is behind.
async fn measure(log: &dyn Log, metrics: &Metrics) -> Result<(), runtime::log::LogError> {
    for topic in runtime::log::Topic::ALL {
        for &consumer in runtime::log::Consumer::of(topic) {
            let mut lag = 0;
            for partition in 0..log.partitions() {
                let behind =
                    log.end(topic, partition).await?.saturating_sub(log.committed(consumer, topic, partition).await?);
                lag += behind;
            }
            metrics.log.consumer_lag.with([topic.name(), consumer.name()]).set_count(lag);
        }
    }
    Ok(())
}
