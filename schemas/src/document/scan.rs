//! Reading JSON in one pass over its bytes: where each value stands, and that all of it is JSON.
//!
//! Most of a record is strings, and most of what takes time in them is finding where they end. So first all places are
//! marked where a string ends or needs a closer look, 64 bytes at a time and without a branch; then the text is walked
//! from mark to mark.
//!
//! The guarantee: what this takes, [`plain`](super::plain) takes as well and reads as the same. It may take less: it
//! says only that it does not, and what is wrong is for the other to say.

use std::num::NonZeroUsize;

use wide::u8x16;

use super::keys::{Keys, look_through};
use super::{DEPTH_MAX, Document, Kind, Slot, Span};

/// Longest text: places in it, and in as much again of strings written out, are kept in 32 bits.
const BYTES_MAX: usize = 1 << 30;

/// Bytes that are marked at a time, and for how many such blocks there is room without asking for memory.
const BLOCK: usize = 64;
const BLOCKS: usize = 64;

/// About how many bytes of a record there are to a value, so that most records ask for memory once; and to a byte of what
/// is written out of strings with escapes.
const BYTES_A_SLOT: usize = 16;
const BYTES_A_WRITTEN_OUT: usize = 8;

/// None if the bytes are not one JSON value, or one that is for the other way of reading.
pub(super) fn read(bytes: &[u8]) -> Option<Document> {
    if bytes.len() > BYTES_MAX {
        return None;
    }
    let json = simdutf8::basic::from_utf8(bytes).ok()?;
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
    let text = Text { json, bytes, marks };
    // Strings with escapes are written out behind it.
    let mut whole = String::with_capacity(bytes.len() + bytes.len() / BYTES_A_WRITTEN_OUT);
    whole.push_str(json);
    let mut scan = Scan {
        whole,
        slots: Vec::with_capacity(bytes.len() / BYTES_A_SLOT + 4),
        outermost: Keys::default(),
        again: None,
    };
    let end = scan.value(&text, text.space(0), Span::default(), 0)?;
    if text.space(end) != bytes.len() {
        return None;
    }
    let Scan { whole, slots, outermost, again } = scan;
    let mut document = Document { text: whole, slots, outermost, repeated_key: None };
    if let Some(again) = again {
        document.repeated_key = document.slots.get(again).map(|slot| document.text(slot.key).to_owned());
    }
    Some(document)
}

/// Marks every quote, backslash and control character, and what lies behind the end. One word a block.
fn mark(bytes: &[u8], marks: &mut [u64]) {
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    for (block, mark) in blocks.iter().zip(&mut *marks) {
        *mark = marks_of(block);
    }
    // Behind the end are zeros, which are control characters.
    let mut last = [0; BLOCK];
    last[..rest.len()].copy_from_slice(rest);
    if let Some(mark) = marks.last_mut() {
        *mark = marks_of(&last);
    }
}

/// One bit a byte.
#[inline(always)]
fn marks_of(block: &[u8; BLOCK]) -> u64 {
    let (quote, backslash, control) = (u8x16::splat(b'"'), u8x16::splat(b'\\'), u8x16::splat(b' ' - 1));
    let marks = |sixteen: &[u8; 16]| {
        let bytes = u8x16::new(*sixteen);
        let is_marked = bytes.simd_eq(quote) | bytes.simd_eq(backslash) | bytes.min(control).simd_eq(bytes);
        u64::from(is_marked.to_bitmask())
    };
    let ([first, second, third, fourth], _) = block.as_chunks::<16>() else { return u64::MAX };
    marks(first) | marks(second) << 16 | marks(third) << 32 | marks(fourth) << 48
}

/// What is read. Apart from what has been read, so that the compiler knows it to stay as it is at every step.
struct Text<'b> {
    json: &'b str,
    bytes: &'b [u8],
    marks: &'b [u64],
}

impl Text<'_> {
    /// The byte that is next; zero, which no JSON goes on with, at the end.
    #[inline(always)]
    fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(0)
    }

    /// Behind the space.
    fn space(&self, mut at: usize) -> usize {
        while matches!(self.byte(at), b' ' | b'\n' | b'\r' | b'\t') {
            at += 1;
        }
        at
    }

    /// What follows a sign, if it is what comes next.
    #[inline(always)]
    fn behind(&self, at: usize, sign: u8) -> Option<NonZeroUsize> {
        // Most records have no space, and then two bytes say it all.
        if self.byte(at) == sign && self.byte(at + 1) > b' ' {
            return Some(NonZeroUsize::MIN.saturating_add(at));
        }
        self.behind_with_space(at, sign)
    }

    #[inline(never)]
    fn behind_with_space(&self, at: usize, sign: u8) -> Option<NonZeroUsize> {
        let at = self.space(at);
        if self.byte(at) == sign { NonZeroUsize::new(self.space(at + 1)) } else { None }
    }

    fn word(&self, at: usize, word: &[u8]) -> Option<usize> {
        let end = at + word.len();
        (self.bytes.get(at..end) == Some(word)).then_some(end)
    }

    /// Behind one digit or more.
    #[inline(always)]
    fn digits(&self, start: usize) -> Option<usize> {
        let mut at = start;
        while self.byte(at).is_ascii_digit() {
            at += 1;
        }
        (at > start).then_some(at)
    }

    #[inline(always)]
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

    #[inline(never)]
    fn double(&self, start: usize, mut at: usize) -> Option<usize> {
        if self.byte(at) == b'.' {
            at = self.digits(at + 1)?;
        }
        if matches!(self.byte(at), b'e' | b'E') {
            let sign = usize::from(matches!(self.byte(at + 1), b'+' | b'-'));
            at = self.digits(at + 1 + sign)?;
        }
        let double: f64 = self.json.get(start..at)?.parse().ok()?;
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

/// What has been read. How far is passed from one function to the next, each of which returns where it has come to: kept
/// here, it would go through memory at every step.
struct Scan {
    /// The JSON, and behind it its strings with escapes, written out.
    whole: String,
    slots: Vec<Slot>,
    outermost: Keys,
    /// The value of the first key that stands twice in one object.
    again: Option<usize>,
}

impl Scan {
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

    /// One value, which stands under `key`, in so many lists and objects. In place, but for what has members: most have
    /// none, and a call would cost them as much as the reading.
    #[inline(always)]
    fn value(&mut self, text: &Text<'_>, at: usize, key: Span, depth: usize) -> Option<usize> {
        let (kind, value, end) = match text.byte(at) {
            b'{' => return self.object(text, at, key, depth + 1),
            b'[' => return self.array(text, at, key, depth + 1),
            b'"' => {
                let (value, end) = self.string(text, at)?;
                (Kind::Text, value, end)
            }
            b't' => (Kind::True, Span::default(), text.word(at, b"true")?),
            b'f' => (Kind::False, Span::default(), text.word(at, b"false")?),
            b'n' => (Kind::Null, Span::default(), text.word(at, b"null")?),
            _ => {
                let end = text.number(at)?;
                (Kind::Number, Span { start: at as u32, end: end as u32 }, end)
            }
        };
        self.put(key, kind, value);
        Some(end)
    }

    #[inline(never)]
    fn array(&mut self, text: &Text<'_>, at: usize, key: Span, depth: usize) -> Option<usize> {
        if depth > DEPTH_MAX {
            return None;
        }
        let array = self.put(key, Kind::Array, Span::default());
        let mut at = text.space(at + 1);
        if text.byte(at) != b']' {
            loop {
                let end = self.value(text, at, Span::default(), depth)?;
                let Some(next) = text.behind(end, b',') else {
                    at = text.space(end);
                    break;
                };
                at = next.get();
            }
        }
        self.close(array);
        (text.byte(at) == b']').then_some(at + 1)
    }

    #[inline(never)]
    fn object(&mut self, text: &Text<'_>, at: usize, key: Span, depth: usize) -> Option<usize> {
        if depth > DEPTH_MAX {
            return None;
        }
        let object = self.put(key, Kind::Object, Span::default());
        let mut at = text.space(at + 1);
        if text.byte(at) != b'}' {
            loop {
                if text.byte(at) != b'"' {
                    return None;
                }
                let (key, end) = self.string(text, at)?;
                let end = self.value(text, text.behind(end, b':')?.get(), key, depth)?;
                let Some(next) = text.behind(end, b',') else {
                    at = text.space(end);
                    break;
                };
                at = next.get();
            }
        }
        self.close_object(object)?;
        (text.byte(at) == b'}').then_some(at + 1)
    }

    /// Ends an object, whose keys are looked through. None if there are too many.
    #[inline(always)]
    fn close_object(&mut self, object: usize) -> Option<()> {
        self.close(object);
        let again = if object == 0 {
            let (keys, again) = look_through::<true>(&self.whole, &mut self.slots, object)?;
            self.outermost = keys;
            again
        } else {
            look_through::<false>(&self.whole, &mut self.slots, object)?.1
        };
        // Objects end from the inside out; what counts is which stands first.
        self.again = [self.again, again].into_iter().flatten().min();
        Some(())
    }

    /// The string whose first quote is here, and what lies behind it.
    #[inline(always)]
    fn string(&mut self, text: &Text<'_>, at: usize) -> Option<(Span, usize)> {
        let end = text.marked(at + 1)?;
        match text.byte(end) {
            b'"' => Some((Span { start: at as u32 + 1, end: end as u32 }, end + 1)),
            b'\\' => self.with_escapes(text, at + 1, end),
            // A control character, or the end.
            _ => None,
        }
    }

    /// A string whose first backslash is here: it is written out.
    #[inline(never)]
    fn with_escapes(&mut self, text: &Text<'_>, start: usize, mut at: usize) -> Option<(Span, usize)> {
        let (begin, mut plain) = (self.whole.len(), start);
        loop {
            // Marks are ASCII, so what lies between them is whole characters.
            self.whole.push_str(text.json.get(plain..at)?);
            match text.byte(at) {
                b'"' => break,
                b'\\' => {
                    let (character, after) = text.escape(at + 1)?;
                    self.whole.push(character);
                    plain = after;
                }
                _ => return None,
            }
            at = text.marked(plain)?;
        }
        Some((Span { start: begin as u32, end: self.whole.len() as u32 }, at + 1))
    }
}
