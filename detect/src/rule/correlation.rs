//! The `correlation` section: Sigma's correlations that more records can only make truer, and harrier's baselines.
//!
//! A condition with an upper bound (`lt`, `lte`, `eq`, `neq`) holds only once it is known that nothing more comes. It is
//! refused, so that no rule is silently decided too early.

use chrono::TimeDelta;

use super::model::{NewValue, Operator, Spike};
use super::names;
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
    /// `Temporal` with 0 for all members; `TemporalOrdered` without members.
    pub operator: Operator,
    pub value: Option<Named>,
    pub gap: TimeDelta,
    /// Whether the rules it refers to make findings as well.
    pub generate: bool,
}

const TYPES: &[&str] = &["event_count", "value_count", "temporal", "temporal_ordered", "x_new_value", "x_spike"];
const KEYS: &[&str] = &["type", "rules", "group-by", "timespan", "aliases", "condition", "generate"];

/// Keys of the baselines; they may stand in the section or at the top of the rule.
pub const BASELINE_KEYS: &[&str] = &[
    "x-cold-floor",
    "x-deviations",
    "x-field",
    "x-floor",
    "x-history",
    "x-learn",
    "x-min-days",
    "x-min-days-seen",
    "x-ratio",
    "x-weight",
];

const HISTORY_DAYS: u32 = 30;
const MIN_DAYS: u32 = 7;
const MIN_DAYS_SEEN: u32 = 5;
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
    let kind = kind(node, problems)?;
    let source = Source { node, document };
    let rules = source.names("rules", problems);
    if rules.is_empty() {
        problems.add(Code::MissingKey, node.place, "a correlation names the 'rules' it looks at");
    }
    let timespan = node.entry("timespan").map(|entry| read::timespan(entry, problems));
    let timespan = match (timespan, kind) {
        (Some(timespan), _) => timespan,
        (None, "x_spike") => Some(TimeDelta::days(1)),
        (None, "x_new_value") => Some(TimeDelta::days(1)),
        (None, _) => {
            problems.add(Code::MissingKey, node.place, format!("a correlation of type {kind} has a 'timespan'"));
            None
        }
    };
    let aliases = aliases(node, problems);
    let (operator, value) = operator(kind, timespan.unwrap_or_default(), &source, problems);
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
        value,
        gap: timespan?,
        generate,
    };
    complete.then_some(correlation)
}

fn kind(node: &Node, problems: &mut Problems<'_>) -> Option<&'static str> {
    let Some(entry) = node.entry("type") else {
        problems.add(Code::MissingKey, node.place, format!("a correlation has a 'type': {}", TYPES.join(", ")));
        return None;
    };
    let text = read::text(entry, problems)?;
    if let Some(kind) = TYPES.iter().find(|kind| **kind == text) {
        return Some(kind);
    }
    if matches!(text, "value_sum" | "value_avg" | "value_percentile" | "value_median") {
        let message = format!("correlations of type {text} are not supported: they need every record of the window");
        let help = "a sum of what can only grow: event_count with x-weight. More than usual: x_spike";
        problems.add_help(Code::Unsupported, entry.value.place, message, help);
    } else {
        let message = format!("'{}' is not a type of correlation", text.escape_debug());
        problems.add_name(Code::InvalidValue, entry.value.place, message, text, TYPES.iter().copied());
    }
    None
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

    fn count(&self, key: &str, default: u64, problems: &mut Problems<'_>) -> u64 {
        let count = self.entry(key).and_then(|entry| read::count(entry, 1, i64::MAX, problems));
        count.and_then(|count| u64::try_from(count).ok()).unwrap_or(default)
    }

    fn days(&self, key: &str, default: u32, problems: &mut Problems<'_>) -> u32 {
        let days = self.entry(key).and_then(|entry| match key {
            "x-history" => read::days(entry, problems),
            _ => read::count(entry, 0, 366, problems).and_then(|days| u32::try_from(days).ok()),
        });
        days.unwrap_or(default)
    }
}

fn operator(
    kind: &str,
    timespan: TimeDelta,
    source: &Source<'_>,
    problems: &mut Problems<'_>,
) -> (Option<Operator>, Option<Named>) {
    let condition = Condition::parse(kind, source.node, problems);
    let Some(Condition { at_least, field }) = condition else {
        return (None, None);
    };
    let required = |problems: &mut Problems<'_>| {
        if at_least.is_none() {
            problems.add(Code::MissingKey, source.node.place, format!("{kind} has a condition such as 'gte: 10'"));
        }
        at_least
    };
    let operator = match kind {
        "event_count" => required(problems).map(|at_least| Operator::EventCount { at_least, timespan }),
        "value_count" => {
            if field.is_none() {
                problems.add(
                    Code::MissingKey,
                    source.node.place,
                    "value_count has a condition with the 'field' it counts",
                );
            }
            required(problems).map(|at_least| Operator::ValueCount { at_least, timespan })
        }
        "temporal" => {
            let at_least = usize::try_from(at_least.unwrap_or(0)).unwrap_or(usize::MAX);
            Some(Operator::Temporal { at_least, timespan })
        }
        "temporal_ordered" => Some(Operator::TemporalOrdered { members: Vec::new(), timespan }),
        "x_new_value" => Some(Operator::NewValue(NewValue {
            history_days: source.days("x-history", HISTORY_DAYS, problems),
            min_days: source.days("x-min-days", MIN_DAYS, problems),
            min_days_seen: source.days("x-min-days-seen", MIN_DAYS_SEEN, problems),
        })),
        _ => Some(Operator::Spike(spike(timespan, source, problems))),
    };
    let x_field = source.entry("x-field").and_then(|entry| {
        let name = read::text(entry, problems)?.to_owned();
        Some(Named { name, place: entry.value.place })
    });
    match (kind, &x_field) {
        ("x_new_value", None) => {
            problems.add(Code::MissingKey, source.node.place, "x_new_value has the 'x-field' whose values are new");
        }
        ("x_new_value", Some(_)) | (_, None) => {}
        (_, Some(field)) => {
            problems.add(Code::InvalidValue, field.place, format!("'x-field' belongs to x_new_value, not to {kind}"));
        }
    }
    let value = field.or(x_field);
    if let Some(value) = &value {
        names::check(&value.name, value.place, problems);
    }
    (operator, value)
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

/// What a `condition` asks for.
#[derive(Default)]
struct Condition {
    at_least: Option<u64>,
    field: Option<Named>,
}

impl Condition {
    fn parse(kind: &str, node: &Node, problems: &mut Problems<'_>) -> Option<Condition> {
        let mut condition = Condition::default();
        let Some(entry) = node.entry("condition") else {
            return Some(condition);
        };
        let place = entry.value.place;
        if kind.starts_with("x_") || kind == "temporal_ordered" {
            problems.add(Code::Unsupported, place, format!("{kind} has no condition: it asks for all of its rules"));
            return None;
        }
        if entry.value.text().is_some() {
            let message = "a condition over the names of rules is not part of Sigma 2.1: leave it out for all of them, or count them with 'gte'";
            problems.add(Code::Unsupported, place, message);
            return None;
        }
        let before = problems.count();
        for entry in read::map(entry, problems)? {
            let bound = |least: i64, problems: &mut Problems<'_>| {
                let number = read::count(entry, least, i64::MAX - 1, problems)?;
                u64::try_from(number + i64::from(least == 0)).ok()
            };
            match entry.key.as_str() {
                // `gt: n` is "at least n + 1". Several bounds hold together: the highest one decides.
                "gt" => condition.at_least = condition.at_least.max(bound(0, problems)),
                "gte" => condition.at_least = condition.at_least.max(bound(1, problems)),
                "lt" | "lte" | "eq" | "neq" => {
                    let message = format!(
                        "'{}' can turn false again with the next record, so it cannot be decided yet",
                        entry.key
                    );
                    let help = "use gte or gt: conditions that more records can only make truer";
                    problems.add_help(Code::Unsupported, entry.place, message, help);
                }
                "field" if kind == "value_count" => condition.field = field(entry, problems),
                "field" => problems.add(
                    Code::InvalidValue,
                    entry.place,
                    format!("{kind} counts no values: 'field' belongs to value_count"),
                ),
                key => {
                    let message = format!("unknown key '{}' in a condition", key.escape_debug());
                    problems.add_name(Code::UnknownKey, entry.place, message, key, ["gt", "gte", "field"]);
                }
            }
        }
        (problems.count() == before).then_some(condition)
    }
}

fn field(entry: &Entry, problems: &mut Problems<'_>) -> Option<Named> {
    match read::texts(entry, problems).as_slice() {
        [(name, node)] => Some(Named { name: (*name).to_owned(), place: node.place }),
        _ => {
            problems.add(Code::Unsupported, entry.value.place, "value_count counts the values of one field");
            None
        }
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
                names::check(name, field.value.place, problems);
                let rule = Named { name: field.key.clone(), place: field.place };
                fields.push((rule, Named { name: name.to_owned(), place: field.value.place }));
            }
        }
        aliases.push((Named { name: alias.key.clone(), place: alias.place }, fields));
    }
    aliases
}
