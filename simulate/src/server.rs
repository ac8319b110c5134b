//! The Office 365 Management Activity API and the token endpoint before it, on a loopback port.
//!
//! The clock starts at `Options::end` and runs with the real one. What each request gets is in `service`; here it is
//! taken apart. Beside the API stand two addresses that the real service does not have: `/simulate/truth` and
//! `/simulate/records` say what can be had, for a bench in another process.

use std::collections::{BTreeMap, HashMap};
use std::future::IntoFuture;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{ConnectInfo, Form, FromRequestParts, Path, Query, State};
use axum::http::header;
use axum::http::request::Parts;
use axum::response::Response;
use axum::routing::{get, post};
use chrono::TimeDelta;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::answers::raw_json;
use crate::backlog::Templates;
use crate::counters::{Counters, Kind, Served};
use crate::dice::Dice;
use crate::faults::{Fault, FaultPlan};
use crate::line::{Connections, Lines, Scissors};
use crate::records::CONTENT_TYPES;
use crate::service::{Asked, Service, Subscription, locked, parameter};
use crate::shelf::Shelf;
use crate::tokens::{LIFETIME_SECS, Tokens};
use crate::{Error, Options, Truth, World};

/// A running fake tenant. Dropping it stops the server; [`FakeTenant::stop`] also waits for it.
pub struct FakeTenant {
    address: SocketAddr,
    service: Arc<Service>,
    shutdown: watch::Sender<bool>,
    server: JoinHandle<std::io::Result<()>>,
}

impl FakeTenant {
    /// Generates the world and serves it. Port 0 takes any free port.
    pub async fn start(mut options: Options, listen: SocketAddr) -> Result<FakeTenant, Error> {
        // Before the world is made, which takes a while: a reader's clock does not wait, and content must not appear
        // behind the moment up to which it has already asked.
        let started = Instant::now();
        let listener = TcpListener::bind(listen).await.map_err(|source| Error::Listen { address: listen, source })?;
        let address = listener.local_addr().map_err(|source| Error::Listen { address: listen, source })?;
        if options.faults.contains(&Fault::ClockOff) {
            let is_ahead = Dice::new(options.seed, "clock", 0).percent(50);
            options.end += TimeDelta::hours(if is_ahead { 1 } else { -1 });
        }
        let faults = FaultPlan::new(options.seed, &options.faults, options.always_faulty);
        let templates = options.backlog.map(|_| Arc::new(Templates::new(options.seed)));
        let (world, shelf) = match (&options.backlog, &templates) {
            (Some(backlog), Some(templates)) => (World::default(), Shelf::backlog(backlog, templates, &options)),
            _ => {
                let world = World::generate(&options);
                let shelf = Shelf::pack(&world, &options, &faults);
                (world, shelf)
            }
        };
        tracing::info!(%address, records = world.records.len(), blobs = shelf.len(), "fake tenant starts");
        let (shutdown, stopped) = watch::channel(false);
        let connections = Arc::new(Connections::default());
        let subscribed = if options.subscribed { &CONTENT_TYPES[..] } else { &[] };
        let service = Arc::new(Service {
            base: format!("http://{address}"),
            started,
            tokens: Tokens::new(&options.client_secret),
            faults,
            subscriptions: Mutex::new(subscribed.iter().map(|name| (*name, Subscription::default())).collect()),
            fetched: Mutex::new(vec![None; shelf.len()]),
            counters: Counters::default(),
            connections: Arc::clone(&connections),
            entered: AtomicU64::new(0),
            listings: Mutex::new(HashMap::new()),
            stopped: stopped.clone(),
            options,
            world,
            shelf,
            templates,
        });
        let router = router(Arc::clone(&service)).into_make_service_with_connect_info::<Scissors>();
        let serve = axum::serve(Lines { listener, connections }, router).with_graceful_shutdown(ended(stopped));
        let server = tokio::spawn(serve.into_future());
        Ok(FakeTenant { address, service, shutdown, server })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn world(&self) -> &World {
        &self.service.world
    }

    pub fn served(&self) -> Served {
        self.service.served()
    }

    /// What of the world can be had, as things stand.
    pub fn truth(&self) -> Truth {
        self.service.truth()
    }

    /// How long each blob that was fetched had been there: from when it was listed, or the server began.
    pub fn lags(&self) -> Vec<std::time::Duration> {
        locked(&self.service.fetched).iter().flatten().map(|lag| lag.to_std().unwrap_or_default()).collect()
    }

    /// Answers what is under way, then ends.
    pub async fn stop(self) {
        self.shutdown.send_replace(true);
        // It cannot fail in a way that matters: the server is gone.
        let _ = self.server.await;
    }
}

/// Returns when the end is asked for. A dropped sender ends the wait as well, so that a forgotten server does not outlive
/// its owner.
pub(crate) async fn ended(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

impl Service {
    fn served(&self) -> Served {
        let counters = &self.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let fetched = locked(&self.fetched);
        Served {
            tokens: self.tokens.issued(),
            listings: read(&counters.listings),
            blobs_listed: read(&counters.blobs_listed),
            blobs_fetched: read(&counters.blobs_fetched),
            blobs_fetched_once: fetched.iter().flatten().count() as u64,
            blobs_total: fetched.len() as u64,
            records: read(&counters.records),
            bytes: read(&counters.bytes),
            requests: Kind::ALL.iter().map(|(kind, _)| counters.requests(*kind)).sum(),
            requests_per_minute_most: counters.requests_per_minute_most(),
            connections_most: self.connections.most(),
            refusals: read(&counters.refusals),
            faults: read(&counters.faults),
        }
    }
}

fn router(service: Arc<Service>) -> Router {
    const FEED: &str = "/api/v1.0/{tenant}/activity/feed";
    Router::new()
        .route("/{tenant}/oauth2/v2.0/token", post(token_v2))
        .route("/{tenant}/oauth2/token", post(token_v1))
        .route(&format!("{FEED}/subscriptions/list"), get(list_subscriptions))
        .route(&format!("{FEED}/subscriptions/start"), post(start_subscription))
        .route(&format!("{FEED}/subscriptions/stop"), post(stop_subscription))
        .route(&format!("{FEED}/subscriptions/content"), get(list_content))
        .route(&format!("{FEED}/audit/{{content_id}}"), get(fetch_content))
        .route("/simulate/truth", get(truth))
        .route("/simulate/records", get(records))
        .with_state(service)
}

/// The parts that every request has; what it is for is said by who takes it.
struct Incoming(Asked);

impl<S: Send + Sync> FromRequestParts<S> for Incoming {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Incoming, Response> {
        let bad = |what: &str| raw_json(axum::http::StatusCode::BAD_REQUEST, format!("{{\"bad\":\"{what}\"}}"));
        let Path(mut path) =
            Path::<BTreeMap<String, String>>::from_request_parts(parts, state).await.map_err(|_| bad("path"))?;
        let Query(query) = Query::from_request_parts(parts, state).await.map_err(|_| bad("query"))?;
        let ConnectInfo(scissors) =
            ConnectInfo::<Scissors>::from_request_parts(parts, state).await.map_err(|_| bad("connection"))?;
        let authorization = parts.headers.get(header::AUTHORIZATION);
        Ok(Incoming(Asked {
            kind: Kind::Token,
            tenant: path.remove("tenant").unwrap_or_default(),
            authorization: authorization.and_then(|value| value.to_str().ok()).map(str::to_owned),
            query,
            content_id: path.remove("content_id").unwrap_or_default(),
            scissors,
        }))
    }
}

impl Incoming {
    fn to(self, kind: Kind) -> Asked {
        Asked { kind, ..self.0 }
    }
}

type Shared = State<Arc<Service>>;

async fn token_v1(State(service): Shared, asked: Incoming, Form(form): Form<HashMap<String, String>>) -> Response {
    let audience = form.get("resource").cloned().unwrap_or_default();
    let body = |token: &str, now: chrono::DateTime<chrono::Utc>| {
        // The older endpoint writes its numbers as strings.
        json!({
            "token_type": "Bearer",
            "expires_in": LIFETIME_SECS.to_string(),
            "ext_expires_in": LIFETIME_SECS.to_string(),
            "expires_on": (now.timestamp() + LIFETIME_SECS).to_string(),
            "not_before": now.timestamp().to_string(),
            "resource": audience,
            "access_token": token,
        })
    };
    service.token(asked.to(Kind::Token), &form, &audience, body).await
}

async fn token_v2(State(service): Shared, asked: Incoming, Form(form): Form<HashMap<String, String>>) -> Response {
    let scope = form.get("scope").map_or("", String::as_str);
    let audience = scope.trim_end_matches("/.default");
    let body = |token: &str, _| {
        json!({
            "token_type": "Bearer",
            "expires_in": LIFETIME_SECS,
            "ext_expires_in": LIFETIME_SECS,
            "access_token": token,
        })
    };
    service.token(asked.to(Kind::Token), &form, audience, body).await
}

async fn list_subscriptions(State(service): Shared, asked: Incoming) -> Response {
    service.answer(asked.to(Kind::Subscriptions), |service, _| service.list_subscriptions()).await
}

async fn start_subscription(State(service): Shared, asked: Incoming) -> Response {
    service.answer(asked.to(Kind::Start), Service::start_subscription).await
}

async fn stop_subscription(State(service): Shared, asked: Incoming) -> Response {
    service.answer(asked.to(Kind::Stop), Service::stop_subscription).await
}

async fn list_content(State(service): Shared, asked: Incoming) -> Response {
    let is_first = parameter(&asked.0.query, "nextPage").is_none();
    service.answer(asked.to(if is_first { Kind::List } else { Kind::NextPage }), Service::list_content).await
}

async fn fetch_content(State(service): Shared, asked: Incoming) -> Response {
    service.answer(asked.to(Kind::Blob), Service::fetch_content).await
}

async fn truth(State(service): Shared) -> Response {
    let truth = service.truth();
    let lost = |blob: &crate::LostBlob| json!({"id": blob.id, "content_type": blob.content_type, "created": blob.created.to_rfc3339(), "reason": blob.reason});
    let served = service.served();
    let requests: BTreeMap<&str, u64> =
        Kind::ALL.iter().map(|(kind, name)| (*name, service.counters.requests(*kind))).collect();
    let body = json!({
        "blobs": truth.blobs,
        "records": truth.record_count,
        "unrecoverable_records": truth.unrecoverable,
        "unrecoverable_blobs": truth.lost_blobs.iter().map(lost).collect::<Vec<_>>(),
        "malformed_elements": truth.malformed,
        "requests": requests,
        "requests_per_minute_most": served.requests_per_minute_most,
        "connections_most": served.connections_most,
        "faults": served.faults,
        "refusals": served.refusals,
        "served": {
            "blobs": served.blobs_fetched,
            "blobs_once": served.blobs_fetched_once,
            "blobs_listed": served.blobs_listed,
            "records": served.records,
            "bytes": served.bytes,
        },
    });
    crate::answers::json_response(axum::http::StatusCode::OK, &body)
}

/// The ids of all records that can be had, one a line.
async fn records(State(service): Shared) -> String {
    service.truth().records.iter().map(|id| format!("{id}\n")).collect()
}

#[cfg(test)]
mod tests;
