//! Episodes: satisfied spans that overlap or lie at most the rule's gap apart are one.
//!
//! An episode covers the hull of its chain; its members are all standing members in the hull. For a condition that more
//! members can only make truer, the hulls are all that must be kept: a new span joins what it touches, and the result does
//! not depend on the order. Where spans can be withdrawn (histories), the episodes they lay in are dissolved and built
//! again from the spans that still stand.
//!
//! Work per batch: the spans and members it adds, and where episodes join, the members of all but the largest.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::finding::identity;
use super::state::{Group, MemberKey};
use super::summary::{Summary, Told};
use super::window::{Span, earlier, later, within};
use crate::rule::model::{Operator, Rule};

/// One episode that stands; its start is its key in the group.
#[derive(Clone, Debug)]
pub(super) struct Episode {
    pub end: DateTime<Utc>,
    /// The finding's id.
    pub id: String,
    pub summary: Summary,
}

/// What an operator says of a batch.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// Spans that stand now, where they are new or have grown.
    pub satisfied: Vec<Span>,
    /// Spans that stood and do not any more, or whose members tell something else.
    pub withdrawn: Vec<Span>,
    /// Members that count now and did not before, in order.
    pub joined: Vec<MemberKey>,
    /// Moments whose episode may read differently.
    pub touched: Vec<DateTime<Utc>>,
}

/// An episode as it was before the batch, if its id may be gone.
#[derive(Debug)]
pub(super) struct Former {
    pub id: String,
    pub hull: Span,
    pub told: Told,
}

/// What a batch did to a group's episodes.
#[derive(Debug, Default)]
pub(super) struct Turn {
    pub formers: Vec<Former>,
    /// Starts of the episodes that may have changed.
    pub changed: BTreeSet<DateTime<Utc>>,
}

/// Applies a verdict.
pub(super) fn update(group: &mut Group, rule: &Rule, verdict: Verdict) -> Turn {
    let mut turn = Turn::default();
    let mut pending = verdict.satisfied;
    for span in &verdict.withdrawn {
        if let Some((start, episode)) =
            group.episode_at(span.start).and_then(|start| group.episodes.remove_entry(&start))
        {
            let hull = Span { start, end: episode.end };
            pending.extend(standing_spans(group, &rule.operator, hull));
            turn.dismiss(start, &episode);
        }
    }
    // A member inside a known hull belongs to it, also where it satisfies nothing itself.
    let inside = verdict.joined.iter().filter(|key| group.episode_at(key.time).is_some());
    pending.extend(inside.map(|key| Span::at(key.time)));
    pending.sort_unstable();
    let mut pending = pending.into_iter().peekable();
    while let Some(span) = pending.next() {
        let (hull, absorbed) = absorb(group, rule, span, &mut pending);
        form(group, rule, hull, absorbed, &verdict.joined, &mut turn);
    }
    turn.changed.extend(verdict.touched.iter().filter_map(|time| group.episode_at(*time)));
    turn
}

/// Builds the episode of a stored hull: after a load.
pub(super) fn restore(group: &Group, rule: &Rule, hull: Span, id: &str) -> Episode {
    let mut summary = Summary::of(rule);
    group.crowd.within(hull).for_each(|(time, thin)| summary.add_thin(time, *thin));
    within(&group.members, hull)
        .filter(|(_, member)| member.stands)
        .for_each(|(key, member)| summary.add(rule, *key, member));
    Episode { end: hull.end, id: id.to_owned(), summary }
}

/// Builds all episodes from the members that stand, for operators whose spans are members: after a load.
pub(super) fn rebuild(group: &mut Group, rule: &Rule) {
    let standing = group.members.iter().filter(|(_, member)| member.stands);
    let satisfied = standing.map(|(key, _)| Span::at(key.time)).collect();
    update(group, rule, Verdict { satisfied, ..Verdict::default() });
}

/// The spans that stand inside a hull, for operators that can withdraw some.
fn standing_spans(group: &Group, operator: &Operator, hull: Span) -> Vec<Span> {
    match operator {
        Operator::Spike(_) => group.days.standing(hull),
        Operator::Aggregate(_) => super::aggregate::standing(group, hull),
        _ => within(&group.members, hull)
            .filter(|(_, member)| member.stands)
            .map(|(key, _)| Span::at(key.time))
            .collect(),
    }
}

/// Joins to a span all pending spans and episodes within the gap, until there are none.
fn absorb(
    group: &mut Group,
    rule: &Rule,
    mut hull: Span,
    pending: &mut Peekable<impl Iterator<Item = Span>>,
) -> (Span, Vec<(DateTime<Utc>, Episode)>) {
    let mut absorbed = Vec::new();
    loop {
        let reach = later(hull.end, rule.gap);
        if let Some(span) = pending.next_if(|span| span.start <= reach) {
            hull.end = hull.end.max(span.end);
            continue;
        }
        // Episodes are disjoint: if the last one that begins in reach ends too early, all others do.
        let near = group.episodes.range(..=reach).next_back();
        let Some(start) =
            near.filter(|(_, episode)| episode.end >= earlier(hull.start, rule.gap)).map(|(start, _)| *start)
        else {
            return (hull, absorbed);
        };
        if let Some(episode) = group.episodes.remove(&start) {
            hull = Span { start: hull.start.min(start), end: hull.end.max(episode.end) };
            absorbed.push((start, episode));
        }
    }
}

/// Puts one episode in the place of those it absorbed. The largest keeps its summary; only what lies outside is added.
fn form(
    group: &mut Group,
    rule: &Rule,
    hull: Span,
    mut absorbed: Vec<(DateTime<Utc>, Episode)>,
    joined: &[MemberKey],
    turn: &mut Turn,
) {
    absorbed.sort_by_key(|(start, episode)| (episode.summary.len(), std::cmp::Reverse(*start)));
    let base = absorbed.pop();
    for (start, episode) in &absorbed {
        turn.dismiss(*start, episode);
    }
    let known = base.as_ref().map(|(start, episode)| Span { start: *start, end: episode.end });
    let before = base.as_ref().and_then(|(_, episode)| episode.summary.first());
    let first = match known {
        // What the base knows of this moment it has summed up: only what joined can come before.
        Some(known) if known.start == hull.start => {
            before.iter().cloned().chain(first_joined(group, joined, hull.start)).min()
        }
        _ => first_at(group, hull.start),
    };
    let Some(first) = first else { return };
    let id = identity(rule, &group.about, &first);
    let mut summary = match base {
        Some((_, episode)) if episode.id == id => episode.summary,
        Some((start, episode)) => {
            turn.dismiss(start, &episode);
            episode.summary
        }
        None => Summary::of(rule),
    };
    for part in outside(hull, known) {
        let is_new = |time: DateTime<Utc>| known.is_none_or(|known| !known.contains(time));
        let crowd = group.crowd.within(part).filter(|(time, _)| is_new(*time));
        crowd.for_each(|(time, thin)| summary.add_thin(time, *thin));
        let members = within(&group.members, part).filter(|(key, _)| is_new(key.time));
        members.filter(|(_, member)| member.stands).for_each(|(key, member)| summary.add(rule, *key, member));
    }
    if let Some(known) = known {
        let from = joined.partition_point(|key| key.time < known.start);
        for key in joined.iter().skip(from).take_while(|key| key.time <= known.end) {
            if let Some(member) = group.members.get(key).filter(|member| member.stands) {
                summary.add(rule, *key, member);
            }
        }
    }
    group.episodes.insert(hull.start, Episode { end: hull.end, id, summary });
    turn.changed.insert(hull.start);
}

/// The first of the standing members of a moment, by id.
fn first_at(group: &Group, time: DateTime<Utc>) -> Option<(DateTime<Utc>, Arc<str>)> {
    let members = within(&group.members, Span::at(time)).filter(|(_, member)| member.stands);
    members.map(|(_, member)| (time, Arc::clone(&member.event_id))).min()
}

/// The same among those that joined.
fn first_joined(group: &Group, joined: &[MemberKey], time: DateTime<Utc>) -> Option<(DateTime<Utc>, Arc<str>)> {
    let from = joined.partition_point(|key| key.time < time);
    let at_time = joined.iter().skip(from).take_while(|key| key.time == time);
    let members = at_time.filter_map(|key| group.members.get(key)).filter(|member| member.stands);
    members.map(|member| (time, Arc::clone(&member.event_id))).min()
}

/// The parts of `hull` that reach beyond `known`, with its own ends still in them.
fn outside(hull: Span, known: Option<Span>) -> Vec<Span> {
    let Some(known) = known else { return vec![hull] };
    let before = (hull.start < known.start).then_some(Span { start: hull.start, end: known.start });
    let after = (known.end < hull.end).then_some(Span { start: known.end, end: hull.end });
    before.into_iter().chain(after).collect()
}

impl Turn {
    fn dismiss(&mut self, start: DateTime<Utc>, episode: &Episode) {
        if let Some(told) = episode.summary.told() {
            self.formers.push(Former { id: episode.id.clone(), hull: Span { start, end: episode.end }, told });
        }
    }
}
