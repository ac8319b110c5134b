//! Readers of plain values: text, whole numbers, truth values.
//!
//! Microsoft and the collectors between it and us write one value in many ways: numbers as text, whole numbers with a
//! fraction (`1156492.00`), truth as `"True"`, nothing as `<null>`. All of these are read; what is left over is
//! unreadable, never guessed.

use std::borrow::Cow;

use crate::event::Value;
use crate::field::Reading;
use crate::path::Scalar;

/// Whole numbers outside this range have no exact float; a float there is not a count of anything.
const EXACT_FLOAT_MAX: f64 = 9_007_199_254_740_992.0;

/// The text of a delivery; null where it is empty.
pub(crate) fn of(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { Value::Text(text.to_owned()) }
}

/// Text without the white space around it.
pub(crate) fn trimmed(scalar: &Scalar<'_>) -> Reading {
    match saying(scalar) {
        Some(text) => Reading::Value(Value::Text(text.trim().to_owned())),
        None => Reading::Nothing,
    }
}

/// Text exactly as written.
pub(crate) fn verbatim(scalar: &Scalar<'_>) -> Reading {
    match saying(scalar) {
        Some(text) => Reading::Value(Value::Text(text.into_owned())),
        None => Reading::Nothing,
    }
}

/// A whole number, however it is written.
pub(crate) fn integer(scalar: &Scalar<'_>) -> Reading {
    match scalar {
        Scalar::Boolean(_) => Reading::Unreadable,
        _ => match (saying(scalar), whole_number(scalar)) {
            (_, Some(number)) => Reading::Value(Value::Integer(number)),
            (Some(_), None) => Reading::Unreadable,
            (None, None) => Reading::Nothing,
        },
    }
}

/// A truth value, however it is written.
pub(crate) fn boolean(scalar: &Scalar<'_>) -> Reading {
    match scalar {
        Scalar::Boolean(value) => Reading::Value(Value::Boolean(*value)),
        Scalar::Integer(value @ (0 | 1)) => Reading::Value(Value::Boolean(*value == 1)),
        _ => match saying(scalar) {
            Some(text) if text.trim().eq_ignore_ascii_case("true") => Reading::Value(Value::Boolean(true)),
            Some(text) if text.trim().eq_ignore_ascii_case("false") => Reading::Value(Value::Boolean(false)),
            Some(_) => Reading::Unreadable,
            None => Reading::Nothing,
        },
    }
}

/// The number of an enumeration: given as a number, or as one of its names in any case. A number without a name is
/// kept, because Microsoft adds to its lists faster than any reader follows.
pub(crate) fn enumerated(scalar: &Scalar<'_>, number_of: impl Fn(&str) -> Option<i64>) -> Reading {
    match (integer(scalar), scalar) {
        (Reading::Unreadable, Scalar::Text(name)) => match number_of(name.trim()) {
            Some(number) => Reading::Value(Value::Integer(number)),
            None => Reading::Unreadable,
        },
        (reading, _) => reading,
    }
}

/// The whole number that a value is or spells.
pub(crate) fn whole_number(scalar: &Scalar<'_>) -> Option<i64> {
    let float = match scalar {
        Scalar::Integer(number) => return Some(*number),
        Scalar::Float(float) => *float,
        Scalar::Text(text) => match text.trim().parse::<i64>() {
            Ok(number) => return Some(number),
            Err(_) => text.trim().parse::<f64>().ok()?,
        },
        Scalar::Null | Scalar::Boolean(_) => return None,
    };
    (float.fract() == 0.0 && float.abs() <= EXACT_FLOAT_MAX).then_some(float as i64)
}

/// The text of a value that says something; none for null, white space, and the words that stand for nothing.
pub(crate) fn saying<'s>(scalar: &'s Scalar<'_>) -> Option<Cow<'s, str>> {
    let text = match scalar {
        Scalar::Null => return None,
        Scalar::Text(text) => Cow::Borrowed(text.as_ref()),
        other => other.to_text(),
    };
    let trimmed = text.trim();
    let nothing = NOTHING.iter().any(|word| trimmed.eq_ignore_ascii_case(word));
    if trimmed.is_empty() || nothing { None } else { Some(text) }
}

/// What Microsoft writes for a value that is not there.
const NOTHING: &[&str] = &["<null>", "Not Available"];

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Scalar<'_> {
        Scalar::Text(Cow::Borrowed(text))
    }

    #[test]
    fn one_number_in_many_spellings() {
        for scalar in [Scalar::Integer(50), Scalar::Float(50.0), text("50"), text(" 50.00 "), text("5e1")] {
            assert_eq!(integer(&scalar), Reading::Value(Value::Integer(50)), "{scalar:?}");
        }
        for scalar in [text(""), text("<null>"), text("Not Available"), Scalar::Null] {
            assert_eq!(integer(&scalar), Reading::Nothing, "{scalar:?}");
        }
        for scalar in
            [text("fifty"), text("1.5"), text("inf"), text("NaN"), Scalar::Float(1e300), Scalar::Boolean(true)]
        {
            assert_eq!(integer(&scalar), Reading::Unreadable, "{scalar:?}");
        }
    }

    #[test]
    fn one_truth_in_many_spellings() {
        for scalar in [Scalar::Boolean(true), text("True"), text(" TRUE"), Scalar::Integer(1)] {
            assert_eq!(boolean(&scalar), Reading::Value(Value::Boolean(true)), "{scalar:?}");
        }
        assert_eq!(boolean(&text("False")), Reading::Value(Value::Boolean(false)));
        assert_eq!(boolean(&text("<null>")), Reading::Nothing);
        assert_eq!(boolean(&text("yes")), Reading::Unreadable);
    }

    #[test]
    fn verbatim_keeps_white_space_that_stands_around_something() {
        assert_eq!(verbatim(&text(" a.\t")), Reading::Value(Value::Text(" a.\t".to_owned())));
        assert_eq!(trimmed(&text(" a.\t")), Reading::Value(Value::Text("a.".to_owned())));
        assert_eq!(verbatim(&text(" ")), Reading::Nothing);
    }
}
