//! From messages to rows: what each table makes of its topic.

use chrono::{DateTime, Utc};
use runtime::log::{Log, Message, ReadLimit, Topic};
use schemas::envelope::{Envelope, Received};
use schemas::message::{CoverageMessage, DeadLetter, FindingMessage, Verdict, Verdicts};
use schemas::{Event, Finding};

use super::Source;
use crate::error::Error;
use crate::rows::Rows;
use crate::table::{self, BLOBS, COVERAGE, FINDING_REVISIONS, Table};

/// About what a row takes that does not hold the record.
const DERIVED_ROW_BYTES: usize = 512;

/// What one read of one partition gave, still as it lay in the log.
#[derive(Default)]
pub(super) struct Batch {
    partition: u32,
    messages: Vec<Message>,
    /// For verdicts, the records that they speak of, message by message.
    records: Vec<Vec<Message>>,
    pub(super) next: u64,
    pub(super) records_next: u64,
}

/// What batches hold besides rows.
#[derive(Default)]
pub(super) struct News {
    /// For the tables that are made from findings as a whole.
    pub(super) findings: Vec<Finding>,
    /// The newest heartbeat that passed.
    pub(super) heartbeat: Option<DateTime<Utc>>,
}

/// Reads on from where the source stands.
pub(super) async fn read(table: &'static Table, log: &dyn Log, source: &Source) -> Result<Batch, Error> {
    let partition = source.partition;
    let messages = log.read(table.topic, partition, source.next, ReadLimit::default()).await?;
    let next = messages.last().map_or(source.next, |message| message.offset + 1);
    let mut batch = Batch { partition, messages, records: Vec::new(), next, records_next: source.records_next };
    if table.topic == Topic::Verdicts {
        for message in &batch.messages {
            let verdicts = verdicts(partition, message)?;
            let end = verdicts.end();
            let mut records = Vec::with_capacity(verdicts.codes.len());
            let mut at = verdicts.from;
            while at < end {
                let left = verdicts.codes.len().saturating_sub(records.len());
                let limit = ReadLimit { messages: left, ..ReadLimit::default() };
                let read = log.read(Topic::Records, partition, at, limit).await?;
                at = read.last().ok_or_else(|| damaged(Topic::Verdicts, partition, message.offset))?.offset + 1;
                records.extend(read);
            }
            batch.records.push(records);
            batch.records_next = end;
        }
    }
    Ok(batch)
}

/// Appends the rows of a batch. Nothing is looked up: rows follow from the messages alone.
pub(super) fn decode(table: &'static Table, batch: Batch, rows: &mut Rows, news: &mut News) -> Result<(), Error> {
    let Batch { partition, messages, mut records, .. } = batch;
    for (index, message) in messages.iter().enumerate() {
        if table.topic == Topic::Verdicts {
            let verdicts = verdicts(partition, message)?;
            // Each stretch of records is let go as soon as it is in columns.
            let records = records.get_mut(index).map(std::mem::take).unwrap_or_default();
            events(table, &records, &verdicts, rows).map_err(|at| damaged(Topic::Records, partition, at))?;
        } else {
            other(table, message, rows, news).ok_or(damaged(table.topic, partition, message.offset))?;
        }
    }
    Ok(())
}

fn damaged(topic: Topic, partition: u32, offset: u64) -> Error {
    Error::Message { topic: topic.name(), partition, offset }
}

fn verdicts(partition: u32, message: &Message) -> Result<Verdicts, Error> {
    serde_json::from_slice(&message.value).map_err(|_| damaged(Topic::Verdicts, partition, message.offset))
}

fn other(table: &'static Table, message: &Message, rows: &mut Rows, news: &mut News) -> Option<()> {
    let bytes = message.value.len();
    match table.topic {
        Topic::Coverage => match serde_json::from_slice(&message.value).ok()? {
            CoverageMessage::Blob(blob) if std::ptr::eq(table, &BLOBS) => rows.push(&table::blob_row(&blob), bytes),
            CoverageMessage::Coverage(coverage) if std::ptr::eq(table, &COVERAGE) => {
                rows.push(&table::coverage_row(&coverage), bytes);
            }
            // The other table's.
            CoverageMessage::Blob(_) | CoverageMessage::Coverage(_) => {}
        },
        Topic::DeadLetters => {
            let letter: DeadLetter = serde_json::from_slice(&message.value).ok()?;
            rows.push(&table::dead_letter_row(&letter), bytes);
        }
        Topic::Findings => match serde_json::from_slice(&message.value).ok()? {
            FindingMessage::Heartbeat(heartbeat) => news.heartbeat = Some(heartbeat.sent),
            // What the archive says of itself is no row of it.
            FindingMessage::ArchiveHeads(_) => {}
            FindingMessage::Finding(finding) if std::ptr::eq(table, &FINDING_REVISIONS) => {
                rows.push(&table::finding_revision_row(&finding), bytes);
            }
            FindingMessage::Finding(finding) => news.findings.push(*finding),
        },
        Topic::Records | Topic::Verdicts | Topic::Matches => return None,
    }
    Some(())
}

/// Joins records with their verdicts: the rows of each that is admitted. Fails with the offset of the record that is not
/// what its verdict says.
fn events(table: &Table, records: &[Message], verdicts: &Verdicts, rows: &mut Rows) -> Result<(), u64> {
    for (record, (offset, code)) in records.iter().zip(verdicts.each()) {
        if record.offset != offset {
            return Err(record.offset);
        }
        match Verdict::from_code(code).ok_or(record.offset)? {
            Verdict::Admitted | Verdict::Variant => {
                let received = record_of(record).ok_or(record.offset)?;
                let event = Event::read(&received).map_err(|_| record.offset)?;
                push_event(table, &event, &received, rows);
            }
            Verdict::Duplicate | Verdict::Rejected | Verdict::Control => {}
        }
    }
    Ok(())
}

/// Appends what a table makes of a record.
pub(super) fn push_event(table: &Table, event: &Event, received: &Received, rows: &mut Rows) {
    let Some(rows_of_event) = table.rows_of_event else { return };
    let bytes = if table.is_derived() { DERIVED_ROW_BYTES } else { received.bytes.len() };
    rows_of_event(event, received, &mut |row| rows.push(&row, bytes));
}

fn record_of(message: &Message) -> Option<Received> {
    match Envelope::decode(&message.value).ok()? {
        Envelope::Record(received) => Some(received),
        Envelope::Mark(_) | Envelope::Heartbeat(_) | Envelope::RulesOffered { .. } | Envelope::RulesInForce { .. } => {
            None
        }
    }
}
