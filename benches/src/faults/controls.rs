//! Negative controls: guarantees switched off one by one, each of which the bench must notice. A bench that cannot fail
//! proves nothing.

use std::time::{Duration, Instant};

use super::judged::Judged;
use super::play::{Outcome, Play, Setup};
use super::{Backend, Fault, zombie};

/// Every control; the names are those of `runtime::failpoint::BREAKS`.
pub const CONTROLS: [Fault; 5] = [
    Fault {
        name: "offsets-before-outputs",
        backends: &[Backend::Embedded, Backend::Kafka],
        setup: halves_setup,
        play: between_halves,
    },
    Fault {
        name: "output-outside-the-transaction",
        backends: &[Backend::Embedded, Backend::Kafka],
        setup: halves_setup,
        play: between_halves,
    },
    Fault {
        // The embedded log has one copy of the state, which cannot be read too early.
        name: "state-before-offsets",
        backends: &[Backend::Kafka],
        setup: |_, kills| Setup { twice: true, played: Duration::from_secs(20) * kills, ..Setup::default() },
        play: overtaken_while_restoring,
    },
    Fault {
        name: "archive-without-put-if-absent",
        backends: &[Backend::Embedded, Backend::Kafka],
        setup: |_, kills| Setup { spare: true, played: Duration::from_secs(100) * kills, ..Setup::default() },
        play: two_archivers,
    },
    Fault {
        name: "admit-off",
        backends: &[Backend::Embedded, Backend::Kafka],
        setup: |_, _| Setup { twice: true, played: Duration::from_secs(10), ..Setup::default() },
        play: |play| {
            play.done = 0;
            play.start_all()
        },
    },
];

/// Whether what came of it is what the lack of this guarantee leads to, and not some other harm.
pub fn is_noticed(name: &str, outcome: &Outcome) -> bool {
    let Outcome { difference, blobs, .. } = outcome;
    let (lost, doubled) = (difference.lost > 0, difference.doubled > 0);
    match name {
        "offsets-before-outputs" => lost,
        "output-outside-the-transaction" => !lost && (doubled || blobs.surplus > 0),
        // The log has them all, once.
        "archive-without-put-if-absent" => lost && blobs.surplus == 0,
        _ => !lost && doubled,
    }
}

fn halves_setup(_: Backend, kills: u32) -> Setup {
    Setup { played: Duration::from_secs(6) * kills, ..Setup::default() }
}

/// Kills pollers and detectors between the halves of a step, each whenever it comes there.
fn between_halves(play: &mut Play) -> anyhow::Result<()> {
    let hurt: Vec<usize> = play.of("ingest").into_iter().chain(play.of("detect")).collect();
    play.start_all()?;
    // The first steps are heartbeats, which nobody would miss.
    play.until(AT_WORK_WITHIN, |play| Ok(play.blobs_had() >= AT_WORK_BLOBS))?;
    for &index in &hurt {
        arm(play, index)?;
    }
    play.until(COMES_WITHIN * play.kills, |play| {
        for &index in &hurt {
            if play.done < play.kills && !play.cast[index].lives() {
                play.done += 1;
                play.tell(format_args!("{} killed between the halves of a step", play.cast[index].name));
                arm(play, index)?;
            }
        }
        Ok(play.done >= play.kills)
    })?;
    for &index in &hurt {
        play.cast[index].kill();
        play.start(index, None)?;
    }
    Ok(())
}

/// So many blobs say that records flow, which they do after so long at most.
const AT_WORK_BLOBS: u64 = 20;
const AT_WORK_WITHIN: Duration = Duration::from_secs(60);

/// How long somebody may take to come between two halves.
const COMES_WITHIN: Duration = Duration::from_secs(20);

fn arm(play: &mut Play, index: usize) -> anyhow::Result<()> {
    let failpoint = format!("log_half_committed:{}", 1 + play.dice.below(4));
    play.cast[index].kill();
    play.start(index, Some(&failpoint))
}

/// Lets a detector commit after its successor has read the state and before it has read the offsets.
fn overtaken_while_restoring(play: &mut Play) -> anyhow::Result<()> {
    play.start_all()?;
    play.wait(Duration::from_secs(12))?;
    while play.done < play.kills {
        let index = play.of("detect")[play.done as usize % 2];
        let place = format!("kafka_before_commit:{}", 2 + play.dice.below(6));
        zombie::sleeps_at(play, index, &place, zombie::asleep(play.backend))?;
        play.done += 1;
        play.wait(Duration::from_secs(8))?;
    }
    Ok(())
}

/// How long an archiver may take to start, to take over and to commit.
const TAKES_OVER_WITHIN: Duration = Duration::from_secs(120);

/// So many records are judged before an archiver starts, and so many while it sleeps: what the other one commits is
/// more than what the first one will.
const MEANWHILE_RECORDS: u64 = 12;
const JUDGED_WITHIN: Duration = Duration::from_secs(90);

/// What the other one commits meanwhile. One commit is not enough: who wakes would put its own in that one's place, and
/// whoever opened the table next would read on from there, with nothing lost.
const MEANWHILE_COMMITS: usize = 2;

/// Time for an archiver to end what it is at.
const PAUSE: Duration = Duration::from_secs(6);

/// Between two looks into the log.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Stops an archiver before its commit until the other one has taken over and committed more.
fn two_archivers(play: &mut Play) -> anyhow::Result<()> {
    play.start_all()?;
    play.until(AT_WORK_WITHIN, |play| Ok(play.blobs_had() >= AT_WORK_BLOBS))?;
    let mut judged = play.judged()?;
    while play.done < play.kills {
        let archivers = play.of("archive");
        let (sleeper, other) = (archivers[0], archivers[1]);
        play.cast[other].kill();
        play.cast[sleeper].kill();
        await_judged(play, &mut judged)?;
        play.start(sleeper, Some("archive_before_commit@events:1:stop"))?;
        let asleep = play.until(TAKES_OVER_WITHIN, |play| Ok(play.cast[sleeper].is_stopped()))?;
        let more = await_judged(play, &mut judged)?;
        let enough = play.versions_of("events") + MEANWHILE_COMMITS;
        play.start(other, None)?;
        let overtaken = play.until(TAKES_OVER_WITHIN, |play| Ok(play.versions_of("events") >= enough))?;
        play.tell(format_args!(
            "{} sleeps: {asleep}; {more} records are judged meanwhile; is overtaken: {overtaken}",
            play.cast[sleeper].name
        ));
        play.cast[sleeper].signal("-CONT")?;
        play.done += 1;
        play.wait(PAUSE)?;
    }
    Ok(())
}

/// Until some more records have been judged. How many have.
fn await_judged(play: &mut Play, judged: &mut Judged) -> anyhow::Result<u64> {
    let (began, before) = (Instant::now(), judged.count()?);
    let mut more = 0;
    while more < MEANWHILE_RECORDS && began.elapsed() < JUDGED_WITHIN {
        play.wait(LOOK_INTERVAL)?;
        more = judged.count()? - before;
    }
    Ok(more)
}
