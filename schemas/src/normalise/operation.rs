//! What was done, whether it worked, and how much of it a record stands for.

use std::collections::HashSet;

use crate::document::{Node, View};
use crate::event::{DefectKind, Event, Value};
use crate::field::{self, Reading};
use crate::normalise::{record_type, sources, text};
use crate::path::Scalar;

/// Most message ids kept of one record. Microsoft's own records stay in the tens; a bulk deletion may list thousands.
const MESSAGE_IDS_MAX: usize = 10_000;

/// Largest believable `OperationCount`. Sums over many records must not overflow because of one wrong record.
const OPERATION_COUNT_MAX: i64 = 1_000_000;

/// The number of the record type, which exports give by name.
pub(crate) fn record_type(scalar: &Scalar<'_>) -> Reading {
    text::enumerated(scalar, record_type::number)
}

/// The name of the record type. A record that gives a name we have no number for keeps its name.
pub(crate) fn record_type_name(event: &Event) -> Reading {
    if let Value::Integer(number) = event.get(field::RECORD_TYPE) {
        return match record_type::name(*number) {
            Some(name) => Reading::Value(Value::Text(name.to_owned())),
            None => Reading::Nothing,
        };
    }
    match event.record().get("RecordType").and_then(Scalar::of) {
        Some(scalar @ Scalar::Text(_)) => text::trimmed(&scalar),
        _ => Reading::Nothing,
    }
}

/// The operation in the form that is compared.
pub(crate) fn key(event: &Event) -> Reading {
    let Some(operation) = event.text(field::OPERATION) else { return Reading::Nothing };
    Reading::Value(Value::Text(operation_key(operation)))
}

/// An operation for comparing, as [`field::OPERATION_KEY`] has it.
pub fn operation_key(operation: &str) -> String {
    let trimmed = operation.trim();
    let bare = trimmed.strip_suffix('.').map(str::trim_end).filter(|bare| !bare.is_empty()).unwrap_or(trimmed);
    bare.chars().map(plain_dash).flat_map(char::to_lowercase).collect()
}

/// Every dash as `-`. U+FFFD is what an en dash becomes in a pipeline that mistakes the encoding; no operation has
/// another character outside ASCII.
fn plain_dash(c: char) -> char {
    if matches!(c, '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{FFFD}') { '-' } else { c }
}

/// Whether it worked.
///
/// A sign-in is judged by its operation and error number only: `ResultStatus` says `Success` on more than half of the
/// wrong passwords. Everything else is judged by `ResultStatus`, whose words differ by workload; where a workload
/// writes none (SharePoint, Teams), the outcome is unknown rather than assumed.
pub(crate) fn outcome(event: &Event) -> Reading {
    let outcome = match event.text(field::OPERATION_KEY) {
        Some("userloggedin") => sign_in(event, Outcome::Success),
        Some("userloginfailed") => sign_in(event, Outcome::Failure),
        _ => by_result_status(event),
    };
    Reading::Value(Value::Text(outcome.as_str().to_owned()))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Success,
    Failure,
    /// A sign-in that was neither: the user was asked for something more, or the browser tried without being asked.
    Interrupted,
    Unknown,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Outcome::Success => "success",
            Outcome::Failure => "failure",
            Outcome::Interrupted => "interrupted",
            Outcome::Unknown => "unknown",
        }
    }
}

/// `said` is what the operation's name says, which holds where there is neither an error number nor, as in records of
/// 2020, an error name that says it was an interruption (`UserStrongAuthClientAuthNRequiredInterrupt`). An unknown
/// number is an interruption: counted as failures, Microsoft's many prompts would drown every count of wrong passwords.
fn sign_in(event: &Event, said: Outcome) -> Outcome {
    match event.get(field::ERROR_NUMBER) {
        Value::Integer(0 | 50140) if said == Outcome::Success => Outcome::Success,
        Value::Integer(number) => {
            let known = SIGN_IN_ERRORS.iter().find(|(known, ..)| known == number);
            known.map_or(Outcome::Interrupted, |(_, outcome, _)| *outcome)
        }
        _ => {
            let name = event.record().get("LogonError").and_then(Node::as_str).unwrap_or_default();
            if name.trim_end().ends_with("Interrupt") { Outcome::Interrupted } else { said }
        }
    }
}

/// Error numbers of sign-ins (AADSTS numbers), what they make of the sign-in, and a word on each. A failure is a
/// refusal: of the password, the account, the second factor, or by policy.
const SIGN_IN_ERRORS: &[(i64, Outcome, &str)] = &[
    (50126, Outcome::Failure, "wrong password"),
    (50034, Outcome::Failure, "no such user"),
    (50053, Outcome::Failure, "locked, or the address is known as malicious"),
    (50056, Outcome::Failure, "no password"),
    (50057, Outcome::Failure, "the account is disabled"),
    (50020, Outcome::Failure, "the user is not of this tenant"),
    (50064, Outcome::Failure, "credentials of an outside user refused"),
    (90072, Outcome::Failure, "the outside user is not known here"),
    (50105, Outcome::Failure, "the user is not assigned to the application; the password was right"),
    (50131, Outcome::Failure, "refused by policy; the password was right"),
    (53000, Outcome::Failure, "the device is not compliant; the password was right"),
    (53001, Outcome::Failure, "the device is not joined; the password was right"),
    (53002, Outcome::Failure, "the application is not approved; the password was right"),
    (53003, Outcome::Failure, "blocked by conditional access; the password was right"),
    (53004, Outcome::Failure, "risk forbids enrolling a second factor; the password was right"),
    (500121, Outcome::Failure, "the second factor was denied or timed out; the password was right"),
    (900941, Outcome::Failure, "consent to a risky application refused"),
    (0, Outcome::Interrupted, "an error record without an error"),
    (50055, Outcome::Interrupted, "the password was right and has expired"),
    (50072, Outcome::Interrupted, "must enrol a second factor; the password was right"),
    (50074, Outcome::Interrupted, "asked for the second factor; the password was right"),
    (50076, Outcome::Interrupted, "asked for the second factor; the password was right"),
    (50079, Outcome::Interrupted, "must enrol a second factor; the password was right"),
    (50078, Outcome::Interrupted, "the second factor has expired; the password was right"),
    (50125, Outcome::Interrupted, "must reset the password"),
    (50135, Outcome::Interrupted, "must change the password"),
    (50158, Outcome::Interrupted, "sent to an outside challenge; the password was right"),
    (50058, Outcome::Interrupted, "silent attempt without a session"),
    (50089, Outcome::Interrupted, "the page stood open too long"),
    (50097, Outcome::Interrupted, "the device must identify itself"),
    (50132, Outcome::Interrupted, "the session has ended"),
    (50133, Outcome::Interrupted, "the session was revoked"),
    (50173, Outcome::Interrupted, "the password was changed since; must sign in again"),
    (50140, Outcome::Interrupted, "asked whether to stay signed in"),
    (50199, Outcome::Interrupted, "asked to confirm the application"),
    (50196, Outcome::Interrupted, "the client asked in a loop"),
    (50011, Outcome::Interrupted, "the application is set up wrongly"),
    (65001, Outcome::Interrupted, "asked for consent"),
    (1_000_000, Outcome::Interrupted, "the page before the sign-in"),
];

fn by_result_status(event: &Event) -> Outcome {
    let Some(scalar) = event.record().get("ResultStatus").and_then(Scalar::of) else { return Outcome::Unknown };
    let Some(status) = text::saying(&scalar) else { return Outcome::Unknown };
    let known = RESULT_STATUSES.iter().find(|(word, _)| status.trim().eq_ignore_ascii_case(word));
    known.map_or(Outcome::Unknown, |(_, outcome)| *outcome)
}

/// What the workloads write into `ResultStatus`. A change that succeeded in part has had an effect, and an effect is
/// what detection asks for.
const RESULT_STATUSES: &[(&str, Outcome)] = &[
    ("True", Outcome::Success),
    ("Success", Outcome::Success),
    ("Succeeded", Outcome::Success),
    ("PartiallySucceeded", Outcome::Success),
    ("False", Outcome::Failure),
    ("Failed", Outcome::Failure),
    ("Failure", Outcome::Failure),
    ("Fail", Outcome::Failure),
    ("Error", Outcome::Failure),
];

/// The messages it touched, each once, in the order of the record.
pub(crate) fn internet_message_ids(event: &Event) -> Reading {
    let mut found = Vec::new();
    for path in sources(field::INTERNET_MESSAGE_IDS) {
        path.select_record(event.record(), &mut found);
    }
    let mut seen = HashSet::with_capacity(found.len());
    let mut ids = Vec::new();
    for text in found.iter().filter_map(text::saying) {
        if seen.contains(text.trim()) {
            continue;
        }
        if ids.len() == MESSAGE_IDS_MAX {
            return Reading::Odd(Value::TextList(ids), DefectKind::Truncated);
        }
        ids.push(text.trim().to_owned());
        seen.insert(text.trim().to_owned());
    }
    if ids.is_empty() { Reading::Nothing } else { Reading::Value(Value::TextList(ids)) }
}

/// How many items the record stands for. A Sync record is one folder of unknown size, and counts as one.
pub(crate) fn item_count(event: &Event) -> Reading {
    let count = match event.text(field::OPERATION_KEY) {
        Some("mailitemsaccessed" | "attachmentaccess") => messages_accessed(event),
        _ => list_length(event.record().get("AffectedItems")),
    };
    Reading::Value(Value::Integer(count.max(1)))
}

fn messages_accessed(event: &Event) -> i64 {
    let is_sync = event.text(field::MAIL_ACCESS_TYPE).is_some_and(|kind| kind.eq_ignore_ascii_case("Sync"));
    if is_sync {
        return 1;
    }
    let count = event.record().get("OperationCount").and_then(Scalar::of);
    match count.as_ref().and_then(text::whole_number) {
        Some(count @ 1..=OPERATION_COUNT_MAX) => count,
        _ => match event.record().get("Folders").map(Node::view) {
            Some(View::Array(folders)) => folders.map(|folder| list_length(folder.get("FolderItems"))).sum(),
            _ => 0,
        },
    }
}

fn list_length(list: Option<Node<'_>>) -> i64 {
    match list.map(Node::view) {
        Some(View::Array(items)) => items.count() as i64,
        _ => 0,
    }
}
