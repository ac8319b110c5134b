//! Any bytes are a record or are refused, as serde_json has it; what is read says what serde_json reads, under every key;
//! every field of it can be read, and the index finds in it what the naive matcher finds.
#![no_main]

use std::sync::LazyLock;

use detect::matcher::Matcher;
use libfuzzer_sys::fuzz_target;
use schemas::{Event, Node};
use serde_json::Value;

static MATCHER: LazyLock<Matcher> = LazyLock::new(|| detect_fuzz::matcher(detect_fuzz::pack()));

fuzz_target!(|bytes: &[u8]| {
    let read = Event::read(&detect_fuzz::received(bytes));
    let theirs = serde_json::from_slice::<Value>(bytes).ok().filter(Value::is_object);
    assert_eq!(read.is_ok(), theirs.is_some(), "one reads it and the other does not");
    let (Ok(event), Some(theirs)) = (read, theirs) else { return };
    assert_eq!(event.record().to_json(), theirs);
    assert_same_members(event.record(), &theirs);
    event.defects().for_each(drop);
    event.content_hash();
    detect_fuzz::assert_like_naive(&MATCHER, &event);
});

fn assert_same_members(ours: Node<'_>, theirs: &Value) {
    for (key, value) in theirs.as_object().into_iter().flatten() {
        let member = ours.get(key).expect("a key that serde_json finds");
        assert_eq!(member.to_json(), *value);
        assert_same_members(member, value);
    }
}
