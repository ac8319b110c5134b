//! Negative controls: guarantees switched off one by one, each of which the bench must notice. A bench that cannot fail
//! proves nothing.

use std::time::Duration;

use super::play::{Play, Setup};
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
        setup: |_, kills| Setup { spare: true, played: Duration::from_secs(45) * kills, ..Setup::default() },
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

/// How long an archiver may take to start, to take over and to commit, beyond the sleep that lets it.
const TAKES_OVER_WITHIN: Duration = Duration::from_secs(15);

/// Stops an archiver before its commit for so long that the other one takes over and commits.
fn two_archivers(play: &mut Play) -> anyhow::Result<()> {
    play.start_all()?;
    play.until(AT_WORK_WITHIN, |play| Ok(play.blobs_had() >= AT_WORK_BLOBS))?;
    while play.done < play.kills {
        // Whoever is killed for it gives the lease to the other one: so the other one first, to have it back.
        let archivers = play.of("archive");
        let (sleeper, other) = (archivers[0], archivers[1]);
        play.cast[other].kill();
        play.cast[sleeper].kill();
        let place = format!("archive_before_commit:{}:stop", 1 + play.dice.below(2));
        play.start(sleeper, Some(&place))?;
        let asleep = play.until(Duration::from_secs(20), |play| Ok(play.cast[sleeper].is_stopped()))?;
        play.start(other, None)?;
        play.tell(format_args!("{} sleeps: {asleep}", play.cast[sleeper].name));
        play.wait(TAKES_OVER_WITHIN + zombie::asleep(play.backend))?;
        play.cast[sleeper].signal("-CONT")?;
        play.done += 1;
        play.wait(Duration::from_secs(5))?;
    }
    Ok(())
}
