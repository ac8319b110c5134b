//! The archive in an object store: every command works as on a folder, on a real server that speaks S3.

#[path = "../../../archive/tests/s3/mod.rs"]
mod s3;

use std::path::PathBuf;

use serde_json::Value;

use crate::binary::{Harrier, Ran, command, finish};
use crate::sample::{self, joined, lines};

/// A data folder whose archive is a bucket.
struct OnS3 {
    harrier: Harrier,
    config: PathBuf,
    /// The folder that the bucket is to the server.
    bucket: PathBuf,
    _server: s3::Server,
}

impl OnS3 {
    /// Nothing where there is no server, which is said.
    fn new() -> Option<OnS3> {
        let harrier = Harrier::new();
        let root = harrier.path("s3");
        let bucket = root.join("audit-archive");
        std::fs::create_dir_all(&bucket).unwrap();
        let server = s3::Server::start(&root)?;
        secret(&harrier, s3::SECRET_ACCESS_KEY);
        let text = format!(
            "[archive]\nurl = \"s3://audit-archive/case/1\"\nendpoint = \"http://{}\"\nallow_http = true\n\
             access_key_id = \"{}\"\nsecret_access_key_file = \"secret\"\n",
            server.address,
            s3::ACCESS_KEY_ID
        );
        let config = harrier.file("harrier.toml", text);
        Some(OnS3 { harrier, config, bucket, _server: server })
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let config = self.config.to_string_lossy().into_owned();
        self.harrier.run(arguments.iter().copied().chain(["--config", &config]))
    }

    fn run_with(&self, variable: (&str, &str), arguments: &[&str]) -> Ran {
        let mut command = command();
        command.env(variable.0, variable.1).args(arguments).arg("--config").arg(&self.config);
        finish(command.arg("--data-dir").arg(self.harrier.data_dir()))
    }

    fn import(&self, file: &str) -> Ran {
        self.run(&["import", file, "--tenant", "contoso", "--domains", "contoso.example"])
    }

    fn rows(&self, query: &str) -> Vec<Value> {
        let ran = self.run(&["sql", "--format", "ndjson", query]);
        assert_eq!(ran.code, Some(0), "{query}\n{ran}");
        ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Writes the key, for its owner alone.
fn secret(harrier: &Harrier, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    let file = harrier.file("secret", text);
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

const EVENTS: &str = "SELECT tenant, id, raw FROM events ORDER BY 1, 2, 3";
const FINDINGS: &str = "SELECT id, status, rule_id, entity, event_count, reason FROM findings WHERE status IN ('open', 'final') ORDER BY id";

#[test]
fn every_command_works_on_a_bucket_as_on_a_folder() {
    let Some(on_s3) = OnS3::new() else { return };
    let folder = Harrier::new();
    let lines = lines(&sample::world(11));
    for (name, part) in [("a.jsonl", &lines[..lines.len() / 2]), ("b.jsonl", &lines[lines.len() / 2..])] {
        let file = on_s3.harrier.file(name, joined(part));
        let ran = on_s3.import(&file.to_string_lossy());
        assert_eq!(ran.code, Some(0), "{ran}");
        ran.counts().assert_adds_up();
    }
    folder.import(&["a.jsonl", "b.jsonl"].map(|name| on_s3.harrier.path(name)), &["--domains", "contoso.example"]);
    assert!(!on_s3.harrier.data_dir().join("archive").exists(), "nothing of the archive is in the data folder");
    assert!(on_s3.bucket.join("case/1/events/_delta_log/00000000000000000000.json").exists());
    for query in [EVENTS, FINDINGS] {
        let rows = on_s3.rows(query);
        assert!(!rows.is_empty());
        assert_eq!(rows, folder.rows(query), "{query}");
    }
    let whole = |on_s3: &OnS3| {
        let ran = on_s3.run(&["archive", "verify"]);
        assert!(ran.code == Some(0) && ran.stdout.ends_with("whole\n"), "{ran}");
    };
    whole(&on_s3);
    assert_eq!(on_s3.run(&["archive", "compact"]).code, Some(0));
    whole(&on_s3);
    let first = &on_s3.rows("SELECT id, raw FROM events ORDER BY id LIMIT 1")[0];
    let raw = on_s3.run(&["archive", "raw", first["id"].as_str().unwrap()]);
    assert_eq!(raw.stdout, first["raw"].as_str().unwrap());
    let finding = on_s3.rows("SELECT id FROM findings WHERE status IN ('open', 'final') ORDER BY id LIMIT 1");
    let finding = finding[0]["id"].as_str().unwrap();
    for arguments in [
        &["archive", "stats"][..],
        &["findings", "list"],
        &["findings", "show", finding],
        &["timeline", finding],
        &["rules", "backtest"],
        &["rules", "coverage"],
        &["dead-letters", "list"],
        &["sql", "--query", "taken", "user=sam.aspen@contoso.example"],
        &["check", "--offline"],
    ] {
        let ran = on_s3.run(arguments);
        assert!(ran.code == Some(0) && !ran.stdout.is_empty(), "{arguments:?}\n{ran}");
    }
    // Whoever alters an object behind harrier's back is seen.
    let entry = on_s3.bucket.join("case/1/events/_delta_log/00000000000000000000.json");
    let mut bytes = std::fs::read(&entry).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(&entry, bytes).unwrap();
    let ran = on_s3.run(&["archive", "verify"]);
    assert!(ran.code == Some(1) && ran.stdout.starts_with("events/_delta_log/00000000000000000000.json: "), "{ran}");
}

#[test]
fn killed_on_either_side_of_a_commit_nothing_is_lost_or_doubled() {
    let Some(on_s3) = OnS3::new() else { return };
    let lines = lines(&sample::world(12));
    let file = on_s3.harrier.file("a.jsonl", joined(&lines)).to_string_lossy().into_owned();
    let import = ["import", file.as_str(), "--tenant", "contoso", "--domains", "contoso.example"];
    for failpoint in ["archive_before_commit@events", "archive_after_commit@events", "archive_before_commit@findings"] {
        let ran = on_s3.run_with(("HARRIER_FAILPOINT", failpoint), &import);
        assert_eq!(ran.code, None, "{failpoint}: it ended by itself: {ran}");
    }
    let ran = on_s3.run(&import);
    assert_eq!(ran.code, Some(0), "{ran}");
    let folder = Harrier::new();
    folder.import(&[file.into()], &["--domains", "contoso.example"]);
    assert_eq!(on_s3.rows(EVENTS), folder.rows(EVENTS));
    let verified = on_s3.run(&["archive", "verify"]);
    assert!(verified.code == Some(0) && verified.stdout.ends_with("whole\n"), "{verified}");
}

#[test]
fn what_an_operator_must_change_is_said_in_one_line_without_a_secret() {
    let Some(on_s3) = OnS3::new() else { return };
    let file = on_s3.harrier.file("a.jsonl", sample::sign_in(1)).to_string_lossy().into_owned();
    let import = ["import", file.as_str(), "--tenant", "contoso"];
    let refused = |ran: Ran, code: i32, text: &str| {
        assert_eq!(ran.code, Some(code), "{ran}");
        assert!(ran.stderr.lines().count() == 1 && ran.stderr.contains(text), "{text}\n{ran}");
        assert!(!ran.stderr.contains("never-in") && !ran.stderr.contains("wrong-"), "{ran}");
    };
    refused(on_s3.run(&["sql", "SELECT 1"]), 1, "there is no archive in s3://audit-archive/case/1: nothing has been");
    // A store that overwrites: what a proxy before it, or an old one, may do.
    let overwriting = on_s3.run_with(("HARRIER_BREAK", "archive-without-put-if-absent"), &import);
    refused(overwriting, 78, "s3://audit-archive/case/1 cannot hold an archive: it overwrites");
    secret(&on_s3.harrier, "wrong-key");
    refused(on_s3.run(&import), 78, "the archive at s3://audit-archive/case/1: ");
    refused(on_s3.run(&["sql", "SELECT 1"]), 78, "SignatureDoesNotMatch");
    let checked = on_s3.run(&["check"]);
    assert!(checked.stdout.contains("FAIL  archive: s3://audit-archive/case/1: "), "{checked}");
    std::fs::remove_file(on_s3.harrier.path("secret")).unwrap();
    refused(on_s3.run(&["check", "--offline"]), 78, "1 problem");
    secret(&on_s3.harrier, s3::SECRET_ACCESS_KEY);
    let text = std::fs::read_to_string(&on_s3.config).unwrap();
    on_s3.harrier.file("harrier.toml", text.replace("s3://audit-archive", "s3://nowhere"));
    refused(on_s3.run(&import), 78, "NoSuchBucket");
    on_s3.harrier.file("harrier.toml", text);
    let ran = on_s3.run(&import);
    assert_eq!(ran.code, Some(0), "{ran}");
    assert_eq!(on_s3.rows(EVENTS).len(), 1);
    assert!(on_s3.run(&["check"]).stdout.contains("ok    archive: s3://audit-archive/case/1\n"));
}
