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

/// Kills pollers and detectors between the halves of a step.
fn between_halves(play: &mut Play) -> anyhow::Result<()> {
    play.start_all()?;
    while play.done < play.kills {
        let hurt: Vec<usize> = play.of("ingest").into_iter().chain(play.of("detect")).collect();
        let Some(&index) = play.dice.one_of(&hurt) else { return Ok(()) };
        let failpoint = format!("log_half_committed:{}", 1 + play.dice.below(3));
        play.cast[index].kill();
        play.start(index, Some(&failpoint))?;
        let killed = play.until(Duration::from_secs(20), |play| Ok(!play.cast[index].lives()))?;
        play.tell(format_args!("{} killed at {failpoint}: {killed}", play.cast[index].name));
        play.cast[index].kill();
        play.done += 1;
        play.start(index, None)?;
        if play.is_served() {
            // Nothing more comes that could be hurt.
            return Ok(());
        }
    }
    Ok(())
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

/// Stops an archiver before its commit for so long that the other one takes over and commits.
fn two_archivers(play: &mut Play) -> anyhow::Result<()> {
    play.start_all()?;
    play.wait(Duration::from_secs(6))?;
    while play.done < play.kills {
        // Whoever is killed for it gives the lease to the other one: so the other one first, to have it back.
        let archivers = play.of("archive");
        let (sleeper, other) = (archivers[0], archivers[1]);
        play.cast[other].kill();
        play.cast[sleeper].kill();
        let place = format!("archive_before_commit:{}:stop", 1 + play.dice.below(4));
        play.start(sleeper, Some(&place))?;
        let asleep = play.until(Duration::from_secs(20), |play| Ok(play.cast[sleeper].is_stopped()))?;
        play.start(other, None)?;
        play.tell(format_args!("{} sleeps: {asleep}", play.cast[sleeper].name));
        play.wait(Duration::from_secs(8) + zombie::asleep(play.backend))?;
        play.cast[sleeper].signal("-CONT")?;
        play.done += 1;
        play.wait(Duration::from_secs(5))?;
    }
    Ok(())
}
