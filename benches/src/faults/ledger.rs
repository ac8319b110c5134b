//! The ledger after a run: whether every blob was fetched, and its records committed once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ingest::ledger::{BlobState, Ledger};
use runtime::log::{Consumer, Lease, Log, ReadLimit, Topic};
use schemas::envelope::Envelope;
use schemas::json::key_hash;
use schemas::tenant::Tenant;

/// How long the last holder of the tenant's lease may be taken for alive.
const LEASE_WITHIN: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, Default)]
pub struct Blobs {
    pub committed: u64,
    /// Listed, and not committed.
    pub open: u64,
    /// Of these, those that cannot be had and are said to be so.
    pub lost: u64,
    /// Records in the log beyond those that the ledger knows of, or fewer.
    pub surplus: i64,
}

/// Reads the ledger and counts what lies in `records`. Nobody else may work on the log.
pub async fn read(log: Arc<dyn Log>, tenant: &Tenant) -> anyhow::Result<Blobs> {
    let slot = (key_hash(&[tenant.as_str()]) & 0x7fff_ffff) as u32;
    let lease = Lease { consumer: Consumer::Poll, partition: slot, owner: "faults".to_owned() };
    let began = Instant::now();
    while !log.acquire(&lease, LEASE_WITHIN).await? {
        anyhow::ensure!(began.elapsed() < LEASE_WITHIN, "somebody still holds the lease of the tenant");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let ledger = Ledger::read(&*log, tenant).await?;
    let mut blobs = Blobs::default();
    for row in ledger.blobs.values().flat_map(|blobs| blobs.values()) {
        match &row.state {
            BlobState::Committed { records, .. } => {
                blobs.committed += 1;
                blobs.surplus -= *records as i64;
            }
            state => {
                blobs.open += 1;
                blobs.lost += u64::from(state.is_final());
            }
        }
    }
    for partition in 0..log.partitions() {
        let mut from = 0;
        loop {
            let messages = log.read(Topic::Records, partition, from, ReadLimit::default()).await?;
            let Some(last) = messages.last() else { break };
            from = last.offset + 1;
            for message in &messages {
                blobs.surplus += i64::from(matches!(Envelope::decode(&message.value)?, Envelope::Record(_)));
            }
        }
    }
    log.release(&lease).await?;
    Ok(blobs)
}
