//! The words of the API: its errors, and how each fault looks from outside.
//!
//! Only a few HTTP statuses are documented (`AF20024` 400, `AF429` 403, `AF50000` 500); clients should decide by the
//! code in the body, and this table is the one place where a status is chosen.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, TimeDelta, Utc};
use futures::{Stream, StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::dice::Dice;
use crate::faults::Fault;
use crate::line::Scissors;
use crate::server::ended;
use crate::service::{Answer, Text};

/// In how many pieces a slow body comes, and how long each takes.
const SLOW_PIECES: usize = 20;
const SLOW_PIECE: Duration = Duration::from_millis(8);
/// Long enough for what was written to be sent before the connection breaks.
const SEND_TIME: Duration = Duration::from_millis(3);

/// A refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Unauthorized,
    MissingParameter(&'static str),
    WrongParameterType(&'static str),
    OtherTenant,
    TenantNotGuid,
    UnknownContentType,
    NoSubscription,
    Disabled,
    AlreadyEnabled,
    WindowNotAllowed,
    WindowReversed,
    StalePage,
    ContentUnknown,
    /// A 404 that says nothing.
    NotFound,
    ContentExpired,
    ContentIdInvalid,
    TooManyRequests,
    Internal,
}

impl Refusal {
    fn status(self) -> StatusCode {
        match self {
            Refusal::Unauthorized => StatusCode::UNAUTHORIZED,
            Refusal::OtherTenant => StatusCode::FORBIDDEN,
            Refusal::TooManyRequests => StatusCode::FORBIDDEN,
            Refusal::ContentUnknown | Refusal::NotFound => StatusCode::NOT_FOUND,
            Refusal::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    pub(crate) fn code(self) -> &'static str {
        match self {
            Refusal::Unauthorized => "Unauthorized",
            Refusal::MissingParameter(_) => "AF20001",
            Refusal::WrongParameterType(_) => "AF20002",
            Refusal::OtherTenant => "AF20010",
            Refusal::TenantNotGuid => "AF20013",
            Refusal::UnknownContentType => "AF20020",
            Refusal::NoSubscription => "AF20022",
            Refusal::Disabled => "AF20023",
            Refusal::NotFound => "NotFound",
            Refusal::AlreadyEnabled => "AF20024",
            Refusal::WindowNotAllowed => "AF20030",
            Refusal::StalePage => "AF20031",
            Refusal::ContentUnknown => "AF20050",
            Refusal::ContentExpired => "AF20051",
            Refusal::ContentIdInvalid => "AF20052",
            Refusal::WindowReversed => "AF20055",
            Refusal::TooManyRequests => "AF429",
            Refusal::Internal => "AF50000",
        }
    }

    fn message(self) -> String {
        match self {
            Refusal::Unauthorized => "Authorization has been denied for this request.".to_owned(),
            Refusal::MissingParameter(name) => format!("Missing parameter: {name}."),
            Refusal::WrongParameterType(name) => format!("Invalid parameter type: {name}. Expected type: datetime."),
            Refusal::OtherTenant => "The tenant ID passed in the URL is not the one of the access token.".to_owned(),
            Refusal::TenantNotGuid => "The tenant ID passed in the URL is not a valid GUID.".to_owned(),
            Refusal::UnknownContentType => "The specified content type is not valid.".to_owned(),
            Refusal::Disabled => "The subscription was disabled by a tenant administrator.".to_owned(),
            Refusal::NotFound => "Not found.".to_owned(),
            Refusal::NoSubscription => "No subscription found for the specified content type.".to_owned(),
            Refusal::AlreadyEnabled => "The subscription is already enabled. No property change.".to_owned(),
            Refusal::WindowNotAllowed => "Start time and end time must both be given or both be left out, at most 24 \
                                          hours apart, the start at most 7 days in the past."
                .to_owned(),
            Refusal::WindowReversed => "Start time must be before end time.".to_owned(),
            Refusal::StalePage => "The nextPage value is not valid.".to_owned(),
            Refusal::ContentUnknown => "The specified content does not exist.".to_owned(),
            Refusal::ContentExpired => "The specified content has expired.".to_owned(),
            Refusal::ContentIdInvalid => "The content ID is not valid.".to_owned(),
            Refusal::TooManyRequests => {
                "Too many requests. Method=GetBlob, PublisherId=00000000-0000-0000-0000-000000000000".to_owned()
            }
            Refusal::Internal => "An internal error occurred. Retry the request.".to_owned(),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        if self == Refusal::NotFound {
            return (self.status(), "<html>Not found</html>").into_response();
        }
        json_response(self.status(), &json!({"error": {"code": self.code(), "message": self.message()}}))
    }
}

pub(crate) fn json_response(status: StatusCode, body: &Value) -> Response {
    raw_json(status, body.to_string())
}

pub(crate) fn raw_json(status: StatusCode, body: String) -> Response {
    let mut response = (status, body).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    response
}

/// An answer as it should be.
pub(crate) fn whole(answer: Answer) -> Response {
    let mut response = match answer.text {
        Text::Whole(bytes) => with_length(bytes.len() as u64, Body::from(bytes)),
        Text::Pieces { length, pieces } => {
            with_length(length, Body::from_stream(stream::iter(pieces.map(Ok::<_, Infallible>))))
        }
    };
    if let Some(next_page) = answer.next_page {
        response.headers_mut().insert("NextPageUri", next_page);
    }
    response
}

fn with_length(length: u64, body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    response
}

/// What spoiling takes beside the body.
pub(crate) struct Hands {
    pub(crate) scissors: Scissors,
    pub(crate) silence: Duration,
    pub(crate) stopped: watch::Receiver<bool>,
    pub(crate) now: DateTime<Utc>,
}

impl Hands {
    async fn be_silent(self) {
        tokio::select! {
            () = tokio::time::sleep(self.silence) => {}
            () = ended(self.stopped) => {}
        }
        self.scissors.cut();
    }
}

/// What comes instead of an answer, and whether it is the answer all the same.
pub(crate) async fn spoil(fault: Fault, mut dice: Dice, text: Text, hands: Hands) -> (Response, bool) {
    let response = match fault {
        Fault::ExpiredToken => Refusal::Unauthorized.into_response(),
        Fault::Throttle => throttled(&mut dice, Refusal::TooManyRequests.into_response(), hands.now),
        Fault::Throttle429 => throttled(&mut dice, StatusCode::TOO_MANY_REQUESTS.into_response(), hands.now),
        Fault::ServerError => server_error(&mut dice),
        Fault::StalePage => Refusal::StalePage.into_response(),
        Fault::FreeText => free_text(),
        Fault::EmptyBody => StatusCode::OK.into_response(),
        Fault::ObjectBody => object(&mut dice),
        Fault::TruncatedBody => truncated(&mut dice, text),
        Fault::SlowBytes => return slow(text),
        Fault::NoAnswer => silent(&mut dice, text, hands).await,
        Fault::Reset => reset(&mut dice, text, hands),
        // The others do not meet requests.
        _ => Refusal::Internal.into_response(),
    };
    (response, false)
}

/// How long to wait is said only sometimes, in seconds or as a moment.
fn throttled(dice: &mut Dice, mut response: Response, now: DateTime<Utc>) -> Response {
    let moment = (now + TimeDelta::seconds(1)).format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let wait = match dice.index(4) {
        0 => HeaderValue::from_static("1"),
        1 => HeaderValue::from_str(&moment).unwrap_or(HeaderValue::from_static("1")),
        _ => return response,
    };
    response.headers_mut().insert(header::RETRY_AFTER, wait);
    response
}

fn server_error(dice: &mut Dice) -> Response {
    let mut response = Refusal::Internal.into_response();
    if dice.percent(60) {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

/// What a tenant without an audit log is told, in the form that was seen: the sentence begins in the code.
pub(crate) fn auditing_off(tenant_id: &str) -> Response {
    let code = format!(
        "StartSubscription [CorrId=00000000-0000-0000-0000-000000000000][TenantId={tenant_id},ContentType=Audit.General,ApplicationId=x,PublisherId=x][AppId"
    );
    let message = format!(
        "=x] failed. Exception: Microsoft.Office.Compliance.Audit.DataServiceException: Tenant {tenant_id} does not exist."
    );
    json_response(StatusCode::BAD_REQUEST, &json!({"error": {"code": code, "message": message}}))
}

fn free_text() -> Response {
    let code = "GetContent [CorrId=00000000-0000-0000-0000-000000000000][AppId";
    let message =
        "=x] failed. Exception: Microsoft.Office.Compliance.Audit.DataServiceException: the partition is moving.";
    json_response(StatusCode::BAD_REQUEST, &json!({"error": {"code": code, "message": message}}))
}

fn object(dice: &mut Dice) -> Response {
    let body = match dice.index(3) {
        0 => json!({"error": {"code": "AF50000", "message": "An internal error occurred."}}),
        1 => json!({}),
        _ => json!({"value": []}),
    };
    json_response(StatusCode::OK, &body)
}

/// Elements that are no records and end where they should, so that their neighbours can be told from them.
const MALFORMED: [&[u8]; 6] = [
    br#"{"Id":"damaged","CreationTime":}"#,
    br#"{"Id":"damaged" "Operation":"x"}"#,
    b"{\"Id\":\"damaged\",\"Operation\":\"\xff\xfe\"}",
    br#"[{"Id":"damaged"}]"#,
    br#""damaged""#,
    b"17",
];

pub(crate) fn malformed(dice: &mut Dice) -> &'static [u8] {
    dice.pick::<&'static [u8], 6>(&MALFORMED)
}

/// The same records over and over, until the body has about so many bytes.
pub(crate) fn repeated(records: &[u8], bytes: u64) -> Text {
    let first = Bytes::from([b"[", records].concat());
    let next = Bytes::from([b",", records].concat());
    let times = bytes / first.len() as u64;
    let pieces = std::iter::once(first.clone())
        .chain(std::iter::repeat_n(next, times as usize))
        .chain(std::iter::once(Bytes::from_static(b"]")));
    Text::Pieces { length: first.len() as u64 * (times + 1) + 1, pieces: Box::new(pieces) }
}

/// The beginning of a body and its whole length.
fn beginning(text: Text) -> (Bytes, u64) {
    match text {
        Text::Whole(bytes) => {
            let length = bytes.len() as u64;
            (bytes, length)
        }
        Text::Pieces { length, mut pieces } => (pieces.next().unwrap_or_default(), length),
    }
}

fn piece(bytes: Bytes) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::once(async { Ok(bytes) })
}

/// Breaks off within the body: shorter than was announced, or announced as short as it is.
fn truncated(dice: &mut Dice, text: Text) -> Response {
    let (bytes, whole) = beginning(text);
    // Not nothing, which would be another fault, and never the last bracket.
    let kept = bytes.slice(..1 + dice.index(bytes.len().saturating_sub(1)).min(bytes.len().saturating_sub(2)));
    if dice.percent(40) {
        return with_length(kept.len() as u64, Body::from(kept));
    }
    // Through a stream, or the server would see that the lengths disagree and refuse to lie. The pause before the end
    // makes it send what it has: without it the client would see no response at all.
    let broken_off = stream::once(async {
        tokio::task::yield_now().await;
        Ok(Bytes::new())
    });
    with_length(whole, Body::from_stream(piece(kept).chain(broken_off)))
}

fn slow(text: Text) -> (Response, bool) {
    let bytes = match text {
        Text::Whole(bytes) => bytes,
        // Large ones are slow enough.
        pieces => {
            return (whole(Answer { text: pieces, next_page: None, tally: crate::counters::Tally::Nothing }), true);
        }
    };
    let length = bytes.len();
    let step = (length / SLOW_PIECES).max(1);
    let pieces = stream::iter((0..length).step_by(step)).then(move |at| {
        let piece = bytes.slice(at..(at + step).min(length));
        async move {
            tokio::time::sleep(SLOW_PIECE).await;
            Ok::<_, Infallible>(piece)
        }
    });
    (with_length(length as u64, Body::from_stream(pieces)), true)
}

/// Says nothing, or nothing more after half of the body.
async fn silent(dice: &mut Dice, text: Text, hands: Hands) -> Response {
    if dice.percent(50) {
        hands.be_silent().await;
        return StatusCode::OK.into_response();
    }
    let (bytes, whole) = beginning(text);
    let silence = stream::once(async move {
        hands.be_silent().await;
        Ok(Bytes::new())
    });
    with_length(whole, Body::from_stream(piece(bytes.slice(..bytes.len() / 2)).chain(silence)))
}

/// Resets the connection, before anything is answered or after half of the body.
fn reset(dice: &mut Dice, text: Text, hands: Hands) -> Response {
    if dice.percent(50) {
        hands.scissors.cut();
        return StatusCode::OK.into_response();
    }
    let (bytes, whole) = beginning(text);
    let rest = bytes.slice(bytes.len() / 2..);
    let cut = stream::once(async move {
        tokio::time::sleep(SEND_TIME).await;
        hands.scissors.cut();
        Ok(rest)
    });
    with_length(whole, Body::from_stream(piece(bytes.slice(..bytes.len() / 2)).chain(cut)))
}
