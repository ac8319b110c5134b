//! Findings on their way to a webhook: signed, tried again, each with an id of its own; and an import that alerts nobody
//! unless it is told to.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{TimeDelta, Utc};
use hmac::{Hmac, Mac};
use serde_json::Value;
use sha2::Sha256;

use crate::binary::{Harrier, until};
use crate::sample::{forwarding_rule, joined};
use crate::service::{Service, executor};

/// 32 bytes.
const KEY: &[u8] = b"a key of this test and no other!";

/// How long deliveries may take: the first is refused and tried again after about five seconds.
const DELIVERY_TIME_MAX: Duration = Duration::from_secs(60);

/// One request that came.
#[derive(Clone)]
struct Came {
    id: String,
    accepted: bool,
    body: Value,
}

#[derive(Clone, Default)]
struct Letterbox(Arc<Mutex<Vec<Came>>>);

/// A receiver that refuses the first request and checks the signature of each.
struct Receiver {
    address: SocketAddr,
    came: Letterbox,
    _executor: tokio::runtime::Runtime,
}

impl Receiver {
    fn start() -> Receiver {
        let executor = executor();
        let came = Letterbox::default();
        let router = Router::new().route("/hook/secret-part", post(receive)).with_state(came.clone());
        let listener = executor.block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0))).unwrap();
        let address = listener.local_addr().unwrap();
        executor.spawn(async move { axum::serve(listener, router).await });
        Receiver { address, came, _executor: executor }
    }

    fn came(&self) -> Vec<Came> {
        self.came.0.lock().unwrap().clone()
    }

    fn accepted(&self) -> Vec<Came> {
        self.came().into_iter().filter(|came| came.accepted).collect()
    }
}

async fn receive(State(came): State<Letterbox>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY).unwrap();
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(&body);
    let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    let signed = header("webhook-signature").split(' ').any(|signature| signature == expected);
    let fresh = timestamp.parse::<i64>().is_ok_and(|at| (Utc::now().timestamp() - at).abs() < 300);
    let mut came = came.0.lock().unwrap();
    let accepted = signed && fresh && !came.is_empty();
    came.push(Came { id, accepted, body: serde_json::from_slice(&body).unwrap_or_default() });
    match (signed && fresh, accepted) {
        (false, _) => StatusCode::UNAUTHORIZED,
        (true, false) => StatusCode::SERVICE_UNAVAILABLE,
        (true, true) => StatusCode::NO_CONTENT,
    }
}

fn configure(harrier: &Harrier, receiver: &Receiver) -> PathBuf {
    harrier.file("url", format!("http://{}/hook/secret-part\n", receiver.address));
    harrier.file("signing-secret", format!("whsec_{}\n", STANDARD.encode(KEY)));
    harrier.file(
        "harrier.toml",
        r#"data_dir = "data"

[archive]
flush_interval = "1s"

[http]
listen = "127.0.0.1:0"

[[tenant]]
name = "contoso"
domains = ["contoso.example"]

[[sink]]
name = "soc"
kind = "webhook"
url_file = "url"
signing_secret_file = "signing-secret"
allow_private_addresses = true
min_level = "low"
"#,
    )
}

/// Records of an hour ago: findings that are old arrive as a digest.
fn fresh_rules(numbers: std::ops::Range<u32>) -> String {
    let at = Utc::now() - TimeDelta::hours(1);
    joined(&numbers.map(|number| forwarding_rule(number, at)).collect::<Vec<_>>())
}

fn import(harrier: &Harrier, config: &std::path::Path, records: &str, more: &[&str]) {
    let file = harrier.file("records.jsonl", records);
    let mut more = more.to_vec();
    more.extend(["--config", config.to_str().unwrap()]);
    harrier.import(&[file], &more);
}

#[test]
fn a_webhook_is_signed_tried_again_and_each_finding_has_its_own_id() {
    let (harrier, receiver) = (Harrier::new(), Receiver::start());
    let config = configure(&harrier, &receiver);
    import(&harrier, &config, &fresh_rules(1..4), &["--notify"]);
    let standing = harrier.standing();
    assert_eq!(standing.len(), 3);
    assert!(receiver.came().is_empty(), "an import leaves delivery to the service");

    let service = Service::start(&config);
    let all = until(DELIVERY_TIME_MAX, || receiver.accepted().len() >= standing.len());
    assert!(all, "{} of {} were delivered:\n{}", receiver.accepted().len(), standing.len(), service.stderr());
    assert!(service.metric("harrier_notifications_failed_total", &["sink=\"soc\"", "reason=\"server\""]) >= 1.0);
    assert!(service.metric("harrier_notifications_total", &["sink=\"soc\""]) >= 3.0);
    let stderr = service.stderr();
    assert_eq!(service.terminate(), Some(0), "{stderr}");
    assert!(!stderr.contains("secret-part"), "the address is a secret:\n{stderr}");

    let (came, accepted) = (receiver.came(), receiver.accepted());
    assert_eq!(came.len(), accepted.len() + 1, "one was refused, and came again");
    let again: Vec<_> = accepted.iter().filter(|accepted| accepted.id == came[0].id).collect();
    assert_eq!(again.len(), 1, "under the same webhook-id");
    assert_eq!(again[0].body, came[0].body, "with the same body");
    let ids: BTreeSet<&str> = accepted.iter().map(|came| came.id.as_str()).collect();
    assert_eq!(ids.len(), accepted.len());
    for came in &accepted {
        let data = &came.body["data"];
        let finding = &standing[data["id"].as_str().unwrap()];
        assert_eq!(came.body["type"], "finding.created");
        assert_eq!(data["schema"], "harrier.finding/1");
        assert_eq!(data["tenant"], "contoso");
        for (in_body, in_archive) in [
            (&data["rule"]["id"], &finding["rule_id"]),
            (&data["rule"]["title"], &finding["title"]),
            (&data["rule"]["level"], &finding["level"]),
            (&data["reason"], &finding["reason"]),
            (&data["event_count"], &finding["event_count"]),
        ] {
            assert_eq!(in_body, in_archive);
        }
        for field in ["revision", "status", "window", "entities", "evidence", "dedup_key", "next", "answers"] {
            assert!(!data[field].is_null(), "{field} in {data:#}");
        }
    }
    // A service that is started again has told everything already.
    let service = Service::start(&config);
    let told = receiver.came().len();
    assert!(until(DELIVERY_TIME_MAX, || service.get("/readyz").0 == 200), "{}", service.get("/readyz").1);
    assert_eq!(service.terminate(), Some(0));
    assert_eq!(receiver.came().len(), told);
}

#[test]
fn an_import_alerts_nobody_unless_it_is_told_to() {
    let (harrier, receiver) = (Harrier::new(), Receiver::start());
    let config = configure(&harrier, &receiver);
    import(&harrier, &config, &fresh_rules(1..4), &[]);
    assert_eq!(harrier.standing().len(), 3);
    import(&harrier, &config, &fresh_rules(4..5), &["--notify"]);
    assert_eq!(harrier.standing().len(), 4);
    let service = Service::start(&config);
    assert!(until(DELIVERY_TIME_MAX, || !receiver.accepted().is_empty()), "{}", service.stderr());
    assert_eq!(service.terminate(), Some(0));
    let told: BTreeSet<String> = receiver.came().iter().map(|came| came.body["data"]["reason"].to_string()).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told.first().unwrap().contains("user4@contoso.example"), "{told:?}");
}
