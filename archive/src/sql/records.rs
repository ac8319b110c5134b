//! Records as they were received, read back from `events` for judging again: a day of a tenant at a time.
//!
//! All days are read from one snapshot, so that what is committed meanwhile is either all there or not at all. Memory is
//! a few batches of rows, however long the day: nothing is sorted, because no finding depends on the order.

use arrow::array::{Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};
use chrono::{DateTime, Days, NaiveDate, NaiveTime, Utc};
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;
use datafusion::scalar::ScalarValue;
use futures::{Stream, StreamExt};
use schemas::envelope::{Origin, Received};
use schemas::tenant::Tenant;

use super::{QueryError, Sql};

/// The records of one snapshot of the archive.
pub struct Records {
    context: SessionContext,
}

/// One tenant's records of one UTC day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Day {
    pub tenant: Tenant,
    pub day: NaiveDate,
    pub records: u64,
}

impl Sql {
    /// The archive's records as of now.
    pub async fn records(&self) -> Result<Records, QueryError> {
        Ok(Records { context: self.context_of_all().await? })
    }
}

impl Records {
    /// Every day that has records, tenant by tenant, the earliest first.
    pub async fn days(&self) -> Result<Vec<Day>, QueryError> {
        let text =
            "SELECT tenant, CAST(day AS VARCHAR) AS day, count(*) AS records FROM events GROUP BY 1, 2 ORDER BY 1, 2";
        let mut days = Vec::new();
        for batch in self.context.sql(text).await?.collect().await? {
            let (tenants, texts) = (self::texts(&batch, "tenant")?, self::texts(&batch, "day")?);
            let counts = self::texts(&batch, "records")?;
            for row in 0..batch.num_rows() {
                let day = texts.value(row).parse().map_err(|_| damaged("day"))?;
                let records = counts.value(row).parse().map_err(|_| damaged("records"))?;
                days.push(Day { tenant: tenant(tenants.value(row))?, day, records });
            }
        }
        Ok(days)
    }

    /// The records of a day, in no order, as their rows come.
    pub async fn of(
        &self,
        day: &Day,
    ) -> Result<impl Stream<Item = Result<Vec<Received>, QueryError>> + use<>, QueryError> {
        self.between(&day.tenant, (day.day, day.day)).await
    }

    /// The same for all days from one to another, both included.
    pub async fn between(
        &self,
        tenant: &Tenant,
        (first, last): (NaiveDate, NaiveDate),
    ) -> Result<impl Stream<Item = Result<Vec<Received>, QueryError>> + use<>, QueryError> {
        // Asked by time, because that is what tells which files need not be opened.
        let text = "SELECT tenant, source, content_type, blob_id, received_time, raw FROM events \
                    WHERE tenant = $tenant AND event_time >= $from AND event_time < $to";
        let midnight = |day: NaiveDate| {
            let micros = day.and_time(NaiveTime::MIN).and_utc().timestamp_micros();
            ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into()))
        };
        let next = last.checked_add_days(Days::new(1)).unwrap_or(NaiveDate::MAX);
        let tenant = ScalarValue::Utf8(Some(tenant.as_str().to_owned()));
        let values = vec![("tenant", tenant), ("from", midnight(first)), ("to", midnight(next))];
        let rows = self.context.sql(text).await?.with_param_values(values)?.execute_stream().await?;
        Ok(rows.map(|batch| received(&batch?)))
    }
}

fn received(batch: &RecordBatch) -> Result<Vec<Received>, QueryError> {
    let texts = |name: &str| self::texts(batch, name);
    let (tenants, sources, raws) = (texts("tenant")?, texts("source")?, texts("raw")?);
    let (content_types, blob_ids) = (texts("content_type")?, texts("blob_id")?);
    let times = cast(column(batch, "received_time")?, &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))
        .map_err(DataFusionError::from)?;
    let times = times.as_any().downcast_ref::<TimestampMicrosecondArray>().ok_or_else(|| damaged("received_time"))?;
    (0..batch.num_rows())
        .map(|row| {
            let or_empty =
                |texts: &StringArray| if texts.is_null(row) { String::new() } else { texts.value(row).into() };
            let origin = Origin {
                tenant: tenant(tenants.value(row))?,
                source: or_empty(&sources),
                content_type: or_empty(&content_types),
                blob_id: or_empty(&blob_ids),
                received: DateTime::<Utc>::from_timestamp_micros(times.value(row)).unwrap_or_default(),
                // What is judged again alerts nobody.
                notify: false,
            };
            Ok(Received { origin, bytes: raws.value(row).as_bytes().to_vec() })
        })
        .collect()
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a dyn Array, QueryError> {
    batch.column_by_name(name).map(|column| &**column).ok_or_else(|| damaged(name))
}

pub(super) fn texts(batch: &RecordBatch, name: &str) -> Result<StringArray, QueryError> {
    let texts = cast(column(batch, name)?, &DataType::Utf8).map_err(DataFusionError::from)?;
    texts.as_any().downcast_ref::<StringArray>().cloned().ok_or_else(|| damaged(name))
}

fn tenant(name: &str) -> Result<Tenant, QueryError> {
    name.parse().map_err(|_| damaged("tenant"))
}

/// A column that does not hold what the archiver writes there.
fn damaged(column: &str) -> QueryError {
    DataFusionError::Execution(format!("the column {column} of events does not hold what harrier writes there")).into()
}
