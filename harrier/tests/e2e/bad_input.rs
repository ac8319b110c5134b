//! Files that are not what they should be: one clear line each, the right exit code, the good records kept, and the bad
//! ones in `dead_letters` with their place, reason and bytes.

use std::fmt::Write as _;
use std::path::PathBuf;

use schemas::message::DEAD_LETTER_PREFIX_BYTES;
use serde_json::Value;

use crate::binary::{Counts, Harrier};
use crate::sample::sign_in;

/// What a file should come to.
struct Case {
    name: &'static str,
    content: Vec<u8>,
    counts: Counts,
    /// A part of the one line on stderr; none if there is nothing to complain of.
    complaint: Option<&'static str>,
    /// Reason and bytes of the dead letters.
    dead: Vec<(&'static str, Vec<u8>)>,
}

fn counts(received: u64, admitted: u64, rejected: u64) -> Counts {
    Counts { received, admitted, rejected, ..Counts::default() }
}

fn case(
    name: &'static str,
    content: impl Into<Vec<u8>>,
    counts: Counts,
    complaint: Option<&'static str>,
    dead: &[(&'static str, &[u8])],
) -> Case {
    let dead = dead.iter().map(|(reason, bytes)| (*reason, bytes.to_vec())).collect();
    Case { name, content: content.into(), counts, complaint, dead }
}

fn cases() -> Vec<Case> {
    let (a, b) = (sign_in(1), sign_in(2));
    let cut = &b[..100];
    let deep = format!("{{\"Id\":\"deep\",\"x\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let twice = a.replacen("{\"CreationTime\"", "{\"Operation\":\"First\",\"CreationTime\"", 1);
    let mut not_utf8 = b.clone().into_bytes();
    not_utf8[60] = 0xff;
    let around = |middle: &[u8]| [a.as_bytes(), b"\n", middle, b"\n", sign_in(3).as_bytes(), b"\n"].concat();
    let quoted = |json: &str| format!("\"{}\"", json.replace('"', "\"\""));
    let csv =
        format!("CreationDate,UserIds,AuditData\r\n2026,x,{}\r\n2026,y,\r\n2026,z,{}\r\n", quoted(&a), quoted(&b));
    let utf16: Vec<u8> = [0xff, 0xfe].into_iter().chain(a.encode_utf16().flat_map(u16::to_le_bytes)).collect();
    let binary: Vec<u8> = (0..4_096u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8 | 0x80).collect();
    vec![
        case(
            "truncated.jsonl",
            format!("{a}\n{cut}"),
            counts(2, 1, 1),
            Some("truncated.jsonl:2: "),
            &[("JSON", cut.as_bytes())],
        ),
        case(
            "truncated.json",
            format!("[{a},\n{cut}"),
            counts(2, 1, 1),
            Some("truncated.json: record 2: the file ends within a record"),
            &[("cut off", cut.as_bytes())],
        ),
        case(
            "not-utf8.jsonl",
            around(&not_utf8),
            counts(3, 2, 1),
            Some("not-utf8.jsonl:2: "),
            &[("not JSON: invalid unicode", &not_utf8)],
        ),
        case("deep.jsonl", around(deep.as_bytes()), counts(3, 2, 1), Some("deep.jsonl:2: "), &[("", deep.as_bytes())]),
        case("key-twice.jsonl", format!("{twice}\n"), counts(1, 1, 0), None, &[]),
        case("empty.jsonl", "", counts(0, 0, 0), Some("empty.jsonl: is empty"), &[]),
        case(
            "no-audit-data.csv",
            "CreationDate,UserIds\nx,y\n",
            counts(0, 0, 0),
            Some("without an AuditData column"),
            &[],
        ),
        case(
            "empty-row.csv",
            csv,
            counts(3, 2, 1),
            Some("empty-row.csv: row 3: the row has no AuditData"),
            &[("no AuditData", b"2026,y,")],
        ),
        case("utf16.json", utf16, counts(0, 0, 0), Some("utf16.json: is UTF-16"), &[]),
        case(
            "binary.bin",
            binary.clone(),
            counts(1, 0, 1),
            Some("binary.bin: is neither JSON nor a CSV"),
            &[("", &binary)],
        ),
    ]
}

#[test]
fn each_bad_file_is_told_in_one_line_and_costs_only_what_is_bad() {
    for case in cases() {
        let harrier = Harrier::new();
        let file = harrier.file(case.name, &case.content);
        let (counts, ran) = harrier.import(&[file], &[]);
        assert_eq!(counts, case.counts, "{}\n{ran}", case.name);
        assert_eq!(ran.code, Some(i32::from(case.complaint.is_some())), "{}\n{ran}", case.name);
        let complaints = ran.complaints();
        match case.complaint {
            None => assert!(complaints.is_empty(), "{}\n{ran}", case.name),
            Some(expected) => {
                let about: Vec<_> = complaints.iter().filter(|line| line.contains(expected)).collect();
                assert_eq!(about.len(), 1, "{}: one line with {expected:?}\n{ran}", case.name);
                // A file that is kept as a dead letter is told twice: what it is, and that it was kept.
                assert!(complaints.len() <= 1 + case.dead.len(), "{}\n{ran}", case.name);
                assert!(complaints.iter().all(|line| line.contains(case.name)), "{}\n{ran}", case.name);
            }
        }
        assert_eq!(harrier.number("SELECT count(*) FROM events"), counts.admitted);
        let letters =
            harrier.rows("SELECT place, reason, encode(bytes, 'hex') AS bytes, length, sha256 FROM dead_letters");
        assert_eq!(letters.len(), case.dead.len(), "{letters:#?}");
        for (letter, (reason, bytes)) in letters.iter().zip(&case.dead) {
            let text = |name: &str| letter[name].as_str().unwrap_or_default().to_owned();
            assert!(text("reason").contains(reason), "{letter:#}");
            assert!(text("place").contains(case.name), "{letter:#}");
            assert_eq!(text("bytes"), hex(bytes), "{}: the bytes as they came", case.name);
            assert_eq!(letter["length"], bytes.len());
            assert_eq!(letter["sha256"], Value::Null, "all of it is there");
        }
    }
}

#[test]
fn a_key_that_stands_twice_is_noted_and_the_bytes_are_kept() {
    let harrier = Harrier::new();
    let twice = sign_in(1).replacen("{\"CreationTime\"", "{\"Operation\":\"First\",\"CreationTime\"", 1);
    let file = harrier.file("twice.jsonl", &twice);
    harrier.import(&[file], &[]);
    let rows = harrier.rows("SELECT raw, operation, defects FROM events");
    assert_eq!(rows[0]["raw"], twice.as_str());
    let defects = rows[0]["defects"].to_string();
    assert!(defects.contains("repeated_key"), "{defects}");
}

#[test]
fn what_is_too_large_is_kept_by_its_beginning_its_length_and_its_hash() {
    let harrier = Harrier::new();
    // Longer than is read at all, and no JSON but longer than a dead letter may be. The hashes were made by sha256sum:
    // without optimisation ours would take longer than all the rest.
    let long = format!("{{\"Id\":\"long\",\"x\":\"{}\"}}", "y".repeat(100_000_000));
    let large = format!("{{\"Id\":\"large\",\"x\":\"{}", "z".repeat(17_000_000));
    let expected = [
        (&long, "9718b26e61ad4f3f5a43a4347dd936a3ec5b9e9cc141a777100a8e63ff66a277", "longer than harrier reads"),
        (&large, "82d59930c1265695e34d0de1d00826ac9c6272050992c14c1bd8f7a8a0e7c0d4", "not JSON"),
    ];
    let file = harrier.file("large.jsonl", format!("{}\n{long}\n{large}\n{}\n", sign_in(1), sign_in(2)));
    let (counts, ran) = harrier.import(&[file], &[]);
    assert_eq!(counts, self::counts(4, 2, 2), "{ran}");
    assert_eq!((ran.code, ran.complaints().len()), (Some(1), 2), "{ran}");
    let query = "SELECT reason, length, sha256, arrow_cast(bytes, 'Utf8') AS bytes FROM dead_letters ORDER BY place";
    let letters = harrier.rows(query);
    for (number, (letter, (whole, sha256, reason))) in (2..).zip(letters.iter().zip(expected)) {
        let place = format!("large.jsonl:{number}: ");
        assert!(ran.complaints().iter().any(|line| line.contains(&place) && line.contains(reason)), "{ran}");
        assert!(letter["reason"].as_str().unwrap().contains(reason), "{}", letter["reason"]);
        assert_eq!(letter["length"], whole.len());
        assert_eq!(letter["sha256"], sha256);
        assert!(letter["bytes"] == whole[..DEAD_LETTER_PREFIX_BYTES], "the beginning of it");
    }
}

#[test]
fn a_folder_and_a_missing_path_stop_no_other_file() {
    let harrier = Harrier::new();
    let good = harrier.file("good.jsonl", sign_in(1));
    let folder = harrier.path("folder");
    std::fs::create_dir(&folder).unwrap();
    let paths: Vec<PathBuf> = vec![folder, harrier.path("nowhere.jsonl"), good];
    let (counts, ran) = harrier.import(&paths, &[]);
    assert_eq!(counts, self::counts(1, 1, 0));
    assert_eq!(ran.code, Some(1));
    let complaints = ran.complaints();
    assert_eq!(complaints.len(), 2, "{ran}");
    assert!(complaints[0].ends_with("folder: is a folder; name the files in it"), "{ran}");
    assert!(complaints[1].ends_with("nowhere.jsonl: does not exist"), "{ran}");
}

#[test]
fn an_export_of_fifty_thousand_rows_is_warned_of() {
    let harrier = Harrier::new();
    let mut csv = String::from("CreationDate,UserIds,AuditData\n");
    // Few records, delivered again and again: the warning counts rows.
    for number in 0..50_000 {
        writeln!(csv, "2026,x,\"{{\"\"Id\"\":\"\"{}\"\"}}\"", number % 100).unwrap();
    }
    let file = harrier.file("export.csv", csv);
    let (counts, ran) = harrier.import(&[file], &[]);
    assert_eq!((counts.received, counts.admitted, counts.duplicate), (50_000, 100, 49_900));
    assert_eq!(ran.code, Some(0), "{ran}");
    let complaints = ran.complaints();
    assert!(complaints.len() == 1 && complaints[0].contains("exports end at 50,000"), "{ran}");
    let reasons = harrier.rows("SELECT reason, state FROM coverage");
    assert!(reasons[0]["reason"].as_str().unwrap().contains("export limit"), "{reasons:?}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
