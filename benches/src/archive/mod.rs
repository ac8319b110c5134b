//! The archive as analysts meet it: how large it is, how fast it is written, and how long questions take, beside DuckDB
//! on the same files, on a table of its own, and on the records as compressed JSON.
//!
//! With `--keep` a folder that is complete is measured again without being made again.

mod asked;
mod made;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use clap::Args;
use serde_json::Value;

use made::Made;

/// What the program that asks DuckDB is called, beside this crate.
const DUCKDB_SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/archive.py");

#[derive(Debug, Args)]
pub struct Arguments {
    /// Generated records, over ninety days.
    #[arg(long, default_value_t = 1_000_000)]
    records: usize,
    #[arg(long, default_value_t = 2_000)]
    users: u32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How often each question is asked warm; the fastest counts.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Make the archive here and leave it; if a complete one of these numbers is here, only ask.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Only the questions that have this in their names.
    #[arg(long, default_value = "")]
    only: String,
    /// A Python that has duckdb.
    #[arg(long, default_value = "python3")]
    python: PathBuf,
}

/// How long a question took, in milliseconds.
#[derive(Clone, Debug, Default)]
struct Told {
    rows: u64,
    cold_ms: f64,
    warm_ms: f64,
    /// What was read, where the engine says: files, bytes of them, and requests for files and logs; cold, then warm.
    touched: Option<String>,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let temporary = tempfile::tempdir()?;
    let folder = arguments.keep.as_deref().unwrap_or(temporary.path());
    std::fs::create_dir_all(folder)?;
    let executor = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let made = made::made(&executor, folder, arguments.records, arguments.users, arguments.seed)?;
    report_size(&made);
    let (seconds, bytes) = executor.block_on(made::verified(folder))?;
    let per_gib = seconds * f64::from(1 << 30) / bytes as f64;
    println!("verified in {seconds:.1} s, {bytes} bytes of files: {per_gib:.1} s per GiB\n");
    let mut questions = executor.block_on(asked::questions(folder))?;
    questions.retain(|question| question.name.contains(&arguments.only));
    let files = executor.block_on(made::live_files(folder))?;
    let mut ours = BTreeMap::new();
    for question in &questions {
        ours.insert(question.name, executor.block_on(asked::ask(folder, &files, question, arguments.rounds))?);
    }
    let theirs = match duckdb(arguments, folder, &files, &questions) {
        Ok(theirs) => Some(theirs),
        Err(error) => {
            println!("DuckDB was left out: {error:#}\n");
            None
        }
    };
    report(&questions, &ours, theirs.as_ref());
    Ok(())
}

fn report_size(made: &Made) {
    let each = |bytes: u64| format!("{:.0} bytes a record", bytes as f64 / made.records as f64);
    println!("{} records of {} users over 90 days, seed {}\n", made.records, made.users, made.seed);
    println!("| what | bytes | |\n|---|---:|---|");
    println!("| JSON | {} | {} |", made.json_bytes, each(made.json_bytes));
    println!("| JSON under zstd -3 | {} | {} |", made.zstd_bytes, each(made.zstd_bytes));
    println!("| archive as landed, {} files | {} | {} |", made.landed.0, made.landed.1, each(made.landed.1));
    println!("| archive compacted, {} files | {} | {} |", made.compacted.0, made.compacted.1, each(made.compacted.1));
    println!("| of which events, {} files | {} | {} |", made.events.0, made.events.1, each(made.events.1));
    let rate = |seconds: f64| made.records as f64 / seconds;
    println!(
        "\nwritten in {:.1} s = {:.0} records/s, from a filled log; compacted in {:.1} s = {:.0} records/s\n",
        made.archive_seconds,
        rate(made.archive_seconds),
        made.compact_seconds,
        rate(made.compact_seconds)
    );
}

type Theirs = BTreeMap<String, BTreeMap<String, Told>>;

/// The answers of DuckDB, by question and by what it read.
fn duckdb(
    arguments: &Arguments,
    folder: &Path,
    files: &BTreeMap<&'static str, Vec<PathBuf>>,
    questions: &[asked::Question],
) -> anyhow::Result<Theirs> {
    let job = serde_json::json!({
        "rounds": arguments.rounds,
        "folder": folder,
        "json": folder.join(made::JSON_FILE),
        "files": files,
        "questions": questions
            .iter()
            .map(|question| serde_json::json!({"name": question.name, "parquet": question.duckdb, "json": question.json}))
            .collect::<Vec<_>>(),
    });
    let file = folder.join("duckdb.json");
    std::fs::write(&file, serde_json::to_vec(&job)?)?;
    let output =
        Command::new(&arguments.python).arg(DUCKDB_SCRIPT).arg(&file).output().context("there is no Python")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{}", complaint.lines().last().unwrap_or("no reason given"));
    let told: BTreeMap<String, BTreeMap<String, Value>> = serde_json::from_slice(&output.stdout)?;
    let number = |value: &Value, name: &str| value[name].as_f64().unwrap_or_default();
    let read = |value: Value| Told {
        rows: number(&value, "rows") as u64,
        cold_ms: number(&value, "cold_ms"),
        warm_ms: number(&value, "warm_ms"),
        touched: value["touched"].as_str().map(str::to_owned),
    };
    Ok(told
        .into_iter()
        .map(|(name, by)| (name, by.into_iter().map(|(of, value)| (of, read(value))).collect()))
        .collect())
}

fn report(questions: &[asked::Question], ours: &BTreeMap<&'static str, Told>, theirs: Option<&Theirs>) {
    println!(
        "Milliseconds, cold / warm. Cold: the files were dropped from the page cache, and the process reads the tables anew.\n"
    );
    println!(
        "| question | rows | harrier | touched | DuckDB, same files | touched | DuckDB, own table | DuckDB, zstd JSON |"
    );
    println!("|---|---:|---:|---|---:|---|---:|---:|");
    for question in questions {
        let Some(told) = ours.get(question.name) else { continue };
        let other = |of: &str| theirs.and_then(|theirs| theirs.get(question.name)?.get(of));
        let times =
            |told: Option<&Told>| told.map_or("-".to_owned(), |t| format!("{:.0} / {:.0}", t.cold_ms, t.warm_ms));
        let touched =
            |told: Option<&Told>| told.and_then(|t| t.touched.clone()).unwrap_or_else(|| "not told".to_owned());
        // Another count means that the same was not asked; text in JSON is searched, so there it may differ.
        let differs = other("parquet").is_some_and(|other| other.rows != told.rows);
        println!(
            "| {}{} | {} | {} | {} | {} | {} | {} | {} |",
            question.name,
            if differs { " (NOT the same rows)" } else { "" },
            told.rows,
            times(Some(told)),
            touched(Some(told)),
            times(other("parquet")),
            touched(other("parquet")),
            times(other("table")),
            times(other("json")),
        );
    }
}
