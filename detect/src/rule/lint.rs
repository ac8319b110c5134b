//! What is not wrong with a rule and still worth a look: it may never match, cost more than it has to, or miss records.
//!
//! Notes refuse nothing. They know Microsoft 365: which fields its records have, and which of them are often empty.

use std::fmt;

use schemas::operation_key;

use super::condition::{Occurs, OperationName};
use super::model::{Kind, Rule};
use super::pattern::fold_text;
use super::presence::Never;
use super::report::distance;
use super::set::RuleSet;

/// Fields that records of many operations do not have, and why. As part of a group key they leave those records out.
pub(super) const OFTEN_MISSING: &[(&str, &str)] = &[
    ("session_id", "only sign-ins and what is done with their tokens have one"),
    ("token_id", "only sign-ins and what is done with their tokens have one"),
    ("user_agent", "Exchange and administration hardly ever say it"),
    ("app_id", "what a person does in a browser has none"),
    ("client_ip", "what the service does by itself has none"),
    ("mailbox_owner", "only records about a mailbox have one"),
    ("object_id", "sign-ins and searches have none"),
];

/// Something worth a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub file: String,
    pub line: usize,
    pub rule: String,
    pub kind: NoteKind,
}

/// What it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoteKind {
    /// Asked of every record, because it names no operation.
    AskedOfAll,
    /// No record can match it: it is about another log.
    NeverHolds(Never),
    /// The log has nothing like the field: lines about it never hold, and the rule may without them.
    NothingLike(String),
    /// No record is known to have the field.
    UnheardField(String),
    /// An operation that records write otherwise, and how.
    OtherwiseWritten(String, &'static str),
    /// An operation that is nearly one that is known.
    NearlyKnown(String, &'static str),
    /// A part of a correlation's key that many records do not have.
    KeyOftenMissing(String, &'static str),
}

/// Operations that records are known to have, as they write them: from real records and Microsoft's documentation. Far from
/// all, so that one that is not among them is no mistake by itself.
pub(super) const OPERATIONS: &str = include_str!("operations.txt");

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: ", self.file, self.line, self.rule)?;
        match &self.kind {
            NoteKind::AskedOfAll => {
                f.write_str("names no Operation, so every record is compared with it: name one where it is known")
            }
            NoteKind::NeverHolds(never) => write!(f, "never matches: {never}"),
            NoteKind::NothingLike(name) => {
                write!(f, "the unified audit log has nothing like '{name}': a line that asks for it never holds")
            }
            NoteKind::UnheardField(name) => {
                write!(f, "no record is known to have '{name}': is it spelt as records do?")
            }
            NoteKind::OtherwiseWritten(name, known) => {
                write!(f, "no record has the Operation '{name}': records write '{known}'. Or ask operation_key")
            }
            NoteKind::NearlyKnown(name, known) => write!(f, "is the operation '{name}' meant to be '{known}'?"),
            NoteKind::KeyOftenMissing(name, why) => {
                write!(f, "groups by '{name}', and records without it are left out: {why}")
            }
        }
    }
}

/// All notes, in the order of the rules.
pub fn notes(rules: &RuleSet) -> Vec<Note> {
    rules.rules().iter().flat_map(|rule| of_rule(rule)).collect()
}

fn of_rule(rule: &Rule) -> Vec<Note> {
    let note = |kind| Note { file: rule.file.clone(), line: rule.line, rule: rule.name.clone(), kind };
    let mut kinds = Vec::new();
    match &rule.kind {
        Kind::Detection(detection) => {
            if let Some(never) = detection.never() {
                return vec![note(NoteKind::NeverHolds(never))];
            }
            match detection.operations() {
                None => kinds.push(NoteKind::AskedOfAll),
                Some(names) => kinds.extend(names.iter().filter_map(misspelt)),
            }
            kinds.extend(detection.asks.iter().filter_map(|asked| match asked.occurs {
                Occurs::Nowhere => Some(NoteKind::NothingLike(asked.name.clone())),
                Occurs::Unheard => Some(NoteKind::UnheardField(asked.name.clone())),
                Occurs::Normalised | Occurs::Recorded => None,
            }));
        }
        Kind::Correlation { .. } => {
            let missing = |name: &String| OFTEN_MISSING.iter().find(|(known, _)| known == name);
            let found = rule.group_by.iter().filter_map(missing);
            kinds.extend(found.map(|(name, why)| NoteKind::KeyOftenMissing((*name).to_owned(), why)));
        }
    }
    kinds.into_iter().map(note).collect()
}

/// An operation as records write it, where it is known; else as it is.
pub(crate) fn known_spelling(name: &str) -> &str {
    let key = operation_key(name);
    OPERATIONS.lines().find(|known| operation_key(known) == key).unwrap_or(name)
}

/// A name that no record is known to have, if one that is known is like it.
fn misspelt(name: &OperationName) -> Option<NoteKind> {
    let (name, is_written) = match name {
        OperationName::Written(name) => (name, true),
        OperationName::Key(name) => (name, false),
    };
    let form = |known: &str| if is_written { fold_text(known) } else { operation_key(known) };
    if OPERATIONS.lines().any(|known| form(known) == *name) {
        return None;
    }
    let key = operation_key(name);
    if let Some(known) = OPERATIONS.lines().find(|known| operation_key(known) == key) {
        return Some(NoteKind::OtherwiseWritten(name.clone(), known));
    }
    // One letter, and not in the verb of a cmdlet: where there is Set-Mailbox there is Get-Mailbox.
    let verb = |name: &str| name.split_once('-').map(|(verb, _)| verb.to_lowercase());
    let known = OPERATIONS.lines().find(|known| distance(&form(known), name) == 1 && verb(known) == verb(name))?;
    Some(NoteKind::NearlyKnown(name.clone(), known))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::{Source, Tuning};

    #[test]
    fn what_is_worth_a_look_is_said_and_nothing_else() {
        let text = "title: A\nid: a\nlogsource: {product: m365}\ndetection: {s: {Zzz.Yyy: x, UserId: y}, condition: s}\n---\n\
                    title: B\nid: b\nlogsource: {product: m365}\ndetection: {s: {Operation: x}, condition: s}\n---\n\
                    title: C\nid: c\ncorrelation: {type: event_count, rules: [b], group-by: [user_id, session_id], \
                    timespan: 1h, condition: {gte: 2}}\n---\n\
                    title: D\nid: d\nlogsource: {product: m365}\ndetection:\n  s:\n    Operation: [Add member to role, \
                    New-InboxRul, Get-Mailbox, UserLoggedIn, HardDelete]\n  t: {operation_key: [add member to role, senndas]}\n  \
                    condition: s or t\n";
        let source = Source { file: "t.yml".into(), text: text.into() };
        let rules = RuleSet::load(vec![source], &Tuning::default()).unwrap_or_else(|errors| panic!("{errors}"));
        let notes: Vec<String> = notes(&rules).iter().map(Note::to_string).collect();
        expect_test::expect![[r#"
            [
                "t.yml:1: a: names no Operation, so every record is compared with it: name one where it is known",
                "t.yml:1: a: no record is known to have 'Zzz.Yyy': is it spelt as records do?",
                "t.yml:11: c: groups by 'session_id', and records without it are left out: only sign-ins and what is done with their tokens have one",
                "t.yml:15: d: no record has the Operation 'add member to role': records write 'Add member to role.'. Or ask operation_key",
                "t.yml:15: d: is the operation 'new-inboxrul' meant to be 'New-InboxRule'?",
                "t.yml:15: d: is the operation 'senndas' meant to be 'SendAs'?",
            ]
        "#]]
        .assert_debug_eq(&notes);
    }
}
