//! Seeded chance.
//!
//! Guarantee: the same seed, label and number give the same throws on every machine and with every version of every
//! dependency, which is why this is twenty lines of SplitMix64 and not a generator from a crate: a crate may change its
//! stream between versions, and a recorded seed must replay for ever.
//!
//! Each part of the world throws its own dice, found by label and number, so that adding a record to one person's day
//! does not change the day of anybody else.

/// A stream of throws. Not for secrets.
#[derive(Debug, Clone)]
pub(crate) struct Dice {
    state: u64,
}

/// FNV-1a: short, stable, and good enough to tell labels apart.
pub(crate) fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Dice {
    pub(crate) fn new(seed: u64, label: &str, number: u64) -> Dice {
        let mut dice = Dice { state: seed ^ fingerprint(label.as_bytes()) };
        // One throw between the two numbers, or seed 1 number 2 would equal seed 2 number 1.
        dice.state = dice.next() ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        dice
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From `low` up to and without `high`; `low` when the range is empty.
    pub(crate) fn between(&mut self, low: i64, high: i64) -> i64 {
        let width = high.saturating_sub(low).max(1) as u64;
        low + (self.next() % width) as i64
    }

    /// True `times` times out of a hundred.
    pub(crate) fn percent(&mut self, times: u64) -> bool {
        self.next() % 100 < times
    }

    pub(crate) fn pick<'a, T, const COUNT: usize>(&mut self, choices: &'a [T; COUNT]) -> &'a T {
        const { assert!(COUNT > 0) };
        &choices[self.index(COUNT)]
    }

    /// A place in a list of `count` entries; 0 for an empty list.
    pub(crate) fn index(&mut self, count: usize) -> usize {
        (self.next() % count.max(1) as u64) as usize
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.index(last + 1);
            items.swap(last, other);
        }
    }

    /// `digits` hexadecimal digits in capitals, as Exchange writes them.
    pub(crate) fn hex(&mut self, digits: usize) -> String {
        let mut text = String::with_capacity(digits + 16);
        while text.len() < digits {
            text.push_str(&format!("{:016X}", self.next()));
        }
        text.truncate(digits);
        text
    }

    /// A random (version 4) GUID.
    pub(crate) fn guid(&mut self) -> String {
        let high = (self.next() & 0xffff_ffff_ffff_0fff) | 0x4000;
        let low = (self.next() & 0x3fff_ffff_ffff_ffff) | 0x8000_0000_0000_0000;
        format_guid(high, low)
    }
}

/// The text of a GUID from its two halves.
pub(crate) fn format_guid(high: u64, low: u64) -> String {
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_never_changes() {
        // These values are recorded: a change here breaks every recorded seed.
        let mut dice = Dice::new(7, "recorded", 1);
        let throws: Vec<String> = (0..2).map(|_| dice.guid()).collect();
        assert_eq!(throws, ["1f19bc50-1c2c-4c75-93c7-c1703231f0b9", "f4fe34ff-9317-44f9-9f29-2db94c9a1892"]);
    }

    #[test]
    fn label_and_number_make_other_streams() {
        let first = Dice::new(1, "a", 2).next();
        assert_ne!(first, Dice::new(1, "b", 2).next());
        assert_ne!(first, Dice::new(2, "a", 1).next());
    }
}
