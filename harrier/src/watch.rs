//! The watch list: what an intruder was seen to use, and what is to be told when it is used again.
//!
//! It is one file beside the log, written only by `harrier watch`, whole or not at all, and read with the rules: its
//! values are added to the lists that the rules of `rules/entra/watched_again.yml` ask. So they take effect like any
//! other change of rules: everywhere at the same record. Values come from records, which attackers write: each is
//! checked for its kind, and stands for itself, never for a pattern.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use detect::rule::Source;
use runtime::config::Guid;
use serde::{Deserialize, Serialize};

use crate::cli::WatchKind;

/// Beside log and archive, where the configuration does not say otherwise.
pub const WATCH_FILE_NAME: &str = "watch.json";

/// Most things on the list: what one line of a rule may hold at most. Tidied lists are far shorter.
const ENTRIES_MAX: usize = 10_000;

/// Longest value, in bytes: the longest user agents.
const VALUE_BYTES_MAX: usize = 1024;

impl WatchKind {
    /// The list of the rules that its values belong to.
    fn list(self) -> &'static str {
        match self {
            WatchKind::Address => "WatchedAddresses",
            WatchKind::Application => "WatchedApplications",
            WatchKind::Client => "WatchedClients",
            WatchKind::Session => "WatchedSessions",
            WatchKind::Target => "WatchedTargets",
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            WatchKind::Address => "address",
            WatchKind::Application => "application",
            WatchKind::Client => "client",
            WatchKind::Session => "session",
            WatchKind::Target => "target",
        }
    }

    /// The value as records have it; none if it is not of this kind.
    fn value(self, text: &str) -> Option<String> {
        let text = text.trim();
        if text.is_empty() || text.len() > VALUE_BYTES_MAX || text.chars().any(schemas::text::acts) {
            return None;
        }
        match self {
            WatchKind::Address => address(text),
            WatchKind::Application => text.parse::<Guid>().ok().map(|id| id.as_str().to_owned()),
            WatchKind::Client => Some(text.to_owned()),
            WatchKind::Session => Some(text.to_lowercase()),
            WatchKind::Target => {
                let (_, domain) = text.split_once('@')?;
                domain.contains('.').then(|| text.to_lowercase())
            }
        }
    }

    /// The value as a rule's list holds it: a text that stands for itself, or for every address of a domain.
    fn pattern(self, value: &str) -> String {
        if self == WatchKind::Address {
            return value.to_owned();
        }
        let special = |c: char| matches!(c, '\\' | '*' | '?');
        let any = if self == WatchKind::Target && value.starts_with('@') { "*" } else { "" };
        let literal: String = value.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect();
        format!("{any}{literal}")
    }
}

/// An address, or a network as `address/bits`.
fn address(text: &str) -> Option<String> {
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let address = address.parse::<IpAddr>().ok()?.to_canonical();
    let Some(bits) = bits else { return Some(address.to_string()) };
    let most = if address.is_ipv4() { 32 } else { 128 };
    // Wider ones are half of the world.
    let bits = bits.parse::<u8>().ok().filter(|bits| (8..=most).contains(bits))?;
    Some(format!("{address}/{bits}"))
}

/// One thing on the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watched {
    pub kind: WatchKind,
    pub value: String,
    pub reason: String,
    pub added: DateTime<Utc>,
}

/// Why the list could not be used or changed.
#[derive(Debug)]
pub enum WatchError {
    File(PathBuf, io::Error),
    /// Not what `harrier watch` writes.
    Damaged(PathBuf, serde_json::Error),
    Invalid(WatchKind, String),
    Full,
    NotThere(WatchKind, String),
}

impl std::fmt::Display for WatchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |value: &str| schemas::text::escape_controls(value);
        match self {
            WatchError::File(path, error) => write!(f, "{}: {error}", path.display()),
            WatchError::Damaged(path, error) => write!(f, "{}: not a watch list: {error}", path.display()),
            WatchError::Invalid(kind, value) => {
                let wanted = match kind {
                    WatchKind::Address => "an IP address, or a network of at least 8 bits: 198.51.100.0/24",
                    WatchKind::Application => "the id of an application, a GUID",
                    WatchKind::Client => "a client: up to 1,024 bytes without control characters",
                    WatchKind::Session => "a session's id: up to 1,024 bytes without control characters",
                    WatchKind::Target => "a mail address, or all of a domain: @evil.example",
                };
                write!(f, "'{}' is not {wanted}", shown(value))
            }
            WatchError::Full => write!(f, "the watch list holds {ENTRIES_MAX} things at most: remove old ones first"),
            WatchError::NotThere(kind, value) => write!(f, "the {} '{}' is not on the list", kind.name(), shown(value)),
        }
    }
}

impl std::error::Error for WatchError {}

/// What is on the list, in the order it was added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchList {
    pub watched: Vec<Watched>,
}

impl WatchList {
    /// The list of a file; empty where there is none.
    pub fn read(path: &Path) -> Result<WatchList, WatchError> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(WatchList::default()),
            Err(error) => return Err(WatchError::File(path.to_owned(), error)),
        };
        let list: WatchList =
            serde_json::from_slice(&text).map_err(|error| WatchError::Damaged(path.to_owned(), error))?;
        if list.watched.len() > ENTRIES_MAX {
            return Err(WatchError::Full);
        }
        match list.watched.iter().find(|one| one.kind.value(&one.value).is_none()) {
            Some(one) => Err(WatchError::Invalid(one.kind, one.value.clone())),
            None => Ok(list),
        }
    }

    /// Changes the list of a file: nobody else does meanwhile, and whoever reads has the old one or the new.
    pub fn change<T>(
        path: &Path,
        change: impl FnOnce(&mut WatchList) -> Result<T, WatchError>,
    ) -> Result<T, WatchError> {
        let failed = |error| WatchError::File(path.to_owned(), error);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let lock = File::create(path.with_extension("lock")).map_err(failed)?;
        lock.lock().map_err(failed)?;
        let mut list = WatchList::read(path)?;
        let before = list.clone();
        let changed = change(&mut list)?;
        if list != before {
            let next = path.with_extension("next");
            let text = serde_json::to_vec_pretty(&list).map_err(|error| failed(error.into()))?;
            let write = || {
                let mut file = File::create(&next)?;
                file.write_all(&text)?;
                file.write_all(b"\n")?;
                file.sync_all()?;
                fs::rename(&next, path)
            };
            write().map_err(failed)?;
        }
        Ok(changed)
    }

    /// Puts a value on the list. Whether it was not there before.
    pub fn add(&mut self, kind: WatchKind, text: &str, reason: &str, added: DateTime<Utc>) -> Result<bool, WatchError> {
        let value = kind.value(text).ok_or_else(|| WatchError::Invalid(kind, text.to_owned()))?;
        if self.watched.iter().any(|one| one.kind == kind && one.value == value) {
            return Ok(false);
        }
        if self.watched.len() >= ENTRIES_MAX {
            return Err(WatchError::Full);
        }
        self.watched.push(Watched { kind, value, reason: reason.to_owned(), added });
        Ok(true)
    }

    pub fn remove(&mut self, kind: WatchKind, text: &str) -> Result<(), WatchError> {
        let value = kind.value(text).unwrap_or_else(|| text.to_owned());
        let before = self.watched.len();
        self.watched.retain(|one| one.kind != kind || one.value != value);
        if self.watched.len() == before { Err(WatchError::NotThere(kind, text.to_owned())) } else { Ok(()) }
    }

    /// The list as a rule file: JSON, which is YAML. Reasons and days are no part of it, because what a rule set is
    /// called follows from its text.
    pub fn as_rules(&self) -> Option<Source> {
        let mut lists: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for one in &self.watched {
            lists.entry(one.kind.list()).or_default().push(one.kind.pattern(&one.value));
        }
        let text = || serde_json::json!({ "x-list-additions": lists }).to_string();
        (!lists.is_empty()).then(|| Source { file: WATCH_FILE_NAME.to_owned(), text: text() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: WatchKind, text: &str) -> Option<String> {
        kind.value(text).map(|value| kind.pattern(&value))
    }

    #[test]
    fn values_are_of_their_kind_and_stand_for_themselves() {
        use WatchKind::{Address, Application, Client, Session, Target};
        for (kind, text, expected) in [
            (Address, " 203.0.113.7 ", Some("203.0.113.7")),
            (Address, "::ffff:203.0.113.7", Some("203.0.113.7")),
            (Address, "2001:DB8::/32", Some("2001:db8::/32")),
            (Address, "0.0.0.0/0", None),
            (Address, "10.0.0.0/33", None),
            (Address, "*", None),
            (Application, "E9A7FEA1-1CC0-4CD9-A31B-9137CA5DEEDD", Some("e9a7fea1-1cc0-4cd9-a31b-9137ca5deedd")),
            (Application, "Outlook", None),
            (Client, r"*a?\", Some(r"\*a\?\\")),
            (Client, "a\u{1b}[7m", None),
            (Client, "", None),
            (Session, "ABC", Some("abc")),
            (Target, "Drop@Evil.example", Some("drop@evil.example")),
            (Target, "@evil.example", Some("*@evil.example")),
            (Target, "*@evil.example", Some(r"\*@evil.example")),
            (Target, "evil.example", None),
        ] {
            assert_eq!(of(kind, text).as_deref(), expected, "{kind:?} {text:?}");
        }
        assert_eq!(of(Client, &"a".repeat(VALUE_BYTES_MAX + 1)), None);
    }

    #[test]
    fn a_list_is_kept_whole_and_only_changes_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/watch.json");
        assert_eq!(WatchList::read(&path).unwrap(), WatchList::default());
        let add = |text: &str| {
            WatchList::change(&path, |list| list.add(WatchKind::Address, text, "seen", DateTime::UNIX_EPOCH))
        };
        assert!(add("203.0.113.7").unwrap());
        assert!(!add("203.0.113.7").unwrap());
        assert!(add("nonsense").is_err());
        let list = WatchList::read(&path).unwrap();
        assert_eq!(list.watched.len(), 1);
        let rules = list.as_rules().unwrap();
        assert_eq!(rules.text, r#"{"x-list-additions":{"WatchedAddresses":["203.0.113.7"]}}"#);
        WatchList::change(&path, |list| list.remove(WatchKind::Address, "203.0.113.7")).unwrap();
        assert!(WatchList::change(&path, |list| list.remove(WatchKind::Address, "203.0.113.7")).is_err());
        assert!(WatchList::read(&path).unwrap().as_rules().is_none());
        fs::write(&path, "{").unwrap();
        assert!(matches!(add("203.0.113.7"), Err(WatchError::Damaged(..))));
    }
}
