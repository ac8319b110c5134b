//! Stopping: one signal that interrupts every wait, so that a service ends between two steps and never within one.

use std::time::Duration;

use tokio::sync::watch;

/// Held by every service: tells it to finish its step and end.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

/// Held by whoever may stop the services. Dropping it stops them too.
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

/// A pair of the two.
pub fn channel() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (Trigger(sender), Shutdown(receiver))
}

impl Trigger {
    /// Asks every service to end.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Whether the end has been asked for.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Returns when the end is asked for.
    pub async fn requested(&self) {
        let mut receiver = self.0.clone();
        // An error means that the trigger is gone, which asks for the end as well.
        let _ = receiver.wait_for(|stopped| *stopped).await;
    }

    /// Waits, unless the end is asked for. True if the time has passed, false if it is time to end.
    pub async fn sleep(&self, duration: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(duration) => true,
            () = self.requested() => false,
        }
    }

    /// Lets a future go on unless the end is asked for first; `None` if it is.
    pub async fn unless<F: Future>(&self, work: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            () = self.requested() => None,
            output = work => Some(output),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_wait_ends_when_the_end_is_asked_for() {
        let (trigger, shutdown) = channel();
        assert!(!shutdown.is_requested());
        let waiting = shutdown.clone();
        let waiter = tokio::spawn(async move { waiting.sleep(Duration::from_secs(3600)).await });
        trigger.stop();
        assert!(!waiter.await.unwrap());
        assert!(shutdown.is_requested());
        assert_eq!(shutdown.unless(std::future::pending::<()>()).await, None);
    }

    #[tokio::test]
    async fn a_lost_trigger_stops_too() {
        let (trigger, shutdown) = channel();
        drop(trigger);
        shutdown.requested().await;
        assert!(shutdown.is_requested());
    }
}
