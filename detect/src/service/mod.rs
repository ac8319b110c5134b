//! The two services: *match* (records to verdicts and matches) and *correlate* (matches to findings).
//!
//! Each works partition by partition, each partition under a lease, each batch as one step of the log: what was read,
//! what came out and what is remembered are committed together. State in memory is a copy of what is committed; when
//! a step is refused or fails, the copy is dropped and made again from the log.

mod awaiting;
mod correlating;
mod crowded;
mod forgetting;
mod judging_again;
mod layout;
mod matching;
mod partitions;
mod retiring;
mod rule_books;
mod sighted;
mod thawing;

use std::sync::Arc;

use runtime::clock::Clock;
use runtime::log::{Log, LogError};
use runtime::metrics::Metrics;
use runtime::shutdown::Shutdown;
use schemas::history::{History, HistoryError};

pub use judging_again::Behind;
pub use rule_books::{BOOK_BYTES_MAX, compile, offer, rules_behind};

use crate::admit::DamagedSegment;
use crate::correlate::DamagedState;
use crate::places::{Atlas, NoSuchPlaces};
use crate::rule::RuleErrors;
use rule_books::Compiler;

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
    /// The rule set in force was offered by a harrier that knows more of the rule language than this one.
    #[error(
        "this harrier cannot read the rule set in force (epoch {epoch}); use the version that offered it: {errors}"
    )]
    Rules { epoch: u64, errors: RuleErrors },
    #[error(transparent)]
    Places(#[from] NoSuchPlaces),
    /// What the log holds about rule sets cannot be read.
    #[error("the state about rule sets is damaged")]
    RuleState,
    /// A worker thread was lost: a defect of ours.
    #[error("a worker of the detector was lost")]
    Worker,
    /// Late matches wait until it does.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// Members were forgotten by a harrier that had an archive, and this one has none.
    #[error("late records cannot be judged without the archive")]
    NoHistory,
}

/// The limits that detection may reach, by their labels in `limits_reached_total`, and what happened then as often as that
/// counts.
pub const LIMITS: [(&str, &str); 5] = [
    (GROUP_MEMBERS, "matches were refused, because their group was full"),
    (SIGHTINGS, "values were not learnt, because a baseline was full"),
    (LATE_MEMBERS, "late matches were refused, because what they need of the archive does not fit in memory"),
    (LATE_INCOMPLETE, "findings stay as they were told, because the archive did not give back what they are about"),
    (IMPORTED_STRETCHES, "times that were said to be complete could not be noted"),
];
const GROUP_MEMBERS: &str = "group_members";
const SIGHTINGS: &str = "sightings";
const LATE_MEMBERS: &str = "late_members";
const LATE_INCOMPLETE: &str = "late_incomplete";
const IMPORTED_STRETCHES: &str = "imported_stretches";

/// Runs both services until the end is asked for. They judge by the rule set that the log says is in force: see
/// [`offer`]. `atlas`: the tables of places that rule sets ask for. `history`: the archive, for rules that came later
/// and for records that came late.
pub async fn run(
    log: Arc<dyn Log>,
    atlas: Arc<dyn Atlas>,
    history: Arc<dyn History>,
    clock: Clock,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let compiler = Arc::new(Compiler::new(atlas));
    let past = history.clone();
    let matching = partitions::run(log.clone(), shutdown.clone(), {
        let (metrics, sighted, compiler) = (metrics.clone(), Arc::new(sighted::Sighted::default()), compiler.clone());
        move |partition| {
            let worker = matching::MatchWorker::new(partition, compiler.clone(), sighted.clone(), metrics.clone());
            worker.beside(&history)
        }
    });
    let correlating = partitions::run(log, shutdown, move |partition| {
        let (compiler, metrics) = (compiler.clone(), metrics.clone());
        correlating::CorrelateWorker::new(partition, compiler, metrics, clock.clone()).forgetting_into(&past)
    });
    tokio::try_join!(matching, correlating)?;
    Ok(())
}
