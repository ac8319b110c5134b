//! The `detection` section: searches and their condition.
//!
//! A map joins its lines with and, a list joins its members with or, texts by themselves are keywords looked for in
//! every value of the record.

use std::borrow::Cow;
use std::cell::RefCell;

use super::condition::{self, Asked, Condition, Detection, InvalidCondition, Occurs};
use super::dialect::{Dialects, Translation, Values};
use super::lists::Lists;
use super::logsource::Logsource;
use super::modifier::{self, How, Modifiers};
use super::names;
use super::predicate::{Field, FieldPath, Item, Members, Search, Test, Written, gathered};
use super::report::{Code, Problems};
use super::value::{Target, compile};
use super::yaml::{Entry, Node, Place, Value};

/// Keys of the section that are no searches.
const CONDITION: &str = "condition";
const TIMEFRAME: &str = "timeframe";

/// What all rules share.
#[derive(Debug, Default)]
pub struct World {
    pub lists: Lists,
    pub dialects: Dialects,
}

/// What a section is compiled against.
pub struct Scope<'s> {
    logsource: &'s Logsource,
    world: &'s World,
    /// Lines look at a member of a list, whose names are its own.
    in_member: bool,
    /// What it uses of the world that others may change: part of what the rule means.
    used: &'s RefCell<Vec<String>>,
    asks: &'s RefCell<Vec<Asked>>,
}

/// A compiled section, and what of the world its meaning rests on.
pub struct Compiled {
    pub detection: Detection,
    pub rests_on: String,
}

/// Compiles a section; `others` are its keys that are no searches. Problems are reported; none is returned then.
pub fn parse(
    node: &Node,
    logsource: &Logsource,
    world: &World,
    others: &[&str],
    problems: &mut Problems<'_>,
) -> Option<Compiled> {
    let (used, asks) = (RefCell::default(), RefCell::default());
    let scope = Scope { logsource, world, in_member: false, used: &used, asks: &asks };
    let mut detection = section(node, &scope, others, problems)?;
    detection.asks = asks.take();
    let mut used = used.into_inner();
    used.sort();
    used.dedup();
    Some(Compiled { detection, rests_on: used.concat() })
}

fn section(node: &Node, scope: &Scope<'_>, others: &[&str], problems: &mut Problems<'_>) -> Option<Detection> {
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
            other if others.contains(&other) => {}
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
                let search = search(&entry.value, scope, problems);
                names.push(name);
                searches.push(search.unwrap_or(Search::Any(Vec::new())));
            }
        }
    }
    let condition = match node.get(CONDITION) {
        Some(condition) => {
            let timeframe = node.get(TIMEFRAME).and_then(Node::text).unwrap_or("1h");
            conditions(condition, &names, timeframe, problems)
        }
        None => {
            problems.add(Code::MissingKey, node.place, "'detection' has no 'condition'");
            None
        }
    };
    let complete = problems.count() == before;
    let logsource = scope.logsource.clone();
    let names = names.into_iter().map(str::to_owned).collect();
    let (filters, asks) = (Vec::new(), Vec::new());
    let detection = |condition| Detection { logsource, searches, names, condition, filters, asks };
    condition.filter(|_| complete).map(detection)
}

/// One condition, or several joined with or.
fn conditions(node: &Node, names: &[&str], timeframe: &str, problems: &mut Problems<'_>) -> Option<Condition> {
    let mut parsed = Vec::new();
    for member in node.members() {
        let Some(text) = member.text() else {
            problems.add(Code::InvalidValue, member.place, format!("a condition is text, not {}", member.kind()));
            return None;
        };
        match condition::parse(text, names) {
            Ok(condition) => parsed.push(condition),
            Err(InvalidCondition { code, offset, length, message, nearest, help }) => {
                let place = member.part(offset, length);
                match (nearest, help) {
                    (Some(nearest), _) => problems.add_name(code, place, message, &nearest, [nearest.as_str()]),
                    (None, Some(help)) => {
                        problems.add_help(code, place, message, &help.replace("TIMEFRAME", timeframe));
                    }
                    (None, None) => problems.add(code, place, message),
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

fn search(node: &Node, scope: &Scope<'_>, problems: &mut Problems<'_>) -> Option<Search> {
    match &node.value {
        Value::Map(entries) => {
            if entries.is_empty() {
                problems.add(Code::InvalidValue, node.place, "an empty search would select everything");
            }
            let meaning = |entry: &Entry| scope.translate(entry.key.split('|').next().unwrap_or_default());
            let decided = entries.iter().any(|entry| meaning(entry).decides());
            let entries = entries.iter().filter(|entry| !decided || meaning(entry) != Translation::Implied);
            let lines: Vec<_> = entries.map(|entry| line(entry, scope, problems)).collect();
            lines.into_iter().collect::<Option<_>>().map(Search::All)
        }
        Value::List(members) => {
            if members.is_empty() {
                problems.add(Code::InvalidValue, node.place, "an empty search would select nothing");
            }
            let parts: Vec<_> = members.iter().map(|member| search(member, scope, problems)).collect();
            parts.into_iter().collect::<Option<_>>().map(Search::Any)
        }
        _ => keyword(node, scope, problems),
    }
}

fn keyword(node: &Node, scope: &Scope<'_>, problems: &mut Problems<'_>) -> Option<Search> {
    let target = Target { name: None, field: None, values: Values::Same, scope };
    let test = compile(node, &Modifiers::default(), &target, problems)?;
    let written = Written::of("", [written(node)].into_iter());
    Some(Search::Item(Item { written, field: None, tests: vec![test], all: false, negated: false }))
}

/// One line of a map: a field and its values, or `field[any]` and what one member of the list satisfies as a whole.
fn line(entry: &Entry, scope: &Scope<'_>, problems: &mut Problems<'_>) -> Option<Search> {
    let quantified = [("[any]", false), ("[all]", true)]
        .into_iter()
        .find_map(|(suffix, each)| Some((entry.key.strip_suffix(suffix)?, each)));
    let Some((name, each)) = quantified else {
        return item(entry, scope, problems).map(Search::Item);
    };
    if !matches!(entry.value.value, Value::Map(_) | Value::List(_)) {
        let help = "write 'Target[any]: {Type: 2, ID: x}'; for one value of any member the path alone is enough";
        problems.add_help(
            Code::InvalidValue,
            entry.value.place,
            "'[any]' and '[all]' ask for lines of their own",
            help,
        );
        return None;
    }
    let before = problems.count();
    let id = names::check(name, part_of_key(entry, 0, name.len()), problems);
    if id.is_some() {
        let message = format!("'{name}' is a normalised field: members are those of lists in the record");
        problems.add(Code::TypeMismatch, part_of_key(entry, 0, name.len()), message);
    }
    let inner = Scope { in_member: true, ..*scope };
    let search = search(&entry.value, &inner, problems)?;
    let path = schemas::path::Path::of_record(name);
    let written = entry.key.clone();
    (problems.count() == before).then(|| Search::Members(Box::new(Members { written, path, each, search })))
}

impl Scope<'_> {
    /// Takes note of a field that is asked for.
    fn ask(&self, name: &str, translation: &Translation) {
        let means = match translation {
            Translation::Fields(means, _) => means.clone(),
            Translation::NoData | Translation::Implied => Vec::new(),
            Translation::Own => vec![name.to_owned()],
        };
        let occurs = means.iter().map(|name| names::occurs(name)).min_by_key(|occurs| *occurs as u8);
        let asked = Asked { name: name.to_owned(), means, occurs: occurs.unwrap_or(Occurs::Nowhere) };
        let mut asks = self.asks.borrow_mut();
        if !asks.contains(&asked) {
            asks.push(asked);
        }
    }

    fn translate(&self, name: &str) -> Translation {
        if self.in_member { Translation::Own } else { self.world.dialects.translate(self.logsource.dialect, name) }
    }
}

fn item(entry: &Entry, scope: &Scope<'_>, problems: &mut Problems<'_>) -> Option<Item> {
    let mut parts = entry.key.split('|');
    let name = parts.next().unwrap_or_default();
    let modifier_names: Vec<&str> = parts.collect();
    let place_of = |index: usize| {
        let before: usize = modifier_names[..index].iter().map(|name| name.len() + 1).sum();
        let length = modifier_names.get(index).map_or(1, |name| name.len());
        part_of_key(entry, name.len() + 1 + before, length)
    };
    let modifiers = modifier::parse(&modifier_names, &place_of, problems);
    let field = if name.is_empty() {
        Some(None)
    } else {
        resolve(name, part_of_key(entry, 0, name.len()), scope, problems).map(Some)
    };
    let (modifiers, field) = (modifiers?, field?);
    if field.is_none() && !matches!(modifiers.how, How::Text { .. } | How::Regex { .. }) {
        problems.add(Code::InvalidModifier, entry.place, "keywords are texts: this modifier needs a field");
        return None;
    }
    let nodes = values(entry, &modifiers, scope, problems)?;
    let target = match &field {
        Some((_, id, values)) => Target { name: Some(name), field: *id, values: *values, scope },
        None => Target { name: None, field: None, values: Values::Same, scope },
    };
    let tests: Vec<_> = nodes.iter().map(|node| compile(node, &modifiers, &target, problems)).collect();
    let tests = tests.into_iter().collect::<Option<Vec<_>>>()?;
    let is_never = field.as_ref().is_some_and(|(_, _, values)| none_occurs(*values, &tests));
    let tests = if modifiers.all { tests } else { gathered(tests) };
    let mut field = field.map(|(field, ..)| field);
    if is_never {
        // As if the field itself were one of another log.
        field = Some(Field { paths: Vec::new() });
        scope.ask(
            &format!("{name}: {}", nodes.iter().map(written).collect::<Vec<_>>().join(", ")),
            &Translation::NoData,
        );
    }
    let written = Written::of(&entry.key, nodes.iter().map(written));
    Some(Item { written, field, tests, all: modifiers.all, negated: modifiers.negated })
}

/// Whether all that is asked for are words that the portals have and the log does not: of those it is known what it has.
fn none_occurs(values: Values, tests: &[Test]) -> bool {
    let occurring: &[&str] = match values {
        Values::Outcome => &["success", "failure"],
        Values::Raised => &["Alert"],
        Values::Same | Values::Operation | Values::Category => return false,
    };
    let is_of_another_log =
        |test: &Test| matches!(test, Test::Text { .. }) && !occurring.iter().any(|text| test.holds_for_text(text));
    !tests.is_empty() && tests.iter().all(is_of_another_log)
}

/// A value as an explanation shows it.
fn written(node: &Node) -> String {
    match &node.value {
        Value::Text { text, .. } => format!("'{text}'"),
        Value::Null => "null".to_owned(),
        _ => node.json().to_string(),
    }
}

/// The values of a line, placeholders replaced.
fn values<'n>(
    entry: &'n Entry,
    modifiers: &Modifiers,
    scope: &Scope<'_>,
    problems: &mut Problems<'_>,
) -> Option<Cow<'n, [Node]>> {
    let written = entry.value.members();
    if !modifiers.expand {
        return values_fit(entry, modifiers, written, problems).then_some(Cow::Borrowed(written));
    }
    let (lists, mut used, mut nodes) = (&scope.world.lists, Vec::new(), Vec::new());
    for node in written {
        nodes.extend(lists.expand(node, &mut used, problems)?);
    }
    scope.used.borrow_mut().extend(used.iter().map(|name| lists.canonical(name)));
    values_fit(entry, modifiers, &nodes, problems).then_some(Cow::Owned(nodes))
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

pub type Resolved = (Field, Option<schemas::FieldId>, Values);

/// The field a name stands for, in the rule's dialect. What the log has nothing like is a field that no record has: the
/// rules of other logs load, and [`Detection::never`] says what comes of it.
pub fn resolve(name: &str, place: Place, scope: &Scope<'_>, problems: &mut Problems<'_>) -> Option<Resolved> {
    if scope.in_member {
        return Some((Field { paths: vec![FieldPath::of_member(name)] }, None, Values::Same));
    }
    scope.used.borrow_mut().push(scope.world.dialects.canonical(scope.logsource.dialect, name));
    let translation = scope.translate(name);
    scope.ask(name, &translation);
    match translation {
        Translation::NoData | Translation::Implied => Some((Field { paths: Vec::new() }, None, Values::Same)),
        Translation::Fields(names, values) => {
            let paths = names.iter().map(|name| FieldPath::parse(name)).collect();
            let id = if let [one] = names.as_slice() { schemas::field::by_name(one) } else { None };
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
