//! The rules of the API: what each request gets, and what is spoilt of it.
//!
//! Guarantee: what `reference/apis/01` says of the real service holds here, the limits of windows, the paging and the
//! error codes included. A blob is listed once its moment has come and never before.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::answers::{self, Refusal, json_response};
use crate::assertion::Assertions;
use crate::audit_search::Searches;
use crate::backlog::Templates;
use crate::broken::{self, TokenRefusal};
use crate::counters::{Counters, Kind, Tally};
use crate::dice::{Dice, fingerprint};
use crate::faults::{Fault, FaultPlan};
use crate::line::{Connections, Scissors};
use crate::records::CONTENT_TYPES;
use crate::shelf::{Blob, Content, Shelf};
use crate::tokens::Tokens;
use crate::{Broken, Options, World};

/// Seven days, and the hour of grace that the real service was measured to give.
const REACH: TimeDelta = TimeDelta::hours(7 * 24 + 1);
const WINDOW: TimeDelta = TimeDelta::hours(24);

/// Which requests find auditing off, where that is the fault.
const AUDITING_OFF: std::ops::Range<u64> = 20..26;
/// At which listing of a content type its subscription is disabled, where that is the fault.
const DISABLED_AT: u64 = 6;
/// What follows the id of a blob that is only half of itself.
const PARTIAL: &str = "$part";

pub(crate) struct Service {
    pub(crate) options: Options,
    pub(crate) world: Arc<World>,
    pub(crate) shelf: Shelf,
    pub(crate) templates: Option<Arc<Templates>>,
    /// Scheme, host and port of this server.
    pub(crate) base: String,
    pub(crate) started: Instant,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) searches: Arc<Searches>,
    pub(crate) assertions: Assertions,
    pub(crate) faults: FaultPlan,
    /// Content types ever subscribed to.
    pub(crate) subscriptions: Mutex<BTreeMap<&'static str, Subscription>>,
    /// Of each blob, how long it had been there when it was first fetched.
    pub(crate) fetched: Mutex<Vec<Option<TimeDelta>>>,
    pub(crate) counters: Counters,
    pub(crate) connections: Arc<Connections>,
    /// Requests that found the tenant, and listings of each content type.
    pub(crate) entered: AtomicU64,
    pub(crate) listings: Mutex<HashMap<&'static str, u64>>,
    /// Ends when the server is to end, so that nobody waits in silence for ever.
    pub(crate) stopped: watch::Receiver<bool>,
}

/// A subscription that was started once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Subscription {
    standing: Standing,
    /// Stretches in which it was not enabled: what became available in them is never listed.
    pub(crate) off: Vec<(DateTime<Utc>, Option<DateTime<Utc>>)>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Standing {
    #[default]
    Enabled,
    /// By whoever reads.
    Stopped,
    /// By an administrator.
    Disabled,
}

impl Subscription {
    fn end(&mut self, standing: Standing, now: DateTime<Utc>) {
        self.standing = standing;
        self.off.push((now, None));
    }

    fn resume(&mut self, now: DateTime<Utc>) {
        self.standing = Standing::Enabled;
        if let Some((_, end @ None)) = self.off.last_mut() {
            *end = Some(now);
        }
    }

    /// Whether something that became available then is never listed.
    pub(crate) fn misses(&self, created: DateTime<Utc>) -> bool {
        self.off.iter().any(|(from, to)| created >= *from && to.is_none_or(|to| created < to))
    }
}

/// A request, as far as every kind of it has the same parts.
pub(crate) struct Asked {
    pub(crate) kind: Kind,
    pub(crate) tenant: String,
    pub(crate) authorization: Option<String>,
    pub(crate) query: Vec<(String, String)>,
    /// The id of the blob asked for; empty otherwise.
    pub(crate) content_id: String,
    pub(crate) scissors: Scissors,
}

impl Asked {
    /// What is asked for: the same thing has the same name, however often it is asked for.
    fn subject(&self) -> String {
        let named = |name| parameter(&self.query, name).unwrap_or_default();
        match self.kind {
            Kind::Blob => self.content_id.clone(),
            Kind::List => format!("content {}", named("contentType")),
            Kind::NextPage => {
                format!("content {} {}", named("contentType"), named("nextPage").split('$').next().unwrap_or(""))
            }
            Kind::Token => "token".to_owned(),
            Kind::Subscriptions => "subscriptions/list".to_owned(),
            Kind::Start => format!("subscriptions/start {}", named("contentType")),
            Kind::Stop => format!("subscriptions/stop {}", named("contentType")),
        }
    }
}

/// What is answered, if nothing comes between.
pub(crate) struct Answer {
    pub(crate) text: Text,
    pub(crate) next_page: Option<HeaderValue>,
    pub(crate) tally: Tally,
}

/// A body.
pub(crate) enum Text {
    Whole(Bytes),
    /// Made while it is sent.
    Pieces {
        length: u64,
        pieces: Box<dyn Iterator<Item = Bytes> + Send>,
    },
}

impl Answer {
    fn of(body: &Value) -> Answer {
        Answer { text: Text::Whole(body.to_string().into()), next_page: None, tally: Tally::Nothing }
    }
}

impl Service {
    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.options.end + TimeDelta::from_std(self.started.elapsed()).unwrap_or(TimeDelta::zero())
    }

    /// Answers a request for a token. `endpoint` is its path behind the tenant: assertions name it.
    pub(crate) async fn token(
        &self,
        asked: Asked,
        endpoint: &str,
        form: &HashMap<String, String>,
        audience: &str,
        body: impl Fn(&str, DateTime<Utc>) -> Value,
    ) -> Response {
        self.counters.asked(asked.kind, self.now());
        match self.faults.draw(asked.kind, &asked.subject()) {
            Some((fault, dice)) => {
                self.counters.add(|counters| &counters.faults, 1);
                let text = Text::Whole("{}".into());
                answers::spoil(fault, dice, text, self.hands(&asked)).await.0
            }
            None => self.give_token((&asked.tenant, endpoint), form, audience, body),
        }
    }

    fn give_token(
        &self,
        (tenant, endpoint): (&str, &str),
        form: &HashMap<String, String>,
        audience: &str,
        body: impl Fn(&str, DateTime<Utc>) -> Value,
    ) -> Response {
        let given = |name: &str| form.get(name).map_or("", String::as_str);
        let options = &self.options;
        let known_tenant =
            tenant.eq_ignore_ascii_case(&options.tenant_id) || tenant.eq_ignore_ascii_case(&options.domain);
        let now = self.now();
        let failure = if !known_tenant {
            Some(TokenRefusal::request("invalid_request", 90_002, "Tenant not found."))
        } else if given("grant_type") != "client_credentials" {
            Some(TokenRefusal::request("unsupported_grant_type", 70_003, "The grant type is not supported."))
        } else if given("client_id") != options.client_id {
            Some(TokenRefusal::request("unauthorized_client", 700_016, "Application not found in the directory."))
        } else if form.contains_key("client_assertion") {
            let endpoint = format!("{}/{tenant}/{endpoint}", self.base);
            self.assertions.check(form, options, &endpoint, now).err()
        } else if given("client_secret") != options.client_secret {
            Some(TokenRefusal::client(7_000_215, "Invalid client secret provided."))
        } else {
            None
        };
        let Some(refusal) = failure.or_else(|| broken::refuse_token(&options.broken)) else {
            let roles = broken::roles(&options.broken, audience);
            let token = self.tokens.issue(&options.tenant_id, &options.client_id, audience, roles, now);
            return json_response(StatusCode::OK, &body(&token, now));
        };
        self.counters.add(|counters| &counters.refusals, 1);
        json_response(refusal.status, &refusal.body(now, &options.client_id))
    }

    /// Answers a request of the API: by its rules, as the tenant is broken, or as a fault has it.
    pub(crate) async fn answer(
        &self,
        asked: Asked,
        work: impl FnOnce(&Service, &Asked) -> Result<Answer, Refusal>,
    ) -> Response {
        self.counters.asked(asked.kind, self.now());
        let refused = |refusal: Refusal| {
            self.counters.add(|counters| &counters.refusals, 1);
            refusal.into_response()
        };
        let token = match self.enter(&asked) {
            Err(refusal) => return refused(refusal),
            Ok(token) => token,
        };
        if let Some(response) = broken::answer(&self.options.broken, &asked.subject(), &asked.tenant) {
            self.counters.add(|counters| &counters.refusals, 1);
            return response;
        }
        if self.is_auditing_off() {
            self.counters.add(|counters| &counters.faults, 1);
            return answers::auditing_off(&self.options.tenant_id);
        }
        match self.faults.draw(asked.kind, &asked.subject()) {
            None => match work(self, &asked) {
                Ok(answer) => {
                    self.tell(answer.tally);
                    answers::whole(answer)
                }
                Err(refusal) => refused(refusal),
            },
            Some((fault, dice)) => {
                self.counters.add(|counters| &counters.faults, 1);
                if fault == Fault::ExpiredToken {
                    self.tokens.revoke(&token);
                }
                self.spoil(fault, dice, &asked, work).await
            }
        }
    }

    /// What comes of a request that is spoilt. A body that is broken off is that of the true answer.
    async fn spoil(
        &self,
        fault: Fault,
        dice: Dice,
        asked: &Asked,
        work: impl FnOnce(&Service, &Asked) -> Result<Answer, Refusal>,
    ) -> Response {
        // A request that is refused outright has no effect; one whose answer breaks off has had its own.
        let (text, next_page, tally, refusal) = match fault.needs_answer().then(|| work(self, asked)) {
            Some(Ok(answer)) => (answer.text, answer.next_page, answer.tally, None),
            Some(Err(refusal)) => (Text::Whole("[]".into()), None, Tally::Nothing, Some(refusal)),
            None => (Text::Whole("[]".into()), None, Tally::Nothing, None),
        };
        let (mut response, is_whole) = answers::spoil(fault, dice, text, self.hands(asked)).await;
        if let Some(refusal) = refusal.filter(|_| is_whole) {
            // A body that comes whole must be the true one: an empty array says that there is nothing, and is believed.
            self.counters.add(|counters| &counters.refusals, 1);
            return refusal.into_response();
        }
        if is_whole {
            self.tell(tally);
            if let Some(next_page) = next_page {
                response.headers_mut().insert("NextPageUri", next_page);
            }
        }
        response
    }

    fn hands(&self, asked: &Asked) -> answers::Hands {
        answers::Hands {
            scissors: asked.scissors.clone(),
            silence: self.options.silence,
            stopped: self.stopped.clone(),
            now: self.now(),
        }
    }

    fn tell(&self, tally: Tally) {
        match tally {
            Tally::Nothing => {}
            Tally::Listing { blobs, malformed } => self.counters.listed(blobs, malformed),
            Tally::Blob { place, records, bytes } => {
                let since = self.shelf.blobs().nth(place).map_or(self.options.end, |blob| blob.listed);
                let lag = self.now() - since.max(self.options.end);
                if let Some(fetched) = locked(&self.fetched).get_mut(place) {
                    fetched.get_or_insert(lag);
                }
                self.counters.add(|counters| &counters.blobs_fetched, 1);
                self.counters.add(|counters| &counters.records, records);
                self.counters.add(|counters| &counters.bytes, bytes);
            }
        }
    }

    /// The checks that every call passes. Returns its token.
    fn enter(&self, asked: &Asked) -> Result<String, Refusal> {
        let token = asked
            .authorization
            .as_deref()
            .and_then(|text| text.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .filter(|token| self.tokens.is_valid(token, self.now()))
            .ok_or(Refusal::Unauthorized)?;
        if !is_guid(&asked.tenant) {
            return Err(Refusal::TenantNotGuid);
        }
        if !asked.tenant.eq_ignore_ascii_case(&self.options.tenant_id) {
            return Err(Refusal::OtherTenant);
        }
        Ok(token.to_owned())
    }

    fn is_auditing_off(&self) -> bool {
        self.faults.has(Fault::AuditingOff) && AUDITING_OFF.contains(&self.entered.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn list_subscriptions(&self) -> Result<Answer, Refusal> {
        let subscriptions = locked(&self.subscriptions);
        let list: Value = subscriptions.iter().map(|(name, subscription)| shown(name, subscription)).collect();
        Ok(Answer::of(&list))
    }

    pub(crate) fn start_subscription(&self, asked: &Asked) -> Result<Answer, Refusal> {
        let content_type = content_type(&asked.query)?;
        let now = self.now();
        let mut subscriptions = locked(&self.subscriptions);
        match subscriptions.get_mut(content_type) {
            Some(subscription) if subscription.standing == Standing::Enabled => return Err(Refusal::AlreadyEnabled),
            Some(subscription) => subscription.resume(now),
            None => drop(subscriptions.insert(content_type, Subscription::default())),
        }
        Ok(Answer::of(&shown(content_type, &Subscription::default())))
    }

    pub(crate) fn stop_subscription(&self, asked: &Asked) -> Result<Answer, Refusal> {
        let content_type = content_type(&asked.query)?;
        let now = self.now();
        match locked(&self.subscriptions).get_mut(content_type) {
            None => return Err(Refusal::NoSubscription),
            Some(subscription) if subscription.standing == Standing::Enabled => {
                subscription.end(Standing::Stopped, now)
            }
            Some(_) => {}
        }
        Ok(Answer { text: Text::Whole(Bytes::new()), next_page: None, tally: Tally::Nothing })
    }

    /// The subscription of a listing, if it may be listed.
    fn subscribed(&self, content_type: &'static str, now: DateTime<Utc>) -> Result<Subscription, Refusal> {
        let mut subscriptions = locked(&self.subscriptions);
        let subscription = subscriptions.get_mut(content_type).ok_or(Refusal::NoSubscription)?;
        if subscription.standing == Standing::Enabled && self.faults.has(Fault::Disabled) {
            let mut listings = locked(&self.listings);
            let count = listings.entry(content_type).or_default();
            *count += 1;
            if *count == DISABLED_AT {
                self.counters.add(|counters| &counters.faults, 1);
                subscription.end(Standing::Disabled, now);
            }
        }
        match subscription.standing {
            Standing::Enabled => Ok(subscription.clone()),
            Standing::Stopped => Err(Refusal::NoSubscription),
            Standing::Disabled => Err(Refusal::Disabled),
        }
    }

    pub(crate) fn list_content(&self, asked: &Asked) -> Result<Answer, Refusal> {
        let query = &asked.query;
        let content_type = content_type(query)?;
        let now = self.now();
        let subscription = self.subscribed(content_type, now)?;
        let window = window(query, now)?;
        let mut blobs = self.shelf.window(content_type, window, now);
        blobs.retain(|blob| !subscription.misses(blob.created));
        let page = Page { content_type, window };
        let offset = match parameter(query, "nextPage") {
            None => 0,
            Some(token) => page.offset(token).filter(|offset| *offset < blobs.len()).ok_or(Refusal::StalePage)?,
        };
        let next = offset + self.page_size();
        // The last entry of a page may come again as the first of the next.
        let first = offset.saturating_sub(usize::from(self.options.delivery.duplicates && offset > 0));
        let listed = blobs.get(first..next.min(blobs.len())).unwrap_or_default();
        let mut entries: Vec<Value> = listed.iter().map(|blob| self.entry(blob, window.0)).collect();
        let is_malformed = offset == 0 && self.faults.has(Fault::MalformedElement);
        if is_malformed {
            entries.push(json!({"contentType": content_type, "contentUri": null}));
        }
        let malformed = is_malformed.then_some(content_type);
        let next_page =
            (next < blobs.len()).then(|| HeaderValue::from_str(&self.next_page(&page, next)).ok()).flatten();
        let tally = Tally::Listing { blobs: listed.len() as u64, malformed };
        Ok(Answer { next_page, tally, ..Answer::of(&Value::Array(entries)) })
    }

    fn page_size(&self) -> usize {
        let is_small = self.faults.has(Fault::SmallPages) || self.faults.has(Fault::StalePage);
        if is_small { 3 } else { self.options.delivery.page_size.max(1) }
    }

    fn entry(&self, blob: &Blob, start: DateTime<Utc>) -> Value {
        let stamp = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Millis, true);
        // Seen at the real service: whoever asks from a blob's own moment on is given another blob, with part of it.
        let is_partial = self.faults.has(Fault::PartialBlob) && blob.created.timestamp() == start.timestamp();
        let id = if is_partial { format!("{}{PARTIAL}", blob.id) } else { blob.id.clone() };
        json!({
            "contentUri": format!("{}/api/v1.0/{}/activity/feed/audit/{id}", self.base, self.options.tenant_id),
            "contentId": id,
            "contentType": blob.content_type,
            "contentCreated": stamp(blob.created),
            "contentExpiration": stamp(blob.expires()),
        })
    }

    fn next_page(&self, page: &Page, offset: usize) -> String {
        let stamp = |at: DateTime<Utc>| at.format("%Y-%m-%dT%H:%M:%S%.f").to_string();
        format!(
            "{}/api/v1.0/{}/activity/feed/subscriptions/content?contentType={}&startTime={}&endTime={}&nextPage={}",
            self.base,
            self.options.tenant_id,
            page.content_type,
            stamp(page.window.0),
            stamp(page.window.1),
            page.token(offset)
        )
    }

    pub(crate) fn fetch_content(&self, asked: &Asked) -> Result<Answer, Refusal> {
        let now = self.now();
        let id = asked.content_id.strip_suffix(PARTIAL).unwrap_or(&asked.content_id);
        let Some((place, blob)) = self.shelf.find(id).filter(|(_, blob)| blob.created <= now) else {
            return Err(unknown_content(&asked.content_id, now));
        };
        if let Some(refusal) = self.lost(blob) {
            return Err(refusal);
        }
        if blob.expires() <= now {
            return Err(Refusal::ContentExpired);
        }
        let text = self.text(blob, id != asked.content_id);
        let bytes = match &text {
            Text::Whole(bytes) => bytes.len() as u64,
            Text::Pieces { length, .. } => *length,
        };
        let tally = match id == asked.content_id {
            true => Tally::Blob { place, records: blob.count(), bytes },
            false => Tally::Nothing,
        };
        Ok(Answer { text, next_page: None, tally })
    }

    /// How a blob is refused for good, if it is.
    pub(crate) fn lost(&self, blob: &Blob) -> Option<Refusal> {
        if let Some(mut dice) = self.faults.marks(Fault::Gone, &blob.id) {
            return Some(if dice.percent(50) { Refusal::ContentUnknown } else { Refusal::NotFound });
        }
        self.faults.marks(Fault::Expired, &blob.id).map(|_| Refusal::ContentExpired)
    }

    /// Whether an element of a blob is no record.
    pub(crate) fn malformed(&self, blob: &Blob) -> Option<Dice> {
        let is_big = self.faults.marks(Fault::BigBlobs, &blob.id).is_some();
        self.faults.marks(Fault::MalformedElement, &blob.id).filter(|_| !is_big)
    }

    fn text(&self, blob: &Blob, is_partial: bool) -> Text {
        let places = match (&blob.content, &self.templates) {
            (Content::Records(places), _) => places.as_slice(),
            (Content::Made(stretch), Some(templates)) => {
                let length = templates.length(stretch);
                let pieces = Arc::clone(templates).pieces(stretch.clone());
                return Text::Pieces { length, pieces: Box::new(pieces) };
            }
            (Content::Made(_), None) => &[],
        };
        let places = if is_partial { places.get(..places.len() / 2).unwrap_or_default() } else { places };
        let mut texts: Vec<&[u8]> =
            places.iter().filter_map(|place| Some(self.world.records.get(*place)?.json.as_bytes())).collect();
        if self.faults.marks(Fault::BigBlobs, &blob.id).is_some() {
            return answers::repeated(&texts.join(&b","[..]), self.options.big_blob_bytes);
        }
        if let Some(mut dice) = self.malformed(blob) {
            let bad = answers::malformed(&mut dice);
            texts.insert(dice.index(texts.len() + 1), bad);
        }
        Text::Whole([&b"["[..], &texts.join(&b","[..]), b"]"].concat().into())
    }
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The subscriptions at the beginning: none, or all, or all and disabled by somebody.
pub(crate) fn subscriptions(options: &Options) -> BTreeMap<&'static str, Subscription> {
    let mut subscription = Subscription::default();
    let is_disabled = options.broken.contains(&Broken::DisabledSubscriptions);
    if is_disabled {
        subscription.end(Standing::Disabled, DateTime::<Utc>::MIN_UTC);
    }
    let there = if options.subscribed || is_disabled { &CONTENT_TYPES[..] } else { &[] };
    there.iter().map(|name| (*name, subscription.clone())).collect()
}

fn shown(content_type: &str, subscription: &Subscription) -> Value {
    let status = if subscription.standing == Standing::Enabled { "enabled" } else { "disabled" };
    json!({"contentType": content_type, "status": status, "webhook": null})
}

/// What a page belongs to. Its token is bound to that: used elsewhere it is stale.
struct Page {
    content_type: &'static str,
    window: (DateTime<Utc>, DateTime<Utc>),
}

impl Page {
    fn token(&self, offset: usize) -> String {
        format!("{offset:012}${:016x}", self.digest(offset))
    }

    fn offset(&self, token: &str) -> Option<usize> {
        let (offset, digest) = token.split_once('$')?;
        let offset = offset.parse().ok()?;
        (u64::from_str_radix(digest, 16).ok()? == self.digest(offset)).then_some(offset)
    }

    fn digest(&self, offset: usize) -> u64 {
        let (start, end) = self.window;
        let text = format!("{} {} {}", self.content_type, start.timestamp_micros(), end.timestamp_micros());
        Dice::new(fingerprint(text.as_bytes()), "page", offset as u64).next()
    }
}

/// Names of parameters are compared without regard to case: clients write them in several ways.
pub(crate) fn parameter<'a>(query: &'a [(String, String)], name: &str) -> Option<&'a str> {
    query.iter().find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

fn content_type(query: &[(String, String)]) -> Result<&'static str, Refusal> {
    let given = parameter(query, "contentType").ok_or(Refusal::MissingParameter("contentType"))?;
    CONTENT_TYPES.into_iter().find(|known| *known == given).ok_or(Refusal::UnknownContentType)
}

fn window(query: &[(String, String)], now: DateTime<Utc>) -> Result<(DateTime<Utc>, DateTime<Utc>), Refusal> {
    let (start, end) = match (parameter(query, "startTime"), parameter(query, "endTime")) {
        // A moment more than now, so that the default window holds what has just appeared.
        (None, None) => (now - WINDOW + TimeDelta::seconds(1), now + TimeDelta::seconds(1)),
        (Some(start), Some(end)) => (
            moment(start).ok_or(Refusal::WrongParameterType("startTime"))?,
            moment(end).ok_or(Refusal::WrongParameterType("endTime"))?,
        ),
        _ => return Err(Refusal::WindowNotAllowed),
    };
    if start >= end {
        return Err(Refusal::WindowReversed);
    }
    if end - start > WINDOW || start < now - REACH {
        return Err(Refusal::WindowNotAllowed);
    }
    Ok((start, end))
}

/// The three documented forms, and the zone suffix that clients send all the same.
fn moment(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim_end_matches('Z');
    let time = |format| NaiveDateTime::parse_from_str(text, format).ok();
    time("%Y-%m-%dT%H:%M:%S%.f")
        .or_else(|| time("%Y-%m-%dT%H:%M"))
        .or_else(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0))
        .map(|naive| naive.and_utc())
}

/// A content id that is none of ours: by its second stamp it has expired, never was, or is no id at all.
fn unknown_content(content_id: &str, now: DateTime<Utc>) -> Refusal {
    let stamp = content_id.split('$').nth(1).and_then(|stamp| stamp.get(..14));
    let created = stamp.and_then(|stamp| NaiveDateTime::parse_from_str(stamp, "%Y%m%d%H%M%S").ok());
    match created.map(|naive| naive.and_utc()) {
        None => Refusal::ContentIdInvalid,
        Some(created) if created < now - TimeDelta::days(7) => Refusal::ContentExpired,
        Some(_) => Refusal::ContentUnknown,
    }
}

fn is_guid(text: &str) -> bool {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && text.chars().all(|letter| letter == '-' || letter.is_ascii_hexdigit())
}
