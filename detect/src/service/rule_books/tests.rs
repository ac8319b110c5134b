use std::collections::BTreeSet;

use runtime::clock::Clock;
use runtime::log::embedded::Embedded;
use runtime::log::{Consumer, Message};
use runtime::metrics::Metrics;
use schemas::envelope::{Origin, Received};
use schemas::message::FindingMessage;

use super::*;
use crate::service::correlating::CorrelateWorker;
use crate::service::matching::MatchWorker;
use crate::service::partitions::Worker;
use crate::service::sighted::Sighted;

const PARTITIONS: u32 = 2;

/// A log on which every step is made by a process that has just started.
struct Bed {
    _folder: tempfile::TempDir,
    log: Embedded,
}

impl Bed {
    fn new() -> Bed {
        let folder = tempfile::tempdir().unwrap();
        let log = Embedded::open(&folder.path().join("log.sqlite"), PARTITIONS).unwrap();
        Bed { _folder: folder, log }
    }

    async fn offer(&self, book: &RuleBook, again: bool) {
        offer(&self.log, book, again).await.unwrap();
    }

    /// One record in every partition.
    async fn put(&self, id: &str) {
        let record = |partition| {
            let origin = Origin {
                tenant: "t1".parse().unwrap(),
                source: "import".into(),
                content_type: String::new(),
                blob_id: String::new(),
                received: "2026-11-22T10:00:00Z".parse().unwrap(),
                notify: true,
            };
            let bytes = format!(
                r#"{{"Id":"{id}/{partition}","CreationTime":"2026-11-22T09:00:00","Operation":"x","UserId":"a@b.example"}}"#
            );
            let value = Envelope::Record(Received { origin, bytes: bytes.into_bytes() }).encode();
            Output { topic: Topic::Records, to: To::Partition(partition), value }
        };
        let outputs = (0..PARTITIONS).map(record).collect();
        self.log.commit(Txn { outputs, ..Txn::default() }).await.unwrap();
    }

    async fn step<W: Worker>(&self, mut worker: W, partition: u32) -> Result<Option<u64>, Error> {
        let from = self.log.committed(W::CONSUMER, W::TOPIC, partition).await.unwrap();
        worker.step(&self.log, from).await
    }

    async fn judge(&self, partition: u32) -> Result<Option<u64>, Error> {
        let sighted = Arc::new(Sighted::default());
        self.step(MatchWorker::new(partition, Arc::default(), sighted, Metrics::new("test")), partition).await
    }

    async fn judge_all(&self) {
        for _ in 0..2 {
            for partition in 0..PARTITIONS {
                self.judge(partition).await.unwrap();
            }
        }
    }

    async fn correlate_all(&self) {
        for partition in 0..PARTITIONS {
            let worker = CorrelateWorker::new(partition, Arc::default(), Metrics::new("test"), Clock::system());
            self.step(worker, partition).await.unwrap();
        }
    }

    async fn read(&self, topic: Topic) -> Vec<Message> {
        let mut messages = Vec::new();
        for partition in 0..PARTITIONS {
            messages.extend(self.log.read(topic, partition, 0, ReadLimit::default()).await.unwrap());
        }
        messages
    }

    /// Each record that was matched, with the rule that did.
    async fn matched(&self) -> BTreeSet<(String, String)> {
        let messages = self.read(Topic::Matches).await;
        let matched = messages.iter().filter_map(|message| match MatchMessage::decode(&message.value).unwrap() {
            MatchMessage::Match(found) => Some((found.event_id, found.rule_id)),
            _ => None,
        });
        matched.collect()
    }

    /// The rule versions of the findings, and how many books correlate still keeps.
    async fn found(&self) -> (Vec<String>, usize) {
        let messages = self.read(Topic::Findings).await;
        let mut titles: Vec<String> = messages
            .iter()
            .filter_map(|message| match serde_json::from_slice(&message.value).unwrap() {
                FindingMessage::Finding(finding) => Some(finding.rule.title),
                FindingMessage::Heartbeat(_) | FindingMessage::ArchiveHeads(_) => None,
            })
            .collect();
        titles.sort();
        (titles, self.log.scan(Store::Editions, 0, &[BOOK]).await.unwrap().len())
    }
}

/// One rule that selects every record. What it is called is part of it, what it looks at too.
fn book(name: &str) -> RuleBook {
    let text = format!(
        "title: {name}\nid: {name}\nlogsource: {{product: m365}}\nlevel: high\ndetection: {{s: {{Operation: x}}, condition: s}}\n"
    );
    RuleBook { files: vec![RuleText { file: format!("{name}.yml"), text }], ..RuleBook::default() }
}

fn pairs(expected: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    let both = |(id, rule): &(&str, &str)| (0..PARTITIONS).map(|p| (format!("{id}/{p}"), (*rule).to_owned())).collect();
    expected.iter().flat_map(|pair| -> Vec<_> { both(pair) }).collect()
}

#[tokio::test]
async fn nothing_is_judged_without_rules_and_the_first_hold_for_what_came_before() {
    let bed = Bed::new();
    bed.put("1").await;
    for partition in [0, 1] {
        assert_eq!(bed.judge(partition).await.unwrap(), None);
        assert_eq!(bed.log.committed(Consumer::Match, Topic::Records, partition).await.unwrap(), 0);
    }
    bed.offer(&book("a"), false).await;
    assert_eq!(bed.judge(1).await.unwrap(), None, "partition 0 decides");
    bed.judge_all().await;
    assert_eq!(bed.matched().await, pairs(&[("1", "a")]));
}

#[tokio::test]
async fn each_partition_changes_at_one_offset_whoever_works_on_it_and_however_late() {
    let bed = Bed::new();
    bed.offer(&book("a"), false).await;
    bed.judge_all().await;
    bed.put("1").await;
    bed.offer(&book("b"), false).await;
    // Partition 1 stays behind while partition 0 decides, and has records on either side of the change when it comes to it.
    bed.judge(0).await.unwrap();
    bed.put("2").await;
    bed.judge_all().await;
    bed.put("3").await;
    bed.judge_all().await;
    assert_eq!(bed.matched().await, pairs(&[("1", "a"), ("2", "b"), ("3", "b")]));
}

#[tokio::test]
async fn who_restarts_with_replaced_rules_does_not_bring_them_back_unless_asked_to() {
    let bed = Bed::new();
    for (round, (offered, again)) in
        [("a", false), ("b", false), ("b", true), ("a", false), ("a", true)].iter().enumerate()
    {
        bed.offer(&book(offered), *again).await;
        bed.judge_all().await;
        bed.put(&round.to_string()).await;
        bed.judge_all().await;
    }
    assert_eq!(bed.matched().await, pairs(&[("0", "a"), ("1", "b"), ("2", "b"), ("3", "b"), ("4", "a")]));
}

#[tokio::test]
async fn domains_that_came_in_between_do_not_make_replaced_rules_new() {
    let bed = Bed::new();
    let with = |name, tenants: &[&str]| {
        let domain = |tenant: &&str| (tenant.parse().unwrap(), vec![format!("{tenant}.example")]);
        RuleBook { domains: tenants.iter().map(domain).collect(), ..book(name) }
    };
    let offers = [
        (with("a", &["t1"]), false, 1),
        (with("b", &["t1"]), false, 2),
        // An import into another tenant, and a detector that still has the first rules.
        (with("b", &["t2"]), true, 3),
        (with("a", &["t1"]), false, 3),
        // The same rules with other domains are a change, and what was before it is not brought back either.
        (RuleBook { domains: [("t1".parse().unwrap(), vec!["new.example".into()])].into(), ..book("b") }, false, 4),
        (with("b", &["t1"]), false, 4),
        (with("a", &["t1"]), true, 5),
        (with("a", &["t1"]), false, 5),
        (with("b", &["t1"]), false, 5),
    ];
    for (round, (offered, again, epoch)) in offers.into_iter().enumerate() {
        bed.offer(&offered, again).await;
        bed.judge_all().await;
        let decided = bed.log.scan(Store::Rules, 0, DECIDED).await.unwrap();
        assert_eq!(read::<Decided>(&decided[0].1).unwrap().epoch, epoch, "round {round}");
    }
}

#[tokio::test]
async fn what_was_matched_by_earlier_rules_is_correlated_by_them_and_then_they_are_forgotten() {
    let bed = Bed::new();
    bed.offer(&book("a"), false).await;
    bed.judge_all().await;
    bed.put("1").await;
    bed.judge_all().await;
    bed.offer(&book("b"), false).await;
    bed.judge(0).await.unwrap();
    bed.put("2").await;
    bed.judge(0).await.unwrap();
    // Correlate has matches of both sets before it, and partition 1 has not followed yet.
    bed.correlate_all().await;
    assert_eq!(bed.found().await, (vec!["a".to_owned(), "b".to_owned()], 2));
    bed.judge_all().await;
    bed.correlate_all().await;
    assert_eq!(bed.found().await.1, 1);
}

#[tokio::test]
async fn what_the_old_set_made_of_the_batch_in_which_it_ends_is_known_by_it() {
    let bed = Bed::new();
    bed.offer(&book("a"), false).await;
    bed.judge_all().await;
    // Partition 1 has a record before the change and one after it, and takes them in one step.
    bed.put("1").await;
    bed.offer(&book("b"), false).await;
    bed.judge(0).await.unwrap();
    bed.put("2").await;
    bed.judge_all().await;
    bed.correlate_all().await;
    let (titles, books) = bed.found().await;
    assert_eq!((titles.concat().as_str(), books), ("ab", 1));
}

#[tokio::test]
async fn a_rule_set_that_this_harrier_cannot_read_stops_it_before_it_judges_by_another() {
    let bed = Bed::new();
    bed.offer(&book("a"), false).await;
    bed.judge_all().await;
    let text =
        "title: n\nid: n\nlogsource: {product: m365}\ndetection: {s: {Operation|yet_unknown: x}, condition: s}\n";
    let newer = RuleBook { files: vec![RuleText { file: "n.yml".into(), text: text.into() }], ..RuleBook::default() };
    bed.offer(&newer, false).await;
    bed.judge(0).await.unwrap();
    bed.put("1").await;
    assert!(matches!(bed.judge(1).await, Err(Error::Rules { epoch: 2, .. })));
    assert_eq!(bed.matched().await, pairs(&[]));
}
