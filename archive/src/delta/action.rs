//! The actions of the Delta protocol that harrier writes and reads, in the protocol's own names.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::content::Content;

/// One line of a log entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Action {
    CommitInfo(CommitInfo),
    Protocol(Protocol),
    #[serde(rename = "metaData")]
    Metadata(Metadata),
    Txn(TxnAction),
    Add(Add),
    Remove(Remove),
    #[serde(untagged)]
    Unknown(serde_json::Value),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CommitInfo {
    pub(super) timestamp: i64,
    pub(super) operation: String,
    pub(super) engine_info: String,
    /// Nothing in commits of others, and in ours from before they were proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) proof: Option<Proof>,
}

/// A statement and its signature.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Proof {
    /// JSON as text: what was signed, byte for byte.
    pub(crate) statement: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) signature: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Protocol {
    pub(super) min_reader_version: u32,
    pub(super) min_writer_version: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) id: String,
    pub(super) name: Option<String>,
    pub(super) format: Format,
    pub(super) schema_string: String,
    pub(super) partition_columns: Vec<String>,
    pub(super) configuration: BTreeMap<String, String>,
    pub(super) created_time: Option<i64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Format {
    pub(super) provider: String,
    pub(super) options: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TxnAction {
    pub(super) app_id: String,
    pub(super) version: i64,
    pub(super) last_updated: Option<i64>,
}

/// A file of the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Add {
    /// Below the table's folder.
    pub path: String,
    pub partition_values: BTreeMap<String, Option<String>>,
    /// Bytes.
    pub size: u64,
    /// Milliseconds since 1970.
    pub modification_time: i64,
    pub data_change: bool,
    /// [`FileStatistics`] as JSON text, as the protocol has it.
    pub stats: Option<String>,
    /// [`SHA256_TAG`] and [`CONTENT_TAG`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
}

/// The tag of a file that holds its hash.
pub(crate) const SHA256_TAG: &str = "sha256";

/// The tag of a file that holds the sum over its rows.
pub(crate) const CONTENT_TAG: &str = "content";

impl Add {
    /// How many rows the file has, if its commit says so.
    pub fn rows(&self) -> u64 {
        let statistics = self.stats.as_deref().and_then(|text| serde_json::from_str::<FileStatistics>(text).ok());
        statistics.map_or(0, |statistics| statistics.num_records)
    }

    /// The file's hash, if its commit says it.
    pub(crate) fn sha256(&self) -> Option<&str> {
        Some(self.tags.as_ref()?.get(SHA256_TAG)?)
    }

    /// What the file holds, if its commit says so.
    pub(crate) fn content(&self) -> Option<Content> {
        let statistics: FileStatistics = serde_json::from_str(self.stats.as_deref()?).ok()?;
        Content::parse(self.tags.as_ref()?.get(CONTENT_TAG)?, statistics.num_records)
    }
}

/// What a reader may know of a file without opening it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileStatistics {
    pub num_records: u64,
    #[serde(default)]
    pub min_values: BTreeMap<String, serde_json::Value>,
    #[serde(default)]
    pub max_values: BTreeMap<String, serde_json::Value>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Remove {
    pub(super) path: String,
    pub(super) deletion_timestamp: Option<i64>,
    pub(super) data_change: bool,
}
