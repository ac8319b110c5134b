//! Records as a source would have put them into the log, for measurements of what comes behind the sources.

use chrono::{DateTime, Utc};
use runtime::log::{Output, To, Topic};
use schemas::Event;
use schemas::envelope::{Envelope, Origin, Received};
use schemas::json::key_hash;
use schemas::tenant::Tenant;

/// A line of an imported file. It was received in 1970, so that rounds have equal bytes.
pub fn imported(tenant: &Tenant, bytes: Vec<u8>) -> Received {
    received(tenant, "import", "", DateTime::UNIX_EPOCH, bytes)
}

/// A record that a feed has brought just now.
pub fn polled(tenant: &Tenant, content_type: &str, bytes: Vec<u8>) -> Received {
    received(tenant, "management_activity", content_type, Utc::now(), bytes)
}

fn received(tenant: &Tenant, source: &str, content_type: &str, received: DateTime<Utc>, bytes: Vec<u8>) -> Received {
    let (tenant, source, content_type) = (tenant.clone(), source.to_owned(), content_type.to_owned());
    let origin = Origin { tenant, source, content_type, blob_id: "bench".to_owned(), received, notify: true };
    Received { origin, bytes }
}

/// Its message, in the partition that its id belongs to.
pub fn output(received: Received) -> anyhow::Result<Output> {
    let id = Event::read_head(&received)?.id;
    let to = To::Key(key_hash(&[received.origin.tenant.as_str(), &id]));
    Ok(Output { topic: Topic::Records, to, value: Envelope::Record(received).encode() })
}
