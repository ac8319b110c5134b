//! `kill -9` of every role, at random moments and at named places between any two effects.

use std::time::{Duration, Instant};

use super::dice::Dice;
use super::play::{Play, Setup};
use super::{Backend, Fault};

pub const FAULT: Fault = Fault {
    name: "kill9",
    backends: &[Backend::Embedded, Backend::Kafka],
    setup: |backend, kills| Setup { played: between_kills(backend) * kills, ..Setup::default() },
    play,
};

/// Places of the embedded log, on Kafka, and of each role.
const EMBEDDED: [&str; 4] = ["log_after_offsets", "log_after_outputs", "log_before_commit", "log_after_commit"];
const KAFKA: [&str; 6] = [
    "kafka_fenced",
    "kafka_restored",
    "kafka_begun",
    "kafka_outputs_written",
    "kafka_before_commit",
    "kafka_after_commit",
];
const ARCHIVE: [&str; 2] = ["archive_before_commit", "archive_after_commit"];
const NOTIFY: [&str; 2] = ["notify_before_send", "notify_after_send"];

/// The first reaching of a place is often not the worst.
const TIMES_MAX: u64 = 6;

/// About how long records must arrive for each kill, so that there is work to be disturbed.
fn between_kills(backend: Backend) -> Duration {
    Duration::from_millis(if backend == Backend::Embedded { 900 } else { 1_500 })
}

/// How long a start takes at most, about: one life in three ends within it, the others at work.
fn start_time(backend: Backend) -> Duration {
    Duration::from_secs(if backend == Backend::Embedded { 2 } else { 5 })
}

fn life_max(backend: Backend) -> Duration {
    Duration::from_secs(if backend == Backend::Embedded { 10 } else { 16 })
}

/// How long the pipeline may take to begin its work, undisturbed.
const AT_WORK_WITHIN: Duration = Duration::from_secs(60);

/// What is to become of one process next.
struct Fate {
    dice: Dice,
    due: Instant,
    failpoint: Option<String>,
}

fn places(role: &str, backend: Backend) -> Vec<&'static str> {
    let mut places = if backend == Backend::Embedded { EMBEDDED.to_vec() } else { KAFKA.to_vec() };
    match role {
        // Where they are there at all, twice as likely as those of the log.
        "archive" => places.extend(ARCHIVE.iter().cycle().take(4)),
        "notify" => places.extend(NOTIFY.iter().cycle().take(4)),
        _ => {}
    }
    places
}

fn begin_life(play: &mut Play, index: usize, mut dice: Dice) -> anyhow::Result<Fate> {
    let start = start_time(play.backend);
    let mut life = match dice.below(3) {
        0 => dice.moment(Duration::from_millis(50), start),
        _ => dice.moment(start, life_max(play.backend)),
    };
    let role = play.cast[index].role;
    let place = dice.one_of(&places(role, play.backend)).copied().unwrap_or_default();
    let times = 1 + dice.below(TIMES_MAX);
    let failpoint = (dice.below(2) == 0).then(|| format!("{place}:{times}"));
    if failpoint.is_some() {
        // Time to come there.
        life += start_time(play.backend);
    }
    play.start(index, failpoint.as_deref())?;
    Ok(Fate { dice, due: Instant::now() + life, failpoint })
}

fn play(play: &mut Play) -> anyhow::Result<()> {
    play.start_all()?;
    play.until(AT_WORK_WITHIN, |play| Ok(play.blobs_had() > 0))?;
    let mut fates = Vec::new();
    for index in 0..play.cast.len() {
        let dice = play.dice.of(index);
        play.cast[index].kill();
        fates.push(begin_life(play, index, dice)?);
    }
    let mut at_places = 0;
    while play.done < play.kills {
        for (index, fate) in fates.iter_mut().enumerate() {
            let lives = play.cast[index].lives();
            if lives && Instant::now() < fate.due {
                continue;
            }
            let name = play.cast[index].name.clone();
            match (&fate.failpoint, lives) {
                (Some(failpoint), false) => {
                    at_places += 1;
                    play.tell(format_args!("{name} killed at {failpoint}"));
                }
                (None, false) => {
                    play.tell(format_args!("{name} ended by itself, not killed"));
                    play.cast[index].ended_by_itself += 1;
                }
                (_, true) => play.tell(format_args!("{name} killed")),
            }
            play.cast[index].kill();
            play.done += u32::from(lives || fate.failpoint.is_some());
            *fate = begin_life(play, index, fate.dice.clone())?;
            if play.done >= play.kills {
                break;
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    play.tell(format_args!("{} kills, {at_places} of them at named places", play.done));
    // The last lives have no fate any more.
    for index in 0..play.cast.len() {
        play.cast[index].kill();
        play.start(index, None)?;
    }
    Ok(())
}
