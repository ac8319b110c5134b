use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::{Field, Schema};

use super::*;

/// The values of a column in one format, each as its bytes show.
fn written(array: ArrayRef, format: Format) -> Vec<Option<Vec<u8>>> {
    let schema = Schema::new(vec![Field::new("c", array.data_type().clone(), true)]);
    let columns = Column::of_all(&schema);
    let batch = RecordBatch::try_new(Arc::new(schema), vec![array]).unwrap();
    let ready = Written::of(&batch, &columns).unwrap();
    let mut all = Vec::new();
    for row in 0..batch.num_rows() {
        let mut out = BytesMut::new();
        ready.row(row, &columns, &[format], &mut out).unwrap();
        let length = i32::from_be_bytes(out[..4].try_into().unwrap());
        all.push((length >= 0).then(|| out[4..].to_vec()));
        assert_eq!(out.len(), 4 + usize::try_from(length).unwrap_or(0));
    }
    all
}

fn texts(array: impl Array + 'static) -> Vec<String> {
    let shown = |value: Option<Vec<u8>>| value.map_or("-".to_owned(), |bytes| String::from_utf8(bytes).unwrap());
    written(Arc::new(array), Format::Text).into_iter().map(shown).collect()
}

fn bytes(array: impl Array + 'static) -> Vec<u8> {
    written(Arc::new(array), Format::Binary).remove(0).unwrap()
}

#[test]
fn values_are_written_as_postgresql_writes_them() {
    assert_eq!(texts(BooleanArray::from(vec![Some(true), Some(false), None])), ["t", "f", "-"]);
    assert_eq!(texts(UInt64Array::from(vec![u64::MAX])), ["18446744073709551615"]);
    assert_eq!(
        texts(Float64Array::from(vec![0.1, f64::NAN, f64::NEG_INFINITY, 1e21])),
        ["0.1", "NaN", "-Infinity", "1000000000000000000000"]
    );
    assert_eq!(texts(StringViewArray::from(vec!["", "x\u{1b}"])), ["", "x\u{1b}"]);
    assert_eq!(texts(BinaryArray::from(vec![&b"\x00\xff"[..]])), ["\\x00ff"]);
    assert_eq!(texts(Date32Array::from(vec![0, 20_779, -719_163])), ["1970-01-01", "2026-11-22", "0001-12-31 BC"]);
    let moments = vec![1_795_341_600_000_000, 1_795_341_600_120_000, -1];
    let moments = TimestampMicrosecondArray::from(moments);
    assert_eq!(
        texts(moments.clone().with_timezone("UTC")),
        ["2026-11-22 10:00:00+00", "2026-11-22 10:00:00.12+00", "1969-12-31 23:59:59.999999+00"]
    );
    assert_eq!(texts(moments)[0], "2026-11-22 10:00:00");
    assert_eq!(texts(TimestampSecondArray::from(vec![1_795_341_600])), ["2026-11-22 10:00:00"]);
    assert_eq!(
        texts(IntervalMonthDayNanoArray::from(vec![
            arrow::datatypes::IntervalMonthDayNano::new(14, 3, 5_400_000_000_000),
            arrow::datatypes::IntervalMonthDayNano::new(0, 0, -1_500_000),
        ])),
        ["1 year 2 mons 3 days 01:30:00", "-00:00:00.0015"]
    );
    let decimal = Decimal128Array::from(vec![-12_345]).with_precision_and_scale(10, 2).unwrap();
    assert_eq!(texts(decimal), ["-123.45"]);
    assert_eq!(texts(NullArray::new(1)), ["-"]);
}

#[test]
fn lists_are_quoted_where_they_must_be() {
    let mut lists = ListBuilder::new(StringBuilder::new());
    lists.append_value([Some("a@b"), Some("c d"), Some("null"), Some("\"\\"), Some(""), None]);
    lists.append_value([] as [Option<&str>; 0]);
    lists.append_null();
    let lists = lists.finish();
    assert_eq!(texts(lists.clone()), [r#"{a@b,"c d","null","\"\\","",NULL}"#, "{}", "-"]);
    let mut one = ListBuilder::new(Int64Builder::new());
    one.append_value([Some(7)]);
    let expected = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 7];
    assert_eq!(bytes(one.finish()), expected);
}

#[test]
fn binary_counts_from_the_year_2000() {
    assert_eq!(bytes(Date32Array::from(vec![EPOCH_DAYS + 1])), 1i32.to_be_bytes());
    let moment = TimestampMicrosecondArray::from(vec![EPOCH_MICROSECONDS - 5]).with_timezone("UTC");
    assert_eq!(bytes(moment), (-5i64).to_be_bytes());
    let number = |text: &str| {
        let mut out = BytesMut::new();
        numeric(text, &mut out).unwrap();
        out.chunks(2).map(|two| u16::from_be_bytes(two.try_into().unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(number("-123.45"), [2, 0, 0x4000, 2, 123, 4500]);
    assert_eq!(number("100000000"), [1, 2, 0, 0, 1]);
    assert_eq!(number("0.00001"), [1, 0xfffe, 0, 5, 1000]);
    assert_eq!(number("0.00"), [0, 0, 0, 2]);
}
