//! Forgetting at any moment, by any horizon, and an archive that is behind or ahead: what stands is what the oracle says
//! of the whole set.
//!
//! Each property has its negative controls: without the archive, or with only what lies near a late match, it must fail.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use detect::correlate::{Past, Shard};
use detect::rule::model::{Absence, NewValue, Operator, Rule, Sequence, Travel};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use schemas::message::{Match, Observation};

use super::fixture::{Runner, Thaw, base, rule};
use super::oracle;
use super::property::{
    Arrival, MINUTES, Story, a_growing_operator, a_measure, a_step, a_story, aggregate_of, cases, chain_of, decided,
    measured, placed, sharing,
};

/// What happens after a batch.
#[derive(Clone, Copy)]
struct Moment {
    forgets: bool,
    /// Or the horizon is moved, because another shard of the rule forgets.
    moves: bool,
    /// It forgets alone, because it is large.
    early: bool,
    /// Where the horizon is moved, in steps of the story; it never goes back.
    horizon: i64,
    /// How many of the newest arrivals the archive does not have yet.
    behind: usize,
    /// How far the set is said to be complete, in steps of the story: what waits for that is decided.
    complete: Option<i64>,
    /// A stretch that was imported whole, and its length.
    imported: Option<(i64, i64)>,
}

impl std::fmt::Debug for Moment {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.forgets {
            true if self.early => write!(out, "alone before +{}m, archive {} behind", self.horizon, self.behind)?,
            true => write!(out, "forgets before +{}m, archive {} behind", self.horizon, self.behind)?,
            false if self.moves => write!(out, "horizon +{}m, archive {} behind", self.horizon, self.behind)?,
            false => write!(out, "-")?,
        }
        self.complete.iter().try_for_each(|steps| write!(out, ", complete +{steps}m"))?;
        self.imported.iter().try_for_each(|(from, length)| write!(out, ", imported +{from}m..+{}m", from + length))
    }
}

/// When a story is forgotten.
#[derive(Clone, Debug)]
struct Forgetting {
    moments: Vec<Moment>,
    /// Whether the archive has everything before the first match comes.
    ahead: bool,
    /// Whether matches come as they do: in the order of their times, but for some that are late by tens of minutes; and
    /// the horizon lies a little behind the newest. Otherwise all orders and horizons are alike.
    follows: bool,
    /// How late each is then, in minutes.
    delays: Vec<i64>,
    /// From when on feeds were collected, in steps of the story.
    since: Option<i64>,
}

impl Forgetting {
    fn ordered(&self, mut story: Story) -> Story {
        if self.follows {
            let delays = self.delays.iter().cycle().map(|minutes| TimeDelta::minutes(*minutes));
            let mut arrivals: Vec<_> = story.arrivals.into_iter().zip(delays).collect();
            arrivals.sort_by_key(|(arrival, delay)| matched(arrival).event_time + *delay);
            story.arrivals = arrivals.into_iter().map(|(arrival, _)| arrival).collect();
        }
        story
    }

    fn horizon(&self, moment: Moment, arrived: &[Match]) -> Option<DateTime<Utc>> {
        if !self.follows {
            return Some(base() + TimeDelta::seconds(moment.horizon * MINUTES));
        }
        let newest = arrived.iter().map(|one| one.event_time).max()?;
        Some(newest - TimeDelta::minutes(moment.horizon % 8))
    }
}

fn a_forgetting(steps: i64) -> impl Strategy<Value = Forgetting> {
    let imported = prop::option::weighted(0.2, (0..steps + 20, 0..steps));
    let moves = (any::<bool>(), any::<bool>());
    let moment = (any::<bool>(), moves, 0..steps + 20, 0..4_usize, prop::option::of(0..steps + 20), imported);
    let moment = moment.prop_map(|(forgets, (moves, early), horizon, behind, complete, imported)| Moment {
        forgets,
        moves,
        early,
        horizon,
        behind,
        complete,
        imported,
    });
    let delay = prop_oneof![3 => Just(0_i64), 1 => 5..60_i64];
    (vec(moment, 40), any::<bool>(), any::<bool>(), vec(delay, 40), prop::option::of(0..steps))
        .prop_map(|(moments, ahead, follows, delays, since)| Forgetting { moments, ahead, follows, delays, since })
}

/// Plays a story; how many rows were forgotten, and how often the archive was asked.
fn play(rule: Rule, story: &Story, forgetting: &Forgetting, thaw: Thaw) -> (usize, usize) {
    let mut runner = Runner::new(rule);
    runner.thaw = thaw;
    let story = &forgetting.ordered(story.clone());
    let arrivals: Vec<Match> = story.arrivals.iter().map(matched).collect();
    if forgetting.ahead {
        runner.archive = once_each(&arrivals);
    }
    let (mut applied, mut archived, mut forgotten, mut whole) = (0, 0, 0, Vec::new());
    let step = |steps| base() + TimeDelta::seconds(steps * MINUTES);
    runner.since = forgetting.since.map(step);
    for (at, end) in story.ends.iter().enumerate() {
        if *end == 0 && at + 1 < arrivals.len() {
            continue;
        }
        let moment = forgetting.moments[at % forgetting.moments.len()];
        runner.complete = moment.complete.map(step);
        runner.imported = moment.imported.iter().map(|(from, length)| (step(*from), step(from + length))).collect();
        whole.extend(runner.whole());
        runner.apply(&arrivals[applied..=at], &[]);
        applied = at + 1;
        if !forgetting.ahead {
            check(&runner, &arrivals[..applied], &whole);
        }
        if *end == 2 {
            runner.restart();
        }
        if moment.forgets || moment.moves {
            archived = archived.max(applied.saturating_sub(moment.behind));
            if !forgetting.ahead {
                runner.archive = once_each(&arrivals[..archived]);
            }
            let horizon = forgetting.horizon(moment, &arrivals[..applied]);
            let kept = rows_of(&runner.rule, &arrivals[archived..applied]);
            let is_kept = |row: &[u8]| !forgetting.ahead && kept.contains(row);
            if let (Some(horizon), true, true) = (horizon, moment.forgets, moment.early) {
                forgotten += runner.forget_early(horizon, is_kept);
                continue;
            }
            runner.horizon = runner.horizon.max(horizon);
            if moment.forgets {
                forgotten += runner.forget(is_kept);
            }
        }
    }
    check(&runner, &arrivals, &whole);
    (forgotten, runner.thaws)
}

fn matched(arrival: &Arrival) -> Match {
    match arrival {
        Arrival::Match(one) => (**one).clone(),
        Arrival::Observation(_) => panic!("a story without observations"),
    }
}

fn check(runner: &Runner, arrived: &[Match], whole: &[(DateTime<Utc>, DateTime<Utc>)]) {
    let actual: Vec<_> = runner.standing().into_iter().map(oracle::of_finding).collect();
    let mut arrived = arrived.to_vec();
    if let Operator::Absence(absence) = &runner.rule.operator {
        decided(absence, whole, &mut arrived);
    }
    let expected = oracle::standing(&runner.rule, &arrived, &[]);
    let (more, less): (Vec<_>, Vec<_>) = (
        actual.iter().filter(|one| !expected.contains(one)).collect(),
        expected.iter().filter(|one| !actual.contains(one)).collect(),
    );
    assert_eq!((more, less), (vec![], vec![]), "what stands and should not, and the other way round");
}

/// The archive has a record once.
fn once_each(arrivals: &[Match]) -> Vec<Match> {
    let mut archive: Vec<Match> = Vec::new();
    for one in arrivals {
        if !archive.contains(one) {
            archive.push(one.clone());
        }
    }
    archive
}

/// The rows of their members.
fn rows_of(rule: &Rule, matches: &[Match]) -> BTreeSet<Vec<u8>> {
    let rows = Shard::default().apply(rule, matches, &[]).rows;
    rows.into_iter().map(|(row, _)| row).filter(|row| row[0] == b'm').collect()
}

/// A rule, a story and when it is forgotten.
type Case = (Rule, Story, Forgetting);

const STEPS: i64 = 60;

fn few_minutes() -> impl Strategy<Value = TimeDelta> {
    (0..4_i64).prop_map(TimeDelta::minutes)
}

fn a_case<O: Strategy<Value = Operator>>(operator: O) -> impl Strategy<Value = Case> {
    let parts = (operator, few_minutes(), a_story(STEPS, MINUTES, 0), a_forgetting(STEPS));
    parts.prop_map(|(operator, gap, story, forgetting)| (rule(operator, gap), story, forgetting))
}

fn each() -> impl Strategy<Value = Case> {
    a_case(Just(Operator::Each))
}

fn event_count() -> impl Strategy<Value = Case> {
    let operator = (0..7_u64, few_minutes());
    a_case(operator.prop_map(|(at_least, timespan)| Operator::EventCount { at_least, timespan }))
}

fn value_count() -> impl Strategy<Value = Case> {
    let operator = (1..4_u64, few_minutes());
    a_case(operator.prop_map(|(at_least, timespan)| Operator::ValueCount { at_least, timespan }))
}

fn temporal() -> impl Strategy<Value = Case> {
    let operator = (1..4_usize, few_minutes());
    a_case(operator.prop_map(|(at_least, timespan)| Operator::Temporal { at_least, timespan }))
}

fn temporal_ordered() -> impl Strategy<Value = Case> {
    let operator = (vec(0..3_u8, 1..4), few_minutes());
    a_case(operator.prop_map(|(names, timespan)| {
        let steps = names.iter().map(|name| a_step(&format!("m{name}"), None, TimeDelta::zero())).collect();
        Operator::TemporalOrdered(Sequence { steps, timespan })
    }))
}

fn absence() -> impl Strategy<Value = Case> {
    let expect = prop::sample::select(vec![vec!["m0"], vec!["m1"], vec!["m0", "m2"]]);
    let operator = (expect, few_minutes(), few_minutes()).prop_map(|(expect, timespan, delay)| {
        let expect = expect.into_iter().map(str::to_owned).collect();
        Operator::Absence(Absence { expect, timespan, delay })
    });
    a_case(operator)
}

fn same() -> impl Strategy<Value = Case> {
    let parts = (vec((0..3_u8, 0..4_i64), 1..4), any::<bool>(), any::<bool>(), few_minutes());
    // Wide gaps, so that many episodes reach beyond what is near.
    let gap = (2..9_i64).prop_map(TimeDelta::minutes);
    let parts = (parts, gap, a_story(STEPS, MINUTES, 0), a_forgetting(STEPS));
    parts.prop_map(|((others, two_share, with_pauses, timespan), gap, story, forgetting)| {
        let (steps, story) = sharing(&others, two_share, with_pauses, story);
        (rule(Operator::TemporalOrdered(Sequence { steps, timespan }), gap), story, forgetting)
    })
}

fn travel() -> impl Strategy<Value = Case> {
    let operator = (few_minutes(), 1..4_u32, any::<bool>());
    let operator = operator.prop_map(|(timespan, distance, must_differ)| {
        Operator::Travel(Travel { timespan, speed_kmh: 60_000, distance_km: distance * 500, must_differ })
    });
    a_case(operator).prop_map(|(rule, story, forgetting)| (rule, placed(story), forgetting))
}

fn aggregate() -> impl Strategy<Value = Case> {
    let parts = (a_measure(), vec((0..6_usize, 0..12_i128), 1..3), few_minutes());
    let parts = (parts, few_minutes(), a_story(STEPS, MINUTES, 0), a_forgetting(STEPS));
    parts.prop_map(|((measure, bounds, timespan), gap, story, forgetting)| {
        (rule(aggregate_of(&measure, &bounds, timespan), gap), measured(&measure, story), forgetting)
    })
}

fn chain() -> impl Strategy<Value = Case> {
    let inner = (
        a_growing_operator(&["m0", "m1"], 3),
        a_growing_operator(&["m2", "m1"], 3),
        a_growing_operator(&["a", "m1", "a"], 3),
    );
    let parts = (a_growing_operator(&["m0", "a", "b"], 3), inner, few_minutes(), a_story(STEPS, MINUTES, 0));
    (parts, a_forgetting(STEPS)).prop_map(|((top, (a, b_a, b), gap, story), forgetting)| {
        let (rule, story) = chain_of(top, [a, b_a, b], gap, &story);
        (rule, story, forgetting)
    })
}

fn holds((rule, story, forgetting): Case) {
    play(rule, &story, &forgetting, Thaw::AsAsked);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn each_forgets(case in each()) {
        holds(case);
    }

    #[test]
    fn event_count_forgets(case in event_count()) {
        holds(case);
    }

    #[test]
    fn value_count_forgets(case in value_count()) {
        holds(case);
    }

    #[test]
    fn temporal_forgets(case in temporal()) {
        holds(case);
    }

    #[test]
    fn temporal_ordered_forgets(case in temporal_ordered()) {
        holds(case);
    }

    #[test]
    fn absence_forgets(case in absence()) {
        holds(case);
    }

    #[test]
    fn same_forgets(case in same()) {
        holds(case);
    }

    #[test]
    fn travel_forgets(case in travel()) {
        holds(case);
    }

    #[test]
    fn aggregate_forgets(case in aggregate()) {
        holds(case);
    }

    #[test]
    fn chain_forgets(case in chain()) {
        holds(case);
    }
}

/// Cases that are always the same.
fn the_same(cases: &impl Strategy<Value = Case>) -> impl Iterator<Item = Case> {
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    std::iter::from_fn(move || Some(cases.new_tree(&mut runner).unwrap().current()))
}

/// Which of these cases is the first to go wrong.
fn goes_wrong(cases: &impl Strategy<Value = Case>, thaw: Thaw) -> Option<usize> {
    let is_wrong =
        |(rule, story, forgetting): Case| std::panic::catch_unwind(|| play(rule, &story, &forgetting, thaw)).is_err();
    the_same(cases).take(10_000).position(is_wrong)
}

/// That much is forgotten and asked for, and that both matters.
fn needs_the_archive(cases: impl Strategy<Value = Case>) {
    let (mut forgotten, mut thaws) = (0, 0);
    for (rule, story, forgetting) in the_same(&cases).take(50) {
        let (rows, asked) = play(rule, &story, &forgetting, Thaw::AsAsked);
        (forgotten, thaws) = (forgotten + rows, thaws + asked);
    }
    println!("of 50 cases: {forgotten} rows forgotten, {thaws} batches asked the archive");
    assert!(forgotten > 100 && thaws > 100, "hardly anything is forgotten");
    let without = goes_wrong(&cases, Thaw::Not).expect("the property sees that the archive was not asked");
    let near = goes_wrong(&cases, Thaw::NearOnly).expect("the property sees that episodes were cut");
    println!("the first of the same cases to go wrong: {without} without the archive, {near} with what is near only");
}

#[test]
fn without_the_archive_each_is_wrong() {
    needs_the_archive(each());
}

#[test]
fn without_the_archive_event_count_is_wrong() {
    needs_the_archive(event_count());
}

#[test]
fn without_the_archive_value_count_is_wrong() {
    needs_the_archive(value_count());
}

#[test]
fn without_the_archive_temporal_is_wrong() {
    needs_the_archive(temporal());
}

#[test]
fn without_the_archive_temporal_ordered_is_wrong() {
    needs_the_archive(temporal_ordered());
}

#[test]
fn without_the_archive_absence_is_wrong() {
    needs_the_archive(absence());
}

#[test]
fn without_the_archive_same_is_wrong() {
    needs_the_archive(same());
}

#[test]
fn without_the_archive_travel_is_wrong() {
    needs_the_archive(travel());
}

#[test]
fn without_the_archive_aggregate_is_wrong() {
    needs_the_archive(aggregate());
}

#[test]
fn without_the_archive_chain_is_wrong() {
    needs_the_archive(chain());
}

/// A year of one match an hour from the same few addresses: what is known can never be new again, and is not kept.
#[test]
fn what_nothing_will_make_new_is_not_kept() {
    let operator = NewValue { history_days: 30, known_after_days: 1, min_days: 7, min_days_seen: 3, least: None };
    let mut runner = Runner::new(rule(Operator::NewValue(operator), TimeDelta::hours(1)));
    let seen = |value: &str, day: i64| Observation {
        tenant: "contoso".parse().unwrap(),
        rule_id: "rule".to_owned(),
        epoch: 1,
        shard: "shard".to_owned(),
        value: value.to_owned(),
        day: (base() + TimeDelta::days(day)).date_naive(),
    };
    let from = |value: &str, hour: i64| Match {
        event_time: base() + TimeDelta::hours(hour),
        event_id: format!("e{hour}"),
        values: vec![value.to_owned()],
        ..template()
    };
    let mut held = 0;
    for day in 0..365 {
        let matches: Vec<Match> = (0..24).map(|hour| from(["a", "b"][hour as usize % 2], day * 24 + hour)).collect();
        runner.apply(&matches, &[seen("a", day), seen("b", day)]);
        held = held.max(runner.entries() - 2 * (day as usize + 1));
    }
    // Of the first day alone it is not known whether anything was seen before.
    assert_eq!((held, runner.standing().len()), (24, 0));
    // A new one stands, until it turns out that it was seen the day before.
    runner.apply(&[from("c", 365 * 24)], &[]);
    assert_eq!((runner.entries() - 2 * 365, runner.standing().len()), (24 + 2, 1));
    runner.apply(&[], &[seen("c", 364)]);
    assert_eq!(runner.standing().len(), 0);
    // Those of the first day go when it is known that the day before was like it; what was told stays.
    runner.apply(&[], &[seen("a", -1), seen("b", -1)]);
    assert_eq!(runner.entries(), 2 * 365 + 3);
    let rows = |kind: u8| runner.rows.keys().filter(|row| row[0] == kind).count();
    assert_eq!((rows(b'm'), rows(b'g'), rows(b'f')), (0, 0, 1));
}

/// A month of one match an hour: what stays is a week, and what was told.
#[test]
fn what_is_forgotten_is_gone() {
    let timespan = TimeDelta::minutes(10);
    let mut runner = Runner::new(rule(Operator::EventCount { at_least: 2, timespan }, TimeDelta::minutes(10)));
    let hourly = |hour: i64| {
        let mut one = template();
        one.event_time = base() + TimeDelta::hours(hour);
        one.event_id = format!("e{hour}");
        one.group = vec![format!("g{}", hour / 24)];
        one
    };
    let mut month: Vec<Match> = (0..30 * 24).map(hourly).collect();
    // One finding, of the first day.
    month.push(Match { event_id: "second".to_owned(), event_time: base() + TimeDelta::minutes(1), ..hourly(0) });
    for day in month.chunks(24) {
        runner.apply(day, &[]);
    }
    let (entries, rows) = (runner.entries(), runner.rows.len());
    assert_eq!((entries, rows), (30 * 24 + 2, 30 * 24 + 1 + 30 + 1), "members, groups, and a finding");
    runner.horizon = Some(base() + TimeDelta::days(23));
    let members = 23 * 24 + 1;
    assert_eq!(runner.forget(|_| false), members + 23, "all members of the time before, and their groups");
    assert_eq!((runner.entries(), runner.rows.len()), (7 * 24, 7 * 24 + 7 + 1), "a week, and the finding");
    assert_eq!(runner.standing().len(), 1);
    assert_eq!(runner.forget(|_| false), 0);
}

#[test]
fn what_is_hot_is_not_asked_for_and_what_is_cold_beside_it_is() {
    let timespan = TimeDelta::minutes(10);
    let mut runner = Runner::new(rule(Operator::EventCount { at_least: 3, timespan }, timespan));
    // An episode that lasts long, and one match by itself long before it.
    let mut arrived: Vec<Match> = (0..100).step_by(4).map(at).chain([at(-90)]).collect();
    let mut shard = Shard::default();
    shard.apply(&runner.rule, &arrived, &[]);
    let horizon = base() + TimeDelta::minutes(130);
    let past = Past { horizon: Some(horizon), ..Past::default() };
    // What lies around the episode, and none of it.
    for (minute, from, until) in [(49, -40, 0), (99, -40, 0), (1, -79, 0), (-91, -171, -11)] {
        let span = (base() + TimeDelta::minutes(from), base() + TimeDelta::minutes(until));
        assert_eq!(shard.missing(&runner.rule, &past, &[at(minute)]), [span], "minute {minute}");
    }
    runner.apply(&arrived, &[]);
    runner.archive = arrived.clone();
    runner.horizon = Some(horizon);
    assert!(runner.forget(|_| false) > 0, "what lies alone is forgotten");
    for minute in [49, 99, 1, -91] {
        arrived.push(at(minute));
        runner.apply(&arrived[arrived.len() - 1..], &[]);
        runner.archive = arrived.clone();
        check(&runner, &arrived, &[]);
    }
}

/// An episode that formed after what lay before it had been forgotten: it is hot and whole, and what is near it is not.
#[test]
fn what_was_forgotten_before_an_episode_was_near_it_is_asked_for() {
    let timespan = TimeDelta::minutes(10);
    let mut runner = Runner::new(rule(Operator::EventCount { at_least: 3, timespan }, timespan));
    let mut arrived: Vec<Match> = Vec::new();
    for (minutes, horizon) in [(&[0, 38][..], 45), (&[46, 47], 80), (&[3, 5], 80)] {
        let came: Vec<Match> = minutes.iter().copied().map(at).collect();
        runner.apply(&came, &[]);
        arrived.extend(came);
        check(&runner, &arrived, &[]);
        runner.archive = arrived.clone();
        runner.horizon = Some(base() + TimeDelta::minutes(horizon));
        runner.forget(|_| false);
    }
}

fn at(minute: i64) -> Match {
    Match { event_id: format!("e{minute}"), event_time: base() + TimeDelta::minutes(minute), ..template() }
}

fn template() -> Match {
    Match {
        tenant: "contoso".parse().unwrap(),
        rule_id: "rule".to_owned(),
        epoch: 1,
        member: "rule".to_owned(),
        shard: "shard".to_owned(),
        group: vec!["g".to_owned()],
        within: Vec::new(),
        event_id: "e".to_owned(),
        content: 0,
        event_time: base(),
        received: base(),
        notify: true,
        values: Vec::new(),
        weight: 1,
        fields: [("user".to_owned(), vec!["ann".to_owned()])].into(),
    }
}
