//! The words of the API: its errors, and how each fault looks from outside.
//!
//! Only a few HTTP statuses are documented (`AF20024` 400, `AF429` 403, `AF50000` 500); clients should decide by the
//! code in the body, and this table is the one place where a status is chosen.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use serde_json::{Value, json};

use crate::dice::Dice;

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
    AlreadyEnabled,
    WindowNotAllowed,
    WindowReversed,
    StalePage,
    ContentUnknown,
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
            Refusal::ContentUnknown => StatusCode::NOT_FOUND,
            Refusal::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    fn code(self) -> &'static str {
        match self {
            Refusal::Unauthorized => "Unauthorized",
            Refusal::MissingParameter(_) => "AF20001",
            Refusal::WrongParameterType(_) => "AF20002",
            Refusal::OtherTenant => "AF20010",
            Refusal::TenantNotGuid => "AF20013",
            Refusal::UnknownContentType => "AF20020",
            Refusal::NoSubscription => "AF20022",
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

/// Throttled: the code is in the body, the status is 403, and how long to wait is said only sometimes.
pub(crate) fn throttled(dice: &mut Dice) -> Response {
    let mut response = Refusal::TooManyRequests.into_response();
    if dice.percent(50) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

pub(crate) fn server_error(dice: &mut Dice) -> Response {
    let mut response = Refusal::Internal.into_response();
    if dice.percent(60) {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

/// Promises the whole body and breaks off within it.
pub(crate) fn truncated(dice: &mut Dice, body: String) -> Response {
    let whole = body.len();
    let kept = dice.index(whole);
    let part = Bytes::from(body).slice(..kept);
    // Through a stream, or the server would see that the lengths disagree and refuse to lie. The pause before the end
    // makes it send what it has: without it the client would see no response at all.
    let begun = stream::once(async { Ok::<Bytes, Infallible>(part) });
    let broken_off = stream::once(async {
        tokio::task::yield_now().await;
        Ok(Bytes::new())
    });
    let stream = Body::from_stream(begun.chain(broken_off));
    let mut response = Response::new(stream);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(whole));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    response
}
