//! What an operator sees of a running service: alive, ready, metrics that Prometheus takes, and for each group of metrics a
//! fault that moves it.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::routing::{get, post};
use chrono::{SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};
use simulate::{Fault, Options};

use crate::binary::{Harrier, until};
use crate::sample::{forwarding_rule, sign_in};
use crate::service::{Service, Tenant, configure, executor};

const TIME_MAX: Duration = Duration::from_secs(60);

#[test]
fn a_service_is_alive_ready_and_measured() {
    let mut options = Options::new(Utc::now());
    (options.users, options.days) = (3, 1);
    options.faults = vec![Fault::ServerError];
    let tenant = Tenant::start(options.clone());
    tenant.subscribe(&options);
    let harrier = Harrier::new();
    // A port that nobody listens on any more: the sink fails.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    harrier.file("url", format!("http://{closed}/"));
    let sink = "[[sink]]\nname = \"soc\"\nkind = \"webhook\"\nurl_file = \"url\"\nallow_private_addresses = true\nmin_level = \"low\"\n";
    let config = configure(&harrier, &options, tenant.fake.address(), "1s", sink);
    let service = Service::start(&config);

    assert_eq!(service.get("/healthz").0, 200);
    let (status, version) = service.get("/version");
    assert!(status == 200 && version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    assert_eq!(service.get("/nothing").0, 404);
    let ready = until(TIME_MAX, || service.get("/readyz").0 == 200);
    assert!(ready, "{}", service.get("/readyz").1);

    let expected: [(&str, &[&str]); 18] = [
        ("harrier_api_requests_total", &["code=\"200\""]),
        ("harrier_api_requests_total", &["api=\"management\"", "code=\"50"]),
        ("harrier_auth_refreshes_total", &["result=\"ok\""]),
        ("harrier_subscription_enabled", &["tenant=\"contoso\""]),
        ("harrier_poll_last_success_timestamp_seconds", &["tenant=\"contoso\""]),
        ("harrier_content_blobs_total", &["result=\"fetched\""]),
        ("harrier_events_received_total", &["source=\"management_activity\""]),
        ("harrier_events_duplicate_total", &["tenant=\"contoso\""]),
        ("harrier_log_commits_total", &["consumer=\"match\""]),
        ("harrier_rules_loaded", &["status=\"enabled\""]),
        ("harrier_rule_matches_total", &[]),
        ("harrier_findings_total", &["level=\"high\""]),
        ("harrier_notifications_failed_total", &["sink=\"soc\"", "reason=\"network\""]),
        ("harrier_notification_queue_length", &["sink=\"soc\""]),
        ("harrier_archive_rows_total", &["dataset=\"events\""]),
        ("harrier_archive_last_commit_timestamp_seconds", &["dataset=\"events\""]),
        ("harrier_heartbeat_timestamp_seconds", &["stage=\"archive\""]),
        ("harrier_log_messages_total", &["level=\"info\""]),
    ];
    for (name, labels) in expected {
        let moved = until(TIME_MAX, || service.metric(name, labels) > 0.0);
        assert!(moved, "{name}{labels:?} does not move:\n{}\n{}", service.get("/metrics").1, service.stderr());
    }
    check_metrics(&service.get("/metrics").1);
    assert_eq!(service.terminate(), Some(0));
}

/// By Prometheus's own judge.
fn check_metrics(text: &str) {
    let judge = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut judge) = judge else {
        println!("skipped: no promtool");
        return;
    };
    judge.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = judge.wait_with_output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && complaints.trim().is_empty(), "promtool: {complaints}");
}

#[test]
fn a_source_that_refuses_is_told_and_is_not_ready() {
    let options = Options::new(Utc::now());
    let tenant = Tenant::start(Options { client_secret: "another".to_owned(), users: 2, days: 0, ..options.clone() });
    let harrier = Harrier::new();
    let config = configure(&harrier, &options, tenant.fake.address(), "1s", "");
    let service = Service::start(&config);
    let refused = until(TIME_MAX, || service.metric("harrier_auth_refreshes_total", &["result=\"failed\""]) > 0.0);
    assert!(refused, "{}", service.get("/metrics").1);
    let told = until(TIME_MAX, || {
        let (status, page) = service.get("/readyz");
        status == 503 && page.contains("contoso")
    });
    assert!(told, "{}", service.get("/readyz").1);
    assert_eq!(service.get("/healthz").0, 200, "restarting does not mend a wrong secret");
    assert!(!service.stderr().contains(&options.client_secret), "{}", service.stderr());
    assert_eq!(service.terminate(), Some(0));
}

#[test]
fn a_bad_record_in_a_blob_is_a_dead_letter_and_costs_no_other() {
    let executor = executor();
    let listener = executor.block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0))).unwrap();
    let address = listener.local_addr().unwrap();
    executor.spawn(async move { axum::serve(listener, one_blob(address)).await });
    let harrier = Harrier::new();
    let config = configure(&harrier, &Options::new(Utc::now()), address, "1s", "");
    let service = Service::start(&config);
    let archived = |dataset: &str| {
        let dataset = format!("dataset=\"{dataset}\"");
        service.metric("harrier_archive_rows_total", &[&dataset])
    };
    let all = until(TIME_MAX, || archived("events") >= 2.0 && archived("dead_letters") >= 2.0);
    assert!(all, "{}\n{}", service.get("/metrics").1, service.stderr());
    assert!(service.metric("harrier_events_rejected_total", &["reason=\"not_an_object\""]) >= 1.0);
    assert!(service.metric("harrier_events_rejected_total", &["reason=\"not_json\""]) >= 1.0);
    assert_eq!(service.terminate(), Some(0));
    let letters = harrier
        .rows("SELECT source, place, reason, arrow_cast(bytes, 'Utf8') AS bytes FROM dead_letters ORDER BY place");
    let bytes: Vec<&str> = letters.iter().map(|letter| letter["bytes"].as_str().unwrap()).collect();
    assert_eq!(bytes, ["17", "{\"Id\":}"]);
    for letter in letters {
        assert_eq!(letter["source"], "management_activity");
        assert!(letter["place"].as_str().unwrap().contains("blob-1"), "{letter}");
    }
    let listed = harrier.run(["dead-letters", "list"]);
    assert!(listed.code == Some(0) && listed.stdout.contains("blob-1"), "{listed}");
    assert_eq!(harrier.number("SELECT count(*) FROM findings WHERE status = 'open'"), 1);
}

/// The least that speaks like the API: one blob of four elements, two of which are no records.
fn one_blob(address: SocketAddr) -> Router {
    let at = Utc::now() - TimeDelta::hours(1);
    let blob = format!("[{},17,{{\"Id\":}},{}]", sign_in(1), forwarding_rule(1, at));
    let token = || async { Json(json!({"token_type": "Bearer", "expires_in": 3600, "access_token": "x.y.z"})) };
    let list = || async {
        let types = ["Audit.AzureActiveDirectory", "Audit.Exchange", "Audit.SharePoint", "Audit.General"];
        let enabled = |name| json!({"contentType": name, "status": "enabled", "webhook": null});
        Json(Value::from_iter(types.map(enabled)))
    };
    let content = move |Query(query): Query<Vec<(String, String)>>| async move {
        let of = |name: &str| query.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str());
        let stamp = |at: chrono::DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Millis, true);
        let within = |text: &str| text.trim_end_matches('Z').to_owned();
        let moment = stamp(at);
        let listed = of("contentType") == "Audit.Exchange"
            && within(of("startTime")) <= moment
            && moment < within(of("endTime"));
        let entry = json!({
            "contentUri": format!("http://{address}/api/v1.0/11111111-1111-1111-1111-111111111111/activity/feed/audit/blob-1"),
            "contentId": "blob-1",
            "contentType": "Audit.Exchange",
            "contentCreated": moment,
            "contentExpiration": stamp(at + TimeDelta::days(7)),
        });
        Json(Value::from_iter(listed.then_some(entry)))
    };
    let audit = move |Path((_, id)): Path<(String, String)>| async move {
        if id == "blob-1" { (StatusCode::OK, blob) } else { (StatusCode::NOT_FOUND, String::new()) }
    };
    Router::new()
        .route("/{tenant}/oauth2/v2.0/token", post(token))
        .route("/api/v1.0/{tenant}/activity/feed/subscriptions/list", get(list))
        .route("/api/v1.0/{tenant}/activity/feed/subscriptions/content", get(content))
        .route("/api/v1.0/{tenant}/activity/feed/audit/{id}", get(audit))
}
