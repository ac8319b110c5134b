//! What is past its time leaves the archive.
//!
//! # The guarantee
//!
//! A retention takes out whole days of a tenant, in one signed commit for each table and tenant, and only such days as
//! lie before the one it names; [`crate::verify`] asks for both. From which day on a table is kept is a position of it
//! like that in a topic, so it never goes back, and every answer can say where the archive begins. Days under a hold stay,
//! whatever their age. The files themselves stay a day longer, for readers of older snapshots, and go with the vacuum.
//!
//! What arrives for a day that is gone, late, is archived, and goes at the next round.

use std::collections::BTreeMap;

use chrono::{DateTime, Datelike, Days, NaiveDate, Utc};
use schemas::tenant::Tenant;

use crate::delta::{Add, Changes, DeltaTable, Operation, Outcome};
use crate::error::Error;
use crate::store::Store;
use crate::table::{TABLES, Table};

/// What names the position from which a tenant's days are kept.
const SOURCE: &str = "retention/";

/// How long tables are kept, and what is kept longer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// By the table's name.
    days: BTreeMap<&'static str, u32>,
    holds: Vec<Hold>,
}

/// Days that stay: somebody has said that they are evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    pub tenant: Tenant,
    pub from: NaiveDate,
    /// The last day.
    pub until: NaiveDate,
}

/// What has been taken out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retired {
    pub table: &'static str,
    pub tenant: String,
    /// The first day that is kept.
    pub since: NaiveDate,
    pub files: u64,
    pub rows: u64,
}

impl Retention {
    /// Keeps nothing for ever that `keep` names: days by table. Tables that are not cut into days are always kept.
    pub fn new(keep: impl IntoIterator<Item = (&'static Table, u32)>, holds: Vec<Hold>) -> Retention {
        let by_day = keep.into_iter().filter(|(table, _)| table.is_partition("day"));
        Retention { days: by_day.map(|(table, days)| (table.name, days)).collect(), holds }
    }

    /// Takes out what is past its time. A commit that others were faster than is left to the next round.
    pub async fn retire(&self, store: &Store, now: DateTime<Utc>) -> Result<Vec<Retired>, Error> {
        let mut retired = Vec::new();
        for &table in TABLES {
            let Some(days) = self.days.get(table.name) else { continue };
            let Some(since) = now.date_naive().checked_sub_days(Days::new(u64::from(*days))) else { continue };
            let mut delta = DeltaTable::open(store.clone(), table).await?;
            for (tenant, files) in self.due(delta.snapshot().files.values(), since) {
                let source = format!("{SOURCE}{tenant}");
                let from = delta.snapshot().positions.get(&source).copied().unwrap_or(0);
                let rows = files.iter().map(|file| file.rows()).sum();
                let changes = Changes {
                    operation: Operation::Delete,
                    add: Vec::new(),
                    remove: files.iter().map(|file| file.path.clone()).collect(),
                    // A day that came late is gone again without the position moving back.
                    positions: vec![(source, from, number(since).max(from))],
                    erasure: None,
                };
                let since = day(from).map_or(since, |before| before.max(since));
                let done = Retired { table: table.name, tenant, since, files: files.len() as u64, rows };
                runtime::failpoint::reached_by("archive_retire_before_commit", table.name);
                if delta.commit(changes, now).await? == Outcome::Committed {
                    retired.push(done);
                }
            }
        }
        Ok(retired)
    }

    /// The files of each tenant that are past their time.
    fn due<'f>(&self, files: impl Iterator<Item = &'f Add>, since: NaiveDate) -> BTreeMap<String, Vec<Add>> {
        let mut due: BTreeMap<String, Vec<Add>> = BTreeMap::new();
        for file in files {
            let Some((tenant, day)) = place(file) else { continue };
            let is_held =
                self.holds.iter().any(|hold| hold.tenant.as_str() == tenant && hold.from <= day && day <= hold.until);
            if day < since && !is_held {
                due.entry(tenant).or_default().push(file.clone());
            }
        }
        due
    }
}

/// From which day on a table keeps a tenant's records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub table: &'static str,
    pub tenant: String,
    pub since: NaiveDate,
}

/// Where some of a tenant's days were taken out, table by table: one may be kept longer than another.
pub async fn kept(store: &Store) -> Result<Vec<Kept>, Error> {
    let mut kept = Vec::new();
    for &table in TABLES.iter().filter(|table| table.is_partition("day")) {
        let delta = DeltaTable::open(store.clone(), table).await?;
        for (source, next) in &delta.snapshot().positions {
            if let (Some(tenant), Some(since)) = (source.strip_prefix(SOURCE), day(*next)) {
                kept.push(Kept { table: table.name, tenant: tenant.to_owned(), since });
            }
        }
    }
    Ok(kept)
}

/// The latest day before which records of some tenant were taken out.
pub(crate) fn kept_since(positions: &BTreeMap<String, u64>) -> Option<NaiveDate> {
    positions.iter().filter(|(source, _)| source.starts_with(SOURCE)).filter_map(|(_, next)| day(*next)).max()
}

/// Whether a commit of this kind may take out a file: the position says up to which day it goes.
pub(crate) fn may_remove(path: &str, positions: &[(String, u64)]) -> bool {
    let part = |name: &str| path.split('/').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    let (Some(tenant), Some(of)) = (part("tenant"), part("day")) else { return false };
    let Ok(of) = of.parse::<NaiveDate>() else { return false };
    positions.iter().any(|(source, next)| source.strip_prefix(SOURCE) == Some(tenant) && number(of) < *next)
}

fn place(file: &Add) -> Option<(String, NaiveDate)> {
    let value = |name: &str| file.partition_values.get(name)?.as_deref();
    Some((value("tenant")?.to_owned(), value("day")?.parse().ok()?))
}

/// Days since the year 1, which a position counts.
fn number(day: NaiveDate) -> u64 {
    u64::try_from(day.num_days_from_ce()).unwrap_or_default()
}

fn day(number: u64) -> Option<NaiveDate> {
    NaiveDate::from_num_days_from_ce_opt(i32::try_from(number).ok()?)
}
