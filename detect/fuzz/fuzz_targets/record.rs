//! Any bytes are a record or are refused; what is read agrees with serde_json, every field of it can be read, and the
//! index finds in it what the naive matcher finds.
#![no_main]

use std::sync::LazyLock;

use detect::matcher::Matcher;
use libfuzzer_sys::fuzz_target;
use schemas::Event;

static MATCHER: LazyLock<Matcher> = LazyLock::new(|| detect_fuzz::matcher(detect_fuzz::pack()));

fuzz_target!(|bytes: &[u8]| {
    let read = Event::read(&detect_fuzz::received(bytes));
    let is_object = serde_json::from_slice::<serde_json::Value>(bytes).is_ok_and(|value| value.is_object());
    if let Ok(event) = read {
        assert!(is_object, "read, and not an object for serde_json");
        event.defects().for_each(drop);
        detect_fuzz::assert_like_naive(&MATCHER, &event);
    }
});
