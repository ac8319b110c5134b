use crate::field::Reading;
pub(crate) fn utc(_: &serde_json::Value) -> Reading {
    Reading::Nothing
}
