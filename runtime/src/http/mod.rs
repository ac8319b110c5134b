//! The operators' server: is harrier alive, is it ready, how is it doing, which one is it.
//!
//! | path | answers | looks at |
//! |---|---|---|
//! | `/healthz` | 200 | nothing: a process that can answer is alive, and restarting it does not repair Microsoft |
//! | `/readyz` | 200 or 503, with every part and its reason | what each service has said of itself |
//! | `/metrics` | text format 0.0.4 | the metrics |
//! | `/version` | version and revision | nothing |
//!
//! It has no password, so it listens on loopback unless it is told otherwise, and it takes nothing in: requests have no
//! body worth reading, headers are bounded, and a client that is slow, or one of too many, loses its connection rather
//! than a service its memory. The console is another server on another address.

mod readiness;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

pub use self::readiness::{Part, PartState, Readiness};
use crate::metrics::{self, Metrics};
use crate::shutdown::Shutdown;

/// Connections served at a time. A Prometheus, a probe and a few people need a handful.
const CONNECTIONS_MAX: usize = 64;

/// Largest head of a request, and most headers in it.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;

/// How long a client may take for the head of a request, or leave its connection idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection may last in all. A Prometheus that scrapes over one connection opens another now and then.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(600);

/// How long answers that have begun may take once the end is asked for.
const GRACE: Duration = Duration::from_secs(5);

/// How long to wait after an accept that failed, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What the server shows.
#[derive(Clone, Debug)]
pub struct Operators {
    pub metrics: Arc<Metrics>,
    pub readiness: Readiness,
    /// The revision that harrier was built from.
    pub revision: &'static str,
}

/// The server could not be started. The operator's to mend: an address that is taken or not this machine's.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct HttpError {
    pub address: SocketAddr,
    pub source: std::io::Error,
}

/// The running server.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    /// Where it listens: the port that was found, if port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns when the server has ended, a few seconds after the shutdown at the latest.
    pub async fn finished(self) {
        // An error is a panic of the server, which has been reported where it happened.
        let _ = self.task.await;
    }
}

/// Starts the server; it runs until the shutdown.
pub async fn serve(listen: SocketAddr, operators: Operators, shutdown: Shutdown) -> Result<Server, HttpError> {
    let failed = |source| HttpError { address: listen, source };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    tracing::info!(%address, "listening for operators");
    let task = tokio::spawn(accept(listener, router(operators), shutdown));
    Ok(Server { address, task })
}

async fn accept(listener: TcpListener, router: Router, shutdown: Shutdown) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = GracefulShutdown::new();
    // Dropped at the end of this function, and with it what is left of the connections.
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let next = async {
            // Further clients wait in the kernel's queue, which is bounded too. The semaphore is never closed.
            let permit = room.clone().acquire_owned().await.ok();
            (listener.accept().await, permit)
        };
        let Some((accepted, permit)) = shutdown.unless(next).await else { break };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "an operator's connection could not be accepted");
                shutdown.sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let connection = connection(stream, router.clone(), &connections);
        tasks.spawn(async move {
            // A client that goes away or stalls is its own affair.
            let _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await;
            drop(permit);
        });
    }
    if tokio::time::timeout(GRACE, connections.shutdown()).await.is_err() {
        tracing::debug!("operators' connections were cut after the grace period");
    }
}

fn connection(
    stream: TcpStream,
    router: Router,
    connections: &GracefulShutdown,
) -> impl Future<Output = Result<(), hyper::Error>> + use<> {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    connections.watch(connection)
}

fn router(operators: Operators) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/version", get(version))
        .layer(map_response(guarded))
        .with_state(operators)
}

/// What a browser that strays here must not do with an answer.
async fn guarded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn ready(State(operators): State<Operators>) -> Response {
    let parts = operators.readiness.parts();
    let ready = Readiness::all_ready(&parts);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, &serde_json::json!({ "ready": ready, "parts": parts }))
}

async fn metrics(State(operators): State<Operators>) -> Response {
    match operators.metrics.text() {
        Ok(text) => ([(CONTENT_TYPE, HeaderValue::from_static(metrics::TEXT_FORMAT))], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be shown");
            (StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written\n").into_response()
        }
    }
}

async fn version(State(operators): State<Operators>) -> Response {
    let version = serde_json::json!({ "version": env!("CARGO_PKG_VERSION"), "revision": operators.revision });
    json(StatusCode::OK, &version)
}

fn json(status: StatusCode, value: &serde_json::Value) -> Response {
    let mut text = value.to_string();
    text.push('\n');
    (status, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))], text).into_response()
}
