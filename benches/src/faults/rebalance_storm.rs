//! Detectors join and leave every few seconds, some in good order, some without a word.

use std::time::Duration;

use super::play::{Play, Setup};
use super::{Backend, Fault};

pub const FAULT: Fault = Fault {
    name: "rebalance-storm",
    backends: &[Backend::Embedded, Backend::Kafka],
    setup: |_, kills| Setup { played: Duration::from_secs(3) * kills, ..Setup::default() },
    play,
};

const DETECTORS_MAX: usize = 4;

fn play(play: &mut Play) -> anyhow::Result<()> {
    play.start_all()?;
    while play.done < play.kills {
        let pause = play.dice.moment(Duration::from_secs(1), Duration::from_secs(5));
        play.wait(pause)?;
        let living: Vec<usize> = play.of("detect").into_iter().filter(|&index| play.cast[index].lives()).collect();
        let joins = living.len() < 2 || living.len() < DETECTORS_MAX && play.dice.below(2) == 0;
        play.done += 1;
        if joins {
            let resting = play.of("detect").into_iter().find(|index| !living.contains(index));
            let index = match resting {
                Some(index) => play.start(index, None).map(|()| index)?,
                None => play.joins("detect")?,
            };
            play.tell(format_args!("{} joins", play.cast[index].name));
        } else if let Some(&index) = play.dice.one_of(&living) {
            let in_order = play.dice.below(2) == 0;
            play.tell(format_args!("{} leaves, in good order: {in_order}", play.cast[index].name));
            if in_order {
                play.cast[index].terminate(&play.group)?;
            } else {
                play.cast[index].kill();
            }
        }
    }
    Ok(())
}
