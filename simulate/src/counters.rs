//! What was asked of the server, and what it gave.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Token,
    Subscriptions,
    Start,
    Stop,
    List,
    NextPage,
    Blob,
}

impl Kind {
    pub(crate) const ALL: [(Kind, &'static str); 7] = [
        (Kind::Token, "token"),
        (Kind::Subscriptions, "subscriptions"),
        (Kind::Start, "start"),
        (Kind::Stop, "stop"),
        (Kind::List, "list"),
        (Kind::NextPage, "next_page"),
        (Kind::Blob, "blob"),
    ];
}

/// What was asked of the server so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    pub tokens: u64,
    pub listings: u64,
    /// Entries of listings; a blob listed twice counts twice.
    pub blobs_listed: u64,
    /// Blobs answered whole, again counted each time.
    pub blobs_fetched: u64,
    /// Different blobs answered whole.
    pub blobs_fetched_once: u64,
    /// Blobs there are, available or yet to come.
    pub blobs_total: u64,
    /// Records in the blobs fetched, duplicates included.
    pub records: u64,
    /// Bytes of the blobs fetched.
    pub bytes: u64,
    /// Requests of all kinds.
    pub requests: u64,
    /// Requests of the API in the minute in which there were most.
    pub requests_per_minute_most: u64,
    /// Connections open at one time, at most.
    pub connections_most: u64,
    /// Requests refused by the rules of the API.
    pub refusals: u64,
    /// Requests spoilt on purpose.
    pub faults: u64,
}

/// Counts, from many threads.
#[derive(Default)]
pub(crate) struct Counters {
    requests: [AtomicU64; Kind::ALL.len()],
    pub(crate) listings: AtomicU64,
    pub(crate) blobs_listed: AtomicU64,
    pub(crate) blobs_fetched: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) refusals: AtomicU64,
    pub(crate) faults: AtomicU64,
    /// Requests of the API in each minute.
    minutes: Mutex<BTreeMap<i64, u64>>,
    /// Content types in whose listings an entry was that names no blob.
    malformed_entries: Mutex<BTreeSet<&'static str>>,
}

/// What an answer adds to the counts once it is sent whole.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Tally {
    Nothing,
    Listing { blobs: u64, malformed: Option<&'static str> },
    Blob { place: usize, records: u64, bytes: u64 },
}

impl Counters {
    pub(crate) fn asked(&self, kind: Kind, now: DateTime<Utc>) {
        self.requests[kind as usize].fetch_add(1, Ordering::Relaxed);
        if kind != Kind::Token {
            *locked(&self.minutes).entry(now.timestamp() / 60).or_default() += 1;
        }
    }

    /// Requests of a kind so far.
    pub(crate) fn requests(&self, kind: Kind) -> u64 {
        self.requests[kind as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn requests_per_minute_most(&self) -> u64 {
        locked(&self.minutes).values().copied().max().unwrap_or(0)
    }

    pub(crate) fn malformed_entries(&self) -> u64 {
        locked(&self.malformed_entries).len() as u64
    }

    pub(crate) fn add(&self, counter: impl Fn(&Counters) -> &AtomicU64, by: u64) {
        counter(self).fetch_add(by, Ordering::Relaxed);
    }

    pub(crate) fn listed(&self, blobs: u64, malformed: Option<&'static str>) {
        self.add(|counters| &counters.listings, 1);
        self.add(|counters| &counters.blobs_listed, blobs);
        locked(&self.malformed_entries).extend(malformed);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
