//! What the binary fills in for each sink. Plain values, checked when the sink is built; what is secret in them (the
//! address of a webhook, its signing keys) can be used but not shown.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::TimeDelta;
use schemas::finding::Level;
use schemas::tenant::Tenant;
use url::Url;

/// How long one delivery may take: Standard Webhooks recommends 15 to 30 s.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(20);

/// Bytes of a signing key, as Standard Webhooks has it.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// One place that findings go to.
#[derive(Clone, Debug)]
pub struct Sink {
    /// Names its rows in the outbox: a renamed sink is a new one.
    pub name: String,
    /// One of [`crate::kinds`].
    pub kind: String,
    /// Findings below it are not delivered.
    pub min_level: Level,
    /// Findings whose first event is older arrive as one digest.
    pub max_age: Option<TimeDelta>,
    /// Whether it is told the heads of the archive.
    pub archive_heads: bool,
    pub url: Option<Address>,
    /// Several while a key is being changed: every delivery is signed with each.
    pub signing_secrets: Vec<SigningSecret>,
    pub path: Option<PathBuf>,
    pub timeout: Duration,
    /// Whether the address may lie inside: loopback, private, link-local; and whether it may be plain `http`.
    pub allow_private_addresses: bool,
}

impl Sink {
    /// A sink with every setting at its default.
    pub fn new(name: &str, kind: &str) -> Sink {
        Sink {
            name: name.to_owned(),
            kind: kind.to_owned(),
            min_level: Level::Medium,
            max_age: None,
            archive_heads: false,
            url: None,
            signing_secrets: Vec::new(),
            path: None,
            timeout: TIMEOUT_DEFAULT,
            allow_private_addresses: false,
        }
    }

    pub(crate) fn check_name(&self) -> Result<(), SinkErrorKind> {
        // The alphabet of tenants' names, for the same reasons: it becomes part of keys and labels.
        self.name.parse::<Tenant>().map(drop).map_err(|_| SinkErrorKind::Name)
    }
}

/// The address of a webhook. A secret: whoever knows it can post.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(Url);

impl Address {
    pub(crate) fn url(&self) -> &Url {
        &self.0
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({}://{}/...)", self.0.scheme(), self.0.host_str().unwrap_or("?"))
    }
}

impl FromStr for Address {
    type Err = SinkErrorKind;

    /// Surrounding white space is a file's last newline, not part of the address.
    fn from_str(text: &str) -> Result<Address, SinkErrorKind> {
        let url = Url::parse(text.trim()).map_err(|_| SinkErrorKind::Url)?;
        if matches!(url.scheme(), "https" | "http") && url.has_host() {
            Ok(Address(url))
        } else {
            Err(SinkErrorKind::Url)
        }
    }
}

/// A key that deliveries are signed with.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningSecret(Vec<u8>);

impl SigningSecret {
    /// The secrets of a file: one, or several divided by white space.
    pub fn parse_all(text: &str) -> Result<Vec<SigningSecret>, SinkErrorKind> {
        text.split_whitespace().map(str::parse).collect()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(...)")
    }
}

impl FromStr for SigningSecret {
    type Err = SinkErrorKind;

    fn from_str(text: &str) -> Result<SigningSecret, SinkErrorKind> {
        let encoded = text.trim().strip_prefix("whsec_").ok_or(SinkErrorKind::Secret)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| SinkErrorKind::Secret)?;
        if SECRET_BYTES.contains(&bytes.len()) { Ok(SigningSecret(bytes)) } else { Err(SinkErrorKind::Secret) }
    }
}

/// A sink cannot be built as it is set. The operator's to mend; trying again does not help.
#[derive(Debug, thiserror::Error)]
#[error("sink {name}: {kind}")]
pub struct SinkError {
    pub name: String,
    #[source]
    pub kind: SinkErrorKind,
}

/// What is wrong with the settings. Never says the address or a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SinkErrorKind {
    #[error("a name has 1 to 63 characters a-z, 0-9 and '-', and begins with a letter or a digit")]
    Name,
    #[error("the name is used twice")]
    NameTwice,
    #[error("there is no kind of sink of this name; there are {known}")]
    Unknown { known: String },
    #[error("{setting} is missing")]
    Missing { setting: &'static str },
    #[error("the address is not an http or https URL")]
    Url,
    #[error(
        "the address must be https: findings do not travel readable for others (allow_private_addresses permits http)"
    )]
    PlainHttp,
    #[error("the address is loopback, private or link-local, which allow_private_addresses would permit")]
    PrivateAddress,
    #[error("a signing secret is whsec_ and the base64 of 24 to 64 bytes")]
    Secret,
    #[error("the HTTP client cannot be made: {0}")]
    Client(reqwest::Error),
}
