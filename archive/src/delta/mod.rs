//! A Delta Lake table: Parquet files and a log of which of them count.
//!
//! # The guarantee
//!
//! A commit is one file, `_delta_log/<version>.json`, put only if it is absent. So of two writers one wins and the
//! other learns it; a crash before the put leaves nothing but files that no log names; a crash after it leaves a
//! commit. Each commit carries, as `txn` actions, how far into each topic partition the table has come: the data and the
//! position are one, which is what makes the archive exactly once. A writer whose position is not the one it began
//! from has been overtaken, and must start again from the table; so has one that wants to take out a file which is gone
//! already. Whoever only came second tries again behind the other: flushing and compacting do not hinder one another.
//!
//! Each commit says what it does in a signed statement that names the one before ([`statement`]).
//!
//! Every [`CHECKPOINT_COMMITS`] commits the state is written down whole ([`checkpoint`]): opening a table costs its
//! files and the commits since, however long its history is. Old commits are deleted once what they say is copied
//! ([`cleaning`]).
//!
//! # Why our own
//!
//! The slice of the protocol that is needed (reader version 1, writer version 2) is small and frozen; ARCHITECTURE.md
//! has the trial against the `deltalake` crate. Any Delta reader reads the result.

mod action;
mod checkpoint;
mod cleaning;
pub(crate) mod statement;

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use schemas::tenant::Tenant;

use action::{Action, Format, Metadata, Protocol, Remove, TxnAction};
pub use action::{Add, FileStatistics};
pub(crate) use action::{CONTENT_TAG, Proof, SHA256_TAG};
pub(crate) use checkpoint::{Hint, PROOF_FOLDER};
pub(crate) use cleaning::{CHECKPOINT_ENDING, COPY_ENDING, copy_name, version_of};
pub use cleaning::{COPY_COMMITS, Cleaned};
pub use statement::Erasure;
use statement::{COMMIT_SCHEMA, CommitStatement, FileStatement, PositionStatement};

use crate::error::Error;
use crate::store::Store;
use crate::table::Table;

/// How many log entries are read at once when a table is opened. Object stores answer in tens of milliseconds each.
const LOG_READS_AT_ONCE: u64 = 16;

/// Where the log of a table lies, below the table's folder.
pub(crate) const LOG_FOLDER: &str = "_delta_log";

/// What a reader and a writer of our tables must know.
const PROTOCOL: Protocol = Protocol { min_reader_version: 1, min_writer_version: 2 };

/// Largest log entry that is read. Ours name at most some thousand files; a damaged or foreign one must not take the memory.
const LOG_ENTRY_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// The state is written down whole after so many commits: what a reader has to read besides, and what a table of a
/// hundred thousand files costs a writer again and again, meet about here.
const CHECKPOINT_COMMITS: u64 = 100;

/// How often a commit is tried behind those of others. Two write beside one another; ten times in a row is no accident.
const COMMIT_TRIES_MAX: usize = 10;

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
    /// The table's schema, as it was last defined.
    metadata: Option<Metadata>,
    /// Hash of the newest commit's statement, which the next one names.
    head: Option<String>,
}

impl Snapshot {
    /// Whether what these changes rest on still holds.
    fn allows(&self, changes: &Changes) -> bool {
        let stands = |(source, from, _): &(String, u64, u64)| self.positions.get(source).copied().unwrap_or(0) == *from;
        changes.positions.iter().all(stands) && changes.remove.iter().all(|path| self.files.contains_key(path))
    }
}

/// What a commit is there for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Operation {
    /// Rows come, or are replaced by newer ones.
    #[default]
    Write,
    /// The same rows in other files.
    Optimize,
    /// Rows past their time go.
    Delete,
    /// Rows of a person go.
    Erase,
}

impl Operation {
    /// The name that other readers of Delta tables know it by.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Write => "WRITE",
            Operation::Optimize => "OPTIMIZE",
            Operation::Delete => "DELETE",
            Operation::Erase => "ERASE",
        }
    }
}

/// What one commit changes.
#[derive(Debug, Default)]
pub struct Changes {
    pub operation: Operation,
    pub add: Vec<Add>,
    /// Paths of files to take out.
    pub remove: Vec<String>,
    /// New positions: (source, the position this commit starts from, the next offset).
    pub positions: Vec<(String, u64, u64)>,
    /// What is said of rows that go for good.
    pub erasure: Option<Erasure>,
}

/// What became of a commit.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Committed,
    /// Another writer has done this already, or has changed what it rests on. Nothing of ours happened; the snapshot is
    /// now theirs.
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

    /// Hash of the newest commit's statement: with a copy of it elsewhere nobody can bring the table back to an older state
    /// unseen.
    pub fn head(&self) -> Option<&str> {
        self.snapshot.head.as_deref()
    }

    /// Reads the commits since the snapshot.
    pub async fn refresh(&mut self) -> Result<(), Error> {
        if let Some(version) = self.snapshot.version {
            let followed = self.follow(version + 1, 1).await;
            // What is not there is the end of the log, unless it was there: then it was copied before it was deleted.
            let next = self.snapshot.version.map_or(0, |version| version + 1);
            if !self.is_copied(next).await? {
                return followed;
            }
            self.snapshot = Snapshot::default();
        }
        if let Some(snapshot) = checkpoint::newest(self).await? {
            return self.follow_from(snapshot).await;
        }
        let followed = self.follow(0, LOG_READS_AT_ONCE).await;
        if matches!(followed, Ok(()) if self.snapshot.version.is_some()) || !self.has_log().await? {
            return followed;
        }
        // A log that was cleaned and has lost its hint; or one that was made this moment, or has lost its beginning: it is
        // not an empty table.
        for version in self.checkpoints().await? {
            if let Some(snapshot) = checkpoint::read(self, version).await? {
                return self.follow_from(snapshot).await;
            }
        }
        followed?;
        self.follow(0, LOG_READS_AT_ONCE).await?;
        self.snapshot.version.map(drop).ok_or_else(|| Error::damaged(self.table.name, 0))
    }

    /// Goes on from the state at a checkpoint.
    async fn follow_from(&mut self, snapshot: Snapshot) -> Result<(), Error> {
        let next = snapshot.version.map_or(0, |version| version + 1);
        self.snapshot = snapshot;
        self.follow(next, LOG_READS_AT_ONCE).await
    }

    /// Reads entries from this version on, some at once, to the first that is not there.
    async fn follow(&mut self, mut next: u64, mut at_once: u64) -> Result<(), Error> {
        loop {
            let reads = (next..next + at_once).map(|version| self.read_entry(version));
            let entries = futures::future::try_join_all(reads).await?;
            let holds_later = entries.iter().rposition(Option::is_some);
            for (index, entry) in entries.into_iter().enumerate() {
                let entry = match entry {
                    // One that came while the others were read; or else a hole: somebody has taken it away.
                    None if holds_later.is_some_and(|last| index < last) => self.read_entry(next).await?,
                    entry => entry,
                };
                let Some(bytes) = entry else {
                    return match holds_later {
                        Some(last) if index < last => Err(Error::damaged(self.table.name, next)),
                        _ => Ok(()),
                    };
                };
                apply(&mut self.snapshot, next, &bytes).map_err(|()| Error::damaged(self.table.name, next))?;
                next += 1;
            }
            at_once = LOG_READS_AT_ONCE;
        }
    }

    /// The entry of a version, if there is one.
    async fn read_entry(&self, version: u64) -> Result<Option<Bytes>, Error> {
        match self.store.objects().get(&self.entry_path(version)).await {
            Ok(found) if found.meta.size > LOG_ENTRY_BYTES_MAX => Err(Error::damaged(self.table.name, version)),
            Ok(found) => Ok(Some(found.bytes().await?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn has_log(&self) -> Result<bool, Error> {
        let folder = Path::from_iter([self.table.name, LOG_FOLDER]);
        Ok(self.store.objects().list(Some(&folder)).try_next().await?.is_some())
    }

    fn entry_path(&self, version: u64) -> Path {
        Path::from_iter([self.table.name, LOG_FOLDER, &format!("{version:020}.json")])
    }

    /// Commits, if the positions are still where this commit starts from and the files that it takes out are there.
    pub async fn commit(&mut self, changes: Changes, now: DateTime<Utc>) -> Result<Outcome, Error> {
        self.store.check().await?;
        for _ in 0..COMMIT_TRIES_MAX {
            if !self.snapshot.allows(&changes) {
                return Ok(Outcome::Overtaken);
            }
            let version = self.snapshot.version.map_or(0, |version| version + 1);
            let body = self.entry(version, &changes, now)?;
            let path = self.entry_path(version);
            let put = self.store.objects().put_opts(&path, PutPayload::from(body.clone()), Store::commit_options());
            let is_ours = match put.await {
                Ok(_) => true,
                // A request is sent again where its answer was lost, and then finds what it has put there itself.
                Err(object_store::Error::AlreadyExists { .. }) => {
                    self.read_entry(version).await?.as_ref() == Some(&body)
                }
                Err(error) => return Err(error.into()),
            };
            if !is_ours {
                self.refresh().await?;
                continue;
            }
            if self.is_copied(version).await? {
                // The log was cleaned meanwhile, this version with it: nobody reads what was put there.
                self.store.objects().delete(&path).await?;
                self.snapshot = Snapshot::default();
                self.refresh().await?;
                continue;
            }
            self.store.make_durable(vec![path]).await?;
            apply(&mut self.snapshot, version, &body).map_err(|()| Error::damaged(self.table.name, version))?;
            if version > 0 && version.is_multiple_of(CHECKPOINT_COMMITS) {
                self.write_checkpoint(now).await;
            }
            return Ok(Outcome::Committed);
        }
        Ok(Outcome::Overtaken)
    }

    /// A checkpoint saves work and decides nothing: the commit stands without it.
    async fn write_checkpoint(&self, now: DateTime<Utc>) {
        if let Err(error) = checkpoint::write(self, now).await {
            tracing::warn!(event = "archive_checkpoint", table = self.table.name, error = %error);
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
            // Checkpoints are Parquet as well, and no commit names them.
            let is_of_log = path.starts_with(LOG_FOLDER);
            if path.ends_with(".parquet") && !is_of_log && !self.snapshot.files.contains_key(&path) && since < before {
                doomed.push(entry.location);
            }
        }
        for location in &doomed {
            self.store.objects().delete(location).await?;
        }
        Ok(doomed.len() as u64)
    }

    /// Deletes every file of a tenant that left the table by a commit, however lately. Files that no commit names stay: a
    /// writer may be about to commit them. Returns how many went.
    pub async fn purge(&self, tenant: &Tenant) -> Result<u64, Error> {
        let folder = format!("tenant={tenant}/");
        let mut gone = 0;
        for path in self.snapshot.removed.keys().filter(|path| path.starts_with(&folder)) {
            match self.store.objects().delete(&self.location(path)).await {
                Ok(()) => gone += 1,
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(gone)
    }

    fn entry(&self, version: u64, changes: &Changes, now: DateTime<Utc>) -> Result<Bytes, Error> {
        let actions = self.actions(changes, now.timestamp_millis());
        let lines: Vec<Vec<u8>> = actions.iter().map(serde_json::to_vec).collect::<Result<_, _>>()?;
        let statement = CommitStatement {
            schema: COMMIT_SCHEMA.to_owned(),
            table: self.table.name.to_owned(),
            version,
            previous: self.snapshot.head.clone(),
            timestamp: now.timestamp_millis(),
            operation: changes.operation.as_str().to_owned(),
            engine: concat!("harrier/", env!("CARGO_PKG_VERSION")).to_owned(),
            public_key: self.store.signer().map(|signer| signer.public_key().to_hex()),
            add: changes.add.iter().filter_map(FileStatement::of).collect(),
            remove: changes.remove.clone(),
            positions: changes
                .positions
                .iter()
                .map(|(source, from, next)| PositionStatement { source: source.clone(), from: *from, next: *next })
                .collect(),
            erasure: changes.erasure.clone(),
            lines: lines.iter().map(|line| statement::sha256(line)).collect(),
        };
        let mut body = statement::first_line(&statement, statement::signed(&statement, &self.store)?)?;
        body.push(b'\n');
        for line in lines {
            body.extend(line);
            body.push(b'\n');
        }
        Ok(body.into())
    }

    fn actions(&self, changes: &Changes, millis: i64) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.snapshot.metadata.is_none() {
            actions.push(Action::Protocol(PROTOCOL));
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
                data_change: changes.operation != Operation::Optimize,
            }));
        }
        actions
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

/// Applies one log entry.
fn apply(snapshot: &mut Snapshot, version: u64, entry: &[u8]) -> Result<(), ()> {
    for line in entry.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        apply_action(snapshot, serde_json::from_slice(line).map_err(|_| ())?)?;
    }
    snapshot.version = Some(version);
    Ok(())
}

/// Applies one action. Those that this harrier does not know are left alone, as the protocol says for version 1.
fn apply_action(snapshot: &mut Snapshot, action: Action) -> Result<(), ()> {
    match action {
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
        Action::Protocol(protocol) if protocol.min_reader_version > PROTOCOL.min_reader_version => return Err(()),
        Action::Metadata(metadata) => snapshot.metadata = Some(metadata),
        Action::CommitInfo(info) => snapshot.head = info.proof.map(|proof| statement::hash(&proof.statement)),
        Action::Protocol(_) | Action::Unknown(_) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests;
