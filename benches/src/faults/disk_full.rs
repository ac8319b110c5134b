//! The disk is full for a while, on a small file system of its own; then there is space again.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::group::{Group, has, run};
use super::play::{Play, Setup};
use super::{Backend, Fault, Skipped};

pub const FAULT: Fault = Fault {
    name: "disk-full",
    backends: &[Backend::Embedded, Backend::Kafka],
    setup: |_, kills| Setup { disk_mebibytes: Some(400), played: Duration::from_secs(18) * kills, ..Setup::default() },
    play,
};

/// Mounts a file system of its own, which the end of the group takes away.
pub fn mount(group: &Group, folder: &Path, mebibytes: u64) -> anyhow::Result<()> {
    if !has("mount") {
        return Err(Skipped("no mount".to_owned()).into());
    }
    let size = format!("size={mebibytes}m");
    let mounted = run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder));
    mounted.map_err(|error| Skipped(format!("no file system can be mounted: {error}")))?;
    group.at_the_end(&format!("umount -l '{}'", folder.display()))
}

/// Takes all the space there is.
fn fill(file: &Path) -> anyhow::Result<()> {
    let mut ballast = std::fs::File::create(file)?;
    let mut size = 1 << 20;
    while size > 0 {
        // Less and less, until nothing fits any more.
        if ballast.write_all(&vec![0; size]).is_err() {
            size /= 2;
        }
    }
    Ok(())
}

fn play(play: &mut Play) -> anyhow::Result<()> {
    play.start_all()?;
    let ballast = play.data.join("ballast");
    while play.done < play.kills {
        let space = play.dice.moment(Duration::from_secs(3), Duration::from_secs(10));
        play.wait(space)?;
        let full = play.dice.moment(Duration::from_secs(2), Duration::from_secs(12));
        play.tell(format_args!("the disk is full for {full:?}"));
        fill(&ballast)?;
        play.done += 1;
        play.wait(full)?;
        std::fs::remove_file(&ballast)?;
    }
    Ok(())
}
