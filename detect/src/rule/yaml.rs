//! YAML as a tree in which every node knows its place, so that every complaint can point at the text it is about.
//!
//! Scalars follow the YAML 1.2 core schema: `yes` and `on` are text, `null` and `~` are null, dates are text. Limits
//! hold before anything is built from a file: rule files may come from strangers. What an alias stands for is copied,
//! and counted again each time, so a file that multiplies itself meets the limit of nodes.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::report::{Code, Problems};

/// Longest rule file. SigmaHQ's longest rule has 40 kB.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;
/// Most values in one file, aliases expanded.
pub const NODES_MAX: usize = 100_000;
/// Deepest nesting.
pub const DEPTH_MAX: usize = 32;
/// Most documents in one file.
pub const DOCUMENTS_MAX: usize = 500;

/// A stretch of the file, in bytes, and where it begins for a person: line and column from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Place {
    pub offset: usize,
    pub length: usize,
    pub line: usize,
    pub column: usize,
}

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub place: Place,
    pub value: Value,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Boolean(bool),
    Integer(i64),
    Float(f64),
    /// Text; `verbatim` if it stands in the file letter by letter after its place's first byte (or its quote), so that
    /// an offset into it is an offset into the file.
    Text {
        text: String,
        verbatim: bool,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One line of a map.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub key: String,
    pub place: Place,
    pub value: Node,
}

impl Node {
    /// The text, if it is text.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The lines of the map, if it is a map.
    pub fn map(&self) -> Option<&[Entry]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The value under a key, if it is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The line with a key, if it is a map that has it.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.map()?.iter().find(|entry| entry.key == key)
    }

    /// The members of a list; a value by itself is a list of one.
    pub fn members(&self) -> &[Node] {
        match &self.value {
            Value::List(members) => members,
            _ => std::slice::from_ref(self),
        }
    }

    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "null",
            Value::Boolean(_) => "true or false",
            Value::Integer(_) | Value::Float(_) => "a number",
            Value::Text { .. } => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// The place of a part of its text.
    pub fn part(&self, offset: usize, length: usize) -> Place {
        match &self.value {
            Value::Text { text, verbatim: true } if self.place.length >= text.len() => {
                let quote = usize::from(self.place.length > text.len());
                let columns = text.get(..offset).map_or(0, |before| before.chars().count());
                Place {
                    offset: self.place.offset + quote + offset,
                    length: length.max(1),
                    line: self.place.line,
                    column: self.place.column + quote + columns,
                }
            }
            _ => self.place,
        }
    }

    /// The value as JSON.
    pub fn json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Boolean(boolean) => (*boolean).into(),
            Value::Integer(number) => (*number).into(),
            Value::Float(number) => (*number).into(),
            Value::Text { text, .. } => text.as_str().into(),
            Value::List(members) => members.iter().map(Node::json).collect(),
            Value::Map(entries) => {
                serde_json::Value::Object(entries.iter().map(|entry| (entry.key.clone(), entry.value.json())).collect())
            }
        }
    }
}

/// The documents of a file. Problems are reported; what could be read before the first one is returned.
pub fn parse(text: &str, problems: &mut Problems<'_>) -> Vec<Node> {
    if text.len() > FILE_BYTES_MAX {
        let message = format!("the file is longer than {FILE_BYTES_MAX} bytes");
        problems.add(Code::Limit, Place { line: 1, column: 1, ..Place::default() }, message);
        return Vec::new();
    }
    let mut builder = Builder { text, starts: line_starts(text), documents: Vec::new(), ..Builder::default() };
    for item in Parser::new_from_str(text) {
        match item {
            Ok((event, span)) => {
                if let Err(Stop { code, message, place }) = builder.event(event, &span) {
                    problems.add(code, place, message);
                    break;
                }
            }
            Err(error) => {
                let place = builder.place(error.marker().line(), error.marker().col(), None);
                problems.add(Code::Syntax, place, format!("not YAML: {}", error.info()));
                break;
            }
        }
    }
    for (place, key) in std::mem::take(&mut builder.repeated) {
        problems.add(Code::RepeatedKey, place, format!("'{key}' stands twice in this map"));
    }
    builder.documents
}

fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect()
}

struct Stop {
    code: Code,
    message: String,
    place: Place,
}

enum Open {
    List(Place, usize, Vec<Node>),
    Map(Place, usize, Vec<Entry>, Option<(String, Place)>),
}

#[derive(Default)]
struct Builder<'t> {
    text: &'t str,
    starts: Vec<usize>,
    open: Vec<Open>,
    documents: Vec<Node>,
    anchors: Vec<(usize, Node)>,
    nodes: usize,
    repeated: Vec<(Place, String)>,
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, span: &Span) -> Result<(), Stop> {
        let (start, end) = (span.start, span.end);
        let place = self.place(start.line(), start.col(), Some((end.line(), end.col())));
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let verbatim = self.is_verbatim(&text, style, place);
                let value = match (style, &tag) {
                    (ScalarStyle::Plain, None) => resolve(&text),
                    _ => None,
                };
                let value = value.unwrap_or_else(|| Value::Text { text: text.into_owned(), verbatim });
                self.complete(Node { place, value }, anchor)
            }
            Event::SequenceStart(anchor, _) => self.begin(Open::List(place, anchor, Vec::new()), place),
            Event::MappingStart(anchor, _) => self.begin(Open::Map(place, anchor, Vec::new(), None), place),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List(place, anchor, members)) => {
                    self.complete(Node { place, value: Value::List(members) }, anchor)
                }
                Some(Open::Map(place, anchor, entries, _)) => {
                    self.complete(Node { place, value: Value::Map(entries) }, anchor)
                }
                None => Ok(()),
            },
            Event::Alias(anchor) => {
                let Some((_, node)) = self.anchors.iter().rev().find(|(id, _)| *id == anchor) else {
                    let message = "an alias inside what it stands for".to_owned();
                    return Err(Stop { code: Code::Syntax, message, place });
                };
                let node = node.clone();
                self.count(size(&node), place)?;
                self.complete(node, 0)
            }
            Event::DocumentStart(_) if self.documents.len() >= DOCUMENTS_MAX => {
                let message = format!("more than {DOCUMENTS_MAX} documents in one file");
                Err(Stop { code: Code::Limit, message, place })
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, open: Open, place: Place) -> Result<(), Stop> {
        if self.open.len() >= DEPTH_MAX {
            return Err(Stop { code: Code::Limit, message: format!("nested deeper than {DEPTH_MAX}"), place });
        }
        self.open.push(open);
        Ok(())
    }

    fn count(&mut self, nodes: usize, place: Place) -> Result<(), Stop> {
        self.nodes += nodes;
        if self.nodes > NODES_MAX {
            let message = format!("more than {NODES_MAX} values in one file, aliases expanded");
            return Err(Stop { code: Code::Limit, message, place });
        }
        Ok(())
    }

    fn complete(&mut self, node: Node, anchor: usize) -> Result<(), Stop> {
        self.count(1, node.place)?;
        if anchor > 0 {
            self.anchors.push((anchor, node.clone()));
        }
        match self.open.last_mut() {
            None => self.documents.push(node),
            Some(Open::List(_, _, members)) => members.push(node),
            Some(Open::Map(_, _, entries, waiting)) => match waiting.take() {
                Some((key, place)) => {
                    if entries.iter().any(|entry| entry.key == key) {
                        self.repeated.push((place, key));
                    } else {
                        entries.push(Entry { key, place, value: node });
                    }
                }
                None => {
                    let key = match &node.value {
                        Value::Text { text, .. } => text.clone(),
                        Value::Null => String::new(),
                        Value::Boolean(boolean) => boolean.to_string(),
                        Value::Integer(number) => number.to_string(),
                        Value::Float(number) => number.to_string(),
                        Value::List(_) | Value::Map(_) => {
                            let message = "a key is text, not a list or a map".to_owned();
                            return Err(Stop { code: Code::Syntax, message, place: node.place });
                        }
                    };
                    *waiting = Some((key, node.place));
                }
            },
        }
        Ok(())
    }

    fn is_verbatim(&self, text: &str, style: ScalarStyle, place: Place) -> bool {
        let quote = match style {
            ScalarStyle::Plain => 0,
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => 1,
            _ => return false,
        };
        let start = place.offset + quote;
        self.text.get(start..start + text.len()) == Some(text)
    }

    /// A place from the parser's lines (from 1) and columns (from 0, in characters).
    fn place(&self, line: usize, column: usize, end: Option<(usize, usize)>) -> Place {
        let offset = self.offset(line, column);
        let end = end.map_or(offset, |(line, column)| self.offset(line, column));
        let stretch = self.text.get(offset..end).unwrap_or_default();
        let length = stretch.trim_end().len();
        Place { offset, length, line: line.max(1), column: column + 1 }
    }

    fn offset(&self, line: usize, column: usize) -> usize {
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(self.text.len());
        let rest = self.text.get(start..).unwrap_or_default();
        rest.char_indices().nth(column).map_or(self.text.len(), |(at, _)| start + at)
    }
}

fn size(node: &Node) -> usize {
    match &node.value {
        Value::List(members) => members.iter().map(|member| 1 + size(member)).sum(),
        Value::Map(entries) => entries.iter().map(|entry| 2 + size(&entry.value)).sum(),
        _ => 0,
    }
}

/// A plain scalar by the core schema; none if it is text.
fn resolve(text: &str) -> Option<Value> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Some(Value::Null),
        "true" | "True" | "TRUE" => return Some(Value::Boolean(true)),
        "false" | "False" | "FALSE" => return Some(Value::Boolean(false)),
        _ => {}
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if let Some(hex) = text.strip_prefix("0x") {
        return i64::from_str_radix(hex, 16).ok().map(Value::Integer);
    }
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Value::Integer);
    }
    let numeric = digits.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'));
    let number: f64 = if numeric { text.parse().ok()? } else { return None };
    number.is_finite().then_some(Value::Float(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::report::RuleErrors;

    fn read(text: &str) -> Result<Vec<Node>, RuleErrors> {
        let mut errors = RuleErrors::default();
        let documents = parse(text, &mut Problems::new("f.yml", text, &mut errors));
        if errors.is_empty() { Ok(documents) } else { Err(errors) }
    }

    #[test]
    fn scalars_follow_the_core_schema() {
        for (text, expected) in [
            ("~", "null"),
            ("yes", "\"yes\""),
            ("True", "true"),
            ("'true'", "\"true\""),
            ("12", "12"),
            ("'12'", "\"12\""),
            ("-1.5e3", "-1500.0"),
            ("0x1F", "31"),
            ("1.2.3.4", "\"1.2.3.4\""),
            ("2024-01-01", "\"2024-01-01\""),
            ("!!str 12", "\"12\""),
            (".", "\".\""),
            ("99999999999999999999", "\"99999999999999999999\""),
        ] {
            assert_eq!(read(text).unwrap()[0].json().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn places_are_those_of_the_file() {
        let text = "é: 1\nkey:\n  - 'a b'\n  - x\n";
        let documents = read(text).unwrap();
        let list = documents[0].get("key").unwrap().members();
        assert_eq!(&text[list[0].place.offset..][..list[0].place.length], "'a b'");
        assert_eq!((list[1].place.line, list[1].place.column), (4, 5));
        let part = list[0].part(2, 1);
        assert_eq!(&text[part.offset..][..part.length], "b");
    }

    #[test]
    fn what_multiplies_itself_or_nests_too_deep_is_refused() {
        let mut bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for (name, of) in [("b", "a"), ("c", "b"), ("d", "c"), ("e", "d"), ("f", "e")] {
            bomb.push_str(&format!("{name}: &{name} [{}]\n", vec![format!("*{of}"); 10].join(",")));
        }
        assert!(read(&bomb).unwrap_err().to_string().contains("aliases expanded"));
        assert!(read(&"[".repeat(100)).unwrap_err().to_string().contains("nested deeper"));
        assert!(read(&"--- 1\n".repeat(600)).unwrap_err().to_string().contains("documents"));
        assert!(read("a: 1\na: 2").unwrap_err().to_string().contains("f.yml:2:1: 'a' stands twice"));
        assert!(read("a: &x [*x]").is_err());
    }
}
