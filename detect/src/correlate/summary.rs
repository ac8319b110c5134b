//! What a finding tells of its members, kept so that a new member costs what it adds and not a walk over the episode.
//!
//! Every part is a function of the set of members: counts, sums of maxima, and "the first N by earliest appearance". The
//! last can be kept while members arrive in any order, because a value's earliest appearance only ever moves forward:
//! what once fell off the end returns only by a member that brings it to the front again. Members are never taken out;
//! when one falls (only operators with a history do that), its episode is summed up anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use schemas::finding::EVIDENCE_MAX;

use super::crowd::{Thin, id_hash};
use super::state::{Member, MemberKey};
use crate::rule::model::Rule;

/// Most values shown of one field: enough for a person, and no finding grows with what an attacker writes.
pub(super) const FIELD_VALUES_MAX: usize = 10;

/// Ids a finding names: few in tests, so that little is needed to have more.
pub(super) const NAMED_MAX: usize = if cfg!(test) { 8 } else { EVIDENCE_MAX };

/// The members of one episode, summed up.
#[derive(Clone, Debug, Default)]
pub(super) struct Summary {
    /// By hash: where an id first appears, and its heaviest weight.
    of_id: BTreeMap<u64, (DateTime<Utc>, u64)>,
    /// Those that count for what the episode must hold, with their weights; kept only where the rule asks for it.
    counted: Option<BTreeMap<Arc<str>, u64>>,
    weight: u128,
    /// The first [`NAMED_MAX`] ids by time and id.
    evidence: BTreeSet<(DateTime<Utc>, Arc<str>)>,
    fields: BTreeMap<String, FirstSeen>,
    values: FirstSeen,
    last: Option<DateTime<Utc>>,
    received: Option<DateTime<Utc>>,
    notify: bool,
}

/// What a finding is rendered from.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub first: DateTime<Utc>,
    pub last: DateTime<Utc>,
    pub count: u64,
    pub weight: u128,
    pub evidence: Vec<String>,
    pub fields: BTreeMap<String, Vec<String>>,
    pub values: Vec<String>,
    pub received: DateTime<Utc>,
    pub notify: bool,
}

impl Summary {
    /// Of no member yet.
    pub fn of(rule: &Rule) -> Summary {
        let counted = rule.operator.least().map(|_| BTreeMap::new());
        Summary { counted, ..Summary::default() }
    }

    /// Adds a member that it does not hold yet.
    pub fn add(&mut self, rule: &Rule, key: MemberKey, member: &Member) {
        if let (Some(least), Some(counted)) = (rule.operator.least(), &mut self.counted)
            && (least.of.is_empty() || least.of.iter().any(|name| **name == *member.name))
        {
            let heaviest = counted.entry(Arc::clone(&member.event_id)).or_default();
            *heaviest = member.weight.max(*heaviest);
        }
        self.last = self.last.max(Some(key.time));
        self.received = self.received.max(Some(member.received));
        self.notify |= member.notify;
        self.add_id(key.time, member);
        let id = &member.event_id;
        for (at, value) in member.told().iter().enumerate() {
            self.values.add(Appearance { time: key.time, id: Arc::clone(id), tie: (key.tie, at) }, value);
        }
        let fields: BTreeMap<String, Vec<String>> = serde_json::from_str(member.fields.get()).unwrap_or_default();
        for (name, values) in fields.into_iter().filter(|(_, values)| !values.is_empty()) {
            let seen = self.fields.entry(name).or_default();
            for (at, value) in values.iter().enumerate() {
                seen.add(Appearance { time: key.time, id: Arc::clone(id), tie: (key.tie, at) }, value);
            }
        }
    }

    fn add_id(&mut self, time: DateTime<Utc>, member: &Member) {
        let id = &member.event_id;
        match self.weigh(time, id_hash(id), member.weight) {
            Place::New => {}
            Place::Earlier(before) => drop(self.evidence.remove(&(before, Arc::clone(id)))),
            Place::Known => return,
        }
        self.evidence.insert((time, Arc::clone(id)));
        if self.evidence.len() > NAMED_MAX {
            self.evidence.pop_last();
        }
    }

    /// Adds what is left of a member. Before those that are whole: they know then which of their ids came first.
    pub fn add_thin(&mut self, time: DateTime<Utc>, thin: Thin) {
        self.weigh(time, thin.id, thin.weight);
    }

    fn weigh(&mut self, time: DateTime<Utc>, id: u64, weight: u64) -> Place {
        match self.of_id.get_mut(&id) {
            None => {
                self.of_id.insert(id, (time, weight));
                self.weight += u128::from(weight);
                Place::New
            }
            Some((earliest, heaviest)) => {
                self.weight += u128::from(weight.saturating_sub(*heaviest));
                *heaviest = weight.max(*heaviest);
                if time >= *earliest {
                    return Place::Known;
                }
                Place::Earlier(std::mem::replace(earliest, time))
            }
        }
    }

    /// The moment after which no id is named; none while all are.
    pub fn named_until(&self) -> Option<DateTime<Utc>> {
        let is_full = self.evidence.len() == NAMED_MAX;
        self.evidence.last().filter(|_| is_full).map(|(last, _)| *last)
    }

    /// The members in which a value that is shown appears first.
    pub fn shown_at(&self) -> BTreeSet<MemberKey> {
        let lists = self.fields.values().chain([&self.values]);
        lists.flat_map(|seen| &seen.0).map(|(at, _)| MemberKey { time: at.time, tie: at.tie.0 }).collect()
    }

    /// How many ids it holds.
    pub fn len(&self) -> usize {
        self.of_id.len()
    }

    /// Whether that is enough to be told.
    pub fn is_enough(&self, rule: &Rule) -> bool {
        match (rule.operator.least(), &self.counted) {
            (Some(least), Some(counted)) => {
                counted.values().copied().fold(0, u64::saturating_add) >= u64::from(least.events)
            }
            _ => true,
        }
    }

    /// The earliest member's time and id: with the group, what the finding's id is made of.
    pub fn first(&self) -> Option<(DateTime<Utc>, Arc<str>)> {
        self.evidence.first().cloned()
    }

    /// `None` of nothing.
    pub fn told(&self) -> Option<Told> {
        let (first, _) = self.evidence.first()?;
        Some(Told {
            first: *first,
            last: self.last?,
            count: self.of_id.len() as u64,
            weight: self.weight,
            evidence: self.evidence.iter().map(|(_, id)| id.to_string()).collect(),
            fields: self.fields.iter().map(|(name, seen)| (name.clone(), seen.texts())).collect(),
            values: self.values.texts(),
            received: self.received?,
            notify: self.notify,
        })
    }
}

/// Where a member stands among those of its id.
enum Place {
    New,
    /// Before what was the first.
    Earlier(DateTime<Utc>),
    Known,
}

/// Where a value appears: the member's place, then the value's place in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Appearance {
    time: DateTime<Utc>,
    id: Arc<str>,
    tie: (u128, usize),
}

/// The first distinct values by earliest appearance.
#[derive(Clone, Debug, Default)]
struct FirstSeen(Vec<(Appearance, String)>);

impl FirstSeen {
    fn add(&mut self, at: Appearance, text: &str) {
        if self.0.len() == FIELD_VALUES_MAX && self.0.last().is_some_and(|(last, _)| *last < at) {
            return;
        }
        match self.0.iter_mut().find(|(_, known)| known == text) {
            Some((earliest, _)) if *earliest <= at => return,
            Some((earliest, _)) => *earliest = at,
            None => self.0.push((at, text.to_owned())),
        }
        self.0.sort_by(|(left, _), (right, _)| left.cmp(right));
        self.0.truncate(FIELD_VALUES_MAX);
    }

    fn texts(&self) -> Vec<String> {
        self.0.iter().map(|(_, text)| text.clone()).collect()
    }
}
