use crate::event::Event;
use crate::field::Reading;
pub(crate) fn ip(_: &serde_json::Value) -> Reading {
    Reading::Nothing
}
pub(crate) fn port(_: &Event) -> Reading {
    Reading::Nothing
}
pub(crate) fn network(_: &Event) -> Reading {
    Reading::Nothing
}
