//! Asks Microsoft, before anything is started, whether a tenant can be collected at all, and says what mends it if not.
//!
//! # Guarantee
//!
//! Nothing is changed: no subscription is started, nothing is written. Every problem that these requests can show is
//! told at once, each with its cause in plain words and the command that mends it; a check that an earlier failure makes
//! pointless is left out rather than guessed. No secret is in what is told.
//!
//! What it cannot see: whether mailboxes are audited, and the switch `UnifiedAuditLogIngestionEnabled` itself, which only
//! Exchange shows. It tells auditing that is off by how the API answers then, and by a day without any content.
//!
//! `ask` sends and decides nothing; `judge` makes points of answers and is pure; `mend` holds the commands.

mod ask;
mod judge;
mod mend;

use chrono::{DateTime, TimeDelta, Utc};
use runtime::config::Cloud;
use url::Url;

use crate::identity::{Asked, Grant};
use crate::source::management_activity::TenantSource;
use crate::source::management_activity::wire::Api;
use ask::{Client, Reply};

/// What is looked at of each feed: the last day.
const LOOKED_AT: TimeDelta = TimeDelta::hours(24);

/// A tenant to be checked.
#[derive(Clone, Debug)]
pub struct Subject {
    pub source: TenantSource,
    pub cloud: Cloud,
    /// Root of Microsoft Graph; none where the tenant's history is not to be searched.
    pub graph: Option<Url>,
    /// The credential's file, for commands that write a new one.
    pub credential_file: String,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    pub verdict: Verdict,
    /// What was found, safe to print.
    pub found: String,
    /// Why, in plain words; empty where all is well.
    pub cause: String,
    /// Commands and steps, in their order.
    pub mend: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Ok,
    /// It works, and should be looked at.
    Warn,
    /// It does not work.
    Fail,
}

/// Looks at everything. `now` is this machine's clock.
pub async fn check(subject: &Subject, now: DateTime<Utc>) -> Vec<Point> {
    let mut points = vec![judge::credential(subject, now)];
    if points.iter().any(|point| point.verdict == Verdict::Fail) {
        return points;
    }
    let Ok(client) = Client::new() else {
        points.push(judge::no_client());
        return points;
    };
    let api = Api::new(std::sync::Arc::new(subject.source.clone()));
    let reply = token(&client, subject, &subject.source.audience, now).await;
    points.extend(judge::clock(&reply, now));
    let (token, grant) = match judge::token(subject, &reply) {
        Ok(token) => token,
        Err(point) => {
            points.push(point);
            return points;
        }
    };
    points.extend(judge::permissions(subject, grant.as_ref()));
    // Without the permission every further answer says the same once more.
    if grant.is_none_or(|grant| grant.has(judge::READ)) {
        let listed = client.get(api.subscriptions(), &token).await;
        let subscriptions = judge::subscriptions(subject, &listed);
        let (subscriptions, refused) = match subscriptions {
            Ok(subscriptions) => (subscriptions, None),
            Err(point) => (Vec::new(), Some(point)),
        };
        points.extend(refused);
        let mut contents = Vec::new();
        for (content_type, standing) in subscriptions {
            let content = match standing {
                judge::Standing::Enabled => {
                    Some(client.get(api.list(&content_type, now - LOOKED_AT, now), &token).await)
                }
                _ => None,
            };
            contents.push((content_type, standing, content));
        }
        points.extend(judge::feeds(subject, &contents));
    }
    points.extend(graph(&client, subject, now).await);
    points
}

async fn token(client: &Client, subject: &Subject, audience: &str, now: DateTime<Utc>) -> Reply {
    let source = &subject.source;
    let endpoint = Api::new(std::sync::Arc::new(source.clone())).token();
    let asked = Asked { client_id: &source.client_id, endpoint: &endpoint, audience };
    match source.credential.form(asked, now) {
        Ok(form) => client.post(endpoint, &form).await,
        Err(error) => Reply::Unmade(error.to_string()),
    }
}

/// What the application may do beyond the feeds: search older records, and what it should not be able to do.
async fn graph(client: &Client, subject: &Subject, now: DateTime<Utc>) -> Vec<Point> {
    let (Some(_), true) = (&subject.graph, subject.cloud.has_audit_search()) else { return Vec::new() };
    let reply = token(client, subject, subject.cloud.hosts().graph, now).await;
    let grant = judge::token(subject, &reply).ok().and_then(|(_, grant)| grant);
    judge::graph(subject, grant.as_ref())
}

impl Point {
    fn ok(found: impl Into<String>) -> Point {
        Point { verdict: Verdict::Ok, found: found.into(), cause: String::new(), mend: Vec::new() }
    }

    fn warn(found: impl Into<String>, cause: impl Into<String>, mend: Vec<String>) -> Point {
        Point { verdict: Verdict::Warn, found: found.into(), cause: cause.into(), mend }
    }

    fn fail(found: impl Into<String>, cause: impl Into<String>, mend: Vec<String>) -> Point {
        Point { verdict: Verdict::Fail, found: found.into(), cause: cause.into(), mend }
    }

    /// As people read it.
    pub fn lines(&self) -> String {
        let label = match self.verdict {
            Verdict::Ok => "ok   ",
            Verdict::Warn => "warn ",
            Verdict::Fail => "FAIL ",
        };
        let mut text = format!("{label} {}\n", self.found);
        if !self.cause.is_empty() {
            text.push_str(&format!("      why:  {}\n", self.cause));
        }
        for (number, step) in self.mend.iter().enumerate() {
            let head = if number == 0 { "mend:" } else { "     " };
            text.push_str(&format!("      {head} {step}\n"));
        }
        text
    }
}

impl Grant {
    /// Permissions held that are not among these.
    fn beyond<'a>(&'a self, needed: &'a [&str]) -> Vec<&'a str> {
        self.roles.iter().map(String::as_str).filter(|role| !needed.contains(role)).collect()
    }
}
