//! Whatever is done to an archive behind harrier's back is named; and nothing is, where nothing was done.

use std::path::{Path, PathBuf};

use archive::compactor::{Compactor, Plan};
use archive::delta::{Changes, DeltaTable, Operation};
use archive::signer::{PUBLIC_KEY_FILE, PublicKey, Signer};
use archive::table::EVENTS;
use archive::verify::{Kind, Report, Verifier};
use chrono::{TimeDelta, Utc};
use runtime::clock::Clock;
use runtime::metrics::Metrics;

use crate::world::{Place, World, record};

on_each_store! {
    an_older_state_is_whole_and_only_a_head_kept_elsewhere_tells,
    who_has_no_key_cannot_write_and_who_has_one_cannot_call_other_rows_a_compaction,
    the_bytes_of_a_record_come_back_exactly,
}

/// So many commits that there is a checkpoint.
const COMMITS: u64 = 103;

/// An archive with a checkpoint, with merged files and with the files they stand for.
async fn archived() -> World {
    let world = World::new();
    for version in 0..COMMITS {
        let text = record(&format!("r{version}"), &format!("2026-11-{:02}T10:00:00", 20 + version % 2));
        world.records((version % 2) as u32, &[(&text, 'a')]).await;
        world.drain().await;
    }
    let plan = Plan { files_min: 20, rests_after: std::time::Duration::from_secs(9999) };
    Compactor::new(world.store(), Clock::system(), Metrics::new("test"), plan).all().await.unwrap();
    world
}

async fn verify_with(world: &World, heads: &[&str]) -> Report {
    let keys = vec![PublicKey::read(&world.folder.join(PUBLIC_KEY_FILE)).unwrap()];
    let heads = heads.iter().map(|&head| head.to_owned()).collect();
    // Days later: what a crash leaves is gone by then.
    let now = Utc::now() + TimeDelta::days(3);
    let store = world.unsigned_store();
    Verifier { store, keys, heads, now }.run().await.unwrap()
}

async fn verify(world: &World) -> Report {
    verify_with(world, &[]).await
}

/// Every file below a folder, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// All of these, if it is asked for; else every twenty-fifth of the many that are of one kind, and all others.
fn sampled(world: &World, all: Vec<PathBuf>) -> Vec<PathBuf> {
    if std::env::var_os("HARRIER_TEST_THOROUGH").is_some() {
        return all;
    }
    let is_of_many = |path: &Path| {
        let name = below(world, path);
        name.contains("/h-") || (name.contains("_delta_log") && name.ends_with(".json"))
    };
    let kept = all.into_iter().enumerate().filter(|(index, path)| index % 25 == 0 || !is_of_many(path));
    kept.map(|(_, path)| path).collect()
}

fn below<'a>(world: &World, path: &'a Path) -> &'a str {
    path.strip_prefix(world.folder.join("archive")).unwrap().to_str().unwrap()
}

fn entry(world: &World, version: u64) -> PathBuf {
    world.folder.join(format!("archive/events/_delta_log/{version:020}.json"))
}

#[track_caller]
fn assert_named(report: &Report, file: &str, what: &str) {
    let first = report.faults.first().unwrap_or_else(|| panic!("{what} of {file} was not seen"));
    assert_eq!(first.file, file, "{what}: {first}");
}

#[tokio::test]
async fn what_harrier_wrote_is_whole_and_one_flipped_bit_anywhere_is_named() {
    let world = archived().await;
    let report = verify(&world).await;
    assert!(report.is_whole(), "{:?}", report.faults);
    let events = report.tables.iter().find(|table| table.name == "events").unwrap();
    assert!(events.commits > COMMITS && events.files > 20 && events.fresh_since.is_none(), "{events:?}");
    let all = files(&world.folder.join("archive"));
    assert!(
        all.iter().any(|path| path.ends_with("_last_checkpoint"))
            && all.iter().any(|path| below(&world, path).contains("/_proof/"))
    );
    let mut flipped = 0;
    let all = sampled(&world, all);
    for (index, path) in all.iter().enumerate() {
        let bytes = std::fs::read(path).unwrap();
        let spread = [0, 1, bytes.len() / 3, bytes.len() / 2, bytes.len() - 2, bytes.len() - 1];
        // All of them for some files of each kind, two for every file.
        let places = if index % 12 == 0 { &spread[..] } else { &spread[index % 4..index % 4 + 2] };
        for &place in places {
            let mut altered = bytes.clone();
            altered[place] ^= 1 << (place % 8);
            std::fs::write(path, &altered).unwrap();
            assert_named(&verify(&world).await, below(&world, path), &format!("bit {} of byte {place}", place % 8));
            flipped += 1;
        }
        std::fs::write(path, &bytes).unwrap();
    }
    println!("{flipped} bits flipped in {} files", all.len());
    assert!(verify(&world).await.is_whole());
}

#[tokio::test]
async fn what_is_dropped_cut_added_or_moved_is_named() {
    let world = archived().await;
    let all = sampled(&world, files(&world.folder.join("archive")));
    let live = DeltaTable::open(world.store(), &EVENTS).await.unwrap().snapshot().files.clone();
    for path in &all {
        let (bytes, name) = (std::fs::read(path).unwrap(), below(&world, path));
        std::fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
        assert_named(&verify(&world).await, name, "the last byte gone");
        std::fs::write(path, [&bytes[..], b"\n"].concat()).unwrap();
        assert_named(&verify(&world).await, name, "a byte more");
        std::fs::remove_file(path).unwrap();
        let report = verify(&world).await;
        let is_live = name.strip_prefix("events/").is_some_and(|path| live.contains_key(path));
        let newest = [entry(&world, COMMITS), entry(&world, COMMITS + 1)];
        if is_live || (name.contains("_delta_log") && !name.ends_with("_last_checkpoint") && !newest.contains(path)) {
            assert_named(&report, name, "the whole file gone");
        }
        std::fs::write(path, &bytes).unwrap();
    }
    for strange in ["x", "events/x.parquet", "events/_delta_log/x", "events/tenant=t1/day=2026-11-20/x.parquet", "y/z"]
    {
        let path = world.folder.join("archive").join(strange);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "PAR1").unwrap();
        let report = verify(&world).await;
        assert!(
            matches!(report.faults[..], [ref fault] if fault.kind == Kind::Added && strange.starts_with(&fault.file))
        );
        if strange == "y/z" { std::fs::remove_dir_all(path.parent().unwrap()) } else { std::fs::remove_file(&path) }
            .unwrap();
    }
    // Two commits change places; and one comes again at the end.
    let (one, two) = (std::fs::read(entry(&world, 3)).unwrap(), std::fs::read(entry(&world, 4)).unwrap());
    std::fs::write(entry(&world, 3), &two).unwrap();
    std::fs::write(entry(&world, 4), &one).unwrap();
    let report = verify(&world).await;
    assert_eq!(report.faults[0].kind, Kind::Misplaced { table: "events".into(), version: 4 });
    std::fs::write(entry(&world, 3), &one).unwrap();
    std::fs::write(entry(&world, 4), &two).unwrap();
    let last = live_version(&world).await;
    std::fs::copy(entry(&world, last), entry(&world, last + 1)).unwrap();
    let report = verify(&world).await;
    assert_eq!(report.faults[0].kind, Kind::Misplaced { table: "events".into(), version: last });
    std::fs::remove_file(entry(&world, last + 1)).unwrap();
    assert!(verify(&world).await.is_whole());
}

async fn live_version(world: &World) -> u64 {
    DeltaTable::open(world.store(), &EVENTS).await.unwrap().snapshot().version.unwrap()
}

async fn an_older_state_is_whole_and_only_a_head_kept_elsewhere_tells(place: Place) {
    let world = World::on(place);
    for version in 0..4 {
        world.records(0, &[(&record(&format!("r{version}"), "2026-11-20T10:00:00"), 'a')]).await;
        world.drain().await;
    }
    let head = verify(&world).await.tables[0].head.clone().unwrap().1;
    world.records(0, &[(&record("later", "2026-11-20T10:00:00"), 'a')]).await;
    world.drain().await;
    let later = verify_with(&world, &[&head]).await;
    assert!(later.is_whole());
    assert_eq!(later.tables[0].fresh_since, Some(3), "a head of earlier is found in what came since");
    let newest = later.tables[0].head.clone().unwrap().1;
    // Brought back: the newest commit and its file.
    let added: Vec<PathBuf> = {
        let text = std::fs::read_to_string(entry(&world, 4)).unwrap();
        let known = files(&world.folder.join("archive/events"));
        known.into_iter().filter(|path| text.contains(path.file_name().unwrap().to_str().unwrap())).collect()
    };
    std::fs::remove_file(entry(&world, 4)).unwrap();
    let left = verify(&world).await;
    assert!(left.faults.iter().all(|fault| fault.kind == Kind::Added) && !left.faults.is_empty(), "its file is left");
    added.iter().filter(|path| path.exists()).for_each(|path| std::fs::remove_file(path).unwrap());
    assert!(verify(&world).await.is_whole(), "nothing inside can tell");
    let report = verify_with(&world, &[&newest]).await;
    assert_eq!(report.faults.last().unwrap().kind, Kind::HeadMissing { head: newest });
}

async fn who_has_no_key_cannot_write_and_who_has_one_cannot_call_other_rows_a_compaction(place: Place) {
    let world = World::on(place);
    for version in 0..3 {
        world.records(0, &[(&record(&format!("r{version}"), "2026-11-20T10:00:00"), 'a')]).await;
        world.drain().await;
    }
    // With another key, and with none: the commit of a stranger who can write files.
    let elsewhere = tempfile::tempdir().unwrap();
    let unsigned = world.unsigned_store();
    for store in [unsigned.clone().signed_by(Signer::open(elsewhere.path()).unwrap()), unsigned] {
        let mut delta = DeltaTable::open(store, &EVENTS).await.unwrap();
        let first = delta.snapshot().files.keys().next().unwrap().clone();
        delta.commit(Changes { remove: vec![first], ..Changes::default() }, Utc::now()).await.unwrap();
        let report = verify(&world).await;
        assert_eq!(report.faults[0].file, "events/_delta_log/00000000000000000003.json", "{}", report.faults[0]);
        assert!(matches!(report.faults[0].kind, Kind::OtherKey { .. } | Kind::NotSigned), "{}", report.faults[0]);
        std::fs::remove_file(entry(&world, 3)).unwrap();
    }
    let mut delta = DeltaTable::open(world.store(), &EVENTS).await.unwrap();
    let mut adds: Vec<_> = delta.snapshot().files.values().cloned().collect();
    let remove: Vec<String> = adds.drain(..2).map(|add| add.path).collect();
    let (from, mut add) = (adds[0].path.clone(), adds[0].clone());
    add.path = add.path.replace("/h-", "/c-");
    let file = |path: &str| world.folder.join("archive/events").join(path);
    std::fs::copy(file(&from), file(&add.path)).unwrap();
    let changes = Changes { operation: Operation::Optimize, add: vec![add], remove, ..Changes::default() };
    delta.commit(changes, Utc::now()).await.unwrap();
    assert_eq!(verify(&world).await.faults[0].kind, Kind::RowsChanged);
}

#[tokio::test]
async fn an_archive_from_before_statements_is_read_and_said_not_to_be_proven() {
    let world = World::new();
    for version in 0..3 {
        world.records(0, &[(&record(&format!("r{version}"), "2026-11-20T10:00:00"), 'a')]).await;
        world.drain().await;
    }
    for path in files(&world.folder.join("archive/events/_delta_log")) {
        let text = std::fs::read_to_string(&path).unwrap();
        let (first, rest) = text.split_once('\n').unwrap();
        let mut first: serde_json::Value = serde_json::from_str(first).unwrap();
        first["commitInfo"].as_object_mut().unwrap().remove("proof");
        std::fs::write(&path, format!("{first}\n{rest}")).unwrap();
    }
    assert!(!verify(&world).await.is_whole(), "nobody stands for any of it");
    world.records(0, &[(&record("later", "2026-11-20T10:00:00"), 'a')]).await;
    world.drain().await;
    assert_eq!(world.lines("SELECT id FROM events").await.len(), 4);
    let report = verify(&world).await;
    assert!(report.is_whole(), "{}", report.faults[0]);
    assert_eq!(report.tables[0].unproven_commits, 3);
}

async fn the_bytes_of_a_record_come_back_exactly(place: Place) {
    let world = World::on(place);
    let text = "{\"Id\" : \"x\",\t\"CreationTime\":\"2026-11-20T10:00:00\", \"U\":\"\\u00e4 \u{e4} \u{202e}\" } ";
    world.records(0, &[(text, 'a'), (&text.replace('\t', " "), 'v')]).await;
    world.drain().await;
    let sql = archive::sql::Sql::over(world.store());
    let mut bytes: Vec<Vec<u8>> = sql.raw("x", None).await.unwrap().into_iter().map(|record| record.bytes).collect();
    bytes.sort();
    let mut expected = vec![text.as_bytes().to_vec(), text.replace('\t', " ").into_bytes()];
    expected.sort();
    assert_eq!(bytes, expected);
    assert_eq!(sql.raw("x", Some("t2")).await.unwrap(), vec![]);
    assert_eq!(sql.raw("' OR 1=1 --", None).await.unwrap(), vec![]);
}
