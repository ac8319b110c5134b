//! The Office 365 Management Activity API and the token endpoint before it, on a loopback port.
//!
//! Guarantee: what `reference/apis/01` says of the real service holds here, the limits of windows, the paging and the
//! error codes included. The clock starts at `Options::end` and runs with the real one; a blob is listed once its
//! moment has come and never before.

use std::collections::{BTreeMap, HashMap};
use std::future::IntoFuture;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Form, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::answers::{self, Refusal, json_response, raw_json};
use crate::assertion::Assertions;
use crate::audit_search::{self, Graph, Searched, Searches};
use crate::broken::{self, ServedClock, TokenRefusal};
use crate::dice::{Dice, fingerprint};
use crate::faults::{Fault, FaultPlan};
use crate::records::CONTENT_TYPES;
use crate::shelf::{Blob, Shelf};
use crate::tokens::{LIFETIME_SECS, Tokens};
use crate::{Broken, Error, Options, World};

/// Seven days, and the hour of grace that the real service was measured to give.
const REACH: TimeDelta = TimeDelta::hours(7 * 24 + 1);
const WINDOW: TimeDelta = TimeDelta::hours(24);

/// A running fake tenant. Dropping it stops the server; [`FakeTenant::stop`] also waits for it.
pub struct FakeTenant {
    address: SocketAddr,
    service: Arc<Service>,
    shutdown: oneshot::Sender<()>,
    server: JoinHandle<std::io::Result<()>>,
}

/// What was asked of the server so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    pub tokens: u64,
    pub listings: u64,
    /// Entries of listings; a blob listed twice counts twice.
    pub blobs_listed: u64,
    /// Blobs answered whole, again counted each time.
    pub blobs_fetched: u64,
    /// Different blobs answered whole.
    pub blobs_fetched_once: u64,
    /// Blobs there are, available or yet to come.
    pub blobs_total: u64,
    /// Records in the blobs fetched, duplicates included.
    pub records: u64,
    /// Requests refused by the rules of the API.
    pub refusals: u64,
    /// Requests spoilt on purpose.
    pub faults: u64,
}

#[derive(Default)]
struct Counters {
    listings: AtomicU64,
    blobs_listed: AtomicU64,
    blobs_fetched: AtomicU64,
    records: AtomicU64,
    refusals: AtomicU64,
    faults: AtomicU64,
}

struct Service {
    options: Options,
    world: Arc<World>,
    shelf: Shelf,
    /// Scheme, host and port of this server.
    base: String,
    started: Instant,
    tokens: Arc<Tokens>,
    searches: Arc<Searches>,
    assertions: Assertions,
    faults: FaultPlan,
    /// Content types ever subscribed to, and whether they are now.
    subscriptions: Mutex<BTreeMap<&'static str, bool>>,
    fetched: Mutex<Vec<bool>>,
    counters: Counters,
}

type Parameters = Query<Vec<(String, String)>>;

impl FakeTenant {
    /// Generates the world and serves it. Port 0 takes any free port.
    pub async fn start(options: Options, listen: SocketAddr) -> Result<FakeTenant, Error> {
        // Before the world is made, which takes a while: a reader's clock does not wait, and content must not appear
        // behind the moment up to which it has already asked.
        let started = Instant::now();
        let listener = TcpListener::bind(listen).await.map_err(|source| Error::Listen { address: listen, source })?;
        let address = listener.local_addr().map_err(|source| Error::Listen { address: listen, source })?;
        let world = World::generate(&options);
        let shelf = Shelf::pack(&world, &options);
        tracing::info!(%address, records = world.records.len(), blobs = shelf.len(), "fake tenant starts");
        let service = Arc::new(Service {
            base: format!("http://{address}"),
            started,
            tokens: Arc::new(Tokens::new(&options.client_secret)),
            searches: Arc::new(Searches::new(options.searching.clone())),
            assertions: Assertions::default(),
            faults: FaultPlan::new(options.seed, &options.faults),
            subscriptions: Mutex::new(subscribed(&options)),
            fetched: Mutex::new(vec![false; shelf.len()]),
            counters: Counters::default(),
            options,
            world: Arc::new(world),
            shelf,
        });
        let (shutdown, stopped) = oneshot::channel::<()>();
        // A dropped sender ends the wait as well, so that a forgotten server does not outlive its owner.
        let wait = async move { stopped.await.unwrap_or(()) };
        let serve = axum::serve(listener, router(Arc::clone(&service))).with_graceful_shutdown(wait);
        let server = tokio::spawn(serve.into_future());
        Ok(FakeTenant { address, service, shutdown, server })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn world(&self) -> &World {
        &self.service.world
    }

    /// What was asked of the audit search.
    pub fn searched(&self) -> Searched {
        self.service.searches.searched()
    }

    pub fn served(&self) -> Served {
        let counters = &self.service.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let fetched = self.service.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        Served {
            tokens: self.service.tokens.issued(),
            listings: read(&counters.listings),
            blobs_listed: read(&counters.blobs_listed),
            blobs_fetched: read(&counters.blobs_fetched),
            blobs_fetched_once: fetched.iter().filter(|once| **once).count() as u64,
            blobs_total: fetched.len() as u64,
            records: read(&counters.records),
            refusals: read(&counters.refusals),
            faults: read(&counters.faults),
        }
    }

    /// Answers what is under way, then ends.
    pub async fn stop(self) {
        // Neither can fail in a way that matters: the server is gone already, or it was told.
        let _ = self.shutdown.send(());
        let _ = self.server.await;
    }
}

/// None at first; those of a tenant in which somebody has disabled them are there, and disabled.
fn subscribed(options: &Options) -> BTreeMap<&'static str, bool> {
    let is_disabled = options.broken.contains(&Broken::DisabledSubscriptions);
    CONTENT_TYPES.into_iter().filter(|_| is_disabled).map(|content_type| (content_type, false)).collect()
}

fn router(service: Arc<Service>) -> Router {
    let is_apart = service.options.broken.contains(&Broken::ClockApart);
    let clock = ServedClock { end: service.options.end, started: service.started, is_apart };
    let of = Arc::clone(&service);
    let graph = Graph {
        searches: Arc::clone(&service.searches),
        world: Arc::clone(&service.world),
        tokens: Arc::clone(&service.tokens),
        now: Arc::new(move || of.now()),
        base: service.base.clone(),
        tenant_id: service.options.tenant_id.clone(),
    };
    const FEED: &str = "/api/v1.0/{tenant}/activity/feed";
    Router::new()
        .route("/{tenant}/oauth2/v2.0/token", post(token_v2))
        .route("/{tenant}/oauth2/token", post(token_v1))
        .route(&format!("{FEED}/subscriptions/list"), get(list_subscriptions))
        .route(&format!("{FEED}/subscriptions/start"), post(start_subscription))
        .route(&format!("{FEED}/subscriptions/stop"), post(stop_subscription))
        .route(&format!("{FEED}/subscriptions/content"), get(list_content))
        .route(&format!("{FEED}/audit/{{content_id}}"), get(fetch_content))
        .with_state(service)
        .merge(audit_search::router(graph))
        .layer(axum::middleware::from_fn_with_state(clock, broken::date))
}

async fn token_v1(
    State(service): State<Arc<Service>>,
    Path(tenant): Path<String>,
    Form(form): Form<HashMap<String, String>>,
) -> Response {
    let audience = form.get("resource").cloned().unwrap_or_default();
    service.token((&tenant, "oauth2/token"), &form, &audience, |token, now| {
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
    })
}

async fn token_v2(
    State(service): State<Arc<Service>>,
    Path(tenant): Path<String>,
    Form(form): Form<HashMap<String, String>>,
) -> Response {
    let scope = form.get("scope").map_or("", String::as_str);
    let audience = scope.trim_end_matches("/.default");
    service.token((&tenant, "oauth2/v2.0/token"), &form, audience, |token, _| {
        json!({
            "token_type": "Bearer",
            "expires_in": LIFETIME_SECS,
            "ext_expires_in": LIFETIME_SECS,
            "access_token": token,
        })
    })
}

async fn list_subscriptions(
    State(service): State<Arc<Service>>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
) -> Response {
    service.answer(service.enter(&tenant, &headers, "subscriptions/list").map(|()| service.list_subscriptions()))
}

async fn start_subscription(
    State(service): State<Arc<Service>>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
    Query(query): Parameters,
) -> Response {
    let entered = service.enter(&tenant, &headers, "subscriptions/start");
    service.answer(entered.and_then(|()| service.switch_subscription(&query, true)))
}

async fn stop_subscription(
    State(service): State<Arc<Service>>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
    Query(query): Parameters,
) -> Response {
    let entered = service.enter(&tenant, &headers, "subscriptions/stop");
    service.answer(entered.and_then(|()| service.switch_subscription(&query, false)))
}

async fn list_content(
    State(service): State<Arc<Service>>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
    Query(query): Parameters,
) -> Response {
    let subject = format!("content {}", parameter(&query, "contentType").unwrap_or_default());
    let entered = service.enter(&tenant, &headers, &subject);
    service.answer(entered.and_then(|()| service.list_content(&query)))
}

async fn fetch_content(
    State(service): State<Arc<Service>>,
    Path((tenant, content_id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let entered = service.enter(&tenant, &headers, &content_id);
    service.answer(entered.and_then(|()| service.fetch_content(&content_id)))
}

/// Why a request gets no answer of its own.
enum Stop {
    Refused(Refusal),
    Spoilt(Box<Response>),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Stop {
        Stop::Refused(refusal)
    }
}

impl Service {
    fn now(&self) -> DateTime<Utc> {
        self.options.end + TimeDelta::from_std(self.started.elapsed()).unwrap_or(TimeDelta::zero())
    }

    fn count(&self, counter: impl Fn(&Counters) -> &AtomicU64, by: u64) {
        counter(&self.counters).fetch_add(by, Ordering::Relaxed);
    }

    fn answer(&self, result: Result<Response, Stop>) -> Response {
        match result {
            Ok(response) => response,
            Err(Stop::Refused(refusal)) => {
                self.count(|counters| &counters.refusals, 1);
                refusal.into_response()
            }
            Err(Stop::Spoilt(response)) => {
                self.count(|counters| &counters.faults, 1);
                *response
            }
        }
    }

    fn token(
        &self,
        (tenant, endpoint): (&str, &str),
        form: &HashMap<String, String>,
        audience: &str,
        body: impl Fn(&str, DateTime<Utc>) -> Value,
    ) -> Response {
        let given = |name: &str| form.get(name).map_or("", String::as_str);
        let options = &self.options;
        let known_tenant =
            tenant.eq_ignore_ascii_case(&options.tenant_id) || tenant.eq_ignore_ascii_case(&options.domain);
        let now = self.now();
        let failure = if !known_tenant {
            Some(TokenRefusal::request("invalid_request", 90_002, "Tenant not found."))
        } else if given("grant_type") != "client_credentials" {
            Some(TokenRefusal::request("unsupported_grant_type", 70_003, "The grant type is not supported."))
        } else if given("client_id") != options.client_id {
            Some(TokenRefusal::request("unauthorized_client", 700_016, "Application not found in the directory."))
        } else if form.contains_key("client_assertion") {
            let endpoint = format!("{}/{tenant}/{endpoint}", self.base);
            self.assertions.check(form, options, &endpoint, now).err()
        } else if given("client_secret") != options.client_secret {
            Some(TokenRefusal::client(7_000_215, "Invalid client secret provided."))
        } else {
            None
        };
        let Some(refusal) = failure.or_else(|| broken::refuse_token(&options.broken)) else {
            let roles = broken::roles(&options.broken, audience);
            let token = self.tokens.issue(&options.tenant_id, &options.client_id, audience, roles, now);
            return json_response(StatusCode::OK, &body(&token, now));
        };
        self.count(|counters| &counters.refusals, 1);
        json_response(refusal.status, &refusal.body(now, &options.client_id))
    }

    /// The checks that every call passes: token, tenant, and luck.
    fn enter(&self, tenant: &str, headers: &HeaderMap, subject: &str) -> Result<(), Stop> {
        let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = authorization
            .and_then(|text| text.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .filter(|token| self.tokens.is_valid(token, self.now()))
            .ok_or(Refusal::Unauthorized)?;
        if !is_guid(tenant) {
            return Err(Refusal::TenantNotGuid.into());
        }
        if !tenant.eq_ignore_ascii_case(&self.options.tenant_id) {
            return Err(Refusal::OtherTenant.into());
        }
        if let Some(response) = broken::answer(&self.options.broken, subject, tenant) {
            return Err(Stop::Spoilt(Box::new(response)));
        }
        let response = match self.faults.draw(subject) {
            None => return Ok(()),
            Some((Fault::ExpiredToken, _)) => {
                self.tokens.revoke(token);
                Refusal::Unauthorized.into_response()
            }
            Some((Fault::Throttle, mut dice)) => answers::throttled(&mut dice),
            Some((Fault::ServerError, mut dice)) => answers::server_error(&mut dice),
            // Only content has a body worth breaking: a listing is broken off as an empty promise.
            Some((Fault::TruncatedBody, mut dice)) => {
                let whole = self
                    .available(subject, self.now())
                    .map_or_else(|| "[]".to_owned(), |(_, blob)| self.blob_body(blob));
                answers::truncated(&mut dice, whole)
            }
        };
        Err(Stop::Spoilt(Box::new(response)))
    }

    fn list_subscriptions(&self) -> Response {
        let subscriptions = self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        let list: Value = subscriptions.iter().map(|(name, enabled)| subscription(name, *enabled)).collect();
        json_response(StatusCode::OK, &list)
    }

    fn switch_subscription(&self, query: &[(String, String)], enabled: bool) -> Result<Response, Stop> {
        let content_type = content_type(query)?;
        let mut subscriptions = self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        let before = subscriptions.get(content_type).copied();
        match (before, enabled) {
            (Some(true), true) => Err(Refusal::AlreadyEnabled.into()),
            (None, false) => Err(Refusal::NoSubscription.into()),
            (_, true) => {
                subscriptions.insert(content_type, true);
                Ok(json_response(StatusCode::OK, &subscription(content_type, true)))
            }
            (Some(_), false) => {
                subscriptions.insert(content_type, false);
                Ok(StatusCode::OK.into_response())
            }
        }
    }

    fn list_content(&self, query: &[(String, String)]) -> Result<Response, Stop> {
        let content_type = content_type(query)?;
        let subscribed = {
            let subscriptions = self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
            subscriptions.get(content_type).copied().unwrap_or(false)
        };
        if !subscribed {
            return Err(Refusal::NoSubscription.into());
        }
        let now = self.now();
        let window = window(query, now)?;
        let blobs = self.shelf.window(content_type, window, now);
        let page = Page { content_type, window };
        let offset = match parameter(query, "nextPage") {
            None => 0,
            Some(token) => page.offset(token).filter(|offset| *offset < blobs.len()).ok_or(Refusal::StalePage)?,
        };
        let next = offset + self.options.delivery.page_size.max(1);
        // The last entry of a page may come again as the first of the next.
        let first = offset.saturating_sub(usize::from(self.options.delivery.duplicates && offset > 0));
        let shown = blobs.get(first..next.min(blobs.len())).unwrap_or_default();
        let entries: Value = shown.iter().map(|blob| self.entry(blob)).collect();
        self.count(|counters| &counters.listings, 1);
        self.count(|counters| &counters.blobs_listed, shown.len() as u64);
        let mut response = json_response(StatusCode::OK, &entries);
        if next < blobs.len()
            && let Ok(address) = HeaderValue::from_str(&self.next_page(&page, next))
        {
            response.headers_mut().insert("NextPageUri", address);
        }
        Ok(response)
    }

    fn entry(&self, blob: &Blob) -> Value {
        let stamp = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Millis, true);
        json!({
            "contentUri": format!("{}/api/v1.0/{}/activity/feed/audit/{}", self.base, self.options.tenant_id, blob.id),
            "contentId": blob.id,
            "contentType": blob.content_type,
            "contentCreated": stamp(blob.created),
            "contentExpiration": stamp(blob.expires()),
        })
    }

    fn next_page(&self, page: &Page, offset: usize) -> String {
        let stamp = |at: DateTime<Utc>| at.format("%Y-%m-%dT%H:%M:%S%.f").to_string();
        format!(
            "{}/api/v1.0/{}/activity/feed/subscriptions/content?contentType={}&startTime={}&endTime={}&nextPage={}",
            self.base,
            self.options.tenant_id,
            page.content_type,
            stamp(page.window.0),
            stamp(page.window.1),
            page.token(offset)
        )
    }

    fn fetch_content(&self, content_id: &str) -> Result<Response, Stop> {
        let now = self.now();
        let Some((place, blob)) = self.available(content_id, now) else {
            return Err(unknown_content(content_id, now).into());
        };
        if blob.expires() <= now {
            return Err(Refusal::ContentExpired.into());
        }
        if let Some(once) = self.fetched.lock().unwrap_or_else(PoisonError::into_inner).get_mut(place) {
            *once = true;
        }
        self.count(|counters| &counters.blobs_fetched, 1);
        self.count(|counters| &counters.records, blob.records.len() as u64);
        Ok(raw_json(StatusCode::OK, self.blob_body(blob)))
    }

    fn available(&self, content_id: &str, now: DateTime<Utc>) -> Option<(usize, &Blob)> {
        self.shelf.find(content_id).filter(|(_, blob)| blob.created <= now)
    }

    fn blob_body(&self, blob: &Blob) -> String {
        let records = blob.records.iter().filter_map(|place| self.world.records.get(*place));
        let texts: Vec<&str> = records.map(|record| record.json.as_str()).collect();
        format!("[{}]", texts.join(","))
    }
}

/// What a page belongs to. Its token is bound to that: used elsewhere it is stale.
struct Page {
    content_type: &'static str,
    window: (DateTime<Utc>, DateTime<Utc>),
}

impl Page {
    fn token(&self, offset: usize) -> String {
        format!("{offset:012}${:016x}", self.digest(offset))
    }

    fn offset(&self, token: &str) -> Option<usize> {
        let (offset, digest) = token.split_once('$')?;
        let offset = offset.parse().ok()?;
        (u64::from_str_radix(digest, 16).ok()? == self.digest(offset)).then_some(offset)
    }

    fn digest(&self, offset: usize) -> u64 {
        let (start, end) = self.window;
        let text = format!("{} {} {}", self.content_type, start.timestamp_micros(), end.timestamp_micros());
        Dice::new(fingerprint(text.as_bytes()), "page", offset as u64).next()
    }
}

fn subscription(content_type: &str, enabled: bool) -> Value {
    json!({"contentType": content_type, "status": if enabled { "enabled" } else { "disabled" }, "webhook": null})
}

/// Names of parameters are compared without regard to case: clients write them in several ways.
fn parameter<'a>(query: &'a [(String, String)], name: &str) -> Option<&'a str> {
    query.iter().find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

fn content_type(query: &[(String, String)]) -> Result<&'static str, Refusal> {
    let given = parameter(query, "contentType").ok_or(Refusal::MissingParameter("contentType"))?;
    CONTENT_TYPES.into_iter().find(|known| *known == given).ok_or(Refusal::UnknownContentType)
}

fn window(query: &[(String, String)], now: DateTime<Utc>) -> Result<(DateTime<Utc>, DateTime<Utc>), Refusal> {
    let (start, end) = match (parameter(query, "startTime"), parameter(query, "endTime")) {
        // A moment more than now, so that the default window holds what has just appeared.
        (None, None) => (now - WINDOW + TimeDelta::seconds(1), now + TimeDelta::seconds(1)),
        (Some(start), Some(end)) => (
            moment(start).ok_or(Refusal::WrongParameterType("startTime"))?,
            moment(end).ok_or(Refusal::WrongParameterType("endTime"))?,
        ),
        _ => return Err(Refusal::WindowNotAllowed),
    };
    if start >= end {
        return Err(Refusal::WindowReversed);
    }
    if end - start > WINDOW || start < now - REACH {
        return Err(Refusal::WindowNotAllowed);
    }
    Ok((start, end))
}

/// The three documented forms, and the zone suffix that clients send all the same.
fn moment(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim_end_matches('Z');
    let time = |format| NaiveDateTime::parse_from_str(text, format).ok();
    time("%Y-%m-%dT%H:%M:%S%.f")
        .or_else(|| time("%Y-%m-%dT%H:%M"))
        .or_else(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0))
        .map(|naive| naive.and_utc())
}

/// A content id that is none of ours: by its second stamp it has expired, never was, or is no id at all.
fn unknown_content(content_id: &str, now: DateTime<Utc>) -> Refusal {
    let stamp = content_id.split('$').nth(1).and_then(|stamp| stamp.get(..14));
    let created = stamp.and_then(|stamp| NaiveDateTime::parse_from_str(stamp, "%Y%m%d%H%M%S").ok());
    match created.map(|naive| naive.and_utc()) {
        None => Refusal::ContentIdInvalid,
        Some(created) if created < now - TimeDelta::days(7) => Refusal::ContentExpired,
        Some(_) => Refusal::ContentUnknown,
    }
}

fn is_guid(text: &str) -> bool {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && text.chars().all(|letter| letter == '-' || letter.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests;
