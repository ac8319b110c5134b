//! The `condition` of a correlation: bounds, the field that is looked at, a percentile.

use super::correlation::Named;
use super::model::{Bound, Comparison};
use super::read;
use super::report::{Code, Problems};
use super::yaml::{Entry, Node, Place, Value};

/// Numbers are kept to the millionth.
pub(super) const MILLION: i64 = 1_000_000;

/// What a `condition` asks for.
#[derive(Default)]
pub(super) struct Condition {
    pub place: Place,
    /// In the order of their keys' names.
    pub bounds: Vec<Bound>,
    pub fields: Vec<Named>,
    pub percentile: Option<i64>,
}

const BOUNDS: &[(&str, Comparison)] = &[
    ("eq", Comparison::Equal),
    ("gt", Comparison::Greater),
    ("gte", Comparison::GreaterOrEqual),
    ("lt", Comparison::Less),
    ("lte", Comparison::LessOrEqual),
    ("neq", Comparison::NotEqual),
];

impl Condition {
    pub fn parse(kind: &str, node: &Node, problems: &mut Problems<'_>) -> Option<Condition> {
        let mut condition = Condition { place: node.place, ..Condition::default() };
        let Some(entry) = node.entry("condition") else {
            return Some(condition);
        };
        let place = entry.value.place;
        condition.place = place;
        if (kind.starts_with("x_") && kind != "x_ratio") || kind == "temporal_ordered" {
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
            let key = entry.key.as_str();
            if let Some((_, comparison)) = BOUNDS.iter().find(|(name, _)| *name == key) {
                let counts = matches!(kind, "event_count" | "value_count" | "temporal");
                if let Some(millionths) = millionths(entry, counts, problems) {
                    condition.bounds.push(Bound { comparison: *comparison, millionths: millionths.into() });
                }
                continue;
            }
            match key {
                "field" if kind.starts_with("value_") => condition.fields = fields(kind, entry, problems),
                "field" => {
                    let message = format!("{kind} looks at no values: 'field' belongs to value_count and its kin");
                    problems.add(Code::InvalidValue, entry.place, message);
                }
                "percentile" if kind == "value_percentile" => {
                    condition.percentile = millionths(entry, false, problems);
                    if condition.percentile.is_some_and(|percentile| percentile <= 0 || percentile > 100 * MILLION) {
                        let message = "a percentile is above 0 and at most 100";
                        problems.add(Code::InvalidValue, entry.value.place, message);
                    }
                }
                "percentile" => {
                    let message = format!("{kind} has no percentile: 'percentile' belongs to value_percentile");
                    problems.add(Code::InvalidValue, entry.place, message);
                }
                key => {
                    let message = format!("unknown key '{}' in a condition", key.escape_debug());
                    let known = BOUNDS.iter().map(|(name, _)| *name).chain(["field", "percentile"]);
                    problems.add_name(Code::UnknownKey, entry.place, message, key, known);
                }
            }
        }
        condition.bounds.sort_by_key(|bound| (bound.comparison as u8, bound.millionths));
        (problems.count() == before).then_some(condition)
    }
}

/// A number to the millionth; a count is whole and not negative.
fn millionths(entry: &Entry, is_count: bool, problems: &mut Problems<'_>) -> Option<i64> {
    if is_count {
        return read::count(entry, 0, i64::MAX / MILLION, problems)?.checked_mul(MILLION);
    }
    match entry.value.value {
        Value::Integer(number) if number.unsigned_abs() <= (i64::MAX / MILLION).unsigned_abs() => {
            Some(number * MILLION)
        }
        Value::Float(number) if number.abs() < 9e12 => Some((number * MILLION as f64).round() as i64),
        _ => {
            let message = format!("'{}' is a number, not {}", entry.key, entry.value.kind());
            problems.add(Code::InvalidValue, entry.value.place, message);
            None
        }
    }
}

fn fields(kind: &str, entry: &Entry, problems: &mut Problems<'_>) -> Vec<Named> {
    let named = |(name, node): (&str, &Node)| Named { name: name.to_owned(), place: node.place };
    let fields: Vec<Named> = read::texts(entry, problems).into_iter().map(named).collect();
    if fields.len() > 1 && kind != "value_count" {
        let message = format!("{kind} looks at the values of one field; value_count takes several together");
        problems.add(Code::InvalidValue, entry.value.place, message);
    }
    fields
}
