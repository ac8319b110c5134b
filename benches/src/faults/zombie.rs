//! Somebody is stopped for longer than it is believed to live, then goes on as if nothing had been: at random moments,
//! and between the deed and the commit of it.

use std::time::Duration;

use super::play::{Play, SESSION, Setup};
use super::{Backend, Fault};

pub const FAULT: Fault = Fault {
    name: "zombie",
    backends: &[Backend::Embedded, Backend::Kafka],
    setup: |backend, kills| Setup { spare: true, played: (asleep(backend) + 2 * PAUSE) * kills, ..Setup::default() },
    play,
};

/// Between two sleeps, so that who took over has worked.
const PAUSE: Duration = Duration::from_secs(6);

/// How long to wait for somebody to come to a place.
const REACHED_WITHIN: Duration = Duration::from_secs(15);

/// Longer than a session, or a lease of the embedded log.
pub fn asleep(backend: Backend) -> Duration {
    match backend {
        Backend::Kafka => 2 * SESSION,
        Backend::Embedded => Duration::from_secs(24),
    }
}

/// Stops somebody at a place and lets it sleep. Whether it came there.
pub fn sleeps_at(play: &mut Play, index: usize, place: &str, time: Duration) -> anyhow::Result<bool> {
    play.cast[index].kill();
    play.start(index, Some(&format!("{place}:stop")))?;
    let reached = play.until(REACHED_WITHIN, |play| Ok(play.cast[index].is_stopped()))?;
    if reached {
        play.tell(format_args!("{} sleeps at {place} for {time:?}", play.cast[index].name));
        play.wait(time)?;
        play.cast[index].signal("-CONT")?;
    } else {
        // It would stop some time later, and nobody would wake it.
        play.cast[index].kill();
        play.start(index, None)?;
    }
    Ok(reached)
}

fn play(play: &mut Play) -> anyhow::Result<()> {
    play.start_all()?;
    play.wait(PAUSE)?;
    let before_commit = if play.backend == Backend::Kafka { "kafka_before_commit" } else { "archive_before_commit" };
    while play.done < play.kills {
        let index = play.dice.below(play.cast.len() as u64) as usize;
        let time = asleep(play.backend) + play.dice.moment(Duration::ZERO, Duration::from_secs(2));
        let place = match play.cast[index].role {
            "archive" => "archive_before_commit",
            // Inside a commit of the embedded log nobody may sleep: the file is locked, and all wait for its end.
            _ => before_commit,
        };
        let at_place =
            play.dice.below(2) == 0 && (play.backend == Backend::Kafka || play.cast[index].role == "archive");
        let times = 1 + play.dice.below(3);
        play.done += 1;
        if at_place && sleeps_at(play, index, &format!("{place}:{times}"), time)? {
            play.wait(PAUSE)?;
            continue;
        }
        play.tell(format_args!("{} sleeps for {time:?}", play.cast[index].name));
        play.cast[index].signal("-STOP")?;
        play.wait(time)?;
        play.cast[index].signal("-CONT")?;
        play.wait(PAUSE)?;
    }
    Ok(())
}
