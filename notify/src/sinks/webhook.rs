//! `webhook`: a signed POST to one address, by the Standard Webhooks specification.
//!
//! `webhook-id` is the same on every attempt, `webhook-timestamp` is that of the attempt, `webhook-signature` holds one
//! signature for each secret. Only a 2xx is success; a redirect is a failure and is not followed. What the receiver
//! answers is read up to a limit and shown to the operator with the address and its parts blotted out, in case it is
//! echoed.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, redirect};
use runtime::clock::Clock;
use url::Url;

use super::{Deliver, Kind, Outgoing};
use crate::entry::{Failure, FailureClass};
use crate::guard::{self, LeadsInside, PublicOnly};
use crate::settings::{SigningSecret, Sink, SinkErrorKind};
use crate::signature;

pub(super) const KIND: Kind = Kind {
    name: "webhook",
    build,
    batch_max: 1,
    // Enough that one slow answer does not hold up the rest, few enough not to be a flood.
    concurrency_max: 4,
    paced: true,
};

/// Most of an answer that is read.
const ANSWER_BYTES_MAX: usize = 1_024;

/// Most of an answer that is shown.
const ANSWER_CHARACTERS_MAX: usize = 200;

/// Parts of an address that are shorter say nothing and may be words of an ordinary answer.
const SECRET_PART_BYTES_MIN: usize = 6;

struct Webhook {
    client: Client,
    url: Url,
    secrets: Vec<SigningSecret>,
    clock: Clock,
}

fn build(sink: &Sink, clock: &Clock) -> Result<Arc<dyn Deliver>, SinkErrorKind> {
    let url = sink.url.as_ref().ok_or(SinkErrorKind::Missing { setting: "url" })?.url().clone();
    let mut client = Client::builder()
        .user_agent(concat!("harrier/", env!("CARGO_PKG_VERSION")))
        .timeout(sink.timeout)
        .redirect(redirect::Policy::none())
        // A proxy would connect to what it likes: see the guard.
        .no_proxy();
    if !sink.allow_private_addresses {
        if url.scheme() != "https" {
            return Err(SinkErrorKind::PlainHttp);
        }
        if guard::names_inside_address(&url) {
            return Err(SinkErrorKind::PrivateAddress);
        }
        client = client.https_only(true).dns_resolver(Arc::new(PublicOnly));
    }
    let client = client.build().map_err(|error| SinkErrorKind::Client(error.without_url()))?;
    Ok(Arc::new(Webhook { client, url, secrets: sink.signing_secrets.clone(), clock: clock.clone() }))
}

#[async_trait]
impl Deliver for Webhook {
    async fn deliver(&self, batch: &[Outgoing]) -> Vec<Result<(), Failure>> {
        let mut answers = Vec::with_capacity(batch.len());
        for outgoing in batch {
            answers.push(self.post(outgoing).await);
        }
        answers
    }
}

impl Webhook {
    async fn post(&self, outgoing: &Outgoing) -> Result<(), Failure> {
        let timestamp_seconds = self.clock.now().timestamp();
        let mut request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", &outgoing.id)
            .header("webhook-timestamp", timestamp_seconds);
        let signed = signature::header(&self.secrets, &outgoing.id, timestamp_seconds, &outgoing.body);
        if let Some(signatures) = signed {
            request = request.header("webhook-signature", signatures);
        }
        match request.body(outgoing.body.clone()).send().await {
            Ok(response) => self.judge(response).await,
            Err(error) => Err(unanswered(error)),
        }
    }

    async fn judge(&self, response: Response) -> Result<(), Failure> {
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|text| parse_retry_after(text, self.clock.now()));
        let (class, label) = classify(status, retry_after);
        let answer = self.shown(&beginning(response).await);
        let reason = if answer.is_empty() { format!("HTTP {status}") } else { format!("HTTP {status}: {answer}") };
        Err(Failure { class, label, reason })
    }

    /// An answer as it may be shown: short, on one line, without what is secret in the address.
    fn shown(&self, answer: &[u8]) -> String {
        let mut text = String::from_utf8_lossy(answer).into_owned();
        let path = self.url.path_segments().into_iter().flatten().map(str::to_owned);
        let query = self.url.query_pairs().map(|(_, value)| value.into_owned());
        let mut parts: Vec<String> = path.chain(query).chain(self.url.password().map(str::to_owned)).collect();
        parts.extend(self.url.query().map(str::to_owned));
        parts.sort_by_key(|part| std::cmp::Reverse(part.len()));
        for part in parts.iter().filter(|part| part.len() >= SECRET_PART_BYTES_MIN) {
            text = text.replace(part.as_str(), "[...]");
        }
        let plain = text.split_whitespace().collect::<Vec<_>>().join(" ");
        plain.chars().filter(|c| !c.is_control()).take(ANSWER_CHARACTERS_MAX).collect()
    }
}

/// What each answer means: the same table for every kind of sink that speaks HTTP.
fn classify(status: StatusCode, after: Option<Duration>) -> (FailureClass, &'static str) {
    match status.as_u16() {
        401 | 403 => (FailureClass::Auth, "auth"),
        410 => (FailureClass::Gone, "gone"),
        429 => (FailureClass::Retry { after }, "throttled"),
        408 => (FailureClass::Retry { after }, "timeout"),
        400..=499 => (FailureClass::Refused, "rejected"),
        500..=599 => (FailureClass::Retry { after }, "server"),
        // A redirect may be a login page in front of a receiver that is down.
        _ => (FailureClass::Retry { after: None }, "other"),
    }
}

/// Seconds, or a date.
fn parse_retry_after(text: &str, now: DateTime<Utc>) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::parse_from_rfc2822(text).ok()?;
    // A date that has passed means now.
    Some((date.with_timezone(&Utc) - now).to_std().unwrap_or_default())
}

/// As much of an answer as is wanted; what cannot be read is left away, since the status has said the main thing.
async fn beginning(mut response: Response) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < ANSWER_BYTES_MAX
        && let Ok(Some(chunk)) = response.chunk().await
    {
        bytes.extend_from_slice(&chunk[..chunk.len().min(ANSWER_BYTES_MAX - bytes.len())]);
    }
    bytes
}

/// No answer came. The address is taken out of the error; its causes do not hold it.
fn unanswered(error: reqwest::Error) -> Failure {
    let error = error.without_url();
    let label = if error.is_timeout() { "timeout" } else { "network" };
    let mut reason = if error.is_timeout() { "no answer in time".to_owned() } else { error.to_string() };
    let mut cause = error.source();
    while let Some(inner) = cause {
        if inner.downcast_ref::<LeadsInside>().is_some() {
            reason = LeadsInside.to_string();
            break;
        }
        reason = if error.is_timeout() { reason } else { format!("{reason}: {inner}") };
        cause = inner.source();
    }
    Failure { class: FailureClass::Retry { after: None }, label, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::start;

    #[test]
    fn every_answer_has_its_class() {
        let retry = FailureClass::Retry { after: None };
        for (status, class) in [
            (301, retry),
            (302, retry),
            (304, retry),
            (400, FailureClass::Refused),
            (401, FailureClass::Auth),
            (403, FailureClass::Auth),
            (404, FailureClass::Refused),
            (408, retry),
            (410, FailureClass::Gone),
            (413, FailureClass::Refused),
            (429, retry),
            (500, retry),
            (503, retry),
        ] {
            assert_eq!(classify(StatusCode::from_u16(status).unwrap(), None).0, class, "{status}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let after = |text| parse_retry_after(text, start());
        assert_eq!(after(" 120 "), Some(Duration::from_secs(120)));
        assert_eq!(after("Sun, 22 Nov 2026 10:02:00 GMT"), Some(Duration::from_secs(120)));
        assert_eq!(after("Sun, 22 Nov 2026 09:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(after("soon"), None);
        assert_eq!(after("-5"), None);
    }

    #[test]
    fn an_answer_that_echoes_the_address_does_not_give_it_away() {
        let webhook = Webhook {
            client: Client::new(),
            url: "https://hooks.example/services/T0SECRET/abc?sig=s3cr3t%2Bvalue".parse().unwrap(),
            secrets: Vec::new(),
            clock: Clock::system(),
        };
        let shown = webhook.shown(b"no such hook:\r\n /services/T0SECRET/abc s3cr3t+value sig=s3cr3t%2Bvalue \x1b[2J");
        assert!(!shown.contains("SECRET") && !shown.contains("s3cr3t") && !shown.contains('\x1b'), "{shown}");
        assert!(shown.starts_with("no such hook: /"));
        assert_eq!(webhook.shown(&[b'x'; 5_000]).len(), ANSWER_CHARACTERS_MAX);
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_is_not_connected_to() {
        let mut sink = Sink::new("soc", "webhook");
        sink.url = Some("https://localhost:1/token-token".parse().unwrap());
        let webhook = build(&sink, &Clock::system()).ok().unwrap();
        let answers = webhook.deliver(&[Outgoing { id: "a_1_open".into(), body: b"{}".to_vec() }]).await;
        let failure = answers[0].as_ref().unwrap_err();
        assert_eq!(failure.reason, LeadsInside.to_string());
        assert_eq!(failure.class, FailureClass::Retry { after: None });
    }
}
