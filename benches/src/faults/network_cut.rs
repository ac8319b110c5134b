//! A detector, the archiver and notification lie on another host than the broker, whose cable is pulled and put back.
//!
//! The poller stays: the fake tenant speaks no TLS, and harrier sends its credentials nowhere but loopback without it.
//! The embedded log knows no other host.

use std::time::Duration;

use anyhow::Context;

use super::play::{Play, SESSION, Setup};
use super::{Backend, Fault};

pub const FAULT: Fault = Fault {
    name: "network-cut",
    backends: &[Backend::Kafka],
    setup: |_, kills| Setup { network: true, played: Duration::from_secs(20) * kills, ..Setup::default() },
    play,
};

const FAR: [&str; 3] = ["detect-1", "archive-1", "notify-1"];

fn play(play: &mut Play) -> anyhow::Result<()> {
    let name = play.network.as_ref().context("no network")?.name.clone();
    for actor in play.cast.iter_mut().filter(|actor| FAR.contains(&actor.name.as_str())) {
        actor.network = Some(name.clone());
    }
    play.start_all()?;
    while play.done < play.kills {
        let whole = play.dice.moment(Duration::from_secs(4), Duration::from_secs(12));
        play.wait(whole)?;
        // Some shorter than a session, most longer.
        let cut = play.dice.moment(Duration::from_secs(1), 5 * SESSION);
        play.tell(format_args!("the cable is pulled for {cut:?}"));
        play.network.as_ref().context("no network")?.cut()?;
        play.done += 1;
        play.wait(cut)?;
        play.network.as_ref().context("no network")?.heal()?;
    }
    Ok(())
}
