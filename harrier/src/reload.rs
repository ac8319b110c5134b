//! Watches the files that rules come from, and offers them anew when they have changed.
//!
//! Guarantee: rules are taken whole or not at all. What is in force stays so until a new set has been read, compiled and
//! accepted as one; a file that is being written, is broken or has gone leaves everything as it was, is told once, and
//! holds `harrier_rules_refused` at 1 until it is mended. The change itself goes through the log, as every change of rules
//! does, so that all detectors make it at one offset. State belongs to the meaning of a rule: a rule whose meaning is the
//! same goes on with what it has seen.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use runtime::config::Config;
use runtime::log::Log;
use runtime::metrics::Metrics;
use runtime::shutdown::Shutdown;
use schemas::RuleBook;
use tokio::signal::unix::{SignalKind, signal};

use crate::places::PlaceFiles;
use crate::services::{compiled_book, files_below, watch_file};

/// How often the files are looked at: a listing of names, sizes and times, not a reading.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// What tells one state of the files from another.
type Seen = Vec<(PathBuf, u64, Option<SystemTime>)>;

/// The watch over them.
pub struct Watch {
    config: Config,
    log: Arc<dyn Log>,
    metrics: Arc<Metrics>,
    offered: String,
    seen: Seen,
}

impl Watch {
    pub fn new(config: Config, log: Arc<dyn Log>, metrics: Arc<Metrics>, book: &RuleBook) -> Watch {
        metrics.engine.rules_refused.with([]).set(0.0);
        // As if there had been no files: they are read once more, in case they have changed since the book was made.
        Watch { config, log, metrics, offered: book.name(), seen: Seen::new() }
    }

    /// Looks until the end is asked for. SIGHUP asks for a reading at once.
    pub async fn run(mut self, shutdown: Shutdown) -> anyhow::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        // Files that have changed are read when they have stopped changing: an editor or a checkout writes many.
        let mut changing = None;
        loop {
            let is_asked = tokio::select! {
                biased;
                () = shutdown.requested() => return Ok(()),
                _ = hangup.recv() => true,
                () = tokio::time::sleep(LOOK_INTERVAL) => false,
            };
            let now = look(&self.config);
            let has_settled = changing.as_ref() == Some(&now);
            if is_asked || has_settled {
                changing = None;
                self.seen = now;
                self.take().await;
            } else {
                changing = (now != self.seen).then_some(now);
            }
        }
    }

    /// Reads the rules and offers them, if they are others and can be used.
    async fn take(&mut self) {
        let config = self.config.clone();
        // Compiling thousands of rules takes seconds.
        let book = tokio::task::spawn_blocking(move || compiled_book(&config)).await;
        let taken = match book {
            Err(lost) => Err(lost.into()),
            Ok(Err(error)) => Err(error),
            Ok(Ok((book, _))) if book.name() == self.offered => Ok(()),
            // Asked for by whoever changed the files: also if it was in force before.
            Ok(Ok((book, rules))) => match self.offer(&book).await {
                Ok(()) => {
                    self.offered = book.name();
                    self.metrics.engine.rules_loaded.with(["enabled"]).set_count(rules as u64);
                    tracing::info!(event = "rules_offered", rule_set = self.offered, rules);
                    Ok(())
                }
                Err(error) => {
                    // Looked at as changed again at the next look.
                    self.seen.clear();
                    Err(error)
                }
            },
        };
        self.metrics.engine.rules_refused.with([]).set(f64::from(u8::from(taken.is_err())));
        if let Err(error) = taken {
            tracing::error!(event = "rules_refused", error = %error, "the rules in force stay");
        }
    }

    async fn offer(&self, book: &RuleBook) -> anyhow::Result<()> {
        if let Some(name) = &book.places {
            PlaceFiles::of(&self.config).keep(name)?;
        }
        Ok(detect::service::offer(&*self.log, book, true).await?)
    }
}

/// The files of rules, tuning, places and watch list. One that cannot be looked at counts by its name alone, and is complained of by the
/// reading.
fn look(config: &Config) -> Seen {
    let mut files = Vec::new();
    for path in &config.rules.paths {
        // What cannot be listed is told by the reading.
        let _ = files_below(path, 0, &mut files);
    }
    files.extend(config.rules.tuning_file.clone());
    files.extend(config.rules.places_file.clone());
    files.push(watch_file(config));
    let state = |path: PathBuf| {
        let metadata = std::fs::metadata(&path).ok();
        let (length, modified) = metadata.map_or((0, None), |of| (of.len(), of.modified().ok()));
        (path, length, modified)
    };
    files.into_iter().map(state).collect()
}
