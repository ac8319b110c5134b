//! What to play and how to deliver it.

use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::{Backlog, Error, Fault};

/// The whole description of a fake tenant. Two equal descriptions give the same world, byte for byte.
#[derive(Clone)]
pub struct Options {
    pub seed: u64,
    /// Ordinary staff; at least two are made, because the story needs a second account.
    pub users: u32,
    /// Days of ordinary history before the story day.
    pub days: u32,
    pub story: Scenario,
    pub tenant_id: String,
    pub domain: String,
    pub client_id: String,
    pub client_secret: String,
    /// "Now" of the played world when the server starts; it then runs at the speed of the real clock. The story ends
    /// shortly before.
    pub end: DateTime<Utc>,
    pub delivery: Delivery,
    pub pace: Pace,
    pub faults: Vec<Fault>,
    /// Whether the faults meet every request that they can meet, so that nothing is ever answered as it should be.
    pub always_faulty: bool,
    /// Whether all subscriptions exist from the beginning, as an earlier life of the reader would have left them.
    pub subscribed: bool,
    /// How long a request is left without an answer where that is the fault.
    pub silence: Duration,
    /// Within how long, after the start, blobs are listed that are listed too late.
    pub late_within: Duration,
    /// How large a big blob is.
    pub big_blob_bytes: u64,
    /// Content made on the fly, instead of a world.
    pub backlog: Option<Backlog>,
}

impl Options {
    /// A small company, two weeks of history, the attack, delivered as badly as the real service delivers.
    ///
    /// `end` is asked for and not read from a clock, so that a run can be repeated.
    pub fn new(end: DateTime<Utc>) -> Options {
        Options {
            seed: 1,
            users: 20,
            days: 14,
            story: Scenario::Takeover,
            tenant_id: "11111111-1111-1111-1111-111111111111".to_owned(),
            domain: "contoso.example".to_owned(),
            client_id: "22222222-2222-2222-2222-222222222222".to_owned(),
            client_secret: "simulated-secret".to_owned(),
            end,
            delivery: Delivery::default(),
            pace: Pace::AllAtOnce,
            faults: Vec::new(),
            always_faulty: false,
            subscribed: false,
            silence: Duration::from_secs(600),
            late_within: Duration::from_secs(20),
            big_blob_bytes: 256 * 1024,
            backlog: None,
        }
    }
}

/// What happens on the last day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Nothing but office work.
    Quiet,
    /// A mailbox is taken over, read, used for fraud and tidied up.
    Takeover,
}

impl FromStr for Scenario {
    type Err = Error;

    fn from_str(text: &str) -> Result<Scenario, Error> {
        match text {
            "quiet" => Ok(Scenario::Quiet),
            "takeover" => Ok(Scenario::Takeover),
            _ => Err(Error::UnknownScenario { given: text.to_owned() }),
        }
    }
}

/// How records are delivered. The real service does all of this, so all of it is on by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Some records appear hours to a day after they happened.
    pub late: bool,
    /// Some records come twice, sometimes days apart; some blobs are listed twice.
    pub duplicates: bool,
    /// Every blob is there a second time, under another name and later.
    pub twice: bool,
    /// Records are unordered in blobs and between blobs.
    pub shuffled: bool,
    /// Blobs on one page of a listing.
    pub page_size: usize,
    /// Records in one blob, at most.
    pub blob_records: usize,
}

impl Default for Delivery {
    fn default() -> Delivery {
        Delivery { late: true, duplicates: true, twice: false, shuffled: true, page_size: 20, blob_records: 40 }
    }
}

/// When content becomes available.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Everything is there when the server starts.
    AllAtOnce,
    /// The last hours, in which the story plays, arrive spread over this much real time; what is older is there at
    /// once.
    Fast { real: Duration },
}
