//! What goes wrong on purpose.
//!
//! Guarantee: whether a request fails is a function of seed, fault, what is asked for and how often it was asked for
//! before; so the order in which parallel requests arrive does not matter, a seed repeats a run, and asking again ends
//! in an answer.
//!
//! A new fault is one variant, one line in [`Fault::ALL`] and its answer in `answers.rs`.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use crate::Error;
use crate::dice::{Dice, fingerprint};

/// A fault by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// `AF429` inside HTTP 403, sometimes with `Retry-After`.
    Throttle,
    /// HTTP 200 whose body ends before its `Content-Length`.
    TruncatedBody,
    /// HTTP 503 or 500 with `AF50000`.
    ServerError,
    /// A token stops being valid before its time: HTTP 401 until another is fetched.
    ExpiredToken,
}

impl Fault {
    /// Every fault with its name, in the order in which a request meets them.
    pub const ALL: [(Fault, &'static str); 4] = [
        (Fault::ExpiredToken, "expired_token"),
        (Fault::Throttle, "throttle"),
        (Fault::ServerError, "server_error"),
        (Fault::TruncatedBody, "truncated_body"),
    ];

    /// One request in this many fails.
    fn odds(self) -> u64 {
        match self {
            // Each costs the client a token as well.
            Fault::ExpiredToken => 40,
            Fault::Throttle | Fault::ServerError | Fault::TruncatedBody => 7,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Fault::ALL.iter().find(|(fault, _)| fault == self).map_or("", |(_, name)| name);
        formatter.write_str(name)
    }
}

impl FromStr for Fault {
    type Err = Error;

    fn from_str(text: &str) -> Result<Fault, Error> {
        let known = Fault::ALL.iter().find(|(_, name)| *name == text);
        known.map(|(fault, _)| *fault).ok_or_else(|| Error::UnknownFault { given: text.to_owned() })
    }
}

/// Decides request by request.
pub(crate) struct FaultPlan {
    seed: u64,
    active: Vec<Fault>,
    /// How often each thing was asked for.
    attempts: Mutex<HashMap<u64, u64>>,
}

impl FaultPlan {
    pub(crate) fn new(seed: u64, active: &[Fault]) -> FaultPlan {
        FaultPlan { seed, active: active.to_vec(), attempts: Mutex::new(HashMap::new()) }
    }

    /// The fault that meets this request, and dice for its details.
    pub(crate) fn draw(&self, subject: &str) -> Option<(Fault, Dice)> {
        if self.active.is_empty() {
            return None;
        }
        let key = fingerprint(subject.as_bytes());
        let attempt = {
            let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
            let count = attempts.entry(key).or_default();
            *count += 1;
            *count
        };
        let order = Fault::ALL.iter().map(|(fault, _)| *fault).filter(|fault| self.active.contains(fault));
        for fault in order {
            let mut dice = Dice::new(self.seed ^ key, &fault.to_string(), attempt);
            if dice.next().is_multiple_of(fault.odds()) {
                return Some((fault, dice));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for (fault, name) in Fault::ALL {
            assert_eq!(fault.to_string(), name);
            assert_eq!(name.parse::<Fault>().unwrap(), fault);
        }
        assert!("fire".parse::<Fault>().is_err());
    }

    #[test]
    fn asking_again_ends_in_an_answer() {
        let all = Fault::ALL.map(|(fault, _)| fault);
        let plan = FaultPlan::new(9, &all);
        for subject in 0..200 {
            assert!((0..50).any(|_| plan.draw(&subject.to_string()).is_none()));
        }
    }
}
