//! The beginning of a table that is made from the same records as `events`, in an archive that has `events` already: its
//! rows are made from the records there, not from the log, which has forgotten them.
//!
//! One commit holds all of it, with the positions that `events` stands at; from there the table follows the log like any
//! other. Killed before that commit it begins again.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use object_store::ObjectStoreExt;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use schemas::Event;
use schemas::envelope::{Origin, Received};

use super::feed::push_event;
use crate::delta::{Add, Changes, DeltaTable};
use crate::error::Error;
use crate::file::{self, text_columns, time_column};
use crate::rows::Rows;
use crate::table::EVENTS;

/// Bytes of rows that are held before they are written.
const HELD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The columns of `events` that make a record.
const COLUMNS: [&str; 4] = ["source", "content_type", "blob_id", "raw"];

/// Fills a table that has no commit from `events` as it stands.
pub(super) async fn begin(delta: &mut DeltaTable, events: &DeltaTable, now: DateTime<Utc>) -> Result<(), Error> {
    let table = delta.table();
    let snapshot = events.snapshot().clone();
    tracing::info!(event = "archive_table_begins", table = table.name, files = snapshot.files.len());
    let mut changes = Changes::default();
    let mut rows = Rows::new(table);
    for add in snapshot.files.values() {
        let bytes = events.store().objects().get(&events.location(&add.path)).await?.bytes().await?;
        let (add, held) = (add.clone(), std::mem::replace(&mut rows, Rows::new(table)));
        let read = tokio::task::spawn_blocking(move || read(table, &add, bytes, held));
        rows = read.await.map_err(|_| Error::Worker)??;
        if rows.bytes >= HELD_BYTES_MAX {
            let held = std::mem::replace(&mut rows, Rows::new(table));
            changes.add.extend(write(delta, held, changes.add.len(), now).await?);
        }
    }
    changes.add.extend(write(delta, rows, changes.add.len(), now).await?);
    changes.positions = snapshot.positions.iter().map(|(source, next)| (source.clone(), 0, *next)).collect();
    let files = changes.add.iter().map(|add| delta.location(&add.path)).collect();
    delta.store().make_durable(files).await?;
    runtime::failpoint::reached_by("archive_before_commit", table.name);
    // Were it overtaken, another archiver has begun the table: what is there is as good.
    delta.commit(changes, now).await?;
    Ok(())
}

fn read(table: &'static crate::table::Table, add: &Add, bytes: Bytes, mut rows: Rows) -> Result<Rows, Error> {
    let unreadable = || Error::Altered { path: format!("{}/{}", EVENTS.name, add.path) };
    let tenant = add.partition_values.get("tenant").cloned().flatten().unwrap_or_default();
    let tenant: schemas::tenant::Tenant = tenant.parse().map_err(|_| unreadable())?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
    let wanted = COLUMNS.into_iter().chain(["received_time"]);
    let mask = ProjectionMask::columns(builder.parquet_schema(), wanted);
    for batch in builder.with_projection(mask).build()? {
        let batch = batch?;
        let [sources, content_types, blob_ids, raws] = text_columns(&batch, COLUMNS);
        let times = time_column(&batch, "received_time").ok_or_else(unreadable)?;
        for row in 0..batch.num_rows() {
            let or_empty = |texts: Option<&arrow::array::StringArray>| {
                texts
                    .filter(|texts| arrow::array::Array::is_valid(texts, row))
                    .map_or("", |texts| texts.value(row))
                    .to_owned()
            };
            let origin = Origin {
                tenant: tenant.clone(),
                source: or_empty(sources),
                content_type: or_empty(content_types),
                blob_id: or_empty(blob_ids),
                received: DateTime::from_timestamp_micros(times.value(row)).unwrap_or_default(),
                notify: false,
            };
            let received = Received { origin, bytes: or_empty(raws).into_bytes() };
            let event = Event::read(&received).map_err(|_| unreadable())?;
            push_event(table, &event, &received, &mut rows);
        }
    }
    Ok(rows)
}

async fn write(delta: &DeltaTable, rows: Rows, index: usize, now: DateTime<Utc>) -> Result<Vec<Add>, Error> {
    let table = delta.table();
    let mut adds = Vec::new();
    for (key, rows) in rows.into_partitions() {
        let written =
            tokio::task::spawn_blocking(move || file::write(table, rows)).await.map_err(|_| Error::Worker)??;
        let columns = table.partition_columns.iter().map(|&column| column.to_owned());
        let partition_values = columns.zip(key.into_iter().map(Some)).collect();
        adds.push(file::put(delta, "h", &format!("begin {index}"), partition_values, written, now).await?);
    }
    Ok(adds)
}
