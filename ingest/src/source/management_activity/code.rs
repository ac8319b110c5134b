//! Every error of the API in one table, and how a response that is not an answer is understood.
//!
//! The HTTP status decides last: the service throttles with 403, refuses with 400, and most statuses are undocumented.
//! First comes the code in the body, then the codes that stand in a body that is not JSON, then known sentences.

use schemas::text::push_escaped;
use serde::Deserialize;

/// What to do about a refusal. See apis/01 of the reference for where each comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// What was asked for is so already.
    Done,
    /// Trouble at the other end: wait and try again.
    Wait,
    /// Too many requests: wait longer, and ask less at once.
    Throttled,
    /// The token is not accepted: get another one, once.
    Token,
    /// The feed has no subscription: start it, then try again.
    NoSubscription,
    /// Somebody has disabled the subscription: try to start it once, then tell.
    Disabled,
    /// The window is not allowed: compute it again.
    Window,
    /// The page is not valid any more: begin the window again.
    Page,
    /// The blob is not there.
    Gone,
    /// The blob is too old: its records are lost.
    Expired,
    /// This feed cannot be polled as it is configured.
    StopFeed,
    /// This tenant cannot be polled as it is configured.
    StopTenant,
    /// Not in the table: tell, wait and try again.
    Unknown,
}

/// One error of the API.
#[derive(Clone, Copy, Debug)]
pub struct Code {
    pub code: &'static str,
    pub class: Class,
    /// In plain words, with the cure where the operator has one.
    pub meaning: &'static str,
}

const fn code(code: &'static str, class: Class, meaning: &'static str) -> Code {
    Code { code, class, meaning }
}

/// Every code that is documented or has been seen.
pub const CODES: &[Code] = &[
    code(
        "AF10001",
        Class::StopTenant,
        "the token lacks a permission: grant the application permission ActivityFeed.Read (and ActivityFeed.ReadDlp for \
         DLP.All) on Office 365 Management APIs, with admin consent",
    ),
    code("AF20001", Class::StopFeed, "a parameter is missing: a defect of harrier"),
    code("AF20002", Class::StopFeed, "a parameter has the wrong type: a defect of harrier"),
    code("AF20003", Class::StopFeed, "the expiration of a webhook is in the past"),
    code("AF20010", Class::StopTenant, "tenant_id is not the tenant that the token was issued for"),
    code("AF20011", Class::StopTenant, "the tenant does not exist or was deleted"),
    code("AF20012", Class::StopTenant, "Microsoft has the tenant configured wrongly: ask Microsoft's support"),
    code("AF20013", Class::StopTenant, "tenant_id is not a GUID"),
    code("AF20020", Class::StopFeed, "there is no such content type: see content_types"),
    code("AF20021", Class::StopFeed, "the webhook of the subscription could not be validated"),
    code("AF20022", Class::NoSubscription, "there is no subscription for this content type"),
    code(
        "AF20023",
        Class::Disabled,
        "an administrator has disabled the subscription, perhaps to hide something: find out who, then start it again",
    ),
    code("AF20024", Class::Done, "the subscription is enabled already"),
    code(
        "AF20030",
        Class::Window,
        "start and end are not within seven days and 24 hours of each other: is the clock right?",
    ),
    code("AF20031", Class::Page, "the page is not valid any more"),
    code("AF20050", Class::Gone, "the content does not exist"),
    code("AF20051", Class::Expired, "the content is older than seven days and has been deleted: data loss"),
    code("AF20052", Class::Gone, "the content id is not valid"),
    code("AF20053", Class::StopFeed, "more than one language was asked for: a defect of harrier"),
    code("AF20054", Class::StopFeed, "the language asked for is not valid: a defect of harrier"),
    code("AF20055", Class::Window, "start and end are not in order or too far apart: is the clock right?"),
    code("AF429", Class::Throttled, "too many requests"),
    code("AF50000", Class::Wait, "an internal error of the service"),
    code("AF50005", Class::Wait, "an internal error of the service"),
    code("AF50006", Class::Wait, "an internal error of the service"),
];

/// What the service says, in varying words and under no fixed code, of a tenant without audit records.
const AUDITING_OFF: Code = code(
    "tenant_without_audit_log",
    Class::StopTenant,
    "the service knows no audit log of this tenant: turn auditing on (Set-AdminAuditLogConfig \
     -UnifiedAuditLogIngestionEnabled $true, effective within an hour), and check tenant_id",
);

/// How much of a body is searched for codes and sentences.
const SEARCHED_BYTES_MAX: usize = 16 * 1024;

/// A response that is no answer, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub class: Class,
    pub status: u16,
    /// The code, or its nearest equivalent; empty if there is none.
    pub code: String,
    /// In plain words; from the table where the code is in it.
    pub meaning: &'static str,
    /// What the service said, safe to print.
    pub message: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HTTP {}", self.status)?;
        for part in [self.code.as_str(), self.meaning, self.message.as_str()] {
            if !part.is_empty() {
                write!(f, ": {part}")?;
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct EnvelopeBody {
    error: ErrorBody,
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// Understands a response that is not what was asked for.
pub fn understand(status: u16, body: &[u8]) -> Refusal {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let envelope = serde_json::from_slice::<EnvelopeBody>(body).ok().map(|envelope| envelope.error);
    let text = String::from_utf8_lossy(&body[..body.len().min(SEARCHED_BYTES_MAX)]);
    let (code, message) = match &envelope {
        Some(error) => (error.code.as_str(), error.message.as_str()),
        None => ("", text.as_ref()),
    };
    let known = in_table(code).or_else(|| in_words(&text)).or_else(|| in_text(&text));
    let (class, meaning) = match known {
        Some(known) => (known.class, known.meaning),
        None => by_status(status),
    };
    let code = known.map_or(code, |known| known.code);
    Refusal { class, status, code: shown(code), meaning, message: shown(message) }
}

fn in_table(code: &str) -> Option<&'static Code> {
    CODES.iter().find(|known| known.code == code)
}

fn in_words(text: &str) -> Option<&'static Code> {
    let text = text.to_lowercase();
    if text.contains("too many request") {
        return in_table("AF429");
    }
    let tenant = text.find("tenant ")?;
    text[tenant..].contains(" does not exist").then_some(&AUDITING_OFF)
}

/// A known code anywhere in a body that is not the JSON it should be.
fn in_text(text: &str) -> Option<&'static Code> {
    let mut words = text.split(|c: char| !c.is_ascii_alphanumeric());
    words.find_map(in_table)
}

fn by_status(status: u16) -> (Class, &'static str) {
    match status {
        401 => (Class::Token, "the token is not accepted"),
        404 => (Class::Gone, "not found"),
        429 => (Class::Throttled, "too many requests"),
        408 | 500..=599 => (Class::Wait, "trouble at the service"),
        _ => (Class::Unknown, ""),
    }
}

/// How much of a text from outside is repeated in an error or a log line.
pub const SHOWN_CHARACTERS_MAX: usize = 300;

/// A text from outside, safe to print: cut, with everything escaped that could act on a terminal.
pub fn shown(text: &str) -> String {
    let mut out = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == SHOWN_CHARACTERS_MAX {
            out.push('…');
            break;
        }
        push_escaped(c, &mut out);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, body: &str) -> (Class, String) {
        let refusal = understand(status, body.as_bytes());
        (refusal.class, refusal.code)
    }

    #[test]
    fn every_code_is_understood_whatever_its_status_and_stands_once() {
        for (place, known) in CODES.iter().enumerate() {
            for status in [200, 400, 401, 403, 404, 500] {
                let body = format!(r#"{{"error":{{"code":"{}","message":"m"}}}}"#, known.code);
                assert_eq!(refusal(status, &body), (known.class, known.code.to_owned()));
                let pseudo = format!("{{'error': {{'code': '{}', 'message': 'm'}}}}", known.code);
                assert_eq!(refusal(status, &pseudo), (known.class, known.code.to_owned()));
            }
            assert!(CODES[..place].iter().all(|other| other.code != known.code));
        }
    }

    #[test]
    fn sentences_and_statuses_decide_where_there_is_no_code() {
        let auditing_off = r#"{"error":{"code":"StartSubscription [CorrId=1][TenantId=2,ContentType=Audit.General][AppId","message":"=3] failed. Exception: Microsoft.Office.Compliance.Audit.DataServiceException: Tenant 2 does not exist."}}"#;
        assert_eq!(refusal(400, auditing_off), (Class::StopTenant, "tenant_without_audit_log".into()));
        assert_eq!(refusal(403, "Too Many Requests. Method=GetBlob"), (Class::Throttled, "AF429".into()));
        for (status, class) in [
            (401, Class::Token),
            (404, Class::Gone),
            (408, Class::Wait),
            (429, Class::Throttled),
            (503, Class::Wait),
            (302, Class::Unknown),
            (400, Class::Unknown),
        ] {
            assert_eq!(refusal(status, "<html>").0, class, "{status}");
        }
        assert_eq!(refusal(400, r#"{"error":{"code":"AF99999","message":"new"}}"#), (Class::Unknown, "AF99999".into()));
    }

    #[test]
    fn texts_from_outside_are_cut_and_cannot_act() {
        assert_eq!(shown("a\x1b[31m\n\u{202e}é"), "a\\x1b[31m\\n\\u{202e}é");
        assert_eq!(shown(&"x".repeat(5_000)).chars().count(), SHOWN_CHARACTERS_MAX + 1);
        assert!(understand(500, &vec![0xff; 100_000]).to_string().len() < 2_000);
    }
}
