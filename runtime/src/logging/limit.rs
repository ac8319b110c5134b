//! Limits what repeats. Two bounds, each for a while of ten seconds:
//!
//! * the same line, word for word, is written once: a service that cannot reach its peer says so and is not a flood;
//! * one place of the code writes at most a hundred lines: what differs in each line (a record's id) is no way round.
//!
//! When the while is over, what was held back is said, with its number. Debug messages are not limited: whoever asks
//! for them wants each.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};

/// How long a line keeps its like from being written.
const WHILE: TimeDelta = TimeDelta::seconds(10);

/// Lines that one place of the code may write in that time.
const LINES_OF_ONE_PLACE_MAX: u32 = 100;

/// Lines remembered. The bound by place keeps this from being reached, but for a program with a great many places.
const REMEMBERED_MAX: usize = 10_000;

/// What repeats: a line by its hash, or a place by its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Line(u64),
    Place(usize),
}

/// Decides which lines are written. `T` is what a summary needs to know of a line.
#[derive(Debug)]
pub(super) struct Limiter<T> {
    slots: HashMap<Key, Slot<T>>,
    /// Nothing is over before this.
    over_next: Option<DateTime<Utc>>,
}

#[derive(Debug)]
struct Slot<T> {
    since: DateTime<Utc>,
    written: u32,
    held_back: u64,
    about: T,
}

impl<T> Default for Limiter<T> {
    fn default() -> Self {
        Limiter { slots: HashMap::new(), over_next: None }
    }
}

impl<T: Clone> Limiter<T> {
    /// Whether a line may be written now.
    pub fn admit(&mut self, now: DateTime<Utc>, line: u64, place: usize, about: &T) -> bool {
        self.over_next.get_or_insert(now + WHILE);
        let room = self.slots.len() < REMEMBERED_MAX;
        for (key, lines_max) in [(Key::Line(line), 1), (Key::Place(place), LINES_OF_ONE_PLACE_MAX)] {
            match self.slots.get_mut(&key) {
                Some(slot) if slot.written >= lines_max => {
                    slot.held_back += 1;
                    return false;
                }
                Some(slot) => slot.written += 1,
                // Without room a line is written and forgotten.
                None if !room => {}
                None => {
                    self.slots.insert(key, Slot { since: now, written: 1, held_back: 0, about: about.clone() });
                }
            }
        }
        true
    }

    /// What was held back and whose time is over, with its number. To be asked before each line.
    pub fn over(&mut self, now: DateTime<Utc>) -> Vec<(T, u64)> {
        // A clock that was set back ends every while.
        let waiting = |since: DateTime<Utc>| (since..since + WHILE).contains(&now);
        if self.over_next.is_none_or(|next| (next - WHILE..next).contains(&now)) {
            return Vec::new();
        }
        let mut over = Vec::new();
        self.slots.retain(|_, slot| {
            let keep = waiting(slot.since);
            if !keep && slot.held_back > 0 {
                over.push((slot.since, slot.about.clone(), slot.held_back));
            }
            keep
        });
        self.over_next = self.slots.values().map(|slot| slot.since).min().map(|since| since + WHILE);
        // In the order in which they began, for a hash map has none.
        over.sort_by_key(|(since, _, _)| *since);
        over.into_iter().map(|(_, about, held_back)| (about, held_back)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        "2026-11-22T10:00:00Z".parse::<DateTime<Utc>>().unwrap() + TimeDelta::seconds(seconds)
    }

    #[test]
    fn the_same_line_is_written_once_in_ten_seconds_and_the_rest_is_said() {
        let mut limiter = Limiter::default();
        let written: Vec<bool> = (0..5).map(|second| limiter.admit(at(second), 7, 1, &"refused")).collect();
        assert_eq!(written, [true, false, false, false, false]);
        assert!(limiter.admit(at(4), 8, 1, &"other"));
        assert_eq!(limiter.over(at(9)), []);
        assert_eq!(limiter.over(at(10)), [("refused", 4)]);
        assert!(limiter.admit(at(10), 7, 1, &"refused"));
        // The other line held nothing back: nothing is said of it.
        assert_eq!(limiter.over(at(30)), []);
    }

    #[test]
    fn lines_that_differ_are_limited_by_their_place() {
        let mut limiter = Limiter::default();
        let written = (0..250).filter(|line| limiter.admit(at(1), *line, 1, &"record")).count();
        assert_eq!(written, 100);
        assert!(limiter.admit(at(1), 1_000, 2, &"another place"));
        assert_eq!(limiter.over(at(12)), [("record", 150)]);
        assert!(limiter.slots.is_empty());
    }

    #[test]
    fn a_clock_that_is_set_back_silences_nothing() {
        let mut limiter = Limiter::default();
        assert!(limiter.admit(at(3_600), 7, 1, &"x"));
        assert_eq!(limiter.over(at(0)), []);
        assert!(limiter.admit(at(0), 7, 1, &"x"));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut limiter = Limiter::default();
        for line in 0..20_000 {
            limiter.admit(at(1), line, line as usize, &());
        }
        assert!(limiter.slots.len() <= REMEMBERED_MAX + 1);
    }
}
