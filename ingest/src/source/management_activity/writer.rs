//! The way into the log: every commit carries the lease, so that a process which has lost the tenant writes nothing.

use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use runtime::log::{Lease, Log, LogError, Output, To, Txn};
use runtime::metrics::Metrics;
use schemas::envelope::{Envelope, Mark, Origin};
use schemas::json::key_hash;
use schemas::message::Topic;
use schemas::tenant::Tenant;

use super::effect::Effects;
use crate::ledger::{BlobName, Change};
use crate::record::{Kind, dead_letter, post};
use crate::source::management_activity::SOURCE;

/// Attempts to commit before the poller begins again from the ledger. A full disk takes longer than this to mend.
const COMMIT_ATTEMPTS_MAX: u32 = 5;

/// The first wait between them; it doubles.
const COMMIT_WAIT: Duration = Duration::from_millis(50);

/// Commits for one tenant, for as long as the lease is held.
#[derive(Clone)]
pub struct Writer {
    pub log: Arc<dyn Log>,
    pub metrics: Arc<Metrics>,
    pub tenant: Tenant,
    pub lease: Lease,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("lease", &self.lease).finish_non_exhaustive()
    }
}

impl Writer {
    /// Appends records whose blob is not at its end yet.
    pub async fn append(&self, outputs: Vec<Output>) -> Result<(), LogError> {
        self.commit(Txn { outputs, ..Txn::default() }).await
    }

    /// Commits what the machine wants, together with the last records it speaks of.
    pub async fn apply(&self, effects: &Effects, records: Vec<Output>, received: Origin) -> Result<(), LogError> {
        if effects.is_idle() && records.is_empty() {
            return Ok(());
        }
        let partitions = self.log.partitions();
        let mut txn = Txn { outputs: records, ..Txn::default() };
        for change in &effects.changes {
            txn.state.push(change.state_change(&self.tenant, partitions));
            if let Change::Blob { content_type, blob_id, row: Some(row) } = change {
                txn.outputs.extend(row.told(BlobName { tenant: &self.tenant, source: SOURCE, content_type, blob_id }));
            }
        }
        for entry in &effects.unreadable {
            let reason = "an entry of a listing that names no blob".to_owned();
            let place = format!("listing of {}", entry.content_type);
            txn.outputs.push(post(&dead_letter(&received, place, reason, entry.bytes.clone())));
        }
        // Coverage is a struct of strings and times, which always serialises.
        let of_tenant = To::Key(key_hash(&[self.tenant.as_str()]));
        for coverage in &effects.coverage {
            let value = serde_json::to_vec(coverage).unwrap_or_default();
            txn.outputs.push(Output { topic: Topic::Coverage, to: of_tenant, value });
        }
        // Behind the records: whoever reads the mark has read them.
        for (content_type, since, until) in &effects.marks {
            let (tenant, content_type) = (self.tenant.clone(), content_type.clone());
            let value = Envelope::Mark(Mark { tenant, content_type, since: *since, until: *until }).encode();
            txn.outputs.push(Output { topic: Topic::Records, to: To::Everywhere, value });
        }
        self.commit(txn).await
    }

    async fn commit(&self, mut txn: Txn) -> Result<(), LogError> {
        txn.lease = Some(self.lease.clone());
        let txn = Arc::new(txn);
        let mut wait = COMMIT_WAIT;
        for _ in 1..COMMIT_ATTEMPTS_MAX {
            match self.log.commit_shared(txn.clone()).await {
                // A step that has failed in the storage was rolled back as a whole: it is safe to take it again.
                Err(error) if error.retryable() => {
                    tracing::warn!(event = "commit_failed", tenant = %self.tenant, error = %error);
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                }
                result => return result.map(drop),
            }
        }
        self.log.commit_shared(txn).await.map(drop)
    }

    /// Counts an element as it is read.
    pub fn count(&self, origin: &Origin, kind: &Kind) {
        match kind {
            Kind::Record { event_time, workload } => {
                self.metrics.ingest.received.with([self.tenant.as_str(), SOURCE]).inc();
                // A record without a time says nothing of the delay.
                if *event_time > DateTime::UNIX_EPOCH {
                    let delay = (origin.received - *event_time).as_seconds_f64();
                    self.metrics.poll.event_delivery_delay.with([workload]).observe_seconds(delay);
                }
            }
            Kind::Rejected(reason) => self.metrics.ingest.rejected.with([reason]).inc(),
        }
    }
}
