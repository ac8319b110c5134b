//! The machine against a list of blobs and a number for a clock: no HTTP, no waiting.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use schemas::message::CoverageState;

use super::*;
use crate::ledger::{BlobState, Change, Ledger};

mod faults;
mod week;

use super::effect::{Effects, Note};
use super::machine::{Machine, Next};
use super::wire::{Answer, BlobRead, Call, Outcome, Pass, What};

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn start() -> DateTime<Utc> {
    at("2026-11-22T10:00:00Z")
}

fn source(content_types: &[&str]) -> TenantSource {
    TenantSource {
        tenant: "t1".parse().unwrap(),
        tenant_id: "11111111-1111-1111-1111-111111111111".into(),
        client_id: "22222222-2222-2222-2222-222222222222".into(),
        credential: crate::identity::Credential::Fixed(runtime::config::Secret::new("hush")),
        content_types: content_types.iter().map(|name| (*name).to_owned()).collect(),
        publisher_id: "11111111-1111-1111-1111-111111111111".into(),
        login: "https://login.example".parse().unwrap(),
        management: "https://manage.example".parse().unwrap(),
        audience: "https://manage.example".into(),
    }
}

/// A blob of the played service.
#[derive(Clone, Debug)]
struct Shown {
    feed: String,
    created: DateTime<Utc>,
    /// When listings begin to show it.
    listed: DateTime<Utc>,
}

/// A call that was made.
struct Made {
    at: DateTime<Utc>,
    what: What,
    url: url::Url,
}

/// A response that is scripted instead of the service's own: the next call for which the filter holds gets it.
type Scripted = (fn(&What) -> bool, Outcome);

/// The service, the ledger and the clock. Its blobs lie in the order in which they became available.
struct Play {
    source: TenantSource,
    pace: Pace,
    machine: Machine,
    now: DateTime<Utc>,
    blobs: Vec<Shown>,
    page_size: usize,
    enabled: BTreeSet<String>,
    scripted: Vec<Scripted>,
    /// Date the service puts into its answers, relative to the machine's clock.
    service_ahead: Option<TimeDelta>,
    ledger: Ledger,
    fetched: Vec<String>,
    calls: Vec<Made>,
    coverage: Vec<schemas::message::Coverage>,
    notes: Vec<Note>,
    marks: BTreeMap<String, DateTime<Utc>>,
    /// From when on they speak.
    since: BTreeMap<String, DateTime<Utc>>,
}

impl Play {
    fn new(content_types: &[&str], pace: Pace) -> Play {
        let source = source(content_types);
        let now = start();
        let machine = machine(&source, &pace, Ledger::default(), now);
        Play {
            enabled: source.content_types.iter().cloned().collect(),
            source,
            pace,
            machine,
            now,
            blobs: Vec::new(),
            page_size: 50,
            scripted: Vec::new(),
            service_ahead: None,
            ledger: Ledger::default(),
            fetched: Vec::new(),
            calls: Vec::new(),
            coverage: Vec::new(),
            notes: Vec::new(),
            marks: BTreeMap::new(),
            since: BTreeMap::new(),
        }
    }

    fn show(&mut self, feed: &str, created: DateTime<Utc>) {
        self.blobs.push(Shown { feed: feed.into(), created, listed: created });
    }

    /// A new life from the ledger, as after a crash.
    fn restart(&mut self) {
        self.machine = machine(&self.source, &self.pace, self.ledger.clone(), self.now);
    }

    fn run_until(&mut self, end: DateTime<Utc>) {
        for _ in 0..1_000_000 {
            let (next, effects) = self.machine.next(self.now);
            self.apply(effects);
            match next {
                Next::Call(call) => {
                    let outcome = self.answer(&call);
                    self.calls.push(Made { at: self.now, what: call.what.clone(), url: call.url.clone() });
                    let effects = self.machine.heard(*call, outcome, self.now);
                    self.apply(effects);
                }
                Next::Wait(until) => {
                    let until = until.expect("nothing is in flight");
                    assert!(until > self.now, "waits for what has passed");
                    if until >= end {
                        self.now = end;
                        return;
                    }
                    self.now = until;
                }
            }
        }
        panic!("the machine spins at {}", self.now);
    }

    fn apply(&mut self, effects: Effects) {
        for change in effects.changes {
            match change {
                Change::History(..) => {}
                Change::Search { .. } => unreachable!("a poller does not search"),
                Change::Feed(content_type, row) => drop(self.ledger.feeds.insert(content_type, row)),
                Change::Blob { content_type, blob_id, row } => {
                    let rows = self.ledger.blobs.entry(content_type).or_default();
                    match row {
                        Some(row) => drop(rows.insert(blob_id, row)),
                        None => drop(rows.remove(&blob_id)),
                    }
                }
            }
        }
        for (feed, since, until) in effects.marks {
            // None only where a test begins with a feed that is under way.
            if let Some(since) = since {
                let known = self.since.insert(feed.clone(), since);
                assert!(known.is_none_or(|known| known == since), "{feed} since {since}");
            }
            let before = self.marks.insert(feed.clone(), until);
            assert!(before.is_none_or(|before| before < until), "the mark goes back");
            self.check_mark(&feed, until);
        }
        self.coverage.extend(effects.coverage);
        self.notes.extend(effects.notes);
    }

    /// What a mark says is true at the moment it is sent.
    fn check_mark(&self, feed: &str, until: DateTime<Utc>) {
        let theirs = self.now + self.service_ahead.unwrap_or_default();
        assert!(until <= self.now && until <= theirs, "the mark runs ahead");
        // Earlier ones were looked at when earlier marks were sent.
        let recent = (theirs - TimeDelta::days(7)).max(until - TimeDelta::hours(30));
        let from = self.blobs.partition_point(|blob| blob.created < recent);
        for blob in self.blobs[from..].iter().take_while(|blob| blob.created < until) {
            // What is listed later than the overlap reaches back is for the sweep: no mark can know of it.
            if blob.feed != feed || blob.listed >= until || blob.listed - blob.created >= self.pace.overlap {
                continue;
            }
            let id = id(blob);
            let rows = &self.ledger.blobs[feed];
            let state = rows.get(&id).map(|row| &row.state);
            let is_gap = matches!(state, Some(BlobState::Retrying(retrying)) if retrying.is_gap);
            let is_done = state.is_some_and(BlobState::is_final) || is_gap;
            assert!(is_done || blob.created >= until, "{id} is not fetched, but the mark says {until}");
        }
    }

    fn answer(&mut self, call: &Call) -> Outcome {
        let theirs = self.now + self.service_ahead.unwrap_or_default();
        if let Some(place) = self.scripted.iter().position(|(applies, _)| applies(&call.what)) {
            let (_, outcome) = self.scripted.remove(place);
            // A fetched blob is one that the service gave.
            return outcome;
        }
        let date = self.service_ahead.map(|_| theirs);
        let ok = |body: String, next_page| {
            Outcome::Answer(Answer { status: 200, body: body.into_bytes(), next_page, date, ..Answer::default() })
        };
        let host = call.url.host_str().unwrap();
        assert_eq!(host == "login.example", call.what == What::Token, "{}", call.url);
        let query: BTreeMap<String, String> = call.url.query_pairs().into_owned().collect();
        match &call.what {
            What::Token => ok(r#"{"access_token":"abc","expires_in":3599}"#.into(), None),
            What::Subscriptions => {
                let row = |name: &String| format!(r#"{{"contentType":"{name}","status":"enabled","webhook":null}}"#);
                let rows: Vec<String> = self.enabled.iter().map(row).collect();
                ok(format!("[{}]", rows.join(",")), None)
            }
            What::Start { .. } => {
                self.enabled.insert(query["contentType"].clone());
                ok(r#"{"contentType":"x","status":"enabled","webhook":null}"#.into(), None)
            }
            What::List { .. } => self.list(&query, theirs, call, date),
            What::Blob { blob, .. } => {
                self.fetched.push(blob.id.clone());
                Outcome::Blob(BlobRead { records: 1, bytes: 10, date, ..BlobRead::default() })
            }
        }
    }

    fn list(
        &self,
        query: &BTreeMap<String, String>,
        theirs: DateTime<Utc>,
        call: &Call,
        date: Option<DateTime<Utc>>,
    ) -> Outcome {
        let time = |name: &str| at(&format!("{}Z", query[name]));
        let (from, to) = (time("startTime"), time("endTime"));
        assert!(from < to && to - from <= TimeDelta::hours(24) && from >= theirs - TimeDelta::days(7), "{}", call.url);
        let name = &query["contentType"];
        let mut shown: Vec<&Shown> = self
            .blobs
            .iter()
            .skip(self.blobs.partition_point(|blob| blob.created < from))
            .take_while(|blob| blob.created < to)
            .filter(|blob| &blob.feed == name && blob.listed <= theirs)
            .collect();
        shown.reverse();
        let offset: usize = query.get("nextPage").map_or(0, |page| page.parse().unwrap());
        let entries: Vec<String> = shown.iter().skip(offset).take(self.page_size).map(|blob| entry(blob)).collect();
        let next = offset + self.page_size;
        let next_page = (next < shown.len()).then(|| {
            let mut url = call.url.clone();
            let pairs: Vec<_> = query.iter().filter(|(name, _)| *name != "nextPage").collect();
            url.query_pairs_mut().clear().extend_pairs(pairs).append_pair("nextPage", &next.to_string());
            url.into()
        });
        let body = format!("[{}]", entries.join(",")).into_bytes();
        Outcome::Answer(Answer { status: 200, body, next_page, date, ..Answer::default() })
    }
}

fn machine(source: &TenantSource, pace: &Pace, ledger: Ledger, now: DateTime<Utc>) -> Machine {
    Machine::new(source.clone().into(), pace.clone().into(), ledger, 7, now)
}

fn id(blob: &Shown) -> String {
    format!("{}${}", blob.created.format("%Y%m%d%H%M%S%3f"), blob.feed)
}

fn entry(blob: &Shown) -> String {
    let (id, created) = (id(blob), blob.created.to_rfc3339());
    let expires = (blob.created + TimeDelta::days(7)).to_rfc3339();
    format!(
        r#"{{"contentType":"{}","contentId":"{id}","contentUri":"https://manage.example/api/v1.0/x/activity/feed/audit/{id}","contentCreated":"{created}","contentExpiration":"{expires}"}}"#,
        blob.feed
    )
}

fn refusal(status: u16, code: &str) -> Outcome {
    let body = format!(r#"{{"error":{{"code":"{code}","message":"m"}}}}"#).into_bytes();
    Outcome::Answer(Answer { status, body, ..Answer::default() })
}

fn is_list(what: &What) -> bool {
    matches!(what, What::List { .. })
}

fn is_blob(what: &What) -> bool {
    matches!(what, What::Blob { .. })
}

fn is_start(what: &What) -> bool {
    matches!(what, What::Start { .. })
}
