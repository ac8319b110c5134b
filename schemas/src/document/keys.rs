//! The keys of an object that has been read: whether one stands twice, and what the outermost object has.
//!
//! A quick hash says of most keys at once that they are new: of few keys the hashes themselves are compared, of many one
//! bit for each. Only where that does not tell them apart is their text. Who writes keys that share a hash, which is easy,
//! would gain comparisons: so what stands twice among many is found by a table whose hashes nobody can foresee, and one of
//! many is looked up in an order.

use std::collections::HashMap;

use wide::u32x8;

use super::{OBJECT_KEYS_MAX, Slot, Span};

/// Keys of one object up to which a new one is looked for among those before it: so few cost less than the table.
pub(super) const COMPARED_KEYS_MAX: usize = 64;

/// Keys of the outermost object up to which one is looked up by its hash alone: so many may share it.
pub(super) const HASHED_KEYS_MAX: usize = 256;

/// About how many keys the outermost object has: so that most records ask for memory once.
const KEYS: usize = 48;

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
    // An odd number of no meaning: what is multiplied with it ends up in the bits on top.
    let mixed = (first ^ last.rotate_left(23) ^ key.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as u32
}

/// Where a hash stands last. Eight are compared at a time.
pub(super) fn last(hashes: &[u32], hash: u32) -> Option<usize> {
    let (first, eights) = hashes.as_rchunks::<8>();
    let wanted = u32x8::splat(hash);
    for (at, eight) in eights.iter().enumerate().rev() {
        let is_here = u32x8::new(*eight).simd_eq(wanted).to_bitmask();
        if is_here != 0 {
            return Some(first.len() + 8 * at + is_here.ilog2() as usize);
        }
    }
    first.iter().rposition(|known| *known == hash)
}

/// Which hashes there are, one bit for many of them: what is not there is nearly always seen at once.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen([u64; 4]);

impl Seen {
    fn place(hash: u32) -> (usize, u64) {
        ((hash >> 30) as usize, 1 << (hash >> 24 & 63))
    }

    #[inline(always)]
    pub fn has(&self, hash: u32) -> bool {
        let (part, bit) = Seen::place(hash);
        self.0[part] & bit != 0
    }

    #[inline(always)]
    pub fn add(&mut self, hash: u32) {
        let (part, bit) = Seen::place(hash);
        self.0[part] |= bit;
    }
}

/// The keys of one object, in the order of the text.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys {
    pub seen: Seen,
    /// The hash of each, and apart from them the slot of the value of each: empty where nobody asked for them.
    pub hashes: Vec<u32>,
    pub members: Vec<u32>,
    /// Where there are many: the slots of those that count, in the order of their keys.
    pub by_name: Vec<u32>,
}

/// Looks through the keys of an object of which everything has been read, and nothing after it. Values whose key stands
/// there again are said to be replaced. Returns the keys, with their hashes if `KEPT`, and the slot of the first that was
/// there before, if one was. None if there are more keys than an object may have.
#[inline(never)]
pub(super) fn look_through<const KEPT: bool>(
    text: &str,
    slots: &mut [Slot],
    object: usize,
) -> Option<(Keys, Option<usize>)> {
    let (mut seen, mut before) = (Seen::default(), Before::default());
    let room = if KEPT { KEYS } else { 0 };
    let (mut hashes, mut members) = (Vec::with_capacity(room), Vec::with_capacity(room));
    let (mut again, mut at, mut count) = (None, object + 1, 0);
    while let Some(slot) = slots.get(at) {
        let (hash, end) = (hash(name(text, slot.key)), slot.end as usize);
        // While there are few, the hashes themselves say more than their bits.
        let has_few = KEPT && count < COMPARED_KEYS_MAX;
        let may_be_known = before.is_used() || seen.has(hash) && (!has_few || last(&hashes, hash).is_some());
        if may_be_known && before.has(text, slots, object, at, count) {
            again = again.or(Some(at));
        }
        seen.add(hash);
        if KEPT {
            hashes.push(hash);
            members.push(at as u32);
        }
        count += 1;
        if count > OBJECT_KEYS_MAX {
            return None;
        }
        at = end;
    }
    Some((Keys { seen, hashes, members, by_name: Vec::new() }, again))
}

/// The keys of an object before the one that is looked at.
#[derive(Default)]
struct Before<'t> {
    /// The value that each has, once there are too many to compare with each.
    table: Option<HashMap<&'t [u8], usize>>,
}

impl<'t> Before<'t> {
    /// Whether there is a table, into which every key must be put from then on.
    fn is_used(&self) -> bool {
        self.table.is_some()
    }

    /// Whether the key at `at` is one of them. The value that it has there is said to be replaced.
    #[inline(never)]
    fn has(&mut self, text: &'t str, slots: &mut [Slot], object: usize, at: usize, count: usize) -> bool {
        let earlier = if count < COMPARED_KEYS_MAX {
            among(text, slots, object, at)
        } else {
            self.in_table(text, slots, object, at)
        };
        let Some(slot) = earlier.and_then(|earlier| slots.get_mut(earlier)) else { return false };
        slot.replaced = true;
        true
    }

    fn in_table(&mut self, text: &'t str, slots: &[Slot], object: usize, at: usize) -> Option<usize> {
        let table = self.table.get_or_insert_with(|| {
            let (mut before, mut other) = (HashMap::new(), object + 1);
            while let Some(slot) = slots.get(other).filter(|_| other < at) {
                // Of equal keys the last is kept.
                before.insert(name(text, slot.key), other);
                other = slot.end as usize;
            }
            before
        });
        table.insert(name(text, slots.get(at)?.key), at)
    }
}

#[inline(always)]
fn name(text: &str, key: Span) -> &[u8] {
    text.as_bytes().get(key.start as usize..key.end as usize).unwrap_or_default()
}

/// The last of the keys before it that is the same. Those before that one have been replaced already.
fn among(text: &str, slots: &[Slot], object: usize, at: usize) -> Option<usize> {
    let name_of = |slot: &Slot| name(text, slot.key);
    let wanted = name_of(slots.get(at)?);
    let mut other = object + 1;
    while other < at {
        let slot = slots.get(other)?;
        if !slot.replaced && name_of(slot) == wanted {
            return Some(other);
        }
        other = slot.end as usize;
    }
    None
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
