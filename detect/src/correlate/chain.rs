//! Correlations of correlations: a correlation looks at what others find.
//!
//! All matches of the detection rules below it come to the outer rule's own shard and group, because an inner correlation
//! groups by at least what the outer one groups by. Here each inner correlation (a *stage*) keeps its members by its own
//! key, and a record *completes* it when the window that ends with that record satisfies it. What completes a stage is
//! a member of the correlation around it: at that record's time and with its id, because that is when the condition
//! came true. For every operator that can be inside (`Operator::only_grows`), more records can only add completions
//! and move the beginning of a completed window forward in time, so nothing is ever taken back and what stands is a
//! function of the set.
//!
//! A match below a stage stands (is counted and shown) once it lies in a completed window. The span of an outer window
//! begins where the first completed window in it begins, so that a finding tells of the whole story.
//!
//! A batch costs the members within one timespan of it, once for each stage it passes.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use schemas::json::key_hash;
use serde_json::value::RawValue;

use super::episode::Verdict;
use super::event_count::Weights;
use super::state::{Group, Member, MemberKey, Members, fold};
use super::temporal::Names;
use super::temporal_ordered;
use super::value_count::Values;
use super::window::{Span, Tally, earlier, later, neighbourhoods, within};
use crate::rule::model::{Operator, Rule, Stage};

/// What is kept of one group of the outer rule.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    /// By stage, in the rule's order, and by the stage's own key.
    stages: Vec<BTreeMap<Vec<String>, Part>>,
    /// What the outer operator looks at.
    top: Part,
}

/// What one correlation looks at in one of its groups.
#[derive(Clone, Debug, Default)]
struct Part {
    members: Members,
    /// For members that stand for a completed window: where it begins.
    starts: BTreeMap<MemberKey, DateTime<Utc>>,
    /// The members that complete a window, and where it begins.
    completed: BTreeMap<MemberKey, DateTime<Utc>>,
    /// Matches that lie in no completed window yet.
    waiting: BTreeSet<MemberKey>,
}

/// What a completed window puts into the correlation around its stage.
struct StandIn {
    key: MemberKey,
    member: Member,
    start: DateTime<Utc>,
}

/// Keys that are new in a part, or begin earlier.
type Fresh = BTreeSet<MemberKey>;

pub(super) fn judge(group: &mut Group, rule: &Rule, fresh: &[MemberKey]) -> Verdict {
    let Group { members, chain, .. } = group;
    chain.stages.resize_with(rule.stages.len(), BTreeMap::new);
    let mut arrived: Vec<BTreeMap<Vec<String>, Fresh>> = vec![BTreeMap::new(); rule.stages.len()];
    let mut arrived_top = Fresh::new();
    let mut joined = Vec::new();
    for key in fresh {
        let Some(member) = members.get_mut(key) else { continue };
        let Some((at, name)) = parent(rule, &member.name) else {
            chain.top.members.insert(*key, Box::new(looked_at(member, &member.name)));
            arrived_top.insert(*key);
            joined.push(*key);
            continue;
        };
        let own = member.within.last().cloned().unwrap_or_default();
        let inside = looked_at(member, name);
        member.stands = false;
        if let (Some(stage), Some(arrived)) = (chain.stages.get_mut(at), arrived.get_mut(at)) {
            let part = stage.entry(own.clone()).or_default();
            part.members.insert(*key, Box::new(inside));
            part.waiting.insert(*key);
            arrived.entry(own).or_default().insert(*key);
        }
    }
    for (at, stage) in rule.stages.iter().enumerate() {
        let outer = parent(rule, &stage.name).map(|(outer, _)| outer);
        for (own, fresh) in arrived.get_mut(at).map(std::mem::take).unwrap_or_default() {
            let Some(part) = chain.stages.get_mut(at).and_then(|parts| parts.get_mut(&own)) else { continue };
            let (stand_ins, counted) = part.advance(stage, &own, &fresh);
            for key in counted {
                if let Some(member) = members.get_mut(&key) {
                    member.stands = true;
                    joined.push(key);
                }
            }
            for StandIn { key, member, start } in stand_ins {
                let (part, fresh) = match outer {
                    None => (&mut chain.top, &mut arrived_top),
                    Some(outer) => {
                        let own = member.within.last().cloned().unwrap_or_default();
                        let (Some(parts), Some(arrived)) = (chain.stages.get_mut(outer), arrived.get_mut(outer)) else {
                            continue;
                        };
                        (parts.entry(own.clone()).or_default(), arrived.entry(own).or_default())
                    }
                };
                part.members.insert(key, Box::new(member));
                part.starts.insert(key, start);
                fresh.insert(key);
            }
        }
    }
    joined.sort_unstable();
    let satisfied = chain.top.satisfied(&rule.operator, &arrived_top);
    Verdict { satisfied, joined, ..Verdict::default() }
}

/// Builds everything from the members: after a load.
pub(super) fn prepare(group: &mut Group, rule: &Rule) {
    let keys: Vec<MemberKey> = group.members.keys().copied().collect();
    judge(group, rule, &keys);
}

/// The stage that a member or a stage lies in, by its position, and what it is called there. None at the top.
fn parent<'n>(rule: &Rule, way: &'n str) -> Option<(usize, &'n str)> {
    let (outer, name) = way.rsplit_once('/')?;
    let at = rule.stages.iter().position(|stage| stage.name == outer)?;
    Some((at, name))
}

impl Part {
    /// Judges the windows that hold a fresh member: what completes now, or begins earlier than before, and the matches
    /// that lie in a completed window now.
    fn advance(&mut self, stage: &Stage, own: &[String], fresh: &Fresh) -> (Vec<StandIn>, Vec<MemberKey>) {
        let timespan = stage.operator.timespan();
        let (mut stand_ins, mut counted) = (Vec::new(), Vec::new());
        let name = stage.name.rsplit('/').next().unwrap_or(&stage.name);
        for range in following(fresh, timespan) {
            for key in completions(&self.members, range, &stage.operator) {
                let window = Span { start: earlier(key.time, timespan), end: key.time };
                let Some(start) = self.begin(window) else { continue };
                let before = self.completed.insert(key, start);
                if before.is_none() {
                    let waiting = MemberKey::first_at(window.start)..=MemberKey::last_at(window.end);
                    counted.extend(self.waiting.extract_if(waiting, |_| true));
                }
                if before.is_none_or(|before| start < before)
                    && let Some(member) = self.members.get(&key)
                {
                    stand_ins.push(stand_in(key, member, stage, name, own, start));
                }
            }
        }
        // A late match may lie in a window that was completed without it.
        for key in fresh {
            let after = MemberKey::first_at(key.time)..=MemberKey::last_at(later(key.time, timespan));
            if self.waiting.contains(key) && self.completed.range(after).next().is_some() {
                self.waiting.remove(key);
                counted.push(*key);
            }
        }
        (stand_ins, counted)
    }

    /// Where the story of a window begins.
    fn begin(&self, window: Span) -> Option<DateTime<Utc>> {
        let mut members = within(&self.members, window).map(|(key, _)| key);
        if self.starts.is_empty() {
            return members.next().map(|key| key.time);
        }
        members.map(|key| self.starts.get(key).copied().unwrap_or(key.time).min(key.time)).min()
    }

    /// The spans of the windows that hold a fresh member and satisfy the outer operator.
    fn satisfied(&self, operator: &Operator, fresh: &Fresh) -> Vec<Span> {
        let fresh: Vec<MemberKey> = fresh.iter().copied().collect();
        let anchors = neighbourhoods(&fresh, operator.timespan());
        let spans = super::satisfied(operator, &self.members, anchors);
        let begun =
            |span: Span| Span { start: self.begin(span).map_or(span.start, |begin| begin.min(span.start)), ..span };
        spans.into_iter().map(begun).collect()
    }
}

/// A match as a stage looks at it: what is shown stays with the group.
fn looked_at(member: &Member, name: &str) -> Member {
    Member { name: name.into(), fields: RawValue::NULL.to_owned(), ..member.clone() }
}

/// What stands for a completed window where others look at it: its last record, at its time.
fn stand_in(key: MemberKey, last: &Member, stage: &Stage, name: &str, own: &[String], start: DateTime<Utc>) -> StandIn {
    let mut parts = vec![format!("{:032x}", key.tie), stage.name.clone()];
    parts.extend(own.iter().cloned());
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let exposed: Vec<&str> = stage.exposes.iter().filter_map(|at| own.get(*at)).map(String::as_str).collect();
    let values = if exposed.is_empty() { Vec::new() } else { vec![fold(&exposed.join("|")).into_boxed_str()] };
    let depth = stage.name.matches('/').count();
    let within = last.within.get(..depth).unwrap_or_default().to_vec();
    let member = Member { within, values, weight: 1, ..looked_at(last, name) };
    StandIn { key: MemberKey { time: key.time, tie: key_hash(&parts) }, member, start }
}

/// Where the last moments lie of windows that hold a fresh member.
fn following(fresh: &Fresh, timespan: TimeDelta) -> Vec<Span> {
    let mut ranges: Vec<Span> = Vec::new();
    for key in fresh {
        let end = later(key.time, timespan);
        match ranges.last_mut() {
            Some(last) if key.time <= last.end => last.end = end,
            _ => ranges.push(Span { start: key.time, end }),
        }
    }
    ranges
}

/// The members in `range` whose windows, which end with them, satisfy the operator.
fn completions(members: &Members, range: Span, operator: &Operator) -> Vec<MemberKey> {
    match operator {
        Operator::EventCount { at_least, timespan } => {
            completed::<Weights>(members, range, *timespan, u128::from(*at_least))
        }
        Operator::ValueCount { at_least, timespan } => {
            completed::<Values>(members, range, *timespan, u128::from(*at_least))
        }
        Operator::Temporal { at_least, timespan } => completed::<Names>(members, range, *timespan, *at_least as u128),
        Operator::TemporalOrdered(sequence) => temporal_ordered::completions(members, range, sequence),
        _ => Vec::new(),
    }
}

fn completed<'a, T: Tally<'a>>(
    members: &'a Members,
    range: Span,
    timespan: TimeDelta,
    at_least: u128,
) -> Vec<MemberKey> {
    let (mut completed, mut tally) = (Vec::new(), T::default());
    let reach = Span { start: earlier(range.start, timespan), end: range.end };
    let mut lefts = within(members, reach).peekable();
    let mut rights = within(members, reach).peekable();
    while let Some(time) = rights.peek().map(|(key, _)| key.time) {
        let mut ends = Vec::new();
        while let Some((key, member)) = rights.next_if(|(key, _)| key.time == time) {
            tally.push(member);
            ends.push(*key);
        }
        let begin = earlier(time, timespan);
        while let Some((_, member)) = lefts.next_if(|(key, _)| key.time < begin) {
            tally.pop(member);
        }
        if time >= range.start && tally.amount() >= at_least {
            completed.extend(ends);
        }
    }
    completed
}
