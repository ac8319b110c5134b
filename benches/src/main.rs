//! Measurements: what the README of this folder reports, and the commands that make it again.
//!
//! Each prints one line for each round, so that the spread can be seen. A number is only worth its command, its data, its
//! machine and its spread.

mod archive;
mod collector;
mod faults;
mod import;
mod kafka;
mod latency;
mod month;
mod process;
mod record;
mod restore;
mod stage;
mod windows;

use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Write generated audit records as JSON lines.
    Generate {
        #[arg(long, default_value_t = 1_000_000)]
        records: usize,
        #[arg(long, default_value_t = 2_000)]
        users: u32,
        #[arg(long, default_value_t = 1)]
        seed: u64,
        file: PathBuf,
    },
    /// `harrier import` of a file into a new folder: wall time, CPU time and peak memory of the process.
    Import {
        #[arg(long, default_value = "target/release/harrier")]
        harrier: PathBuf,
        #[arg(long, default_value_t = 3)]
        rounds: u32,
        file: PathBuf,
    },
    /// Reading records and judging them by the pack, on one thread, nothing else.
    Match {
        #[arg(long, default_value_t = 3)]
        rounds: u32,
        #[arg(long, default_value_t = 200_000)]
        records: usize,
        file: PathBuf,
    },
    /// Detectors on a real Kafka, one and several, and librdkafka alone on the same broker.
    KafkaDetect {
        #[arg(long, default_value = "target/release/harrier")]
        harrier: PathBuf,
        /// How many detectors, round by round.
        #[arg(long, value_delimiter = ',', default_value = "1,3,1,3")]
        detectors: Vec<u32>,
        #[arg(long, default_value_t = 100_000)]
        records: usize,
        file: PathBuf,
    },
    /// How long a start takes with much state, on both backends.
    Restore {
        #[arg(long, default_value = "target/release/harrier")]
        harrier: PathBuf,
        #[arg(long, value_delimiter = ',', default_value = "embedded,kafka")]
        backends: Vec<String>,
        /// Records that lie in open windows.
        #[arg(long, default_value_t = 1_000_000)]
        windowed: u32,
        /// Records that admit knows.
        #[arg(long, default_value_t = 100_000_000)]
        known: u64,
    },
    /// A record's way to its finding and to the webhook under steady load.
    Latency {
        #[arg(long, value_delimiter = ',', default_value = "embedded,kafka")]
        backends: Vec<String>,
        #[arg(long, default_value_t = 2_000)]
        records_per_second: u32,
        /// One record in so many is a finding by itself.
        #[arg(long, default_value_t = 100)]
        marked_every: u32,
        #[arg(long, default_value_t = 120)]
        seconds: u32,
    },
    /// Size and speed of the archive, and how long questions take, beside DuckDB.
    Archive(archive::Arguments),
    /// Archiving records that are in the log already.
    Archiving {
        #[arg(long, default_value_t = 3)]
        rounds: u32,
        file: PathBuf,
    },
    /// The pack, judged by an ordinary month of 500 people and ten attacks among them, at three ways of delivery.
    Month {
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// One play instead of four.
        #[arg(long)]
        quick: bool,
        /// Tell of every incident, and of every finding about a story.
        #[arg(long)]
        list: bool,
        /// Only leave the month's records in this file, as JSON lines.
        #[arg(long)]
        write: Option<PathBuf>,
    },
    /// Windows as they grow: many groups, one large group, records a day late.
    Windows(windows::Arguments),
    /// The collector against a hostile service: each fault alone, all together, many tenants, a long backlog.
    Collector(collector::Arguments),
    /// The whole pipeline, broken on purpose; what is lost, doubled or wrong afterwards.
    Faults(faults::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Options::parse().what {
        What::Generate { records, users, seed, file } => generate(records, users, seed, &file),
        What::Import { harrier, rounds, file } => import::run(&harrier, rounds, &file),
        What::Match { rounds, records, file } => stage::matching(rounds, records, &file),
        What::KafkaDetect { harrier, detectors, records, file } => kafka::detect(&harrier, &detectors, records, &file),
        What::Restore { harrier, backends, windowed, known } => restore::run(&harrier, &backends, windowed, known),
        What::Latency { backends, records_per_second, marked_every, seconds } => {
            latency::run(&backends, &latency::Load { records_per_second, marked_every, seconds })
        }
        What::Archive(arguments) => archive::run(&arguments),
        What::Archiving { rounds, file } => stage::archiving(rounds, &file),
        What::Month { seed, quick, list, write } => month::run(seed, quick, list, write.as_deref()),
        What::Windows(arguments) => windows::run(&arguments),
        What::Collector(arguments) => collector::run(&arguments),
        What::Faults(arguments) => faults::run(&arguments),
    }
}

fn generate(records: usize, users: u32, seed: u64, file: &PathBuf) -> anyhow::Result<()> {
    let out = std::fs::File::create(file).with_context(|| format!("cannot make {}", file.display()))?;
    let mut out = BufWriter::new(out);
    let mut bytes = 0;
    for record in simulate::traffic(seed, users, records) {
        bytes += record.json.len() + 1;
        out.write_all(record.json.as_bytes())?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    println!("{records} records, {bytes} bytes, {users} users, seed {seed}");
    Ok(())
}
