//! `stdout`: one line of JSON for each message on standard output, for trying out and for supervisors that collect it.
//! Characters that act on a terminal are escaped in every body.

use std::io::{self, Write};
use std::sync::Arc;

use async_trait::async_trait;
use runtime::clock::Clock;

use super::file::{failed, lines};
use super::{Deliver, Kind, Outgoing};
use crate::entry::Failure;
use crate::settings::{Sink, SinkErrorKind};

pub(super) const KIND: Kind = Kind { name: "stdout", build, batch_max: 256, concurrency_max: 1, paced: false };

struct Stdout;

fn build(_: &Sink, _: &Clock) -> Result<Arc<dyn Deliver>, SinkErrorKind> {
    Ok(Arc::new(Stdout))
}

#[async_trait]
impl Deliver for Stdout {
    async fn deliver(&self, batch: &[Outgoing]) -> Vec<Result<(), Failure>> {
        let (lines, count) = (lines(batch), batch.len());
        // A reader that does not read must not hold up the runtime's threads.
        let written = tokio::task::spawn_blocking(move || -> io::Result<()> {
            let mut out = io::stdout().lock();
            out.write_all(&lines)?;
            out.flush()
        })
        .await;
        let result = match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(failed(&error.to_string())),
            Err(_) => Err(failed("the write was interrupted")),
        };
        vec![result; count]
    }
}
