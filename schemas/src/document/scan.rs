//! Reading JSON in one pass over its bytes: where each value stands, and that all of it is JSON.
//!
//! Most of a record is strings, and most of what takes time in them is finding where they end. So first all places are
//! marked where a string ends or needs a closer look, 64 bytes at a time and without a branch; then the text is walked
//! from mark to mark.
//!
//! The guarantee: what this takes, [`plain`](super::plain) takes as well and reads as the same. It may take less: it
//! says only that it does not, and what is wrong is for the other to say.

use super::keys::{Keys, Known, OpenKeys};
use super::{DEPTH_MAX, Document, Kind, OBJECT_KEYS_MAX, Slot, Span};

/// Longest text: places in it, and in as much again of strings written out, are kept in 32 bits.
const BYTES_MAX: usize = 1 << 30;

/// Bytes that are marked at a time, and for how many such blocks there is room without asking for memory.
const BLOCK: usize = 64;
const BLOCKS: usize = 64;

/// About how many bytes of a record there are to a value.
const BYTES_A_SLOT: usize = 16;

/// None if the bytes are not one JSON value, or one that is for the other way of reading.
pub(super) fn read(bytes: &[u8]) -> Option<Document> {
    if bytes.len() > BYTES_MAX {
        return None;
    }
    let text = std::str::from_utf8(bytes).ok()?;
    let (mut few, mut many) = ([0; BLOCKS], Vec::new());
    let blocks = bytes.len() / BLOCK + 1;
    let marks = match few.get_mut(..blocks) {
        Some(few) => few,
        None => {
            many.resize(blocks, 0);
            &mut many[..]
        }
    };
    mark(bytes, marks);
    let mut scan = Scan {
        bytes,
        marks,
        at: 0,
        written_out: String::new(),
        slots: Vec::with_capacity(bytes.len() / BYTES_A_SLOT + 4),
        open: OpenKeys::default(),
        repeated_key: None,
    };
    scan.space();
    scan.value(Span::default(), 0)?;
    scan.space();
    if scan.at != bytes.len() {
        return None;
    }
    let Scan { written_out, slots, open: OpenKeys { hashes, members }, repeated_key, .. } = scan;
    let mut whole = String::with_capacity(text.len() + written_out.len());
    whole.push_str(text);
    whole.push_str(&written_out);
    Some(Document { text: whole, slots, members, hashes, repeated_key })
}

/// Marks every quote, backslash and control character, and what lies behind the end. One word a block.
fn mark(bytes: &[u8], marks: &mut [u64]) {
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    // Behind the end are zeros, which are control characters.
    let mut last = [0; BLOCK];
    last[..rest.len()].copy_from_slice(rest);
    for (block, mark) in blocks.iter().chain([&last]).zip(marks) {
        *mark = marks_of(block);
    }
}

/// One bit a byte. Written so that the compiler compares many bytes at once.
fn marks_of(block: &[u8; BLOCK]) -> u64 {
    let mut is_marked = [0_u8; BLOCK];
    for (byte, is_marked) in block.iter().zip(&mut is_marked) {
        *is_marked = u8::from(*byte == b'"') | u8::from(*byte == b'\\') | u8::from(*byte < b' ');
    }
    let (eights, _) = is_marked.as_chunks::<8>();
    // The product puts the lowest bits of the eight bytes next to each other, on top.
    let bits = |eight: &[u8; 8]| u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
    eights.iter().rev().fold(0, |marks, eight| marks << 8 | bits(eight))
}

struct Scan<'b> {
    bytes: &'b [u8],
    marks: &'b [u64],
    at: usize,
    /// Strings with escapes, written out.
    written_out: String,
    slots: Vec<Slot>,
    open: OpenKeys,
    repeated_key: Option<String>,
}

impl Scan<'_> {
    /// The byte that is next; zero, which no JSON goes on with, at the end.
    fn byte(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    fn space(&mut self) {
        while matches!(self.byte(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
    }

    /// Takes this byte, and the space after it.
    fn take(&mut self, byte: u8) -> Option<()> {
        if self.byte() != byte {
            return None;
        }
        self.at += 1;
        self.space();
        Some(())
    }

    fn put(&mut self, key: Span, kind: Kind, value: Span) -> usize {
        let at = self.slots.len();
        self.slots.push(Slot { key, value, end: at as u32 + 1, kind, replaced: false });
        at
    }

    /// Ends a list or an object: all that was put since belongs to it.
    fn close(&mut self, at: usize) {
        let end = self.slots.len() as u32;
        if let Some(slot) = self.slots.get_mut(at) {
            slot.end = end;
        }
    }

    /// One value, which stands under `key`, in so many lists and objects.
    fn value(&mut self, key: Span, depth: usize) -> Option<()> {
        let (kind, value) = match self.byte() {
            b'"' => (Kind::Text, self.string()?),
            b'{' => return self.object(key, depth + 1),
            b'[' => return self.array(key, depth + 1),
            b't' => (Kind::True, self.word(b"true")?),
            b'f' => (Kind::False, self.word(b"false")?),
            b'n' => (Kind::Null, self.word(b"null")?),
            _ => (Kind::Number, self.number()?),
        };
        self.put(key, kind, value);
        Some(())
    }

    fn array(&mut self, key: Span, depth: usize) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        let array = self.put(key, Kind::Array, Span::default());
        self.take(b'[')?;
        if self.byte() != b']' {
            loop {
                self.value(Span::default(), depth)?;
                self.space();
                if self.byte() != b',' {
                    break;
                }
                self.take(b',')?;
            }
        }
        self.close(array);
        self.end(b']')
    }

    fn object(&mut self, key: Span, depth: usize) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        let object = self.put(key, Kind::Object, Span::default());
        let mut keys = Keys::new(&self.open);
        self.take(b'{')?;
        if self.byte() != b'}' {
            loop {
                self.member(&mut keys, depth)?;
                self.space();
                if self.byte() != b',' {
                    break;
                }
                self.take(b',')?;
            }
        }
        self.close(object);
        // Those of the outermost object are kept.
        if depth > 1 {
            self.open.close(&keys);
        }
        self.end(b'}')
    }

    fn end(&mut self, byte: u8) -> Option<()> {
        if self.byte() != byte {
            return None;
        }
        self.at += 1;
        Some(())
    }

    fn member(&mut self, keys: &mut Keys, depth: usize) -> Option<()> {
        if self.byte() != b'"' {
            return None;
        }
        let key = self.string()?;
        let known = Known { json: self.bytes, written_out: &self.written_out, slots: &self.slots };
        if let Some(earlier) = keys.add(key, known, &mut self.open) {
            self.repeat(key, earlier);
        }
        if keys.count(&self.open) > OBJECT_KEYS_MAX {
            return None;
        }
        self.space();
        self.take(b':')?;
        self.value(key, depth)
    }

    #[cold]
    fn repeat(&mut self, key: Span, earlier: usize) {
        let known = Known { json: self.bytes, written_out: &self.written_out, slots: &self.slots };
        let name = String::from_utf8_lossy(known.text(key)).into_owned();
        self.repeated_key.get_or_insert(name);
        if let Some(slot) = self.slots.get_mut(earlier) {
            slot.replaced = true;
        }
    }

    fn word(&mut self, word: &[u8]) -> Option<Span> {
        let end = self.at + word.len();
        if self.bytes.get(self.at..end) != Some(word) {
            return None;
        }
        self.at = end;
        Some(Span::default())
    }

    fn digits(&mut self) -> Option<usize> {
        let start = self.at;
        while self.byte().is_ascii_digit() {
            self.at += 1;
        }
        (self.at > start).then_some(self.at - start)
    }

    fn number(&mut self) -> Option<Span> {
        let start = self.at;
        self.at += usize::from(self.byte() == b'-');
        let leads = self.byte();
        if self.digits()? > 1 && leads == b'0' {
            return None;
        }
        if matches!(self.byte(), b'.' | b'e' | b'E') {
            self.fraction()?;
        }
        let digits = self.bytes.get(start..self.at)?;
        // Far from what a double can hold there is none that is too large.
        let is_certain = digits.len() < 300 && !digits.iter().any(|byte| matches!(byte, b'e' | b'E'));
        let is_finite = || std::str::from_utf8(digits).ok()?.parse().ok().filter(|double: &f64| double.is_finite());
        if !is_certain {
            is_finite()?;
        }
        Some(Span { start: start as u32, end: self.at as u32 })
    }

    fn fraction(&mut self) -> Option<()> {
        if self.byte() == b'.' {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.byte(), b'e' | b'E') {
            self.at += 1;
            self.at += usize::from(matches!(self.byte(), b'+' | b'-'));
            self.digits()?;
        }
        Some(())
    }

    /// The first mark from here on.
    fn marked(&self, from: usize) -> Option<usize> {
        let mut block = from / BLOCK;
        let mut marks = self.marks.get(block)? & u64::MAX << (from % BLOCK);
        while marks == 0 {
            block += 1;
            marks = *self.marks.get(block)?;
        }
        Some(block * BLOCK + marks.trailing_zeros() as usize)
    }

    /// A string, its first quote being next.
    fn string(&mut self) -> Option<Span> {
        let start = self.at + 1;
        let end = self.marked(start)?;
        match self.bytes.get(end)? {
            b'"' => {
                self.at = end + 1;
                Some(Span { start: start as u32, end: end as u32 })
            }
            b'\\' => self.with_escapes(start, end),
            // A control character.
            _ => None,
        }
    }

    /// A string whose first backslash is here: it is written out.
    fn with_escapes(&mut self, start: usize, mut at: usize) -> Option<Span> {
        let (begin, mut plain) = (self.written_out.len(), start);
        loop {
            // Marks are ASCII, so what lies between them is whole characters.
            let before = std::str::from_utf8(self.bytes.get(plain..at)?).ok()?;
            self.written_out.push_str(before);
            match self.bytes.get(at)? {
                b'"' => break,
                b'\\' => {
                    let (character, after) = self.escape(at + 1)?;
                    self.written_out.push(character);
                    plain = after;
                }
                _ => return None,
            }
            at = self.marked(plain)?;
        }
        self.at = at + 1;
        let place = |length: usize| (self.bytes.len() + length) as u32;
        Some(Span { start: place(begin), end: place(self.written_out.len()) })
    }

    /// What stands behind a backslash, and where it ends.
    fn escape(&self, at: usize) -> Option<(char, usize)> {
        let character = match self.bytes.get(at)? {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode_escape(at + 1),
            _ => return None,
        };
        Some((character, at + 1))
    }

    /// A character by its number, or by two that stand for one.
    fn unicode_escape(&self, at: usize) -> Option<(char, usize)> {
        let first = self.four_digits(at)?;
        if let Some(character) = char::from_u32(first) {
            return Some((character, at + 4));
        }
        let is_pair = first < 0xdc00 && self.bytes.get(at + 4..at + 6) == Some(b"\\u");
        let second = self.four_digits(at + 6).filter(|second| is_pair && (0xdc00..0xe000).contains(second))?;
        let character = char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00))?;
        Some((character, at + 10))
    }

    fn four_digits(&self, at: usize) -> Option<u32> {
        let digit = |number: u32, byte: &u8| Some(number << 4 | char::from(*byte).to_digit(16)?);
        self.bytes.get(at..at + 4)?.iter().try_fold(0, digit)
    }
}
