//! `[rules] places_file`: where addresses are, by the operator's own table.

use std::path::PathBuf;

use crate::binary::{Harrier, Ran};

/// A table in MaxMind's format: IPv4, records of 24 bits, a network of 24 bits each.
fn table(networks: &[([u8; 3], f64, f64)]) -> Vec<u8> {
    const EMPTY: usize = usize::MAX;
    let (mut nodes, mut data) = (vec![[EMPTY; 2]], Vec::new());
    // Places of data are marked by the half of numbers that no node has.
    let marked = |offset: usize| usize::MAX / 2 + offset;
    for (network, latitude, longitude) in networks {
        let mut node = 0;
        for bit in 0..24 {
            let side = usize::from(network[bit / 8] >> (7 - bit % 8) & 1);
            if bit == 23 {
                nodes[node][side] = marked(data.len());
            } else {
                if nodes[node][side] == EMPTY {
                    nodes[node][side] = nodes.len();
                    nodes.push([EMPTY; 2]);
                }
                node = nodes[node][side];
            }
        }
        map(
            &mut data,
            &[("location", &|out| {
                map(
                    out,
                    &[
                        ("latitude", &|out| double(out, *latitude)),
                        ("longitude", &|out| double(out, *longitude)),
                        ("accuracy_radius", &|out| out.extend([0xa1, 20])),
                    ],
                );
            })],
        );
    }
    let mut bytes = Vec::new();
    for record in nodes.iter().flatten() {
        let value = match *record {
            EMPTY => nodes.len(),
            node if node < nodes.len() => node,
            place => place - usize::MAX / 2 + nodes.len() + 16,
        };
        bytes.extend(&u32::try_from(value).unwrap().to_be_bytes()[1..]);
    }
    bytes.extend([0; 16]);
    bytes.extend(data);
    bytes.extend(b"\xab\xcd\xefMaxMind.com");
    let count = u16::try_from(nodes.len()).unwrap().to_be_bytes();
    map(
        &mut bytes,
        &[
            ("binary_format_major_version", &|out| out.extend([0xa1, 2])),
            ("binary_format_minor_version", &|out| out.extend([0xa1, 0])),
            ("build_epoch", &|out| out.extend([0x01, 2, 1])),
            ("database_type", &|out| text(out, "Test-City")),
            ("description", &|out| out.push(0xe0)),
            ("ip_version", &|out| out.extend([0xa1, 4])),
            ("languages", &|out| out.extend([0x00, 4])),
            ("node_count", &|out| out.extend([0xc2, count[0], count[1]])),
            ("record_size", &|out| out.extend([0xa1, 24])),
        ],
    );
    bytes
}

type Put<'p> = &'p dyn Fn(&mut Vec<u8>);

fn map(out: &mut Vec<u8>, entries: &[(&str, Put<'_>)]) {
    out.push(0xe0 | u8::try_from(entries.len()).unwrap());
    for (key, put) in entries {
        text(out, key);
        put(out);
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(0x40 | u8::try_from(text.len()).unwrap());
    out.extend(text.as_bytes());
}

fn double(out: &mut Vec<u8>, number: f64) {
    out.push(0x68);
    out.extend(number.to_be_bytes());
}

const BERLIN: [u8; 3] = [192, 0, 2];
const ELSEWHERE: [u8; 3] = [203, 0, 113];

/// A person's sign-ins at both addresses within the hour, with two computers.
fn sign_ins(user: &str) -> String {
    let sign_in = |id: u8, minute: u8, address: &str, system: &str| {
        format!(
            r#"{{"CreationTime":"2026-11-20T10:{minute}:00","Id":"{user}-{id}","Operation":"UserLoggedIn","RecordType":15,"ErrorNumber":"0","UserType":0,"Workload":"AzureActiveDirectory","ClientIP":"{address}","UserId":"{user}@contoso.example","DeviceProperties":[{{"Name":"OS","Value":"{system}"}},{{"Name":"BrowserType","Value":"Edge"}}]}}"#
        )
    };
    format!("{}\n{}\n", sign_in(1, 10, "192.0.2.10", "Windows"), sign_in(2, 40, "203.0.113.77", "MacOs"))
}

fn configured(harrier: &Harrier) -> PathBuf {
    harrier.file("harrier.toml", "data_dir = \"data\"\n[rules]\nplaces_file = \"city.mmdb\"\n")
}

fn import(harrier: &Harrier, user: &str) -> Ran {
    let (config, file) = (configured(harrier), harrier.file(&format!("{user}.jsonl"), sign_ins(user)));
    harrier.run(["import", file.to_str().unwrap(), "--tenant", "contoso", "--config", config.to_str().unwrap()])
}

fn travellers(harrier: &Harrier) -> Vec<String> {
    let query = "SELECT entity FROM findings WHERE rule_id = '9e2c4b70-1d58-4f3a-8a96-c07e5b3d2f18' ORDER BY entity";
    harrier.rows(query).iter().map(|row| row["entity"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn who_is_in_two_places_is_told_by_the_table_in_force() {
    let harrier = Harrier::new();
    let far = table(&[(BERLIN, 52.52, 13.40), (ELSEWHERE, 6.45, 3.39)]);
    harrier.file("city.mmdb", &far);
    let ran = import(&harrier, "ann");
    assert_eq!(ran.code, Some(0), "{ran}");
    assert_eq!(travellers(&harrier), ["ann@contoso.example"]);

    // A new table is in force from the next record on; what was found by the old one stays.
    harrier.file("city.mmdb", table(&[(BERLIN, 52.52, 13.40), (ELSEWHERE, 52.40, 13.06)]));
    assert_eq!(import(&harrier, "bob").code, Some(0));
    assert_eq!(travellers(&harrier), ["ann@contoso.example"]);
    let copies = std::fs::read_dir(harrier.data_dir().join("places")).unwrap().count();
    assert_eq!(copies, 2, "the table of before, in case something is still to be judged by it");
}

#[test]
fn a_table_that_is_missing_or_damaged_is_told_in_one_line() {
    let harrier = Harrier::new();
    let ran = import(&harrier, "ann");
    assert!(ran.code == Some(78) && ran.stderr.contains("city.mmdb"), "{ran}");
    let whole = table(&[(BERLIN, 52.52, 13.40)]);
    for bytes in [&b"no table"[..], &[], &whole[..whole.len() / 2]] {
        harrier.file("city.mmdb", bytes);
        let ran = import(&harrier, "ann");
        assert!(ran.code == Some(78) && ran.stderr.lines().count() == 1, "{ran}");
    }
    // Without any, whoever asks is told that the rule is deaf.
    let file = harrier.file("ann.jsonl", sign_ins("ann"));
    harrier.import(&[file], &[]);
    let ran = harrier.run(["rules", "coverage", "--all"]);
    let line = ran.stdout.lines().find(|line| line.contains("impossible_travel"));
    assert!(ran.stdout.contains("places_file") && line.is_some(), "{ran}");
}
