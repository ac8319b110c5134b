//! Compaction beside writing and reading: the same rows before, meanwhile and after, whatever is killed when.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use archive::archiver::Settings;
use archive::compactor::{Compacted, Compactor, Plan};
use archive::delta::{DeltaTable, FileStatistics};
use archive::table::EVENTS;
use runtime::clock::Clock;
use runtime::log::Topic;
use runtime::metrics::Metrics;
use runtime::shutdown;

use crate::world::{ADDRESS, PARTITIONS, Place, World, record};

on_each_store! {
    small_files_become_one_and_every_row_is_as_it_was,
    a_file_that_does_not_hold_what_its_commit_says_is_left_and_stops_nothing_else,
    no_reader_sees_a_row_twice_or_misses_one_while_files_land_and_merge,
    killed_at_any_moment_the_archive_is_exact,
}

/// What a life that is to be killed works on.
const FOLDER: &str = "HARRIER_TEST_FOLDER";

/// Places between two effects, each of which some lives end at exactly.
const FAILPOINTS: [&str; 4] = [
    "archive_before_commit@events:7",
    "archive_after_commit@events:9",
    "archive_compact_before_commit:2",
    "archive_compact_after_commit:3",
];

fn from_environment(name: &str, default: usize) -> usize {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

/// Everything is due at once: most commits for the time.
fn hasty() -> Settings {
    Settings {
        flush_interval: Duration::ZERO,
        compaction: Plan { files_min: 3, rests_after: Duration::from_secs(3600) },
        compaction_interval: Duration::from_millis(3),
        ..Settings::default()
    }
}

pub fn compactor(world: &World) -> Compactor {
    let plan = Plan { files_min: 2, rests_after: Duration::ZERO };
    Compactor::new(world.store(), Clock::system(), Metrics::new("test"), plan)
}

/// Users of the records: a prime, so that each has some of every day.
const USERS: u64 = 17;

/// Whose the record at an offset is: in no order.
fn user_at(offset: u64) -> u64 {
    offset * 13 % USERS
}

/// The record at an offset: three days in turn.
fn record_at(partition: u32, offset: u64) -> (String, String) {
    let id = format!("{partition}-{offset}");
    let text = record(&id, &format!("2026-11-{:02}T10:{:02}:00", 20 + offset / 100 % 3, offset * 7 % 60));
    let user = format!(r#"{{"UserId":"u{}@t.example","#, user_at(offset));
    let text = text.replacen('{', &user, 1);
    (id, text)
}

/// Appends records for ever, but no more rounds than are allowed so far.
async fn feed(world: &World, allowed: &AtomicUsize) {
    for round in 0.. {
        while round >= allowed.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for partition in 0..PARTITIONS {
            let from = world.log.end(Topic::Records, partition).await.unwrap();
            let texts: Vec<String> = (from..from + 5).map(|offset| record_at(partition, offset).1).collect();
            world.records(partition, &texts.iter().map(|text| (text.as_str(), 'a')).collect::<Vec<_>>()).await;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Whether the archive holds what the log does, each record once and with its bytes.
async fn assert_exact(world: &World) -> usize {
    let mut expected = BTreeMap::new();
    for partition in 0..PARTITIONS {
        let end = world.log.end(Topic::Records, partition).await.unwrap();
        expected.extend((0..end).map(|offset| record_at(partition, offset)));
    }
    let count = expected.len();
    for line in world.lines("SELECT id, raw FROM events").await {
        let row: BTreeMap<String, String> = serde_json::from_str(&line).unwrap();
        assert_eq!(expected.remove(&row["id"]).as_ref(), Some(&row["raw"]), "{} twice, or altered", row["id"]);
    }
    assert!(expected.is_empty(), "missing: {:?}", expected.keys().take(5).collect::<Vec<_>>());
    count
}

fn total(done: Vec<(&archive::table::Table, Compacted)>) -> Compacted {
    done.into_iter().fold(Compacted::default(), |mut total, (_, done)| {
        total += done;
        total
    })
}

async fn small_files_become_one_and_every_row_is_as_it_was(place: Place) {
    let world = World::on(place);
    for from in (0..600).step_by(60) {
        for partition in 0..PARTITIONS {
            let texts: Vec<String> = (from..from + 60).map(|offset| record_at(partition, offset).1).collect();
            world.records(partition, &texts.iter().map(|text| (text.as_str(), 'a')).collect::<Vec<_>>()).await;
        }
        world.drain().await;
    }
    let query = "SELECT * EXCLUDE (raw), raw FROM events ORDER BY id";
    let before = world.lines(query).await;
    assert_eq!(before.len(), 1200);
    let done = total(compactor(&world).all().await.unwrap());
    assert_eq!((done.failures, done.rows), (0, 1200), "{done:?}");
    assert!(done.bytes_after < done.bytes_before / 2, "{done:?}");
    assert_eq!(world.lines(query).await, before);
    let delta = DeltaTable::open(world.store(), &EVENTS).await.unwrap();
    assert_eq!(delta.snapshot().files.len(), 3, "one for each day");
    assert_eq!(total(compactor(&world).all().await.unwrap()), Compacted::default(), "nothing is left to do");
    // A file is in the table's order, and says so where others read it.
    let by_file = "SELECT user_id, event_time, id FROM events WHERE day = '2026-11-21'";
    let rows = world.lines(by_file).await;
    let mut sorted = rows.clone();
    sorted.sort();
    assert_eq!(rows, sorted);
}

async fn a_file_that_does_not_hold_what_its_commit_says_is_left_and_stops_nothing_else(place: Place) {
    let world = World::on(place);
    for offset in 0..4 {
        let (tame, other) = (record_at(0, offset).1, record_at(0, 100 + offset).1);
        world.records(0, &[(&tame, 'a'), (&other, 'a')]).await;
        world.drain().await;
    }
    let delta = DeltaTable::open(world.store(), &EVENTS).await.unwrap();
    let paths: Vec<String> =
        delta.snapshot().files.keys().filter(|path| path.contains("day=2026-11-20")).cloned().collect();
    let file = |path: &str| world.folder.join("archive/events").join(path);
    // Whole and readable, but with another's rows: nothing but the sum can tell.
    let altered = std::fs::read(file(&paths[1])).unwrap();
    std::fs::write(file(&paths[0]), &altered).unwrap();
    let done = total(compactor(&world).all().await.unwrap());
    assert_eq!((done.failures, done.merges), (1, 1), "{done:?}");
    let after = DeltaTable::open(world.store(), &EVENTS).await.unwrap();
    assert!(paths.iter().all(|path| after.snapshot().files.contains_key(path) && file(path).exists()));
    assert_eq!(after.snapshot().files.len(), 5, "the other day is one file");
}

/// Rounds of [`feed`] for each read: landing goes on for as long as there is reading, by the reads and not by the time
/// they take. Else each read, which costs more the more rows there are, would let more rows come before the next.
const ROUNDS_PER_READ: f64 = 0.2;
/// Rounds that are allowed at first, so that there is something to merge.
const ROUNDS_FIRST: usize = 200;

/// Opens the table: as many rows as its own positions in the log say. Whether some of them were merged.
async fn read_the_table(world: &World, rows_seen: &AtomicU64) -> bool {
    let at_least = rows_seen.load(Ordering::SeqCst);
    let delta = DeltaTable::open(world.store(), &EVENTS).await.unwrap();
    let snapshot = delta.snapshot();
    let rows: u64 = snapshot
        .files
        .values()
        .map(|add| serde_json::from_str::<FileStatistics>(add.stats.as_deref().unwrap()).unwrap().num_records)
        .sum();
    let positions = snapshot.positions.iter().filter(|(name, _)| name.contains("/records/"));
    let read_from_log: u64 = positions.map(|(_, next)| next).sum();
    assert_eq!(rows, read_from_log, "at version {:?}", snapshot.version);
    assert!(rows >= at_least, "rows have gone");
    rows_seen.fetch_max(rows, Ordering::SeqCst);
    snapshot.files.keys().any(|path| path.contains("/c-"))
}

/// Asks for one user's rows: of each partition those from the first on, each once and none left out.
async fn read_a_user(world: &World, user: u64) {
    let mut found: [Vec<u64>; PARTITIONS as usize] = Default::default();
    for line in world.lines(&format!("SELECT id FROM events WHERE user_id = 'u{user}@t.example'")).await {
        let row: BTreeMap<String, String> = serde_json::from_str(&line).unwrap();
        let (partition, offset) = row["id"].split_once('-').unwrap();
        found[partition.parse::<usize>().unwrap()].push(offset.parse().unwrap());
    }
    for offsets in &mut found {
        offsets.sort_unstable();
        let expected: Vec<u64> = (0..).filter(|offset| user_at(*offset) == user).take(offsets.len()).collect();
        assert_eq!(*offsets, expected, "of u{user}");
    }
}

/// Counts what no filter skips.
async fn read_everything(world: &World, rows_seen: &AtomicU64) {
    let at_least = rows_seen.load(Ordering::SeqCst);
    let counts = world.lines("SELECT count(*) AS n, count(DISTINCT id) AS d FROM events").await;
    let counts: BTreeMap<String, u64> = serde_json::from_str(&counts[0]).unwrap();
    assert_eq!(counts["n"], counts["d"]);
    assert!(counts["n"] >= at_least, "rows have gone");
}

async fn no_reader_sees_a_row_twice_or_misses_one_while_files_land_and_merge(place: Place) {
    let reads = from_environment("HARRIER_TEST_READS", if place == Place::S3 { 100 } else { 1_000 });
    let mut dice = from_environment("HARRIER_TEST_SEED", 1) as u64;
    println!("{reads} reads, seed {dice}");
    let world = World::on(place);
    let (trigger, shutdown) = shutdown::channel();
    let archiver = world.archiver(hasty());
    let (allowed, rows_seen) = (AtomicUsize::new(ROUNDS_FIRST), AtomicU64::new(0));
    let reading = async {
        // Reads of a table that nothing has been merged in yet are none of those that count.
        while !read_the_table(&world, &rows_seen).await {}
        for read in 0..reads {
            allowed.store(ROUNDS_FIRST + (read as f64 * ROUNDS_PER_READ) as usize, Ordering::Relaxed);
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            match (dice >> 33) % 50 {
                0 => read_everything(&world, &rows_seen).await,
                1..=20 => read_a_user(&world, (dice >> 40) % USERS).await,
                _ => assert!(read_the_table(&world, &rows_seen).await, "what was merged is no longer"),
            }
            if (read + 1) % 10_000 == 0 {
                println!("{} reads, {} rows", read + 1, rows_seen.load(Ordering::SeqCst));
            }
        }
    };
    let playing = async {
        tokio::select! {
            () = feed(&world, &allowed) => {}
            () = reading => {}
        }
        trigger.stop();
    };
    let (ended, ()) = tokio::join!(archiver.run(shutdown), playing);
    ended.unwrap();
    let rows = assert_exact(&world).await;
    let delta = DeltaTable::open(world.store(), &EVENTS).await.unwrap();
    println!("{rows} rows, {:?} commits in the end", delta.snapshot().version);
}

/// What [`killed_at_any_moment_the_archive_is_exact`] kills: it writes and compacts for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a life for another test to kill"]
async fn a_life_to_be_killed() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let address = std::env::var(ADDRESS).ok().filter(|address| !address.is_empty());
    let world = World::at(Path::new(&folder), address);
    let (_trigger, shutdown) = shutdown::channel();
    let archiver = world.archiver(hasty());
    let allowed = AtomicUsize::new(usize::MAX);
    tokio::select! {
        ended = archiver.run(shutdown) => panic!("the archiver ended: {ended:?}"),
        () = feed(&world, &allowed) => {}
    }
}

async fn killed_at_any_moment_the_archive_is_exact(place: Place) {
    let kills = from_environment("HARRIER_TEST_KILLS", if place == Place::S3 { 12 } else { 20 });
    let mut dice = from_environment("HARRIER_TEST_SEED", 1) as u64;
    println!("{kills} kills, seed {dice}");
    let world = World::on(place);
    let mut at_failpoints = BTreeMap::new();
    for kill in 0..kills {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "compaction::a_life_to_be_killed", "--ignored"]).env(FOLDER, &world.folder);
        command.env(ADDRESS, world.address().unwrap_or_default());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let failpoint = (kill % 3 == 1).then(|| FAILPOINTS[kill / 3 % FAILPOINTS.len()]);
        if let Some(failpoint) = failpoint {
            command.env("HARRIER_FAILPOINT", failpoint);
        }
        let mut life = command.spawn().unwrap();
        // A linear congruential generator: any numbers will do, as long as a seed gives them again.
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Nothing to wait for: the moment is the point. A failpoint ends it earlier.
        let moment = Duration::from_millis(if failpoint.is_some() { 60_000 } else { 50 + (dice >> 33) % 400 });
        let started = std::time::Instant::now();
        while started.elapsed() < moment && life.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(2));
        }
        if life.try_wait().unwrap().is_some() {
            *at_failpoints.entry(failpoint.expect("ended by itself")).or_insert(0) += 1;
        }
        let _ = life.kill();
        life.wait().unwrap();
    }
    world.drain().await;
    let rows = assert_exact(&world).await;
    let merged = total(compactor(&world).all().await.unwrap());
    assert_eq!(merged.failures, 0);
    assert_eq!(assert_exact(&world).await, rows);
    let delta = DeltaTable::open(world.store(), &EVENTS).await.unwrap();
    println!("{rows} rows, {:?} commits, ended at {at_failpoints:?}", delta.snapshot().version);
    assert!(kills < 12 || at_failpoints.len() == FAILPOINTS.len(), "{at_failpoints:?}");
    // Of a day one file, and where it has become large one more, too small to write the large one again for.
    assert!((3..=6).contains(&delta.snapshot().files.len()), "{} files", delta.snapshot().files.len());
    assert_eq!(total(compactor(&world).all().await.unwrap()), Compacted::default(), "nothing is left to do");
}
