//! The ledger: what became of every content blob that a source ever listed, and where each feed stands.
//!
//! Guarantee: a row says `committed` only in the transaction that holds the last of the blob's records, and `gone` or
//! `expired` only together with a row of `coverage`. So the ledger proves that nothing listed was lost, or says where
//! it was. Rows live in [`Store::Ledger`], those of searches in [`Store::Searches`], and are JSON; only the holder of the
//! tenant's lease writes them, which is another one for each of the two.
//!
//! Finished rows are removed once their blob became available more than [`ROW_DAYS_KEPT`] days ago: no listing reaches
//! back further than seven days, so such a blob cannot be listed again. Should it be all the same, its records come
//! twice, and admit removes the second ones. What the ledger forgets the archive keeps: whoever writes a final row says so
//! on the topic of coverage too ([`BlobRow::told`]), in the same transaction.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use runtime::log::{Log, LogError, Output, StateChange, StateRow, Store, To, Topic, partition_of};
use schemas::json::key_hash;
use schemas::message::{Blob, BlobEnd};
use schemas::tenant::Tenant;
use serde::{Deserialize, Serialize};

/// How long the row of a finished blob is kept, in days from when the blob became available: the seven that listings
/// reach back, and one for clocks that disagree.
pub const ROW_DAYS_KEPT: i64 = 8;

/// Rows removed in one transaction at most, so that no commit of records waits long behind it.
pub const PRUNED_ROWS_MAX: usize = 500;

/// Where a feed stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedRow {
    /// Everything that was listed as available before this is in the ledger. A moment of availability, never of events.
    pub cursor: Option<DateTime<Utc>>,
    /// The completeness mark last sent.
    pub mark: Option<DateTime<Utc>>,
    /// From when on the mark speaks: from where on `coverage` had been told when the first was sent.
    #[serde(default)]
    pub since: Option<DateTime<Utc>>,
    /// Up to where `coverage` has been told of this feed.
    pub covered: Option<DateTime<Utc>>,
    /// When a request to start the subscription was last answered: not to be asked again within fifteen minutes.
    pub started: Option<DateTime<Utc>>,
    /// Since when a subscription that harrier has just made may still be without its first blob.
    pub warming_since: Option<DateTime<Utc>>,
    /// The subscription was disabled and starting it has been tried.
    #[serde(default)]
    pub disabled: bool,
    /// When everything that the service still lists was last listed once more.
    #[serde(default)]
    pub swept: Option<DateTime<Utc>>,
}

/// How much a feed has brought, and what was told of it: see the watch over the feeds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRow {
    /// Records by the hour in which they became available, in hours since 1970.
    pub hours: BTreeMap<i64, u32>,
    /// Alarms that hold and have been told: operation, and since when it holds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub told: BTreeMap<String, DateTime<Utc>>,
}

/// What is known of one content blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRow {
    /// When it became available (`contentCreated`).
    pub created: DateTime<Utc>,
    /// When it goes away (`contentExpiration`).
    pub expires: Option<DateTime<Utc>>,
    /// Where it is; kept only until it is finished.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uri: String,
    #[serde(flatten)]
    pub state: BlobState,
}

/// How far a blob is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum BlobState {
    /// To be fetched.
    Listed,
    /// To be fetched again.
    Retrying(Retrying),
    /// All its records are in the log.
    Committed {
        records: u64,
        /// Elements that were no records: in the dead letters.
        rejected: u64,
        bytes: u64,
        /// Of the body as received, in hex.
        sha256: String,
        at: DateTime<Utc>,
        /// Time of its oldest record: how long Microsoft took is told from it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        oldest_event: Option<DateTime<Utc>>,
    },
    /// The service does not have it.
    Gone { reason: String, at: DateTime<Utc> },
    /// It was there and could not be fetched within its seven days.
    Expired { at: DateTime<Utc> },
}

/// A blob that could not be fetched so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retrying {
    pub attempts: u32,
    pub first_failure: DateTime<Utc>,
    pub next_try: DateTime<Utc>,
    pub last_error: String,
    /// It has failed for so long that the completeness mark no longer waits for it; `coverage` says so.
    pub is_gap: bool,
}

impl BlobState {
    /// Whether nothing more is to be done.
    pub fn is_final(&self) -> bool {
        matches!(self, BlobState::Committed { .. } | BlobState::Gone { .. } | BlobState::Expired { .. })
    }
}

/// Who brought a blob, and what records call it.
#[derive(Clone, Copy, Debug)]
pub struct BlobName<'a> {
    pub tenant: &'a Tenant,
    pub source: &'a str,
    pub content_type: &'a str,
    pub blob_id: &'a str,
}

impl BlobRow {
    /// What the archive is told of a blob that is finished; nothing of others.
    pub fn told(&self, name: BlobName<'_>) -> Option<Output> {
        let (finished, end) = match &self.state {
            BlobState::Listed | BlobState::Retrying(_) => return None,
            BlobState::Committed { records, rejected, bytes, sha256, at, .. } => {
                let (records, rejected, bytes) = (*records, *rejected, *bytes);
                (*at, BlobEnd::Taken { records, rejected, bytes, sha256: sha256.clone() })
            }
            BlobState::Gone { reason, at } => (*at, BlobEnd::Gone { reason: reason.clone() }),
            BlobState::Expired { at } => (*at, BlobEnd::Expired),
        };
        let blob = Blob {
            tenant: name.tenant.clone(),
            source: name.source.to_owned(),
            content_type: name.content_type.to_owned(),
            blob_id: name.blob_id.to_owned(),
            created: self.created,
            finished,
            end,
        };
        // A struct of strings, numbers and times always serialises.
        let value = serde_json::to_vec(&blob).unwrap_or_default();
        Some(Output { topic: Topic::Coverage, to: To::Key(key_hash(&[name.tenant.as_str()])), value })
    }
}

/// A row that is to be written, or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Feed(String, FeedRow),
    History(String, HistoryRow),
    Blob {
        content_type: String,
        blob_id: String,
        row: Option<BlobRow>,
    },
    /// A window of the audit search.
    Search {
        window: String,
        row: Option<BlobRow>,
    },
}

/// All rows of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    pub feeds: BTreeMap<String, FeedRow>,
    pub histories: BTreeMap<String, HistoryRow>,
    /// By content type, then blob id.
    pub blobs: BTreeMap<String, BTreeMap<String, BlobRow>>,
}

/// Why the ledger could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    #[error(transparent)]
    Log(#[from] LogError),
    /// Damage, or a ledger from another version. Retrying does not help.
    #[error("a row of tenant {tenant}'s ledger cannot be read: {source}")]
    Row { tenant: Tenant, source: serde_json::Error },
}

const FEED: u8 = b'f';
const BLOB: u8 = b'b';
const HISTORY: u8 = b'h';

impl Ledger {
    /// Reads a tenant's ledger, as the holder of its lease.
    pub async fn read(log: &dyn Log, tenant: &Tenant) -> Result<Ledger, LedgerError> {
        let rows = log.scan(Store::Ledger, partition(tenant, log.partitions()), &prefix(tenant)).await?;
        Ledger::of_rows(tenant, &rows)
    }

    /// Looks at the ledgers of tenants, whoever polls them; in the order of the tenants.
    pub async fn look(log: &dyn Log, tenants: &[&Tenant]) -> Result<Vec<Ledger>, LedgerError> {
        let rows = log.look(Store::Ledger).await?;
        let ledger = |tenant: &&Tenant| {
            let prefix = prefix(tenant);
            let begin = rows.partition_point(|(key, _)| *key < prefix);
            let (_, rows) = rows.split_at(begin);
            let end = rows.partition_point(|(key, _)| key.starts_with(&prefix));
            Ledger::of_rows(tenant, rows.get(..end).unwrap_or_default())
        };
        tenants.iter().map(ledger).collect()
    }

    fn of_rows(tenant: &Tenant, rows: &[StateRow]) -> Result<Ledger, LedgerError> {
        let mut ledger = Ledger::default();
        let prefix = prefix(tenant);
        let damaged = |source| LedgerError::Row { tenant: tenant.clone(), source };
        for (key, value) in rows {
            let Some((content_type, kind, id)) = key.get(prefix.len()..).and_then(split_key) else { continue };
            if kind == FEED {
                ledger.feeds.insert(content_type, serde_json::from_slice(value).map_err(damaged)?);
            } else if kind == HISTORY {
                ledger.histories.insert(content_type, serde_json::from_slice(value).map_err(damaged)?);
            } else {
                let row = serde_json::from_slice(value).map_err(damaged)?;
                ledger.blobs.entry(content_type).or_default().insert(id, row);
            }
        }
        Ok(ledger)
    }
}

/// Reads the windows of a tenant's searches, by their ids.
pub async fn searches(log: &dyn Log, tenant: &Tenant) -> Result<BTreeMap<String, BlobRow>, LedgerError> {
    let prefix = prefix(tenant);
    let rows = log.scan(Store::Searches, partition(tenant, log.partitions()), &prefix).await?;
    let row = |(key, value): (Vec<u8>, Vec<u8>)| {
        let window = String::from_utf8_lossy(key.get(prefix.len()..).unwrap_or_default()).into_owned();
        let row = serde_json::from_slice(&value);
        Ok((window, row.map_err(|source| LedgerError::Row { tenant: tenant.clone(), source })?))
    };
    rows.into_iter().map(row).collect()
}

/// The partition that a tenant's rows belong to.
pub fn partition(tenant: &Tenant, partitions: u32) -> u32 {
    partition_of(key_hash(&[tenant.as_str()]), partitions)
}

/// The number of a tenant's leases. It follows from the tenant's name, so that processes agree on it whatever the order
/// of their configurations. 31 bits: two of a thousand tenants share a number with a probability of one in four
/// thousand, and then wait for one another if they are polled by different processes.
pub(crate) fn lease_number(tenant: &Tenant) -> u32 {
    (key_hash(&[tenant.as_str()]) & 0x7fff_ffff) as u32
}

impl Change {
    /// The change as the log takes it.
    pub fn state_change(&self, tenant: &Tenant, partitions: u32) -> StateChange {
        let mut key = prefix(tenant);
        let mut entry = |content_type: &str, kind: u8, id: &str| {
            key.extend_from_slice(content_type.as_bytes());
            key.extend_from_slice(&[0, kind]);
            key.extend_from_slice(id.as_bytes());
        };
        // Rows are structs of strings, numbers and times: they always serialise.
        let (store, value) = match self {
            Change::Feed(content_type, row) => {
                entry(content_type, FEED, "");
                (Store::Ledger, serde_json::to_vec(row).ok())
            }
            Change::History(content_type, row) => {
                entry(content_type, HISTORY, "");
                (Store::Ledger, serde_json::to_vec(row).ok())
            }
            Change::Blob { content_type, blob_id, row } => {
                entry(content_type, BLOB, blob_id);
                (Store::Ledger, row.as_ref().and_then(|row| serde_json::to_vec(row).ok()))
            }
            Change::Search { window, row } => {
                key.extend_from_slice(window.as_bytes());
                (Store::Searches, row.as_ref().and_then(|row| serde_json::to_vec(row).ok()))
            }
        };
        StateChange { store, partition: partition(tenant, partitions), key, value }
    }
}

/// Neither tenant names nor content types hold a zero byte, so no key is the beginning of another tenant's.
fn prefix(tenant: &Tenant) -> Vec<u8> {
    let mut key = tenant.as_str().as_bytes().to_vec();
    key.push(0);
    key
}

fn split_key(rest: &[u8]) -> Option<(String, u8, String)> {
    let end = memchr::memchr(0, rest)?;
    let (kind, id) = rest.get(end + 1..)?.split_first()?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    Some((text(&rest[..end])?, *kind, text(id)?))
}

#[cfg(test)]
mod tests {
    use runtime::log::Txn;
    use runtime::log::embedded::Embedded;

    use super::*;

    #[tokio::test]
    async fn rows_come_back_to_their_tenant_alone_and_can_be_removed() {
        let folder = tempfile::tempdir().unwrap();
        let log = Embedded::open(&folder.path().join("log"), 3).unwrap();
        let created = "2026-11-22T10:00:00.123Z".parse().unwrap();
        let (one, other): (Tenant, Tenant) = ("a".parse().unwrap(), "a0".parse().unwrap());
        let feed = FeedRow { cursor: Some(created), ..FeedRow::default() };
        let retrying = Retrying {
            attempts: 2,
            first_failure: created,
            next_try: created,
            last_error: "timeout".into(),
            is_gap: false,
        };
        let row = BlobRow { created, expires: None, uri: "https://x/".into(), state: BlobState::Retrying(retrying) };
        let blob = |row| Change::Blob { content_type: "Audit.Exchange".into(), blob_id: "1$2".into(), row };
        let write = |tenant: &Tenant, changes: &[Change]| Txn {
            state: changes.iter().map(|change| change.state_change(tenant, 3)).collect(),
            ..Txn::default()
        };
        let changes = [Change::Feed("Audit.Exchange".into(), feed.clone()), blob(Some(row.clone()))];
        log.commit(write(&one, &changes)).await.unwrap();
        let ledger = Ledger::read(&log, &one).await.unwrap();
        assert_eq!(ledger.feeds["Audit.Exchange"], feed);
        assert_eq!(ledger.blobs["Audit.Exchange"]["1$2"], row);
        assert_eq!(Ledger::read(&log, &other).await.unwrap(), Ledger::default());
        log.commit(write(&one, &[blob(None)])).await.unwrap();
        assert!(Ledger::read(&log, &one).await.unwrap().blobs.is_empty());
    }
}
