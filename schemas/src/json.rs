//! Reading a record's JSON without losing anything, and a content hash that sees only content.
//!
//! Parsers keep the last of two equal keys and say nothing. Attackers and collectors both write such objects, so a
//! record with a key twice is kept, marked, and its content hash is taken over its bytes, because its parsed form no
//! longer holds all of it.

use sha2::{Digest, Sha256};

use crate::document::{Document, Node, View};

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
pub fn parse(bytes: &[u8]) -> Result<Document, InvalidJson> {
    Ok(Document::parse(bytes)?)
}

/// A hash of what a record says: equal for two deliveries that differ in key order and white space only. 128 bits of
/// SHA-256, because the records are written by attackers who may look for collisions.
pub fn content_hash(document: &Document, bytes: &[u8]) -> u128 {
    if document.repeated_key().is_none() {
        return node_hash(document.root());
    }
    let mut hash = Sha256::new();
    hash.update(b"bytes:");
    hash.update(bytes);
    first_128_bits(hash)
}

/// The content hash of a record without repeated keys.
pub(crate) fn node_hash(node: Node<'_>) -> u128 {
    let mut canonical = Vec::with_capacity(2048);
    write_canonical(node, &mut canonical);
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

/// Objects with sorted keys, no white space; every text with its length, so that no two values are written alike.
/// Numbers as `serde_json` writes them.
fn write_canonical(node: Node<'_>, out: &mut Vec<u8>) {
    match node.view() {
        View::Object(members) => {
            let mut members: Vec<_> = members.collect();
            members.sort_unstable_by_key(|(key, _)| *key);
            out.push(b'{');
            for (key, member) in members {
                write_text(key, out);
                write_canonical(member, out);
            }
            out.push(b'}');
        }
        View::Array(items) => {
            out.push(b'[');
            items.for_each(|item| write_canonical(item, out));
            out.push(b']');
        }
        View::Text(text) => write_text(text, out),
        View::Number(number) => {
            out.push(b'#');
            // Writing a number into memory cannot fail; were it to, the hash would only be coarser.
            let _ = serde_json::to_writer(&mut *out, &number);
            out.push(b';');
        }
        View::Boolean(true) => out.push(b't'),
        View::Boolean(false) => out.push(b'f'),
        View::Null => out.push(b'n'),
    }
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
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
        assert_eq!(parsed.repeated_key(), Some("k"));
        assert_ne!(hash(r#"{"k":1,"k":2}"#), hash(r#"{"k":3,"k":2}"#));
        assert_eq!(parse(br#"{"a":{"k":1},"b":{"k":2}}"#).unwrap().repeated_key(), None);
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
}
