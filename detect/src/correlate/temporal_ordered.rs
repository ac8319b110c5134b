//! `temporal_ordered`: events of all steps, in the rule's order, within the timespan.
//!
//! A chain is a list of distinct event ids, one for each step, at times t1 <= t2 <= ...: events of one moment count in any
//! order, because audit times are whole seconds and their order within one is unknown. After a step with a pause the next
//! event comes at least so much later. One event fills one place, even where several member rules select it. The span of
//! an anchor reaches from the chain's first event at the anchor to the *latest* event that can complete a chain from
//! there: were it the earliest, a late record could shorten a span, and findings would depend on the order of arrival.
//!
//! Only the clash of ids needs a search, and it is bounded: with n places still open at most n - 1 ids can be taken by
//! the others, so the first n distinct ids of a place are enough to try (an exchange of a later for an earlier event
//! never breaks a chain: the pause after a place is the same for all of its events). For k steps that is at most k! steps
//! an anchor, and in practice k.

use chrono::{DateTime, TimeDelta, Utc};

use super::state::{Member, MemberKey, Members};
use super::window::{Span, earlier, later, within};
use crate::rule::model::Sequence;

/// Events that can stand in one place of the chain, in order of time.
pub(super) struct Place<'a> {
    events: Vec<(DateTime<Utc>, &'a str)>,
    pause: TimeDelta,
}

pub(super) fn satisfied(members: &Members, anchors: Vec<Span>, sequence: &Sequence) -> Vec<Span> {
    let spans = anchors.into_iter().flat_map(|anchors| {
        let reach = Span { start: anchors.start, end: later(anchors.end, sequence.timespan) };
        spans(&places(within(members, reach), sequence), anchors, sequence.timespan)
    });
    spans.collect()
}

/// The places of a sequence, filled with members that are in order of time.
pub(super) fn places<'a>(
    members: impl Iterator<Item = (&'a MemberKey, &'a Member)>,
    sequence: &Sequence,
) -> Vec<Place<'a>> {
    let mut places: Vec<Place> =
        sequence.steps.iter().map(|step| Place { events: Vec::new(), pause: step.pause }).collect();
    for (key, member) in members {
        for (place, _) in places.iter_mut().zip(&sequence.steps).filter(|(_, step)| *step.rule == *member.name) {
            place.events.push((key.time, &member.event_id));
        }
    }
    places
}

/// The spans of the anchors that begin a chain, as far as they add to their union.
pub(super) fn spans(places: &[Place], anchors: Span, timespan: TimeDelta) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let end_of_all = places.last().and_then(|last| last.events.last()).map(|(time, _)| *time);
    let mut times: Vec<_> = places.first().into_iter().flat_map(|first| &first.events).map(|(time, _)| *time).collect();
    times.dedup();
    for anchor in times.into_iter().filter(|time| *time <= anchors.end) {
        // No later chain reaches further than one that reaches the last event there is.
        if spans.last().is_some_and(|span| Some(span.end) == end_of_all) {
            break;
        }
        if let Some(end) = latest_completion(places, anchor, later(anchor, timespan)) {
            spans.push(Span { start: anchor, end });
        }
    }
    spans
}

/// The members in `range` that are the last of a chain that ends there.
pub(super) fn completions(members: &Members, range: Span, sequence: &Sequence) -> Vec<MemberKey> {
    let timespan = sequence.timespan;
    let reach = Span { start: earlier(range.start, timespan), end: range.end };
    let places = places(within(members, reach), sequence);
    let Some(((last, others), step)) = places.split_last().zip(sequence.steps.last()) else { return Vec::new() };
    debug_assert!(last.events.is_sorted_by_key(|(time, _)| *time));
    let ends = within(members, range).filter(|(_, member)| *member.name == *step.rule);
    let completes = |key: &MemberKey, id: &str| {
        let span = Span { start: earlier(key.time, timespan), end: key.time };
        others.is_empty() || fill(others, span, false, &mut vec![id])
    };
    ends.filter(|(key, member)| completes(key, &member.event_id)).map(|(key, _)| *key).collect()
}

/// The latest time of a last event that completes a chain whose first event is at `anchor`.
fn latest_completion(places: &[Place], anchor: DateTime<Utc>, limit: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let (last, others) = places.split_last()?;
    let limit = if others.is_empty() { anchor } else { limit };
    let from = last.events.partition_point(|(time, _)| *time < anchor);
    let until = last.events.partition_point(|(time, _)| *time <= limit);
    let mut tried: Vec<&str> = Vec::new();
    for (time, id) in last.events.get(from..until)?.iter().rev() {
        if tried.contains(id) {
            continue;
        }
        if others.is_empty() || fill(others, Span { start: anchor, end: *time }, true, &mut vec![*id]) {
            return Some(*time);
        }
        tried.push(id);
        if tried.len() == places.len() {
            break;
        }
    }
    None
}

/// Whether the places can be filled in order inside `span` with ids that are not taken, each with its pause before what
/// follows; the last of all is at the span's end. The chain's first event must be at the span's start itself.
fn fill<'a>(places: &[Place<'a>], span: Span, first: bool, taken: &mut Vec<&'a str>) -> bool {
    let Some((place, rest)) = places.split_first() else { return true };
    let end = if first { span.start } else { span.end };
    let mut tried: Vec<&str> = Vec::new();
    for (time, id) in place.events.iter().skip(place.events.partition_point(|(time, _)| *time < span.start)) {
        let next = later(*time, place.pause);
        if *time > end || next > span.end || tried.len() == places.len() {
            break;
        }
        if taken.contains(id) || tried.contains(id) {
            continue;
        }
        tried.push(id);
        taken.push(id);
        if fill(rest, Span { start: next, end: span.end }, false, taken) {
            return true;
        }
        taken.pop();
    }
    false
}
