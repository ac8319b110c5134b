use super::super::{Output, StateChange};
use super::*;

fn open(folder: &tempfile::TempDir) -> Embedded {
    Embedded::open(&folder.path().join("log.sqlite"), 2).unwrap()
}

fn to(partition: u32, text: &str) -> Output {
    Output { topic: Topic::Records, to: To::Partition(partition), value: text.as_bytes().to_vec() }
}

fn input(from: u64, next: u64) -> Input {
    Input { consumer: Consumer::Match, topic: Topic::Records, partition: 0, from, next }
}

fn row(key: &[u8], value: Option<&[u8]>) -> StateChange {
    StateChange { store: Store::Admit, partition: 0, key: key.to_vec(), value: value.map(<[u8]>::to_vec) }
}

async fn texts(log: &Embedded, from: u64) -> Vec<String> {
    let messages = log.read(Topic::Records, 0, from, ReadLimit::default()).await.unwrap();
    messages.iter().map(|m| format!("{}:{}", m.offset, String::from_utf8_lossy(&m.value))).collect()
}

#[tokio::test]
async fn a_refused_step_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder);
    log.commit(Txn { outputs: vec![to(0, "a"), to(0, "b"), to(1, "c")], ..Txn::default() }).await.unwrap();
    let step = |from, next| Txn {
        inputs: vec![input(from, next)],
        outputs: vec![to(0, "out")],
        state: vec![row(b"k", Some(b"v"))],
        lease: None,
    };
    for wrong in [1, 2, 7] {
        let refused = log.commit(step(wrong, wrong + 1)).await.unwrap_err();
        assert!(refused.must_reload(), "{refused}");
    }
    assert_eq!(texts(&log, 0).await, ["0:a", "1:b"]);
    assert_eq!(log.scan(Store::Admit, 0, b"").await.unwrap(), []);
    assert_eq!(log.committed(Consumer::Match, Topic::Records, 0).await.unwrap(), 0);

    log.commit(step(0, 2)).await.unwrap();
    assert_eq!(texts(&log, 1).await, ["1:b", "2:out"]);
    assert_eq!(log.committed(Consumer::Match, Topic::Records, 0).await.unwrap(), 2);
    assert_eq!(log.scan(Store::Admit, 0, b"k").await.unwrap(), [(b"k".to_vec(), b"v".to_vec())]);
    // The same step again is refused: it has been done.
    assert!(log.commit(step(0, 2)).await.is_err());
    assert_eq!(log.end(Topic::Records, 0).await.unwrap(), 3);
}

#[tokio::test]
async fn of_two_processes_doing_the_same_step_one_succeeds() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (open(&folder), open(&folder));
    one.commit(Txn { outputs: vec![to(0, "a")], ..Txn::default() }).await.unwrap();
    let step = || Txn { inputs: vec![input(0, 1)], outputs: vec![to(0, "out")], ..Txn::default() };
    let (a, b) = tokio::join!(one.commit(step()), two.commit(step()));
    assert_eq!(u8::from(a.is_ok()) + u8::from(b.is_ok()), 1);
    assert_eq!(texts(&two, 0).await, ["0:a", "1:out"]);
}

#[tokio::test]
async fn what_is_committed_is_there_after_reopening_and_offsets_go_on() {
    let folder = tempfile::tempdir().unwrap();
    {
        let log = open(&folder);
        let committed = log.commit(Txn { outputs: vec![to(0, "a"), to(0, "b")], ..Txn::default() }).await.unwrap();
        assert_eq!(committed.ranges, [Range { topic: Topic::Records, partition: 0, from: 0, next: 2 }]);
    }
    let log = Embedded::open(&folder.path().join("log.sqlite"), 7).unwrap();
    assert_eq!(log.partitions(), 2, "the count is fixed when the log is made");
    let committed = log.commit(Txn { outputs: vec![to(0, "c")], ..Txn::default() }).await.unwrap();
    assert_eq!(committed.ranges[0].from, 2);
}

#[tokio::test]
async fn marks_reach_every_partition_and_keys_always_the_same_one() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder);
    let everywhere = Output { topic: Topic::Matches, to: To::Everywhere, value: b"mark".to_vec() };
    let keyed = |key| Output { topic: Topic::Findings, to: To::Key(key), value: b"x".to_vec() };
    log.commit(Txn { outputs: vec![everywhere, keyed(3), keyed(5), keyed(4)], ..Txn::default() }).await.unwrap();
    for partition in 0..2 {
        assert_eq!(log.end(Topic::Matches, partition).await.unwrap(), 1);
    }
    assert_eq!(log.end(Topic::Findings, 1).await.unwrap(), 2);
    assert_eq!(log.end(Topic::Findings, 0).await.unwrap(), 1);
}

#[tokio::test]
async fn reads_are_limited_and_go_on_where_they_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder);
    for batch in 0..3 {
        let outputs = (0..5).map(|i| to(0, &format!("{}", batch * 5 + i))).collect();
        log.commit(Txn { outputs, ..Txn::default() }).await.unwrap();
    }
    let limit = ReadLimit { messages: 4, bytes: 1000 };
    let mut from = 0;
    let mut seen = Vec::new();
    loop {
        let messages = log.read(Topic::Records, 0, from, limit).await.unwrap();
        assert!(messages.len() <= 4);
        let Some(last) = messages.last() else { break };
        from = last.offset + 1;
        seen.extend(messages.iter().map(|m| String::from_utf8(m.value.clone()).unwrap().parse::<u64>().unwrap()));
    }
    assert_eq!(seen, (0..15).collect::<Vec<_>>());
    // A message larger than the limit is still returned, alone.
    assert_eq!(log.read(Topic::Records, 0, 0, ReadLimit { messages: 9, bytes: 0 }).await.unwrap().len(), 1);
}

#[tokio::test]
async fn state_is_scanned_by_prefix_and_rows_can_go() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder);
    let keys: [&[u8]; 5] = [b"a", b"ab", b"b", &[0xff], &[0xff, 0xff]];
    let state = keys.iter().map(|key| row(key, Some(b"v"))).collect();
    log.commit(Txn { state, ..Txn::default() }).await.unwrap();
    let found = |rows: Vec<(Vec<u8>, Vec<u8>)>| rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!(found(log.scan(Store::Admit, 0, b"a").await.unwrap()), [b"a".to_vec(), b"ab".to_vec()]);
    assert_eq!(found(log.scan(Store::Admit, 0, &[0xff]).await.unwrap()), [vec![0xff], vec![0xff, 0xff]]);
    log.commit(Txn { state: vec![row(b"ab", None)], ..Txn::default() }).await.unwrap();
    assert_eq!(log.scan(Store::Admit, 0, b"").await.unwrap().len(), 4);
    assert_eq!(log.scan(Store::Correlate, 0, b"").await.unwrap(), []);
}

#[tokio::test]
async fn a_lease_keeps_others_out_and_guards_steps() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder);
    let lease = |owner: &str| Lease { consumer: Consumer::Poll, partition: 0, owner: owner.into() };
    let hold = Duration::from_secs(30);
    assert!(log.acquire(&lease("a"), hold).await.unwrap());
    assert!(log.acquire(&lease("a"), hold).await.unwrap(), "renewing");
    assert!(!log.acquire(&lease("b"), hold).await.unwrap());
    let step = |owner| Txn { outputs: vec![to(0, "x")], lease: Some(lease(owner)), ..Txn::default() };
    assert!(log.commit(step("a")).await.is_ok());
    assert!(matches!(log.commit(step("b")).await, Err(LogError::LeaseLost { .. })));
    log.release(&lease("b")).await.unwrap();
    assert!(!log.acquire(&lease("b"), hold).await.unwrap(), "only the owner can give it back");
    log.release(&lease("a")).await.unwrap();
    assert!(log.acquire(&lease("b"), hold).await.unwrap());
    assert!(matches!(log.commit(step("a")).await, Err(LogError::LeaseLost { .. })));
}

#[tokio::test]
async fn trimming_never_takes_what_a_consumer_has_not_read_and_never_hides_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder);
    for text in ["a", "b"] {
        log.commit(Txn { outputs: vec![to(0, text)], ..Txn::default() }).await.unwrap();
    }
    let later = Utc::now() + chrono::TimeDelta::hours(1);
    assert_eq!(log.trim(later).await.unwrap(), 0, "nobody has read anything");
    let done = |consumer| Input { consumer, topic: Topic::Records, partition: 0, from: 0, next: 1 };
    log.commit(Txn { inputs: vec![done(Consumer::Match), done(Consumer::Archive)], ..Txn::default() }).await.unwrap();
    assert_eq!(log.trim(Utc::now() - chrono::TimeDelta::hours(1)).await.unwrap(), 0, "too young");
    assert_eq!(log.trim(later).await.unwrap(), 1);
    assert_eq!(texts(&log, 1).await, ["1:b"]);
    let gap = log.read(Topic::Records, 0, 0, ReadLimit::default()).await.unwrap_err();
    assert!(matches!(gap, LogError::Trimmed { wanted: 0, begins: 1, .. }), "{gap}");
}

#[tokio::test]
async fn a_file_of_another_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(&folder));
    let path = folder.path().join("log.sqlite");
    Connection::open(&path)
        .unwrap()
        .execute("UPDATE meta SET value = 'harrier-log/9' WHERE key = 'format'", [])
        .unwrap();
    assert!(matches!(Embedded::open(&path, 2), Err(LogError::Unusable(Unusable::Format { .. }))));
}
