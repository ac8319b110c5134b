//! The files that lie there against those that should.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};
use ring::digest::{Context, SHA256};

use super::chain::Chain;
use super::{Fault, Kind, LEFTOVER_AGE_MAX, Report, Verifier};
use crate::delta::statement::{CHECKPOINT_SCHEMA, CheckpointStatement, FileStatement};
use crate::delta::{CHECKPOINT_ENDING, COPY_COMMITS, COPY_ENDING, Hint, LOG_FOLDER, PROOF_FOLDER, Proof, version_of};
use crate::error::Error;
use crate::file::hex;
use crate::store::Store;
use crate::table::Table;

/// What lies in a table's folder.
#[derive(Default, PartialEq)]
pub(super) struct Listed {
    pub(super) commits: BTreeMap<u64, ObjectMeta>,
    /// Copies of what commits say, by the first of them.
    pub(super) copies: BTreeMap<u64, ObjectMeta>,
    pub(super) checkpoints: BTreeMap<u64, ObjectMeta>,
    /// What is said of checkpoints.
    statements: BTreeMap<u64, ObjectMeta>,
    hint: Option<ObjectMeta>,
    /// Everything else, by its path below the table's folder.
    files: BTreeMap<String, ObjectMeta>,
}

/// Lists a table's folder.
pub(super) async fn list(store: &Store, table: &Table) -> Result<Listed, Error> {
    let folder = Path::from(table.name);
    let mut listed = Listed::default();
    let mut objects = store.objects().list(Some(&folder));
    while let Some(object) = objects.try_next().await? {
        let Some(parts) = object.location.prefix_match(&folder) else { continue };
        let path = parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/");
        let version = |folder: &str, ending: &str| version_of(path.strip_prefix(folder)?.strip_prefix('/')?, ending);
        if let Some(version) = version(LOG_FOLDER, ".json") {
            listed.commits.insert(version, object);
        } else if let Some(version) = version(LOG_FOLDER, CHECKPOINT_ENDING) {
            listed.checkpoints.insert(version, object);
        } else if let Some(version) = version(PROOF_FOLDER, ".checkpoint.json") {
            listed.statements.insert(version, object);
        } else if let Some(first) = version(PROOF_FOLDER, COPY_ENDING).filter(|first| first % COPY_COMMITS == 0) {
            listed.copies.insert(first, object);
        } else if path == format!("{LOG_FOLDER}/_last_checkpoint") {
            listed.hint = Some(object);
        } else {
            listed.files.insert(path, object);
        }
    }
    Ok(listed)
}

impl Verifier {
    /// Checks data files. Returns how many, their bytes, and how many a crash has left.
    pub(super) async fn check_files(
        &self,
        chain: &Chain,
        listed: &Listed,
        report: &mut Report,
    ) -> Result<(u64, u64, u64), Error> {
        let (mut files, mut bytes, mut leftovers) = (0, 0, 0);
        let paths: BTreeSet<&String> = listed.files.keys().chain(chain.files.keys()).collect();
        for path in paths {
            let kind = match (chain.files.get(path), listed.files.get(path)) {
                (Some(known), None) => known.is_live.then_some(Kind::Missing),
                (None, Some(object)) if self.is_leftover(path, object) => {
                    leftovers += 1;
                    None
                }
                (None, _) => Some(Kind::Added),
                (Some(known), Some(object)) => {
                    files += 1;
                    bytes += object.size;
                    match &known.statement {
                        Some(statement) => self.check_file(object, statement).await?,
                        None => None,
                    }
                }
            };
            if let Some(kind) = kind {
                report.add(Fault { file: format!("{}/{path}", chain.table.name), kind });
            }
        }
        Ok((files, bytes, leftovers))
    }

    async fn check_file(&self, object: &ObjectMeta, expected: &FileStatement) -> Result<Option<Kind>, Error> {
        let (size, sha256) = (expected.bytes, &expected.sha256);
        if let Some(kind) = other_size(object, size) {
            return Ok(Some(kind));
        }
        let mut hash = Context::new(&SHA256);
        let mut chunks = self.store.objects().get(&object.location).await?.into_stream();
        while let Some(chunk) = chunks.try_next().await? {
            hash.update(&chunk);
        }
        let is_same = hex(hash.finish().as_ref()) == *sha256;
        Ok((!is_same).then_some(Kind::Altered { from: 0, to: size }))
    }

    /// Only what has our form of a name and is young: what a crash leaves is both.
    fn is_leftover(&self, path: &str, object: &ObjectMeta) -> bool {
        let name = path.rsplit('/').next().unwrap_or_default();
        let id = name.strip_suffix(".parquet").and_then(|name| name.strip_prefix("h-").or(name.strip_prefix("c-")));
        let is_ours = id.is_some_and(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        is_ours && object.last_modified > self.now - LEFTOVER_AGE_MAX
    }

    /// Checkpoints, against what was said of each when it was made.
    pub(super) async fn check_checkpoints(
        &self,
        chain: &Chain,
        listed: &Listed,
        report: &mut Report,
    ) -> Result<(), Error> {
        let mut said = BTreeMap::new();
        for (&version, object) in &listed.statements {
            let bytes = self.store.objects().get(&object.location).await?.bytes().await?;
            match self.checkpoint_statement(chain, version, &bytes) {
                Ok(statement) => drop(said.insert(version, statement)),
                Err(kind) => report.add(Fault { file: object.location.to_string(), kind }),
            }
        }
        for (version, object) in &listed.checkpoints {
            let file = object.location.to_string();
            match said.get(version) {
                None if listed.statements.contains_key(version) => {}
                None => {
                    let file = format!("{}/{PROOF_FOLDER}/{version:020}.checkpoint.json", chain.table.name);
                    report.add(Fault { file, kind: Kind::Missing });
                }
                Some(statement) => {
                    let expected = FileStatement {
                        path: file.clone(),
                        bytes: statement.bytes,
                        rows: statement.actions,
                        sha256: statement.sha256.clone(),
                        content: String::new(),
                    };
                    if let Some(kind) = self.check_file(object, &expected).await? {
                        report.add(Fault { file, kind });
                    }
                }
            }
        }
        self.check_hint(chain, listed, &said, report).await
    }

    /// The hint names a checkpoint that is there. A crash leaves the newest without it, or it on the one before.
    async fn check_hint(
        &self,
        chain: &Chain,
        listed: &Listed,
        said: &BTreeMap<u64, CheckpointStatement>,
        report: &mut Report,
    ) -> Result<(), Error> {
        let file = format!("{}/{LOG_FOLDER}/_last_checkpoint", chain.table.name);
        let mut newest_first = said.iter().rev();
        let allowed: Vec<_> = newest_first.by_ref().take(2).collect();
        let mut hinted = None;
        match &listed.hint {
            None if said.len() > 1 => report.add(Fault { file, kind: Kind::Missing }),
            None => {}
            Some(object) => {
                let bytes = self.store.objects().get(&object.location).await?.bytes().await?;
                let named = allowed.iter().find(|(version, statement)| {
                    let hint = Hint { version: **version, size: statement.actions };
                    serde_json::to_vec(&hint).is_ok_and(|expected| *expected == *bytes)
                });
                hinted = named.map(|(version, _)| **version);
                if hinted.is_none() {
                    report.add(Fault { file, kind: Kind::Altered { from: 0, to: bytes.len() as u64 } });
                }
            }
        }
        let newest = said.keys().next_back();
        // Of those whose commits were cleaned a crash leaves what is said of them.
        let needed = said.keys().filter(|&&version| version >= chain.copied);
        for &version in needed.filter(|version| !listed.checkpoints.contains_key(version)) {
            if Some(&version) != newest || hinted == Some(version) {
                let file = format!("{}/{LOG_FOLDER}/{version:020}.checkpoint.parquet", chain.table.name);
                report.add(Fault { file, kind: Kind::Missing });
            }
        }
        Ok(())
    }

    fn checkpoint_statement(&self, chain: &Chain, version: u64, bytes: &[u8]) -> Result<CheckpointStatement, Kind> {
        let proof: Proof = serde_json::from_slice(bytes).map_err(|_| Kind::NoStatement)?;
        let statement: CheckpointStatement = serde_json::from_str(&proof.statement).map_err(|_| Kind::NoStatement)?;
        if let Some(signature) = &proof.signature
            && let Some(kind) = self.check_signature(&proof.statement, signature, statement.public_key.as_deref())
        {
            return Err(kind);
        }
        let is_here = statement.schema == CHECKPOINT_SCHEMA && statement.table == chain.table.name;
        if !is_here || statement.version != version {
            return Err(Kind::Misplaced { table: statement.table, version: statement.version });
        }
        let is_of_chain = statement.head.as_ref().is_none_or(|head| chain.hashes.get(head) == Some(&version));
        let has_signer = proof.signature.is_some() || statement.public_key.is_none();
        if !is_of_chain || !has_signer || (proof.signature.is_none() && !self.keys.is_empty()) {
            return Err(Kind::Forged);
        }
        let expected = serde_json::to_vec(&proof).map_err(|_| Kind::NoStatement)?;
        match bytes.iter().zip(&expected).position(|(a, b)| a != b) {
            Some(at) => Err(Kind::Altered { from: at as u64, to: at as u64 + 1 }),
            None if bytes.len() > expected.len() => {
                Err(Kind::Longer { bytes: bytes.len() as u64, expected: expected.len() as u64 })
            }
            None => Ok(statement),
        }
    }
}

fn other_size(object: &ObjectMeta, expected: u64) -> Option<Kind> {
    match object.size.cmp(&expected) {
        std::cmp::Ordering::Less => Some(Kind::Cut { bytes: object.size, expected }),
        std::cmp::Ordering::Greater => Some(Kind::Longer { bytes: object.size, expected }),
        std::cmp::Ordering::Equal => None,
    }
}
