//! HTTP: sends the machine's calls, and reads blobs into the log as they come.
//!
//! A blob is never held as a whole. Its bytes go through the [`Splitter`], and its records are committed in chunks of at
//! most [`CHUNK_RECORDS_MAX`] records or [`CHUNK_BYTES_MAX`] bytes while the body is still arriving. These chunks say
//! nothing about the blob: only when the body has been seen to its valid end (all announced bytes, one JSON array,
//! nothing behind it) are the last records handed back, for the transaction in which the ledger calls it committed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::Response;
use reqwest::header::{CONTENT_LENGTH, DATE, HeaderMap, RETRY_AFTER};
use runtime::log::{LogError, Output};
use schemas::envelope::Origin;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::settings::{Pace, SettingsError};
use super::wire::{Answer, BlobRead, Call, Outcome, Trouble, What};
use super::writer::Writer;
use crate::hex;
use crate::identity::Form;
use crate::record::{Kind, Prepared, prepare};
use crate::splitter::{Element, Framing, Splitter};

/// Records committed at once at most, as many as a reader takes at once.
pub const CHUNK_RECORDS_MAX: usize = 2_000;

/// Bytes of records committed at once, a single larger record aside.
pub const CHUNK_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Blobs read at once in this process, beyond the one that each tenant may always read: each takes the memory of a chunk
/// or two, and a tenant whose blobs come slowly must not keep the others from theirs.
const BLOBS_SHARED_MAX: usize = 24;

/// Largest answer that is not a blob: a listing's page of tens of thousands of blobs.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Largest blob. Microsoft names no limit; a stream without an end must have one.
const BLOB_BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024;

/// How much of an error envelope that came in a blob's place is kept.
const ENVELOPE_BYTES_MAX: usize = 64 * 1024;

/// Requests kept open to one host for the next request at most; as many as are in flight at once.
const IDLE_CONNECTIONS_MAX: usize = 8;

static BLOBS_SHARED: Semaphore = Semaphore::const_new(BLOBS_SHARED_MAX);

/// Sends the requests of one tenant.
#[derive(Clone, Debug)]
pub struct Http {
    client: reqwest::Client,
    answer_timeout: Duration,
    blob_timeout: Duration,
    /// The blob that this tenant may read whatever the others do.
    own_blob: Arc<Semaphore>,
}

/// What came of a call, and the last records of a blob that go with it.
#[derive(Debug)]
pub struct Heard {
    pub call: Call,
    pub outcome: Outcome,
    pub tail: Vec<Output>,
    pub status: Option<u16>,
    pub duration: Duration,
}

impl Http {
    pub fn new(pace: &Pace) -> Result<Http, SettingsError> {
        let duration = |delta: TimeDelta| delta.to_std().unwrap_or_default();
        let client = reqwest::Client::builder()
            .connect_timeout(duration(pace.connect_timeout))
            .read_timeout(duration(pace.idle_timeout))
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            // A redirection leads where no token must go.
            .redirect(reqwest::redirect::Policy::none())
            // Unconfirmed for this API, and a small body could unpack to an endless one.
            .no_gzip()
            .user_agent(concat!("harrier/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Http {
            client: client.map_err(|_| SettingsError::Client)?,
            answer_timeout: duration(pace.answer_timeout),
            blob_timeout: duration(pace.blob_timeout),
            own_blob: Arc::new(Semaphore::new(1)),
        })
    }

    /// Sends a call and reads what comes. An error is the log's; whatever the network does is an outcome.
    pub async fn send(&self, call: Call, form: Option<Form>, blob: Option<BlobContext>) -> Result<Heard, LogError> {
        // Held until the blob is read. Neither is ever closed.
        let _turn = match blob {
            Some(_) => tokio::select! {
                biased;
                turn = self.own_blob.acquire() => turn.ok(),
                turn = BLOBS_SHARED.acquire() => turn.ok(),
            },
            None => None,
        };
        let begun = Instant::now();
        let limit = if blob.is_some() { self.blob_timeout } else { self.answer_timeout };
        let mut heard =
            Heard { call, outcome: Outcome::Failed(Trouble::Timeout), tail: Vec::new(), status: None, duration: limit };
        let work = async {
            let response = match self.request(&heard.call, form.as_ref()).send().await {
                Ok(response) => response,
                Err(error) => return Ok((None, Outcome::Failed(trouble(&error)), Vec::new())),
            };
            let status = response.status().as_u16();
            let (outcome, tail) = match blob {
                Some(blob) if status == 200 => blob.read(response).await?,
                _ => (answer(response).await, Vec::new()),
            };
            Ok::<_, LogError>((Some(status), outcome, tail))
        };
        if let Ok(done) = tokio::time::timeout(limit, work).await {
            (heard.status, heard.outcome, heard.tail) = done?;
        }
        heard.duration = begun.elapsed();
        Ok(heard)
    }

    fn request(&self, call: &Call, form: Option<&Form>) -> reqwest::RequestBuilder {
        let request = match call.what {
            What::Token => self.client.post(call.url.clone()),
            What::Start { .. } => self.client.post(call.url.clone()).header(CONTENT_LENGTH, 0),
            What::Subscriptions | What::List { .. } | What::Blob { .. } => self.client.get(call.url.clone()),
        };
        match (&call.token, form) {
            (Some(token), _) => request.bearer_auth(token.value.expose()),
            (None, Some(form)) => request.form(form),
            (None, None) => request,
        }
    }
}

fn trouble(error: &reqwest::Error) -> Trouble {
    if error.is_timeout() {
        Trouble::Timeout
    } else if error.is_body() || error.is_decode() {
        Trouble::EndedEarly
    } else {
        Trouble::Connection
    }
}

/// Reads an answer whole.
async fn answer(mut response: Response) -> Outcome {
    let mut answer = head(&response);
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if answer.body.len() + chunk.len() > ANSWER_BYTES_MAX => {
                return Outcome::Failed(Trouble::TooLarge);
            }
            Ok(Some(chunk)) => answer.body.extend_from_slice(&chunk),
            Ok(None) => return Outcome::Answer(answer),
            // An error's body may be lost; its status is not.
            Err(_) if answer.status != 200 => return Outcome::Answer(answer),
            Err(error) => return Outcome::Failed(trouble(&error)),
        }
    }
}

fn head(response: &Response) -> Answer {
    let headers = response.headers();
    let date = text(headers, DATE.as_str()).and_then(moment);
    Answer {
        status: response.status().as_u16(),
        next_page: text(headers, "NextPageUri").map(str::to_owned),
        retry_after: text(headers, RETRY_AFTER.as_str()).and_then(|text| retry_after(text, date)),
        date,
        body: Vec::new(),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn moment(text: &str) -> Option<DateTime<Utc>> {
    Some(DateTime::parse_from_rfc2822(text.trim()).ok()?.with_timezone(&Utc))
}

/// Seconds, or a moment by the service's clock: taken as what is left of it from `date` on, so that no other clock comes
/// in.
fn retry_after(text: &str, date: Option<DateTime<Utc>>) -> Option<TimeDelta> {
    match text.trim().parse::<u32>() {
        Ok(seconds) => Some(TimeDelta::seconds(i64::from(seconds))),
        Err(_) => Some((moment(text)? - date?).max(TimeDelta::zero())),
    }
}

/// What reading a blob needs.
#[derive(Clone, Debug)]
pub struct BlobContext {
    pub origin: Origin,
    pub writer: Writer,
}

/// A blob being read.
struct Reading {
    context: BlobContext,
    ready: Vec<Prepared>,
    read: BlobRead,
}

impl BlobContext {
    async fn read(self, mut response: Response) -> Result<(Outcome, Vec<Output>), LogError> {
        let announced = response.content_length();
        let mut head = head(&response);
        let mut reading = Reading { context: self, ready: Vec::new(), read: BlobRead::default() };
        reading.read.date = head.date;
        let mut splitter = Splitter::new(Framing::Document);
        let mut hash = Sha256::new();
        loop {
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(error) => return Ok((Outcome::Failed(trouble(&error)), Vec::new())),
            };
            reading.read.bytes += chunk.len() as u64;
            if reading.read.bytes > BLOB_BYTES_MAX {
                return Ok((Outcome::Failed(Trouble::TooLarge), Vec::new()));
            }
            hash.update(&chunk);
            splitter.push(&chunk, &mut |element| reading.take(element));
            if !splitter.has_array() {
                let room = (ENVELOPE_BYTES_MAX - head.body.len()).min(chunk.len());
                head.body.extend_from_slice(&chunk[..room]);
            }
            if splitter.has_lone_value() {
                // Not an array, so no record in it is one: what came of it so far is not to be committed.
                reading.ready.clear();
                continue;
            }
            reading.commit_chunks().await?;
        }
        if announced.is_some_and(|announced| announced != reading.read.bytes) {
            return Ok((Outcome::Failed(Trouble::EndedEarly), Vec::new()));
        }
        let summary = match splitter.finish(&mut |element| reading.take(element)) {
            Ok(summary) => summary,
            Err(_) => return Ok((Outcome::Failed(Trouble::EndedEarly), Vec::new())),
        };
        if summary.arrays == 0 && summary.lone_values > 0 {
            return Ok((Outcome::Answer(head), Vec::new()));
        }
        // Nothing at all: a proxy's, most likely. An empty blob is an empty array.
        if summary.arrays == 0 && summary.lone_values == 0 {
            return Ok((Outcome::Failed(Trouble::Empty), Vec::new()));
        }
        if summary.lone_values > 0 || summary.arrays > 1 {
            return Ok((Outcome::Failed(Trouble::NotAnArray), Vec::new()));
        }
        reading.commit_chunks().await?;
        reading.read.sha256 = hex(&hash.finalize());
        let tail = reading.drain(reading.ready.len());
        Ok((Outcome::Blob(reading.read), tail))
    }
}

impl Reading {
    fn take(&mut self, element: Element<'_>) {
        let index = element.index;
        let origin = &self.context.origin;
        let prepared = prepare(origin, element, || format!("blob {}, record {index}", origin.blob_id));
        match &prepared.kind {
            Kind::Record { event_time, .. } => {
                self.read.records += 1;
                let known = Some(*event_time).filter(|time| *time > DateTime::UNIX_EPOCH);
                self.read.oldest_event = self.read.oldest_event.into_iter().chain(known).min();
            }
            Kind::Rejected(_) => self.read.rejected += 1,
        }
        self.ready.push(prepared);
    }

    /// Commits all but the last chunk, which waits for the end of the blob.
    async fn commit_chunks(&mut self) -> Result<(), LogError> {
        while let Some(length) = chunk_length(&self.ready) {
            let outputs = self.drain(length);
            self.context.writer.append(outputs).await?;
        }
        Ok(())
    }

    /// Takes the first messages out, and counts them.
    fn drain(&mut self, length: usize) -> Vec<Output> {
        let BlobContext { origin, writer } = &self.context;
        let count = |prepared: &Prepared| writer.count(origin, &prepared.kind);
        self.ready.drain(..length).inspect(count).map(|prepared| prepared.output).collect()
    }
}

/// How many messages make a full chunk; none if there are not enough.
fn chunk_length(ready: &[Prepared]) -> Option<usize> {
    let mut bytes = 0;
    for (count, prepared) in ready.iter().enumerate() {
        if count > 0 && (count == CHUNK_RECORDS_MAX || bytes + prepared.output.value.len() > CHUNK_BYTES_MAX) {
            return Some(count);
        }
        bytes += prepared.output.value.len();
    }
    None
}
