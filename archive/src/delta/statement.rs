//! What a commit says of itself, signed: the link of a chain that no commit can be taken from, put into or altered in.
//!
//! The statement lies in the commit's own `commitInfo`, as text, so that what was signed is there byte for byte. It names
//! the statement before it by its hash, every file with its hash and rows, how far into the log the table has come, and
//! the hash of every other line of the commit. The first line, which holds it, follows from it byte for byte.

use chrono::NaiveDate;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::action::{Action, Add, CommitInfo, Proof};
use crate::error::Error;
use crate::file::hex;
use crate::store::Store;

/// What kind of statement this is, so that none can stand for another.
pub(crate) const COMMIT_SCHEMA: &str = "harrier.archive.commit/1";
pub(crate) const CHECKPOINT_SCHEMA: &str = "harrier.archive.checkpoint/1";

/// What a commit says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CommitStatement {
    pub(crate) schema: String,
    pub(crate) table: String,
    pub(crate) version: u64,
    /// Hash of the statement before; nothing in the first.
    pub(crate) previous: Option<String>,
    /// Milliseconds since 1970.
    pub(crate) timestamp: i64,
    pub(crate) operation: String,
    pub(crate) engine: String,
    pub(crate) public_key: Option<String>,
    pub(crate) add: Vec<FileStatement>,
    pub(crate) remove: Vec<String>,
    pub(crate) positions: Vec<PositionStatement>,
    /// What was erased; nothing in all other commits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) erasure: Option<Erasure>,
    /// Hash of every line of the commit but the first.
    pub(crate) lines: Vec<String>,
}

/// A file that a commit adds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileStatement {
    pub(crate) path: String,
    pub(crate) bytes: u64,
    pub(crate) rows: u64,
    pub(crate) sha256: String,
    /// The sum over its rows ([`crate::content`]).
    pub(crate) content: String,
}

/// What a commit takes from a source: the offsets from `from` up to and without `next`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PositionStatement {
    pub(crate) source: String,
    pub(crate) from: u64,
    pub(crate) next: u64,
}

/// What a commit says of rows that it takes out for good: all that somebody may know who may not know them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Erasure {
    pub reason: String,
    /// Who decided it.
    pub by: String,
    /// What the rows were chosen by, and not whom.
    pub chosen_by: Vec<String>,
    /// The days that were meant, if not all.
    pub from: Option<NaiveDate>,
    pub until: Option<NaiveDate>,
    pub rows: u64,
    /// The sum over them ([`crate::content`]).
    pub content: String,
}

/// What is said of a checkpoint, beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CheckpointStatement {
    pub(crate) schema: String,
    pub(crate) table: String,
    pub(crate) version: u64,
    /// Hash of the statement of the commit whose state this is.
    pub(crate) head: Option<String>,
    pub(crate) actions: u64,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
    pub(crate) public_key: Option<String>,
}

impl FileStatement {
    /// Of a file that says what it holds. Every file of ours does.
    pub(super) fn of(add: &Add) -> Option<FileStatement> {
        let content = add.content()?;
        Some(FileStatement {
            path: add.path.clone(),
            bytes: add.size,
            rows: content.rows,
            sha256: add.sha256()?.to_owned(),
            content: content.to_text(),
        })
    }
}

/// The hash by which the next statement names this one.
pub(crate) fn hash(statement: &str) -> String {
    sha256(statement.as_bytes())
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

/// A statement as it is stored, with its signature if the store has a signer.
pub(super) fn signed(statement: &impl Serialize, store: &Store) -> Result<Proof, Error> {
    let statement = serde_json::to_string(statement)?;
    let signature = store.signer().map(|signer| signer.sign(&statement));
    Ok(Proof { statement, signature })
}

/// The first line of the commit that makes this statement, without the end of the line.
pub(crate) fn first_line(statement: &CommitStatement, proof: Proof) -> Result<Vec<u8>, Error> {
    let info = CommitInfo {
        timestamp: statement.timestamp,
        operation: statement.operation.clone(),
        engine_info: statement.engine.clone(),
        proof: Some(proof),
    };
    Ok(serde_json::to_vec(&Action::CommitInfo(info))?)
}

/// The proof in the first line of a commit, if there is one.
pub(crate) fn proof_of(entry: &[u8]) -> Option<Proof> {
    let line = entry.split(|&byte| byte == b'\n').next()?;
    match serde_json::from_slice(line).ok()? {
        Action::CommitInfo(info) => info.proof,
        _ => None,
    }
}
