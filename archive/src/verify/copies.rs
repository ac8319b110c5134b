//! What the oldest commits say, in the copies that were made before they were deleted.
//!
//! A copy holds a line for each of [`COPY_COMMITS`] commits: its statement and its signature, byte for byte as the commit
//! had them. It is checked as the commits are, against its signatures and the statement before; of a commit that is still
//! there beside its copy every byte is.

use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::chain::{Chain, check_bytes, read, take};
use super::files::Listed;
use super::{Fault, Kind, Report, Verifier};
use crate::delta::statement::CommitStatement;
use crate::delta::{COPY_COMMITS, Proof, copy_name};
use crate::error::Error;

impl Verifier {
    /// Reads the copies in their order, and looks whether what they stand for may be gone.
    pub(super) async fn check_copies(
        &self,
        chain: &mut Chain,
        listed: &Listed,
        report: &mut Report,
    ) -> Result<(), Error> {
        let in_order = (0..).step_by(COPY_COMMITS as usize).zip(listed.copies.keys());
        let copies = in_order.take_while(|(expected, first)| expected == *first).count() as u64;
        let end = lost_before(listed).max(copies * COPY_COMMITS);
        while chain.copied < end {
            let first = chain.copied;
            let file = format!("{}/{}", chain.table.name, copy_name(first));
            if listed.copies.contains_key(&first) {
                self.check_copy(chain, first, &file, listed, report).await?;
                chain.copied += COPY_COMMITS;
                continue;
            }
            report.add(Fault { file, kind: Kind::Missing });
            chain.is_broken = true;
            chain.copied = listed.copies.range(first..end).next().map_or(end, |(next, _)| *next);
        }
        for first in listed.copies.range(end..).map(|(first, _)| copy_name(*first)) {
            report.add(Fault { file: format!("{}/{first}", chain.table.name), kind: Kind::Added });
        }
        // A reader begins at a checkpoint, and needs every commit from there on, of which there is at least its own.
        let begins = listed.checkpoints.last_key_value().map_or(chain.copied, |(version, _)| *version);
        let gone = (begins..chain.copied).find(|version| !listed.commits.contains_key(version));
        let is_cut = chain.copied > 0 && listed.commits.range(chain.copied..).next().is_none();
        if let Some(version) = gone.or(is_cut.then_some(chain.copied)) {
            report.add(Fault { file: chain.file_name(version), kind: Kind::Missing });
        }
        Ok(())
    }

    async fn check_copy(
        &self,
        chain: &mut Chain,
        first: u64,
        file: &str,
        listed: &Listed,
        report: &mut Report,
    ) -> Result<(), Error> {
        let bytes = self.store.objects().get(&Path::from(file)).await?.bytes().await?;
        let (mut from, mut version) = (0, first);
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            if version == first + COPY_COMMITS {
                let kind = Kind::Longer { bytes: bytes.len() as u64, expected: from };
                report.add(Fault { file: file.to_owned(), kind });
                return Ok(());
            }
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            let copied = read_line(text);
            let kinds = match &copied {
                Some((proof, statement)) => self.check_line(chain, version, (from, text), proof, statement.clone()),
                None => {
                    chain.is_broken = true;
                    vec![Kind::Altered { from, to: from + line.len() as u64 }]
                }
            };
            kinds.into_iter().for_each(|kind| report.add(Fault { file: file.to_owned(), kind }));
            if listed.commits.contains_key(&version) {
                self.check_left(chain, version, copied.as_ref(), report).await?;
            }
            chain.commits += 1;
            (from, version) = (from + line.len() as u64, version + 1);
        }
        if version < first + COPY_COMMITS || bytes.last() != Some(&b'\n') {
            let length = bytes.len() as u64;
            report.add(Fault { file: file.to_owned(), kind: Kind::Cut { bytes: length, expected: length + 1 } });
            chain.is_broken |= version < first + COPY_COMMITS;
        }
        Ok(())
    }

    fn check_line(
        &self,
        chain: &mut Chain,
        version: u64,
        (from, text): (u64, &[u8]),
        proof: &Proof,
        statement: CommitStatement,
    ) -> Vec<Kind> {
        let mut kinds = self.check_statement(chain, version, proof, &statement);
        // Of many in a file the place says more than that it is one of them.
        let altered = Kind::Altered { from, to: from + text.len() as u64 };
        kinds.iter_mut().filter(|kind| **kind == Kind::Forged).for_each(|kind| *kind = altered.clone());
        if kinds.is_empty() && !serde_json::to_vec(proof).is_ok_and(|expected| expected == text) {
            kinds.push(altered);
        }
        kinds.extend(take(chain, version, proof, statement));
        kinds
    }

    /// A commit that is copied and still there, as a crash leaves it.
    async fn check_left(
        &self,
        chain: &Chain,
        version: u64,
        copied: Option<&(Proof, CommitStatement)>,
        report: &mut Report,
    ) -> Result<(), Error> {
        let Some((proof, statement)) = copied else { return Ok(()) };
        let file = chain.file_name(version);
        let entry = self.store.objects().get(&Path::from(file.as_str())).await?.bytes().await?;
        let kind = match read(&entry) {
            None => Some(Kind::NoStatement),
            Some((own, _)) if own.statement == proof.statement && own.signature == proof.signature => {
                check_bytes(&entry, proof, statement)
            }
            Some((own, says)) => self.check_statement(chain, version, &own, &says).pop().or(Some(Kind::NotNext)),
        };
        if let Some(kind) = kind {
            report.add(Fault { file, kind });
        }
        Ok(())
    }
}

fn read_line(line: &[u8]) -> Option<(Proof, CommitStatement)> {
    let proof: Proof = serde_json::from_slice(line).ok()?;
    let statement = serde_json::from_str(&proof.statement).ok()?;
    Some((proof, statement))
}

/// Up to where the log has lost its beginning by whole copies: a commit or two that are gone were in none.
fn lost_before(listed: &Listed) -> u64 {
    let begins = listed.commits.first_key_value().map_or(0, |(version, _)| *version);
    begins - begins % COPY_COMMITS
}
