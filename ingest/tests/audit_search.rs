//! The audit search against a fake tenant whose truth is known.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use ingest::identity::Credential;
use ingest::ledger::{BlobState, searches};
use ingest::source::audit_search::{Pace, Report, SOURCE, Search, SearchError, search};
use ingest::source::management_activity::TenantSource;
use runtime::clock::Clock;
use runtime::config::Secret;
use runtime::log::embedded::Embedded;
use runtime::log::{Log, ReadLimit, Topic};
use runtime::metrics::Metrics;
use runtime::shutdown;
use schemas::Event;
use schemas::envelope::{Envelope, Mark, Received};
use schemas::message::{Blob, BlobEnd, Coverage, CoverageMessage, CoverageState};
use simulate::{Broken, FakeTenant, Options, Searching};

struct Play {
    tenant: FakeTenant,
    options: Options,
    log: Arc<dyn Log>,
    _folder: tempfile::TempDir,
}

fn options(searching: Searching) -> Options {
    Options { users: 4, days: 12, searching, ..Options::new("2026-11-22T12:00:00Z".parse().unwrap()) }
}

impl Play {
    async fn start(options: Options) -> Play {
        let tenant = FakeTenant::start(options.clone(), ([127, 0, 0, 1], 0).into()).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let log: Arc<dyn Log> = Arc::new(Embedded::open(&folder.path().join("log"), 3).unwrap());
        Play { tenant, options, log, _folder: folder }
    }

    fn what(&self) -> Search {
        let base = format!("http://{}", self.tenant.address());
        let source = TenantSource {
            tenant: "t1".parse().unwrap(),
            tenant_id: self.options.tenant_id.clone(),
            client_id: self.options.client_id.clone(),
            credential: Credential::Fixed(Secret::new(&self.options.client_secret)),
            content_types: vec!["Audit.Exchange".into()],
            publisher_id: self.options.tenant_id.clone(),
            login: base.parse().unwrap(),
            management: base.parse().unwrap(),
            audience: "https://manage.office.com".into(),
        };
        let (from, until) = (self.options.end - TimeDelta::days(20), self.options.end);
        let audience = "https://graph.microsoft.com".into();
        Search { source, graph: base.parse().unwrap(), audience, from, until, notify: false }
    }

    async fn search(&self, what: &Search) -> Result<Report, SearchError> {
        let pace = Pace {
            poll_first: Duration::from_millis(1),
            poll: Duration::from_millis(1),
            backoff: Duration::from_millis(1),
            backoff_max: Duration::from_millis(5),
            search_max: Duration::from_secs(60),
        };
        let (_trigger, shutdown) = shutdown::channel();
        let clock = Clock::manual(self.options.end).0;
        search(what, pace, self.log.clone(), &clock, Metrics::new("test"), &shutdown, &mut |_, _| {}).await
    }

    async fn all(&self, topic: Topic) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        for partition in 0..self.log.partitions() {
            let limit = ReadLimit { messages: usize::MAX, bytes: usize::MAX };
            let messages = self.log.read(topic, partition, 0, limit).await.unwrap();
            all.extend(messages.into_iter().map(|message| message.value));
        }
        all
    }

    async fn received(&self) -> Vec<Received> {
        let envelopes = self.all(Topic::Records).await;
        let received = |value: &Vec<u8>| match Envelope::decode(value).unwrap() {
            Envelope::Record(received) => Some(received),
            _ => None,
        };
        envelopes.iter().filter_map(received).collect()
    }

    /// What was said to be whole, once in each partition.
    async fn whole(&self) -> Vec<Mark> {
        let envelopes = self.all(Topic::Records).await;
        let mark = |value: &Vec<u8>| match Envelope::decode(value).unwrap() {
            Envelope::Mark(mark) => Some(mark),
            _ => None,
        };
        envelopes.iter().filter_map(mark).collect()
    }

    async fn told(&self) -> (Vec<Coverage>, Vec<Blob>) {
        let (mut coverage, mut blobs) = (Vec::new(), Vec::new());
        for value in self.all(Topic::Coverage).await {
            match serde_json::from_slice(&value).unwrap() {
                CoverageMessage::Coverage(row) => coverage.push(row),
                CoverageMessage::Blob(blob) => blobs.push(blob),
            }
        }
        (coverage, blobs)
    }

    async fn coverage(&self) -> Vec<Coverage> {
        self.told().await.0
    }

    /// Id and content of every record in the log, as admit knows them, and those of the world.
    async fn compared(&self) -> (BTreeSet<(String, u128)>, BTreeSet<(String, u128)>) {
        let known = |received: &Received| {
            let event = Event::read(received).unwrap();
            (event.id().to_owned(), event.content_hash())
        };
        let held = self.received().await;
        let template = held[0].origin.clone();
        let truth = self
            .tenant
            .world()
            .records
            .iter()
            .map(|record| known(&Received { origin: template.clone(), bytes: record.json.clone().into_bytes() }));
        (held.iter().map(known).collect(), truth.collect())
    }
}

#[tokio::test]
async fn all_that_ever_happened_is_found_and_is_what_the_feed_would_have_brought() {
    let play = Play::start(options(Searching { trouble_every: 7, ..Searching::default() })).await;
    let report = play.search(&play.what()).await.unwrap();
    let (held, truth) = play.compared().await;
    assert!(truth.len() > 1_000 && held == truth, "{} of {}", held.len(), truth.len());
    // Older than anything a feed still has.
    let oldest = play.tenant.world().records[0].created;
    assert!(play.options.end - oldest > TimeDelta::days(8));
    assert!(play.tenant.searched().trouble > 5, "it has been hard: {:?}", play.tenant.searched());
    assert_eq!((report.windows_missing, report.windows_cut, report.rejected), (0, 0, 0));
    assert!(play.coverage().await.iter().all(|row| row.state == CoverageState::Complete && row.feed == SOURCE));
    assert!(play.received().await.iter().all(|received| !received.origin.notify));
    // What did not happen can be told of that time now.
    let (whole, what) = (play.whole().await, play.what());
    assert_eq!(whole.len() as u32, play.log.partitions());
    let day = TimeDelta::days(1);
    assert!(whole.iter().all(|mark| mark.is_of_import() && mark.since == Some(what.from)));
    // But for what may be on its way still.
    let settled = play.options.end - day;
    assert!(whole.iter().all(|mark| mark.until < settled && mark.until > settled - day - day), "{whole:?}");
    // Every search is told by the name that its records bear, with what they were.
    let blobs = play.told().await.1;
    assert_eq!(blobs.len() as u64, report.windows_done);
    let counts = blobs.iter().map(|blob| match &blob.end {
        BlobEnd::Taken { records, sha256, .. } if sha256.len() == 64 => *records,
        end => panic!("{}: {end:?}", blob.blob_id),
    });
    assert_eq!(counts.sum::<u64>(), report.records);
    let named: BTreeSet<&str> = blobs.iter().map(|blob| blob.blob_id.as_str()).collect();
    assert!(play.received().await.iter().any(|received| named.contains(received.origin.blob_id.as_str())));
}

#[tokio::test]
async fn windows_shrink_until_their_search_is_complete_and_a_second_run_asks_for_nothing() {
    let play = Play::start(options(Searching { records_max: 40, page_size: 7, ..Searching::default() })).await;
    let report = play.search(&play.what()).await.unwrap();
    let (held, truth) = play.compared().await;
    assert!(held == truth, "{} of {}", held.len(), truth.len());
    assert!(report.windows_cut > 10 && report.windows_missing == 0, "{report:?}");
    let searched = play.tenant.searched();
    assert!(searched.over_limit > 10, "{searched:?}");
    let rows = searches(&*play.log, &"t1".parse().unwrap()).await.unwrap();
    assert!(rows.values().all(|row| matches!(row.state, BlobState::Committed { .. })));
    let again = play.search(&play.what()).await.unwrap();
    assert_eq!((again.windows_done, again.windows_known), (0, report.windows_done));
    assert_eq!(play.tenant.searched().searches, searched.searches);
}

#[tokio::test]
async fn what_cannot_be_cut_any_more_is_a_gap_that_is_told() {
    // Two searches may find one record at most, and some records share a second.
    let play = Play::start(options(Searching { records_max: 1, ..Searching::default() })).await;
    let day = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
    let victim = play.tenant.world().records.iter().map(|record| record.created);
    let mut times: Vec<_> = victim.collect();
    times.sort();
    let crowded = times.windows(2).find(|pair| pair[0] == pair[1]).map_or(day("2026-11-20T10:00:00Z"), |pair| pair[0]);
    let what = Search { from: crowded - TimeDelta::seconds(8), until: crowded + TimeDelta::seconds(8), ..play.what() };
    let report = play.search(&what).await.unwrap();
    assert!(report.windows_missing > 0, "{report:?}");
    assert!(play.whole().await.is_empty(), "not all of it is there");
    let coverage = play.coverage().await;
    let missing: Vec<&Coverage> = coverage.iter().filter(|row| row.state == CoverageState::Missing).collect();
    assert_eq!(missing.len() as u64, report.windows_missing);
    assert!(missing.iter().any(|row| row.window_start <= crowded && crowded <= row.window_end));
}

#[tokio::test]
async fn without_the_permission_nothing_passes_for_a_clean_answer() {
    let play = Play::start(Options { broken: vec![Broken::NoConsent], ..options(Searching::default()) }).await;
    let refused = play.search(&play.what()).await;
    assert!(matches!(refused, Err(SearchError::NoPermission { .. })), "{refused:?}");
    assert!(play.coverage().await.is_empty());
}
