//! Whether a record has what a detection asks for, whatever is in it.
//!
//! A rule whose fields no record of its operations has will never find anything, however bad things get. To see that,
//! the values of fields are left open: a line about a field that the record has may hold or not. Only what is not there,
//! and the operation itself, are taken as they are. Fields that are there only when something is done with them (a
//! parameter of a cmdlet, where a message is forwarded to) are left open as well: that nobody does it is no deafness.

use std::fmt;

use schemas::Event;

use super::condition::{Condition, Detection, Occurs};
use super::predicate::{Field, Item, Scratch, Search, Subject};

/// Why a detection never holds, whatever happens: it is about another log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Never {
    /// harrier does not collect the log.
    NotCollected(&'static str),
    /// The unified audit log has nothing like these fields, in the rule's own names.
    NothingLike(Vec<String>),
}

impl fmt::Display for Never {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Never::NotCollected(name) => write!(f, "harrier has no records of {name}"),
            Never::NothingLike(names) => write!(f, "the unified audit log has nothing like {}", names.join(", ")),
        }
    }
}

/// What is possible for some values of the fields that are there.
#[derive(Clone, Copy)]
struct Possible {
    to_hold: bool,
    to_fail: bool,
}

impl Possible {
    const OPEN: Possible = Possible { to_hold: true, to_fail: true };

    fn known(holds: bool) -> Possible {
        Possible { to_hold: holds, to_fail: !holds }
    }

    fn at_least(least: usize, parts: impl Iterator<Item = Possible>) -> Possible {
        let (mut can_hold, mut must_hold) = (0, 0);
        for part in parts {
            can_hold += usize::from(part.to_hold);
            must_hold += usize::from(!part.to_fail);
        }
        Possible { to_hold: can_hold >= least, to_fail: must_hold < least }
    }

    fn all(parts: impl ExactSizeIterator<Item = Possible>) -> Possible {
        Possible::at_least(parts.len(), parts)
    }
}

impl Detection {
    /// Why it never holds; none if a record could make it hold.
    pub fn never(&self) -> Option<Never> {
        if let Some(name) = self.logsource.without_records() {
            return Some(Never::NotCollected(name));
        }
        let nowhere = || self.asks.iter().filter(|asked| asked.occurs == Occurs::Nowhere);
        nowhere().next()?;
        let record = schemas::json::parse(b"{}").ok()?;
        let nothing = Subject::Member(record.root());
        // A field of no path is in no record.
        let is_known = |item: &Item| item.field.as_ref().is_some_and(|field| field.paths.is_empty());
        let search = &mut |index: usize| of_search(&self.searches[index], nothing, &is_known);
        let never = !of_condition(&self.condition, search).to_hold;
        never.then(|| Never::NothingLike(nowhere().map(|asked| asked.name.clone()).collect()))
    }

    /// Whether a record with these fields and other values in them could be selected.
    pub(crate) fn could_select(&self, event: &Event) -> bool {
        let without_filters = self.logsource.covers(event) && self.possible(event).to_hold;
        without_filters
            && self.filters.iter().all(|filter| {
                let possible = filter.detection.possible(event);
                if filter.include { possible.to_hold } else { possible.to_fail }
            })
    }

    /// The fields it asks for that none of these records has, in the rule's own names, each once.
    pub(crate) fn fields_absent(&self, events: &[&Event]) -> Vec<String> {
        let mut names = Vec::new();
        for search in &self.searches {
            absent(search, events, &mut names);
        }
        names
    }

    fn possible(&self, event: &Event) -> Possible {
        let subject = Subject::Record(event);
        let is_known = |item: &Item| item.operations().is_some() || is_demanded(item) && !item.values(subject).1;
        of_condition(&self.condition, &mut |index| of_search(&self.searches[index], subject, &is_known))
    }
}

fn of_condition(condition: &Condition, search: &mut dyn FnMut(usize) -> Possible) -> Possible {
    match condition {
        Condition::Search(index) => search(*index),
        Condition::Not(inner) => {
            let Possible { to_hold, to_fail } = of_condition(inner, search);
            Possible { to_hold: to_fail, to_fail: to_hold }
        }
        Condition::And(parts) => Possible::all(parts.iter().map(|part| of_condition(part, search))),
        Condition::Or(parts) => Possible::at_least(1, parts.iter().map(|part| of_condition(part, search))),
        Condition::AtLeast(least, searches) => Possible::at_least(*least, searches.iter().map(|index| search(*index))),
    }
}

/// `is_known`: whether a line holds for a record like this one whenever it holds for this one.
fn of_search(search: &Search, subject: Subject<'_>, is_known: &dyn Fn(&Item) -> bool) -> Possible {
    let of_part = |part| of_search(part, subject, is_known);
    match search {
        Search::Item(item) if is_known(item) => Possible::known(item.matches(subject, &mut Scratch::default())),
        Search::Item(_) => Possible::OPEN,
        Search::All(parts) => Possible::all(parts.iter().map(of_part)),
        Search::Any(parts) => Possible::at_least(1, parts.iter().map(of_part)),
        Search::Members(_) => Possible::OPEN,
    }
}

/// Whether the records of an operation have its field, or none of them does.
fn is_demanded(item: &Item) -> bool {
    item.field.as_ref().is_some_and(Field::goes_with_operation)
}

fn absent(search: &Search, events: &[&Event], names: &mut Vec<String>) {
    match search {
        Search::Item(item) if is_demanded(item) => {
            let is_there = events.iter().any(|event| item.values(Subject::Record(event)).1);
            let name = item.written.key.split('|').next().unwrap_or_default();
            if !is_there && !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        Search::Item(_) | Search::Members(_) => {}
        Search::All(parts) | Search::Any(parts) => parts.iter().for_each(|part| absent(part, events, names)),
    }
}
