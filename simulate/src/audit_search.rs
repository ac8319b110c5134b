//! The audit search of Microsoft Graph: begun, waited for, read page by page; with its limit, and with what it does to
//! records on the way.
//!
//! Every record of the world that lies in a search's stretch is found, however old. A search that finds more than the
//! limit succeeds all the same, returns as many as the limit, and says so only in a flag.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::World;
use crate::answers::json_response;
use crate::dice::fingerprint;
use crate::tokens::Tokens;

/// How a tenant's search behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Searching {
    /// Records that one search returns at most.
    pub records_max: usize,
    /// Records on a page, whatever is asked for.
    pub page_size: usize,
    /// How often a search is looked at before it has ended.
    pub looks: u32,
    /// Every so many requests are answered 429, others 503; none where it is zero.
    pub trouble_every: u32,
}

impl Default for Searching {
    fn default() -> Searching {
        Searching { records_max: 1_000_000, page_size: 150, looks: 2, trouble_every: 0 }
    }
}

/// What was asked of the search so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Searched {
    pub searches: u64,
    pub pages: u64,
    pub over_limit: u64,
    pub trouble: u64,
}

struct Begun {
    from: DateTime<Utc>,
    until: DateTime<Utc>,
    looks: u32,
}

/// The searches of a tenant.
pub(crate) struct Searches {
    pub(crate) options: Searching,
    begun: Mutex<HashMap<String, Begun>>,
    searched: Mutex<Searched>,
    requests: Mutex<u32>,
}

impl Searches {
    pub(crate) fn new(options: Searching) -> Searches {
        Searches { options, begun: Mutex::default(), searched: Mutex::default(), requests: Mutex::default() }
    }

    pub(crate) fn searched(&self) -> Searched {
        *self.count()
    }

    fn count(&self) -> std::sync::MutexGuard<'_, Searched> {
        self.searched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begun(&self) -> std::sync::MutexGuard<'_, HashMap<String, Begun>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Trouble that comes and goes.
    fn trouble(&self) -> Option<Response> {
        let every = self.options.trouble_every;
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests += 1;
        if every == 0 || !requests.is_multiple_of(every) {
            return None;
        }
        self.count().trouble += 1;
        let is_throttled = (*requests / every).is_multiple_of(2);
        let status = if is_throttled { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::SERVICE_UNAVAILABLE };
        Some(refusal(status, "TooManyRequests"))
    }
}

/// What the search needs of its tenant.
#[derive(Clone)]
pub(crate) struct Graph {
    pub(crate) searches: Arc<Searches>,
    pub(crate) world: Arc<World>,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) now: Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>,
    pub(crate) base: String,
    pub(crate) tenant_id: String,
}

pub(crate) fn router(graph: Graph) -> Router {
    Router::new()
        .route("/v1.0/security/auditLog/queries", post(begin))
        .route("/v1.0/security/auditLog/queries/{id}", get(look))
        .route("/v1.0/security/auditLog/queries/{id}/records", get(page))
        .with_state(graph)
}

fn refusal(status: StatusCode, code: &str) -> Response {
    json_response(status, &json!({"error": {"code": code, "message": "simulated"}}))
}

impl Graph {
    /// A token of ours, made for Graph, with the permission.
    fn enter(&self, headers: &HeaderMap) -> Result<(), Box<Response>> {
        let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let token = token.filter(|token| self.tokens.is_valid(token, (self.now)()));
        let claims = token.and_then(Tokens::claims);
        let Some(claims) = claims.filter(|claims| claims["aud"].as_str().is_some_and(|aud| aud.contains("graph")))
        else {
            return Err(Box::new(refusal(StatusCode::UNAUTHORIZED, "InvalidAuthenticationToken")));
        };
        let roles = claims["roles"].as_array().cloned().unwrap_or_default();
        if !roles.iter().any(|role| role.as_str().is_some_and(|role| role.starts_with("AuditLogsQuery"))) {
            return Err(Box::new(refusal(StatusCode::FORBIDDEN, "Forbidden")));
        }
        self.searches.trouble().map_or(Ok(()), |response| Err(Box::new(response)))
    }

    fn found(&self, begun: &Begun) -> Vec<&crate::Record> {
        let within = |record: &&crate::Record| record.created >= begun.from && record.created < begun.until;
        self.world.records.iter().filter(within).collect()
    }

    fn standing(&self, id: &str, begun: &Begun) -> Value {
        let found = self.found(begun).len();
        let has_ended = begun.looks >= self.searches.options.looks;
        json!({
            "@odata.type": "#microsoft.graph.security.auditLogQuery",
            "id": id,
            "filterStartDateTime": begun.from,
            "filterEndDateTime": begun.until,
            "status": match begun.looks { 0 => "notStarted", _ if has_ended => "succeeded", _ => "running" },
            "isRecordCountLimitExceeded": has_ended && found > self.searches.options.records_max,
        })
    }

    /// A record as the search shows it: an envelope, and Graph's annotations within.
    fn entry(&self, record: &crate::Record) -> String {
        let parsed: Value = serde_json::from_str(&record.json).unwrap_or_default();
        // Some come as they are, some annotated; no other spelling is known.
        let data = match fingerprint(record.id.as_bytes()) % 2 {
            0 => record.json.clone(),
            _ => format!("{{\"@odata.type\":\"#microsoft.graph.security.defaultAuditData\",{}", &record.json[1..]),
        };
        let mut entry = json!({
            "id": record.id,
            "createdDateTime": record.created,
            "operation": parsed["Operation"],
            "organizationId": self.tenant_id,
            "service": parsed["Workload"],
            "auditData": null,
        })
        .to_string();
        entry.truncate(entry.len() - "null}".len());
        format!("{entry}{data}}}")
    }
}

async fn begin(State(graph): State<Graph>, headers: HeaderMap, body: String) -> Response {
    if let Err(response) = graph.enter(&headers) {
        return *response;
    }
    let body: Value = serde_json::from_str(&body).unwrap_or_default();
    let time = |name: &str| body[name].as_str().and_then(|text| text.parse::<DateTime<Utc>>().ok());
    let (Some(from), Some(until)) = (time("filterStartDateTime"), time("filterEndDateTime")) else {
        return refusal(StatusCode::BAD_REQUEST, "BadRequest");
    };
    let mut begun = graph.searches.begun();
    let id = format!("{:08x}-0000-0000-0000-000000000000", begun.len());
    let search = Begun { from, until, looks: 0 };
    let answer = graph.standing(&id, &search);
    begun.insert(id, search);
    graph.searches.count().searches += 1;
    json_response(StatusCode::CREATED, &answer)
}

async fn look(State(graph): State<Graph>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    if let Err(response) = graph.enter(&headers) {
        return *response;
    }
    let mut begun = graph.searches.begun();
    let Some(search) = begun.get_mut(&id) else { return refusal(StatusCode::NOT_FOUND, "NotFound") };
    search.looks += 1;
    let answer = graph.standing(&id, search);
    if answer["isRecordCountLimitExceeded"] == true {
        graph.searches.count().over_limit += 1;
    }
    json_response(StatusCode::OK, &answer)
}

async fn page(
    State(graph): State<Graph>,
    Path(id): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    if let Err(response) = graph.enter(&headers) {
        return *response;
    }
    let begun = graph.searches.begun();
    let Some(search) = begun.get(&id) else { return refusal(StatusCode::NOT_FOUND, "NotFound") };
    let options = &graph.searches.options;
    let mut found = graph.found(search);
    found.truncate(options.records_max);
    let skipped = query.get("$skiptoken").and_then(|text| text.parse().ok()).unwrap_or(0_usize);
    let entries: Vec<String> =
        found.iter().skip(skipped).take(options.page_size).map(|record| graph.entry(record)).collect();
    let shown = skipped + entries.len();
    let mut body = format!("{{\"value\":[{}]", entries.join(","));
    if shown < found.len() {
        let link = format!("{}/v1.0/security/auditLog/queries/{id}/records?$skiptoken={shown}", graph.base);
        body.push_str(&format!(",\"@odata.nextLink\":{}", Value::from(link)));
    }
    body.push('}');
    graph.searches.count().pages += 1;
    crate::answers::raw_json(StatusCode::OK, body).into_response()
}
