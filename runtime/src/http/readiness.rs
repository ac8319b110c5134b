//! What each service says of itself. `/readyz` asks nobody: a probe that waits for a stuck service is stuck with it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// Longest reason that is kept; it may hold an error's text.
const REASON_CHARACTERS_MAX: usize = 500;

/// The parts of a process. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<Vec<Entry>>>);

#[derive(Debug)]
struct Entry {
    id: u64,
    state: PartState,
}

/// One part, as `/readyz` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartState {
    pub name: String,
    pub ready: bool,
    /// Why it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Held by a service, which says by it whether it is ready. A service that ends, however it ends, is not: dropping the
/// part says so.
#[derive(Debug)]
pub struct Part {
    id: u64,
    readiness: Readiness,
}

impl Readiness {
    pub fn new() -> Readiness {
        Readiness::default()
    }

    /// A new part. It is not ready until it says so. An ended part of the same name gives way to it.
    pub fn part(&self, name: &str) -> Part {
        let mut entries = self.entries();
        let id = entries.iter().map(|entry| entry.id + 1).max().unwrap_or(0);
        let ended = |entry: &Entry| entry.state.name == name && entry.state.reason.as_deref() == Some(ENDED);
        entries.retain(|entry| !ended(entry));
        let state = PartState { name: name.to_owned(), ready: false, reason: Some("is starting".to_owned()) };
        entries.push(Entry { id, state });
        Part { id, readiness: self.clone() }
    }

    /// Every part, in the order of their coming.
    pub fn parts(&self) -> Vec<PartState> {
        self.entries().iter().map(|entry| entry.state.clone()).collect()
    }

    /// Whether these parts make a process that is ready. A process without parts has not begun.
    pub fn all_ready(parts: &[PartState]) -> bool {
        !parts.is_empty() && parts.iter().all(|part| part.ready)
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const ENDED: &str = "has ended";

impl Part {
    pub fn ready(&self) {
        self.set(None);
    }

    /// Not ready, and why, in words for an operator: no secret, nothing of a record.
    pub fn not_ready(&self, reason: &str) {
        self.set(Some(reason));
    }

    fn set(&self, reason: Option<&str>) {
        let mut entries = self.readiness.entries();
        if let Some(entry) = entries.iter_mut().find(|entry| entry.id == self.id) {
            entry.state.ready = reason.is_none();
            entry.state.reason = reason.map(|reason| reason.chars().take(REASON_CHARACTERS_MAX).collect());
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.set(Some(ENDED));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons(readiness: &Readiness) -> Vec<(String, Option<String>)> {
        readiness.parts().into_iter().map(|part| (part.name, part.reason)).collect()
    }

    #[test]
    fn a_process_is_ready_when_it_has_parts_and_all_are() {
        let readiness = Readiness::new();
        assert!(!Readiness::all_ready(&readiness.parts()));
        let (log, archive) = (readiness.part("log"), readiness.part("archive"));
        log.ready();
        assert_eq!(reasons(&readiness), [("log".into(), None), ("archive".into(), Some("is starting".into()))]);
        assert!(!Readiness::all_ready(&readiness.parts()));
        archive.ready();
        assert!(Readiness::all_ready(&readiness.parts()));
        archive.not_ready("the disk is full");
        assert!(!Readiness::all_ready(&readiness.parts()));
    }

    #[test]
    fn a_service_that_ends_is_not_ready_until_another_takes_its_place() {
        let readiness = Readiness::new();
        let (poll, log) = (readiness.part("poll"), readiness.part("log"));
        poll.ready();
        log.ready();
        drop(poll);
        assert_eq!(reasons(&readiness), [("poll".into(), Some("has ended".into())), ("log".into(), None)]);
        let again = readiness.part("poll");
        again.ready();
        assert_eq!(reasons(&readiness), [("log".into(), None), ("poll".into(), None)]);
    }
}
