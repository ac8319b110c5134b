//! The tests a rule carries: `x-tests`, with shorthand that makes whole records out of what matters.
//!
//! A record without `Id` gets one from the test's name and its position; `at: +3m` or `at: -2d4h`, relative to a fixed
//! moment, becomes `CreationTime`; `use: name` lays it over one of `x-fixtures`; `repeat: 12` with `every: 10s` makes a
//! burst of it. The moment is fixed so that a test says the same on every day.

use std::collections::BTreeMap;

use chrono::{NaiveDate, NaiveDateTime, TimeDelta};
use ipnet::IpNet;
use serde_json::{Map, Value as Json};

use super::model::RuleTest;
use super::read;
use super::report::{Code, Problems};
use super::yaml::{Entry, Node, Value};
use crate::places::Place;

/// Most records of one test.
const RECORDS_MAX: usize = 20_000;

/// Monday, 2 November 2026, 09:00 UTC: what `at` counts from.
fn base() -> NaiveDateTime {
    NaiveDate::from_ymd_opt(2026, 11, 2).and_then(|day| day.and_hms_opt(9, 0, 0)).unwrap_or_default()
}

/// Partial records by name.
pub type Fixtures = BTreeMap<String, Map<String, Json>>;

/// Reads `x-fixtures`.
pub fn fixtures(entry: &Entry, fixtures: &mut Fixtures, problems: &mut Problems<'_>) {
    for fixture in read::map(entry, problems).unwrap_or_default() {
        match fixture.value.json() {
            Json::Object(record) => {
                fixtures.insert(fixture.key.clone(), record);
            }
            _ => problems.add(Code::InvalidValue, fixture.value.place, "a fixture is a record: a map"),
        }
    }
}

/// Reads `x-tests`.
pub fn tests(entry: &Entry, fixtures: &Fixtures, problems: &mut Problems<'_>) -> Vec<RuleTest> {
    let Value::List(members) = &entry.value.value else {
        problems.add(Code::InvalidValue, entry.value.place, format!("'x-tests' is a list, not {}", entry.value.kind()));
        return Vec::new();
    };
    let mut names: Vec<String> = Vec::new();
    let mut tests = Vec::new();
    for member in members {
        if let Some(test) = test(member, fixtures, problems) {
            if names.contains(&test.name) {
                problems.add(Code::Duplicate, member.place, format!("two tests are called '{}'", test.name));
            }
            names.push(test.name.clone());
            tests.push(test);
        }
    }
    tests
}

fn test(node: &Node, fixtures: &Fixtures, problems: &mut Problems<'_>) -> Option<RuleTest> {
    read::only_keys(node, &["name", "records", "findings", "reason_contains", "domains", "places"], "a test", problems);
    let missing = |key: &str, problems: &mut Problems<'_>| {
        problems.add(Code::MissingKey, node.place, format!("a test has '{key}'"));
    };
    let Some(name) = node.entry("name").and_then(|entry| read::text(entry, problems)) else {
        missing("name", problems);
        return None;
    };
    let Some(findings) = node.entry("findings") else {
        missing("findings", problems);
        return None;
    };
    let findings = read::count(findings, 0, 10_000, problems)?;
    let mut records = Vec::new();
    for (index, record) in node.get("records").map_or(&[][..], Node::members).iter().enumerate() {
        self::records(record, (name, index), fixtures, &mut records, problems);
    }
    let texts = |key: &str, problems: &mut Problems<'_>| {
        node.entry(key).map(|entry| read::owned_texts(entry, problems)).unwrap_or_default()
    };
    Some(RuleTest {
        name: name.to_owned(),
        records,
        findings: usize::try_from(findings).unwrap_or_default(),
        reason_contains: texts("reason_contains", problems),
        domains: texts("domains", problems),
        places: node.entry("places").map(|entry| places(entry, problems)).unwrap_or_default(),
        line: node.place.line,
    })
}

/// `{198.51.100.0/24: [52.5, 13.4]}`: degrees north and east, and kilometres around where they are not 20.
fn places(entry: &Entry, problems: &mut Problems<'_>) -> Vec<(IpNet, Place)> {
    let mut places = Vec::new();
    for network in read::map(entry, problems).unwrap_or_default() {
        let numbers: Vec<f64> = network.value.members().iter().filter_map(|number| number.json().as_f64()).collect();
        let place = match numbers[..] {
            [latitude, longitude] => Place::new(latitude, longitude, 20.0),
            [latitude, longitude, radius_km] => Place::new(latitude, longitude, radius_km),
            _ => None,
        };
        match (network.key.parse::<IpNet>(), place) {
            (Ok(of), Some(place)) => places.push((of, place)),
            _ => {
                let message = "a place is 'network: [degrees north, degrees east]'";
                problems.add(Code::InvalidValue, network.place, message);
            }
        }
    }
    places
}

/// One entry of `records`: one record, or a burst.
fn records(
    node: &Node,
    (test, index): (&str, usize),
    fixtures: &Fixtures,
    out: &mut Vec<Json>,
    problems: &mut Problems<'_>,
) {
    let Some(entries) = node.map() else {
        problems.add(Code::InvalidValue, node.place, format!("a record is a map, not {}", node.kind()));
        return;
    };
    let mut record = Map::new();
    if let Some(used) = node.entry("use") {
        for (name, place) in read::texts(used, problems) {
            match fixtures.get(name) {
                Some(fixture) => record.extend(fixture.clone()),
                None => {
                    let message = format!("no fixture is called '{name}'");
                    problems.add_name(
                        Code::UnknownKey,
                        place.place,
                        message,
                        name,
                        fixtures.keys().map(String::as_str),
                    );
                }
            }
        }
    }
    let (mut at, mut repeat, mut every) = (TimeDelta::zero(), 1, TimeDelta::seconds(1));
    for entry in entries {
        match entry.key.as_str() {
            "use" => {}
            "at" => at = moment(entry, problems).unwrap_or(at),
            "repeat" => repeat = read::count(entry, 1, RECORDS_MAX as i64, problems).unwrap_or(1),
            "every" => every = read::timespan(entry, problems).unwrap_or(every),
            _ => {
                record.insert(entry.key.clone(), entry.value.json());
            }
        }
    }
    if out.len() + usize::try_from(repeat).unwrap_or(RECORDS_MAX) > RECORDS_MAX {
        problems.add(Code::Limit, node.place, format!("a test of more than {RECORDS_MAX} records"));
        return;
    }
    for copy in 0..repeat {
        let mut record = record.clone();
        let offset =
            i32::try_from(copy).ok().and_then(|copy| every.checked_mul(copy)).and_then(|all| at.checked_add(&all));
        let time = offset.and_then(|offset| base().checked_add_signed(offset)).unwrap_or_else(base);
        let id = if repeat > 1 { format!("{test} #{index}.{copy}") } else { format!("{test} #{index}") };
        record.entry("Id").or_insert_with(|| Json::String(id));
        record.entry("CreationTime").or_insert_with(|| Json::String(time.format("%Y-%m-%dT%H:%M:%S").to_string()));
        out.push(Json::Object(record));
    }
}

/// `+3m`, `-2d4h`, `0s`: signed lengths of time, one after the other.
fn moment(entry: &Entry, problems: &mut Problems<'_>) -> Option<TimeDelta> {
    let parsed = entry.value.text().and_then(|text| {
        let (negative, mut rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let mut total = TimeDelta::zero();
        while !rest.is_empty() {
            let unit = rest.find(|c: char| !c.is_ascii_digit())?;
            let end = unit + rest[unit..].chars().next()?.len_utf8();
            total = total.checked_add(&read::parse_timespan(&rest[..end])?)?;
            rest = &rest[end..];
        }
        Some(if negative { -total } else { total })
    });
    if parsed.is_none() {
        let message = "'at' is a length of time from the test's fixed moment: +3m, -2d4h";
        problems.add(Code::InvalidValue, entry.value.place, message);
    }
    parsed
}
