//! The state of a table at one version, written down whole, so that nobody has to read the log from its beginning.
//!
//! A checkpoint is a Parquet file of actions, as the protocol has it. It is a copy: what counts are the commits. One that
//! is damaged or half written is passed over, and the log is read from further back; so commits are deleted only behind
//! two of them ([`super::cleaning`]).

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::{Deserialize, Serialize};

use super::action::{Action, Remove, TxnAction};
use super::statement::{self, CHECKPOINT_SCHEMA, CheckpointStatement};
use super::{DeltaTable, LOG_FOLDER, PROTOCOL, Snapshot, apply_action};
use crate::error::Error;

/// Files that left the table are named so long. Vacuum has deleted them by then.
const REMOVED_KEPT: TimeDelta = TimeDelta::days(7);

/// Largest checkpoint that is read: some million files.
const CHECKPOINT_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// The file that says which checkpoint is the newest. A hint: without it, or if it lies, the log is read from its start.
const HINT: &str = "_last_checkpoint";

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hint {
    pub(crate) version: u64,
    /// Actions in the checkpoint.
    pub(crate) size: u64,
}

/// Where what is said of checkpoints lies, and the copies of what commits say, below the table's folder.
pub(crate) const PROOF_FOLDER: &str = "_proof";

/// Writes the state of the snapshot, and then the hint that leads to it.
pub(super) async fn write(delta: &DeltaTable, now: DateTime<Utc>) -> Result<(), Error> {
    let snapshot = delta.snapshot();
    let Some(version) = snapshot.version else { return Ok(()) };
    let actions = actions(snapshot, now - REMOVED_KEPT);
    let size = actions.len() as u64;
    let bytes = tokio::task::spawn_blocking(move || encode(&actions)).await.map_err(|_| Error::Worker)??;
    let (file, hint) = (path(delta, &file_name(version)), path(delta, HINT));
    let statement = CheckpointStatement {
        schema: CHECKPOINT_SCHEMA.to_owned(),
        table: delta.table().name.to_owned(),
        version,
        head: snapshot.head.clone(),
        actions: size,
        bytes: bytes.len() as u64,
        sha256: statement::sha256(&bytes),
        public_key: delta.store().signer().map(|signer| signer.public_key().to_hex()),
    };
    let proof = serde_json::to_vec(&statement::signed(&statement, delta.store())?)?;
    // First, because a checkpoint of which nothing is said would look like one that somebody has put there.
    let said = delta.location(&statement_name(version));
    delta.store().objects().put(&said, PutPayload::from(proof)).await?;
    delta.store().objects().put(&file, PutPayload::from(bytes)).await?;
    delta.store().make_durable(vec![file]).await?;
    let text = serde_json::to_vec(&Hint { version, size })?;
    delta.store().objects().put(&hint, PutPayload::from(text)).await?;
    Ok(())
}

/// The state at the newest checkpoint that the hint leads to, if it can be read.
pub(super) async fn newest(delta: &DeltaTable) -> Result<Option<Snapshot>, Error> {
    let Some(version) = hinted(delta).await? else { return Ok(None) };
    read(delta, version).await
}

/// The version that the hint names.
pub(super) async fn hinted(delta: &DeltaTable) -> Result<Option<u64>, Error> {
    let Some(bytes) = get(delta, HINT).await? else { return Ok(None) };
    Ok(serde_json::from_slice::<Hint>(&bytes).ok().map(|hint| hint.version))
}

/// The state at a checkpoint, if it is there and can be read.
pub(super) async fn read(delta: &DeltaTable, version: u64) -> Result<Option<Snapshot>, Error> {
    let Some(bytes) = get(delta, &file_name(version)).await? else { return Ok(None) };
    let decoded = tokio::task::spawn_blocking(move || decode(bytes, version)).await.map_err(|_| Error::Worker)?;
    if decoded.is_none() {
        tracing::warn!(event = "archive_checkpoint_unreadable", table = delta.table().name, version);
    }
    let Some(mut snapshot) = decoded else { return Ok(None) };
    // The chain goes on from the commit itself, which a checkpoint does not hold.
    let entry = delta.read_entry(version).await?.ok_or(Error::damaged(delta.table().name, version))?;
    snapshot.head = statement::proof_of(&entry).map(|proof| statement::hash(&proof.statement));
    Ok(Some(snapshot))
}

/// Where what is said of a checkpoint lies, below the table's folder.
pub(super) fn statement_name(version: u64) -> String {
    format!("{PROOF_FOLDER}/{version:020}.checkpoint.json")
}

fn file_name(version: u64) -> String {
    format!("{version:020}.checkpoint.parquet")
}

fn path(delta: &DeltaTable, name: &str) -> Path {
    Path::from_iter([delta.table().name, LOG_FOLDER, name])
}

async fn get(delta: &DeltaTable, name: &str) -> Result<Option<Bytes>, Error> {
    match delta.store().objects().get(&path(delta, name)).await {
        Ok(found) if found.meta.size > CHECKPOINT_BYTES_MAX => Ok(None),
        Ok(found) => Ok(Some(found.bytes().await?)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What the snapshot is made of, in one order.
fn actions(snapshot: &Snapshot, removed_since: DateTime<Utc>) -> Vec<Action> {
    let mut actions = vec![Action::Protocol(PROTOCOL)];
    actions.extend(snapshot.metadata.iter().cloned().map(Action::Metadata));
    actions.extend(snapshot.positions.iter().map(|(source, next)| {
        let version = i64::try_from(*next).unwrap_or(i64::MAX);
        Action::Txn(TxnAction { app_id: source.clone(), version, last_updated: None })
    }));
    actions.extend(snapshot.files.values().cloned().map(Action::Add));
    let kept = snapshot.removed.iter().filter(|&(_, &millis)| millis >= removed_since.timestamp_millis());
    let kept: BTreeMap<&String, &i64> = kept.collect();
    actions.extend(kept.into_iter().map(|(path, millis)| {
        Action::Remove(Remove { path: path.clone(), deletion_timestamp: Some(*millis), data_change: false })
    }));
    actions
}

/// Actions as rows, each with one column that is not null.
fn encode(actions: &[Action]) -> Result<Vec<u8>, Error> {
    let mut lines = Vec::new();
    for action in actions {
        serde_json::to_writer(&mut lines, action)?;
        lines.push(b'\n');
    }
    let schema = Arc::new(schema());
    let mut writer = ArrowWriter::try_new(Vec::new(), schema.clone(), None)?;
    for batch in arrow::json::ReaderBuilder::new(schema).build(Cursor::new(lines))? {
        writer.write(&batch?)?;
    }
    Ok(writer.into_inner()?)
}

fn decode(bytes: Bytes, version: u64) -> Option<Snapshot> {
    let mut lines = arrow::json::LineDelimitedWriter::new(Vec::new());
    for batch in ParquetRecordBatchReaderBuilder::try_new(bytes).ok()?.build().ok()? {
        lines.write(&batch.ok()?).ok()?;
    }
    lines.finish().ok()?;
    let mut snapshot = Snapshot { version: Some(version), ..Snapshot::default() };
    for line in lines.into_inner().split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let action = serde_json::from_slice(line).ok()?;
        // A row that is nothing we know would be a file or a position less.
        if matches!(action, Action::Unknown(_)) {
            return None;
        }
        apply_action(&mut snapshot, action).ok()?;
    }
    snapshot.metadata.is_some().then_some(snapshot)
}

fn schema() -> Schema {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let long = |name: &str| Field::new(name, DataType::Int64, true);
    let int = |name: &str| Field::new(name, DataType::Int32, true);
    let flag = |name: &str| Field::new(name, DataType::Boolean, true);
    let record = |name: &str, fields: Vec<Field>| Field::new(name, DataType::Struct(Fields::from(fields)), true);
    let texts =
        |name: &str| Field::new(name, DataType::List(Arc::new(Field::new("element", DataType::Utf8, true))), true);
    let map = |name: &str| {
        let fields = vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, true)];
        let entry = Field::new("key_value", DataType::Struct(Fields::from(fields)), false);
        Field::new(name, DataType::Map(Arc::new(entry), false), true)
    };
    Schema::new(vec![
        record("protocol", vec![int("minReaderVersion"), int("minWriterVersion")]),
        record(
            "metaData",
            vec![
                text("id"),
                text("name"),
                record("format", vec![text("provider"), map("options")]),
                text("schemaString"),
                texts("partitionColumns"),
                map("configuration"),
                long("createdTime"),
            ],
        ),
        record("txn", vec![text("appId"), long("version"), long("lastUpdated")]),
        record(
            "add",
            vec![
                text("path"),
                map("partitionValues"),
                long("size"),
                long("modificationTime"),
                flag("dataChange"),
                text("stats"),
                map("tags"),
            ],
        ),
        record("remove", vec![text("path"), long("deletionTimestamp"), flag("dataChange")]),
    ])
}
