//! Everything that a run leaves on the machine, and its end.
//!
//! Guarantee: when the value is dropped, or this program ends in any way, all processes of the run are killed, what it
//! mounted and its network are taken away, and its folder is deleted.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Kills the group, undoes what must be undone, deletes the folder; once its input is closed, which the system does when
/// this program is killed.
const STOPPER: &str = r#"
cat > /dev/null
kill -KILL "-$1" 2> /dev/null
[ -e "$2/undo" ] && sh "$2/undo" > /dev/null 2>&1
rm -rf "$2"
"#;

pub struct Group {
    /// Does nothing but name the group.
    leader: Child,
    stopper: Child,
    folder: PathBuf,
}

impl Group {
    pub fn new(folder: PathBuf) -> anyhow::Result<Group> {
        std::fs::create_dir_all(&folder)?;
        let leader = Command::new("sleep").arg("infinity").process_group(0).stdin(Stdio::null()).spawn()?;
        let stopper = Command::new("sh")
            .args(["-c", STOPPER, "sh", &leader.id().to_string()])
            .arg(&folder)
            .process_group(0)
            .stdin(Stdio::piped())
            .spawn()?;
        Ok(Group { leader, stopper, folder })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A command whose process ends with the run.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.process_group(self.leader.id() as i32).stdin(Stdio::null());
        command
    }

    /// Adds a line of shell to what is done at the end, the last first.
    pub fn at_the_end(&self, line: &str) -> anyhow::Result<()> {
        let file = self.folder.join("undo");
        let before = std::fs::read_to_string(&file).unwrap_or_default();
        Ok(std::fs::write(file, format!("{line}\n{before}"))?)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.stopper.stdin.take();
        // Each ends by itself now; a failure to wait leaves nothing but a line in the process table.
        let _ = self.stopper.wait();
        let _ = self.leader.kill();
        let _ = self.leader.wait();
    }
}

/// Runs a small program to its end. Fails with what it said.
pub fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    anyhow::ensure!(
        output.status.success(),
        "{command:?} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a program can be run here.
pub fn has(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).stdout(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
}
