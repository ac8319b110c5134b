//! The operators' server over real connections, on a port that the system chooses.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use runtime::http::{Operators, Readiness, Server, serve};
use runtime::metrics::Metrics;
use runtime::shutdown::{self, Trigger};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

struct Fixture {
    server: Server,
    readiness: Readiness,
    metrics: Arc<Metrics>,
    trigger: Trigger,
}

async fn start() -> Fixture {
    let (trigger, shutdown) = shutdown::channel();
    let (metrics, readiness) = (Metrics::new("abc123"), Readiness::new());
    let operators = Operators { metrics: metrics.clone(), readiness: readiness.clone(), revision: "abc123" };
    let server = serve(SocketAddr::from(([127, 0, 0, 1], 0)), operators, shutdown).await.unwrap();
    Fixture { server, readiness, metrics, trigger }
}

/// Sends a request and returns all of the answer.
async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A server that refuses a request while it is still being sent resets the connection: what has come is the answer.
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8(answer).unwrap()
}

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let answer = exchange(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await;
    assert!(answer.contains("cache-control: no-store\r\n"), "{answer}");
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

#[tokio::test]
async fn alive_says_nothing_of_the_parts_and_ready_says_all() {
    let fixture = start().await;
    let address = fixture.server.address();
    assert_eq!(get(address, "/readyz").await, (503, "{\"ready\":false,\"parts\":[]}\n".into()));
    let (part, sink) = (fixture.readiness.part("log"), fixture.readiness.part("sink soc"));
    part.ready();
    sink.not_ready("401 from \"soc\"");
    assert_eq!(get(address, "/healthz").await, (200, "ok\n".into()));
    let log = r#"{"name":"log","ready":true}"#;
    let soc = r#"{"name":"sink soc","ready":false,"reason":"401 from \"soc\""}"#;
    let expected = format!("{{\"ready\":false,\"parts\":[{log},{soc}]}}\n");
    assert_eq!(get(address, "/readyz").await, (503, expected));
    sink.ready();
    assert_eq!(get(address, "/readyz").await.0, 200);
}

#[tokio::test]
async fn metrics_and_version() {
    let fixture = start().await;
    let address = fixture.server.address();
    fixture.metrics.ingest.received.with(["contoso", "import"]).add(3);
    let (status, text) = get(address, "/metrics").await;
    assert_eq!(status, 200);
    assert!(text.contains("harrier_events_received_total{source=\"import\",tenant=\"contoso\"} 3\n"), "{text}");
    let (status, text) = get(address, "/version").await;
    let version: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, version["revision"].as_str()), (200, Some("abc123")));
    assert_eq!(get(address, "/").await.0, 404);
}

#[tokio::test]
async fn it_takes_nothing_in() {
    let fixture = start().await;
    let address = fixture.server.address();
    let post = "POST /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";
    assert!(exchange(address, post).await.starts_with("HTTP/1.1 405 "));
    let large = format!("GET /healthz HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(64 * 1024));
    let answer = exchange(address, &large).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let many = format!("GET /healthz HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(65));
    assert!(exchange(address, &many).await.starts_with("HTTP/1.1 431 "));
    assert_eq!(get(address, "/healthz").await.0, 200);
}

#[tokio::test]
async fn it_ends_with_the_shutdown_and_gives_its_port_back() {
    let fixture = start().await;
    let address = fixture.server.address();
    // A connection that is kept alive, idle, does not hold up the end.
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut begun = [0; 12];
    idle.read_exact(&mut begun).await.unwrap();
    assert_eq!(&begun, b"HTTP/1.1 200");
    fixture.trigger.stop();
    tokio::time::timeout(Duration::from_secs(3), fixture.server.finished()).await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let fixture = start().await;
    let (_trigger, shutdown) = shutdown::channel();
    let operators = Operators { metrics: Metrics::new(""), readiness: Readiness::new(), revision: "" };
    let error = serve(fixture.server.address(), operators, shutdown).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot listen on {}: ", fixture.server.address())), "{error}");
}
