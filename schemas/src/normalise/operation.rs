use crate::event::Event;
use crate::field::Reading;
pub(crate) fn record_type_name(_: &Event) -> Reading {
    Reading::Nothing
}
pub(crate) fn key(_: &Event) -> Reading {
    Reading::Nothing
}
pub(crate) fn outcome(_: &Event) -> Reading {
    Reading::Nothing
}
pub(crate) fn internet_message_ids(_: &Event) -> Reading {
    Reading::Nothing
}
pub(crate) fn item_count(_: &Event) -> Reading {
    Reading::Nothing
}
pub(crate) fn forward_targets(_: &Event) -> Reading {
    Reading::Nothing
}
