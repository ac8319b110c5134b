//! `temporal_ordered`: events of all member rules, in the rule's order, within the timespan.
//!
//! A chain is a list of distinct event ids, one for each member rule, at times t1 <= t2 <= ...: events of one moment
//! count in any order, because audit times are whole seconds and their order within one is unknown. One event fills one
//! place, even where several member rules select it. The span of an anchor reaches from the chain's first event at the
//! anchor to the *latest* event that can complete a chain from there: were it the earliest, a late record could shorten
//! a span, and findings would depend on the order of arrival.
//!
//! Only the clash of ids needs a search, and it is bounded: with n places still open at most n - 1 ids can be taken by
//! the others, so the first n distinct ids of a place are enough to try (an exchange of a later for an earlier event
//! never breaks a chain). For k member rules that is at most k! steps an anchor, and in practice k.

use chrono::{DateTime, TimeDelta, Utc};

use super::state::{MemberKey, Members};
use super::window::{Span, earlier, later, within};

/// Events that can stand in one place of the chain, in order of time.
type Place<'a> = Vec<(DateTime<Utc>, &'a str)>;

pub(super) fn satisfied(members: &Members, anchors: Vec<Span>, names: &[String], timespan: TimeDelta) -> Vec<Span> {
    let mut spans = Vec::new();
    for anchors in anchors {
        let places = places(members, Span { start: anchors.start, end: later(anchors.end, timespan) }, names);
        let mut times: Vec<_> = places.first().into_iter().flatten().map(|(time, _)| *time).collect();
        times.dedup();
        for anchor in times.into_iter().filter(|time| *time <= anchors.end) {
            if let Some(end) = latest_completion(&places, anchor, later(anchor, timespan)) {
                spans.push(Span { start: anchor, end });
            }
        }
    }
    spans
}

fn places<'a>(members: &'a Members, reach: Span, names: &[String]) -> Vec<Place<'a>> {
    let mut places: Vec<Place> = vec![Vec::new(); names.len()];
    for (key, member) in within(members, reach) {
        for (place, _) in places.iter_mut().zip(names).filter(|(_, name)| **name == *member.name) {
            place.push((key.time, &member.event_id));
        }
    }
    places
}

/// The members in `range` that are the last of a chain that ends there.
pub(super) fn completions(members: &Members, range: Span, names: &[String], timespan: TimeDelta) -> Vec<MemberKey> {
    let places = places(members, Span { start: earlier(range.start, timespan), end: range.end }, names);
    let Some(((last, others), name)) = places.split_last().zip(names.last()) else { return Vec::new() };
    debug_assert!(last.is_sorted_by_key(|(time, _)| *time));
    let ends = within(members, range).filter(|(_, member)| *member.name == **name);
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
    let from = last.partition_point(|(time, _)| *time < anchor);
    let until = last.partition_point(|(time, _)| *time <= limit);
    let mut tried: Vec<&str> = Vec::new();
    for (time, id) in last.get(from..until)?.iter().rev() {
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

/// Whether the places can be filled in order inside `span` with ids that are not taken. The chain's first event must be
/// at the span's start itself.
fn fill<'a>(places: &[Place<'a>], span: Span, first: bool, taken: &mut Vec<&'a str>) -> bool {
    let Some((place, rest)) = places.split_first() else { return true };
    let end = if first { span.start } else { span.end };
    let mut tried: Vec<&str> = Vec::new();
    for (time, id) in place.iter().skip(place.partition_point(|(time, _)| *time < span.start)) {
        if *time > end || tried.len() == places.len() {
            break;
        }
        if taken.contains(id) || tried.contains(id) {
            continue;
        }
        tried.push(id);
        taken.push(id);
        if fill(rest, Span { start: *time, end: span.end }, false, taken) {
            return true;
        }
        taken.pop();
    }
    false
}
