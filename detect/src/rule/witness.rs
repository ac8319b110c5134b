//! What a record must hold somewhere for a detection to hold: enough to dismiss nearly every rule unasked.
//!
//! A witness is a list of alternatives, at least one of which is there whenever the detection holds. It says less than
//! the detection, never more: what cannot be said so has none. Of several the one with the longest texts is taken: few
//! records hold them.

use super::condition::{Condition, Detection};
use super::pattern::fold_text;
use super::predicate::{Field, Item, Search, Test};

/// What one of the values of a field must be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Needle {
    /// It contains this text, both folded.
    Text(String),
    /// It is there, and not null.
    Value,
}

/// Alternatives, one of which a record must have.
pub type Witness = Vec<(Field, Needle)>;

impl Detection {
    /// None where nothing can be said.
    pub fn witness(&self) -> Option<Witness> {
        of_condition(&self.condition, &self.searches)
    }
}

fn of_condition(condition: &Condition, searches: &[Search]) -> Option<Witness> {
    let of_search = |index: &usize| searches.get(*index).and_then(of_search);
    match condition {
        Condition::Search(index) => of_search(index),
        Condition::Not(_) | Condition::AtLeast(0, _) => None,
        Condition::And(parts) => best(parts.iter().filter_map(|part| of_condition(part, searches))),
        Condition::Or(parts) => any(parts.iter().map(|part| of_condition(part, searches))),
        Condition::AtLeast(_, positions) => any(positions.iter().map(of_search)),
    }
}

fn of_search(search: &Search) -> Option<Witness> {
    match search {
        Search::Item(item) => of_item(item),
        Search::All(parts) => best(parts.iter().filter_map(of_search)),
        Search::Any(parts) => any(parts.iter().map(of_search)),
        // What one member must be like is not said of the field as a whole.
        Search::Members(_) => None,
    }
}

fn of_item(item: &Item) -> Option<Witness> {
    let field = item.field.as_ref().filter(|_| !item.negated)?;
    let of_test = |test| Some(needles(test)?.into_iter().map(|needle| (field.clone(), needle)).collect());
    if item.all { best(item.tests.iter().filter_map(of_test)) } else { any(item.tests.iter().map(of_test)) }
}

fn needles(test: &Test) -> Option<Vec<Needle>> {
    let text = |text: String| if text.is_empty() { Needle::Value } else { Needle::Text(text) };
    match test {
        Test::Null | Test::Exists(_) => None,
        // A number may be written in other digits.
        Test::Text { pattern, number: None } => Some(vec![text(fold_text(&pattern.longest_literal()))]),
        Test::OneOf(texts) => Some(texts.iter().cloned().map(text).collect()),
        Test::AnyOf(tests) => Some(tests.iter().map(needles).collect::<Option<Vec<_>>>()?.concat()),
        Test::Text { .. }
        | Test::Number(_)
        | Test::Boolean(_)
        | Test::Regex(_)
        | Test::Compare(..)
        | Test::Part(..)
        | Test::Network(_)
        | Test::Reference { .. } => Some(vec![Needle::Value]),
    }
}

/// All alternatives of all of them, if each has some.
fn any(parts: impl Iterator<Item = Option<Witness>>) -> Option<Witness> {
    let parts: Vec<Witness> = parts.collect::<Option<_>>()?;
    Some(parts.concat())
}

/// The one whose weakest alternative says most; of equals, the one with fewer.
fn best(parts: impl Iterator<Item = Witness>) -> Option<Witness> {
    let says = |needle: &Needle| match needle {
        Needle::Text(text) => text.len(),
        Needle::Value => 0,
    };
    let worth = |witness: &Witness| {
        let weakest = witness.iter().map(|(_, needle)| says(needle)).min().unwrap_or(usize::MAX);
        (weakest, std::cmp::Reverse(witness.len()))
    };
    parts.max_by_key(worth)
}
