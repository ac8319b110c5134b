//! One feed of one tenant: which window to list next, which blob to fetch next, and what is complete. Pure.
//!
//! # Guarantee
//!
//! * The cursor is a moment of availability and moves only past windows whose every page has been read, in the
//!   transaction that writes a ledger row for every blob on them. It is never derived from the time of a blob or of a
//!   record. Each listing reaches back over the overlap, because nothing says that a blob cannot appear late; and its
//!   start is never the moment of a blob, because the service answers that with a partial one.
//! * What is listed later than the overlap reaches back is found by a sweep: from time to time everything that the
//!   service still lists is listed once more, window by window beside the front, whose cursor it does not move.
//! * The mark is the least of: the cursor less a margin; the availability of the oldest blob that is neither
//!   committed nor a recorded gap. It never goes back.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, TimeDelta, Utc};
use schemas::message::CoverageState;
use schemas::tenant::Tenant;
use sha2::{Digest, Sha256};
use url::Url;

use super::effect::{Effects, Note, Unreadable, coverage};
use super::limits::longest_wait;
use super::settings::Pace;
use super::skew::Moment;
use super::window::{self, Window, second};
use super::wire::{Api, BlobKey, BlobRead, Entry, Pass};
use crate::hex;
use crate::ledger::{BlobRow, BlobState, Change, FeedRow, ROW_DAYS_KEPT, Retrying};

/// Pages of one window at most: a service that names a next page for ever must not keep us in one window for ever.
const PAGES_MAX: u32 = 10_000;

/// After so many failures in a row on one page, the window is begun again from its first.
const PAGE_FAILURES_MAX: u32 = 5;

/// A blob that fails so long after its expiration is lost, whatever the service says instead of saying so.
const EXPIRED_FOR_SURE: TimeDelta = TimeDelta::hours(1);

/// Blobs waiting at most before no further window is listed: they take memory, and the ledger knows none of the rest.
const PENDING_MAX: usize = 50_000;

/// How far ahead a cursor may lie: less than is listed again each time, and more than hosts differ by that poll in turn.
const CURSOR_AHEAD: TimeDelta = TimeDelta::minutes(30);

/// A feed.
#[derive(Clone, Debug)]
pub struct Feed {
    tenant: Tenant,
    pub content_type: String,
    row: FeedRow,
    /// Every blob id in the ledger, with the time from which its row is kept.
    known: HashMap<Box<str>, DateTime<Utc>>,
    /// Blobs that are not finished.
    pending: BTreeMap<BlobKey, Pending>,
    ready: BTreeSet<BlobKey>,
    later: BTreeSet<(DateTime<Utc>, BlobKey)>,
    /// Moments that cannot be had, to be left out of what is called complete.
    gaps: BTreeSet<DateTime<Utc>>,
    front: Listing,
    sweep: Listing,
    /// Up to where the sweep has come; none between two.
    swept_to: Option<DateTime<Utc>>,
}

#[derive(Clone, Debug)]
struct Pending {
    uri: String,
    expires: Option<DateTime<Utc>>,
    retrying: Option<Retrying>,
    /// How often it was answered as if it were not there.
    absences: u32,
}

#[derive(Clone, Debug)]
struct Listing {
    due: DateTime<Utc>,
    in_flight: bool,
    failures: u32,
    window: Option<Window>,
}

impl Feed {
    /// A feed that goes on where the ledger says, but for moments that lie ahead: they were noted under a clock that has
    /// been set back since. What is to wait for them does not, and where the cursor is one of them, nobody knows what has
    /// been listed: all that the service keeps is listed again, and blobs that are known stay known.
    pub fn new(
        tenant: Tenant,
        content_type: String,
        mut row: FeedRow,
        blobs: BTreeMap<String, BlobRow>,
        pace: &Pace,
        now: DateTime<Utc>,
    ) -> Feed {
        row.cursor.take_if(|cursor| *cursor > now + CURSOR_AHEAD);
        row.started = row.started.map(|started| started.min(now));
        row.warming_since = row.warming_since.map(|since| since.min(now));
        row.swept = row.swept.map(|swept| swept.min(now));
        let due = |due| Listing { due, in_flight: false, failures: 0, window: None };
        let (front, sweep) = (due(now), due(row.swept.unwrap_or(now) + pace.sweep_interval));
        let mut feed = Feed {
            tenant,
            content_type,
            row,
            known: HashMap::with_capacity(blobs.len()),
            pending: BTreeMap::new(),
            ready: BTreeSet::new(),
            later: BTreeSet::new(),
            gaps: BTreeSet::new(),
            front,
            sweep,
            swept_to: None,
        };
        for (id, mut row) in blobs {
            if let BlobState::Retrying(retrying) = &mut row.state {
                retrying.next_try = retrying.next_try.min(now + longest_wait(pace, retrying.attempts));
            }
            feed.remember(id, row);
        }
        feed
    }

    /// Takes up a row of the ledger.
    fn remember(&mut self, id: String, row: BlobRow) {
        let kept_from = match &row.state {
            BlobState::Committed { at, .. } | BlobState::Gone { at, .. } | BlobState::Expired { at } => *at,
            BlobState::Listed | BlobState::Retrying(_) => row.created,
        };
        self.known.insert(id.clone().into(), row.created.max(kept_from));
        let key = BlobKey { created: row.created, id };
        let retrying = match row.state {
            BlobState::Committed { .. } => return,
            BlobState::Gone { .. } | BlobState::Expired { .. } => {
                self.gaps.insert(second(key.created));
                return;
            }
            BlobState::Listed => None,
            BlobState::Retrying(retrying) => Some(retrying),
        };
        match &retrying {
            Some(retrying) => self.later.insert((retrying.next_try, key.clone())),
            None => self.ready.insert(key.clone()),
        };
        if retrying.as_ref().is_some_and(|retrying| retrying.is_gap) {
            self.gaps.insert(second(key.created));
        }
        self.pending.insert(key, Pending { uri: row.uri, expires: row.expires, retrying, absences: 0 });
    }

    pub fn row(&self) -> &FeedRow {
        &self.row
    }

    pub fn pending_count(&self) -> usize {
        self.pending.len()
    }

    /// When the first blob that is not fetched yet goes away.
    pub fn next_expiration(&self) -> Option<DateTime<Utc>> {
        self.pending.values().filter_map(|pending| pending.expires).min()
    }

    /// When there is something to do here that is not yet due.
    pub fn next_due(&self, may_list: bool) -> Option<DateTime<Utc>> {
        let can_list = |pass| may_list && self.may_list(pass);
        let front = can_list(Pass::Front).then_some(self.front.due);
        let sweep = can_list(Pass::Sweep).then_some(self.sweep.due);
        let retry = self.later.first().map(|(at, _)| *at);
        front.into_iter().chain(sweep).chain(retry).min()
    }

    /// Whether a pass may go on as soon as it is due. The sweep waits until the front has caught up.
    fn may_list(&self, pass: Pass) -> bool {
        let is_behind = self.row.cursor.is_none() || self.front.window.is_some();
        let listing = if pass == Pass::Front { &self.front } else { &self.sweep };
        !listing.in_flight && self.pending.len() < PENDING_MAX && (pass == Pass::Front || !is_behind)
    }

    fn of(&mut self, pass: Pass) -> &mut Listing {
        match pass {
            Pass::Front => &mut self.front,
            Pass::Sweep => &mut self.sweep,
        }
    }

    /// Lists now, whatever the interval says.
    pub fn list_now(&mut self, now: DateTime<Utc>) {
        self.front.due = self.front.due.min(now);
        self.front.failures = 0;
    }

    /// The page to list, if one is due.
    pub fn next_listing(&mut self, pass: Pass, api: &Api, pace: &Pace, moment: Moment) -> Option<Url> {
        if !self.may_list(pass) || self.of(pass).due > moment.now {
            return None;
        }
        let next = match pass {
            Pass::Front => window::front(&self.row, pace, moment),
            Pass::Sweep => window::sweep(self.swept_to, self.row.cursor.unwrap_or(moment.low), pace, moment),
        };
        let listing = self.of(pass);
        listing.in_flight = true;
        // A window of which no page has come yet is made anew: it may have waited until it reached too far back.
        listing.window.take_if(|window| window.page.is_none());
        let window = listing.window.get_or_insert(next);
        let (start, end, page) = (window.start, window.end, window.page.clone());
        Some(page.unwrap_or_else(|| api.list(&self.content_type, start, end)))
    }

    /// A page was read. `next` is the address of the following one.
    pub fn listed(
        &mut self,
        pass: Pass,
        entries: Vec<Entry>,
        next: Option<Url>,
        pace: &Pace,
        moment: Moment,
    ) -> Effects {
        let mut effects = Effects::default();
        let listing = self.of(pass);
        listing.in_flight = false;
        listing.failures = 0;
        let Some(mut window) = listing.window.take() else { return effects };
        self.take_entries(pass, entries, &window, moment.now, &mut effects);
        window.pages += 1;
        if next.is_some() && window.pages < PAGES_MAX {
            window.page = next;
            let listing = self.of(pass);
            listing.due = moment.now;
            listing.window = Some(window);
            return effects;
        }
        if next.is_some() {
            let stretch = (window.start, window.cursor_after);
            let reason = "a listing named ever another page; what comes after the first 10,000 was not read";
            effects.coverage.push(coverage(&self.tenant, &self.content_type, stretch, CoverageState::Partial, reason));
        }
        match pass {
            Pass::Front => self.front_listed(&window, pace, moment, &mut effects),
            Pass::Sweep => self.sweep_listed(&window, pace, moment, &mut effects),
        }
        effects
    }

    fn sweep_listed(&mut self, window: &Window, pace: &Pace, moment: Moment, effects: &mut Effects) {
        if !window.is_last {
            self.swept_to = Some(window.cursor_after);
            self.sweep.due = moment.now;
            return;
        }
        self.swept_to = None;
        self.row.swept = Some(moment.now);
        self.sweep.due = moment.now + pace.sweep_interval;
        self.save(effects);
    }

    fn front_listed(&mut self, window: &Window, pace: &Pace, moment: Moment, effects: &mut Effects) {
        if window.is_behind {
            let from = self.row.covered.or(self.row.cursor).unwrap_or(window.start);
            let reason = "harrier did not list this stretch within the seven days that the service keeps it";
            self.tell(effects, (from, window.start), CoverageState::Missing, reason);
        }
        self.row.cursor = self.row.cursor.max(Some(window.cursor_after));
        if self.row.covered.is_none() {
            self.row.covered = Some(window.start);
        }
        self.front.due = if window.is_last { moment.now + pace.poll_interval } else { moment.now };
        effects.notes.push(Note::Listed { feed: self.content_type.clone() });
        self.settle(pace, moment.now, effects);
        self.save(effects);
    }

    fn take_entries(
        &mut self,
        pass: Pass,
        entries: Vec<Entry>,
        window: &Window,
        now: DateTime<Utc>,
        effects: &mut Effects,
    ) {
        let (mut count, mut behind_mark) = (0, 0);
        for entry in entries {
            match entry {
                Entry::Blob { id, uri, created, expires } => {
                    if self.known.contains_key(id.as_str()) {
                        continue;
                    }
                    self.known.insert(id.clone().into(), created.max(now));
                    count += 1;
                    behind_mark += u64::from(self.row.mark.is_some_and(|mark| created < mark));
                    let key = BlobKey { created, id };
                    let pending = Pending { uri, expires, retrying: None, absences: 0 };
                    effects.changes.push(self.blob_change(&key, &pending, BlobState::Listed));
                    self.ready.insert(key.clone());
                    self.pending.insert(key, pending);
                }
                Entry::Unreadable(text) => self.set_aside(text, window, now, effects),
            }
        }
        if count > 0 {
            self.row.warming_since = None;
            effects.notes.push(Note::BlobsListed { feed: self.content_type.clone(), count, behind_mark });
            if pass == Pass::Sweep {
                effects.notes.push(Note::ListedLate { feed: self.content_type.clone(), count });
            }
        }
    }

    /// An entry that names no blob: kept as a dead letter, once, and said in `coverage`.
    fn set_aside(&mut self, text: String, window: &Window, now: DateTime<Utc>, effects: &mut Effects) {
        let id = format!("unreadable:{}", hex(&Sha256::digest(text.as_bytes())));
        if self.known.insert(id.clone().into(), now).is_some() {
            return;
        }
        let state = BlobState::Gone { reason: "an entry of a listing that names no blob".into(), at: now };
        let row = BlobRow { created: now, expires: None, uri: String::new(), state };
        effects.changes.push(Change::Blob { content_type: self.content_type.clone(), blob_id: id, row: Some(row) });
        let stretch = (window.start, window.cursor_after);
        let reason = "a listing held an entry that names no blob; it is in the dead letters";
        effects.coverage.push(coverage(&self.tenant, &self.content_type, stretch, CoverageState::Partial, reason));
        effects.unreadable.push(Unreadable { content_type: self.content_type.clone(), bytes: text.into_bytes() });
    }

    /// The listing failed and is tried again after `wait`.
    pub fn listing_failed(&mut self, pass: Pass, wait: TimeDelta, now: DateTime<Utc>) {
        let listing = self.of(pass);
        listing.in_flight = false;
        listing.failures += 1;
        listing.due = now + wait;
        if listing.failures.is_multiple_of(PAGE_FAILURES_MAX) {
            listing.window = None;
        }
    }

    /// The window, or its page, is not valid any more: begin with a new one.
    pub fn restart_window(&mut self, pass: Pass, wait: TimeDelta, now: DateTime<Utc>) {
        self.listing_failed(pass, wait, now);
        self.of(pass).window = None;
    }

    /// Failures of the listing in a row.
    pub fn listing_failures(&self, pass: Pass) -> u32 {
        if pass == Pass::Front { self.front.failures } else { self.sweep.failures }
    }

    /// The listing was not answered for a reason that is not its own.
    pub fn listing_postponed(&mut self, pass: Pass) {
        self.of(pass).in_flight = false;
    }

    /// The next blob to fetch, and where it is said to be.
    pub fn next_blob(&mut self, now: DateTime<Utc>) -> Option<(BlobKey, String)> {
        while let Some((at, _)) = self.later.first()
            && *at <= now
            && let Some((_, key)) = self.later.pop_first()
        {
            self.ready.insert(key);
        }
        let key = self.ready.pop_first()?;
        let uri = self.pending.get(&key)?.uri.clone();
        Some((key, uri))
    }

    /// All records of a blob are in the log, the last ones in the transaction of these effects.
    pub fn blob_done(&mut self, key: &BlobKey, read: BlobRead, pace: &Pace, moment: Moment) -> Effects {
        let mut effects = Effects::default();
        let Some(pending) = self.pending.remove(key) else { return effects };
        let records = read.records;
        let state = BlobState::Committed {
            records,
            rejected: read.rejected,
            bytes: read.bytes,
            sha256: read.sha256,
            oldest_event: read.oldest_event,
            at: moment.now,
        };
        self.finish(key, state, moment.now, &mut effects);
        if pending.retrying.is_some_and(|retrying| retrying.is_gap) {
            // It had been told as a gap; now it is not one.
            self.gaps.remove(&second(key.created));
            self.tell_blob(key, CoverageState::Complete, "", &mut effects);
        }
        let (feed, blob) = (self.content_type.clone(), key.id.clone());
        effects.notes.push(Note::BlobFetched { feed, blob, records, created: key.created });
        self.settle_and_save(pace, moment.now, &mut effects);
        effects
    }

    /// A blob cannot be had.
    pub fn blob_lost(&mut self, key: &BlobKey, expired: bool, reason: &str, pace: &Pace, moment: Moment) -> Effects {
        let mut effects = Effects::default();
        if self.pending.remove(key).is_none() {
            return effects;
        }
        let at = moment.now;
        let state = if expired { BlobState::Expired { at } } else { BlobState::Gone { reason: reason.to_owned(), at } };
        self.finish(key, state, at, &mut effects);
        let told = if expired { "data loss: a content blob expired before it was fetched" } else { reason };
        self.tell_blob(key, CoverageState::Missing, told, &mut effects);
        self.gaps.insert(second(key.created));
        let (feed, blob, reason) = (self.content_type.clone(), key.id.clone(), reason.to_owned());
        effects.notes.push(Note::BlobLost { feed, blob, expired, reason });
        self.settle_and_save(pace, moment.now, &mut effects);
        effects
    }

    /// A blob could not be fetched and is tried again after `wait`.
    pub fn blob_failed(&mut self, key: &BlobKey, error: &str, wait: TimeDelta, pace: &Pace, moment: Moment) -> Effects {
        let mut effects = Effects::default();
        let expires = self.pending.get(key).and_then(|pending| pending.expires);
        if expires.is_some_and(|expires| expires + EXPIRED_FOR_SURE < moment.low) {
            return self.blob_lost(key, true, error, pace, moment);
        }
        let Some(mut pending) = self.pending.remove(key) else { return effects };
        let next_try = moment.now + wait;
        let mut retrying = pending.retrying.take().unwrap_or(Retrying {
            attempts: 0,
            first_failure: moment.now,
            next_try,
            last_error: String::new(),
            is_gap: false,
        });
        retrying.attempts = retrying.attempts.saturating_add(1);
        retrying.next_try = next_try;
        retrying.last_error = error.to_owned();
        if !retrying.is_gap && moment.now - retrying.first_failure >= pace.gap_after {
            retrying.is_gap = true;
            self.gaps.insert(second(key.created));
            let reason = format!("a content blob cannot be fetched; harrier goes on trying: {error}");
            self.tell_blob(key, CoverageState::Partial, &reason, &mut effects);
        }
        effects.changes.push(self.blob_change(key, &pending, BlobState::Retrying(retrying.clone())));
        pending.retrying = Some(retrying);
        self.later.insert((next_try, key.clone()));
        self.pending.insert(key.clone(), pending);
        let (feed, blob, error) = (self.content_type.clone(), key.id.clone(), error.to_owned());
        effects.notes.push(Note::BlobFailed { feed, blob, error, wait });
        self.settle_and_save(pace, moment.now, &mut effects);
        effects
    }

    /// A blob was answered as if it were not there. Returns how often in this life.
    pub fn blob_absent(&mut self, key: &BlobKey) -> u32 {
        let Some(pending) = self.pending.get_mut(key) else { return 0 };
        pending.absences += 1;
        pending.absences
    }

    /// How often a blob has failed.
    pub fn blob_attempts(&self, key: &BlobKey) -> u32 {
        let retrying = self.pending.get(key).and_then(|pending| pending.retrying.as_ref());
        retrying.map_or(0, |retrying| retrying.attempts)
    }

    /// A blob was not fetched for a reason that is not its own.
    pub fn blob_postponed(&mut self, key: BlobKey) {
        if self.pending.contains_key(&key) {
            self.ready.insert(key);
        }
    }

    /// The service has answered a request to start the subscription. Saved with what comes of it.
    pub fn start_answered(&mut self, now: DateTime<Utc>) {
        self.row.started = Some(now);
    }

    /// The subscription was started, and was not before.
    pub fn started(&mut self, now: DateTime<Utc>) -> Effects {
        let mut effects = Effects::default();
        effects.notes.push(Note::SubscriptionStarted { feed: self.content_type.clone() });
        match self.row.covered.or(self.row.cursor) {
            Some(from) => {
                let reason = "the subscription was found stopped and was started again; what became available while \
                              it was stopped cannot be had";
                self.tell(&mut effects, (from, now), CoverageState::Partial, reason);
            }
            None => {
                self.row.covered = Some(now);
                self.row.warming_since = Some(now);
            }
        }
        self.row.disabled = false;
        self.list_now(now);
        self.save(&mut effects);
        effects
    }

    /// The subscription is disabled and could not be started. Told again for every further stretch.
    pub fn disabled(&mut self, pace: &Pace, now: DateTime<Utc>) -> Effects {
        let mut effects = Effects::default();
        let from = self.row.covered.or(self.row.cursor).unwrap_or(now - pace.coverage_step);
        if self.row.disabled && now - from < pace.coverage_step {
            return effects;
        }
        self.row.disabled = true;
        self.tell(&mut effects, (from, now), CoverageState::Missing, "the subscription is disabled");
        self.save(&mut effects);
        effects
    }

    /// The subscription is enabled. Does something only if it was disabled.
    pub fn enabled(&mut self, now: DateTime<Utc>) -> Effects {
        let mut effects = Effects::default();
        if self.row.disabled {
            self.row.disabled = false;
            let from = self.row.covered.unwrap_or(now);
            self.tell(&mut effects, (from, now), CoverageState::Missing, "the subscription was disabled");
            self.list_now(now);
            self.save(&mut effects);
        }
        effects
    }

    /// Rows that are too old to be of use, removed; a few at a time. See the ledger.
    pub fn prune(&mut self, now: DateTime<Utc>, rows_max: usize) -> Effects {
        let before = now - TimeDelta::days(ROW_DAYS_KEPT);
        let pending: BTreeSet<&str> = self.pending.keys().map(|key| key.id.as_str()).collect();
        let old: Vec<Box<str>> = self
            .known
            .iter()
            .filter(|(id, kept_from)| **kept_from < before && !pending.contains(id.as_ref()))
            .map(|(id, _)| id.clone())
            .take(rows_max)
            .collect();
        let mut effects = Effects::default();
        for id in old {
            self.known.remove(&id);
            let (content_type, blob_id) = (self.content_type.clone(), id.into());
            effects.changes.push(Change::Blob { content_type, blob_id, row: None });
        }
        effects
    }

    fn finish(&mut self, key: &BlobKey, state: BlobState, now: DateTime<Utc>, effects: &mut Effects) {
        self.known.insert(key.id.clone().into(), key.created.max(now));
        let row = BlobRow { created: key.created, expires: None, uri: String::new(), state };
        let (content_type, blob_id) = (self.content_type.clone(), key.id.clone());
        effects.changes.push(Change::Blob { content_type, blob_id, row: Some(row) });
    }

    fn blob_change(&self, key: &BlobKey, pending: &Pending, state: BlobState) -> Change {
        let row = BlobRow { created: key.created, expires: pending.expires, uri: pending.uri.clone(), state };
        Change::Blob { content_type: self.content_type.clone(), blob_id: key.id.clone(), row: Some(row) }
    }

    /// A row of coverage from `covered` on, which moves with it.
    fn tell(
        &mut self,
        effects: &mut Effects,
        stretch: (DateTime<Utc>, DateTime<Utc>),
        state: CoverageState,
        reason: &str,
    ) {
        if stretch.0 < stretch.1 {
            effects.coverage.push(coverage(&self.tenant, &self.content_type, stretch, state, reason));
        }
        self.row.covered = self.row.covered.max(Some(stretch.1));
    }

    /// A row of coverage for one blob: the second in which it became available.
    fn tell_blob(&self, key: &BlobKey, state: CoverageState, reason: &str, effects: &mut Effects) {
        let start = second(key.created);
        let stretch = (start, start + TimeDelta::seconds(1));
        effects.coverage.push(coverage(&self.tenant, &self.content_type, stretch, state, reason));
    }

    fn settle_and_save(&mut self, pace: &Pace, now: DateTime<Utc>, effects: &mut Effects) {
        if self.settle(pace, now, effects) {
            self.save(effects);
        }
    }

    fn save(&self, effects: &mut Effects) {
        effects.changes.push(Change::Feed(self.content_type.clone(), self.row.clone()));
    }

    /// Moves the mark, and what is told as complete, as far as the facts allow. True if one has moved.
    fn settle(&mut self, pace: &Pace, now: DateTime<Utc>, effects: &mut Effects) -> bool {
        let Some(cursor) = self.row.cursor else { return false };
        if self.row.warming_since.is_some_and(|since| now - since < pace.warm_up) {
            return false;
        }
        self.row.warming_since = None;
        let is_open = |pending: &Pending| !pending.retrying.as_ref().is_some_and(|retrying| retrying.is_gap);
        let oldest = self.pending.iter().find(|(_, pending)| is_open(pending)).map(|(key, _)| key.created);
        let listed = cursor - pace.settle;
        let until = oldest.map_or(listed, |oldest| oldest.min(listed));
        let is_due = |last: Option<DateTime<Utc>>, step| last.is_none_or(|last| until > last && until - last >= step);
        let mut has_moved = false;
        if is_due(self.row.mark, pace.mark_step) || (oldest.is_none() && self.row.mark < Some(until)) {
            if self.row.mark.replace(until).is_none() {
                self.row.since = self.row.covered;
            }
            effects.marks.push((self.content_type.clone(), self.row.since, until));
            has_moved = true;
        }
        if let Some(covered) = self.row.covered
            && is_due(Some(covered), pace.coverage_step)
        {
            self.tell_complete(covered, until, effects);
            has_moved = true;
        }
        has_moved
    }

    /// What is complete between two moments: all but the gaps, which have rows of their own.
    fn tell_complete(&mut self, covered: DateTime<Utc>, until: DateTime<Utc>, effects: &mut Effects) {
        let mut from = covered;
        let gaps: Vec<DateTime<Utc>> = self.gaps.range(second(covered)..until).copied().collect();
        for gap in gaps {
            self.tell(effects, (from, gap), CoverageState::Complete, "");
            from = from.max(gap + TimeDelta::seconds(1));
        }
        self.tell(effects, (from, until), CoverageState::Complete, "");
        // Earlier gaps are told; those of blobs that may still come are looked up by their own moment.
        self.gaps = self.gaps.split_off(&second(until));
    }
}
