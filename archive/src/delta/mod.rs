//! A Delta Lake table: Parquet files and a log of which of them count.
//!
//! # The guarantee
//!
//! A commit is one file, `_delta_log/<version>.json`, put only if it is absent. So of two writers one wins and the
//! other learns it; a crash before the put leaves nothing but files that no log names; a crash after it leaves a
//! commit. Each commit carries, as `txn` actions, how far into each topic partition the table has come: the data and the
//! position are one, which is what makes the archive exactly once. A writer whose position is not the one it began
//! from has been overtaken, and must start again from the table.
//!
//! # Why our own
//!
//! The slice of the protocol that is needed (reader version 1, writer version 2) is small and frozen; ARCHITECTURE.md
//! has the trial against the `deltalake` crate. Any Delta reader reads the result.

mod action;

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload};

use action::{Action, CommitInfo, Format, Metadata, Protocol, Remove, TxnAction};
pub use action::{Add, FileStatistics};

use crate::error::Error;
use crate::store::Store;
use crate::table::Table;

/// How many log entries are read at once when a table is opened. Object stores answer in tens of milliseconds each.
const LOG_READS_AT_ONCE: usize = 16;

/// Largest log entry that is read. Ours name at most some thousand files; a damaged or foreign one must not take the memory.
const LOG_ENTRY_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// What a table holds at one version.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The version read last; `None` for a table without commits.
    pub version: Option<u64>,
    /// Live files by path, in path order.
    pub files: BTreeMap<String, Add>,
    /// Files taken out of the table, with the time (milliseconds since 1970): readers of older snapshots may still want them.
    pub removed: HashMap<String, i64>,
    /// How far into each source the table has come: the next offset, by source name.
    pub positions: BTreeMap<String, u64>,
    /// Whether the table has its protocol and schema.
    defined: bool,
}

/// What one commit changes.
#[derive(Debug, Default)]
pub struct Changes {
    pub add: Vec<Add>,
    /// Paths of files to take out.
    pub remove: Vec<String>,
    /// New positions: (source, the position this commit starts from, the next offset).
    pub positions: Vec<(String, u64, u64)>,
}

/// What became of a commit.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Committed,
    /// Another writer has committed meanwhile. Nothing of ours happened; the snapshot is now theirs.
    Overtaken,
}

/// An opened table.
pub struct DeltaTable {
    store: Store,
    table: &'static Table,
    snapshot: Snapshot,
}

impl DeltaTable {
    /// Opens a table at its newest version. A table that does not exist yet is empty; the first commit makes it.
    pub async fn open(store: Store, table: &'static Table) -> Result<DeltaTable, Error> {
        let mut opened = DeltaTable { store, table, snapshot: Snapshot::default() };
        opened.refresh().await?;
        Ok(opened)
    }

    pub fn table(&self) -> &'static Table {
        self.table
    }

    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The store, relative to which the snapshot's paths are under the table's folder.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The path of a file of this table inside the store.
    pub fn location(&self, path: &str) -> Path {
        Path::from_iter([self.table.name].into_iter().chain(path.split('/')))
    }

    /// Reads the commits since the snapshot.
    pub async fn refresh(&mut self) -> Result<(), Error> {
        let from = self.snapshot.version.map_or(0, |version| version + 1);
        let folder = Path::from_iter([self.table.name, "_delta_log"]);
        let listed: Vec<_> = self.store.objects().list(Some(&folder)).try_collect().await?;
        let mut versions: Vec<(u64, Path)> = Vec::new();
        for entry in listed {
            let name = entry.location.filename().unwrap_or_default();
            let Some(version) = name.strip_suffix(".json").and_then(|digits| digits.parse::<u64>().ok()) else {
                continue;
            };
            if version >= from {
                if entry.size > LOG_ENTRY_BYTES_MAX {
                    return Err(Error::damaged(self.table.name, version));
                }
                versions.push((version, entry.location));
            }
        }
        versions.sort_unstable_by_key(|(version, _)| *version);
        let mut entries = futures::stream::iter(versions.into_iter().enumerate().map(|(index, (version, path))| {
            let store = self.store.objects().clone();
            async move {
                // A hole means that the newest entries are not visible yet, or that the log was tampered with.
                let bytes = store.get(&path).await?.bytes().await?;
                Ok::<_, object_store::Error>((from + index as u64 == version, version, bytes))
            }
        }))
        .buffered(LOG_READS_AT_ONCE);
        while let Some((contiguous, version, bytes)) = entries.try_next().await? {
            if !contiguous {
                return Err(Error::damaged(self.table.name, version));
            }
            apply(&mut self.snapshot, version, &bytes).map_err(|()| Error::damaged(self.table.name, version))?;
        }
        Ok(())
    }

    /// Commits, if nobody else has since the snapshot and the positions are still where this commit starts from.
    pub async fn commit(&mut self, changes: Changes, now: DateTime<Utc>) -> Result<Outcome, Error> {
        for (source, from, _) in &changes.positions {
            if self.snapshot.positions.get(source).copied().unwrap_or(0) != *from {
                return Ok(Outcome::Overtaken);
            }
        }
        let version = self.snapshot.version.map_or(0, |version| version + 1);
        let body = self.entry(&changes, now)?;
        let path = Path::from_iter([self.table.name, "_delta_log", &format!("{version:020}.json")]);
        let broken = runtime::failpoint::is_broken("archive-without-put-if-absent");
        let mode = if broken { PutMode::Overwrite } else { PutMode::Create };
        let options = PutOptions { mode, ..PutOptions::default() };
        match self.store.objects().put_opts(&path, PutPayload::from(body.clone()), options).await {
            Ok(_) => {
                self.store.make_durable(vec![path]).await?;
                apply(&mut self.snapshot, version, &body).map_err(|()| Error::damaged(self.table.name, version))?;
                Ok(Outcome::Committed)
            }
            Err(object_store::Error::AlreadyExists { .. }) => {
                self.refresh().await?;
                Ok(Outcome::Overtaken)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes files that left the table, or never entered it, before `before`. Younger ones stay: a reader of an older
    /// snapshot may want them, or a writer may be about to commit them. Returns how many went.
    pub async fn vacuum(&self, before: DateTime<Utc>) -> Result<u64, Error> {
        let folder = Path::from(self.table.name);
        let mut listed = self.store.objects().list(Some(&folder));
        let mut doomed = Vec::new();
        while let Some(entry) = listed.try_next().await? {
            let Some(parts) = entry.location.prefix_match(&folder) else { continue };
            let path = parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/");
            let since = match self.snapshot.removed.get(&path) {
                Some(&millis) => DateTime::from_timestamp_millis(millis).unwrap_or(entry.last_modified),
                None => entry.last_modified,
            };
            if path.ends_with(".parquet") && !self.snapshot.files.contains_key(&path) && since < before {
                doomed.push(entry.location);
            }
        }
        for location in &doomed {
            self.store.objects().delete(location).await?;
        }
        Ok(doomed.len() as u64)
    }

    fn entry(&self, changes: &Changes, now: DateTime<Utc>) -> Result<Bytes, Error> {
        let millis = now.timestamp_millis();
        let mut actions = vec![Action::CommitInfo(CommitInfo::new(millis))];
        if !self.snapshot.defined {
            actions.push(Action::Protocol(Protocol { min_reader_version: 1, min_writer_version: 2 }));
            actions.push(Action::Metadata(self.metadata(millis)));
        }
        for (source, _, next) in &changes.positions {
            // A version is a signed 64-bit number in the protocol; offsets do not come near its end.
            let version = i64::try_from(*next).unwrap_or(i64::MAX);
            actions.push(Action::Txn(TxnAction { app_id: source.clone(), version, last_updated: Some(millis) }));
        }
        actions.extend(changes.add.iter().cloned().map(Action::Add));
        for path in &changes.remove {
            actions.push(Action::Remove(Remove {
                path: path.clone(),
                deletion_timestamp: Some(millis),
                data_change: true,
            }));
        }
        let mut body = Vec::new();
        for action in &actions {
            serde_json::to_writer(&mut body, action)?;
            body.push(b'\n');
        }
        Ok(body.into())
    }

    fn metadata(&self, millis: i64) -> Metadata {
        Metadata {
            id: schemas::json::key_id(&["delta table", self.table.name]),
            name: Some(self.table.name.to_owned()),
            format: Format { provider: "parquet".into(), options: BTreeMap::new() },
            schema_string: self.table.delta_schema().to_string(),
            partition_columns: self.table.partition_columns.iter().map(|&name| name.to_owned()).collect(),
            configuration: BTreeMap::new(),
            created_time: Some(millis),
        }
    }
}

/// Applies one log entry. Actions that this harrier does not know are left alone, as the protocol says for version 1.
fn apply(snapshot: &mut Snapshot, version: u64, entry: &[u8]) -> Result<(), ()> {
    for line in entry.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice(line).map_err(|_| ())? {
            Action::Add(add) => {
                snapshot.removed.remove(&add.path);
                snapshot.files.insert(add.path.clone(), add);
            }
            Action::Remove(remove) => {
                snapshot.files.remove(&remove.path);
                snapshot.removed.insert(remove.path, remove.deletion_timestamp.unwrap_or(0));
            }
            Action::Txn(txn) => {
                snapshot.positions.insert(txn.app_id, u64::try_from(txn.version).map_err(|_| ())?);
            }
            Action::Protocol(protocol) if protocol.min_reader_version > 1 => return Err(()),
            Action::Metadata(_) => snapshot.defined = true,
            Action::Protocol(_) | Action::CommitInfo(_) | Action::Unknown(_) => {}
        }
    }
    snapshot.version = Some(version);
    Ok(())
}

#[cfg(test)]
mod tests;
