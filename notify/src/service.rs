//! The service: one process at a time leads, reads the findings of every partition, and delivers to every sink.
//!
//! # Why one
//!
//! What notify decides has no partitions: an episode that goes on under another id may lie in another partition than
//! the one it comes from, an incident ties findings of all of them, a storm is counted per sink, a file has one end.
//! Findings are few, so one process is enough; the others stand by. The lease of partition 0 is the right to lead, and
//! every step is refused once it is lost.
//!
//! # Steps
//!
//! * A batch of findings, one [`Txn`](runtime::log::Txn): the offsets move, the outbox and the standing findings change.
//! * `sending`, before anything leaves. The answer, after: `delivered`, `retry`, or `dead` with its dead letter.
//!
//! Whatever is killed between two of them leaves the log as one of them left it: the next leader reads it and goes on.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use runtime::clock::Clock;
use runtime::log::{Consumer, Input, Lease, Log, LogError, Message, ReadLimit, Topic};
use runtime::metrics::Metrics;
use runtime::shutdown::Shutdown;
use tokio::sync::{Mutex, Notify};
use tokio::task::JoinSet;

use crate::deliver::Worker;
use crate::entry::Failure;
use crate::outbox::{Changes, Outbox};
use crate::plan;
use crate::settings::{Sink, SinkError, SinkErrorKind};
use crate::sinks::{self, Built, Outgoing};

/// Findings read from a partition in one step. A finding may name ten thousand events: the bytes bound the memory.
const READ_LIMIT: ReadLimit = ReadLimit { messages: 250, bytes: 4 * 1024 * 1024 };

/// Most looks at the ends of the partitions before a step.
const ENDS_LOOKS_MAX: usize = 4;

/// How often rows are looked through for what may be forgotten.
const SWEEP_INTERVAL: TimeDelta = TimeDelta::hours(1);

/// Why the service ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A sink is not set so that it could work: for the operator to mend.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The log cannot be used; [`LogError`] says whose fault it is. What may pass has been tried again already.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A task was lost: a defect of ours.
    #[error("a task of the notifier was lost")]
    Task,
}

/// Times that tests shorten.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Names this process, and no other before or after it.
    pub owner: String,
    pub lease_hold: Duration,
    pub lease_retry: Duration,
    /// How often to look at the clock and at the log when nothing has woken us.
    pub tick: Duration,
    /// How long to wait after a failure of the log that may pass.
    pub failure_wait: Duration,
    /// How long deliveries that are under way may take to land when the end is asked for.
    pub grace: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            // A process and a moment: no other has both.
            owner: format!("{}-{}", std::process::id(), Utc::now().timestamp_micros()),
            lease_hold: Duration::from_secs(15),
            lease_retry: Duration::from_secs(2),
            tick: Duration::from_millis(250),
            failure_wait: Duration::from_secs(1),
            grace: Duration::from_secs(5),
        }
    }
}

/// What the tasks of one tenure share.
pub(crate) struct Desk {
    pub log: Arc<dyn Log>,
    pub clock: Clock,
    pub shutdown: Shutdown,
    pub metrics: Arc<Metrics>,
    pub options: Options,
    /// Held for the length of a step, and never while something is sent.
    pub outbox: Mutex<Outbox>,
    news: Vec<Notify>,
}

impl Desk {
    /// Takes a step: first the log, then the memory. Tries again what may pass.
    pub(crate) async fn commit(
        &self,
        outbox: &mut Outbox,
        mut changes: Changes,
        inputs: Vec<Input>,
    ) -> Result<(), Error> {
        let mut txn = changes.take_txn(&outbox.names);
        txn.inputs = inputs;
        txn.lease = Some(lease(&self.options));
        loop {
            match self.log.commit(txn.clone()).await {
                Ok(_) => break,
                Err(error) if error.retryable() => {
                    tracing::warn!(event = "step_failed", consumer = Consumer::Notify.name(), error = %error);
                    if !self.shutdown.sleep(self.options.failure_wait).await {
                        return Err(error.into());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        outbox.apply(changes);
        Ok(())
    }

    /// Returns when there may be something new for a sink, or time has passed.
    pub(crate) async fn news(&self, sink: usize) {
        let Some(news) = self.news.get(sink) else { return std::future::pending().await };
        // A timeout is as good: it is time to look at the clock.
        let _ = tokio::time::timeout(self.options.tick, news.notified()).await;
    }

    pub(crate) fn measure(&self, outbox: &Outbox) {
        for (name, table) in outbox.names.iter().zip(&outbox.tables) {
            let metrics = &self.metrics.sinks;
            metrics.queue_length.with([name]).set_count(table.queue_length() as u64);
            metrics.dead_letters.with([name]).set_count(table.dead as u64);
            match table.oldest_pending() {
                Some(since) => metrics.oldest_pending.with([name]).set_time(since),
                None => metrics.oldest_pending.remove([name]),
            }
        }
    }
}

fn lease(options: &Options) -> Lease {
    Lease { consumer: Consumer::Notify, partition: 0, owner: options.owner.clone() }
}

/// Tells the sinks what is found until the end is asked for. Everything that it has yet to tell is in the log.
///
/// To be run without sinks too: the log keeps findings until notify has read them.
pub async fn run(
    log: Arc<dyn Log>,
    sinks: Vec<Sink>,
    clock: Clock,
    shutdown: Shutdown,
    metrics: Arc<Metrics>,
) -> Result<(), Error> {
    run_with(log, sinks, clock, shutdown, metrics, Options::default()).await
}

pub(crate) async fn run_with(
    log: Arc<dyn Log>,
    sinks: Vec<Sink>,
    clock: Clock,
    shutdown: Shutdown,
    metrics: Arc<Metrics>,
    options: Options,
) -> Result<(), Error> {
    let sinks = Arc::new(sinks);
    for sink in sinks.iter() {
        metrics.begin(&[("sink", sink.name.as_str()), ("type", sink.kind.as_str())]);
    }
    check(&sinks, &clock).map_err(first)?;
    let lease = lease(&options);
    while !shutdown.is_requested() {
        let led = match log.acquire(&lease, options.lease_hold).await {
            Ok(true) => lead(&log, &sinks, &clock, &shutdown, &metrics, &options).await,
            Ok(false) => {
                shutdown.sleep(options.lease_retry).await;
                continue;
            }
            Err(error) => Err(error.into()),
        };
        match led {
            Ok(()) => {}
            Err(Error::Log(error)) if error.must_reload() => {
                tracing::info!(event = "partition_moved", consumer = Consumer::Notify.name(), reason = %error);
            }
            Err(Error::Log(error)) if error.retryable() => {
                tracing::warn!(event = "step_failed", consumer = Consumer::Notify.name(), error = %error);
                shutdown.sleep(options.failure_wait).await;
            }
            Err(error) => return Err(error),
        }
    }
    // At the end a log that fails only means that the next leader waits for the lease to run out.
    if let Err(error) = log.release(&lease).await {
        tracing::debug!(event = "release_failed", consumer = Consumer::Notify.name(), error = %error);
    }
    Ok(())
}

/// Everything that is wrong with these sinks, without touching network or disk.
pub fn check(sinks: &[Sink], clock: &Clock) -> Result<(), Vec<SinkError>> {
    let mut errors: Vec<SinkError> = sinks.iter().filter_map(|sink| sinks::build(sink, clock).err()).collect();
    for (index, sink) in sinks.iter().enumerate() {
        if sinks.iter().take(index).any(|earlier| earlier.name == sink.name) {
            errors.push(SinkError { name: sink.name.clone(), kind: SinkErrorKind::NameTwice });
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn first(errors: Vec<SinkError>) -> Error {
    errors.into_iter().next().map_or(Error::Task, Error::Sink)
}

/// Why a trial message did not arrive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TestError {
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Sends one message that says it is a trial, past the outbox.
pub async fn test(sink: &Sink, clock: &Clock) -> Result<(), TestError> {
    let built = sinks::build(sink, clock)?;
    let now = clock.now();
    let body = crate::body::to_line(&serde_json::json!({
        "type": "harrier.test",
        "timestamp": now,
        "data": { "schema": "harrier.test/1", "sink": sink.name, "reason": "a trial: nothing was found" },
    }));
    let outgoing = [Outgoing { id: format!("test_{}", now.timestamp_micros()), body }];
    built.deliver.deliver(&outgoing).await.into_iter().collect::<Result<Vec<()>, Failure>>()?;
    Ok(())
}

/// One tenure: begins with nothing but what the log holds.
async fn lead(
    log: &Arc<dyn Log>,
    sinks: &Arc<Vec<Sink>>,
    clock: &Clock,
    shutdown: &Shutdown,
    metrics: &Arc<Metrics>,
    options: &Options,
) -> Result<(), Error> {
    let built = sinks.iter().map(|sink| sinks::build(sink, clock)).collect::<Result<Vec<Built>, SinkError>>()?;
    let names = sinks.iter().map(|sink| sink.name.clone()).collect();
    let outbox = Outbox::load(names, &**log, clock.now()).await?;
    let desk = Arc::new(Desk {
        log: log.clone(),
        clock: clock.clone(),
        shutdown: shutdown.clone(),
        metrics: metrics.clone(),
        options: options.clone(),
        outbox: Mutex::new(outbox),
        news: sinks.iter().map(|_| Notify::new()).collect(),
    });
    desk.measure(&*desk.outbox.lock().await);
    let mut tasks = JoinSet::new();
    tasks.spawn(renew(desk.clone()));
    tasks.spawn(consume(desk.clone(), sinks.clone()));
    for (index, (sink, built)) in sinks.iter().zip(built).enumerate() {
        tasks.spawn(Worker::new(desk.clone(), index, sink.name.clone(), built).run());
    }
    // The first to fail ends the tenure: the set is dropped, and with it the others.
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|_| Error::Task)??;
    }
    Ok(())
}

async fn renew(desk: Arc<Desk>) -> Result<(), Error> {
    let lease = lease(&desk.options);
    while desk.shutdown.sleep(desk.options.lease_hold / 3).await {
        match desk.log.acquire(&lease, desk.options.lease_hold).await {
            Ok(true) => {}
            Ok(false) => {
                return Err(LogError::LeaseLost { consumer: lease.consumer.name(), partition: lease.partition }.into());
            }
            // Every step checks the lease by itself: a renewal that fails may be tried again.
            Err(error) if error.retryable() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

async fn consume(desk: Arc<Desk>, sinks: Arc<Vec<Sink>>) -> Result<(), Error> {
    let mut positions = Vec::new();
    for partition in 0..desk.log.partitions() {
        positions.push(desk.log.committed(Consumer::Notify, Topic::Findings, partition).await?);
    }
    let mut swept: Option<DateTime<Utc>> = None;
    while !desk.shutdown.is_requested() {
        let (batch, inputs) = read(&desk, &positions).await?;
        if batch.is_empty() {
            if swept.is_none_or(|at| at + SWEEP_INTERVAL <= desk.clock.now()) {
                sweep(&desk).await?;
                swept = Some(desk.clock.now());
            }
            desk.shutdown.unless(desk.log.wait(desk.options.tick)).await;
            continue;
        }
        let mut outbox = desk.outbox.lock().await;
        let now = desk.clock.now();
        let mut draft = outbox.draft();
        let heartbeat = plan::take_batch(&mut draft, &sinks, &batch, now);
        let changes = draft.finish();
        desk.commit(&mut outbox, changes, inputs.clone()).await?;
        for input in inputs {
            if let Some(position) = positions.get_mut(input.partition as usize) {
                *position = input.next;
            }
        }
        if let Some(sent) = heartbeat {
            desk.metrics.own.heartbeat.set(["notify"], sent);
        }
        desk.measure(&outbox);
        desk.news.iter().for_each(Notify::notify_one);
    }
    Ok(())
}

/// What has come in all partitions.
async fn read(desk: &Desk, positions: &[u64]) -> Result<(Vec<(u32, Message)>, Vec<Input>), Error> {
    let ends = ends(&*desk.log).await?;
    let (mut batch, mut inputs) = (Vec::new(), Vec::new());
    for ((partition, &from), &end) in (0..).zip(positions).zip(&ends) {
        if from >= end {
            continue;
        }
        let messages = desk.log.read(Topic::Findings, partition, from, READ_LIMIT).await?;
        let messages: Vec<Message> = messages.into_iter().filter(|message| message.offset < end).collect();
        if let Some(last) = messages.last() {
            let next = last.offset + 1;
            inputs.push(Input { consumer: Consumer::Notify, topic: Topic::Findings, partition, from, next });
        }
        batch.extend(messages.into_iter().map(|message| (partition, message)));
    }
    Ok((batch, inputs))
}

/// The ends of all partitions as they were at one moment: two looks that agree had no commit between them. So an
/// episode and the one that takes over from it, which are committed together, are taken in together, and the successor
/// does not go out under a key of its own. Under load the looks may never agree; the plan can do without.
async fn ends(log: &dyn Log) -> Result<Vec<u64>, LogError> {
    let mut ends = Vec::new();
    for _ in 0..ENDS_LOOKS_MAX {
        let mut look = Vec::new();
        for partition in 0..log.partitions() {
            look.push(log.end(Topic::Findings, partition).await?);
        }
        if look == ends {
            break;
        }
        ends = look;
    }
    Ok(ends)
}

async fn sweep(desk: &Desk) -> Result<(), Error> {
    let mut outbox = desk.outbox.lock().await;
    if let Some(changes) = outbox.sweep(desk.clock.now()) {
        desk.commit(&mut outbox, changes, Vec::new()).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
