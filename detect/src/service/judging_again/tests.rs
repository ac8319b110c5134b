//! A change of rules ends in the same findings whenever it is made, wherever it is broken off, and however far the archive
//! lags behind.

use chrono::{DateTime, Utc};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use runtime::clock::Clock;
use runtime::log::embedded::Embedded;
use runtime::log::{Input, Lease, Txn};
use schemas::envelope::{Envelope, Mark, Origin};
use schemas::finding::Finding;
use schemas::history::{Answer, Batches, Snapshot};
use schemas::message::FindingMessage;
use schemas::{RuleBook, RuleText};

use super::*;
use crate::backtest::canonical;
use crate::offline::Offline;
use crate::service::correlating::CorrelateWorker;
use crate::service::matching::MatchWorker;
use crate::service::partitions::Worker;
use crate::service::sighted::Sighted;
use crate::service::{Error, compile, offer, rules_behind};

pub(in crate::service) const PARTITIONS: u32 = 2;

/// Numbers that look like chance, from a seed that is printed.
pub(in crate::service) struct Chance(pub(in crate::service) u64);

impl Chance {
    pub(in crate::service) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// An archive that has what it was given, in the order of its days.
#[derive(Clone, Default)]
pub(in crate::service) struct Shelf {
    pub(in crate::service) rows: Arc<Mutex<Vec<Received>>>,
    /// Before which day it does not keep everything.
    pub(in crate::service) kept_since: Arc<Mutex<Option<NaiveDate>>>,
    /// How often it is going to fail.
    pub(in crate::service) failures: Arc<Mutex<u32>>,
    /// How often it was looked into.
    pub(in crate::service) looks: Arc<Mutex<u32>>,
}

impl History for Shelf {
    fn snapshot<'a>(&'a self, _: &'a str, _: &'a [u64]) -> Answer<'a, Box<dyn Snapshot>> {
        Box::pin(async {
            let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
            if *failures > 0 {
                *failures -= 1;
                return Err(HistoryError("the disk is gone".into()));
            }
            *self.looks.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let mut days: BTreeMap<(Tenant, NaiveDate), Vec<Received>> = BTreeMap::new();
            for row in rows {
                let event = Event::read(&row).unwrap();
                days.entry((event.tenant().clone(), event.time().date_naive())).or_default().push(row);
            }
            let kept_since = *self.kept_since.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(Box::new(Shown(days, kept_since)) as Box<dyn Snapshot>)
        })
    }
}

struct Shown(BTreeMap<(Tenant, NaiveDate), Vec<Received>>, Option<NaiveDate>);

impl Snapshot for Shown {
    fn kept_since(&self) -> Option<NaiveDate> {
        self.1
    }

    fn days(&self) -> Answer<'_, Vec<(Tenant, NaiveDate)>> {
        Box::pin(async { Ok(self.0.keys().cloned().collect()) })
    }

    fn records<'a>(
        &'a self,
        tenant: &'a Tenant,
        (first, last): (NaiveDate, NaiveDate),
    ) -> Answer<'a, Box<dyn Batches>> {
        Box::pin(async move {
            let days = self.0.range((tenant.clone(), first)..=(tenant.clone(), last));
            let rows: Vec<Received> = days.flat_map(|(_, rows)| rows.clone()).collect();
            Ok(Box::new(Shelved(rows.chunks(3).map(<[Received]>::to_vec).rev().collect())) as Box<dyn Batches>)
        })
    }
}

struct Shelved(Vec<Vec<Received>>);

impl Batches for Shelved {
    fn next(&mut self) -> Answer<'_, Option<Vec<Received>>> {
        Box::pin(async { Ok(self.0.pop()) })
    }
}

/// A log, an archive that follows it, and workers that may be killed between any two steps.
pub(in crate::service) struct Bed {
    _folder: tempfile::TempDir,
    pub(in crate::service) log: Embedded,
    pub(in crate::service) shelf: Shelf,
    seen: BTreeMap<Vec<u8>, ()>,
    /// Members from which on a group is large.
    pub(in crate::service) crowded_from: usize,
    matching: Vec<MatchWorker>,
    correlating: Vec<CorrelateWorker>,
}

fn lease() -> Lease {
    Lease { consumer: Consumer::Match, partition: 0, owner: "test".into() }
}

impl Bed {
    pub(in crate::service) fn new() -> Bed {
        let folder = tempfile::tempdir().unwrap();
        let log = Embedded::open(&folder.path().join("log.sqlite"), PARTITIONS).unwrap();
        let (matching, correlating) = (Vec::new(), Vec::new());
        let (shelf, seen, crowded_from) = (Shelf::default(), BTreeMap::new(), usize::MAX);
        let mut bed = Bed { _folder: folder, log, shelf, seen, crowded_from, matching, correlating };
        bed.restart();
        bed
    }

    pub(in crate::service) fn restart(&mut self) {
        let sighted = Arc::new(Sighted::default());
        let history: Arc<dyn History> = Arc::new(self.shelf.clone());
        let metrics = Metrics::new("test");
        let matching =
            |partition| MatchWorker::new(partition, Arc::default(), sighted.clone(), metrics.clone()).beside(&history);
        self.matching = (0..PARTITIONS).map(matching).collect();
        self.correlating = (0..PARTITIONS).map(|partition| self.correlating(partition)).collect();
    }

    fn correlating(&self, partition: u32) -> CorrelateWorker {
        let history: Arc<dyn History> = Arc::new(self.shelf.clone());
        let worker = CorrelateWorker::new(partition, Arc::default(), Metrics::new("test"), Clock::system());
        worker.forgetting_into(&history).crowded_from(self.crowded_from)
    }

    pub(in crate::service) async fn put(&self, records: &[Received]) {
        let output = |record: &Received| Output {
            topic: Topic::Records,
            to: To::Key(schemas::json::key_hash(&[std::str::from_utf8(&record.bytes).unwrap()])),
            value: Envelope::Record(record.clone()).encode(),
        };
        let outputs = records.iter().map(output).collect();
        self.log.commit(Txn { outputs, ..Txn::default() }).await.unwrap();
    }

    /// Says that all of a feed is there up to this moment.
    pub(in crate::service) async fn mark(&self, tenant: &str, feed: &str, until: DateTime<Utc>) {
        self.mark_since(tenant, feed, (None, until)).await;
    }

    pub(in crate::service) async fn mark_since(
        &self,
        tenant: &str,
        feed: &str,
        (since, until): (Option<DateTime<Utc>>, DateTime<Utc>),
    ) {
        let mark = Mark { tenant: tenant.parse().unwrap(), content_type: feed.to_owned(), since, until };
        let output = Output { topic: Topic::Records, to: To::Everywhere, value: Envelope::Mark(mark).encode() };
        self.log.commit(Txn { outputs: vec![output], ..Txn::default() }).await.unwrap();
    }

    pub(in crate::service) async fn match_step(&mut self, partition: u32) -> bool {
        let from = self.log.committed(Consumer::Match, Topic::Records, partition).await.unwrap();
        self.matching[partition as usize].step(&self.log, from).await.unwrap().is_some()
    }

    pub(in crate::service) async fn correlate_step(&mut self, partition: u32) -> bool {
        let from = self.log.committed(Consumer::Correlate, Topic::Matches, partition).await.unwrap();
        match self.correlating[partition as usize].step(&self.log, from).await {
            // As when it runs: a new worker, and the step again.
            Err(Error::History(_)) => {
                self.correlating[partition as usize] = self.correlating(partition);
                true
            }
            step => step.unwrap().is_some(),
        }
    }

    async fn forget_step(&mut self, partition: u32) -> bool {
        let lease = Lease { consumer: Consumer::Correlate, partition, owner: "test".into() };
        assert!(self.log.acquire(&lease, Duration::from_secs(60)).await.unwrap());
        self.correlating[partition as usize].aside(&self.log, &lease).await.unwrap()
    }

    /// Archives at most so many records of a partition, each once.
    pub(in crate::service) async fn archive(&mut self, partition: u32, most: usize) -> bool {
        let from = self.log.committed(Consumer::Archive, Topic::Records, partition).await.unwrap();
        let judged = self.log.committed(Consumer::Match, Topic::Records, partition).await.unwrap();
        let limit = ReadLimit { messages: most, bytes: usize::MAX };
        let messages = self.log.read(Topic::Records, partition, from, limit).await.unwrap();
        let Some(last) = messages.last() else { return false };
        if last.offset >= judged {
            return false;
        }
        for message in &messages {
            if let Envelope::Record(record) = Envelope::decode(&message.value).unwrap()
                && self.seen.insert(record.bytes.clone(), ()).is_none()
            {
                self.shelf.rows.lock().unwrap().push(record);
            }
        }
        let next = last.offset + 1;
        let input = Input { consumer: Consumer::Archive, topic: Topic::Records, partition, from, next };
        self.log.commit(Txn { inputs: vec![input], ..Txn::default() }).await.unwrap();
        true
    }

    pub(in crate::service) async fn aside(&mut self) -> bool {
        assert!(self.log.acquire(&lease(), Duration::from_secs(60)).await.unwrap());
        self.matching[0].aside(&self.log, &lease()).await.unwrap()
    }

    /// One of the things that go on beside one another.
    pub(in crate::service) async fn something(&mut self, chance: &mut Chance) {
        let partition = chance.below(u64::from(PARTITIONS)) as u32;
        match chance.below(11) {
            9 | 10 => drop(self.forget_step(partition).await),
            0..=2 => drop(self.match_step(partition).await),
            3 | 4 => drop(self.correlate_step(partition).await),
            5 => drop(self.archive(partition, 1 + chance.below(5) as usize).await),
            6 | 7 => {
                self.aside().await;
                // The reading goes on meanwhile.
                self.log.wait(Duration::from_millis(chance.below(3))).await;
            }
            _ if chance.below(6) == 0 => self.restart(),
            _ => {}
        }
    }

    pub(in crate::service) async fn go_on_without_the_archive(&mut self) {
        for partition in 0..PARTITIONS {
            self.match_step(partition).await;
            self.correlate_step(partition).await;
            self.forget_step(partition).await;
        }
    }

    /// Until nothing is left to do. While rules are behind, workers are killed now and then.
    pub(in crate::service) async fn settle(&mut self, chance: &mut Chance) {
        let mut quiet = 0;
        loop {
            let is_behind = !rules_behind(&self.log).await.unwrap().rules.is_empty();
            if quiet >= 5 && !is_behind {
                return;
            }
            if is_behind && chance.below(5) == 0 {
                self.restart();
            }
            let mut moved = false;
            for partition in 0..PARTITIONS {
                moved |= self.match_step(partition).await;
                moved |= self.archive(partition, 1_000).await;
                moved |= self.correlate_step(partition).await;
                moved |= self.forget_step(partition).await;
            }
            moved |= self.aside().await;
            self.log.wait(Duration::from_millis(1)).await;
            quiet = if moved { 0 } else { quiet + 1 };
        }
    }

    /// Every revision told, in order, partition by partition.
    pub(in crate::service) async fn told(&self) -> Vec<Finding> {
        let mut told = Vec::new();
        for partition in 0..PARTITIONS {
            let limit = ReadLimit { messages: usize::MAX, bytes: usize::MAX };
            for message in self.log.read(Topic::Findings, partition, 0, limit).await.unwrap() {
                if let FindingMessage::Finding(finding) = serde_json::from_slice(&message.value).unwrap() {
                    told.push(*finding);
                }
            }
        }
        told
    }

    pub(in crate::service) async fn standing(&self) -> BTreeMap<String, Finding> {
        let newest: BTreeMap<String, Finding> =
            self.told().await.into_iter().map(|finding| (finding.id.clone(), finding)).collect();
        newest.into_iter().filter(|(_, finding)| finding.status.stands()).collect()
    }
}

/// A record as it is received of a tenant.
pub(in crate::service) fn received(tenant: &str, text: String) -> Received {
    let origin = Origin {
        tenant: tenant.parse().unwrap(),
        source: MANAGEMENT_ACTIVITY.into(),
        content_type: String::new(),
        blob_id: String::new(),
        received: "2026-11-22T10:00:00Z".parse().unwrap(),
        notify: true,
    };
    Received { origin, bytes: text.into_bytes() }
}

/// Records of a fortnight: users who sign in from a few addresses, now and then many times in a few minutes.
fn records(chance: &mut Chance) -> Vec<Received> {
    let mut records = Vec::new();
    for number in 0..60 + chance.below(60) {
        let user = chance.below(3);
        let day = 1 + chance.below(14);
        let within = if chance.below(2) == 0 { 12 } else { 600 };
        let minute = chance.below(within);
        let address = if chance.below(4) == 0 { chance.below(40) } else { user };
        let operation = if chance.below(5) == 0 { "y" } else { "x" };
        let bytes = format!(
            r#"{{"Id":"{number}","CreationTime":"2026-11-{day:02}T{:02}:{:02}:00","Operation":"{operation}","UserId":"u{user}@b.example","ClientIP":"192.0.2.{address}"}}"#,
            8 + minute / 60,
            minute % 60
        );
        records.push(received(if user == 0 { "t1" } else { "t2" }, bytes));
    }
    records
}

pub(in crate::service) fn base(name: &str, operation: &str) -> String {
    format!(
        "title: {name}\nid: {name}\nname: {name}\nlogsource: {{product: m365}}\ndetection: {{s: {{Operation: {operation}}}, condition: s}}\n"
    )
}

pub(in crate::service) fn burst(at_least: u64) -> String {
    format!(
        "title: Burst\nid: burst\nlevel: high\ncorrelation: {{type: event_count, rules: [x], group-by: [user_id], timespan: 10m, condition: {{gte: {at_least}}}}}\n"
    )
}

pub(in crate::service) const NEW_ADDRESS: &str = "title: New\nid: new\nlevel: high\ncorrelation: {type: x_new_value, rules: [x], group-by: [user_id]}\nx-field: client_ip\nx-history: 30d\nx-min-days: 2\nx-min-days-seen: 2\n";

pub(in crate::service) fn book(documents: &[String]) -> RuleBook {
    let text = documents.join("---\n");
    RuleBook { files: vec![RuleText { file: "t.yml".into(), text }], ..RuleBook::default() }
}

/// What a rule set finds in records that it judges all, in memory.
pub(in crate::service) fn found(book: &RuleBook, records: &[Received]) -> BTreeMap<String, Finding> {
    found_complete(book, records, DateTime::<Utc>::MIN_UTC)
}

/// The same where everything up to a moment is known to be there.
pub(in crate::service) fn found_complete(
    book: &RuleBook,
    records: &[Received],
    complete: DateTime<Utc>,
) -> BTreeMap<String, Finding> {
    let matcher = compile(book).unwrap();
    let mut offline = Offline::new(matcher.rules(), &matcher);
    offline.feed(records).unwrap();
    offline.complete(complete);
    offline.standing().map(|finding| (finding.id.clone(), canonical(finding))).collect()
}

pub(in crate::service) fn canonical_of(standing: BTreeMap<String, Finding>) -> BTreeMap<String, Finding> {
    standing.into_iter().map(|(id, finding)| (id, canonical(&finding))).collect()
}

#[tokio::test]
async fn a_change_of_rules_ends_in_the_same_findings_whenever_it_is_made() {
    let old = book(&[base("x", "x"), base("y", "y"), burst(5)]);
    let new = book(&[base("x", "x"), base("y", "y"), burst(3), NEW_ADDRESS.to_owned()]);
    for seed in 0..8 {
        println!("seed {seed}");
        let mut chance = Chance(seed);
        let records = records(&mut chance);
        let expected = found(&new, &records);
        assert!(expected.len() > 3, "seed {seed}: something is found");
        let mut bed = Bed::new();
        offer(&bed.log, &old, false).await.unwrap();
        let change = chance.below(records.len() as u64);
        for (at, record) in records.iter().enumerate() {
            bed.put(std::slice::from_ref(record)).await;
            if chance.below(3) == 0 {
                bed.put(&[records[chance.below(at as u64 + 1) as usize].clone()]).await;
            }
            if at as u64 == change {
                offer(&bed.log, &new, false).await.unwrap();
                *bed.shelf.failures.lock().unwrap() = chance.below(3) as u32;
            }
            for _ in 0..chance.below(6) {
                bed.something(&mut chance).await;
            }
        }
        bed.settle(&mut chance).await;
        assert_eq!(canonical_of(bed.standing().await), expected, "seed {seed}");
    }
}

#[tokio::test]
async fn what_reads_the_same_is_not_told_again_and_what_the_archive_does_not_say_waits() {
    let mut bed = Bed::new();
    let mut chance = Chance(8);
    let records = records(&mut chance);
    let old = book(&[base("x", "x"), burst(2)]);
    offer(&bed.log, &old, false).await.unwrap();
    bed.put(&records).await;
    bed.settle(&mut chance).await;
    let before = bed.standing().await;
    assert!(before.len() > 1);
    // It means something else, and selects the same.
    let other = base("x", "x").replace("condition: s", "t: {Operation: never}, condition: s or t");
    let other = other.replace("condition: s}}", "condition: s}");
    let new = book(&[other, burst(2)]);
    assert_ne!(
        compile(&new).unwrap().rules().get("burst").unwrap().version,
        before.values().next().unwrap().rule.version
    );
    *bed.shelf.failures.lock().unwrap() = 2;
    let told = bed.told().await.len();
    offer(&bed.log, &new, false).await.unwrap();
    bed.settle(&mut chance).await;
    assert_eq!(canonical_of(bed.standing().await), found(&new, &records));
    let all = bed.told().await;
    let again: Vec<&Finding> = all.iter().filter(|finding| finding.revision > before[&finding.id].revision).collect();
    assert_eq!(all.len() - told, again.len(), "each goes on as the one it was");
    assert!(again.len() >= before.len() && again.iter().all(|finding| !finding.notify), "{again:?}");
    assert_eq!(canonical_of(bed.standing().await).len(), before.len());
}

#[tokio::test]
async fn a_rule_that_comes_later_is_told_of_the_past_and_one_that_is_as_before_is_not_read_for() {
    let mut bed = Bed::new();
    let mut chance = Chance(3);
    let records = records(&mut chance);
    offer(&bed.log, &book(&[base("y", "y")]), false).await.unwrap();
    bed.put(&records).await;
    bed.settle(&mut chance).await;
    let before = bed.told().await.len();
    offer(&bed.log, &book(&[base("y", "y").replace("title: y", "title: Y")]), false).await.unwrap();
    bed.settle(&mut chance).await;
    assert_eq!(bed.told().await.len(), before, "another title is no other meaning");
    let new = book(&[base("y", "y").replace("title: y", "title: Y"), base("x", "x")]);
    offer(&bed.log, &new, false).await.unwrap();
    bed.settle(&mut chance).await;
    let (standing, expected) = (bed.standing().await, found(&new, &records));
    assert_eq!(standing.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    let later = bed.told().await.into_iter().filter(|finding| finding.rule.id == "x");
    assert!(later.into_iter().all(|finding| finding.notify), "what came by a feed is news to a new rule");
}
