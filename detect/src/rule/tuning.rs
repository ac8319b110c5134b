//! What an operator changes about rules without touching them, in a file of its own that survives upgrades.
//!
//! ```toml
//! disable = ["rule-id-or-name"]
//!
//! [level]
//! "rule-id-or-name" = "low"
//!
//! [list]
//! Administrators = ["ana@contoso.com", "adm_*"]
//!
//! [[exception]]
//! rule = "rule-id-or-name"
//! field = "client_ip"
//! value = ["203.0.113.7", "198.51.100.*"]
//! owner = "ana"
//! reason = "our scanner"
//! expires = "2027-01-31"
//! ```
//! An exception takes records away from its rule before any window sees them. It holds for records of its last day and
//! of earlier ones, by the record's own time, so that a replay on another day says the same.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use schemas::Event;
use schemas::finding::Level;
use serde::Deserialize;

use super::names;
use super::pattern::Pattern;
use super::predicate::{Field, FieldPath, Item, Number, Scratch, Subject, Test, Written};
use super::report::{Code, Problems, RuleErrors};
use super::yaml::Place;

/// The operator's changes.
#[derive(Clone, Debug, Default)]
pub struct Tuning {
    pub(super) file: String,
    pub(super) text: String,
    pub(super) disable: Vec<(String, Place)>,
    pub(super) levels: Vec<(String, Level, Place)>,
    pub(super) exceptions: Vec<Exception>,
    /// Named lists of values, in the place of those that rule files define.
    pub(super) lists: BTreeMap<String, Vec<String>>,
}

/// Records that a rule does not want.
#[derive(Clone, Debug)]
pub struct Exception {
    pub rule: String,
    pub owner: String,
    pub reason: String,
    /// The last day of records it holds for.
    pub expires: Option<NaiveDate>,
    pub(super) place: Place,
    item: Item,
}

impl Exception {
    /// The line of the tuning file that it stands in.
    pub fn line(&self) -> usize {
        self.place.line
    }

    /// What it asks of a record.
    pub fn written(&self) -> &Written {
        &self.item.written
    }

    /// Whether the rule must not see the record.
    pub fn excludes(&self, event: &Event) -> bool {
        self.expires.is_none_or(|last| event.time().date_naive() <= last)
            && self.item.matches(Subject::Record(event), &mut Scratch::default())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    disable: Vec<toml::Spanned<String>>,
    #[serde(default)]
    level: BTreeMap<toml::Spanned<String>, toml::Spanned<String>>,
    #[serde(default)]
    list: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    exception: Vec<RawException>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawException {
    rule: toml::Spanned<String>,
    field: toml::Spanned<String>,
    value: OneOrMore,
    owner: String,
    reason: String,
    expires: Option<toml::Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl Tuning {
    /// Reads a tuning file. Whether the rules it names exist is checked when rules are loaded.
    pub fn parse(file: &str, text: &str) -> Result<Tuning, RuleErrors> {
        let mut errors = RuleErrors::default();
        let mut problems = Problems::new(file, text, &mut errors);
        let mut tuning = Tuning { file: file.to_owned(), text: text.to_owned(), ..Tuning::default() };
        match toml::from_str::<Raw>(text) {
            Ok(raw) => tuning.fill(raw, &mut problems),
            Err(error) => {
                let place = place(text, error.span().unwrap_or_default());
                problems.add(Code::InvalidTuning, place, error.message().to_owned());
            }
        }
        if errors.is_empty() { Ok(tuning) } else { Err(errors) }
    }

    fn fill(&mut self, raw: Raw, problems: &mut Problems<'_>) {
        let text = self.text.clone();
        let at = |span: std::ops::Range<usize>| place(&text, span);
        self.disable = raw.disable.into_iter().map(|rule| (rule.get_ref().clone(), at(rule.span()))).collect();
        self.lists = raw.list;
        for (rule, level) in raw.level {
            let found = Level::ALL.into_iter().find(|known| known.as_str() == level.get_ref().as_str());
            match found {
                Some(found) => self.levels.push((rule.get_ref().clone(), found, at(rule.span()))),
                None => {
                    let message = format!("'{}' is not a level", level.get_ref().escape_debug());
                    let names = Level::ALL.map(Level::as_str);
                    problems.add_name(Code::InvalidTuning, at(level.span()), message, level.get_ref(), names);
                }
            }
        }
        for exception in raw.exception {
            let place = at(exception.rule.span());
            let expires = exception.expires.as_ref().and_then(|expires| {
                let day = NaiveDate::parse_from_str(expires.get_ref(), "%Y-%m-%d");
                if day.is_err() {
                    problems.add(Code::InvalidTuning, at(expires.span()), "'expires' is a day: \"2027-01-31\"");
                }
                day.ok()
            });
            let values = match exception.value {
                OneOrMore::One(value) => vec![value],
                OneOrMore::More(values) => values,
            };
            if values.is_empty() || exception.owner.trim().is_empty() || exception.reason.trim().is_empty() {
                problems.add(Code::InvalidTuning, place, "an exception has a value, an owner and a reason");
            }
            let name = exception.field.get_ref();
            names::check(name, at(exception.field.span()), problems);
            let field = Field { paths: vec![FieldPath::parse(name)] };
            let test =
                |value: &String| Test::Text { pattern: Pattern::parse(value, false), number: Number::parse(value) };
            let tests = values.iter().map(test).collect();
            let written = Written::of(name, values.iter().map(|value| format!("'{value}'")));
            let item = Item { written, field: Some(field), tests, all: false, negated: false };
            let (rule, owner, reason) = (exception.rule.into_inner(), exception.owner, exception.reason);
            self.exceptions.push(Exception { rule, owner, reason, expires, place, item });
        }
    }
}

/// A place from a stretch of bytes.
fn place(text: &str, span: std::ops::Range<usize>) -> Place {
    let before = text.get(..span.start).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    Place {
        offset: before.len(),
        length: span.len().min(text.len() - before.len()),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    }
}
