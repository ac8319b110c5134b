//! What an answer means for whoever sets up a tenant. Pure.

use chrono::{DateTime, TimeDelta, Utc};
use runtime::config::Secret;

use super::ask::Reply;
use super::{Point, Subject, mend};
use crate::identity::{GRAPH_APP_ID, Grant, MANAGEMENT_APP_ID, aadsts};
use crate::source::management_activity::code::{Class, shown, understand};
use crate::source::management_activity::wire::{read_listing, read_subscriptions, read_token, read_token_error};

pub const READ: &str = "ActivityFeed.Read";
const READ_DLP: &str = "ActivityFeed.ReadDlp";
const SEARCH: &str = "AuditLogsQuery.Read.All";
const DLP: &str = "DLP.All";

/// A certificate that ends sooner is told while there is time to change it.
const CERTIFICATE_WARNING: TimeDelta = TimeDelta::days(30);

/// Clocks further apart make windows wrong and, soon, assertions invalid.
const CLOCK_APART: TimeDelta = TimeDelta::minutes(5);

/// How a subscription stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Enabled,
    Disabled,
    Absent,
}

/// Whether the credential can be shown at all.
pub fn credential(subject: &Subject, now: DateTime<Utc>) -> Point {
    let credential = &subject.source.credential;
    let kind = credential.kind();
    let certificate = match credential.check(now).and_then(|()| credential.certificate()) {
        Err(error) => {
            let mend = mend::credential_file(subject, kind);
            return Point::fail(format!("the {kind} cannot be used"), shown(&error.to_string()), mend);
        }
        Ok(None) => return Point::ok(format!("{kind} in {}", shown(&subject.credential_file))),
        Ok(Some(certificate)) => certificate,
    };
    let (from, until) = (certificate.not_before(), certificate.not_after());
    let name = format!("certificate {}", &certificate.thumbprint_hex()[..16]);
    let day = until.format("%Y-%m-%d");
    if now < from {
        let cause = format!("it is valid only from {} on; is the clock right?", from.format("%Y-%m-%d"));
        return Point::fail(format!("{name} is not valid yet"), cause, mend::clock());
    }
    if until <= now {
        let cause = "Microsoft accepts no assertion of an expired certificate";
        return Point::fail(format!("{name} expired on {day}"), cause, mend::new_certificate(subject));
    }
    if until - now <= CERTIFICATE_WARNING {
        let days = (until - now).num_days();
        let cause = format!("after {day} nothing can be collected; upload its successor while this one still works");
        return Point::warn(format!("{name} expires in {days} days"), cause, mend::new_certificate(subject));
    }
    Point::ok(format!("{name}, valid until {day}"))
}

pub fn no_client() -> Point {
    Point::fail(
        "the HTTP client cannot be made",
        "the system's certificates cannot be read",
        mend::system_certificates(),
    )
}

/// Whether the clocks agree.
pub fn clock(reply: &Reply, now: DateTime<Utc>) -> Option<Point> {
    let Reply::Answer { date: Some(date), .. } = reply else { return None };
    let apart = *date - now;
    if apart.abs() < CLOCK_APART {
        return Some(Point::ok("clock: agrees with Microsoft's"));
    }
    let (minutes, side) = (apart.num_minutes().abs(), if apart > TimeDelta::zero() { "slow" } else { "fast" });
    let cause = "listings would ask for the wrong time, and assertions and tokens would not be valid";
    Some(Point::fail(format!("clock: this machine's is {minutes} minutes {side}"), cause, mend::clock()))
}

/// The token, and what it says of itself.
pub fn token(subject: &Subject, reply: &Reply) -> Result<(Secret, Option<Grant>), Point> {
    let host = subject.source.login.host_str().unwrap_or_default().to_owned();
    let (status, body) = match reply {
        Reply::Answer { status, body, .. } => (*status, body),
        Reply::Nothing(why) => {
            let url = subject.source.login.as_str();
            return Err(Point::fail(format!("no answer from {host}"), *why, mend::connection(url)));
        }
        Reply::Unmade(why) => return Err(Point::fail("no token could be asked for", shown(why), Vec::new())),
    };
    if status == 200
        && let Some((token, _)) = read_token(body)
    {
        let grant = Grant::read(&token);
        return Ok((token, grant));
    }
    let (refusal, retry) = read_token_error(status, body);
    let numbers = refusal_numbers(body);
    let found = match numbers.first() {
        Some(number) => format!("no token: AADSTS{number}"),
        None => format!("no token: HTTP {status} from {host}"),
    };
    let mend = match aadsts::find(&numbers) {
        Some(known) => mend::aadsts(subject, known.mend),
        None if retry => vec!["wait, and check again".to_owned()],
        None => vec![format!("https://login.microsoftonline.com/error explains the number: {}", refusal.message)],
    };
    Err(Point::fail(found, refusal.meaning, mend))
}

fn refusal_numbers(body: &[u8]) -> Vec<i64> {
    #[derive(serde::Deserialize)]
    struct Numbers {
        #[serde(default)]
        error_codes: Vec<i64>,
    }
    serde_json::from_slice::<Numbers>(body).map(|numbers| numbers.error_codes).unwrap_or_default()
}

/// Too few, and too many.
pub fn permissions(subject: &Subject, grant: Option<&Grant>) -> Vec<Point> {
    let Some(grant) = grant else {
        return vec![Point::ok("token: cannot be read, so the API will have to say what it allows")];
    };
    let mut points = Vec::new();
    if !grant.tid.is_empty() && !grant.tid.eq_ignore_ascii_case(&subject.source.tenant_id) {
        let cause = "the application was signed in to another tenant than the one that is configured";
        points.push(Point::fail("token: of another tenant", cause, mend::aadsts(subject, aadsts::Mend::TenantId)));
    }
    let reads_dlp = subject.source.content_types.iter().any(|content_type| content_type == DLP);
    let needed: &[&str] = if reads_dlp { &[READ, READ_DLP] } else { &[READ] };
    let missing: Vec<&str> = needed.iter().copied().filter(|role| !grant.has(role)).collect();
    for role in &missing {
        let cause = match grant.roles.is_empty() {
            true => "no administrator has consented, or only to delegated permissions, which a service does not use",
            false => "it was not granted as an application permission",
        };
        let mend = mend::grant(subject, MANAGEMENT_APP_ID, role);
        points.push(Point::fail(format!("permission {role} is missing"), cause, mend));
    }
    if missing.is_empty() {
        points.push(Point::ok(format!("permissions: {}", needed.join(", "))));
    }
    points.extend(too_many(subject, MANAGEMENT_APP_ID, &grant.beyond(needed)));
    points
}

fn too_many(subject: &Subject, api: &str, beyond: &[&str]) -> Option<Point> {
    if beyond.is_empty() {
        return None;
    }
    let names: Vec<String> = beyond.iter().map(|role| shown(role)).collect();
    let cause = "harrier does not use them, and whoever steals its credential could";
    let mend = mend::withdraw(subject, api, beyond);
    Some(Point::warn(format!("more permissions than needed: {}", names.join(", ")), cause, mend))
}

/// How the subscription of each configured feed stands.
pub fn subscriptions(subject: &Subject, reply: &Reply) -> Result<Vec<(String, Standing)>, Point> {
    let list = match reply {
        Reply::Answer { status: 200, body, .. } => read_subscriptions(body),
        _ => None,
    };
    let Some(list) = list else { return Err(refused(subject, "the list of subscriptions", reply)) };
    let standing = |content_type: &String| {
        let found = list.iter().find(|found| found.content_type.eq_ignore_ascii_case(content_type));
        let standing = match found.map(|found| found.is_enabled()) {
            Some(true) => Standing::Enabled,
            Some(false) => Standing::Disabled,
            None => Standing::Absent,
        };
        (content_type.clone(), standing)
    };
    Ok(subject.source.content_types.iter().map(standing).collect())
}

/// What the feeds hold.
pub fn feeds(subject: &Subject, feeds: &[(String, Standing, Option<Reply>)]) -> Vec<Point> {
    let mut points = Vec::new();
    let (mut enabled, mut blobs) = (0, 0);
    for (content_type, standing, reply) in feeds {
        let point = match (standing, reply) {
            (Standing::Absent, _) => Point::ok(format!("{content_type}: no subscription yet; `harrier run` starts it")),
            (Standing::Disabled, _) => {
                let cause = "somebody has disabled the subscription, perhaps to hide something, and what becomes \
                             available meanwhile can never be had: find out who, then start it";
                let mend = mend::start(subject, content_type);
                Point::fail(format!("{content_type}: the subscription is disabled"), cause, mend)
            }
            (Standing::Enabled, Some(Reply::Answer { status: 200, body, .. })) => match read_listing(body) {
                Some(entries) => {
                    enabled += 1;
                    blobs += entries.len();
                    let many = if entries.is_empty() { "nothing".to_owned() } else { "content".to_owned() };
                    Point::ok(format!("{content_type}: subscription enabled, {many} within 24 hours"))
                }
                None => Point::fail(format!("{content_type}: the listing cannot be read"), "", Vec::new()),
            },
            (Standing::Enabled, Some(reply)) => refused(subject, content_type, reply),
            (Standing::Enabled, None) => continue,
        };
        points.push(point);
    }
    if enabled > 0 && enabled == feeds.len() && blobs == 0 {
        let cause = "either the subscriptions are younger than twelve hours, or the tenant records nothing";
        points.push(Point::warn("no feed had any content within 24 hours", cause, mend::auditing()));
    }
    points
}

fn refused(subject: &Subject, what: &str, reply: &Reply) -> Point {
    let (status, body) = match reply {
        Reply::Answer { status, body, .. } => (*status, body),
        Reply::Nothing(why) => {
            let url = subject.source.management.as_str();
            return Point::fail(format!("{what}: no answer"), *why, mend::connection(url));
        }
        Reply::Unmade(why) => return Point::fail(what, shown(why), Vec::new()),
    };
    let refusal = understand(status, body);
    if refusal.code == "tenant_without_audit_log" {
        let cause = "the service says that it knows no audit log of this tenant: auditing is off, or was turned on less \
                     than an hour ago";
        return Point::fail("auditing is off", cause, mend::auditing());
    }
    let code = if refusal.code.is_empty() { format!("HTTP {status}") } else { refusal.code.clone() };
    let mend = match (refusal.class, refusal.code.as_str()) {
        (_, "AF10001") => mend::grant(subject, MANAGEMENT_APP_ID, READ),
        (_, "AF20010" | "AF20011" | "AF20013") => mend::aadsts(subject, aadsts::Mend::TenantId),
        (Class::Token, _) => mend::aadsts(subject, aadsts::Mend::Cloud),
        (Class::Disabled, _) => mend::start(subject, what),
        (Class::Wait | Class::Throttled, _) => vec!["wait, and check again".to_owned()],
        _ => Vec::new(),
    };
    let cause = if refusal.meaning.is_empty() { refusal.message.as_str() } else { refusal.meaning };
    Point::fail(format!("{what}: {code}"), cause, mend)
}

/// What the application may ask of Graph.
pub fn graph(subject: &Subject, grant: Option<&Grant>) -> Vec<Point> {
    let Some(grant) = grant else { return Vec::new() };
    let searches: Vec<&str> =
        grant.roles.iter().map(String::as_str).filter(|role| role.starts_with("AuditLogsQuery")).collect();
    let mut points = vec![match searches.contains(&SEARCH) {
        true => Point::ok(format!("beyond seven days: {SEARCH}, `harrier backfill` can search older records")),
        false => {
            Point::ok(format!("beyond seven days: not asked for; `harrier backfill` would need {SEARCH} of Graph"))
        }
    }];
    points.extend(too_many(subject, GRAPH_APP_ID, &grant.beyond(&searches)));
    points
}
