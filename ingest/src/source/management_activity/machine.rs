//! The poller of one tenant as a value: what to ask next, and what to make of what comes back. No I/O, no clock.
//!
//! The driver asks [`Machine::next`] until it is told to wait, and gives every outcome to [`Machine::heard`], whose
//! [`Effects`] it commits in one transaction. If that fails, it throws the machine away and makes another one from the
//! ledger: nothing here is worth more than what is in the log.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use runtime::config::Secret;

use super::code::{Class, Refusal, understand};
use super::effect::{Effects, Note};
use super::feed::Feed;
use super::lane::{Lane, Standing, Stopped};
use super::limits::Limits;
use super::settings::{Pace, TenantSource};
use super::skew::Skew;
use super::wire::{
    Answer, Api, BlobKey, Call, Outcome, Pass, Token, Trouble, What, read_listing, read_subscription,
    read_subscriptions, read_token, read_token_error,
};
use crate::ledger::{Ledger, PRUNED_ROWS_MAX};

/// A token that is not accepted again and again, although each is new: then waiting must begin.
const TOKENS_REFUSED_MAX: u32 = 3;

/// Answers as if there were no blob, by 404 without a code or by an empty body, after which it is believed.
const ABSENCES_MAX: u32 = 3;

/// Pages of what is new after which a page of a sweep goes first. Where listings are slow, or throttled to one at a time,
/// something new is always due, and a sweep would never begin.
const FRONTS_IN_A_ROW_MAX: u32 = 4;

/// What to do.
#[derive(Clone, Debug)]
pub enum Next {
    Call(Box<Call>),
    /// Nothing before this moment, unless an answer comes. None: nothing before an answer comes.
    Wait(Option<DateTime<Utc>>),
}

#[derive(Clone, Debug)]
enum TokenState {
    /// To be asked for, not before this.
    Wanted(DateTime<Utc>),
    Asked,
    Held {
        token: Token,
        renew_at: DateTime<Utc>,
    },
}

/// The poller of one tenant.
#[derive(Clone, Debug)]
pub struct Machine {
    api: Api,
    pace: Arc<Pace>,
    lanes: Vec<Lane>,
    limits: Limits,
    token: TokenState,
    generation: u64,
    /// Requests in a row whose token was refused, each with another token.
    tokens_refused: u32,
    token_failures: u32,
    subscriptions_due: DateTime<Utc>,
    subscriptions_in_flight: bool,
    subscriptions_failures: u32,
    stopped: Option<Stopped>,
    skew: Skew,
    /// The feed whose turn it is, so that a busy one does not starve the others.
    turn: usize,
    /// Whether it is the turn of a blob, not of a listing.
    blob_next: bool,
    /// Pages of what is new since the last one of a sweep.
    fronts_in_a_row: u32,
}

/// A request, and what is to be committed before it is sent.
type Work = (What, url::Url, Effects);

impl Machine {
    /// A poller that goes on where the ledger says.
    pub fn new(
        source: Arc<TenantSource>,
        pace: Arc<Pace>,
        mut ledger: Ledger,
        seed: u64,
        now: DateTime<Utc>,
    ) -> Machine {
        let lane = |content_type: &String| {
            let row = ledger.feeds.remove(content_type).unwrap_or_default();
            let blobs = ledger.blobs.remove(content_type).unwrap_or_default();
            let was_disabled = row.disabled;
            let feed = Feed::new(source.tenant.clone(), content_type.clone(), row, blobs, &pace, now);
            let start_again = DateTime::UNIX_EPOCH;
            Lane { feed, standing: Standing::Unknown, was_disabled, start_failures: 0, start_again, stopped: None }
        };
        Machine {
            lanes: source.content_types.iter().map(lane).collect(),
            api: Api::new(source),
            limits: Limits::new(&pace, seed, now),
            pace,
            token: TokenState::Wanted(now),
            generation: 0,
            tokens_refused: 0,
            token_failures: 0,
            subscriptions_due: now,
            subscriptions_in_flight: false,
            subscriptions_failures: 0,
            stopped: None,
            skew: Skew::default(),
            turn: 0,
            blob_next: false,
            fronts_in_a_row: 0,
        }
    }

    pub fn api(&self) -> &Api {
        &self.api
    }

    pub fn feeds(&self) -> impl Iterator<Item = &Feed> {
        self.lanes.iter().map(|lane| &lane.feed)
    }

    pub fn content_type(&self, feed: usize) -> &str {
        self.lanes.get(feed).map_or("", |lane| &lane.feed.content_type)
    }

    /// What keeps this tenant, or one of its feeds (by content type), from being polled.
    pub fn problems(&self) -> Vec<(Option<&str>, &str)> {
        let tenant = self.stopped.iter().map(|stopped| (None, stopped.reason.as_str()));
        let feeds = self.lanes.iter().filter_map(|lane| {
            let reason = match (&lane.stopped, lane.standing) {
                (Some(stopped), _) => stopped.reason.as_str(),
                (None, Standing::Disabled) => "the subscription is disabled",
                _ => return None,
            };
            Some((Some(lane.feed.content_type.as_str()), reason))
        });
        tenant.chain(feeds).collect()
    }

    /// What to do now.
    pub fn next(&mut self, now: DateTime<Utc>) -> (Next, Effects) {
        if let Some(stopped) = &self.stopped
            && stopped.until > now
        {
            return (Next::Wait(Some(stopped.until)), Effects::default());
        }
        match self.limits.free_at(&self.pace) {
            None => return (Next::Wait(None), Effects::default()),
            Some(free) if free > now => return (Next::Wait(Some(free)), Effects::default()),
            Some(_) => {}
        }
        let token = match self.token(now) {
            Ok(token) => token,
            Err(next) => return (self.sent(next, now), Effects::default()),
        };
        let (what, url, effects) = match self.find_work(now) {
            Ok(work) => work,
            Err(wait) => return (Next::Wait(wait), Effects::default()),
        };
        let call = Call { what, url, token: Some(token) };
        (self.sent(Next::Call(Box::new(call)), now), effects)
    }

    fn sent(&mut self, next: Next, now: DateTime<Utc>) -> Next {
        if matches!(next, Next::Call(_)) {
            self.limits.sent(now);
        }
        next
    }

    fn token(&mut self, now: DateTime<Utc>) -> Result<Token, Next> {
        match &self.token {
            TokenState::Held { token, renew_at } if *renew_at > now => return Ok(token.clone()),
            TokenState::Asked => return Err(Next::Wait(None)),
            TokenState::Wanted(at) if *at > now => return Err(Next::Wait(Some(*at))),
            TokenState::Held { .. } | TokenState::Wanted(_) => {}
        }
        self.token = TokenState::Asked;
        Err(Next::Call(Box::new(Call { what: What::Token, url: self.api.token(), token: None })))
    }

    /// The most urgent request, or when there will be one.
    fn find_work(&mut self, now: DateTime<Utc>) -> Result<Work, Option<DateTime<Utc>>> {
        if !self.subscriptions_in_flight && self.subscriptions_due <= now {
            self.subscriptions_in_flight = true;
            return Ok((What::Subscriptions, self.api.subscriptions(), Effects::default()));
        }
        // By turns: with few requests at once and slow listings, one kind would otherwise keep the other from its work.
        let found = if self.blob_next {
            self.find_blob(now).or_else(|| self.find_listing(now))
        } else {
            self.find_listing(now).or_else(|| self.find_blob(now))
        };
        if let Some(work) = found {
            self.blob_next = !matches!(work.0, What::Blob { .. });
            return Ok(work);
        }
        let subscriptions = (!self.subscriptions_in_flight).then_some(self.subscriptions_due);
        Err(self.lanes.iter().filter_map(|lane| lane.next_due(&self.pace, now)).chain(subscriptions).min())
    }

    /// The feeds in the order of their turns.
    fn order(&self) -> impl Iterator<Item = usize> + use<> {
        let (turn, count) = (self.turn, self.lanes.len());
        (0..count).map(move |step| (turn + step) % count)
    }

    fn find_listing(&mut self, now: DateTime<Utc>) -> Option<Work> {
        let moment = self.skew.moment(now);
        // What is new goes before what may have been missed, but not for ever.
        let (first, second) = if self.fronts_in_a_row < FRONTS_IN_A_ROW_MAX {
            (Pass::Front, Pass::Sweep)
        } else {
            (Pass::Sweep, Pass::Front)
        };
        let first = self.order().map(|at| (first, at));
        for (pass, at) in first.chain(self.order().map(|at| (second, at))) {
            let Machine { api, pace, lanes, turn, fronts_in_a_row, .. } = self;
            let lane = &mut lanes[at];
            if lane.start_due(pace).is_some_and(|due| due <= now) {
                lane.standing = Standing::Starting;
                let url = api.start(&lane.feed.content_type);
                return Some((What::Start { feed: at }, url, Effects::default()));
            }
            if lane.may_list(now)
                && let Some(url) = lane.feed.next_listing(pass, api, pace, moment)
            {
                *turn = at + 1;
                *fronts_in_a_row = if pass == Pass::Front { fronts_in_a_row.saturating_add(1) } else { 0 };
                return Some((What::List { feed: at, pass }, url, Effects::default()));
            }
        }
        None
    }

    fn find_blob(&mut self, now: DateTime<Utc>) -> Option<Work> {
        for at in self.order() {
            let Machine { api, lanes, turn, .. } = self;
            let lane = &mut lanes[at];
            if let Some((blob, uri)) = lane.may_fetch(now).then(|| lane.feed.next_blob(now)).flatten() {
                *turn = at + 1;
                let (url, is_as_given) = api.blob(&uri, &blob.id);
                let feed = lane.feed.content_type.clone();
                let foreign = Note::ForeignAddress { feed, kind: "contentUri" };
                let effects = if is_as_given { Effects::default() } else { Effects::note(foreign) };
                return Some((What::Blob { feed: at, blob }, url, effects));
            }
        }
        None
    }

    /// Takes in what came of a call.
    pub fn heard(&mut self, call: Call, outcome: Outcome, now: DateTime<Utc>) -> Effects {
        self.limits.came_back();
        let mut effects = Effects::default();
        if let Outcome::Answer(Answer { date: Some(date), .. })
        | Outcome::Blob(super::wire::BlobRead { date: Some(date), .. }) = &outcome
        {
            effects.notes.extend(self.skew.compare(*date, now));
        }
        let more = match (call.what.clone(), outcome) {
            (What::Token, outcome) => self.heard_token(outcome, now),
            (What::Blob { feed, blob }, Outcome::Blob(read)) => {
                self.worked_for(feed, now);
                let moment = self.skew.moment(now);
                let Machine { lanes, pace, .. } = self;
                lanes[feed].feed.blob_done(&blob, read, pace, moment)
            }
            // Only a blob is read as one.
            (what, Outcome::Blob(_)) => self.failed(what, "an answer of another kind".into(), None, now),
            (What::Blob { feed, blob }, Outcome::Failed(Trouble::Empty)) => {
                self.absent(feed, &blob, Trouble::Empty.to_string(), None, now)
            }
            (what, Outcome::Failed(trouble)) => self.failed(what, trouble.to_string(), None, now),
            (what, Outcome::Answer(answer)) => self.heard_answer(&call, what, answer, now),
        };
        effects.notes.extend(more.notes);
        Effects { notes: effects.notes, ..more }
    }

    fn heard_answer(&mut self, call: &Call, what: What, answer: Answer, now: DateTime<Utc>) -> Effects {
        if answer.status != 200 {
            return self.refused(call, what, &answer, now);
        }
        match what {
            What::Subscriptions => match read_subscriptions(&answer.body) {
                Some(list) => {
                    self.worked();
                    self.heard_subscriptions(&list, now)
                }
                None => self.refused(call, what, &answer, now),
            },
            What::Start { feed } => {
                // An answer without a status is taken at its word: the next list of subscriptions shows.
                let is_enabled = read_subscription(&answer.body).is_none_or(|subscription| subscription.is_enabled());
                self.worked();
                self.heard_start(feed, is_enabled, true, now)
            }
            What::List { feed, pass } => match read_listing(&answer.body) {
                Some(entries) => {
                    self.worked_for(feed, now);
                    self.heard_page(feed, pass, entries, answer.next_page.as_deref(), now)
                }
                None => self.refused(call, what, &answer, now),
            },
            // A blob whose body is no array but an error envelope.
            What::Blob { .. } | What::Token => self.refused(call, what, &answer, now),
        }
    }

    /// A request was answered as it should be.
    fn worked(&mut self) {
        self.limits.succeeded(&self.pace);
        self.tokens_refused = 0;
    }

    /// A feed's own request was answered as it should be: what kept it, or the tenant, from that is over.
    fn worked_for(&mut self, feed: usize, now: DateTime<Utc>) {
        self.worked();
        let is_over = |stopped: &mut Stopped| stopped.until <= now;
        self.stopped.take_if(is_over);
        self.lanes[feed].stopped.take_if(is_over);
    }

    fn heard_token(&mut self, outcome: Outcome, now: DateTime<Utc>) -> Effects {
        let (error, retry, retry_after) = match outcome {
            Outcome::Answer(answer) if answer.status == 200 => match read_token(&answer.body) {
                Some((value, lasts)) => {
                    self.hold(value, lasts, now);
                    return Effects::note(Note::Token { ok: true });
                }
                None => ("the token endpoint answered something else".to_owned(), true, None),
            },
            Outcome::Answer(answer) => {
                let (refusal, retry) = read_token_error(answer.status, &answer.body);
                (refusal.to_string(), retry, answer.retry_after)
            }
            Outcome::Failed(trouble) => (trouble.to_string(), trouble != Trouble::Credential, None),
            Outcome::Blob(_) => (String::new(), true, None),
        };
        let mut effects = Effects::note(Note::Token { ok: false });
        let error = format!("no token: {error}");
        if retry {
            let wait = self.limits.failed(&self.pace, self.token_failures, retry_after, now);
            self.token_failures += 1;
            self.token = TokenState::Wanted(now + wait);
            effects.notes.push(Note::Trouble { feed: None, error, wait });
        } else {
            self.token = TokenState::Wanted(now);
            effects.notes.push(self.stop(error, now));
        }
        effects
    }

    fn hold(&mut self, value: Secret, lasts: TimeDelta, now: DateTime<Utc>) {
        self.generation += 1;
        self.token_failures = 0;
        let token = Token { value, generation: self.generation };
        // A token of short life is renewed after half of it.
        let margin = self.pace.token_margin.min(lasts / 2);
        self.token = TokenState::Held { token, renew_at: now + lasts - margin };
    }

    fn stop(&mut self, reason: String, now: DateTime<Utc>) -> Note {
        self.stopped = Some(Stopped { until: now + self.pace.config_retry, reason: reason.clone() });
        Note::Stopped { feed: None, reason }
    }

    fn heard_subscriptions(&mut self, list: &[super::wire::Subscription], now: DateTime<Utc>) -> Effects {
        self.subscriptions_in_flight = false;
        self.subscriptions_failures = 0;
        self.subscriptions_due = now + self.pace.subscriptions_interval;
        let mut effects = Effects::default();
        for lane in &mut self.lanes {
            let named = |subscription: &&super::wire::Subscription| {
                subscription.content_type.eq_ignore_ascii_case(&lane.feed.content_type)
            };
            let found = list.iter().find(named).map(super::wire::Subscription::is_enabled);
            let more = lane.found(found, &self.pace, now);
            let (feed, enabled) = (lane.feed.content_type.clone(), found == Some(true));
            effects.notes.push(Note::Subscription { feed, enabled });
            effects.merge(more);
        }
        effects
    }

    fn heard_start(&mut self, feed: usize, is_enabled: bool, is_new: bool, now: DateTime<Utc>) -> Effects {
        let Machine { lanes, pace, .. } = self;
        let lane = &mut lanes[feed];
        lane.start_failures = 0;
        lane.feed.start_answered(now);
        let stands = Note::Subscription { feed: lane.feed.content_type.clone(), enabled: is_enabled };
        if !is_enabled {
            lane.standing = Standing::Disabled;
            let mut effects = Effects::note(stands);
            effects.merge(lane.feed.disabled(pace, now));
            return effects;
        }
        lane.standing = Standing::Enabled;
        let was_disabled = std::mem::take(&mut lane.was_disabled);
        let mut effects = match (is_new, was_disabled) {
            (true, _) => lane.feed.started(now),
            (false, true) => lane.feed.enabled(now),
            (false, false) => {
                lane.feed.list_now(now);
                Effects::default()
            }
        };
        // That it had to be started belongs to the episode that this ends, for whoever watches.
        effects.notes.push(stands);
        effects
    }

    fn heard_page(
        &mut self,
        feed: usize,
        pass: Pass,
        entries: Vec<super::wire::Entry>,
        next: Option<&str>,
        now: DateTime<Utc>,
    ) -> Effects {
        let moment = self.skew.moment(now);
        let Machine { lanes, pace, api, limits, .. } = self;
        let feed = &mut lanes[feed].feed;
        let next = match next.map(|uri| api.next_page(uri)) {
            Some(None) => {
                // Without the rest the window is not complete: the cursor stays.
                let wait = limits.wait(pace, feed.listing_failures(pass) + 1, None);
                feed.restart_window(pass, wait, now);
                let name = feed.content_type.clone();
                let error = "the next page of a listing is said to be at another address".to_owned();
                let mut effects = Effects::note(Note::ForeignAddress { feed: name.clone(), kind: "NextPageUri" });
                effects.notes.push(Note::Trouble { feed: Some(name), error, wait });
                return effects;
            }
            Some(next) => next,
            None => None,
        };
        feed.listed(pass, entries, next, pace, moment)
    }

    /// A response that is not what was asked for.
    fn refused(&mut self, call: &Call, what: What, answer: &Answer, now: DateTime<Utc>) -> Effects {
        let refusal = understand(answer.status, &answer.body);
        let moment = self.skew.moment(now);
        match (refusal.class, &what) {
            (Class::Throttled, _) => self.throttled(what, answer.retry_after, now),
            (Class::Token, _) => self.token_refused(call, what, now),
            (Class::StopTenant, _) => {
                self.postpone(what);
                Effects::note(self.stop(refusal.to_string(), now))
            }
            (Class::Done, What::Start { feed }) => {
                self.worked();
                self.heard_start(*feed, true, false, now)
            }
            (Class::Disabled, What::Start { feed }) => self.heard_start(*feed, false, false, now),
            (Class::Disabled | Class::NoSubscription, What::List { feed, .. }) => {
                let feed = *feed;
                self.postpone(what);
                let found = (refusal.class == Class::Disabled).then_some(false);
                let Machine { lanes, pace, subscriptions_due, .. } = self;
                let lane = &mut lanes[feed];
                if lane.feed.row().started.is_some_and(|last| now < last + pace.start_interval) {
                    // Started a moment ago: perhaps this was asked before. The list of subscriptions says how it stands.
                    lane.standing = Standing::Unknown;
                    *subscriptions_due = now;
                    return Effects::default();
                }
                let mut effects =
                    Effects::note(Note::Subscription { feed: lane.feed.content_type.clone(), enabled: false });
                effects.merge(lane.found(found, pace, now));
                effects
            }
            (Class::Window | Class::Page, What::List { feed, pass }) => {
                self.restart_window(*feed, *pass, &refusal, now)
            }
            // The service's own words are believed at once.
            (Class::Gone | Class::Expired, What::Blob { feed, blob }) if refusal.code.starts_with("AF") => {
                let reason = refusal.to_string();
                let Machine { lanes, pace, .. } = self;
                lanes[*feed].feed.blob_lost(blob, refusal.class == Class::Expired, &reason, pace, moment)
            }
            (Class::Gone, What::Blob { feed, blob }) => {
                self.absent(*feed, blob, refusal.to_string(), answer.retry_after, now)
            }
            (Class::StopFeed, What::Start { feed } | What::List { feed, .. } | What::Blob { feed, .. }) => {
                let feed = *feed;
                self.postpone(what);
                let lane = &mut self.lanes[feed];
                let reason = refusal.to_string();
                lane.stopped = Some(Stopped { until: now + self.pace.config_retry, reason: reason.clone() });
                Effects::note(Note::Stopped { feed: Some(lane.feed.content_type.clone()), reason })
            }
            _ => self.failed(what, refusal.to_string(), answer.retry_after, now),
        }
    }

    /// An answer as if there were no blob. It may be that of a proxy on a bad day, and the blob would be lost for good:
    /// it has to be seen again.
    fn absent(
        &mut self,
        feed: usize,
        blob: &BlobKey,
        reason: String,
        retry_after: Option<TimeDelta>,
        now: DateTime<Utc>,
    ) -> Effects {
        let moment = self.skew.moment(now);
        if self.lanes[feed].feed.blob_absent(blob) >= ABSENCES_MAX {
            let Machine { lanes, pace, .. } = self;
            return lanes[feed].feed.blob_lost(blob, false, &reason, pace, moment);
        }
        self.failed(What::Blob { feed, blob: blob.clone() }, reason, retry_after, now)
    }

    fn throttled(&mut self, what: What, retry_after: Option<TimeDelta>, now: DateTime<Utc>) -> Effects {
        self.postpone(what);
        let wait = self.limits.throttled(&self.pace, retry_after, now);
        Effects::note(Note::Throttled { wait })
    }

    /// The token is not accepted: another one, and the same request again. Requests that were in flight with the same
    /// token all come back so, and ask for no further one.
    fn token_refused(&mut self, call: &Call, what: What, now: DateTime<Utc>) -> Effects {
        self.postpone(what);
        let refused = call.token.as_ref().map(|token| token.generation);
        let is_current = matches!(&self.token, TokenState::Held { token, .. } if Some(token.generation) == refused);
        if !is_current {
            return Effects::default();
        }
        self.tokens_refused += 1;
        if self.tokens_refused < TOKENS_REFUSED_MAX {
            self.token = TokenState::Wanted(now);
            return Effects::default();
        }
        let wait = self.limits.wait(&self.pace, self.tokens_refused - TOKENS_REFUSED_MAX + 1, None);
        self.token = TokenState::Wanted(now + wait);
        let error = "every new token is refused: is the audience that of the tenant's cloud?".to_owned();
        self.stopped = Some(Stopped { until: now + wait, reason: error.clone() });
        Effects::note(Note::Trouble { feed: None, error, wait })
    }

    /// Back to where it was, to be asked again: it is not this request's fault.
    fn postpone(&mut self, what: What) {
        match what {
            What::Token => {}
            What::Subscriptions => self.subscriptions_in_flight = false,
            What::Start { feed } => self.lanes[feed].standing = Standing::ToStart,
            What::List { feed, pass } => self.lanes[feed].feed.listing_postponed(pass),
            What::Blob { feed, blob } => self.lanes[feed].feed.blob_postponed(blob),
        }
    }

    fn restart_window(&mut self, feed: usize, pass: Pass, refusal: &Refusal, now: DateTime<Utc>) -> Effects {
        let feed = &mut self.lanes[feed].feed;
        let before = feed.listing_failures(pass);
        // The first time at once: pages and windows grow old.
        let wait = if before == 0 { TimeDelta::zero() } else { self.limits.wait(&self.pace, before, None) };
        feed.restart_window(pass, wait, now);
        let feed = Some(feed.content_type.clone());
        Effects::note(Note::Trouble { feed, error: refusal.to_string(), wait })
    }

    /// Trouble at the other end, or on the way.
    fn failed(&mut self, what: What, error: String, retry_after: Option<TimeDelta>, now: DateTime<Utc>) -> Effects {
        let before = match &what {
            What::Token => self.token_failures,
            What::Subscriptions => self.subscriptions_failures,
            What::Start { feed } => self.lanes[*feed].start_failures,
            What::List { feed, pass } => self.lanes[*feed].feed.listing_failures(*pass),
            What::Blob { feed, blob } => self.lanes[*feed].feed.blob_attempts(blob),
        };
        let wait = self.limits.failed(&self.pace, before, retry_after, now);
        let feed = match what {
            What::Blob { feed, blob } => return self.blob_failed(feed, &blob, &error, wait, now),
            What::List { feed, pass } => {
                self.lanes[feed].feed.listing_failed(pass, wait, now);
                Some(feed)
            }
            What::Start { feed } => {
                let lane = &mut self.lanes[feed];
                lane.standing = Standing::ToStart;
                lane.start_failures += 1;
                lane.start_again = now + wait;
                Some(feed)
            }
            What::Subscriptions => {
                self.subscriptions_in_flight = false;
                self.subscriptions_failures += 1;
                self.subscriptions_due = now + wait;
                None
            }
            What::Token => None,
        };
        let feed = feed.map(|feed| self.lanes[feed].feed.content_type.clone());
        Effects::note(Note::Trouble { feed, error, wait })
    }

    fn blob_failed(
        &mut self,
        feed: usize,
        blob: &BlobKey,
        error: &str,
        wait: TimeDelta,
        now: DateTime<Utc>,
    ) -> Effects {
        let moment = self.skew.moment(now);
        let Machine { lanes, pace, .. } = self;
        lanes[feed].feed.blob_failed(blob, error, wait, pace, moment)
    }

    /// Old rows of the ledger, to be removed.
    pub fn prune(&mut self, now: DateTime<Utc>) -> Effects {
        let mut effects = Effects::default();
        for lane in &mut self.lanes {
            let room = PRUNED_ROWS_MAX - effects.changes.len();
            effects.merge(lane.feed.prune(now, room));
        }
        effects
    }
}
