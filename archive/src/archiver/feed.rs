//! From messages to rows: what each table makes of its topic.

use chrono::{DateTime, Utc};
use runtime::log::{Log, Message, ReadLimit, Topic};
use schemas::envelope::{Envelope, Received};
use schemas::message::{Coverage, DeadLetter, FindingMessage, Verdict, Verdicts};
use schemas::{Event, Finding};

use super::Source;
use crate::error::Error;
use crate::table::{self, FINDING_REVISIONS, Row, Table};

/// What one read of one partition gave.
#[derive(Default)]
pub(super) struct Batch {
    /// Rows, each with the bytes it is to be counted for.
    pub(super) rows: Vec<(Row, usize)>,
    /// For the tables that are made from findings as a whole.
    pub(super) findings: Vec<Finding>,
    pub(super) next: u64,
    pub(super) records_next: u64,
    /// The newest heartbeat that passed.
    pub(super) heartbeat: Option<DateTime<Utc>>,
}

/// Reads on from where the source stands.
pub(super) async fn read(table: &'static Table, log: &dyn Log, source: &Source) -> Result<Batch, Error> {
    let partition = source.partition;
    let messages = log.read(table.topic, partition, source.next, ReadLimit::default()).await?;
    let next = messages.last().map_or(source.next, |message| message.offset + 1);
    let mut batch = Batch { next, records_next: source.records_next, ..Batch::default() };
    if messages.is_empty() {
        return Ok(batch);
    }
    match table.topic {
        Topic::Verdicts => events(log, partition, &messages, &mut batch).await?,
        topic => {
            for message in &messages {
                other(table, message, &mut batch).ok_or(damaged(topic, partition, message.offset))?;
            }
        }
    }
    Ok(batch)
}

fn damaged(topic: Topic, partition: u32, offset: u64) -> Error {
    Error::Message { topic: topic.name(), partition, offset }
}

fn other(table: &'static Table, message: &Message, batch: &mut Batch) -> Option<()> {
    let bytes = message.value.len();
    match table.topic {
        Topic::Coverage => {
            let coverage: Coverage = serde_json::from_slice(&message.value).ok()?;
            batch.rows.push((table::coverage_row(&coverage), bytes));
        }
        Topic::DeadLetters => {
            let letter: DeadLetter = serde_json::from_slice(&message.value).ok()?;
            batch.rows.push((table::dead_letter_row(&letter), bytes));
        }
        Topic::Findings => match serde_json::from_slice(&message.value).ok()? {
            FindingMessage::Heartbeat(heartbeat) => batch.heartbeat = Some(heartbeat.sent),
            FindingMessage::Finding(finding) if std::ptr::eq(table, &FINDING_REVISIONS) => {
                batch.rows.push((table::finding_revision_row(&finding), bytes));
            }
            FindingMessage::Finding(finding) => batch.findings.push(*finding),
        },
        Topic::Records | Topic::Verdicts | Topic::Matches => return None,
    }
    Some(())
}

/// Joins verdicts with the records they speak of, by offset.
async fn events(log: &dyn Log, partition: u32, messages: &[Message], batch: &mut Batch) -> Result<(), Error> {
    for message in messages {
        let damaged = || damaged(Topic::Verdicts, partition, message.offset);
        let verdicts: Verdicts = serde_json::from_slice(&message.value).map_err(|_| damaged())?;
        let end = verdicts.from + verdicts.codes.len() as u64;
        let mut records = Vec::with_capacity(verdicts.codes.len());
        let mut at = verdicts.from;
        while at < end {
            let limit = ReadLimit { messages: (end - at) as usize, ..ReadLimit::default() };
            let read = log.read(Topic::Records, partition, at, limit).await?;
            at = read.last().ok_or_else(damaged)?.offset + 1;
            records.extend(read);
        }
        let codes = verdicts.codes.into_bytes();
        let rows = tokio::task::spawn_blocking(move || rows(records, &codes)).await.map_err(|_| Error::Worker)?;
        batch.rows.extend(rows.map_err(|offset| self::damaged(Topic::Records, partition, offset))?);
        batch.records_next = end;
    }
    Ok(())
}

/// Rows of the records whose verdict admits them; or the offset of the one that is not what its verdict says.
fn rows(records: Vec<Message>, codes: &[u8]) -> Result<Vec<(Row, usize)>, u64> {
    let mut rows = Vec::with_capacity(records.len());
    for (record, &code) in records.into_iter().zip(codes) {
        match Verdict::from_code(code).ok_or(record.offset)? {
            Verdict::Admitted | Verdict::Variant => {
                let received = record_of(&record).ok_or(record.offset)?;
                let event = Event::read(&received).map_err(|_| record.offset)?;
                let bytes = received.bytes.len();
                rows.push((table::event_row(&event, &received), bytes));
            }
            Verdict::Duplicate | Verdict::Rejected | Verdict::Control => {}
        }
    }
    Ok(rows)
}

fn record_of(message: &Message) -> Option<Received> {
    match Envelope::decode(&message.value).ok()? {
        Envelope::Record(received) => Some(received),
        Envelope::Mark(_) | Envelope::Heartbeat(_) => None,
    }
}
