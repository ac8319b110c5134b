//! The handles that services hold, over the `prometheus` crate.
//!
//! A handle whose metric could not be made counts into nothing. That can only be a defect of the table (a name used
//! twice), which a test excludes; a service must not fail for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use prometheus::core::Collector;
use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, Opts};

use super::label::{Label, Seen, Values, bounded};
use super::{Kind, PREFIX};

/// What a metric is made from: a line of the table.
pub(super) struct Spec<const N: usize> {
    pub name: &'static str,
    pub help: &'static str,
    pub labels: [Label; N],
    pub buckets: &'static [f64],
}

/// Where metrics are registered, and what bounds their labels.
pub(super) struct Registry {
    inner: prometheus::Registry,
    start: DateTime<Utc>,
    seen: Mutex<HashMap<&'static str, Arc<Seen>>>,
    limited: Arc<OnceLock<Counter>>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("start", &self.start).finish_non_exhaustive()
    }
}

impl Registry {
    pub fn new(start: DateTime<Utc>) -> Registry {
        // Fails only for an empty prefix.
        let inner = prometheus::Registry::new_custom(Some(PREFIX.into()), None).unwrap_or_default();
        Registry { inner, start, seen: Mutex::default(), limited: Arc::default() }
    }

    /// Names the counter of values that became `other`. It cannot be given from the start: it is a metric itself.
    pub fn count_limited_in(&self, counter: &Counter) {
        // A second call would change nothing; there is none.
        let _ = self.limited.set(counter.clone());
    }

    pub fn gather(&self) -> Vec<prometheus::proto::MetricFamily> {
        self.inner.gather()
    }

    fn family<const N: usize, V: Collector + Clone + 'static>(
        &self,
        spec: &Spec<N>,
        made: Result<V, prometheus::Error>,
    ) -> Family<N, V> {
        let vec = made.and_then(|vec| self.inner.register(Box::new(vec.clone())).map(|()| vec)).ok();
        debug_assert!(vec.is_some(), "the table of metrics is wrong about {}", spec.name);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = spec.labels.map(|label| seen.entry(label.name).or_default().clone());
        Family { vec, labels: spec.labels, seen, limited: self.limited.clone() }
    }
}

/// A metric with labels.
#[derive(Clone, Debug)]
struct Family<const N: usize, V> {
    vec: Option<V>,
    labels: [Label; N],
    seen: [Arc<Seen>; N],
    limited: Arc<OnceLock<Counter>>,
}

impl<const N: usize, V> Family<N, V> {
    fn bounded<'a>(&self, values: [&'a str; N]) -> [&'a str; N] {
        let mut bounded_values = values;
        for ((value, label), seen) in bounded_values.iter_mut().zip(self.labels).zip(&self.seen) {
            *value = bounded(label, seen, self.limited.get(), value);
        }
        bounded_values
    }

    /// All combinations of the given values and the closed lists; none if a label is neither, or none was asked for.
    fn combinations<'a>(&self, given: &[(&str, &'a str)]) -> Vec<[&'a str; N]> {
        let value_of = |label: &Label| given.iter().find(|(name, _)| *name == label.name).map(|(_, value)| *value);
        if !given.is_empty() && !self.labels.iter().any(|label| value_of(label).is_some()) {
            return Vec::new();
        }
        let mut all = vec![[""; N]];
        for (at, label) in self.labels.iter().enumerate() {
            let values: Vec<&'a str> = match (value_of(label), label.values) {
                (Some(value), _) => vec![value],
                (None, Values::Closed(values)) => values.to_vec(),
                (None, Values::Open { .. }) => return Vec::new(),
            };
            all = all.iter().flat_map(|row| values.iter().map(|value| with_value(*row, at, value))).collect();
        }
        all
    }
}

fn with_value<'a, const N: usize>(mut row: [&'a str; N], at: usize, value: &'a str) -> [&'a str; N] {
    row[at] = value;
    row
}

/// A number that only grows.
#[derive(Clone, Debug)]
pub struct Counter(Option<prometheus::IntCounter>);

impl Counter {
    pub fn inc(&self) {
        self.add(1);
    }

    pub fn add(&self, count: u64) {
        if let Some(counter) = &self.0 {
            counter.inc_by(count);
        }
    }

    pub fn value(&self) -> u64 {
        self.0.as_ref().map_or(0, prometheus::IntCounter::get)
    }
}

/// A number that goes up and down.
#[derive(Clone, Debug)]
pub struct Gauge(Option<prometheus::Gauge>);

impl Gauge {
    pub fn set(&self, value: f64) {
        if let Some(gauge) = &self.0 {
            gauge.set(value);
        }
    }

    /// For a number of things. Exact up to 2^53.
    pub fn set_count(&self, count: u64) {
        self.set(count as f64);
    }

    /// For a point in time, as Prometheus has it: seconds since 1970.
    pub fn set_time(&self, time: DateTime<Utc>) {
        self.set(seconds(time));
    }

    pub fn add(&self, by: f64) {
        if let Some(gauge) = &self.0 {
            gauge.add(by);
        }
    }

    pub fn value(&self) -> f64 {
        self.0.as_ref().map_or(0.0, prometheus::Gauge::get)
    }
}

/// How often something took how long.
#[derive(Clone, Debug)]
pub struct Histogram(Option<prometheus::Histogram>);

impl Histogram {
    /// Less than nothing counts as nothing: two machines' clocks may disagree.
    pub fn observe_seconds(&self, seconds: f64) {
        if let Some(histogram) = &self.0 {
            histogram.observe(seconds.max(0.0));
        }
    }

    pub fn observe(&self, duration: Duration) {
        self.observe_seconds(duration.as_secs_f64());
    }

    /// How many were observed.
    pub fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, prometheus::Histogram::get_sample_count)
    }
}

fn seconds(time: DateTime<Utc>) -> f64 {
    time.timestamp_millis() as f64 / 1000.0
}

/// Counters that differ by N labels. They begin at 0.
#[derive(Clone, Debug)]
pub struct Counters<const N: usize>(Family<N, IntCounterVec>);

impl<const N: usize> Counters<N> {
    pub(super) const KIND: Kind = Kind::Counter;

    pub(super) fn build(registry: &Registry, spec: &Spec<N>) -> Self {
        let made = IntCounterVec::new(Opts::new(spec.name, spec.help), &spec.labels.map(|label| label.name));
        Counters(registry.family(spec, made))
    }

    pub(super) fn begin(&self, given: &[(&str, &str)]) {
        for values in self.0.combinations(given) {
            self.with(values);
        }
    }

    /// The counter of these label values, in the order of the table.
    pub fn with(&self, values: [&str; N]) -> Counter {
        let values = self.0.bounded(values);
        Counter(self.0.vec.as_ref().and_then(|vec| vec.get_metric_with_label_values(&values).ok()))
    }
}

/// Gauges that differ by N labels. A series is absent until it is set: absent says "not known", 0 would say "none".
#[derive(Clone, Debug)]
pub struct Gauges<const N: usize>(Family<N, GaugeVec>);

impl<const N: usize> Gauges<N> {
    pub(super) const KIND: Kind = Kind::Gauge;

    pub(super) fn build(registry: &Registry, spec: &Spec<N>) -> Self {
        let made = GaugeVec::new(Opts::new(spec.name, spec.help), &spec.labels.map(|label| label.name));
        Gauges(registry.family(spec, made))
    }

    pub(super) fn begin(&self, _: &[(&str, &str)]) {}

    /// The gauge of these label values, in the order of the table. It is there, at 0, from now on: set it.
    pub fn with(&self, values: [&str; N]) -> Gauge {
        let values = self.0.bounded(values);
        Gauge(self.0.vec.as_ref().and_then(|vec| vec.get_metric_with_label_values(&values).ok()))
    }

    /// Takes a series away, for what is not known or not there any more.
    pub fn remove(&self, values: [&str; N]) {
        if let Some(vec) = &self.0.vec {
            // An error says that it was not there.
            let _ = vec.remove_label_values(&self.0.bounded(values));
        }
    }
}

/// Times of the last success. They begin at the start of the process.
#[derive(Clone, Debug)]
pub struct LastTimes<const N: usize> {
    gauges: Gauges<N>,
    start: DateTime<Utc>,
}

impl<const N: usize> LastTimes<N> {
    pub(super) const KIND: Kind = Kind::Gauge;

    pub(super) fn build(registry: &Registry, spec: &Spec<N>) -> Self {
        LastTimes { gauges: Gauges::build(registry, spec), start: registry.start }
    }

    pub(super) fn begin(&self, given: &[(&str, &str)]) {
        for values in self.gauges.0.combinations(given) {
            let gauge = self.gauges.with(values);
            if gauge.value() == 0.0 {
                gauge.set_time(self.start);
            }
        }
    }

    /// It has just happened, or at this time.
    pub fn set(&self, values: [&str; N], time: DateTime<Utc>) {
        self.gauges.with(values).set_time(time);
    }

    /// Seconds since 1970; 0 for a series that has not begun.
    pub fn value(&self, values: [&str; N]) -> f64 {
        self.gauges.with(values).value()
    }
}

/// Histograms that differ by N labels.
#[derive(Clone, Debug)]
pub struct Histograms<const N: usize>(Family<N, HistogramVec>);

impl<const N: usize> Histograms<N> {
    pub(super) const KIND: Kind = Kind::Histogram;

    pub(super) fn build(registry: &Registry, spec: &Spec<N>) -> Self {
        let options = HistogramOpts::new(spec.name, spec.help).buckets(spec.buckets.to_vec());
        Histograms(registry.family(spec, HistogramVec::new(options, &spec.labels.map(|label| label.name))))
    }

    pub(super) fn begin(&self, given: &[(&str, &str)]) {
        for values in self.0.combinations(given) {
            self.with(values);
        }
    }

    /// The histogram of these label values, in the order of the table.
    pub fn with(&self, values: [&str; N]) -> Histogram {
        let values = self.0.bounded(values);
        Histogram(self.0.vec.as_ref().and_then(|vec| vec.get_metric_with_label_values(&values).ok()))
    }
}

// The same without labels: the one member of a family of N = 0. It is there from the start.

impl Counter {
    pub(super) const KIND: Kind = Kind::Counter;

    pub(super) fn build(registry: &Registry, spec: &Spec<0>) -> Self {
        Counters::build(registry, spec).with([])
    }

    pub(super) fn begin(&self, _: &[(&str, &str)]) {}
}

impl Gauge {
    pub(super) const KIND: Kind = Kind::Gauge;

    pub(super) fn build(registry: &Registry, spec: &Spec<0>) -> Self {
        Gauges::build(registry, spec).with([])
    }

    pub(super) fn begin(&self, _: &[(&str, &str)]) {}
}

impl Histogram {
    pub(super) const KIND: Kind = Kind::Histogram;

    pub(super) fn build(registry: &Registry, spec: &Spec<0>) -> Self {
        Histograms::build(registry, spec).with([])
    }

    pub(super) fn begin(&self, _: &[(&str, &str)]) {}
}
