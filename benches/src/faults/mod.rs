//! The fault bench: runs the whole pipeline on a world with a known truth, breaks it, and compares.
//!
//! # The guarantee
//!
//! A row of zeros says that after the fault every record of the world lies in the archive once and byte for byte, the
//! findings that stand and their evidence are those of an undisturbed import, nothing was put aside as unreadable, and
//! the ledger has every blob, committed once. What is done to whom, and in which order, follows from the seed; the
//! moments at which it meets the processes are the machine's.
//!
//! A fault is one file here and one line in [`FAULTS`].

mod blobs_twice;
mod broker;
mod broker_of_three;
mod broker_restart;
pub mod cast;
mod clock;
mod controls;
pub mod dice;
mod disk_full;
pub mod group;
mod judged;
mod kill9;
pub mod ledger;
mod network;
mod network_cut;
mod play;
mod rebalance_storm;
mod tenant;
pub mod truth;
mod zombie;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use controls::CONTROLS;
use play::{Outcome, Play, Setup};

/// Every fault, in the order in which `all` plays them.
const FAULTS: [Fault; 9] = [
    kill9::FAULT,
    blobs_twice::FAULT,
    rebalance_storm::FAULT,
    zombie::FAULT,
    broker_restart::FAULT,
    broker_of_three::FAULT,
    disk_full::FAULT,
    clock::FAULT,
    network_cut::FAULT,
];

/// What a run may take beside the harm it does: starting, settling, comparing.
const RUN_TIME_MAX: Duration = Duration::from_secs(2400);

/// And for each harm, at most: a zombie's sleep and the wait for it.
const HARM_TIME_MAX: Duration = Duration::from_secs(60);

/// A fault, or a negative control.
pub struct Fault {
    name: &'static str,
    backends: &'static [Backend],
    setup: fn(Backend, kills: u32) -> Setup,
    play: fn(&mut Play) -> anyhow::Result<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    Embedded,
    Kafka,
}

#[derive(Debug, Args)]
pub struct Arguments {
    #[arg(long, value_enum, default_value_t = Backend::Embedded)]
    backend: Backend,
    /// Which fault, or `all`.
    #[arg(long, default_value = "kill9")]
    fault: String,
    /// Instead of a fault: a guarantee to switch off (or `all`), which must be noticed. Needs a harrier of the dev profile.
    #[arg(long)]
    negative: Option<String>,
    /// How often harm is done.
    #[arg(long, default_value_t = 10)]
    kills: u32,
    /// Decides what is done to whom.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Size of the world: staff, and days of history before the story.
    #[arg(long, default_value_t = 6)]
    users: u32,
    #[arg(long, default_value_t = 2)]
    days: u32,
    #[arg(long, default_value = "target/debug/harrier")]
    harrier: PathBuf,
    /// Runs lie in folders here, deleted at their end; the logs of one that failed are kept beside.
    #[arg(long, default_value = "target/faults")]
    folder: PathBuf,
}

/// What cannot be done on this machine.
#[derive(Debug)]
struct Skipped(String);

impl std::fmt::Display for Skipped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skipped {}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let (list, asked, negative): (&[Fault], &str, bool) = match &arguments.negative {
        Some(name) => (&CONTROLS, name, true),
        None => (&FAULTS, &arguments.fault, false),
    };
    let chosen: Vec<&Fault> = list.iter().filter(|fault| asked == "all" || fault.name == asked).collect();
    if chosen.is_empty() {
        let known: Vec<&str> = list.iter().map(|fault| fault.name).collect();
        anyhow::bail!("`{asked}` is none of {}", known.join(", "));
    }
    println!(
        "| fault | backend | seed | kills | records | lost | doubled | findings missing | findings extra | dead letters | \
         blobs committed | records in the log too many | seconds |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    let mut wrong = Vec::new();
    for fault in chosen {
        let name = fault.name;
        if !fault.backends.contains(&arguments.backend) {
            println!("skipped: {name} is nothing that can happen to {:?}", arguments.backend);
            continue;
        }
        match one(arguments, fault, negative) {
            Ok(outcome) => {
                print(arguments, name, &outcome);
                let is_as_it_should_be =
                    if negative { controls::is_noticed(name, &outcome) } else { outcome.is_clean() };
                if !is_as_it_should_be {
                    wrong.push(name);
                }
            }
            Err(error) => match error.downcast_ref::<Skipped>() {
                Some(reason) => println!("skipped: {name}: {reason}"),
                None => return Err(error.context(name)),
            },
        }
    }
    let verdict = if negative { "was not noticed" } else { "did harm" };
    anyhow::ensure!(wrong.is_empty(), "{} {verdict}", wrong.join(", "));
    Ok(())
}

fn one(arguments: &Arguments, fault: &Fault, negative: bool) -> anyhow::Result<Outcome> {
    let done = watchdog(fault.name, RUN_TIME_MAX + HARM_TIME_MAX * arguments.kills);
    let setup = (fault.setup)(arguments.backend, arguments.kills);
    let mut play = Play::begin(arguments, arguments.backend, &setup)?;
    if negative {
        for actor in &mut play.cast {
            actor.environment("HARRIER_BREAK", fault.name);
        }
    }
    (fault.play)(&mut play)?;
    play.tell(format_args!("nothing is broken any more"));
    let outcome = play.end();
    drop(done);
    outcome
}

/// Ends this program, and so everything that it has started, unless what is returned is dropped in time.
fn watchdog(name: &'static str, longest: Duration) -> std::sync::mpsc::Sender<()> {
    let (done, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        if wait.recv_timeout(longest) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            eprintln!("{name} takes longer than {longest:?}");
            std::process::exit(1);
        }
    });
    done
}

fn print(arguments: &Arguments, name: &str, outcome: &Outcome) {
    let Outcome { kills, records, difference, blobs, blobs_total, ended_by_themselves, seconds } = outcome;
    println!(
        "| {name} | {} | {} | {kills} | {records} | {} | {} | {} | {} | {} | {} of {blobs_total} | {} | {seconds} |",
        format!("{:?}", arguments.backend).to_lowercase(),
        arguments.seed,
        difference.lost,
        difference.doubled,
        difference.findings_missing,
        difference.findings_extra,
        difference.dead_letters,
        blobs.committed,
        blobs.surplus,
    );
    if *ended_by_themselves > 0 || blobs.open > 0 {
        eprintln!("{name}: {ended_by_themselves} processes ended by themselves, {} blobs are open", blobs.open);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_a_fault_is_in_the_list() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/faults");
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if std::fs::read_to_string(&path).unwrap().contains("pub const FAULT: Fault =") {
                files.push(path.file_stem().unwrap().to_string_lossy().replace('_', "-"));
            }
        }
        files.retain(|name| name != "mod");
        files.sort();
        let mut listed: Vec<&str> = FAULTS.iter().map(|fault| fault.name).collect();
        listed.sort_unstable();
        assert_eq!(files, listed);
    }

    #[test]
    fn every_guarantee_that_can_be_broken_has_its_control() {
        assert_eq!(CONTROLS.map(|control| control.name), runtime::failpoint::BREAKS);
    }
}
