//! The log of commits, cleaned: what every commit says of itself is copied, and then the old commits are deleted.
//!
//! # The guarantee
//!
//! A commit is deleted only when it is old, when two checkpoints that are as old stand for it and can be read, and when
//! its signed statement lies in a copy that has been read back from where it lies. Copies are made in order from the
//! first commit on, [`COPY_COMMITS`] in a file, put only if absent: of two who clean, one puts and both delete the same.
//! Killed between any two steps, everything is still there, some of it twice; the next who cleans goes on from there.
//! [`crate::verify`] reads copies and log as one chain.
//!
//! What is copied is the statement with its signature, and not the rest of the commit. Of a file it holds the hash and
//! how many rows, not the least and greatest user in it: what was erased is not kept by the proof that it was.
//!
//! # Who slept through it
//!
//! A commit is put if its version is absent, and that of a version that was deleted is. So whoever has put one looks
//! whether its version is among those that were copied, and then takes it back, which nobody can have read, because every
//! reader begins at a later checkpoint. Whoever reads on and finds no next commit looks for the same, and begins anew. No
//! clock decides either: under one that was set ahead commits go earlier than they should, and nothing else.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};

use super::{DeltaTable, LOG_FOLDER, PROOF_FOLDER, checkpoint, statement};
use crate::error::Error;
use crate::store::Store;

/// How long commits stay: other engines can be asked for what the table held at any moment since, and who was stopped in
/// the middle of reading finds what it needs.
pub(crate) const LOG_KEPT: TimeDelta = TimeDelta::days(7);

/// Commits in a copy: about a megabyte, so that a year at a commit every half minute is a thousand files to verify.
pub const COPY_COMMITS: u64 = 1000;

/// Copies made of a table in one go: whoever cleans a log of years for the first time has other things to do as well.
const COPIES_AT_ONCE: u64 = 20;

/// Commits read at once for a copy, as when a table is opened.
const READS_AT_ONCE: usize = 16;

/// Largest copy that is read: a thousand commits of some thousand files each.
const COPY_BYTES_MAX: u64 = 1024 * 1024 * 1024;

const COMMIT_ENDING: &str = ".json";
pub(crate) const CHECKPOINT_ENDING: &str = ".checkpoint.parquet";
pub(crate) const COPY_ENDING: &str = ".commits.jsonl";

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Commits copied.
    pub copied: u64,
    /// Commits deleted.
    pub deleted: u64,
    /// Checkpoints deleted.
    pub checkpoints: u64,
}

impl std::ops::AddAssign for Cleaned {
    fn add_assign(&mut self, other: Cleaned) {
        self.copied += other.copied;
        self.deleted += other.deleted;
        self.checkpoints += other.checkpoints;
    }
}

/// The name of the copy that begins at this version.
pub(crate) fn copy_name(first: u64) -> String {
    format!("{PROOF_FOLDER}/{first:020}{COPY_ENDING}")
}

/// The version in the name of a file, which is the rest of its path below a folder.
pub(crate) fn version_of(name: &str, ending: &str) -> Option<u64> {
    let digits = name.strip_suffix(ending).filter(|digits| digits.len() == 20)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// The log of a table: when each file of it was put.
#[derive(Default)]
struct Listed {
    commits: BTreeMap<u64, DateTime<Utc>>,
    checkpoints: BTreeMap<u64, DateTime<Utc>>,
}

impl DeltaTable {
    /// Copies and deletes commits that are older than [`LOG_KEPT`] and that no reader needs. A log that begins with
    /// commits from before there were statements stays as it is: there would be nothing left to tell what they did.
    pub async fn clean(&self, now: DateTime<Utc>) -> Result<Cleaned, Error> {
        let before = now - LOG_KEPT;
        let mut cleaned = Cleaned::default();
        let listed = self.list_log().await?;
        let old = listed.checkpoints.iter().rev().filter(|&(_, at)| *at < before).map(|(version, _)| *version);
        // Two, so that one that cannot be read does not cost the table its beginning.
        let [newer, needed] = match old.take(2).collect::<Vec<_>>()[..] {
            [newer, needed] => [newer, needed],
            _ => return Ok(cleaned),
        };
        // Who opens the table follows the hint, and must not be led to what is gone.
        if checkpoint::hinted(self).await?.is_none_or(|hinted| hinted < needed) {
            return Ok(cleaned);
        }
        let mut copies = 0;
        let mut end = 0;
        while end + COPY_COMMITS <= needed && copies < COPIES_AT_ONCE {
            let left = listed.commits.range(end..end + COPY_COMMITS);
            if left.clone().any(|(_, at)| *at >= before) {
                break;
            }
            let left: Vec<u64> = left.map(|(version, _)| *version).collect();
            if !left.is_empty() {
                if copies == 0 {
                    self.read_checkpoints([newer, needed]).await?;
                }
                if !self.clean_commits(end, &left, &mut cleaned).await? {
                    break;
                }
                copies += 1;
            }
            end += COPY_COMMITS;
        }
        self.clean_checkpoints(&listed, end, &mut cleaned).await?;
        Ok(cleaned)
    }

    /// Copies commits unless they are copied already, and deletes those that are left of them. False if they cannot be
    /// copied.
    async fn clean_commits(&self, first: u64, left: &[u64], cleaned: &mut Cleaned) -> Result<bool, Error> {
        let is_broken = runtime::failpoint::is_broken("archive-delete-before-copy");
        let mut lines = BTreeMap::new();
        for versions in left.chunks(READS_AT_ONCE) {
            let reads: Vec<_> = versions.iter().map(|version| self.read_entry(*version)).collect();
            for (version, entry) in versions.iter().zip(futures::future::try_join_all(reads).await?) {
                // Another who cleans was faster.
                let Some(entry) = entry else { continue };
                let Some(proof) = statement::proof_of(&entry) else { return Ok(false) };
                lines.insert(*version, serde_json::to_vec(&proof)?);
            }
        }
        if !is_broken {
            self.copy(first, &lines, cleaned).await?;
        }
        runtime::failpoint::reached_by("archive_clean_after_copy", self.table.name);
        let doomed: Vec<_> = lines.keys().map(|version| Ok(self.entry_path(*version))).collect();
        let mut gone = self.store.objects().delete_stream(futures::stream::iter(doomed).boxed());
        while let Some(deleted) = gone.next().await {
            is_gone(deleted)?;
            cleaned.deleted += 1;
            runtime::failpoint::reached_by("archive_clean_after_delete", self.table.name);
        }
        if is_broken {
            self.copy(first, &lines, cleaned).await?;
        }
        Ok(true)
    }

    /// Sees to it that these lines are in the copy that begins at this version.
    async fn copy(&self, first: u64, lines: &BTreeMap<u64, Vec<u8>>, cleaned: &mut Cleaned) -> Result<(), Error> {
        let path = self.location(&copy_name(first));
        if lines.len() as u64 == COPY_COMMITS {
            let bytes: Vec<u8> = lines.values().flat_map(|line| [&line[..], b"\n"].concat()).collect();
            match self.store.objects().put_opts(&path, PutPayload::from(bytes), Store::commit_options()).await {
                Ok(_) => cleaned.copied += COPY_COMMITS,
                Err(object_store::Error::AlreadyExists { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // Not what was meant to be written counts but what lies there: a crash or another may have put it.
        let differs = || Error::CopyDiffers { path: path.to_string() };
        let bytes = self.read_copy(&path).await?.ok_or_else(differs)?;
        let copied: Vec<&[u8]> = bytes.split_inclusive(|&byte| byte == b'\n').collect();
        let is_copied = |(version, line): (&u64, &Vec<u8>)| {
            let copied = usize::try_from(version - first).ok().and_then(|index| copied.get(index));
            copied.and_then(|copied| copied.strip_suffix(b"\n")) == Some(&line[..])
        };
        if copied.len() as u64 != COPY_COMMITS || !lines.iter().all(is_copied) {
            return Err(differs());
        }
        self.store.make_durable(vec![path]).await
    }

    async fn read_copy(&self, path: &Path) -> Result<Option<Bytes>, Error> {
        match self.store.objects().get(path).await {
            Ok(found) if found.meta.size > COPY_BYTES_MAX => Ok(None),
            Ok(found) => Ok(Some(found.bytes().await?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes the checkpoints of what was cleaned: with commits that are left, those between them may still be of use.
    async fn clean_checkpoints(&self, listed: &Listed, end: u64, cleaned: &mut Cleaned) -> Result<(), Error> {
        let doomed: Vec<u64> = listed.checkpoints.range(..end).map(|(version, _)| *version).collect();
        for version in doomed {
            let checkpoint = self.location(&format!("{LOG_FOLDER}/{version:020}{CHECKPOINT_ENDING}"));
            // What is said of it goes last: a checkpoint of which nothing is said would look like one put there.
            for path in [checkpoint, self.location(&checkpoint::statement_name(version))] {
                is_gone(self.store.objects().delete(&path).await)?;
                runtime::failpoint::reached_by("archive_clean_after_checkpoint", self.table.name);
            }
            cleaned.checkpoints += 1;
        }
        Ok(())
    }

    /// Fails unless both can be read: they stand for what is about to go.
    async fn read_checkpoints(&self, versions: [u64; 2]) -> Result<(), Error> {
        for version in versions {
            checkpoint::read(self, version).await?.ok_or(Error::damaged(self.table.name, version))?;
        }
        Ok(())
    }

    async fn list_log(&self) -> Result<Listed, Error> {
        let folder = Path::from_iter([self.table.name, LOG_FOLDER]);
        let mut listed = Listed::default();
        let mut objects = self.store.objects().list(Some(&folder));
        while let Some(object) = objects.try_next().await? {
            let name = object.location.filename().unwrap_or_default();
            if let Some(version) = version_of(name, COMMIT_ENDING) {
                listed.commits.insert(version, object.last_modified);
            } else if let Some(version) = version_of(name, CHECKPOINT_ENDING) {
                listed.checkpoints.insert(version, object.last_modified);
            }
        }
        Ok(listed)
    }

    /// The versions of all checkpoints, the newest first: for who finds no hint.
    pub(super) async fn checkpoints(&self) -> Result<Vec<u64>, Error> {
        Ok(self.list_log().await?.checkpoints.into_keys().rev().collect())
    }

    /// Whether the commit of a version was copied, so that one which lies there now is none.
    pub(super) async fn is_copied(&self, version: u64) -> Result<bool, Error> {
        let path = self.location(&copy_name(version - version % COPY_COMMITS));
        self.exists(&path).await
    }

    pub(super) async fn exists(&self, path: &Path) -> Result<bool, Error> {
        match self.store.objects().head(path).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// How some stores say of one of many that they were to delete that it is not there; others pass over it.
const NO_SUCH_KEY: &str = "NoSuchKey";

/// What is not there has been deleted: by another who cleans, or before a crash.
fn is_gone<T>(deleted: Result<T, object_store::Error>) -> Result<(), Error> {
    match deleted {
        Ok(_) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(error) if error.to_string().contains(NO_SUCH_KEY) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
