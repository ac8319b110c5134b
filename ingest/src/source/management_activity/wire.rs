//! The shapes of the API: requests as values, and readers for what comes back. Pure.
//!
//! Guarantee: [`Api::is_ours`] holds for every address that a token is sent to. The service names addresses itself
//! (`contentUri`, `NextPageUri`); one that leads elsewhere is never followed with the token, whoever put it there.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use runtime::config::Secret;
use serde::Deserialize;
use serde_json::value::RawValue;
use url::Url;

use super::code::{Refusal, shown};
use super::settings::TenantSource;

/// Something to ask of the service.
#[derive(Clone, Debug)]
pub struct Call {
    pub what: What,
    pub url: Url,
    /// The token to send along; its generation tells which one was refused. None for the token request itself.
    pub token: Option<Token>,
}

/// What a call is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum What {
    Token,
    Subscriptions,
    /// Start the subscription of a feed.
    Start {
        feed: usize,
    },
    /// A page of a feed's listing.
    List {
        feed: usize,
        pass: Pass,
    },
    Blob {
        feed: usize,
        blob: BlobKey,
    },
}

/// Why a feed is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pass {
    /// From the cursor on: what is new.
    Front,
    /// All that the service still lists: what was listed too late for the front.
    Sweep,
}

/// A blob among those of its feed: in the order in which they became available.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobKey {
    pub created: DateTime<Utc>,
    pub id: String,
}

/// An access token.
#[derive(Clone, Debug)]
pub struct Token {
    pub value: Secret,
    pub generation: u64,
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A response, whole.
    Answer(Answer),
    /// A blob: all its records but the last few are in the log, and those are at hand.
    Blob(BlobRead),
    /// No response, or not all of it.
    Failed(Trouble),
}

/// A response with its body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub next_page: Option<String>,
    pub retry_after: Option<TimeDelta>,
    pub date: Option<DateTime<Utc>>,
    pub body: Vec<u8>,
}

/// A blob that was read to its validated end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlobRead {
    pub records: u64,
    pub rejected: u64,
    pub bytes: u64,
    pub sha256: String,
    pub date: Option<DateTime<Utc>>,
}

/// Why there is no response. Worth another try, all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    #[error("no connection")]
    Connection,
    #[error("no answer in time")]
    Timeout,
    #[error("the body ended early")]
    EndedEarly,
    #[error("the body is larger than allowed")]
    TooLarge,
    #[error("the body is not one JSON array")]
    NotAnArray,
    #[error("the body is empty")]
    Empty,
}

/// Builds and checks addresses for one tenant.
#[derive(Clone, Debug)]
pub struct Api {
    source: Arc<TenantSource>,
}

impl Api {
    pub fn new(source: Arc<TenantSource>) -> Api {
        Api { source }
    }

    /// Whether an address lies on the configured endpoint: scheme, host and port.
    pub fn is_ours(&self, url: &Url) -> bool {
        let ours = &self.source.management;
        url.scheme() == ours.scheme()
            && url.host() == ours.host()
            && url.port_or_known_default() == ours.port_or_known_default()
            && url.username().is_empty()
            && url.password().is_none()
    }

    pub fn token(&self) -> Url {
        under(&self.source.login, &[&self.source.tenant_id, "oauth2", "v2.0", "token"])
    }

    /// The form that asks for a token.
    pub fn token_form(&self) -> [(&'static str, String); 4] {
        [
            ("grant_type", "client_credentials".to_owned()),
            ("client_id", self.source.client_id.clone()),
            ("client_secret", self.source.client_secret.expose().to_owned()),
            ("scope", format!("{}/.default", self.source.audience.trim_end_matches('/'))),
        ]
    }

    pub fn subscriptions(&self) -> Url {
        self.published(self.feed(&["subscriptions", "list"]))
    }

    pub fn start(&self, content_type: &str) -> Url {
        let mut url = self.feed(&["subscriptions", "start"]);
        url.query_pairs_mut().append_pair("contentType", content_type);
        self.published(url)
    }

    /// A listing's first page. Times to the second and without a zone, as documented.
    pub fn list(&self, content_type: &str, start: DateTime<Utc>, end: DateTime<Utc>) -> Url {
        let time = |time: DateTime<Utc>| time.format("%Y-%m-%dT%H:%M:%S").to_string();
        let mut url = self.feed(&["subscriptions", "content"]);
        url.query_pairs_mut()
            .append_pair("contentType", content_type)
            .append_pair("startTime", &time(start))
            .append_pair("endTime", &time(end));
        self.published(url)
    }

    /// A listing's next page, exactly as the service names it; none if it leads elsewhere.
    pub fn next_page(&self, uri: &str) -> Option<Url> {
        self.ours(uri)
    }

    /// A blob where the service says it is; where that is elsewhere, by its id at the configured endpoint.
    pub fn blob(&self, uri: &str, id: &str) -> (Url, bool) {
        match self.ours(uri) {
            Some(url) => (url, true),
            None => (self.published(self.feed(&["audit", id])), false),
        }
    }

    fn ours(&self, uri: &str) -> Option<Url> {
        let url = Url::parse(uri).ok().filter(|url| self.is_ours(url))?;
        Some(self.published(url))
    }

    fn feed(&self, rest: &[&str]) -> Url {
        let mut path = vec!["api", "v1.0", self.source.tenant_id.as_str(), "activity", "feed"];
        path.extend_from_slice(rest);
        under(&self.source.management, &path)
    }

    /// Without the publisher's id, all callers in the world share one quota.
    fn published(&self, mut url: Url) -> Url {
        if !url.query_pairs().any(|(name, _)| name.eq_ignore_ascii_case("PublisherIdentifier")) {
            url.query_pairs_mut().append_pair("PublisherIdentifier", &self.source.publisher_id);
        }
        url
    }
}

fn under(root: &Url, path: &[&str]) -> Url {
    let mut url = root.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Fails only for addresses that cannot have a path, and endpoints are checked to be http or https.
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(path);
    }
    url
}

/// An entry of a listing, or what cannot be read as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Blob { id: String, uri: String, created: DateTime<Utc>, expires: Option<DateTime<Utc>> },
    Unreadable(String),
}

/// Longest blob id that is believed; real ones have about 110 characters. It becomes part of keys.
const BLOB_ID_BYTES_MAX: usize = 1_024;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawEntry {
    content_id: String,
    #[serde(default)]
    content_uri: String,
    content_created: DateTime<Utc>,
    #[serde(default)]
    content_expiration: Option<DateTime<Utc>>,
}

/// Reads a page of a listing, in the order in which blobs became available. None if it is not an array.
pub fn read_listing(body: &[u8]) -> Option<Vec<Entry>> {
    let entries: Vec<&RawValue> = serde_json::from_slice(without_mark(body)).ok()?;
    let mut entries: Vec<Entry> = entries.into_iter().map(|raw| read_entry(raw.get())).collect();
    entries.sort_by(|one, other| order(one).cmp(&order(other)));
    Some(entries)
}

fn order(entry: &Entry) -> (Option<DateTime<Utc>>, &str) {
    match entry {
        Entry::Blob { created, id, .. } => (Some(*created), id),
        Entry::Unreadable(text) => (None, text),
    }
}

fn read_entry(text: &str) -> Entry {
    match serde_json::from_str::<RawEntry>(text) {
        Ok(raw) if !raw.content_id.is_empty() && raw.content_id.len() <= BLOB_ID_BYTES_MAX => Entry::Blob {
            id: raw.content_id,
            uri: raw.content_uri,
            created: raw.content_created,
            expires: raw.content_expiration,
        },
        _ => Entry::Unreadable(text.to_owned()),
    }
}

/// A subscription as the service lists it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subscription {
    pub content_type: String,
    /// `enabled`, `disabled`, `expired`; the documented sample has one without.
    #[serde(default)]
    pub status: Option<String>,
}

impl Subscription {
    pub fn is_enabled(&self) -> bool {
        self.status.as_deref().is_none_or(|status| status.eq_ignore_ascii_case("enabled"))
    }
}

/// Reads the list of subscriptions.
pub fn read_subscriptions(body: &[u8]) -> Option<Vec<Subscription>> {
    serde_json::from_slice(without_mark(body)).ok()
}

/// Reads the answer to a start.
pub fn read_subscription(body: &[u8]) -> Option<Subscription> {
    serde_json::from_slice(without_mark(body)).ok()
}

#[derive(Deserialize)]
struct RawToken {
    access_token: String,
    expires_in: NumberOrText,
}

/// The v1 endpoint writes numbers as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(f64),
    Text(String),
}

/// Reads a token and how long it lasts.
pub fn read_token(body: &[u8]) -> Option<(Secret, TimeDelta)> {
    let raw: RawToken = serde_json::from_slice(body).ok()?;
    let seconds = match raw.expires_in {
        NumberOrText::Number(number) => number,
        NumberOrText::Text(text) => text.trim().parse().ok()?,
    };
    let is_header_safe = raw.access_token.bytes().all(|byte| byte.is_ascii_graphic());
    // No token lasts more than a day or so; a wrong number must not keep a dead one.
    let lasts = TimeDelta::seconds((seconds as i64).clamp(0, 86_400));
    (is_header_safe && !raw.access_token.is_empty()).then(|| (Secret::new(&raw.access_token), lasts))
}

#[derive(Deserialize)]
struct RawTokenError {
    error: String,
    #[serde(default)]
    error_description: String,
}

/// Why the token endpoint refuses, and whether another try may help without anybody doing something.
pub fn read_token_error(status: u16, body: &[u8]) -> (Refusal, bool) {
    let raw = serde_json::from_slice::<RawTokenError>(body).ok();
    let error = raw.as_ref().map_or("", |raw| raw.error.as_str());
    let retry = error == "temporarily_unavailable"
        || matches!(status, 408 | 429 | 500..=599)
        // Not an answer of the token endpoint: something stands between.
        || raw.is_none();
    let refusal = Refusal {
        class: if retry { super::code::Class::Wait } else { super::code::Class::StopTenant },
        status,
        code: shown(error),
        meaning: match error {
            "invalid_client" => "the client secret is wrong or has expired",
            "unauthorized_client" => "the application is not known in this tenant",
            "invalid_request" | "invalid_grant" | "invalid_scope" => "tenant_id, client_id or the cloud is wrong",
            _ => "no token was given",
        },
        message: shown(raw.as_ref().map_or("", |raw| raw.error_description.as_str())),
    };
    (refusal, retry)
}

fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(management: &str) -> Api {
        Api::new(Arc::new(TenantSource {
            tenant: "t1".parse().unwrap(),
            tenant_id: "11111111-1111-1111-1111-111111111111".into(),
            client_id: "c".into(),
            client_secret: Secret::new("hush"),
            content_types: vec![],
            publisher_id: "pub".into(),
            login: "https://login.microsoftonline.com".parse().unwrap(),
            management: management.parse().unwrap(),
            audience: "https://manage.office.com/".into(),
        }))
    }

    #[test]
    fn tokens_go_nowhere_but_to_the_configured_endpoint() {
        let api = api("https://manage.office.com");
        for ours in ["https://manage.office.com/x", "https://MANAGE.office.com:443/x?nextPage=1"] {
            assert!(api.next_page(ours).is_some(), "{ours}");
        }
        for foreign in [
            "http://manage.office.com/x",
            "https://manage.office.com:8443/x",
            "https://manage.office.com.evil.example/x",
            "https://manage.office.com@evil.example/x",
            "https://user:pw@manage.office.com/x",
            "https://evil.example/https://manage.office.com/",
            "//evil.example/x",
            "file:///etc/passwd",
            "",
        ] {
            assert_eq!(api.next_page(foreign), None, "{foreign}");
            let (url, as_given) = api.blob(foreign, "1$2/../../x?y#z");
            assert!(api.is_ours(&url) && !as_given);
            assert!(
                url.path().starts_with("/api/v1.0/11111111-1111-1111-1111-111111111111/activity/feed/audit/1$2%2F")
            );
        }
    }

    #[test]
    fn addresses_are_the_documented_ones_and_name_the_publisher_once() {
        let api = api("https://proxy.example/m365/");
        let (start, end) = ("2026-11-22T09:00:00.9Z".parse().unwrap(), "2026-11-22T10:00:00Z".parse().unwrap());
        expect_test::expect!["https://proxy.example/m365/api/v1.0/11111111-1111-1111-1111-111111111111/activity/feed/subscriptions/content?contentType=Audit.Exchange&startTime=2026-11-22T09%3A00%3A00&endTime=2026-11-22T10%3A00%3A00&PublisherIdentifier=pub"]
            .assert_eq(api.list("Audit.Exchange", start, end).as_str());
        expect_test::expect![
            "https://login.microsoftonline.com/11111111-1111-1111-1111-111111111111/oauth2/v2.0/token"
        ]
        .assert_eq(api.token().as_str());
        let next = "https://proxy.example/a?b=%2e%2E&c=$x&publisherIdentifier=theirs";
        assert_eq!(api.next_page(next).unwrap().as_str(), next);
    }

    #[test]
    fn listings_are_sorted_and_unreadable_entries_are_kept_apart() {
        let body = br#"[{"contentId":"b","contentUri":"u","contentCreated":"2026-11-22T10:00:00.5Z"},{"x":1},
            {"contentId":"a","contentUri":"u","contentCreated":"2026-11-22T10:00:00.500Z","contentExpiration":"2026-11-29T10:00:00Z"},
            {"contentId":"c","contentUri":"u","contentCreated":"2026-11-22T09:00:00Z"}]"#;
        let ids: Vec<String> = read_listing(body)
            .unwrap()
            .into_iter()
            .map(|entry| match entry {
                Entry::Blob { id, .. } => id,
                Entry::Unreadable(text) => text,
            })
            .collect();
        assert_eq!(ids, [r#"{"x":1}"#, "c", "a", "b"]);
        assert_eq!(read_listing(b"{}"), None);
        assert_eq!(read_listing(b""), None);
        assert_eq!(read_listing(b"[]"), Some(vec![]));
    }

    #[test]
    fn tokens_are_read_in_both_dialects_and_never_shown() {
        for body in [r#"{"access_token":"abc","expires_in":3599}"#, r#"{"access_token":"abc","expires_in":"3599"}"#] {
            let (token, lasts) = read_token(body.as_bytes()).unwrap();
            assert_eq!((token.expose(), lasts.num_seconds()), ("abc", 3599));
            assert!(!format!("{token:?}").contains("abc"));
        }
        assert!(read_token(b"{\"access_token\":\"a\\r\\nX: y\",\"expires_in\":1}").is_none());
        let (refusal, retry) =
            read_token_error(401, br#"{"error":"invalid_client","error_description":"AADSTS7000215"}"#);
        assert!(!retry && refusal.to_string().contains("secret"));
        assert!(read_token_error(400, br#"{"error":"temporarily_unavailable"}"#).1);
        assert!(read_token_error(503, b"busy").1);
    }
}
