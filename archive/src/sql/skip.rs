//! What a question asks of single values, and the Bloom filters that say which files have none of them.
//!
//! A file's filters are read once and kept within [`FILTER_BYTES_MAX`], so that a question about one user does not open
//! the files of ninety days: it opens those that the user is in. Files never change, so nothing kept goes stale.
//!
//! The guarantee: never a row less than without it. Whatever is not understood may hold; a filter that is not there, or
//! cannot be read as one, says nothing.

use std::ops::Range;
use std::sync::Arc;

use datafusion::common::TableReference;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::{ParquetAccessPlan, RowGroupAccess};
use datafusion::error::Result;
use datafusion::execution::cache::default_cache::DefaultCache;
use datafusion::execution::cache::{Cache, CacheKey, CacheValue};
use datafusion::logical_expr::{Expr, Operator};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::scalar::ScalarValue;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::bloom_filter::Sbbf;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};

use super::FOOTER_READ_BYTES;
use crate::table::Table;

/// How much of the filters is kept between questions: those of a hundred million rows or so. Those unused for longest leave
/// first, and are read again when they are asked for.
const FILTER_BYTES_MAX: usize = 256 * 1024 * 1024;

/// A condition that a row must meet, as far as filters can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// The column, or one of the texts in it if it is a list, is one of these.
    OneOf {
        column: &'static str,
        values: Vec<String>,
    },
    All(Vec<Condition>),
    Any(Vec<Condition>),
    /// Nothing is known of it.
    Unknown,
}

impl Condition {
    /// What all of these expressions ask of a table's columns.
    pub(super) fn of(table: &'static Table, expressions: &[Expr]) -> Condition {
        all(expressions.iter().map(|expression| condition(table, expression)))
    }

    /// Whether rows may meet it, by what is known of the single values.
    fn may_hold(&self, has: &impl Fn(&'static str, &str) -> bool) -> bool {
        match self {
            Condition::OneOf { column, values } => values.iter().any(|value| has(column, value)),
            Condition::All(conditions) => conditions.iter().all(|condition| condition.may_hold(has)),
            Condition::Any(conditions) => conditions.iter().any(|condition| condition.may_hold(has)),
            Condition::Unknown => true,
        }
    }

    fn columns(&self, found: &mut Vec<&'static str>) {
        match self {
            Condition::OneOf { column, .. } if !found.contains(column) => found.push(column),
            Condition::OneOf { .. } | Condition::Unknown => {}
            Condition::All(conditions) | Condition::Any(conditions) => {
                conditions.iter().for_each(|condition| condition.columns(found));
            }
        }
    }
}

fn all(conditions: impl Iterator<Item = Condition>) -> Condition {
    let mut known: Vec<_> = conditions.filter(|condition| *condition != Condition::Unknown).collect();
    match known.len() {
        0 => Condition::Unknown,
        1 => known.remove(0),
        _ => Condition::All(known),
    }
}

fn condition(table: &'static Table, expression: &Expr) -> Condition {
    let one_of = |column: &Expr, values: Option<Vec<String>>| {
        let column = filtered_column(table, column);
        column.zip(values).map_or(Condition::Unknown, |(column, values)| Condition::OneOf { column, values })
    };
    match expression {
        Expr::BinaryExpr(binary) => match binary.op {
            Operator::And => all([&binary.left, &binary.right].into_iter().map(|side| condition(table, side))),
            Operator::Or => {
                let sides = [&binary.left, &binary.right].map(|side| condition(table, side));
                if sides.contains(&Condition::Unknown) { Condition::Unknown } else { Condition::Any(sides.into()) }
            }
            Operator::Eq => match text(&binary.right) {
                Some(value) => one_of(&binary.left, Some(value)),
                None => one_of(&binary.right, text(&binary.left)),
            },
            _ => Condition::Unknown,
        },
        Expr::InList(list) if !list.negated => one_of(&list.expr, texts(&list.list)),
        Expr::ScalarFunction(call) => match (call.name(), call.args.as_slice()) {
            ("array_has", [column, value]) => one_of(column, text(value)),
            _ => Condition::Unknown,
        },
        _ => Condition::Unknown,
    }
}

/// The column, if it has filters.
fn filtered_column(table: &'static Table, expression: &Expr) -> Option<&'static str> {
    let name = match expression {
        Expr::Column(column) => &column.name,
        _ => return None,
    };
    table.bloom_filters.iter().copied().find(|filtered| filtered == name)
}

/// The texts of literals. None of them can be null here: what is compared with null is left as unknown.
fn texts(expressions: &[Expr]) -> Option<Vec<String>> {
    expressions.iter().map(text).collect::<Option<Vec<_>>>().map(|texts| texts.concat())
}

fn text(expression: &Expr) -> Option<Vec<String>> {
    let Expr::Literal(ScalarValue::Utf8(text) | ScalarValue::Utf8View(text) | ScalarValue::LargeUtf8(text), _) =
        expression
    else {
        return None;
    };
    Some(vec![text.clone()?])
}

/// The filters of one column of one file, one for each row group.
#[derive(Clone, Debug)]
struct ColumnFilters(Arc<Vec<Option<Sbbf>>>);

impl CacheValue for ColumnFilters {
    fn size(&self) -> usize {
        // The list of them counts as well, so that a file without filters is also remembered.
        let filters = self.0.iter().map(|filter| 64 + filter.as_ref().map_or(0, |filter| filter.num_blocks() * 32));
        64 + filters.sum::<usize>()
    }
}

/// A column of a file, by the file's whole path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct FileColumn {
    path: String,
    column: &'static str,
}

impl CacheKey for FileColumn {
    fn size(&self) -> usize {
        size_of::<FileColumn>() + self.path.len()
    }

    fn table_ref(&self) -> Option<&TableReference> {
        None
    }
}

/// Bloom filters that have been read.
pub(super) struct Filters {
    kept: DefaultCache<FileColumn, ColumnFilters>,
}

impl std::fmt::Debug for Filters {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Filters").field("bytes", &self.kept.memory_used()).finish_non_exhaustive()
    }
}

impl Default for Filters {
    fn default() -> Filters {
        Filters { kept: DefaultCache::new(FILTER_BYTES_MAX) }
    }
}

impl Filters {
    /// The file with those of its row groups that may have a row which meets the whole condition; nothing if none has. The
    /// reader need not look at the filters again.
    pub(super) async fn left_of(
        &self,
        condition: &Condition,
        file: PartitionedFile,
        reader: &dyn ParquetFileReaderFactory,
    ) -> Result<Option<PartitionedFile>> {
        let mut columns = Vec::new();
        condition.columns(&mut columns);
        if columns.is_empty() {
            return Ok(Some(file));
        }
        let known = self.of_columns(&columns, &file, reader).await?;
        let row_groups = known.first().map_or(0, |(_, filters)| filters.0.len());
        let may_hold = |row_group: usize| {
            condition.may_hold(&|column, value| {
                let filters = known.iter().find(|(known, _)| *known == column);
                let filter = filters.and_then(|(_, filters)| filters.0.get(row_group)?.as_ref());
                filter.is_none_or(|filter| filter.check(value))
            })
        };
        let left: Vec<bool> = (0..row_groups).map(may_hold).collect();
        Ok(if left.iter().all(|&left| left) {
            (row_groups > 0).then_some(file)
        } else if left.iter().any(|&left| left) {
            let access = |&left: &bool| if left { RowGroupAccess::Scan } else { RowGroupAccess::Skip };
            Some(file.with_extension(ParquetAccessPlan::new(left.iter().map(access).collect())))
        } else {
            None
        })
    }

    async fn of_columns(
        &self,
        columns: &[&'static str],
        file: &PartitionedFile,
        reader: &dyn ParquetFileReaderFactory,
    ) -> Result<Vec<(&'static str, ColumnFilters)>> {
        let key = |column| FileColumn { path: file.object_meta.location.to_string(), column };
        let kept = |&column: &&'static str| Some((column, self.kept.get(&key(column))?));
        if let Some(known) = columns.iter().map(kept).collect::<Option<Vec<_>>>() {
            return Ok(known);
        }
        let mut reader =
            reader.create_reader(0, file.clone(), Some(FOOTER_READ_BYTES), &ExecutionPlanMetricsSet::new())?;
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Skip);
        let metadata = reader.get_metadata(Some(&options)).await?;
        let mut known = Vec::new();
        for &column in columns {
            let filters = read(&mut *reader, &metadata, column, file.object_meta.size).await?;
            self.kept.put(&key(column), filters.clone());
            known.push((column, filters));
        }
        Ok(known)
    }
}

/// Reads a column's filters, all of them in one request.
async fn read(
    reader: &mut dyn AsyncFileReader,
    metadata: &ParquetMetaData,
    column: &str,
    file_bytes: u64,
) -> Result<ColumnFilters> {
    let leaves = metadata.file_metadata().schema_descr().columns();
    let leaf = leaves.iter().position(|leaf| leaf.path().parts().first().is_some_and(|name| name == column));
    let ranges: Vec<Option<Range<u64>>> = metadata
        .row_groups()
        .iter()
        .map(|row_group| {
            let chunk = row_group.column(leaf?);
            let start = u64::try_from(chunk.bloom_filter_offset()?).ok()?;
            let end = start.checked_add(u64::try_from(chunk.bloom_filter_length()?).ok()?)?;
            (end <= file_bytes).then_some(start..end)
        })
        .collect();
    let there: Vec<Range<u64>> = ranges.iter().flatten().cloned().collect();
    let mut bytes = if there.is_empty() { Vec::new() } else { reader.get_byte_ranges(there).await? }.into_iter();
    let filters = ranges.into_iter().map(|range| Sbbf::from_bytes(&range.and_then(|_| bytes.next())?).ok());
    Ok(ColumnFilters(Arc::new(filters.collect())))
}

#[cfg(test)]
mod tests {
    use datafusion::functions_nested::expr_fn::array_has;
    use datafusion::prelude::{col, lit};

    use super::*;
    use crate::table::EVENTS;

    #[test]
    fn what_is_understood_is_asked_of_the_filters_and_the_rest_may_hold() {
        let may_hold = |expression: Expr, held: &[(&str, &str)]| {
            let condition = Condition::of(&EVENTS, &[expression]);
            condition.may_hold(&|column, value| held.contains(&(column, value)))
        };
        let user = || col("user_id").eq(lit("a"));
        let other = || lit("b").eq(col("user_id"));
        let address = || col("client_ip").in_list(vec![lit("1"), lit("2")], false);
        let held = [("user_id", "a"), ("client_ip", "2")];
        assert!(may_hold(user(), &held) && !may_hold(other(), &held));
        assert!(may_hold(user().and(address()), &held) && !may_hold(other().and(address()), &held));
        assert!(may_hold(other().or(address()), &held) && !may_hold(other().or(other()), &held));
        assert!(!may_hold(array_has(col("internet_message_ids"), lit("m")), &held));
        // Unknown beside known: it takes nothing from an AND, and everything from an OR.
        assert!(!may_hold(other().and(col("operation").eq(lit("x"))), &[]));
        for unknown in [
            other().or(col("operation").eq(lit("x"))),
            Expr::Not(Box::new(user())),
            col("user_id").not_eq(lit("b")),
            col("user_id").in_list(vec![lit("b")], true),
            col("user_id").in_list(vec![lit("b"), col("client_ip")], false),
            col("user_id").eq(col("client_ip")),
            col("user_id").eq(lit(ScalarValue::Utf8(None))),
            col("user_id").is_null(),
            col("user_id").gt(lit("b")),
            col("operation").eq(lit("b")),
        ] {
            assert_eq!(Condition::of(&EVENTS, std::slice::from_ref(&unknown)), Condition::Unknown, "{unknown}");
        }
    }
}
