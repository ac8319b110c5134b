//! The findings of each tenant, newest revision: what the `findings` table is replaced from.

use std::collections::{BTreeMap, BTreeSet};

use schemas::{Finding, incident};

use crate::delta::DeltaTable;
use crate::error::Error;
use crate::file::read_text_columns;
use crate::table::{FINDING_COLUMN, Row, finding_row};

/// Newest revision by tenant and id. Findings are few beside records: some hundred bytes each, thousands a year.
#[derive(Default)]
pub(super) struct Standing {
    tenants: BTreeMap<String, BTreeMap<String, Finding>>,
    dirty: BTreeSet<String>,
}

impl Standing {
    /// What the table held at its last commit.
    pub(super) async fn load(delta: &DeltaTable) -> Result<Standing, Error> {
        let mut standing = Standing::default();
        for [text] in read_text_columns(delta, [FINDING_COLUMN]).await? {
            // The table is replaced from what is held here: a row passed over now would be gone at the next commit.
            let damaged = |_| Error::damaged(delta.table().name, delta.snapshot().version.unwrap_or(0));
            standing.insert(serde_json::from_str::<Finding>(&text).map_err(damaged)?);
        }
        Ok(standing)
    }

    /// Takes a newer revision.
    pub(super) fn put(&mut self, finding: Finding) {
        self.dirty.insert(finding.tenant.as_str().to_owned());
        self.insert(finding);
    }

    fn insert(&mut self, finding: Finding) {
        let tenant = self.tenants.entry(finding.tenant.as_str().to_owned()).or_default();
        match tenant.get(&finding.id) {
            // A rule whose meaning has changed counts its revisions anew; what it says now holds.
            Some(known) if known.revision >= finding.revision && known.rule.version == finding.rule.version => {}
            _ => {
                tenant.insert(finding.id.clone(), finding);
            }
        }
    }

    /// Tenants with news since the last call.
    pub(super) fn take_dirty(&mut self) -> Vec<String> {
        std::mem::take(&mut self.dirty).into_iter().collect()
    }

    /// All rows of a tenant, each with its incident.
    pub(super) fn rows(&mut self, tenant: &str) -> Vec<Row<'_>> {
        let Some(findings) = self.tenants.get_mut(tenant) else { return Vec::new() };
        let standing: Vec<&Finding> = findings.values().filter(|finding| finding.status.stands()).collect();
        let incidents = incident::assign(&standing);
        let by_id: BTreeMap<String, String> =
            standing.iter().map(|finding| finding.id.clone()).zip(incidents).collect();
        for finding in findings.values_mut() {
            finding.incident_id = by_id.get(&finding.id).cloned();
        }
        findings.values().map(finding_row).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use chrono::Utc;
    use object_store::{ObjectStoreExt, PutPayload};

    use super::*;
    use crate::delta::{Add, Changes};
    use crate::rows::Rows;
    use crate::store::Store;
    use crate::table::{Cell, FINDINGS, Row, text};

    #[tokio::test]
    async fn a_row_that_cannot_be_read_is_an_error_and_not_a_finding_less() {
        let folder = tempfile::tempdir().unwrap();
        let mut delta = DeltaTable::open(Store::folder(folder.path()).unwrap(), &FINDINGS).await.unwrap();
        let columns = FINDINGS.columns();
        let row: Row<'_> = columns
            .iter()
            .map(|column| match column.name {
                "tenant" => text("t1"),
                FINDING_COLUMN => text("{\"half\":"),
                _ => Cell::Null,
            })
            .collect();
        let mut rows = Rows::new(&FINDINGS);
        rows.push(&row, 0);
        let (_, rows) = rows.into_partitions().next().unwrap();
        let written = crate::file::write(&FINDINGS, rows).unwrap();
        let add = Add {
            path: "tenant=t1/a.parquet".into(),
            partition_values: BTreeMap::from([("tenant".to_owned(), Some("t1".to_owned()))]),
            size: written.bytes.len() as u64,
            modification_time: 0,
            data_change: true,
            stats: None,
            tags: None,
        };
        delta.store().objects().put(&delta.location(&add.path), PutPayload::from(written.bytes)).await.unwrap();
        delta.commit(Changes { add: vec![add], ..Changes::default() }, Utc::now()).await.unwrap();
        assert!(Standing::load(&delta).await.is_err());
    }
}
