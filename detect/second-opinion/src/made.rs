//! Records made to come near a rule: its own values in the fields it asks for, most as they are, some changed a little.
//!
//! The same rules and records make the same records again: chance is a counter.

use detect::rule::condition::Asked;
use rsigma_parser::{Detection, DetectionItem, Modifier, SigmaRule, SigmaString, SigmaValue, StringPart};
use serde_json::{Map, Value, json};

type Record = Map<String, Value>;

/// Name/value arrays of records, whose members paths address by name.
const ARRAYS: &[&str] =
    &["DeviceProperties", "ExtendedProperties", "ModifiedProperties", "OperationProperties", "Parameters"];

/// Fields whose values are lists of objects.
const LISTS: &[&str] = &["ModifiedProperties", "OperationProperties", "Parameters", "Target"];

/// What is asked for of an alert that was raised, and what else operations are.
const ALERTS: &[&str] = &["AlertTriggered", "AlertEntityGenerated", "alertupdated", "success", "SearchStarted"];

/// Numbers that look like chance (splitmix64).
pub struct Chance(pub u64);

impl Chance {
    /// Below `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) % end as u64) as usize
    }

    fn one_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    fn of<'t, T>(&mut self, choices: &'t [T]) -> &'t T {
        &choices[self.below(choices.len())]
    }
}

/// A rule as records are made for it.
pub struct Model<'r> {
    pub parsed: &'r SigmaRule,
    /// What its fields are here.
    pub asks: &'r [Asked],
    /// The workloads it speaks of; any where there are none.
    pub workloads: &'static [&'static str],
}

impl Model<'_> {
    /// A record made of another one.
    pub fn record(&self, base: &Value, chance: &mut Chance) -> Value {
        let mut record = base.as_object().expect("an object").clone();
        if !self.workloads.is_empty() && !chance.one_in(8) {
            record.insert("Workload".to_owned(), json!(chance.of(self.workloads)));
        }
        if self.parsed.logsource.service.as_deref() == Some("signinlogs") && !chance.one_in(8) {
            record.insert("Operation".to_owned(), json!(chance.of(&["UserLoggedIn", "UserLoginFailed"])));
        }
        let mut searches: Vec<(&String, &Detection)> = self.parsed.detection.named.iter().collect();
        searches.sort_by_key(|(name, _)| *name);
        for (name, search) in searches {
            let is_filter = name.starts_with("filter");
            if is_filter && chance.one_in(4) || !is_filter && !chance.one_in(8) {
                self.fill(search, &mut record, chance);
            }
        }
        Value::Object(record)
    }

    fn fill(&self, search: &Detection, record: &mut Record, chance: &mut Chance) {
        match search {
            Detection::AllOf(items) => items.iter().for_each(|item| self.answer(item, record, chance)),
            Detection::AnyOf(searches) if !searches.is_empty() => self.fill(chance.of(searches), record, chance),
            Detection::And(searches) => searches.iter().for_each(|search| self.fill(search, record, chance)),
            // The others stand in no rule of SigmaHQ for these products.
            _ => {}
        }
    }

    /// Gives the record what a line asks for, or nearly.
    fn answer(&self, item: &DetectionItem, record: &mut Record, chance: &mut Chance) {
        let Some(name) = &item.field.name else { return };
        let Some(asked) = self.asks.iter().find(|asked| asked.name == *name) else { return };
        if chance.one_in(12) {
            return;
        }
        let value = value(item, chance);
        let value = if chance.one_in(2) { value } else { changed(value, chance) };
        let alert = asked.means == ["operation"] && name.eq_ignore_ascii_case("status");
        let value = if alert { json!(chance.of(ALERTS)) } else { value };
        let meaning = chance.of(&asked.means).as_str();
        let place = match schemas::field::by_name(meaning) {
            Some(field) => chance.of(field.field().sources),
            None => meaning,
        };
        put(record, place, value, chance);
    }
}

/// One of the values a line asks for, or all of them where it asks for all.
fn value(item: &DetectionItem, chance: &mut Chance) -> Value {
    let one = |value: &SigmaValue| match value {
        SigmaValue::String(text) => Value::String(plain(text)),
        SigmaValue::Integer(number) => json!(number),
        SigmaValue::Float(number) => json!(number),
        SigmaValue::Bool(boolean) => json!(boolean),
        SigmaValue::Null => Value::Null,
    };
    if item.values.is_empty() {
        return Value::Null;
    }
    let value = match item.field.has_modifier(Modifier::All) {
        true => {
            let all: Vec<String> = item.values.iter().map(|value| text(&one(value))).collect();
            Value::String(all.join(" and "))
        }
        false => one(chance.of(&item.values)),
    };
    let around = ["", "", "x", "of the ", "."];
    let has = |modifier| item.field.has_modifier(modifier);
    let before = if has(Modifier::Contains) || has(Modifier::EndsWith) { *chance.of(&around) } else { "" };
    let after = if has(Modifier::Contains) || has(Modifier::StartsWith) { *chance.of(&around) } else { "" };
    match before.is_empty() && after.is_empty() {
        true => value,
        false => Value::String(format!("{before}{}{after}", text(&value))),
    }
}

/// A text for a pattern: something where its wildcards are.
fn plain(pattern: &SigmaString) -> String {
    let part = |part: &StringPart| match part {
        StringPart::Plain(text) => text.clone(),
        StringPart::Special(_) => "x".to_owned(),
    };
    pattern.parts.iter().map(part).collect()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Nearly the same value.
fn changed(value: Value, chance: &mut Chance) -> Value {
    let text = text(&value);
    match chance.below(16) {
        0 | 1 => json!(text.to_uppercase()),
        2 | 3 => json!(text.to_lowercase()),
        4 => json!(format!("{text}.")),
        5 => json!(text.trim_end_matches('.')),
        6 => json!(format!("x{text}")),
        7 => json!(format!("{text}x")),
        8 => json!(text.chars().skip(1).collect::<String>()),
        9 => json!(text.replace('-', "\u{2013}")),
        10 => json!(text.replace('s', "\u{17f}")),
        11 => text.parse::<i64>().map_or(json!(text), |number| json!(number)),
        12 => json!(text.replace("Management", "")),
        13 => json!([value, "another"]),
        14 => chance.of(&[json!(""), json!([]), json!(["another"]), Value::Null]).clone(),
        _ => json!(format!(" {text} ")),
    }
}

/// Puts a value where a path finds it.
fn put(record: &mut Record, path: &str, value: Value, chance: &mut Chance) {
    let pair = |name: &str| json!({ "Name": name, "Value": value, "NewValue": value, "OldValue": "" });
    let of_array = path.split_once('.').filter(|(root, _)| ARRAYS.contains(root));
    let (root, member) = match of_array {
        Some((root, name)) => (root, pair(name)),
        None if LISTS.contains(&path) && !chance.one_in(3) => (path, pair("Any")),
        None => {
            // A key that contains dots is as good as a nested one.
            record.insert(path.to_owned(), value);
            return;
        }
    };
    match record.get_mut(root) {
        Some(Value::Array(members)) => members.push(member),
        _ => drop(record.insert(root.to_owned(), json!([member]))),
    }
}
