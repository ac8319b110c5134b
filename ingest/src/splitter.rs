//! Splits a stream of bytes into the records it holds, without parsing them and without holding more than one.
//!
//! A content blob is one JSON array of unknown size, so it must not be parsed as a whole. The splitter only follows
//! strings, escapes and depth, finds where each element of the top-level array begins and ends, and hands the bytes on
//! untouched; whether an element is a good record is for the next reader to say. That keeps one damaged record from
//! taking its neighbours with it.
//!
//! # The guarantee
//!
//! The splitter is total: any bytes, cut into pushes in any way, give the same elements, and nothing panics, recurses
//! or grows beyond [`ELEMENT_BYTES_MAX`]. What `serde_json` reads as one array comes out as exactly its elements. The
//! other way round: if [`Splitter::finish`] finds one array, and each element is JSON, then the whole was JSON. A
//! stream that ends early is never taken for a whole one: `finish` says [`EndedEarly`].

use memchr::{memchr, memchr2};
use sha2::{Digest, Sha256};

/// Longest element that is held in memory. Microsoft's records are kilobytes; one of 32 MiB is an attack or a fault,
/// and four times less than what a process can spare for one of several concurrent blobs.
pub const ELEMENT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// How much of a longer element is kept to show what it was.
pub const TOO_LONG_PREFIX_BYTES: usize = schemas::message::DEAD_LETTER_PREFIX_BYTES;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How records stand in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// One or more JSON values. The elements of an array are records; any other value is one by itself.
    Document,
    /// Each line is a record. A damaged one costs only its line, which is why this is not guessed from the content.
    Lines,
}

/// One record's bytes, wherever they came from.
#[derive(Debug)]
pub struct Element<'a> {
    /// Its number in the stream, from 0. With [`Framing::Lines`] the line's, blank lines counted.
    pub index: u64,
    /// Where it begins in the stream, in bytes.
    pub offset: u64,
    pub body: Body<'a>,
}

/// An element's bytes without the white space around them. Empty where a comma stands alone.
#[derive(Debug)]
pub enum Body<'a> {
    Whole(&'a [u8]),
    /// Longer than the limit: only what is needed to say so.
    TooLong(TooLong),
}

/// What is known of an element that was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooLong {
    pub length_bytes: u64,
    /// SHA-256 of all of it, in hex.
    pub sha256: String,
    /// Its first [`TOO_LONG_PREFIX_BYTES`].
    pub prefix: Vec<u8>,
}

/// What the stream held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub elements: u64,
    /// Arrays at the top level.
    pub arrays: u64,
    /// Elements that stood at the top level by themselves.
    pub lone_values: u64,
    /// Bytes of the stream, a byte order mark included.
    pub bytes: u64,
}

impl Summary {
    /// Whether the stream was one array and nothing else: the shape of a content blob.
    pub fn is_one_array(&self) -> bool {
        self.arrays == 1 && self.lone_values == 0
    }
}

/// The stream ended within an array, a string or an object. The connection's fault, most likely: fetch it again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the JSON ends early, after {elements} whole records and {bytes} bytes")]
pub struct EndedEarly {
    pub elements: u64,
    pub bytes: u64,
    /// The beginning of the element that was cut off, for who wants to keep it.
    pub tail: Vec<u8>,
}

/// Where the splitter stands in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Between top-level values.
    Top,
    /// Within a top-level value.
    Value,
    /// Between the elements of a top-level array; true behind a comma, where an element is due.
    Array(bool),
    /// Within an element of a top-level array.
    Item,
    /// Within a line.
    Line,
}

/// The splitter. Feed it with [`push`](Splitter::push), end with [`finish`](Splitter::finish).
#[derive(Debug)]
pub struct Splitter {
    place: Place,
    depth: u64,
    in_string: bool,
    escaped: bool,
    /// The beginning of the stream while it may still be a byte order mark.
    lead: Option<Vec<u8>>,
    held: Held,
    /// Where in the stream the current element begins.
    began: u64,
    /// Bytes of the stream before the slice being looked at.
    passed: u64,
    lines: u64,
    summary: Summary,
}

impl Splitter {
    pub fn new(framing: Framing) -> Splitter {
        Splitter::with_limit(framing, ELEMENT_BYTES_MAX)
    }

    /// A splitter with its own limit for one element.
    pub fn with_limit(framing: Framing, element_bytes_max: usize) -> Splitter {
        Splitter {
            place: if framing == Framing::Lines { Place::Line } else { Place::Top },
            depth: 0,
            in_string: false,
            escaped: false,
            lead: Some(Vec::new()),
            held: Held { bytes: Vec::new(), overflow: None, limit: element_bytes_max },
            began: 0,
            passed: 0,
            lines: 0,
            summary: Summary::default(),
        }
    }

    /// Whether anything but a lone array has been seen yet: tells an error envelope from a blob before its end.
    pub fn has_lone_value(&self) -> bool {
        self.summary.lone_values > 0 || self.place == Place::Value
    }

    /// Whether an array has begun: what comes is no error envelope.
    pub fn has_array(&self) -> bool {
        self.summary.arrays > 0
    }

    /// Takes the next bytes of the stream and hands on each element that ends in them.
    pub fn push(&mut self, bytes: &[u8], sink: &mut impl FnMut(Element<'_>)) {
        let Some(mut lead) = self.lead.take() else { return self.scan(bytes, sink) };
        let wanted = BYTE_ORDER_MARK.len() - lead.len();
        let (head, rest) = bytes.split_at(wanted.min(bytes.len()));
        lead.extend_from_slice(head);
        if lead == BYTE_ORDER_MARK {
            self.passed += lead.len() as u64;
        } else if BYTE_ORDER_MARK.starts_with(&lead) {
            self.lead = Some(lead);
        } else {
            self.scan(&lead, sink);
        }
        if self.lead.is_none() {
            self.scan(rest, sink);
        }
    }

    /// Ends the stream. An element that ends with it is handed on; one that was cut off is not.
    pub fn finish(mut self, sink: &mut impl FnMut(Element<'_>)) -> Result<Summary, EndedEarly> {
        if let Some(lead) = self.lead.take() {
            self.scan(&lead, sink);
        }
        self.summary.bytes = self.passed;
        match self.place {
            Place::Top => {}
            Place::Value if self.depth == 0 && !self.in_string => self.emit(&[], sink),
            Place::Line => self.end_line(&[], sink),
            Place::Value | Place::Array(_) | Place::Item => {
                let Summary { elements, bytes, .. } = self.summary;
                return Err(EndedEarly { elements, bytes, tail: std::mem::take(&mut self.held.bytes) });
            }
        }
        Ok(self.summary)
    }

    fn scan(&mut self, bytes: &[u8], sink: &mut impl FnMut(Element<'_>)) {
        // Where the current element begins in `bytes`; what came before that is in `held`.
        let mut start = 0;
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match self.place {
                Place::Top if is_space(byte) => at += 1,
                Place::Top if byte == b'[' => {
                    self.summary.arrays += 1;
                    self.place = Place::Array(false);
                    at += 1;
                }
                Place::Top => {
                    start = at;
                    self.begin(at, Place::Value);
                }
                Place::Array(_) if is_space(byte) => at += 1,
                Place::Array(due) if byte == b',' || byte == b']' => {
                    if due || byte == b',' {
                        self.began = self.passed + at as u64;
                        self.emit(&[], sink);
                    }
                    self.place = if byte == b',' { Place::Array(true) } else { Place::Top };
                    at += 1;
                }
                Place::Array(_) => {
                    start = at;
                    self.begin(at, Place::Item);
                }
                Place::Value | Place::Item => {
                    at = self.within(bytes, start, at, sink);
                    // Whatever comes next begins its own element; only an element that goes on needs `start`.
                }
                Place::Line => {
                    let end = memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |length| at + length);
                    if end < bytes.len() {
                        self.end_line(&bytes[at..end], sink);
                        self.began = self.passed + end as u64 + 1;
                        start = end + 1;
                    } else {
                        start = at;
                    }
                    at = end + 1;
                }
            }
        }
        if matches!(self.place, Place::Value | Place::Item | Place::Line) {
            self.held.extend(bytes.get(start..).unwrap_or_default());
        }
        self.passed += bytes.len() as u64;
    }

    fn begin(&mut self, at: usize, place: Place) {
        self.began = self.passed + at as u64;
        self.place = place;
        (self.depth, self.in_string, self.escaped) = (0, false, false);
    }

    /// One step within a value: to behind the next byte that matters. Returns where to go on.
    fn within(&mut self, bytes: &[u8], start: usize, at: usize, sink: &mut impl FnMut(Element<'_>)) -> usize {
        if self.in_string {
            return self.within_string(bytes, at);
        }
        let is_item = self.place == Place::Item;
        match bytes[at] {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' if self.depth > 0 => {
                // Brackets that do not match are the element's own mistake: its reader will say so.
                self.depth -= 1;
                if self.depth == 0 && !is_item {
                    self.emit(&bytes[start..=at], sink);
                    self.place = Place::Top;
                }
            }
            end @ (b']' | b',') if is_item && self.depth == 0 => {
                self.emit(&bytes[start..at], sink);
                self.place = if end == b',' { Place::Array(true) } else { Place::Top };
            }
            b'\n' if !is_item && self.depth == 0 => {
                self.emit(&bytes[start..at], sink);
                self.place = Place::Top;
            }
            _ => {}
        }
        at + 1
    }

    fn within_string(&mut self, bytes: &[u8], at: usize) -> usize {
        if self.escaped {
            self.escaped = false;
            return at + 1;
        }
        let Some(length) = memchr2(b'"', b'\\', &bytes[at..]) else { return bytes.len() };
        if bytes[at + length] == b'"' {
            self.in_string = false;
        } else {
            self.escaped = true;
        }
        at + length + 1
    }

    /// Hands on the element that ends with `last`, and whatever of it is held.
    fn emit(&mut self, last: &[u8], sink: &mut impl FnMut(Element<'_>)) {
        if self.place == Place::Value {
            self.summary.lone_values += 1;
        }
        let (index, offset) = (self.summary.elements, self.began);
        self.summary.elements += 1;
        self.held.give(last, |body| sink(Element { index, offset, body }));
    }

    fn end_line(&mut self, last: &[u8], sink: &mut impl FnMut(Element<'_>)) {
        let (index, offset) = (self.lines, self.began);
        self.lines += 1;
        let mut given = 0;
        self.held.give(last, |body| {
            // A blank line is no record.
            if !matches!(body, Body::Whole([])) {
                given += 1;
                sink(Element { index, offset, body });
            }
        });
        self.summary.elements += given;
        self.summary.lone_values += given;
    }
}

/// What earlier pushes brought of the current element.
#[derive(Debug)]
struct Held {
    bytes: Vec<u8>,
    /// Set once the element is over the limit; `bytes` is then its prefix.
    overflow: Option<Overflow>,
    limit: usize,
}

#[derive(Debug)]
struct Overflow {
    hash: Sha256,
    length_bytes: u64,
}

impl Held {
    fn extend(&mut self, more: &[u8]) {
        if self.overflow.is_none() && self.bytes.len() + more.len() <= self.limit {
            self.bytes.extend_from_slice(more);
            return;
        }
        let overflow = self.overflow.get_or_insert_with(|| Overflow {
            hash: Sha256::new_with_prefix(&self.bytes),
            length_bytes: self.bytes.len() as u64,
        });
        overflow.hash.update(more);
        overflow.length_bytes += more.len() as u64;
        let room = TOO_LONG_PREFIX_BYTES.saturating_sub(self.bytes.len()).min(more.len());
        self.bytes.extend_from_slice(&more[..room]);
        self.bytes.truncate(TOO_LONG_PREFIX_BYTES);
        self.bytes.shrink_to(TOO_LONG_PREFIX_BYTES);
    }

    /// Gives the whole element, and forgets it.
    fn give(&mut self, last: &[u8], take: impl FnOnce(Body<'_>)) {
        if self.bytes.is_empty() && last.len() <= self.limit {
            // Most elements lie within one push and need no copy.
            return take(Body::Whole(last.trim_ascii()));
        }
        self.extend(last);
        match self.overflow.take() {
            None => take(Body::Whole(self.bytes.trim_ascii())),
            Some(Overflow { hash, length_bytes }) => {
                let sha256 = crate::hex(&hash.finalize());
                take(Body::TooLong(TooLong { length_bytes, sha256, prefix: std::mem::take(&mut self.bytes) }));
            }
        }
        self.bytes.clear();
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

#[cfg(test)]
mod tests;
