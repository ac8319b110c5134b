//! What a record must hold somewhere for a detection to hold: enough to dismiss nearly every rule unasked.
//!
//! A witness is a list of alternatives, at least one of which is there whenever the detection holds. It says less than
//! the detection, never more: what cannot be said so has none. Of several the one is taken that the fewest records have,
//! where that was measured, and else the one with the longest texts: few records hold them.

use std::cmp::Reverse;

use ipnet::IpNet;
use regex_syntax::hir::literal::{ExtractKind, Extractor};

use super::condition::{Condition, Detection};
use super::pattern::{Pattern, fold_text};
use super::predicate::{Field, Item, Search, Test};

/// Most texts that stand for an expression, and the shortest: beyond, a record is as likely to hold one as not.
const LITERALS_MAX: usize = 16;
const LITERAL_BYTES_MIN: usize = 3;

/// To what texts are cut where there are more: then some of them are the same.
const LITERAL_BYTES_CUT: usize = 6;

/// What one of the values of a field must be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Needle {
    /// It contains this text, both folded.
    Text(String),
    /// It begins with this text, or is this text, both folded.
    Beginning { text: String, is_all: bool },
    /// It is an address in this network.
    Network(IpNet),
    /// It is there, and not null.
    Value,
}

/// Alternatives, one of which a record must have.
type Alternatives = Vec<(Field, Needle)>;

/// All witnesses that a detection has.
#[derive(Clone, Debug)]
pub enum Witness {
    This(Alternatives),
    /// Each of them is one.
    OneOf(Vec<Witness>),
    /// All of their alternatives together are one.
    Together(Vec<Witness>),
}

impl Detection {
    /// None where nothing can be said.
    pub fn witness(&self) -> Option<Witness> {
        of_condition(&self.condition, &self.searches)
    }
}

impl Witness {
    /// The alternatives of all of them, in an order that is always the same.
    pub fn each<'w>(&'w self, visit: &mut impl FnMut(&'w (Field, Needle))) {
        match self {
            Witness::This(alternatives) => alternatives.iter().for_each(visit),
            Witness::OneOf(parts) | Witness::Together(parts) => parts.iter().for_each(|part| part.each(visit)),
        }
    }

    /// Whether there is a choice.
    pub fn is_several(&self) -> bool {
        match self {
            Witness::This(_) => false,
            Witness::OneOf(_) => true,
            Witness::Together(parts) => parts.iter().any(Witness::is_several),
        }
    }

    /// The one that says most. `seen`: how many records had an alternative, by its place in the order of
    /// [`each`](Witness::each); nothing of any where it was not measured.
    pub fn best(&self, seen: &impl Fn(usize) -> u64) -> Alternatives {
        self.best_from(&mut 0, seen).1
    }

    /// The one that says most, and what it says. `next`: the place of the first alternative, then of what comes after.
    fn best_from(&self, next: &mut usize, seen: &impl Fn(usize) -> u64) -> (Worth, Alternatives) {
        match self {
            Witness::This(alternatives) => {
                let places = *next..*next + alternatives.len();
                *next = places.end;
                let had = places.map(seen).fold(0, u64::saturating_add);
                (Worth::of(had, alternatives), alternatives.clone())
            }
            Witness::OneOf(parts) => {
                let parts = parts.iter().map(|part| part.best_from(next, seen));
                parts.max_by_key(|(worth, _)| *worth).unwrap_or_default()
            }
            Witness::Together(parts) => {
                let mut all = (Worth::of(0, &[]), Vec::new());
                for part in parts {
                    let (worth, alternatives) = part.best_from(next, seen);
                    all = (all.0.and(worth), [all.1, alternatives].concat());
                }
                all
            }
        }
    }
}

/// How much a witness says; more is better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Worth {
    /// How many records had it.
    had: Reverse<u64>,
    /// What its weakest alternative says by itself.
    weakest: usize,
    alternatives: Reverse<usize>,
}

impl Worth {
    fn of(had: u64, alternatives: &[(Field, Needle)]) -> Worth {
        let says = |(field, needle): &(Field, Needle)| match needle {
            _ if field.has_few_values() => 0,
            Needle::Text(text) | Needle::Beginning { text, .. } => text.len(),
            // As much as its numbers say in writing.
            Needle::Network(network) => usize::from(network.prefix_len()) / 3,
            // Most records do not have most fields.
            Needle::Value => 1,
        };
        let weakest = alternatives.iter().map(says).min().unwrap_or(usize::MAX);
        Worth { had: Reverse(had), weakest, alternatives: Reverse(alternatives.len()) }
    }

    fn and(self, other: Worth) -> Worth {
        Worth {
            had: Reverse(self.had.0.saturating_add(other.had.0)),
            weakest: self.weakest.min(other.weakest),
            alternatives: Reverse(self.alternatives.0 + other.alternatives.0),
        }
    }
}

fn of_condition(condition: &Condition, searches: &[Search]) -> Option<Witness> {
    let of_search = |index: &usize| searches.get(*index).and_then(of_search);
    match condition {
        Condition::Search(index) => of_search(index),
        Condition::Not(_) | Condition::AtLeast(0, _) => None,
        Condition::And(parts) => one_of(parts.iter().filter_map(|part| of_condition(part, searches))),
        Condition::Or(parts) => together(parts.iter().map(|part| of_condition(part, searches))),
        Condition::AtLeast(_, positions) => together(positions.iter().map(of_search)),
    }
}

fn of_search(search: &Search) -> Option<Witness> {
    match search {
        Search::Item(item) => of_item(item),
        Search::All(parts) => one_of(parts.iter().filter_map(of_search)),
        Search::Any(parts) => together(parts.iter().map(of_search)),
        // What one member must be like is not said of the field as a whole.
        Search::Members(_) => None,
    }
}

fn of_item(item: &Item) -> Option<Witness> {
    let field = item.field.as_ref().filter(|_| !item.negated)?;
    let of_test =
        |test| Some(Witness::This(needles(test)?.into_iter().map(|needle| (field.clone(), needle)).collect()));
    if item.all { one_of(item.tests.iter().filter_map(of_test)) } else { together(item.tests.iter().map(of_test)) }
}

fn needles(test: &Test) -> Option<Vec<Needle>> {
    let all_of = |text: String| {
        if text.is_empty() { Needle::Value } else { Needle::Beginning { text, is_all: true } }
    };
    match test {
        Test::Null | Test::Exists(_) => None,
        // A number may be written in other digits.
        Test::Text { pattern, number: None } => Some(vec![of_pattern(pattern)]),
        Test::OneOf(texts) => Some(texts.iter().cloned().map(all_of).collect()),
        Test::AnyOf(tests) => Some(tests.iter().map(needles).collect::<Option<Vec<_>>>()?.concat()),
        Test::Network(network) => Some(vec![Needle::Network(network.trunc())]),
        Test::Regex(regex) => {
            let texts = [ExtractKind::Prefix, ExtractKind::Suffix].map(|kind| literals(regex.as_str(), kind));
            let says = |texts: &Vec<String>| (texts.iter().map(String::len).min(), Reverse(texts.len()));
            let best = texts.into_iter().flatten().max_by_key(says);
            Some(best.map_or(vec![Needle::Value], |texts| texts.into_iter().map(Needle::Text).collect()))
        }
        Test::Text { .. }
        | Test::Number(_)
        | Test::Boolean(_)
        | Test::Compare(..)
        | Test::Part(..)
        | Test::Reference { .. } => Some(vec![Needle::Value]),
    }
}

fn of_pattern(pattern: &Pattern) -> Needle {
    let ((beginning, is_all), longest) = (pattern.beginning(), pattern.longest_literal());
    match longest.is_empty() {
        true => Needle::Value,
        // Where a text stands is soon seen; that it stands nowhere, only at the end.
        false if beginning.len() >= longest.len() => Needle::Beginning { text: fold_text(&beginning), is_all },
        false => Needle::Text(fold_text(&longest)),
    }
}

/// Texts, folded, with one of which everything begins, or ends, that an expression matches. None if there are none, or
/// many, or short ones. Flags beside the expression need not be known: folding takes the case away, and what else they
/// change is not text.
fn literals(expression: &str, kind: ExtractKind) -> Option<Vec<String>> {
    let parsed = regex_syntax::parse(expression).ok()?;
    // A class of more characters than a letter has cases ends a text.
    let mut sequence = Extractor::new().kind(kind.clone()).limit_class(3).extract(&parsed);
    let text =
        |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(fold_text).filter(|text| text.len() >= LITERAL_BYTES_MIN);
    let common = match kind {
        ExtractKind::Suffix => sequence.longest_common_suffix(),
        _ => sequence.longest_common_prefix(),
    };
    if let Some(common) = common.and_then(text) {
        return Some(vec![common]);
    }
    if sequence.len().is_some_and(|count| count > LITERALS_MAX) {
        match kind {
            ExtractKind::Suffix => sequence.keep_last_bytes(LITERAL_BYTES_CUT),
            _ => sequence.keep_first_bytes(LITERAL_BYTES_CUT),
        }
        sequence.sort();
        sequence.dedup();
    }
    let found = sequence.literals().filter(|found| (1..=LITERALS_MAX).contains(&found.len()))?;
    found.iter().map(|literal| text(literal.as_bytes())).collect()
}

/// All alternatives of all of them, if each has some.
fn together(parts: impl Iterator<Item = Option<Witness>>) -> Option<Witness> {
    parts.collect::<Option<_>>().map(Witness::Together)
}

/// Any of them, if there is one.
fn one_of(parts: impl Iterator<Item = Witness>) -> Option<Witness> {
    let mut parts: Vec<Witness> = parts.collect();
    if parts.len() > 1 { Some(Witness::OneOf(parts)) } else { parts.pop() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::string::string_regex;

    use super::*;

    const EXPRESSIONS: &[&str] = &[
        "^bot-17/[0-9]+",
        "(invoice|payment|remittance) ?[0-9]{2}",
        "[a-z]{3}\\.exe",
        "(?i)Tor(Browser)?/[0-9]",
        "powershell.*(hidden|bypass)",
        "(?i:straße|ſecret)[0-9]",
        "a|bcdef",
        "x*yyy",
        "(abc){2,4}",
        "(remove|disable)-(antiphish|safelinks|malwarefilter|connector)(policy|rule|set)",
    ];

    fn of(expression: &str) -> Vec<Needle> {
        needles(&Test::Regex(regex::Regex::new(expression).unwrap())).unwrap()
    }

    #[test]
    fn an_expression_is_known_by_the_texts_that_it_cannot_do_without() {
        let texts = |texts: &[&str]| texts.iter().map(|text| Needle::Text((*text).to_owned())).collect::<Vec<_>>();
        assert_eq!(of("^Bot-17/[0-9]+"), texts(&["bot-17/"]));
        assert_eq!(of("[a-z]{3}\\.exe"), texts(&[".exe"]));
        assert_eq!(of("(?:invoice|payment) [0-9]"), texts(&["invoice ", "payment "]));
        let many = "^(remove|disable)-(anti|safe|malware|hosted|atp|eop|inbound|outbound|journal)(policy|rule)$";
        assert_eq!(of(many), texts(&["disabl", "remove"]));
        // Short or without any: asked of every value.
        for expression in ["a|bcdef", "[0-9]+", ".*", "", "^$"] {
            assert_eq!(of(expression), [Needle::Value], "{expression}");
        }
    }

    proptest! {
        /// Whatever an expression matches, in whatever case where that is the same to it, holds one of its texts.
        #[test]
        fn nothing_that_an_expression_matches_is_without_its_texts(
            (expression, text) in prop::sample::select(EXPRESSIONS).prop_flat_map(|expression| {
                (Just(expression), string_regex(expression.trim_start_matches('^')).unwrap())
            }),
            upper in proptest::prelude::any::<u64>(),
        ) {
            let cased: String = text.chars().enumerate().map(|(at, c)| {
                if upper >> (at % 64) & 1 == 1 { c.to_ascii_uppercase() } else { c }
            }).collect();
            let insensitive = regex::RegexBuilder::new(expression).case_insensitive(true).build().unwrap();
            for test in [regex::Regex::new(expression).unwrap(), insensitive] {
                if !test.is_match(&cased) {
                    continue;
                }
                let folded = fold_text(&cased);
                let holds = needles(&Test::Regex(test)).unwrap().iter().any(|needle| match needle {
                    Needle::Text(text) => folded.contains(text),
                    Needle::Value => true,
                    Needle::Network(_) | Needle::Beginning { .. } => false,
                });
                prop_assert!(holds, "{expression}: {cased:?}");
            }
        }
    }
}
