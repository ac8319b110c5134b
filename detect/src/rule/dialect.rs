//! What field names mean that rules of other log sources use: the raw records, alerts, Log Analytics and the portals.
//!
//! The table is `dialects.yml`, and rule files may add documents of the same form (`x-dialect`). A name that is known to
//! have no counterpart refuses the rule, because a rule that loads and can never match is worse than one that does not
//! load.

use std::collections::BTreeMap;

use super::logsource::Dialect;
use super::names;
use super::read;
use super::report::{Code, Problems, RuleErrors};
use super::yaml::{self, Entry, Node};

const OWN: &str = include_str!("dialects.yml");

/// The key that makes a document a dialect's.
pub const KEY: &str = "x-dialect";

const DIALECTS: &[(&str, Dialect)] =
    &[("record", Dialect::Record), ("alert", Dialect::Alert), ("entra", Dialect::Entra)];

const VALUES: &[(&str, Values)] = &[
    ("same", Values::Same),
    ("operation", Values::Operation),
    ("outcome", Values::Outcome),
    ("category", Values::Category),
    ("raised", Values::Raised),
];

/// How the values of a translated field differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    Same,
    /// Operation names for comparing: no final full stop, dashes as '-'.
    Operation,
    /// Portal words for success and failure.
    Outcome,
    /// `UserManagement` is `User`.
    Category,
    /// An alert that was raised.
    Raised,
}

/// What a name of a dialect means here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Translation {
    /// Nothing special: the name is the record's own.
    Own,
    Fields(Vec<String>, Values),
    /// Says again what an operation or error number beside it says already: left out there, `NoData` elsewhere.
    Implied,
    /// The unified audit log does not have it.
    NoData,
}

impl Translation {
    /// Whether it names what the record is about, so that texts describing it add nothing.
    pub fn decides(&self) -> bool {
        matches!(self, Translation::Fields(names, _) if matches!(names.as_slice(), [one] if one == "operation_key" || one == "error_number"))
    }
}

/// All names of all dialects.
#[derive(Clone, Debug, Default)]
pub struct Dialects(BTreeMap<Dialect, Table>);

#[derive(Clone, Debug, Default)]
struct Table {
    any_case: bool,
    prefix: String,
    names: BTreeMap<String, Translation>,
    /// Names that rule files have added: part of what a rule means, because others may add others.
    added: BTreeMap<String, String>,
}

impl Table {
    /// The form in which a name is kept.
    fn key(&self, name: &str) -> String {
        let name = if self.any_case { name.to_ascii_lowercase() } else { name.to_owned() };
        name.strip_prefix(&self.prefix).map(str::to_owned).unwrap_or(name)
    }
}

impl Dialects {
    /// Those that harrier brings.
    pub fn own() -> Dialects {
        let (mut dialects, mut errors) = (Dialects::default(), RuleErrors::default());
        let mut problems = Problems::new("dialects.yml", OWN, &mut errors);
        for node in yaml::parse(OWN, &mut problems) {
            if let Some(entry) = node.entry(KEY) {
                dialects.read(&node, entry, None, &mut problems);
            }
        }
        debug_assert!(errors.is_empty(), "{errors}");
        dialects
    }

    /// Reads a document that adds names. `origin` is its file; none for our own.
    pub fn read(&mut self, node: &Node, entry: &Entry, origin: Option<&str>, problems: &mut Problems<'_>) {
        read::only_keys(node, &[KEY, "any-case", "prefix", "fields", "implied", "absent"], "a dialect", problems);
        let Some(name) = read::text(entry, problems) else { return };
        let Some((_, dialect)) = DIALECTS.iter().find(|(known, _)| *known == name) else {
            let message = format!("'{}' is not a dialect", name.escape_debug());
            problems.add_name(
                Code::InvalidValue,
                entry.value.place,
                message,
                name,
                DIALECTS.iter().map(|(name, _)| *name),
            );
            return;
        };
        let table = self.0.entry(*dialect).or_default();
        if origin.is_none() {
            table.any_case = node.get("any-case").is_some_and(|node| node.value == yaml::Value::Boolean(true));
            table.prefix = node.get("prefix").and_then(Node::text).unwrap_or_default().to_owned();
        }
        let mut found = Vec::new();
        for line in node.entry("fields").and_then(|entry| read::map(entry, problems)).unwrap_or_default() {
            if let Some(translation) = fields(line, problems) {
                found.push((line.key.as_str(), line.place, translation));
            }
        }
        for (key, meaning) in [("implied", Translation::Implied), ("absent", Translation::NoData)] {
            for (name, node) in node.entry(key).map(|entry| read::texts(entry, problems)).unwrap_or_default() {
                found.push((name, node.place, meaning.clone()));
            }
        }
        for (name, place, translation) in found {
            let key = table.key(name);
            let added = origin.map(|origin| format!("{origin}:{}", place.line));
            if let Some(other) = added.and_then(|place| table.added.insert(key.clone(), place)) {
                problems.add(Code::Duplicate, place, format!("'{name}' is already translated at {other}"));
            }
            table.names.insert(key, translation);
        }
    }

    /// What a name means in a dialect.
    pub fn translate(&self, dialect: Dialect, name: &str) -> Translation {
        let Some(table) = self.0.get(&dialect) else { return Translation::Own };
        table.names.get(&table.key(name)).cloned().unwrap_or(Translation::Own)
    }

    /// What a rule file has said of the name, as text; empty where it is harrier's own.
    pub fn canonical(&self, dialect: Dialect, name: &str) -> String {
        let Some(table) = self.0.get(&dialect) else { return String::new() };
        let key = table.key(name);
        let meaning = || format!("{key}={:?};", table.names.get(&key));
        table.added.get(&key).map(|_| meaning()).unwrap_or_default()
    }
}

/// `name: field`, `name: [fields]` or `name: {is: fields, values: form}`.
fn fields(line: &Entry, problems: &mut Problems<'_>) -> Option<Translation> {
    let (targets, form) = match line.value.map() {
        Some(_) => {
            read::only_keys(&line.value, &["is", "values"], "a translation", problems);
            let Some(is) = line.value.entry("is") else {
                problems.add(Code::MissingKey, line.place, "a translation says what the name 'is'");
                return None;
            };
            (is, line.value.entry("values"))
        }
        None => (line, None),
    };
    let values = match form {
        None => Values::Same,
        Some(form) => {
            let name = read::text(form, problems)?;
            let Some((_, values)) = VALUES.iter().find(|(known, _)| *known == name) else {
                let message = format!("'{}' is not a form of values", name.escape_debug());
                let known = VALUES.iter().map(|(name, _)| *name);
                problems.add_name(Code::InvalidValue, form.value.place, message, name, known);
                return None;
            };
            *values
        }
    };
    let names = read::texts(targets, problems);
    for (name, node) in &names {
        names::check(name, node.place, problems);
    }
    Some(Translation::Fields(names.into_iter().map(|(name, _)| name.to_owned()).collect(), values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_table_is_read_without_a_problem() {
        let dialects = Dialects::own();
        let means = |name: &str| dialects.translate(Dialect::Entra, name);
        assert_eq!(means("properties.UserAgent"), Translation::Fields(vec!["user_agent".into()], Values::Same));
        assert!(means("OperationName").decides() && means("ResultType").decides());
        assert_eq!(means("RiskEventType"), Translation::NoData);
        assert_eq!(means("LoggedByService"), Translation::Implied);
        assert_eq!(means("Operation"), Translation::Own);
        assert_eq!(dialects.translate(Dialect::Record, "EventSource"), Translation::Own, "case counts here");
    }
}
