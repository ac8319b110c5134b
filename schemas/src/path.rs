//! Addressing values by name: `client_ip`, `Operation`, `Item.ParentFolder.Path`, `Parameters.ForwardTo`.
//!
//! A name of [`FIELDS`](crate::FIELDS) gives the normalised value. Anything else is a path into the record:
//!
//! * a key that contains dots wins over a nested path, because Microsoft writes names such as
//!   `ConsentAction.Permissions`;
//! * arrays fan out: the path selects the value in every member;
//! * name/value arrays are addressed by name (`Parameters.ForwardTo`): members `{Name, Value}` and `{Key, Value}`, and
//!   `{Name, NewValue, OldValue}`, where the name alone means the new value and `.OldValue` the old one;
//! * where such an array is one string in cmdlet syntax (`-Name "x" -Types ("a","b")`), its parameters are
//!   addressed the same way;
//! * `Target[Type=2].ID` selects only those members of a list whose `Type` is 2, without regard to case;
//! * a string that holds JSON is entered when the path goes on (`Data.reid`, `OperationProperties.RuleActions.Recipients`),
//!   and Entra's property values, which are JSON text of one string or a list of strings, are read as those strings.

use std::borrow::Cow;

use crate::document::{self, Document, Members, Node, View};
use crate::event::{Event, Value};
use crate::field::{self, FieldId};

mod cmdlet;

pub use cmdlet::cmdlet_parameters;

/// Longest string that is tried as nested JSON. Microsoft's own are under 100 kB.
const NESTED_JSON_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Most segments of a path.
const SEGMENTS_MAX: usize = 16;

/// One selected value.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar<'a> {
    Null,
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Text(Cow<'a, str>),
}

/// What a path selects at the top of a record: most are one key that has a text there, or is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtTop<'a> {
    Nothing,
    Text(&'a str),
    /// It is another path, or another value: [`Path::select`] says which.
    Other,
}

impl<'a> Scalar<'a> {
    /// The value of a node that is one value; none for lists and objects.
    pub(crate) fn of(node: Node<'a>) -> Option<Scalar<'a>> {
        Scalar::of_view(node.view())
    }

    fn of_view(view: View<'a>) -> Option<Scalar<'a>> {
        Some(match view {
            View::Null => Scalar::Null,
            View::Boolean(value) => Scalar::Boolean(value),
            View::Number(number) => match number.as_i64() {
                Some(integer) => Scalar::Integer(integer),
                None => Scalar::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            View::Text(text) => Scalar::Text(Cow::Borrowed(text)),
            View::Array(_) | View::Object(_) => return None,
        })
    }

    /// The value as text, as a person would write it; empty for null.
    pub fn to_text(&self) -> Cow<'a, str> {
        match self {
            Scalar::Null => Cow::Borrowed(""),
            Scalar::Boolean(value) => Cow::Borrowed(if *value { "true" } else { "false" }),
            Scalar::Integer(value) => Cow::Owned(value.to_string()),
            Scalar::Float(value) => Cow::Owned(value.to_string()),
            Scalar::Text(text) => text.clone(),
        }
    }

    fn into_owned(self) -> Scalar<'static> {
        match self {
            Scalar::Null => Scalar::Null,
            Scalar::Boolean(value) => Scalar::Boolean(value),
            Scalar::Integer(value) => Scalar::Integer(value),
            Scalar::Float(value) => Scalar::Float(value),
            Scalar::Text(text) => Scalar::Text(Cow::Owned(text.into_owned())),
        }
    }
}

/// A parsed address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Path(Target);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Target {
    Field(FieldId),
    /// The whole text, and where in it each segment ends: a run of segments is a slice, so that looking for keys that
    /// contain dots costs no allocation per record.
    Record {
        text: String,
        ends: Vec<usize>,
        /// Of the text up to each end: the outermost keys of a record are found by it.
        hashes: Vec<u32>,
        /// One a segment; empty where no segment has any.
        selectors: Vec<Option<Selector>>,
    },
}

/// Which members of a list a segment means: those with this value under this key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Selector {
    key: String,
    /// Lower-case.
    value: String,
}

impl Selector {
    fn takes(&self, member: Node<'_>) -> bool {
        let scalar = member.get(&self.key).and_then(Scalar::of);
        scalar.is_some_and(|scalar| scalar.to_text().to_lowercase() == self.value)
    }
}

/// The segments of a path that are still to be walked.
#[derive(Clone, Copy)]
struct Rest<'p> {
    text: &'p str,
    start: usize,
    ends: &'p [usize],
    selectors: &'p [Option<Selector>],
}

impl<'p> Rest<'p> {
    fn is_empty(self) -> bool {
        self.ends.is_empty()
    }

    fn len(self) -> usize {
        self.ends.len()
    }

    /// The next `taken` segments as one key; `taken` is between 1 and `len`.
    fn key(self, taken: usize) -> &'p str {
        &self.text[self.start..self.ends[taken - 1]]
    }

    /// What is left after them.
    fn after(self, taken: usize) -> Rest<'p> {
        let selectors = self.selectors.get(taken..).unwrap_or_default();
        let start = (self.ends[taken - 1] + 1).min(self.text.len());
        Rest { text: self.text, start, ends: &self.ends[taken..], selectors }
    }

    /// Whether the next `taken` segments can be one key: a selector ends one.
    fn is_key(self, taken: usize) -> bool {
        self.selectors.iter().take(taken - 1).all(Option::is_none)
    }

    /// The selector behind the next `taken` segments.
    fn selector(self, taken: usize) -> Option<&'p Selector> {
        self.selectors.get(taken - 1)?.as_ref()
    }
}

/// Takes the selectors out of a path: what is left, and one entry a segment. A bracket that is not `[Key=Value]` is
/// part of the name.
fn split_selectors(text: &str) -> (String, Vec<Option<Selector>>) {
    let (mut plain, mut selectors) = (String::new(), vec![None]);
    let mut rest = text;
    while let Some(at) = rest.find(['.', '[']) {
        let (before, tail) = rest.split_at(at);
        plain.push_str(before);
        let inside = tail.strip_prefix('[').and_then(|inner| inner.split_once(']'));
        let selector = inside.and_then(|(inner, after)| Some((inner.split_once('=')?, after)));
        rest = match selector {
            Some(((key, value), after)) if !key.is_empty() => {
                let selector = Selector { key: key.to_owned(), value: value.to_lowercase() };
                if let Some(last) = selectors.last_mut() {
                    *last = Some(selector);
                }
                after
            }
            _ => {
                if tail.starts_with('.') {
                    selectors.push(None);
                }
                plain.push_str(&tail[..1]);
                &tail[1..]
            }
        };
    }
    plain.push_str(rest);
    (plain, selectors)
}

impl Path {
    /// Any text is a path; more than 16 segments are read as 16, the last one holding the rest.
    pub fn parse(text: &str) -> Path {
        match field::by_name(text) {
            Some(id) => Path(Target::Field(id)),
            None => Path::of_record(text),
        }
    }

    /// The same, where a name of [`FIELDS`](crate::FIELDS) means nothing: below the top of a record.
    pub fn of_record(text: &str) -> Path {
        let (text, mut selectors) = match text.contains('[') {
            true => split_selectors(text),
            false => (text.to_owned(), Vec::new()),
        };
        if selectors.iter().all(Option::is_none) {
            selectors.clear();
        }
        let dots = text.match_indices('.').map(|(at, _)| at).take(SEGMENTS_MAX - 1);
        let ends: Vec<usize> = dots.chain([text.len()]).collect();
        let hashes = ends.iter().map(|end| document::key_hash(&text[..*end])).collect();
        Path(Target::Record { text, ends, hashes, selectors })
    }

    /// The normalised field it names, if it names one.
    pub fn field(&self) -> Option<FieldId> {
        match &self.0 {
            Target::Field(id) => Some(*id),
            Target::Record { .. } => None,
        }
    }

    /// Appends every value the path selects. Returns whether the field is present at all; an empty list and an empty
    /// object are present and give no value.
    pub fn select<'a>(&self, event: &'a Event, out: &mut Vec<Scalar<'a>>) -> bool {
        match &self.0 {
            Target::Field(id) => select_field(event.get(*id), out),
            Target::Record { .. } => self.select_record(event.record(), out),
        }
    }

    /// The same on a bare record, for those who have no event; a name of `FIELDS` selects nothing here.
    pub fn select_record<'a>(&self, record: Node<'a>, out: &mut Vec<Scalar<'a>>) -> bool {
        match &self.0 {
            Target::Field(_) => false,
            Target::Record { text, ends, hashes, selectors } => {
                let rest = Rest { text, start: 0, ends, selectors };
                if !record.is_outermost_object() {
                    return select(record, rest, out);
                }
                // What a longer key names counts before what a shorter one does.
                for (at, hash) in hashes.iter().enumerate().rev() {
                    let taken = at + 1;
                    let found = record.get_outermost(rest.key(taken), *hash).filter(|_| rest.is_key(taken));
                    if let Some(found) = found {
                        return select_found(found, rest, taken, out);
                    }
                }
                false
            }
        }
    }

    /// What it selects, where that is seen at once. It costs a fraction of [`Path::select`].
    pub fn at_top<'a>(&self, record: Node<'a>) -> AtTop<'a> {
        let Target::Record { text, hashes, selectors, .. } = &self.0 else { return AtTop::Other };
        let [hash] = hashes.as_slice() else { return AtTop::Other };
        if !selectors.is_empty() || !record.is_outermost_object() {
            return AtTop::Other;
        }
        match record.get_outermost(text, *hash) {
            Some(found) => found.as_str().map_or(AtTop::Other, AtTop::Text),
            None => AtTop::Nothing,
        }
    }

    /// Calls `visit` with each member of the lists that the path ends at, or with what else it ends at. A name of
    /// `FIELDS` has none.
    pub fn for_each_member(&self, record: Node<'_>, visit: &mut dyn FnMut(Node<'_>)) {
        if let Target::Record { text, ends, selectors, .. } = &self.0 {
            for_each_member(record, Rest { text, start: 0, ends, selectors }, visit);
        }
    }

    /// The key at the top of the record that it names, if it goes no deeper: most sources of fields do not, and such a
    /// value can be read where it stands.
    pub(crate) fn top_level_key(&self) -> Option<&str> {
        match &self.0 {
            Target::Record { text, ends, selectors, .. } if ends.len() == 1 && selectors.is_empty() => Some(text),
            _ => None,
        }
    }
}

/// Calls `visit` with every value (not key) of the record that is text, or a number written as text.
pub fn for_each_leaf(record: Node<'_>, visit: &mut dyn FnMut(&str)) {
    match record.view() {
        View::Object(members) => members.values().for_each(|member| for_each_leaf(member, visit)),
        View::Array(items) => items.into_iter().for_each(|item| for_each_leaf(item, visit)),
        View::Text(text) => visit(text),
        View::Number(number) => visit(&number.to_string()),
        View::Boolean(_) | View::Null => {}
    }
}

fn select_field<'a>(value: &'a Value, out: &mut Vec<Scalar<'a>>) -> bool {
    match value {
        Value::Null => return false,
        Value::Text(text) => out.push(Scalar::Text(Cow::Borrowed(text))),
        Value::Integer(number) => out.push(Scalar::Integer(*number)),
        Value::Boolean(boolean) => out.push(Scalar::Boolean(*boolean)),
        Value::Time(time) => {
            let text = time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true);
            out.push(Scalar::Text(Cow::Owned(text)));
        }
        Value::TextList(list) => out.extend(list.iter().map(|text| Scalar::Text(Cow::Borrowed(text.as_str())))),
    }
    true
}

fn select<'a>(node: Node<'a>, rest: Rest<'_>, out: &mut Vec<Scalar<'a>>) -> bool {
    if rest.is_empty() {
        return leaf(node, out);
    }
    match node.view() {
        View::Object(members) => {
            for taken in (1..=rest.len()).rev().filter(|taken| rest.is_key(*taken)) {
                if let Some(found) = members.get(rest.key(taken)) {
                    return select_found(found, rest, taken, out);
                }
            }
            false
        }
        View::Array(items) => {
            let mut present = false;
            for item in items {
                present |= match item.view() {
                    View::Object(pair) => match Named::of(pair) {
                        Some(named) => named.select(rest, out),
                        None => select(item, rest, out),
                    },
                    View::Text(text) => select_in_text(text, rest, out),
                    _ => select(item, rest, out),
                };
            }
            present
        }
        View::Text(text) => select_in_text(text, rest, out),
        _ => false,
    }
}

/// Goes on in what was found under so many segments.
fn select_found<'a>(found: Node<'a>, rest: Rest<'_>, taken: usize, out: &mut Vec<Scalar<'a>>) -> bool {
    match rest.selector(taken) {
        Some(selector) => select_those(found, selector, rest.after(taken), out),
        None => select(found, rest.after(taken), out),
    }
}

/// Goes on in the members that a selector takes.
fn select_those<'a>(node: Node<'a>, selector: &Selector, rest: Rest<'_>, out: &mut Vec<Scalar<'a>>) -> bool {
    match node.view() {
        View::Array(items) => {
            let mut present = false;
            for item in items {
                present |= select_those(item, selector, rest, out);
            }
            present
        }
        View::Object(_) if selector.takes(node) => select(node, rest, out),
        View::Text(text) => {
            let Some(nested) = nested_json(text).filter(|nested| nested.root().as_str().is_none()) else {
                return false;
            };
            let mut found = Vec::new();
            let present = select_those(nested.root(), selector, rest, &mut found);
            out.extend(found.into_iter().map(|scalar| -> Scalar<'a> { scalar.into_owned() }));
            present
        }
        _ => false,
    }
}

fn for_each_member(node: Node<'_>, rest: Rest<'_>, visit: &mut dyn FnMut(Node<'_>)) {
    match node.view() {
        View::Array(items) => items.into_iter().for_each(|item| for_each_member(item, rest, visit)),
        View::Text(text) => match nested_json(text).filter(|nested| nested.root().as_str().is_none()) {
            Some(nested) => for_each_member(nested.root(), rest, visit),
            None if rest.is_empty() => visit(node),
            None => {}
        },
        _ if rest.is_empty() => visit(node),
        View::Object(members) => {
            for taken in (1..=rest.len()).rev().filter(|taken| rest.is_key(*taken)) {
                if let Some(found) = members.get(rest.key(taken)) {
                    let after = rest.after(taken);
                    match rest.selector(taken) {
                        None => for_each_member(found, after, visit),
                        Some(selector) => for_each_member(found, Rest { ends: &[], ..after }, &mut |member| {
                            if selector.takes(member) {
                                for_each_member(member, after, visit);
                            }
                        }),
                    }
                    return;
                }
            }
        }
        _ => {}
    }
}

/// An entry of a name/value array.
#[derive(Default)]
struct Named<'a> {
    name: &'a str,
    value: Option<Node<'a>>,
    new_value: Option<Node<'a>>,
    old_value: Option<Node<'a>>,
}

impl<'a> Named<'a> {
    /// Reads an object that is such an entry, in one pass over its members.
    fn of(pair: Members<'a>) -> Option<Named<'a>> {
        let mut named = Named::default();
        let (mut name, mut key, mut members) = (None, None, 0);
        for (member, value) in pair {
            members += 1;
            match member {
                "Name" => name = Some(value),
                "Key" => key = Some(value),
                "Value" => named.value = Some(value),
                "NewValue" => named.new_value = Some(value),
                "OldValue" => named.old_value = Some(value),
                _ => {}
            }
        }
        let has_value = named.value.or(named.new_value).or(named.old_value).is_some();
        let is_named = (name.or(key).is_some() && has_value) || (members == 1 && name.is_some());
        named.name = name.or(key).and_then(Node::as_str).unwrap_or_default();
        is_named.then_some(named)
    }

    /// The value that this name, or this name and a side of the change, selects. The entry's own keys stay
    /// unreachable: `Parameters.Name` is the parameter of that name.
    fn select(&self, rest: Rest<'_>, out: &mut Vec<Scalar<'a>>) -> bool {
        let is_name = |taken: &usize| rest.is_key(*taken) && rest.key(*taken) == self.name;
        let Some(taken) = (1..=rest.len()).rev().find(is_name) else { return false };
        let selector = rest.selector(taken);
        let rest = rest.after(taken);
        if let Some(selector) = selector {
            let value = self.value.or(self.new_value);
            return value.is_some_and(|value| select_those(value, selector, rest, out));
        }
        let side = if rest.is_empty() { "" } else { rest.key(1) };
        let of_side = |value: Option<Node<'a>>, out: &mut Vec<Scalar<'a>>| {
            value.is_some_and(|value| property(value, rest.after(1), out))
        };
        match side {
            "Value" => of_side(self.value, out),
            "NewValue" => of_side(self.new_value, out),
            "OldValue" => of_side(self.old_value, out),
            _ => match self.value.or(self.new_value) {
                Some(value) => property(value, rest, out),
                None => {
                    // An entry without a value: the name is there, and says nothing.
                    out.push(Scalar::Null);
                    true
                }
            },
        }
    }
}

/// The value of a name/value entry: Entra writes JSON text here.
fn property<'a>(value: Node<'a>, rest: Rest<'_>, out: &mut Vec<Scalar<'a>>) -> bool {
    if !rest.is_empty() {
        return select(value, rest, out);
    }
    if let Some(text) = value.as_str()
        && text.starts_with(['[', '"'])
        && let Some(nested) = nested_json(text)
    {
        let strings: Option<Vec<&str>> = match nested.root().view() {
            View::Text(inner) => Some(vec![inner]),
            View::Array(items) => items.map(Node::as_str).collect(),
            _ => None,
        };
        if let Some(strings) = strings {
            out.extend(strings.into_iter().map(|inner| Scalar::Text(Cow::Owned(inner.to_owned()))));
            return true;
        }
    }
    leaf(value, out)
}

fn leaf<'a>(node: Node<'a>, out: &mut Vec<Scalar<'a>>) -> bool {
    match node.view() {
        View::Array(items) => {
            for item in items {
                leaf(item, out);
            }
        }
        view => {
            if let Some(scalar) = Scalar::of_view(view) {
                out.push(scalar);
            }
        }
    }
    true
}

fn select_in_text<'a>(text: &'a str, rest: Rest<'_>, out: &mut Vec<Scalar<'a>>) -> bool {
    if let Some(nested) = nested_json(text) {
        let mut found = Vec::new();
        let present = select(nested.root(), rest, &mut found);
        out.extend(found.into_iter().map(|scalar| -> Scalar<'a> { scalar.into_owned() }));
        return present;
    }
    let mut present = false;
    for (name, value) in cmdlet_parameters(text) {
        if rest.key(rest.len()) == name {
            out.push(Scalar::Text(Cow::Owned(value)));
            present = true;
        }
    }
    present
}

/// The value that a text holds as JSON, if it does.
pub(crate) fn nested_json(text: &str) -> Option<Document> {
    let trimmed = text.trim_start();
    let may_be = trimmed.starts_with(['{', '[', '"']) && text.len() <= NESTED_JSON_BYTES_MAX;
    if may_be { Document::parse(trimmed.as_bytes()).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(record: &str, path: &str) -> Option<Vec<String>> {
        let record = Document::parse(record.as_bytes()).unwrap();
        let mut out = Vec::new();
        let parsed = Path::parse(path);
        let present = parsed.select_record(record.root(), &mut out);
        let text = |text| vec![Scalar::Text(Cow::Borrowed(text))];
        match parsed.at_top(record.root()) {
            AtTop::Nothing => assert_eq!((present, &out), (false, &Vec::new()), "{path}"),
            AtTop::Text(found) => assert_eq!((present, &out), (true, &text(found)), "{path}"),
            AtTop::Other => {}
        }
        present.then(|| out.iter().map(|scalar| scalar.to_text().into_owned()).collect())
    }

    #[test]
    fn values_are_found_by_name_wherever_microsoft_puts_them() {
        let record = r#"{
            "Operation": 1, "Operation": "x", "Twice": "y", "Twice": null, "Empty": "",
            "a.b": 1, "a": {"b": 2, "c": [{"d": 3}, {"d": [4, 5]}, {}]},
            "Parameters": [{"Name": "ForwardTo", "Value": "a@b"}, {"Name": "Bare"}, {"Name": "ForwardTo", "Value": "c@d"}],
            "ModifiedProperties": [{"Name": "Role.DisplayName", "NewValue": "[\r\n  \"Admin\"\r\n]", "OldValue": "\"None\""}, "Subject"],
            "ExtraProperties": [{"Key": "UserAgent", "Value": "ua"}],
            "OperationProperties": [{"Name": "RuleActions", "Value": "[{\"ActionType\":\"Forward\",\"Recipients\":[\"x@y\",\"z@y\"]}]"}],
            "Data": "{\"reid\":\"r1\",\"n\":7}",
            "Text": "-Name \"say \"\"hi\"\"\" -Types (\"Bulk\",\"Spam\") -Force -Size 100"
        }"#;
        for (path, expected) in [
            ("Operation", Some(vec!["x"])),
            ("Twice", Some(vec![""])),
            ("Empty", Some(vec![""])),
            ("a.b", Some(vec!["1"])),
            ("a.c.d", Some(vec!["3", "4", "5"])),
            ("a.zz", None),
            ("Parameters.ForwardTo", Some(vec!["a@b", "c@d"])),
            ("Parameters.Bare", Some(vec![""])),
            ("Parameters.Absent", None),
            ("ModifiedProperties.Role.DisplayName", Some(vec!["Admin"])),
            ("ModifiedProperties.Role.DisplayName.OldValue", Some(vec!["None"])),
            ("ModifiedProperties", Some(vec!["Subject"])),
            ("ExtraProperties.UserAgent", Some(vec!["ua"])),
            ("OperationProperties.RuleActions.Recipients", Some(vec!["x@y", "z@y"])),
            ("Data.reid", Some(vec!["r1"])),
            ("Data.n", Some(vec!["7"])),
            ("Text.Name", Some(vec!["say \"hi\""])),
            ("Text.Types", Some(vec!["Bulk;Spam"])),
            ("Text.Force", Some(vec![""])),
            ("Text.Size", Some(vec!["100"])),
            ("a.c[d=3].d", Some(vec!["3"])),
            ("a[b=2].c.d", Some(vec!["3", "4", "5"])),
            ("a.c[d=9].d", None),
            ("Parameters[Name=forwardto].Value", Some(vec!["a@b", "c@d"])),
            ("OperationProperties.RuleActions[ActionType=Forward].Recipients", Some(vec!["x@y", "z@y"])),
            ("OperationProperties.RuleActions[ActionType=Delete].Recipients", None),
            ("a.c[d].d", None),
            ("a.c[=3", None),
        ] {
            let expected = expected.map(|list| list.into_iter().map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(selected(record, path), expected, "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn cmdlet_text_of_any_kind_ends(text in "[-a-zA-Z\"(),: ]{0,60}") {
            let _ = cmdlet_parameters(&text);
        }
    }
}
