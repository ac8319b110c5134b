//! What a detection rule selects: its logsource, its searches, and the condition that joins them.
//!
//! ```text
//! expression := and ('or' and)*        and := not ('and' not)*        not := 'not' not | atom
//! atom       := '(' expression ')' | quantifier 'of' ('them' | pattern) | identifier
//! quantifier := 'any' | 'all' | a number from 1
//! ```
//! Keywords may be upper-case. `them` leaves out identifiers that begin with `_`, and so does a pattern that does not
//! begin with `_` itself.

use std::collections::BTreeSet;

use schemas::Event;

use super::logsource::Logsource;
use super::predicate::{Scratch, Search, Subject};
use super::report::{Code, nearest};

/// Deepest nesting of parentheses and `not`.
const DEPTH_MAX: usize = 64;

/// Most words of a condition.
const WORDS_MAX: usize = 2_000;

/// A compiled detection.
#[derive(Clone, Debug)]
pub struct Detection {
    pub(super) logsource: Logsource,
    pub(super) searches: Vec<Search>,
    /// What the searches are called, by position.
    pub(super) names: Vec<String>,
    pub(super) condition: Condition,
    /// What Sigma filters take away from it, or leave.
    pub(super) filters: Vec<Filter>,
    /// The fields it asks for, in the rule's own names, each once.
    pub asks: Vec<Asked>,
}

/// A field that a rule asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// As the rule writes it.
    pub name: String,
    /// What it is here; the same where nothing is translated.
    pub means: Vec<String>,
    pub occurs: Occurs,
}

/// Whether records can have a field at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occurs {
    /// A normalised field.
    Normalised,
    /// Microsoft writes it into records of some workload.
    Recorded,
    /// Neither Microsoft's schemas nor the records that harrier's authors have seen know it.
    Unheard,
    /// It is one of another log, and the unified audit log has nothing like it.
    Nowhere,
}

/// A Sigma filter as it bears on one rule.
#[derive(Clone, Debug)]
pub struct Filter {
    pub(super) detection: Detection,
    /// It says which records the rule keeps, not which it loses.
    pub(super) include: bool,
}

impl Detection {
    /// Whether the rule selects the record. `scratch` is kept from one rule to the next.
    pub fn matches<'e>(&self, event: &'e Event, scratch: &mut Scratch<'e>) -> bool {
        self.logsource.covers(event)
            && self.condition_holds(event, scratch)
            && self.filters.iter().all(|filter| filter.detection.condition_holds(event, scratch) == filter.include)
    }

    pub(super) fn condition_holds<'e>(&self, event: &'e Event, scratch: &mut Scratch<'e>) -> bool {
        let subject = Subject::Record(event);
        self.condition.holds(&mut |index| self.searches[index].matches(subject, scratch))
    }
}

/// A compiled condition over searches, by position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    Search(usize),
    Not(Box<Condition>),
    And(Vec<Condition>),
    Or(Vec<Condition>),
    AtLeast(usize, Vec<usize>),
}

/// An operation that a detection names, folded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OperationName {
    /// As the record writes it.
    Written(String),
    /// As [`schemas::field::OPERATION_KEY`] has it.
    Key(String),
}

impl Detection {
    /// The operations one of which a record must have for the detection to hold; none where it may hold for any.
    pub fn operations(&self) -> Option<BTreeSet<OperationName>> {
        self.condition.operations(&self.searches)
    }

    /// The workloads of which it speaks; empty for any.
    pub fn logsource_workloads(&self) -> &'static [&'static str] {
        self.logsource.workloads()
    }
}

impl Condition {
    fn operations(&self, searches: &[Search]) -> Option<BTreeSet<OperationName>> {
        match self {
            Condition::Search(index) => searches.get(*index)?.operations(),
            Condition::Not(_) => None,
            Condition::And(parts) => parts.iter().find_map(|part| part.operations(searches)),
            Condition::Or(parts) => union(parts.iter().map(|part| part.operations(searches))),
            Condition::AtLeast(0, _) => None,
            Condition::AtLeast(_, positions) => {
                union(positions.iter().map(|index| searches.get(*index).and_then(Search::operations)))
            }
        }
    }

    fn holds(&self, search: &mut dyn FnMut(usize) -> bool) -> bool {
        match self {
            Condition::Search(index) => search(*index),
            Condition::Not(inner) => !inner.holds(search),
            Condition::And(parts) => parts.iter().all(|part| part.holds(search)),
            Condition::Or(parts) => parts.iter().any(|part| part.holds(search)),
            Condition::AtLeast(least, searches) => {
                // No further than the answer.
                let mut left = *least;
                left == 0
                    || searches.iter().any(|index| {
                        left -= usize::from(search(*index));
                        left == 0
                    })
            }
        }
    }
}

/// The operations of alternatives, if each of them names some.
pub(super) fn union(parts: impl Iterator<Item = Option<BTreeSet<OperationName>>>) -> Option<BTreeSet<OperationName>> {
    let parts: Vec<BTreeSet<OperationName>> = parts.collect::<Option<_>>()?;
    Some(parts.into_iter().flatten().collect())
}

/// Why a text is not a condition: at which byte, and how long the word there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidCondition {
    pub code: Code,
    pub offset: usize,
    pub length: usize,
    pub message: String,
    pub nearest: Option<String>,
    /// What to write instead.
    pub help: Option<String>,
}

/// Parses a condition over the named searches.
pub fn parse(text: &str, names: &[&str]) -> Result<Condition, InvalidCondition> {
    let words = words(text)?;
    let mut reader = Reader { text, words, at: 0, names, depth: 0 };
    let condition = reader.expression()?;
    match reader.peek() {
        None => Ok(condition),
        Some(word) if word.is("near") => Err(reader.near(word)),
        Some(word) => Err(reader.invalid(word, format!("expected 'and', 'or' or the end, found '{}'", word.text))),
    }
}

#[derive(Clone, Copy)]
struct Word<'t> {
    text: &'t str,
    offset: usize,
}

impl Word<'_> {
    fn is(&self, keyword: &str) -> bool {
        self.text.eq_ignore_ascii_case(keyword)
    }
}

fn words(text: &str) -> Result<Vec<Word<'_>>, InvalidCondition> {
    let mut words = Vec::new();
    let mut offset = 0;
    while let Some(c) = text[offset..].chars().next() {
        let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '*' | '.');
        let length = match c {
            c if c.is_whitespace() => {
                offset += c.len_utf8();
                continue;
            }
            '(' | ')' => 1,
            c if is_name(c) => {
                let rest = &text[offset..];
                rest.find(|c| !is_name(c)).unwrap_or(rest.len())
            }
            '|' => {
                let message = "aggregations after '|' are Sigma of before 2.0: write a correlation rule that refers to \
                               this one";
                let error = invalid(Code::Legacy, offset, text.len() - offset, message.to_owned());
                return Err(InvalidCondition { help: modern(&text[offset + 1..]), ..error });
            }
            c => {
                let message = format!("'{}' has no meaning in a condition", c.escape_debug());
                return Err(invalid(Code::InvalidCondition, offset, c.len_utf8(), message));
            }
        };
        words.push(Word { text: &text[offset..offset + length], offset });
        offset += length;
        if words.len() > WORDS_MAX {
            let message = format!("a condition of more than {WORDS_MAX} words");
            return Err(invalid(Code::Limit, 0, text.len(), message));
        }
    }
    Ok(words)
}

fn invalid(code: Code, offset: usize, length: usize, message: String) -> InvalidCondition {
    InvalidCondition { code, offset, length, message, nearest: None, help: None }
}

/// The correlation that says what an aggregation said: `count(field) by group > 10`. `TIMEFRAME` stands for the rule's.
fn modern(aggregation: &str) -> Option<String> {
    let (function, rest) = aggregation.trim().split_once('(')?;
    let (field, rest) = rest.split_once(')')?;
    let kind = match (function.trim().to_ascii_lowercase().as_str(), field.trim()) {
        ("count", "") => "event_count",
        ("count", _) => "value_count",
        ("sum", _) => "value_sum",
        ("avg", _) => "value_avg",
        _ => return None,
    };
    let mut words: Vec<&str> = rest.split_whitespace().collect();
    let number = words.pop()?;
    let bound = match words.pop()? {
        ">" => "gt",
        ">=" => "gte",
        "<" => "lt",
        "<=" => "lte",
        "=" | "==" => "eq",
        _ => return None,
    };
    let group = match words.as_slice() {
        [] => String::new(),
        [by, groups @ ..] if by.eq_ignore_ascii_case("by") => format!("group-by: [{}], ", groups.join(" ")),
        _ => return None,
    };
    let field = if field.trim().is_empty() { String::new() } else { format!("field: {}, ", field.trim()) };
    Some(format!(
        "correlation: {{type: {kind}, rules: [this rule's name], {group}timespan: TIMEFRAME, condition: {{{field}{bound}: {number}}}}}"
    ))
}

struct Reader<'t> {
    text: &'t str,
    words: Vec<Word<'t>>,
    at: usize,
    names: &'t [&'t str],
    depth: usize,
}

impl<'t> Reader<'t> {
    fn peek(&self) -> Option<Word<'t>> {
        self.words.get(self.at).copied()
    }

    fn next(&mut self, expected: &str) -> Result<Word<'t>, InvalidCondition> {
        let Some(word) = self.peek() else {
            let message = format!("expected {expected}, found the end");
            return Err(invalid(Code::InvalidCondition, self.text.trim_end().len().saturating_sub(1), 1, message));
        };
        self.at += 1;
        Ok(word)
    }

    fn take(&mut self, keyword: &str) -> bool {
        let is = self.peek().is_some_and(|word| word.is(keyword));
        self.at += usize::from(is);
        is
    }

    fn invalid(&self, word: Word<'_>, message: String) -> InvalidCondition {
        invalid(Code::InvalidCondition, word.offset, word.text.len(), message)
    }

    fn expression(&mut self) -> Result<Condition, InvalidCondition> {
        let mut parts = vec![self.conjunction()?];
        while self.take("or") {
            parts.push(self.conjunction()?);
        }
        Ok(joined(parts, Condition::Or))
    }

    fn conjunction(&mut self) -> Result<Condition, InvalidCondition> {
        let mut parts = vec![self.negation()?];
        while self.take("and") {
            parts.push(self.negation()?);
        }
        Ok(joined(parts, Condition::And))
    }

    fn negation(&mut self) -> Result<Condition, InvalidCondition> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            let message = format!("nested deeper than {DEPTH_MAX}");
            return Err(invalid(Code::Limit, 0, self.text.len(), message));
        }
        let result = if self.take("not") { Ok(Condition::Not(Box::new(self.negation()?))) } else { self.atom() };
        self.depth -= 1;
        result
    }

    fn atom(&mut self) -> Result<Condition, InvalidCondition> {
        let word = self.next("a search identifier")?;
        if word.text == "(" {
            let inner = self.expression()?;
            let close = self.next("')'")?;
            if close.text != ")" {
                return Err(self.invalid(close, format!("expected ')', found '{}'", close.text)));
            }
            return Ok(inner);
        }
        if self.peek().is_some_and(|next| next.is("of")) {
            self.at += 1;
            return self.quantified(word);
        }
        if let Some(index) = self.names.iter().position(|name| *name == word.text) {
            return Ok(Condition::Search(index));
        }
        if ["and", "or", "not", "of", "them", ")"].iter().any(|keyword| word.is(keyword)) {
            return Err(self.invalid(word, format!("expected a search identifier, found '{}'", word.text)));
        }
        if word.is("near") {
            return Err(self.near(word));
        }
        Err(self.unknown(word))
    }

    fn near(&self, word: Word<'_>) -> InvalidCondition {
        let message = "'near' is Sigma of before 2.0: write a correlation rule of type temporal".to_owned();
        let help =
            "make each search a rule, then: correlation: {type: temporal, rules: [one, other], timespan: TIMEFRAME}";
        InvalidCondition { code: Code::Legacy, help: Some(help.to_owned()), ..self.invalid(word, message) }
    }

    fn unknown(&self, word: Word<'_>) -> InvalidCondition {
        let message = match word.text.contains('*') {
            true => format!("'{}' stands for several searches: write '1 of' or 'all of' before it", word.text),
            false => format!("no search is called '{}'", word.text),
        };
        let nearest = nearest(word.text, self.names.iter().copied()).map(str::to_owned);
        let error = self.invalid(word, message);
        InvalidCondition { code: Code::UnknownIdentifier, nearest, ..error }
    }

    fn quantified(&mut self, quantifier: Word<'_>) -> Result<Condition, InvalidCondition> {
        let target = self.next("'them' or a pattern")?;
        let hidden = target.text.starts_with('_');
        let selected = |name: &str| match target.is("them") {
            true => !name.starts_with('_'),
            false => wild(target.text.as_bytes(), name.as_bytes()) && (hidden || !name.starts_with('_')),
        };
        let searches: Vec<usize> = (0..self.names.len()).filter(|index| selected(self.names[*index])).collect();
        if searches.is_empty() {
            let error = self.unknown(target);
            return Err(InvalidCondition { message: format!("no search is like '{}'", target.text), ..error });
        }
        let least = match quantifier.text {
            _ if quantifier.is("all") => searches.len(),
            _ if quantifier.is("any") => 1,
            number => match number.parse() {
                Ok(least) if least >= 1 => least,
                _ => {
                    let message = format!("expected a number from 1, 'any' or 'all' before 'of', found '{number}'");
                    return Err(self.invalid(quantifier, message));
                }
            },
        };
        if least > searches.len() {
            let message =
                format!("'{least} of {}' can never hold: it has {} to choose from", target.text, searches.len());
            return Err(self.invalid(quantifier, message));
        }
        Ok(Condition::AtLeast(least, searches))
    }
}

fn joined(mut parts: Vec<Condition>, join: fn(Vec<Condition>) -> Condition) -> Condition {
    match parts.len() {
        1 => parts.remove(0),
        _ => join(parts),
    }
}

/// Whether a name is of the form of a pattern with `*`.
fn wild(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=name.len()).any(|skipped| wild(rest, &name[skipped..])),
        ([own, pattern @ ..], [other, name @ ..]) => own == other && wild(pattern, name),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A truth table over searches a, b, sel_1, sel_2, _hidden: the names that hold, and whether the condition does.
    #[track_caller]
    fn check(condition: &str, holding: &str, expected: bool) {
        let names = ["a", "b", "sel_1", "sel_2", "_hidden"];
        let holding: Vec<&str> = holding.split(' ').collect();
        let parsed = parse(condition, &names).unwrap();
        assert_eq!(
            parsed.holds(&mut |index| holding.contains(&names[index])),
            expected,
            "{condition} with {holding:?}"
        );
    }

    #[test]
    fn not_binds_stronger_than_and_and_and_stronger_than_or() {
        check("a or b and sel_1", "a", true);
        check("(a or b) and sel_1", "a", false);
        check("not a and b", "b", true);
        check("not (a and b)", "b", true);
        check("not not a", "a", true);
        check("a AND NOT b", "a", true);
    }

    #[test]
    fn quantifiers_count_searches() {
        check("1 of sel_*", "sel_2", true);
        check("all of sel_*", "sel_2", false);
        check("any of them", "_hidden", false);
        check("all of them", "a b sel_1 sel_2", true);
        check("1 of *_1", "sel_1", true);
    }

    #[test]
    fn decision_4_a_pattern_matches_hidden_searches_only_if_it_is_hidden_itself() {
        assert!(parse("1 of *hidden", &["a", "_hidden"]).is_err());
        check("1 of *_*", "_hidden", false);
        check("1 of _*", "_hidden", true);
    }

    #[test]
    fn decision_5_any_number_of_may_be_asked_for() {
        check("2 of them", "a sel_1", true);
        check("3 of them", "a sel_1", false);
    }

    #[test]
    fn faults_are_named_where_they_are() {
        for (condition, offset, message) in [
            ("", 0, "expected a search identifier, found the end"),
            ("a and", 4, "found the end"),
            ("a b", 2, "expected 'and', 'or' or the end, found 'b'"),
            ("(a", 1, "expected ')'"),
            ("a or c", 5, "no search is called 'c'"),
            ("sel_*", 0, "write '1 of'"),
            ("1 of x*", 5, "no search is like 'x*'"),
            ("9 of sel_*", 0, "can never hold"),
            ("a | count() > 5", 2, "correlation rule"),
            ("a & b", 2, "'&' has no meaning"),
        ] {
            let error = parse(condition, &["a", "b", "sel_1", "sel_2"]).expect_err(condition);
            assert!(error.message.contains(message), "{condition}: {}", error.message);
            assert_eq!(error.offset, offset, "{condition}");
        }
    }

    #[test]
    fn deep_nesting_is_refused() {
        assert!(parse(&"(".repeat(1000), &["a"]).is_err());
        assert!(parse(&"not ".repeat(1000), &["a"]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC{0,40}|([ab()*_]|and|or|not|of|them|1| ){0,20}") {
            let _ = parse(&text, &["a", "b", "_b"]);
        }
    }
}
