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

pub const RSIGMA: &str = "rsigma 0.23";
pub const SIGMA_RUST: &str = "sigma-rust 0.7";
pub const ENGINES: [&str; 2] = [RSIGMA, SIGMA_RUST];

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

/// Changes a question into one or several, one of which must have harrier's answer.
type Change = fn(&Rule<'_>, &Map<String, Value>) -> Vec<Map<String, Value>>;

/// Why an engine may have another answer, and the change in the question that proves it.
pub struct Explanation {
    pub name: &'static str,
    /// The engines of which it is true.
    pub engines: &'static [&'static str],
    pub change: Change,
}

const fn explanation(name: &'static str, engines: &'static [&'static str], change: Change) -> Explanation {
    Explanation { name, engines, change }
}

/// All of them, in the order in which a question is changed.
pub const EXPLANATIONS: &[Explanation] = &[
    explanation("a long s (U+017F) is an s: harrier folds case, the others make it lower", &ENGINES, folded),
    explanation("sigma-rust compares lists with nothing", &[SIGMA_RUST], one_member),
    explanation(
        "operations are compared without their final full stop, and any dash of a rule's is '-'",
        &ENGINES,
        operations_as_written,
    ),
    explanation("the portals' category KeyManagement is Key in the audit log", &ENGINES, categories_as_written),
    explanation(
        "an alert's status 'success' says that it was raised: in the audit log, that its operation is Alert...",
        &ENGINES,
        raised_as_written,
    ),
    explanation(
        "a description that only says again what the operation or error number beside it says is not asked for",
        &ENGINES,
        implied_as_written,
    ),
];

fn folded(rule: &Rule<'_>, view: &Map<String, Value>) -> Vec<Map<String, Value>> {
    changed(rule, view, |_, value| {
        // Inside lists as well: it is the letter that is changed, wherever it stands.
        serde_json::from_str(&value.to_string().replace('\u{17f}', "s")).ok()
    })
}

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

/// An operation that the rule asks for, as the rule spells it.
fn operations_as_written(rule: &Rule<'_>, view: &Map<String, Value>) -> Vec<Map<String, Value>> {
    let here = |written: &str| {
        let bare = written.trim_end().trim_end_matches('.').trim_end();
        bare.replace(['\u{2010}', '\u{2011}', '\u{2012}', '\u{2013}', '\u{2014}', '\u{2015}', '\u{2212}'], "-")
    };
    respelt(rule, view, "operation_key", |value, written| {
        (here(written).to_lowercase() == *value).then(|| written.to_owned())
    })
}

/// A category as the rule spells it. A record that has the portals' word itself is none that harrier asks for.
fn categories_as_written(rule: &Rule<'_>, view: &Map<String, Value>) -> Vec<Map<String, Value>> {
    respelt(rule, view, "ExtendedProperties.extendedAuditEventCategory", |value, written| {
        match written.strip_suffix("Management") {
            Some(here) if here.to_lowercase() == *value => Some(written.to_owned()),
            Some(_) if written.to_lowercase() == *value => Some(String::new()),
            _ => None,
        }
    })
}

/// A record whose operation is 'success' is no alert that was raised.
fn raised_as_written(rule: &Rule<'_>, view: &Map<String, Value>) -> Vec<Map<String, Value>> {
    changed(rule, view, |asked, value| {
        let is_status = asked.means == ["operation"] && asked.name.eq_ignore_ascii_case("status");
        let raised = value.as_str().is_some_and(|text| text.to_lowercase().starts_with("alert"));
        is_status.then(|| json!(if raised { "success" } else { "" }))
    })
}

/// What the rule asks for in the lines that harrier leaves out: those of each search.
fn implied_as_written(rule: &Rule<'_>, view: &Map<String, Value>) -> Vec<Map<String, Value>> {
    let mut views = Vec::new();
    for search in rule.parsed.detection.named.values() {
        let mut view = view.clone();
        for_each_line(search, &mut |name, _, values| {
            let is_left_out = rule.asks.iter().all(|asked| asked.name != name);
            let implied = ["resultdescription", "loggedbyservice"].contains(&name.to_ascii_lowercase().as_str());
            if let (true, true, Some(text)) = (is_left_out, implied, values.iter().find_map(written)) {
                view.insert(name.to_owned(), json!(text));
            }
        });
        views.push(view);
    }
    views
}

/// The question with the values of some fields changed.
fn changed(
    rule: &Rule<'_>,
    view: &Map<String, Value>,
    change: impl Fn(&Asked, &Value) -> Option<Value>,
) -> Vec<Map<String, Value>> {
    let mut view = view.clone();
    for asked in rule.asks {
        if let Some(value) = view.get(&asked.name).and_then(|value| change(asked, value)) {
            view.insert(asked.name.clone(), value);
        }
    }
    vec![view]
}

/// The question with texts of the fields that mean this spelt otherwise. `spelling` is given one in lower case and what
/// the rule asks for.
fn respelt(
    rule: &Rule<'_>,
    view: &Map<String, Value>,
    meaning: &str,
    spelling: impl Fn(&String, &str) -> Option<String>,
) -> Vec<Map<String, Value>> {
    let asked_for = spellings(rule.parsed);
    changed(rule, view, |asked, value| {
        if asked.means != [meaning] {
            return None;
        }
        let one = |value: &Value| {
            let text = value.as_str()?.to_lowercase();
            let written = asked_for.iter().filter(|(name, _)| *name == asked.name);
            written.map(|(_, written)| spelling(&text, written)).find_map(|found| found.map(Value::String))
        };
        match value {
            Value::Array(members) => {
                Some(members.iter().map(|member| one(member).unwrap_or_else(|| member.clone())).collect())
            }
            value => one(value),
        }
    })
}

/// The whole texts that the lines of a rule ask for, with their fields.
fn spellings(rule: &SigmaRule) -> Vec<(String, String)> {
    let mut spellings = Vec::new();
    for search in rule.detection.named.values() {
        for_each_line(search, &mut |name, modifiers, values| {
            if !modifiers.contains(&Modifier::Contains) && !modifiers.contains(&Modifier::StartsWith) {
                spellings.extend(values.iter().filter_map(written).map(|text| (name.to_owned(), text)));
            }
        });
    }
    spellings
}

fn written(value: &SigmaValue) -> Option<String> {
    match value {
        SigmaValue::String(text) => Some(text.original.clone()),
        _ => None,
    }
}

/// Is called with the field, modifiers and values of a line.
type Visit<'v> = dyn FnMut(&str, &[Modifier], &[SigmaValue]) + 'v;

fn for_each_line(search: &Detection, visit: &mut Visit<'_>) {
    match search {
        Detection::AllOf(items) => {
            for item in items {
                visit(item.field.name.as_deref().unwrap_or_default(), &item.field.modifiers, &item.values);
            }
        }
        Detection::AnyOf(searches) | Detection::And(searches) => {
            searches.iter().for_each(|inner| for_each_line(inner, visit));
        }
        _ => {}
    }
}
