//! Functions of `pg_catalog` that clients call. None reads anything but the list of tables and the session.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::datatypes::{DataType, Field};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use datafusion::prelude::SessionContext;
use datafusion::scalar::ScalarValue;

use super::super::Session;
use super::super::variables::SERVER_VERSION;
use super::{DATABASE, OWNER, tables};

/// What is answered, whatever is asked.
const TRUE: [&str; 14] = [
    "has_any_column_privilege",
    "has_column_privilege",
    "has_database_privilege",
    "has_function_privilege",
    "has_schema_privilege",
    "has_table_privilege",
    "pg_collation_is_visible",
    "pg_function_is_visible",
    "pg_has_role",
    "pg_opclass_is_visible",
    "pg_operator_is_visible",
    "pg_table_is_visible",
    "pg_type_is_visible",
    "row_security_active",
];
const FALSE: [&str; 4] =
    ["pg_is_in_recovery", "pg_is_other_temp_schema", "pg_relation_is_publishable", "pg_is_wal_replay_paused"];
const NOTHING: [&str; 16] = [
    "inet_client_addr",
    "inet_server_addr",
    "pg_get_constraintdef",
    "pg_get_expr",
    "pg_get_function_arguments",
    "pg_get_function_identity_arguments",
    "pg_get_function_result",
    "pg_get_functiondef",
    "pg_get_indexdef",
    "pg_get_partkeydef",
    "pg_get_ruledef",
    "pg_get_serial_sequence",
    "pg_get_triggerdef",
    "pg_get_viewdef",
    "pg_tablespace_location",
    "shobj_description",
];
const ZERO: [&str; 8] = [
    "pg_database_size",
    "pg_indexes_size",
    "pg_my_temp_schema",
    "pg_relation_size",
    "pg_table_size",
    "pg_total_relation_size",
    "txid_current",
    "pg_stat_get_numscans",
];

/// The name of the function that shows a table's number as its name.
pub(super) const RELATION: &str = "harrier_relation_name";

pub(super) fn register(context: &SessionContext, session: &Arc<Session>) {
    let constant = |name: &'static str, value: ScalarValue| {
        context.register_udf(ScalarUDF::from(Function::new(name, Body::Constant(value))));
    };
    let text = |text: &str| ScalarValue::Utf8(Some(text.to_owned()));
    TRUE.iter().for_each(|name| constant(name, ScalarValue::Boolean(Some(true))));
    FALSE.iter().for_each(|name| constant(name, ScalarValue::Boolean(Some(false))));
    NOTHING.iter().for_each(|name| constant(name, ScalarValue::Utf8(None)));
    ZERO.iter().for_each(|name| constant(name, ScalarValue::Int64(Some(0))));
    for name in ["current_user", "session_user", "user", "current_role"] {
        constant(name, text(&session.user));
    }
    for name in ["current_database", "current_catalog"] {
        constant(name, text(DATABASE));
    }
    constant("current_schema", text("public"));
    let schemas = [text("pg_catalog"), text("public")];
    constant("current_schemas", ScalarValue::List(ScalarValue::new_list(&schemas, &DataType::Utf8, true)));
    constant("version", text(&format!("PostgreSQL {SERVER_VERSION}")));
    constant("pg_backend_pid", ScalarValue::Int32(Some(session.process)));
    let each = |name: &'static str, body: Row| {
        context.register_udf(ScalarUDF::from(Function::new(name, Body::Row(body))));
    };
    each("format_type", Arc::new(|values| number(values, 0).map(tables::type_name)));
    each("pg_get_userbyid", Arc::new(|_| Some(OWNER.to_owned())));
    each("pg_encoding_to_char", Arc::new(|_| Some("UTF8".to_owned())));
    each("pg_size_pretty", Arc::new(|values| Some(format!("{} bytes", values.first()?.as_deref()?))));
    each("quote_ident", Arc::new(|values| Some(quoted(values.first()?.as_deref()?))));
    each("obj_description", Arc::new(|values| description(number(values, 0)?, 0)));
    each("col_description", Arc::new(|values| description(number(values, 0)?, number(values, 1)?)));
    each(
        RELATION,
        Arc::new(|values| {
            let oid = number(values, 0)?;
            let table = tables::numbered().find(|(known, _)| *known == oid);
            Some(table.map_or_else(|| oid.to_string(), |(_, table)| table.name.to_owned()))
        }),
    );
    let known = session.clone();
    each(
        "current_setting",
        Arc::new(move |values| known.variables.get(values.first()?.as_deref()?).map(|(_, value)| value.to_owned())),
    );
    // Says what was asked to be set, and sets nothing.
    each("set_config", Arc::new(|values| values.get(1)?.clone()));
}

fn number(values: &[Option<String>], at: usize) -> Option<i32> {
    values.get(at)?.as_deref()?.parse().ok()
}

fn quoted(name: &str) -> String {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.is_empty();
    if is_plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// What a table is, or its column of this number.
fn description(oid: i32, column: i32) -> Option<String> {
    let (_, table) = tables::numbered().find(|(known, _)| *known == oid)?;
    match usize::try_from(column).ok()? {
        0 => Some(table.doc.to_owned()),
        number => table.columns().get(number - 1).map(|column| column.doc.to_owned()),
    }
}

type Row = Arc<dyn Fn(&[Option<String>]) -> Option<String> + Send + Sync>;

#[derive(Clone)]
enum Body {
    Constant(ScalarValue),
    /// Text from the arguments of a row as text.
    Row(Row),
}

/// A function: within one context its name says all of it.
struct Function {
    name: &'static str,
    body: Body,
    signature: Signature,
}

impl Function {
    fn new(name: &'static str, body: Body) -> Function {
        let any = vec![TypeSignature::Nullary, TypeSignature::VariadicAny];
        Function { name, body, signature: Signature::one_of(any, Volatility::Stable) }
    }
}

impl std::fmt::Debug for Function {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Function").field("name", &self.name).finish_non_exhaustive()
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(match &self.body {
            Body::Constant(value) => value.data_type(),
            Body::Row(_) => DataType::Utf8,
        })
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let body = match &self.body {
            Body::Constant(value) => return Ok(ColumnarValue::Scalar(value.clone())),
            Body::Row(body) => body,
        };
        let are_constant = arguments.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let texts = arrays.iter().map(|array| arrow::compute::cast(array, &DataType::Utf8));
        let texts: Vec<ArrayRef> = texts.collect::<std::result::Result<_, _>>()?;
        let value =
            |array: &ArrayRef, row: usize| array.is_valid(row).then(|| array.as_string::<i32>().value(row).to_owned());
        let rows = if are_constant { 1 } else { arguments.number_rows };
        let answers = (0..rows).map(|row| {
            let values: Vec<Option<String>> = texts.iter().map(|array| value(array, row)).collect();
            body(&values)
        });
        let answers: StringArray = answers.collect();
        if are_constant {
            let answer = answers.is_valid(0).then(|| answers.value(0).to_owned());
            return Ok(ColumnarValue::Scalar(ScalarValue::Utf8(answer)));
        }
        Ok(ColumnarValue::Array(Arc::new(answers)))
    }

    fn return_field_from_args(&self, arguments: datafusion::logical_expr::ReturnFieldArgs<'_>) -> Result<Arc<Field>> {
        let types: Vec<DataType> = arguments.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        Ok(Arc::new(Field::new(self.name, self.return_type(&types)?, true)))
    }
}
