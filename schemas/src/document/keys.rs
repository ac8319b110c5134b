//! The keys of the objects that are being read: whether one stands twice, and what the outermost object has.
//!
//! A new key is compared with those before it by a hash of its ends and its length, and only where that is the same by
//! its text. Who writes keys that share a hash, or very many, would gain comparisons: then they are kept in a table whose
//! hashes nobody can foresee.

use std::collections::HashMap;

use super::{Slot, Span};

/// Keys of one object up to which a new one is looked for among those before it: so few cost less than the table.
pub(super) const COMPARED_KEYS_MAX: usize = 256;

/// Keys of one object that share the hash of another one, up to which that is chance.
const CHANCES_MAX: usize = 4;

/// A quick hash of a key.
pub(super) fn hash(key: &[u8]) -> u32 {
    let (first, last) = match (key.first_chunk::<8>(), key.last_chunk::<8>()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => match (key.first_chunk::<4>(), key.last_chunk::<4>()) {
            (Some(first), Some(last)) => (u32::from_le_bytes(*first).into(), u32::from_le_bytes(*last).into()),
            // At most three characters.
            _ => (key.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)), 0),
        },
    };
    // Odd numbers of no meaning: what they are multiplied with ends up in the bits on top.
    let mixed = (first ^ last.rotate_left(23) ^ key.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as u32
}

/// Where a hash stands last. Most keys that are asked for are not there, so sixteen hashes are looked at in one go, without a
/// branch between them: a processor compares several at a time.
pub(super) fn last(hashes: &[u32], hash: u32) -> Option<usize> {
    let mut end = hashes.len();
    for chunk in hashes.rchunks(16) {
        let has = |hashes: &[u32]| hashes.iter().fold(false, |found, known| found | (*known == hash));
        let is_here = match <&[u32; 16]>::try_from(chunk) {
            Ok(whole) => has(whole),
            Err(_) => has(chunk),
        };
        end -= chunk.len();
        if is_here {
            return chunk.iter().rposition(|known| *known == hash).map(|place| end + place);
        }
    }
    None
}

/// What has been read so far.
#[derive(Clone, Copy)]
pub(super) struct Known<'k> {
    pub json: &'k [u8],
    /// The strings with escapes, written out: their spans go on where the JSON ends.
    pub written_out: &'k str,
    pub slots: &'k [Slot],
}

impl<'k> Known<'k> {
    pub fn text(self, span: Span) -> &'k [u8] {
        let (start, end) = (span.start as usize, span.end as usize);
        self.json.get(start..end).unwrap_or_else(|| {
            let place = |place: usize| place.saturating_sub(self.json.len());
            self.written_out.as_bytes().get(place(start)..place(end)).unwrap_or_default()
        })
    }

    fn key(self, slot: u32) -> &'k [u8] {
        self.slots.get(slot as usize).map(|slot| self.text(slot.key)).unwrap_or_default()
    }
}

/// The keys of all objects that are open, those of the innermost one last.
#[derive(Default)]
pub(super) struct OpenKeys {
    pub hashes: Vec<u32>,
    /// The slot of the value of each.
    pub members: Vec<u32>,
}

impl OpenKeys {
    /// Forgets the keys of an object that has ended.
    pub fn close(&mut self, keys: &Keys) {
        self.hashes.truncate(keys.begin);
        self.members.truncate(keys.begin);
    }
}

/// The keys of one object, which is the innermost that is open.
pub(super) struct Keys {
    /// Where they begin among the open ones.
    begin: usize,
    /// One bit for each hash that there is: most keys are seen to be new at once.
    seen: [u64; 4],
    chances: usize,
    table: Option<HashMap<Vec<u8>, u32>>,
}

impl Keys {
    pub fn new(open: &OpenKeys) -> Keys {
        Keys { begin: open.hashes.len(), seen: [0; 4], chances: 0, table: None }
    }

    pub fn count(&self, open: &OpenKeys) -> usize {
        open.hashes.len() - self.begin
    }

    /// Adds a key whose value will have the next slot. Returns the slot of the value that the same key has already.
    #[inline(always)]
    pub fn add(&mut self, key: Span, known: Known<'_>, open: &mut OpenKeys) -> Option<usize> {
        let name = known.text(key);
        let hash = hash(name);
        let (part, bit) = ((hash >> 30) as usize, 1_u64 << (hash >> 24 & 63));
        let is_new = self.seen[part] & bit == 0;
        self.seen[part] |= bit;
        let earlier = if self.count(open) >= COMPARED_KEYS_MAX || self.chances > CHANCES_MAX {
            self.in_table(name, known, open)
        } else if is_new {
            None
        } else {
            self.among(name, hash, known, open)
        };
        open.hashes.push(hash);
        open.members.push(known.slots.len() as u32);
        earlier.map(|slot| slot as usize)
    }

    fn among(&mut self, name: &[u8], hash: u32, known: Known<'_>, open: &OpenKeys) -> Option<u32> {
        let (mut hashes, members) = (open.hashes.get(self.begin..)?, open.members.get(self.begin..)?);
        while let Some(at) = hashes.iter().rposition(|other| *other == hash) {
            if known.key(members[at]) == name {
                return Some(members[at]);
            }
            self.chances += 1;
            hashes = &hashes[..at];
        }
        None
    }

    fn in_table(&mut self, name: &[u8], known: Known<'_>, open: &OpenKeys) -> Option<u32> {
        let members = open.members.get(self.begin..)?.iter();
        // Of equal keys the last is kept.
        let so_far = || members.map(|member| (known.key(*member).to_vec(), *member)).collect();
        self.table.get_or_insert_with(so_far).insert(name.to_vec(), known.slots.len() as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::last;

    #[test]
    fn the_last_place_is_found_whatever_the_length() {
        for length in 0..70_u32 {
            let hashes: Vec<u32> = (0..length).map(|place| place % 23).collect();
            for hash in 0..25 {
                assert_eq!(last(&hashes, hash), hashes.iter().rposition(|known| *known == hash), "{hash} of {length}");
            }
        }
    }
}
