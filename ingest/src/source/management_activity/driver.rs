//! The thin part: asks the machine, sends, commits, waits. It decides nothing about the API.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use runtime::clock::Clock;
use runtime::log::{Consumer, Lease, Log, LogError};
use runtime::metrics::Metrics;
use runtime::shutdown::Shutdown;
use schemas::envelope::Origin;
use schemas::json::key_hash;
use schemas::tenant::Tenant;
use tokio::task::JoinSet;

use super::SOURCE;
use super::effect::Effects;
use super::fetch::{BlobContext, Heard, Http};
use super::machine::{Machine, Next};
use super::report::Reporter;
use super::settings::{Pace, SettingsError, TenantSource};
use super::watch::Watch;
use super::wire::{Call, Outcome, Trouble, What};
use super::writer::Writer;
use crate::identity::Form;
use crate::ledger::{Ledger, LedgerError};
use crate::source::Health;

/// Shortest wait, so that a moment that has just passed does not make the loop spin.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// Longest wait, so that a clock which has been set meanwhile is noticed soon.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// How often it is told how the feeds stand, at most.
const REPORT_INTERVAL: TimeDelta = TimeDelta::seconds(1);

/// How far the wall clock may get ahead of the steady one, or fall behind, between two looks. Beyond it somebody has set
/// it, and what the machine has planned by it is not to be kept: set back by an hour, it would wait for that hour; set
/// ahead, it would move the cursor over what has not been listed. A new machine compares its clock with the service's
/// before it lists anything.
const CLOCK_JUMP: TimeDelta = TimeDelta::seconds(5);

/// Polls one tenant.
#[derive(Clone, Debug)]
pub struct Poller {
    source: Arc<TenantSource>,
    pace: Arc<Pace>,
    http: Http,
}

/// Why polling cannot go on at all. Trouble with the service, the network or the tenant's configuration is none: the
/// poller waits and goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PollError {
    #[error("tenant {tenant} cannot be polled: {source}")]
    Log { tenant: Tenant, source: LogError },
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Poller {
    /// Checks the settings; sends nothing yet.
    pub fn new(source: TenantSource, pace: Pace) -> Result<Poller, SettingsError> {
        source.check()?;
        pace.check()?;
        let http = Http::new(&pace)?;
        Ok(Poller { source: Arc::new(source), pace: Arc::new(pace), http })
    }

    /// Polls until the end is asked for. `health` says at any time what keeps the tenant, or one of its feeds, from
    /// being polled.
    pub async fn run(
        &self,
        log: Arc<dyn Log>,
        clock: Clock,
        shutdown: Shutdown,
        metrics: Arc<Metrics>,
        health: Health,
    ) -> Result<(), PollError> {
        let lease = lease(&self.source.tenant);
        let tenant = self.source.tenant.clone();
        let reporter = Reporter::new(tenant.clone(), metrics.clone(), health);
        reporter.begin(&self.source.content_types);
        let writer = Writer { log, metrics, tenant: tenant.clone(), lease };
        let mut failures = 0;
        while !shutdown.is_requested() {
            match self.session(&writer, &clock, &shutdown, &reporter, &mut failures).await {
                Ok(()) => {}
                Err(PollError::Log { source, .. } | PollError::Ledger(LedgerError::Log(source)))
                    if source.must_reload() || source.retryable() =>
                {
                    tracing::warn!(event = "poller_begins_again", %tenant, error = %source);
                }
                Err(error) => return Err(error),
            }
            failures += 1;
            let wait = (self.pace.backoff * (1 << failures.min(8))).min(self.pace.lease_hold);
            shutdown.sleep(std_duration(wait)).await;
        }
        // Whoever comes next need not wait for the lease to run out. If this fails, it will.
        let _ = writer.log.release(&writer.lease).await;
        Ok(())
    }

    /// Takes the lease, then polls from where the ledger stands until the end, or until the lease or the log is lost.
    async fn session(
        &self,
        writer: &Writer,
        clock: &Clock,
        shutdown: &Shutdown,
        reporter: &Reporter,
        failures: &mut u32,
    ) -> Result<(), PollError> {
        let tenant = &self.source.tenant;
        let failed = |source| PollError::Log { tenant: tenant.clone(), source };
        let hold = std_duration(self.pace.lease_hold);
        while !writer.log.acquire(&writer.lease, hold).await.map_err(failed)? {
            if !shutdown.sleep(hold / 3).await {
                return Ok(());
            }
        }
        let ledger = Ledger::read(&*writer.log, tenant).await?;
        *failures = 0;
        let now = clock.now();
        let watch = Watch::new(&self.source.content_types, &ledger, self.pace.listing_fails_after, now);
        let seed = RandomState::new().build_hasher().finish();
        let machine = Machine::new(self.source.clone(), self.pace.clone(), ledger, seed, now);
        let mut session = Session {
            poller: self,
            writer,
            clock,
            reporter,
            machine,
            tasks: JoinSet::new(),
            in_flight: HashMap::new(),
            renew_at: now + self.pace.lease_hold / 3,
            prune_at: now,
            report_at: now,
            looked: (now, Instant::now()),
            watch,
            watch_at: now + self.pace.watch_interval,
        };
        let result = session.run(shutdown).await;
        reporter.problems(Vec::new().into_iter());
        result.map_err(failed)
    }
}

/// The lease of a tenant's pollers. Its number follows from the tenant's name, so that processes agree on it whatever
/// the order of their configurations; its owner is new each time, so that nobody takes a lease for its own that it held
/// in an earlier life.
fn lease(tenant: &Tenant) -> Lease {
    // 31 bits: two of a thousand tenants share a number with a probability of one in four thousand, and then wait for
    // one another if they are polled by different processes.
    let partition = (key_hash(&[tenant.as_str()]) & 0x7fff_ffff) as u32;
    let random = RandomState::new().build_hasher().finish();
    Lease { consumer: Consumer::Poll, partition, owner: format!("{}-{random:016x}", std::process::id()) }
}

fn std_duration(delta: TimeDelta) -> Duration {
    delta.to_std().unwrap_or_default()
}

/// One life of the machine.
struct Session<'a> {
    poller: &'a Poller,
    writer: &'a Writer,
    clock: &'a Clock,
    reporter: &'a Reporter,
    machine: Machine,
    tasks: JoinSet<Result<Heard, LogError>>,
    /// The call of each task, for one that ends without saying anything.
    in_flight: HashMap<tokio::task::Id, Call>,
    renew_at: DateTime<Utc>,
    prune_at: DateTime<Utc>,
    report_at: DateTime<Utc>,
    /// The last look at both clocks.
    looked: (DateTime<Utc>, Instant),
    watch: Watch,
    watch_at: DateTime<Utc>,
}

impl Session<'_> {
    /// Dropping the session drops its tasks: nothing is sent or committed after it has ended.
    async fn run(&mut self, shutdown: &Shutdown) -> Result<(), LogError> {
        loop {
            let now = self.clock.now();
            if self.has_jumped(now) {
                return Ok(());
            }
            if now >= self.renew_at {
                self.renew(now).await?;
            }
            if now >= self.prune_at {
                let effects = self.machine.prune(now);
                // A full batch means that there is more.
                let full = effects.changes.len() >= crate::ledger::PRUNED_ROWS_MAX;
                self.prune_at = if full { now } else { now + self.poller.pace.prune_interval };
                self.apply(effects, Vec::new(), now).await?;
            }
            if now >= self.watch_at {
                self.watch_at = now + self.poller.pace.watch_interval;
                let told = self.watch.judge(&self.origin(String::new(), String::new(), now), now);
                let effects = Effects { changes: told.changes, ..Effects::default() };
                self.apply(effects, told.records, now).await?;
            }
            let (next, effects) = self.machine.next(now);
            self.apply(effects, Vec::new(), now).await?;
            self.reporter.problems(self.machine.problems().into_iter());
            let until = match next {
                Next::Call(call) => {
                    self.call(*call, now).await?;
                    continue;
                }
                Next::Wait(until) => until,
            };
            let report_at = self.report(now);
            let due = [self.renew_at, self.prune_at, self.watch_at];
            let until = until.into_iter().chain(due).chain(report_at).min().unwrap_or(now);
            let wait = std_duration(until - now).clamp(WAIT_MIN, WAIT_MAX);
            tokio::select! {
                biased;
                () = shutdown.requested() => return Ok(()),
                Some(done) = self.tasks.join_next_with_id() => self.take(done).await?,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Tells how the feeds stand, unless that was just told: then, when it is due again. Looking costs as much as there
    /// are blobs waiting, so that doing it after every answer would cost their square.
    fn report(&mut self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        if now < self.report_at {
            return Some(self.report_at);
        }
        self.reporter.feeds(self.machine.feeds());
        self.report_at = now + REPORT_INTERVAL;
        None
    }

    /// Whether somebody has set the clock since the last look.
    fn has_jumped(&mut self, now: DateTime<Utc>) -> bool {
        let (clock, steady) = std::mem::replace(&mut self.looked, (now, Instant::now()));
        let passed = TimeDelta::from_std(steady.elapsed()).unwrap_or(TimeDelta::MAX);
        let ahead = (now - clock) - passed;
        if ahead.abs() < CLOCK_JUMP {
            return false;
        }
        tracing::warn!(event = "clock_jumped", tenant = %self.writer.tenant, ahead_seconds = ahead.num_seconds());
        true
    }

    /// Sends a call; one that cannot be made for want of a credential is heard of at once.
    async fn call(&mut self, call: Call, now: DateTime<Utc>) -> Result<(), LogError> {
        if call.what != What::Token {
            self.spawn(call, None, now);
            return Ok(());
        }
        match self.machine.api().token_form(now) {
            Ok(form) => self.spawn(call, Some(form), now),
            Err(error) => {
                tracing::error!(event = "credential_unusable", tenant = %self.writer.tenant, %error);
                let effects = self.machine.heard(call, Outcome::Failed(Trouble::Credential), now);
                self.apply(effects, Vec::new(), now).await?;
            }
        }
        Ok(())
    }

    fn spawn(&mut self, call: Call, form: Option<Form>, now: DateTime<Utc>) {
        let http = self.poller.http.clone();
        let blob = match &call.what {
            What::Blob { feed, blob } => {
                let content_type = self.machine.content_type(*feed).to_owned();
                let origin = self.origin(content_type, blob.id.clone(), now);
                Some(BlobContext { origin, writer: self.writer.clone() })
            }
            _ => None,
        };
        let kept = call.clone();
        let task = self.tasks.spawn(async move { http.send(call, form, blob).await });
        self.in_flight.insert(task.id(), kept);
    }

    async fn take(
        &mut self,
        done: Result<(tokio::task::Id, Result<Heard, LogError>), tokio::task::JoinError>,
    ) -> Result<(), LogError> {
        let now = self.clock.now();
        let heard = match done {
            Ok((id, heard)) => {
                self.in_flight.remove(&id);
                heard?
            }
            // A task that panicked: a defect, but one blob's defect.
            Err(error) => {
                let Some(call) = self.in_flight.remove(&error.id()) else { return Ok(()) };
                tracing::error!(event = "request_task_failed", tenant = %self.writer.tenant);
                let outcome = Outcome::Failed(Trouble::Connection);
                Heard { call, outcome, tail: Vec::new(), status: None, duration: Duration::ZERO }
            }
        };
        self.reporter.request(&heard);
        let effects = self.machine.heard(heard.call, heard.outcome, now);
        self.apply(effects, heard.tail, now).await
    }

    async fn apply(
        &mut self,
        effects: Effects,
        records: Vec<runtime::log::Output>,
        now: DateTime<Utc>,
    ) -> Result<(), LogError> {
        self.writer.apply(&effects, records, self.origin(String::new(), String::new(), now)).await?;
        // Told only once it is true.
        for note in &effects.notes {
            self.reporter.note(note, now);
            self.watch.heard(note, now);
        }
        Ok(())
    }

    async fn renew(&mut self, now: DateTime<Utc>) -> Result<(), LogError> {
        let Lease { consumer, partition, .. } = self.writer.lease;
        let hold = self.poller.pace.lease_hold;
        if !self.writer.log.acquire(&self.writer.lease, std_duration(hold)).await? {
            return Err(LogError::LeaseLost { consumer: consumer.name(), partition });
        }
        self.renew_at = now + hold / 3;
        Ok(())
    }

    fn origin(&self, content_type: String, blob_id: String, received: DateTime<Utc>) -> Origin {
        let tenant = self.writer.tenant.clone();
        Origin { tenant, source: SOURCE.to_owned(), content_type, blob_id, received, notify: true }
    }
}
