//! What late matches need, read back from the archive.
//!
//! One look at the archive serves all late matches of a step: the days they ask for are read once, each record is judged
//! by the rules it is asked for, and of the matches only those are kept that a shard asked for. Memory is theirs
//! ([`MEMBERS_MAX`]), and one batch of records.
//!
//! An archive that does not answer, or lags behind what was forgotten, is an error: the step is done when it answers, never
//! without it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use chrono::{DateTime, NaiveDate, Utc};
use schemas::Event;
use schemas::envelope::{MANAGEMENT_ACTIVITY, Received};
use schemas::history::Snapshot;
use schemas::message::{Match, MatchMessage};
use schemas::tenant::Tenant;

use super::Error;
use crate::matcher::Matcher;
use crate::shard_key;

/// Most members that one look brings back, at about a kilobyte each. Where a step needs more, it looks for half of its
/// shards at a time; a shard that needs more by itself is one whose group could not be held either.
pub(super) const MEMBERS_MAX: usize = 400_000;

/// Stretches of time, both ends inside.
type Stretches = Vec<(DateTime<Utc>, DateTime<Utc>)>;

/// What one shard asks for.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) tenant: Tenant,
    pub(super) shard: u128,
    /// The rules as they were when its matches were made.
    pub(super) matcher: Arc<Matcher>,
    pub(super) spans: Stretches,
}

/// The matches of each shard. None if there are more than `most`.
pub(super) async fn bring(
    snapshot: &dyn Snapshot,
    days: &[(Tenant, NaiveDate)],
    asks: &[Ask],
    most: usize,
) -> Result<Option<HashMap<u128, Vec<Match>>>, Error> {
    let mut asks_of: BTreeMap<&Tenant, Vec<&Ask>> = BTreeMap::new();
    for ask in asks {
        asks_of.entry(&ask.tenant).or_default().push(ask);
    }
    let mut found = Found::default();
    for (tenant, asks) in asks_of {
        let wanted = Arc::new(Wanted::of(&asks));
        let days: Vec<NaiveDate> = days.iter().filter(|(whose, _)| whose == tenant).map(|(_, day)| *day).collect();
        for days in wanted.runs(&days) {
            let mut batches = snapshot.records(tenant, days).await?;
            while let Some(records) = batches.next().await? {
                let wanted = wanted.clone();
                // Judging is work: it is done where it keeps nobody waiting.
                let judged = tokio::task::spawn_blocking(move || found.with(&wanted, records));
                found = judged.await.map_err(|_| Error::Worker)?;
                if found.members > most {
                    return Ok(None);
                }
            }
        }
    }
    Ok(Some(found.of_shard))
}

/// What is looked for among the records of one tenant.
struct Wanted {
    matchers: Vec<Arc<Matcher>>,
    spans: HashMap<u128, Stretches>,
}

impl Wanted {
    fn of(asks: &[&Ask]) -> Wanted {
        let mut matchers: Vec<Arc<Matcher>> = Vec::new();
        for ask in asks {
            if !matchers.iter().any(|known| Arc::ptr_eq(known, &ask.matcher)) {
                matchers.push(ask.matcher.clone());
            }
        }
        Wanted { matchers, spans: asks.iter().map(|ask| (ask.shard, ask.spans.clone())).collect() }
    }

    /// The days that are wanted of those there are, as runs.
    fn runs(&self, days: &[NaiveDate]) -> Vec<(NaiveDate, NaiveDate)> {
        // Most shards ask for the same days.
        let spans: BTreeSet<(NaiveDate, NaiveDate)> =
            self.spans.values().flatten().map(|(start, end)| (start.date_naive(), end.date_naive())).collect();
        let mut runs: Vec<(NaiveDate, NaiveDate)> = Vec::new();
        let mut is_open = false;
        for day in days {
            let is_wanted = spans.iter().any(|(from, until)| from <= day && day <= until);
            match runs.last_mut().filter(|_| is_open && is_wanted) {
                Some(run) => run.1 = *day,
                None if is_wanted => runs.push((*day, *day)),
                None => {}
            }
            is_open = is_wanted;
        }
        runs
    }
}

#[derive(Default)]
struct Found {
    of_shard: HashMap<u128, Vec<Match>>,
    members: usize,
}

impl Found {
    fn with(mut self, wanted: &Wanted, records: Vec<Received>) -> Found {
        let mut messages = Vec::new();
        for mut record in records {
            // The archive does not say who was to be told. What came by a feed was news.
            record.origin.notify = record.origin.source == MANAGEMENT_ACTIVITY;
            let Ok(event) = Event::read(&record) else {
                // It was read when it was admitted, so the archive is damaged, which `verify` names.
                tracing::error!(event = "archived_record_unreadable", blob = record.origin.blob_id);
                continue;
            };
            for matcher in &wanted.matchers {
                matcher.matches(&event, &mut messages);
                for message in messages.drain(..) {
                    let MatchMessage::Match(one) = message else { continue };
                    let Some(rule) = matcher.rules().get(&one.rule_id) else { continue };
                    let shard = shard_key(&one.tenant, rule, &one.shard);
                    let spans = wanted.spans.get(&shard).map_or(&[][..], Vec::as_slice);
                    if spans.iter().any(|(start, end)| *start <= one.event_time && one.event_time <= *end) {
                        self.of_shard.entry(shard).or_default().push(one);
                        self.members += 1;
                    }
                }
            }
        }
        self
    }
}
