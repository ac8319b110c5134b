//! Labels and their bounds.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

use super::handle::Counter;

/// The value of every label that has no room for another one.
pub const OTHER: &str = "other";

/// A label of a metric.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    pub name: &'static str,
    pub values: Values,
}

/// What a label may say.
#[derive(Clone, Copy, Debug)]
pub enum Values {
    /// One of these, or `other`.
    Closed(&'static [&'static str]),
    /// The first so many that come; all later ones are `other`. Counted by label name, over all metrics.
    Open { values_max: usize },
}

pub(super) const fn closed(name: &'static str, values: &'static [&'static str]) -> Label {
    Label { name, values: Values::Closed(values) }
}

pub(super) const fn open(name: &'static str, values_max: usize) -> Label {
    Label { name, values: Values::Open { values_max } }
}

/// Holds an open label to its bound.
#[derive(Debug, Default)]
pub(super) struct Seen(RwLock<HashSet<Box<str>>>);

impl Seen {
    /// The value itself if it is known or there is room for it, else `other`.
    fn admit<'a>(&self, value: &'a str, values_max: usize) -> Option<&'a str> {
        if self.0.read().unwrap_or_else(PoisonError::into_inner).contains(value) {
            return Some(value);
        }
        let mut seen = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if seen.contains(value) || (seen.len() < values_max && seen.insert(value.into())) { Some(value) } else { None }
    }
}

/// A label's value, held to its bound.
pub(super) fn bounded<'a>(label: Label, seen: &Seen, limited: Option<&Counter>, value: &'a str) -> &'a str {
    let allowed = match label.values {
        Values::Closed(values) => values.contains(&value).then_some(value),
        Values::Open { values_max } => seen.admit(value, values_max),
    };
    allowed.unwrap_or_else(|| {
        if value != OTHER
            && let Some(limited) = limited
        {
            limited.inc();
        }
        OTHER
    })
}
