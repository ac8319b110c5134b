//! One row of the outbox: what one sink has been told about one finding, and what it has yet to be told. Pure: time
//! and answers come in as values, and the whole of delivery's rules can be read and tested here.
//!
//! ```text
//!            offer                begin                 2xx
//! (nothing) ------> pending ----------------> sending ------> delivered --- offer ---> pending ...
//!                      ^                        |  |
//!                      +------ retry(at) <------+  +--------> dead(reason), and a dead letter
//! ```
//!
//! # The guarantee
//!
//! At least once. `sending` is committed before the first byte leaves, and `delivered` after the answer: whoever is
//! killed between the two leaves a row that says that something may have arrived. It is sent again under the same
//! `webhook-id`, by which a receiver knows it. The row also remembers this (`attempted`) when a newer revision takes
//! the place of one that was never confirmed, so that an alert that may have arrived is continued or closed, never
//! left standing.
//!
//! A newer revision replaces an older one that waits: a receiver is told how things are, not how they came to be. It
//! takes over its place in the schedule, so that a finding that keeps growing does not hammer an endpoint that is down.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use schemas::finding::{EVIDENCE_SHOWN_MAX, Finding, Status};
use schemas::json::key_hash;
use schemas::tenant::Tenant;
use serde::{Deserialize, Serialize};

use crate::body::{self, Kind};

/// How long to wait before each attempt, the first included; two and a half days in all, which covers a weekend.
pub const SCHEDULE_SECONDS: [i64; 10] = [0, 5, 60, 300, 1_800, 7_200, 18_000, 36_000, 86_400, 86_400];

/// Up to a fifth is added to each wait, so that what failed together does not come back together.
const JITTER_MAX: f64 = 0.2;

/// Longest `Retry-After` that is honoured: a receiver must not be able to silence alerts for days.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// A refusal of our credentials is not cured by patience, but may be a receiver in the middle of a restart.
pub const AUTH_TRIES_MAX: u32 = 3;

/// While an episode grows it is told again when it has doubled, or after this long.
pub const UPDATE_INTERVAL: TimeDelta = TimeDelta::minutes(5);

/// How an attempt failed. Decides what becomes of the delivery, the same for every kind of sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureClass {
    /// Network, timeout, 408, 429, 5xx, a redirect: may pass by itself.
    Retry { after: Option<Duration> },
    /// 401, 403: an operator has to act; dead after [`AUTH_TRIES_MAX`].
    Auth,
    /// Any other 4xx: this message will never be taken.
    Refused,
    /// 410: the receiver wants nothing more, from anybody.
    Gone,
}

/// An attempt that failed. The reason is for an operator, and holds neither the address nor a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Failure {
    pub class: FailureClass,
    /// The `reason` label of the metric.
    pub label: &'static str,
    pub reason: String,
}

/// How often delivery has been tried in vain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tries {
    pub attempts: u32,
    pub auth_failures: u32,
    /// Not before; none until something has failed.
    pub at: Option<DateTime<Utc>>,
    pub last_error: String,
}

/// What a failure leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Again,
    Dead(String),
}

impl Tries {
    /// Counts a failure. `salt` makes the jitter: the same for every replay of the same failure.
    pub(crate) fn failed(&mut self, failure: &Failure, salt: &str, now: DateTime<Utc>) -> Next {
        self.last_error.clone_from(&failure.reason);
        let after = match failure.class {
            FailureClass::Refused => return Next::Dead(failure.reason.clone()),
            // The sink stops; the message waits for a receiver that wants it, and the attempt does not count.
            FailureClass::Gone => return Next::Again,
            FailureClass::Auth => {
                self.auth_failures += 1;
                None
            }
            FailureClass::Retry { after } => after,
        };
        self.attempts += 1;
        if self.auth_failures >= AUTH_TRIES_MAX {
            return Next::Dead(format!("refused {AUTH_TRIES_MAX} times: {}", failure.reason));
        }
        let Some(&wait_seconds) = SCHEDULE_SECONDS.get(self.attempts as usize) else {
            return Next::Dead(format!("given up after {} attempts: {}", self.attempts, failure.reason));
        };
        let asked = after.unwrap_or_default().min(RETRY_AFTER_MAX);
        let asked = TimeDelta::from_std(asked).unwrap_or_default();
        self.at = Some(now + asked.max(with_jitter(wait_seconds, salt, self.attempts)));
        Next::Again
    }
}

fn with_jitter(seconds: i64, salt: &str, attempts: u32) -> TimeDelta {
    let share = (key_hash(&[salt, &attempts.to_string()]) % 1_000) as f64 / 1_000.0;
    TimeDelta::milliseconds((seconds as f64 * 1_000.0 * (1.0 + share * JITTER_MAX)) as i64)
}

/// How a sink came to know of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum How {
    /// By a message of its own.
    Single,
    /// In a digest, because it is older than the sink's `max_age`.
    Old,
    /// In a digest, because too many messages would have gone out.
    Storm,
    /// In a digest, because too many messages were waiting.
    Backlog,
}

/// What a sink was last told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    pub revision: u32,
    pub status: Status,
    pub event_count: u64,
    pub at: DateTime<Utc>,
    pub how: How,
}

/// The newest revision that a sink has not been told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Waiting {
    pub finding: Box<Finding>,
    /// When the oldest revision that it stands for came.
    pub since: DateTime<Utc>,
    /// An attempt has begun and its end is not known.
    pub sending: bool,
    pub tries: Tries,
}

/// What was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Dead {
    pub revision: u32,
    pub reason: String,
    pub at: DateTime<Utc>,
}

/// An attempt, as it is remembered until its answer comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub finding_id: String,
    pub revision: u32,
    pub status: Status,
    pub event_count: u64,
    pub webhook_id: String,
}

/// One sink and one finding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub tenant: Tenant,
    pub finding_id: String,
    /// The id under which the episode was first delivered: stays when a late record gives the episode another.
    pub dedup_key: String,
    /// The finding it took over from, where that had been delivered.
    pub previous_id: Option<String>,
    /// The finding that goes on under this one's key.
    pub continued_by: Option<String>,
    pub incident_id: Option<String>,
    /// Newest revision offered: the log may offer one again, and older ones.
    pub seen_revision: u32,
    /// Whether an attempt was begun under the key, so that something may have arrived.
    pub attempted: bool,
    pub told: Option<Told>,
    pub waiting: Option<Waiting>,
    pub dead: Option<Dead>,
    pub changed: DateTime<Utc>,
    /// The partition that the row lies in; the row's place says it.
    #[serde(skip)]
    pub partition: u32,
}

impl Entry {
    pub(crate) fn new(tenant: &Tenant, finding_id: &str, partition: u32, now: DateTime<Utc>) -> Entry {
        Entry {
            tenant: tenant.clone(),
            finding_id: finding_id.to_owned(),
            dedup_key: finding_id.to_owned(),
            previous_id: None,
            continued_by: None,
            incident_id: None,
            seen_revision: 0,
            attempted: false,
            told: None,
            waiting: None,
            dead: None,
            changed: now,
            partition,
        }
    }

    /// Whether the receiver knows of it, or may.
    pub(crate) fn reached(&self) -> bool {
        self.told.is_some() || self.attempted
    }

    /// Whether a single message about it is out or may be: from then on it is always told by single messages.
    pub(crate) fn reached_singly(&self) -> bool {
        self.attempted || self.told.as_ref().is_some_and(|told| told.how == How::Single)
    }

    /// Takes in a revision. A finding that does not stand is only news to a receiver that knows of it; one that must
    /// alert nobody is none, except that it may end an alert.
    pub(crate) fn offer(&mut self, finding: &Finding, now: DateTime<Utc>) {
        if finding.revision <= self.seen_revision {
            return;
        }
        self.seen_revision = finding.revision;
        self.changed = now;
        if !finding.status.stands() && !self.reached() {
            self.waiting = None;
        } else if finding.notify || !finding.status.stands() {
            self.wait(finding, now);
        }
    }

    fn wait(&mut self, finding: &Finding, now: DateTime<Utc>) {
        let mut finding = Box::new(finding.clone());
        // No body shows more, and ten thousand ids would make the row as large.
        finding.evidence.truncate(EVIDENCE_SHOWN_MAX);
        let (since, tries) = match self.waiting.take() {
            Some(replaced) => (replaced.since, replaced.tries),
            None => (now, Tries::default()),
        };
        self.waiting = Some(Waiting { finding, since, sending: false, tries });
        self.dead = None;
    }

    /// What the waiting revision is to the receiver. Follows from the row alone, so that every attempt says the same.
    pub(crate) fn kind(&self) -> Option<Kind> {
        let waiting = self.waiting.as_ref()?;
        Some(if !waiting.finding.status.stands() {
            Kind::Closed
        } else if self.told.as_ref().is_some_and(|told| told.how == How::Single) {
            Kind::Updated
        } else {
            Kind::Created
        })
    }

    /// When the waiting revision may be sent. What has been told already and only grows waits until it has doubled or
    /// [`UPDATE_INTERVAL`] has passed; it never waits for ever.
    pub(crate) fn due_at(&self) -> Option<DateTime<Utc>> {
        let waiting = self.waiting.as_ref()?;
        if waiting.sending {
            return Some(waiting.since);
        }
        if let Some(at) = waiting.tries.at {
            return Some(at);
        }
        let finding = &waiting.finding;
        Some(match &self.told {
            Some(told) if told.status == finding.status && !has_doubled(told, finding) => {
                waiting.since.max(told.at + UPDATE_INTERVAL)
            }
            _ => waiting.since,
        })
    }

    /// Whether a digest should name this revision, given what has been told.
    pub(crate) fn is_news(&self, finding: &Finding) -> bool {
        finding.revision > self.seen_revision
            && self.told.as_ref().is_none_or(|told| told.status != finding.status || has_doubled(told, finding))
    }

    /// Notes that a digest names this revision: it does not wait any more.
    pub(crate) fn list(&mut self, finding: &Finding, how: How, now: DateTime<Utc>) {
        self.seen_revision = self.seen_revision.max(finding.revision);
        self.told = Some(Told {
            revision: finding.revision,
            status: finding.status,
            event_count: finding.event_count,
            at: now,
            how,
        });
        self.waiting = None;
        self.changed = now;
    }

    /// Begins an attempt: to be committed before anything is sent.
    pub(crate) fn begin(&mut self, now: DateTime<Utc>) -> Option<Attempt> {
        let waiting = self.waiting.as_mut()?;
        waiting.sending = true;
        self.attempted = true;
        self.changed = now;
        Some(Attempt {
            finding_id: self.finding_id.clone(),
            revision: waiting.finding.revision,
            status: waiting.finding.status,
            event_count: waiting.finding.event_count,
            webhook_id: body::webhook_id(&waiting.finding),
        })
    }

    /// Takes in the answer to an attempt. `Some` if the waiting revision is to become a dead letter: [`Entry::bury`].
    pub(crate) fn settle(
        &mut self,
        attempt: &Attempt,
        answer: &Result<(), Failure>,
        now: DateTime<Utc>,
    ) -> Option<String> {
        self.changed = now;
        let current = self.waiting.as_ref().is_some_and(|waiting| {
            waiting.finding.id == attempt.finding_id && waiting.finding.revision == attempt.revision
        });
        match answer {
            Ok(()) => {
                self.told = Some(Told {
                    revision: attempt.revision,
                    status: attempt.status,
                    event_count: attempt.event_count,
                    at: now,
                    how: How::Single,
                });
                if current {
                    self.waiting = None;
                } else if let Some(waiting) = &mut self.waiting {
                    // The endpoint works again: what came meanwhile has failed nothing yet.
                    waiting.tries = Tries::default();
                    waiting.since = waiting.since.max(now);
                }
                None
            }
            Err(failure) => {
                let waiting = self.waiting.as_mut()?;
                waiting.sending = false;
                match waiting.tries.failed(failure, &attempt.webhook_id, now) {
                    Next::Again => None,
                    // The revision that was refused has been replaced: the new one has its own chance.
                    Next::Dead(_) if !current => None,
                    Next::Dead(reason) => Some(reason),
                }
            }
        }
    }

    /// Gives the waiting revision up, and returns it.
    pub(crate) fn bury(&mut self, reason: &str, now: DateTime<Utc>) -> Option<Waiting> {
        let waiting = self.waiting.take()?;
        self.dead = Some(Dead { revision: waiting.finding.revision, reason: reason.to_owned(), at: now });
        self.changed = now;
        Some(waiting)
    }

    /// Goes on under the key of the finding that it takes over from. Only for an entry that has reached nobody.
    pub(crate) fn inherit(&mut self, from: &mut Entry, now: DateTime<Utc>) {
        debug_assert!(!self.reached());
        self.dedup_key.clone_from(&from.dedup_key);
        self.previous_id = Some(from.finding_id.clone());
        self.told.clone_from(&from.told);
        self.attempted = from.attempted;
        self.incident_id = from.incident_id.clone().or(self.incident_id.take());
        self.changed = now;
        from.continued_by = Some(self.finding_id.clone());
        from.waiting = None;
        from.changed = now;
    }
}

fn has_doubled(told: &Told, finding: &Finding) -> bool {
    finding.event_count >= told.event_count.saturating_mul(2)
}

#[cfg(test)]
mod tests;
