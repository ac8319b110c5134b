//! `kill -9` of every role, at random moments and at named places between any two effects.
//!
//! One life in three ends while the process is starting. Those are not counted: on a busy machine they would be most of
//! them, and a process that has not said `started` has done nothing yet that could be torn.

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
    Duration::from_millis(if backend == Backend::Embedded { 900 } else { 4_000 })
}

/// About how long a start takes on a machine with nothing else to do, and the way from there to the first step.
fn start_time(backend: Backend) -> Duration {
    Duration::from_secs(if backend == Backend::Embedded { 2 } else { 5 })
}

/// How long a life lasts at most once it has started. A detector of the dev profile compiles the rules for seconds before
/// its first step, and on Kafka its partitions move whenever the other one is killed.
fn life_max(backend: Backend) -> Duration {
    Duration::from_secs(if backend == Backend::Embedded { 8 } else { 30 })
}

/// Who has said nothing for so long is killed as it is.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// How long the pipeline may take, undisturbed, until the first records are in the archive.
const AT_WORK_WITHIN: Duration = Duration::from_secs(120);

/// What is to become of one process next.
struct Fate {
    dice: Dice,
    began: Instant,
    /// When it was first seen to have started.
    started: Option<Instant>,
    life: Life,
    failpoint: Option<String>,
}

/// How long a process may live.
enum Life {
    FromBirth(Duration),
    FromStart(Duration),
}

impl Fate {
    fn is_due(&self) -> bool {
        match (&self.life, self.started) {
            (Life::FromBirth(life), _) => self.began.elapsed() >= *life,
            (Life::FromStart(life), Some(started)) => started.elapsed() >= *life,
            (Life::FromStart(_), None) => self.began.elapsed() >= STARTS_WITHIN,
        }
    }
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
    let starting = dice.below(3) == 0;
    let mut life = if starting {
        dice.moment(Duration::from_millis(50), start)
    } else {
        dice.moment(Duration::ZERO, life_max(play.backend))
    };
    let role = play.cast[index].role;
    let place = dice.one_of(&places(role, play.backend)).copied().unwrap_or_default();
    let times = 1 + dice.below(TIMES_MAX);
    let failpoint = (dice.below(2) == 0 && !starting).then(|| format!("{place}:{times}"));
    if failpoint.is_some() {
        // Time to come there.
        life += start;
    }
    play.start(index, failpoint.as_deref())?;
    let life = if starting { Life::FromBirth(life) } else { Life::FromStart(life) };
    Ok(Fate { dice, began: Instant::now(), started: None, life, failpoint })
}

fn play(play: &mut Play) -> anyhow::Result<()> {
    play.start_all()?;
    play.until(AT_WORK_WITHIN, |play| Ok(play.versions_of("events") > 0))?;
    let mut fates = Vec::new();
    for index in 0..play.cast.len() {
        let dice = play.dice.of(index);
        play.cast[index].kill();
        fates.push(begin_life(play, index, dice)?);
    }
    let (mut at_places, mut while_starting) = (0, 0);
    while play.done < play.kills {
        for (index, fate) in fates.iter_mut().enumerate() {
            if fate.started.is_none() && play.cast[index].has_started(&play.group) {
                fate.started = Some(Instant::now());
            }
            let lives = play.cast[index].lives();
            if lives && !fate.is_due() {
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
            // Asked of the dead, who may have said it since the last look.
            let counts = play.cast[index].has_started(&play.group);
            if lives || fate.failpoint.is_some() {
                play.done += u32::from(counts);
                while_starting += u32::from(!counts);
            }
            *fate = begin_life(play, index, fate.dice.clone())?;
            if play.done >= play.kills {
                break;
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    play.tell(format_args!(
        "{} kills, {at_places} of them at named places; {while_starting} more met somebody who was starting",
        play.done
    ));
    // The last lives have no fate any more.
    for index in 0..play.cast.len() {
        play.cast[index].kill();
        play.start(index, None)?;
    }
    Ok(())
}
