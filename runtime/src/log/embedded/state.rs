//! Rows of state, and how they get into the file without rewriting it.
//!
//! A row written by itself costs a page of the file, twice. That is cheap where a step's rows lie together. Those of
//! [`is_scattered`] stores lie all over: there a step's rows go into the file as one run, beside the table, and stay in
//! memory as well. Once there are many they are moved into the table in the order of their keys, so that a page takes
//! many rows at once, and a little of it with every step, so that no step waits for all of it.
//!
//! A run is true before the table, a later one before an earlier. So it does not matter how much of a run has been moved
//! already when a process dies, or another takes over: rows are moved again, and runs go only when all of their rows
//! have been, by one process between whose steps nobody else has written.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension, params};

use super::{BATCH_BYTES_MAX, ZSTD_LEVEL};
use crate::log::{LogError, StateChange, StateRow, Store, Unusable};

/// Rows of one partition that lie in runs before they are moved: about 20 MB of memory. More would be cheaper, as each
/// page of the table then takes more of them at once. Fewer in tests, so that much of it happens.
const MOVED_AT: usize = if cfg!(test) { 1_000 } else { 100_000 };

/// Rows moved with every row written, and at least with every step. Two: all are moved before half as many have come.
const MOVED_PER_ROW: usize = 2;
const MOVED_PER_STEP_MIN: usize = if cfg!(test) { 5 } else { 500 };

pub(super) const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS state (
        store TEXT NOT NULL, partition INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL,
        PRIMARY KEY (store, partition, key)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS runs (
        number INTEGER PRIMARY KEY AUTOINCREMENT, store TEXT NOT NULL, partition INTEGER NOT NULL, bytes BLOB NOT NULL);
    CREATE INDEX IF NOT EXISTS runs_by_partition ON runs (store, partition, number);";

/// Whether a step's rows have keys from all over the store: hashes of what a window is about.
fn is_scattered(store: Store) -> bool {
    store == Store::Correlate
}

type Rows = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// A store and partition.
type Place = (Store, u32);

/// The state as this process sees it.
#[derive(Default)]
pub(super) struct State {
    runs: Mutex<HashMap<Place, Arc<Mutex<Runs>>>>,
}

/// What lies in the runs of one store and partition.
#[derive(Default)]
struct Runs {
    /// Numbers of the first and last run held.
    held: Option<(i64, i64)>,
    /// Rows on their way into the table, those up to `moved` being there, and the last run that they are from.
    moving: Rows,
    moving_until: i64,
    moved: Option<Vec<u8>>,
    /// Rows that came since.
    newer: Rows,
}

impl State {
    /// Writes what one step changes; part of the step's transaction.
    pub(super) fn write(&self, connection: &Connection, changes: &[StateChange]) -> Result<(), LogError> {
        // Sorted keys: neighbouring rows share pages of the tree.
        let mut changes: Vec<&StateChange> = changes.iter().collect();
        changes.sort_by(|a, b| (a.store.name(), a.partition, &a.key).cmp(&(b.store.name(), b.partition, &b.key)));
        for of_one in changes.chunk_by(|a, b| (a.store, a.partition) == (b.store, b.partition)) {
            let (store, partition) = (of_one[0].store, of_one[0].partition);
            if is_scattered(store) {
                lock(&self.runs_of(store, partition)).append(connection, store, partition, of_one)?;
            } else {
                for change in of_one {
                    write_row(connection, store, partition, &change.key, change.value.as_deref())?;
                }
            }
        }
        Ok(())
    }

    /// Rows whose key begins with one of the prefixes, in key order, for each prefix.
    pub(super) fn scan_each(
        &self,
        connection: &Connection,
        store: Store,
        partition: u32,
        prefixes: &[Vec<u8>],
    ) -> Result<Vec<Vec<StateRow>>, LogError> {
        let scan_table = |prefix: &Vec<u8>| scan(connection, store, partition, prefix);
        if !is_scattered(store) {
            return Ok(prefixes.iter().map(scan_table).collect::<Result<_, _>>()?);
        }
        let runs = self.runs_of(store, partition);
        // Taken before the snapshot, so that what is held can only be older than it.
        let mut runs = lock(&runs);
        let snapshot = connection.unchecked_transaction()?;
        runs.refresh(connection, store, partition)?;
        let found = prefixes.iter().map(|prefix| Ok(runs.over(prefix, scan_table(prefix)?))).collect();
        snapshot.commit()?;
        found
    }

    /// Forgets what was held in memory: a transaction has failed, and its runs are not there.
    pub(super) fn forget(&self) {
        lock(&self.runs).clear();
    }

    fn runs_of(&self, store: Store, partition: u32) -> Arc<Mutex<Runs>> {
        lock(&self.runs).entry((store, partition)).or_default().clone()
    }
}

impl Runs {
    fn append(
        &mut self,
        connection: &Connection,
        store: Store,
        partition: u32,
        changes: &[&StateChange],
    ) -> Result<(), LogError> {
        self.refresh(connection, store, partition)?;
        connection
            .prepare_cached("INSERT INTO runs (store, partition, bytes) VALUES (?1, ?2, ?3)")?
            .execute(params![store.name(), partition, packed(changes)?])?;
        let number = connection.last_insert_rowid();
        self.held = Some((self.held.map_or(number, |(first, _)| first), number));
        self.newer.extend(changes.iter().map(|change| (change.key.clone(), change.value.clone())));
        if self.moving.is_empty() && self.newer.len() >= MOVED_AT {
            self.moving = std::mem::take(&mut self.newer);
            (self.moving_until, self.moved) = (number, None);
        }
        self.move_some(connection, store, partition, (changes.len() * MOVED_PER_ROW).max(MOVED_PER_STEP_MIN))
    }

    fn move_some(
        &mut self,
        connection: &Connection,
        store: Store,
        partition: u32,
        rows: usize,
    ) -> Result<(), LogError> {
        if self.moving.is_empty() {
            return Ok(());
        }
        let after = self.moved.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut last = None;
        for (key, value) in self.moving.range::<Vec<u8>, _>((after, Bound::Unbounded)).take(rows) {
            write_row(connection, store, partition, key, value.as_deref())?;
            last = Some(key.clone());
        }
        if last.is_some() {
            self.moved = last;
            return Ok(());
        }
        connection
            .prepare_cached("DELETE FROM runs WHERE store = ?1 AND partition = ?2 AND number <= ?3")?
            .execute(params![store.name(), partition, self.moving_until])?;
        self.moving.clear();
        self.held = ends(connection, store, partition)?;
        Ok(())
    }

    /// Brings what is held up to what the connection sees. Others may have written runs, and moved them.
    fn refresh(&mut self, connection: &Connection, store: Store, partition: u32) -> Result<(), LogError> {
        let there = ends(connection, store, partition)?;
        if there == self.held {
            return Ok(());
        }
        let after = match (self.held, there) {
            (Some((first, last)), Some((first_there, last_there))) if first == first_there && last < last_there => {
                self.begin_anew();
                last
            }
            _ => {
                *self = Runs::default();
                0
            }
        };
        let mut statement = connection.prepare_cached(
            "SELECT number, bytes FROM runs WHERE store = ?1 AND partition = ?2 AND number > ?3 ORDER BY number",
        )?;
        let mut rows = statement.query(params![store.name(), partition, after])?;
        while let Some(row) = rows.next()? {
            let damaged = Unusable::Run { store: store.name(), partition, number: row.get(0)? };
            unpack(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?, &mut self.newer).ok_or(damaged)?;
        }
        self.held = there;
        Ok(())
    }

    /// Somebody else has written, and so may have moved rows that are newer than those that are on their way from here. Were
    /// the way gone on with, what is old could come over what is new, and the runs that say better be deleted by the other.
    fn begin_anew(&mut self) {
        let newer = std::mem::take(&mut self.newer);
        self.newer = std::mem::take(&mut self.moving);
        self.newer.extend(newer);
        self.moved = None;
    }

    /// The table's rows with this prefix, and what the runs say of them.
    fn over(&self, prefix: &[u8], table: Vec<StateRow>) -> Vec<StateRow> {
        let with_prefix = |rows: &'_ Rows| -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
            let from = rows.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded));
            let these = from.take_while(|(key, _)| key.starts_with(prefix));
            these.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        let changes = [with_prefix(&self.moving), with_prefix(&self.newer)].concat();
        if changes.is_empty() {
            return table;
        }
        let mut rows: Rows = table.into_iter().map(|(key, value)| (key, Some(value))).collect();
        rows.extend(changes);
        rows.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }
}

/// The first and last run of a partition.
fn ends(connection: &Connection, store: Store, partition: u32) -> Result<Option<(i64, i64)>, rusqlite::Error> {
    let end = |order: &str| {
        connection
            .prepare_cached(&format!(
                "SELECT number FROM runs WHERE store = ?1 AND partition = ?2 ORDER BY number {order} LIMIT 1"
            ))?
            .query_row(params![store.name(), partition], |row| row.get(0))
            .optional()
    };
    Ok(end("ASC")?.zip(end("DESC")?))
}

/// Of each row the key, and the value behind one more than its length, or 0 where the row is removed.
fn packed(changes: &[&StateChange]) -> Result<Vec<u8>, LogError> {
    let mut bytes = Vec::new();
    for change in changes {
        bytes.extend_from_slice(&(change.key.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&change.key);
        let value = change.value.as_deref();
        bytes.extend_from_slice(&value.map_or(0, |value| value.len() as u32 + 1).to_le_bytes());
        bytes.extend_from_slice(value.unwrap_or_default());
    }
    let too_large = Unusable::Run { store: changes[0].store.name(), partition: changes[0].partition, number: 0 };
    Ok(zstd::bulk::compress(&bytes, ZSTD_LEVEL).map_err(|_| too_large)?)
}

fn unpack(packed: &[u8], rows: &mut Rows) -> Option<()> {
    let size = zstd::zstd_safe::get_frame_content_size(packed).ok().flatten()? as usize;
    let unpacked = zstd::bulk::decompress(packed, size.min(BATCH_BYTES_MAX)).ok()?;
    let mut rest = unpacked.as_slice();
    while !rest.is_empty() {
        let key = cut(&mut rest, 0)?;
        let value = match rest.first_chunk::<4>()? {
            [0, 0, 0, 0] => {
                rest = &rest[4..];
                None
            }
            _ => Some(cut(&mut rest, 1)?),
        };
        rows.insert(key, value);
    }
    Some(())
}

/// Takes a length, `more` than it is, and so many bytes.
fn cut(rest: &mut &[u8], more: u32) -> Option<Vec<u8>> {
    let (length, tail) = rest.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length).checked_sub(more)?;
    let (bytes, tail) = tail.split_at_checked(length as usize)?;
    *rest = tail;
    Some(bytes.to_vec())
}

fn write_row(
    connection: &Connection,
    store: Store,
    partition: u32,
    key: &[u8],
    value: Option<&[u8]>,
) -> Result<(), rusqlite::Error> {
    match value {
        Some(value) => connection
            .prepare_cached(
                "INSERT INTO state VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET value = excluded.value",
            )?
            .execute(params![store.name(), partition, key, value])?,
        None => connection
            .prepare_cached("DELETE FROM state WHERE store = ?1 AND partition = ?2 AND key = ?3")?
            .execute(params![store.name(), partition, key])?,
    };
    Ok(())
}

/// The table's rows whose key begins with `prefix`, in key order.
fn scan(
    connection: &Connection,
    store: Store,
    partition: u32,
    prefix: &[u8],
) -> Result<Vec<StateRow>, rusqlite::Error> {
    // Keys with the prefix are those from the prefix up to its successor; a prefix of only 0xff bytes has none.
    let successor = prefix.iter().rposition(|&byte| byte != 0xff).map(|last| {
        let mut bound = prefix[..=last].to_vec();
        bound[last] += 1;
        bound
    });
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    // Two statements, because an optional bound in one would keep SQLite from using it: every scan would go on to the end
    // of the partition's rows.
    match successor {
        Some(successor) => connection
            .prepare_cached("SELECT key, value FROM state WHERE store = ?1 AND partition = ?2 AND key >= ?3 AND key < ?4 ORDER BY key")?
            .query_map(params![store.name(), partition, prefix, successor], row)?
            .collect(),
        None => connection
            .prepare_cached("SELECT key, value FROM state WHERE store = ?1 AND partition = ?2 AND key >= ?3 ORDER BY key")?
            .query_map(params![store.name(), partition, prefix], row)?
            .collect(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panic left half done is brought up to the file by the next look at it, or forgotten.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
