//! Metrics: what an operator sees of a running harrier.
//!
//! # The guarantee
//!
//! Every name, label and help text of the project stands in one place, [`table`](self::FACTS), and nothing else makes
//! a metric. No label can grow without bound: each is either a closed list or has a largest number of values, and
//! whatever comes after that is called `other`, so that neither an attacker nor a busy tenant can fill the memory of a
//! Prometheus server. No user, mail address, IP address, rule text or operation is ever a label.
//!
//! # Conventions
//!
//! * Names begin with `harrier_`, are in base units, and pass `promtool check metrics`.
//! * A counter starts at 0 and is there from the first scrape, or from [`Metrics::begin`] where its labels come from
//!   the configuration; otherwise the first failure would go unseen by `increase()`.
//! * A timestamp of the last success starts at the start of the process; otherwise `time() - x` would fire at once.
//! * Points in time are exported, not ages: an age stops growing when the thing that measures it has died.
//!
//! Services are given an `Arc<Metrics>`. A counter used for every record is best kept: `with` costs a look-up, the
//! handle it returns costs one atomic addition.

mod handle;
mod label;
mod table;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use prometheus::TextEncoder;

pub use self::handle::{Counter, Counters, Gauge, Gauges, Histogram, Histograms, LastTimes};
pub use self::label::{Label, Values};
pub use self::table::*;

use self::handle::Registry;

/// What every metric's name begins with.
pub const PREFIX: &str = "harrier";

/// The media type of [`Metrics::text`].
pub const TEXT_FORMAT: &str = prometheus::TEXT_FORMAT;

/// What is known of one metric.
#[derive(Clone, Copy, Debug)]
pub struct Fact {
    /// Without the prefix.
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [Label],
    pub help: &'static str,
}

/// The kinds of metrics, in Prometheus' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// The metrics could not be written as text. A defect of harrier, not of its surroundings.
#[derive(Debug, thiserror::Error)]
#[error("the metrics cannot be written: {0}")]
pub struct MetricsError(#[from] prometheus::Error);

/// Every metric of the project, by stage.
#[derive(Debug)]
pub struct Metrics {
    pub stages: Stages,
    registry: Registry,
}

impl std::ops::Deref for Metrics {
    type Target = Stages;

    /// So that one writes `metrics.api.requests`.
    fn deref(&self) -> &Stages {
        &self.stages
    }
}

impl Metrics {
    /// All metrics, for a build of this revision. Made once a process and passed on.
    pub fn new(revision: &str) -> Arc<Metrics> {
        Metrics::started(revision, Utc::now())
    }

    /// The same, for a process that started at another moment.
    pub fn started(revision: &str, start: DateTime<Utc>) -> Arc<Metrics> {
        let registry = Registry::new(start);
        let stages = Stages::build(&registry);
        registry.count_limited_in(&stages.own.label_values_limited);
        stages.own.build_info.with([env!("CARGO_PKG_VERSION"), revision]).set(1.0);
        let metrics = Metrics { stages, registry };
        // Series whose labels are closed lists need nothing more to begin.
        metrics.begin(&[]);
        Arc::new(metrics)
    }

    /// Begins every series that has at least one of these labels and no other that is not a closed list: counters and
    /// histograms at 0, times of the last success at the start of the process. To be called for what the configuration
    /// names: `begin(&[("tenant", "contoso"), ("content_type", "Audit.Exchange")])`.
    pub fn begin(&self, given: &[(&str, &str)]) {
        self.stages.begin(given);
    }

    /// What `/metrics` answers: text format 0.0.4. A metric without a series yet shows its help and type only, so that
    /// an operator can see all there is.
    pub fn text(&self) -> Result<String, MetricsError> {
        let families = self.registry.gather();
        let mut text = TextEncoder::new().encode_to_string(&families)?;
        for fact in FACTS {
            let name = format!("{PREFIX}_{}", fact.name);
            if !families.iter().any(|family| family.name() == name) {
                text.push_str(&format!("# HELP {name} {}\n# TYPE {name} {}\n", fact.help, fact.kind.as_str()));
            }
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests;
