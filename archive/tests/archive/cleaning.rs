//! Old commits go, and what they say stays provable: every alteration of a copy is named, whoever was killed when, and
//! every reader still opens the table.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use archive::Store;
use archive::delta::{COPY_COMMITS, Changes, Cleaned, DeltaTable, Operation, Outcome};
use archive::erasure::{Decision, Eraser, Subject};
use archive::signer::{PUBLIC_KEY_FILE, PublicKey, Signer};
use archive::table::EVENTS;
use archive::verify::{Report, TableReport, Verifier};
use chrono::{DateTime, TimeDelta, Utc};

use crate::compaction::compactor;
use crate::world::{ADDRESS, Place, World, record};

on_each_store! {
    old_commits_go_and_what_is_left_is_one_chain,
    two_who_clean_at_once_do_no_harm,
}

/// Two copies, and two checkpoints behind them.
const COMMITS: u64 = 2 * COPY_COMMITS + 105;

/// One.
pub const ONE_COPY: u64 = COPY_COMMITS + 205;

/// What [`killed_anywhere_a_cleaner_loses_nothing`] kills.
const FOLDER: &str = "HARRIER_TEST_FOLDER";

pub fn later() -> DateTime<Utc> {
    Utc::now() + TimeDelta::days(8)
}

/// Some rows, merged files with those that they stand for, an erasure, and then commits that only move a position.
pub async fn fill(world: &World, commits: u64) {
    for number in 0..3 {
        world.records(0, &[(&record(&format!("r{number}"), "2026-11-20T10:00:00"), 'a')]).await;
        world.drain().await;
    }
    compactor(world).all().await.unwrap();
    let gone = record("gone", "2026-11-21T10:00:00").replacen('{', r#"{"UserId":"gone@x.example","#, 1);
    world.records(0, &[(&record("r3", "2026-11-21T10:00:00"), 'a'), (&gone, 'a')]).await;
    world.drain().await;
    let subject = Subject::new("t1".parse().unwrap(), &["gone@x.example".to_owned()], &[], None, None);
    let decision = Decision { reason: "request 17".into(), by: "the officer".into() };
    Eraser::new(world.store(), Vec::new()).erase(&subject, &decision, Utc::now()).await.unwrap();
    // The many need not survive a power cut: as to an object store nothing is synced.
    let folder = object_store::local::LocalFileSystem::new_with_prefix(world.folder.join("archive")).unwrap();
    let store = Store::over(Arc::new(folder), "test".to_owned()).signed_by(Signer::open(&world.folder).unwrap());
    let mut delta = DeltaTable::open(store, &EVENTS).await.unwrap();
    let from = delta.snapshot().version.unwrap() + 1;
    for version in from..commits {
        let positions = vec![("test".to_owned(), version - from, version - from + 1)];
        let changes = Changes { positions, ..Changes::default() };
        assert_eq!(delta.commit(changes, Utc::now()).await.unwrap(), Outcome::Committed);
    }
    if world.address().is_none() {
        // What a store was asked with, which a folder never is.
        let top = std::fs::read_dir(world.folder.join("archive")).unwrap().map(|entry| entry.unwrap().path());
        top.filter(|path| path.is_file()).for_each(|path| std::fs::remove_file(path).unwrap());
    }
}

async fn open(world: &World) -> DeltaTable {
    DeltaTable::open(world.store(), &EVENTS).await.unwrap()
}

async fn verify_with(world: &World, heads: &[String]) -> Report {
    let keys = vec![PublicKey::read(&world.folder.join(PUBLIC_KEY_FILE)).unwrap()];
    Verifier { store: world.unsigned_store(), keys, heads: heads.to_vec(), now: later() }.run().await.unwrap()
}

async fn verify(world: &World) -> Report {
    verify_with(world, &[]).await
}

fn events(report: &Report) -> &TableReport {
    assert!(report.is_whole(), "{}", report.faults[0]);
    report.tables.iter().find(|table| table.name == "events").unwrap()
}

fn file(world: &World, name: &str) -> PathBuf {
    world.folder.join("archive/events").join(name)
}

fn copy(first: u64) -> String {
    format!("_proof/{first:020}.commits.jsonl")
}

fn checkpoint(version: u64) -> String {
    format!("_delta_log/{version:020}.checkpoint.parquet")
}

fn commit(version: u64) -> String {
    format!("_delta_log/{version:020}.json")
}

/// The commits whose files are there.
fn commits(world: &World) -> Vec<u64> {
    let names = std::fs::read_dir(file(world, "_delta_log")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut versions: Vec<u64> =
        names.filter_map(|name| name.to_str().unwrap().strip_suffix(".json")?.parse().ok()).collect();
    versions.sort();
    versions
}

async fn old_commits_go_and_what_is_left_is_one_chain(place: Place) {
    let world = World::on(place);
    fill(&world, COMMITS).await;
    let before = open(&world).await.snapshot().clone();
    let heads: Vec<String> =
        verify(&world).await.tables.iter().filter_map(|table| table.head.clone()).map(|head| head.1).collect();
    let old = first_statements(&world, 5);
    assert_eq!(open(&world).await.clean(Utc::now()).await.unwrap(), Cleaned::default(), "too early");
    assert_eq!(open(&world).await.clean(Utc::now() + TimeDelta::days(6)).await.unwrap(), Cleaned::default());

    let cleaned = open(&world).await.clean(later()).await.unwrap();
    let gone = 2 * COPY_COMMITS;
    assert_eq!(cleaned, Cleaned { copied: gone, deleted: gone, checkpoints: gone / 100 - 1 });
    assert_eq!(commits(&world), (gone..COMMITS).collect::<Vec<_>>());
    assert_eq!(open(&world).await.clean(later()).await.unwrap(), Cleaned::default(), "nothing is left to do");
    let copied = std::fs::read_to_string(file(&world, &copy(0))).unwrap();
    assert!(!copied.contains("minValues"), "of a file no more than its hash is kept");

    let after = open(&world).await.snapshot().clone();
    assert_eq!((&after.files, &after.positions, after.version), (&before.files, &before.positions, before.version));
    assert_eq!(world.lines("SELECT id FROM events").await.len(), 4);
    let report = verify_with(&world, &heads).await;
    let told = events(&report);
    assert_eq!((told.commits, told.copied_commits, told.fresh_since), (COMMITS, gone, Some(COMMITS - 1)));
    assert_eq!(told.erased.iter().map(|(_, erased)| erased.rows).collect::<Vec<_>>(), [1]);
    // A head of long ago is found in the copies.
    assert_eq!(events(&verify_with(&world, &old).await).fresh_since, Some(4));

    // It goes on: more rows, and what is retired and erased.
    world.records(0, &[(&record("r4", "2026-11-22T10:00:00"), 'a')]).await;
    world.drain().await;
    assert_eq!(world.lines("SELECT id FROM events").await.len(), 5);
    let retention = archive::retention::Retention::new([(&EVENTS, 1)], Vec::new());
    assert_eq!(retention.retire(&world.store(), later()).await.unwrap().len(), 1);
    assert_eq!(world.lines("SELECT id FROM events").await.len(), 0);
    assert_eq!(events(&verify(&world).await).retired_rows, 5);
    without_a_hint(&world).await;
}

/// Heads of the first commits, as somebody may have kept them.
fn first_statements(world: &World, count: u64) -> Vec<String> {
    let head = |version: u64| {
        let text = std::fs::read_to_string(file(world, &commit(version + 1))).unwrap();
        let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        let statement: serde_json::Value =
            serde_json::from_str(line["commitInfo"]["proof"]["statement"].as_str().unwrap()).unwrap();
        statement["previous"].as_str().unwrap().to_owned()
    };
    (0..count).map(head).collect()
}

async fn without_a_hint(world: &World) {
    let hint = file(world, "_delta_log/_last_checkpoint");
    let kept = std::fs::read(&hint).unwrap();
    std::fs::remove_file(&hint).unwrap();
    let version = open(world).await.snapshot().version;
    // Nor with the newest checkpoint damaged.
    let newest = file(world, &checkpoint(2 * COPY_COMMITS + 100));
    let bytes = std::fs::read(&newest).unwrap();
    std::fs::write(&newest, "damaged").unwrap();
    assert_eq!(open(world).await.snapshot().version, version);
    std::fs::write(&hint, &kept).unwrap();
    assert_eq!(open(world).await.snapshot().version, version);
    std::fs::write(&newest, bytes).unwrap();
    assert!(verify(world).await.is_whole());
}

#[track_caller]
fn assert_named(report: &Report, name: &str, what: &str) {
    let first = report.faults.first().unwrap_or_else(|| panic!("{what} of {name} was not seen"));
    assert_eq!(first.file, format!("events/{name}"), "{what}: {first}");
}

#[tokio::test]
async fn a_flipped_bit_and_a_moved_line_of_a_copy_are_named() {
    let world = World::new();
    fill(&world, ONE_COPY).await;
    open(&world).await.clean(later()).await.unwrap();
    let path = file(&world, &copy(0));
    let whole = std::fs::read(&path).unwrap();
    let lines: Vec<&[u8]> = whole.split_inclusive(|&byte| byte == b'\n').collect();
    let (length, line) = (whole.len(), lines[0].len());
    for place in [0, 20, line / 2, line - 2, line - 1, length / 2, length - 2, length - 1] {
        let mut altered = whole.clone();
        altered[place] ^= 1 << (place % 8);
        std::fs::write(&path, altered).unwrap();
        assert_named(&verify(&world).await, &copy(0), &format!("a bit of byte {place}"));
    }
    let without = |index: usize| [&lines[..index], &lines[index + 1..]].concat().concat();
    let mut swapped = lines.clone();
    swapped.swap(7, 8);
    for (bytes, what) in [
        (whole[..length - 1].to_vec(), "the last byte gone"),
        ([&whole[..], b"\n"].concat(), "a byte more"),
        ([&whole[..], lines[0]].concat(), "a line more"),
        (without(0), "the first line gone"),
        (without(500), "a line gone"),
        (without(lines.len() - 1), "the last line gone"),
        (swapped.concat(), "two lines in another order"),
        (Vec::new(), "everything gone"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        assert_named(&verify(&world).await, &copy(0), what);
    }
    std::fs::write(&path, whole).unwrap();
    assert!(verify(&world).await.is_whole());
}

#[tokio::test]
async fn a_copy_that_is_dropped_moved_or_put_there_is_named() {
    let world = World::new();
    fill(&world, COMMITS).await;
    open(&world).await.clean(later()).await.unwrap();
    for first in [0, COPY_COMMITS] {
        let (path, aside) = (file(&world, &copy(first)), world.folder.join("aside"));
        std::fs::rename(&path, &aside).unwrap();
        assert_named(&verify(&world).await, &copy(first), "the file gone");
        std::fs::copy(file(&world, &copy(COPY_COMMITS - first)), &path).unwrap();
        assert_named(&verify(&world).await, &copy(first), "the other copy in its place");
        std::fs::rename(&aside, &path).unwrap();
    }
    for name in [copy(5 * COPY_COMMITS), copy(1), "_proof/x.jsonl".to_owned()] {
        std::fs::copy(file(&world, &copy(0)), file(&world, &name)).unwrap();
        assert_named(&verify(&world).await, &name, "a file put there");
        std::fs::remove_file(file(&world, &name)).unwrap();
    }
    what_is_left_of_the_log_is_as_needed(&world).await;
    assert!(verify(&world).await.is_whole());
}

/// Of the log at least the newest checkpoint's commit is there, and nothing that contradicts a copy.
async fn what_is_left_of_the_log_is_as_needed(world: &World) {
    let first = 2 * COPY_COMMITS;
    let left: Vec<(PathBuf, Vec<u8>)> = std::fs::read_dir(file(world, "_delta_log"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect();
    left.iter().for_each(|(path, _)| std::fs::remove_file(path).unwrap());
    assert_named(&verify(world).await, &commit(first), "all of the log gone");
    left.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
    std::fs::copy(file(world, &commit(first)), file(world, &commit(7))).unwrap();
    assert_named(&verify(world).await, &commit(7), "another commit where a copied one was");
    std::fs::remove_file(file(world, &commit(7))).unwrap();
}

async fn two_who_clean_at_once_do_no_harm(place: Place) {
    let world = World::on(place);
    fill(&world, ONE_COPY).await;
    let (one, two) = (open(&world).await, open(&world).await);
    let (one, two) = tokio::join!(one.clean(later()), two.clean(later()));
    assert_eq!(one.unwrap().copied + two.unwrap().copied, COPY_COMMITS, "one of them has put the copy");
    assert_eq!(commits(&world).first(), Some(&COPY_COMMITS));
    assert_eq!(events(&verify(&world).await).commits, ONE_COPY);
}

/// The first Python that can import what the script uses; the test is skipped without one.
fn python() -> Option<&'static str> {
    ["python3", "python"].into_iter().find(|python| {
        let mut command = Command::new(python);
        command.args(["-c", "import duckdb, deltalake, pyarrow.dataset, pandas, polars"]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    })
}

#[tokio::test]
async fn others_read_a_table_whose_log_was_cleaned() {
    let Some(python) = python() else {
        println!("skipped: no python3 with duckdb, deltalake, pyarrow, pandas and polars");
        return;
    };
    let world = World::new();
    fill(&world, ONE_COPY).await;
    assert_eq!(open(&world).await.clean(later()).await.unwrap().deleted, COPY_COMMITS);
    let queries = world.folder.join("queries.json");
    std::fs::write(&queries, r#"["SELECT id FROM events ORDER BY id"]"#).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../harrier/tests/e2e/others_read_it.py");
    for engine in ["duckdb", "deltalake", "pandas", "polars"] {
        let mut command = Command::new(python);
        command.args([script, engine]).args([&world.folder.join("archive"), &queries]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{engine}: {}", String::from_utf8_lossy(&output.stderr));
        let answers: Vec<Vec<serde_json::Value>> = serde_json::from_slice(&output.stdout).unwrap();
        let ids: Vec<&str> = answers[0].iter().map(|row| row["id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["r0", "r1", "r2", "r3"], "{engine}");
    }
}

/// What [`killed_anywhere_a_cleaner_loses_nothing`] starts.
#[tokio::test]
#[ignore = "a life for another test to kill"]
async fn a_cleaner_to_be_killed() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let address = std::env::var(ADDRESS).ok().filter(|address| !address.is_empty());
    open(&World::at(Path::new(&folder), address)).await.clean(later()).await.unwrap();
}

/// Cleans in a process of its own. Whether it was killed.
fn clean_until_killed(world: &World, failpoint: &str, broken: Option<&str>) -> bool {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "cleaning::a_cleaner_to_be_killed", "--ignored"]).env(FOLDER, &world.folder);
    command.env("HARRIER_FAILPOINT", failpoint).stdout(Stdio::null()).stderr(Stdio::null());
    if let Some(broken) = broken {
        command.env("HARRIER_BREAK", broken);
    }
    !command.status().unwrap().success()
}

#[tokio::test]
async fn killed_anywhere_a_cleaner_loses_nothing() {
    let world = World::new();
    fill(&world, COMMITS).await;
    for failpoint in [
        "archive_clean_after_copy:1",
        "archive_clean_after_delete:1",
        "archive_clean_after_delete:700",
        "archive_clean_after_copy:2",
        "archive_clean_after_delete:1500",
        "archive_clean_after_checkpoint:1",
        "archive_clean_after_checkpoint:2",
    ] {
        clean_until_killed(&world, failpoint, None);
        let report = verify(&world).await;
        assert_eq!(events(&report).commits, COMMITS, "{failpoint}");
        assert_eq!(open(&world).await.snapshot().version, Some(COMMITS - 1));
    }
    open(&world).await.clean(later()).await.unwrap();
    assert_eq!(commits(&world).first(), Some(&(2 * COPY_COMMITS)));
    assert_eq!(events(&verify(&world).await).copied_commits, 2 * COPY_COMMITS);
}

/// The control: with the two steps in the wrong order the test above would not pass.
#[tokio::test]
async fn a_cleaner_that_deletes_before_it_copies_is_seen() {
    let world = World::new();
    fill(&world, ONE_COPY).await;
    let broken = Some("archive-delete-before-copy");
    assert!(clean_until_killed(&world, "archive_clean_after_delete:700", broken));
    assert!(!verify(&world).await.is_whole());
}

#[tokio::test]
async fn a_copy_that_does_not_say_what_the_commits_say_stops_the_cleaner() {
    let world = World::new();
    fill(&world, ONE_COPY).await;
    std::fs::create_dir_all(file(&world, "_proof")).unwrap();
    for text in ["", "{}\n"] {
        std::fs::write(file(&world, &copy(0)), text).unwrap();
        let error = open(&world).await.clean(later()).await.unwrap_err();
        assert!(matches!(error, archive::Error::CopyDiffers { .. }), "{error}");
        assert_eq!(commits(&world).len() as u64, ONE_COPY);
    }
    std::fs::remove_file(file(&world, &copy(0))).unwrap();
    // And so does a checkpoint that cannot be read: it would have to stand for what is gone.
    let [needed, newest] = [100, 200].map(|more| file(&world, &checkpoint(COPY_COMMITS + more)));
    for path in [needed, newest] {
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, "damaged").unwrap();
        let error = open(&world).await.clean(later()).await.unwrap_err();
        assert!(matches!(error, archive::Error::Damaged { .. }), "{error}");
        std::fs::write(&path, bytes).unwrap();
    }
    assert_eq!(open(&world).await.clean(later()).await.unwrap().deleted, COPY_COMMITS);
    let changes = Changes { operation: Operation::Write, ..Changes::default() };
    open(&world).await.commit(changes, Utc::now()).await.unwrap();
    assert!(verify(&world).await.is_whole());
}
