//! Which evidence rows are written already. Each revision of a finding names all its evidence; the table has each once.

use std::collections::{HashMap, HashSet};

use schemas::Finding;
use schemas::json::key_hash;

use crate::delta::DeltaTable;
use crate::error::Error;
use crate::file::read_text_columns;

/// Hashes of event ids, by hash of (tenant, finding id): 16 bytes a row of the table.
#[derive(Default)]
pub(super) struct KnownEvidence(HashMap<u128, HashSet<u128>>);

impl KnownEvidence {
    /// What the table held at its last commit: the table itself is the only truth about that.
    pub(super) async fn load(delta: &DeltaTable) -> Result<KnownEvidence, Error> {
        let mut known = KnownEvidence::default();
        for [tenant, finding_id, event_id] in read_text_columns(delta, ["tenant", "finding_id", "event_id"]).await? {
            known.0.entry(key_hash(&[&tenant, &finding_id])).or_default().insert(key_hash(&[&event_id]));
        }
        Ok(known)
    }

    /// Event ids of the finding that have no row yet; from now on they have.
    pub(super) fn add<'f>(&mut self, finding: &'f Finding) -> Vec<&'f str> {
        let known = self.0.entry(key_hash(&[finding.tenant.as_str(), &finding.id])).or_default();
        finding.evidence.iter().map(String::as_str).filter(|event_id| known.insert(key_hash(&[event_id]))).collect()
    }
}
