//! The two services: *match* (records to verdicts and matches) and *correlate* (matches to findings).
//!
//! Each works partition by partition, each partition under a lease, each batch as one step of the log: what was read,
//! what came out and what is remembered are committed together. State in memory is a copy of what is committed; when
//! a step is refused or fails, the copy is dropped and made again from the log.

mod correlating;
mod layout;
mod matching;
mod partitions;
mod sighted;

use std::sync::Arc;

use runtime::clock::Clock;
use runtime::log::{Log, LogError};
use runtime::metrics::Metrics;
use runtime::shutdown::Shutdown;

use crate::admit::DamagedSegment;
use crate::correlate::DamagedState;
use crate::matcher::Matcher;
use crate::rule::RuleSet;

/// What can end a service.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Segment(#[from] DamagedSegment),
    #[error(transparent)]
    State(#[from] DamagedState),
    /// A message of the log is not what its topic holds.
    #[error("offset {offset} of {topic}/{partition} is not what it should be")]
    Message { topic: &'static str, partition: u32, offset: u64 },
    /// A worker thread was lost: a defect of ours.
    #[error("a worker of the detector was lost")]
    Worker,
}

/// Runs both services until the end is asked for.
pub async fn run(
    log: Arc<dyn Log>,
    rules: RuleSet,
    matcher: Arc<Matcher>,
    clock: Clock,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let matching = partitions::run(log.clone(), shutdown.clone(), {
        let (metrics, sighted) = (metrics.clone(), Arc::new(sighted::Sighted::default()));
        move |partition| matching::MatchWorker::new(partition, matcher.clone(), sighted.clone(), metrics.clone())
    });
    let correlating = partitions::run(log, shutdown, move |partition| {
        correlating::CorrelateWorker::new(partition, &rules, metrics.clone(), clock.clone())
    });
    tokio::try_join!(matching, correlating)?;
    Ok(())
}
