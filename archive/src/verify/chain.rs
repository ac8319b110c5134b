//! The commits of a table, one after the other, each against its statement and the one before.

use std::collections::{BTreeMap, HashMap};

use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::files::Listed;
use super::{Fault, Kind, Report, Verifier};
use crate::content::Content;
use crate::delta::statement::{COMMIT_SCHEMA, CommitStatement, FileStatement, first_line, hash, proof_of, sha256};
use crate::delta::{Erasure, LOG_FOLDER, Operation, Proof};
use crate::error::Error;
use crate::retention::may_remove;
use crate::table::Table;

/// What the commits up to here say.
pub(super) struct Chain {
    pub(super) table: &'static Table,
    pub(super) commits: u64,
    /// So many of them are in copies.
    pub(super) copied: u64,
    pub(super) unproven: u64,
    /// Hash of the newest statement, and its version.
    pub(super) head: Option<String>,
    pub(super) newest: Option<u64>,
    /// The version of every statement, by its hash.
    pub(super) hashes: HashMap<String, u64>,
    /// Every file that was ever added.
    pub(super) files: BTreeMap<String, Known>,
    positions: BTreeMap<String, u64>,
    /// What was past its time and taken out.
    pub(super) retired_files: u64,
    pub(super) retired_rows: u64,
    /// What was erased, with the version of each commit that did it.
    pub(super) erased: Vec<(u64, Erasure)>,
    /// The first commit after the last one that is signed.
    unsigned_from: Option<u64>,
    /// The commit before is missing or cannot be read: the next has nothing to follow on.
    pub(super) is_broken: bool,
}

/// A file that a commit has added.
pub(super) struct Known {
    /// Nothing, if its commit is not proven.
    pub(super) statement: Option<FileStatement>,
    pub(super) is_live: bool,
}

impl Chain {
    pub(super) fn new(table: &'static Table) -> Chain {
        Chain {
            table,
            commits: 0,
            copied: 0,
            unproven: 0,
            head: None,
            newest: None,
            hashes: HashMap::new(),
            files: BTreeMap::new(),
            positions: BTreeMap::new(),
            retired_files: 0,
            retired_rows: 0,
            erased: Vec::new(),
            unsigned_from: None,
            is_broken: false,
        }
    }

    pub(super) fn file_name(&self, version: u64) -> String {
        format!("{}/{LOG_FOLDER}/{version:020}.json", self.table.name)
    }
}

impl Verifier {
    /// Reads the commits in their order: those that are copied, then those of the log.
    pub(super) async fn check_log(&self, chain: &mut Chain, listed: &Listed, report: &mut Report) -> Result<(), Error> {
        self.check_copies(chain, listed, report).await?;
        let mut next = chain.copied;
        for &version in listed.commits.range(chain.copied..).map(|(version, _)| version) {
            let file = chain.file_name(version);
            // Ten thousand missing ones are told as one.
            if version != next && !chain.is_broken {
                report.add(Fault { file: chain.file_name(next), kind: Kind::Missing });
            }
            chain.is_broken |= version != next;
            next = version.saturating_add(1);
            let entry = self.store.objects().get(&Path::from(file.as_str())).await?.bytes().await?;
            chain.commits += 1;
            let begins_proven = chain.newest.is_none() && version > 0 && chain.unproven == version;
            for kind in self.check_entry(chain, version, &entry) {
                report.add(match kind {
                    // It names one before, and that has no statement: it had one.
                    Kind::NotNext if begins_proven => {
                        Fault { file: chain.file_name(version - 1), kind: Kind::NoStatement }
                    }
                    kind => Fault { file: file.clone(), kind },
                });
            }
        }
        // What nobody signed, at the end or everywhere, nobody stands for.
        if chain.newest.is_none() && chain.commits > 0 {
            chain.unsigned_from = Some(0);
        }
        if let Some(version) = chain.unsigned_from {
            report.add(Fault { file: chain.file_name(version), kind: Kind::NotSigned });
        }
        Ok(())
    }

    fn check_entry(&self, chain: &mut Chain, version: u64, entry: &[u8]) -> Vec<Kind> {
        let Some((proof, statement)) = read(entry) else {
            let is_beginning = chain.newest.is_none() && !chain.is_broken;
            chain.is_broken = !is_beginning;
            chain.unproven += u64::from(is_beginning);
            apply_unproven(chain, entry);
            return if is_beginning { Vec::new() } else { vec![Kind::NoStatement] };
        };
        let mut kinds = self.check_statement(chain, version, &proof, &statement);
        if kinds.is_empty() {
            kinds.extend(check_bytes(entry, &proof, &statement));
        }
        kinds.extend(take(chain, version, &proof, statement));
        kinds
    }

    /// Whether the statement is of this place, and signed by who may.
    pub(super) fn check_statement(
        &self,
        chain: &Chain,
        version: u64,
        proof: &Proof,
        statement: &CommitStatement,
    ) -> Vec<Kind> {
        if let Some(signature) = &proof.signature
            && let Some(kind) = self.check_signature(&proof.statement, signature, statement.public_key.as_deref())
        {
            return vec![kind];
        }
        if proof.signature.is_none() && statement.public_key.is_some() {
            return vec![Kind::Forged];
        }
        let is_here = statement.schema == COMMIT_SCHEMA && statement.table == chain.table.name;
        if !is_here || statement.version != version {
            return vec![Kind::Misplaced { table: statement.table.clone(), version: statement.version }];
        }
        Vec::new()
    }
}

/// Takes the statement into the chain. Returns what does not go with those before it.
pub(super) fn take(chain: &mut Chain, version: u64, proof: &Proof, statement: CommitStatement) -> Vec<Kind> {
    let mut kinds = Vec::from_iter(check_follows(chain, version, &statement));
    let hash = hash(&proof.statement);
    match proof.signature {
        // All before it is in its hash.
        Some(_) => chain.unsigned_from = None,
        None => chain.unsigned_from = chain.unsigned_from.or(Some(version)),
    }
    chain.hashes.insert(hash.clone(), version);
    (chain.head, chain.newest, chain.is_broken) = (Some(hash), Some(version), false);
    kinds.extend(apply(chain, statement));
    kinds
}

pub(super) fn read(entry: &[u8]) -> Option<(Proof, CommitStatement)> {
    let proof = proof_of(entry)?;
    let statement = serde_json::from_str(&proof.statement).ok()?;
    Some((proof, statement))
}

/// Every byte of the commit against its statement.
pub(super) fn check_bytes(entry: &[u8], proof: &Proof, statement: &CommitStatement) -> Option<Kind> {
    let Ok(first) = first_line(statement, proof.clone()) else { return Some(Kind::Forged) };
    let end = entry.iter().position(|&byte| byte == b'\n').unwrap_or(entry.len());
    if entry[..end] != first[..] {
        let at = entry[..end].iter().zip(&first).position(|(a, b)| a != b).unwrap_or(end.min(first.len())) as u64;
        return Some(Kind::Altered { from: at, to: at + 1 });
    }
    let mut at = end;
    for expected in &statement.lines {
        // Over the end of the line before, to the end of this one.
        let Some(line) = entry.get(at..).and_then(|rest| rest.strip_prefix(b"\n")) else { break };
        let length = line.iter().position(|&byte| byte == b'\n').unwrap_or(line.len());
        let is_last = entry.len() == at + 1 + length;
        if sha256(&line[..length]) != *expected {
            let (from, to) = (at as u64 + 1, (at + 1 + length) as u64);
            return Some(if is_last { Kind::Cut { bytes: to, expected: to + 1 } } else { Kind::Altered { from, to } });
        }
        at += 1 + length;
    }
    let said = entry[..at].iter().filter(|&&byte| byte == b'\n').count();
    match entry.get(at..) {
        Some(b"\n") if said == statement.lines.len() => None,
        Some(rest) if said == statement.lines.len() && rest.len() > 1 => {
            Some(Kind::Longer { bytes: entry.len() as u64, expected: at as u64 + 1 })
        }
        _ => Some(Kind::Cut { bytes: entry.len() as u64, expected: entry.len() as u64 + 1 }),
    }
}

/// Whether the commit follows on the one before it.
fn check_follows(chain: &Chain, version: u64, statement: &CommitStatement) -> Option<Kind> {
    if chain.is_broken {
        return None;
    }
    let is_first = chain.newest.is_none() && version == chain.unproven;
    let follows = match (&statement.previous, &chain.head) {
        (None, None) => is_first,
        (previous, head) => previous == head,
    };
    (!follows).then_some(Kind::NotNext)
}

fn apply(chain: &mut Chain, statement: CommitStatement) -> Vec<Kind> {
    let mut kinds = Vec::new();
    let is_retention = statement.operation == Operation::Delete.as_str();
    let limits: Vec<(String, u64)> =
        statement.positions.iter().map(|position| (position.source.clone(), position.next)).collect();
    let has_positions = !limits.is_empty();
    for position in statement.positions {
        let expected = chain.positions.insert(position.source.clone(), position.next).unwrap_or(0);
        if expected != position.from {
            kinds.push(Kind::PositionGap { source: position.source, from: position.from, expected });
        }
    }
    let (mut out, mut into, mut is_known) = (Content::default(), Content::default(), true);
    for path in statement.remove {
        match chain.files.get_mut(&path) {
            Some(known) if known.is_live => {
                known.is_live = false;
                let content = known.statement.as_ref().and_then(|file| Content::parse(&file.content, file.rows));
                is_known &= content.is_some();
                if is_retention && !may_remove(&path, &limits) {
                    kinds.push(Kind::RemovesKept { path });
                    continue;
                }
                if is_retention {
                    chain.retired_files += 1;
                    chain.retired_rows += known.statement.as_ref().map_or(0, |file| file.rows);
                }
                out.add(&content.unwrap_or_default());
            }
            _ => kinds.push(Kind::RemovesUnknown { path }),
        }
    }
    if is_retention && !statement.add.is_empty() {
        kinds.push(Kind::RowsChanged);
    }
    let is_erasure = statement.operation == Operation::Erase.as_str();
    for file in statement.add {
        into.add(&Content::parse(&file.content, file.rows).unwrap_or_default());
        chain.files.insert(file.path.clone(), Known { statement: Some(file), is_live: true });
    }
    if statement.operation == Operation::Optimize.as_str() && is_known && out != into {
        kinds.push(Kind::RowsChanged);
    }
    match statement.erasure {
        Some(erasure) if is_erasure => {
            let erased = Content::parse(&erasure.content, erasure.rows);
            into.add(&erased.unwrap_or_default());
            // What was there is what is there and what was erased.
            if erased.is_none() || (is_known && out != into) || has_positions {
                kinds.push(Kind::ErasesOther);
            }
            chain.erased.push((statement.version, erasure));
        }
        None if !is_erasure => {}
        _ => kinds.push(Kind::ErasesOther),
    }
    kinds
}

/// What a commit without a statement does, so that its files are known to belong there.
fn apply_unproven(chain: &mut Chain, entry: &[u8]) {
    for line in entry.split(|&byte| byte == b'\n') {
        let Ok(action) = serde_json::from_slice::<serde_json::Value>(line) else { continue };
        if let Some(path) = action["add"]["path"].as_str() {
            chain.files.insert(path.to_owned(), Known { statement: None, is_live: true });
        }
        if let Some(path) = action["remove"]["path"].as_str()
            && let Some(known) = chain.files.get_mut(path)
        {
            known.is_live = false;
        }
        if let (Some(source), Some(next)) = (action["txn"]["appId"].as_str(), action["txn"]["version"].as_u64()) {
            chain.positions.insert(source.to_owned(), next);
        }
    }
}
