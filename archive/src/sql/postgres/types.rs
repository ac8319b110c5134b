//! The engine's types as those of PostgreSQL: which number a client is told, and what a parameter's number means. Pure.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, IntervalUnit, Schema, TimeUnit};

use super::failure::Failure;
use super::naming::shown;

/// A type that values are written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Bytes,
    Int8,
    Int2,
    Int4,
    Text,
    Float4,
    Float8,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Interval,
    Numeric,
}

/// Each kind with its number, that of lists of it, its size and its name.
pub(super) const KINDS: [(Kind, u32, u32, i16, &str); 14] = [
    (Kind::Bool, 16, 1000, 1, "bool"),
    (Kind::Bytes, 17, 1001, -1, "bytea"),
    (Kind::Int8, 20, 1016, 8, "int8"),
    (Kind::Int2, 21, 1005, 2, "int2"),
    (Kind::Int4, 23, 1007, 4, "int4"),
    (Kind::Text, 25, 1009, -1, "text"),
    (Kind::Float4, 700, 1021, 4, "float4"),
    (Kind::Float8, 701, 1022, 8, "float8"),
    (Kind::Date, 1082, 1182, 4, "date"),
    (Kind::Time, 1083, 1183, 8, "time"),
    (Kind::Timestamp, 1114, 1115, 8, "timestamp"),
    (Kind::TimestampTz, 1184, 1185, 8, "timestamptz"),
    (Kind::Interval, 1186, 1187, 16, "interval"),
    (Kind::Numeric, 1700, 1231, -1, "numeric"),
];

/// Numbers of types whose values are taken as text: "char", name, oid's text form, json, xml, unknown, bpchar, varchar,
/// uuid, jsonb; and those of lists of text.
const TEXTS: [u32; 9] = [18, 19, 114, 142, 705, 1042, 1043, 2950, 3802];
const TEXT_LISTS: [u32; 4] = [1002, 1003, 1014, 1015];
const OID: u32 = 26;

impl Kind {
    fn fact(self) -> &'static (Kind, u32, u32, i16, &'static str) {
        // Every kind is in the list; a test looks.
        KINDS.iter().find(|(kind, ..)| *kind == self).unwrap_or(&KINDS[5])
    }

    pub(super) fn oid(self) -> u32 {
        self.fact().1
    }

    /// The engine's type that holds it.
    fn arrow(self) -> DataType {
        match self {
            Kind::Bool => DataType::Boolean,
            Kind::Bytes => DataType::Binary,
            Kind::Int8 => DataType::Int64,
            Kind::Int2 => DataType::Int16,
            Kind::Int4 => DataType::Int32,
            Kind::Text => DataType::Utf8,
            Kind::Float4 => DataType::Float32,
            Kind::Float8 => DataType::Float64,
            Kind::Date => DataType::Date32,
            Kind::Time => DataType::Time64(TimeUnit::Microsecond),
            Kind::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Kind::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Kind::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
            Kind::Numeric => DataType::Decimal128(38, 10),
        }
    }

    /// The kind that values of this type are written as. What PostgreSQL has nothing for is text.
    fn of(data_type: &DataType) -> Kind {
        match data_type {
            DataType::Boolean => Kind::Bool,
            DataType::Int8 | DataType::UInt8 | DataType::Int16 => Kind::Int2,
            DataType::UInt16 | DataType::Int32 => Kind::Int4,
            DataType::UInt32 | DataType::Int64 => Kind::Int8,
            DataType::UInt64
            | DataType::Decimal32(..)
            | DataType::Decimal64(..)
            | DataType::Decimal128(..)
            | DataType::Decimal256(..) => Kind::Numeric,
            DataType::Float16 | DataType::Float32 => Kind::Float4,
            DataType::Float64 => Kind::Float8,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                Kind::Bytes
            }
            DataType::Date32 | DataType::Date64 => Kind::Date,
            DataType::Time32(_) | DataType::Time64(_) => Kind::Time,
            DataType::Timestamp(_, None) => Kind::Timestamp,
            DataType::Timestamp(_, Some(_)) => Kind::TimestampTz,
            DataType::Interval(_) => Kind::Interval,
            DataType::Dictionary(_, values) => Kind::of(values),
            _ => Kind::Text,
        }
    }
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Binary,
}

impl Format {
    pub(super) fn code(self) -> i16 {
        match self {
            Format::Text => 0,
            Format::Binary => 1,
        }
    }

    /// The formats of so many values, as messages give them: none, one for all, or one for each.
    pub(super) fn of_each(codes: &[i16], count: usize) -> Result<Vec<Format>, Failure> {
        let format = |code: &i16| match code {
            0 => Ok(Format::Text),
            1 => Ok(Format::Binary),
            _ => Err(Failure::new("22023", "a format is 0 for text or 1 for binary")),
        };
        match codes {
            [] => Ok(vec![Format::Text; count]),
            [code] => Ok(vec![format(code)?; count]),
            codes if codes.len() == count => codes.iter().map(format).collect(),
            _ => Err(Failure::new("08P01", "there are not as many formats as values")),
        }
    }
}

/// A column of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub name: String,
    pub kind: Kind,
    pub is_list: bool,
}

impl Column {
    pub(super) fn text(name: &str) -> Column {
        Column { name: name.to_owned(), kind: Kind::Text, is_list: false }
    }

    fn of(field: &Field) -> Column {
        let (kind, is_list) = match field.data_type() {
            DataType::List(element) | DataType::LargeList(element) | DataType::FixedSizeList(element, _)
                if !element.data_type().is_nested() =>
            {
                (Kind::of(element.data_type()), true)
            }
            data_type => (Kind::of(data_type), false),
        };
        Column { name: shown(field.name()).to_owned(), kind, is_list }
    }

    pub(super) fn of_all(schema: &Schema) -> Vec<Column> {
        schema.fields().iter().map(|field| Column::of(field)).collect()
    }

    pub(super) fn oid(&self) -> u32 {
        let fact = self.kind.fact();
        if self.is_list { fact.2 } else { fact.1 }
    }

    pub(super) fn size(&self) -> i16 {
        if self.is_list { -1 } else { self.kind.fact().3 }
    }

    /// The one type of the engine that its values are written from.
    pub(super) fn arrow(&self) -> DataType {
        // Numbers without a fixed size are written as their digits.
        let data_type = if self.kind == Kind::Numeric { DataType::Utf8 } else { self.kind.arrow() };
        if self.is_list { list(data_type) } else { data_type }
    }
}

fn list(data_type: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(data_type, true)))
}

/// The engine's type of a parameter that the client gives a number for; none where it leaves it to us.
pub(super) fn parameter(oid: u32) -> Result<Option<DataType>, Failure> {
    if oid == 0 || oid == 705 {
        return Ok(None);
    }
    if TEXTS.contains(&oid) {
        return Ok(Some(DataType::Utf8));
    }
    if TEXT_LISTS.contains(&oid) {
        return Ok(Some(list(DataType::Utf8)));
    }
    if oid == OID {
        return Ok(Some(DataType::Int64));
    }
    for (kind, one, many, ..) in KINDS {
        if one == oid {
            return Ok(Some(kind.arrow()));
        }
        if many == oid {
            return Ok(Some(list(kind.arrow())));
        }
    }
    Err(Failure::not_offered("a parameter of this type"))
}

/// The number of the type that a parameter was found to have.
pub(super) fn parameter_oid(data_type: &DataType) -> u32 {
    Column::of(&Field::new("", data_type.clone(), true)).oid()
}

/// The number by which the type of a parameter is told: the client's own where it gave one that means this type. The JDBC
/// driver says `varchar` of every text, and takes another answer for a change of the type.
pub(super) fn told_oid(data_type: &DataType, given: Option<u32>) -> u32 {
    let is_same = |oid: &u32| parameter(*oid).is_ok_and(|given| given.as_ref() == Some(data_type));
    given.filter(is_same).unwrap_or_else(|| parameter_oid(data_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_told_as_the_client_named_it_if_that_is_what_it_is() {
        let (varchar, text, bigint) = (1043, 25, 20);
        assert_eq!(told_oid(&DataType::Utf8, Some(varchar)), varchar);
        assert_eq!(told_oid(&DataType::Utf8, Some(bigint)), text);
        for unsaid in [None, Some(0), Some(705), Some(600)] {
            assert_eq!(told_oid(&DataType::Utf8, unsaid), text);
        }
    }

    #[test]
    fn every_kind_is_in_the_list_and_means_itself_as_a_parameter() {
        for (kind, oid, list_oid, ..) in KINDS {
            assert_eq!(kind.oid(), oid);
            let data_type = parameter(oid).unwrap().unwrap();
            assert_eq!((Kind::of(&data_type), parameter_oid(&data_type)), (kind, oid));
            assert_eq!(parameter_oid(&parameter(list_oid).unwrap().unwrap()), list_oid);
        }
        assert_eq!(parameter(0), Ok(None));
        assert!(parameter(600).is_err());
    }
}
