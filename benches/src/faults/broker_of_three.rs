//! One of three brokers is killed and comes back: the others go on meanwhile.

use std::time::Duration;

use anyhow::Context;

use super::play::{Play, Setup};
use super::{Backend, Fault};

pub const FAULT: Fault = Fault {
    name: "broker-of-three",
    backends: &[Backend::Kafka],
    setup: |_, kills| Setup { nodes: 3, played: Duration::from_secs(20) * kills, ..Setup::default() },
    play,
};

fn play(play: &mut Play) -> anyhow::Result<()> {
    play.start_all()?;
    while play.done < play.kills {
        let up = play.dice.moment(Duration::from_secs(5), Duration::from_secs(15));
        play.wait(up)?;
        let node = 1 + play.dice.below(3) as u32;
        let down = play.dice.moment(Duration::from_secs(1), Duration::from_secs(12));
        play.tell(format_args!("broker {node} of three killed for {down:?}"));
        play.broker.as_ref().context("no broker")?.kill(node)?;
        play.done += 1;
        play.wait(down)?;
        play.broker.as_ref().context("no broker")?.restart(&play.group, node)?;
    }
    Ok(())
}
