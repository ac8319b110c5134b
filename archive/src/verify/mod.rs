//! Whether the archive is what harrier wrote: whole, unaltered, nothing added. Needs no log and no network.
//!
//! Every commit is checked against its signed statement, and the statements against one another; every file against the
//! hash in the statement that added it; and every file that lies there against the list of those that should. What is
//! wrong is named: the file, and where in it, as far as that can be known.
//!
//! What the oldest commits say lies in copies, and the commits themselves are gone: the copies and the log are read as one
//! chain, in which nothing may be missing and nothing twice.
//!
//! What cannot be seen from the archive alone is that its newest commits were taken away together with all that they
//! added: what is left is whole, only older. Whoever keeps the hash of a statement elsewhere (a *head*) can ask for it.

mod chain;
mod copies;
mod fault;
mod files;

use chrono::{DateTime, TimeDelta, Utc};
use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::delta::Erasure;
use crate::error::Error;
use crate::signer::PublicKey;
use crate::store::Store;
use crate::store::remote::{ASKED, ASKED_TEXT};
use crate::table::{TABLES, Table};
use chain::Chain;
pub use fault::{Fault, Kind};
use files::Listed;

/// Faults that are told one by one. Beyond, they are counted: an archive of another key has one for every commit.
const FAULTS_TOLD_MAX: usize = 100;

/// A file of ours that no commit names is what a crash has left, until vacuum would have taken it.
const LEFTOVER_AGE_MAX: TimeDelta = TimeDelta::hours(26);

/// How often a table is looked at that is cleaned meanwhile: who deletes does so once a day.
const ATTEMPTS_MAX: usize = 4;

/// What to check with.
#[derive(Clone, Debug)]
pub struct Verifier {
    pub store: Store,
    /// Keys that commits may be signed with: more than one, if the key was changed.
    pub keys: Vec<PublicKey>,
    /// Heads that were kept elsewhere.
    pub heads: Vec<String>,
    pub now: DateTime<Utc>,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    pub tables: Vec<TableReport>,
    /// In the order of tables, commits and files: the first is the first.
    pub faults: Vec<Fault>,
    /// Faults beyond those told.
    pub more_faults: u64,
}

/// What was checked of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableReport {
    pub name: &'static str,
    pub commits: u64,
    /// So many of them, the oldest, in copies.
    pub copied_commits: u64,
    pub files: u64,
    pub bytes: u64,
    /// Files that a crash has left: no commit names them, no reader sees them, and vacuum takes them.
    pub leftovers: u64,
    /// What a retention has taken out.
    pub retired_files: u64,
    pub retired_rows: u64,
    /// What was erased of persons, by the version of the commit: gone, and signed for.
    pub erased: Vec<(u64, Erasure)>,
    /// Commits from before harrier made statements, at the beginning: whole as far as they can be read, not proven.
    pub unproven_commits: u64,
    /// The newest statement's version and hash.
    pub head: Option<(u64, String)>,
    /// The newest version of which a head was given: at least so new the table is proven to be.
    pub fresh_since: Option<u64>,
}

impl Report {
    pub fn is_whole(&self) -> bool {
        self.faults.is_empty()
    }

    fn take(&mut self, other: Report) {
        self.tables.extend(other.tables);
        other.faults.into_iter().for_each(|fault| self.add(fault));
        self.more_faults += other.more_faults;
    }

    fn add(&mut self, fault: Fault) {
        if self.faults.len() < FAULTS_TOLD_MAX {
            self.faults.push(fault);
        } else {
            self.more_faults += 1;
        }
    }
}

impl Verifier {
    /// Checks everything.
    pub async fn run(&self) -> Result<Report, Error> {
        let mut report = Report::default();
        let mut heads_missing = self.heads.clone();
        for &table in TABLES {
            let chain = self.table(table, &mut report).await?;
            heads_missing.retain(|head| !chain.hashes.contains_key(head));
        }
        let top = self.store.objects().list_with_delimiter(None).await?;
        let known = |path: &Path| TABLES.iter().any(|table| path.as_ref() == table.name);
        let mut strange: Vec<Path> = top.common_prefixes.into_iter().filter(|path| !known(path)).collect();
        for object in top.objects {
            if self.store.is_remote() && object.location.as_ref() == ASKED {
                self.check_asked(&object.location, &mut report).await?;
            } else {
                strange.push(object.location);
            }
        }
        strange.sort();
        strange.into_iter().for_each(|path| report.add(Fault { file: path.to_string(), kind: Kind::Added }));
        for head in heads_missing {
            report.add(Fault { file: String::new(), kind: Kind::HeadMissing { head } });
        }
        Ok(report)
    }

    /// What an object store was asked with lies in it; nothing reads it but the next who asks.
    async fn check_asked(&self, path: &Path, report: &mut Report) -> Result<(), Error> {
        let bytes = self.store.objects().get(path).await?.bytes().await?;
        if bytes != ASKED_TEXT.as_bytes() {
            report.add(Fault { file: path.to_string(), kind: Kind::Altered { from: 0, to: bytes.len() as u64 } });
        }
        Ok(())
    }

    /// Checks a table; again, if what was listed was deleted before it was read: by a vacuum or a cleaning beside it, which
    /// leave a table that is whole.
    async fn table(&self, table: &'static Table, report: &mut Report) -> Result<Chain, Error> {
        let mut listed = files::list(&self.store, table).await?;
        for _ in 1..ATTEMPTS_MAX {
            let mut own = Report::default();
            match self.listed_table(table, &listed, &mut own).await {
                Err(Error::Store(object_store::Error::NotFound { path, source })) => {
                    let now = files::list(&self.store, table).await?;
                    if now == listed {
                        // It is listed and cannot be had: nobody has deleted it.
                        return Err(object_store::Error::NotFound { path, source }.into());
                    }
                    tracing::info!(event = "verify_again", table = table.name, path);
                    listed = now;
                }
                chain => {
                    report.take(own);
                    return chain;
                }
            }
        }
        self.listed_table(table, &listed, report).await
    }

    async fn listed_table(&self, table: &'static Table, listed: &Listed, report: &mut Report) -> Result<Chain, Error> {
        let mut chain = Chain::new(table);
        self.check_log(&mut chain, listed, report).await?;
        self.check_checkpoints(&chain, listed, report).await?;
        let (files, bytes, leftovers) = self.check_files(&chain, listed, report).await?;
        report.tables.push(TableReport {
            name: table.name,
            commits: chain.commits,
            copied_commits: chain.copied,
            files,
            bytes,
            leftovers,
            retired_files: chain.retired_files,
            retired_rows: chain.retired_rows,
            erased: chain.erased.clone(),
            unproven_commits: chain.unproven,
            head: chain.head.clone().zip(chain.newest).map(|(hash, version)| (version, hash)),
            fresh_since: self.heads.iter().filter_map(|head| chain.hashes.get(head)).max().copied(),
        });
        Ok(chain)
    }

    /// Whether a statement is signed by one of the keys; what is wrong if not.
    fn check_signature(&self, text: &str, signature: &str, public_key: Option<&str>) -> Option<Kind> {
        let Some(key) = self.keys.iter().find(|key| Some(key.to_hex().as_str()) == public_key) else {
            return Some(Kind::OtherKey { key: public_key.unwrap_or_default().to_owned() });
        };
        (!key.verifies(text, signature)).then_some(Kind::Forged)
    }
}
