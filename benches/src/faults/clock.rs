//! The wall clock of every process jumps by an hour, either way and back. The system's clock is left alone: a small
//! library before libc ([`SHIM`]) adds an offset to what the process is told.

use std::process::Command;
use std::time::Duration;

use super::group::{has, run};
use super::play::{Play, Setup};
use super::{Backend, Fault, Skipped};

pub const FAULT: Fault = Fault {
    name: "clock",
    backends: &[Backend::Embedded, Backend::Kafka],
    setup: |_, kills| Setup { played: Duration::from_secs(16) * kills, ..Setup::default() },
    play,
};

const SHIM: &str = include_str!("clock.c");

const HOUR_SECONDS: i64 = 3_600;

fn play(play: &mut Play) -> anyhow::Result<()> {
    if !has("cc") {
        return Err(Skipped("no C compiler".to_owned()).into());
    }
    let folder = play.group.folder().to_owned();
    let (source, library, offset) = (folder.join("clock.c"), folder.join("clock.so"), folder.join("clock"));
    std::fs::write(&source, SHIM)?;
    std::fs::write(&offset, 0_i64.to_ne_bytes())?;
    run(Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl"))?;
    for actor in &mut play.cast {
        actor.environment("LD_PRELOAD", &library.to_string_lossy());
        actor.environment("FAULTS_CLOCK", &offset.to_string_lossy());
    }
    // In place: the processes have the file in their memory.
    let set = |seconds: i64| -> std::io::Result<()> {
        let file = std::fs::File::options().write(true).open(&offset)?;
        std::os::unix::fs::FileExt::write_all_at(&file, &seconds.to_ne_bytes(), 0)
    };
    play.start_all()?;
    while play.done < play.kills {
        let right = play.dice.moment(Duration::from_secs(3), Duration::from_secs(8));
        play.wait(right)?;
        let hours: i64 = if play.dice.below(2) == 0 { 1 } else { -1 };
        let wrong = play.dice.moment(Duration::from_secs(3), Duration::from_secs(12));
        play.tell(format_args!("the clock jumps by {hours} h for {wrong:?}"));
        set(hours * HOUR_SECONDS)?;
        play.done += 1;
        play.wait(wrong)?;
        set(0)?;
    }
    Ok(())
}
