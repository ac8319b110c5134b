//! Working through the partitions of a topic under leases: the loop that match and correlate share.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use runtime::log::{Consumer, Lease, Log, Topic};
use runtime::shutdown::Shutdown;
use tokio::time::Instant;

use super::Error;

/// How long a partition is held without renewal. A process that dies keeps others waiting for so long.
const LEASE_HOLD: Duration = Duration::from_secs(10);

/// How often to look for a partition that another process has let go of.
const LEASE_RETRY: Duration = Duration::from_secs(2);

/// How long to wait for news when there is nothing to do; commits of this process end the wait at once.
const IDLE_WAIT: Duration = Duration::from_millis(100);

/// How long to wait after a failure that may pass, such as a full disk.
const FAILURE_WAIT: Duration = Duration::from_secs(1);

/// What does the work on one partition.
#[async_trait]
pub(super) trait Worker: Send {
    const CONSUMER: Consumer;
    const TOPIC: Topic;

    /// Does one step from this offset. `None` if nothing had come; else the offset it came to.
    async fn step(&mut self, log: &dyn Log, from: u64) -> Result<Option<u64>, Error>;

    /// Does what stands beside the messages, under the lease and never for long. False if there is nothing to do.
    async fn aside(&mut self, _: &dyn Log, _: &Lease) -> Result<bool, Error> {
        Ok(false)
    }
}

/// Runs a worker for each partition until the end is asked for.
pub(super) async fn run<W: Worker + 'static>(
    log: Arc<dyn Log>,
    shutdown: Shutdown,
    make: impl Fn(u32) -> W + Send + Sync + 'static,
) -> Result<(), Error> {
    let make = Arc::new(make);
    let mut tasks = tokio::task::JoinSet::new();
    for partition in 0..log.partitions() {
        let (log, shutdown, make) = (log.clone(), shutdown.clone(), make.clone());
        tasks.spawn(async move {
            let lease = Lease { consumer: W::CONSUMER, partition, owner: owner() };
            while !shutdown.is_requested() {
                let acquired = log.acquire(&lease, LEASE_HOLD).await.unwrap_or_else(|error| {
                    tracing::warn!(event = "lease_failed", consumer = W::CONSUMER.name(), partition, error = %error);
                    false
                });
                if acquired {
                    // A new worker for each tenure: nothing of an earlier one's memory is trusted.
                    match work(&*log, &mut make(partition), &lease, &shutdown).await {
                        Ok(()) => {}
                        Err(Error::Log(error)) if error.must_reload() => {
                            tracing::info!(event = "partition_moved", consumer = W::CONSUMER.name(), partition, reason = %error);
                        }
                        Err(Error::Log(error)) if error.retryable() => {
                            tracing::warn!(event = "step_failed", consumer = W::CONSUMER.name(), partition, error = %error);
                            shutdown.sleep(FAILURE_WAIT).await;
                        }
                        Err(Error::History(error)) => {
                            tracing::warn!(event = "late_matches_wait", partition, error = %error);
                            shutdown.sleep(FAILURE_WAIT).await;
                        }
                        Err(error) => return Err(error),
                    }
                } else {
                    shutdown.sleep(LEASE_RETRY).await;
                }
            }
            Ok(log.release(&lease).await?)
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|_| Error::Worker)??;
    }
    Ok(())
}

async fn work<W: Worker>(log: &dyn Log, worker: &mut W, lease: &Lease, shutdown: &Shutdown) -> Result<(), Error> {
    let mut from = log.committed(W::CONSUMER, W::TOPIC, lease.partition).await?;
    let mut renewed = Instant::now();
    while !shutdown.is_requested() {
        if renewed.elapsed() > LEASE_HOLD / 4 {
            if !log.acquire(lease, LEASE_HOLD).await? {
                return Ok(());
            }
            renewed = Instant::now();
        }
        let Some(step) = held(log, lease, worker.step(log, from), &mut renewed).await? else { return Ok(()) };
        from = step.unwrap_or(from);
        if !worker.aside(log, lease).await? && step.is_none() {
            log.wait(IDLE_WAIT).await;
        }
    }
    Ok(())
}

/// Does a step, and renews the lease where it takes long: it may have to read the archive. None if the lease is lost.
async fn held<T>(
    log: &dyn Log,
    lease: &Lease,
    step: impl Future<Output = Result<T, Error>>,
    renewed: &mut Instant,
) -> Result<Option<T>, Error> {
    let mut step = std::pin::pin!(step);
    loop {
        match tokio::time::timeout(LEASE_HOLD / 4, &mut step).await {
            Ok(done) => return done.map(Some),
            Err(_) if log.acquire(lease, LEASE_HOLD).await? => *renewed = Instant::now(),
            Err(_) => return Ok(None),
        }
    }
}

/// A name that no other process bears: process id and a moment.
fn owner() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{}-{}", std::process::id(), since.as_micros())
}
