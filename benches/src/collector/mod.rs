//! The collector alone against a hostile service: what is lost, doubled or left unnamed.
//!
//! # The guarantee
//!
//! The service is the fake tenant over loopback HTTP, the collector is the real binary, and the truth is what the fake
//! says can be had. A row of zeros says: every record that can be had is in the archive once, every blob that cannot be
//! had is named in `coverage`, every element that is no record is a dead letter, and the ledger has nothing open.
//!
//! `--tenants N` measures whether broken tenants hold up the others, `--backlog N` how fast days of backlog are read.

mod backlog;
mod client;
mod hostile;
mod process;
mod tenants;

use std::path::PathBuf;

use clap::Args;
use simulate::Fault;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Which fault, `each` for every one by itself, `all` for all together, or `both`.
    #[arg(long, default_value = "both")]
    fault: String,
    /// How often the collector is killed while all faults play together.
    #[arg(long, default_value_t = 20)]
    kills: u32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Size of the world: staff, and days of history.
    #[arg(long, default_value_t = 3)]
    users: u32,
    #[arg(long, default_value_t = 3)]
    days: u32,
    /// How large a big blob is, in MiB.
    #[arg(long, default_value_t = 8)]
    big_blob_mebibytes: u64,
    /// Instead: so many tenants in one process, ten of them broken.
    #[arg(long)]
    tenants: Option<u32>,
    /// For how long the tenants are polled.
    #[arg(long, default_value_t = 3.0)]
    minutes: f64,
    /// Instead: a backlog of so many records, and other ways to read it.
    #[arg(long)]
    backlog: Option<u64>,
    /// Records in a blob of the backlog.
    #[arg(long, default_value_t = 1_000)]
    blob_records: u64,
    #[arg(long, default_value = "benches/python_poller.py")]
    python_poller: PathBuf,
    #[arg(long, default_value = "target/debug/harrier")]
    harrier: PathBuf,
    /// Runs lie in folders here, deleted at their end; the logs of one that failed are kept beside.
    #[arg(long, default_value = "target/collector")]
    folder: PathBuf,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(tenants) = arguments.tenants {
        return tenants::run(arguments, tenants);
    }
    if let Some(records) = arguments.backlog {
        return backlog::run(arguments, records);
    }
    let all: Vec<Fault> = Fault::all().collect();
    let each = all.iter().map(|fault| (fault.to_string(), vec![*fault], 0));
    let together = std::iter::once(("all".to_owned(), all.clone(), arguments.kills));
    let runs: Vec<(String, Vec<Fault>, u32)> = match arguments.fault.as_str() {
        "both" => each.chain(together).collect(),
        "each" => each.collect(),
        "all" => together.collect(),
        name => vec![(name.to_owned(), vec![name.parse()?], 0)],
    };
    println!(
        "| fault | kills | blobs that can be had | cannot | records that can be had | served | admitted | lost | doubled | \
         blobs not named | dead letters | of | blobs open | requests | spoilt | seconds |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    let mut wrong = Vec::new();
    for (name, faults, kills) in runs {
        let outcome = hostile::play(arguments, &faults, kills)?;
        println!("| {name} | {outcome}");
        if !outcome.is_clean() {
            wrong.push(name);
        }
    }
    anyhow::ensure!(wrong.is_empty(), "not clean: {}", wrong.join(", "));
    Ok(())
}
