//! The archive as detection sees it when it judges again: [`schemas::history`] over the rows of `events`.

use std::pin::Pin;

use chrono::NaiveDate;
use futures::{Stream, StreamExt};
use schemas::envelope::Received;
use schemas::history::{Answer, Batches, History, HistoryError, Snapshot};
use schemas::message::Topic;
use schemas::tenant::Tenant;

use crate::archiver::source_name;
use crate::delta::DeltaTable;
use crate::retention;
use crate::sql::records::Records;
use crate::sql::{QueryError, Sql};
use crate::store::Store;
use crate::table::EVENTS;

/// The past, wherever the archive lies.
pub struct Past {
    store: Store,
    sql: Sql,
}

impl Past {
    pub fn new(store: Store) -> Past {
        Past { sql: Sql::over(store.clone()), store }
    }
}

impl History for Past {
    fn snapshot<'a>(&'a self, log: &'a str, records: &'a [u64]) -> Answer<'a, Box<dyn Snapshot>> {
        Box::pin(async move {
            let delta =
                DeltaTable::open(self.store.clone(), &EVENTS).await.map_err(|error| unanswered(error.into()))?;
            let positions = &delta.snapshot().positions;
            for (partition, needed) in (0..).zip(records) {
                let at = positions.get(&source_name(log, Topic::Records, partition)).copied().unwrap_or(0);
                if at < *needed {
                    return Err(HistoryError(Box::new(LagsBehind { partition, at, needed: *needed })));
                }
            }
            let kept_since = retention::kept_since(positions);
            let records = self.sql.records().await.map_err(unanswered)?;
            Ok(Box::new(Taken { records, kept_since }) as Box<dyn Snapshot>)
        })
    }
}

/// The archive at one moment. What was taken out is read first: a day that went between is only seen to be there.
struct Taken {
    records: Records,
    kept_since: Option<NaiveDate>,
}

impl Snapshot for Taken {
    fn kept_since(&self) -> Option<NaiveDate> {
        self.kept_since
    }

    fn days(&self) -> Answer<'_, Vec<(Tenant, NaiveDate)>> {
        Box::pin(async {
            let days = self.records.days().await.map_err(unanswered)?;
            Ok(days.into_iter().map(|day| (day.tenant, day.day)).collect())
        })
    }

    fn records<'a>(&'a self, tenant: &'a Tenant, days: (NaiveDate, NaiveDate)) -> Answer<'a, Box<dyn Batches>> {
        Box::pin(async move {
            let rows = self.records.between(tenant, days).await.map_err(unanswered)?;
            Ok(Box::new(Rows(Box::pin(rows))) as Box<dyn Batches>)
        })
    }
}

/// The archive that this process sees has not what the log says is archived.
#[derive(Debug, thiserror::Error)]
#[error(
    "the archive in reach of this process has records/{partition} up to offset {at}, and {needed} are archived: is it on \
     another host?"
)]
struct LagsBehind {
    partition: u32,
    at: u64,
    needed: u64,
}

struct Rows(Pin<Box<dyn Stream<Item = Result<Vec<Received>, QueryError>> + Send>>);

impl Batches for Rows {
    fn next(&mut self) -> Answer<'_, Option<Vec<Received>>> {
        Box::pin(async { self.0.next().await.transpose().map_err(unanswered) })
    }
}

fn unanswered(error: QueryError) -> HistoryError {
    HistoryError(Box::new(error))
}
