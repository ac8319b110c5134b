//! What the poller is told: which tenant, by which door, and at what pace.

use chrono::TimeDelta;
use runtime::config::Secret;
use schemas::tenant::Tenant;
use url::Url;

/// The feeds that the API has, in Microsoft's spelling.
pub const CONTENT_TYPES: [&str; 5] =
    ["Audit.AzureActiveDirectory", "Audit.Exchange", "Audit.SharePoint", "Audit.General", "DLP.All"];

/// One tenant of one cloud, and the application that may read it.
#[derive(Clone, Debug)]
pub struct TenantSource {
    pub tenant: Tenant,
    /// The tenant's GUID.
    pub tenant_id: String,
    /// The application's GUID.
    pub client_id: String,
    pub client_secret: Secret,
    pub content_types: Vec<String>,
    /// `PublisherIdentifier`: the GUID of the tenant whose quota the requests count against; the tenant's own if in doubt.
    pub publisher_id: String,
    /// Root of the token endpoint, such as `https://login.microsoftonline.com`.
    pub login: Url,
    /// Root of the API, such as `https://manage.office.com`. Tokens are sent nowhere else.
    pub management: Url,
    /// What the token is for: the API's root in its cloud. Differs from `management` behind a proxy.
    pub audience: String,
}

/// Why a source cannot be polled. The operator's to mend.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SettingsError {
    #[error("{name} of tenant {tenant} is not a GUID")]
    NotAGuid { tenant: Tenant, name: &'static str },
    #[error("the {name} endpoint of tenant {tenant} must be an http or https address without a user name")]
    Endpoint { tenant: Tenant, name: &'static str },
    #[error("tenant {tenant} has no content types")]
    NoContentTypes { tenant: Tenant },
    /// Letters, digits and dots, as all of Microsoft's have.
    #[error("tenant {tenant} has a content type that cannot be one")]
    ContentType { tenant: Tenant },
    #[error("the pace is impossible: the overlap must be shorter than the window, and the window at most 24 hours")]
    Pace,
    #[error("the HTTP client cannot be made")]
    Client,
}

impl TenantSource {
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        let tenant = || self.tenant.clone();
        for (name, text) in
            [("tenant_id", &self.tenant_id), ("client_id", &self.client_id), ("publisher_id", &self.publisher_id)]
        {
            if !is_guid(text) {
                return Err(SettingsError::NotAGuid { tenant: tenant(), name });
            }
        }
        for (name, url) in [("login", &self.login), ("management", &self.management)] {
            let is_plain = url.username().is_empty() && url.password().is_none() && url.has_host();
            if !is_plain || !matches!(url.scheme(), "http" | "https") {
                return Err(SettingsError::Endpoint { tenant: tenant(), name });
            }
        }
        if self.content_types.is_empty() {
            return Err(SettingsError::NoContentTypes { tenant: tenant() });
        }
        let is_plain = |name: &String| {
            !name.is_empty() && name.len() <= 64 && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'.')
        };
        if !self.content_types.iter().all(is_plain) {
            return Err(SettingsError::ContentType { tenant: tenant() });
        }
        Ok(())
    }
}

/// The API takes the tenant's GUID only, not its domain.
fn is_guid(text: &str) -> bool {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && text.bytes().all(|c| c == b'-' || c.is_ascii_hexdigit())
}

/// All intervals of the poller. The defaults are for the real service; tests and the demo run faster.
#[derive(Clone, Debug)]
pub struct Pace {
    /// From one listing of a feed to the next.
    pub poll_interval: TimeDelta,
    /// How much of what has been listed is listed again. Nothing says that a blob cannot appear behind the newest one.
    pub overlap: TimeDelta,
    /// Longest stretch asked for at once; the service refuses more than 24 hours.
    pub window: TimeDelta,
    /// How far back the service lets us ask. Seven days, less what a slow call may take.
    pub reach: TimeDelta,
    /// How far the mark stays behind the listing, for blobs that are listed a little after they became available.
    pub settle: TimeDelta,
    /// A mark is sent at the latest every so much of progress; more often only at the end of a backlog.
    pub mark_step: TimeDelta,
    /// `coverage` gets a row for every so much of complete stretch.
    pub coverage_step: TimeDelta,
    /// First wait after trouble; it doubles with each further failure, and grows by up to a half at random.
    pub backoff: TimeDelta,
    /// Longest wait after trouble.
    pub backoff_max: TimeDelta,
    /// Longest wait that `Retry-After` is believed.
    pub retry_after_max: TimeDelta,
    /// How long a tenant or feed whose configuration is refused is left alone: somebody has to mend it first.
    pub config_retry: TimeDelta,
    /// From one look at the subscriptions to the next.
    pub subscriptions_interval: TimeDelta,
    /// Least time between two requests to start one subscription. Microsoft asks for 15 minutes.
    pub start_interval: TimeDelta,
    /// How long a new subscription may take to its first blob. Microsoft says up to 12 hours.
    pub warm_up: TimeDelta,
    /// How long the mark waits for a blob that cannot be fetched, before it counts as a gap. Fetching goes on.
    pub gap_after: TimeDelta,
    /// A token is renewed so long before it ends.
    pub token_margin: TimeDelta,
    /// From one look for rows of the ledger that are too old to the next.
    pub prune_interval: TimeDelta,
    /// Requests in flight at most.
    pub concurrency_max: usize,
    /// Requests a minute at most. Half of the least quota that Microsoft grants a tenant.
    pub requests_per_minute: u32,
    /// From one reconciliation to the next: everything that the service still lists is listed once more, for what was
    /// listed later than the overlap reaches back.
    pub sweep_interval: TimeDelta,
    /// How long a connection may take to be made.
    pub connect_timeout: TimeDelta,
    /// From one piece of an answer to the next, the first one included. Listings of busy tenants take half a minute.
    pub idle_timeout: TimeDelta,
    /// For a whole answer that is not a blob.
    pub answer_timeout: TimeDelta,
    /// For a whole blob.
    pub blob_timeout: TimeDelta,
    /// How long a lease is asked for; it is renewed three times as often.
    pub lease_hold: TimeDelta,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            poll_interval: TimeDelta::seconds(60),
            overlap: TimeDelta::hours(2),
            window: TimeDelta::hours(24),
            reach: TimeDelta::minutes(167 * 60 + 55),
            settle: TimeDelta::minutes(5),
            mark_step: TimeDelta::minutes(1),
            coverage_step: TimeDelta::minutes(5),
            backoff: TimeDelta::seconds(30),
            backoff_max: TimeDelta::minutes(15),
            retry_after_max: TimeDelta::hours(1),
            config_retry: TimeDelta::minutes(15),
            subscriptions_interval: TimeDelta::minutes(10),
            start_interval: TimeDelta::minutes(15),
            warm_up: TimeDelta::hours(12),
            gap_after: TimeDelta::hours(6),
            token_margin: TimeDelta::minutes(5),
            prune_interval: TimeDelta::minutes(10),
            concurrency_max: 8,
            requests_per_minute: 1_000,
            sweep_interval: TimeDelta::hours(1),
            connect_timeout: TimeDelta::seconds(10),
            idle_timeout: TimeDelta::seconds(90),
            answer_timeout: TimeDelta::minutes(3),
            blob_timeout: TimeDelta::minutes(30),
            lease_hold: TimeDelta::seconds(30),
        }
    }
}

impl Pace {
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        let possible = self.overlap < self.window
            && self.window <= TimeDelta::hours(24)
            && self.reach > self.window
            && self.overlap >= TimeDelta::zero()
            && self.concurrency_max > 0
            && self.requests_per_minute > 0;
        if possible { Ok(()) } else { Err(SettingsError::Pace) }
    }
}
