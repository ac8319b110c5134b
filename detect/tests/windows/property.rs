//! Any set, any order, any batching, duplicates, restarts: what stands is what the oracle says of the set, after every
//! batch.

use std::collections::BTreeMap;

use chrono::{TimeDelta, Utc};
use detect::rule::model::{
    Absence, Aggregate, Bound, Comparison, Least, Measure, NewValue, Operator, Ratio, Rule, Sequence, Spike, Stage,
    Step, Travel,
};
use proptest::collection::vec;
use proptest::prelude::*;
use schemas::message::{Match, Observation};

use super::fixture::{Runner, base, rule};
use super::oracle;

/// One arrival.
#[derive(Clone, Debug)]
pub enum Arrival {
    Match(Box<Match>),
    Observation(Observation),
}

/// A set of arrivals in some order with some of them twice; at each one, whether a batch ends there (1) and the shard is
/// restarted (2).
#[derive(Clone, Debug)]
pub struct Story {
    pub arrivals: Vec<Arrival>,
    pub ends: Vec<u8>,
}

/// A match at a step of `grain` seconds. Few ids, so that variants (one id, another content or time) are common.
fn a_match(steps: i64, grain: i64) -> impl Strategy<Value = Match> {
    let place = (0..steps, 0..7_u8, 0..2_u64, 0..2_u8, 0..3_u8);
    let payload = (vec(0..4_u8, 0..3), 0..4_u64, vec(0..4_u8, 0..2), vec(0..14_u8, 0..4), any::<bool>());
    (place, payload).prop_map(move |((step, id, content, group, member), (values, weight, users, ips, notify))| {
        let texts = |prefix: &str, numbers: Vec<u8>| numbers.iter().map(|n| format!("{prefix}{n}")).collect::<Vec<_>>();
        let mut values = texts("v", values);
        values.dedup();
        Match {
            tenant: "contoso".parse().unwrap(),
            rule_id: "rule".to_owned(),
            epoch: 1,
            member: format!("m{member}"),
            shard: "shard".to_owned(),
            group: vec![format!("g{group}")],
            within: Vec::new(),
            event_id: format!("e{id}"),
            content,
            event_time: base() + TimeDelta::seconds(step * grain),
            received: base() + TimeDelta::seconds(step * grain + 60 * i64::from(id)),
            notify,
            values,
            weight,
            fields: BTreeMap::from([("user".to_owned(), texts("u", users)), ("ip".to_owned(), texts("i", ips))]),
        }
    })
}

fn an_observation() -> impl Strategy<Value = Observation> {
    (0..4_u8, -4..10_i64).prop_map(|(value, day)| Observation {
        tenant: "contoso".parse().unwrap(),
        rule_id: "rule".to_owned(),
        epoch: 1,
        shard: "shard".to_owned(),
        value: format!("v{value}"),
        day: base().date_naive() + TimeDelta::days(day),
    })
}

/// What tells a member from others; a record's payload is a function of it.
pub fn key(one: &Match) -> (chrono::DateTime<Utc>, String, u64, String, Vec<String>) {
    (one.event_time, one.event_id.clone(), one.content, one.member.clone(), one.group.clone())
}

pub fn a_story(steps: i64, grain: i64, observations: usize) -> impl Strategy<Value = Story> {
    let set = (vec(a_match(steps, grain), 0..24), vec(an_observation(), 0..=observations));
    set.prop_flat_map(|(matches, observations)| {
        let matches: BTreeMap<_, Match> = matches.into_iter().map(|one| (key(&one), one)).collect();
        let mut arrivals: Vec<Arrival> = matches.into_values().map(|one| Arrival::Match(Box::new(one))).collect();
        arrivals.extend(observations.into_iter().map(Arrival::Observation));
        let twice: Vec<Arrival> = arrivals.iter().step_by(3).cloned().collect();
        arrivals.extend(twice);
        let ends = vec(0..3_u8, arrivals.len());
        (Just(arrivals).prop_shuffle(), ends).prop_map(|(arrivals, ends)| Story { arrivals, ends })
    })
}

/// What is not decided yet does not stand: that of which not all is there, of all that was ever said to be whole.
pub fn decided(absence: &Absence, whole: &[(chrono::DateTime<Utc>, chrono::DateTime<Utc>)], all: &mut Vec<Match>) {
    let mut told: Vec<_> = whole.iter().filter(|(since, until)| since <= until).collect();
    told.sort_unstable();
    all.retain(|one| {
        // As far as one goes on from the stretches before it.
        let mut until = None;
        for stretch in told.iter().filter(|stretch| stretch.0 <= one.event_time) {
            until = until.max(Some(stretch.1));
        }
        for stretch in &told {
            until = until.map(|until| if stretch.0 <= until { stretch.1.max(until) } else { until });
        }
        let is_decided = until.is_some_and(|until| one.event_time + absence.timespan <= until);
        is_decided || absence.expect.contains(&one.member)
    });
}

/// A sequence whose first rule shares, and m1 with it now and then; m2 never does.
pub fn sharing(others: &[(u8, i64)], two_share: bool, with_pauses: bool, mut story: Story) -> (Vec<Step>, Story) {
    let pause = |minutes: i64| TimeDelta::minutes(if with_pauses { minutes } else { 0 });
    let same = |name: u8| (name == 0 || two_share && name == 1).then_some("session");
    let names = [(0, 1)].iter().chain(others);
    let steps = names.map(|(name, minutes)| a_step(&format!("m{name}"), same(*name), pause(*minutes))).collect();
    for arrival in &mut story.arrivals {
        let Arrival::Match(one) = arrival else { continue };
        // As the matcher gives them: values where they are asked for, and only there.
        let shares = same(one.member[1..].parse().unwrap()).is_some();
        one.values = match (shares, one.values.is_empty()) {
            (false, _) => vec![],
            (true, true) => vec!["v0".to_owned()],
            (true, false) => std::mem::take(&mut one.values),
        };
    }
    (steps, story)
}

fn check(operator: Operator, gap: TimeDelta, story: &Story) {
    check_rule(rule(operator, gap), story);
}

fn check_rule(rule: Rule, story: &Story) {
    check_with(rule, story, |_, _| ());
}

/// `prepare` is called before each batch, with all matches so far; the oracle is asked of what it leaves.
fn check_with(rule: Rule, story: &Story, mut prepare: impl FnMut(&mut Runner, &mut Vec<Match>)) {
    let mut runner = Runner::new(rule);
    let (mut matches, mut observations) = (Vec::new(), Vec::new());
    let (mut all_matches, mut all_observations) = (Vec::new(), Vec::new());
    let last = story.arrivals.len().saturating_sub(1);
    for (at, (arrival, end)) in story.arrivals.iter().zip(&story.ends).enumerate() {
        match arrival {
            Arrival::Match(one) => matches.push((**one).clone()),
            Arrival::Observation(seen) => observations.push(seen.clone()),
        }
        if *end == 0 && at < last {
            continue;
        }
        all_matches.extend(matches.iter().cloned());
        let mut judged = all_matches.clone();
        prepare(&mut runner, &mut judged);
        runner.apply(&matches, &observations);
        matches.clear();
        all_observations.append(&mut observations);
        let expected = oracle::standing(&runner.rule, &judged, &all_observations);
        let actual: Vec<_> = runner.standing().into_iter().map(oracle::of_finding).collect();
        assert_eq!(actual, expected);
        if *end == 2 {
            runner.restart();
        }
    }
}

/// A correlation of correlations: `top` over `a`, over `b/a` and over a rule of its own, each stage in groups of its own.
pub fn chain_of(top: Operator, stages: [Operator; 3], gap: TimeDelta, story: &Story) -> (Rule, Story) {
    let names = ["a", "b/a", "b"];
    let exposes = [vec![1], vec![0], vec![0]];
    let stages = names.into_iter().zip(stages).zip(exposes);
    let stages = stages.map(|((name, operator), exposes)| Stage { name: name.to_owned(), operator, exposes }).collect();
    let mut story = story.clone();
    for arrival in &mut story.arrivals {
        let Arrival::Match(one) = arrival else { continue };
        // Which way a record comes, and its groups there, are functions of what tells it from others.
        let way = (one.content + u64::from(one.member.ends_with('1')) + one.event_id.len() as u64) % 2;
        let digit = one.event_id[1..].parse::<u64>().unwrap();
        let group = one.group[0].clone();
        let key = |number: u64| vec![group.clone(), format!("k{}", number % 2)];
        (one.member, one.within) = match (digit + way) % 4 {
            0 => (one.member.clone(), vec![]),
            1 => (format!("a/{}", one.member), vec![key(digit / 2)]),
            2 => (format!("b/{}", one.member), vec![vec![group.clone()]]),
            _ => (format!("b/a/{}", one.member), vec![vec![group.clone()], key(digit)]),
        };
    }
    let mut rule = rule(top, gap);
    rule.stages = stages;
    (rule, story)
}

/// Values that a measure can be taken of.
pub fn measured(measure: &Measure, mut story: Story) -> Story {
    if matches!(measure, Measure::Sum | Measure::Average | Measure::Percentile(_)) {
        for arrival in &mut story.arrivals {
            if let Arrival::Match(one) = arrival {
                let numbers: Vec<String> = one.values.iter().map(|value| format!("{}.5", &value[1..])).collect();
                one.values = if numbers.is_empty() { vec!["-2".to_owned()] } else { vec![numbers.join(" ")] };
            }
        }
    }
    story
}

pub fn a_measure() -> impl Strategy<Value = Measure> {
    prop_oneof![
        Just(Measure::Events),
        Just(Measure::Values),
        Just(Measure::Rules),
        Just(Measure::Sum),
        Just(Measure::Average),
        Just(Measure::Share),
        a_ratio(),
        (1..=100_i64).prop_map(|p| Measure::Percentile(p * 1_000_000)),
    ]
}

fn a_ratio() -> impl Strategy<Value = Measure> {
    let of = prop_oneof![Just(vec!["m0".to_owned()]), Just(vec!["m1".to_owned()])];
    (of, 1..4_u64).prop_map(|(of, floor)| Measure::Ratio(Ratio { of, floor }))
}

pub fn aggregate_of(measure: &Measure, bounds: &[(usize, i128)], timespan: TimeDelta) -> Operator {
    use Comparison::*;
    let comparisons = [Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual];
    let scale = if matches!(measure, Measure::Share | Measure::Ratio(_)) { 10_000_000 } else { 500_000 };
    let bound = |(at, number): &(usize, i128)| Bound { comparison: comparisons[*at], millionths: number * scale };
    Operator::Aggregate(Aggregate { measure: measure.clone(), bounds: bounds.iter().map(bound).collect(), timespan })
}

/// Places along the equator, some 1,110 km apart, of two computers and one that is not told.
pub fn placed(mut story: Story) -> Story {
    let place = |value: &String| {
        let number: u8 = value[1..].parse().unwrap();
        let computer = ["", "a", "b"][usize::from(number % 3)];
        format!("0.0000 {}.0000 {}|{computer}", 10 * (number % 3), 100 * (number / 2))
    };
    for arrival in &mut story.arrivals {
        let Arrival::Match(one) = arrival else { continue };
        one.values = vec![place(one.values.first().unwrap_or(&"v0".to_owned()))];
    }
    story
}

fn minutes() -> impl Strategy<Value = TimeDelta> {
    (0..8_i64).prop_map(TimeDelta::minutes)
}

/// An operator that others can rest on.
pub fn a_growing_operator(names: &'static [&'static str], minutes: i64) -> impl Strategy<Value = Operator> {
    ((0..minutes).prop_map(TimeDelta::minutes), 1..4_usize, 0..4_u8).prop_map(|(timespan, number, kind)| match kind {
        0 => Operator::EventCount { at_least: number as u64, timespan },
        1 => Operator::ValueCount { at_least: (number as u64).min(2), timespan },
        2 => Operator::Temporal { at_least: number.min(2), timespan },
        _ => {
            // A pause after the first of three now and then.
            let pause = TimeDelta::minutes(i64::from(number == 3 && timespan.num_minutes() % 2 == 0));
            let steps = names.iter().take(number).enumerate();
            let steps = steps.map(|(at, name)| a_step(name, None, if at == 0 { pause } else { TimeDelta::zero() }));
            Operator::TemporalOrdered(Sequence { steps: steps.collect(), timespan })
        }
    })
}

pub fn a_step(rule: &str, same: Option<&str>, pause: TimeDelta) -> Step {
    Step { rule: rule.to_owned(), same: same.map(str::to_owned), pause }
}

pub const MINUTES: i64 = 60;
const HOURS: i64 = 3600;

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn each(story in a_story(30, MINUTES, 2), gap in minutes()) {
        check(Operator::Each, gap, &story);
    }

    #[test]
    fn event_count(story in a_story(30, MINUTES, 0), gap in minutes(), timespan in minutes(), at_least in 0..9_u64) {
        check(Operator::EventCount { at_least, timespan }, gap, &story);
    }

    #[test]
    fn value_count(story in a_story(30, MINUTES, 0), gap in minutes(), timespan in minutes(), at_least in 1..5_u64) {
        check(Operator::ValueCount { at_least, timespan }, gap, &story);
    }

    #[test]
    fn temporal(story in a_story(30, MINUTES, 0), gap in minutes(), timespan in minutes(), at_least in 1..4_usize) {
        check(Operator::Temporal { at_least, timespan }, gap, &story);
    }

    #[test]
    fn temporal_ordered(
        // Crowded ones too: there one event fits several places.
        story in (2..14_i64).prop_flat_map(|steps| a_story(steps, MINUTES, 0)),
        gap in minutes(),
        timespan in minutes(),
        names in vec((0..3_u8, 0..4_i64), 1..5),
        with_pauses in any::<bool>(),
    ) {
        let pause = |minutes: i64| TimeDelta::minutes(if with_pauses { minutes } else { 0 });
        let steps = names.iter().map(|(name, minutes)| a_step(&format!("m{name}"), None, pause(*minutes))).collect();
        check(Operator::TemporalOrdered(Sequence { steps, timespan }), gap, &story);
    }

    #[test]
    fn temporal_ordered_with_the_same_value(
        story in (2..30_i64).prop_flat_map(|steps| a_story(steps, MINUTES, 0)),
        gap in minutes(),
        timespan in (0..14_i64).prop_map(TimeDelta::minutes),
        others in vec((0..3_u8, 0..4_i64), 1..4),
        two_share in any::<bool>(),
        with_pauses in any::<bool>(),
    ) {
        let (steps, story) = sharing(&others, two_share, with_pauses, story);
        check(Operator::TemporalOrdered(Sequence { steps, timespan }), gap, &story);
    }

    #[test]
    fn aggregate(
        story in a_story(30, MINUTES, 0),
        gap in minutes(),
        timespan in minutes(),
        measure in a_measure(),
        bounds in vec((0..6_usize, 0..12_i128), 1..3),
    ) {
        check(aggregate_of(&measure, &bounds, timespan), gap, &measured(&measure, story));
    }

    #[test]
    fn absence(
        story in a_story(30, MINUTES, 0),
        gap in minutes(),
        (timespan, delay) in (minutes(), minutes()),
        expect in prop::sample::select(vec![vec!["m0"], vec!["m1"], vec!["m0", "m2"]]),
        marks in vec((prop::option::of(0..60_i64), prop::option::weighted(0.2, (0..60_i64, 0..40_i64))), 60),
        since in prop::option::of(0..40_i64),
    ) {
        let expect = expect.into_iter().map(str::to_owned).collect();
        let absence = Absence { expect, timespan, delay };
        let rule = rule(Operator::Absence(absence.clone()), gap);
        let at = |minutes| base() + TimeDelta::minutes(minutes);
        let mut marks = marks.into_iter();
        let mut whole = Vec::new();
        check_with(rule, &story, |runner, all| {
            let (complete, imported) = marks.next().unwrap_or_default();
            (runner.since, runner.complete) = (since.map(at), complete.map(at));
            runner.imported = imported.iter().map(|(from, length)| (at(*from), at(from + length))).collect();
            whole.extend(runner.whole());
            decided(&absence, &whole, all);
        });
    }

    #[test]
    fn chain(
        story in (2..30_i64).prop_flat_map(|steps| a_story(steps, MINUTES, 0)),
        gap in minutes(),
        top in a_growing_operator(&["m0", "a", "b"], 8),
        inner in (
            a_growing_operator(&["m0", "m1"], 8),
            a_growing_operator(&["m2", "m1"], 8),
            a_growing_operator(&["a", "m1", "a"], 8),
        ),
    ) {
        let (a, b_a, b) = inner;
        let (rule, story) = chain_of(top, [a, b_a, b], gap, &story);
        check_rule(rule, &story);
    }

    #[test]
    fn new_value(
        story in a_story(40, 6 * HOURS, 16),
        gap in minutes(),
        (history_days, known_after_days) in (0..8_u32, 1..4_u32),
        (min_days, min_days_seen) in (0..4_u32, 0..4_u32),
        long_gap in any::<bool>(),
        least in prop::option::of((1..4_u32, prop::sample::select(vec![vec![], vec!["m0".to_owned()]]))),
    ) {
        let gap = if long_gap { gap * 600 } else { gap };
        let least = least.map(|(events, of)| Least { events, of });
        let new = NewValue { history_days, known_after_days, min_days, min_days_seen, least };
        check(Operator::NewValue(new), gap, &story);
    }

    #[test]
    fn travel(
        story in a_story(40, 10 * MINUTES, 0),
        gap in minutes(),
        (hours, speed_kmh, distance_km) in (0..8_i64, 1..5_u32, 0..4_u32),
        must_differ in any::<bool>(),
    ) {
        let travel = Travel {
            timespan: TimeDelta::hours(hours),
            speed_kmh: speed_kmh * 400,
            distance_km: distance_km * 500,
            must_differ,
        };
        check(Operator::Travel(travel), gap * 20, &placed(story));
    }

    #[test]
    fn outside(story in a_story(30, MINUTES, 6), gap in minutes()) {
        check(Operator::Outside, gap, &story);
    }

    #[test]
    fn spike(
        story in a_story(60, 6 * HOURS, 0),
        gap in minutes(),
        timespan in 0..30_i64,
        (floor, cold_floor, history_days, min_days) in (0..6_u64, 0..6_u64, 0..9_u32, 0..5_u32),
        (ratio, deviations) in (0..4_u8, 0..3_u8),
    ) {
        let timespan = TimeDelta::hours(timespan);
        let (ratio, deviations) = (f64::from(ratio) / 2.0, f64::from(deviations) / 2.0);
        let spike = Spike { timespan, floor, ratio, deviations, history_days, min_days, cold_floor };
        check(Operator::Spike(spike), gap * 60, &story);
    }
}

/// `PROPTEST_CASES` asks for more.
pub fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(192)
}
