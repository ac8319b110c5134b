use proptest::prelude::*;
use serde_json::{Value, json};

use super::keys::COMPARED_KEYS_MAX;
use super::*;

fn parse(text: &str) -> Document {
    Document::parse(text.as_bytes()).unwrap()
}

#[test]
fn a_document_holds_what_the_text_says() {
    for text in [
        "null",
        "[]",
        "{}",
        r#"{"a":[1,-2,0.5,true,null,"\u0041\n",[[],{}]],"b":{"c":{"d":"é"}},"":1}"#,
        "18446744073709551615",
        "1e300",
        // A place as Entra writes it: with more digits than a double holds, and rounded to the nearest.
        "78.376632690429688",
    ] {
        assert_eq!(parse(text).root().to_json(), serde_json::from_str::<Value>(text).unwrap(), "{text}");
    }
}

#[test]
fn members_are_found_and_subtrees_are_skipped() {
    let document = parse(r#"{"a":{"x":{"y":1}},"b":[{"a":2}],"x":3}"#);
    let root = document.root();
    assert_eq!(root.get("x").unwrap().to_json(), json!(3));
    assert_eq!(root.get("a").unwrap().get("x").unwrap().to_json(), json!({"y": 1}));
    assert!(root.get("y").is_none());
    assert!(root.get("b").unwrap().get("a").is_none());
}

#[test]
fn the_last_of_equal_keys_counts_in_narrow_and_wide_objects() {
    for width in [0, COMPARED_KEYS_MAX - 1, COMPARED_KEYS_MAX, 3 * COMPARED_KEYS_MAX] {
        let filling: String = (0..width).map(|number| format!("\"k{number}\":[{number}],")).collect();
        let document = parse(&format!("{{\"a\":{{\"b\":1}},{filling}\"a\":2,\"a\":3}}"));
        assert_eq!(document.repeated_key(), Some("a"), "{width}");
        assert_eq!(document.root().get("a").unwrap().to_json(), json!(3), "{width}");
        let View::Object(members) = document.root().view() else { panic!() };
        assert_eq!(members.count(), width + 1);
        for key in (0..width).map(|number| format!("k{number}")) {
            let members = format!("{filling}\"{key}\":true,\"new\":1,\"new\":2");
            let text = format!("{{{members},\"z\":{{{members}}}}}");
            both_read_the_same(text.as_bytes());
            assert_eq!(parse(&text).root().get(&key).unwrap().to_json(), json!(true), "{width} {key}");
        }
    }
    assert_eq!(parse(r#"{"a":{"k":1},"b":{"k":2}}"#).repeated_key(), None);
    // Objects end from the inside out; the first key that is there again is told.
    assert_eq!(parse(r#"{"a":1,"a":{"b":1,"b":2}}"#).repeated_key(), Some("a"));
    assert_eq!(parse(r#"{"a":{"b":1,"b":2},"c":1,"a":1}"#).repeated_key(), Some("b"));
}

/// Both ways of reading take the same and read it as the same.
fn both_read_the_same(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match (scan::read(bytes), plain::read(bytes)) {
        (None, Err(_)) => {}
        (Some(scanned), Ok(plain)) => {
            assert_eq!(scanned.repeated_key, plain.repeated_key, "{text:?}");
            assert_eq!(scanned.root().to_json(), plain.root().to_json(), "{text:?}");
            let slots = |document: &Document| -> Vec<(Kind, u32, bool)> {
                document.slots.iter().map(|slot| (slot.kind, slot.end, slot.replaced)).collect()
            };
            assert_eq!(slots(&scanned), slots(&plain), "{text:?}");
            assert_eq!(scanned.outermost.hashes, plain.outermost.hashes, "{text:?}");
            same_members(scanned.root(), plain.root());
        }
        (Some(_), Err(error)) => panic!("only the scan takes {text:?}: {error}"),
        (None, Ok(_)) => panic!("the scan leaves out {text:?}"),
    }
}

/// Every key that there is, and one that there is not, finds the same.
fn same_members(scanned: Node<'_>, plain: Node<'_>) {
    match (scanned.view(), plain.view()) {
        (View::Object(of_scanned), View::Object(of_plain)) => {
            for (key, value) in of_plain {
                assert_eq!(scanned.get(key).unwrap().to_json(), value.to_json(), "{key}");
                same_members(scanned.get(key).unwrap(), value);
                let longer = format!("{key} ");
                assert_eq!(scanned.get(&longer).is_some(), plain.get(&longer).is_some());
            }
            assert_eq!(of_scanned.count(), plain.to_json().as_object().unwrap().len());
        }
        (View::Array(of_scanned), View::Array(of_plain)) => {
            of_scanned.zip(of_plain).for_each(|(scanned, plain)| same_members(scanned, plain));
        }
        _ => {}
    }
}

#[test]
fn what_parsers_disagree_about_is_read_alike() {
    for text in [
        "1e400",
        "-0",
        "-0.0",
        "00",
        "01",
        "1.",
        ".5",
        "+1",
        "1e",
        "18446744073709551616",
        "-9223372036854775809",
        "123456789012345678901234567890.5",
        "0.1e-400",
        "\"\\ud800\"",
        "\"\\ud83d\\ude00\"",
        "\"\\udc00\\ud800\"",
        "\"\\udc00\\udc00\"",
        "\"\\ud800\\ud800\"",
        "\"\\ud800xxdc00\"",
        "\"\\ud800\\xdc00\"",
        "\"\t\"",
        "\"\u{7f}\"",
        "\"\u{0}\"",
        "\"\\x\"",
        "\"\\u12\"",
        "[1,]",
        "{\"a\":1,}",
        "{a:1}",
        "[1 2]",
        "tru",
        "nul",
        "\u{feff}{}",
        "{} x",
        "{}\u{0}",
        " \t\r\n{} ",
        "NaN",
        "Infinity",
        "[",
        "\"",
        "",
    ] {
        both_read_the_same(text.as_bytes());
    }
    both_read_the_same(b"\"\xff\"");
    both_read_the_same(b"{\"\xc3\":1}");
    both_read_the_same(b"\"\xed\xa0\x80\"");
    for depth in [126, 127, 128, 129, 300] {
        let text = "[".repeat(depth) + &"]".repeat(depth);
        both_read_the_same(text.as_bytes());
        assert_eq!(Document::parse(text.as_bytes()).is_ok(), depth < 128, "{depth}");
    }
}

#[test]
fn too_many_keys_are_refused() {
    let keys: String = (0..OBJECT_KEYS_MAX).map(|number| format!("\"{number}\":0,")).collect();
    assert!(Document::parse(format!("{{{}}}", keys.trim_end_matches(',')).as_bytes()).is_ok());
    assert!(Document::parse(format!("{{{keys}\"z\":0}}").as_bytes()).is_err());
    // Those of two objects are none of one.
    assert!(Document::parse(format!("{{{keys}\"z\":{{\"z\":0}}}}").as_bytes()).is_err());
    assert!(Document::parse(format!("[{{{}}},{{\"z\":0}}]", keys.trim_end_matches(',')).as_bytes()).is_ok());
}

/// One of very many keys is found by its name, of equal ones the last, also where they all share a hash.
#[test]
fn one_of_many_keys_is_found_by_its_name() {
    let key = |number: usize| format!("begins__{number:06}__ending");
    let members: String = (0..20_000).map(|number| format!("\"{}\":{number},", key(number))).collect();
    let document = parse(&format!("{{\"Operation\":1,{members}\"{}\":true,\"last\":null}}", key(7)));
    assert_eq!(document.outermost.by_name.len(), 20_002);
    let found = |key: &str| document.root().get(key).map(Node::to_json);
    for number in (0..20_000).filter(|number| *number != 7) {
        assert_eq!(found(&key(number)), Some(json!(number)));
    }
    assert_eq!(
        (found(&key(7)), found("Operation"), found("last")),
        (Some(json!(true)), Some(json!(1)), Some(json!(null)))
    );
    assert_eq!(found(&key(20_000)), None);
}

/// Marks are made a block at a time: a string may end, or need a closer look, at every place of one.
#[test]
fn strings_of_every_length_and_place_end_where_they_end() {
    for length in 0..200 {
        for ending in ["", "\\n", "\\\"", "\\\\", "\\u00e9", "\\ud83d\\ude00", "é", "\u{1}", "\\", "\\u12", "\""] {
            let text = format!("{{\"k\":\"{}{ending}\",\"z\":[\"{}\"]}}", "x".repeat(length), "y".repeat(length / 2));
            both_read_the_same(text.as_bytes());
            both_read_the_same(&text.as_bytes()[..text.len() - 1]);
        }
    }
}

/// Keys whose quick hash is the same are told apart all the same, few or many of them.
#[test]
fn keys_that_share_a_hash_stay_different_keys() {
    let key = |number: usize| format!("begins__{number:03}__ending");
    assert_eq!(keys::hash(key(1).as_bytes()), keys::hash(key(2).as_bytes()));
    for count in [1, 2, 4, 5, 6, 7, 20, 300] {
        let members: Vec<String> = (0..count).map(|number| format!("\"{}\":{number}", key(number))).collect();
        let members = members.join(",");
        both_read_the_same(format!("{{{members}}}").as_bytes());
        both_read_the_same(format!("{{\"a\":{{{members}}},{members}}}").as_bytes());
        for again in [0, count / 2, count - 1] {
            let text = format!("{{{members},\"{}\":true,\"x\":{{{members}}}}}", key(again));
            both_read_the_same(text.as_bytes());
            assert_eq!(parse(&text).root().get(&key(again)).unwrap().to_json(), json!(true), "{count} {again}");
        }
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 60, 8, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            proptest::collection::vec(("[a-c]{0,2}", inner), 0..8)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Text that is nearly always JSON, written as no serialiser would: spaces, escapes that stand for plain letters,
/// keys twice, numbers of every form, name/value arrays of odd shapes; now and then a slip.
fn any_text() -> impl Strategy<Value = String> {
    let string = prop_oneof![
        6 => r#"(Name|Value|NewValue|OldValue|Key|Id|a|\\u0061|\\u004eame|[a-z]{1,30})"#,
        2 => r#"([a-c ]|\\[nrtbf/"\\]|\\u00[0-9a-fA-F]{2}|\\ud83d\\ude0[0-9]|é|😀){0,6}"#,
        1 => r#"(\\ud[89a-f]00|\\u12|\\x|[a-b]){0,3}"#,
    ];
    let string = string.prop_map(|inner| format!("\"{inner}\"")).boxed();
    let leaf = prop_oneof![
        4 => string.clone(),
        1 => "(null|true|false|tru|\\-)",
        2 => r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?",
        1 => "[-+.0-9eE]{1,6}",
    ];
    let space = prop_oneof![8 => Just(String::new()), 1 => "[ \n\r\t]{1,3}"].boxed();
    leaf.prop_recursive(5, 80, 8, move |inner| {
        let member = (space.clone(), string.clone(), space.clone(), inner.clone())
            .prop_map(|(before, key, after, value)| format!("{before}{key}{after}:{before}{value}{after}"));
        let item = (space.clone(), inner).prop_map(|(space, value)| format!("{space}{value}{space}"));
        prop_oneof![
            proptest::collection::vec(item, 0..6).prop_map(|items| format!("[{}]", items.join(","))),
            proptest::collection::vec(member, 0..8).prop_map(|members| format!("{{{}}}", members.join(","))),
        ]
    })
}

proptest! {
    #[test]
    fn any_value_is_read_as_serde_json_reads_it(value in any_json()) {
        prop_assert_eq!(parse(&value.to_string()).root().to_json(), value);
    }

    #[test]
    fn both_parsers_read_the_same(value in any_json(), at in 0_usize..200, byte in any::<u8>()) {
        let mut bytes = value.to_string().into_bytes();
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        both_read_the_same(&bytes);
    }

    #[test]
    fn any_bytes_are_parsed_or_refused_as_serde_json_does(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let theirs = serde_json::from_slice::<Value>(&bytes);
        prop_assert_eq!(Document::parse(&bytes).is_ok(), theirs.is_ok());
        both_read_the_same(&bytes);
    }

    #[test]
    fn json_like_text_is_parsed_or_refused_as_serde_json_does(text in r#"[\[\]{}",:a1e.\\u \-]{0,40}"#) {
        let theirs = serde_json::from_str::<Value>(&text);
        both_read_the_same(text.as_bytes());
        let ours = Document::parse(text.as_bytes());
        prop_assert_eq!(ours.is_ok(), theirs.is_ok());
        if let (Ok(ours), Ok(theirs)) = (ours, theirs) {
            prop_assert_eq!(ours.root().to_json(), theirs);
        }
    }

    #[test]
    fn text_as_nobody_writes_it_is_read_alike(text in any_text(), at in 0_usize..400, byte in any::<u8>()) {
        both_read_the_same(text.as_bytes());
        let mut bytes = text.into_bytes();
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        both_read_the_same(&bytes);
        bytes.truncate(at);
        both_read_the_same(&bytes);
    }
}
