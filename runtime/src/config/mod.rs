//! Configuration: one TOML file, read in two stages.
//!
//! [`written`] is what stands in the file, each value with its place; [`Config`] is what a service needs, with types
//! that can only hold what is valid. Between the two every problem is collected, so that an operator sees all of them
//! at once, each as `file:line:column: message`, and unknown keys are errors with the nearest name: a misspelt key that
//! is passed over is a switch that somebody believes to be on.
//!
//! # The guarantee
//!
//! * No secret stands in the file, and none is in a [`Config`]: it holds references ([`SecretFile`]), which are read
//!   where the secret is needed. So a command that needs no secret runs without the right to read it, and a secret that
//!   is replaced is picked up without a restart.
//! * Nothing is taken from environment variables, `${VAR}` is refused rather than expanded: what runs is what the file
//!   says. (`$CREDENTIALS_DIRECTORY` is read, because systemd passes credentials so.)
//! * Relative paths are relative to the folder of the file, wherever harrier is started.
//!
//! `harrier --data-dir DIR` without a file is a whole configuration as well: [`Config::for_data_dir`].

mod build;
mod cloud;
mod nearest;
mod object_store;
mod postgres;
mod problem;
mod secret;
mod value;
mod written;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::NaiveDate;
use schemas::finding::Level;
use schemas::tenant::Tenant;

use crate::log::embedded::PARTITIONS_DEFAULT;

pub use self::cloud::{Cloud, Hosts};
pub use self::object_store::{AzureAccess, GoogleAccess, ObjectStoreConfig, ObjectStoreKind, S3Access};
pub use self::postgres::{POSTGRES_PORT_DEFAULT, PostgresConfig, PostgresTls, PostgresUser};
pub use self::problem::{ConfigErrors, ConfigProblem, Place, Problem};
pub use self::secret::{Secret, SecretError, SecretFile};
pub use self::value::{Guid, InvalidDuration, InvalidValue, parse_duration};

/// Largest configuration file. One tenant takes a few hundred bytes; this is room for thousands.
pub const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Where the data lies unless the file or `--data-dir` says otherwise.
pub const DATA_DIR_DEFAULT: &str = "harrier-data";

/// Port of the operators' server, on loopback only unless set otherwise.
pub const HTTP_PORT_DEFAULT: u16 = 9464;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What harrier is to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub data_dir: PathBuf,
    pub log: LogConfig,
    pub tenants: Vec<TenantConfig>,
    pub sinks: Vec<SinkConfig>,
    pub rules: RulesConfig,
    pub http: HttpConfig,
    pub poll: PollConfig,
    pub archive: ArchiveConfig,
    pub postgres: PostgresConfig,
    /// What is allowed and probably not meant. `harrier check` shows it.
    pub warnings: Vec<ConfigProblem>,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    pub kind: LogKind,
    /// For a new log. An existing one keeps its own count; on Kafka another one is refused.
    pub partitions: u32,
    /// How long messages stay after every consumer has read them.
    pub keep: Duration,
}

/// Where the log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogKind {
    /// One file in the data folder.
    Embedded,
    Kafka(Box<KafkaConfig>),
}

/// `[log]` where `kind = "kafka"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaConfig {
    /// `host:port`, any of them.
    pub brokers: Vec<String>,
    /// Every topic, group and transactional id begins with it.
    pub prefix: String,
    /// Replicas of each topic that is made.
    pub replication: u16,
    pub tls: bool,
    /// The authority that signed the brokers' certificates; the system's own where it is not given.
    pub tls_ca_file: Option<PathBuf>,
    pub sasl: Option<SaslConfig>,
    /// Settings of librdkafka, as they are.
    pub options: BTreeMap<String, String>,
}

/// How to sign in to the brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SaslConfig {
    /// SCRAM and PLAIN.
    Password { mechanism: &'static str, username: String, password: SecretFile },
    /// OAUTHBEARER: a token of the client-credentials grant.
    Token { endpoint: String, client_id: String, client_secret: SecretFile, scope: Option<String> },
}

impl SaslConfig {
    /// The secret that it takes.
    pub fn secret(&self) -> &SecretFile {
        match self {
            SaslConfig::Password { password, .. } => password,
            SaslConfig::Token { client_secret, .. } => client_secret,
        }
    }
}

/// `[[tenant]]`
#[derive(Clone, Debug, PartialEq)]
pub struct TenantConfig {
    pub name: Tenant,
    pub cloud: Cloud,
    /// Mail domains that are inside, in lower case. What is not named here is never taken for inside.
    pub domains: Vec<String>,
    /// How to reach Microsoft. `None` for a tenant that only imports name.
    pub access: Option<Access>,
}

/// What polling a tenant takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Access {
    pub tenant_id: Guid,
    pub client_id: Guid,
    pub credential: Credential,
    pub content_types: Vec<ContentType>,
    /// Whose request quota is used; the tenant's own without one.
    pub publisher_id: Option<Guid>,
    pub endpoints: Endpoints,
    /// The OAuth resource of the Management Activity API: the cloud's own, also where `endpoints.management` is a proxy
    /// or a fake.
    pub management_resource: String,
}

/// How the application proves that it is itself: by one of three, each named by file and read when it is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A password of the application's.
    Secret(SecretFile),
    /// A certificate and its key, both PEM; the key beside the certificate in one file unless it has its own.
    Certificate { certificate: SecretFile, key: Option<SecretFile>, algorithm: SigningAlgorithm },
    /// An assertion that somebody else signs and renews in a file, such as Kubernetes for a service account.
    Federated(SecretFile),
}

impl Credential {
    /// The files it needs.
    pub fn files(&self) -> impl Iterator<Item = &SecretFile> {
        let (one, other) = match self {
            Credential::Secret(file) | Credential::Federated(file) => (file, None),
            Credential::Certificate { certificate, key, .. } => (certificate, key.as_ref()),
        };
        std::iter::once(one).chain(other)
    }
}

/// How an assertion is signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SigningAlgorithm {
    /// RSASSA-PSS: what Entra recommends.
    #[default]
    Ps256,
    /// RSASSA-PKCS1-v1_5: what is older and everywhere understood.
    Rs256,
}

impl SigningAlgorithm {
    pub fn as_str(self) -> &'static str {
        match self {
            SigningAlgorithm::Ps256 => "PS256",
            SigningAlgorithm::Rs256 => "RS256",
        }
    }
}

/// `[tenant.endpoints]`: where each API is reached. Each is a valid https address (http on loopback only), with or
/// without a path, without a slash at its end: append `/...` to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    pub login: String,
    pub management: String,
    pub graph: String,
    pub exchange: String,
    pub reporting: String,
}

/// A feed of the Management Activity API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ContentType {
    AzureActiveDirectory,
    Exchange,
    SharePoint,
    General,
    Dlp,
}

impl ContentType {
    pub const ALL: [ContentType; 5] = [
        ContentType::AzureActiveDirectory,
        ContentType::Exchange,
        ContentType::SharePoint,
        ContentType::General,
        ContentType::Dlp,
    ];

    /// In Microsoft's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            ContentType::AzureActiveDirectory => "Audit.AzureActiveDirectory",
            ContentType::Exchange => "Audit.Exchange",
            ContentType::SharePoint => "Audit.SharePoint",
            ContentType::General => "Audit.General",
            ContentType::Dlp => "DLP.All",
        }
    }
}

/// `[[sink]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkConfig {
    /// The alphabet of tenant names: it becomes a label and part of keys.
    pub name: String,
    pub kind: SinkKind,
    pub min_level: Level,
    /// Older findings (by first event) arrive as one digest.
    pub max_age: Duration,
    /// Whether it is told the heads of the archive, once a day.
    pub archive_heads: bool,
}

/// Where a sink sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkKind {
    Webhook {
        /// The whole address: whoever knows it may post.
        url: SecretFile,
        signing_secret: Option<SecretFile>,
        /// Whether the address may lie in a private network. Off, so that a changed DNS answer cannot point us inwards.
        allow_private_addresses: bool,
    },
    File {
        path: PathBuf,
    },
    Stdout,
}

impl SinkKind {
    pub fn as_str(&self) -> &'static str {
        match self {
            SinkKind::Webhook { .. } => "webhook",
            SinkKind::File { .. } => "file",
            SinkKind::Stdout => "stdout",
        }
    }
}

/// `[rules]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RulesConfig {
    /// Files and folders beside the embedded pack.
    pub paths: Vec<PathBuf>,
    /// Disabled rules, changed levels, exceptions.
    pub tuning_file: Option<PathBuf>,
    /// Where addresses are: a table in MaxMind's format.
    pub places_file: Option<PathBuf>,
    /// What `harrier watch` keeps; none for the one in the data folder.
    pub watch_file: Option<PathBuf>,
}

/// `[http]`: the operators' server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    pub listen: SocketAddr,
}

/// `[poll]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollConfig {
    /// From one look at a feed to the next. A first failure is tried again after so long at most.
    pub interval: Duration,
    /// How long the service may be silent before a request counts as failed.
    pub timeout: Duration,
}

/// `[archive]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveConfig {
    /// Where the archive lies, if not in the data folder.
    pub store: Option<ObjectStoreConfig>,
    /// Longest time a row waits for its commit.
    pub flush_interval: Duration,
    /// How long records are kept, by their day; for ever, where there is none.
    pub keep: Option<Duration>,
    /// The same for messages and for sign-ins, where that is another time.
    pub keep_mail_items: Option<Duration>,
    pub keep_sign_ins: Option<Duration>,
    /// Days that stay whatever their age.
    pub holds: Vec<HoldConfig>,
}

/// `[[hold]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldConfig {
    pub tenant: Tenant,
    pub from: NaiveDate,
    /// The last day.
    pub until: NaiveDate,
    /// For whoever reads the configuration years later.
    pub reason: String,
}

impl Default for LogConfig {
    /// A week, so that a consumer's defect found on Monday can be repaired from the log.
    fn default() -> Self {
        LogConfig { kind: LogKind::Embedded, partitions: PARTITIONS_DEFAULT, keep: 7 * DAY }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        HttpConfig { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, HTTP_PORT_DEFAULT)) }
    }
}

impl Default for PollConfig {
    /// A minute: Microsoft itself takes several to make a record available, and every look costs quota.
    fn default() -> Self {
        PollConfig { interval: Duration::from_secs(60), timeout: Duration::from_secs(90) }
    }
}

impl Default for ArchiveConfig {
    /// Half a minute: a row is at most a minute old when it can be read, whatever else it waits for, and a day is at
    /// most 2,880 small files before compaction.
    fn default() -> Self {
        ArchiveConfig {
            store: None,
            flush_interval: Duration::from_secs(30),
            keep: None,
            keep_mail_items: None,
            keep_sign_ins: None,
            holds: Vec::new(),
        }
    }
}

impl Config {
    /// Reads a configuration file. Errors are complete: correct them all, and it loads.
    pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
        let failed = |problem| ConfigErrors::new(vec![ConfigProblem::of_file(path, problem)]);
        let length = std::fs::metadata(path).map_err(|error| failed(Problem::Unreadable(error.into())))?.len();
        if length > FILE_BYTES_MAX {
            return Err(failed(Problem::TooLarge));
        }
        let bytes = std::fs::read(path).map_err(|error| failed(Problem::Unreadable(error.into())))?;
        let text = String::from_utf8(bytes).map_err(|_| failed(Problem::NotUtf8))?;
        Config::parse(path, &text)
    }

    /// The configuration in a text that was read from `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Config, ConfigErrors> {
        let mut problems = problem::Problems::default();
        let config = written::read(text, &mut problems).map(|written| build::build(written, path, text, &mut problems));
        let (errors, warnings) = problems.placed(path, text);
        match config {
            Some(config) if errors.is_empty() => Ok(Config { warnings, ..config }),
            _ => Err(ConfigErrors::new(errors)),
        }
    }

    /// The configuration that a folder alone makes: embedded log, local archive, embedded rules, no tenant, no sink.
    pub fn for_data_dir(path: &Path) -> Config {
        Config {
            data_dir: path.to_owned(),
            log: LogConfig::default(),
            tenants: Vec::new(),
            sinks: Vec::new(),
            rules: RulesConfig::default(),
            http: HttpConfig::default(),
            poll: PollConfig::default(),
            archive: ArchiveConfig::default(),
            postgres: PostgresConfig::default(),
            warnings: Vec::new(),
        }
    }

    /// The tenant of this name.
    pub fn tenant(&self, name: &Tenant) -> Option<&TenantConfig> {
        self.tenants.iter().find(|tenant| tenant.name == *name)
    }

    /// Every secret the configuration refers to, for a check that they can be read.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretFile> {
        let of_tenants = self.tenants.iter().filter_map(|tenant| tenant.access.as_ref());
        let of_tenants = of_tenants.flat_map(|access| access.credential.files());
        let of_sinks = self.sinks.iter().flat_map(|sink| match &sink.kind {
            SinkKind::Webhook { url, signing_secret, .. } => [Some(url), signing_secret.as_ref()],
            SinkKind::File { .. } | SinkKind::Stdout => [None, None],
        });
        let of_log = match &self.log.kind {
            LogKind::Kafka(kafka) => kafka.sasl.as_ref().map(SaslConfig::secret),
            LogKind::Embedded => None,
        };
        let of_archive = self.archive.store.as_ref().and_then(ObjectStoreConfig::secret);
        let of_postgres = self.postgres.users.iter().map(|user| &user.password);
        let of_postgres = of_postgres.chain(self.postgres.tls.as_ref().map(|tls| &tls.key_file));
        of_tenants.chain(of_sinks.flatten()).chain(of_log).chain(of_archive).chain(of_postgres)
    }
}

#[cfg(test)]
mod tests;
