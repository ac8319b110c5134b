//! The clock, as a value: whoever needs the time is given one of these, so that tests decide what time it is. Only the
//! edges (pollers, delivery, flushing) hold a clock; nothing that decides a finding does.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};

/// Tells the time (UTC).
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>);

impl Clock {
    /// The machine's clock.
    pub fn system() -> Clock {
        Clock(Arc::new(Utc::now))
    }

    /// A clock that stands still until its [`Hand`] moves it.
    pub fn manual(start: DateTime<Utc>) -> (Clock, Hand) {
        let time = Arc::new(Mutex::new(start));
        let hand = Hand(time.clone());
        (Clock(Arc::new(move || *time.lock().unwrap_or_else(PoisonError::into_inner))), hand)
    }

    /// The machine's clock, set wrong by as much as its [`Hand`] has moved it.
    pub fn adrift() -> (Clock, Hand) {
        let start = Utc::now();
        let (set, hand) = Clock::manual(start);
        (Clock(Arc::new(move || Utc::now() + (set.now() - start))), hand)
    }

    pub fn now(&self) -> DateTime<Utc> {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

/// Moves a clock that a test has made.
#[derive(Clone, Debug)]
pub struct Hand(Arc<Mutex<DateTime<Utc>>>);

impl Hand {
    pub fn advance(&self, by: TimeDelta) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_by_its_hand() {
        let start: DateTime<Utc> = "2026-11-22T10:00:00Z".parse().unwrap();
        let (clock, hand) = Clock::manual(start);
        assert_eq!(clock.now(), start);
        hand.advance(TimeDelta::minutes(5));
        assert_eq!(clock.clone().now(), start + TimeDelta::minutes(5));
        let (clock, hand) = Clock::adrift();
        hand.advance(TimeDelta::hours(-1));
        assert!(clock.now() <= Utc::now() - TimeDelta::hours(1));
    }
}
