//! The sign of life: one message into every partition of `records`, which each stage passes on. If it does not arrive
//! at the end, something between here and there stands still, however quiet the tenants are.

use std::sync::Arc;
use std::time::Duration;

use runtime::clock::Clock;
use runtime::log::{Log, LogError, Output, To, Topic, Txn};
use runtime::metrics::Metrics;
use runtime::shutdown::Shutdown;
use schemas::envelope::{Envelope, Heartbeat};

/// How often the real thing beats.
pub const INTERVAL: Duration = Duration::from_secs(60);

/// Beats until the end is asked for. Once a process, not once a tenant; several processes only make more beats.
pub async fn beat(
    log: Arc<dyn Log>,
    clock: Clock,
    interval: Duration,
    shutdown: Shutdown,
    metrics: Arc<Metrics>,
) -> Result<(), LogError> {
    loop {
        let sent = clock.now();
        let value = Envelope::Heartbeat(Heartbeat { sent }).encode();
        let output = Output { topic: Topic::Records, to: To::Everywhere, value };
        match log.commit(Txn { outputs: vec![output], ..Txn::default() }).await {
            Ok(_) => metrics.own.heartbeat.set(["ingest"], sent),
            // A beat that is left out is what tells of the trouble.
            Err(error) if error.retryable() || error.must_reload() => {
                tracing::warn!(event = "heartbeat_failed", error = %error)
            }
            Err(error) => return Err(error),
        }
        if !shutdown.sleep(interval).await {
            return Ok(());
        }
    }
}
