//! Text columns as the engine reads them, and as answers hold them.
//!
//! Files hold plain text columns. Read as such, every value is copied out of the dictionary or the page it lies in, also
//! those that a condition throws away at once: in a question about one operation that was a quarter of its time. So the
//! engine reads them as views (`Utf8View`), which point into the page. Whoever gets an answer gets plain text again: not
//! every reader of Arrow and Parquet knows views, and what lies in an answer should not keep pages in memory.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::error::Result;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;

use super::Rows;

/// A schema whose text columns are views.
pub(super) fn as_views(schema: &Schema) -> Schema {
    with_texts(schema, &DataType::Utf8, &DataType::Utf8View)
}

/// The same rows, with views as plain text.
pub(super) fn as_text(rows: Rows) -> Rows {
    let given = rows.schema();
    let schema = Arc::new(with_texts(&given, &DataType::Utf8View, &DataType::Utf8));
    if schema == given {
        return rows;
    }
    let of = schema.clone();
    Box::pin(RecordBatchStreamAdapter::new(schema, rows.map(move |batch| batch_as_text(&batch?, &of))))
}

fn batch_as_text(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| cast(column, field.data_type())).collect::<Result<_, _>>()?;
    // A batch without columns has rows all the same.
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

fn with_texts(schema: &Schema, from: &DataType, to: &DataType) -> Schema {
    let fields = schema.fields().iter().map(|field| field_with_texts(field, from, to));
    Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone())
}

/// Lists are read as they are, but an answer may have made one of views.
fn field_with_texts(field: &FieldRef, from: &DataType, to: &DataType) -> FieldRef {
    let data_type = match field.data_type() {
        data_type if data_type == from => to.clone(),
        DataType::List(element) if element.data_type() == from && *from == DataType::Utf8View => {
            DataType::List(field_with_texts(element, from, to))
        }
        _ => return field.clone(),
    };
    Arc::new(Field::new(field.name(), data_type, field.is_nullable()).with_metadata(field.metadata().clone()))
}
