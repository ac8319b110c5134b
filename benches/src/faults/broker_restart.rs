//! The only broker is killed and comes back, under everybody's work.

use std::time::Duration;

use anyhow::Context;

use super::play::{Play, Setup};
use super::{Backend, Fault};

pub const FAULT: Fault = Fault {
    name: "broker-restart",
    backends: &[Backend::Kafka],
    setup: |_, kills| Setup { played: Duration::from_secs(15) * kills, ..Setup::default() },
    play,
};

fn play(play: &mut Play) -> anyhow::Result<()> {
    play.start_all()?;
    while play.done < play.kills {
        let up = play.dice.moment(Duration::from_secs(3), Duration::from_secs(12));
        play.wait(up)?;
        let down = play.dice.moment(Duration::ZERO, Duration::from_secs(6));
        play.tell(format_args!("broker killed for {down:?}"));
        play.broker.as_ref().context("no broker")?.kill(1)?;
        play.done += 1;
        play.wait(down)?;
        play.broker.as_ref().context("no broker")?.restart(&play.group, 1)?;
    }
    Ok(())
}
