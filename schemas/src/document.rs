//! A parsed JSON value, all of it in two pieces of memory.
//!
//! Every record is parsed two or three times on its way, and a tree of small strings and hash tables costs more to make
//! and to free than the parsing itself. Here the nodes stand in one list in the order of the text, each knowing where
//! its subtree ends, and all strings in one buffer. Looking up a key compares it with its siblings: objects have tens of
//! keys, and skipping a subtree is one addition.
//!
//! Of a key that stands twice in one object the last value counts, as with every common parser; the document remembers
//! that there was one ([`Document::repeated_key`]), because then it does not hold all that the bytes say.

use std::collections::HashMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

/// Most keys of one object. The widest real record has under 200; a hostile one must not cost a sort of millions.
const OBJECT_KEYS_MAX: usize = 100_000;

/// Deepest nesting: serde_json's own limit, so that both parsers refuse the same.
const DEPTH_MAX: usize = 127;

/// Keys of one object up to which a new one is compared with each before it; beyond, they are hashed.
const COMPARED_KEYS_MAX: usize = 48;

/// A parsed JSON value.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// All keys and strings, unescaped, one after the other.
    text: String,
    slots: Vec<Slot>,
    /// Of each object.
    filters: Vec<Filter>,
    repeated_key: Option<String>,
}

/// One value in a [`Document`].
#[derive(Clone, Copy)]
pub struct Node<'d> {
    document: &'d Document,
    at: usize,
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum View<'d> {
    Null,
    Boolean(bool),
    Number(&'d Number),
    Text(&'d str),
    Array(Items<'d>),
    Object(Members<'d>),
}

/// The members of an array, or the values of an object, in the order of the text.
#[derive(Clone)]
pub struct Items<'d> {
    document: &'d Document,
    at: usize,
    end: usize,
}

/// The keys and values of an object, each key once.
#[derive(Clone, Debug)]
pub struct Members<'d> {
    items: Items<'d>,
    keys: Filter,
}

/// Which keys an object may have. Most keys that are looked for are not there, and this says so without a comparison.
#[derive(Clone, Copy, Debug, Default)]
struct Filter([u64; 4]);

impl Filter {
    /// The place of a key: its length and the eight characters at each of its ends, mixed. Who chooses keys that share
    /// a place gains comparisons, of which there are few ([`COMPARED_KEYS_MAX`]).
    fn place(key: &str) -> (usize, u64) {
        let bytes = key.as_bytes();
        let word = |bytes: &[u8]| bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        let first = bytes.first_chunk::<8>().map_or_else(|| word(bytes), |chunk| u64::from_be_bytes(*chunk));
        let last = bytes.last_chunk::<8>().map_or(0, |chunk| u64::from_be_bytes(*chunk));
        // Odd numbers of no meaning: what they are multiplied with ends up in the bits on top.
        let mixed = (first ^ last.rotate_left(23) ^ bytes.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
        (mixed as usize >> 6, 1 << (mixed & 63))
    }

    fn add(&mut self, key: &str) {
        let (part, bit) = Filter::place(key);
        self.0[part] |= bit;
    }

    /// False is certain.
    fn may_have(self, key: &str) -> bool {
        let (part, bit) = Filter::place(key);
        self.0[part] & bit != 0
    }
}

#[derive(Clone, Debug)]
struct Slot {
    /// The key under which it stands in an object.
    key: Span,
    /// One past the last slot of its subtree.
    end: u32,
    /// Another value of the same key follows, which counts instead.
    replaced: bool,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Null,
    Boolean(bool),
    Number(Number),
    Text(Span),
    Array,
    /// Which of the filters is its own.
    Object(u32),
}

/// A stretch of the document's text.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: u32,
    end: u32,
}

impl Document {
    /// Parses one JSON value and nothing after it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Document, serde_json::Error> {
        Document::parse_quickly(bytes).map_or_else(|| Document::parse_plainly(bytes), Ok)
    }

    fn parse_quickly(bytes: &[u8]) -> Option<Document> {
        let mut document = Document::empty(bytes.len());
        let mut deserializer = sonic_rs::Deserializer::from_slice(bytes);
        Reader { document: &mut document, key: Span::default(), depth: 0 }.deserialize(&mut deserializer).ok()?;
        deserializer.end().ok()?;
        Some(document)
    }

    fn parse_plainly(bytes: &[u8]) -> Result<Document, serde_json::Error> {
        let mut document = Document::empty(bytes.len());
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        Reader { document: &mut document, key: Span::default(), depth: 0 }.deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(document)
    }

    fn empty(bytes: usize) -> Document {
        let (text, slots) = (String::with_capacity(bytes), Vec::with_capacity(bytes / 24 + 4));
        Document { text, slots, filters: Vec::with_capacity(8), repeated_key: None }
    }

    /// The whole value.
    pub fn root(&self) -> Node<'_> {
        Node { document: self, at: 0 }
    }

    /// The first key that stands twice in one object, if any.
    pub fn repeated_key(&self) -> Option<&str> {
        self.repeated_key.as_deref()
    }

    fn text(&self, span: Span) -> &str {
        self.text.get(span.start as usize..span.end as usize).unwrap_or_default()
    }

    fn put_text(&mut self, text: &str) -> Option<Span> {
        let start = u32::try_from(self.text.len()).ok()?;
        self.text.push_str(text);
        Some(Span { start, end: u32::try_from(self.text.len()).ok()? })
    }

    /// Appends a value that has no members; those of lists and objects follow it.
    fn put(&mut self, key: Span, kind: Kind) -> usize {
        let at = self.slots.len();
        self.slots.push(Slot { key, end: at as u32 + 1, replaced: false, kind });
        at
    }

    /// Ends a list or an object: all that was put since belongs to it.
    fn close(&mut self, at: usize) -> Option<()> {
        let end = u32::try_from(self.slots.len()).ok()?;
        self.slots.get_mut(at)?.end = end;
        Some(())
    }
}

impl PartialEq for Document {
    fn eq(&self, other: &Document) -> bool {
        self.repeated_key == other.repeated_key && self.root().to_json() == other.root().to_json()
    }
}

impl<'d> Node<'d> {
    pub fn view(self) -> View<'d> {
        let Some(slot) = self.document.slots.get(self.at) else { return View::Null };
        match &slot.kind {
            Kind::Null => View::Null,
            Kind::Boolean(value) => View::Boolean(*value),
            Kind::Number(number) => View::Number(number),
            Kind::Text(span) => View::Text(self.document.text(*span)),
            Kind::Array => View::Array(self.inside(slot)),
            Kind::Object(filter) => {
                let keys = self.document.filters.get(*filter as usize).copied().unwrap_or_default();
                View::Object(Members { items: self.inside(slot), keys })
            }
        }
    }

    /// The value under a key, if this is an object that has it.
    pub fn get(self, key: &str) -> Option<Node<'d>> {
        match self.view() {
            View::Object(members) => members.get(key),
            _ => None,
        }
    }

    pub fn as_str(self) -> Option<&'d str> {
        match self.view() {
            View::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn is_object(self) -> bool {
        matches!(self.view(), View::Object(_))
    }

    /// The same as a tree, for those who want to own it.
    pub fn to_json(self) -> serde_json::Value {
        use serde_json::Value;
        match self.view() {
            View::Null => Value::Null,
            View::Boolean(value) => Value::Bool(value),
            View::Number(number) => Value::Number(number.clone()),
            View::Text(text) => Value::String(text.to_owned()),
            View::Array(items) => Value::Array(items.map(Node::to_json).collect()),
            View::Object(members) => {
                Value::Object(members.map(|(key, value)| (key.to_owned(), value.to_json())).collect())
            }
        }
    }

    fn inside(self, slot: &Slot) -> Items<'d> {
        Items { document: self.document, at: self.at + 1, end: slot.end as usize }
    }
}

impl fmt::Debug for Node<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to_json())
    }
}

impl<'d> Items<'d> {
    fn next_slot(&mut self) -> Option<(&'d Slot, Node<'d>)> {
        while self.at < self.end {
            let node = Node { document: self.document, at: self.at };
            let slot = self.document.slots.get(self.at)?;
            self.at = slot.end as usize;
            if !slot.replaced {
                return Some((slot, node));
            }
        }
        None
    }
}

impl fmt::Debug for Items<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

impl<'d> Iterator for Items<'d> {
    type Item = Node<'d>;

    fn next(&mut self) -> Option<Node<'d>> {
        self.next_slot().map(|(_, node)| node)
    }
}

impl<'d> Members<'d> {
    /// The value under a key.
    pub fn get(&self, key: &str) -> Option<Node<'d>> {
        if !self.keys.may_have(key) {
            return None;
        }
        let mut items = self.items.clone();
        let document = items.document;
        while let Some((slot, node)) = items.next_slot() {
            if (slot.key.end - slot.key.start) as usize == key.len() && document.text(slot.key) == key {
                return Some(node);
            }
        }
        None
    }

    pub fn values(self) -> Items<'d> {
        self.items
    }
}

impl<'d> Iterator for Members<'d> {
    type Item = (&'d str, Node<'d>);

    fn next(&mut self) -> Option<(&'d str, Node<'d>)> {
        let document = self.items.document;
        self.items.next_slot().map(|(slot, node)| (document.text(slot.key), node))
    }
}

/// Puts one value, which stands under `key`, into the document.
struct Reader<'b> {
    document: &'b mut Document,
    key: Span,
    /// In how many lists and objects it lies.
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Reader<'_> {
    fn put<E>(self, kind: Kind) -> Result<(), E> {
        self.document.put(self.key, kind);
        Ok(())
    }

    fn deeper<E: serde::de::Error>(&self) -> Result<usize, E> {
        if self.depth < DEPTH_MAX { Ok(self.depth + 1) } else { Err(E::custom("nesting too deep")) }
    }
}

fn too_long<E: serde::de::Error>() -> E {
    E::custom("a value too long to be read")
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.put(Kind::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.put(Kind::Boolean(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.put(Kind::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.put(Kind::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("a number out of range"))?;
        self.put(Kind::Number(number))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        let span = self.document.put_text(value).ok_or_else(too_long)?;
        self.put(Kind::Text(span))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let depth = self.deeper()?;
        let at = self.document.put(self.key, Kind::Array);
        while items.next_element_seed(Reader { document: self.document, key: Span::default(), depth })?.is_some() {}
        self.document.close(at).ok_or_else(too_long)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let depth = self.deeper()?;
        let filter = self.document.filters.len();
        self.document.filters.push(Filter::default());
        let at = self.document.put(self.key, Kind::Object(u32::try_from(filter).map_err(|_| too_long())?));
        let mut keys = Keys::default();
        while let Some(key) = entries.next_key_seed(Key { document: self.document })? {
            let member = self.document.slots.len();
            if let Some(earlier) = keys.add(self.document, at, key, member) {
                let name = self.document.text(key).to_owned();
                self.document.repeated_key.get_or_insert(name);
                if let Some(slot) = self.document.slots.get_mut(earlier) {
                    slot.replaced = true;
                }
            }
            if keys.count > OBJECT_KEYS_MAX {
                return Err(A::Error::custom("an object with too many keys"));
            }
            entries.next_value_seed(Reader { document: self.document, key, depth })?;
        }
        if let Some(filter) = self.document.filters.get_mut(filter) {
            *filter = keys.filter;
        }
        self.document.close(at).ok_or_else(too_long)
    }
}

/// Puts a key into the document's text.
struct Key<'b> {
    document: &'b mut Document,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Span;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Span, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Span;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Span, E> {
        self.document.put_text(key).ok_or_else(too_long)
    }
}

/// The keys of one object so far. Comparing each with all before it would cost a hostile object the square of its keys.
#[derive(Default)]
struct Keys {
    count: usize,
    filter: Filter,
    hashed: HashMap<String, usize>,
}

impl Keys {
    /// Adds a key whose value will stand at `member`. Returns where the value of the same key before it stands.
    fn add(&mut self, document: &Document, object: usize, key: Span, member: usize) -> Option<usize> {
        self.count += 1;
        let name = document.text(key);
        let known = self.filter;
        self.filter.add(name);
        // The object is still open: its end is not known yet, but all that follows it is inside it.
        let mut items = Items { document, at: object + 1, end: document.slots.len() };
        if self.count <= COMPARED_KEYS_MAX {
            return Members { items, keys: known }.get(name).map(|node| node.at);
        }
        if self.hashed.is_empty() {
            while let Some((slot, node)) = items.next_slot() {
                self.hashed.insert(document.text(slot.key).to_owned(), node.at);
            }
        }
        self.hashed.insert(name.to_owned(), member)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn parse(text: &str) -> Document {
        Document::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_document_holds_what_the_text_says() {
        for text in [
            "null",
            "[]",
            "{}",
            r#"{"a":[1,-2,0.5,true,null,"\u0041\n",[[],{}]],"b":{"c":{"d":"é"}},"":1}"#,
            "18446744073709551615",
            "1e300",
            // A place as Entra writes it: with more digits than a double holds, and rounded to the nearest.
            "78.376632690429688",
        ] {
            assert_eq!(parse(text).root().to_json(), serde_json::from_str::<Value>(text).unwrap(), "{text}");
        }
    }

    #[test]
    fn members_are_found_and_subtrees_are_skipped() {
        let document = parse(r#"{"a":{"x":{"y":1}},"b":[{"a":2}],"x":3}"#);
        let root = document.root();
        assert_eq!(root.get("x").unwrap().to_json(), json!(3));
        assert_eq!(root.get("a").unwrap().get("x").unwrap().to_json(), json!({"y": 1}));
        assert!(root.get("y").is_none());
        assert!(root.get("b").unwrap().get("a").is_none());
    }

    #[test]
    fn the_last_of_equal_keys_counts_in_narrow_and_wide_objects() {
        for width in [0, COMPARED_KEYS_MAX - 1, COMPARED_KEYS_MAX, 3 * COMPARED_KEYS_MAX] {
            let filling: String = (0..width).map(|number| format!("\"k{number}\":[{number}],")).collect();
            let document = parse(&format!("{{\"a\":{{\"b\":1}},{filling}\"a\":2,\"a\":3}}"));
            assert_eq!(document.repeated_key(), Some("a"), "{width}");
            assert_eq!(document.root().get("a").unwrap().to_json(), json!(3), "{width}");
            let View::Object(members) = document.root().view() else { panic!() };
            assert_eq!(members.count(), width + 1);
        }
        assert_eq!(parse(r#"{"a":{"k":1},"b":{"k":2}}"#).repeated_key(), None);
    }

    /// What the quick parser takes, the plain one reads as the same.
    fn both_read_the_same(bytes: &[u8]) {
        let Some(quickly) = Document::parse_quickly(bytes) else { return };
        let plainly = Document::parse_plainly(bytes);
        let text = String::from_utf8_lossy(bytes);
        let plainly = plainly.unwrap_or_else(|error| panic!("only the quick one takes {text:?}: {error}"));
        assert_eq!(quickly.repeated_key, plainly.repeated_key, "{text:?}");
        assert_eq!(quickly.root().to_json(), plainly.root().to_json(), "{text:?}");
    }

    #[test]
    fn what_parsers_disagree_about_is_read_alike() {
        for text in [
            "1e400",
            "-0",
            "-0.0",
            "00",
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "18446744073709551616",
            "-9223372036854775809",
            "123456789012345678901234567890.5",
            "0.1e-400",
            "\"\\ud800\"",
            "\"\\ud83d\\ude00\"",
            "\"\\udc00\\ud800\"",
            "\"\t\"",
            "\"\u{7f}\"",
            "\"\u{0}\"",
            "\"\\x\"",
            "\"\\u12\"",
            "[1,]",
            "{\"a\":1,}",
            "{a:1}",
            "[1 2]",
            "tru",
            "nul",
            "\u{feff}{}",
            "{} x",
            "{}\u{0}",
            " \t\r\n{} ",
            "NaN",
            "Infinity",
            "[",
            "\"",
            "",
        ] {
            both_read_the_same(text.as_bytes());
        }
        both_read_the_same(b"\"\xff\"");
        both_read_the_same(b"{\"\xc3\":1}");
        both_read_the_same(b"\"\xed\xa0\x80\"");
        for depth in [126, 127, 128, 129, 300] {
            let text = "[".repeat(depth) + &"]".repeat(depth);
            both_read_the_same(text.as_bytes());
            assert_eq!(Document::parse(text.as_bytes()).is_ok(), depth < 128, "{depth}");
        }
    }

    #[test]
    fn too_many_keys_are_refused_before_they_cost() {
        let keys: String = (0..=OBJECT_KEYS_MAX).map(|number| format!("\"{number}\":0,")).collect();
        assert!(Document::parse(format!("{{{keys}\"z\":0}}").as_bytes()).is_err());
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 60, 8, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                proptest::collection::vec(("[a-c]{0,2}", inner), 0..8)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_value_is_read_as_serde_json_reads_it(value in any_json()) {
            prop_assert_eq!(parse(&value.to_string()).root().to_json(), value);
        }

        #[test]
        fn both_parsers_read_the_same(value in any_json(), at in 0_usize..200, byte in any::<u8>()) {
            let mut bytes = value.to_string().into_bytes();
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            both_read_the_same(&bytes);
        }

        #[test]
        fn any_bytes_are_parsed_or_refused_as_serde_json_does(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let theirs = serde_json::from_slice::<Value>(&bytes);
            prop_assert_eq!(Document::parse(&bytes).is_ok(), theirs.is_ok());
            both_read_the_same(&bytes);
        }

        #[test]
        fn json_like_text_is_parsed_or_refused_as_serde_json_does(text in r#"[\[\]{}",:a1e.\\u \-]{0,40}"#) {
            let theirs = serde_json::from_str::<Value>(&text);
            both_read_the_same(text.as_bytes());
            let ours = Document::parse(text.as_bytes());
            prop_assert_eq!(ours.is_ok(), theirs.is_ok());
            if let (Ok(ours), Ok(theirs)) = (ours, theirs) {
                prop_assert_eq!(ours.root().to_json(), theirs);
            }
        }
    }
}
