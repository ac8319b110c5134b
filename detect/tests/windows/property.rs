//! Any set, any order, any batching, duplicates, restarts: what stands is what the oracle says of the set, after every
//! batch.

use std::collections::BTreeMap;

use chrono::{TimeDelta, Utc};
use detect::rule::model::{NewValue, Operator, Spike};
use proptest::collection::vec;
use proptest::prelude::*;
use schemas::message::{Match, Observation};

use super::fixture::{Runner, base, rule};
use super::oracle;

/// One arrival.
#[derive(Clone, Debug)]
enum Arrival {
    Match(Box<Match>),
    Observation(Observation),
}

/// A set of arrivals in some order with some of them twice; at each one, whether a batch ends there (1) and the shard is
/// restarted (2).
#[derive(Clone, Debug)]
struct Story {
    arrivals: Vec<Arrival>,
    ends: Vec<u8>,
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
fn key(one: &Match) -> (chrono::DateTime<Utc>, String, u64, String, Vec<String>) {
    (one.event_time, one.event_id.clone(), one.content, one.member.clone(), one.group.clone())
}

fn a_story(steps: i64, grain: i64, observations: usize) -> impl Strategy<Value = Story> {
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

fn check(operator: Operator, gap: TimeDelta, story: &Story) {
    let mut runner = Runner::new(rule(operator, gap));
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
        runner.apply(&matches, &observations);
        all_matches.append(&mut matches);
        all_observations.append(&mut observations);
        let expected = oracle::standing(&runner.rule, &all_matches, &all_observations);
        let actual: Vec<_> = runner.standing().into_iter().map(oracle::of_finding).collect();
        assert_eq!(actual, expected);
        if *end == 2 {
            runner.restart();
        }
    }
}

fn minutes() -> impl Strategy<Value = TimeDelta> {
    (0..8_i64).prop_map(TimeDelta::minutes)
}

const MINUTES: i64 = 60;
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
        names in vec(0..3_u8, 1..5),
    ) {
        let members = names.iter().map(|name| format!("m{name}")).collect();
        check(Operator::TemporalOrdered { members, timespan }, gap, &story);
    }

    #[test]
    fn new_value(
        story in a_story(40, 6 * HOURS, 16),
        gap in minutes(),
        (history_days, min_days, min_days_seen) in (0..8_u32, 0..4_u32, 0..4_u32),
        long_gap in any::<bool>(),
    ) {
        let gap = if long_gap { gap * 600 } else { gap };
        check(Operator::NewValue(NewValue { history_days, min_days, min_days_seen }), gap, &story);
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
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(192)
}
