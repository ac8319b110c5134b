//! `spike`: more weight in a window than the group's own history explains.
//!
//! For a window of day D (the day of its anchor) the history is the weights of the `history_days` whole UTC days before
//! D, days without records counting 0, but only from the group's first day on. With m their median and MAD the median
//! absolute deviation, a window of weight W stands if W >= floor, W > ratio * m and
//! W > m + deviations * 1.4826 * max(MAD, sqrt(m), 1). With fewer than `min_days` such days there is no history: then it
//! stands if W >= cold_floor, and the finding says so. A day's weight, like a window's, counts each event id once.
//!
//! More records may make this false as well as true. Kept in memory: the weight of each day, and the *candidates*, the
//! windows heavy enough for the lower of the two floors. A new member weighs the windows around it anew; if it changes the
//! weight of its day, the candidates of the following `history_days` are judged again; if it moves the group's first
//! day, also those whose history that lengthens. Days without candidates cost nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Days as DayCount, NaiveDate, TimeDelta, Utc};

use super::episode::Verdict;
use super::event_count::Weights;
use super::finding::Context;
use super::new_value::midnight;
use super::state::{Group, Member, MemberKey, Members};
use super::window::{Span, Tally, later, neighbourhoods, within};
use crate::rule::model::Spike;

/// Turns the median absolute deviation into the standard deviation of a normal distribution.
const DEVIATION_OF_MAD: f64 = 1.4826;

/// A group's days and its windows worth judging.
#[derive(Clone, Debug, Default)]
pub(super) struct Days {
    weights: BTreeMap<NaiveDate, Day>,
    /// By anchor.
    candidates: BTreeMap<DateTime<Utc>, Candidate>,
}

#[derive(Clone, Debug, Default)]
struct Day {
    of_id: BTreeMap<Arc<str>, u64>,
    total: u128,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    weight: u128,
    end: DateTime<Utc>,
    /// The end of the span that stands for it, if it stands.
    standing: Option<DateTime<Utc>>,
}

impl Days {
    /// The standing spans whose anchors lie inside `hull`.
    pub fn standing(&self, hull: Span) -> Vec<Span> {
        let stands = |(start, candidate): (&DateTime<Utc>, &Candidate)| {
            candidate.standing.map(|end| Span { start: *start, end })
        };
        self.candidates.range(hull.start..=hull.end).filter_map(stands).collect()
    }

    /// True if the weight of the member's day changed, or its existence.
    fn add(&mut self, time: DateTime<Utc>, member: &Member) -> bool {
        let is_new = !self.weights.contains_key(&time.date_naive());
        let day = self.weights.entry(time.date_naive()).or_default();
        let heaviest = day.of_id.entry(Arc::clone(&member.event_id)).or_default();
        let more = member.weight.saturating_sub(*heaviest);
        *heaviest += more;
        day.total += u128::from(more);
        is_new || more > 0
    }

    /// The day of the first candidate at or after the beginning of `day`.
    fn next_candidate_day(&self, day: NaiveDate) -> Option<NaiveDate> {
        self.candidates.range(midnight(day)..).next().map(|(anchor, _)| anchor.date_naive())
    }
}

/// Builds everything from the members: after a load.
pub(super) fn prepare(group: &mut Group, rule: &Spike) {
    let keys: Vec<MemberKey> = group.members.keys().copied().collect();
    judge(group, rule, &keys);
}

pub(super) fn judge(group: &mut Group, rule: &Spike, fresh: &[MemberKey]) -> Verdict {
    let Group { members, days, .. } = group;
    let first_before = days.weights.keys().next().copied();
    let mut changed_days = BTreeSet::new();
    for key in fresh {
        let Some(member) = members.get(key) else { continue };
        if days.add(key.time, member) {
            changed_days.insert(key.time.date_naive());
        }
    }
    let mut again = weigh(members, days, rule, fresh);
    for day in days_to_judge(days, rule, first_before, &changed_days) {
        let whole = Span { start: midnight(day), end: day.succ_opt().map_or(DateTime::<Utc>::MAX_UTC, midnight) };
        let of_day = days.candidates.range(whole.start..=whole.end);
        again.extend(of_day.map(|(anchor, _)| *anchor).filter(|anchor| anchor.date_naive() == day));
    }
    let mut verdict = Verdict { joined: fresh.to_vec(), ..Verdict::default() };
    let mut baselines: BTreeMap<NaiveDate, Baseline> = BTreeMap::new();
    for anchor in again {
        let day = anchor.date_naive();
        let baseline = baselines.entry(day).or_insert_with(|| Baseline::of(&days.weights, rule, day));
        let Some(candidate) = days.candidates.get_mut(&anchor) else { continue };
        let now = baseline.exceeded_by(candidate.weight, rule).then_some(candidate.end);
        match (std::mem::replace(&mut candidate.standing, now), now) {
            (None, None) => {}
            (Some(end), None) => verdict.withdrawn.push(Span { start: anchor, end }),
            (Some(before), Some(end)) if before == end => verdict.touched.push(anchor),
            (_, Some(end)) => verdict.satisfied.push(Span { start: anchor, end }),
        }
    }
    verdict
}

/// Weighs the windows that hold a fresh member; the anchors of those heavy enough for a floor.
fn weigh(members: &Members, days: &mut Days, rule: &Spike, fresh: &[MemberKey]) -> BTreeSet<DateTime<Utc>> {
    let lower_floor = u128::from(rule.floor.min(rule.cold_floor));
    let mut heavy = BTreeSet::new();
    for anchors in neighbourhoods(fresh, rule.timespan) {
        let mut weights = Weights::default();
        let mut last = anchors.start;
        let mut lefts = within(members, anchors).peekable();
        let mut rights = members.range(MemberKey::first_at(anchors.start)..).peekable();
        while let Some(anchor) = lefts.peek().map(|(key, _)| key.time) {
            let limit = later(anchor, rule.timespan);
            while let Some((key, member)) = rights.next_if(|(key, _)| key.time <= limit) {
                weights.push(member);
                last = key.time;
            }
            let weight = weights.amount();
            if weight >= lower_floor {
                let entry = days.candidates.entry(anchor);
                let candidate = entry.or_insert(Candidate { weight, end: last, standing: None });
                (candidate.weight, candidate.end) = (weight, last);
                heavy.insert(anchor);
            }
            while let Some((_, member)) = lefts.next_if(|(key, _)| key.time == anchor) {
                weights.pop(member);
            }
        }
    }
    heavy
}

/// Days with candidates whose history changed.
fn days_to_judge(
    days: &Days,
    rule: &Spike,
    first_before: Option<NaiveDate>,
    changed: &BTreeSet<NaiveDate>,
) -> BTreeSet<NaiveDate> {
    let first = days.weights.keys().next().copied();
    let moved = (first != first_before).then_some(first_before).flatten();
    let mut again = BTreeSet::new();
    for changed_day in changed.iter().copied().chain(moved) {
        let until = changed_day.checked_add_days(DayCount::new(u64::from(rule.history_days))).unwrap_or(NaiveDate::MAX);
        let mut from = changed_day.succ_opt();
        while let Some(day) = from.and_then(|from| days.next_candidate_day(from)).filter(|day| *day <= until) {
            again.insert(day);
            from = day.succ_opt();
        }
    }
    if let (Some(first), Some(moved)) = (first, moved) {
        // The history of these days now begins earlier, although none of its weights changed.
        let mut from = first.succ_opt();
        while let Some(day) = from.and_then(|from| days.next_candidate_day(from)).filter(|day| *day <= moved) {
            again.insert(day);
            from = day.succ_opt();
        }
    }
    again
}

/// What is usual before a day.
struct Baseline {
    days_known: i64,
    median: f64,
    deviation: f64,
}

impl Baseline {
    fn of(weights: &BTreeMap<NaiveDate, Day>, rule: &Spike, day: NaiveDate) -> Baseline {
        let reach = i64::from(rule.history_days);
        let age = weights.keys().next().map_or(0, |first| day.signed_duration_since(*first).num_days());
        let days_known = age.clamp(0, reach);
        let start = day.checked_sub_signed(TimeDelta::days(days_known)).unwrap_or(NaiveDate::MIN);
        let mut history: Vec<f64> = weights.range(start..day).map(|(_, day)| day.total as f64).collect();
        history.resize(usize::try_from(days_known).unwrap_or_default(), 0.0);
        let median = median(&mut history);
        let mut distances: Vec<f64> = history.iter().map(|weight| (weight - median).abs()).collect();
        Baseline { days_known, median, deviation: self::median(&mut distances) }
    }

    fn is_cold(&self, rule: &Spike) -> bool {
        self.days_known < i64::from(rule.min_days)
    }

    fn exceeded_by(&self, weight: u128, rule: &Spike) -> bool {
        if self.is_cold(rule) {
            return weight >= u128::from(rule.cold_floor);
        }
        let spread = DEVIATION_OF_MAD * self.deviation.max(self.median.sqrt()).max(1.0);
        weight >= u128::from(rule.floor)
            && weight as f64 > rule.ratio * self.median
            && weight as f64 > self.median + rule.deviations * spread
    }
}

/// The middle, or the mean of the two middles; 0 of nothing.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match (values.len() % 2, values.get(half.saturating_sub(1)), values.get(half)) {
        (0, Some(lower), Some(upper)) => (lower + upper) / 2.0,
        (_, _, Some(middle)) => *middle,
        _ => 0.0,
    }
}

/// What the findings that begin on a day rest on.
pub(super) fn context(days: &Days, rule: &Spike, day: NaiveDate) -> Context {
    let baseline = Baseline::of(&days.weights, rule, day);
    if baseline.is_cold(rule) {
        let known = baseline.days_known;
        let known = format!("{known} {} known", if known == 1 { "day" } else { "days" });
        return Context { notes: vec![format!("no history: {known}")], usual: format!("unknown ({known})") };
    }
    Context { notes: Vec::new(), usual: format!("{}", baseline.median) }
}
