//! The heads of the archive, told once a day to a webhook: with them an archive that was brought back to an older state is
//! told from one that is whole.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use chrono::{TimeDelta, Utc};
use serde_json::Value;

use crate::binary::{Harrier, until};
use crate::sample::{forwarding_rule, joined};
use crate::service::{Service, executor};

/// How long deliveries may take: the first is refused, and tried again after about five seconds.
const DELIVERY_TIME_MAX: Duration = Duration::from_secs(60);

#[derive(Clone, Default)]
struct Letterbox(Arc<Mutex<Vec<Value>>>);

/// A receiver that cannot take the first message.
struct Receiver {
    address: SocketAddr,
    came: Letterbox,
    _executor: tokio::runtime::Runtime,
}

impl Receiver {
    fn start() -> Receiver {
        let executor = executor();
        let came = Letterbox::default();
        let router = Router::new().route("/", post(receive)).with_state(came.clone());
        let listener = executor.block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0))).unwrap();
        let address = listener.local_addr().unwrap();
        executor.spawn(async move { axum::serve(listener, router).await });
        Receiver { address, came, _executor: executor }
    }

    /// The messages of heads that came, the one that was refused among them.
    fn came(&self) -> Vec<Value> {
        let came = self.came.0.lock().unwrap();
        came.iter().filter(|body| body["type"] == "archive.heads").cloned().collect()
    }
}

async fn receive(State(came): State<Letterbox>, body: axum::body::Bytes) -> StatusCode {
    let mut came = came.0.lock().unwrap();
    came.push(serde_json::from_slice(&body).unwrap_or_default());
    if came.len() == 1 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::NO_CONTENT }
}

fn configure(harrier: &Harrier, receiver: &Receiver) -> PathBuf {
    harrier.file("url", format!("http://{}/\n", receiver.address));
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
name = "vault"
kind = "webhook"
url_file = "url"
allow_private_addresses = true
archive_heads = true

[[sink]]
name = "shelf"
kind = "file"
path = "shelf.ndjson"
archive_heads = true

[[sink]]
name = "soc"
kind = "file"
path = "soc.ndjson"
"#,
    )
}

fn import(harrier: &Harrier, numbers: std::ops::Range<u32>) {
    let at = Utc::now() - TimeDelta::hours(1);
    let records: Vec<_> = numbers.map(|number| forwarding_rule(number, at)).collect();
    let file = harrier.file("records.jsonl", joined(&records));
    harrier.import(&[file], &[]);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &to) } else { _ = std::fs::copy(&path, to).unwrap() }
    }
}

#[test]
fn the_heads_of_a_day_arrive_once_and_name_an_archive_that_was_brought_back() {
    let (harrier, receiver) = (Harrier::new(), Receiver::start());
    let config = configure(&harrier, &receiver);
    import(&harrier, 1..3);
    let archive = harrier.data_dir().join("archive");
    copy(&archive, &harrier.path("older"));
    import(&harrier, 3..5);

    let service = Service::start(&config);
    let arrived = until(DELIVERY_TIME_MAX, || receiver.came().len() >= 2);
    assert!(arrived, "{}", service.stderr());
    assert_eq!(service.terminate(), Some(0));
    // The day is told already, whoever starts again; a message of the log says when the new one has been read.
    let service = Service::start(&config);
    let lag = || service.metric("harrier_log_consumer_lag", &["topic=\"findings\"", "consumer=\"notify\""]);
    assert!(until(DELIVERY_TIME_MAX, || service.get("/readyz").0 == 200 && lag() == 0.0), "{}", service.stderr());
    assert_eq!(service.terminate(), Some(0));
    let came = receiver.came();
    // Where the day ends between the two starts there is one for each.
    let today: Vec<&Value> = came.iter().filter(|body| body["data"]["day"] == came[0]["data"]["day"]).collect();
    assert_eq!(today.len(), 2, "one was refused and came again: {came:#?}");
    assert_eq!(today[0], today[1]);

    let data = &came[0]["data"];
    assert_eq!(data["schema"], "harrier.archive_heads/1");
    assert!(data["public_key"].as_str().unwrap().starts_with("sha256:"), "{data}");
    let of =
        |table: &str| data["heads"].as_array().unwrap().iter().find(|head| head["table"] == table).unwrap().clone();
    let events = of("events");
    assert_eq!(events["commits"].as_u64(), events["version"].as_u64().map(|version| version + 1));
    assert!(!of("findings")["head"].as_str().unwrap().is_empty());
    let shelf = std::fs::read_to_string(harrier.path("shelf.ndjson")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(shelf.lines().next().unwrap()).unwrap()["data"]["heads"], data["heads"]);
    assert!(!harrier.path("soc.ndjson").exists(), "a sink that does not ask is told nothing");

    // As the receiver has it: pasted, or the whole message in a file.
    let hash = events["head"].as_str().unwrap();
    let message = harrier.file("message.json", serde_json::to_string_pretty(&came[0]).unwrap());
    let files = [message, harrier.path("shelf.ndjson")].map(|file| format!("@{}", file.display()));
    for head in [hash, &files[0], &files[1]] {
        let ran = harrier.run(["archive", "verify", "--head", head]);
        assert!(ran.code == Some(0) && ran.stdout.contains("freshness proven up to version"), "{head}: {ran}");
    }

    std::fs::rename(&archive, harrier.path("newer")).unwrap();
    std::fs::rename(harrier.path("older"), &archive).unwrap();
    let ran = harrier.run(["archive", "verify"]);
    assert!(ran.code == Some(0) && ran.stdout.contains("freshness not proven"), "nothing inside can tell: {ran}");
    for head in [hash, &files[0], &files[1]] {
        let ran = harrier.run(["archive", "verify", "--head", head]);
        let named = format!("the head {hash} is not in the archive: it was brought back to an older state");
        assert!(ran.code == Some(1) && ran.stdout.contains(&named), "{head}: {ran}");
    }
    let empty = harrier.file("empty", "nothing\n");
    let ran = harrier.run(["archive", "verify", "--head", &format!("@{}", empty.display())]);
    assert!(ran.code == Some(1) && ran.stderr.contains("there are no heads in"), "{ran}");
}
