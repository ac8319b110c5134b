//! Numbers as sums need them: decimals to the millionth, whose sum is the same in any order, as that of floats is not.

use std::fmt;

use schemas::path::Scalar;

/// Largest magnitude: a million records of it still have a sum.
const WHOLE_MAX: f64 = 1e12;

const MILLION: i128 = 1_000_000;

/// A number in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Decimal(pub i128);

impl Decimal {
    /// What a record says, if it is a number that is not beyond all measure.
    pub fn of(scalar: &Scalar<'_>) -> Option<Decimal> {
        match scalar {
            Scalar::Integer(number) => {
                Decimal::from_float(*number as f64).map(|_| Decimal(i128::from(*number) * MILLION))
            }
            Scalar::Float(number) => Decimal::from_float(*number),
            Scalar::Text(text) => Decimal::parse(text),
            Scalar::Null | Scalar::Boolean(_) => None,
        }
    }

    /// A number written as text.
    pub fn parse(text: &str) -> Option<Decimal> {
        let text = text.trim();
        if !text.bytes().any(|byte| byte.is_ascii_digit()) {
            return None;
        }
        match text.parse::<i64>() {
            Ok(whole) => Decimal::of(&Scalar::Integer(whole)),
            Err(_) => Decimal::from_float(text.parse().ok()?),
        }
    }

    fn from_float(number: f64) -> Option<Decimal> {
        (number.abs() <= WHOLE_MAX).then(|| Decimal((number * MILLION as f64).round() as i128))
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, all) = (if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs());
        let (whole, part) = (all / MILLION.unsigned_abs(), all % MILLION.unsigned_abs());
        let digits = format!("{part:06}");
        match digits.trim_end_matches('0') {
            "" => write!(f, "{sign}{whole}"),
            digits => write!(f, "{sign}{whole}.{digits}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for (text, expected) in [
            ("12", Some("12")),
            (" -0.5 ", Some("-0.5")),
            ("1e3", Some("1000")),
            ("0.1234567", Some("0.123457")),
            ("1e13", None),
            ("", None),
            ("NaN", None),
            ("inf", None),
            ("x1", None),
        ] {
            let read = Decimal::parse(text);
            assert_eq!(read.map(|decimal| decimal.to_string()).as_deref(), expected, "{text}");
            assert_eq!(read.and_then(|decimal| Decimal::parse(&decimal.to_string())), read, "{text}");
        }
        assert_eq!(Decimal::of(&Scalar::Integer(i64::MAX)), None);
    }
}
