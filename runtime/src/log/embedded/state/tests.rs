use super::super::Embedded;
use super::*;
use crate::log::{Consumer, Input, Log, Output, To, Topic, Txn};

fn open(folder: &tempfile::TempDir) -> Embedded {
    Embedded::open(&folder.path().join("log.sqlite"), 2).unwrap()
}

/// A small generator: what it makes follows from its seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn key(&mut self) -> Vec<u8> {
        vec![[0, 7, 255][self.below(3) as usize], self.below(256) as u8, self.below(8) as u8]
    }

    fn changes(&mut self, rows: u64, partition: u32) -> Vec<StateChange> {
        let change = |_| {
            let value = (self.below(4) > 0).then(|| vec![b'v'; self.below(3) as usize]);
            StateChange { store: Store::Correlate, partition, key: self.key(), value }
        };
        (0..rows).map(change).collect()
    }
}

/// Writes the same rows into a map and through logs, of which several have the file open, and compares after each step.
#[tokio::test]
async fn what_is_read_is_what_was_written_whoever_writes_it_and_however_far_rows_have_been_moved() {
    let given = std::env::var("HARRIER_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or(u64::from(std::process::id()));
    println!("seed {seed}");
    let mut dice = Dice(seed);
    let folder = tempfile::tempdir().unwrap();
    let mut logs = [open(&folder), open(&folder)];
    let mut truth: Vec<Rows> = vec![Rows::new(), Rows::new()];
    // Few keys, so that rows are replaced and removed while they are on their way.
    for step in 0..300 {
        let partition = dice.below(2) as u32;
        let rows = [1, 20, 300][dice.below(3) as usize];
        let changes = dice.changes(rows, partition);
        // A step changes a row once.
        let changes: Vec<StateChange> =
            changes.into_iter().map(|c| (c.key.clone(), c)).collect::<BTreeMap<_, _>>().into_values().collect();
        for change in &changes {
            truth[partition as usize].insert(change.key.clone(), change.value.clone());
        }
        let writer = dice.below(10).min(1) as usize;
        logs[writer].commit(Txn { state: changes, ..Txn::default() }).await.unwrap();
        if dice.below(8) == 0 {
            logs[0] = open(&folder);
        }
        for partition in 0..2 {
            let prefixes = [vec![], vec![255], vec![7, dice.below(256) as u8], vec![9], dice.key()];
            let reader = dice.below(2) as usize;
            let found = logs[reader].scan_each(Store::Correlate, partition, prefixes.to_vec()).await.unwrap();
            for (prefix, found) in prefixes.iter().zip(found) {
                let all = truth[partition as usize].iter().filter(|(key, _)| key.starts_with(prefix));
                let wanted: Vec<StateRow> =
                    all.filter_map(|(key, value)| Some((key.clone(), value.clone()?))).collect();
                assert!(found == wanted, "step {step}, partition {partition}, prefix {prefix:?}");
            }
        }
    }
    let connection = rusqlite::Connection::open(folder.path().join("log.sqlite")).unwrap();
    let count = |of: &str| connection.query_row(of, [], |row| row.get::<_, u64>(0)).unwrap();
    assert!(count("SELECT count(*) FROM state") > 0, "rows have been moved");
    assert!(count("SELECT min(number) FROM runs") > 1, "runs have gone");
}

#[tokio::test]
async fn a_step_that_is_refused_or_fails_leaves_no_rows_in_memory_either() {
    let folder = tempfile::tempdir().unwrap();
    let (log, other) = (open(&folder), open(&folder));
    let put = |store, key: &str| StateChange { store, partition: 0, key: key.into(), value: Some(b"v".to_vec()) };
    let output = Output { topic: Topic::Records, to: To::Partition(0), value: b"r".to_vec() };
    let input = |from| Input { consumer: Consumer::Match, topic: Topic::Records, partition: 0, from, next: from + 1 };
    let first = vec![put(Store::Correlate, "a")];
    log.commit(Txn { outputs: vec![output], state: first, ..Txn::default() }).await.unwrap();
    let wrong = Txn { inputs: vec![input(5)], state: vec![put(Store::Correlate, "b")], ..Txn::default() };
    assert!(log.commit(wrong).await.unwrap_err().must_reload());
    // The file takes no row of the ledger for a while, as a disk that is full.
    let file = rusqlite::Connection::open(folder.path().join("log.sqlite")).unwrap();
    file.execute_batch("CREATE TRIGGER full BEFORE INSERT ON state BEGIN SELECT RAISE(ABORT, 'full'); END").unwrap();
    let state = vec![put(Store::Correlate, "c"), put(Store::Ledger, "c")];
    let failing = Txn { inputs: vec![input(0)], state, ..Txn::default() };
    assert!(log.commit(failing).await.unwrap_err().retryable());
    file.execute_batch("DROP TRIGGER full").unwrap();
    // The next run has the number of the one that failed.
    let state = vec![put(Store::Correlate, "d")];
    other.commit(Txn { inputs: vec![input(0)], state, ..Txn::default() }).await.unwrap();
    for log in [&log, &other] {
        let keys: Vec<Vec<u8>> =
            log.scan(Store::Correlate, 0, b"").await.unwrap().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, [b"a", b"d"]);
    }
}

#[tokio::test]
async fn two_processes_that_write_in_turn_move_nothing_old_over_what_is_new() {
    let folder = tempfile::tempdir().unwrap();
    let row = |key: String, value: &str| StateChange {
        store: Store::Correlate,
        partition: 0,
        key: key.into_bytes(),
        value: Some(value.into()),
    };
    let put = async |log: &Embedded, rows: Vec<StateChange>| {
        log.commit(Txn { state: rows, ..Txn::default() }).await.unwrap();
    };
    let first = open(&folder);
    put(&first, (0..MOVED_AT - 1).map(|number| row(format!("k{number:04}"), "old")).collect()).await;
    // From here on each step moves a few, in the order of their keys.
    put(&first, vec![row("z".to_owned(), "1")]).await;
    let second = open(&folder);
    put(&second, vec![row("k0500".to_owned(), "new")]).await;
    let steps = MOVED_AT / MOVED_PER_STEP_MIN;
    // The second has come past what it has changed, then the first does, and the second comes to the end.
    for (log, times) in [(&second, steps * 6 / 10), (&first, steps * 6 / 10), (&second, 2 * steps)] {
        for number in 0..times {
            put(log, vec![row("z".to_owned(), &number.to_string())]).await;
        }
        let third = open(&folder);
        let found = third.scan_each(Store::Correlate, 0, vec![b"k0500".to_vec()]).await.unwrap();
        assert_eq!(found, [[(b"k0500".to_vec(), b"new".to_vec())]]);
    }
}
