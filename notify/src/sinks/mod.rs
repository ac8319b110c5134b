//! The kinds of sink: one file each, one line in [`KINDS`].

mod file;
mod stdout;
mod webhook;

use std::sync::Arc;

use async_trait::async_trait;
use runtime::clock::Clock;

use crate::entry::Failure;
use crate::settings::{Sink, SinkError, SinkErrorKind};

/// One message, ready to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outgoing {
    /// `webhook-id`: the same on every attempt.
    pub id: String,
    /// One line of JSON.
    pub body: Vec<u8>,
}

/// Takes messages somewhere else.
#[async_trait]
pub(crate) trait Deliver: Send + Sync {
    /// Delivers a batch; one answer for each message, in order. It must be safe to drop at any moment.
    async fn deliver(&self, batch: &[Outgoing]) -> Vec<Result<(), Failure>>;
}

/// Makes a sink of a kind from its settings.
pub(crate) type Build = fn(&Sink, &Clock) -> Result<Arc<dyn Deliver>, SinkErrorKind>;

/// A kind of sink.
pub(crate) struct Kind {
    pub name: &'static str,
    pub build: Build,
    /// Most messages delivered together.
    pub batch_max: usize,
    /// Most batches under way.
    pub concurrency_max: usize,
    /// Whether the storm brake holds it: where people or others' systems are at the other end.
    pub paced: bool,
}

const KINDS: [&Kind; 3] = [&webhook::KIND, &file::KIND, &stdout::KIND];

/// The names of the kinds of sink.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|kind| kind.name)
}

/// A sink, ready to deliver.
pub(crate) struct Built {
    pub kind: &'static Kind,
    pub deliver: Arc<dyn Deliver>,
}

/// Builds a sink from its settings, touching neither network nor disk.
pub(crate) fn build(sink: &Sink, clock: &Clock) -> Result<Built, SinkError> {
    let failed = |kind| SinkError { name: sink.name.clone(), kind };
    sink.check_name().map_err(failed)?;
    let kind = KINDS.iter().find(|kind| kind.name == sink.kind).ok_or_else(|| {
        let known = kinds().collect::<Vec<_>>().join(", ");
        failed(SinkErrorKind::Unknown { known })
    })?;
    Ok(Built { kind, deliver: (kind.build)(sink, clock).map_err(failed)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_is_in_the_list() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/sinks");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter_map(|name| name.strip_suffix(".rs").map(str::to_owned))
            .filter(|name| name != "mod")
            .collect();
        let mut listed: Vec<&str> = kinds().collect();
        files.sort();
        listed.sort();
        assert_eq!(files, listed);
    }

    #[test]
    fn settings_that_cannot_work_are_told_before_anything_runs() {
        let (clock, _) = Clock::manual(crate::samples::start());
        let error = |sink: &Sink| build(sink, &clock).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error(&Sink::new("a/b", "stdout")).contains("a name has"));
        assert!(error(&Sink::new("soc", "pigeon")).contains("webhook, file, stdout"));
        assert!(error(&Sink::new("soc", "webhook")).contains("url is missing"));
        assert!(error(&Sink::new("soc", "file")).contains("path is missing"));
        let mut sink = Sink::new("soc", "webhook");
        for (url, part) in [
            ("http://hooks.example/token", "must be https"),
            ("https://127.0.0.1/token", "loopback"),
            ("https://[::ffff:10.0.0.1]/token", "loopback"),
            ("https://169.254.169.254/token", "loopback"),
        ] {
            sink.url = Some(url.parse().unwrap());
            let error = error(&sink);
            assert!(error.contains(part) && !error.contains("token"), "{error}");
            assert!(!format!("{sink:?}").contains("token"));
        }
        sink.allow_private_addresses = true;
        assert_eq!(error(&sink), "");
    }
}
