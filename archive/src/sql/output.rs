//! Answers as text: what `harrier sql --format` prints.
//!
//! Event values are written by attackers. In tables and CSV control characters are shown escaped (JSON does so by
//! itself), so that no value can move the cursor or change colours; in CSV a cell that a spreadsheet would run as a
//! formula begins with `'`. Parquet has the values as they are.

use std::io::{self, Write};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use unicode_width::UnicodeWidthStr;

/// Widest column of a table but the last; longer values are cut, with an ellipsis. The other formats cut nothing.
const COLUMN_WIDTH_MAX: usize = 120;

/// How answers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people: aligned columns.
    Table,
    /// One array of objects.
    Json,
    /// One object a line.
    Ndjson,
    Csv,
    Parquet,
}

/// Writes batches in one format. `finish` must be called: some formats have an end.
pub struct Output<W: Write + Send> {
    writer: Writer<W>,
    pub rows: u64,
}

enum Writer<W: Write + Send> {
    Table { out: W, schema: SchemaRef, rows: Vec<Vec<String>> },
    Json(arrow::json::ArrayWriter<W>),
    Ndjson(arrow::json::LineDelimitedWriter<W>),
    Csv(Box<arrow::csv::Writer<W>>),
    Parquet(Box<parquet::arrow::ArrowWriter<W>>),
}

impl<W: Write + Send> Output<W> {
    pub fn new(format: Format, schema: SchemaRef, out: W) -> io::Result<Output<W>> {
        let writer = match format {
            Format::Table => Writer::Table { out, schema, rows: Vec::new() },
            Format::Json => {
                let builder = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
                Writer::Json(builder.build(out))
            }
            Format::Ndjson => {
                let builder = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
                Writer::Ndjson(builder.build(out))
            }
            Format::Csv => Writer::Csv(Box::new(arrow::csv::WriterBuilder::new().with_header(true).build(out))),
            Format::Parquet => {
                let writer = parquet::arrow::ArrowWriter::try_new(out, schema, None).map_err(io::Error::other)?;
                Writer::Parquet(Box::new(writer))
            }
        };
        Ok(Output { writer, rows: 0 })
    }

    pub fn write(&mut self, batch: &RecordBatch) -> io::Result<()> {
        self.rows += batch.num_rows() as u64;
        match &mut self.writer {
            Writer::Table { rows, .. } => rows.extend(table_rows(batch)?),
            Writer::Json(writer) => writer.write(batch).map_err(io::Error::other)?,
            Writer::Ndjson(writer) => writer.write(batch).map_err(io::Error::other)?,
            Writer::Csv(writer) => writer.write(&as_safe_text(batch)?).map_err(io::Error::other)?,
            Writer::Parquet(writer) => writer.write(batch).map_err(io::Error::other)?,
        }
        Ok(())
    }

    pub fn finish(self) -> io::Result<()> {
        match self.writer {
            Writer::Table { mut out, schema, rows } => write_table(&mut out, &schema, &rows),
            Writer::Json(mut writer) => writer.finish().map_err(io::Error::other),
            Writer::Ndjson(mut writer) => writer.finish().map_err(io::Error::other),
            Writer::Csv(_) => Ok(()),
            Writer::Parquet(writer) => writer.close().map(drop).map_err(io::Error::other),
        }
    }
}

/// Text in which nothing acts on a terminal: control characters, and those that reorder what follows, are escaped.
pub fn escaped(text: &str) -> String {
    schemas::text::escape_controls(text)
}

fn table_rows(batch: &RecordBatch) -> io::Result<Vec<Vec<String>>> {
    let options = FormatOptions::default().with_null("").with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S"));
    let formatters: Vec<ArrayFormatter> = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
        .collect::<Result<_, _>>()
        .map_err(io::Error::other)?;
    let cell = |formatter: &ArrayFormatter, row| escaped(&formatter.value(row).to_string());
    Ok((0..batch.num_rows()).map(|row| formatters.iter().map(|formatter| cell(formatter, row)).collect()).collect())
}

fn write_table(out: &mut impl Write, schema: &SchemaRef, rows: &[Vec<String>]) -> io::Result<()> {
    let names: Vec<String> = schema.fields().iter().map(|field| heading(field.name(), field.data_type())).collect();
    let last = names.len().saturating_sub(1);
    let widths: Vec<usize> = names
        .iter()
        .enumerate()
        .map(|(column, name)| {
            let cells = rows.iter().map(|row| row[column].width());
            let width = cells.chain([name.width()]).max().unwrap_or(0);
            if column == last { width } else { width.min(COLUMN_WIDTH_MAX) }
        })
        .collect();
    write_row(out, &names, &widths)?;
    let rule: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
    write_row(out, &rule, &widths)?;
    for row in rows {
        write_row(out, row, &widths)?;
    }
    out.flush()
}

/// Times are UTC and say so.
fn heading(name: &str, data_type: &DataType) -> String {
    match data_type {
        DataType::Timestamp(_, Some(_)) => format!("{name} (UTC)"),
        _ => name.to_owned(),
    }
}

fn write_row(out: &mut impl Write, cells: &[String], widths: &[usize]) -> io::Result<()> {
    let mut line = String::new();
    for (cell, &width) in cells.iter().zip(widths) {
        let shown = cut(cell, width);
        line.push_str(&shown);
        line.push_str(&" ".repeat(width - shown.width().min(width) + 2));
    }
    writeln!(out, "{}", line.trim_end())
}

fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    for c in text.chars() {
        if kept.width() + 2 > width {
            break;
        }
        kept.push(c);
    }
    kept.push('…');
    kept
}

/// Every column as text; lists joined, control characters escaped, formulas disarmed.
fn as_safe_text(batch: &RecordBatch) -> io::Result<RecordBatch> {
    let options = FormatOptions::default().with_null("");
    let mut columns: Vec<arrow::array::ArrayRef> = Vec::new();
    let mut fields = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let is_text =
            matches!(field.data_type(), DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 | DataType::List(_));
        let formatter = ArrayFormatter::try_new(column.as_ref(), &options).map_err(io::Error::other)?;
        let texts = (0..batch.num_rows()).map(|row| {
            let text = if let DataType::List(_) = field.data_type() {
                joined(column, row)
            } else {
                formatter.value(row).to_string()
            };
            let acts = is_text && text.starts_with(['=', '+', '-', '@', '\t', '\r']);
            let text = if is_text { escaped(&text) } else { text };
            Some(if acts { format!("'{text}") } else { text })
        });
        columns.push(std::sync::Arc::new(texts.collect::<arrow::array::StringArray>()));
        fields.push(arrow::datatypes::Field::new(field.name(), DataType::Utf8, true));
    }
    RecordBatch::try_new(std::sync::Arc::new(arrow::datatypes::Schema::new(fields)), columns).map_err(io::Error::other)
}

fn joined(column: &dyn Array, row: usize) -> String {
    let list = column.as_list::<i32>();
    if list.is_null(row) {
        return String::new();
    }
    let values = list.value(row);
    let Some(texts) = values.as_string_opt::<i32>() else { return String::new() };
    texts.iter().flatten().collect::<Vec<_>>().join(";")
}
