//! The processes of `harrier`, and somebody who starts them again when they end, as a service manager would.

use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::group::Group;

/// How long a process may take to end in good order: more than its own budget.
const STOP_TIME_MAX: Duration = Duration::from_secs(90);

const SIGTERM: i32 = 15;

/// How long a service manager waits before it starts somebody again.
const RESTART_WAIT: Duration = Duration::from_secs(1);

/// One process, through all its lives.
pub struct Actor {
    pub role: &'static str,
    pub name: String,
    pub config: PathBuf,
    harrier: PathBuf,
    /// A network of its own, by name.
    pub network: Option<String>,
    environment: Vec<(String, String)>,
    child: Option<Child>,
    /// How long its log was when this life began.
    said_before: u64,
    ended: Option<Instant>,
    /// How often it ended though nobody had ended it.
    pub ended_by_itself: u32,
}

impl Actor {
    pub fn new(role: &'static str, name: String, config: PathBuf, harrier: &Path) -> Actor {
        let harrier = harrier.to_owned();
        let (network, environment) = (None, Vec::new());
        Actor {
            role,
            name,
            config,
            harrier,
            network,
            environment,
            child: None,
            said_before: 0,
            ended: None,
            ended_by_itself: 0,
        }
    }

    /// Sets a variable of all lives to come.
    pub fn environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    pub fn log_file(&self, group: &Group) -> PathBuf {
        group.folder().join(format!("{}.log", self.name))
    }

    /// Starts it and waits for nothing.
    pub fn start(&mut self, group: &Group, failpoint: Option<&str>) -> anyhow::Result<()> {
        let mut command = match &self.network {
            None => group.command(&self.harrier),
            Some(network) => {
                let mut command = group.command("ip");
                command.args(["netns", "exec", network]).arg(&self.harrier);
                command
            }
        };
        let said = std::fs::File::options().create(true).append(true).open(self.log_file(group))?;
        self.said_before = said.metadata()?.len();
        command.args(["run", "--verbose", "--role", self.role, "--config"]).arg(&self.config);
        command.env_remove("HARRIER_FAILPOINT").env_remove("HARRIER_BREAK");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(failpoint) = failpoint {
            command.env("HARRIER_FAILPOINT", failpoint);
        }
        self.child = Some(command.stdout(Stdio::null()).stderr(said).spawn()?);
        self.ended = None;
        Ok(())
    }

    /// Whether the process is there; stopped or not.
    pub fn lives(&mut self) -> bool {
        match &mut self.child {
            Some(child) => child.try_wait().is_ok_and(|status| status.is_none()),
            None => false,
        }
    }

    /// Whether it has been stopped by SIGSTOP.
    pub fn is_stopped(&self) -> bool {
        let Some(child) = &self.child else { return false };
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    }

    pub fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let Some(child) = &self.child else { return Ok(()) };
        Command::new("kill").args([signal, &child.id().to_string()]).stderr(Stdio::null()).status()?;
        Ok(())
    }

    /// SIGKILL: nothing is flushed, nothing is given back.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Gone already is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again if it has ended by itself, after a while.
    pub fn tend(&mut self, group: &Group) -> anyhow::Result<()> {
        if self.child.is_none() || self.lives() {
            return Ok(());
        }
        let ended = *self.ended.get_or_insert_with(Instant::now);
        if ended.elapsed() < RESTART_WAIT {
            return Ok(());
        }
        let status = self.child.take().map(|mut child| child.wait()).transpose()?;
        self.ended_by_itself += 1;
        let last = last_lines(&self.log_file(group), 1);
        eprintln!("{} ended by itself, {}: {last}", self.name, status.map(|s| s.to_string()).unwrap_or_default());
        self.start(group, None)
    }

    /// Whether it has come so far that it listens to signals. Before, SIGTERM is as good as SIGKILL.
    pub fn has_started(&self, group: &Group) -> bool {
        let mut life = Vec::new();
        // Former lives are not read again: they have said much.
        let read = std::fs::File::open(self.log_file(group)).and_then(|mut said| {
            said.seek(SeekFrom::Start(self.said_before))?;
            said.read_to_end(&mut life)
        });
        read.is_ok() && String::from_utf8_lossy(&life).contains("\"event\":\"started\"")
    }

    /// SIGTERM, and the wait for its end. Fails if it ends badly.
    pub fn terminate(&mut self, group: &Group) -> anyhow::Result<()> {
        self.signal("-TERM")?;
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let began = Instant::now();
        while began.elapsed() < STOP_TIME_MAX {
            if let Some(status) = child.try_wait()? {
                let said = last_lines(&self.log_file(group), 3);
                let at_once = status.signal() == Some(SIGTERM) && !self.has_started(group);
                anyhow::ensure!(status.success() || at_once, "{} was asked to end, {status}: {said}", self.name);
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        child.kill()?;
        child.wait()?;
        anyhow::bail!("{} did not end in {STOP_TIME_MAX:?}: {}", self.name, last_lines(&self.log_file(group), 3))
    }
}

pub fn last_lines(file: &Path, count: usize) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(count)..).unwrap_or_default().join("\n")
}
