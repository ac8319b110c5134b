//! What can be had of a fake tenant, and what cannot: the measure of a reader.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use crate::service::{Service, locked};

/// What a reader that misses nothing has in the end. With subscriptions that are disabled for a while it grows with time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Truth {
    /// Blobs that can be fetched.
    pub blobs: u64,
    /// The same blobs by id, with the ids of their records.
    pub holdings: BTreeMap<String, Vec<String>>,
    /// Different records in them. They have no names here where they are made on the fly.
    pub record_count: u64,
    /// The ids of these records.
    pub records: BTreeSet<String>,
    /// The ids of records that are in no blob that can be fetched.
    pub unrecoverable: BTreeSet<String>,
    /// Blobs that are listed and cannot be fetched.
    pub lost_blobs: Vec<LostBlob>,
    /// Elements that are no records, in blobs that can be fetched and in listings so far.
    pub malformed: u64,
}

/// A blob that cannot be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostBlob {
    pub id: String,
    pub content_type: &'static str,
    pub created: DateTime<Utc>,
    /// Whether it is ever listed. One that is not was missed while the subscription was disabled.
    pub is_listed: bool,
    pub reason: &'static str,
}

impl Service {
    pub(crate) fn truth(&self) -> Truth {
        let subscriptions = locked(&self.subscriptions).clone();
        let mut truth = Truth { malformed: self.counters.malformed_entries(), ..Truth::default() };
        let (mut had, mut lost) = (BTreeSet::new(), BTreeSet::new());
        let id = |place: &usize| self.world.records.get(*place).map(|record| record.id.clone());
        for blob in self.shelf.blobs() {
            let misses = subscriptions.get(blob.content_type).is_some_and(|one| one.misses(blob.created));
            let reason = match self.lost(blob) {
                _ if misses => Some("not listed: the subscription was disabled"),
                Some(refusal) => Some(refusal.code()),
                None => None,
            };
            if let Some(reason) = reason {
                let (id, content_type, created) = (blob.id.clone(), blob.content_type, blob.created);
                truth.lost_blobs.push(LostBlob { id, content_type, created, is_listed: !misses, reason });
                lost.extend(blob.records());
            } else {
                truth.blobs += 1;
                truth.holdings.insert(blob.id.clone(), blob.records().iter().filter_map(id).collect());
                truth.malformed += u64::from(self.malformed(blob).is_some());
                truth.record_count += blob.count();
                had.extend(blob.records());
            }
        }
        truth.unrecoverable = lost.difference(&had).filter_map(id).collect();
        truth.records = had.iter().filter_map(id).collect();
        if self.templates.is_none() {
            truth.record_count = truth.records.len() as u64;
        }
        truth
    }
}
