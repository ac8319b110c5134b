//! `travel`: two records of one group whose places lie further apart than anybody travels in the time between them.
//!
//! A pair stands if its places are at least `distance_km` apart, what may lie around each taken off, and the time between
//! them is at most the distance over the speed, and the timespan; and if both say what else differs (another computer,
//! another program), that must differ too, where the rule asks for it: one who says nothing is not taken for another. Any
//! two records are compared, not only neighbours, so that more records can only make it truer, and none that comes late
//! turns anything.
//!
//! Cost: a record looks at the distinct places within the timespan, and in each for one moment.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::finding::Context;
use super::state::Members;
use super::window::{Span, later, within};
use crate::places::Place;
use crate::rule::model::Travel;

/// Where a record was, and what tells its computer from others.
#[derive(Clone, Copy, Debug)]
struct Stay<'a> {
    place: Place,
    differs: &'a str,
}

impl Stay<'_> {
    fn read(value: &str) -> Option<Stay<'_>> {
        let (place, differs) = value.split_once('|').unwrap_or((value, ""));
        Some(Stay { place: Place::read(place)?, differs })
    }

    /// How long somebody takes from one to the other at the rule's speed; none if they may be the same person's.
    fn time_between(self, other: Stay<'_>, travel: &Travel) -> Option<TimeDelta> {
        let may_be_one = self.differs.is_empty() || other.differs.is_empty() || self.differs == other.differs;
        let distance = self.place.least_km(other.place);
        if distance < travel.distance_km.max(1) || (travel.must_differ && may_be_one) {
            return None;
        }
        Some(TimeDelta::seconds(i64::from(distance) * 3_600 / i64::from(travel.speed_kmh.max(1))))
    }
}

pub(super) fn satisfied(members: &Members, anchors: Vec<Span>, travel: &Travel) -> Vec<Span> {
    anchors.into_iter().flat_map(|anchors| of_anchors(members, anchors, travel)).collect()
}

fn of_anchors(members: &Members, anchors: Span, travel: &Travel) -> Vec<Span> {
    let reach = Span { start: anchors.start, end: later(anchors.end, travel.timespan) };
    let mut stays: BTreeMap<&str, Vec<DateTime<Utc>>> = BTreeMap::new();
    for (key, member) in within(members, reach) {
        for value in &member.values {
            stays.entry(value).or_default().push(key.time);
        }
    }
    let stays: Vec<(Stay<'_>, Vec<DateTime<Utc>>)> =
        stays.into_iter().filter_map(|(value, times)| Some((Stay::read(value)?, times))).collect();
    let mut spans = Vec::new();
    for (from, times) in &stays {
        // The same for every record of the place.
        let others: Vec<(TimeDelta, &[DateTime<Utc>])> = stays
            .iter()
            .filter_map(|(to, times)| Some((from.time_between(*to, travel)?.min(travel.timespan), &times[..])))
            .collect();
        for anchor in times.iter().filter(|time| **time <= anchors.end) {
            let last = |(longest, times): &(TimeDelta, &[DateTime<Utc>])| {
                let until = later(*anchor, *longest);
                times[..times.partition_point(|time| *time <= until)].last().copied()
            };
            let end = others.iter().filter_map(last).filter(|time| time >= anchor).max();
            spans.extend(end.map(|end| Span { start: *anchor, end }));
        }
    }
    spans
}

/// How far apart the places are that a finding tells of.
pub(super) fn context(told: &[String]) -> Context {
    let stays: Vec<Stay<'_>> = told.iter().filter_map(|value| Stay::read(value)).collect();
    let apart = stays.iter().flat_map(|one| stays.iter().map(|other| one.place.least_km(other.place))).max();
    Context { notes: Vec::new(), usual: format!("{} km", apart.unwrap_or_default()) }
}
