use crate::event::Value;
use crate::field::Reading;
pub(crate) fn of(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { Value::Text(text.to_owned()) }
}
pub(crate) fn trimmed(_: &serde_json::Value) -> Reading {
    Reading::Nothing
}
pub(crate) fn verbatim(_: &serde_json::Value) -> Reading {
    Reading::Nothing
}
pub(crate) fn integer(_: &serde_json::Value) -> Reading {
    Reading::Nothing
}
pub(crate) fn boolean(_: &serde_json::Value) -> Reading {
    Reading::Nothing
}
