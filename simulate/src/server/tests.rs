//! The API through real HTTP on a free loopback port. The served clock starts at a fixed `end` and no test sleeps.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use reqwest::{Client, RequestBuilder};
use serde_json::Value;

use super::*;
use crate::records::CONTENT_TYPES;
use crate::{Delivery, Pace, Scenario};

const EXCHANGE: &str = "Audit.Exchange";

fn options() -> Options {
    let end = DateTime::from_timestamp(1_795_255_471, 0).unwrap();
    let delivery = Delivery { page_size: 7, blob_records: 25, ..Delivery::default() };
    Options { seed: 5, users: 5, days: 9, delivery, ..Options::new(end) }
}

/// A client as simple as one can be: it asks again until it is answered.
struct Reader {
    tenant: FakeTenant,
    http: Client,
    token: String,
}

impl Reader {
    async fn start(options: Options) -> Reader {
        let tenant = FakeTenant::start(options, ([127, 0, 0, 1], 0).into()).await.unwrap();
        let http = Client::builder().no_proxy().build().unwrap();
        let mut reader = Reader { tenant, http, token: String::new() };
        reader.sign_in().await;
        reader
    }

    fn options(&self) -> &Options {
        &self.tenant.service.options
    }

    fn feed(&self, rest: &str) -> String {
        format!("http://{}/api/v1.0/{}/activity/feed/{rest}", self.tenant.address(), self.options().tenant_id)
    }

    async fn post_token(&self, path: &str, secret: &str) -> (u16, Value) {
        let url = format!("http://{}/{}/{path}", self.tenant.address(), self.options().tenant_id);
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", &self.options().client_id),
            ("client_secret", secret),
            ("scope", "https://manage.office.com/.default"),
            ("resource", "https://manage.office.com"),
        ];
        let response = self.http.post(url).form(&form).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    async fn sign_in(&mut self) {
        let secret = self.options().client_secret.clone();
        let (_, body) = self.post_token("oauth2/v2.0/token", &secret).await;
        self.token = body["access_token"].as_str().unwrap().to_owned();
    }

    async fn send(&self, request: RequestBuilder) -> (u16, Value, Option<String>) {
        let response = request.bearer_auth(&self.token).send().await.unwrap();
        let next = response.headers().get("nextpageuri").map(|value| value.to_str().unwrap().to_owned());
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or(Value::Null), next)
    }

    /// Status and AF code of a call that is refused.
    async fn code(&self, request: RequestBuilder) -> (u16, String) {
        let (status, body, _) = self.send(request).await;
        (status, body["error"]["code"].as_str().unwrap_or_default().to_owned())
    }

    async fn get_code(&self, rest: &str) -> (u16, String) {
        self.code(self.http.get(self.feed(rest))).await
    }

    async fn subscribe(&mut self) {
        for content_type in CONTENT_TYPES {
            let url = self.feed(&format!("subscriptions/start?contentType={content_type}"));
            while self.retried(true, &url).await.is_none() {}
        }
    }

    /// One try; a token that has gone is replaced on the way.
    async fn retried(&mut self, is_post: bool, url: &str) -> Option<(Value, Option<String>)> {
        let request = if is_post { self.http.post(url) } else { self.http.get(url) };
        let response = request.bearer_auth(&self.token).send().await.unwrap();
        let next = response.headers().get("nextpageuri").map(|value| value.to_str().unwrap().to_owned());
        match response.status().as_u16() {
            200 => Some((response.json().await.ok()?, next)),
            401 => {
                self.sign_in().await;
                None
            }
            403 | 429 | 500 | 503 => None,
            status => panic!("{status} from {url}"),
        }
    }

    async fn read(&mut self, url: &str) -> (Value, Option<String>) {
        loop {
            if let Some(answer) = self.retried(false, url).await {
                return answer;
            }
        }
    }

    /// Reads all there is, in windows of a day; how often each record came, and how often each blob was listed.
    async fn read_everything(&mut self) -> (HashMap<String, u32>, HashMap<String, u32>) {
        let (mut records, mut blobs) = (HashMap::new(), HashMap::new());
        let end = self.options().end;
        for content_type in CONTENT_TYPES {
            for day in 0..8 {
                let start = end - TimeDelta::days(7) + TimeDelta::days(day);
                let mut next = Some(self.feed(&content(content_type, start, start + TimeDelta::days(1))));
                while let Some(url) = next {
                    let (entries, following) = self.read(&url).await;
                    next = following;
                    for entry in entries.as_array().unwrap() {
                        let id = entry["contentId"].as_str().unwrap().to_owned();
                        assert!(entry["contentCreated"].as_str().unwrap().ends_with('Z'));
                        let times = blobs.entry(id).or_insert(0);
                        *times += 1;
                        if *times > 1 {
                            continue;
                        }
                        let (body, _) = self.read(entry["contentUri"].as_str().unwrap()).await;
                        for record in body.as_array().unwrap() {
                            *records.entry(record["Id"].as_str().unwrap().to_owned()).or_insert(0) += 1;
                        }
                    }
                }
            }
        }
        (records, blobs)
    }
}

fn content(content_type: &str, start: DateTime<Utc>, end: DateTime<Utc>) -> String {
    let stamp = |at: DateTime<Utc>| at.format("%Y-%m-%dT%H:%M:%S").to_string();
    format!(
        "subscriptions/content?contentType={content_type}&startTime={}&endTime={}&PublisherIdentifier=x",
        stamp(start),
        stamp(end)
    )
}

fn world_ids(world: &World) -> HashSet<String> {
    world.records.iter().map(|record| record.id.clone()).collect()
}

#[tokio::test]
async fn every_record_is_served_with_paging_and_duplicates() {
    let mut reader = Reader::start(options()).await;
    reader.subscribe().await;
    let (records, blobs) = reader.read_everything().await;
    assert_eq!(records.keys().cloned().collect::<HashSet<_>>(), world_ids(reader.tenant.world()));
    assert!(records.values().any(|times| *times > 1), "no record came twice");
    assert!(blobs.values().any(|times| *times > 1), "no blob was listed twice");
    let served = reader.tenant.served();
    assert_eq!(served.blobs_fetched_once, served.blobs_total);
    assert_eq!(served.blobs_fetched, blobs.len() as u64);
    assert_eq!(served.records, records.values().map(|times| u64::from(*times)).sum::<u64>());
    assert_eq!((served.tokens, served.refusals, served.faults), (1, 0, 0));
    assert!(served.listings > 5 * 8, "no listing had a second page");
    reader.tenant.stop().await;
}

#[tokio::test]
async fn a_well_behaved_service_serves_everything_once_and_in_order() {
    let delivery =
        Delivery { late: false, duplicates: false, twice: false, shuffled: false, page_size: 500, blob_records: 1_000 };
    let mut reader = Reader::start(Options { delivery, story: Scenario::Quiet, days: 2, ..options() }).await;
    reader.subscribe().await;
    let (records, blobs) = reader.read_everything().await;
    assert_eq!(records.keys().cloned().collect::<HashSet<_>>(), world_ids(reader.tenant.world()));
    assert!(records.values().chain(blobs.values()).all(|times| *times == 1));
}

#[tokio::test]
async fn every_record_is_served_in_spite_of_faults() {
    let faults = [
        Fault::ExpiredToken,
        Fault::Throttle,
        Fault::Throttle429,
        Fault::ServerError,
        Fault::TruncatedBody,
        Fault::SmallPages,
    ]
    .to_vec();
    let mut reader = Reader::start(Options { faults, days: 2, ..options() }).await;
    reader.subscribe().await;
    let (records, _) = reader.read_everything().await;
    assert_eq!(records.keys().cloned().collect::<HashSet<_>>(), world_ids(reader.tenant.world()));
    let served = reader.tenant.served();
    assert!(served.faults > 20 && served.tokens > 1, "{served:?}");
}

#[tokio::test]
async fn tokens_are_asked_for_and_checked() {
    let mut reader = Reader::start(options()).await;
    let secret = reader.options().client_secret.clone();
    let (status, body) = reader.post_token("oauth2/token", &secret).await;
    assert_eq!((status, body["expires_in"].as_str()), (200, Some("3599")));
    let (status, body) = reader.post_token("oauth2/v2.0/token", &secret).await;
    assert_eq!((status, body["expires_in"].as_i64()), (200, Some(3_599)));
    let (status, body) = reader.post_token("oauth2/v2.0/token", "wrong").await;
    assert_eq!((status, body["error"].as_str()), (401, Some("invalid_client")));
    assert_eq!(body["error_codes"][0], 7_000_215);
    reader.token = "eyJ.invented.token".to_owned();
    assert_eq!(reader.get_code("subscriptions/list").await.0, 401);
}

#[tokio::test]
async fn subscriptions_start_stop_and_start_again() {
    let reader = Reader::start(options()).await;
    let list = reader.feed("subscriptions/list");
    let start = reader.feed(&format!("subscriptions/start?contentType={EXCHANGE}"));
    let stop = reader.feed(&format!("subscriptions/stop?contentType={EXCHANGE}"));
    assert_eq!(reader.send(reader.http.get(&list)).await.1, json!([]));
    let (status, body, _) = reader.send(reader.http.post(&start)).await;
    assert_eq!((status, body), (200, json!({"contentType": EXCHANGE, "status": "enabled", "webhook": null})));
    assert_eq!(reader.code(reader.http.post(&start)).await, (400, "AF20024".to_owned()));
    assert_eq!(reader.send(reader.http.post(&stop)).await.0, 200);
    let end = reader.options().end;
    let day = content(EXCHANGE, end - TimeDelta::days(1), end);
    assert_eq!(reader.get_code(&day).await, (400, "AF20022".to_owned()));
    assert_eq!(reader.send(reader.http.post(&start)).await.0, 200);
    assert_eq!(reader.send(reader.http.get(reader.feed(&day))).await.0, 200);
}

#[tokio::test]
async fn refusals_carry_their_codes() {
    check_refusals(options()).await;
}

/// What is refused must not come as an empty array, which would be believed.
#[tokio::test]
async fn a_slow_refusal_is_a_refusal() {
    check_refusals(Options { faults: vec![Fault::SlowBytes], always_faulty: true, ..options() }).await;
}

async fn check_refusals(options: Options) {
    let mut reader = Reader::start(options).await;
    let end = reader.options().end;
    let day = TimeDelta::days(1);
    let general = content("Audit.General", end - day, end);
    assert_eq!(reader.get_code(&general).await.1, "AF20022");
    reader.subscribe().await;
    let stamp = |at: DateTime<Utc>| at.format("%Y-%m-%dT%H:%M:%S").to_string();
    let cases = [
        ("subscriptions/content".to_owned(), "AF20001"),
        (content("Audit.Mail", end - day, end), "AF20020"),
        (content(EXCHANGE, end - day * 2, end - TimeDelta::seconds(1)), "AF20030"),
        (content(EXCHANGE, end - day * 8, end - day * 7), "AF20030"),
        (content(EXCHANGE, end, end - day), "AF20055"),
        (format!("subscriptions/content?contentType={EXCHANGE}&startTime={}", stamp(end - day)), "AF20030"),
        (format!("subscriptions/content?contentType={EXCHANGE}&startTime=soon&endTime=later"), "AF20002"),
        (format!("{}&nextPage=000000000007$0123456789abcdef", content(EXCHANGE, end - day, end)), "AF20031"),
        ("audit/nonsense".to_owned(), "AF20052"),
        (
            format!("audit/{0}000000000${0}000000000$audit_exchange$Audit_Exchange$a$a", end.format("%Y%m%d%H%M%S")),
            "AF20050",
        ),
        (
            "audit/20200101000000000000000$20200101000000000000000$audit_exchange$Audit_Exchange$a$a".to_owned(),
            "AF20051",
        ),
    ];
    for (rest, code) in cases {
        assert_eq!(reader.get_code(&rest).await.1, code, "{rest}");
    }
    let base = format!("http://{}/api/v1.0", reader.tenant.address());
    let other = format!("{base}/99999999-9999-4999-8999-999999999999/activity/feed/subscriptions/list");
    assert_eq!(reader.code(reader.http.get(other)).await.1, "AF20010");
    let named = format!("{base}/contoso.example/activity/feed/subscriptions/list");
    assert_eq!(reader.code(reader.http.get(named)).await.1, "AF20013");
    assert_eq!(reader.tenant.served().refusals, 14);
}

#[tokio::test]
async fn windows_are_half_open_and_default_to_a_day() {
    let delivery = Delivery { duplicates: false, ..options().delivery };
    let mut reader = Reader::start(Options { delivery, ..options() }).await;
    reader.subscribe().await;
    let blob = reader.tenant.service.shelf.window(
        EXCHANGE,
        (reader.options().end - TimeDelta::days(3), reader.options().end),
        reader.options().end,
    )[0];
    let (id, created) = (blob.id.clone(), blob.created);
    let exact = |at: DateTime<Utc>| at.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    let url = |start, end| {
        reader.feed(&format!(
            "subscriptions/content?contentType={EXCHANGE}&startTime={}&endTime={}",
            exact(start),
            exact(end)
        ))
    };
    let holds = |body: &Value| body.as_array().unwrap().iter().any(|entry| entry["contentId"] == id.as_str());
    let minute = TimeDelta::minutes(1);
    assert!(holds(&reader.send(reader.http.get(url(created, created + minute))).await.1));
    assert!(!holds(&reader.send(reader.http.get(url(created - minute, created))).await.1));
    let default = reader.feed(&format!("subscriptions/content?contenttype={EXCHANGE}"));
    let (status, body, _) = reader.send(reader.http.get(default)).await;
    assert!(status == 200 && !body.as_array().unwrap().is_empty());
}

#[tokio::test]
async fn what_is_yet_to_come_is_neither_listed_nor_served() {
    // Long enough that the test is over before the story begins.
    let pace = Pace::Fast { real: std::time::Duration::from_secs(36_000) };
    let mut reader = Reader::start(Options { pace, ..options() }).await;
    reader.subscribe().await;
    let (records, _) = reader.read_everything().await;
    let world = reader.tenant.world();
    assert!(!records.is_empty() && records.len() < world.records.len());
    assert!(world.records.iter().filter(|record| record.malicious).all(|record| !records.contains_key(&record.id)));
    let later = (reader.options().end, reader.options().end + TimeDelta::days(1));
    let shelf = &reader.tenant.service.shelf;
    let coming = shelf.window(EXCHANGE, later, later.1).last().map(|blob| blob.id.clone()).unwrap();
    assert_eq!(reader.get_code(&format!("audit/{coming}")).await.1, "AF20050");
}
