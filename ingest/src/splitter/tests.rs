use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;

/// What a splitter made of a stream: each element's index, offset and bytes, and how it ended.
type Outcome = (Vec<(u64, u64, Result<Vec<u8>, TooLong>)>, Result<Summary, EndedEarly>);

fn split(framing: Framing, limit: usize, pushes: &[&[u8]]) -> Outcome {
    let mut splitter = Splitter::with_limit(framing, limit);
    let mut elements = Vec::new();
    let mut sink = |element: Element<'_>| {
        let body = match element.body {
            Body::Whole(bytes) => Ok(bytes.to_vec()),
            Body::TooLong(too_long) => Err(too_long),
        };
        elements.push((element.index, element.offset, body));
    };
    for push in pushes {
        splitter.push(push, &mut sink);
    }
    let end = splitter.finish(&mut sink);
    (elements, end)
}

fn texts(framing: Framing, stream: &str) -> Vec<String> {
    let (elements, _) = split(framing, ELEMENT_BYTES_MAX, &[stream.as_bytes()]);
    elements.into_iter().map(|(_, _, body)| String::from_utf8(body.unwrap()).unwrap()).collect()
}

fn ended(stream: &str) -> Result<Summary, EndedEarly> {
    split(Framing::Document, ELEMENT_BYTES_MAX, &[stream.as_bytes()]).1
}

#[test]
fn elements_of_an_array_come_out_as_they_stand() {
    let cases: &[(&str, &[&str])] = &[
        ("[]", &[]),
        (" [ ] \n", &[]),
        (r#"[{"a":1}]"#, &[r#"{"a":1}"#]),
        (
            r#"[ {"a":"],[{\"\\"} , 1 ,null, [1,[2]] ,"x,y" ]"#,
            &[r#"{"a":"],[{\"\\"}"#, "1", "null", "[1,[2]]", r#""x,y""#],
        ),
        ("\u{feff}[1]", &["1"]),
        // Damage stays within its element.
        (r#"[{"a":1},nonsense,{"b":2}]"#, &[r#"{"a":1}"#, "nonsense", r#"{"b":2}"#]),
        (r#"[{"a":1],{"b":2}]"#, &[r#"{"a":1]"#, r#"{"b":2}"#]),
        ("[1,,2,]", &["1", "", "2", ""]),
        ("[}]", &["}"]),
    ];
    for (stream, expected) in cases {
        assert_eq!(texts(Framing::Document, stream), *expected, "{stream}");
        assert!(ended(stream).unwrap().is_one_array(), "{stream}");
    }
}

#[test]
fn lone_values_and_several_documents_are_told_from_one_array() {
    for (stream, expected) in [
        (r#"{"error":{"code":"AF20022"}}"#, vec![r#"{"error":{"code":"AF20022"}}"#]),
        (r#"{"a":1}{"b":[2]} {"c":"}"}"#, vec![r#"{"a":1}"#, r#"{"b":[2]}"#, r#"{"c":"}"}"#]),
        ("[1]\n[2]", vec!["1", "2"]),
        ("<html>busy, wait</html>\n", vec!["<html>busy, wait</html>"]),
        ("[1] trailing", vec!["1", "trailing"]),
        ("", vec![]),
    ] {
        assert_eq!(texts(Framing::Document, stream), expected, "{stream}");
        assert!(!ended(stream).unwrap().is_one_array(), "{stream}");
    }
}

#[test]
fn a_stream_that_ends_early_is_never_whole() {
    let whole = r#"[{"a":"x\"y"},[1,{"b":2}],"s"]"#;
    for length in 1..whole.len() {
        assert!(ended(&whole[..length]).is_err(), "{}", &whole[..length]);
    }
    let early = ended(r#"[{"a":1},{"b":"#).unwrap_err();
    assert_eq!((early.elements, early.tail), (1, br#"{"b":"#.to_vec()));
}

#[test]
fn lines_are_numbered_and_damage_costs_one_line() {
    let stream = "{\"a\":1}\r\n\n{\"b\":\"\n  {\"c\":3}";
    let (elements, end) = split(Framing::Lines, ELEMENT_BYTES_MAX, &[stream.as_bytes()]);
    let lines: Vec<_> = elements.into_iter().map(|(line, offset, body)| (line, offset, body.unwrap())).collect();
    assert_eq!(lines, [(0, 0, b"{\"a\":1}".to_vec()), (2, 10, b"{\"b\":\"".to_vec()), (3, 17, b"{\"c\":3}".to_vec())]);
    assert_eq!(end.unwrap().elements, 3);
}

#[test]
fn an_element_over_the_limit_is_described_and_its_neighbours_are_kept() {
    let long = format!("\"{}\"", "x".repeat(200_000));
    let stream = format!("[1,{long},2]");
    let (elements, end) = split(Framing::Document, 1_000, &stream.as_bytes().chunks(77).collect::<Vec<_>>());
    assert!(end.unwrap().is_one_array());
    assert_eq!(elements[0].2, Ok(b"1".to_vec()));
    assert_eq!(elements[2].2, Ok(b"2".to_vec()));
    let too_long = elements[1].2.clone().unwrap_err();
    assert_eq!(too_long.length_bytes, long.len() as u64);
    assert_eq!(too_long.sha256, crate::hex(&Sha256::digest(long.as_bytes())));
    assert_eq!(too_long.prefix, &long.as_bytes()[..TOO_LONG_PREFIX_BYTES]);
}

#[test]
fn depth_costs_nothing() {
    let deep = format!("[{}{}]", "[".repeat(1_000_000), "]".repeat(1_000_000));
    assert_eq!(texts(Framing::Document, &deep).len(), 1);
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        ".{0,12}".prop_map(Into::into),
        r#"[\\"\[\]{},\n]{0,8}"#.prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(serde_json::Value::from),
            prop::collection::vec((".{0,6}", inner), 0..5)
                .prop_map(|entries| serde_json::Value::Object(entries.into_iter().collect())),
        ]
    })
}

/// Bytes that look like JSON often enough to reach every state.
fn near_json() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(b"[]{},:\"\\ \n1anul\xef\xbb\xbf".to_vec()), 0..60)
}

fn cut<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

proptest! {
    #[test]
    fn an_array_is_split_as_serde_json_reads_it(
        values in prop::collection::vec(json(), 0..8), pretty: bool, cuts: [prop::sample::Index; 4],
    ) {
        let text = if pretty { serde_json::to_string_pretty(&values) } else { serde_json::to_string(&values) }.unwrap();
        let expected: Vec<&RawValue> = serde_json::from_str(&text).unwrap();
        let (elements, end) = split(Framing::Document, ELEMENT_BYTES_MAX, &cut(text.as_bytes(), &cuts));
        prop_assert!(end.unwrap().is_one_array());
        prop_assert_eq!(elements.len(), expected.len());
        for ((_, offset, body), expected) in elements.into_iter().zip(expected) {
            prop_assert_eq!(body.unwrap(), expected.get().as_bytes());
            prop_assert!(text[offset as usize..].starts_with(expected.get()));
        }
    }

    #[test]
    fn whatever_serde_json_takes_for_an_array_so_does_the_splitter_and_no_more(bytes in near_json()) {
        let without_mark = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&bytes);
        let theirs = serde_json::from_slice::<Vec<&RawValue>>(without_mark).is_ok();
        let (elements, end) = split(Framing::Document, ELEMENT_BYTES_MAX, &[&bytes]);
        let all_json = elements.iter().all(|(_, _, body)| {
            serde_json::from_slice::<&RawValue>(body.as_deref().unwrap_or_default()).is_ok()
        });
        prop_assert_eq!(end.is_ok_and(|summary| summary.is_one_array()) && all_json, theirs);
    }

    #[test]
    fn how_the_stream_is_cut_changes_nothing(
        bytes in near_json(), cuts: [prop::sample::Index; 6], lines: bool, limit in 1_usize..40,
    ) {
        let framing = if lines { Framing::Lines } else { Framing::Document };
        let (mut whole, mut parts) = (split(framing, limit, &[&bytes]), split(framing, limit, &cut(&bytes, &cuts)));
        // How much of a cut-off element is held depends on the limit alone only up to the limit.
        for end in [&mut whole.1, &mut parts.1].into_iter().flat_map(|end| end.as_mut().err()) {
            end.tail.clear();
        }
        prop_assert_eq!(whole, parts);
    }
}
