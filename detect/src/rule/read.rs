//! Reading typed values from the tree: each function reports what is wrong with a value and gives none then.

use chrono::TimeDelta;

use super::report::{Code, Problems, distance};
use super::yaml::{Entry, Node, Value};

/// Longest text of a rule: Sigma's own limit for descriptions.
pub const TEXT_BYTES_MAX: usize = 65_535;

/// Longest timespan. State of a window is kept as long, and no audit log reaches back further.
const TIMESPAN_DAYS_MAX: i64 = 366;

pub fn text<'n>(entry: &'n Entry, problems: &mut Problems<'_>) -> Option<&'n str> {
    match entry.value.text() {
        Some(text) if text.len() <= TEXT_BYTES_MAX => Some(text),
        Some(_) => {
            problems.add(Code::Limit, entry.place, format!("'{}' is longer than {TEXT_BYTES_MAX} bytes", entry.key));
            None
        }
        None => expected("text", entry, &entry.value, problems),
    }
}

/// A list of texts, or one text.
pub fn texts<'n>(entry: &'n Entry, problems: &mut Problems<'_>) -> Vec<(&'n str, &'n Node)> {
    let mut texts = Vec::new();
    for member in entry.value.members() {
        match member.text() {
            Some(text) => texts.push((text, member)),
            None => {
                expected::<()>("a list of texts", entry, member, problems);
            }
        }
    }
    texts
}

/// The same, without places.
pub fn owned_texts(entry: &Entry, problems: &mut Problems<'_>) -> Vec<String> {
    texts(entry, problems).into_iter().map(|(text, _)| text.to_owned()).collect()
}

pub fn boolean(entry: &Entry, problems: &mut Problems<'_>) -> Option<bool> {
    match entry.value.value {
        Value::Boolean(boolean) => Some(boolean),
        _ => expected("true or false", entry, &entry.value, problems),
    }
}

/// A whole number within bounds.
pub fn count(entry: &Entry, least: i64, most: i64, problems: &mut Problems<'_>) -> Option<i64> {
    match entry.value.value {
        Value::Integer(number) if (least..=most).contains(&number) => Some(number),
        _ => {
            let what =
                if most >= i64::MAX - 1 { format!("of at least {least}") } else { format!("from {least} to {most}") };
            expected(&format!("a whole number {what}"), entry, &entry.value, problems)
        }
    }
}

/// A number that is not negative.
pub fn factor(entry: &Entry, problems: &mut Problems<'_>) -> Option<f64> {
    match entry.value.value {
        Value::Integer(number) if number >= 0 => Some(number as f64),
        Value::Float(number) if number >= 0.0 => Some(number),
        _ => expected("a number that is not negative", entry, &entry.value, problems),
    }
}

/// A timespan: digits and one of s, m, h, d, w.
pub fn timespan(entry: &Entry, problems: &mut Problems<'_>) -> Option<TimeDelta> {
    let Some(span) = entry.value.text().and_then(parse_timespan) else {
        return expected("a timespan such as 90s, 10m, 1h, 7d or 2w", entry, &entry.value, problems);
    };
    if span <= TimeDelta::zero() || span > TimeDelta::days(TIMESPAN_DAYS_MAX) {
        let message = format!("'{}' is at least 1s and at most {TIMESPAN_DAYS_MAX}d", entry.key);
        problems.add(Code::InvalidValue, entry.value.place, message);
        return None;
    }
    Some(span)
}

/// A timespan of whole days.
pub fn days(entry: &Entry, problems: &mut Problems<'_>) -> Option<u32> {
    let span = timespan(entry, problems)?;
    let days = span.num_days();
    if TimeDelta::days(days) != span {
        return expected("whole days, such as 30d or 4w", entry, &entry.value, problems);
    }
    u32::try_from(days).ok()
}

/// The length of time that digits and a unit say.
pub fn parse_timespan(text: &str) -> Option<TimeDelta> {
    let unit = text.chars().last()?;
    let digits = &text[..text.len() - unit.len_utf8()];
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: i64 = digits.parse().ok()?;
    match unit {
        's' => TimeDelta::try_seconds(number),
        'm' => TimeDelta::try_minutes(number),
        'h' => TimeDelta::try_hours(number),
        'd' => TimeDelta::try_days(number),
        'w' => TimeDelta::try_weeks(number),
        _ => None,
    }
}

fn expected<T>(what: &str, entry: &Entry, found: &Node, problems: &mut Problems<'_>) -> Option<T> {
    let found = match &found.value {
        Value::Text { text, .. } if text.len() <= 40 => format!("'{}'", text.escape_debug()),
        Value::Integer(number) => number.to_string(),
        _ => found.kind().to_owned(),
    };
    problems.add(Code::InvalidValue, entry.value.place, format!("'{}' is {what}, not {found}", entry.key));
    None
}

/// Reports every key of a closed map that is none of its own.
pub fn only_keys(node: &Node, valid: &[&str], place: &str, problems: &mut Problems<'_>) {
    for entry in node.map().unwrap_or_default() {
        if !valid.contains(&entry.key.as_str()) {
            let message = format!("unknown key '{}' in {place}", entry.key.escape_debug());
            problems.add_name(Code::UnknownKey, entry.place, message, &entry.key, valid.iter().copied());
        }
    }
}

/// Reports the keys of an open map that are most likely slips for one of its own.
pub fn no_slips(node: &Node, own: &[&str], problems: &mut Problems<'_>) {
    for entry in node.map().unwrap_or_default() {
        let key = entry.key.as_str();
        if own.contains(&key) || key.len() < 4 {
            continue;
        }
        let limit = if key.len() < 6 { 1 } else { 2 };
        let near = |name: &&str| name.starts_with("x-") == key.starts_with("x-") && distance(name, key) <= limit;
        if let Some(nearest) = own.iter().copied().filter(near).min_by_key(|name| distance(name, key)) {
            let message = format!("unknown key '{}'", key.escape_debug());
            problems.add_name(Code::UnknownKey, entry.place, message, key, [nearest]);
        }
    }
}

/// A map, or a report that it is none.
pub fn map<'n>(entry: &'n Entry, problems: &mut Problems<'_>) -> Option<&'n [Entry]> {
    match entry.value.map() {
        Some(entries) => Some(entries),
        None => expected("a map", entry, &entry.value, problems),
    }
}
