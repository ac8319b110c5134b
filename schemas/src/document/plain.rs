//! Reading JSON through serde_json, a value at a time: what [`scan`](super::scan) is compared with, what reads that does
//! not take, and who says what is wrong.

use std::collections::HashMap;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::{DEPTH_MAX, Document, Kind, OBJECT_KEYS_MAX, Slot, Span, keys};

pub(super) fn read(bytes: &[u8]) -> Result<Document, serde_json::Error> {
    let mut document = Document::default();
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    Reader { document: &mut document, key: Span::default(), depth: 0 }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    document.find_outermost();
    Ok(document)
}

impl Document {
    fn find_outermost(&mut self) {
        let end = self.slots.first().filter(|root| root.kind == Kind::Object).map_or(0, |root| root.end);
        let mut at = 1;
        while let Some(slot) = self.slots.get(at as usize).filter(|_| at < end) {
            let hash = keys::hash(self.text(slot.key).as_bytes());
            self.outermost.seen.add(hash);
            self.outermost.hashes.push(hash);
            self.outermost.members.push(at);
            at = slot.end;
        }
    }

    fn put_text(&mut self, text: &str) -> Option<Span> {
        let start = u32::try_from(self.text.len()).ok()?;
        self.text.push_str(text);
        Some(Span { start, end: u32::try_from(self.text.len()).ok()? })
    }

    /// Appends a value that has no members; those of lists and objects follow it.
    fn put(&mut self, key: Span, kind: Kind, value: Span) -> usize {
        let at = self.slots.len();
        self.slots.push(Slot { key, value, end: at as u32 + 1, kind, replaced: false });
        at
    }

    /// Ends a list or an object: all that was put since belongs to it.
    fn close(&mut self, at: usize) -> Option<()> {
        let end = u32::try_from(self.slots.len()).ok()?;
        self.slots.get_mut(at)?.end = end;
        Some(())
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
        self.document.put(self.key, kind, Span::default());
        Ok(())
    }

    fn put_text<E: serde::de::Error>(self, kind: Kind, text: &str) -> Result<(), E> {
        let span = self.document.put_text(text).ok_or_else(too_long)?;
        self.document.put(self.key, kind, span);
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

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.put(Kind::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.put(if value { Kind::True } else { Kind::False })
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.put_text(Kind::Number, &value.to_string())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.put_text(Kind::Number, &value.to_string())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        let number = serde_json::Number::from_f64(value).ok_or_else(|| E::custom("a number out of range"))?;
        self.put_text(Kind::Number, &number.to_string())
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        self.put_text(Kind::Text, value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let depth = self.deeper()?;
        let at = self.document.put(self.key, Kind::Array, Span::default());
        while items.next_element_seed(Reader { document: self.document, key: Span::default(), depth })?.is_some() {}
        self.document.close(at).ok_or_else(too_long)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let depth = self.deeper()?;
        let at = self.document.put(self.key, Kind::Object, Span::default());
        let (mut known, mut count) = (HashMap::new(), 0);
        while let Some(name) = entries.next_key::<String>()? {
            let key = self.document.put_text(&name).ok_or_else(too_long)?;
            if let Some(earlier) = known.insert(name.clone(), self.document.slots.len()) {
                self.document.repeated_key.get_or_insert(name);
                if let Some(slot) = self.document.slots.get_mut(earlier) {
                    slot.replaced = true;
                }
            }
            count += 1;
            if count > OBJECT_KEYS_MAX {
                return Err(A::Error::custom("an object with too many keys"));
            }
            entries.next_value_seed(Reader { document: self.document, key, depth })?;
        }
        self.document.close(at).ok_or_else(too_long)
    }
}
