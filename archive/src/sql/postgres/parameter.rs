//! Values of parameters: what a client sends as text or in binary, as values of the engine. Pure, and total: whatever the
//! bytes are, there is a value or a failure.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::scalar::ScalarValue;

use super::failure::Failure;
use super::types::{Format, KINDS, Kind};

const EPOCH_DAYS: i32 = 10_957;
const EPOCH_MICROSECONDS: i64 = EPOCH_DAYS as i64 * 86_400_000_000;

/// Reads one value of this type.
pub(super) fn read(bytes: Option<&[u8]>, format: Format, data_type: &DataType) -> Result<ScalarValue, Failure> {
    let Some(bytes) = bytes else {
        return ScalarValue::try_from(data_type).map_err(|_| unreadable());
    };
    match format {
        Format::Text => text(std::str::from_utf8(bytes).map_err(|_| unreadable())?, data_type),
        Format::Binary => binary(bytes, data_type),
    }
}

/// Neither the value nor its type is repeated: it may be anything.
fn unreadable() -> Failure {
    Failure::new("22P02", "the value of a parameter is not of its type")
}

fn text(value: &str, data_type: &DataType) -> Result<ScalarValue, Failure> {
    match data_type {
        DataType::List(element) | DataType::LargeList(element) => {
            let values = literal(value)?.into_iter().map(|value| match value {
                Some(value) => text(&value, element.data_type()),
                None => ScalarValue::try_from(element.data_type()).map_err(|_| unreadable()),
            });
            list(values.collect::<Result<_, _>>()?, element.data_type())
        }
        DataType::Binary => match value.strip_prefix("\\x") {
            Some(digits) => hexadecimal(digits).map(|bytes| ScalarValue::Binary(Some(bytes))).ok_or_else(unreadable),
            None => Ok(ScalarValue::Binary(Some(value.as_bytes().to_vec()))),
        },
        DataType::Null => Ok(ScalarValue::Utf8(Some(value.to_owned()))),
        data_type => {
            // White space around is taken by PostgreSQL, but for text.
            let is_text = matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
            let value = if is_text { value } else { value.trim() };
            ScalarValue::try_from_string(value.to_owned(), data_type).map_err(|_| unreadable())
        }
    }
}

fn hexadecimal(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| Some((digit(pair.first()?)? * 16 + digit(pair.get(1)?)?) as u8)).collect()
}

fn list(values: Vec<ScalarValue>, element: &DataType) -> Result<ScalarValue, Failure> {
    if values.iter().any(|value| value.data_type() != *element) {
        return Err(unreadable());
    }
    Ok(ScalarValue::List(ScalarValue::new_list(&values, element, true)))
}

/// The elements of `{a,"b c",NULL}`. Lists of lists are not had here.
pub(super) fn literal(text: &str) -> Result<Vec<Option<String>>, Failure> {
    let inner = text.trim().strip_prefix('{').and_then(|text| text.strip_suffix('}')).ok_or_else(unreadable)?;
    let mut elements = Vec::new();
    let mut characters = inner.chars().peekable();
    if inner.trim().is_empty() {
        return Ok(elements);
    }
    loop {
        while characters.next_if(|c| c.is_whitespace()).is_some() {}
        let mut element = String::new();
        let is_quoted = characters.next_if_eq(&'"').is_some();
        loop {
            match characters.next() {
                Some('"') if is_quoted => break,
                Some('\\') => element.push(characters.next().ok_or_else(unreadable)?),
                Some('{' | '}' | '"') if !is_quoted => return Err(unreadable()),
                Some(character) => element.push(character),
                None if is_quoted => return Err(unreadable()),
                None => break,
            }
            if !is_quoted && characters.peek() == Some(&',') {
                break;
            }
        }
        let bare = element.trim_end();
        elements.push(match is_quoted {
            true => Some(element),
            false if bare.eq_ignore_ascii_case("null") => None,
            false if bare.is_empty() => return Err(unreadable()),
            false => Some(bare.to_owned()),
        });
        while characters.next_if(|c| c.is_whitespace()).is_some() {}
        match characters.next() {
            None => return Ok(elements),
            Some(',') => {}
            Some(_) => return Err(unreadable()),
        }
    }
}

fn exactly<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Failure> {
    bytes.try_into().map_err(|_| unreadable())
}

fn binary(bytes: &[u8], data_type: &DataType) -> Result<ScalarValue, Failure> {
    let whole = |bytes: &[u8]| match bytes.len() {
        2 => exactly(bytes).map(|bytes| i64::from(i16::from_be_bytes(bytes))),
        4 => exactly(bytes).map(|bytes| i64::from(i32::from_be_bytes(bytes))),
        _ => exactly(bytes).map(i64::from_be_bytes),
    };
    let moment =
        |bytes: &[u8]| i64::from_be_bytes(exactly(bytes)?).checked_add(EPOCH_MICROSECONDS).ok_or_else(unreadable);
    let value = match data_type {
        DataType::Boolean => ScalarValue::Boolean(Some(exactly::<1>(bytes)? != [0])),
        DataType::Int16 => ScalarValue::Int16(Some(whole(bytes)?.try_into().map_err(|_| unreadable())?)),
        DataType::Int32 => ScalarValue::Int32(Some(whole(bytes)?.try_into().map_err(|_| unreadable())?)),
        DataType::Int64 => ScalarValue::Int64(Some(whole(bytes)?)),
        DataType::Float32 => ScalarValue::Float32(Some(f32::from_be_bytes(exactly(bytes)?))),
        DataType::Float64 => ScalarValue::Float64(Some(f64::from_be_bytes(exactly(bytes)?))),
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 | DataType::Null => {
            return text(std::str::from_utf8(bytes).map_err(|_| unreadable())?, data_type);
        }
        DataType::Binary => ScalarValue::Binary(Some(bytes.to_vec())),
        DataType::Date32 => {
            let days = i32::from_be_bytes(exactly(bytes)?).checked_add(EPOCH_DAYS);
            ScalarValue::Date32(Some(days.ok_or_else(unreadable)?))
        }
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            ScalarValue::TimestampMicrosecond(Some(moment(bytes)?), zone.clone())
        }
        DataType::Timestamp(..) => {
            let value = ScalarValue::TimestampMicrosecond(Some(moment(bytes)?), None);
            value.cast_to(data_type).map_err(|_| unreadable())?
        }
        DataType::List(element) => return elements(bytes, element.data_type()),
        _ => return Err(Failure::not_offered("a parameter of this type in binary")),
    };
    Ok(value)
}

/// A list in binary: dimensions, flags, the type of the elements, their number, where it begins, and the elements.
fn elements(bytes: &[u8], element: &DataType) -> Result<ScalarValue, Failure> {
    let mut rest = bytes;
    let number = |rest: &mut &[u8]| {
        let (taken, after) = rest.split_first_chunk::<4>().ok_or_else(unreadable)?;
        *rest = after;
        Ok::<_, Failure>(i32::from_be_bytes(*taken))
    };
    let dimensions = number(&mut rest)?;
    let (_flags, oid) = (number(&mut rest)?, number(&mut rest)? as u32);
    if dimensions == 0 {
        return list(Vec::new(), element);
    }
    let is_text = oid == Kind::Text.oid() || !KINDS.iter().any(|(_, known, ..)| *known == oid);
    if dimensions != 1 || (is_text && *element != DataType::Utf8) {
        return Err(unreadable());
    }
    let count = usize::try_from(number(&mut rest)?).map_err(|_| unreadable())?;
    number(&mut rest)?;
    if count > rest.len() / 4 {
        return Err(unreadable());
    }
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        let length = number(&mut rest)?;
        if length == -1 {
            values.push(ScalarValue::try_from(element).map_err(|_| unreadable())?);
            continue;
        }
        let length = usize::try_from(length).map_err(|_| unreadable())?;
        let (value, after) = rest.split_at_checked(length).ok_or_else(unreadable)?;
        rest = after;
        values.push(binary(value, element)?);
    }
    if rest.is_empty() { list(values, element) } else { Err(unreadable()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sql::postgres::types;

    fn shown(bytes: &[u8], format: Format, oid: u32) -> String {
        let data_type = types::parameter(oid).unwrap().unwrap_or(DataType::Utf8);
        match read(Some(bytes), format, &data_type) {
            Ok(value) => format!("{value}"),
            Err(failure) => failure.code.to_owned(),
        }
    }

    #[test]
    fn values_are_read_as_clients_write_them() {
        let text = |value: &str, oid| shown(value.as_bytes(), Format::Text, oid);
        assert_eq!(text("t", 16), "true");
        assert_eq!(text(" 42 ", 20), "42");
        assert_eq!(text("4x", 23), "22P02");
        assert_eq!(text("2026-11-22", 1082), "2026-11-22");
        assert_eq!(text("2026-11-22 10:00:00+02:00", 1184), text("2026-11-22T08:00:00Z", 1184));
        assert_eq!(text("\\x00ff", 17), "00FF");
        assert_eq!(text("\\x0", 17), "22P02");
        assert_eq!(text(r#"{a,"b, \"c\"", d e ,NULL}"#, 1009), r#"[a, b, "c", d e, ]"#);
        for wrong in ["", "{", "{a", "{a,}", "{{a}}", "{\"a}", "{a b\"}", "a,b"] {
            assert_eq!(text(wrong, 1009), "22P02", "{wrong}");
        }
        assert_eq!(text("{}", 1007), "[]");
        assert_eq!(text("{1,x}", 1007), "22P02");
        let binary = |value: &[u8], oid| shown(value, Format::Binary, oid);
        assert_eq!(binary(&7i16.to_be_bytes(), 21), "7");
        assert_eq!(binary(&7i32.to_be_bytes(), 20), "7");
        assert_eq!(binary(&[1, 2, 3], 20), "22P02");
        assert_eq!(binary(&i64::MAX.to_be_bytes(), 1184), "22P02");
        assert_eq!(binary(&1i32.to_be_bytes(), 1082), "2000-01-02");
        let two = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 25, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, b'a', 255, 255, 255, 255];
        assert_eq!(binary(&two, 1009), "[a, ]");
        let many = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 25, 127, 255, 255, 255, 0, 0, 0, 1];
        assert_eq!(binary(&many, 1009), "22P02");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60), kind in 0..14usize) {
            for oid in [KINDS[kind].1, KINDS[kind].2] {
                shown(&bytes, Format::Text, oid);
                shown(&bytes, Format::Binary, oid);
            }
        }
    }
}
