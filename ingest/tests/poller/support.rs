//! A scripted stand-in for the service, on a port of its own, and a poller that runs against it into a real log.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt, stream};
use ingest::identity::Credential;
use ingest::ledger::{BlobState, Ledger};
use ingest::source::Health;
use ingest::source::management_activity::{Pace, PollError, Poller, TenantSource};
use runtime::clock::Clock;
use runtime::config::Secret;
use runtime::log::embedded::Embedded;
use runtime::log::{Log, ReadLimit, Topic};
use runtime::metrics::Metrics;
use runtime::shutdown;
use schemas::envelope::{Envelope, Mark, Received};
use schemas::message::{self, BlobEnd, Coverage, CoverageMessage, DeadLetter};

pub const TENANT_ID: &str = "11111111-1111-1111-1111-111111111111";
pub const FEED: &str = "Audit.Exchange";

/// A request as the service saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub path: String,
    pub query: BTreeMap<String, String>,
    pub authorization: Option<String>,
}

/// A scripted answer.
#[derive(Clone)]
pub enum Reply {
    Status(u16, String),
    /// The real answer, broken off after so many bytes although its length was announced as a whole.
    Truncated(usize),
    /// HTTP 307 to another place.
    Redirect(String),
    /// No head; or a head, and then a blank every so often, for ever.
    Drip(Option<Duration>),
    /// An empty page that names this one as the next.
    NextPage(String),
}

pub struct Blob {
    pub id: String,
    pub created: DateTime<Utc>,
    pub body: Vec<u8>,
    /// What the listing says instead of the real address.
    pub uri: Option<String>,
}

type Script = (fn(&Seen) -> bool, Reply);

#[derive(Default)]
pub struct Service {
    pub base: String,
    pub blobs: Vec<Blob>,
    pub page_size: usize,
    pub subscribed: BTreeSet<String>,
    pub scripts: Vec<Script>,
    pub seen: Vec<Seen>,
    pub tokens: u32,
}

#[derive(Clone)]
pub struct Server(pub Arc<Mutex<Service>>);

impl Server {
    pub async fn start() -> Server {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let subscribed = BTreeSet::from([FEED.to_owned()]);
        let service = Service { base, page_size: 100, subscribed, ..Service::default() };
        let server = Server(Arc::new(Mutex::new(service)));
        let router = axum::Router::new().fallback(handle).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        server
    }

    pub fn with<T>(&self, work: impl FnOnce(&mut Service) -> T) -> T {
        work(&mut self.0.lock().unwrap())
    }

    pub fn base(&self) -> String {
        self.with(|service| service.base.clone())
    }

    /// A blob that became available so many minutes ago.
    pub fn add(&self, id: &str, minutes_ago: i64, body: impl Into<Vec<u8>>) {
        let created = Utc::now() - TimeDelta::minutes(minutes_ago);
        let blob = Blob { id: id.into(), created, body: body.into(), uri: None };
        self.with(|service| service.blobs.push(blob));
    }

    pub fn script(&self, applies: fn(&Seen) -> bool, reply: Reply) {
        self.with(|service| service.scripts.push((applies, reply)));
    }

    pub fn count(&self, applies: impl Fn(&Seen) -> bool) -> usize {
        self.with(|service| service.seen.iter().filter(|seen| applies(seen)).count())
    }
}

pub fn is_list(seen: &Seen) -> bool {
    seen.path.ends_with("/subscriptions/content")
}

pub fn is_blob(seen: &Seen) -> bool {
    seen.path.contains("/audit/")
}

pub fn refusal(code: &str) -> String {
    format!(r#"{{"error":{{"code":"{code}","message":"m"}}}}"#)
}

async fn handle(State(server): State<Server>, request: Request) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let query = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let header = request.headers().get("authorization");
    let authorization = header.map(|value| value.to_str().unwrap().to_owned());
    let seen = Seen { path: request.uri().path().to_owned(), query, authorization };
    let reply = server.with(|service| {
        service.seen.push(seen.clone());
        let script = service.scripts.iter().position(|(applies, _)| applies(&seen));
        script.map(|place| service.scripts.remove(place).1)
    });
    if let Some(Reply::Drip(drip)) = reply {
        return drips(drip).await;
    }
    server.with(|service| match reply {
        Some(Reply::Drip(_)) => unreachable!("answered above"),
        None => service.answer(&seen),
        Some(Reply::Status(status, body)) => (StatusCode::from_u16(status).unwrap(), body).into_response(),
        Some(Reply::Redirect(to)) => (StatusCode::TEMPORARY_REDIRECT, [("location", to)]).into_response(),
        Some(Reply::NextPage(uri)) => ([("NextPageUri", uri)], "[]").into_response(),
        Some(Reply::Truncated(length)) => truncated(service.blob(&seen), length),
    })
}

async fn drips(every: Option<Duration>) -> Response {
    let Some(every) = every else { return std::future::pending().await };
    let drops = stream::repeat(()).then(move |()| async move {
        tokio::time::sleep(every).await;
        Ok::<_, std::io::Error>(" ")
    });
    Response::new(Body::from_stream(drops))
}

fn truncated(body: &[u8], length: usize) -> Response {
    let part = body[..length].to_vec();
    let begun = stream::once(async { Ok::<Vec<u8>, std::io::Error>(part) });
    // Lets the server send what it has before the connection breaks.
    let end = stream::once(async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        Err(std::io::Error::other("broken off"))
    });
    let mut response = Response::new(Body::from_stream(begun.chain(end)));
    response.headers_mut().insert("content-length", body.len().into());
    response
}

impl Service {
    fn answer(&mut self, seen: &Seen) -> Response {
        if seen.path == format!("/{TENANT_ID}/oauth2/v2.0/token") {
            self.tokens += 1;
            return format!(r#"{{"token_type":"Bearer","expires_in":3599,"access_token":"token{}"}}"#, self.tokens)
                .into_response();
        }
        if seen.authorization != Some(format!("Bearer token{}", self.tokens)) {
            return (StatusCode::UNAUTHORIZED, "{}").into_response();
        }
        let operation = seen.path.strip_prefix(&format!("/api/v1.0/{TENANT_ID}/activity/feed/")).unwrap();
        assert_eq!(seen.query["PublisherIdentifier"], TENANT_ID);
        match operation {
            "subscriptions/list" => {
                let row = |name: &String| format!(r#"{{"contentType":"{name}","status":"enabled","webhook":null}}"#);
                format!("[{}]", self.subscribed.iter().map(row).collect::<Vec<_>>().join(",")).into_response()
            }
            "subscriptions/start" => {
                let name = &seen.query["contentType"];
                if !self.subscribed.insert(name.clone()) {
                    return (StatusCode::BAD_REQUEST, refusal("AF20024")).into_response();
                }
                format!(r#"{{"contentType":"{name}","status":"enabled","webhook":null}}"#).into_response()
            }
            "subscriptions/content" if !self.subscribed.contains(&seen.query["contentType"]) => {
                (StatusCode::BAD_REQUEST, refusal("AF20022")).into_response()
            }
            "subscriptions/content" => self.list(seen),
            _ => self.blob(seen).to_vec().into_response(),
        }
    }

    fn blob(&self, seen: &Seen) -> &[u8] {
        let id = seen.path.rsplit('/').next().unwrap();
        &self.blobs.iter().find(|blob| blob.id == id).unwrap().body
    }

    fn list(&self, seen: &Seen) -> Response {
        let time = |name: &str| format!("{}Z", seen.query[name]).parse::<DateTime<Utc>>().unwrap();
        let window = time("startTime")..time("endTime");
        let shown: Vec<&Blob> = self.blobs.iter().filter(|blob| window.contains(&blob.created)).collect();
        let offset: usize = seen.query.get("nextPage").map_or(0, |page| page.parse().unwrap());
        let next = offset + self.page_size;
        // The last entry of a page comes again as the first of the next.
        let entries: Vec<String> =
            shown.iter().skip(offset.saturating_sub(1)).take(self.page_size + 1).map(|blob| self.entry(blob)).collect();
        let body = format!("[{}]", entries.join(","));
        if next >= shown.len() {
            return body.into_response();
        }
        let mut uri = url::Url::parse(&format!("{}{}", self.base, seen.path)).unwrap();
        uri.query_pairs_mut().extend_pairs(seen.query.iter().filter(|(name, _)| *name != "nextPage"));
        uri.query_pairs_mut().append_pair("nextPage", &next.to_string());
        ([("NextPageUri", uri.to_string())], body).into_response()
    }

    fn entry(&self, blob: &Blob) -> String {
        let own = format!("{}/api/v1.0/{TENANT_ID}/activity/feed/audit/{}", self.base, blob.id);
        let uri = blob.uri.as_ref().unwrap_or(&own);
        let (id, created) = (&blob.id, blob.created.to_rfc3339());
        format!(r#"{{"contentType":"{FEED}","contentId":"{id}","contentUri":"{uri}","contentCreated":"{created}"}}"#)
    }
}

pub fn source(base: &str) -> TenantSource {
    TenantSource {
        tenant: "t1".parse().unwrap(),
        tenant_id: TENANT_ID.into(),
        client_id: "22222222-2222-2222-2222-222222222222".into(),
        credential: Credential::Fixed(Secret::new("simulated-secret")),
        content_types: vec![FEED.into()],
        publisher_id: TENANT_ID.into(),
        login: base.parse().unwrap(),
        management: base.parse().unwrap(),
        audience: "https://manage.office.com".into(),
    }
}

/// The real pace, a thousand times faster where it waits.
pub fn pace() -> Pace {
    let millis = TimeDelta::milliseconds;
    Pace {
        poll_interval: millis(10),
        settle: millis(0),
        mark_step: millis(0),
        coverage_step: millis(50),
        backoff: millis(1),
        backoff_max: millis(5),
        retry_after_max: millis(2),
        config_retry: millis(5),
        subscriptions_interval: millis(30),
        watch_interval: millis(20),
        start_interval: millis(5),
        sweep_interval: TimeDelta::hours(1),
        warm_up: millis(0),
        gap_after: TimeDelta::hours(1),
        requests_per_minute: 1_000_000,
        lease_hold: TimeDelta::seconds(5),
        ..Pace::default()
    }
}

pub fn open(folder: &Path) -> Arc<dyn Log> {
    Arc::new(Embedded::open(&folder.join("log"), 3).unwrap())
}

/// All that is in the log.
pub struct Held {
    /// Of each partition, in order.
    pub records: Vec<Vec<Envelope>>,
    pub coverage: Vec<Coverage>,
    pub blobs: Vec<message::Blob>,
    pub dead_letters: Vec<DeadLetter>,
    pub ledger: Ledger,
}

impl Held {
    pub async fn read(log: &dyn Log) -> Held {
        let mut held = Held {
            records: Vec::new(),
            coverage: Vec::new(),
            blobs: Vec::new(),
            dead_letters: Vec::new(),
            ledger: Ledger::read(log, &"t1".parse().unwrap()).await.unwrap(),
        };
        for partition in 0..log.partitions() {
            let records = all(log, Topic::Records, partition).await;
            held.records.push(records.iter().map(|value| Envelope::decode(value).unwrap()).collect());
            for value in all(log, Topic::Coverage, partition).await {
                match serde_json::from_slice(&value).unwrap() {
                    CoverageMessage::Coverage(row) => held.coverage.push(row),
                    CoverageMessage::Blob(blob) => held.blobs.push(blob),
                }
            }
            let letters = all(log, Topic::DeadLetters, partition).await;
            held.dead_letters.extend(letters.iter().map(|value| serde_json::from_slice::<DeadLetter>(value).unwrap()));
        }
        held
    }

    /// What the ledger says of every finished blob has been told for the archive, once, and nothing of any other.
    pub fn assert_blobs_are_told(&self) {
        let of = |content_type: &str, id: &str, created, state: &BlobState| {
            let end = match state {
                BlobState::Committed { records, rejected, bytes, sha256, .. } => {
                    format!("taken {records} {rejected} {bytes} {sha256}")
                }
                BlobState::Gone { reason, .. } => format!("gone {reason}"),
                BlobState::Expired { .. } => "expired".to_owned(),
                BlobState::Listed | BlobState::Retrying(_) => return None,
            };
            Some((content_type.to_owned(), id.to_owned(), created, end))
        };
        let rows = self.ledger.blobs.iter().flat_map(|(feed, rows)| rows.iter().map(move |(id, row)| (feed, id, row)));
        let mut finished: Vec<_> = rows.filter_map(|(feed, id, row)| of(feed, id, row.created, &row.state)).collect();
        let mut told: Vec<_> = self
            .blobs
            .iter()
            .map(|blob| {
                let end = match &blob.end {
                    BlobEnd::Taken { records, rejected, bytes, sha256 } => {
                        format!("taken {records} {rejected} {bytes} {sha256}")
                    }
                    BlobEnd::Gone { reason } => format!("gone {reason}"),
                    BlobEnd::Expired => "expired".to_owned(),
                };
                (blob.content_type.clone(), blob.blob_id.clone(), blob.created, end)
            })
            .collect();
        finished.sort();
        told.sort();
        assert_eq!(told, finished);
    }

    pub fn received(&self) -> Vec<&Received> {
        let records = self.records.iter().flatten();
        records
            .filter_map(|envelope| match envelope {
                Envelope::Record(received) => Some(received),
                _ => None,
            })
            .collect()
    }

    /// The `Id` of every record of the tenant's, sorted, duplicates included. Harrier's own about its feeds are not.
    pub fn ids(&self) -> Vec<String> {
        let id = |received: &&Received| {
            serde_json::from_slice::<serde_json::Value>(&received.bytes).unwrap()["Id"].as_str().unwrap().to_owned()
        };
        let received = self.received();
        let of_tenant = received.iter().filter(|received| received.origin.source != "harrier");
        let mut ids: Vec<String> = of_tenant.map(id).collect();
        ids.sort();
        ids
    }

    pub fn marks(&self, partition: usize) -> Vec<&Mark> {
        let records = self.records[partition].iter();
        records
            .filter_map(|envelope| match envelope {
                Envelope::Mark(mark) => Some(mark),
                _ => None,
            })
            .collect()
    }

    pub fn state(&self, id: &str) -> Option<&BlobState> {
        self.ledger.blobs.get(FEED).and_then(|rows| rows.get(id)).map(|row| &row.state)
    }
}

async fn all(log: &dyn Log, topic: Topic, partition: u32) -> Vec<Vec<u8>> {
    let limit = ReadLimit { messages: usize::MAX, bytes: usize::MAX };
    let messages = log.read(topic, partition, 0, limit).await.unwrap();
    messages.into_iter().map(|message| message.value).collect()
}

/// A running poller.
pub struct Running {
    pub trigger: shutdown::Trigger,
    pub task: tokio::task::JoinHandle<Result<(), PollError>>,
    pub metrics: Arc<Metrics>,
    pub health: Health,
}

pub fn run(source: TenantSource, pace: Pace, log: &Arc<dyn Log>) -> Running {
    run_by(Clock::system(), source, pace, log)
}

pub fn run_by(clock: Clock, source: TenantSource, pace: Pace, log: &Arc<dyn Log>) -> Running {
    let poller = Poller::new(source, pace).unwrap();
    let (trigger, shutdown) = shutdown::channel();
    let (metrics, health) = (Metrics::new("test"), Health::default());
    let (log, own, problems) = (log.clone(), metrics.clone(), health.clone());
    let task = tokio::spawn(async move { poller.run(log, clock, shutdown, own, problems).await });
    Running { trigger, task, metrics, health }
}

impl Running {
    /// Waits until the log fulfils a condition. A guard ends what would never.
    pub async fn until(&self, log: &Arc<dyn Log>, is_met: impl Fn(&Held) -> bool) -> Held {
        match self.try_until(log, is_met).await {
            Ok(held) => held,
            Err(_) => panic!("not met; problems: {:?}", self.health.problems()),
        }
    }

    /// As `until`, but gives back what is held if it is never met.
    pub async fn try_until(&self, log: &Arc<dyn Log>, is_met: impl Fn(&Held) -> bool) -> Result<Held, Held> {
        let begun = std::time::Instant::now();
        while begun.elapsed() < Duration::from_secs(120) {
            let look = std::time::Instant::now();
            let held = Held::read(&**log).await;
            if is_met(&held) {
                return Ok(held);
            }
            assert!(!self.task.is_finished(), "the poller has ended");
            // Looking must not take the time that the poller needs.
            tokio::time::sleep((look.elapsed() * 3).max(Duration::from_millis(3))).await;
        }
        Err(Held::read(&**log).await)
    }

    pub async fn stop(self) {
        self.trigger.stop();
        self.task.await.unwrap().unwrap();
    }
}
