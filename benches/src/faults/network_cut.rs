//! Poller, one detector and the archiver lie on another host, whose cable is pulled and put back. On the embedded log
//! only the poller does: the log is a file of this host, and what is cut off is the tenant.

use std::time::Duration;

use anyhow::Context;

use super::play::{Play, SESSION, Setup};
use super::{Backend, Fault};

pub const FAULT: Fault = Fault {
    name: "network-cut",
    backends: &[Backend::Embedded, Backend::Kafka],
    setup: |_, kills| Setup { network: true, played: Duration::from_secs(20) * kills, ..Setup::default() },
    play,
};

fn play(play: &mut Play) -> anyhow::Result<()> {
    let name = play.network.as_ref().context("no network")?.name.clone();
    let far: &[&str] =
        if play.backend == Backend::Kafka { &["ingest-1", "detect-1", "archive-1"] } else { &["ingest-1"] };
    for actor in play.cast.iter_mut().filter(|actor| far.contains(&actor.name.as_str())) {
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
