//! Functions that SQL has over the record as received.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, StringArrayType, StringBuilder};
use arrow::datatypes::DataType;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::prelude::SessionContext;
use schemas::path::{Path, Scalar};

/// The name/value arrays that `param` looks through, in order.
const NAMED_ARRAYS: &[&str] = &[
    "Parameters",
    "OperationProperties",
    "ExtendedProperties",
    "DeviceProperties",
    "ModifiedProperties",
    "ExtraProperties",
];

/// Adds the functions to a session.
pub(super) fn register(context: &SessionContext) {
    for reading in [Reading::Param, Reading::Field] {
        let signature = Signature::string(2, Volatility::Immutable);
        context.register_udf(ScalarUDF::from(RecordFunction { reading, signature }));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Reading {
    /// `param(raw, 'ForwardTo')`: the value of that name in any name/value array of the record.
    Param,
    /// `field(raw, 'Item.Subject')`: the value at that path.
    Field,
}

impl Reading {
    fn paths(self, name: &str) -> Vec<Path> {
        match self {
            Reading::Param => NAMED_ARRAYS.iter().map(|array| Path::parse(&format!("{array}.{name}"))).collect(),
            Reading::Field => vec![Path::parse(name)],
        }
    }
}

#[derive(Debug)]
struct RecordFunction {
    reading: Reading,
    signature: Signature,
}

impl PartialEq for RecordFunction {
    fn eq(&self, other: &Self) -> bool {
        self.reading == other.reading
    }
}

impl Eq for RecordFunction {}

impl Hash for RecordFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.reading.hash(state);
    }
}

impl ScalarUDFImpl for RecordFunction {
    fn name(&self) -> &str {
        match self.reading {
            Reading::Param => "param",
            Reading::Field => "field",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let [records, names] = arrays.as_slice() else {
            return Err(DataFusionError::Plan(format!("{} takes a record and a name", self.name())));
        };
        let names = arrow::compute::cast(names, &DataType::Utf8)?;
        let names = names.as_string::<i32>();
        Ok(ColumnarValue::Array(match records.data_type() {
            // As the archive's own column comes: not copied.
            DataType::Utf8View => self.read(records.as_string_view(), names),
            _ => self.read(arrow::compute::cast(records, &DataType::Utf8)?.as_string::<i32>(), names),
        }))
    }
}

impl RecordFunction {
    fn read<'a>(&self, records: impl StringArrayType<'a>, names: &StringArray) -> ArrayRef {
        let mut out = StringBuilder::new();
        // The name is nearly always one literal: its paths are parsed once.
        let mut parsed: Option<(String, Vec<Path>)> = None;
        for row in 0..records.len() {
            if records.is_null(row) || names.is_null(row) {
                out.append_null();
                continue;
            }
            let name = names.value(row);
            if parsed.as_ref().is_none_or(|(known, _)| known != name) {
                parsed = Some((name.to_owned(), self.reading.paths(name)));
            }
            let paths = parsed.as_ref().map_or(&[][..], |(_, paths)| paths);
            out.append_option(value(records.value(row), paths));
        }
        Arc::new(out.finish())
    }
}

/// The values at the first path that is there, joined with ';' as Microsoft joins lists.
fn value(record: &str, paths: &[Path]) -> Option<String> {
    let record = schemas::json::parse(record.as_bytes()).ok()?;
    for path in paths {
        let mut values = Vec::new();
        if path.select_record(record.root(), &mut values) {
            let texts: Vec<_> = values.iter().map(Scalar::to_text).collect();
            return Some(texts.join(";"));
        }
    }
    None
}
