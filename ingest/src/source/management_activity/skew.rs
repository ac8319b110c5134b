//! This machine's clock and the service's. Pure.
//!
//! Guarantee: which of the two is right does not matter, because each is used where it does no harm.

use chrono::{DateTime, TimeDelta, Utc};

use super::effect::Note;

/// How far the two clocks may differ before it is worth telling, and before it is not believed at all: a server that is
/// a day off is wrong itself.
const CLOCK_OFF: TimeDelta = TimeDelta::minutes(5);
const CLOCK_UNBELIEVABLE: TimeDelta = TimeDelta::hours(24);

/// What a response's `Date`, in whole seconds and under way for a while, may differ by without meaning anything.
const CLOCK_NOISE: TimeDelta = TimeDelta::seconds(5);

/// How far the service's clock is ahead of ours.
#[derive(Clone, Copy, Debug, Default)]
pub struct Skew {
    ahead: TimeDelta,
    is_told: bool,
}

/// The moment, as seen by both clocks: which one is right does not matter if each is used where it does no harm.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// This machine's.
    pub now: DateTime<Utc>,
    /// The earlier one: for what must not run ahead (cursor, mark).
    pub low: DateTime<Utc>,
    /// The later one: for what must not be asked for any more.
    pub high: DateTime<Utc>,
}

impl Skew {
    pub fn moment(&self, now: DateTime<Utc>) -> Moment {
        let theirs = now + self.ahead;
        Moment { now, low: now.min(theirs), high: now.max(theirs) }
    }

    /// Takes in the `Date` of an answer. Tells once when the clocks are far apart.
    pub fn compare(&mut self, date: DateTime<Utc>, now: DateTime<Utc>) -> Option<Note> {
        let ahead = date - now;
        let counts = (CLOCK_NOISE..CLOCK_UNBELIEVABLE).contains(&ahead.abs());
        self.ahead = if counts { ahead } else { TimeDelta::zero() };
        let is_off = ahead.abs() >= CLOCK_OFF;
        let tell = is_off && !self.is_told;
        self.is_told = is_off;
        tell.then(|| Note::ClockOff { ahead_seconds: -ahead.num_seconds() })
    }
}
