//! The heads of the tables, told once a day: whoever keeps them elsewhere can tell an archive that was brought back to an
//! older state from one that is whole.
//!
//! # The guarantee
//!
//! On every UTC day on which this runs and the archive has a commit, one message of the findings topic names the newest
//! commit of every table. It is in the log before anything else happens to it, so whoever delivers it loses none. Whoever
//! runs it again on the same day, or beside another, says the day again: the reader knows it.

use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveDate;
use runtime::clock::Clock;
use runtime::log::{Log, Output, To, Topic, Txn};
use runtime::shutdown::Shutdown;
use schemas::message::{ArchiveHead, ArchiveHeads, FindingMessage};

use crate::delta::DeltaTable;
use crate::error::Error;
use crate::store::Store;
use crate::table::TABLES;

/// How often to look whether another day has begun, or whether an archive that was empty still is.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// Tells the heads of each day, until the end is asked for.
pub async fn run(log: Arc<dyn Log>, store: Store, clock: Clock, shutdown: Shutdown) -> Result<(), Error> {
    let mut told: Option<NaiveDate> = None;
    loop {
        let today = clock.now().date_naive();
        if told != Some(today) {
            match tell(&*log, &store, &clock).await {
                Ok(true) => told = Some(today),
                Ok(false) => {}
                Err(error) if error.retryable() => {
                    tracing::warn!(event = "archive_heads_retry", error = %error);
                }
                Err(error) => return Err(error),
            }
        }
        if !shutdown.sleep(LOOK_INTERVAL).await {
            return Ok(());
        }
    }
}

/// Puts the heads into the log. False if there are none yet.
async fn tell(log: &dyn Log, store: &Store, clock: &Clock) -> Result<bool, Error> {
    let heads = heads(store, clock).await?;
    if heads.heads.is_empty() {
        return Ok(false);
    }
    let value = serde_json::to_vec(&FindingMessage::ArchiveHeads(heads))?;
    let outputs = vec![Output { topic: Topic::Findings, to: To::Partition(0), value }];
    log.commit(Txn { outputs, ..Txn::default() }).await?;
    Ok(true)
}

/// The newest commit of every table that has one.
pub async fn heads(store: &Store, clock: &Clock) -> Result<ArchiveHeads, Error> {
    let taken = clock.now();
    let mut heads = Vec::new();
    for &table in TABLES {
        let delta = DeltaTable::open(store.clone(), table).await?;
        if let (Some(version), Some(head)) = (delta.snapshot().version, delta.head()) {
            let (table, head) = (table.name.to_owned(), head.to_owned());
            heads.push(ArchiveHead { table, version, commits: version + 1, head });
        }
    }
    Ok(ArchiveHeads { taken, public_key: store.signer().map(|signer| signer.public_key().fingerprint()), heads })
}
