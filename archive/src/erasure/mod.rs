//! A person's data leaves the archive, and the archive says that it did.
//!
//! # The guarantee
//!
//! An erasure is one signed commit for each table: it takes out the files that hold rows of the person and puts in the same
//! files without them. The commit names how many rows went, why, who decided it, and the sum over them
//! ([`crate::content`]); it names nobody. So [`crate::verify`] can tell it from any other loss: what was in the files before is
//! what is in the files after and what was erased, and nothing else. What is put in is read back before it is committed.
//!
//! Files that are replaced stay a day for readers of older snapshots, or are deleted at once ([`Eraser::purge`]). Killed at
//! any moment, it is done again by asking again: `events`, by which all else is found, come last. Days under a hold are
//! refused.
//!
//! What it finds is what is there when it looks. What comes later is new; what comes again does not come back, because admit
//! knows it.

mod choice;
mod rewrite;

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use chrono::{DateTime, NaiveDate, Utc};
use object_store::ObjectStoreExt;
use schemas::tenant::Tenant;

use crate::content::Content;
use crate::delta::{Add, Changes, DeltaTable, Erasure, Operation, Outcome};
use crate::error::Error;
use crate::file;
use crate::retention::Hold;
use crate::store::Store;
use crate::table::{DEAD_LETTERS, EVENTS, EVIDENCE, FINDING_REVISIONS, FINDINGS, MAIL_ITEMS, SIGN_INS, Table};
use choice::{Found, Known};
use rewrite::Rewritten;

/// In this order: what is found by rows of others goes before them.
const ORDER: [&Table; 7] = [&EVIDENCE, &FINDINGS, &FINDING_REVISIONS, &MAIL_ITEMS, &SIGN_INS, &DEAD_LETTERS, &EVENTS];

/// How often a table is looked at again because others have changed its files meanwhile. Compaction does so once a minute.
const TRIES_MAX: usize = 8;

/// Whose data, and of when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    pub tenant: Tenant,
    /// What these have done, in lower case.
    pub users: Vec<String>,
    /// What was done in the mailboxes of these, in lower case.
    pub mailboxes: Vec<String>,
    pub from: Option<NaiveDate>,
    /// The last day.
    pub until: Option<NaiveDate>,
}

/// Why, and who decided it. Both stay for ever, and must not say whom it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub reason: String,
    pub by: String,
}

/// What is found in a table, or gone from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    pub table: &'static str,
    pub rows: u64,
    pub files: u64,
}

/// Erases.
#[derive(Clone, Debug)]
pub struct Eraser {
    store: Store,
    holds: Vec<Hold>,
}

impl Subject {
    pub fn new(
        tenant: Tenant,
        users: &[String],
        mailboxes: &[String],
        from: Option<NaiveDate>,
        until: Option<NaiveDate>,
    ) -> Subject {
        let lower = |names: &[String]| names.iter().map(|name| name.trim().to_lowercase()).collect();
        Subject { tenant, users: lower(users), mailboxes: lower(mailboxes), from, until }
    }

    /// Every name, once.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let mailboxes = self.mailboxes.iter().filter(|name| !self.users.contains(name));
        self.users.iter().chain(mailboxes).map(String::as_str)
    }

    /// Whether a text says whom it is about.
    pub fn is_named_in(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        self.names().any(|name| choice::mentions(&text, name))
    }

    fn has_day(&self, day: NaiveDate) -> bool {
        self.from.is_none_or(|from| from <= day) && self.until.is_none_or(|until| day <= until)
    }

    /// Whether the days between lie in part in those that are meant.
    fn overlaps(&self, first: NaiveDate, last: NaiveDate) -> bool {
        self.from.is_none_or(|from| from <= last) && self.until.is_none_or(|until| first <= until)
    }

    /// The first hold that some of these days are under.
    pub fn held_by<'h>(&self, holds: &'h [Hold]) -> Option<&'h Hold> {
        holds.iter().find(|hold| hold.tenant == self.tenant && self.overlaps(hold.from, hold.until))
    }

    fn chosen_by(&self) -> Vec<String> {
        let kinds = [("user", &self.users), ("mailbox", &self.mailboxes)];
        kinds.iter().filter(|(_, names)| !names.is_empty()).map(|(kind, _)| (*kind).to_owned()).collect()
    }
}

impl Eraser {
    pub fn new(store: Store, holds: Vec<Hold>) -> Eraser {
        Eraser { store, holds }
    }

    /// What would go.
    pub async fn look(&self, subject: &Subject) -> Result<Vec<Share>, Error> {
        let known = self.known(subject).await?;
        let mut shares = Vec::new();
        for table in ORDER {
            let delta = DeltaTable::open(self.store.clone(), table).await?;
            let found = find(&delta, subject, &known).await?;
            shares.push(share(table, &found));
        }
        Ok(shares)
    }

    /// Erases. Returns what went.
    pub async fn erase(&self, subject: &Subject, decision: &Decision, now: DateTime<Utc>) -> Result<Vec<Share>, Error> {
        if let Some(hold) = subject.held_by(&self.holds) {
            let (tenant, from, until) = (hold.tenant.to_string(), hold.from, hold.until);
            return Err(Error::Held { tenant, from, until });
        }
        let known = self.known(subject).await?;
        let mut gone = Vec::new();
        for table in ORDER {
            gone.push(self.table(table, subject, &known, decision, now).await?);
        }
        Ok(gone)
    }

    /// Deletes at once every file of the tenant that has left a table: also those that a compaction has replaced lately hold
    /// what was erased. A reader of an older snapshot finds them missing. Returns how many went.
    pub async fn purge(&self, tenant: &Tenant) -> Result<u64, Error> {
        let mut gone = 0;
        for table in ORDER {
            gone += DeltaTable::open(self.store.clone(), table).await?.purge(tenant).await?;
        }
        Ok(gone)
    }

    /// What the rows of other tables are found by.
    async fn known(&self, subject: &Subject) -> Result<Known, Error> {
        let mut known = Known::default();
        for table in [&EVENTS, &FINDINGS, &FINDING_REVISIONS] {
            let delta = DeltaTable::open(self.store.clone(), table).await?;
            for found in find(&delta, subject, &known).await?.into_values() {
                known.add(table, found.ids);
            }
        }
        Ok(known)
    }

    async fn table(
        &self,
        table: &'static Table,
        subject: &Subject,
        known: &Known,
        decision: &Decision,
        now: DateTime<Utc>,
    ) -> Result<Share, Error> {
        let mut delta = DeltaTable::open(self.store.clone(), table).await?;
        for _ in 0..TRIES_MAX {
            let found = find(&delta, subject, known).await?;
            let share = share(table, &found);
            if found.is_empty() {
                return Ok(share);
            }
            let changes = rewritten(&delta, subject, known, decision, found.into_keys().collect()).await?;
            runtime::failpoint::reached_by("archive_erase_before_commit", table.name);
            if delta.commit(changes, now).await? == Outcome::Committed {
                tracing::info!(event = "archive_erased", table = table.name, rows = share.rows, files = share.files);
                return Ok(share);
            }
        }
        Err(Error::Busy { table: table.name })
    }
}

fn share(table: &'static Table, found: &BTreeMap<String, Found>) -> Share {
    Share { table: table.name, rows: found.values().map(|found| found.rows).sum(), files: found.len() as u64 }
}

/// The files that hold rows of the subject, with what is found in each.
async fn find(delta: &DeltaTable, subject: &Subject, known: &Known) -> Result<BTreeMap<String, Found>, Error> {
    let mut found = BTreeMap::new();
    for add in delta.snapshot().files.values().filter(|add| may_hold(subject, add)) {
        let (bytes, table) = (read(delta, add).await?, delta.table());
        let (subject, known) = (subject.clone(), known.clone());
        let looking = tokio::task::spawn_blocking(move || choice::look(table, bytes, &subject, &known));
        let in_file = looking.await.map_err(|_| Error::Worker)??;
        if in_file.rows > 0 {
            found.insert(add.path.clone(), in_file);
        }
    }
    Ok(found)
}

fn may_hold(subject: &Subject, add: &Add) -> bool {
    let value = |name: &str| add.partition_values.get(name).and_then(Option::as_deref);
    let day = value("day").and_then(|day| day.parse::<NaiveDate>().ok());
    value("tenant") == Some(subject.tenant.as_str()) && day.is_none_or(|day| subject.has_day(day))
}

async fn read(delta: &DeltaTable, add: &Add) -> Result<Bytes, Error> {
    Ok(delta.store().objects().get(&delta.location(&add.path)).await?.bytes().await?)
}

/// Writes these files again without the subject's rows: the commit that puts one for the other.
async fn rewritten(
    delta: &DeltaTable,
    subject: &Subject,
    known: &Known,
    decision: &Decision,
    paths: HashSet<String>,
) -> Result<Changes, Error> {
    let mut changes = Changes { operation: Operation::Erase, ..Changes::default() };
    let mut erased = Content::default();
    for add in delta.snapshot().files.values().filter(|add| paths.contains(&add.path)) {
        let (bytes, table, content) = (read(delta, add).await?, delta.table(), add.content());
        let (subject, known, path) = (subject.clone(), known.clone(), add.path.clone());
        let writing =
            tokio::task::spawn_blocking(move || rewrite::rewrite(table, path, bytes, content, &subject, &known));
        let Rewritten { left, gone } = writing.await.map_err(|_| Error::Worker)??;
        erased.add(&gone);
        changes.remove.push(add.path.clone());
        let Some(left) = left else { continue };
        let expected = left.content;
        let name = schemas::json::key_id(&["erase", &add.path]);
        let when = DateTime::from_timestamp_millis(add.modification_time).unwrap_or_default();
        let new = file::put(delta, "c", &name, add.partition_values.clone(), left, when).await?;
        // What counts is what lies there.
        let stored = read(delta, &new).await?;
        let stored =
            tokio::task::spawn_blocking(move || rewrite::content(stored)).await.map_err(|_| Error::Worker)??;
        if stored != expected {
            return Err(Error::Unequal { path: new.path });
        }
        changes.add.push(new);
    }
    delta.store().make_durable(changes.add.iter().map(|add| delta.location(&add.path)).collect()).await?;
    changes.erasure = Some(Erasure {
        reason: decision.reason.clone(),
        by: decision.by.clone(),
        chosen_by: subject.chosen_by(),
        from: subject.from,
        until: subject.until,
        rows: erased.rows,
        content: erased.to_text(),
    });
    Ok(changes)
}
