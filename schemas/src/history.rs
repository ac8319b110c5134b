//! What judging again asks of the archive: the records of a time, as they were received.
//!
//! Whoever judges needs records that have left its memory: rules that came later, records that came late. Where records
//! are kept is not its business, and detection knows no archive: it is given a [`History`] by the binary. The trait is
//! plain types and boxed futures, so that this crate stays without I/O and without a runtime.
//!
//! The guarantee: one answer is of one snapshot; every admitted record that was in the archive when it was asked for and
//! whose event time lies in the days asked for is in it exactly once, variants included, in no order.

use std::future::Future;
use std::pin::Pin;

use chrono::NaiveDate;

use crate::envelope::Received;
use crate::tenant::Tenant;

/// Something that comes, or the reason why not.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, HistoryError>> + Send + 'a>>;

/// The archive, as those see it who judge again.
pub trait History: Send + Sync {
    /// The archive as of now. It must have all records before these offsets of the partitions of `records` of this log, and
    /// what has not is an error: it lags behind, or it is another log's archive, or an empty folder on another host.
    fn snapshot<'a>(&'a self, log: &'a str, records: &'a [u64]) -> Answer<'a, Box<dyn Snapshot>>;
}

/// The archive as it was at one moment.
pub trait Snapshot: Send + Sync {
    /// The UTC days of which there are records, tenant by tenant, the earliest first.
    fn days(&self) -> Answer<'_, Vec<(Tenant, NaiveDate)>>;

    /// Before which day some tenant's records were taken out because they were past their time; none if nobody's were.
    fn kept_since(&self) -> Option<NaiveDate> {
        None
    }

    /// The records whose event time lies in these days, both included, a batch at a time.
    fn records<'a>(&'a self, tenant: &'a Tenant, days: (NaiveDate, NaiveDate)) -> Answer<'a, Box<dyn Batches>>;
}

/// Records as they are read. Memory is that of one batch.
pub trait Batches: Send {
    /// The next batch; none after the last.
    fn next(&mut self) -> Answer<'_, Option<Vec<Received>>>;
}

/// The archive did not answer. It may at another time: whoever asks keeps its question.
#[derive(Debug, thiserror::Error)]
#[error("the archive did not answer: {0}")]
pub struct HistoryError(#[source] pub Box<dyn std::error::Error + Send + Sync>);
