//! Values on the wire: rows of the engine as text or in binary. Pure.
//!
//! Every array of an answer is first brought to the one type that its column is written from, so that each kind is written
//! in one place.

use std::fmt::Write;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, Date32Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, IntervalMonthDayNanoType,
    Time64MicrosecondType, TimestampMicrosecondType,
};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::{BufMut, BytesMut};
use chrono::{DateTime, Datelike, NaiveDateTime, TimeDelta, Timelike};

use super::failure::Failure;
use super::types::{Column, Format, Kind};

/// From 1970, where the engine counts from, to 2000, where the wire does.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_MICROSECONDS: i64 = EPOCH_DAYS as i64 * 86_400_000_000;

/// The columns of a batch, ready to be written.
pub(super) struct Written(Vec<ArrayRef>);

impl Written {
    pub(super) fn of(batch: &RecordBatch, columns: &[Column]) -> Result<Written, Failure> {
        let arrays = batch.columns().iter().zip(columns).map(|(array, column)| canonical(array, &column.arrow()));
        let arrays = arrays.collect::<Result<_, _>>();
        arrays.map(Written).map_err(|error| Failure::new("22000", format!("a value cannot be shown: {error}")))
    }

    /// Writes the values of a row, each with its length.
    pub(super) fn row(
        &self,
        row: usize,
        columns: &[Column],
        formats: &[Format],
        out: &mut BytesMut,
    ) -> Result<(), Failure> {
        for ((array, column), format) in self.0.iter().zip(columns).zip(formats) {
            if array.is_null(row) {
                out.put_i32(-1);
                continue;
            }
            with_length(out, |out| match (column.is_list, format) {
                (false, _) => one(array, row, column.kind, *format, out),
                (true, Format::Text) => list_text(&array.as_list::<i32>().value(row), column.kind, out),
                (true, Format::Binary) => list_binary(&array.as_list::<i32>().value(row), column.kind, out),
            })?;
        }
        Ok(())
    }
}

fn canonical(array: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, ArrowError> {
    if array.data_type() == wanted {
        return Ok(array.clone());
    }
    let exactly = CastOptions { safe: false, format_options: FormatOptions::default() };
    match cast_with_options(array, wanted, &exactly) {
        Ok(cast) => Ok(cast),
        // What has no form of its own, such as a struct, as the engine prints it.
        Err(_) if *wanted == DataType::Utf8 => {
            let options = FormatOptions::default();
            let formatter = ArrayFormatter::try_new(array, &options)?;
            let texts = (0..array.len()).map(|row| array.is_valid(row).then(|| formatter.value(row).to_string()));
            Ok(std::sync::Arc::new(texts.collect::<StringArray>()))
        }
        Err(error) => Err(error),
    }
}

fn with_length(out: &mut BytesMut, value: impl FnOnce(&mut BytesMut) -> Result<(), Failure>) -> Result<(), Failure> {
    let at = out.len();
    out.put_i32(0);
    value(out)?;
    let length = i32::try_from(out.len() - at - 4).map_err(|_| Failure::new("54000", "a value is too long"))?;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

fn one(array: &ArrayRef, row: usize, kind: Kind, format: Format, out: &mut BytesMut) -> Result<(), Failure> {
    match format {
        Format::Text => text(array, row, kind, out),
        Format::Binary => binary(array, row, kind, out),
    }
}

/// Appends text to the bytes of a message.
struct Text<'a>(&'a mut BytesMut);

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.put_slice(text.as_bytes());
        Ok(())
    }
}

fn text(array: &ArrayRef, row: usize, kind: Kind, out: &mut BytesMut) -> Result<(), Failure> {
    let mut to = Text(out);
    let written = match kind {
        Kind::Bool => to.write_str(if array.as_boolean().value(row) { "t" } else { "f" }),
        Kind::Int2 => write!(to, "{}", array.as_primitive::<Int16Type>().value(row)),
        Kind::Int4 => write!(to, "{}", array.as_primitive::<Int32Type>().value(row)),
        Kind::Int8 => write!(to, "{}", array.as_primitive::<Int64Type>().value(row)),
        Kind::Float4 => float(f64::from(array.as_primitive::<Float32Type>().value(row)), &mut to, |to| {
            write!(to, "{}", array.as_primitive::<Float32Type>().value(row))
        }),
        Kind::Float8 => {
            let value = array.as_primitive::<Float64Type>().value(row);
            float(value, &mut to, |to| write!(to, "{value}"))
        }
        Kind::Text | Kind::Numeric => to.write_str(array.as_string::<i32>().value(row)),
        Kind::Bytes => {
            let bytes = array.as_binary::<i32>().value(row);
            to.write_str("\\x").and_then(|()| bytes.iter().try_for_each(|byte| write!(to, "{byte:02x}")))
        }
        Kind::Date => date(i64::from(array.as_primitive::<Date32Type>().value(row)), &mut to)?,
        Kind::Time => {
            let microseconds = array.as_primitive::<Time64MicrosecondType>().value(row);
            clock(moment(microseconds)?, &mut to)
        }
        Kind::Timestamp => timestamp(array.as_primitive::<TimestampMicrosecondType>().value(row), "", &mut to)?,
        Kind::TimestampTz => timestamp(array.as_primitive::<TimestampMicrosecondType>().value(row), "+00", &mut to)?,
        Kind::Interval => {
            let (months, days, nanoseconds) =
                IntervalMonthDayNanoType::to_parts(array.as_primitive::<IntervalMonthDayNanoType>().value(row));
            interval(months, days, nanoseconds / 1_000, &mut to)
        }
    };
    written.map_err(|_| beyond())
}

fn binary(array: &ArrayRef, row: usize, kind: Kind, out: &mut BytesMut) -> Result<(), Failure> {
    match kind {
        Kind::Bool => out.put_u8(u8::from(array.as_boolean().value(row))),
        Kind::Int2 => out.put_i16(array.as_primitive::<Int16Type>().value(row)),
        Kind::Int4 => out.put_i32(array.as_primitive::<Int32Type>().value(row)),
        Kind::Int8 => out.put_i64(array.as_primitive::<Int64Type>().value(row)),
        Kind::Float4 => out.put_f32(array.as_primitive::<Float32Type>().value(row)),
        Kind::Float8 => out.put_f64(array.as_primitive::<Float64Type>().value(row)),
        Kind::Text => out.put_slice(array.as_string::<i32>().value(row).as_bytes()),
        Kind::Numeric => numeric(array.as_string::<i32>().value(row), out)?,
        Kind::Bytes => out.put_slice(array.as_binary::<i32>().value(row)),
        Kind::Date => {
            let days = array.as_primitive::<Date32Type>().value(row);
            out.put_i32(days.checked_sub(EPOCH_DAYS).ok_or_else(beyond)?);
        }
        Kind::Time => out.put_i64(array.as_primitive::<Time64MicrosecondType>().value(row)),
        Kind::Timestamp | Kind::TimestampTz => {
            let microseconds = array.as_primitive::<TimestampMicrosecondType>().value(row);
            out.put_i64(microseconds.checked_sub(EPOCH_MICROSECONDS).ok_or_else(beyond)?);
        }
        Kind::Interval => {
            let (months, days, nanoseconds) =
                IntervalMonthDayNanoType::to_parts(array.as_primitive::<IntervalMonthDayNanoType>().value(row));
            out.put_i64(nanoseconds / 1_000);
            out.put_i32(days);
            out.put_i32(months);
        }
    }
    Ok(())
}

fn beyond() -> Failure {
    Failure::new("22008", "a time lies beyond what can be shown")
}

fn float(value: f64, to: &mut Text<'_>, finite: impl FnOnce(&mut Text<'_>) -> std::fmt::Result) -> std::fmt::Result {
    match value {
        value if value.is_nan() => to.write_str("NaN"),
        f64::INFINITY => to.write_str("Infinity"),
        f64::NEG_INFINITY => to.write_str("-Infinity"),
        _ => finite(to),
    }
}

fn moment(microseconds: i64) -> Result<NaiveDateTime, Failure> {
    DateTime::from_timestamp_micros(microseconds).map(|moment| moment.naive_utc()).ok_or_else(beyond)
}

fn date(days: i64, to: &mut Text<'_>) -> Result<std::fmt::Result, Failure> {
    let days = TimeDelta::try_days(days).ok_or_else(beyond)?;
    let day = DateTime::UNIX_EPOCH.checked_add_signed(days).ok_or_else(beyond)?;
    Ok(calendar(day.naive_utc(), "", to, |_| Ok(())))
}

fn timestamp(microseconds: i64, zone: &str, to: &mut Text<'_>) -> Result<std::fmt::Result, Failure> {
    let moment = moment(microseconds)?;
    Ok(calendar(moment, zone, to, |to| to.write_str(" ").and_then(|()| clock(moment, to))))
}

fn calendar(
    moment: NaiveDateTime,
    zone: &str,
    to: &mut Text<'_>,
    time: impl FnOnce(&mut Text<'_>) -> std::fmt::Result,
) -> std::fmt::Result {
    let year = moment.year();
    let (year, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    write!(to, "{year:04}-{:02}-{:02}", moment.month(), moment.day())?;
    time(to)?;
    write!(to, "{zone}{era}")
}

fn clock(moment: NaiveDateTime, to: &mut Text<'_>) -> std::fmt::Result {
    write!(to, "{:02}:{:02}:{:02}", moment.hour(), moment.minute(), moment.second())?;
    match moment.nanosecond() / 1_000 {
        0 => Ok(()),
        fraction => {
            let digits = format!("{fraction:06}");
            write!(to, ".{}", digits.trim_end_matches('0'))
        }
    }
}

fn interval(months: i32, days: i32, microseconds: i64, to: &mut Text<'_>) -> std::fmt::Result {
    let mut parts = Vec::new();
    for (count, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        match count {
            0 => {}
            1 => parts.push(format!("1 {unit}")),
            count => parts.push(format!("{count} {unit}s")),
        }
    }
    if microseconds != 0 || parts.is_empty() {
        let sign = if microseconds < 0 { "-" } else { "" };
        let all = microseconds.unsigned_abs();
        let (seconds, fraction) = (all / 1_000_000, all % 1_000_000);
        let mut time = format!("{sign}{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        if fraction != 0 {
            let digits = format!("{fraction:06}");
            time.push('.');
            time.push_str(digits.trim_end_matches('0'));
        }
        parts.push(time);
    }
    to.write_str(&parts.join(" "))
}

/// Decimal digits in groups of four, as the wire has them.
fn numeric(text: &str, out: &mut BytesMut) -> Result<(), Failure> {
    let unreadable = || Failure::new("22000", "a number cannot be shown");
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return Err(unreadable());
    }
    let padded_whole = format!("{}{whole}", "0".repeat((4 - whole.len() % 4) % 4));
    let padded_fraction = format!("{fraction}{}", "0".repeat((4 - fraction.len() % 4) % 4));
    let weight = i16::try_from(padded_whole.len() / 4).map_err(|_| unreadable())? - 1;
    let all = padded_whole + &padded_fraction;
    let groups: Vec<i16> = all
        .as_bytes()
        .chunks(4)
        .map(|four| four.iter().fold(0, |sum, digit| sum * 10 + i16::from(digit - b'0')))
        .collect();
    let leading = groups.iter().take_while(|group| **group == 0).count();
    let groups = &groups[leading..];
    let trailing = groups.iter().rev().take_while(|group| **group == 0).count();
    let groups = &groups[..groups.len() - trailing];
    out.put_i16(groups.len() as i16);
    out.put_i16(if groups.is_empty() { 0 } else { weight - leading as i16 });
    out.put_u16(if negative && !groups.is_empty() { 0x4000 } else { 0 });
    out.put_u16(fraction.len() as u16);
    groups.iter().for_each(|group| out.put_i16(*group));
    Ok(())
}

fn list_text(values: &ArrayRef, kind: Kind, out: &mut BytesMut) -> Result<(), Failure> {
    out.put_u8(b'{');
    let mut value = BytesMut::new();
    for row in 0..values.len() {
        if row > 0 {
            out.put_u8(b',');
        }
        if values.is_null(row) {
            out.put_slice(b"NULL");
            continue;
        }
        value.clear();
        text(values, row, kind, &mut value)?;
        let is_bare = !value.is_empty()
            && !value.eq_ignore_ascii_case(b"null")
            && value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.@:/+".contains(byte));
        if is_bare {
            out.put_slice(&value);
            continue;
        }
        out.put_u8(b'"');
        for byte in &value {
            if matches!(byte, b'"' | b'\\') {
                out.put_u8(b'\\');
            }
            out.put_u8(*byte);
        }
        out.put_u8(b'"');
    }
    out.put_u8(b'}');
    Ok(())
}

fn list_binary(values: &ArrayRef, kind: Kind, out: &mut BytesMut) -> Result<(), Failure> {
    out.put_i32(i32::from(!values.is_empty()));
    out.put_i32(i32::from(values.null_count() > 0));
    out.put_u32(kind.oid());
    if values.is_empty() {
        return Ok(());
    }
    out.put_i32(i32::try_from(values.len()).map_err(|_| Failure::new("54000", "a list is too long"))?);
    out.put_i32(1);
    for row in 0..values.len() {
        if values.is_null(row) {
            out.put_i32(-1);
        } else {
            with_length(out, |out| binary(values, row, kind, out))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
