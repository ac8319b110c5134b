//! A parsed JSON value that leaves the text where it stands.
//!
//! Every record is parsed two or three times on its way, most of it is never asked for, and a tree of small strings and
//! hash tables costs more to make and to free than the parsing itself. Here the text is kept in one piece; of each value
//! there is one entry in a list, in the order of the text, that says where it stands and where its subtree ends. Only
//! strings written with escapes are written out, behind the text. A number is made of its digits when it is asked for.
//! So reading costs the same whatever is asked later, and skipping a subtree is one addition.
//!
//! All of the text is checked all the same: what serde_json refuses is refused. [`scan`] does the reading; [`plain`]
//! says the same through serde_json, decides whatever [`scan`] does not take, and is what [`scan`] is compared with.
//!
//! Of a key that stands twice in one object the last value counts, as with every common parser; the document remembers
//! that there was one ([`Document::repeated_key`]), because then it does not hold all that the bytes say.

use std::fmt;

use serde_json::Number;

mod keys;
mod plain;
mod scan;

#[cfg(test)]
mod tests;

/// Most keys of one object. The widest real record has under 200; a hostile one must not cost a sort of millions.
const OBJECT_KEYS_MAX: usize = 100_000;

/// Deepest nesting: serde_json's own limit.
const DEPTH_MAX: usize = 127;

/// A parsed JSON value.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// The JSON, and behind it every string that is written there with escapes, as what it means.
    text: String,
    slots: Vec<Slot>,
    /// The keys of the outermost object, which is the widest and is asked most: looking for one runs over a few words in
    /// a row.
    outermost: keys::Keys,
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
    Number(Number),
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
}

#[derive(Clone, Debug)]
struct Slot {
    /// The key under which it stands in an object.
    key: Span,
    /// The string without its quotes, or the number.
    value: Span,
    /// One past the last slot of its subtree.
    end: u32,
    kind: Kind,
    /// Another value of the same key follows, which counts instead.
    replaced: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Null,
    False,
    True,
    Number,
    Text,
    Array,
    Object,
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
        let mut document = scan::read(bytes).map_or_else(|| plain::read(bytes), Ok)?;
        document.order_many_keys();
        Ok(document)
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

    fn key_of(&self, slot: u32) -> &[u8] {
        let key = self.slots.get(slot as usize).map(|slot| slot.key).unwrap_or_default();
        self.text.as_bytes().get(key.start as usize..key.end as usize).unwrap_or_default()
    }

    fn order_many_keys(&mut self) {
        if self.outermost.members.len() <= keys::HASHED_KEYS_MAX {
            return;
        }
        let counts = |slot: &u32| self.slots.get(*slot as usize).is_some_and(|slot| !slot.replaced);
        let mut by_name: Vec<u32> = self.outermost.members.iter().copied().filter(counts).collect();
        by_name.sort_unstable_by_key(|slot| self.key_of(*slot));
        self.outermost.by_name = by_name;
    }

    /// The member of the outermost object under a key.
    fn outermost(&self, key: &str, hash: u32) -> Option<Node<'_>> {
        if !self.outermost.seen.has(hash) {
            return None;
        }
        let by_name = &self.outermost.by_name;
        if !by_name.is_empty() {
            let found = by_name.binary_search_by_key(&key.as_bytes(), |slot| self.key_of(*slot)).ok()?;
            return Some(Node { document: self, at: *by_name.get(found)? as usize });
        }
        let mut known = self.outermost.hashes.as_slice();
        // From the end, because of equal keys the last one counts.
        while let Some(place) = keys::last(known, hash) {
            let slot = *self.outermost.members.get(place)?;
            if self.key_of(slot) == key.as_bytes() {
                return Some(Node { document: self, at: slot as usize });
            }
            known = &known[..place];
        }
        None
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
        let inside = || Items { document: self.document, at: self.at + 1, end: slot.end as usize };
        match slot.kind {
            Kind::Null => View::Null,
            Kind::False => View::Boolean(false),
            Kind::True => View::Boolean(true),
            Kind::Number => View::Number(number(self.document.text(slot.value))),
            Kind::Text => View::Text(self.document.text(slot.value)),
            Kind::Array => View::Array(inside()),
            Kind::Object => View::Object(Members { items: inside() }),
        }
    }

    /// The value under a key, if this is an object that has it.
    pub fn get(self, key: &str) -> Option<Node<'d>> {
        match self.view() {
            View::Object(members) => members.get(key),
            _ => None,
        }
    }

    /// Whether this is the outermost object.
    pub(crate) fn is_outermost_object(self) -> bool {
        self.at == 0 && self.document.slots.first().is_some_and(|slot| slot.kind == Kind::Object)
    }

    /// The value under a key of this one, if it is the outermost object, by the key and its [`key_hash`].
    pub(crate) fn get_outermost(self, key: &str, hash: u32) -> Option<Node<'d>> {
        if self.at == 0 { self.document.outermost(key, hash) } else { None }
    }

    pub fn as_str(self) -> Option<&'d str> {
        let slot = self.document.slots.get(self.at).filter(|slot| slot.kind == Kind::Text)?;
        Some(self.document.text(slot.value))
    }

    pub fn is_object(self) -> bool {
        self.document.slots.get(self.at).is_some_and(|slot| slot.kind == Kind::Object)
    }

    /// The same as a tree, for those who want to own it.
    pub fn to_json(self) -> serde_json::Value {
        use serde_json::Value;
        match self.view() {
            View::Null => Value::Null,
            View::Boolean(value) => Value::Bool(value),
            View::Number(number) => Value::Number(number),
            View::Text(text) => Value::String(text.to_owned()),
            View::Array(items) => Value::Array(items.map(Node::to_json).collect()),
            View::Object(members) => {
                Value::Object(members.map(|(key, value)| (key.to_owned(), value.to_json())).collect())
            }
        }
    }
}

/// What [`Node::get_outermost`] finds a key by: for who asks for it often.
pub(crate) fn key_hash(key: &str) -> u32 {
    keys::hash(key.as_bytes())
}

/// The number that digits say, as serde_json reads them: whole ones exactly where they fit, others as the nearest double.
fn number(digits: &str) -> Number {
    let whole = match digits.strip_prefix('-') {
        // The double has a negative zero, the whole number has not.
        Some(digits) if digits.bytes().all(|digit| digit == b'0') => None,
        Some(_) => digits.parse::<i64>().ok().map(Number::from),
        None => digits.parse::<u64>().ok().map(Number::from),
    };
    let double = || Number::from_f64(digits.parse().ok()?);
    whole.or_else(double).unwrap_or_else(|| Number::from(0))
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
        let mut items = self.items.clone();
        let document = items.document;
        if items.at == 1 {
            return document.outermost(key, keys::hash(key.as_bytes()));
        }
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
