//! Running `harrier` and reading what it prints.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Longest time any command may take: an import of 100 MB on a machine that is busy with other tests.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(120);

/// How often a condition is looked at.
pub const TICK: Duration = Duration::from_millis(50);

/// A data folder, and the commands on it.
pub struct Harrier {
    folder: TempDir,
}

/// A command that has ended.
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// What `harrier import` says it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub received: u64,
    pub admitted: u64,
    pub variant: u64,
    pub duplicate: u64,
    pub rejected: u64,
}

/// A finding as two runs are compared by it.
pub type Standing = BTreeMap<String, Value>;

impl Harrier {
    pub fn new() -> Harrier {
        Harrier { folder: tempfile::tempdir().unwrap() }
    }

    /// A folder for the test's own files, removed at its end.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn data_dir(&self) -> PathBuf {
        self.path("data")
    }

    /// Writes a file beside the data.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// Runs a command on the data folder to its end.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ran {
        let mut command = command();
        command.args(arguments).arg("--data-dir").arg(self.data_dir());
        finish(&mut command)
    }

    /// Imports files as tenant `contoso`, which must end well or with the code for incomplete.
    pub fn import(&self, paths: &[PathBuf], more: &[&str]) -> (Counts, Ran) {
        let mut arguments: Vec<&OsStr> = vec!["import".as_ref()];
        arguments.extend(paths.iter().map(|path| path.as_os_str()));
        if !more.contains(&"--tenant") {
            arguments.extend(["--tenant", "contoso"].map(OsStr::new));
        }
        arguments.extend(more.iter().map(OsStr::new));
        let ran = self.run(arguments);
        assert!(matches!(ran.code, Some(0 | 1)), "{ran}");
        (ran.counts(), ran)
    }

    /// The rows of a query.
    pub fn rows(&self, query: &str) -> Vec<Value> {
        let ran = self.run(["sql", "--format", "ndjson", query]);
        assert_eq!(ran.code, Some(0), "{query}\n{ran}");
        ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The one number that a query answers.
    pub fn number(&self, query: &str) -> u64 {
        let rows = self.rows(query);
        let row = rows[0].as_object().unwrap();
        row.values().next().unwrap().as_u64().unwrap_or_else(|| panic!("{query}: {row:?}"))
    }

    /// Every event as (tenant, id, raw), sorted: what is there twice is in the list twice.
    pub fn events(&self) -> Vec<(String, String, String)> {
        let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
        let rows = self.rows("SELECT tenant, id, raw FROM events");
        let mut events: Vec<_> =
            rows.iter().map(|row| (text(row, "tenant"), text(row, "id"), text(row, "raw"))).collect();
        events.sort();
        events
    }

    /// The findings that stand, by id, without what depends on the run: revision, times of receipt, incidents.
    pub fn standing(&self) -> Standing {
        let query = "SELECT f.tenant, f.id, f.status, f.rule_id, f.rule_version, f.title, f.level, f.entity, f.first_event, \
                     f.last_event, f.event_count, f.reason, f.notes, \
                     (SELECT count(*) FROM evidence e WHERE e.finding_id = f.id AND e.tenant = f.tenant) AS evidence \
                     FROM findings f WHERE f.status IN ('open', 'final')";
        self.rows(query).into_iter().map(|row| (row["id"].as_str().unwrap().to_owned(), row)).collect()
    }
}

/// `harrier`, with nothing of the tester's surroundings.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_harrier"));
    command.env_remove("HARRIER_FAILPOINT").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command to its end, or fails the test when it takes too long.
pub fn finish(command: &mut Command) -> Ran {
    let mut child = command.spawn().unwrap();
    let stdout = drain(child.stdout.take().unwrap());
    let stderr = drain(child.stderr.take().unwrap());
    let code = wait(&mut child, COMMAND_TIME_MAX);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap_or_else(|error| panic!("output is not UTF-8: {error}"));
    Ran { code, stdout: text(stdout.join().unwrap()), stderr: text(stderr.join().unwrap()) }
}

fn drain(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// The exit code; `None` if a signal ended the process.
pub fn wait(child: &mut Child, longest: Duration) -> Option<i32> {
    let mut status = None;
    let ended = until(longest, || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    if !ended {
        child.kill().unwrap();
        child.wait().unwrap();
        panic!("the command takes longer than {longest:?}");
    }
    status.and_then(|status| status.code())
}

/// Waits for a condition. Whether it came true in time.
pub fn until(longest: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if started.elapsed() > longest {
            return false;
        }
        std::thread::sleep(TICK);
    }
}

impl Ran {
    /// The numbers at the head of an import's answer.
    pub fn counts(&self) -> Counts {
        let number = |name: &str| {
            let line = self.stdout.lines().find(|line| line.starts_with(name));
            let words =
                line.and_then(|line| line.split_whitespace().nth(1)).unwrap_or_else(|| panic!("no {name}: {self}"));
            words.replace(',', "").parse().unwrap()
        };
        Counts {
            received: number("received"),
            admitted: number("admitted"),
            variant: number("variant"),
            duplicate: number("duplicate"),
            rejected: number("rejected"),
        }
    }

    /// Lines on stderr that are not the farewell of an import.
    pub fn complaints(&self) -> Vec<&str> {
        let farewell = |line: &&str| !line.starts_with("in ") && !line.starts_with("next: ");
        self.stderr.lines().filter(farewell).collect()
    }
}

impl Counts {
    pub fn assert_adds_up(&self) {
        assert_eq!(self.received, self.admitted + self.variant + self.duplicate + self.rejected, "{self:?}");
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit code {:?}\n--- stdout\n{}\n--- stderr\n{}", self.code, self.stdout, self.stderr)
    }
}
