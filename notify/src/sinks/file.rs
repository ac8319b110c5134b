//! `file`: one line of JSON for each message, appended to a file that log shippers can follow.
//!
//! A batch is written and synced before it counts as delivered. The file is opened for each batch, so that it may be
//! rotated away at any time; it is made readable for its owner only. A line that a crash has cut short is ended before
//! the next begins, and the message it held is written again.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use runtime::clock::Clock;

use super::{Deliver, Kind, Outgoing};
use crate::entry::{Failure, FailureClass};
use crate::settings::{Sink, SinkErrorKind};

pub(super) const KIND: Kind = Kind {
    name: "file",
    build,
    // A sync for each line would be slower than the findings may come.
    batch_max: 256,
    // One at a time: lines must not run into each other.
    concurrency_max: 1,
    paced: false,
};

struct Lines {
    path: PathBuf,
}

fn build(sink: &Sink, _: &Clock) -> Result<Arc<dyn Deliver>, SinkErrorKind> {
    let path = sink.path.clone().ok_or(SinkErrorKind::Missing { setting: "path" })?;
    Ok(Arc::new(Lines { path }))
}

#[async_trait]
impl Deliver for Lines {
    async fn deliver(&self, batch: &[Outgoing]) -> Vec<Result<(), Failure>> {
        let (path, lines, count) = (self.path.clone(), lines(batch), batch.len());
        let written = tokio::task::spawn_blocking(move || append(&path, &lines)).await;
        let result = match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(failed(&error.to_string())),
            Err(_) => Err(failed("the write was interrupted")),
        };
        vec![result; count]
    }
}

/// A full disk or a missing folder may be mended.
pub(super) fn failed(reason: &str) -> Failure {
    Failure { class: FailureClass::Retry { after: None }, label: "other", reason: reason.to_owned() }
}

/// The messages as lines. A body is one line already: its newlines are escapes.
pub(super) fn lines(batch: &[Outgoing]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(batch.iter().map(|outgoing| outgoing.body.len() + 1).sum());
    for outgoing in batch {
        lines.extend_from_slice(&outgoing.body);
        lines.push(b'\n');
    }
    lines
}

fn append(path: &Path, lines: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let existed = path.exists();
    let mut file = options.open(path)?;
    if ends_within_line(&mut file)? {
        file.write_all(b"\n")?;
    }
    file.write_all(lines)?;
    file.sync_data()?;
    if !existed {
        // The file's name is in its folder: it has to survive as well.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

fn ends_within_line(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != [b'\n'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::{Context, Kind as BodyKind, body};
    use crate::samples::hostile_findings;

    #[tokio::test]
    async fn every_message_is_one_line_whatever_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("findings.ndjson");
        let findings = hostile_findings();
        let batch: Vec<Outgoing> = findings
            .iter()
            .map(|finding| {
                let context =
                    Context { kind: BodyKind::Created, incident_id: None, dedup_key: &finding.id, previous_id: None };
                Outgoing { id: finding.id.clone(), body: body(finding, &context) }
            })
            .collect();
        // A crash has left half a line.
        std::fs::write(&path, b"{\"type\":\"find").unwrap();
        let sink = Lines { path: path.clone() };
        assert!(sink.deliver(&batch).await.iter().all(Result::is_ok));
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.split_terminator('\n').collect();
        assert_eq!(lines.len(), 1 + findings.len());
        for (line, finding) in lines[1..].iter().zip(&findings) {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(value["data"]["id"], finding.id.as_str());
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn the_file_is_its_owners_and_a_folder_that_is_missing_is_for_later() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("findings.ndjson");
        let message = [Outgoing { id: "a_1_open".into(), body: b"{}".to_vec() }];
        assert_eq!(Lines { path: path.clone() }.deliver(&message).await, [Ok(())]);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let missing = Lines { path: folder.path().join("no/such/folder") };
        let answers = missing.deliver(&message).await;
        assert!(matches!(&answers[0], Err(failure) if failure.class == FailureClass::Retry { after: None }));
    }
}
