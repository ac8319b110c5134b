use crate::event::Event;
use crate::field::Reading;
pub(crate) fn record_id(_: &Event) -> Reading {
    Reading::Nothing
}
pub(crate) fn mailbox_owner(_: &Event) -> Reading {
    Reading::Nothing
}
pub(crate) fn user(_: &serde_json::Value) -> Reading {
    Reading::Nothing
}
pub(crate) fn user_type(_: &serde_json::Value) -> Reading {
    Reading::Nothing
}
pub(crate) fn logon_type(_: &serde_json::Value) -> Reading {
    Reading::Nothing
}
pub(crate) fn key(_: &serde_json::Value) -> Reading {
    Reading::Nothing
}
pub(crate) fn case_sensitive_key(_: &serde_json::Value) -> Reading {
    Reading::Nothing
}
