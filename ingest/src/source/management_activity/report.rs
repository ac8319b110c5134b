//! What the poller tells: logs, metrics, and the list of problems that readiness is made from.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use runtime::metrics::Metrics;
use schemas::tenant::Tenant;

use super::code::{Class, shown, understand};
use super::effect::Note;
use super::feed::Feed;
use super::fetch::Heard;
use super::wire::{Outcome, What};
use crate::source::Health;

/// Tells, for one tenant.
#[derive(Debug)]
pub struct Reporter {
    tenant: Tenant,
    metrics: Arc<Metrics>,
    health: Health,
    /// Feeds whose subscription was not enabled when last told, so that each is told once.
    disabled: Mutex<BTreeSet<String>>,
}

impl Reporter {
    pub fn new(tenant: Tenant, metrics: Arc<Metrics>, health: Health) -> Reporter {
        Reporter { tenant, metrics, health, disabled: Mutex::default() }
    }

    /// Begins the series of this tenant.
    pub fn begin(&self, content_types: &[String]) {
        self.metrics.begin(&[("tenant", self.tenant.as_str())]);
        for content_type in content_types {
            self.metrics.begin(&[("tenant", self.tenant.as_str()), ("content_type", content_type)]);
        }
    }

    pub fn problems<'a>(&self, problems: impl Iterator<Item = (Option<&'a str>, &'a str)>) {
        self.health.set(&self.tenant, problems);
    }

    pub fn feeds<'a>(&self, feeds: impl Iterator<Item = &'a Feed>) {
        for feed in feeds {
            let labels = [self.tenant.as_str(), feed.content_type.as_str()];
            self.metrics.poll.content_blobs_pending.with(labels).set_count(feed.pending_count() as u64);
            let next = &self.metrics.poll.content_blob_next_expiration;
            match feed.next_expiration() {
                Some(expires) => next.with(labels).set_time(expires),
                None => next.remove(labels),
            }
        }
    }

    pub fn request(&self, heard: &Heard) {
        let api = if heard.call.what == What::Token { "login" } else { "management" };
        // The service throttles with 403 as well: what it means counts, not the number it chose.
        let is_throttled = matches!(&heard.outcome, Outcome::Answer(answer)
            if answer.status != 200 && understand(answer.status, &answer.body).class == Class::Throttled);
        let status = if is_throttled { Some(429) } else { heard.status };
        let code = status.map_or("none".to_owned(), |status| status.to_string());
        self.metrics.api.requests.with([self.tenant.as_str(), api, &code]).inc();
        self.metrics.api.request_duration.with([api]).observe(heard.duration);
        if let Outcome::Answer(answer) = &heard.outcome
            && let Some(wait) = answer.retry_after
        {
            self.metrics.api.retry_after.with([self.tenant.as_str(), api]).set(wait.as_seconds_f64());
        }
    }

    pub fn note(&self, note: &Note, now: DateTime<Utc>) {
        let tenant = self.tenant.as_str();
        let blobs = |feed: &str, result| self.metrics.poll.content_blobs.with([tenant, feed, result]);
        match note {
            Note::Token { ok } => {
                self.metrics.api.auth_refreshes.with([tenant, if *ok { "ok" } else { "failed" }]).inc();
            }
            Note::Listed { feed } => self.metrics.poll.last_success.set([tenant, feed], now),
            Note::BlobsListed { feed, count, behind_mark } => {
                blobs(feed, "listed").add(*count);
                if *behind_mark > 0 {
                    tracing::info!(event = "blobs_listed_late", tenant, feed, count = behind_mark);
                }
            }
            Note::BlobFetched { feed, blob, records, created } => {
                blobs(feed, "fetched").inc();
                let age = (now - *created).as_seconds_f64();
                self.metrics.poll.content_blob_age.with([feed]).observe_seconds(age);
                if *records == 0 {
                    tracing::info!(event = "blob_without_records", tenant, feed, blob = shown(blob));
                }
            }
            Note::BlobFailed { feed, blob, error, wait } => {
                blobs(feed, "failed").inc();
                let wait_seconds = wait.num_seconds();
                tracing::warn!(event = "blob_failed", tenant, feed, blob = shown(blob), error, wait_seconds);
            }
            Note::BlobLost { feed, blob, expired, reason } => {
                blobs(feed, if *expired { "expired" } else { "gone" }).inc();
                tracing::error!(event = "blob_lost", tenant, feed, blob = shown(blob), expired, reason);
            }
            Note::Subscription { feed, enabled } => self.subscription(feed, *enabled),
            note => self.say(note),
        }
    }

    /// Notes that are for people only.
    fn say(&self, note: &Note) {
        let tenant = self.tenant.as_str();
        match note {
            Note::ForeignAddress { feed, kind } => {
                tracing::error!(event = "foreign_address_refused", tenant, feed, kind);
            }
            Note::ClockOff { ahead_seconds } => tracing::error!(event = "clock_off", tenant, ahead_seconds),
            Note::ListedLate { feed, count } => {
                tracing::info!(event = "blobs_found_by_sweep", tenant, feed, count);
            }
            Note::Throttled { wait } => {
                tracing::warn!(event = "throttled", tenant, wait_seconds = wait.num_seconds());
            }
            Note::Trouble { feed, error, wait } => {
                tracing::warn!(event = "request_failed", tenant, feed, error, wait_seconds = wait.num_seconds());
            }
            Note::Stopped { feed, reason } => tracing::error!(event = "polling_stopped", tenant, feed, reason),
            Note::SubscriptionStarted { feed } => tracing::info!(event = "subscription_started", tenant, feed),
            _ => {}
        }
    }

    fn subscription(&self, feed: &str, enabled: bool) {
        let tenant = self.tenant.as_str();
        self.metrics.api.subscription_enabled.with([tenant, feed]).set(f64::from(u8::from(enabled)));
        let mut disabled = self.disabled.lock().unwrap_or_else(PoisonError::into_inner);
        if enabled {
            disabled.remove(feed);
        } else if disabled.insert(feed.to_owned()) {
            tracing::warn!(event = "subscription_not_enabled", tenant, feed);
        }
    }
}
