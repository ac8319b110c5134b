//! Reading moments.
//!
//! Audit times are UTC and do not say so: `2026-11-21T10:15:30`. Other doors add a `Z`, an offset, a space for the `T`,
//! up to seven decimals. Everything finer than a microsecond is cut off, never rounded: rounding can move a record
//! into the next day. Locale formats (`11/21/2026 10:08:12 AM`) and numbers are unreadable: a guess between day and
//! month is worse than a defect.

use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeDelta, Utc};

use crate::event::Value;
use crate::field::Reading;
use crate::normalise::text;
use crate::path::Scalar;

/// A moment, UTC.
pub(crate) fn utc(scalar: &Scalar<'_>) -> Reading {
    let Some(text) = text::saying(scalar) else { return Reading::Nothing };
    match (scalar, moment(text.trim().as_bytes())) {
        (Scalar::Text(_), Some(time)) if time == unset() => Reading::Nothing,
        (Scalar::Text(_), Some(time)) => Reading::Value(Value::Time(time)),
        _ => Reading::Unreadable,
    }
}

/// What .NET writes for a time that nobody set: 0001-01-01T00:00:00.
fn unset() -> DateTime<Utc> {
    NaiveDate::from_ymd_opt(1, 1, 1).unwrap_or_default().and_time(Default::default()).and_utc()
}

fn moment(text: &[u8]) -> Option<DateTime<Utc>> {
    let (date_time, rest) = text.split_at_checked(19)?;
    let (date_time, rest) = (date_time, fraction(rest));
    let [year, month, day, hour, minute, second] =
        [0..4, 5..7, 8..10, 11..13, 14..16, 17..19].map(|range| date_time.get(range).and_then(digits));
    let separators = [date_time[4], date_time[7], date_time[13], date_time[16]] == *b"--::";
    if !separators || !matches!(date_time[10], b'T' | b't' | b' ') {
        return None;
    }
    let (micros, zone) = rest?;
    let date = NaiveDate::from_ymd_opt(year? as i32, month?, day?)?;
    let local: NaiveDateTime = date.and_hms_micro_opt(hour?, minute?, second?, micros)?;
    Some(local.checked_sub_signed(offset(zone)?)?.and_utc())
}

/// The microseconds of a fraction, and what follows it.
fn fraction(text: &[u8]) -> Option<(u32, &[u8])> {
    let Some(decimals) = text.strip_prefix(b".") else { return Some((0, text)) };
    let length = decimals.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (decimals, rest) = decimals.split_at_checked(length)?;
    let micros = (0..6).fold(0, |sum, at| sum * 10 + decimals.get(at).map_or(0, |byte| u32::from(byte - b'0')));
    (length > 0).then_some((micros, rest))
}

/// The offset from UTC: none written means UTC.
fn offset(zone: &[u8]) -> Option<TimeDelta> {
    let (sign, rest) = match zone.trim_ascii_start() {
        b"" | b"Z" | b"z" | b"UTC" => return Some(TimeDelta::zero()),
        [b'+', rest @ ..] => (1, rest),
        [b'-', rest @ ..] => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = match rest.len() {
        2 => (rest.get(0..2), None),
        4 => (rest.get(0..2), rest.get(2..4)),
        5 if rest[2] == b':' => (rest.get(0..2), rest.get(3..5)),
        _ => return None,
    };
    let hours = digits(hours?)?;
    let minutes = minutes.map_or(Some(0), digits)?;
    (hours <= 23 && minutes <= 59).then(|| TimeDelta::minutes(sign * i64::from(hours * 60 + minutes)))
}

fn digits(text: &[u8]) -> Option<u32> {
    text.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u32::from(byte - b'0')))
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn read(text: &str) -> Reading {
        utc(&Scalar::Text(Cow::Borrowed(text)))
    }

    #[test]
    fn every_form_that_microsoft_writes() {
        for (text, expected) in [
            ("2026-11-21T10:15:30", "2026-11-21T10:15:30Z"),
            ("2026-11-21 10:15:30", "2026-11-21T10:15:30Z"),
            ("2026-11-21T10:15:30Z", "2026-11-21T10:15:30Z"),
            ("2026-11-21t10:15:30z", "2026-11-21T10:15:30Z"),
            (" 2026-11-21T10:15:30.5 ", "2026-11-21T10:15:30.500Z"),
            ("2026-11-21T10:15:30.1234567Z", "2026-11-21T10:15:30.123456Z"),
            ("2026-11-21T23:59:59.999999999", "2026-11-21T23:59:59.999999Z"),
            ("2026-11-21T10:15:30+02:00", "2026-11-21T08:15:30Z"),
            ("2026-11-21T10:15:30.25-0530", "2026-11-21T15:45:30.250Z"),
            ("2026-11-21 10:15:30 +00", "2026-11-21T10:15:30Z"),
            ("2024-02-29T00:00:00", "2024-02-29T00:00:00Z"),
        ] {
            assert_eq!(read(text), Reading::Value(Value::Time(expected.parse().unwrap())), "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_not_guessed() {
        for text in [
            "11/21/2026 10:08:12 AM",
            "21.11.2026 10:08:12",
            "/Date(1234)/",
            "2026-11-21",
            "2026-11-21T10:15",
            "1732184130",
            "2026-13-01T00:00:00",
            "2026-02-29T00:00:00",
            "2026-11-21T24:00:00",
            "2026-11-21T10:15:60",
            "2026-11-21T10:15:30.",
            "2026-11-21T10:15:30+25:00",
            "2026-11-21T10:15:30 CET",
            "2026-11-21T10:15:30Zx",
            "２０２６-11-21T10:15:30",
            "+026-11-21T10:15:30",
        ] {
            assert_eq!(read(text), Reading::Unreadable, "{text}");
        }
        assert_eq!(utc(&Scalar::Integer(1_732_184_130)), Reading::Unreadable);
        for text in ["", "<null>", "0001-01-01T00:00:00"] {
            assert_eq!(read(text), Reading::Nothing, "{text}");
        }
    }
}
