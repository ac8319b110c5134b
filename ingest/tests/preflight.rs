//! What `harrier check` says of tenants that are broken in different ways, each driven against a fake tenant that is
//! broken so. The screens are in `preflight/*.txt`; `UPDATE_GOLDEN=1 cargo test -p ingest --test preflight` writes them
//! anew.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::{env, fs};

use chrono::{DateTime, Utc};
use ingest::identity::Credential;
use ingest::preflight::{Subject, Verdict, check};
use ingest::source::management_activity::TenantSource;
use runtime::config::{Cloud, Credential as Files, Secret, SecretFile, SigningAlgorithm};
use simulate::{Broken, FakeTenant, Options, Scenario};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/identity").join(name)
}

fn now() -> DateTime<Utc> {
    "2026-11-22T10:00:00Z".parse().unwrap()
}

fn options() -> Options {
    let certificate = fs::read_to_string(file("certificate.pem")).unwrap();
    let story = Scenario::Quiet;
    Options { users: 2, days: 1, story, certificate: Some(certificate), ..Options::new(now()) }
}

fn certificate(name: &str, key: &str) -> Credential {
    let path = |name: &str| SecretFile::Path(file(name));
    let algorithm = SigningAlgorithm::Ps256;
    Credential::Files(Files::Certificate { certificate: path(name), key: Some(path(key)), algorithm })
}

/// A tenant, what is configured for it, and what its screen must end in.
struct Case {
    name: &'static str,
    worst: Verdict,
    options: Options,
    change: Box<dyn Fn(&mut Subject)>,
    /// Whether the subscriptions are started before.
    subscribed: bool,
}

fn case(name: &'static str, worst: Verdict, change: impl Fn(&mut Subject) + 'static) -> Case {
    Case { name, worst, options: options(), change: Box::new(change), subscribed: true }
}

fn broken(name: &'static str, worst: Verdict, broken: Broken) -> Case {
    let options = Options { broken: vec![broken], ..options() };
    Case { name, worst, options, change: Box::new(|_| {}), subscribed: broken == Broken::ClockApart }
}

fn cases() -> Vec<Case> {
    let other = "99999999-9999-9999-9999-999999999999";
    vec![
        case("well", Verdict::Ok, |_| {}),
        Case { subscribed: false, ..case("never-started", Verdict::Ok, |_| {}) },
        case("wrong-secret", Verdict::Fail, |subject| {
            subject.source.credential = Credential::Fixed(Secret::new("hunter2"));
            subject.credential_file = "/etc/harrier/contoso secret".into();
        }),
        broken("expired-secret", Verdict::Fail, Broken::ExpiredSecret),
        case("unknown-tenant", Verdict::Fail, move |subject| subject.source.tenant_id = other.into()),
        case("unknown-application", Verdict::Fail, move |subject| subject.source.client_id = other.into()),
        broken("disabled-application", Verdict::Fail, Broken::DisabledApplication),
        broken("conditional-access", Verdict::Fail, Broken::ConditionalAccess),
        broken("no-consent", Verdict::Fail, Broken::NoConsent),
        case("permission-for-dlp-missing", Verdict::Fail, |subject| {
            subject.source.content_types.push("DLP.All".into());
        }),
        broken("too-many-permissions", Verdict::Warn, Broken::TooManyPermissions),
        broken("auditing-off", Verdict::Fail, Broken::AuditingOff),
        broken("disabled-subscriptions", Verdict::Fail, Broken::DisabledSubscriptions),
        broken("clock-apart", Verdict::Fail, Broken::ClockApart),
        case("certificate-not-registered", Verdict::Fail, |subject| {
            subject.source.credential = certificate("expiring.pem", "key.pem");
        }),
        Case {
            options: Options { certificate: Some(fs::read_to_string(file("expiring.pem")).unwrap()), ..options() },
            ..case("certificate-expires-soon", Verdict::Warn, |subject| {
                subject.source.credential = certificate("expiring.pem", "key.pem");
            })
        },
        case("key-of-another-certificate", Verdict::Fail, |subject| {
            subject.source.credential = certificate("certificate.pem", "other-key.pem");
        }),
        case("no-connection", Verdict::Fail, |subject| subject.source.login = "http://127.0.0.1:1".parse().unwrap()),
        case("another-cloud", Verdict::Fail, move |subject| {
            subject.source.tenant_id = other.into();
            subject.cloud = Cloud::GccHigh;
        }),
    ]
}

/// As an earlier life of harrier would have started them.
async fn subscribe(options: &Options, address: &str) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", &options.client_id),
        ("client_secret", &options.client_secret),
        ("scope", "https://manage.office.com/.default"),
    ];
    let token = client.post(format!("{address}/{}/oauth2/v2.0/token", options.tenant_id)).form(&form).send().await;
    let token: serde_json::Value = token.unwrap().json().await.unwrap();
    for feed in FEEDS {
        let root = format!("{address}/api/v1.0/{}/activity/feed", options.tenant_id);
        let start = client.post(format!("{root}/subscriptions/start?contentType={feed}"));
        let started = start.bearer_auth(token["access_token"].as_str().unwrap()).send().await.unwrap();
        assert_eq!(started.status(), 200);
    }
}

const FEEDS: [&str; 2] = ["Audit.AzureActiveDirectory", "Audit.Exchange"];

async fn screen(case: &Case) -> (String, Verdict) {
    let tenant = FakeTenant::start(case.options.clone(), ([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = format!("http://{}", tenant.address());
    if case.subscribed {
        subscribe(&case.options, &address).await;
    }
    let source = TenantSource {
        tenant: "contoso".parse().unwrap(),
        tenant_id: case.options.tenant_id.clone(),
        client_id: case.options.client_id.clone(),
        credential: Credential::Fixed(Secret::new(&case.options.client_secret)),
        content_types: FEEDS.map(str::to_owned).to_vec(),
        publisher_id: case.options.tenant_id.clone(),
        login: address.parse().unwrap(),
        management: address.parse().unwrap(),
        audience: "https://manage.office.com".into(),
    };
    let mut subject = Subject {
        source,
        cloud: Cloud::Global,
        graph: Some(address.parse().unwrap()),
        credential_file: "/etc/harrier/contoso".into(),
    };
    (case.change)(&mut subject);
    let points = check(&subject, now()).await;
    let worst = points.iter().map(|point| point.verdict).max().unwrap();
    let text: String = points.iter().map(ingest::preflight::Point::lines).collect();
    tenant.stop().await;
    let here = env!("CARGO_MANIFEST_DIR");
    (text.replace(address.trim_start_matches("http://"), "HOST").replace(here, "HERE"), worst)
}

#[tokio::test]
async fn each_broken_tenant_is_told_with_its_cause_and_its_cure() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/preflight");
    let mut differing = Vec::new();
    for case in cases() {
        let (text, worst) = screen(&case).await;
        assert!(!text.contains("hunter2") && !text.contains(&case.options.client_secret), "{text}");
        assert_eq!(worst, case.worst, "{}\n{text}", case.name);
        for point in text.split("FAIL ").skip(1) {
            assert!(point.contains("why:") && point.contains("mend:"), "{}: {point}", case.name);
        }
        let golden = folder.join(format!("{}.txt", case.name));
        if env::var_os("UPDATE_GOLDEN").is_some() {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&golden, &text).unwrap();
        } else if fs::read_to_string(&golden).unwrap_or_default() != text {
            differing.push(format!("--- {}\n{text}", golden.display()));
        }
    }
    assert!(differing.is_empty(), "these differ from their golden:\n{}", differing.join("\n"));
}
