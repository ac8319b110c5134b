//! The `detection` section: searches and their condition.
//!
//! A map joins its lines with and, a list joins its members with or, texts by themselves are keywords looked for in
//! every value of the record.

use super::condition::{self, Condition, Detection, InvalidCondition};
use super::logsource::{Logsource, Translation, Values, translate};
use super::modifier::{self, How, Modifiers};
use super::names;
use super::predicate::{Affix, Field, FieldPath, Item, Search};
use super::report::{Code, Problems};
use super::value::{Target, compile};
use super::yaml::{Entry, Node, Place, Value};

/// Keys of the section that are no searches.
const CONDITION: &str = "condition";
const TIMEFRAME: &str = "timeframe";

/// Compiles the section. Problems are reported; none is returned then.
pub fn parse(node: &Node, logsource: &Logsource, problems: &mut Problems<'_>) -> Option<Detection> {
    let before = problems.count();
    let Some(entries) = node.map() else {
        problems.add(Code::InvalidValue, node.place, format!("'detection' is a map, not {}", node.kind()));
        return None;
    };
    let mut names = Vec::new();
    let mut searches = Vec::new();
    for entry in entries {
        match entry.key.as_str() {
            CONDITION => {}
            TIMEFRAME => {
                let help = "write a correlation rule with 'timespan' that refers to this rule";
                problems.add_help(Code::Legacy, entry.place, "'timeframe' is Sigma of before 2.0", help);
            }
            name => {
                let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
                let keyword = ["and", "or", "not", "of", "them"].iter().any(|word| name.eq_ignore_ascii_case(word));
                if name.is_empty() || !name.chars().all(allowed) || keyword {
                    let message =
                        format!("'{}' is not a name for a search: letters, digits, '_' and '-'", name.escape_debug());
                    problems.add(Code::InvalidValue, entry.place, message);
                    continue;
                }
                // A search that does not compile keeps its name, so that the condition is not blamed as well.
                let search = search(&entry.value, logsource, problems);
                names.push(name);
                searches.push(search.unwrap_or(Search::Any(Vec::new())));
            }
        }
    }
    let condition = match node.get(CONDITION) {
        Some(condition) => conditions(condition, &names, problems),
        None => {
            problems.add(Code::MissingKey, node.place, "'detection' has no 'condition'");
            None
        }
    };
    let complete = problems.count() == before;
    condition.filter(|_| complete).map(|condition| Detection { logsource: logsource.clone(), searches, condition })
}

/// One condition, or several joined with or.
fn conditions(node: &Node, names: &[&str], problems: &mut Problems<'_>) -> Option<Condition> {
    let mut parsed = Vec::new();
    for member in node.members() {
        let Some(text) = member.text() else {
            problems.add(Code::InvalidValue, member.place, format!("a condition is text, not {}", member.kind()));
            return None;
        };
        match condition::parse(text, names) {
            Ok(condition) => parsed.push(condition),
            Err(InvalidCondition { code, offset, length, message, nearest }) => {
                let place = member.part(offset, length);
                match nearest {
                    Some(nearest) => problems.add_name(code, place, message, &nearest, [nearest.as_str()]),
                    None => problems.add(code, place, message),
                }
                return None;
            }
        }
    }
    if parsed.is_empty() {
        problems.add(Code::InvalidCondition, node.place, "the list of conditions is empty");
    }
    match parsed.len() {
        0 => None,
        1 => parsed.pop(),
        _ => Some(Condition::Or(parsed)),
    }
}

fn search(node: &Node, logsource: &Logsource, problems: &mut Problems<'_>) -> Option<Search> {
    match &node.value {
        Value::Map(entries) => {
            if entries.is_empty() {
                problems.add(Code::InvalidValue, node.place, "an empty search would select everything");
            }
            let dialect = logsource.dialect;
            let meaning = |entry: &Entry| translate(dialect, entry.key.split('|').next().unwrap_or_default());
            let decided = entries.iter().any(|entry| meaning(entry).decides());
            let entries = entries.iter().filter(|entry| !decided || meaning(entry) != Translation::Implied);
            let items: Vec<_> = entries.map(|entry| item(entry, logsource, problems)).collect();
            items.into_iter().map(|item| item.map(Search::Item)).collect::<Option<_>>().map(Search::All)
        }
        Value::List(members) => {
            if members.is_empty() {
                problems.add(Code::InvalidValue, node.place, "an empty search would select nothing");
            }
            let parts: Vec<_> = members.iter().map(|member| search(member, logsource, problems)).collect();
            parts.into_iter().collect::<Option<_>>().map(Search::Any)
        }
        _ => keyword(node, problems),
    }
}

fn keyword(node: &Node, problems: &mut Problems<'_>) -> Option<Search> {
    let how = How::Text { affix: Affix::Whole, encodings: Vec::new() };
    let modifiers = Modifiers { how, all: false, cased: false, negated: false, any_dash: false };
    let target = Target { name: None, field: None, values: Values::Same };
    let test = compile(node, &modifiers, &target, problems)?;
    Some(Search::Item(Item { field: None, tests: vec![test], all: false, negated: false }))
}

fn item(entry: &Entry, logsource: &Logsource, problems: &mut Problems<'_>) -> Option<Item> {
    let mut parts = entry.key.split('|');
    let name = parts.next().unwrap_or_default();
    let modifier_names: Vec<&str> = parts.collect();
    let place_of = |index: usize| {
        let before: usize = modifier_names[..index].iter().map(|name| name.len() + 1).sum();
        let length = modifier_names.get(index).map_or(1, |name| name.len());
        part_of_key(entry, name.len() + 1 + before, length)
    };
    let modifiers = modifier::parse(&modifier_names, &place_of, problems);
    let field = if name.is_empty() { Some(None) } else { field(name, entry, logsource, problems).map(Some) };
    let (modifiers, field) = (modifiers?, field?);
    if field.is_none() && !matches!(modifiers.how, How::Text { .. } | How::Regex { .. }) {
        problems.add(Code::InvalidModifier, entry.place, "keywords are texts: this modifier needs a field");
        return None;
    }
    let nodes = entry.value.members();
    if !values_fit(entry, &modifiers, nodes, problems) {
        return None;
    }
    let target = match &field {
        Some((_, id, values)) => Target { name: Some(name), field: *id, values: *values },
        None => Target { name: None, field: None, values: Values::Same },
    };
    let tests: Vec<_> = nodes.iter().map(|node| compile(node, &modifiers, &target, problems)).collect();
    let tests = tests.into_iter().collect::<Option<Vec<_>>>()?;
    let field = field.map(|(field, ..)| field);
    Some(Item { field, tests, all: modifiers.all, negated: modifiers.negated })
}

fn values_fit(entry: &Entry, modifiers: &Modifiers, nodes: &[Node], problems: &mut Problems<'_>) -> bool {
    let is_list = matches!(entry.value.value, Value::List(_));
    if let Value::Map(_) = entry.value.value {
        problems.add(
            Code::InvalidValue,
            entry.value.place,
            "a field's value is a value or a list of values, not a map",
        );
        return false;
    }
    if nodes.is_empty() {
        problems.add(Code::InvalidValue, entry.value.place, "an empty list of values matches nothing");
        return false;
    }
    if modifiers.all && nodes.len() < 2 {
        problems.add(Code::InvalidModifier, entry.place, "'all' asks for a list of at least two values");
        return false;
    }
    if let Some(null) = nodes.iter().find(|node| is_list && node.value == Value::Null) {
        let help = "write a search of its own with 'field: null' and join the two in the condition";
        problems.add_help(Code::InvalidValue, null.place, "null cannot stand in a list of values", help);
        return false;
    }
    true
}

type Resolved = (Field, Option<schemas::FieldId>, Values);

/// The field a name stands for, in the rule's dialect.
fn field(name: &str, entry: &Entry, logsource: &Logsource, problems: &mut Problems<'_>) -> Option<Resolved> {
    let place = part_of_key(entry, 0, name.len());
    if name.contains(['[', ']']) {
        let message = "array selectors are not part of Sigma 2.1; a path already looks into every member of an array";
        problems.add(Code::Unsupported, place, message);
        return None;
    }
    match translate(logsource.dialect, name) {
        Translation::NoData | Translation::Implied => {
            let message = format!("the unified audit log has nothing like '{name}': the rule could never match");
            problems.add(Code::NoSuchData, place, message);
            None
        }
        Translation::Fields(names, values) => {
            let paths = names.iter().map(|name| FieldPath::parse(name)).collect();
            let id = if let [one] = names { schemas::field::by_name(one) } else { None };
            Some((Field { paths }, id, values))
        }
        Translation::Own => {
            let before = problems.count();
            let id = names::check(name, place, problems);
            let complete = problems.count() == before;
            let field = Field { paths: vec![FieldPath::parse(name)] };
            complete.then_some((field, id, Values::Same))
        }
    }
}

/// The place of a part of a key, which is plain or in quotes.
fn part_of_key(entry: &Entry, offset: usize, length: usize) -> Place {
    let quote = usize::from(entry.place.length > entry.key.len());
    let columns = entry.key.get(..offset).map_or(0, |before| before.chars().count());
    Place {
        offset: entry.place.offset + quote + offset,
        length,
        line: entry.place.line,
        column: entry.place.column + quote + columns,
    }
}
