//! What a detection asks of a record, evaluated as the specification reads: naive on purpose. This is the meaning of
//! a rule; whatever is faster must agree with it.
//!
//! A field may have several values (arrays fan out). A test holds if any of them satisfies it; `all` asks that each
//! listed value be satisfied by some value of the field; negation stands outside. Nothing here can fail, and nothing is
//! allocated for a rule that does not hold: values are looked at where they stand.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::net::IpAddr;

use chrono::{DateTime, Datelike, NaiveDateTime, Timelike, Utc};
use ipnet::IpNet;
use schemas::Event;
use schemas::document::{Node, View};
use schemas::field::{self, FieldId};
use schemas::path::{AtTop, Path, Scalar, for_each_leaf};

use super::condition::{OperationName, union};
use super::lint::OFTEN_MISSING;
use super::pattern::{Pattern, fold, fold_text};

/// A field of the record: the values of one path, or of several where a rule's dialect has one name for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub paths: Vec<FieldPath>,
}

/// One path, and its segments for reaching what lies deeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldPath {
    path: Path,
    segments: Vec<String>,
}

/// The fields that have few values. Operations have many; but rules are kept by them already.
const FEW_VALUES: &[FieldId] = &[
    field::OPERATION,
    field::OPERATION_KEY,
    field::RECORD_TYPE,
    field::RECORD_TYPE_NAME,
    field::WORKLOAD,
    field::SOURCE,
    field::CONTENT_TYPE,
    field::OUTCOME,
    field::ERROR_NUMBER,
    field::USER_TYPE,
    field::LOGON_TYPE,
    field::MAIL_ACCESS_TYPE,
    field::IS_THROTTLED,
];

/// What is asked: a record, or one member of a list in it.
#[derive(Clone, Copy)]
pub enum Subject<'e> {
    Record(&'e Event),
    Member(Node<'e>),
}

impl<'e> Subject<'e> {
    pub fn node(self) -> Node<'e> {
        match self {
            Subject::Record(event) => event.record(),
            Subject::Member(node) => node,
        }
    }
}

/// Room for the values of a field, kept from one question to the next: a rule that does not match allocates nothing.
#[derive(Default)]
pub struct Scratch<'e> {
    values: Vec<Scalar<'e>>,
    others: Vec<Scalar<'e>>,
}

impl FieldPath {
    pub fn parse(text: &str) -> FieldPath {
        FieldPath::of(Path::parse(text), text)
    }

    /// A path inside a member of a list, where the names of `FIELDS` mean nothing.
    pub fn of_member(text: &str) -> FieldPath {
        FieldPath::of(Path::of_record(text), text)
    }

    fn of(path: Path, text: &str) -> FieldPath {
        let is_plain = path.field().is_none() && !text.contains('[');
        let segments = if is_plain { text.split('.').map(str::to_owned).collect() } else { Vec::new() };
        FieldPath { path, segments }
    }

    /// Appends the values; whether the field is there. A path that ends at an object, or at an array of objects, has
    /// no value of its own: then it has all values inside, which is how rules written for flattened records read it.
    fn select<'a>(&self, subject: Subject<'a>, out: &mut Vec<Scalar<'a>>) -> bool {
        let before = out.len();
        let present = match subject {
            Subject::Record(event) => self.path.select(event, out),
            Subject::Member(node) => self.path.select_record(node, out),
        };
        if present && out.len() == before && !self.segments.is_empty() {
            leaves(subject.node(), &self.segments, out);
        }
        present
    }
}

fn leaves<'a>(node: Node<'a>, segments: &[String], out: &mut Vec<Scalar<'a>>) {
    match (node.view(), segments) {
        (_, []) => for_each_leaf(node, &mut |text| out.push(Scalar::Text(Cow::Owned(text.to_owned())))),
        (View::Array(items), _) => items.into_iter().for_each(|item| leaves(item, segments, out)),
        (View::Object(members), [first, rest @ ..]) => {
            if let Some(member) = members.get(first) {
                leaves(member, rest, out);
            }
        }
        _ => {}
    }
}

impl Field {
    /// Whether it has a handful of values in all, so that one of them says little of a record.
    pub fn has_few_values(&self) -> bool {
        self.paths.iter().any(|path| match path.path.field() {
            Some(field) => FEW_VALUES.contains(&field),
            None => match path.segments.as_slice() {
                [key] => FEW_VALUES.iter().any(|field| field.field().sources.contains(&key.as_str())),
                _ => false,
            },
        })
    }

    /// Whether it is a matter of the operation that a record has it, and not of what was done: a key at the top of the
    /// record, or one of the fields that many operations lack.
    pub fn goes_with_operation(&self) -> bool {
        self.paths.iter().all(|path| match path.path.field() {
            Some(id) => OFTEN_MISSING.iter().any(|(name, _)| *name == id.field().name),
            None => path.segments.len() == 1 && !path.segments[0].contains('['),
        })
    }

    /// What it selects, where that is seen at once.
    pub fn at_top<'a>(&self, event: &'a Event) -> AtTop<'a> {
        match self.paths.as_slice() {
            [path] => path.path.at_top(event.record()),
            _ => AtTop::Other,
        }
    }

    /// Appends the values; whether the field is there.
    pub fn select<'a>(&self, subject: Subject<'a>, out: &mut Vec<Scalar<'a>>) -> bool {
        let mut present = false;
        for path in &self.paths {
            present |= path.select(subject, out);
        }
        present
    }
}

/// A number of a rule or of a record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    Integer(i64),
    Float(f64),
}

impl Number {
    /// A number written as text, white space around it allowed.
    pub fn parse(text: &str) -> Option<Number> {
        let text = text.trim();
        let allowed = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'+' | b'e' | b'E');
        if !text.bytes().any(|byte| byte.is_ascii_digit()) || !text.bytes().all(allowed) {
            return None;
        }
        if let Ok(integer) = text.parse() {
            return Some(Number::Integer(integer));
        }
        text.parse().ok().filter(|float: &f64| float.is_finite()).map(Number::Float)
    }

    fn of(scalar: &Scalar<'_>) -> Option<Number> {
        match scalar {
            Scalar::Integer(integer) => Some(Number::Integer(*integer)),
            Scalar::Float(float) => Some(Number::Float(*float)),
            Scalar::Text(text) => Number::parse(text),
            Scalar::Null | Scalar::Boolean(_) => None,
        }
    }

    fn compare(self, other: Number) -> Option<Ordering> {
        match (self, other) {
            (Number::Integer(a), Number::Integer(b)) => Some(a.cmp(&b)),
            (a, b) => a.float().partial_cmp(&b.float()),
        }
    }

    fn float(self) -> f64 {
        match self {
            Number::Integer(integer) => integer as f64,
            Number::Float(float) => float,
        }
    }
}

/// How numbers are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    /// Whether more only makes it truer.
    pub fn is_lower(self) -> bool {
        matches!(self, Comparison::Greater | Comparison::GreaterOrEqual)
    }

    pub fn holds(self, ordering: Option<Ordering>) -> bool {
        ordering.is_some_and(|ordering| match self {
            Comparison::Equal => ordering.is_eq(),
            Comparison::NotEqual => ordering.is_ne(),
            Comparison::Less => ordering.is_lt(),
            Comparison::LessOrEqual => ordering.is_le(),
            Comparison::Greater => ordering.is_gt(),
            Comparison::GreaterOrEqual => ordering.is_ge(),
        })
    }
}

/// A part of a moment, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatePart {
    Minute,
    Hour,
    Day,
    /// ISO week, 1 to 53.
    Week,
    Month,
    Year,
}

impl DatePart {
    fn of(self, time: DateTime<Utc>) -> i64 {
        match self {
            DatePart::Minute => i64::from(time.minute()),
            DatePart::Hour => i64::from(time.hour()),
            DatePart::Day => i64::from(time.day()),
            DatePart::Week => i64::from(time.iso_week().week()),
            DatePart::Month => i64::from(time.month()),
            DatePart::Year => i64::from(time.year()),
        }
    }
}

/// Where one value stands in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Affix {
    Whole,
    Contains,
    StartsWith,
    EndsWith,
}

/// One question about the values of a field.
#[derive(Clone, Debug)]
pub enum Test {
    /// Text; with the number it is if it can be read as one.
    Text {
        pattern: Pattern,
        number: Option<Number>,
    },
    Number(Number),
    Boolean(bool),
    /// Absent, null, or an empty list.
    Null,
    Exists(bool),
    Regex(regex::Regex),
    Compare(Comparison, Number),
    Part(DatePart, Comparison, i64),
    Network(IpNet),
    Reference {
        field: Field,
        affix: Affix,
        cased: bool,
    },
    /// Several forms of one value.
    AnyOf(Vec<Test>),
    /// One of many whole texts without wildcards: folded, in order.
    OneOf(Vec<String>),
}

/// From so many texts on, looking one up is quicker than comparing with each.
const ONE_OF_MIN: usize = 8;

/// Puts the plain texts of a long list where they are looked up.
pub fn gathered(tests: Vec<Test>) -> Vec<Test> {
    let is_plain = |test: &Test| matches!(test, Test::Text { pattern, number: None } if !pattern.has_wildcards() && !pattern.is_cased());
    if tests.iter().filter(|test| is_plain(test)).count() < ONE_OF_MIN {
        return tests;
    }
    let (plain, mut others): (Vec<Test>, Vec<Test>) = tests.into_iter().partition(is_plain);
    let mut texts: Vec<String> = plain.iter().flat_map(Test::literals).flatten().collect();
    texts.sort_unstable();
    texts.dedup();
    others.push(Test::OneOf(texts));
    others
}

impl Test {
    /// The only texts it holds for, folded, if it is but some.
    fn literals(&self) -> Option<Vec<String>> {
        match self {
            Test::Text { pattern, .. } if !pattern.has_wildcards() => Some(vec![fold_text(&pattern.letters())]),
            Test::OneOf(texts) => Some(texts.clone()),
            _ => None,
        }
    }

    fn holds<'e>(&self, scratch: &mut Scratch<'e>, present: bool, subject: Subject<'e>) -> bool {
        match self {
            Test::Null => {
                scratch.values.iter().all(|value| *value == Scalar::Null) || scratch.values.contains(&Scalar::Null)
            }
            Test::Exists(expected) => present == *expected,
            Test::AnyOf(tests) => tests.iter().any(|test| test.holds(scratch, present, subject)),
            Test::Reference { field, affix, cased } => {
                scratch.others.clear();
                field.select(subject, &mut scratch.others);
                let is = |value: &Scalar<'_>, other: &Scalar<'_>| refers(value, other, *affix, *cased);
                scratch.values.iter().any(|value| scratch.others.iter().any(|other| is(value, other)))
            }
            _ => scratch.values.iter().any(|value| self.holds_for(value)),
        }
    }

    /// Whether a text that stands anywhere in a record is what a keyword asks for.
    pub(super) fn holds_for_text(&self, text: &str) -> bool {
        match self {
            Test::AnyOf(tests) => tests.iter().any(|test| test.holds_for_text(text)),
            _ => self.holds_for(&Scalar::Text(Cow::Borrowed(text))),
        }
    }

    /// For the tests that look at one value at a time.
    fn holds_for(&self, value: &Scalar<'_>) -> bool {
        match (self, value) {
            (_, Scalar::Null) => false,
            (Test::Text { pattern, number }, Scalar::Integer(_) | Scalar::Float(_)) => {
                match (*number, Number::of(value)) {
                    (Some(own), Some(other)) => own.compare(other) == Some(Ordering::Equal),
                    _ => pattern.matches(&value.to_text()),
                }
            }
            (Test::Text { pattern, .. }, _) => pattern.matches(&value.to_text()),
            (Test::OneOf(texts), _) => {
                let text = value.to_text();
                let own = |known: &String| known.chars().cmp(text.chars().map(fold));
                texts.binary_search_by(own).is_ok()
            }
            (Test::Number(number), _) => {
                Comparison::Equal.holds(Number::of(value).and_then(|own| own.compare(*number)))
            }
            (Test::Boolean(expected), Scalar::Boolean(boolean)) => boolean == expected,
            (Test::Boolean(expected), Scalar::Text(text)) => {
                text.eq_ignore_ascii_case(if *expected { "true" } else { "false" })
            }
            (Test::Regex(regex), _) => regex.is_match(&value.to_text()),
            (Test::Compare(comparison, number), _) => {
                comparison.holds(Number::of(value).and_then(|own| own.compare(*number)))
            }
            (Test::Part(part, comparison, number), Scalar::Text(text)) => {
                moment(text).is_some_and(|time| comparison.holds(Some(part.of(time).cmp(number))))
            }
            (Test::Network(network), Scalar::Text(text)) => address(text).is_some_and(|ip| network.contains(&ip)),
            _ => false,
        }
    }
}

fn refers(value: &Scalar<'_>, other: &Scalar<'_>, affix: Affix, cased: bool) -> bool {
    if *value == Scalar::Null || *other == Scalar::Null {
        return false;
    }
    let is_number = |scalar: &Scalar<'_>| matches!(scalar, Scalar::Integer(_) | Scalar::Float(_));
    if affix == Affix::Whole
        && (is_number(value) || is_number(other))
        && let (Some(a), Some(b)) = (Number::of(value), Number::of(other))
    {
        return a.compare(b) == Some(Ordering::Equal);
    }
    let text = |scalar: &Scalar<'_>| {
        let text = scalar.to_text();
        if cased { text.into_owned() } else { fold_text(&text) }
    };
    let (value, other) = (text(value), text(other));
    match affix {
        Affix::Whole => value == other,
        Affix::Contains => value.contains(&other),
        Affix::StartsWith => value.starts_with(&other),
        Affix::EndsWith => value.ends_with(&other),
    }
}

/// A moment as records write it: RFC 3339, or without a zone, which means UTC.
fn moment(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim();
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.with_timezone(&Utc));
    }
    let forms = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"];
    forms.iter().find_map(|form| NaiveDateTime::parse_from_str(text, form).ok()).map(|time| time.and_utc())
}

/// An address as records write it: with a port, in brackets, IPv4 in an IPv6 form.
pub fn address(text: &str) -> Option<IpAddr> {
    match text.parse::<IpAddr>() {
        Ok(address) => Some(address.to_canonical()),
        Err(_) => address_inside(text),
    }
}

fn address_inside(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = match text.strip_prefix('[') {
        Some(inner) => inner.split(']').next().unwrap_or_default(),
        None if text.matches(':').count() == 1 => text.split(':').next().unwrap_or_default(),
        None => text,
    };
    let bare = bare.split('%').next().unwrap_or_default();
    bare.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

/// Most values of a line that are kept as they are written: nobody reads more of them.
const WRITTEN_MAX: usize = 8;

/// A line as its author wrote it, lists in the place of their placeholders: what an explanation shows.
#[derive(Clone, Debug, Default)]
pub struct Written {
    pub key: String,
    pub values: Vec<String>,
    /// How many values there are beyond those kept.
    pub more: usize,
}

impl Written {
    pub fn of(key: &str, values: impl ExactSizeIterator<Item = String>) -> Written {
        let more = values.len().saturating_sub(WRITTEN_MAX);
        Written { key: key.to_owned(), values: values.take(WRITTEN_MAX).collect(), more }
    }
}

/// One line of a selection.
#[derive(Clone, Debug)]
pub struct Item {
    pub written: Written,
    /// None for keywords: every value of the record.
    pub field: Option<Field>,
    pub tests: Vec<Test>,
    /// Each test must hold, not any.
    pub all: bool,
    pub negated: bool,
}

impl Item {
    /// The values it looks at, and whether the field is there at all.
    pub fn values<'e>(&self, subject: Subject<'e>) -> (Vec<Scalar<'e>>, bool) {
        let mut values = Vec::new();
        let present = self.field.as_ref().is_some_and(|field| field.select(subject, &mut values));
        (values, present)
    }

    pub fn matches<'e>(&self, subject: Subject<'e>, scratch: &mut Scratch<'e>) -> bool {
        let hit = match &self.field {
            Some(field) => {
                scratch.values.clear();
                let present = field.select(subject, &mut scratch.values);
                let mut held = self.tests.iter().map(|test| test.holds(scratch, present, subject));
                if self.all { held.all(|held| held) } else { held.any(|held| held) }
            }
            None => {
                let mut held = self.tests.iter().map(|test| {
                    let mut found = false;
                    for_each_leaf(subject.node(), &mut |text| found = found || test.holds_for_text(text));
                    found
                });
                if self.all { held.all(|held| held) } else { held.any(|held| held) }
            }
        };
        hit != self.negated
    }
}

impl Item {
    /// The operations one of which a record must have for this line to hold; none where it may hold for any.
    pub(super) fn operations(&self) -> Option<BTreeSet<OperationName>> {
        let [path] = self.field.as_ref()?.paths.as_slice() else { return None };
        if self.negated {
            return None;
        }
        let name: fn(String) -> OperationName = match path.path.field() {
            Some(field::OPERATION_KEY) => OperationName::Key,
            None if path.segments == ["Operation"] => OperationName::Written,
            _ => return None,
        };
        let texts: Vec<String> = self.tests.iter().map(Test::literals).collect::<Option<Vec<_>>>()?.concat();
        Some(texts.into_iter().map(name).collect())
    }
}

/// A search identifier's value.
#[derive(Clone, Debug)]
pub enum Search {
    Item(Item),
    All(Vec<Search>),
    Any(Vec<Search>),
    Members(Box<Members>),
}

/// A search that one member of a list satisfies as a whole, or that each of them does.
#[derive(Clone, Debug)]
pub struct Members {
    /// As its author wrote it: `Target[any]`.
    pub written: String,
    pub path: Path,
    pub each: bool,
    pub search: Search,
}

impl Members {
    fn matches(&self, subject: Subject<'_>) -> bool {
        let (mut members, mut held) = (0_usize, 0_usize);
        self.path.for_each_member(subject.node(), &mut |member| {
            members += 1;
            held += usize::from(self.search.matches(Subject::Member(member), &mut Scratch::default()));
        });
        held > 0 && (!self.each || held == members)
    }
}

impl Search {
    /// The operations one of which a record must have for it to hold; none where it may hold for any.
    pub(super) fn operations(&self) -> Option<BTreeSet<OperationName>> {
        match self {
            Search::Item(item) => item.operations(),
            Search::All(parts) => parts.iter().find_map(Search::operations),
            Search::Any(parts) => union(parts.iter().map(Search::operations)),
            Search::Members(_) => None,
        }
    }

    pub fn matches<'e>(&self, subject: Subject<'e>, scratch: &mut Scratch<'e>) -> bool {
        match self {
            Search::Item(item) => item.matches(subject, scratch),
            Search::All(parts) => parts.iter().all(|part| part.matches(subject, scratch)),
            Search::Any(parts) => parts.iter().any(|part| part.matches(subject, scratch)),
            Search::Members(members) => members.matches(subject),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn an_address_that_stands_for_itself_is_the_same_as_one_that_is_looked_for(
            text in "(\\[|::ffff:)?([0-9]{1,3}(\\.[0-9]{1,3}){3}|[0-9a-f]{0,4}(:[0-9a-f]{0,4}){1,7})(%[0-9]|\\]|:[0-9]{1,5}| )?"
        ) {
            proptest::prop_assert_eq!(address(&text), address_inside(&text));
        }
    }
}
