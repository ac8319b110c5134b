//! How many records have been judged so far: what an archiver has to do.

use std::sync::Arc;

use runtime::log::{Log, ReadLimit, Topic};
use schemas::message::{Verdict, Verdicts};
use tokio::runtime::Handle;

/// Counts on from where it stood, so that it may be asked often.
pub struct Judged {
    log: Arc<dyn Log>,
    executor: Handle,
    next: Vec<u64>,
    count: u64,
}

impl Judged {
    pub fn new(log: Arc<dyn Log>, executor: Handle) -> Judged {
        let next = vec![0; log.partitions() as usize];
        Judged { log, executor, next, count: 0 }
    }

    /// Records that have a verdict and belong into the archive: not heartbeats, of which there are always more.
    pub fn count(&mut self) -> anyhow::Result<u64> {
        for (partition, next) in (0..).zip(&mut self.next) {
            loop {
                let read = self.log.read(Topic::Verdicts, partition, *next, ReadLimit::default());
                let messages = self.executor.block_on(read)?;
                let Some(last) = messages.last() else { break };
                *next = last.offset + 1;
                for message in &messages {
                    let verdicts: Verdicts = serde_json::from_slice(&message.value)?;
                    let admitted =
                        |code| matches!(Verdict::from_code(code), Some(Verdict::Admitted | Verdict::Variant));
                    self.count += verdicts.each().filter(|&(_, code)| admitted(code)).count() as u64;
                }
            }
        }
        Ok(self.count)
    }
}
