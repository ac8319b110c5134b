//! What every backend of the log promises, asked of each of them: the embedded one, and a real Apache Kafka.

#[cfg(feature = "kafka")]
mod broker;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use runtime::log::embedded::Embedded;
use runtime::log::{
    Consumer, Input, Lease, Log, LogError, Message, Output, ReadLimit, StateChange, Store, To, Topic, Txn,
};

const PARTITIONS: u32 = 2;

/// Far longer than anything here takes; reached only by what would never happen.
const PATIENCE: Duration = Duration::from_secs(60);

const HOLD: Duration = Duration::from_secs(30);

type Opening = Pin<Box<dyn Future<Output = Arc<dyn Log>> + Send>>;

/// One log, and the way to open it once more as another process would.
struct World {
    open: Box<dyn Fn() -> Opening + Send + Sync>,
}

impl World {
    async fn open(&self) -> Arc<dyn Log> {
        (self.open)().await
    }
}

fn embedded() -> (World, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.sqlite");
    let open = move || -> Opening {
        let path = path.clone();
        Box::pin(async move { Arc::new(Embedded::open(&path, PARTITIONS).unwrap()) as Arc<dyn Log> })
    };
    (World { open: Box::new(open) }, folder)
}

#[cfg(feature = "kafka")]
fn kafka(name: &str) -> Option<(World, tempfile::TempDir)> {
    let settings = kafka::settings(name)?;
    let folder = tempfile::tempdir().unwrap();
    let settings = runtime::log::kafka::Settings { cache_folder: folder.path().to_owned(), ..settings };
    let open = move || -> Opening {
        let settings = settings.clone();
        Box::pin(async move { Arc::new(kafka::open(settings).await.unwrap()) as Arc<dyn Log> })
    };
    Some((World { open: Box::new(open) }, folder))
}

/// Each case is asked of each backend.
macro_rules! contract {
    ($($case:ident)*) => {
        mod on_the_embedded_log {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                let (world, _folder) = super::embedded();
                super::$case(world).await;
            })*
        }

        #[cfg(feature = "kafka")]
        mod on_kafka {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                let Some((world, _folder)) = super::kafka(stringify!($case)) else { return };
                super::$case(world).await;
            })*
        }
    };
}

contract! {
    a_step_is_taken_whole
    a_step_that_does_not_begin_where_its_consumer_stands_changes_nothing
    outputs_keep_their_order_and_marks_reach_every_partition
    reads_are_limited_and_go_on_where_they_stopped
    state_is_scanned_by_prefix_and_rows_can_go
    a_lease_keeps_others_out_and_guards_steps
    a_search_takes_no_tenant_from_its_poller
    who_waits_in_vain_and_gives_up_keeps_nothing_from_others
    who_is_overtaken_changes_nothing_more
    what_was_committed_is_found_by_the_next_process
    trimming_takes_what_everybody_has_read_and_never_hides_a_gap
    the_log_keeps_its_name
}

fn to(partition: u32, text: &str) -> Output {
    Output { topic: Topic::Records, to: To::Partition(partition), value: text.as_bytes().to_vec() }
}

fn outputs(outputs: Vec<Output>) -> Txn {
    Txn { outputs, ..Txn::default() }
}

fn row(key: &[u8], value: Option<&[u8]>) -> StateChange {
    StateChange { store: Store::Admit, partition: 0, key: key.to_vec(), value: value.map(<[u8]>::to_vec) }
}

fn input(from: u64, next: u64) -> Input {
    Input { consumer: Consumer::Match, topic: Topic::Records, partition: 0, from, next }
}

fn lease(consumer: Consumer, partition: u32, owner: &str) -> Lease {
    Lease { consumer, partition, owner: owner.to_owned() }
}

/// Acquires, however long the backend takes to make up its mind.
async fn hold(log: &dyn Log, lease: &Lease) {
    let began = Instant::now();
    while !log.acquire(lease, HOLD).await.unwrap() {
        assert!(began.elapsed() < PATIENCE, "the lease is never given: {lease:?}");
        log.wait(Duration::from_millis(50)).await;
    }
}

async fn texts(log: &dyn Log, topic: Topic, partition: u32) -> Vec<String> {
    log.settle().await.unwrap();
    let (mut at, mut texts) = (0, Vec::new());
    loop {
        let messages = log.read(topic, partition, at, ReadLimit::default()).await.unwrap();
        let Some(last) = messages.last() else { return texts };
        assert!(messages.windows(2).all(|pair| pair[0].offset < pair[1].offset) && messages[0].offset >= at);
        at = last.offset + 1;
        texts.extend(messages.iter().map(|message| String::from_utf8(message.value.clone()).unwrap()));
    }
}

/// The offset after the first `count` messages of records/0.
async fn after(log: &dyn Log, count: usize) -> u64 {
    log.settle().await.unwrap();
    let limit = ReadLimit { messages: count, ..ReadLimit::default() };
    let mut seen = Vec::new();
    while seen.len() < count {
        let at = seen.last().map_or(0, |last| last + 1);
        let messages = log.read(Topic::Records, 0, at, limit).await.unwrap();
        assert!(!messages.is_empty());
        seen.extend(messages.iter().map(|message| message.offset));
    }
    seen[count - 1] + 1
}

async fn a_step_is_taken_whole(world: World) {
    let log = world.open().await;
    log.commit(outputs(vec![to(0, "a"), to(0, "b"), to(1, "c")])).await.unwrap();
    hold(&*log, &lease(Consumer::Match, 0, "one")).await;
    let next = after(&*log, 2).await;
    let step = Txn {
        inputs: vec![input(0, next)],
        outputs: vec![Output { topic: Topic::Verdicts, to: To::Partition(0), value: b"aa".to_vec() }],
        state: vec![row(b"k", Some(b"v"))],
        lease: None,
    };
    let committed = log.commit(step.clone()).await.unwrap();
    assert_eq!((committed.ranges.len(), committed.ranges[0].topic), (1, Topic::Verdicts));
    assert_eq!(committed.ranges[0].next - committed.ranges[0].from, 1);
    assert_eq!(texts(&*log, Topic::Verdicts, 0).await, ["aa"]);
    assert_eq!(log.scan(Store::Admit, 0, b"k").await.unwrap(), [(b"k".to_vec(), b"v".to_vec())]);
    assert_eq!(log.committed(Consumer::Match, Topic::Records, 0).await.unwrap(), next);
    let other = world.open().await;
    assert_eq!(other.committed(Consumer::Match, Topic::Records, 0).await.unwrap(), next, "seen from another process");
    // The same step again is refused: it has been done.
    assert!(log.commit(step).await.unwrap_err().must_reload());
    assert_eq!(texts(&*log, Topic::Verdicts, 0).await, ["aa"]);
}

async fn a_step_that_does_not_begin_where_its_consumer_stands_changes_nothing(world: World) {
    let log = world.open().await;
    log.commit(outputs(vec![to(0, "a"), to(0, "b")])).await.unwrap();
    hold(&*log, &lease(Consumer::Match, 0, "one")).await;
    for wrong in [1, 2, 7] {
        let step = Txn {
            inputs: vec![input(wrong, wrong + 1)],
            outputs: vec![to(0, "out")],
            state: vec![row(b"k", Some(b"v"))],
            lease: None,
        };
        let refused = log.commit(step).await.unwrap_err();
        assert!(matches!(refused, LogError::Moved { stored: 0, .. }), "{refused}");
    }
    assert_eq!(texts(&*log, Topic::Records, 0).await, ["a", "b"]);
    assert_eq!(log.scan(Store::Admit, 0, b"").await.unwrap(), []);
    assert_eq!(log.committed(Consumer::Match, Topic::Records, 0).await.unwrap(), 0);
}

async fn outputs_keep_their_order_and_marks_reach_every_partition(world: World) {
    let log = world.open().await;
    let expected: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    for chunk in expected.chunks(100) {
        log.commit(outputs(chunk.iter().map(|text| to(0, text)).collect())).await.unwrap();
    }
    assert_eq!(texts(&*log, Topic::Records, 0).await, expected);
    let everywhere = Output { topic: Topic::Matches, to: To::Everywhere, value: b"mark".to_vec() };
    let keyed = |key| Output { topic: Topic::Findings, to: To::Key(key), value: key.to_string().into_bytes() };
    let committed = log.commit(outputs(vec![everywhere, keyed(3), keyed(5), keyed(4)])).await.unwrap();
    for partition in 0..PARTITIONS {
        assert_eq!(texts(&*log, Topic::Matches, partition).await, ["mark"]);
    }
    assert_eq!(texts(&*log, Topic::Findings, 1).await, ["3", "5"]);
    assert_eq!(texts(&*log, Topic::Findings, 0).await, ["4"]);
    let counted: u64 = committed.ranges.iter().map(|range| range.next - range.from).sum();
    assert_eq!(counted, 5, "{committed:?}");
}

async fn reads_are_limited_and_go_on_where_they_stopped(world: World) {
    let log = world.open().await;
    for batch in 0..3 {
        log.commit(outputs((0..5).map(|n| to(0, &format!("{}", batch * 5 + n))).collect())).await.unwrap();
    }
    log.settle().await.unwrap();
    let limit = ReadLimit { messages: 4, bytes: 1000 };
    let (mut from, mut seen) = (0, Vec::new());
    loop {
        let messages = log.read(Topic::Records, 0, from, limit).await.unwrap();
        assert!(messages.len() <= 4);
        let Some(last) = messages.last() else { break };
        from = last.offset + 1;
        seen.extend(messages.iter().map(|m| String::from_utf8(m.value.clone()).unwrap().parse::<u64>().unwrap()));
    }
    assert_eq!(seen, (0..15).collect::<Vec<_>>());
    // Who goes on further ahead, or back, begins exactly there, whatever was ready from where it stood.
    let all = log.read(Topic::Records, 0, 0, ReadLimit::default()).await.unwrap();
    for step in [1, 3, 7, 14, 2] {
        let mut places: Vec<&Message> = all.iter().step_by(step).collect();
        places.extend(all.first());
        for place in places {
            let one = log.read(Topic::Records, 0, place.offset, ReadLimit { messages: 1, bytes: 1000 }).await.unwrap();
            assert_eq!((one.len(), one[0].offset, &one[0].value), (1, place.offset, &place.value));
        }
    }
    // A message larger than the limit is still returned, alone.
    assert_eq!(log.read(Topic::Records, 0, 0, ReadLimit { messages: 9, bytes: 0 }).await.unwrap().len(), 1);
    // Several read from several places at once.
    let reads = (0..8).map(|_| {
        let log = log.clone();
        tokio::spawn(async move { texts(&*log, Topic::Records, 0).await.len() })
    });
    for read in reads.collect::<Vec<_>>() {
        assert_eq!(read.await.unwrap(), 15);
    }
    // An end that moves is seen.
    assert!(log.read(Topic::Records, 0, from, limit).await.unwrap().is_empty());
    log.commit(outputs(vec![to(0, "15")])).await.unwrap();
    log.settle().await.unwrap();
    assert_eq!(log.read(Topic::Records, 0, from, limit).await.unwrap().len(), 1);
}

async fn state_is_scanned_by_prefix_and_rows_can_go(world: World) {
    let log = world.open().await;
    log.commit(outputs(vec![to(0, "a"), to(0, "b")])).await.unwrap();
    hold(&*log, &lease(Consumer::Match, 0, "one")).await;
    let (one, two) = (after(&*log, 1).await, after(&*log, 2).await);
    let keys: [&[u8]; 5] = [b"a", b"ab", b"b", &[0xff], &[0xff, 0xff]];
    let state = keys.iter().map(|key| row(key, Some(b"v"))).collect();
    log.commit(Txn { inputs: vec![input(0, one)], state, ..Txn::default() }).await.unwrap();
    let found = |rows: Vec<(Vec<u8>, Vec<u8>)>| rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!(found(log.scan(Store::Admit, 0, b"a").await.unwrap()), [b"a".to_vec(), b"ab".to_vec()]);
    assert_eq!(found(log.scan(Store::Admit, 0, &[0xff]).await.unwrap()), [vec![0xff], vec![0xff, 0xff]]);
    let state = vec![row(b"ab", None)];
    log.commit(Txn { inputs: vec![input(one, two)], state, ..Txn::default() }).await.unwrap();
    assert_eq!(log.scan(Store::Admit, 0, b"").await.unwrap().len(), 4);
}

async fn a_lease_keeps_others_out_and_guards_steps(world: World) {
    let (log, other) = (world.open().await, world.open().await);
    let lease = |owner: &str| lease(Consumer::Archive, 0, owner);
    hold(&*log, &lease("a")).await;
    assert!(log.acquire(&lease("a"), HOLD).await.unwrap(), "renewing");
    assert!(!log.acquire(&lease("b"), HOLD).await.unwrap(), "in the same process");
    let step = |owner| Txn { outputs: vec![to(0, "x")], lease: Some(lease(owner)), ..Txn::default() };
    assert!(log.commit(step("a")).await.is_ok());
    assert!(matches!(log.commit(step("b")).await, Err(LogError::LeaseLost { .. })));
    assert!(matches!(other.commit(step("b")).await, Err(LogError::LeaseLost { .. })));
    log.release(&lease("b")).await.unwrap();
    assert!(log.acquire(&lease("a"), HOLD).await.unwrap(), "only the owner can give it back");
    log.release(&lease("a")).await.unwrap();
    hold(&*other, &lease("b")).await;
    assert!(matches!(log.commit(step("a")).await, Err(LogError::LeaseLost { .. })));
    assert!(other.commit(step("b")).await.is_ok());
    assert_eq!(texts(&*log, Topic::Records, 0).await, ["x", "x"]);
}

/// Pollers and searches of a tenant work beside each other, each on rows of its own.
async fn a_search_takes_no_tenant_from_its_poller(world: World) {
    let (log, other) = (world.open().await, world.open().await);
    let pollers: Vec<Lease> = (0..16).map(|tenant| lease(Consumer::Poll, tenant, "poller")).collect();
    for poller in &pollers {
        hold(&*log, poller).await;
    }
    let search = lease(Consumer::Search, 3, "search");
    hold(&*other, &search).await;
    let step = |store, lease: &Lease| Txn {
        state: vec![StateChange { store, ..row(format!("t{}\0", lease.partition).as_bytes(), Some(b"x")) }],
        lease: Some(lease.clone()),
        ..Txn::default()
    };
    for poller in &pollers {
        assert!(log.acquire(poller, HOLD).await.unwrap(), "{poller:?}");
        log.commit(step(Store::Ledger, poller)).await.unwrap();
    }
    other.commit(step(Store::Searches, &search)).await.unwrap();
    assert_eq!(log.scan(Store::Ledger, 0, b"t3\0").await.unwrap().len(), 1);
    assert_eq!(other.scan(Store::Searches, 0, b"t3\0").await.unwrap().len(), 1);
    assert!(other.scan(Store::Searches, 0, b"t4\0").await.unwrap().is_empty());
    // Who looks on from outside sees the rows of all.
    other.settle().await.unwrap();
    assert_eq!(other.look(Store::Ledger).await.unwrap().len(), pollers.len());
    assert_eq!(log.look(Store::Searches).await.unwrap(), [(b"t3\0".to_vec(), b"x".to_vec())]);
}

async fn who_waits_in_vain_and_gives_up_keeps_nothing_from_others(world: World) {
    let (one, waiting) = (world.open().await, world.open().await);
    let lease = |owner: &str| lease(Consumer::Archive, 0, owner);
    hold(&*one, &lease("one")).await;
    assert!(!waiting.acquire(&lease("waiting"), HOLD).await.unwrap());
    waiting.release(&lease("waiting")).await.unwrap();
    one.release(&lease("one")).await.unwrap();
    for owner in ["next", "the one after"] {
        let next = world.open().await;
        hold(&*next, &lease(owner)).await;
        next.release(&lease(owner)).await.unwrap();
    }
}

async fn who_is_overtaken_changes_nothing_more(world: World) {
    let one = world.open().await;
    one.commit(outputs(vec![to(0, "a"), to(0, "b")])).await.unwrap();
    hold(&*one, &lease(Consumer::Match, 0, "one")).await;
    let (first, second) = (after(&*one, 1).await, after(&*one, 2).await);
    let step = |from, next, text: &str| Txn {
        inputs: vec![input(from, next)],
        outputs: vec![Output { topic: Topic::Verdicts, to: To::Partition(0), value: text.as_bytes().to_vec() }],
        state: vec![row(b"k", Some(text.as_bytes()))],
        lease: None,
    };
    one.commit(step(0, first, "of one")).await.unwrap();
    one.release(&lease(Consumer::Match, 0, "one")).await.unwrap();
    let two = world.open().await;
    hold(&*two, &lease(Consumer::Match, 0, "two")).await;
    assert_eq!(two.committed(Consumer::Match, Topic::Records, 0).await.unwrap(), first);
    assert_eq!(two.scan(Store::Admit, 0, b"k").await.unwrap()[0].1, b"of one");
    two.commit(step(first, second, "of two")).await.unwrap();
    // One still believes that it stands where it stood.
    let refused = one.commit(step(first, second, "of a zombie")).await.unwrap_err();
    assert!(refused.must_reload(), "{refused}");
    assert_eq!(texts(&*two, Topic::Verdicts, 0).await, ["of one", "of two"]);
    assert_eq!(two.scan(Store::Admit, 0, b"k").await.unwrap()[0].1, b"of two");
    assert_eq!(two.committed(Consumer::Match, Topic::Records, 0).await.unwrap(), second);
}

async fn what_was_committed_is_found_by_the_next_process(world: World) {
    {
        let log = world.open().await;
        log.commit(outputs(vec![to(0, "a")])).await.unwrap();
        hold(&*log, &lease(Consumer::Match, 0, "one")).await;
        let next = after(&*log, 1).await;
        let state = (0..1000u32).map(|n| row(&n.to_be_bytes(), Some(&[7; 40]))).collect();
        log.commit(Txn { inputs: vec![input(0, next)], state, ..Txn::default() }).await.unwrap();
    }
    let log = world.open().await;
    hold(&*log, &lease(Consumer::Match, 0, "two")).await;
    assert_eq!(log.scan(Store::Admit, 0, b"").await.unwrap().len(), 1000);
    assert_eq!(log.committed(Consumer::Match, Topic::Records, 0).await.unwrap(), after(&*log, 1).await);
    log.commit(outputs(vec![to(0, "b")])).await.unwrap();
    assert_eq!(texts(&*log, Topic::Records, 0).await, ["a", "b"]);
}

async fn trimming_takes_what_everybody_has_read_and_never_hides_a_gap(world: World) {
    let log = world.open().await;
    for text in ["a", "b"] {
        log.commit(outputs(vec![to(0, text)])).await.unwrap();
    }
    let next = after(&*log, 1).await;
    let later = Utc::now() + TimeDelta::hours(1);
    assert_eq!(log.trim(later).await.unwrap(), 0, "nobody has read anything");
    for consumer in [Consumer::Match, Consumer::Archive] {
        hold(&*log, &lease(consumer, 0, "one")).await;
        let done = Input { consumer, topic: Topic::Records, partition: 0, from: 0, next };
        log.commit(Txn { inputs: vec![done], ..Txn::default() }).await.unwrap();
    }
    assert_eq!(log.trim(Utc::now() - TimeDelta::hours(1)).await.unwrap(), 0, "too young");
    assert_eq!(log.trim(later).await.unwrap(), 1);
    let left = log.read(Topic::Records, 0, next, ReadLimit::default()).await.unwrap();
    assert_eq!(left.iter().map(|message| message.value.as_slice()).collect::<Vec<_>>(), [b"b"]);
    let gap = log.read(Topic::Records, 0, 0, ReadLimit::default()).await.unwrap_err();
    assert!(matches!(gap, LogError::Trimmed { wanted: 0, .. }), "{gap}");
    let gap = world.open().await.read(Topic::Records, 0, 0, ReadLimit::default()).await.unwrap_err();
    assert!(matches!(gap, LogError::Trimmed { wanted: 0, .. }), "{gap}");
}

async fn the_log_keeps_its_name(world: World) {
    let (one, two) = tokio::join!(world.open(), world.open());
    let three = world.open().await;
    assert!(!one.id().is_empty());
    assert_eq!((one.id(), one.id()), (two.id(), three.id()));
    assert_eq!((one.partitions(), two.partitions(), three.partitions()), (PARTITIONS, PARTITIONS, PARTITIONS));
}

#[cfg(feature = "kafka")]
#[path = "log_contract/kafka.rs"]
mod kafka;
