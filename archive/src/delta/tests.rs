use chrono::{TimeDelta, Utc};
use object_store::path::Path as ObjectPath;

use super::*;
use crate::table::EVIDENCE;

async fn open(folder: &tempfile::TempDir) -> DeltaTable {
    DeltaTable::open(Store::folder(folder.path()).unwrap(), &EVIDENCE).await.unwrap()
}

fn add(path: &str) -> Add {
    Add {
        path: path.into(),
        partition_values: BTreeMap::from([("tenant".to_owned(), Some("t1".to_owned()))]),
        size: 1,
        modification_time: 0,
        data_change: true,
        stats: None,
        tags: None,
    }
}

fn changes(path: &str, from: u64, next: u64) -> Changes {
    Changes { add: vec![add(path)], positions: vec![("p".into(), from, next)], ..Changes::default() }
}

fn files(table: &DeltaTable) -> Vec<&str> {
    table.snapshot().files.keys().map(String::as_str).collect()
}

#[tokio::test]
async fn rows_and_position_are_one_commit_and_a_reader_sees_both() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = open(&folder).await;
    assert_eq!(writer.snapshot().version, None);
    assert_eq!(writer.commit(changes("a", 0, 5), Utc::now()).await.unwrap(), Outcome::Committed);
    assert_eq!(writer.commit(changes("b", 5, 9), Utc::now()).await.unwrap(), Outcome::Committed);
    let reader = open(&folder).await;
    assert_eq!(files(&reader), ["a", "b"]);
    assert_eq!((reader.snapshot().version, reader.snapshot().positions["p"]), (Some(1), 9));
    let replaced = Changes { remove: vec!["a".into()], ..changes("c", 9, 10) };
    assert_eq!(writer.commit(replaced, Utc::now()).await.unwrap(), Outcome::Committed);
    assert_eq!(files(&reader), ["a", "b"], "a snapshot does not change under its reader");
    assert_eq!(files(&open(&folder).await), ["b", "c"]);
}

#[tokio::test]
async fn of_two_writers_one_wins_and_the_other_learns_it() {
    let folder = tempfile::tempdir().unwrap();
    let (mut one, mut two) = (open(&folder).await, open(&folder).await);
    assert_eq!(one.commit(changes("one", 0, 5), Utc::now()).await.unwrap(), Outcome::Committed);
    assert_eq!(two.commit(changes("two", 0, 5), Utc::now()).await.unwrap(), Outcome::Overtaken);
    assert_eq!(files(&two), ["one"], "the loser sees what the winner did");
    // Begun from a position that is not the table's: refused without a try.
    assert_eq!(two.commit(changes("two", 0, 7), Utc::now()).await.unwrap(), Outcome::Overtaken);
    assert_eq!(two.commit(changes("two", 5, 7), Utc::now()).await.unwrap(), Outcome::Committed);
    assert_eq!(files(&open(&folder).await), ["one", "two"]);
}

#[tokio::test]
async fn a_hole_or_damage_in_the_log_is_an_error_and_never_an_empty_table() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = open(&folder).await;
    for version in 0..3 {
        writer.commit(changes(&format!("f{version}"), version, version + 1), Utc::now()).await.unwrap();
    }
    let entry = |version: u64| folder.path().join(format!("evidence/_delta_log/{version:020}.json"));
    let store = || Store::folder(folder.path()).unwrap();
    let kept = std::fs::read(entry(1)).unwrap();
    std::fs::remove_file(entry(1)).unwrap();
    assert!(matches!(DeltaTable::open(store(), &EVIDENCE).await, Err(Error::Damaged { .. })));
    std::fs::write(entry(1), &kept[..kept.len() / 2]).unwrap();
    assert!(matches!(DeltaTable::open(store(), &EVIDENCE).await, Err(Error::Damaged { version: 1, .. })));
    std::fs::write(entry(1), &kept).unwrap();
    std::fs::write(entry(3), "{\"protocol\":{\"minReaderVersion\":3,\"minWriterVersion\":7}}\n").unwrap();
    assert!(DeltaTable::open(store(), &EVIDENCE).await.is_err(), "a protocol we do not know is refused");
    std::fs::write(entry(3), "{\"futureAction\":{\"x\":1}}\n").unwrap();
    assert_eq!(files(&DeltaTable::open(store(), &EVIDENCE).await.unwrap()), ["f0", "f1", "f2"]);
}

#[tokio::test]
async fn vacuum_takes_what_left_the_table_long_ago_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = open(&folder).await;
    let long_ago = Utc::now() - TimeDelta::days(2);
    for (path, removed, next) in [("old", None, 1), ("live", Some("old"), 2)] {
        let location: ObjectPath = writer.location(path.to_owned().as_str());
        let location = ObjectPath::from(format!("{location}.parquet"));
        writer.store().objects().put(&location, PutPayload::from_static(b"x")).await.unwrap();
        let remove = removed.map(|path| format!("{path}.parquet")).into_iter().collect();
        let changes = Changes {
            add: vec![add(&format!("{path}.parquet"))],
            remove,
            positions: vec![("p".into(), next - 1, next)],
            ..Changes::default()
        };
        writer.commit(changes, long_ago).await.unwrap();
    }
    let orphan = writer.location("orphan.parquet");
    writer.store().objects().put(&orphan, PutPayload::from_static(b"x")).await.unwrap();
    assert_eq!(writer.vacuum(long_ago - TimeDelta::days(1)).await.unwrap(), 0, "too early");
    assert_eq!(writer.vacuum(Utc::now() - TimeDelta::days(1)).await.unwrap(), 1, "only the file removed two days ago");
    let left = |name: &str| folder.path().join("evidence").join(name).exists();
    assert!(left("live.parquet") && left("orphan.parquet") && !left("old.parquet"));
    assert_eq!(writer.vacuum(Utc::now() + TimeDelta::hours(1)).await.unwrap(), 1, "the orphan, once it is old");
    assert!(left("live.parquet"));
}

#[tokio::test]
async fn vacuum_leaves_checkpoints_however_old_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = open(&folder).await;
    for next in 1..=CHECKPOINT_COMMITS + 1 {
        let positions = vec![("p".into(), next - 1, next)];
        writer.commit(Changes { positions, ..Changes::default() }, Utc::now()).await.unwrap();
    }
    let checkpoint = folder.path().join(format!("evidence/_delta_log/{CHECKPOINT_COMMITS:020}.checkpoint.parquet"));
    assert!(checkpoint.exists());
    assert_eq!(writer.vacuum(Utc::now() + TimeDelta::days(9)).await.unwrap(), 0);
    assert!(checkpoint.exists());
}

#[tokio::test]
async fn who_came_second_commits_behind_the_first_unless_what_it_rests_on_has_changed() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = open(&folder).await;
    for name in ["a", "b"] {
        let next = writer.snapshot().positions.get("p").copied().unwrap_or(0);
        writer.commit(changes(name, next, next + 1), Utc::now()).await.unwrap();
    }
    let merged = |to: &str| Changes {
        operation: Operation::Optimize,
        add: vec![add(to)],
        remove: vec!["a".into(), "b".into()],
        ..Changes::default()
    };
    let (mut compactor, mut late) = (open(&folder).await, open(&folder).await);
    assert_eq!(writer.commit(changes("c", 2, 3), Utc::now()).await.unwrap(), Outcome::Committed);
    assert_eq!(compactor.commit(merged("ab"), Utc::now()).await.unwrap(), Outcome::Committed, "behind c");
    assert_eq!(writer.commit(changes("d", 3, 4), Utc::now()).await.unwrap(), Outcome::Committed, "behind ab");
    assert_eq!(late.commit(merged("again"), Utc::now()).await.unwrap(), Outcome::Overtaken, "a and b are gone");
    assert_eq!(files(&open(&folder).await), ["ab", "c", "d"]);
    let entry = std::fs::read_to_string(folder.path().join("evidence/_delta_log/00000000000000000003.json")).unwrap();
    assert!(
        entry.contains(r#""operation":"OPTIMIZE""#) && entry.matches(r#""dataChange":false"#).count() == 2,
        "{entry}"
    );
}

#[tokio::test]
async fn a_checkpoint_saves_reading_the_log_and_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = open(&folder).await;
    for version in 0..=CHECKPOINT_COMMITS + 2 {
        let remove = (version > 0 && version % 3 == 0).then(|| format!("f{}", version - 1)).into_iter().collect();
        let tags = Some(BTreeMap::from([("sha256".to_owned(), format!("{version:x}"))]));
        let stats = Some(r#"{"numRecords":1}"#.to_owned());
        let new = Add { tags, stats, ..add(&format!("f{version}")) };
        let changes = Changes { remove, add: vec![new], ..changes("", version, version + 1) };
        writer.commit(changes, Utc::now()).await.unwrap();
    }
    let log = folder.path().join("evidence/_delta_log");
    let entry = |version: u64| log.join(format!("{version:020}.json"));
    for version in 0..CHECKPOINT_COMMITS {
        std::fs::rename(entry(version), folder.path().join(format!("kept-{version}"))).unwrap();
    }
    let reader = open(&folder).await;
    let (written, read) = (writer.snapshot(), reader.snapshot());
    assert_eq!(read.files, written.files);
    assert_eq!((read.version, &read.positions, &read.removed), (written.version, &written.positions, &written.removed));
    assert_eq!(read.metadata.as_ref().map(|m| &m.schema_string), written.metadata.as_ref().map(|m| &m.schema_string));
    // What follows a checkpoint still must have no hole.
    std::fs::rename(entry(CHECKPOINT_COMMITS + 1), folder.path().join("hole")).unwrap();
    assert!(DeltaTable::open(Store::folder(folder.path()).unwrap(), &EVIDENCE).await.is_err());
    std::fs::rename(folder.path().join("hole"), entry(CHECKPOINT_COMMITS + 1)).unwrap();
    // A checkpoint that cannot be read is passed over, and then the log is needed from its start.
    std::fs::write(log.join(format!("{CHECKPOINT_COMMITS:020}.checkpoint.parquet")), "damaged").unwrap();
    assert!(DeltaTable::open(Store::folder(folder.path()).unwrap(), &EVIDENCE).await.is_err());
    for version in 0..CHECKPOINT_COMMITS {
        std::fs::rename(folder.path().join(format!("kept-{version}")), entry(version)).unwrap();
    }
    assert_eq!(open(&folder).await.snapshot().files, written.files);
}

/// A table with a log that was cleaned while somebody slept who stands at `version`.
async fn slept_through_a_cleaning(folder: &tempfile::TempDir, version: u64) -> DeltaTable {
    let mut writer = open(folder).await;
    let mut slept = None;
    for next in 1..=COPY_COMMITS + 2 * CHECKPOINT_COMMITS + 1 {
        // The first sleeper's own table: opened once, and then left alone.
        if next == version + 2 {
            slept = Some(open(folder).await);
        }
        writer.commit(changes(&format!("f{next}"), next - 1, next), Utc::now()).await.unwrap();
    }
    assert_eq!(writer.clean(Utc::now() + TimeDelta::days(8)).await.unwrap().deleted, COPY_COMMITS);
    let slept = slept.unwrap();
    assert_eq!(slept.snapshot().version, Some(version));
    slept
}

#[tokio::test]
async fn who_slept_through_a_cleaning_reads_on_and_commits_nothing_where_nobody_would_find_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut slept = slept_through_a_cleaning(&folder, 41).await;
    let entry = folder.path().join(format!("evidence/_delta_log/{:020}.json", 42));
    // Its version is free again, and it is not taken.
    assert_eq!(slept.commit(changes("late", 42, 43), Utc::now()).await.unwrap(), Outcome::Overtaken);
    assert!(!entry.exists());
    let newest = open(&folder).await;
    assert_eq!(slept.snapshot().version, newest.snapshot().version);
    assert!(!newest.snapshot().files.contains_key("late"));
    // Only what rests on nothing that has changed goes on, behind all others.
    let next = newest.snapshot().positions["p"];
    assert_eq!(slept.commit(changes("on", next, next + 1), Utc::now()).await.unwrap(), Outcome::Committed);
    assert_eq!(open(&folder).await.snapshot().version, newest.snapshot().version.map(|version| version + 1));
}

#[tokio::test]
async fn a_reader_who_slept_through_a_cleaning_sees_what_is_there_now() {
    let folder = tempfile::tempdir().unwrap();
    let mut slept = slept_through_a_cleaning(&folder, COPY_COMMITS - 3).await;
    slept.refresh().await.unwrap();
    assert_eq!(slept.snapshot().files, open(&folder).await.snapshot().files);
}
