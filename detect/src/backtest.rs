//! Judging the archive again, and saying what is different.
//!
//! The records of an archive, judged by the rules that judged them live, give the findings that stand there: the same
//! bytes in [canonical] form. That is what makes the answer of other rules worth something.
//!
//! Memory holds what rules keep of the records ([`ENTRIES_MAX`]), never the records. What lies before the first day that
//! is asked for is read as far as rules look back ([`reach`]).

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use schemas::finding::{Finding, Status};
use serde_json::Value as Json;

use crate::rule::{Operator, Rule, RuleSet};

/// Most members, episodes and sightings that are held at once, by all rules together: about half a kilobyte each, one
/// gigabyte. More is a rule that selects nearly everything, or a period to be taken in pieces.
pub const ENTRIES_MAX: usize = 2_000_000;

/// How far before a moment records can lie that decide what begins at it. With this much before it, an episode that
/// began earlier is seen to have begun earlier; only a baseline may know more than it is shown, because what it learnt
/// before counts for its warm-up.
pub fn reach(rules: &RuleSet) -> TimeDelta {
    rules.rules().iter().map(|rule| reach_of(rule)).max().unwrap_or_default()
}

fn reach_of(rule: &Rule) -> TimeDelta {
    let history = match &rule.operator {
        Operator::NewValue(new) => new.history_days.max(new.min_days) + 1,
        Operator::Spike(spike) => spike.history_days.max(spike.min_days) + 1,
        _ => 0,
    };
    let stages = rule.stages.iter().map(|stage| stage.operator.timespan());
    let windows = stages.fold(rule.operator.timespan(), |sum, one| sum + one);
    windows + rule.gap + TimeDelta::days(i64::from(history))
}

/// What two runs are compared by: all of a finding but what tells when and how often it was told.
pub fn canonical(finding: &Finding) -> Finding {
    Finding {
        revision: 0,
        // Open and final are one to a reader.
        status: Status::Open,
        superseded_by: None,
        created: DateTime::<Utc>::UNIX_EPOCH,
        updated: DateTime::<Utc>::UNIX_EPOCH,
        notify: false,
        incident_id: None,
        ..finding.clone()
    }
}

/// Findings of two runs, told apart.
#[derive(Debug, Default)]
pub struct Difference {
    pub same: usize,
    pub only_old: Vec<Finding>,
    pub only_new: Vec<Finding>,
    pub changed: Vec<Changed>,
}

/// One finding that both have, and what is not the same.
#[derive(Debug)]
pub struct Changed {
    pub old: Finding,
    pub new: Finding,
    /// Names of the members of a finding that differ.
    pub fields: Vec<String>,
}

/// Compares the findings that stand. `versions`: whether another version of a rule is a difference by itself.
pub fn difference(old: Vec<Finding>, new: Vec<Finding>, versions: bool) -> Difference {
    let key = |finding: &Finding| (finding.tenant.clone(), finding.id.clone());
    let mut olds: BTreeMap<_, Finding> = old.into_iter().map(|finding| (key(&finding), finding)).collect();
    let mut difference = Difference::default();
    for new in new {
        let Some(old) = olds.remove(&key(&new)) else {
            difference.only_new.push(new);
            continue;
        };
        match fields(&old, &new, versions) {
            fields if fields.is_empty() => difference.same += 1,
            fields => difference.changed.push(Changed { old, new, fields }),
        }
    }
    difference.only_old = olds.into_values().collect();
    let order = |finding: &Finding| (finding.first_event, finding.tenant.clone(), finding.id.clone());
    difference.only_old.sort_by_key(order);
    difference.only_new.sort_by_key(order);
    difference.changed.sort_by_key(|changed| order(&changed.new));
    difference
}

fn fields(old: &Finding, new: &Finding, versions: bool) -> Vec<String> {
    let form = |finding: &Finding| {
        let mut form = canonical(finding);
        if !versions {
            form.rule.version.clear();
        }
        serde_json::to_value(form).unwrap_or_default()
    };
    let (Json::Object(old), Json::Object(new)) = (form(old), form(new)) else { return Vec::new() };
    let names = old.keys().chain(new.keys().filter(|name| !old.contains_key(*name)));
    names.filter(|name| old.get(*name) != new.get(*name)).cloned().collect()
}
