//! Named lists of values that rules share: `x-lists` defines them, `x-list-additions` of any file adds to them,
//! `field|expand: '%name%'` uses them.
//!
//! What a list holds stands in the rule as if its author had written it there: wildcards are active, `all` asks for
//! each value, and the values are part of what the rule means (its version). A placeholder that no list answers to
//! refuses the rule, because a rule that silently looks for `%Administrators%` would never match.

use std::collections::BTreeMap;

use super::report::{Code, Problems};
use super::yaml::{Entry, Node, Place, Value};

/// Most values of one line after its placeholders are replaced.
const EXPANDED_MAX: usize = 10_000;

/// All lists of a rule set.
#[derive(Clone, Debug, Default)]
pub struct Lists(BTreeMap<String, List>);

#[derive(Clone, Debug)]
struct List {
    values: Vec<Value>,
    /// Where it is defined, for messages.
    origin: String,
}

impl Lists {
    /// Reads `x-lists`. A list is defined once; the tuning file may replace it.
    pub fn read(&mut self, entry: &Entry, file: &str, problems: &mut Problems<'_>) {
        for list in super::read::map(entry, problems).unwrap_or_default() {
            if !is_name(&list.key) {
                let message = format!("'{}' is not a name for a list: letters, digits, '_' and '-'", list.key);
                problems.add(Code::InvalidValue, list.place, message);
                continue;
            }
            let values = values_of(&list.value, problems);
            let origin = format!("{file}:{}", list.place.line);
            if let Some(known) = self.0.get(&list.key) {
                let message = format!("the list '{}' is already defined at {}", list.key, known.origin);
                let help = "to change the values of a list, replace it in the tuning file: [list]";
                problems.add_help(Code::Duplicate, list.place, message, help);
                continue;
            }
            self.0.insert(list.key.clone(), List { values, origin });
        }
    }

    /// Reads `x-list-additions`: more values for lists that are defined elsewhere, and stay what they are.
    pub fn add(&mut self, entry: &Entry, problems: &mut Problems<'_>) {
        for addition in super::read::map(entry, problems).unwrap_or_default() {
            let values = values_of(&addition.value, problems);
            match self.0.get_mut(&addition.key) {
                Some(list) => list.values.extend(values),
                None => {
                    let message = format!("no list is called '{}'", addition.key.escape_debug());
                    problems.add_name(Code::UnknownList, addition.place, message, &addition.key, self.names());
                }
            }
        }
    }

    /// Puts the operator's values in the place of a list's own, or defines it.
    pub fn replace(&mut self, name: &str, values: &[String], file: &str) {
        let text = |text: &String| Value::Text { text: text.clone(), verbatim: false };
        let list = List { values: values.iter().map(text).collect(), origin: file.to_owned() };
        self.0.insert(name.to_owned(), list);
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// What the placeholders of a text stand for; appends the names of the lists used. Problems are reported.
    pub fn expand(&self, node: &Node, used: &mut Vec<String>, problems: &mut Problems<'_>) -> Option<Vec<Node>> {
        let Some(text) = node.text() else {
            problems.add(Code::InvalidValue, node.place, "'expand' asks for a text with a placeholder: '%name%'");
            return None;
        };
        let pieces = pieces(text);
        let mut values = vec![Value::Text { text: String::new(), verbatim: false }];
        let only_one = pieces.len() == 1;
        for piece in &pieces {
            let parts: Vec<&Value> = match piece {
                Piece::Literal(literal) => {
                    values.iter_mut().for_each(|value| push(value, literal));
                    continue;
                }
                Piece::Placeholder { name, at } => {
                    let list = self.list(name, node.part(*at, name.len()), problems)?;
                    used.push((*name).to_owned());
                    list.values.iter().collect()
                }
            };
            if parts.len().saturating_mul(values.len()) > EXPANDED_MAX {
                let message = format!("the placeholders stand for more than {EXPANDED_MAX} values");
                problems.add(Code::Limit, node.place, message);
                return None;
            }
            values = match only_one {
                true => parts.into_iter().cloned().collect(),
                false => values.iter().flat_map(|value| parts.iter().map(move |part| joined(value, part))).collect(),
            };
        }
        if !pieces.iter().any(|piece| matches!(piece, Piece::Placeholder { .. })) {
            let message = "'expand' asks for a placeholder: '%name%'";
            problems.add_name(Code::InvalidValue, node.place, message, text.trim_matches('%'), self.names());
            return None;
        }
        Some(values.into_iter().map(|value| Node { place: node.place, value }).collect())
    }

    fn list(&self, name: &str, place: Place, problems: &mut Problems<'_>) -> Option<&List> {
        match self.0.get(name) {
            Some(list) if !list.values.is_empty() => return Some(list),
            Some(list) => {
                let message = format!("the list '{name}' of {} is empty: the rule could never match", list.origin);
                problems.add(Code::UnknownList, place, message);
            }
            None => {
                let message = format!("no list is called '{name}'");
                let defined = "define it: a document with 'x-lists: {NAME: [values]}', or [list] in the tuning file";
                problems.add_name_help(Code::UnknownList, place, message, name, self.names(), defined);
            }
        }
        None
    }

    /// A list's values as text, for the hash of a rule's meaning.
    pub fn canonical(&self, name: &str) -> String {
        self.0.get(name).map(|list| format!("{name}={:?};", list.values)).unwrap_or_default()
    }
}

fn values_of(list: &Node, problems: &mut Problems<'_>) -> Vec<Value> {
    let mut values = Vec::new();
    for member in list.members() {
        match member.value {
            Value::Text { .. } | Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => {
                values.push(member.value.clone());
            }
            _ => problems.add(Code::InvalidValue, member.place, "a list holds texts and numbers"),
        }
    }
    values
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

enum Piece<'t> {
    Literal(String),
    Placeholder { name: &'t str, at: usize },
}

/// `%name%` is a placeholder, `\%` a percent sign, and a percent sign that begins no name is itself.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let (mut pieces, mut literal, mut at) = (Vec::new(), String::new(), 0);
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        if let Some(after) = rest.strip_prefix("\\%") {
            literal.push('%');
            at = text.len() - after.len();
            continue;
        }
        let name = rest.strip_prefix('%').and_then(|inner| inner.split_once('%')).map(|(name, _)| name);
        if let Some(name) = name.filter(|name| is_name(name)) {
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            }
            pieces.push(Piece::Placeholder { name, at: at + 1 });
            at += name.len() + 2;
            continue;
        }
        literal.push(c);
        at += c.len_utf8();
    }
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    pieces
}

fn push(value: &mut Value, literal: &str) {
    if let Value::Text { text, .. } = value {
        text.push_str(literal);
    }
}

fn joined(value: &Value, part: &Value) -> Value {
    let part = match part {
        Value::Text { text, .. } => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(boolean) => boolean.to_string(),
        _ => String::new(),
    };
    let mut value = value.clone();
    push(&mut value, &part);
    value
}
