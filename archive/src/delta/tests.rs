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
    Changes { add: vec![add(path)], remove: vec![], positions: vec![("p".into(), from, next)] }
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
