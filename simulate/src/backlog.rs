//! Days of content made on the fly, for measurements over millions of records.
//!
//! Guarantee: a blob's bytes are a function of seed and blob; no blob is ever held as a whole; each record has an id of
//! its own, which says its number. Making them costs little more than copying, so that what is measured is the reader.

use std::sync::Arc;

use axum::body::Bytes;

use crate::dice::{Dice, format_guid};
use crate::records::CONTENT_TYPES;
use crate::traffic;

/// How many different records there are before they come again under other ids.
const TEMPLATES: usize = 4_000;
/// Bytes handed to the connection at once.
const PIECE_BYTES: usize = 64 * 1024;
const ID_LENGTH: usize = 36;

/// What is to be served instead of a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    pub records: u64,
    /// Records in one blob.
    pub blob_records: u64,
}

/// A record without its id.
#[derive(Debug)]
struct Template {
    before: String,
    after: String,
}

/// The templates of each content type, in its order; the last one has none.
#[derive(Debug)]
pub(crate) struct Templates {
    seed: u64,
    of: Vec<Vec<Template>>,
}

/// Records by number: a piece of one content type's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) content_type: &'static str,
    pub(crate) first: u64,
    pub(crate) count: u64,
}

impl Templates {
    pub(crate) fn new(seed: u64) -> Templates {
        let mut of: Vec<Vec<Template>> = CONTENT_TYPES.iter().map(|_| Vec::new()).collect();
        for record in traffic(seed, 500, TEMPLATES) {
            let place = CONTENT_TYPES.iter().position(|name| *name == record.content_type);
            // Split at the value of `Id`: the id stands elsewhere in some records, where it may stay.
            let Some((before, rest)) = record.json.split_once(&format!("\"Id\":\"{}", record.id)) else { continue };
            let template = Template { before: format!("{before}\"Id\":\""), after: rest.to_owned() };
            if let Some(list) = place.and_then(|place| of.get_mut(place)) {
                list.push(template);
            }
        }
        Templates { seed, of }
    }

    fn list(&self, content_type: &str) -> &[Template] {
        let place = CONTENT_TYPES.iter().position(|name| *name == content_type);
        place.and_then(|place| self.of.get(place)).map_or(&[], Vec::as_slice)
    }

    /// Content types that have records.
    pub(crate) fn content_types(&self) -> impl Iterator<Item = &'static str> + '_ {
        CONTENT_TYPES.into_iter().filter(|name| !self.list(name).is_empty())
    }

    /// Length of a stretch as one JSON array.
    pub(crate) fn length(&self, stretch: &Stretch) -> u64 {
        let list = self.list(stretch.content_type);
        let length = |number: u64| {
            list.get((number % list.len().max(1) as u64) as usize).map_or(0, |one| one.before.len() + one.after.len())
        };
        let records: usize = (stretch.first..stretch.first + stretch.count).map(|n| length(n) + ID_LENGTH + 1).sum();
        // A comma for each record but the last, and two brackets.
        records as u64 + 1
    }

    /// A stretch as one JSON array, piece by piece.
    pub(crate) fn pieces(self: Arc<Self>, stretch: Stretch) -> impl Iterator<Item = Bytes> + Send {
        let mut next = stretch.first;
        let end = stretch.first + stretch.count;
        std::iter::from_fn(move || {
            if next >= end {
                return None;
            }
            let list = self.list(stretch.content_type);
            let mut piece = Vec::with_capacity(PIECE_BYTES + 8 * 1024);
            while next < end && piece.len() < PIECE_BYTES {
                piece.push(if next == stretch.first { b'[' } else { b',' });
                if let Some(template) = list.get((next % list.len().max(1) as u64) as usize) {
                    piece.extend_from_slice(template.before.as_bytes());
                    piece.extend_from_slice(record_id(self.seed, stretch.content_type, next).as_bytes());
                    piece.extend_from_slice(template.after.as_bytes());
                }
                next += 1;
            }
            if next == end {
                piece.push(b']');
            }
            Some(Bytes::from(piece))
        })
    }
}

/// The id of a record: its last twelve digits are its number among those of its content type.
fn record_id(seed: u64, content_type: &str, number: u64) -> String {
    let mut dice = Dice::new(seed, content_type, number);
    let high = (dice.next() & 0xffff_ffff_ffff_0fff) | 0x4000;
    format_guid(high, 0x8000_0000_0000_0000 | (number & 0xffff_ffff_ffff))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn a_stretch_is_an_array_of_records_with_ids_of_their_own_and_of_the_length_it_says() {
        let templates = Arc::new(Templates::new(3));
        let mut ids = HashSet::new();
        assert_eq!(templates.content_types().count(), 4);
        for content_type in templates.content_types() {
            for first in [0, 3_990] {
                let stretch = Stretch { content_type, first, count: 200 };
                let whole: Vec<u8> = Arc::clone(&templates).pieces(stretch.clone()).flatten().collect();
                assert_eq!(whole.len() as u64, templates.length(&stretch));
                let records: Vec<Value> = serde_json::from_slice(&whole).unwrap();
                assert_eq!(records.len(), 200);
                assert!(records.iter().all(|record| ids.insert(record["Id"].as_str().unwrap().to_owned())));
            }
        }
    }
}
