//! Measures within bounds that more records can also make false: ranges of counts, sums, averages, percentiles, shares,
//! [ratios](super::ratio).
//!
//! Each window [anchor, anchor + timespan] is judged by the members that are there, unless the window before it holds all
//! of them and more: the end of every burst holds few records, and says nothing of the burst. A new member judges again
//! the windows that hold it, and the next one, which it may make a part of its own. A window that does not stand any more
//! takes its finding back: what stands at the end is a function of the set. Kept in memory: the anchors that stand.
//!
//! Of the variants of one id the first of the window counts, by time and then by content: a choice that the order of
//! arrival cannot change. Numbers are decimals ([`Decimal`]), because a sum of floats depends on their order. A batch
//! costs the members within one timespan of it; a percentile moves a sorted list for each of them.

use std::collections::{BTreeMap, HashMap, VecDeque};

use chrono::{DateTime, Utc};

use super::episode::Verdict;
use super::event_count::Weights;
use super::ratio;
use super::state::{Group, Member, MemberKey, Members};
use super::temporal::Names;
use super::value_count::Values;
use super::window::{Span, Tally, later, neighbourhoods, within};
use crate::decimal::Decimal;
use crate::rule::model::{Aggregate, Bound, Measure};

/// Millionths in one.
const MILLION: i128 = 1_000_000;

pub(super) fn judge(group: &mut Group, rule: &Aggregate, fresh: &[MemberKey]) -> Verdict {
    let mut verdict = Verdict { joined: fresh.to_vec(), ..Verdict::default() };
    for anchors in neighbourhoods(fresh, rule.timespan) {
        let next = group.members.range(MemberKey::last_at(anchors.end)..).find(|(key, _)| key.time > anchors.end);
        let anchors = Span { end: next.map_or(anchors.end, |(key, _)| key.time), ..anchors };
        for (anchor, now) in judged(&group.members, anchors, rule) {
            let before = match now {
                Some(end) => group.windows.insert(anchor, end),
                None => group.windows.remove(&anchor),
            };
            match (before, now) {
                (Some(end), None) => verdict.withdrawn.push(Span { start: anchor, end }),
                (before, Some(end)) if before != Some(end) => verdict.satisfied.push(Span { start: anchor, end }),
                _ => {}
            }
        }
    }
    verdict
}

/// Builds everything from the members: after a load.
pub(super) fn prepare(group: &mut Group, rule: &Aggregate) {
    let keys: Vec<MemberKey> = group.members.keys().copied().collect();
    judge(group, rule, &keys);
}

/// The windows that stand and whose anchors lie inside `hull`.
pub(super) fn standing(group: &Group, hull: Span) -> Vec<Span> {
    group.windows.range(hull.start..=hull.end).map(|(start, end)| Span { start: *start, end: *end }).collect()
}

/// Each anchor, and the last moment of its window if it stands.
fn judged(members: &Members, anchors: Span, rule: &Aggregate) -> Vec<(DateTime<Utc>, Option<DateTime<Utc>>)> {
    let mut judged = Vec::new();
    let mut tally = Tallied::of(&rule.measure);
    let mut last = anchors.start;
    // How far the window before reaches.
    let before = members.range(..MemberKey::first_at(anchors.start)).next_back().map(|(key, _)| key.time);
    let mut reached = before.and_then(|before| {
        let window = Span { start: before, end: later(before, rule.timespan) };
        within(members, window).next_back().map(|(key, _)| key.time)
    });
    let mut lefts = within(members, anchors).peekable();
    let mut rights = members.range(MemberKey::first_at(anchors.start)..).peekable();
    while let Some(anchor) = lefts.peek().map(|(key, _)| key.time) {
        let limit = later(anchor, rule.timespan);
        while let Some((key, member)) = rights.next_if(|(key, _)| key.time <= limit) {
            tally.push(member);
            last = key.time;
        }
        let is_whole = reached.is_none_or(|reached| reached < last);
        reached = Some(last);
        judged.push((anchor, (is_whole && tally.holds(&rule.bounds)).then_some(last)));
        while let Some((_, member)) = lefts.next_if(|(key, _)| key.time == anchor) {
            tally.pop(member);
        }
    }
    judged
}

/// What is measured, while members enter and leave the window.
enum Tallied<'a> {
    Events(Weights<'a>),
    Values(Values<'a>),
    Rules(Names<'a>),
    Numbers(Numbers<'a>, &'a Measure),
    Shares(Shares<'a>),
    Ratio(ratio::Shared<'a>),
}

impl<'a> Tallied<'a> {
    fn of(measure: &'a Measure) -> Tallied<'a> {
        match measure {
            Measure::Events => Tallied::Events(Weights::default()),
            Measure::Values => Tallied::Values(Values::default()),
            Measure::Rules => Tallied::Rules(Names::default()),
            Measure::Sum | Measure::Average | Measure::Percentile(_) => Tallied::Numbers(Numbers::default(), measure),
            Measure::Share => Tallied::Shares(Shares::default()),
            Measure::Ratio(ratio) => Tallied::Ratio(ratio::Shared::of(ratio)),
        }
    }

    fn push(&mut self, member: &'a Member) {
        match self {
            Tallied::Events(tally) => tally.push(member),
            Tallied::Values(tally) => tally.push(member),
            Tallied::Rules(tally) => tally.push(member),
            Tallied::Numbers(tally, _) => tally.push(member),
            Tallied::Shares(tally) => tally.push(member),
            Tallied::Ratio(tally) => tally.push(member),
        }
    }

    fn pop(&mut self, member: &'a Member) {
        match self {
            Tallied::Events(tally) => tally.pop(member),
            Tallied::Values(tally) => tally.pop(member),
            Tallied::Rules(tally) => tally.pop(member),
            Tallied::Numbers(tally, _) => tally.pop(member),
            Tallied::Shares(tally) => tally.pop(member),
            Tallied::Ratio(tally) => tally.pop(member),
        }
    }

    fn holds(&self, bounds: &[Bound]) -> bool {
        let count =
            |amount: u128| within_bounds(bounds, i128::try_from(amount).unwrap_or(i128::MAX / MILLION) * MILLION, 1);
        match self {
            Tallied::Events(tally) => count(tally.amount()),
            Tallied::Values(tally) => count(tally.amount()),
            Tallied::Rules(tally) => count(tally.amount()),
            Tallied::Numbers(tally, measure) => tally.holds(measure, bounds),
            Tallied::Shares(tally) => tally.holds(bounds),
            Tallied::Ratio(tally) => {
                let percent = tally.percent();
                percent.is_some_and(|(part, whole)| within_bounds(bounds, part.saturating_mul(MILLION), whole))
            }
        }
    }
}

/// Whether `amount / divisor` is within all bounds, without a division that would round.
fn within_bounds(bounds: &[Bound], amount: i128, divisor: i128) -> bool {
    bounds.iter().all(|bound| bound.comparison.holds(Some(amount.cmp(&bound.millionths.saturating_mul(divisor)))))
}

/// The members of each id, in order; the first one counts.
#[derive(Default)]
struct Counting<'a>(HashMap<&'a str, VecDeque<&'a Member>>);

impl<'a> Counting<'a> {
    /// The member, if it counts from now on.
    fn push(&mut self, member: &'a Member) -> Option<&'a Member> {
        let variants = self.0.entry(&member.event_id).or_default();
        variants.push_back(member);
        (variants.len() == 1).then_some(member)
    }

    /// The first variant leaves: the one that counts instead.
    fn pop(&mut self, member: &'a Member) -> Option<&'a Member> {
        let variants = self.0.get_mut(&*member.event_id)?;
        variants.pop_front();
        let next = variants.front().copied();
        if next.is_none() {
            self.0.remove(&*member.event_id);
        }
        next
    }
}

/// The numbers of a window.
#[derive(Default)]
struct Numbers<'a> {
    counting: Counting<'a>,
    sum: i128,
    /// In order.
    sorted: Vec<Decimal>,
}

fn numbers(member: &Member) -> impl Iterator<Item = Decimal> {
    member.values.iter().flat_map(|value| value.split(' ')).filter_map(Decimal::parse)
}

impl<'a> Numbers<'a> {
    fn push(&mut self, member: &'a Member) {
        if let Some(member) = self.counting.push(member) {
            self.enter(member);
        }
    }

    fn pop(&mut self, member: &'a Member) {
        for number in numbers(member) {
            self.sum -= number.0;
            if let Ok(at) = self.sorted.binary_search(&number) {
                self.sorted.remove(at);
            }
        }
        if let Some(next) = self.counting.pop(member) {
            self.enter(next);
        }
    }

    fn enter(&mut self, member: &Member) {
        for number in numbers(member) {
            self.sum += number.0;
            let at = self.sorted.partition_point(|known| *known <= number);
            self.sorted.insert(at, number);
        }
    }

    fn holds(&self, measure: &Measure, bounds: &[Bound]) -> bool {
        let count = self.sorted.len() as i128;
        match measure {
            _ if count == 0 => false,
            Measure::Average => within_bounds(bounds, self.sum, count),
            Measure::Percentile(percentile) => {
                // The nearest rank: the least number that so many percent of all do not exceed.
                let rank = (i128::from(*percentile) * count).div_euclid(100 * MILLION)
                    + i128::from((i128::from(*percentile) * count).rem_euclid(100 * MILLION) > 0);
                let at = usize::try_from(rank.max(1) - 1).unwrap_or(usize::MAX);
                self.sorted.get(at).is_some_and(|number| within_bounds(bounds, number.0, 1))
            }
            _ => within_bounds(bounds, self.sum, 1),
        }
    }
}

/// How often each value was seen.
#[derive(Default)]
struct Shares<'a> {
    counting: Counting<'a>,
    times: HashMap<&'a str, usize>,
    /// How many values were seen so often.
    values_by_times: BTreeMap<usize, usize>,
    all: usize,
}

impl<'a> Shares<'a> {
    fn push(&mut self, member: &'a Member) {
        if let Some(member) = self.counting.push(member) {
            member.values.iter().for_each(|value| self.change(value, true));
        }
    }

    fn pop(&mut self, member: &'a Member) {
        member.values.iter().for_each(|value| self.change(value, false));
        if let Some(next) = self.counting.pop(member) {
            next.values.iter().for_each(|value| self.change(value, true));
        }
    }

    fn change(&mut self, value: &'a str, enters: bool) {
        let before = self.times.get(value).copied().unwrap_or(0);
        let after = if enters { before + 1 } else { before.saturating_sub(1) };
        self.all = (self.all + after) - before;
        if let Some(values) = self.values_by_times.get_mut(&before) {
            *values -= 1;
            if *values == 0 {
                self.values_by_times.remove(&before);
            }
        }
        if after == 0 {
            self.times.remove(value);
        } else {
            self.times.insert(value, after);
            *self.values_by_times.entry(after).or_default() += 1;
        }
    }

    /// Whether some value's share of all is within the bounds.
    fn holds(&self, bounds: &[Bound]) -> bool {
        let percent = |times: usize| times as i128 * 100 * MILLION;
        self.values_by_times.keys().any(|times| within_bounds(bounds, percent(*times), self.all as i128))
    }
}
