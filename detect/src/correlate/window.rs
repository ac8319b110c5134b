//! Sliding windows: which stretches of time satisfy a condition that more members can only make truer.
//!
//! The window of an *anchor* (the time of a member) is [anchor, anchor + timespan], both ends inside. Where it is
//! satisfied its span reaches to its last member. A new member x lies only in windows whose anchor is in
//! [x - timespan, x], so only those are judged, all neighbourhoods of a batch in one pass. Two things are left out
//! because they cannot change the union of spans: anchors whose whole window lies in a known episode, and anchors after a
//! satisfied one that reach no further than it does. In a hot group a batch therefore costs about as many steps as the
//! condition needs members, not as many as the window holds.

use chrono::{DateTime, TimeDelta, Utc};

use super::state::{Group, Member, MemberKey, Members};

/// A stretch of time, both ends inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub start: DateTime<Utc>,
    pub end: DateTime<Utc>,
}

impl Span {
    pub fn at(time: DateTime<Utc>) -> Span {
        Span { start: time, end: time }
    }

    pub fn contains(self, time: DateTime<Utc>) -> bool {
        self.start <= time && time <= self.end
    }
}

/// `time + delta`, held at the end of time: records may claim any year.
pub(super) fn later(time: DateTime<Utc>, delta: TimeDelta) -> DateTime<Utc> {
    time.checked_add_signed(delta.max(TimeDelta::zero())).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// `time - delta`, held at the beginning of time.
pub(super) fn earlier(time: DateTime<Utc>, delta: TimeDelta) -> DateTime<Utc> {
    time.checked_sub_signed(delta.max(TimeDelta::zero())).unwrap_or(DateTime::<Utc>::MIN_UTC)
}

/// A span with what lies no further than this from its ends.
pub(super) fn wide(span: Span, reach: TimeDelta) -> Span {
    Span { start: earlier(span.start, reach), end: later(span.end, reach) }
}

/// What of these spans lies in none of the others; both in order and disjoint. Their ends belong to either: a moment more
/// does no harm.
pub(super) fn without(spans: &[Span], others: &[Span]) -> Vec<Span> {
    let mut left = Vec::new();
    for span in spans {
        let mut start = span.start;
        for other in others.iter().filter(|other| overlap(*span, **other)) {
            if start < other.start {
                left.push(Span { start, end: other.start });
            }
            start = start.max(other.end);
        }
        if start < span.end || (start == span.start && start == span.end) {
            left.push(Span { start, end: span.end });
        }
    }
    left
}

pub(super) fn overlap(one: Span, other: Span) -> bool {
    one.start <= other.end && other.start <= one.end
}

/// The same time in disjoint spans, in order.
pub(super) fn merged(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_unstable();
    let mut merged: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match merged.last_mut() {
            Some(last) if span.start <= last.end => last.end = last.end.max(span.end),
            _ => merged.push(span),
        }
    }
    merged
}

/// The members inside a span.
pub(super) fn within(members: &Members, span: Span) -> impl DoubleEndedIterator<Item = (&MemberKey, &Member)> {
    // A range from later to earlier would panic; such a span holds nothing.
    let end = if span.start <= span.end { MemberKey::last_at(span.end) } else { MemberKey::first_at(span.start) };
    members.range(MemberKey::first_at(span.start)..=end).map(|(key, member)| (key, &**member))
}

/// Where the anchors lie whose windows hold a new member. `fresh` is in order; so is the result.
pub(super) fn neighbourhoods(fresh: &[MemberKey], timespan: TimeDelta) -> Vec<Span> {
    let mut ranges: Vec<Span> = Vec::new();
    for key in fresh {
        let start = earlier(key.time, timespan);
        match ranges.last_mut() {
            Some(last) if start <= last.end => last.end = key.time,
            _ => ranges.push(Span { start, end: key.time }),
        }
    }
    ranges
}

/// The neighbourhoods without the anchors whose windows lie inside a known episode.
pub(super) fn undecided(group: &Group, fresh: &[MemberKey], timespan: TimeDelta) -> Vec<Span> {
    let mut ranges = Vec::new();
    for range in neighbourhoods(fresh, timespan) {
        let mut start = range.start;
        let first = group.episode_at(range.start).unwrap_or(range.start);
        for (from, episode) in group.episodes.range(first..=range.end) {
            let until = earlier(episode.end, timespan);
            if until <= *from || until <= start {
                continue;
            }
            if start <= *from {
                ranges.push(Span { start, end: *from });
            }
            start = until;
        }
        if start <= range.end {
            ranges.push(Span { start, end: range.end });
        }
    }
    ranges
}

/// A condition over the members of a window, kept while members enter and leave it.
pub(super) trait Tally<'a>: Default {
    fn push(&mut self, member: &'a Member);
    fn pop(&mut self, member: &'a Member);
    /// How much there is: compared with what the rule asks for.
    fn amount(&self) -> u128;
}

/// Spans of the satisfied windows whose anchors lie in `anchors`, as far as they add to their union.
pub(super) fn sweep<'a, T: Tally<'a>>(
    members: &'a Members,
    anchors: Span,
    timespan: TimeDelta,
    at_least: u128,
) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut tally = T::default();
    let mut lefts = within(members, anchors).peekable();
    let mut rights = members.range(MemberKey::first_at(anchors.start)..).peekable();
    while let Some(anchor) = lefts.peek().map(|(key, _)| key.time) {
        let limit = later(anchor, timespan);
        while tally.amount() < at_least {
            let Some((_, member)) = rights.next_if(|(key, _)| key.time <= limit) else { break };
            tally.push(member);
        }
        let mut resume = anchor;
        if tally.amount() >= at_least {
            let last =
                within(members, Span { start: anchor, end: limit }).next_back().map_or(anchor, |(key, _)| key.time);
            spans.push(Span { start: anchor, end: last });
            let Some((next, _)) = members.range(MemberKey::last_at(last)..).find(|(key, _)| key.time > last) else {
                break;
            };
            resume = resume.max(earlier(next.time, timespan));
        }
        // Anchors up to here are done; the one at `resume` itself is the next, unless it is the one just judged.
        let done = |key: &MemberKey| key.time <= anchor || key.time < resume;
        if rights.peek().is_some_and(|(key, _)| done(key)) {
            // Members not yet counted are skipped over, so the count starts anew. Only a satisfied window skips.
            tally = T::default();
            lefts = within(members, Span { start: resume, end: anchors.end }).peekable();
            rights = members.range(MemberKey::first_at(resume)..).peekable();
            if resume > anchors.end {
                break;
            }
        } else {
            while let Some((_, member)) = lefts.next_if(|(key, _)| done(key)) {
                tally.pop(member);
            }
        }
    }
    spans
}
