use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use async_trait::async_trait;
use chrono::DateTime;
use runtime::clock::Hand;
use runtime::log::embedded::Embedded;
use runtime::log::{Committed, Output, Store, To, Txn};
use runtime::shutdown::{self, Trigger};
use schemas::finding::{Finding, Level, Status};
use schemas::json::key_hash;
use schemas::message::{DeadLetter, FindingMessage};
use tokio::task::JoinHandle;

use self::receiver::{Answer, OTHER_SECRET, Receiver, SECRET};
use super::*;
use crate::entry::Entry;
use crate::samples::{finding, hostile_findings, start, time};
use crate::settings::SigningSecret;

mod brake;
mod receiver;
mod restart;

struct House {
    folder: tempfile::TempDir,
    log: Arc<dyn Log>,
    clock: Clock,
    hand: Hand,
    receiver: Receiver,
    metrics: Arc<Metrics>,
}

struct Running {
    trigger: Trigger,
    task: JoinHandle<Result<(), Error>>,
}

impl House {
    async fn new() -> House {
        let folder = tempfile::tempdir().unwrap();
        let log: Arc<dyn Log> = Arc::new(Embedded::open(&folder.path().join("log.db"), 3).unwrap());
        let (clock, hand) = Clock::manual(start());
        House {
            folder,
            log,
            clock,
            hand,
            receiver: Receiver::start().await,
            metrics: Metrics::started("test", start()),
        }
    }

    fn webhook(&self, name: &str) -> Sink {
        let mut sink = Sink::new(name, "webhook");
        sink.url = Some(self.receiver.url.parse().unwrap());
        sink.signing_secrets = SigningSecret::parse_all(&format!("{SECRET}\n{OTHER_SECRET}\n")).unwrap();
        sink.allow_private_addresses = true;
        sink
    }

    fn run(&self, sinks: Vec<Sink>) -> Running {
        self.run_on(self.log.clone(), sinks, "test")
    }

    fn run_on(&self, log: Arc<dyn Log>, sinks: Vec<Sink>, owner: &str) -> Running {
        let (trigger, shutdown) = shutdown::channel();
        let options = Options {
            owner: owner.into(),
            lease_hold: Duration::from_secs(30),
            lease_retry: Duration::from_millis(2),
            tick: Duration::from_millis(2),
            failure_wait: Duration::from_millis(2),
            grace: Duration::from_millis(500),
        };
        let service = run_with(log, sinks, self.clock.clone(), shutdown, self.metrics.clone(), options);
        Running { trigger, task: tokio::spawn(service) }
    }

    async fn publish(&self, findings: impl IntoIterator<Item = Finding>) {
        let output = |finding: Finding| Output {
            topic: Topic::Findings,
            to: To::Key(key_hash(&[finding.tenant.as_str(), &finding.id])),
            value: serde_json::to_vec(&FindingMessage::Finding(Box::new(finding))).unwrap(),
        };
        let outputs = findings.into_iter().map(output).collect();
        self.log.commit(Txn { outputs, ..Txn::default() }).await.unwrap();
    }

    /// Whether everything published has been taken in.
    async fn consumed(&self) -> bool {
        for partition in 0..self.log.partitions() {
            let stands = self.log.committed(Consumer::Notify, Topic::Findings, partition).await.unwrap();
            if stands < self.log.end(Topic::Findings, partition).await.unwrap() {
                return false;
            }
        }
        true
    }

    /// Waits until everything published has been taken in, before the clock goes on.
    async fn taken_in(&self) {
        for _ in 0..5_000 {
            if self.consumed().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("not taken in");
    }

    async fn entries(&self, sink: &str) -> Vec<Entry> {
        let mut entries = Vec::new();
        for partition in 0..self.log.partitions() {
            let prefix = format!("{sink}/f/");
            for (_, value) in self.log.scan(Store::Outbox, partition, prefix.as_bytes()).await.unwrap() {
                entries.push(serde_json::from_slice(&value).unwrap());
            }
        }
        entries
    }

    /// Whether nothing waits for the sink.
    async fn idle(&self, sink: &str) -> bool {
        let prefix = format!("{sink}/d/");
        for partition in 0..self.log.partitions() {
            if !self.log.scan(Store::Outbox, partition, prefix.as_bytes()).await.unwrap().is_empty() {
                return false;
            }
        }
        self.consumed().await && self.entries(sink).await.iter().all(|entry| entry.waiting.is_none())
    }

    /// Waits until nothing waits for the sink.
    async fn settled(&self, sink: &str) {
        for _ in 0..5_000 {
            if self.idle(sink).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("something still waits: {:?}", self.entries(sink).await);
    }

    async fn dead_letters(&self) -> Vec<DeadLetter> {
        let mut letters = Vec::new();
        for partition in 0..self.log.partitions() {
            let messages = self.log.read(Topic::DeadLetters, partition, 0, ReadLimit::default()).await.unwrap();
            letters
                .extend(messages.iter().map(|message| serde_json::from_slice::<DeadLetter>(&message.value).unwrap()));
        }
        letters
    }

    /// Waits until the sink's rows are as wanted.
    async fn until_entries(&self, sink: &str, wanted: impl Fn(&[Entry]) -> bool) {
        for _ in 0..5_000 {
            if wanted(&self.entries(sink).await) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("never came to be: {:?}", self.entries(sink).await);
    }
}

impl Running {
    async fn stop(self) {
        self.trigger.stop();
        self.task.await.unwrap().unwrap();
    }

    /// Like `kill -9`, as far as one process can: nothing more is done.
    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

async fn until(condition: impl Fn() -> bool) {
    for _ in 0..5_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("waited in vain");
}

/// Given a little time, nothing more has come.
async fn quiet(receiver: &Receiver) {
    let count = receiver.ids().len();
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(receiver.ids().len(), count, "{:?}", receiver.ids());
}

#[tokio::test]
async fn a_finding_is_signed_delivered_once_and_updated_under_its_key() {
    let house = House::new().await;
    let running = house.run(vec![house.webhook("soc")]);
    house.publish([finding("a", 1)]).await;
    house.settled("soc").await;
    house.publish([Finding { status: Status::Final, ..finding("a", 2) }]).await;
    house.settled("soc").await;
    house.publish([Finding { status: Status::Retracted, ..finding("a", 3) }]).await;
    house.settled("soc").await;
    running.stop().await;
    assert_eq!(house.receiver.ids(), ["a_1_open", "a_2_final", "a_3_retracted"]);
    let received = house.receiver.received();
    let types: Vec<&str> = received.iter().map(|received| received.body["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["finding.created", "finding.updated", "finding.closed"]);
    for received in &received {
        assert_eq!(received.body["data"]["dedup_key"], "a");
        assert!(received.body["data"]["incident_id"].as_str().is_some_and(|id| id.starts_with("i_")));
    }
    assert!(house.dead_letters().await.is_empty());
    assert!(house.metrics.text().unwrap().contains("notifications_total{sink=\"soc\",type=\"webhook\"} 3"));
}

#[tokio::test]
async fn what_no_sink_wants_is_not_delivered() {
    let house = House::new().await;
    let mut high = house.webhook("high");
    high.min_level = Level::High;
    let mut low = Sink::new("low", "file");
    low.min_level = Level::Low;
    low.path = Some(house.folder.path().join("low.ndjson"));
    let running = house.run(vec![high, low]);
    let mut medium = finding("medium", 1);
    medium.rule.level = Level::Medium;
    house.publish([medium, Finding { notify: false, ..finding("imported", 1) }, finding("a", 1)]).await;
    house.settled("high").await;
    house.settled("low").await;
    quiet(&house.receiver).await;
    assert_eq!(house.receiver.ids(), ["a_1_open"]);
    let text = std::fs::read_to_string(house.folder.path().join("low.ndjson")).unwrap();
    let mut ids: Vec<String> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["data"]["id"].as_str().unwrap().to_owned())
        .collect();
    ids.sort();
    assert_eq!(ids, ["a", "medium"]);
    running.stop().await;
}

#[tokio::test]
async fn failures_are_tried_again_with_the_same_id_and_body() {
    let house = House::new().await;
    house.receiver.answer([
        Answer::Status(500),
        Answer::Redirect(format!("{}/elsewhere", house.receiver.url)),
        Answer::RetryAfter(429, 600),
        Answer::Status(200),
    ]);
    let running = house.run(vec![house.webhook("soc")]);
    house.publish([finding("a", 1)]).await;
    for (tries, wait) in [(1, TimeDelta::seconds(7)), (2, TimeDelta::seconds(80)), (3, TimeDelta::minutes(9))] {
        house
            .until_entries("soc", |entries| {
                entries.iter().any(|e| e.waiting.as_ref().is_some_and(|w| w.tries.attempts == tries))
            })
            .await;
        quiet(&house.receiver).await;
        house.hand.advance(wait);
    }
    // The receiver has asked for ten minutes: nine are not enough, for anything that goes there.
    house.publish([finding("b", 1)]).await;
    house.taken_in().await;
    quiet(&house.receiver).await;
    house.hand.advance(TimeDelta::minutes(2));
    house.settled("soc").await;
    running.stop().await;
    let received = house.receiver.received();
    let of_a: Vec<_> = received.iter().filter(|received| received.id == "a_1_open").collect();
    assert_eq!(of_a.len(), 4);
    assert!(of_a.iter().all(|received| received.body == of_a[0].body));
    assert_eq!(received.len(), 5);
    assert!(house.metrics.text().unwrap().contains("reason=\"throttled\",sink=\"soc\",type=\"webhook\"} 1"));
}

#[tokio::test]
async fn what_is_refused_is_a_dead_letter_in_the_step_that_gives_it_up() {
    let house = House::new().await;
    house.receiver.answer([Answer::Status(400)]);
    let running = house.run(vec![house.webhook("soc")]);
    house.publish([finding("a", 1)]).await;
    house.until_entries("soc", |entries| entries.iter().any(|entry| entry.dead.is_some())).await;
    let letters = house.dead_letters().await;
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].source.as_str(), letters[0].place.as_str()), ("sink:soc", "a_1_open"));
    assert!(letters[0].reason.starts_with("HTTP 400"));
    let body: serde_json::Value = serde_json::from_slice(&letters[0].bytes).unwrap();
    assert_eq!(body, house.receiver.received()[0].body);
    assert!(house.metrics.text().unwrap().contains("dead_letter_queue_length{sink=\"soc\"} 1"));
    running.stop().await;
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_left_alone_and_misses_nothing_when_it_is_back() {
    let house = House::new().await;
    house.receiver.answer([Answer::Status(410)]);
    let running = house.run(vec![house.webhook("soc")]);
    house.publish([finding("a", 1)]).await;
    until(|| house.receiver.ids().len() == 1).await;
    house.publish([finding("b", 1)]).await;
    house.taken_in().await;
    house.hand.advance(TimeDelta::hours(10));
    quiet(&house.receiver).await;
    running.stop().await;
    let running = house.run(vec![house.webhook("soc")]);
    house.settled("soc").await;
    running.stop().await;
    let mut ids = house.receiver.ids();
    ids.sort();
    assert_eq!(ids, ["a_1_open", "a_1_open", "b_1_open"]);

    // Gone for longer than the schedule lasts: given up, where an operator finds it.
    house.receiver.answer([Answer::Status(410)]);
    let running = house.run(vec![house.webhook("soc")]);
    house.publish([finding("c", 1)]).await;
    until(|| house.receiver.ids().len() == 4).await;
    house.hand.advance(TimeDelta::days(3));
    house.settled("soc").await;
    running.stop().await;
    assert_eq!(house.dead_letters().await.len(), 1);
}

#[tokio::test]
async fn a_sink_that_hangs_holds_up_nobody_and_times_out() {
    let house = House::new().await;
    let other = Receiver::start().await;
    house.receiver.answer(vec![Answer::Hang; 20]);
    let mut slow = house.webhook("slow");
    slow.timeout = Duration::from_millis(50);
    let mut fast = house.webhook("fast");
    fast.url = Some(other.url.parse().unwrap());
    let running = house.run(vec![slow, fast]);
    house.publish((0..10).map(|n| finding(&format!("f{n}"), 1))).await;
    house.settled("fast").await;
    assert_eq!(other.ids().len(), 10);
    let timed_out = |entry: &Entry| entry.waiting.as_ref().is_some_and(|w| w.tries.last_error == "no answer in time");
    house.until_entries("slow", |entries| entries.iter().filter(|entry| timed_out(entry)).count() >= 5).await;
    // A receiver that keeps failing is given time: not all ten have been tried.
    quiet(&house.receiver).await;
    assert!(house.receiver.ids().len() < 10);
    running.stop().await;
}

#[tokio::test]
async fn an_episode_that_moves_goes_on_under_the_key_it_was_first_delivered_under() {
    let house = House::new().await;
    let running = house.run(vec![house.webhook("soc")]);
    let superseded =
        |id: &str, by: &str| Finding { status: Status::Superseded, superseded_by: Some(by.into()), ..finding(id, 2) };
    house.publish([finding("a", 1)]).await;
    house.settled("soc").await;
    // The successor lies in another partition and may be read first.
    house.publish([finding("b", 1), superseded("a", "b")]).await;
    house.taken_in().await;
    house.hand.advance(TimeDelta::minutes(6));
    house.settled("soc").await;
    // And again, and then the successor comes by itself later.
    house.publish([superseded("b", "c")]).await;
    house.settled("soc").await;
    house.publish([finding("c", 1)]).await;
    house.taken_in().await;
    house.hand.advance(TimeDelta::minutes(6));
    house.settled("soc").await;
    assert_eq!(house.receiver.ids(), ["a_1_open", "b_1_open", "c_1_open"]);
    let received = house.receiver.received();
    let first_incident = received[0].body["data"]["incident_id"].clone();
    for (received, previous) in received.iter().zip([None, Some("a"), Some("b")]) {
        assert_eq!(received.body["data"]["dedup_key"], "a");
        assert_eq!(received.body["data"].get("previous_id").and_then(|id| id.as_str()), previous);
        assert_eq!(received.body["data"]["incident_id"], first_incident);
    }
    assert_eq!(received[2].body["type"], "finding.updated");

    // Two that have both been told, merged: one is closed.
    house.publish([finding("d", 1)]).await;
    house.settled("soc").await;
    house.publish([Finding { status: Status::Merged, superseded_by: Some("c".into()), ..finding("d", 2) }]).await;
    house.settled("soc").await;
    let last = house.receiver.received().pop().unwrap();
    assert_eq!((last.id.as_str(), last.body["type"].as_str()), ("d_2_merged", Some("finding.closed")));
    assert_eq!(last.body["data"]["superseded_by"], "c");

    // One that nobody was told of leaves no trace.
    house.publish([finding("e", 1), superseded("e", "f"), finding("f", 1)]).await;
    house.settled("soc").await;
    assert_eq!(house.receiver.ids().pop().as_deref(), Some("f_1_open"));
    assert_eq!(house.receiver.received().pop().unwrap().body["data"]["dedup_key"], "f");
    running.stop().await;
}

#[tokio::test]
async fn the_updates_of_a_growing_finding_are_few_and_end_with_the_newest() {
    let house = House::new().await;
    let running = house.run(vec![house.webhook("soc")]);
    house.publish([finding("a", 10)]).await;
    house.settled("soc").await;
    for revision in 11..20 {
        house.publish([finding("a", revision)]).await;
        house.taken_in().await;
        house.hand.advance(TimeDelta::seconds(10));
    }
    quiet(&house.receiver).await;
    assert_eq!(house.receiver.ids(), ["a_10_open"]);
    house.hand.advance(TimeDelta::minutes(5));
    house.settled("soc").await;
    house.publish([finding("a", 38)]).await;
    house.settled("soc").await;
    running.stop().await;
    assert_eq!(house.receiver.ids(), ["a_10_open", "a_19_open", "a_38_open"]);
}

#[tokio::test]
async fn hostile_findings_reach_every_sink_whole() {
    let house = House::new().await;
    let mut file = Sink::new("file", "file");
    file.path = Some(house.folder.path().join("all.ndjson"));
    let running = house.run(vec![house.webhook("soc"), file]);
    house.publish(hostile_findings()).await;
    house.settled("soc").await;
    house.settled("file").await;
    running.stop().await;
    assert_eq!(house.receiver.ids().len(), hostile_findings().len());
    let text = std::fs::read_to_string(house.folder.path().join("all.ndjson")).unwrap();
    assert_eq!(text.lines().count(), hostile_findings().len());
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}') && !text.contains('\r'));
}

#[tokio::test]
async fn a_message_that_is_no_finding_is_kept_and_passed_over() {
    let house = House::new().await;
    let garbage = br#"{"kind":"finding","tenant":"contoso"}"#.to_vec();
    let output = Output { topic: Topic::Findings, to: To::Partition(1), value: garbage.clone() };
    house.log.commit(Txn { outputs: vec![output], ..Txn::default() }).await.unwrap();
    house.publish([finding("a", 1)]).await;
    let running = house.run(vec![house.webhook("soc")]);
    house.settled("soc").await;
    running.stop().await;
    assert_eq!(house.receiver.ids(), ["a_1_open"]);
    let letters = house.dead_letters().await;
    assert_eq!((letters[0].source.as_str(), &letters[0].bytes), ("notify", &garbage));
    assert_eq!(letters[0].tenant.as_str(), "contoso");
}

#[tokio::test]
async fn a_trial_message_says_what_is_wrong_without_the_address() {
    let house = House::new().await;
    let sink = house.webhook("soc");
    test(&sink, &house.clock).await.unwrap();
    assert_eq!(house.receiver.received()[0].body["type"], "harrier.test");
    house.receiver.answer([Answer::Status(403)]);
    let error = test(&sink, &house.clock).await.unwrap_err();
    assert_eq!(error.to_string(), "HTTP 403 Forbidden");
    let mut closed = sink;
    closed.url = Some("http://127.0.0.1:1/T0K3NT0K3N".parse().unwrap());
    let error = test(&closed, &house.clock).await.unwrap_err().to_string();
    assert!(!error.contains("T0K3N"), "{error}");
}

#[test]
fn two_sinks_of_one_name_are_refused() {
    let (clock, _) = Clock::manual(start());
    let errors = check(&[Sink::new("a", "stdout"), Sink::new("a", "stdout")], &clock).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].to_string(), "sink a: the name is used twice");
}
