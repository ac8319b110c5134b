//! Sends searches, waits for them, reads what they found into the log. One search at a time: how many a tenant may have
//! is documented nowhere, and each is answered in minutes.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::header::RETRY_AFTER;
use runtime::clock::Clock;
use runtime::config::Secret;
use runtime::log::{Consumer, Lease, Log, LogError, Output, To, Txn};
use runtime::metrics::Metrics;
use runtime::shutdown::Shutdown;
use schemas::envelope::Origin;
use schemas::json::key_hash;
use schemas::message::{Coverage, CoverageState, Topic};
use sha2::{Digest, Sha256};
use url::Url;

use super::plan::{FAILED_WINDOW_MIN, Todo, WINDOW_MIN, Window, plan, whole};
use super::wire::{self, Page, Progress, RECORDS_MAX};
use super::{Pace, Report, SOURCE, Search};
use crate::hex;
use crate::identity::{Asked, Grant, IdentityError};
use crate::ledger::{BlobName, BlobRow, BlobState, Change, LedgerError, lease_number, searches};
use crate::record::{Kind, dead_letter, post, prepare, said_whole};
use crate::source::management_activity::code::shown;
use crate::source::management_activity::wire::{Api, read_token, read_token_error};
use crate::splitter::{Body, Element};

/// Largest answer: a page of a thousand records.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Attempts at one request.
const ATTEMPTS_MAX: u32 = 6;

/// Searches of one window that may fail before it is cut.
const FAILURES_MAX: u32 = 3;

/// Windows that fail one after the other before the whole is given up: it is not the windows then. The next run goes on.
const FAILED_IN_A_ROW_MAX: u32 = 8;

/// Pages of one search at most: twice what its limit makes.
const PAGES_MAX: u64 = 2 * RECORDS_MAX / 100;

const HOLD: Duration = Duration::from_secs(60);

/// Longest wait for another backfill of the tenant to end.
const LEASE_WITHIN: Duration = Duration::from_secs(90);

const REQUEST_TIMEOUT: Duration = Duration::from_secs(180);

/// Why a backfill has ended before its end. What it has done stays done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SearchError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("no token for Graph: {0}")]
    NoToken(String),
    /// Without it a search succeeds and finds nothing, which must not pass for a clean answer.
    #[error(
        "the application has no AuditLogsQuery permission of Microsoft Graph (roles: {roles}), and searches would find \
         nothing without saying why: grant AuditLogsQuery.Read.All, with admin consent"
    )]
    NoPermission { roles: String },
    #[error("Graph refuses: {0}")]
    Refused(String),
    #[error("Graph cannot be reached: {0}")]
    Unreachable(&'static str),
    #[error("another backfill of this tenant is under way")]
    UnderWay,
    #[error("the HTTP client cannot be made")]
    Client,
    #[error("the last {FAILED_IN_A_ROW_MAX} windows could not be searched: {0}")]
    Failing(String),
    #[error("ended before the end")]
    Stopped,
}

/// Searches a stretch, window by window. `told` hears of each window that is finished.
pub async fn search(
    what: &Search,
    pace: Pace,
    log: Arc<dyn Log>,
    clock: &Clock,
    metrics: Arc<Metrics>,
    shutdown: &Shutdown,
    told: &mut (dyn FnMut(&Report, usize) + Send),
) -> Result<Report, SearchError> {
    let client = reqwest::Client::builder()
        .timeout(REQUEST_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("harrier/", env!("CARGO_PKG_VERSION")));
    let tenant = &what.source.tenant;
    let owner = format!("{}-{:016x}", std::process::id(), RandomState::new().build_hasher().finish());
    let lease = Lease { consumer: Consumer::Search, partition: lease_number(tenant), owner };
    let begun = tokio::time::Instant::now();
    while !log.acquire(&lease, HOLD).await? {
        if begun.elapsed() > LEASE_WITHIN {
            return Err(SearchError::UnderWay);
        }
        if !shutdown.sleep(HOLD / 30).await {
            return Err(SearchError::Stopped);
        }
    }
    let client = client.build().map_err(|_| SearchError::Client)?;
    let renewed = begun;
    let mut session = Session {
        what,
        pace,
        log,
        clock,
        metrics,
        shutdown,
        client,
        lease,
        renewed,
        token: None,
        report: Report::default(),
    };
    let result = session.run(told).await;
    // Whoever comes next need not wait for it to run out.
    let _ = session.log.release(&session.lease).await;
    result.map(|()| session.report)
}

struct Session<'a> {
    what: &'a Search,
    pace: Pace,
    log: Arc<dyn Log>,
    clock: &'a Clock,
    metrics: Arc<Metrics>,
    shutdown: &'a Shutdown,
    client: reqwest::Client,
    lease: Lease,
    renewed: tokio::time::Instant,
    token: Option<(Secret, DateTime<Utc>)>,
    report: Report,
}

/// How the search of a window has ended.
enum Ended {
    Done(Read),
    /// Cut it: why.
    TooLarge(&'static str),
    /// Try again, or cut it: why.
    Failed(String),
    /// There is no such search any more.
    Lost,
}

/// What was read of a window, and the records that are not in the log yet.
#[derive(Default)]
struct Read {
    /// The search.
    id: String,
    records: u64,
    rejected: u64,
    bytes: u64,
    oldest: Option<DateTime<Utc>>,
    hash: Sha256,
    tail: Vec<Output>,
}

/// An answer of Graph's.
struct Answer {
    status: u16,
    body: Vec<u8>,
}

impl Session<'_> {
    async fn run(&mut self, told: &mut (dyn FnMut(&Report, usize) + Send)) -> Result<(), SearchError> {
        self.token().await?;
        let rows = searches(&*self.log, &self.what.source.tenant).await?;
        let (mut todo, known) = plan(&rows, self.what.from, self.what.until);
        // The latest first: `pop` takes from the end.
        todo.reverse();
        self.report.windows_known = known;
        let mut failed_in_a_row = 0;
        while let Some(next) = todo.pop() {
            let window = next.window;
            let failed = match self.window(next).await? {
                Ended::Done(read) => {
                    self.done(window, read).await?;
                    None
                }
                Ended::TooLarge(why) => {
                    self.cut(window, why, WINDOW_MIN, &mut todo).await?;
                    None
                }
                Ended::Failed(why) => Some(why),
                Ended::Lost => Some("the service forgot the search again and again".to_owned()),
            };
            match failed {
                None => failed_in_a_row = 0,
                Some(why) if failed_in_a_row + 1 >= FAILED_IN_A_ROW_MAX => return Err(SearchError::Failing(why)),
                Some(why) => {
                    failed_in_a_row += 1;
                    self.cut(window, &why, FAILED_WINDOW_MIN, &mut todo).await?;
                }
            }
            told(&self.report, todo.len());
        }
        let rows = searches(&*self.log, &self.what.source.tenant).await?;
        if let Some(stretch) = whole(&rows, self.what.from, self.what.until) {
            self.commit(Vec::new(), vec![said_whole(&self.what.source.tenant, stretch)]).await?;
        }
        Ok(())
    }

    /// Searches a window, a few times if it must be.
    async fn window(&mut self, todo: Todo) -> Result<Ended, SearchError> {
        let mut query = todo.query;
        let mut last = Ended::Lost;
        for _ in 0..FAILURES_MAX {
            let id = match query.take() {
                Some(id) => id,
                None => match self.begin(todo.window).await? {
                    Ok(id) => id,
                    Err(why) => {
                        last = Ended::Failed(why);
                        continue;
                    }
                },
            };
            last = self.finish(&id).await?;
            if matches!(last, Ended::Done(_) | Ended::TooLarge(_)) {
                break;
            }
        }
        Ok(last)
    }

    /// Begins a search and remembers its id.
    async fn begin(&mut self, window: Window) -> Result<Result<String, String>, SearchError> {
        let answer = self.ask(wire::queries(&self.what.graph), Some(wire::body(window))).await?;
        if !matches!(answer.status, 200 | 201) {
            return Ok(Err(self.refusal(&answer)?));
        }
        let Some(standing) = wire::read_standing(&answer.body) else {
            return Ok(Err("the answer names no search".to_owned()));
        };
        let row = self.row(window, standing.id.clone(), BlobState::Listed);
        self.commit(vec![row], Vec::new()).await?;
        Ok(Ok(standing.id))
    }

    /// Waits for a search and reads what it found.
    async fn finish(&mut self, id: &str) -> Result<Ended, SearchError> {
        let begun = tokio::time::Instant::now();
        let mut wait = self.pace.poll_first;
        loop {
            let answer = self.ask(wire::query(&self.what.graph, id), None).await?;
            if answer.status == 404 {
                return Ok(Ended::Lost);
            }
            if answer.status != 200 {
                return Ok(Ended::Failed(self.refusal(&answer)?));
            }
            let Some(standing) = wire::read_standing(&answer.body) else {
                return Ok(Ended::Failed("the answer says nothing of the search".to_owned()));
            };
            match standing.progress {
                Progress::Succeeded if standing.is_cut_short => {
                    return Ok(Ended::TooLarge("the search found more than it returns"));
                }
                Progress::Succeeded => return self.read(id).await,
                Progress::Failed => return Ok(Ended::Failed("the search has failed".to_owned())),
                Progress::Running if begun.elapsed() > self.pace.search_max => {
                    return Ok(Ended::TooLarge("the search did not end in time"));
                }
                Progress::Running => {
                    self.sleep(wait).await?;
                    wait = (wait * 2).min(self.pace.poll);
                }
            }
        }
    }

    /// Reads every page. Records go into the log a page at a time; the last page waits for the window's row.
    async fn read(&mut self, id: &str) -> Result<Ended, SearchError> {
        let mut read = Read { id: id.to_owned(), ..Read::default() };
        let mut next = Some(wire::records(&self.what.graph, id));
        let mut pages = 0;
        while let Some(url) = next {
            let answer = self.ask(url, None).await?;
            if answer.status != 200 {
                return Ok(Ended::Failed(self.refusal(&answer)?));
            }
            let Some(page) = wire::read_page(&answer.body) else {
                return Ok(Ended::Failed("a page cannot be read".to_owned()));
            };
            let before = std::mem::take(&mut read.tail);
            self.commit(Vec::new(), before).await?;
            self.take(id, &page, &answer.body, &mut read);
            next = match page.next.as_deref().map(|link| wire::next_page(&self.what.graph, link)) {
                Some(None) => return Ok(Ended::Failed("the next page is said to be at another address".to_owned())),
                Some(next) => next,
                None => None,
            };
            pages += 1;
            if pages >= PAGES_MAX || read.records + read.rejected >= RECORDS_MAX {
                return Ok(Ended::TooLarge("the search found as many records as it returns at most"));
            }
        }
        Ok(Ended::Done(read))
    }

    fn take(&self, id: &str, page: &Page<'_>, body: &[u8], read: &mut Read) {
        read.hash.update(body);
        read.bytes += body.len() as u64;
        let origin = self.origin(id);
        for (index, entry) in (read.records + read.rejected..).zip(&page.entries) {
            let place = || format!("search {id}, record {index}");
            let Some(record) = wire::record(entry) else {
                read.rejected += 1;
                let reason = "an entry of a search without a record".to_owned();
                read.tail.push(post(&dead_letter(&origin, place(), reason, entry.as_bytes().to_vec())));
                continue;
            };
            let element = Element { index, offset: 0, body: Body::Whole(record.as_bytes()) };
            let prepared = prepare(&origin, element, place);
            match prepared.kind {
                Kind::Record { event_time, .. } => {
                    read.records += 1;
                    let known = Some(event_time).filter(|time| *time > DateTime::UNIX_EPOCH);
                    read.oldest = read.oldest.into_iter().chain(known).min();
                    self.metrics.ingest.received.with([origin.tenant.as_str(), SOURCE]).inc();
                }
                Kind::Rejected(reason) => {
                    read.rejected += 1;
                    self.metrics.ingest.rejected.with([reason]).inc();
                }
            }
            read.tail.push(prepared.output);
        }
    }

    async fn done(&mut self, window: Window, read: Read) -> Result<(), SearchError> {
        let Read { id, records, rejected, bytes, oldest: oldest_event, hash, tail } = read;
        let (at, sha256) = (self.clock.now(), hex(&hash.finalize()));
        let state = BlobState::Committed { records, rejected, bytes, sha256, at, oldest_event };
        let row = BlobRow { created: window.start, expires: None, uri: String::new(), state };
        let tenant = &self.what.source.tenant;
        let mut outputs = tail;
        outputs.extend(row.told(BlobName { tenant, source: SOURCE, content_type: "", blob_id: &id }));
        outputs.push(self.coverage(window, CoverageState::Complete, ""));
        self.commit(vec![Change::Search { window: window.id(), row: Some(row) }], outputs).await?;
        self.report.windows_done += 1;
        self.report.records += records;
        self.report.rejected += rejected;
        Ok(())
    }

    /// Two windows in the place of one; one that is too small for that is a gap.
    async fn cut(
        &mut self,
        window: Window,
        why: &str,
        least: TimeDelta,
        todo: &mut Vec<Todo>,
    ) -> Result<(), SearchError> {
        let tenant = self.what.source.tenant.as_str();
        let Some((earlier, later)) = window.cut(least) else {
            tracing::error!(event = "search_window_lost", tenant, window = window.id(), why);
            let state = BlobState::Gone { reason: shown(why), at: self.clock.now() };
            let told = self.coverage(window, CoverageState::Missing, &shown(why));
            self.report.windows_missing += 1;
            return self.commit(vec![self.row(window, String::new(), state)], vec![told]).await;
        };
        tracing::warn!(event = "search_window_cut", tenant, window = window.id(), why);
        self.report.windows_cut += 1;
        let gone = Change::Search { window: window.id(), row: None };
        let rows = [earlier, later].map(|half| self.row(half, String::new(), BlobState::Listed));
        self.commit([gone].into_iter().chain(rows).collect(), Vec::new()).await?;
        todo.extend([earlier, later].map(|window| Todo { window, query: None }));
        Ok(())
    }

    fn row(&self, window: Window, query: String, state: BlobState) -> Change {
        let row = BlobRow { created: window.start, expires: None, uri: query, state };
        Change::Search { window: window.id(), row: Some(row) }
    }

    fn coverage(&self, window: Window, state: CoverageState, reason: &str) -> Output {
        let coverage = Coverage {
            tenant: self.what.source.tenant.clone(),
            feed: SOURCE.to_owned(),
            window_start: window.start,
            window_end: window.end,
            state,
            reason: reason.to_owned(),
        };
        // A struct of strings and times always serialises.
        let value = serde_json::to_vec(&coverage).unwrap_or_default();
        Output { topic: Topic::Coverage, to: To::Key(key_hash(&[coverage.tenant.as_str()])), value }
    }

    fn origin(&self, query: &str) -> Origin {
        Origin {
            tenant: self.what.source.tenant.clone(),
            source: SOURCE.to_owned(),
            content_type: String::new(),
            blob_id: query.to_owned(),
            received: self.clock.now(),
            notify: self.what.notify,
        }
    }

    async fn commit(&mut self, changes: Vec<Change>, outputs: Vec<Output>) -> Result<(), SearchError> {
        if changes.is_empty() && outputs.is_empty() {
            return Ok(());
        }
        self.renew().await?;
        let (tenant, partitions) = (&self.what.source.tenant, self.log.partitions());
        let state = changes.iter().map(|change| change.state_change(tenant, partitions)).collect();
        let txn = Arc::new(Txn { outputs, state, lease: Some(self.lease.clone()), ..Txn::default() });
        for _ in 1..ATTEMPTS_MAX {
            match self.log.commit_shared(txn.clone()).await {
                Err(error) if error.retryable() => self.sleep(self.pace.backoff).await?,
                result => return Ok(result.map(drop)?),
            }
        }
        Ok(self.log.commit_shared(txn).await.map(drop)?)
    }

    async fn renew(&mut self) -> Result<(), SearchError> {
        if self.renewed.elapsed() < HOLD / 3 {
            return Ok(());
        }
        self.renewed = tokio::time::Instant::now();
        if self.log.acquire(&self.lease, HOLD).await? { Ok(()) } else { Err(SearchError::UnderWay) }
    }

    /// Waits, and keeps the lease meanwhile.
    async fn sleep(&mut self, wait: Duration) -> Result<(), SearchError> {
        let until = tokio::time::Instant::now() + wait;
        loop {
            self.renew().await?;
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            if !self.shutdown.sleep(left.min(HOLD / 4)).await {
                return Err(SearchError::Stopped);
            }
        }
    }

    /// One request, again where the service has trouble. What it refuses for good is the caller's to understand.
    async fn ask(&mut self, url: Url, body: Option<serde_json::Value>) -> Result<Answer, SearchError> {
        let mut wait = self.pace.backoff;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let token = self.token().await?;
            let request = match &body {
                Some(body) => self.client.post(url.clone()).json(body),
                None => self.client.get(url.clone()),
            };
            let (answer, retry_after) = match send(request.bearer_auth(token.expose())).await {
                Ok((answer, retry_after)) => (Ok(answer), retry_after),
                Err(why) => (Err(why), None),
            };
            match answer {
                // The token is not accepted: another one, and again.
                Ok(answer) if answer.status == 401 && attempt < ATTEMPTS_MAX => self.token = None,
                Ok(answer) if !matches!(answer.status, 408 | 429 | 500..=599) || attempt >= ATTEMPTS_MAX => {
                    return Ok(answer);
                }
                Err(why) if attempt >= ATTEMPTS_MAX => return Err(SearchError::Unreachable(why)),
                _ => {
                    self.sleep(retry_after.unwrap_or(wait).min(self.pace.backoff_max)).await?;
                    wait *= 2;
                }
            }
        }
    }

    /// A refusal, to be tried again later; one that nothing but an administrator mends ends the whole.
    fn refusal(&self, answer: &Answer) -> Result<String, SearchError> {
        let text = format!("HTTP {}: {}", answer.status, shown(&String::from_utf8_lossy(&answer.body)));
        if matches!(answer.status, 401 | 403) { Err(SearchError::Refused(text)) } else { Ok(text) }
    }

    async fn token(&mut self) -> Result<Secret, SearchError> {
        let now = self.clock.now();
        if let Some((token, until)) = &self.token
            && *until > now
        {
            return Ok(token.clone());
        }
        let source = &self.what.source;
        let endpoint = Api::new(Arc::new(source.clone())).token();
        let mut wait = self.pace.backoff;
        for attempt in 1.. {
            let asked = Asked { client_id: &source.client_id, endpoint: &endpoint, audience: &self.what.audience };
            let form = source.credential.form(asked, now)?;
            let why = match send(self.client.post(endpoint.clone()).form(&form)).await {
                Ok((Answer { status: 200, body }, _)) => match read_token(&body) {
                    Some((token, lasts)) => {
                        return self.hold(token, now + lasts - (lasts / 2).min(TimeDelta::minutes(5)));
                    }
                    None => "the token endpoint answered something else".to_owned(),
                },
                Ok((answer, _)) => {
                    let (refusal, retry) = read_token_error(answer.status, &answer.body);
                    if !retry {
                        return Err(SearchError::NoToken(refusal.to_string()));
                    }
                    refusal.to_string()
                }
                Err(why) => why.to_owned(),
            };
            if attempt >= ATTEMPTS_MAX {
                return Err(SearchError::NoToken(why));
            }
            self.sleep(wait.min(self.pace.backoff_max)).await?;
            wait *= 2;
        }
        Err(SearchError::Stopped)
    }

    fn hold(&mut self, token: Secret, until: DateTime<Utc>) -> Result<Secret, SearchError> {
        let grant = Grant::read(&token);
        if let Some(grant) = grant
            && !grant.roles.iter().any(|role| role.starts_with("AuditLogsQuery"))
        {
            return Err(SearchError::NoPermission { roles: shown(&grant.roles.join(", ")) });
        }
        self.token = Some((token.clone(), until));
        Ok(token)
    }
}

async fn send(request: reqwest::RequestBuilder) -> Result<(Answer, Option<Duration>), &'static str> {
    let why = |error: &reqwest::Error| if error.is_timeout() { "no answer in time" } else { "no connection" };
    let mut response = request.send().await.map_err(|error| why(&error))?;
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let mut answer = Answer { status: response.status().as_u16(), body: Vec::new() };
    while let Some(chunk) = response.chunk().await.map_err(|error| why(&error))? {
        if answer.body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err("an answer is larger than allowed");
        }
        answer.body.extend_from_slice(&chunk);
    }
    Ok((answer, retry_after.map(Duration::from_secs)))
}
