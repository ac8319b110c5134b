//! What is being answered: the rows of one question on their way to a client, in pieces or all at once.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::scalar::ScalarValue;
use futures::{FutureExt, StreamExt};
use runtime::shutdown::Shutdown;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::super::QueryError;
use super::failure::Failure;
use super::sign_in::Stream;
use super::statement::{Statement, Words};
use super::types::{Column, Format};
use super::value::Written;
use super::wire::{Ended, Wire};
use super::{Session, Shared, question};

/// A statement that was prepared.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    /// Of a question without its words, which take many times what its text does.
    pub statement: Statement,
    pub text: Arc<str>,
    pub parameters: Vec<DataType>,
    /// The numbers by which their types are told.
    pub oids: Vec<u32>,
    /// None for what answers without rows.
    pub columns: Option<Vec<Column>>,
}

/// A prepared statement with its values.
pub(super) struct Portal {
    pub statement: Statement,
    pub text: Arc<str>,
    pub values: Vec<ScalarValue>,
    pub columns: Option<Vec<Column>>,
    pub formats: Vec<Format>,
    /// Bytes that it counts for.
    pub bytes: usize,
    pub running: Option<Running>,
    pub is_done: bool,
}

/// Why an answer ends early.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error(transparent)]
    Failure(#[from] Failure),
    #[error(transparent)]
    Ended(#[from] Ended),
}

/// What can end a question from outside.
pub(super) struct Watch<'a> {
    pub wire: &'a mut Wire<Box<dyn Stream>>,
    pub cancels: &'a mut watch::Receiver<u64>,
    pub shutdown: &'a Shutdown,
    pub shared: &'a Shared,
}

impl Watch<'_> {
    /// Lets work go on until it is done, or its client cancels it, goes away, or has waited long enough. Work that is not let
    /// go on is dropped, and what works for it ends.
    async fn over<T>(&mut self, until: Instant, work: impl Future<Output = T>) -> Result<T, Trouble> {
        tokio::select! {
            biased;
            () = self.shutdown.requested() => Err(Failure::fatal("57P01", "harrier is stopping").into()),
            Ok(()) = self.cancels.changed() => Err(Failure::new("57014", "the query was cancelled").into()),
            () = sleep_until(until) => {
                self.shared.limit("query_time");
                Err(Failure::new("57014", "the query took longer than it may: ask for fewer days or one user").into())
            }
            () = self.wire.gone() => Err(Ended::Gone.into()),
            done = work => Ok(done),
        }
    }
}

impl Watch<'_> {
    /// The same, for what begins now and may take as long as a question.
    pub(super) async fn over_now<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Trouble> {
        self.cancels.borrow_and_update();
        self.over(Instant::now() + self.shared.time, work).await
    }
}

/// What comes from the engine: the rows, or that there are no more. Silence is neither: then the engine has failed.
type Batches = mpsc::Receiver<Result<Option<RecordBatch>, Failure>>;

/// Asks on the engine's own threads, so that nothing that it does keeps a connection from being heard. It ends when nobody
/// takes the rows any more, and gives back its turn when it has ended.
struct Asking {
    batches: Batches,
    task: AbortHandle,
}

impl Asking {
    async fn begin(
        watch: &mut Watch<'_>,
        session: &Arc<Session>,
        (words, values): (Words, Vec<ScalarValue>),
        turn: OwnedSemaphorePermit,
        until: Instant,
    ) -> Result<(Asking, SchemaRef), Trouble> {
        let (sql, session) = (watch.shared.sql.clone(), session.clone());
        let (opened, schema) = oneshot::channel();
        let (send, batches) = mpsc::channel(1);
        let asking = async move {
            let _turn = turn;
            let mut rows = match question::ask(&sql, &session, words, values).await {
                Ok(rows) => rows,
                Err(failure) => return drop(opened.send(Err(failure))),
            };
            let _ = opened.send(Ok(rows.schema()));
            while let Some(batch) = rows.next().await {
                let batch = batch.map(Some).map_err(|error| Failure::from(QueryError::from(error)));
                if send.send(batch).await.is_err() {
                    return;
                }
            }
            let _ = send.send(Ok(None)).await;
        };
        // Also while the client asks for no more rows: a turn is not held beyond its time.
        let asking = timeout_at(until, asking).map(drop).boxed();
        let task = watch.shared.engine.spawn(asking).abort_handle();
        let asking = Asking { batches, task };
        let schema = watch.over(until, schema).await?.map_err(|_| lost())??;
        Ok((asking, schema))
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>, Failure> {
        self.batches.recv().await.unwrap_or_else(|| Err(lost()))
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A defect of the engine's or ours, which has been reported where it happened.
fn lost() -> Failure {
    Failure::new("XX000", "the engine failed: see harrier's log")
}

/// A question that is being answered. It holds its place among those that are carried out at once.
pub(super) struct Running {
    asking: Asking,
    pub columns: Vec<Column>,
    formats: Vec<Format>,
    /// A batch, the row that comes next, and how many there are.
    batch: Option<(Written, usize, usize)>,
    until: Instant,
    pub sent: u64,
}

impl Running {
    /// Begins to ask, as soon as it is its turn. `formats`: as clients give them, none for text.
    pub(super) async fn begin(
        watch: &mut Watch<'_>,
        session: &Arc<Session>,
        words: Words,
        values: Vec<ScalarValue>,
        formats: Option<Vec<Format>>,
    ) -> Result<Running, Trouble> {
        let shared = watch.shared;
        let time = session.variables.time().map_or(shared.time, |time| time.min(shared.time));
        let until = Instant::now() + time;
        // What was cancelled before it began was another question.
        watch.cancels.borrow_and_update();
        let turn = match shared.queries.clone().try_acquire_owned() {
            Ok(turn) => turn,
            Err(_) => {
                shared.limit("queries");
                let turn = watch.over(until, shared.queries.clone().acquire_owned()).await?;
                turn.map_err(|_| Failure::fatal("57P01", "harrier is stopping"))?
            }
        };
        let (asking, schema) = Asking::begin(watch, session, (words, values), turn, until).await?;
        let columns = Column::of_all(&schema);
        let formats = formats.unwrap_or_else(|| vec![Format::Text; columns.len()]);
        if formats.len() != columns.len() {
            return Err(
                Failure::new("0A000", "the columns are others than when this was prepared: prepare it again").into()
            );
        }
        Ok(Running { asking, columns, formats, batch: None, until, sent: 0 })
    }

    /// Sends up to so many rows, or all. Whether all have been sent.
    pub(super) async fn send(&mut self, watch: &mut Watch<'_>, rows_max: Option<u64>) -> Result<bool, Trouble> {
        let mut left = rows_max;
        loop {
            while let Some((batch, next, count)) = &mut self.batch {
                if next == count {
                    self.batch = None;
                    break;
                }
                if left == Some(0) {
                    return Ok(false);
                }
                let (columns, formats) = (&self.columns, &self.formats);
                watch.wire.replies.row(columns.len(), |out| batch.row(*next, columns, formats, out))?;
                (*next, self.sent) = (*next + 1, self.sent + 1);
                left = left.map(|left| left - 1);
                if watch.wire.is_full() {
                    watch.wire.flush().await?;
                }
            }
            if left == Some(0) {
                return Ok(false);
            }
            match watch.over(self.until, self.asking.next()).await?? {
                None => return Ok(true),
                Some(batch) => {
                    self.batch = Some((Written::of(&batch, &self.columns)?, 0, batch.num_rows()));
                }
            }
        }
    }
}
