//! What a record must hold somewhere for a detection to hold: enough to dismiss nearly every rule unasked.
//!
//! A witness is a list of alternatives, at least one of which is there whenever the detection holds. It says less than
//! the detection, never more: what cannot be said so has none. Of several the one with the longest texts is taken: few
//! records hold them.

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
            let says = |texts: &Vec<String>| (texts.iter().map(String::len).min(), std::cmp::Reverse(texts.len()));
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
fn any(parts: impl Iterator<Item = Option<Witness>>) -> Option<Witness> {
    let parts: Vec<Witness> = parts.collect::<Option<_>>()?;
    Some(parts.concat())
}

/// The one whose weakest alternative says most; of equals, the one with fewer.
fn best(parts: impl Iterator<Item = Witness>) -> Option<Witness> {
    let says = |(field, needle): &(Field, Needle)| match needle {
        _ if field.has_few_values() => 0,
        Needle::Text(text) | Needle::Beginning { text, .. } => text.len(),
        // As much as its numbers say in writing.
        Needle::Network(network) => usize::from(network.prefix_len()) / 3,
        // Most records do not have most fields.
        Needle::Value => 1,
    };
    let worth = |witness: &Witness| {
        let weakest = witness.iter().map(says).min().unwrap_or(usize::MAX);
        (weakest, std::cmp::Reverse(witness.len()))
    };
    parts.max_by_key(worth)
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
