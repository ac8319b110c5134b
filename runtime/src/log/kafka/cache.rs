//! A copy of the state that this process owns, made from the changelog topics.
//!
//! An SQLite file for each store and partition, in a folder of this process alone: admit remembers every record for as
//! long as the archive keeps it, 32 bytes each, and that is more than memory holds. The file is deleted when the
//! partition goes and made again when it comes, so it is written without any care for crashes.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, params};

use crate::log::{LogError, StateRow, Store};

/// Rows put in by one transaction while a changelog is read.
const ROWS_AT_ONCE: usize = 10_000;

/// Pages held by each of the files, of which a large log has dozens; the system's own cache holds what is used.
const CACHE_KIBIBYTES: i32 = 4_096;

/// The folder of one process, locked for as long as it lives.
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes a folder for this process, and deletes those of processes that are gone.
    pub(super) fn open(parent: &Path) -> std::io::Result<Folder> {
        std::fs::create_dir_all(parent)?;
        for entry in std::fs::read_dir(parent)? {
            let path = entry?.path();
            // Who is there holds the lock. A folder without one is being made or deleted by somebody.
            if let Ok(lock) = File::open(path.join("lock"))
                && lock.try_lock().is_ok()
            {
                // If it cannot be deleted it costs disk, and the next start tries again.
                let _ = std::fs::remove_dir_all(&path);
            }
        }
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let path = parent.join(format!("{}-{}", std::process::id(), since.as_nanos()));
        std::fs::create_dir(&path)?;
        let lock = File::create(path.join("lock"))?;
        lock.lock()?;
        Ok(Folder { path, _lock: lock })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // As above.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// The rows of one store and partition.
pub(super) struct Cache {
    connection: Mutex<Connection>,
    path: PathBuf,
}

impl Cache {
    /// Begins empty.
    pub(super) fn new(folder: &Folder, store: Store, partition: u32) -> Result<Cache, LogError> {
        let path = folder.path.join(format!("{}-{partition}.sqlite", store.name()));
        // Of an earlier tenure, if its last user is still about to delete it.
        let _ = std::fs::remove_file(&path);
        let connection = Connection::open(&path)?;
        connection.pragma_update(None, "journal_mode", "OFF")?;
        connection.pragma_update(None, "synchronous", "OFF")?;
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        connection.pragma_update(None, "cache_size", -CACHE_KIBIBYTES)?;
        connection.execute_batch("CREATE TABLE state (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")?;
        Ok(Cache { connection: Mutex::new(connection), path })
    }

    /// Puts in what has been committed.
    pub(super) fn apply<'c>(
        &self,
        changes: impl IntoIterator<Item = (&'c [u8], Option<&'c [u8]>)>,
    ) -> Result<(), LogError> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        {
            let mut put = transaction
                .prepare_cached("INSERT INTO state VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value")?;
            let mut remove = transaction.prepare_cached("DELETE FROM state WHERE key = ?1")?;
            for (key, value) in changes {
                match value {
                    Some(value) => put.execute(params![key, value])?,
                    None => remove.execute(params![key])?,
                };
            }
        }
        Ok(transaction.commit()?)
    }

    /// Rows whose key begins with `prefix`, in key order.
    pub(super) fn scan(&self, prefix: &[u8]) -> Result<Vec<StateRow>, LogError> {
        let connection = self.lock();
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        // Keys with the prefix are those from the prefix up to its successor; a prefix of only 0xff bytes has none.
        let rows = match successor(prefix) {
            Some(successor) => connection
                .prepare_cached("SELECT key, value FROM state WHERE key >= ?1 AND key < ?2 ORDER BY key")?
                .query_map(params![prefix, successor], row)?
                .collect::<Result<_, _>>(),
            None => connection
                .prepare_cached("SELECT key, value FROM state WHERE key >= ?1 ORDER BY key")?
                .query_map(params![prefix], row)?
                .collect(),
        };
        Ok(rows?)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        // The folder goes with the process; until then this is only disk.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != 0xff)?;
    let mut bound = prefix[..=last].to_vec();
    bound[last] += 1;
    Some(bound)
}

/// Takes rows one by one and puts them in many at a time.
pub(super) struct Filling<'c> {
    cache: &'c Cache,
    rows: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl<'c> Filling<'c> {
    pub(super) fn new(cache: &'c Cache) -> Filling<'c> {
        Filling { cache, rows: Vec::new() }
    }

    pub(super) fn push(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), LogError> {
        self.rows.push((key.to_vec(), value.map(<[u8]>::to_vec)));
        if self.rows.len() >= ROWS_AT_ONCE { self.flush() } else { Ok(()) }
    }

    pub(super) fn flush(&mut self) -> Result<(), LogError> {
        let rows = std::mem::take(&mut self.rows);
        self.cache.apply(rows.iter().map(|(key, value)| (key.as_slice(), value.as_deref())))
    }
}
