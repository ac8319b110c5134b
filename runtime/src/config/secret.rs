//! Secrets: text that is used and never shown.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Longest secret. A private key in PEM has a few thousand bytes; a file far above that is not what was meant.
pub const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// The variable by which systemd names the folder of a service's credentials (`LoadCredential=`).
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// A secret's text. It prints as `[secret]`, everywhere; only [`Secret::expose`] gives it away, so that a search for
/// that word finds every use.
#[derive(Clone)]
pub struct Secret(Arc<str>);

impl Secret {
    pub fn new(text: &str) -> Secret {
        Secret(text.into())
    }

    /// The secret itself. Never for a message, a log or a label.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Where a secret is read from, when it is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretFile {
    Path(PathBuf),
    /// `credential:NAME`: the file of this name in the folder that systemd gives to the service.
    Credential(String),
}

impl SecretFile {
    /// Reads the secret. Line breaks at the end are not part of it.
    pub fn read(&self) -> Result<Secret, SecretError> {
        match self {
            SecretFile::Path(path) => read(path),
            SecretFile::Credential(name) => read(&credential_path(name)?),
        }
    }
}

impl fmt::Display for SecretFile {
    /// The reference, as it is written in the configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretFile::Path(path) => path.display().fmt(f),
            SecretFile::Credential(name) => write!(f, "credential:{name}"),
        }
    }
}

/// Why a secret could not be read. Names the file, never what is in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    #[error("the secret in {path} cannot be read: {source}")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("the secret in {path} is empty")]
    Empty { path: PathBuf },
    #[error("{path} is larger than {SECRET_BYTES_MAX} bytes: not a secret")]
    TooLarge { path: PathBuf },
    #[error("the secret in {path} is not UTF-8 text")]
    NotUtf8 { path: PathBuf },
    #[error(
        "credential:{name} needs ${CREDENTIALS_DIRECTORY}, which systemd sets for LoadCredential=; name a file instead"
    )]
    NoCredentials { name: String },
}

fn credential_path(name: &str) -> Result<PathBuf, SecretError> {
    match std::env::var_os(CREDENTIALS_DIRECTORY) {
        Some(folder) if !folder.is_empty() => Ok(Path::new(&folder).join(name)),
        _ => Err(SecretError::NoCredentials { name: name.to_owned() }),
    }
}

fn read(path: &Path) -> Result<Secret, SecretError> {
    let unreadable = |source| SecretError::Unreadable { path: path.to_owned(), source };
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if metadata.len() > SECRET_BYTES_MAX {
        return Err(SecretError::TooLarge { path: path.to_owned() });
    }
    // Not refused: a file of a container platform often has this mode, and nobody else is in the container.
    if readable_by_all(&metadata) && is_first(path) {
        tracing::warn!(path = %path.display(), "every user of this machine may read a secret: chmod o-r it");
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    // The bytes go into the error of `from_utf8`; it is dropped here, and they with it.
    let text = String::from_utf8(bytes).map_err(|_| SecretError::NotUtf8 { path: path.to_owned() })?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(SecretError::Empty { path: path.to_owned() }),
        secret => Ok(Secret::new(secret)),
    }
}

/// Whether this has not been said of the file yet: some secrets are read for every request.
fn is_first(path: &Path) -> bool {
    static SAID: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned())
}

#[cfg(unix)]
fn readable_by_all(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o004 != 0
}

#[cfg(not(unix))]
fn readable_by_all(_: &std::fs::Metadata) -> bool {
    false
}
