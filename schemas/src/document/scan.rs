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

/// About how many bytes of a record there are to a value, and about how many keys are open at once: so that most records
/// ask for memory once.
const BYTES_A_SLOT: usize = 16;
const KEYS: usize = 64;
const WRITTEN_OUT_BYTES: usize = 256;

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
        written_out: String::new(),
        slots: Vec::with_capacity(bytes.len() / BYTES_A_SLOT + 4),
        open: OpenKeys { hashes: Vec::with_capacity(KEYS), members: Vec::with_capacity(KEYS) },
        repeated_key: None,
    };
    let end = scan.value(scan.space(0), Span::default(), 0)?;
    if scan.space(end) != bytes.len() {
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

/// What has been read. How far is passed from one function to the next, each of which returns where it has come to: kept
/// here, it would go through memory at every step.
struct Scan<'b> {
    bytes: &'b [u8],
    marks: &'b [u64],
    /// Strings with escapes, written out.
    written_out: String,
    slots: Vec<Slot>,
    open: OpenKeys,
    repeated_key: Option<String>,
}

impl Scan<'_> {
    /// The byte that is next; zero, which no JSON goes on with, at the end.
    #[inline(always)]
    fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(0)
    }

    /// Behind the space.
    #[inline(always)]
    fn space(&self, mut at: usize) -> usize {
        // Most records have none.
        while self.byte(at) <= b' ' && matches!(self.byte(at), b' ' | b'\n' | b'\r' | b'\t') {
            at += 1;
        }
        at
    }

    #[inline(always)]
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
    fn value(&mut self, at: usize, key: Span, depth: usize) -> Option<usize> {
        let (kind, value, end) = match self.byte(at) {
            b'"' => {
                let (value, end) = self.string(at)?;
                (Kind::Text, value, end)
            }
            b'{' => return self.object(at, key, depth + 1),
            b'[' => return self.array(at, key, depth + 1),
            b't' => (Kind::True, Span::default(), self.word(at, b"true")?),
            b'f' => (Kind::False, Span::default(), self.word(at, b"false")?),
            b'n' => (Kind::Null, Span::default(), self.word(at, b"null")?),
            _ => {
                let end = self.number(at)?;
                (Kind::Number, Span { start: at as u32, end: end as u32 }, end)
            }
        };
        self.put(key, kind, value);
        Some(end)
    }

    fn array(&mut self, at: usize, key: Span, depth: usize) -> Option<usize> {
        if depth > DEPTH_MAX {
            return None;
        }
        let array = self.put(key, Kind::Array, Span::default());
        let mut at = self.space(at + 1);
        if self.byte(at) != b']' {
            loop {
                let end = self.value(at, Span::default(), depth)?;
                at = self.space(end);
                if self.byte(at) != b',' {
                    break;
                }
                at = self.space(at + 1);
            }
        }
        self.close(array);
        (self.byte(at) == b']').then_some(at + 1)
    }

    fn object(&mut self, at: usize, key: Span, depth: usize) -> Option<usize> {
        if depth > DEPTH_MAX {
            return None;
        }
        let object = self.put(key, Kind::Object, Span::default());
        let mut keys = Keys::new(&self.open);
        let mut at = self.space(at + 1);
        if self.byte(at) != b'}' {
            loop {
                let (key, end) = self.key(at, &mut keys)?;
                at = self.space(end);
                if self.byte(at) != b':' {
                    return None;
                }
                let end = self.value(self.space(at + 1), key, depth)?;
                at = self.space(end);
                if self.byte(at) != b',' {
                    break;
                }
                at = self.space(at + 1);
            }
        }
        self.close(object);
        // Those of the outermost object are kept.
        if depth > 1 {
            self.open.close(&keys);
        }
        (self.byte(at) == b'}').then_some(at + 1)
    }

    #[inline(always)]
    fn key(&mut self, at: usize, keys: &mut Keys) -> Option<(Span, usize)> {
        if self.byte(at) != b'"' {
            return None;
        }
        let (key, end) = self.string(at)?;
        let known = Known { json: self.bytes, written_out: &self.written_out, slots: &self.slots };
        if let Some(earlier) = keys.add(key, known, &mut self.open) {
            self.repeat(key, earlier);
        }
        (keys.count(&self.open) <= OBJECT_KEYS_MAX).then_some((key, end))
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

    fn word(&self, at: usize, word: &[u8]) -> Option<usize> {
        let end = at + word.len();
        (self.bytes.get(at..end) == Some(word)).then_some(end)
    }

    /// Behind one digit or more.
    fn digits(&self, start: usize) -> Option<usize> {
        let mut at = start;
        while self.byte(at).is_ascii_digit() {
            at += 1;
        }
        (at > start).then_some(at)
    }

    fn number(&self, start: usize) -> Option<usize> {
        let first = start + usize::from(self.byte(start) == b'-');
        let end = self.digits(first)?;
        if self.byte(first) == b'0' && end > first + 1 {
            return None;
        }
        let is_whole = !matches!(self.byte(end), b'.' | b'e' | b'E');
        // A double can hold numbers of three hundred digits, if not all of the digits.
        if is_whole && end - start < 300 { Some(end) } else { self.double(start, end) }
    }

    fn double(&self, start: usize, mut at: usize) -> Option<usize> {
        if self.byte(at) == b'.' {
            at = self.digits(at + 1)?;
        }
        if matches!(self.byte(at), b'e' | b'E') {
            let sign = usize::from(matches!(self.byte(at + 1), b'+' | b'-'));
            at = self.digits(at + 1 + sign)?;
        }
        let double: f64 = std::str::from_utf8(self.bytes.get(start..at)?).ok()?.parse().ok()?;
        double.is_finite().then_some(at)
    }

    /// The first mark from here on.
    #[inline(always)]
    fn marked(&self, from: usize) -> Option<usize> {
        let mut block = from / BLOCK;
        let mut marks = self.marks.get(block)? & u64::MAX << (from % BLOCK);
        while marks == 0 {
            block += 1;
            marks = *self.marks.get(block)?;
        }
        Some(block * BLOCK + marks.trailing_zeros() as usize)
    }

    /// The string whose first quote is here, and what lies behind it.
    #[inline(always)]
    fn string(&mut self, at: usize) -> Option<(Span, usize)> {
        let end = self.marked(at + 1)?;
        match self.byte(end) {
            b'"' => Some((Span { start: at as u32 + 1, end: end as u32 }, end + 1)),
            b'\\' => self.with_escapes(at + 1, end),
            // A control character, or the end.
            _ => None,
        }
    }

    /// A string whose first backslash is here: it is written out.
    #[inline(never)]
    fn with_escapes(&mut self, start: usize, mut at: usize) -> Option<(Span, usize)> {
        if self.written_out.is_empty() {
            self.written_out.reserve(WRITTEN_OUT_BYTES);
        }
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
        let place = |length: usize| (self.bytes.len() + length) as u32;
        Some((Span { start: place(begin), end: place(self.written_out.len()) }, at + 1))
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
