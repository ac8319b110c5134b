//! `new_value`: a value that the group has not shown on any earlier day within the history.
//!
//! Day-resolved, and only days before the match's own day count: two records of one day can then arrive in any order.
//! A match of day D stands if the group is warm (the first sighting of anything lies at least `min_days` before D, and
//! there were sightings on at least `min_days_seen` distinct days before D) and at least one of its values was not seen
//! on any of the days D - `history_days` .. D - `known_after_days`. Only observations teach; the match itself does not.
//! A group that is cold is silent; with `min_days` and `min_days_seen` of 0 none is.
//!
//! A late sighting of value v on day d judges the matches again that look at v on d + `known_after_days` .. d +
//! `history_days`; a late sighting on a day that had none also judges all later matches, because it may warm the group up.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Days, NaiveDate, NaiveTime, Utc};

use super::finding::Context;
use super::state::{GroupId, Groups, Member, MemberKey, Sightings};
use super::triggers::{self, Judged, Judgement, Learnt, Triggers, unseen};
use super::window::Span;
use crate::rule::model::NewValue;

pub(super) fn prepare(groups: &mut Groups, sightings: &Sightings, rule: &NewValue) {
    triggers::prepare(groups, |key, member| judgement(sightings, rule, key, member));
}

pub(super) fn judge(
    groups: &mut Groups,
    (sightings, triggers): (&Sightings, &Triggers),
    rule: &NewValue,
    arrivals: &BTreeMap<GroupId, Vec<MemberKey>>,
    learnt: &Learnt,
) -> Judged {
    let mut again: BTreeSet<(GroupId, MemberKey)> = BTreeSet::new();
    for (value, day) in &learnt.sightings {
        again.extend(triggers.looking_at(*value, days(*day, rule.known_after_days, rule.history_days)));
    }
    if let Some(day) = learnt.days.first() {
        let from = MemberKey::first_at(days(*day, 1, 1).start);
        for (id, group) in groups.iter() {
            again.extend(group.members.range(from..).map(|(key, _)| (*id, *key)));
        }
    }
    triggers::judge(groups, arrivals, again, |key, member| judgement(sightings, rule, key, member))
}

fn judgement(sightings: &Sightings, rule: &NewValue, key: &MemberKey, member: &Member) -> Judgement {
    let day = key.time.date_naive();
    let before = |days: u32| day.checked_sub_days(Days::new(u64::from(days))).unwrap_or(NaiveDate::MIN);
    let history = before(rule.history_days)..=before(rule.known_after_days);
    let known = |value| {
        // A history of no days is an empty one.
        let seen = |days: &BTreeSet<NaiveDate>| !history.is_empty() && days.range(history.clone()).next().is_some();
        sightings.days_of.get(&value).is_some_and(seen)
    };
    let new = unseen(member, known);
    if new.is_empty() {
        return Judgement::Settled;
    }
    if warm(sightings, rule, day) { Judgement::Stands(new) } else { Judgement::Waits }
}

fn warm(sightings: &Sightings, rule: &NewValue, day: NaiveDate) -> bool {
    let enough = |first: &NaiveDate| day.signed_duration_since(*first).num_days() >= i64::from(rule.min_days);
    // Days on or after the match's own do not count, the first sighting's included.
    let old_enough = rule.min_days == 0 || sightings.days.range(..day).next().is_some_and(enough);
    let wanted = rule.min_days_seen as usize;
    old_enough && sightings.days.range(..day).take(wanted).count() >= wanted
}

/// What the findings of a day rest on.
pub(super) fn context(sightings: &Sightings, day: NaiveDate) -> Context {
    let known = sightings.days.range(..day).count();
    let usual = format!("{known} {}", if known == 1 { "day" } else { "days" });
    let note = match sightings.days.range(..day).next() {
        Some(first) => format!("seen on {usual} since {first} before this"),
        None => "no history: 0 days known".to_owned(),
    };
    Context { notes: vec![note], usual }
}

/// The whole days `day + first ..= day + last`; an empty span if there are none.
fn days(day: NaiveDate, first: u32, last: u32) -> Span {
    let start = day.checked_add_days(Days::new(u64::from(first))).unwrap_or(NaiveDate::MAX);
    let end = day.checked_add_days(Days::new(u64::from(last) + 1)).map(midnight);
    let start = midnight(start);
    Span { start, end: end.unwrap_or(DateTime::<Utc>::MAX_UTC).max(start) }
}

pub(super) fn midnight(day: NaiveDate) -> DateTime<Utc> {
    day.and_time(NaiveTime::MIN).and_utc()
}
