//! What goes wrong on purpose.
//!
//! Guarantee: whether a request fails is a function of seed, fault, what is asked for and how often it was asked for
//! before; so the order in which parallel requests arrive does not matter, a seed repeats a run, and asking again ends
//! in an answer. What is wrong with a blob for good (it is gone, it holds a damaged element) is a function of seed and
//! blob. What comes once (auditing is off for a while, a subscription is disabled) is counted in requests.
//!
//! A new fault is one variant, one line in [`FACTS`] and, if it meets requests, its answer in `answers.rs`.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use crate::Error;
use crate::counters::Kind;
use crate::dice::{Dice, fingerprint};

/// A fault by name. What each does stands in [`Fault::meaning`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Fault {
    ExpiredToken,
    Throttle,
    Throttle429,
    ServerError,
    NoAnswer,
    Reset,
    StalePage,
    FreeText,
    TruncatedBody,
    EmptyBody,
    ObjectBody,
    SlowBytes,
    Gone,
    Expired,
    MalformedElement,
    BigBlobs,
    PartialBlob,
    LateListing,
    SameMillisecond,
    OldDuplicates,
    SmallPages,
    ClockOff,
    AuditingOff,
    Disabled,
}

/// What a fault meets.
#[derive(Debug, Clone, Copy)]
enum Meets {
    /// One in so many requests of these kinds.
    Requests(u64, &'static [Kind]),
    /// One in so many blobs, for good.
    Blobs(u64),
    /// All of the world, or all of it once.
    World,
}

struct Facts {
    fault: Fault,
    name: &'static str,
    meets: Meets,
    meaning: &'static str,
}

const fn fact(fault: Fault, name: &'static str, meets: Meets, meaning: &'static str) -> Facts {
    Facts { fault, name, meets, meaning }
}

const ANY: &[Kind] =
    &[Kind::Token, Kind::Subscriptions, Kind::Start, Kind::Stop, Kind::List, Kind::NextPage, Kind::Blob];
const WITH_TOKEN: &[Kind] = &[Kind::Subscriptions, Kind::Start, Kind::Stop, Kind::List, Kind::NextPage, Kind::Blob];
const WITH_BODY: &[Kind] = &[Kind::List, Kind::NextPage, Kind::Blob];

/// Every fault, in the order in which a request meets them.
const FACTS: [Facts; 24] = [
    // Each costs the client a token as well.
    fact(Fault::ExpiredToken, "expired_token", Meets::Requests(40, WITH_TOKEN), "401 until another token is fetched"),
    fact(Fault::Throttle, "throttle", Meets::Requests(25, WITH_TOKEN), "AF429 within 403, at times with Retry-After"),
    fact(Fault::Throttle429, "throttle_429", Meets::Requests(25, ANY), "429 without a code, at times with Retry-After"),
    fact(Fault::ServerError, "server_error", Meets::Requests(7, ANY), "503, or 500 with AF50000"),
    fact(Fault::NoAnswer, "no_answer", Meets::Requests(15, ANY), "silence, from the beginning or within the body"),
    fact(Fault::Reset, "reset", Meets::Requests(7, ANY), "the connection is reset, at once or within the body"),
    fact(Fault::StalePage, "stale_page", Meets::Requests(12, &[Kind::NextPage]), "AF20031 for the page of a listing"),
    fact(Fault::FreeText, "free_text", Meets::Requests(7, WITH_TOKEN), "400 with a sentence where the code should be"),
    fact(Fault::TruncatedBody, "truncated_body", Meets::Requests(7, WITH_BODY), "200 whose body ends too early"),
    fact(Fault::EmptyBody, "empty_body", Meets::Requests(5, WITH_BODY), "200 without a body, twice at most"),
    fact(Fault::ObjectBody, "object_body", Meets::Requests(9, WITH_BODY), "200 and an object instead of the array"),
    fact(Fault::SlowBytes, "slow_bytes", Meets::Requests(12, WITH_BODY), "the body comes in small pieces"),
    fact(Fault::Gone, "gone", Meets::Blobs(12), "404 for a blob that was listed, for good"),
    fact(Fault::Expired, "expired", Meets::Blobs(12), "AF20051 for a blob that was listed, for good"),
    fact(Fault::MalformedElement, "malformed_element", Meets::Blobs(5), "an element that is no record among records"),
    fact(Fault::BigBlobs, "big_blobs", Meets::Blobs(12), "blobs of `big_blob_bytes`"),
    fact(Fault::PartialBlob, "partial_blob", Meets::World, "half a blob for who asks from its own second on"),
    fact(Fault::LateListing, "late_listing", Meets::Blobs(5), "blobs that are listed hours or days late"),
    fact(Fault::SameMillisecond, "same_millisecond", Meets::World, "several blobs available in one millisecond"),
    fact(Fault::OldDuplicates, "old_duplicates", Meets::World, "records that come again in blobs days later"),
    fact(Fault::SmallPages, "small_pages", Meets::World, "listings of three entries a page"),
    fact(Fault::ClockOff, "clock_off", Meets::World, "the clock of the service is an hour off"),
    fact(Fault::AuditingOff, "auditing_off", Meets::World, "for a while the tenant does not exist"),
    fact(Fault::Disabled, "disabled", Meets::World, "each subscription is disabled once"),
];

/// All request faults together spoil no more than one request in so many.
const SPOILT_AT_MOST: u64 = 3;

/// An empty body cannot be told from a blob that is empty, except by asking again: so often it comes and no more.
const EMPTY_AT_MOST: u64 = 2;

impl Fault {
    /// Every fault, in the order in which a request meets them.
    pub fn all() -> impl Iterator<Item = Fault> {
        FACTS.iter().map(|facts| facts.fault)
    }

    /// What it does.
    pub fn meaning(self) -> &'static str {
        self.facts().meaning
    }

    /// Reads a list of names, in which `all` stands for every fault.
    pub fn parse_all(names: &[String]) -> Result<Vec<Fault>, Error> {
        if names.iter().any(|name| name == "all") {
            return Ok(Fault::all().collect());
        }
        names.iter().map(|name| name.parse()).collect()
    }

    /// One line for each fault.
    pub fn help() -> String {
        FACTS.iter().map(|facts| format!("\n{:<18} {}", facts.name, facts.meaning)).collect()
    }

    /// Whether it is done to a true answer, and not in its place.
    pub(crate) fn needs_answer(self) -> bool {
        matches!(self, Fault::TruncatedBody | Fault::SlowBytes | Fault::NoAnswer | Fault::Reset)
    }

    fn facts(self) -> &'static Facts {
        // A test sees that every variant has its line.
        FACTS.iter().find(|facts| facts.fault == self).unwrap_or(&FACTS[0])
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.facts().name)
    }
}

impl FromStr for Fault {
    type Err = Error;

    fn from_str(text: &str) -> Result<Fault, Error> {
        let known = FACTS.iter().find(|facts| facts.name == text);
        known.map(|facts| facts.fault).ok_or_else(|| Error::UnknownFault { given: text.to_owned() })
    }
}

/// Decides request by request and blob by blob.
pub(crate) struct FaultPlan {
    seed: u64,
    active: Vec<Fault>,
    /// How many of them meet requests.
    of_requests: u64,
    /// Whether they meet every request that they can meet.
    always: bool,
    /// How often each thing was asked for.
    attempts: Mutex<HashMap<u64, u64>>,
}

impl FaultPlan {
    pub(crate) fn new(seed: u64, active: &[Fault], always: bool) -> FaultPlan {
        let order: Vec<Fault> = Fault::all().filter(|fault| active.contains(fault)).collect();
        let of_requests =
            order.iter().filter(|fault| matches!(fault.facts().meets, Meets::Requests(..))).count() as u64;
        FaultPlan { seed, active: order, of_requests, always, attempts: Mutex::new(HashMap::new()) }
    }

    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.active.contains(&fault)
    }

    /// The fault that meets this request, and dice for its details.
    pub(crate) fn draw(&self, kind: Kind, subject: &str) -> Option<(Fault, Dice)> {
        if self.of_requests == 0 {
            return None;
        }
        let key = fingerprint(subject.as_bytes());
        let attempt = {
            let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
            let count = attempts.entry(key).or_default();
            *count += 1;
            *count
        };
        for &fault in &self.active {
            let Meets::Requests(odds, kinds) = fault.facts().meets else { continue };
            if fault == Fault::EmptyBody && attempt > EMPTY_AT_MOST {
                continue;
            }
            let mut dice = Dice::new(self.seed ^ key, fault.facts().name, attempt);
            let odds = if self.always { 1 } else { odds.max(SPOILT_AT_MOST * self.of_requests) };
            if kinds.contains(&kind) && dice.next().is_multiple_of(odds) {
                return Some((fault, dice));
            }
        }
        None
    }

    /// Whether a blob has this fault for good.
    pub(crate) fn marks(&self, fault: Fault, blob: &str) -> Option<Dice> {
        let Meets::Blobs(odds) = fault.facts().meets else { return None };
        if !self.has(fault) {
            return None;
        }
        let mut dice = Dice::new(self.seed ^ fingerprint(blob.as_bytes()), fault.facts().name, 0);
        dice.next().is_multiple_of(odds).then_some(dice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back_and_each_fault_has_one_line() {
        let all: Vec<Fault> = Fault::all().collect();
        for (place, fault) in all.iter().enumerate() {
            assert_eq!(fault.to_string().parse::<Fault>().unwrap(), *fault);
            assert!(!all[..place].contains(fault) && !fault.meaning().is_empty());
        }
        assert_eq!(all.iter().max(), Some(&Fault::Disabled), "the last variant is in the list");
        assert_eq!(all.len(), Fault::Disabled as usize + 1);
        assert!("fire".parse::<Fault>().is_err());
        assert_eq!(Fault::parse_all(&["all".into()]).unwrap(), all);
    }

    #[test]
    fn asking_again_ends_in_an_answer() {
        let plan = FaultPlan::new(9, &Fault::all().collect::<Vec<_>>(), false);
        for subject in 0..200 {
            assert!((0..50).any(|_| plan.draw(Kind::Blob, &subject.to_string()).is_none()));
        }
    }
}
