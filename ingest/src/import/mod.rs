//! Records from files, to the end: JSON lines, JSON arrays and blobs, and the Purview / Search-UnifiedAuditLog CSV.
//!
//! # The guarantee
//!
//! Every record of a file ends in `records` or in `dead_letters`, with file and line. Importing a file again, or in
//! pieces, or killed half-way and started anew, changes nothing but the count of duplicates: admit knows what it has.
//!
//! A record's time is its own. The CSV's `CreationDate` column depends on the locale of whoever exported it and is never
//! read. An import never moves a completeness mark, and alerts nobody unless it is told to.
//!
//! What the files leave out is not known, unless somebody says that they hold all records of a stretch of time. That is put
//! behind the records, and only if each was read: what was rejected may be the very one that somebody waits for.

mod csv;
mod format;
mod json;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, Utc};
use futures::StreamExt;
use runtime::clock::Clock;
use runtime::log::{Log, LogError, Output, Range, To, Topic, Txn};
use runtime::metrics::Metrics;
use runtime::shutdown::Shutdown;
use schemas::envelope::{IMPORT, Origin};
use schemas::json::key_hash;
use schemas::message::{Coverage, CoverageState};
use schemas::tenant::Tenant;

use crate::record::{self, Kind, Prepared};
use crate::splitter::{Body, Element, TooLong};
use format::Format;

/// A step takes at most so many records or bytes: one transaction stays short and memory small.
const CHUNK_RECORDS_MAX: usize = 2_000;
const CHUNK_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Chunks being prepared or committed at once.
const CHUNKS_AT_ONCE: usize = 3;

/// Rejected records whose place is reported; all of them are in `dead_letters`.
const PROBLEMS_SHOWN_MAX: usize = 20;

/// Purview and Search-UnifiedAuditLog stop at so many rows and do not say so.
pub const EXPORT_ROWS_MAX: u64 = 50_000;

/// What to import.
#[derive(Clone, Debug)]
pub struct Options {
    pub paths: Vec<PathBuf>,
    pub tenant: Tenant,
    /// Whether findings that these records cause are delivered.
    pub notify: bool,
    /// The stretch of which the files hold all records, both ends in it.
    pub complete: Option<(DateTime<Utc>, DateTime<Utc>)>,
}

/// What became of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Elements found in all files, whether they could be read or not.
    pub received: u64,
    /// Those that could not be read; they are in `dead_letters`.
    pub rejected: u64,
    /// Where the records lie in the log.
    pub ranges: Vec<Range>,
    /// What was wrong: one line each, the first of them; `problems_more` counts the rest.
    pub problems: Vec<Problem>,
    pub problems_more: u64,
    /// What a reader of the result should know.
    pub warnings: Vec<Warning>,
}

/// Something that could not be imported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct Problem {
    pub place: String,
    pub reason: String,
}

/// Something that was imported and is not what it seems.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    #[error(
        "{file} has {rows} rows: exports end at 50,000 without saying so, and the rest is missing. Export shorter periods"
    )]
    ExportLimit { file: String, rows: u64 },
    #[error("the import is not taken to be complete: not everything in the files could be read, or there was more")]
    NotComplete,
}

/// How far an import has come, for a progress display.
#[derive(Debug, Default)]
pub struct Progress {
    pub received: AtomicU64,
    pub bytes_read: AtomicU64,
    pub bytes_total: AtomicU64,
}

/// One element on its way.
struct Item {
    place: String,
    body: OwnedBody,
}

enum OwnedBody {
    Whole(Vec<u8>),
    TooLong(TooLong),
    /// What a reader says is no record, with the reason.
    Bad(Vec<u8>, String),
}

/// What the reading thread sends.
enum News {
    Chunk(Vec<Item>),
    FileDone { file: String, elements: u64, is_export: bool },
    Problem(Problem),
}

/// Where a reader puts what it finds. False: nobody wants more.
struct Sink<'a> {
    sender: &'a tokio::sync::mpsc::Sender<News>,
    chunk: Vec<Item>,
    bytes: usize,
    elements: u64,
    progress: &'a Progress,
}

impl Sink<'_> {
    fn element(&mut self, element: Element<'_>, place: String) {
        let body = match element.body {
            Body::Whole(bytes) => OwnedBody::Whole(bytes.to_vec()),
            Body::TooLong(too_long) => OwnedBody::TooLong(too_long),
        };
        self.item(Item { place, body });
    }

    fn item(&mut self, item: Item) {
        self.elements += 1;
        self.progress.received.fetch_add(1, Ordering::Relaxed);
        self.bytes += match &item.body {
            OwnedBody::Whole(bytes) | OwnedBody::Bad(bytes, _) => bytes.len(),
            OwnedBody::TooLong(too_long) => too_long.prefix.len(),
        };
        self.chunk.push(item);
        if self.chunk.len() >= CHUNK_RECORDS_MAX || self.bytes >= CHUNK_BYTES_MAX {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.bytes = 0;
        if !self.chunk.is_empty() {
            // The other end is gone only when the import has failed or was stopped: the rest does not matter then.
            let _ = self.sender.blocking_send(News::Chunk(std::mem::take(&mut self.chunk)));
        }
    }
}

/// Imports files. Ends early, with what it has done, when the end is asked for.
pub async fn import(
    log: &Arc<dyn Log>,
    options: &Options,
    clock: &Clock,
    metrics: &Arc<Metrics>,
    progress: &Arc<Progress>,
    shutdown: &Shutdown,
) -> Result<Report, LogError> {
    let (sender, receiver) = tokio::sync::mpsc::channel(CHUNKS_AT_ONCE);
    let (paths, reading_progress, stop) = (options.paths.clone(), progress.clone(), shutdown.clone());
    let reading = tokio::task::spawn_blocking(move || read_files(&paths, &reading_progress, &stop, &sender));
    let received = clock.now();
    let mut report = Report::default();
    let mut span: Option<(DateTime<Utc>, DateTime<Utc>)> = None;
    let news = futures::stream::unfold(receiver, |mut receiver| async move {
        let news = receiver.recv().await?;
        Some((news, receiver))
    });
    let mut prepared =
        Box::pin(news.map(|news| prepare(news, options.clone(), received, metrics.clone())).buffered(CHUNKS_AT_ONCE));
    while let Some(step) = prepared.next().await {
        match step {
            Step::Commit(chunk) => {
                report.take(&chunk);
                span = merge(span, chunk.span);
                let txn = Txn { outputs: chunk.outputs, ..Txn::default() };
                let committed = log.commit(txn).await?;
                report.ranges.extend(committed.ranges.into_iter().filter(|range| range.topic == Topic::Records));
            }
            Step::FileDone { file, elements, is_export } => {
                if is_export && elements >= EXPORT_ROWS_MAX {
                    report.warnings.push(Warning::ExportLimit { file: file.clone(), rows: elements });
                }
                if let Some(span) = span.take() {
                    let reason = if is_export && elements >= EXPORT_ROWS_MAX {
                        "an export that ends at the export limit: what lies beyond is missing"
                    } else {
                        "an import: what the files leave out is not known"
                    };
                    let feed = format!("{IMPORT}:{file}");
                    let output = coverage(&options.tenant, &feed, span, CoverageState::Partial, reason);
                    log.commit(Txn { outputs: vec![output], ..Txn::default() }).await?;
                }
            }
            Step::Problem(problem) => report.problem(problem),
        }
    }
    // The thread has sent all it had; a panic in it would be a defect, and its file is then incomplete.
    if reading.await.is_err() {
        report.problem(Problem { place: "import".into(), reason: "the reader was lost; import again".into() });
    }
    if let Some(stretch) = options.complete {
        if report.is_whole() && !shutdown.is_requested() {
            log.commit(Txn { outputs: complete(&options.tenant, stretch), ..Txn::default() }).await?;
        } else {
            report.warnings.push(Warning::NotComplete);
        }
    }
    Ok(report)
}

/// Says that all records of a stretch are there, behind them.
fn complete(tenant: &Tenant, stretch: (DateTime<Utc>, DateTime<Utc>)) -> Vec<Output> {
    let reason = "an import that was said to be complete";
    vec![record::said_whole(tenant, stretch), coverage(tenant, IMPORT, stretch, CoverageState::Complete, reason)]
}

impl Report {
    /// Whether it was said to be complete and is not taken to be.
    pub fn is_not_complete(&self) -> bool {
        self.warnings.contains(&Warning::NotComplete)
    }

    /// Whether every record of every file was read, as far as can be seen.
    fn is_whole(&self) -> bool {
        self.rejected == 0 && self.problems.is_empty() && self.warnings.is_empty()
    }

    fn take(&mut self, chunk: &PreparedChunk) {
        self.received += chunk.received;
        self.rejected += chunk.rejected;
        for problem in &chunk.problems {
            self.problem(problem.clone());
        }
    }

    fn problem(&mut self, problem: Problem) {
        if self.problems.len() < PROBLEMS_SHOWN_MAX {
            self.problems.push(problem);
        } else {
            self.problems_more += 1;
        }
    }
}

enum Step {
    Commit(PreparedChunk),
    FileDone { file: String, elements: u64, is_export: bool },
    Problem(Problem),
}

#[derive(Default)]
struct PreparedChunk {
    outputs: Vec<Output>,
    received: u64,
    rejected: u64,
    problems: Vec<Problem>,
    span: Option<(DateTime<Utc>, DateTime<Utc>)>,
}

async fn prepare(news: News, options: Options, received: DateTime<Utc>, metrics: Arc<Metrics>) -> Step {
    match news {
        News::Problem(problem) => Step::Problem(problem),
        News::FileDone { file, elements, is_export } => Step::FileDone { file, elements, is_export },
        News::Chunk(items) => {
            let work = move || prepare_chunk(items, &options, received, &metrics);
            match tokio::task::spawn_blocking(work).await {
                Ok(chunk) => Step::Commit(chunk),
                Err(_) => {
                    Step::Problem(Problem { place: "import".into(), reason: "a worker was lost; import again".into() })
                }
            }
        }
    }
}

fn prepare_chunk(items: Vec<Item>, options: &Options, received: DateTime<Utc>, metrics: &Metrics) -> PreparedChunk {
    let mut chunk = PreparedChunk::default();
    let tenant = options.tenant.as_str();
    metrics.ingest.received.with([tenant, IMPORT]).add(items.len() as u64);
    for item in items {
        chunk.received += 1;
        let origin = Origin {
            tenant: options.tenant.clone(),
            source: IMPORT.into(),
            content_type: String::new(),
            blob_id: item.place.clone(),
            received,
            notify: options.notify,
        };
        let (element, bad) = match item.body {
            OwnedBody::Bad(bytes, reason) => (Err(bytes), Some(reason)),
            OwnedBody::Whole(bytes) => (Ok(Ok(bytes)), None),
            OwnedBody::TooLong(too_long) => (Ok(Err(too_long)), None),
        };
        let place = item.place.clone();
        let prepared = match element {
            Err(bytes) => {
                let letter = record::dead_letter(&origin, place, bad.unwrap_or_default(), bytes);
                Prepared { output: record::post(&letter), kind: Kind::Rejected("other") }
            }
            Ok(Ok(bytes)) => {
                record::prepare(&origin, Element { index: 0, offset: 0, body: Body::Whole(&bytes) }, || place)
            }
            Ok(Err(too_long)) => {
                record::prepare(&origin, Element { index: 0, offset: 0, body: Body::TooLong(too_long) }, || place)
            }
        };
        match &prepared.kind {
            Kind::Record { event_time, .. } => chunk.span = merge(chunk.span, Some((*event_time, *event_time))),
            Kind::Rejected(label) => {
                chunk.rejected += 1;
                metrics.ingest.rejected.with([label]).inc();
                chunk.problems.push(Problem { place: item.place, reason: rejection(&prepared.output) });
            }
        }
        chunk.outputs.push(prepared.output);
    }
    chunk
}

/// The reason inside a dead letter just made.
fn rejection(output: &Output) -> String {
    let letter = serde_json::from_slice::<schemas::message::DeadLetter>(&output.value);
    letter.map(|letter| schemas::text::escape_controls(&letter.reason)).unwrap_or_default()
}

type Span = Option<(DateTime<Utc>, DateTime<Utc>)>;

fn merge(a: Span, b: Span) -> Span {
    match (a, b) {
        (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
        (span, None) | (None, span) => span,
    }
}

fn coverage(
    tenant: &Tenant,
    feed: &str,
    (window_start, window_end): (DateTime<Utc>, DateTime<Utc>),
    state: CoverageState,
    reason: &str,
) -> Output {
    let (feed, reason) = (feed.to_owned(), reason.to_owned());
    let coverage = Coverage { tenant: tenant.clone(), feed, window_start, window_end, state, reason };
    // A struct of strings and times always serialises.
    let value = serde_json::to_vec(&coverage).unwrap_or_default();
    Output { topic: Topic::Coverage, to: To::Key(key_hash(&[tenant.as_str()])), value }
}

/// Reads file after file. A file that cannot be read is a problem of its own and does not stop the others.
fn read_files(paths: &[PathBuf], progress: &Progress, shutdown: &Shutdown, sender: &tokio::sync::mpsc::Sender<News>) {
    let sizes = paths.iter().filter_map(|path| std::fs::metadata(path).ok()).map(|metadata| metadata.len());
    progress.bytes_total.store(sizes.sum(), Ordering::Relaxed);
    for path in paths {
        if shutdown.is_requested() {
            return;
        }
        let mut sink = Sink { sender, chunk: Vec::new(), bytes: 0, elements: 0, progress };
        let outcome = read_file(path, &mut sink, shutdown);
        sink.flush();
        let elements = sink.elements;
        let file = schemas::text::escape_controls(&path.to_string_lossy());
        // As above: a receiver that is gone does not want to know.
        let _ = match outcome {
            Ok(format) => sender.blocking_send(News::FileDone { file, elements, is_export: format == Format::Csv }),
            Err(reason) => sender.blocking_send(News::Problem(Problem { place: file, reason: reason.to_string() })),
        };
    }
}

/// Why a file could not be imported.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("is a folder; name the files in it")]
    Folder,
    #[error("does not exist")]
    Missing,
    #[error("is empty: there are no records in it")]
    Empty,
    #[error("is UTF-16; convert it first: iconv -f UTF-16 -t UTF-8")]
    Utf16,
    #[error("is a CSV without an AuditData column, which is where the records are; export with all columns")]
    NoAuditData,
    #[error("is neither JSON nor a CSV with an AuditData column; it was kept as one dead letter")]
    Unknown,
    #[error("row {row}: {reason}")]
    Csv { row: u64, reason: String },
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
}

fn read_file(path: &Path, sink: &mut Sink<'_>, shutdown: &Shutdown) -> Result<Format, FileError> {
    let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => FileError::Missing,
        _ => FileError::Io(error),
    })?;
    if metadata.is_dir() {
        return Err(FileError::Folder);
    }
    let name = schemas::text::escape_controls(&path.to_string_lossy());
    let mut file = std::fs::File::open(path)?;
    let probe = format::probe(&mut file)?;
    let format = format::detect(&probe)?;
    match format {
        Format::Lines | Format::Document => json::read(probe, file, &name, format, sink, shutdown)?,
        Format::Csv => csv::read(probe, file, &name, sink, shutdown)?,
        Format::Unknown => {
            json::read_unknown(probe, file, &name, sink)?;
            return Err(FileError::Unknown);
        }
    }
    Ok(format)
}
