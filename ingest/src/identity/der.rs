//! As much of DER as it takes to find a certificate's dates. Total: whatever the bytes, it answers or says none.

use chrono::{DateTime, NaiveDateTime, Utc};

const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0]`, which holds the version.
const VERSION: u8 = 0xa0;

/// From when and until when a certificate is valid.
///
/// ```text
/// Certificate { TBSCertificate { [0] version, serial, algorithm, issuer, validity { from, until }, ... }, ... }
/// ```
pub fn validity(certificate: &[u8]) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
    let (whole, _) = value(certificate, SEQUENCE)?;
    let (mut rest, _) = value(whole, SEQUENCE)?;
    if let Some((_, after)) = value(rest, VERSION) {
        rest = after;
    }
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        (_, rest) = value(rest, tag)?;
    }
    let (dates, _) = value(rest, SEQUENCE)?;
    let (from, rest) = time(dates)?;
    let (until, _) = time(rest)?;
    Some((from, until))
}

/// The content of the first element, if it has this tag, and what comes behind it.
fn value(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = bytes.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // How many bytes the length has. Four are more than any certificate needs.
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

fn time(bytes: &[u8]) -> Option<(DateTime<Utc>, &[u8])> {
    let (text, rest, is_short) = match value(bytes, UTC_TIME) {
        Some((text, rest)) => (text, rest, true),
        None => value(bytes, GENERALIZED_TIME).map(|(text, rest)| (text, rest, false))?,
    };
    let text = std::str::from_utf8(text).ok()?;
    // Two digits of a year are those of 1950 to 2049.
    let text = match is_short {
        true if text.get(..2)? < "50" => format!("20{text}"),
        true => format!("19{text}"),
        false => text.to_owned(),
    };
    let time = NaiveDateTime::parse_from_str(&text, "%Y%m%d%H%M%SZ").ok()?;
    Some((time.and_utc(), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_are_too_much_for_it(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = validity(&bytes);
            let _ = validity(&[&[SEQUENCE, 0x82, 0, 200, SEQUENCE, 0x81, 190][..], &bytes].concat());
        }
    }
}
