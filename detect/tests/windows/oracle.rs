//! What must stand, computed from the whole set at once: slow, and short enough to be seen to be right.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use detect::rule::model::{Aggregate, Measure, NewValue, Operator, Rule, Sequence, Spike, Step, Travel};
use schemas::finding::Finding;
use schemas::json::{key_hash, key_id};
use schemas::message::{Match, Observation};

/// What two runs are compared by.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    pub id: String,
    pub entity: String,
    pub first: DateTime<Utc>,
    pub last: DateTime<Utc>,
    pub count: u64,
    pub evidence: Vec<String>,
    pub fields: BTreeMap<String, Vec<String>>,
    pub reason: String,
    pub notes: Vec<String>,
}

pub fn of_finding(finding: &Finding) -> Standing {
    Standing {
        id: finding.id.clone(),
        entity: finding.entity.clone(),
        first: finding.first_event,
        last: finding.last_event,
        count: finding.event_count,
        evidence: finding.evidence.clone(),
        fields: finding.fields.clone(),
        reason: finding.reason.clone(),
        notes: finding.notes.clone(),
    }
}

type Span = (DateTime<Utc>, DateTime<Utc>);

/// All that stands, by id.
pub fn standing(rule: &Rule, matches: &[Match], observations: &[Observation]) -> Vec<Standing> {
    let mut groups: BTreeMap<&[String], BTreeMap<_, Match>> = BTreeMap::new();
    for matched in matches {
        // The last part only breaks ties between what has one time and id, as the engine does.
        let content = matched.content.to_string();
        let mut parts: Vec<&str> = vec![&matched.event_id, &content, &matched.member];
        parts.extend(matched.within.iter().flatten().map(String::as_str));
        let tie = key_hash(&parts);
        let key = (matched.event_time, matched.event_id.clone(), tie);
        let folded =
            || Match { values: matched.values.iter().map(|value| value.to_lowercase()).collect(), ..matched.clone() };
        groups.entry(&matched.group).or_default().entry(key).or_insert_with(folded);
    }
    let folded = |seen: &Observation| Observation { value: seen.value.to_lowercase(), ..seen.clone() };
    let observations: Vec<Observation> = observations.iter().map(folded).collect();
    let mut all = Vec::new();
    for members in groups.into_values() {
        let members: Vec<Match> = members.into_values().collect();
        all.extend(of_group(rule, members, &observations));
    }
    all.sort_by(|left, right| left.id.cmp(&right.id));
    all
}

fn of_group(rule: &Rule, mut members: Vec<Match>, observations: &[Observation]) -> Vec<Standing> {
    if !rule.stages.is_empty() {
        return of_chain(rule, members, observations);
    }
    match &rule.operator {
        Operator::NewValue(parameters) => retain(&mut members, |one| new_values(parameters, observations, one)),
        Operator::Outside => retain(&mut members, |one| foreign_values(observations, one)),
        // All is decided that it is shown.
        Operator::Absence(absence) => {
            let expected = |one: &&Match| absence.expect.contains(&one.member);
            let times: Vec<DateTime<Utc>> = members.iter().filter(expected).map(|one| one.event_time).collect();
            members.retain(|one| {
                let until = one.event_time + absence.timespan;
                !expected(&one) && !times.iter().any(|time| one.event_time <= *time && *time <= until)
            });
        }
        Operator::TemporalOrdered(sequence) if sequence.is_shared() => {
            let (spans, standing) = of_values(sequence, &members);
            return told(rule, spans, &standing, observations);
        }
        _ => {}
    }
    let spans = spans(&rule.operator, &members);
    told(rule, spans, &members, observations)
}

/// The episodes that spans make.
fn told(rule: &Rule, mut spans: Vec<Span>, members: &[Match], observations: &[Observation]) -> Vec<Standing> {
    spans.sort();
    let mut hulls: Vec<Span> = Vec::new();
    for (start, end) in spans {
        match hulls.last_mut() {
            Some(last) if start - last.1 <= rule.gap => last.1 = last.1.max(end),
            _ => hulls.push((start, end)),
        }
    }
    let enough = |hull: &Span| {
        let inside = members.iter().filter(|one| hull.0 <= one.event_time && one.event_time <= hull.1);
        let of = rule.operator.least().map_or(&[][..], |least| &least.of);
        let counts = inside.filter(|one| of.is_empty() || of.contains(&one.member));
        let weight = weight(&counts.collect::<Vec<_>>());
        rule.operator.least().is_none_or(|least| weight >= u64::from(least.events))
    };
    hulls.into_iter().filter(enough).map(|hull| tell(rule, hull, members, observations)).collect()
}

/// What a correlation looks at, and where the story of each begins.
type Seen = Vec<(Match, DateTime<Utc>)>;

/// A correlation of correlations, from the inside out: each stage puts the records that complete one of its windows
/// into what is around it.
fn of_chain(rule: &Rule, members: Vec<Match>, observations: &[Observation]) -> Vec<Standing> {
    let mut counted: BTreeSet<usize> = BTreeSet::new();
    // By the way to the correlation and its own key; the top is "".
    let mut parts: BTreeMap<(String, Vec<String>), Seen> = BTreeMap::new();
    for (at, member) in members.iter().enumerate() {
        let (way, name) = member.member.rsplit_once('/').unwrap_or(("", &member.member));
        let own = member.within.last().cloned().unwrap_or_default();
        // The number of the match rides along, so that it can be found again.
        let inside = Match { member: name.to_owned(), rule_id: at.to_string(), ..member.clone() };
        parts.entry((way.to_owned(), own)).or_default().push((inside, member.event_time));
        if way.is_empty() {
            counted.insert(at);
        }
    }
    for stage in &rule.stages {
        let own_parts: Vec<_> = parts
            .iter()
            .filter(|((way, _), _)| *way == stage.name)
            .map(|(key, seen)| (key.1.clone(), seen.clone()))
            .collect();
        let (outer, name) = stage.name.rsplit_once('/').unwrap_or(("", &stage.name));
        for (own, seen) in own_parts {
            let depth = stage.name.matches('/').count();
            for (last, _) in &seen {
                let begin = last.event_time - stage.operator.timespan();
                let window: Vec<&(Match, DateTime<Utc>)> = seen
                    .iter()
                    .filter(|(one, _)| begin <= one.event_time && one.event_time <= last.event_time)
                    .collect();
                let inside: Vec<Match> = window.iter().map(|(one, _)| one.clone()).collect();
                let completes = match &stage.operator {
                    Operator::EventCount { at_least, .. } => weight(&inside.iter().collect::<Vec<_>>()) >= *at_least,
                    Operator::ValueCount { at_least, .. } => {
                        inside.iter().flat_map(|one| &one.values).collect::<BTreeSet<_>>().len() as u64 >= *at_least
                    }
                    Operator::Temporal { at_least, .. } => {
                        inside.iter().map(|one| &one.member).collect::<BTreeSet<_>>().len() >= *at_least
                    }
                    Operator::TemporalOrdered(sequence) => {
                        let step = sequence.steps.last().unwrap();
                        step.rule == last.member && ordered(&inside, last, &sequence.steps)
                    }
                    other => panic!("{other:?}"),
                };
                if !completes {
                    continue;
                }
                counted.extend(window.iter().filter_map(|(one, _)| one.rule_id.parse::<usize>().ok()));
                let begun = window.iter().map(|(_, begun)| *begun).min().unwrap();
                let values: Vec<&str> = stage.exposes.iter().map(|at| own[*at].as_str()).collect();
                let stand_in = Match {
                    member: name.to_owned(),
                    rule_id: String::new(),
                    within: last.within[..depth].to_vec(),
                    values: if values.is_empty() { vec![] } else { vec![values.join("|").to_lowercase()] },
                    weight: 1,
                    ..last.clone()
                };
                let key = (outer.to_owned(), stand_in.within.last().cloned().unwrap_or_default());
                parts.entry(key).or_default().push((stand_in, begun));
            }
        }
    }
    let top = parts.remove(&(String::new(), Vec::new())).unwrap_or_default();
    let looked_at: Vec<Match> = {
        let mut all: Vec<Match> = top.iter().map(|(one, _)| one.clone()).collect();
        all.sort_by_key(|one| one.event_time);
        all
    };
    let begun = |(start, end): Span| {
        let inside = top.iter().filter(|(one, _)| start <= one.event_time && one.event_time <= end);
        (inside.map(|(_, begun)| *begun).min().unwrap().min(start), end)
    };
    let spans = spans(&rule.operator, &looked_at).into_iter().map(begun).collect();
    let standing: Vec<Match> = counted.into_iter().map(|at| members[at].clone()).collect();
    told(rule, spans, &standing, observations)
}

/// Whether the steps can be filled in order with distinct ids, the last of them with this one.
fn ordered(members: &[Match], last: &Match, steps: &[Step]) -> bool {
    fn fill(members: &[Match], steps: &[Step], until: DateTime<Utc>, taken: &mut Vec<String>) -> bool {
        let Some((step, rest)) = steps.split_last() else { return true };
        members.iter().filter(|one| one.member == step.rule && one.event_time + step.pause <= until).any(|one| {
            if taken.contains(&one.event_id) {
                return false;
            }
            taken.push(one.event_id.clone());
            let filled = fill(members, rest, one.event_time, taken);
            taken.pop();
            filled
        })
    }
    let others = &steps[..steps.len() - 1];
    fill(members, others, last.event_time, &mut vec![last.event_id.clone()])
}

fn retain(members: &mut Vec<Match>, values: impl Fn(&Match) -> Option<Vec<String>>) {
    members.retain_mut(|one| match values(one) {
        Some(values) => {
            one.values = values;
            true
        }
        None => false,
    });
}

fn new_values(parameters: &NewValue, observations: &[Observation], one: &Match) -> Option<Vec<String>> {
    let day = one.event_time.date_naive();
    let age = |observation: &Observation| (day - observation.day).num_days();
    let earlier: Vec<&Observation> = observations.iter().filter(|seen| age(seen) > 0).collect();
    let days: BTreeSet<NaiveDate> = earlier.iter().map(|seen| seen.day).collect();
    let oldest = earlier.iter().map(|seen| age(seen)).max();
    let warm = days.len() >= parameters.min_days_seen as usize
        && (parameters.min_days == 0 || oldest.is_some_and(|age| age >= i64::from(parameters.min_days)));
    let counts = i64::from(parameters.known_after_days)..=i64::from(parameters.history_days);
    let known = |value: &str| earlier.iter().any(|seen| seen.value == value && counts.contains(&age(seen)));
    let new: Vec<String> = one.values.iter().filter(|value| !known(value)).cloned().collect();
    (warm && !new.is_empty()).then_some(new)
}

fn foreign_values(observations: &[Observation], one: &Match) -> Option<Vec<String>> {
    let foreign = |value: &&String| !observations.iter().any(|seen| seen.value == **value);
    let values: Vec<String> = one.values.iter().filter(foreign).cloned().collect();
    (one.values.is_empty() || !values.is_empty()).then_some(values)
}

fn spans(operator: &Operator, members: &[Match]) -> Vec<Span> {
    let window = |anchor: DateTime<Utc>, timespan: TimeDelta| -> Vec<&Match> {
        members.iter().filter(|one| one.event_time >= anchor && one.event_time - anchor <= timespan).collect()
    };
    let anchors: BTreeSet<DateTime<Utc>> = members.iter().map(|one| one.event_time).collect();
    let satisfying = |timespan: TimeDelta, holds: &dyn Fn(DateTime<Utc>, &[&Match]) -> bool| -> Vec<Span> {
        let windows = anchors.iter().map(|anchor| (*anchor, window(*anchor, timespan)));
        let held = windows.filter(|(anchor, window)| holds(*anchor, window));
        held.map(|(anchor, window)| (anchor, window.iter().map(|one| one.event_time).max().unwrap())).collect()
    };
    match operator {
        Operator::Each | Operator::NewValue(_) | Operator::Outside | Operator::Absence(_) => {
            anchors.iter().map(|anchor| (*anchor, *anchor)).collect()
        }
        Operator::EventCount { at_least, timespan } => satisfying(*timespan, &|_, window| weight(window) >= *at_least),
        Operator::ValueCount { at_least, timespan } => satisfying(*timespan, &|_, window| {
            let values: BTreeSet<_> = window.iter().flat_map(|one| &one.values).collect();
            values.len() as u64 >= *at_least
        }),
        Operator::Temporal { at_least, timespan } => satisfying(*timespan, &|_, window| {
            let names: BTreeSet<_> = window.iter().map(|one| &one.member).collect();
            names.len() >= *at_least
        }),
        Operator::TemporalOrdered(sequence) => chains(members, sequence),
        Operator::Travel(travel) => journeys(members, travel),
        Operator::Aggregate(aggregate) => satisfying(aggregate.timespan, &|_, members_of| {
            // Not if another window holds all of it and more.
            let is_part = anchors.iter().any(|other| {
                let around = window(*other, aggregate.timespan);
                around.len() > members_of.len() && members_of.iter().all(|one| around.contains(one))
            });
            !is_part && within_bounds(aggregate, members_of)
        }),
        Operator::Spike(parameters) => {
            satisfying(parameters.timespan, &|anchor, window| spikes(parameters, members, anchor, weight(window)))
        }
    }
}

/// Every pair of records too far apart for the time between them. The places lie on the equator.
fn journeys(members: &[Match], travel: &Travel) -> Vec<Span> {
    let mut spans = Vec::new();
    for from in members {
        for to in members.iter().filter(|to| to.event_time >= from.event_time) {
            let distance = apart_km(&from.values[0], &to.values[0]);
            let computer = |one: &Match| one.values[0].split_once('|').unwrap().1.to_owned();
            let (one, other) = (computer(from), computer(to));
            let others = !one.is_empty() && !other.is_empty() && one != other;
            let longest = TimeDelta::seconds(distance * 3_600 / i64::from(travel.speed_kmh)).min(travel.timespan);
            let is_far = distance >= i64::from(travel.distance_km).max(1);
            if is_far && (others || !travel.must_differ) && to.event_time - from.event_time <= longest {
                spans.push((from.event_time, to.event_time));
            }
        }
    }
    spans
}

fn apart_km(one: &str, other: &str) -> i64 {
    let spot = |value: &str| {
        let (place, _) = value.split_once('|').unwrap();
        let numbers: Vec<f64> = place.split(' ').map(|number| number.parse().unwrap()).collect();
        (numbers[1], numbers[2])
    };
    let ((east, radius), (other_east, other_radius)) = (spot(one), spot(other));
    let around = (east - other_east).abs() / 360.0 * 2.0 * std::f64::consts::PI * 6_371.0;
    (around - radius - other_radius).max(0.0).round() as i64
}

/// Every possible measure of a window in millionths, multiplied by what it is divided by: one of them is within all
/// bounds.
fn within_bounds(aggregate: &Aggregate, window: &[&Match]) -> bool {
    let million = 1_000_000_i128;
    let count = |count: usize| vec![(count as i128 * million, 1)];
    // Of the variants of one id the first counts; members are in order of time, then of id, then of the tie.
    let mut order: Vec<&&Match> = window.iter().collect();
    order.sort_by_key(|one| (one.event_time, key_hash(&[&one.event_id, &one.content.to_string(), &one.member])));
    let mut ids = BTreeSet::new();
    order.retain(|one| ids.insert(&one.event_id));
    let texts: Vec<&str> = order.iter().flat_map(|one| &one.values).flat_map(|value| value.split(' ')).collect();
    let mut numbers: Vec<i128> = texts
        .iter()
        .filter_map(|text| text.parse::<f64>().ok())
        .map(|number| (number * million as f64).round() as i128)
        .collect();
    numbers.sort();
    let sum: i128 = numbers.iter().sum();
    let measures: Vec<(i128, i128)> = match &aggregate.measure {
        Measure::Events => vec![(i128::from(weight(window)) * million, 1)],
        Measure::Values => count(window.iter().flat_map(|one| &one.values).collect::<BTreeSet<_>>().len()),
        Measure::Rules => count(window.iter().map(|one| &one.member).collect::<BTreeSet<_>>().len()),
        Measure::Ratio(ratio) => {
            let part: Vec<&Match> = window.iter().copied().filter(|one| ratio.of.contains(&one.member)).collect();
            let whole = weight(window);
            let measure = (i128::from(weight(&part)) * 100 * million, i128::from(whole));
            if whole >= ratio.floor { vec![measure] } else { vec![] }
        }
        measure if *measure != Measure::Share && numbers.is_empty() => vec![],
        Measure::Sum => vec![(sum, 1)],
        Measure::Average => vec![(sum, numbers.len() as i128)],
        Measure::Percentile(percentile) => {
            let rank = (1..=numbers.len())
                .find(|rank| *rank as i128 * 100 * million >= i128::from(*percentile) * numbers.len() as i128);
            vec![(numbers[rank.unwrap() - 1], 1)]
        }
        Measure::Share => {
            let all: Vec<&String> = order.iter().flat_map(|one| &one.values).collect();
            let distinct: BTreeSet<&String> = all.iter().copied().collect();
            let times = |value: &String| all.iter().filter(|other| **other == value).count() as i128;
            distinct.into_iter().map(|value| (times(value) * 100 * million, all.len() as i128)).collect()
        }
    };
    measures.iter().any(|(amount, divisor)| {
        aggregate.bounds.iter().all(|bound| bound.comparison.holds(Some(amount.cmp(&(bound.millionths * divisor)))))
    })
}

/// The heaviest weight of each id.
fn weight(members: &[&Match]) -> u64 {
    let mut of_id: BTreeMap<&str, u64> = BTreeMap::new();
    for one in members {
        let heaviest = of_id.entry(&one.event_id).or_default();
        *heaviest = one.weight.max(*heaviest);
    }
    of_id.values().sum()
}

/// First and last time of every chain there is, tried out one by one: of chains that agree in both and in their ids,
/// one is enough.
fn chains(members: &[Match], sequence: &Sequence) -> Vec<Span> {
    let mut chains: BTreeSet<(Option<Span>, BTreeSet<&str>)> = BTreeSet::from([(None, BTreeSet::new())]);
    let mut pause = TimeDelta::zero();
    for step in &sequence.steps {
        let mut longer = BTreeSet::new();
        for (span, ids) in &chains {
            for one in members.iter().filter(|one| one.member == step.rule) {
                let (first, last) = span.unwrap_or((one.event_time, one.event_time));
                let in_order = last + pause <= one.event_time && one.event_time - first <= sequence.timespan;
                let mut ids = ids.clone();
                if in_order && ids.insert(&one.event_id) {
                    longer.insert((Some((first, one.event_time)), ids));
                }
            }
        }
        chains = longer;
        pause = step.pause;
    }
    chains.into_iter().filter_map(|(span, _)| span).collect()
}

/// The chains of each value that records share, and the members that stand: those of sharing steps only within a chain
/// of a value of theirs.
fn of_values(sequence: &Sequence, members: &[Match]) -> (Vec<Span>, Vec<Match>) {
    let is_free = |one: &Match| !sequence.shares(&one.member);
    let mut standing: Vec<bool> = members.iter().map(is_free).collect();
    let mut spans = Vec::new();
    for value in members.iter().flat_map(|one| &one.values).collect::<BTreeSet<_>>() {
        let its: Vec<Match> =
            members.iter().filter(|one| is_free(one) || one.values.contains(value)).cloned().collect();
        let of_value = chains(&its, sequence);
        for (one, stands) in members.iter().zip(&mut standing).filter(|(one, _)| one.values.contains(value)) {
            let inside = |(start, end): &Span| *start <= one.event_time && one.event_time <= *end;
            *stands |= of_value.iter().any(inside);
        }
        spans.extend(of_value);
    }
    let standing = members.iter().zip(standing).filter(|(_, stands)| *stands).map(|(one, _)| one.clone()).collect();
    (spans, standing)
}

/// The weights of the known days before a day.
fn history(parameters: &Spike, members: &[Match], day: NaiveDate) -> Vec<f64> {
    let first = members.iter().map(|one| one.event_time.date_naive()).min().unwrap();
    let days = (1..=i64::from(parameters.history_days)).map(|age| day - TimeDelta::days(age));
    days.filter(|day| *day >= first)
        .map(|day| weight(&members.iter().filter(|one| one.event_time.date_naive() == day).collect::<Vec<_>>()) as f64)
        .collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[odd / 2],
        even => (values[even / 2 - 1] + values[even / 2]) / 2.0,
    }
}

fn spikes(parameters: &Spike, members: &[Match], anchor: DateTime<Utc>, weight: u64) -> bool {
    let history = history(parameters, members, anchor.date_naive());
    if history.len() < parameters.min_days as usize {
        return weight >= parameters.cold_floor;
    }
    let m = median(history.clone());
    let mad = median(history.iter().map(|weight| (weight - m).abs()).collect());
    weight >= parameters.floor
        && weight as f64 > parameters.ratio * m
        && weight as f64 > m + parameters.deviations * 1.4826 * mad.max(m.sqrt()).max(1.0)
}

/// One hull as a finding tells it. `members` are in order and stand.
fn tell(rule: &Rule, hull: Span, members: &[Match], observations: &[Observation]) -> Standing {
    let inside: Vec<&Match> =
        members.iter().filter(|one| hull.0 <= one.event_time && one.event_time <= hull.1).collect();
    let mut evidence: Vec<String> = Vec::new();
    let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut values: Vec<String> = Vec::new();
    let add = |texts: &mut Vec<String>, text: &String| {
        if !texts.contains(text) && texts.len() < 10 {
            texts.push(text.clone());
        }
    };
    for one in &inside {
        if !evidence.contains(&one.event_id) {
            evidence.push(one.event_id.clone());
        }
        one.values.iter().for_each(|value| add(&mut values, value));
        for (name, texts) in &one.fields {
            texts.iter().for_each(|text| add(fields.entry(name.clone()).or_default(), text));
        }
    }
    let first = inside[0];
    let time = format!("{}.{:09}", first.event_time.timestamp(), first.event_time.timestamp_subsec_nanos());
    let group: Vec<&str> = first.group.iter().map(String::as_str).collect();
    let (notes, usual) = rests_on(rule, members, observations, first.event_time.date_naive(), &values);
    let seconds = (hull.1 - hull.0).num_seconds();
    let minutes = (seconds / 60 + i64::from(seconds % 60 > 0)).max(1);
    let shown = |texts: &[String]| match texts.len() {
        0 => "unknown".to_owned(),
        1..=5 => texts.join(", "),
        more => format!("{} and {} more", texts[..5].join(", "), more - 5),
    };
    let reason = format!(
        "{}: {} of {} [{}] in {minutes} min, usual {usual}",
        shown(fields.get("user").map_or(&[], Vec::as_slice)),
        evidence.len(),
        weight(&inside),
        shown(&values)
    );
    Standing {
        id: key_id(&["finding", &rule.id, first.tenant.as_str(), &key_id(&group), &time, &first.event_id]),
        entity: first.group.join(", "),
        first: hull.0,
        last: hull.1,
        count: evidence.len() as u64,
        evidence,
        fields,
        reason,
        notes,
    }
}

fn rests_on(
    rule: &Rule,
    members: &[Match],
    observations: &[Observation],
    day: NaiveDate,
    values: &[String],
) -> (Vec<String>, String) {
    let days = |count: usize| if count == 1 { "1 day".to_owned() } else { format!("{count} days") };
    match &rule.operator {
        Operator::NewValue(_) => {
            let seen: BTreeSet<_> = observations.iter().map(|seen| seen.day).filter(|seen| *seen < day).collect();
            let note = match seen.first() {
                Some(first) => format!("seen on {} since {first} before this", days(seen.len())),
                None => "no history: 0 days known".to_owned(),
            };
            (vec![note], days(seen.len()))
        }
        Operator::Spike(parameters) => {
            let history = history(parameters, members, day);
            if history.len() < parameters.min_days as usize {
                let known = format!("{} known", days(history.len()));
                return (vec![format!("no history: {known}")], format!("unknown ({known})"));
            }
            (Vec::new(), format!("{}", median(history)))
        }
        Operator::Outside if !values.is_empty() => {
            let note =
                "the tenant's domains are not configured: judged by the domains of the mailbox owners seen so far";
            (vec![note.to_owned()], "unknown".to_owned())
        }
        Operator::Travel(_) => {
            let apart = values.iter().flat_map(|one| values.iter().map(|other| apart_km(one, other))).max();
            (Vec::new(), format!("{} km", apart.unwrap()))
        }
        _ => (Vec::new(), "unknown".to_owned()),
    }
}
