//! The record as another engine is asked about it, and what may be changed in the question so that it answers as harrier.
//!
//! Rules of SigmaHQ use names for fields that only harrier translates. So the record is given with those names beside
//! its own keys, each with the values that harrier's paths select: engines differ in what they make of values, not in
//! where they find them.
//!
//! A difference is explained only where the explanation is proved: the question is changed in what the explanation
//! names and in nothing else, and then the other engine says what harrier says.

use detect::rule::condition::Asked;
use rsigma_parser::{Detection, Modifier, SigmaRule, SigmaValue};
use schemas::Event;
use schemas::path::{Path, Scalar, for_each_leaf};
use serde_json::{Map, Value, json};

/// Most questions that one becomes where each member of lists is asked alone.
const QUESTIONS_MAX: usize = 512;

/// The fields of a rule, in its own names, and where their values are.
pub type Names = Vec<(String, Vec<Path>)>;

/// The paths of what a rule asks for.
pub fn paths(asked: &Asked) -> Vec<Path> {
    asked.means.iter().map(|name| Path::parse(name)).collect()
}

/// The record with those names.
pub fn view(record: &Value, event: &Event, names: &Names) -> Value {
    let mut view = record.as_object().expect("an object").clone();
    for (name, paths) in names {
        match selected(event, paths) {
            Some(value) => drop(view.insert(name.clone(), value)),
            None => drop(view.remove(name)),
        }
    }
    Value::Object(view)
}

/// What harrier's paths select: nothing where the field is not there, a list unless it is one value.
fn selected(event: &Event, paths: &[Path]) -> Option<Value> {
    let (mut values, mut present) = (Vec::new(), false);
    for path in paths {
        let mut found = Vec::new();
        present |= path.select(event, &mut found);
        if found.is_empty() {
            // A path that ends at objects has the values inside them.
            path.for_each_member(event.record(), &mut |member| {
                for_each_leaf(member, &mut |text| values.push(json!(text)));
            });
        }
        values.extend(found.iter().map(|scalar| match scalar {
            Scalar::Null => Value::Null,
            Scalar::Boolean(value) => json!(value),
            Scalar::Integer(value) => json!(value),
            Scalar::Float(value) => json!(value),
            Scalar::Text(text) => json!(text),
        }));
    }
    match values.len() {
        0 if !present => None,
        1 => values.pop(),
        _ => Some(Value::Array(values)),
    }
}

/// What a change may look at.
pub struct Rule<'r> {
    pub parsed: &'r SigmaRule,
    pub asks: &'r [Asked],
}

/// Changes a question into one or several: the engine selects the record if it selects one of them.
type Change = fn(&Rule<'_>, &Map<String, Value>) -> Vec<Map<String, Value>>;

/// Every explanation, and the change in the question that proves it.
pub const CHANGES: &[(&str, Change)] = &[
    ("lists are compared with nothing; harrier asks for any member (decision 1)", one_member),
    ("a field that is absent or an empty list is null to harrier (decision 2)", absent_is_null),
    ("operations are compared without final full stop, with any dash as '-'", operations_as_written),
    ("success and failure have several words in the portals", outcomes_as_written),
    ("the portals' category UserManagement is User in the audit log", categories_as_written),
    ("alerts have 'success' as status where the audit log has the operation Alert...", raised_as_written),
    ("what only says again what the operation or error number beside it says is left out", implied_as_written),
    ("a number in a rule equals the same number written as text", numbers_as_numbers),
    ("a text in a rule equals the same number", numbers_as_texts),
];

/// Each member of each list alone.
fn one_member(rule: &Rule<'_>, view: &Map<String, Value>) -> Vec<Map<String, Value>> {
    let mut views = vec![view.clone()];
    for asked in rule.asks {
        let Some(Value::Array(members)) = view.get(&asked.name) else { continue };
        let with = |view: &Map<String, Value>, member: &Value| {
            let mut view = view.clone();
            view.insert(asked.name.clone(), member.clone());
            view
        };
        if !members.is_empty() {
            let longer = views.iter().flat_map(|view| members.iter().map(move |member| with(view, member)));
            views = longer.take(QUESTIONS_MAX).collect();
        }
    }
    views
}

fn absent_is_null(rule: &Rule<'_>, view: &Map<String, Value>) -> Vec<Map<String, Value>> {
    changed(rule, view, |_, value| match value {
        None => Some(Value::Null),
        Some(Value::Array(members)) if members.is_empty() => Some(Value::Null),
        Some(_) => None,
    })
}

fn operations_as_written(rule: &Rule<'_>, view: &Map<String, Value>) -> Vec<Map<String, Value>> {
    spelt(rule, view, "operation_key", |written| {
        let bare = written.trim_end().trim_end_matches('.').trim_end();
        bare.replace(['\u{2010}', '\u{2011}', '\u{2012}', '\u{2013}', '\u{2014}', '\u{2015}', '\u{2212}'], "-")
    })
}

fn outcomes_as_written(rule: &Rule<'_>, view: &Map<String, Value>) -> Vec<Map<String, Value>> {
    spelt(rule, view, "outcome", |written| match written.to_ascii_lowercase().as_str() {
        "succeeded" => "success".to_owned(),
        "failed" => "failure".to_owned(),
        other => other.to_owned(),
    })
}

fn categories_as_written(rule: &Rule<'_>, view: &Map<String, Value>) -> Vec<Map<String, Value>> {
    let own = |written: &str| written.strip_suffix("Management").unwrap_or(written).to_owned();
    spelt(rule, view, "ExtendedProperties.extendedAuditEventCategory", own)
}

fn raised_as_written(rule: &Rule<'_>, view: &Map<String, Value>) -> Vec<Map<String, Value>> {
    changed(rule, view, |asked, value| {
        let is_status = asked.means == ["operation"] && asked.name.eq_ignore_ascii_case("status");
        let raised = value.and_then(Value::as_str).is_some_and(|text| text.to_ascii_lowercase().starts_with("alert"));
        // A record whose operation is 'success' is no alert that was raised.
        is_status.then(|| json!(if raised { "success" } else { "" }))
    })
}

/// What the rule asks for in the lines that harrier leaves out.
fn implied_as_written(rule: &Rule<'_>, view: &Map<String, Value>) -> Vec<Map<String, Value>> {
    let mut view = view.clone();
    for_each_line(rule.parsed, &mut |name, _, values| {
        if ["resultdescription", "loggedbyservice"].contains(&name.to_ascii_lowercase().as_str())
            && rule.asks.iter().all(|asked| asked.name != name)
        {
            view.insert(name.to_owned(), json!(values.iter().filter_map(written).collect::<Vec<_>>().join(" ")));
        }
    });
    vec![view]
}

fn numbers_as_numbers(rule: &Rule<'_>, view: &Map<String, Value>) -> Vec<Map<String, Value>> {
    changed(rule, view, |_, value| {
        let number = value?.as_str()?.trim().parse::<i64>().ok()?;
        Some(json!(number))
    })
}

fn numbers_as_texts(rule: &Rule<'_>, view: &Map<String, Value>) -> Vec<Map<String, Value>> {
    changed(rule, view, |_, value| Some(json!(value?.as_i64()?.to_string())))
}

/// The question with some fields changed.
fn changed(
    rule: &Rule<'_>,
    view: &Map<String, Value>,
    change: impl Fn(&Asked, Option<&Value>) -> Option<Value>,
) -> Vec<Map<String, Value>> {
    let mut view = view.clone();
    for asked in rule.asks {
        if let Some(value) = change(asked, view.get(&asked.name)) {
            view.insert(asked.name.clone(), value);
        }
    }
    vec![view]
}

/// The question where a value that equals what the rule's value is here, is spelt as the rule spells it.
fn spelt(
    rule: &Rule<'_>,
    view: &Map<String, Value>,
    meaning: &str,
    here: impl Fn(&str) -> String,
) -> Vec<Map<String, Value>> {
    let mut spellings = Vec::new();
    for_each_line(rule.parsed, &mut |name, modifiers, values| {
        if !modifiers.contains(&Modifier::Contains) && !modifiers.contains(&Modifier::StartsWith) {
            spellings.extend(values.iter().filter_map(written).map(|text| (name.to_owned(), text)));
        }
    });
    changed(rule, view, |asked, value| {
        let value = value?.as_str()?;
        let equals = |(name, text): &&(String, String)| {
            *name == asked.name && here(text).to_lowercase() == value.to_lowercase()
        };
        let found = spellings.iter().find(equals).filter(|_| asked.means == [meaning]);
        found.map(|(_, text)| json!(text))
    })
}

fn written(value: &SigmaValue) -> Option<String> {
    match value {
        SigmaValue::String(text) => Some(text.original.clone()),
        _ => None,
    }
}

/// Calls `visit` with the field, modifiers and values of each line.
fn for_each_line(rule: &SigmaRule, visit: &mut dyn FnMut(&str, &[Modifier], &[SigmaValue])) {
    fn each(search: &Detection, visit: &mut dyn FnMut(&str, &[Modifier], &[SigmaValue])) {
        match search {
            Detection::AllOf(items) => {
                for item in items {
                    visit(item.field.name.as_deref().unwrap_or_default(), &item.field.modifiers, &item.values);
                }
            }
            Detection::AnyOf(searches) | Detection::And(searches) => {
                searches.iter().for_each(|inner| each(inner, visit));
            }
            _ => {}
        }
    }
    rule.detection.named.values().for_each(|named| each(named, visit));
}
