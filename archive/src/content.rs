//! What a set of rows holds, as one number that does not depend on their order or on the files they lie in.
//!
//! Each row is hashed with every value that it has, under the column's name, and the hashes are added up. So two sets of
//! files hold the same rows, each as often, if their sums are equal: that is what a compaction is held to before it is
//! committed, and what can be checked long after, when the files it replaced are gone. A column that a file does not have
//! yet counts as one without values.
//!
//! The sum guards against mistakes and damage. Against somebody who means harm stand the files' hashes and the signature.

use arrow::array::{Array, AsArray, BinaryArray, BooleanArray, Int64Array, ListArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Date32Type, TimeUnit, TimestampMicrosecondType};
use ring::digest::{SHA256, digest};

use crate::error::Error;

/// The sum over the rows of one or more files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) rows: u64,
    /// 256 bits, the lowest first.
    sum: [u64; 4],
}

impl Content {
    /// Adds every row of a batch.
    pub(crate) fn add_batch(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        let schema = batch.schema();
        let mut columns: Vec<(&str, Cells<'_>)> = Vec::with_capacity(batch.num_columns());
        for (field, column) in schema.fields().iter().zip(batch.columns()) {
            let cells = Cells::of(column).ok_or_else(|| Error::ColumnType { column: field.name().clone() })?;
            columns.push((field.name(), cells));
        }
        // By name, because columns may come to stand in another order.
        columns.sort_unstable_by_key(|(name, _)| *name);
        let mut row_bytes = Vec::new();
        for row in 0..batch.num_rows() {
            row_bytes.clear();
            for (name, cells) in &columns {
                cells.write(row, name, &mut row_bytes);
            }
            self.add_row(digest(&SHA256, &row_bytes).as_ref());
        }
        Ok(())
    }

    /// Adds what another set of rows holds.
    pub(crate) fn add(&mut self, other: &Content) {
        self.rows += other.rows;
        self.add_sum(other.sum);
    }

    fn add_row(&mut self, hash: &[u8]) {
        let mut parts = [0; 4];
        for (part, bytes) in parts.iter_mut().zip(hash.as_chunks::<8>().0) {
            *part = u64::from_le_bytes(*bytes);
        }
        self.rows += 1;
        self.add_sum(parts);
    }

    fn add_sum(&mut self, parts: [u64; 4]) {
        let mut carry = false;
        for (sum, part) in self.sum.iter_mut().zip(parts) {
            (*sum, carry) = sum.carrying_add_part(part, carry);
        }
    }

    /// As it stands in a commit: the sum alone, because the number of rows is said beside it.
    pub(crate) fn to_text(self) -> String {
        self.sum.iter().rev().map(|part| format!("{part:016x}")).collect()
    }

    pub(crate) fn parse(text: &str, rows: u64) -> Option<Content> {
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        let mut sum = [0; 4];
        for (index, part) in sum.iter_mut().rev().enumerate() {
            *part = u64::from_str_radix(&text[index * 16..(index + 1) * 16], 16).ok()?;
        }
        Some(Content { rows, sum })
    }
}

trait CarryingAdd {
    fn carrying_add_part(self, part: u64, carry: bool) -> (u64, bool);
}

impl CarryingAdd for u64 {
    fn carrying_add_part(self, part: u64, carry: bool) -> (u64, bool) {
        let (sum, over) = self.overflowing_add(part);
        let (sum, over_by_carry) = sum.overflowing_add(carry.into());
        (sum, over || over_by_carry)
    }
}

/// A column, by its type.
enum Cells<'a> {
    Text(&'a StringArray),
    Integer(&'a Int64Array),
    Boolean(&'a BooleanArray),
    Time(&'a arrow::array::PrimitiveArray<TimestampMicrosecondType>),
    Date(&'a arrow::array::PrimitiveArray<Date32Type>),
    TextList(&'a ListArray),
    Bytes(&'a BinaryArray),
}

impl<'a> Cells<'a> {
    /// Only the types that our tables have.
    fn of(column: &'a dyn Array) -> Option<Cells<'a>> {
        Some(match column.data_type() {
            DataType::Utf8 => Cells::Text(column.as_string_opt()?),
            DataType::Int64 => Cells::Integer(column.as_primitive_opt()?),
            DataType::Boolean => Cells::Boolean(column.as_boolean_opt()?),
            DataType::Timestamp(TimeUnit::Microsecond, _) => Cells::Time(column.as_primitive_opt()?),
            DataType::Date32 => Cells::Date(column.as_primitive_opt()?),
            DataType::List(element) if *element.data_type() == DataType::Utf8 => Cells::TextList(column.as_list_opt()?),
            DataType::Binary => Cells::Bytes(column.as_binary_opt()?),
            _ => return None,
        })
    }

    /// Appends name and value; nothing, where there is no value.
    fn write(&self, row: usize, name: &str, out: &mut Vec<u8>) {
        let array: &dyn Array = match self {
            Cells::Text(array) => *array,
            Cells::Integer(array) => *array,
            Cells::Boolean(array) => *array,
            Cells::Time(array) => *array,
            Cells::Date(array) => *array,
            Cells::TextList(array) => *array,
            Cells::Bytes(array) => *array,
        };
        if array.is_null(row) {
            return;
        }
        sized(name.as_bytes(), out);
        match self {
            Cells::Text(array) => sized(array.value(row).as_bytes(), out),
            Cells::Integer(array) => sized(&array.value(row).to_le_bytes(), out),
            Cells::Boolean(array) => sized(&[u8::from(array.value(row))], out),
            Cells::Time(array) => sized(&array.value(row).to_le_bytes(), out),
            Cells::Date(array) => sized(&array.value(row).to_le_bytes(), out),
            Cells::Bytes(array) => sized(array.value(row), out),
            Cells::TextList(array) => {
                let texts = array.value(row);
                let texts = texts.as_string::<i32>();
                out.extend_from_slice(&(texts.len() as u64).to_le_bytes());
                for text in texts {
                    match text {
                        Some(text) => sized(text.as_bytes(), out),
                        None => out.extend_from_slice(&u64::MAX.to_le_bytes()),
                    }
                }
            }
        }
    }
}

/// With its length in front, so that no two rows are written alike.
fn sized(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::ArrayRef;
    use proptest::prelude::*;

    use super::*;

    fn batch(rows: &[(Option<i64>, Option<String>)]) -> RecordBatch {
        let numbers: Int64Array = rows.iter().map(|(number, _)| *number).collect();
        let texts: StringArray = rows.iter().map(|(_, text)| text.clone()).collect();
        RecordBatch::try_from_iter([("n", Arc::new(numbers) as ArrayRef), ("t", Arc::new(texts))]).unwrap()
    }

    fn content(batches: &[RecordBatch]) -> Content {
        let mut content = Content::default();
        batches.iter().for_each(|batch| content.add_batch(batch).unwrap());
        content
    }

    fn row() -> impl Strategy<Value = (Option<i64>, Option<String>)> {
        (proptest::option::of(0_i64..4), proptest::option::of("[ab]{0,2}"))
    }

    proptest! {
        #[test]
        fn equal_multisets_and_only_they_have_equal_sums(
            rows in proptest::collection::vec(row(), 0..12),
            others in proptest::collection::vec(row(), 0..12),
            cut in 0_usize..12,
        ) {
            let (mut sorted, mut sorted_others) = (rows.clone(), others.clone());
            sorted.sort();
            sorted_others.sort();
            let cut = cut.min(rows.len());
            let halves = content(&[batch(&rows[cut..]), batch(&rows[..cut])]);
            prop_assert_eq!(halves, content(&[batch(&sorted)]));
            prop_assert_eq!(halves == content(&[batch(&others)]), sorted == sorted_others);
            prop_assert_eq!(Content::parse(&halves.to_text(), halves.rows), Some(halves));
        }
    }

    #[test]
    fn a_column_without_values_and_no_column_are_one() {
        let with = batch(&[(Some(1), None)]);
        let without = RecordBatch::try_from_iter([("n", with.column(0).clone())]).unwrap();
        assert_eq!(content(&[with]), content(&[without]));
    }
}
