//! Killed between any two effects: nothing is lost, and nothing that was marked delivered is sent again.

use std::collections::BTreeMap;

use schemas::message::{ArchiveHead, ArchiveHeads};

use super::*;

/// A log that stops the world at one commit: before it takes effect, or after it has and before anybody hears of it.
struct Cut {
    inner: Arc<dyn Log>,
    remaining: AtomicI64,
    takes_effect: bool,
    reached: Arc<AtomicBool>,
}

#[async_trait]
impl Log for Cut {
    fn partitions(&self) -> u32 {
        self.inner.partitions()
    }

    fn id(&self) -> &str {
        self.inner.id()
    }

    async fn commit_shared(&self, txn: Arc<Txn>) -> Result<Committed, LogError> {
        if self.remaining.fetch_sub(1, Ordering::SeqCst) > 0 {
            return self.inner.commit_shared(txn).await;
        }
        // Said before it takes effect: whoever sees the effect can see that nobody will hear of it.
        let first = !self.reached.swap(true, Ordering::SeqCst);
        if self.takes_effect && first {
            self.inner.commit_shared(txn).await?;
        }
        std::future::pending().await
    }

    async fn read(&self, topic: Topic, partition: u32, from: u64, limit: ReadLimit) -> Result<Vec<Message>, LogError> {
        self.inner.read(topic, partition, from, limit).await
    }

    async fn committed(&self, consumer: Consumer, topic: Topic, partition: u32) -> Result<u64, LogError> {
        self.inner.committed(consumer, topic, partition).await
    }

    async fn end(&self, topic: Topic, partition: u32) -> Result<u64, LogError> {
        self.inner.end(topic, partition).await
    }

    async fn scan(&self, store: Store, partition: u32, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, LogError> {
        self.inner.scan(store, partition, prefix).await
    }

    async fn acquire(&self, lease: &Lease, hold: Duration) -> Result<bool, LogError> {
        self.inner.acquire(lease, hold).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), LogError> {
        self.inner.release(lease).await
    }

    async fn wait(&self, timeout: Duration) {
        self.inner.wait(timeout).await;
    }

    async fn trim(&self, before: DateTime<Utc>) -> Result<u64, LogError> {
        self.inner.trim(before).await
    }
}

fn stages() -> [Vec<Finding>; 3] {
    let superseded = Finding { status: Status::Superseded, superseded_by: Some("c".into()), ..finding("b", 2) };
    [
        vec![finding("a", 1), finding("b", 1), finding("d", 1)],
        vec![
            Finding { status: Status::Final, ..finding("a", 2) },
            superseded,
            Finding { status: Status::Final, ..finding("c", 1) },
        ],
        vec![Finding { status: Status::Retracted, ..finding("a", 3) }],
    ]
}

/// Plays the stages with one cut; false if the cut was never reached.
async fn play(remaining: i64, takes_effect: bool) -> bool {
    let house = House::new().await;
    let reached = Arc::new(AtomicBool::new(false));
    let cut = Cut { inner: house.log.clone(), remaining: remaining.into(), takes_effect, reached: reached.clone() };
    let sinks = || vec![house.webhook("soc")];
    let mut running = house.run_on(Arc::new(cut), sinks(), "test");
    let mut cut_once = false;
    for stage in stages() {
        house.publish(stage).await;
        loop {
            if reached.load(Ordering::SeqCst) && !cut_once {
                cut_once = true;
                // What is under way lands, or does not: neither is heard of.
                tokio::time::sleep(Duration::from_millis(10)).await;
                running.kill().await;
                let before = house.receiver.ids().len();
                let told = marked(&house).await;
                running = house.run(sinks());
                house.settled("soc").await;
                let again = house.receiver.ids().split_off(before);
                assert!(again.iter().all(|id| !told.contains(id)), "{remaining} {takes_effect}: {again:?} {told:?}");
            } else if house.idle("soc").await {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    if reached.load(Ordering::SeqCst) && !cut_once {
        running.kill().await;
    } else {
        running.stop().await;
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for id in house.receiver.ids() {
        *counts.entry(id).or_default() += 1;
    }
    let ids: Vec<&str> = counts.keys().map(String::as_str).collect();
    assert_eq!(ids, ["a_1_open", "a_2_final", "a_3_retracted", "b_1_open", "c_1_final", "d_1_open"]);
    // One cut, four deliveries under way at most.
    assert!(counts.values().all(|&count| count <= 2), "{counts:?}");
    for received in house.receiver.received() {
        let key = if received.id.starts_with('c') { "b" } else { received.id.split('_').next().unwrap() };
        assert_eq!(received.body["data"]["dedup_key"], key);
    }
    reached.load(Ordering::SeqCst)
}

/// What the log says has been delivered.
async fn marked(house: &House) -> Vec<String> {
    let entries = house.entries("soc").await;
    let told = entries.iter().filter_map(|entry| Some((entry, entry.told.as_ref()?)));
    told.map(|(entry, told)| format!("{}_{}_{}", entry.finding_id, told.revision, told.status.as_str())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_between_any_two_effects_loses_nothing_and_repeats_nothing_that_was_marked() {
    for takes_effect in [false, true] {
        let mut remaining = 0;
        while play(remaining, takes_effect).await {
            remaining += 1;
            assert!(remaining < 100);
        }
        assert!(remaining >= 5, "only {remaining} commits were cut");
    }
}

#[tokio::test]
async fn a_delivery_that_was_killed_is_sent_again_under_the_same_id() {
    let house = House::new().await;
    house.receiver.answer([Answer::Hang]);
    let running = house.run(vec![house.webhook("soc")]);
    house.publish([finding("a", 1)]).await;
    until(|| house.receiver.ids().len() == 1).await;
    running.kill().await;
    let running = house.run(vec![house.webhook("soc")]);
    house.settled("soc").await;
    running.stop().await;
    let received = house.receiver.received();
    assert_eq!(house.receiver.ids(), ["a_1_open", "a_1_open"]);
    assert_eq!(received[0].body, received[1].body);
}

#[tokio::test]
async fn one_that_may_have_arrived_before_a_kill_is_closed_when_it_is_retracted() {
    let house = House::new().await;
    house.receiver.answer([Answer::Hang]);
    let running = house.run(vec![house.webhook("soc")]);
    house.publish([finding("a", 1)]).await;
    until(|| house.receiver.ids().len() == 1).await;
    running.kill().await;
    house.publish([Finding { status: Status::Retracted, ..finding("a", 2) }]).await;
    let running = house.run(vec![house.webhook("soc")]);
    house.settled("soc").await;
    running.stop().await;
    assert_eq!(house.receiver.ids().pop().as_deref(), Some("a_2_retracted"));
}

#[tokio::test]
async fn a_second_process_stands_by_and_takes_over() {
    let house = House::new().await;
    let first = house.run_on(house.log.clone(), vec![house.webhook("soc")], "first");
    house.publish([finding("a", 1)]).await;
    house.settled("soc").await;
    let second = house.run_on(house.log.clone(), vec![house.webhook("soc")], "second");
    house.publish([finding("b", 1)]).await;
    house.settled("soc").await;
    quiet(&house.receiver).await;
    first.stop().await;
    house.publish([finding("c", 1)]).await;
    house.settled("soc").await;
    second.stop().await;
    assert_eq!(house.receiver.ids(), ["a_1_open", "b_1_open", "c_1_open"]);
}

#[tokio::test]
async fn who_has_lost_the_lease_sends_no_more() {
    let house = House::new().await;
    let running = house.run_on(house.log.clone(), vec![house.webhook("soc")], "first");
    house.publish([finding("a", 1)]).await;
    house.settled("soc").await;
    // Another process takes over, as after a pause that was longer than the lease.
    let first = Lease { consumer: Consumer::Notify, partition: 0, owner: "first".into() };
    house.log.release(&first).await.unwrap();
    let other = Lease { owner: "other".into(), ..first };
    while !house.log.acquire(&other, Duration::from_secs(30)).await.unwrap() {}
    house.publish([finding("b", 1)]).await;
    quiet(&house.receiver).await;
    house.log.release(&other).await.unwrap();
    house.settled("soc").await;
    running.stop().await;
    assert_eq!(house.receiver.ids(), ["a_1_open", "b_1_open"]);
}

#[tokio::test]
async fn heads_of_the_archive_outlive_a_receiver_that_is_down_and_a_restart_and_disturb_no_finding() {
    let house = House::new().await;
    let sink = Sink { archive_heads: true, ..house.webhook("soc") };
    let tell = |day: i64, commits: u64| {
        let head =
            ArchiveHead { table: "events".into(), version: commits - 1, commits, head: format!("{commits:064x}") };
        let taken = start() + TimeDelta::days(day);
        let heads = ArchiveHeads { taken, public_key: None, heads: vec![head] };
        let value = serde_json::to_vec(&FindingMessage::ArchiveHeads(heads)).unwrap();
        let outputs = vec![Output { topic: Topic::Findings, to: To::Partition(0), value }];
        let log = house.log.clone();
        async move { log.commit(Txn { outputs, ..Txn::default() }).await.unwrap() }
    };
    house.receiver.answer([Answer::Status(503)]);
    let running = house.run(vec![sink.clone()]);
    tell(0, 1).await;
    until(|| !house.receiver.received().is_empty()).await;
    running.stop().await;
    // The next day comes while nobody delivers; then both go out, and the day that is told again does not.
    house.hand.advance(TimeDelta::days(1));
    tell(1, 2).await;
    house.publish([finding("a", 1)]).await;
    let running = house.run(vec![sink.clone()]);
    until(|| house.receiver.received().len() >= 4).await;
    tell(1, 3).await;
    house.taken_in().await;
    house.settled("soc").await;
    running.stop().await;
    let mut ids = house.receiver.ids();
    let first = ids.remove(0);
    assert!(first.starts_with("heads_2026-11-22_"), "{first}");
    ids.sort();
    assert_eq!(ids.len(), 3, "{ids:?}");
    assert!(ids.contains(&first) && ids.contains(&"a_1_open".to_owned()), "{ids:?}");
    assert!(ids.iter().any(|id| id.starts_with("heads_2026-11-23_")), "{ids:?}");
}
