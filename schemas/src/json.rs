//! Reading a record's JSON without losing anything, and a content hash that sees only content.
//!
//! `serde_json` keeps the last of two equal keys and says nothing. Attackers and collectors both write such objects,
//! so [`parse`] reports them: a record with a key twice is kept, marked, and its content hash is taken over its bytes,
//! because its parsed form no longer holds all of it.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use sha2::{Digest, Sha256};

/// A record's parsed form.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    pub value: Value,
    /// The first key that stands twice in one object, if any.
    pub repeated_key: Option<String>,
}

/// Why bytes are not JSON: where, and what the parser expected. Nesting deeper than 128 is refused, because every
/// reader after us would have to survive it too.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct InvalidJson(#[from] serde_json::Error);

impl InvalidJson {
    /// Line and column, counted from 1, inside the bytes given to [`parse`].
    pub fn place(&self) -> (usize, usize) {
        (self.0.line(), self.0.column())
    }
}

/// Parses one JSON value and nothing after it.
pub fn parse(bytes: &[u8]) -> Result<Parsed, InvalidJson> {
    let mut repeated_key = None;
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Node { repeated_key: &mut repeated_key }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(Parsed { value, repeated_key })
}

/// A hash of what a record says: equal for two deliveries that differ in key order and white space only. 128 bits of
/// SHA-256, because the records are written by attackers who may look for collisions.
pub fn content_hash(parsed: &Parsed, bytes: &[u8]) -> u128 {
    if parsed.repeated_key.is_none() {
        return value_hash(&parsed.value);
    }
    let mut hash = Sha256::new();
    hash.update(b"bytes:");
    hash.update(bytes);
    first_128_bits(hash)
}

/// The content hash of a record without repeated keys.
pub(crate) fn value_hash(value: &Value) -> u128 {
    let mut canonical = Vec::with_capacity(2048);
    write_canonical(value, &mut canonical);
    let mut hash = Sha256::new();
    hash.update(&canonical);
    first_128_bits(hash)
}

/// A hash of a key: 128 bits of SHA-256 over the parts, each with its length, so that no two lists of parts collide.
pub fn key_hash(parts: &[&str]) -> u128 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    first_128_bits(hash)
}

/// Lower-case hex of [`key_hash`], for ids that people see.
pub fn key_id(parts: &[&str]) -> String {
    format!("{:032x}", key_hash(parts))
}

fn first_128_bits(hash: Sha256) -> u128 {
    let digest = hash.finalize();
    let mut first = [0; 16];
    first.copy_from_slice(&digest[..16]);
    u128::from_be_bytes(first)
}

/// Objects with sorted keys, no white space. Strings and numbers as `serde_json` writes them.
fn write_canonical(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            out.push(b'{');
            for (key, member) in entries {
                write_scalar(key, out);
                out.push(b':');
                write_canonical(member, out);
                out.push(b',');
            }
            out.push(b'}');
        }
        Value::Array(items) => {
            out.push(b'[');
            for item in items {
                write_canonical(item, out);
                out.push(b',');
            }
            out.push(b']');
        }
        scalar => write_scalar(scalar, out),
    }
}

fn write_scalar<T: serde::Serialize + ?Sized>(scalar: &T, out: &mut Vec<u8>) {
    // Writing a scalar into memory cannot fail; were it to, the hash would only be coarser.
    let _ = serde_json::to_writer(out, scalar);
}

/// Builds a `Value` and remembers the first repeated key.
struct Node<'a> {
    repeated_key: &'a mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(Node { repeated_key: self.repeated_key })? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let member = entries.next_value_seed(Node { repeated_key: self.repeated_key })?;
            if object.contains_key(&key) {
                self.repeated_key.get_or_insert_with(|| key.clone());
            }
            object.insert(key, member);
        }
        if object.len() > OBJECT_KEYS_MAX {
            return Err(A::Error::custom("an object with too many keys"));
        }
        Ok(Value::Object(object))
    }
}

/// Most keys of one object. The widest real record has under 200; a hostile one must not cost a sort of millions.
const OBJECT_KEYS_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash(text: &str) -> u128 {
        content_hash(&parse(text.as_bytes()).unwrap(), text.as_bytes())
    }

    #[test]
    fn content_is_compared_without_key_order_and_white_space() {
        assert_eq!(
            hash(r#"{"a":1,"b":[{"c":"x","d":null}]}"#),
            hash("{ \"b\":[{\"d\":null,\n\"c\":\"\\u0078\"}], \"a\":1 }")
        );
        assert_ne!(hash(r#"{"a":1}"#), hash(r#"{"a":"1"}"#));
        assert_ne!(hash(r#"{"a":[1,2]}"#), hash(r#"{"a":[2,1]}"#));
    }

    #[test]
    fn a_repeated_key_is_seen_and_both_values_count() {
        let parsed = parse(br#"{"a":{"k":1,"k":2}}"#).unwrap();
        assert_eq!(parsed.repeated_key.as_deref(), Some("k"));
        assert_ne!(hash(r#"{"k":1,"k":2}"#), hash(r#"{"k":3,"k":2}"#));
        assert_eq!(parse(br#"{"a":{"k":1},"b":{"k":2}}"#).unwrap().repeated_key, None);
    }

    #[test]
    fn deep_nesting_and_trailing_bytes_are_errors_not_panics() {
        let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(parse(deep.as_bytes()).is_err());
        assert!(parse(b"{} x").is_err());
        assert!(parse(b"\xff\xfe").is_err());
        assert!(parse(b"").is_err());
    }

    #[test]
    fn keys_of_different_parts_never_meet() {
        assert_ne!(key_hash(&["a", "bc"]), key_hash(&["ab", "c"]));
        assert_eq!(key_id(&["a"]).len(), 32);
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let ours = parse(&bytes);
            let theirs = serde_json::from_slice::<Value>(&bytes);
            prop_assert_eq!(ours.is_ok(), theirs.is_ok());
        }
    }
}
