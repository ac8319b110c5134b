//! Functions that make much of little, bounded by what they are about to make.
//!
//! A function answers for a whole batch in one step, which neither the memory limit nor the time limit sees: one
//! `rpad('x', 2000000000)` is two gigabytes and a minute within which nothing ends it, and `range(0, 1000000000)` is eight,
//! before the query has even begun, because what is constant is carried out while it is planned. So what each of them would
//! make of its arguments is reckoned first, and beyond [`MADE_BYTES_MAX`] the query ends.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringViewArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::prelude::SessionContext;
use regex::Regex;

/// What one call of such a function may make of one batch: 64 KiB for each of its 8,192 rows, which is more than
/// anybody reads. For [`compared`] it is steps, of which so many take less than a second.
const MADE_BYTES_MAX: f64 = 512.0 * 1024.0 * 1024.0;

/// Rows of a batch of the engine.
const BATCH_ROWS: f64 = 8_192.0;

/// What a function would make of its arguments, each with a value for every row. In floating point: it only has to be
/// right up to far beyond the bound, and never overflows.
type Reckon = fn(&[ArrayRef]) -> Result<f64>;

/// Those that make much of constants are carried out for each batch, and not once before them: what is constant the engine
/// puts into every row of a batch, and it would be too late to ask how many those are.
const EXPANDING: [(&str, Reckon, When); 11] = [
    ("array_repeat", elements_repeated, When::EachBatch),
    ("array_resize", resized, When::EachBatch),
    ("array_to_string", joined, When::AsEver),
    ("generate_series", counted, When::EachBatch),
    ("levenshtein", compared, When::AsEver),
    ("lpad", padded, When::EachBatch),
    ("range", counted, When::EachBatch),
    ("regexp_replace", replaced_by_pattern, When::AsEver),
    ("repeat", repeated, When::EachBatch),
    ("replace", replaced, When::AsEver),
    ("rpad", padded, When::EachBatch),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    AsEver,
    EachBatch,
}

/// Bounds the functions of a session.
pub(super) fn bound(context: &SessionContext) {
    for (name, reckon, when) in EXPANDING {
        // What is not compiled in cannot be called.
        if let Ok(inner) = context.udf(name) {
            let mut signature = inner.signature().clone();
            if when == When::EachBatch {
                signature.volatility = Volatility::Volatile;
            }
            context.register_udf(ScalarUDF::from(Bounded { inner, signature, reckon, when }));
        }
    }
}

#[derive(Clone, Debug)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    signature: Signature,
    reckon: Reckon,
    when: When,
}

impl PartialEq for Bounded {
    fn eq(&self, other: &Self) -> bool {
        self.inner == other.inner
    }
}

impl Eq for Bounded {}

impl Hash for Bounded {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arguments)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<Arc<Field>> {
        self.inner.return_field_from_args(arguments)
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arguments)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_constant = arguments.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let rows = match (is_constant, self.when) {
            (false, _) => 1.0,
            (true, When::EachBatch) => arguments.number_rows as f64,
            (true, When::AsEver) => BATCH_ROWS,
        };
        let made = rows * (self.reckon)(&ColumnarValue::values_to_arrays(&arguments.args)?)?;
        if made > MADE_BYTES_MAX {
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{} has {made:.0} bytes to make of one batch, or steps to take; it may have {MADE_BYTES_MAX}",
                self.name()
            )));
        }
        self.inner.invoke_with_args(arguments)
    }
}

/// An argument's texts. An argument that is not there makes nothing: the function itself says so.
fn texts(arguments: &[ArrayRef], at: usize) -> Result<StringViewArray> {
    match arguments.get(at) {
        Some(array) => Ok(cast(array, &DataType::Utf8View)?.as_string_view().clone()),
        None => Ok(StringViewArray::new_null(arguments.first().map_or(0, |array| array.len()))),
    }
}

fn numbers(arguments: &[ArrayRef], at: usize) -> Result<Vec<f64>> {
    let rows = arguments.first().map_or(0, |array| array.len());
    let Some(array) = arguments.get(at) else { return Ok(vec![0.0; rows]) };
    let array = cast(array, &DataType::Float64)?;
    Ok(array.as_primitive::<Float64Type>().iter().map(Option::unwrap_or_default).collect())
}

/// Bytes of each row's text.
fn lengths(texts: &StringViewArray) -> impl Iterator<Item = f64> {
    texts.iter().map(|text| text.map_or(0.0, |text| text.len() as f64))
}

/// `repeat(text, times)`.
fn repeated(arguments: &[ArrayRef]) -> Result<f64> {
    let times = numbers(arguments, 1)?;
    Ok(lengths(&texts(arguments, 0)?).zip(times).map(|(length, times)| length * times.max(0.0)).sum())
}

/// `lpad(text, length[, fill])`: a character has up to four bytes.
fn padded(arguments: &[ArrayRef]) -> Result<f64> {
    Ok(numbers(arguments, 1)?.into_iter().map(|length| 4.0 * length.max(0.0)).sum())
}

/// `range([start, ]stop[, step])`, of numbers or times.
fn counted(arguments: &[ArrayRef]) -> Result<f64> {
    let moments = |at: usize| -> Result<Vec<f64>> {
        let Some(array) = arguments.get(at) else { return Ok(Vec::new()) };
        if array.data_type().is_temporal() {
            let seconds = cast(array, &DataType::Timestamp(TimeUnit::Second, None))?;
            return numbers(&[cast(&seconds, &DataType::Int64)?], 0);
        }
        numbers(arguments, at)
    };
    let (starts, stops) = if arguments.len() == 1 { (Vec::new(), moments(0)?) } else { (moments(0)?, moments(1)?) };
    let steps: Vec<f64> = match arguments.get(2).map(|array| (array, array.data_type())) {
        None | Some((_, DataType::Null)) => Vec::new(),
        Some((array, DataType::Interval(_))) => {
            let intervals = cast(array, &DataType::Interval(IntervalUnit::MonthDayNano))?;
            let intervals = intervals.as_primitive::<IntervalMonthDayNanoType>();
            // The shortest month, so that rather too many are reckoned than too few.
            let days = |months: i32, days: i32| 28.0 * f64::from(months) + f64::from(days);
            let seconds = intervals.iter().map(|interval| {
                interval.map_or(1.0, |step| days(step.months, step.days) * 86_400.0 + step.nanoseconds as f64 / 1e9)
            });
            seconds.collect()
        }
        Some(_) => numbers(arguments, 2)?,
    };
    let at = |values: &[f64], row: usize, otherwise: f64| values.get(row).copied().unwrap_or(otherwise);
    let values = (0..stops.len()).map(|row| {
        let step = at(&steps, row, 1.0).abs();
        // A step of nothing is refused by the function.
        if step > 0.0 { 8.0 * (stops[row] - at(&starts, row, 0.0)).abs() / step } else { 0.0 }
    });
    Ok(values.sum())
}

/// Bytes of one row of an array, and a word for its place.
fn bytes_of_row(array: &ArrayRef, row: usize) -> f64 {
    8.0 + array.slice(row, 1).to_data().get_slice_memory_size().map_or(f64::INFINITY, |bytes| bytes as f64)
}

/// `array_repeat(element, times)`.
fn elements_repeated(arguments: &[ArrayRef]) -> Result<f64> {
    let Some(elements) = arguments.first() else { return Ok(0.0) };
    let times = numbers(arguments, 1)?.into_iter().enumerate();
    Ok(times.map(|(row, times)| times.max(0.0) * bytes_of_row(elements, row)).sum())
}

/// `array_resize(array, length[, element])`.
fn resized(arguments: &[ArrayRef]) -> Result<f64> {
    let of_row = |row: usize| arguments.get(2).map_or(8.0, |elements| bytes_of_row(elements, row));
    let lengths = numbers(arguments, 1)?.into_iter().enumerate();
    Ok(lengths.map(|(row, length)| length.max(0.0) * of_row(row)).sum())
}

/// The longest number as text, about.
const NUMBER_BYTES: f64 = 24.0;

/// `array_to_string(array, between[, for nothing])`.
fn joined(arguments: &[ArrayRef]) -> Result<f64> {
    let Some(arrays) = arguments.first() else { return Ok(0.0) };
    let between = texts(arguments, 1)?;
    let nothing = texts(arguments, 2)?;
    let each = lengths(&between).zip(lengths(&nothing)).enumerate();
    let of_row = |(row, (between, nothing)): (usize, (f64, f64))| {
        let elements = match arrays.as_list_opt::<i32>().filter(|lists| !lists.value_type().is_nested()) {
            Some(lists) => f64::from(lists.value_length(row)),
            // Lists of lists: each element has at least a bit of its own.
            None => 8.0 * bytes_of_row(arrays, row),
        };
        bytes_of_row(arrays, row) + elements * (between + nothing + NUMBER_BYTES)
    };
    Ok(each.map(of_row).sum())
}

/// `levenshtein(a, b)`: not what it makes but its steps, one for each letter of the one and of the other.
fn compared(arguments: &[ArrayRef]) -> Result<f64> {
    let (one, other) = (texts(arguments, 0)?, texts(arguments, 1)?);
    Ok(lengths(&one).zip(lengths(&other)).map(|(one, other)| one * other).sum())
}

/// `replace(text, from, to)`.
fn replaced(arguments: &[ArrayRef]) -> Result<f64> {
    let [text, from, to] = [texts(arguments, 0)?, texts(arguments, 1)?, texts(arguments, 2)?];
    let rows = text.iter().zip(&from).zip(&to).map(|((text, from), to)| {
        let (Some(text), Some(from), Some(to)) = (text, from, to) else { return 0.0 };
        // Most replacements are short: then no text is searched twice.
        let most = (text.len() + 1) as f64 / from.len().max(1) as f64;
        let is_much = most * to.len() as f64 > MADE_BYTES_MAX / BATCH_ROWS;
        let times = if is_much { text.matches(from).count() as f64 } else { most };
        text.len() as f64 + times * to.len() as f64
    });
    Ok(rows.sum())
}

/// `regexp_replace(text, pattern, to[, flags])`.
fn replaced_by_pattern(arguments: &[ArrayRef]) -> Result<f64> {
    let [text, pattern, to, flags] = [0, 1, 2, 3].map(|at| texts(arguments, at));
    let (text, pattern, to, flags) = (text?, pattern?, to?, flags?);
    let mut compiled: Option<(&str, Option<Regex>)> = None;
    let mut made = 0.0;
    for row in 0..text.len() {
        if text.is_null(row) || pattern.is_null(row) || to.is_null(row) {
            continue;
        }
        let (text, to) = (text.value(row), to.value(row));
        let everywhere = flags.is_valid(row) && flags.value(row).contains('g');
        // What a `\\1` stands for is part of the text, and of each only one match has it.
        let parts = to.matches(['\\', '$']).count() as f64 * text.len() as f64;
        let most = if everywhere { (text.len() + 1) as f64 } else { 1.0 };
        let times = if most * to.len() as f64 > MADE_BYTES_MAX / BATCH_ROWS {
            let pattern = pattern.value(row);
            if compiled.as_ref().is_none_or(|(known, _)| *known != pattern) {
                compiled = Some((pattern, Regex::new(pattern).ok()));
            }
            let regex = compiled.as_ref().and_then(|(_, regex)| regex.as_ref());
            // No further than to where it is too much.
            let enough = (MADE_BYTES_MAX / to.len().max(1) as f64).min(most) as usize + 1;
            regex.map_or(0, |regex| regex.find_iter(text).take(enough).count()) as f64
        } else {
            most
        };
        made += text.len() as f64 + times * to.len() as f64 + parts;
    }
    Ok(made)
}
