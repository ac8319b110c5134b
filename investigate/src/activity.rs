//! What the archive holds of a tenant in a stretch of time: operations, feeds, mailboxes.

use archive::sql::Sql;
use chrono::{DateTime, Utc};
use schemas::tenant::Tenant;
use serde::Deserialize;

use crate::error::Error;
use crate::rows;

/// The type of `event_time`, which SQL's own TIMESTAMP is not.
const TIME: &str = "Timestamp(Microsecond, Some(\"UTC\"))";

/// A tenant and the times of its first and last record, as they say.
#[derive(Deserialize)]
pub struct Extent {
    pub tenant: Tenant,
    pub first: DateTime<Utc>,
    pub last: DateTime<Utc>,
}

/// How many records there are of a workload's operation.
#[derive(Deserialize)]
pub struct Operation {
    #[serde(default)]
    pub workload: String,
    #[serde(default)]
    pub operation: String,
    pub records: u64,
}

/// What is known of a feed: whether anything was collected, and the last that is wrong with it.
#[derive(Deserialize)]
pub struct Feed {
    pub feed: String,
    pub is_collected: bool,
    pub trouble: Option<String>,
}

/// A mailbox with records, and how many of them say what was read in it.
#[derive(Deserialize)]
pub struct Mailbox {
    pub mailbox_owner: String,
    pub accessed: u64,
}

/// All that the archive holds of one tenant between two moments.
pub struct Activity {
    pub operations: Vec<Operation>,
    pub feeds: Vec<Feed>,
    pub mailboxes: Vec<Mailbox>,
}

/// Every tenant that has records, by name.
pub async fn extents(sql: &Sql) -> Result<Vec<Extent>, Error> {
    let text = "SELECT tenant, min(event_time) AS first, max(event_time) AS last FROM events GROUP BY 1 ORDER BY 1";
    rows::query(sql, text, &[]).await
}

/// What there is of a tenant between two moments, both included.
pub async fn of(sql: &Sql, tenant: &Tenant, from: DateTime<Utc>, to: DateTime<Utc>) -> Result<Activity, Error> {
    let (from, to) = (from.to_rfc3339(), to.to_rfc3339());
    let parameters = [("tenant", tenant.as_str()), ("from", &from), ("to", &to)];
    let time = |name: &str| format!("arrow_cast(${name}, '{TIME}')");
    let within = format!("tenant = $tenant AND event_time >= {} AND event_time <= {}", time("from"), time("to"));
    let operations =
        format!("SELECT workload, operation, count(*) AS records FROM events WHERE {within} GROUP BY 1, 2");
    let feeds = format!(
        "SELECT feed, bool_or(state = 'complete') AS is_collected, \
         last_value(reason ORDER BY window_start) FILTER (WHERE state <> 'complete') AS trouble FROM coverage \
         WHERE tenant = $tenant AND feed NOT LIKE 'import:%' AND window_start <= {} AND window_end >= {} GROUP BY 1",
        time("to"),
        time("from")
    );
    // Records of mailbox auditing: ExchangeItem, ExchangeItemGroup, ExchangeItemAggregated. Whoever uses a mailbox reads
    // in it: one without MailItemsAccessed is not audited, or its licence does not include that.
    let mailboxes = format!(
        "SELECT mailbox_owner, sum(CASE WHEN operation = 'MailItemsAccessed' THEN 1 ELSE 0 END) AS accessed FROM events \
         WHERE {within} AND record_type IN (2, 3, 50) AND mailbox_owner IS NOT NULL GROUP BY 1 ORDER BY 1"
    );
    Ok(Activity {
        operations: rows::query(sql, &operations, &parameters).await?,
        feeds: rows::query(sql, &feeds, &parameters).await?,
        mailboxes: rows::query(sql, &mailboxes, &parameters).await?,
    })
}
