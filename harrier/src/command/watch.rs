//! `harrier watch`: what an intruder used, to be known again.

use std::io::Write;

use schemas::finding::Finding;
use schemas::text::escape_controls;

use crate::cli::{Global, Watch, WatchAction, WatchKind};
use crate::exit::Outcome;
use crate::services;
use crate::show::shell_quoted;
use crate::watch::WatchList;

pub async fn run(global: &Global, options: &Watch) -> anyhow::Result<Outcome> {
    let config = services::config(global)?;
    let path = services::watch_file(&config);
    let mut out = std::io::stdout().lock();
    match &options.action {
        WatchAction::Add { kind, values, finding, reason } => {
            let wanted = match (kind, finding) {
                (Some(kind), _) => values.iter().map(|value| (*kind, value.clone())).collect(),
                (None, Some(id)) => used_in(&investigate::findings::find(&super::archive(global).await?, id).await?),
                (None, None) => Vec::new(),
            };
            let now = runtime::clock::Clock::system().now();
            let is_new = WatchList::change(&path, |list| {
                wanted.iter().map(|(kind, value)| list.add(*kind, value, reason, now)).collect::<Result<Vec<_>, _>>()
            })?;
            for ((kind, value), is_new) in wanted.iter().zip(is_new) {
                let state = if is_new { "watched from now on" } else { "was on the list" };
                writeln!(out, "{}  {}  {state}", kind.name(), escape_controls(value))?;
            }
            if wanted.is_empty() {
                eprintln!("the finding names no address, session or forwarding target");
            } else {
                look_back(&wanted);
            }
        }
        WatchAction::List => {
            let list = WatchList::read(&path)?;
            for one in &list.watched {
                let (added, kind) = (one.added.format("%F %T"), one.kind.name());
                writeln!(out, "{added}  {kind:11}  {}  {}", escape_controls(&one.value), escape_controls(&one.reason))?;
            }
            if list.watched.is_empty() {
                eprintln!("nothing is watched: {}", path.display());
            }
        }
        WatchAction::Remove { kind, values } => {
            WatchList::change(&path, |list| values.iter().try_for_each(|value| list.remove(*kind, value)))?;
            for value in values {
                writeln!(out, "{}  {}  no longer watched", kind.name(), escape_controls(value))?;
            }
        }
    }
    Ok(Outcome::Done)
}

/// What an intruder used, as far as the finding tells it. Its people are those it happened to, and its applications are
/// mostly everybody's: who wants one watched names it.
fn used_in(finding: &Finding) -> Vec<(WatchKind, String)> {
    let of_kind = |wanted: &'static str, kind| {
        let entities = finding.entities.iter().filter(move |entity| entity.kind == wanted);
        entities.map(move |entity| (kind, entity.id.clone()))
    };
    let targets = finding.fields.get("forward_targets").into_iter().flatten();
    let targets = targets.map(|target| (WatchKind::Target, target.clone()));
    of_kind("ip", WatchKind::Address).chain(of_kind("session", WatchKind::Session)).chain(targets).collect()
}

/// A list looks forward: what there was before is a question to the archive.
fn look_back(wanted: &[(WatchKind, String)]) {
    for (_, value) in wanted.iter().filter(|(kind, _)| matches!(kind, WatchKind::Address | WatchKind::Session)) {
        eprintln!("what it did before: harrier timeline {}", shell_quoted(value));
    }
}
