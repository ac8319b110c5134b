//! Tenants that are set up wrongly: what an administrator has done or left undone, as it looks from outside.
//!
//! Not to be confused with faults, which come and go: a broken tenant stays so until somebody mends it.

use std::str::FromStr;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::Error;
use crate::answers::json_response;

/// What is wrong with a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Broken {
    /// The client secret was right and is too old.
    ExpiredSecret,
    DisabledApplication,
    /// A Conditional Access policy for workload identities.
    ConditionalAccess,
    /// Nobody has consented: there are tokens, and they allow nothing.
    NoConsent,
    /// Far more was consented to than is needed.
    TooManyPermissions,
    /// `UnifiedAuditLogIngestionEnabled` is false.
    AuditingOff,
    /// Somebody has disabled the subscriptions, and starting them is refused.
    DisabledSubscriptions,
    /// The clocks differ by twenty minutes.
    ClockApart,
}

impl Broken {
    pub const ALL: [(Broken, &'static str); 8] = [
        (Broken::ExpiredSecret, "expired_secret"),
        (Broken::DisabledApplication, "disabled_application"),
        (Broken::ConditionalAccess, "conditional_access"),
        (Broken::NoConsent, "no_consent"),
        (Broken::TooManyPermissions, "too_many_permissions"),
        (Broken::AuditingOff, "auditing_off"),
        (Broken::DisabledSubscriptions, "disabled_subscriptions"),
        (Broken::ClockApart, "clock_apart"),
    ];
}

impl FromStr for Broken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Broken, Error> {
        let found = Broken::ALL.into_iter().find(|(_, name)| *name == text);
        found.map(|(broken, _)| broken).ok_or_else(|| Error::UnknownBroken { given: text.to_owned() })
    }
}

/// Why the token endpoint gives no token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenRefusal {
    pub(crate) status: StatusCode,
    pub(crate) error: &'static str,
    pub(crate) number: u32,
    pub(crate) text: &'static str,
}

impl TokenRefusal {
    pub(crate) fn client(number: u32, text: &'static str) -> TokenRefusal {
        TokenRefusal { status: StatusCode::UNAUTHORIZED, error: "invalid_client", number, text }
    }

    pub(crate) fn request(error: &'static str, number: u32, text: &'static str) -> TokenRefusal {
        TokenRefusal { status: StatusCode::BAD_REQUEST, error, number, text }
    }

    /// Numbers stand in the body twice: in the text and by themselves.
    pub(crate) fn body(&self, now: DateTime<Utc>, correlation: &str) -> Value {
        json!({
            "error": self.error,
            "error_description": format!("AADSTS{}: {}", self.number, self.text),
            "error_codes": [self.number],
            "timestamp": now.format("%Y-%m-%d %H:%M:%SZ").to_string(),
            "trace_id": correlation,
            "correlation_id": correlation,
        })
    }
}

/// Why a tenant that is broken so gives no token, whatever the credential.
pub(crate) fn refuse_token(broken: &[Broken]) -> Option<TokenRefusal> {
    broken.iter().find_map(|broken| match broken {
        Broken::ExpiredSecret => Some(TokenRefusal::client(7_000_222, "The provided client secret keys are expired.")),
        Broken::DisabledApplication => {
            Some(TokenRefusal::request("unauthorized_client", 7_000_112, "Application is disabled."))
        }
        Broken::ConditionalAccess => {
            Some(TokenRefusal::request("invalid_grant", 53_003, "Access has been blocked by Conditional Access."))
        }
        _ => None,
    })
}

/// The application permissions in a token for this API.
pub(crate) fn roles(broken: &[Broken], audience: &str) -> &'static [&'static str] {
    let for_graph = audience.contains("graph");
    if broken.contains(&Broken::NoConsent) {
        &[]
    } else if broken.contains(&Broken::TooManyPermissions) {
        match for_graph {
            true => &["AuditLogsQuery.Read.All", "Mail.ReadWrite", "Directory.ReadWrite.All"],
            false => &["ActivityFeed.Read", "ActivityFeed.ReadDlp", "ServiceHealth.Read"],
        }
    } else {
        if for_graph { &["AuditLogsQuery.Read.All"] } else { &["ActivityFeed.Read"] }
    }
}

/// What a broken tenant answers instead. `subject` names the call.
pub(crate) fn answer(broken: &[Broken], subject: &str, tenant_id: &str) -> Option<Response> {
    let (code, message) = broken.iter().find_map(|broken| match broken {
        Broken::NoConsent => Some((
            "AF10001".to_owned(),
            "The permission set () sent in the request does not include the expected permission ActivityFeed.Read."
                .to_owned(),
        )),
        // The code is the beginning of a sentence.
        Broken::AuditingOff => Some((
            format!("{subject} [CorrId=00000000-0000-0000-0000-000000000000][TenantId={tenant_id}][AppId"),
            format!("=0] failed. Exception: Microsoft.Office.Compliance.Audit.DataServiceException: Tenant {tenant_id} does not exist."),
        )),
        Broken::DisabledSubscriptions if subject.starts_with("subscriptions/start") || subject.starts_with("content ") => {
            Some(("AF20023".to_owned(), "The subscription was disabled by a tenant admin.".to_owned()))
        }
        _ => None,
    })?;
    Some(json_response(StatusCode::BAD_REQUEST, &json!({"error": {"code": code, "message": message}})))
}

/// What the served clock shows in `Date`.
#[derive(Clone)]
pub(crate) struct ServedClock {
    pub(crate) end: DateTime<Utc>,
    pub(crate) started: tokio::time::Instant,
    pub(crate) is_apart: bool,
}

/// Answers carry the time of the played world, not that of the machine it is played on.
pub(crate) async fn date(State(clock): State<ServedClock>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let apart = if clock.is_apart { TimeDelta::minutes(20) } else { TimeDelta::zero() };
    let now = clock.end + TimeDelta::from_std(clock.started.elapsed()).unwrap_or_default() + apart;
    if let Ok(value) = HeaderValue::from_str(&now.format("%a, %d %b %Y %H:%M:%S GMT").to_string()) {
        response.headers_mut().insert(header::DATE, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        for (broken, name) in Broken::ALL {
            assert_eq!(name.parse::<Broken>().unwrap(), broken);
        }
        assert!("well".parse::<Broken>().is_err());
    }
}
