//! A feed and what is known of its subscription: whether it may be listed, or has to be started first. Pure.

use chrono::{DateTime, Utc};

use super::effect::Effects;
use super::feed::Feed;
use super::settings::Pace;

/// What is known of a feed's subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Unknown,
    Enabled,
    /// Not there, or disabled and not tried yet: to be started.
    ToStart,
    Starting,
    /// Starting did not help. Looked at again with every list of subscriptions.
    Disabled,
}

/// A feed on its way.
#[derive(Clone, Debug)]
pub struct Lane {
    pub feed: Feed,
    pub standing: Standing,
    /// It was disabled, not absent, when it was last to be started.
    pub was_disabled: bool,
    /// Starts that failed in a row, and when the next may be tried.
    pub start_failures: u32,
    pub start_again: DateTime<Utc>,
    pub stopped: Option<Stopped>,
}

/// Left alone until somebody has changed something.
#[derive(Clone, Debug)]
pub struct Stopped {
    pub until: DateTime<Utc>,
    pub reason: String,
}

impl Lane {
    /// The service says of the subscription: enabled, disabled, or nothing.
    pub fn found(&mut self, enabled: Option<bool>, pace: &Pace, now: DateTime<Utc>) -> Effects {
        if enabled == Some(true) {
            self.standing = Standing::Enabled;
            self.was_disabled = false;
            return self.feed.enabled(now);
        }
        if matches!(self.standing, Standing::Starting | Standing::ToStart) {
            // Known already: this was asked before it was started.
            return Effects::default();
        }
        let is_disabled = enabled == Some(false);
        if is_disabled && (self.was_disabled || self.feed.row().disabled) {
            // Starting it has been tried once: now it is for people to see.
            self.standing = Standing::Disabled;
            return self.feed.disabled(pace, now);
        }
        self.standing = Standing::ToStart;
        self.was_disabled = is_disabled;
        Effects::default()
    }

    /// When the subscription is to be started.
    pub fn start_due(&self, pace: &Pace) -> Option<DateTime<Utc>> {
        // A start that got no answer counts for nothing: waiting a quarter of an hour for it would lose what comes meanwhile.
        let answered = self.feed.row().started.map_or(DateTime::UNIX_EPOCH, |last| last + pace.start_interval);
        let allowed = answered.max(self.start_again);
        let resumed = self.stopped.as_ref().map_or(allowed, |stopped| stopped.until.max(allowed));
        (self.standing == Standing::ToStart).then_some(resumed)
    }

    fn is_resting(&self, now: DateTime<Utc>) -> bool {
        self.stopped.as_ref().is_some_and(|stopped| stopped.until > now)
    }

    pub fn may_list(&self, now: DateTime<Utc>) -> bool {
        self.standing == Standing::Enabled && !self.is_resting(now)
    }

    /// Blobs can be fetched whatever has become of the subscription since.
    pub fn may_fetch(&self, now: DateTime<Utc>) -> bool {
        self.standing != Standing::Unknown && !self.is_resting(now)
    }

    pub fn next_due(&self, pace: &Pace, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        if let Some(stopped) = &self.stopped
            && stopped.until > now
        {
            return Some(stopped.until);
        }
        let feed = self.may_fetch(now).then(|| self.feed.next_due(self.may_list(now))).flatten();
        self.start_due(pace).into_iter().chain(feed).min()
    }
}
