//! Messages for operators, on stderr: stdout belongs to data.
//!
//! On a terminal they are short lines; elsewhere each is one JSON object, for the programs that collect them. Events
//! are made with `tracing`: a message in lower case that never changes, and what differs in fields
//! (`tracing::warn!(%tenant, code, "microsoft refuses a listing")`).
//!
//! # The guarantee
//!
//! * No value can act on what shows it: control characters, and those that turn text around, are shown escaped, and
//!   every value is cut at a bound.
//! * A message that repeats cannot drown the others: see [`limit`]. What is held back is counted and said.
//! * Every message is counted in `harrier_log_messages_total`, those held back included.
//! * Nothing is taken from environment variables: `--quiet` and `--verbose` are the only switches.
//!
//! What must never be logged is the caller's to know: tokens, secrets, and at `info` and above anything a mail says.

mod limit;
mod lines;

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;

use self::lines::Lines;
use crate::clock::Clock;
use crate::metrics::Metrics;

/// The crates of this project. Others are heard from `warn` on, and with `--verbose` from `info` on: their debug
/// messages may hold requests, and so tokens.
const OWN_CRATES: [&str; 11] = [
    "schemas",
    "rules",
    "runtime",
    "ingest",
    "detect",
    "archive",
    "investigate",
    "notify",
    "console",
    "simulate",
    "harrier",
];

/// How much is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verbosity {
    /// `--quiet`: warnings and errors.
    Quiet,
    #[default]
    Normal,
    /// `--verbose`: what each step does.
    Verbose,
}

/// How a message looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Short,
    /// For programs: one JSON object a line.
    Json,
}

impl Form {
    /// Short if stderr is a terminal.
    pub fn of_stderr() -> Form {
        if io::stderr().is_terminal() { Form::Short } else { Form::Json }
    }
}

/// Logging was set up before. A defect of the program, not of its surroundings.
#[derive(Debug, thiserror::Error)]
#[error("logging is set up already")]
pub struct LoggingError(#[from] tracing::subscriber::SetGlobalDefaultError);

/// Sets up logging to stderr for the whole process, once.
pub fn init(verbosity: Verbosity, form: Form, metrics: &Arc<Metrics>) -> Result<(), LoggingError> {
    Ok(tracing::subscriber::set_global_default(subscriber(verbosity, form, metrics, Clock::system(), io::stderr()))?)
}

fn subscriber(
    verbosity: Verbosity,
    form: Form,
    metrics: &Arc<Metrics>,
    clock: Clock,
    out: impl Write + Send + 'static,
) -> impl tracing::Subscriber + Send + Sync {
    let lines: Lines = Lines::new(form, metrics.clone(), clock, Box::new(out));
    Registry::default().with(lines.with_filter(levels(verbosity)))
}

fn levels(verbosity: Verbosity) -> Targets {
    let (own, others) = match verbosity {
        Verbosity::Quiet => (LevelFilter::WARN, LevelFilter::WARN),
        Verbosity::Normal => (LevelFilter::INFO, LevelFilter::WARN),
        Verbosity::Verbose => (LevelFilter::DEBUG, LevelFilter::INFO),
    };
    Targets::new().with_default(others).with_targets(OWN_CRATES.map(|name| (name, own)))
}

#[cfg(test)]
mod tests;
