//! How fast one tenant's API may be asked: a rate, a number of requests at once, and silence after trouble. Pure.

use chrono::{DateTime, TimeDelta, Utc};

use super::settings::Pace;

/// Answers without trouble after which one more request at once is dared.
const SUCCESSES_TO_GROW: u32 = 20;

/// Failures in a row, of whatever requests, after which the tenant is left in peace for a while.
const TROUBLES_TO_PAUSE: u32 = 5;

/// Requests that may be sent at once after a pause, before the rate binds.
const BURST: i32 = 50;

/// The rate is never throttled below this part of what is allowed, and grows by it.
const RATE_STEPS: u32 = 10;

/// The pace of requests.
#[derive(Clone, Debug)]
pub struct Limits {
    in_flight: usize,
    allowed: usize,
    successes: u32,
    troubles: u32,
    throttles: u32,
    quiet_until: DateTime<Utc>,
    /// The moment at which all requests so far would have been sent at the even rate.
    paid_until: DateTime<Utc>,
    /// Requests a minute now: less after throttling, then more again.
    rate: u32,
    random: u64,
}

impl Limits {
    pub fn new(pace: &Pace, seed: u64, now: DateTime<Utc>) -> Limits {
        Limits {
            in_flight: 0,
            allowed: pace.concurrency_max,
            successes: 0,
            troubles: 0,
            throttles: 0,
            quiet_until: now,
            paid_until: now,
            rate: pace.requests_per_minute,
            random: seed,
        }
    }

    /// When the next request may be sent: none if one in flight must come back first.
    pub fn free_at(&self, pace: &Pace) -> Option<DateTime<Utc>> {
        let credit = self.interval() * burst(pace);
        (self.in_flight < self.allowed).then(|| self.quiet_until.max(self.paid_until - credit))
    }

    pub fn sent(&mut self, now: DateTime<Utc>) {
        self.in_flight += 1;
        self.paid_until = self.paid_until.max(now) + self.interval();
    }

    fn interval(&self) -> TimeDelta {
        TimeDelta::microseconds(60_000_000 / i64::from(self.rate.max(1)))
    }

    /// Any answer came, or none will.
    pub fn came_back(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    pub fn succeeded(&mut self, pace: &Pace) {
        self.troubles = 0;
        self.throttles = 0;
        self.successes += 1;
        if self.successes >= SUCCESSES_TO_GROW {
            self.successes = 0;
            self.allowed = (self.allowed + 1).min(pace.concurrency_max);
            self.rate =
                self.rate.saturating_add(pace.requests_per_minute / RATE_STEPS + 1).min(pace.requests_per_minute);
        }
    }

    /// The service asks for less. Returns how long it is left in peace.
    pub fn throttled(&mut self, pace: &Pace, retry_after: Option<TimeDelta>, now: DateTime<Utc>) -> TimeDelta {
        // Requests that were in flight together are throttled together: that is one hint, not several.
        if self.quiet_until <= now {
            self.throttles += 1;
            self.allowed = (self.allowed / 2).max(1);
            self.rate = (self.rate / 2).max(pace.requests_per_minute / RATE_STEPS).max(1);
            self.successes = 0;
        }
        let wait = self.wait(pace, self.throttles, retry_after);
        self.quiet_until = self.quiet_until.max(now + wait);
        wait
    }

    /// A request failed. Returns how long it should wait by itself: by how often it has failed before.
    pub fn failed(
        &mut self,
        pace: &Pace,
        before: u32,
        retry_after: Option<TimeDelta>,
        now: DateTime<Utc>,
    ) -> TimeDelta {
        self.troubles += 1;
        let wait = self.wait(pace, before + 1, retry_after);
        if self.troubles >= TROUBLES_TO_PAUSE {
            let pause = self.wait(pace, self.troubles - TROUBLES_TO_PAUSE + 1, retry_after);
            self.quiet_until = self.quiet_until.max(now + pause);
        }
        wait
    }

    /// The n-th wait in a row: doubled each time, and a little at random, so that callers do not come back together.
    pub fn wait(&mut self, pace: &Pace, times: u32, retry_after: Option<TimeDelta>) -> TimeDelta {
        let wait = match retry_after {
            Some(asked) => asked.clamp(TimeDelta::zero(), pace.retry_after_max),
            None => doubled(pace, times),
        };
        let permille = (self.next_random() % 500) as i32;
        wait + wait * permille / 1_000
    }

    /// SplitMix64: good enough to spread waits.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// The n-th wait in a row, without what chance adds.
fn doubled(pace: &Pace, times: u32) -> TimeDelta {
    let doublings = times.saturating_sub(1).min(16);
    (pace.backoff * (1_i32 << doublings)).min(pace.backoff_max)
}

/// The longest that the n-th wait in a row comes to where nobody has asked for more.
pub fn longest_wait(pace: &Pace, times: u32) -> TimeDelta {
    doubled(pace, times) * 3 / 2
}

/// A tenant with a small allowance must not spend it all at once.
fn burst(pace: &Pace) -> i32 {
    BURST.min(i32::try_from(pace.requests_per_minute).unwrap_or(BURST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throttling_halves_once_a_burst_and_waits_from_the_base_on() {
        let pace = Pace::default();
        let now = "2026-11-22T10:00:00Z".parse().unwrap();
        let mut limits = Limits::new(&pace, 7, now);
        for _ in 0..8 {
            limits.sent(now);
        }
        assert_eq!(limits.free_at(&pace), None);
        for _ in 0..8 {
            limits.came_back();
            let wait = limits.throttled(&pace, None, now);
            assert!((TimeDelta::seconds(30)..=TimeDelta::seconds(45)).contains(&wait));
        }
        assert_eq!((limits.allowed, limits.rate), (4, 500));
        assert!(limits.free_at(&pace).unwrap() >= now + TimeDelta::seconds(30));
        let later = now + TimeDelta::minutes(2);
        assert!(limits.throttled(&pace, None, later) >= TimeDelta::seconds(60));
        assert!(limits.throttled(&pace, Some(TimeDelta::seconds(7)), later) < TimeDelta::seconds(11));
        assert!(limits.throttled(&pace, Some(TimeDelta::days(9)), later) < TimeDelta::minutes(91));
    }

    #[test]
    fn what_was_throttled_grows_back_to_what_is_allowed() {
        let pace = Pace::default();
        let mut now = "2026-11-22T10:00:00Z".parse().unwrap();
        let mut limits = Limits::new(&pace, 7, now);
        for _ in 0..20 {
            now += TimeDelta::hours(1);
            limits.throttled(&pace, None, now);
        }
        assert_eq!((limits.allowed, limits.rate), (1, 100));
        (0..9 * SUCCESSES_TO_GROW).for_each(|_| limits.succeeded(&pace));
        assert_eq!((limits.allowed, limits.rate), (pace.concurrency_max, pace.requests_per_minute));
    }

    #[test]
    fn the_rate_holds_over_a_minute() {
        let pace = Pace { requests_per_minute: 60, ..Pace::default() };
        let start = "2026-11-22T10:00:00Z".parse().unwrap();
        let mut limits = Limits::new(&pace, 7, start);
        let (mut now, mut sent) = (start, 0);
        while now < start + TimeDelta::minutes(5) {
            now = limits.free_at(&pace).unwrap().max(now);
            limits.sent(now);
            limits.came_back();
            sent += 1;
        }
        assert!((300..=300 + BURST + 1).contains(&sent), "{sent}");
    }
}
