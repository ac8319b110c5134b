//! The `correlation` section: Sigma's correlations and harrier's baselines.
//!
//! A condition that more records can make false again (a range, an average, a percentile) is judged by the records that
//! are there, and its finding is taken back when others turn it. A count with nothing but an upper bound would hold for
//! everybody before anything has happened, until it is known that nothing more comes: it is refused.

use chrono::TimeDelta;

use super::bounds::{Condition, MILLION};
use super::model::{
    Absence, Aggregate, Bound, Comparison, Least, Measure, NewValue, Operator, Ratio, Sequence, Spike, Travel,
};
use super::read;
use super::report::{Code, Problems};
use super::yaml::{Entry, Node, Place};

/// A name and where it stands.
#[derive(Clone, Debug, Default)]
pub struct Named {
    pub name: String,
    pub place: Place,
}

/// A correlation before its members are found.
#[derive(Clone, Debug)]
pub struct Correlation {
    pub rules: Vec<Named>,
    pub learn: Vec<Named>,
    pub group_by: Vec<Named>,
    /// Alias, rule, field.
    pub aliases: Vec<(Named, Vec<(Named, Named)>)>,
    /// `Temporal` with 0 for all members; `TemporalOrdered` without steps.
    pub operator: Operator,
    pub values: Vec<Named>,
    /// Of a sequence: the rules whose records have a value in common, and the field it is in.
    pub same: Vec<(Named, Named)>,
    /// Of a sequence: the rules after whose records there is a pause.
    pub pauses: Vec<(Named, TimeDelta)>,
    pub gap: TimeDelta,
    /// Whether the rules it refers to make findings as well.
    pub generate: bool,
}

/// Every type and what it means, in the order of the documentation.
pub const CORRELATION_TYPES: &[(&str, &str)] = &[
    ("event_count", "so many records; with x-weight, so much of what they stand for"),
    ("value_count", "so many distinct values of a field, or of several together"),
    ("value_sum", "the sum of a field's numbers"),
    ("value_avg", "their average"),
    ("value_percentile", "the number at a percentile; without one, a value's share of all, in percent"),
    ("value_median", "the number in the middle"),
    ("temporal", "records of so many of the rules, in any order"),
    ("temporal_ordered", "records of all rules, in their order"),
    ("x_absence", "what was to follow and did not"),
    ("x_new_value", "a value the group has not shown before"),
    ("x_ratio", "what some of the rules are of all of them, in percent"),
    ("x_spike", "more than the group's own past explains"),
    ("x_travel", "two places further apart than anybody travels in the time between"),
];

fn types() -> impl Iterator<Item = &'static str> {
    CORRELATION_TYPES.iter().map(|(name, _)| *name)
}

pub(super) const KEYS: &[&str] = &["type", "rules", "group-by", "timespan", "aliases", "condition", "generate"];

/// Keys of the baselines; they may stand in the section or at the top of the rule.
pub const BASELINE_KEYS: &[&str] = &[
    "x-cold-floor",
    "x-delay",
    "x-deviations",
    "x-differs",
    "x-distance",
    "x-expect",
    "x-field",
    "x-floor",
    "x-history",
    "x-known-after",
    "x-learn",
    "x-min-days",
    "x-min-days-seen",
    "x-min-events",
    "x-min-of",
    "x-of",
    "x-pause",
    "x-ratio",
    "x-same",
    "x-speed",
    "x-weight",
];

/// Keys that only one type knows.
const KEYS_OF_ONE: &[(&str, &str)] = &[
    ("x-delay", "x_absence"),
    ("x-differs", "x_travel"),
    ("x-distance", "x_travel"),
    ("x-expect", "x_absence"),
    ("x-known-after", "x_new_value"),
    ("x-of", "x_ratio"),
    ("x-speed", "x_travel"),
];

const HISTORY_DAYS: u32 = 30;
const KNOWN_AFTER_DAYS: u32 = 1;
const MIN_DAYS: u32 = 7;
const MIN_DAYS_SEEN: u32 = 5;
/// As an airliner flies, from door to door; and a distance within which tables of places, and borders, are not to be
/// trusted.
const SPEED_KMH: u64 = 900;
const DISTANCE_KM: u64 = 500;
/// Most records of Exchange and Entra are there within an hour or two.
const ABSENCE_DELAY: TimeDelta = TimeDelta::hours(2);
/// Of fewer records a share is chance.
const RATIO_FLOOR: u64 = 20;
const SPIKE_FLOOR: u64 = 50;
const SPIKE_RATIO: f64 = 3.0;
const SPIKE_DEVIATIONS: f64 = 6.0;
/// Without a history, so many times the floor.
const SPIKE_COLD_FACTOR: u64 = 10;

/// Reads the section of `document`. Problems are reported.
pub fn parse(section: &Entry, document: &Node, problems: &mut Problems<'_>) -> Option<Correlation> {
    let node = &section.value;
    read::map(section, problems)?;
    let before = problems.count();
    let valid: Vec<&str> = KEYS.iter().chain(BASELINE_KEYS).copied().collect();
    read::only_keys(node, &valid, "a correlation", problems);
    let Some(kind) = kind(node, problems) else {
        // The rest is read all the same: all problems at once.
        node.entry("timespan").map(|entry| read::timespan(entry, problems));
        aliases(node, problems);
        Condition::parse("value_count", node, problems);
        return None;
    };
    let source = Source { node, document };
    let rules = source.rules(kind, problems);
    if rules.is_empty() {
        problems.add(Code::MissingKey, node.place, "a correlation names the 'rules' it looks at");
    }
    let timespan = node.entry("timespan").map(|entry| read::timespan(entry, problems));
    let timespan = match (timespan, kind) {
        (Some(timespan), _) => timespan,
        (None, "x_spike") => Some(TimeDelta::days(1)),
        (None, "x_new_value" | "x_travel") => Some(TimeDelta::days(1)),
        (None, _) => {
            problems.add(Code::MissingKey, node.place, format!("a correlation of type {kind} has a 'timespan'"));
            None
        }
    };
    let aliases = aliases(node, problems);
    let (operator, values) = operator(kind, timespan.unwrap_or_default(), &source, problems);
    let (same, pauses) = (same(kind, &rules, &source, problems), pauses(kind, &rules, timespan, &source, problems));
    let generate = node.entry("generate").and_then(|entry| read::boolean(entry, problems)).unwrap_or(false);
    let learn = source.names("x-learn", problems);
    if kind != "x_new_value" && !learn.is_empty() {
        problems.add(Code::InvalidValue, node.place, format!("'x-learn' belongs to x_new_value, not to {kind}"));
    }
    let complete = problems.count() == before;
    let correlation = Correlation {
        rules,
        learn,
        group_by: source.names("group-by", problems),
        aliases,
        operator: operator?,
        values,
        same,
        pauses,
        gap: timespan?,
        generate,
    };
    complete.then_some(correlation)
}

fn kind(node: &Node, problems: &mut Problems<'_>) -> Option<&'static str> {
    let Some(entry) = node.entry("type") else {
        problems.add(
            Code::MissingKey,
            node.place,
            format!("a correlation has a 'type': {}", types().collect::<Vec<_>>().join(", ")),
        );
        return None;
    };
    let text = read::text(entry, problems)?;
    let known = types().find(|kind| *kind == text);
    if known.is_none() {
        let message = format!("'{}' is not a type of correlation", text.escape_debug());
        problems.add_name(Code::InvalidValue, entry.value.place, message, text, types());
    }
    known
}

/// Where a correlation's keys are looked for.
struct Source<'n> {
    node: &'n Node,
    document: &'n Node,
}

impl<'n> Source<'n> {
    fn entry(&self, key: &str) -> Option<&'n Entry> {
        let outside = if key.starts_with("x-") { self.document.entry(key) } else { None };
        self.node.entry(key).or(outside)
    }

    fn names(&self, key: &str, problems: &mut Problems<'_>) -> Vec<Named> {
        let mut names: Vec<Named> = Vec::new();
        for (name, node) in self.entry(key).map(|entry| read::texts(entry, problems)).unwrap_or_default() {
            if names.iter().any(|known| known.name == name) {
                problems.add(Code::Duplicate, node.place, format!("'{name}' stands twice in '{key}'"));
                continue;
            }
            names.push(Named { name: name.to_owned(), place: node.place });
        }
        names
    }

    /// The rules of a correlation. In a sequence one may stand in several places.
    fn rules(&self, kind: &str, problems: &mut Problems<'_>) -> Vec<Named> {
        if kind != "temporal_ordered" {
            return self.names("rules", problems);
        }
        let texts = self.entry("rules").map(|entry| read::texts(entry, problems)).unwrap_or_default();
        texts.into_iter().map(|(name, node)| Named { name: name.to_owned(), place: node.place }).collect()
    }

    /// The entries of a key that says something of some of the rules; none where the correlation is no sequence.
    fn of_rules(&self, key: &str, kind: &str, rules: &[Named], problems: &mut Problems<'_>) -> Vec<(Named, &'n Entry)> {
        let Some(entry) = self.entry(key) else { return Vec::new() };
        if kind != "temporal_ordered" {
            problems.add(
                Code::InvalidValue,
                entry.place,
                format!("'{key}' belongs to temporal_ordered, not to {kind}"),
            );
            return Vec::new();
        }
        let mut found = Vec::new();
        for entry in read::map(entry, problems).unwrap_or_default() {
            if !rules.iter().any(|rule| rule.name == entry.key) {
                let message = format!("'{}' is none of its rules", entry.key.escape_debug());
                let known = rules.iter().map(|rule| rule.name.as_str());
                problems.add_name(Code::UnknownRule, entry.place, message, &entry.key, known);
            }
            found.push((Named { name: entry.key.clone(), place: entry.place }, entry));
        }
        found
    }

    fn count(&self, key: &str, default: u64, problems: &mut Problems<'_>) -> u64 {
        let count = self.entry(key).and_then(|entry| read::count(entry, 1, i64::MAX, problems));
        count.and_then(|count| u64::try_from(count).ok()).unwrap_or(default)
    }

    fn number(&self, key: &str, default: u64, problems: &mut Problems<'_>) -> u32 {
        let count = self.entry(key).and_then(|entry| read::count(entry, 1, 100_000, problems));
        count.map_or(default, i64::unsigned_abs).try_into().unwrap_or(u32::MAX)
    }

    fn days(&self, key: &str, default: u32, problems: &mut Problems<'_>) -> u32 {
        let days = self.entry(key).and_then(|entry| match key {
            "x-history" => read::days(entry, problems),
            _ => read::count(entry, 0, 366, problems).and_then(|days| u32::try_from(days).ok()),
        });
        days.unwrap_or(default)
    }

    fn known_after(&self, problems: &mut Problems<'_>) -> u32 {
        let Some(entry) = self.entry("x-known-after") else { return KNOWN_AFTER_DAYS };
        let Some(days) = read::days(entry, problems) else { return KNOWN_AFTER_DAYS };
        let history = self.entry("x-history").and_then(|entry| read::days(entry, problems)).unwrap_or(HISTORY_DAYS);
        if !(1..=history).contains(&days) {
            let message = format!("'x-known-after' is from 1d to 'x-history', which is {history}d");
            problems.add(Code::InvalidValue, entry.value.place, message);
        }
        days
    }

    /// Names that stand in `rules` as well.
    fn some_of_rules(&self, key: &str, problems: &mut Problems<'_>) -> Vec<String> {
        let of = self.names(key, problems);
        let rules = self.entry("rules").map(|entry| read::texts(entry, problems)).unwrap_or_default();
        for named in &of {
            if !rules.iter().any(|(name, _)| *name == named.name) {
                let message = format!("'{}' is none of its rules", named.name);
                let known = rules.iter().map(|(name, _)| *name);
                problems.add_name(Code::InvalidValue, named.place, message, &named.name, known);
            }
        }
        of.into_iter().map(|named| named.name).collect()
    }

    /// What `x_absence` waits for: some of its rules, and not all.
    fn absence(&self, timespan: TimeDelta, problems: &mut Problems<'_>) -> Absence {
        let expect =
            self.part("x-expect", "x_absence has the rules of which a record is to follow in 'x-expect'", problems);
        let delay = self.entry("x-delay").and_then(|entry| read::timespan(entry, problems)).unwrap_or(ABSENCE_DELAY);
        Absence { expect, timespan, delay }
    }

    /// Some of the rules, and not all.
    fn part(&self, key: &str, missing: &str, problems: &mut Problems<'_>) -> Vec<String> {
        let of = self.some_of_rules(key, problems);
        let rules = self.entry("rules").map(|entry| read::texts(entry, problems)).unwrap_or_default();
        if of.is_empty() {
            problems.add(Code::MissingKey, self.node.place, missing);
        } else if rules.iter().all(|(name, _)| of.iter().any(|of| of == name)) {
            let message = format!("all of its rules are in '{key}': nothing is left to compare them with");
            problems.add(Code::InvalidValue, self.node.place, message);
        }
        of
    }

    /// What `x_ratio` compares: some of its rules, not all, with all.
    fn ratio(&self, problems: &mut Problems<'_>) -> Ratio {
        let of = self.part("x-of", "x_ratio has the rules whose share it is in 'x-of'", problems);
        Ratio { of, floor: self.count("x-floor", RATIO_FLOOR, problems) }
    }

    /// What an episode must hold. Its rules are names as in `rules`.
    fn least(&self, problems: &mut Problems<'_>) -> Option<Least> {
        let events = self.entry("x-min-events").and_then(|entry| read::count(entry, 1, 10_000, problems));
        let of = self.some_of_rules("x-min-of", problems);
        let events = events.and_then(|events| u32::try_from(events).ok()).unwrap_or(1);
        (events > 1 || !of.is_empty()).then_some(Least { events, of })
    }
}

fn operator(
    kind: &str,
    timespan: TimeDelta,
    source: &Source<'_>,
    problems: &mut Problems<'_>,
) -> (Option<Operator>, Vec<Named>) {
    let Some(condition) = Condition::parse(kind, source.node, problems) else {
        return (None, Vec::new());
    };
    if kind.starts_with("value_") && condition.fields.is_empty() {
        let message = format!("{kind} has a condition with the 'field' it looks at");
        problems.add(Code::MissingKey, source.node.place, message);
    }
    let aggregate = |measure, condition: &Condition| {
        Some(Operator::Aggregate(Aggregate { measure, bounds: condition.bounds.clone(), timespan }))
    };
    let median = 50 * MILLION;
    let operator = match kind {
        "event_count" | "value_count" | "temporal" => counting(kind, &condition, timespan, source, problems),
        "temporal_ordered" => Some(Operator::TemporalOrdered(Sequence { steps: Vec::new(), timespan })),
        "x_new_value" => Some(Operator::NewValue(NewValue {
            history_days: source.days("x-history", HISTORY_DAYS, problems),
            known_after_days: source.known_after(problems),
            min_days: source.days("x-min-days", MIN_DAYS, problems),
            min_days_seen: source.days("x-min-days-seen", MIN_DAYS_SEEN, problems),
            least: source.least(problems),
        })),
        "x_absence" => Some(Operator::Absence(source.absence(timespan, problems))),
        "x_spike" => Some(Operator::Spike(spike(timespan, source, problems))),
        "x_travel" => Some(Operator::Travel(Travel {
            timespan,
            speed_kmh: source.number("x-speed", SPEED_KMH, problems),
            distance_km: source.number("x-distance", DISTANCE_KM, problems),
            must_differ: source.entry("x-differs").is_some(),
        })),
        _ => {
            if condition.bounds.is_empty() {
                problems.add(Code::MissingKey, source.node.place, format!("{kind} has a condition such as 'gte: 10'"));
            }
            let measure = match (kind, condition.percentile) {
                ("value_sum", _) => Measure::Sum,
                ("value_avg", _) => Measure::Average,
                ("value_median", _) => Measure::Percentile(median),
                ("x_ratio", _) => Measure::Ratio(source.ratio(problems)),
                (_, Some(percentile)) => Measure::Percentile(percentile),
                (_, None) => Measure::Share,
            };
            aggregate(measure, &condition)
        }
    };
    let x_field = source.entry("x-field").and_then(|entry| {
        let name = read::text(entry, problems)?.to_owned();
        Some(Named { name, place: entry.value.place })
    });
    match (kind, &x_field) {
        ("x_new_value", None) => {
            problems.add(Code::MissingKey, source.node.place, "x_new_value has the 'x-field' whose values are new");
        }
        ("x_travel", None) => {
            problems.add(Code::MissingKey, source.node.place, "x_travel has the 'x-field' of the address to be placed");
        }
        ("x_new_value" | "x_travel", Some(_)) | (_, None) => {}
        (_, Some(field)) => {
            let message = format!("'x-field' belongs to x_new_value and x_travel, not to {kind}");
            problems.add(Code::InvalidValue, field.place, message);
        }
    }
    let differs = source.names("x-differs", problems);
    for (key, of) in KEYS_OF_ONE.iter().filter(|(_, of)| *of != kind) {
        if let Some(entry) = source.entry(key) {
            problems.add(Code::InvalidValue, entry.place, format!("'{key}' belongs to {of}, not to {kind}"));
        }
    }
    let values: Vec<Named> = condition.fields.into_iter().chain(x_field).chain(differs).collect();
    (operator, values)
}

/// What `x-same` says: rule and field. The first place of the sequence shares, for what a chain may begin with would else
/// be looked at once for each value.
fn same(kind: &str, rules: &[Named], source: &Source<'_>, problems: &mut Problems<'_>) -> Vec<(Named, Named)> {
    let entries = source.of_rules("x-same", kind, rules, problems);
    let (Some(key), false) = (source.entry("x-same"), entries.is_empty()) else { return Vec::new() };
    let shares = |rule: &Named| entries.iter().any(|(named, _)| named.name == rule.name);
    if rules.iter().filter(|rule| shares(rule)).count() < 2 {
        let message = "a value is the same in two places of the sequence or more";
        problems.add_help(Code::InvalidValue, key.place, message, "name two rules, or one that stands in two places");
    } else if !rules.first().is_some_and(shares) {
        let message = "the first of 'rules' is one of those with the same value";
        problems.add_help(Code::Unsupported, key.place, message, "begin the sequence with a record that has it");
    }
    let field = |(rule, entry): (Named, &Entry)| {
        let field = read::text(entry, problems)?.to_owned();
        Some((rule, Named { name: field, place: entry.value.place }))
    };
    entries.into_iter().filter_map(field).collect()
}

/// What `x-pause` says: rule, and how long nothing counts after its record.
fn pauses(
    kind: &str,
    rules: &[Named],
    timespan: Option<TimeDelta>,
    source: &Source<'_>,
    problems: &mut Problems<'_>,
) -> Vec<(Named, TimeDelta)> {
    let mut pauses: Vec<(Named, TimeDelta)> = Vec::new();
    for (rule, entry) in source.of_rules("x-pause", kind, rules, problems) {
        let followed = rules.split_last().is_some_and(|(_, others)| others.iter().any(|other| other.name == rule.name));
        if !followed && rules.iter().any(|other| other.name == rule.name) {
            problems.add(Code::InvalidValue, entry.place, format!("nothing follows '{}'", rule.name));
        }
        pauses.extend(read::timespan(entry, problems).map(|pause| (rule, pause)));
    }
    let of_place = |place: &Named| pauses.iter().find(|(rule, _)| rule.name == place.name).map(|(_, pause)| *pause);
    let places = rules.split_last().map_or(&[][..], |(_, others)| others);
    let all = places.iter().filter_map(of_place).try_fold(TimeDelta::zero(), |sum, pause| sum.checked_add(&pause));
    if let (Some(key), Some(timespan)) = (source.entry("x-pause"), timespan)
        && all.is_none_or(|all| all > timespan)
    {
        problems.add(Code::InvalidValue, key.place, "the pauses are longer than the timespan: it can never hold");
    }
    pauses
}

/// The operators that count. Without an upper bound more records only make them truer, and they are cheaper so.
fn counting(
    kind: &str,
    condition: &Condition,
    timespan: TimeDelta,
    source: &Source<'_>,
    problems: &mut Problems<'_>,
) -> Option<Operator> {
    if condition.bounds.is_empty() && kind != "temporal" {
        problems.add(Code::MissingKey, source.node.place, format!("{kind} has a condition such as 'gte: 10'"));
        return None;
    }
    let at_least = |bound: &Bound| match bound.comparison {
        Comparison::GreaterOrEqual | Comparison::Equal => Some((bound.millionths - 1).div_euclid(MILLION.into()) + 1),
        Comparison::Greater => Some(bound.millionths.div_euclid(MILLION.into()) + 1),
        _ => None,
    };
    let least = condition.bounds.iter().filter_map(at_least).max();
    if condition.bounds.iter().any(|bound| !bound.comparison.is_lower()) {
        if least.is_none_or(|least| least < 1) {
            let message = "without a lower bound this holds for everybody before anything has happened: it cannot be \
                           decided by the records that are there";
            let help = "add 'gte: 1' or more; for what is missing, ask the archive";
            problems.add_help(Code::Unsupported, condition.place, message, help);
            return None;
        }
        let measure = match kind {
            "event_count" => Measure::Events,
            "value_count" => Measure::Values,
            _ => Measure::Rules,
        };
        return Some(Operator::Aggregate(Aggregate { measure, bounds: condition.bounds.clone(), timespan }));
    }
    let least = least.unwrap_or(0);
    if least < 1 && !condition.bounds.is_empty() {
        problems.add(Code::InvalidValue, condition.place, "a count of at least 0 always holds: ask for 1 or more");
        return None;
    }
    Some(match kind {
        "event_count" => Operator::EventCount { at_least: u64::try_from(least).unwrap_or(u64::MAX), timespan },
        "value_count" => Operator::ValueCount { at_least: u64::try_from(least).unwrap_or(u64::MAX), timespan },
        _ => Operator::Temporal { at_least: usize::try_from(least).unwrap_or(usize::MAX), timespan },
    })
}

fn spike(timespan: TimeDelta, source: &Source<'_>, problems: &mut Problems<'_>) -> Spike {
    let floor = source.count("x-floor", SPIKE_FLOOR, problems);
    let factor = |key: &str, default: f64, problems: &mut Problems<'_>| {
        source.entry(key).and_then(|entry| read::factor(entry, problems)).unwrap_or(default)
    };
    Spike {
        timespan,
        floor,
        ratio: factor("x-ratio", SPIKE_RATIO, problems),
        deviations: factor("x-deviations", SPIKE_DEVIATIONS, problems),
        history_days: source.days("x-history", HISTORY_DAYS, problems),
        min_days: source.days("x-min-days", MIN_DAYS, problems),
        cold_floor: source.count("x-cold-floor", floor.saturating_mul(SPIKE_COLD_FACTOR), problems),
    }
}

fn aliases(node: &Node, problems: &mut Problems<'_>) -> Vec<(Named, Vec<(Named, Named)>)> {
    let mut aliases = Vec::new();
    let Some(entry) = node.entry("aliases") else {
        return aliases;
    };
    for alias in read::map(entry, problems).unwrap_or_default() {
        let mut fields = Vec::new();
        for field in read::map(alias, problems).unwrap_or_default() {
            if let Some(name) = read::text(field, problems) {
                let rule = Named { name: field.key.clone(), place: field.place };
                fields.push((rule, Named { name: name.to_owned(), place: field.value.place }));
            }
        }
        aliases.push((Named { name: alias.key.clone(), place: alias.place }, fields));
    }
    aliases
}
