//! From what is written to what a service needs: forms, ranges, defaults, and what must be there together.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::NaiveDate;
use schemas::finding::Level;
use schemas::tenant::Tenant;

use super::nearest::nearest;
use super::problem::{Problem, Problems, line_of, shown};
use super::value::{InvalidValue, broker, domain, endpoint, parse_duration, prefix, secret_file, sink_name};
use super::written::{
    Placed, Present, Written, WrittenEndpoints, WrittenHold, WrittenLog, WrittenSecurity, WrittenSink, WrittenTenant,
};
use super::{
    Access, Cloud, Config, ContentType, Credential, DATA_DIR_DEFAULT, Endpoints, HoldConfig, HttpConfig, KafkaConfig,
    LogConfig, LogKind, RulesConfig, SaslConfig, SecretFile, SigningAlgorithm, SinkConfig, SinkKind, TenantConfig,
};

/// The feeds of a tenant that names none. `DLP.All` takes a permission of its own, so it is asked for by name.
const CONTENT_TYPES_DEFAULT: [ContentType; 4] =
    [ContentType::AzureActiveDirectory, ContentType::Exchange, ContentType::SharePoint, ContentType::General];

const MAX_AGE_DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);

/// More than this gains nothing on one host, and every partition costs a worker and a share of each flush.
const PARTITIONS_MAX: i64 = 256;

/// Partitions of a new log on Kafka: as many processes can share the work of one stage, and a log keeps its count.
const KAFKA_PARTITIONS_DEFAULT: u32 = 12;

/// One broker may be lost without losing anything that was acknowledged.
const REPLICATION_DEFAULT: u16 = 3;

/// The one SASL mechanism that takes no password.
const TOKEN_MECHANISM: &str = "OAUTHBEARER";

/// Builds the configuration. Where a value is refused it has a default in its place; the problems decide whether the
/// result is used.
pub(super) fn build(written: Written, file: &Path, text: &str, problems: &mut Problems) -> Config {
    // A file in the current folder has the empty parent, which joins to the path itself.
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut builder = Builder { folder, text, problems };
    let data_dir = builder.path("data_dir", written.data_dir).unwrap_or_else(|| folder.join(DATA_DIR_DEFAULT));
    let mut config = Config::for_data_dir(&data_dir);
    config.log = builder.log(written.log);
    let tenants: Vec<Named<TenantConfig>> =
        written.tenants.into_iter().filter_map(|tenant| builder.tenant(tenant)).collect();
    config.tenants = builder.distinct("tenant", tenants);
    let sinks: Vec<Named<SinkConfig>> = written.sinks.into_iter().filter_map(|sink| builder.sink(sink)).collect();
    config.sinks = builder.distinct("sink", sinks);
    config.rules = RulesConfig {
        paths: builder.paths("paths", written.rules_paths),
        tuning_file: builder.path("tuning_file", written.rules_tuning_file),
        places_file: builder.path("places_file", written.rules_places_file),
        watch_file: builder.path("watch_file", written.rules_watch_file),
    };
    config.http = builder.http(written.http_listen);
    if let Some(interval) = builder.duration("interval", written.poll_interval, &POLL_INTERVAL) {
        config.poll.interval = interval;
    }
    if let Some(timeout) = builder.duration("timeout", written.poll_timeout, &POLL_TIMEOUT) {
        config.poll.timeout = timeout;
    }
    let archive = written.archive;
    config.archive.store = builder.object_store(&archive);
    if let Some(flush_interval) = builder.duration("flush_interval", archive.flush_interval, &FLUSH_INTERVAL) {
        config.archive.flush_interval = flush_interval;
    }
    config.archive.keep = builder.duration("keep", archive.keep, &ARCHIVE_KEEP);
    config.archive.keep_mail_items = builder.duration("keep_mail_items", archive.keep_mail_items, &ARCHIVE_KEEP);
    config.archive.keep_sign_ins = builder.duration("keep_sign_ins", archive.keep_sign_ins, &ARCHIVE_KEEP);
    config.archive.holds = written.holds.into_iter().filter_map(|hold| builder.hold(hold)).collect();
    config.postgres = builder.postgres(written.postgres);
    config
}

/// What a duration may be.
pub(super) struct Range {
    pub least: &'static str,
    pub most: &'static str,
}

/// Below an hour a consumer that restarts may find the log trimmed by another's impatience.
const KEEP: Range = Range { least: "1h", most: "365d" };
/// Content is listed for seven days: an hour between two looks loses nothing but time.
const POLL_INTERVAL: Range = Range { least: "1s", most: "1h" };
/// Listings of busy tenants take half a minute to begin.
const POLL_TIMEOUT: Range = Range { least: "1s", most: "15m" };
const FLUSH_INTERVAL: Range = Range { least: "1s", most: "1h" };
/// What Microsoft still lists would come again.
const ARCHIVE_KEEP: Range = Range { least: "8d", most: "3650d" };
const MAX_AGE: Range = Range { least: "1m", most: "3650d" };

/// Something with a name that must be its own, and where the name stands.
pub(super) struct Named<T> {
    pub name: String,
    pub offset: usize,
    pub value: T,
}

pub(super) struct Builder<'a> {
    folder: &'a Path,
    text: &'a str,
    problems: &'a mut Problems,
}

impl Builder<'_> {
    fn log(&mut self, mut written: WrittenLog) -> LogConfig {
        let default = LogConfig::default();
        let is_kafka =
            self.choice("kind", written.kind.take(), &[("embedded", false), ("kafka", true)]).unwrap_or(false);
        let partitions = written.partitions.take().and_then(|Placed { value, offset }| {
            let partitions = u32::try_from(value).ok().filter(|_| (1..=PARTITIONS_MAX).contains(&value));
            if partitions.is_none() {
                self.invalid("partitions", offset, InvalidValue::OutOfRange { least: "1", most: "256" });
            }
            partitions
        });
        let keep = self.duration("keep", written.keep.take(), &KEEP).unwrap_or(default.keep);
        if is_kafka {
            let partitions = partitions.unwrap_or(KAFKA_PARTITIONS_DEFAULT);
            return LogConfig { kind: self.kafka(written), partitions, keep };
        }
        let of_kafka = ["brokers", "prefix", "replication", "security", "options"];
        for (key, offset) in written.present.iter().filter(|(key, _)| of_kafka.contains(key)) {
            self.problems.add(*offset, Problem::NotForKind { key, kind: "embedded" });
        }
        LogConfig { kind: LogKind::Embedded, partitions: partitions.unwrap_or(default.partitions), keep }
    }

    fn kafka(&mut self, written: WrittenLog) -> LogKind {
        let section = written.present.iter().map(|(_, offset)| *offset).min().unwrap_or(0);
        self.require("[log] with `kind = \"kafka\"`", section, &written.present, &["brokers"]);
        let brokers = written.brokers.unwrap_or_default();
        let replication = written.replication.and_then(|Placed { value, offset }| {
            let replication = u16::try_from(value).ok().filter(|replication| (1..=15).contains(replication));
            if replication.is_none() {
                self.invalid("replication", offset, InvalidValue::OutOfRange { least: "1", most: "15" });
            }
            replication
        });
        let mut options = BTreeMap::new();
        for (key, value) in written.options {
            match crate::log::options::refusal(&key.value) {
                Some(reason) => self.problems.add(key.offset, Problem::Option { key: shown(&key.value), reason }),
                None => drop(options.insert(key.value, value.value)),
            }
        }
        let tls = written.security.tls.as_ref().is_some_and(|tls| tls.value);
        let tls_ca_file = self.path("tls_ca_file", written.security.tls_ca_file.clone());
        LogKind::Kafka(Box::new(KafkaConfig {
            brokers: brokers.into_iter().filter_map(|name| self.parsed("brokers", Some(name), broker)).collect(),
            prefix: self.parsed("prefix", written.prefix, prefix).unwrap_or_else(|| "harrier".to_owned()),
            replication: replication.unwrap_or(REPLICATION_DEFAULT),
            tls,
            tls_ca_file,
            sasl: self.sasl(written.security, tls),
            options,
        }))
    }

    /// A sign-in is all of it or nothing.
    fn sasl(&mut self, written: WrittenSecurity, tls: bool) -> Option<SaslConfig> {
        const PASSWORD: [&str; 2] = ["username", "password_file"];
        const TOKEN: [&str; 3] = ["token_endpoint", "client_id", "client_secret_file"];
        let (section, offset) = ("[log.security]", written.offset);
        let keys = ["sasl_mechanism", "scope"].iter().chain(&PASSWORD).chain(&TOKEN);
        if !keys.into_iter().any(|key| written.present.has(key)) {
            return None;
        }
        self.require(section, offset, &written.present, &["sasl_mechanism"]);
        let by_token = written.sasl_mechanism.as_ref().is_some_and(|mechanism| mechanism.value == TOKEN_MECHANISM);
        self.require(section, offset, &written.present, if by_token { &TOKEN } else { &PASSWORD });
        if let (false, Some(shown)) = (tls, written.username.as_ref().or(written.token_endpoint.as_ref())) {
            self.problems.add(shown.offset, Problem::PasswordInTheClear);
        }
        let mechanisms = ["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN", TOKEN_MECHANISM].map(|name| (name, name));
        let mechanism = self.choice("sasl_mechanism", written.sasl_mechanism, &mechanisms);
        let not_empty = |text: &str| if text.is_empty() { Err(InvalidValue::Empty) } else { Ok(text.to_owned()) };
        if by_token {
            let endpoint = self.parsed("token_endpoint", written.token_endpoint, endpoint);
            let client_id = self.parsed("client_id", written.client_id, not_empty);
            let client_secret = self.secret("client_secret_file", written.client_secret_file);
            let scope = self.parsed("scope", written.scope, not_empty);
            return Some(SaslConfig::Token {
                endpoint: endpoint?,
                client_id: client_id?,
                client_secret: client_secret?,
                scope,
            });
        }
        let username = self.parsed("username", written.username, not_empty);
        let password = self.secret("password_file", written.password_file);
        Some(SaslConfig::Password { mechanism: mechanism?, username: username?, password: password? })
    }

    fn http(&mut self, listen: Option<Placed<String>>) -> HttpConfig {
        let offset = listen.as_ref().map_or(0, |listen| listen.offset);
        let parse = |text: &str| text.parse::<SocketAddr>().map_err(|_| InvalidValue::Listen);
        let Some(listen) = self.parsed("listen", listen, parse) else { return HttpConfig::default() };
        if !listen.ip().is_loopback() {
            self.problems.add(offset, Problem::ListensToNetwork);
        }
        HttpConfig { listen }
    }

    fn tenant(&mut self, written: WrittenTenant) -> Option<Named<TenantConfig>> {
        self.require("[[tenant]]", written.offset, &written.present, &["name"]);
        let offset = written.name.as_ref().map_or(written.offset, |name| name.offset);
        let name = self.parsed("name", written.name.clone(), |name| Ok(name.parse::<Tenant>()?));
        let clouds = Cloud::ALL.map(|cloud| (cloud.as_str(), cloud));
        let cloud = self.choice("cloud", written.cloud.clone(), &clouds).unwrap_or_default();
        let domains = written.domains.clone().unwrap_or_default();
        let domains: Vec<String> =
            domains.into_iter().filter_map(|name| self.parsed("domains", Some(name), domain)).collect();
        if let (Some(name), false) = (&name, written.present.has("domains") && !domains.is_empty()) {
            self.problems.add(offset, Problem::NoDomains { tenant: name.to_string() });
        }
        let access = self.access(written, cloud);
        let name = name?;
        Some(Named { name: name.to_string(), offset, value: TenantConfig { name, cloud, domains, access } })
    }

    /// A tenant that says nothing of how it is reached is one that only imports name; one that says something must say
    /// all that is needed.
    fn access(&mut self, written: WrittenTenant, cloud: Cloud) -> Option<Access> {
        let of_every_tenant = ["name", "cloud", "domains"];
        if written.present.iter().all(|(key, _)| of_every_tenant.contains(key)) {
            return None;
        }
        let credential = self.credential(&written);
        self.require("[[tenant]]", written.offset, &written.present, &["tenant_id", "client_id"]);
        let tenant_id = self.parsed("tenant_id", written.tenant_id, str::parse);
        let client_id = self.parsed("client_id", written.client_id, str::parse);
        let publisher_id = self.parsed("publisher_id", written.publisher_id, str::parse);
        let content_types = self.content_types(written.content_types);
        let endpoints = self.endpoints(written.endpoints, cloud, written.offset)?;
        let management_resource = cloud.hosts().management.unwrap_or(&endpoints.management).to_owned();
        Some(Access {
            tenant_id: tenant_id?,
            client_id: client_id?,
            credential: credential?,
            content_types,
            publisher_id,
            endpoints,
            management_resource,
        })
    }

    /// Exactly one of the three: with two, nobody would know which one has to be renewed.
    fn credential(&mut self, written: &WrittenTenant) -> Option<Credential> {
        const KINDS: [&str; 3] = ["client_certificate_file", "federated_token_file", "client_secret_file"];
        let mut given = KINDS.iter().flat_map(|kind| written.present.iter().filter(move |(key, _)| key == kind));
        let Some((first, _)) = given.next() else {
            self.problems.add(written.offset, Problem::NoCredential);
            return None;
        };
        let more: Vec<_> = given.map(|(key, offset)| (*key, *offset)).collect();
        for (key, offset) in more {
            self.problems.add(offset, Problem::SecondCredential { key, first });
        }
        let of_certificate = ["client_key_file", "client_assertion_algorithm"];
        if *first != "client_certificate_file" {
            for (key, offset) in written.present.iter().filter(|(key, _)| of_certificate.contains(key)) {
                self.problems.add(*offset, Problem::WithoutCertificate { key });
            }
        }
        let secret = self.secret("client_secret_file", written.client_secret_file.clone());
        let token = self.secret("federated_token_file", written.federated_token_file.clone());
        let certificate = self.secret("client_certificate_file", written.client_certificate_file.clone());
        let key = self.secret("client_key_file", written.client_key_file.clone());
        let algorithms = [SigningAlgorithm::Ps256, SigningAlgorithm::Rs256].map(|known| (known.as_str(), known));
        let algorithm = written.client_assertion_algorithm.clone();
        let algorithm = self.choice("client_assertion_algorithm", algorithm, &algorithms).unwrap_or_default();
        match *first {
            "client_certificate_file" => Some(Credential::Certificate { certificate: certificate?, key, algorithm }),
            "federated_token_file" => Some(Credential::Federated(token?)),
            _ => Some(Credential::Secret(secret?)),
        }
    }

    fn content_types(&mut self, written: Option<Vec<Placed<String>>>) -> Vec<ContentType> {
        let Some(written) = written else { return CONTENT_TYPES_DEFAULT.to_vec() };
        let known = ContentType::ALL.map(|content_type| (content_type.as_str(), content_type));
        let mut content_types: Vec<ContentType> =
            written.into_iter().filter_map(|name| self.choice("content_types", Some(name), &known)).collect();
        // A set: the order and a repetition mean nothing.
        content_types.sort_unstable();
        content_types.dedup();
        content_types
    }

    fn endpoints(&mut self, written: Option<WrittenEndpoints>, cloud: Cloud, offset: usize) -> Option<Endpoints> {
        let hosts = cloud.hosts();
        let management_written = written.as_ref().is_some_and(|written| written.management.is_some());
        if hosts.management.is_none() && !management_written {
            self.problems.add(offset, Problem::ManagementUnknown);
        }
        let (login, management, graph, exchange, reporting) = match written {
            Some(written) => (written.login, written.management, written.graph, written.exchange, written.reporting),
            None => (None, None, None, None, None),
        };
        let login = self.endpoint("login", login, Some(hosts.login));
        let management = self.endpoint("management", management, hosts.management);
        let graph = self.endpoint("graph", graph, Some(hosts.graph));
        let exchange = self.endpoint("exchange", exchange, Some(hosts.exchange));
        let reporting = self.endpoint("reporting", reporting, Some(hosts.reporting));
        Some(Endpoints {
            login: login?,
            management: management?,
            graph: graph?,
            exchange: exchange?,
            reporting: reporting?,
        })
    }

    fn endpoint(
        &mut self,
        key: &'static str,
        written: Option<Placed<String>>,
        default: Option<&str>,
    ) -> Option<String> {
        match written {
            Some(written) => self.parsed(key, Some(written), endpoint),
            None => default.map(str::to_owned),
        }
    }

    fn sink(&mut self, written: WrittenSink) -> Option<Named<SinkConfig>> {
        self.require("[[sink]]", written.offset, &written.present, &["name", "kind"]);
        let offset = written.name.as_ref().map_or(written.offset, |name| name.offset);
        let name = self.parsed("name", written.name.clone(), sink_name);
        let levels = Level::ALL.map(|level| (level.as_str(), level));
        let min_level = self.choice("min_level", written.min_level.clone(), &levels).unwrap_or(Level::Medium);
        let max_age = self.duration("max_age", written.max_age.clone(), &MAX_AGE).unwrap_or(MAX_AGE_DEFAULT);
        let archive_heads = written.archive_heads.as_ref().is_some_and(|placed| placed.value);
        let kind = self.sink_kind(written);
        let name = name?;
        let value = SinkConfig { name: name.clone(), kind: kind?, min_level, max_age, archive_heads };
        Some(Named { name, offset, value })
    }

    fn hold(&mut self, written: WrittenHold) -> Option<HoldConfig> {
        self.require("[[hold]]", written.offset, &written.present, &["tenant", "from", "until", "reason"]);
        let tenant = self.parsed("tenant", written.tenant, |text| Ok(text.parse()?));
        let day = |text: &str| text.parse::<NaiveDate>().map_err(|_| InvalidValue::Day);
        let (from, until) = (self.parsed("from", written.from, day), self.parsed("until", written.until, day));
        let reason = self.parsed("reason", written.reason, |text| match text.trim() {
            "" => Err(InvalidValue::Empty),
            text => Ok(text.to_owned()),
        });
        Some(HoldConfig { tenant: tenant?, from: from?, until: until?, reason: reason? })
    }

    fn sink_kind(&mut self, written: WrittenSink) -> Option<SinkKind> {
        /// The kinds with the keys of each, and those it cannot do without. Who takes any message, `archive_heads` too.
        const KINDS: [(&str, &[&str], &[&str]); 3] = [
            (
                "webhook",
                &["url_file", "signing_secret_file", "allow_private_addresses", "archive_heads"],
                &["url_file"],
            ),
            ("file", &["path", "archive_heads"], &["path"]),
            ("stdout", &["archive_heads"], &[]),
        ];
        let kinds = KINDS.map(|kind| (kind.0, kind));
        let (kind, own_keys, needed) = self.choice("kind", written.kind, &kinds)?;
        self.require("[[sink]]", written.offset, &written.present, needed);
        let foreign = |key: &str| !own_keys.contains(&key) && KINDS.iter().any(|(_, keys, _)| keys.contains(&key));
        for (key, offset) in written.present.iter().filter(|(key, _)| foreign(key)) {
            self.problems.add(*offset, Problem::NotForKind { key, kind });
        }
        let url = self.secret("url_file", written.url_file);
        let signing_secret = self.secret("signing_secret_file", written.signing_secret_file);
        let allow_private_addresses = written.allow_private_addresses.is_some_and(|placed| placed.value);
        let path = self.path("path", written.path);
        match kind {
            "webhook" => Some(SinkKind::Webhook { url: url?, signing_secret, allow_private_addresses }),
            "file" => Some(SinkKind::File { path: path? }),
            _ => Some(SinkKind::Stdout),
        }
    }

    /// Those with a name of their own; the others are problems.
    pub(super) fn distinct<T>(&mut self, what: &'static str, all: Vec<Named<T>>) -> Vec<T> {
        let mut first_offsets = std::collections::BTreeMap::new();
        let mut distinct = Vec::with_capacity(all.len());
        for Named { name, offset, value } in all {
            match first_offsets.get(&name) {
                Some(first) => {
                    let first_line = line_of(self.text, *first);
                    self.problems.add(offset, Problem::Duplicate { what, name, first_line });
                }
                None => {
                    first_offsets.insert(name, offset);
                    distinct.push(value);
                }
            }
        }
        distinct
    }

    pub(super) fn require(&mut self, section: &'static str, offset: usize, present: &Present, keys: &[&'static str]) {
        for key in keys.iter().filter(|key| !present.has(key)) {
            self.problems.add(offset, Problem::Missing { section, key });
        }
    }

    pub(super) fn problem(&mut self, offset: usize, problem: Problem) {
        self.problems.add(offset, problem);
    }

    fn invalid(&mut self, key: &'static str, offset: usize, reason: InvalidValue) {
        self.problems.add(offset, Problem::Invalid { key, reason: reason.into() });
    }

    pub(super) fn parsed<T>(
        &mut self,
        key: &'static str,
        written: Option<Placed<String>>,
        parse: impl FnOnce(&str) -> Result<T, InvalidValue>,
    ) -> Option<T> {
        let Placed { value, offset } = written?;
        parse(&value).map_err(|reason| self.invalid(key, offset, reason)).ok()
    }

    fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        written: Option<Placed<String>>,
        choices: &[(&'static str, T)],
    ) -> Option<T> {
        let Placed { value, offset } = written?;
        let chosen = choices.iter().find(|(name, _)| *name == value);
        if chosen.is_none() {
            let known: Vec<&'static str> = choices.iter().map(|(name, _)| *name).collect();
            let nearest = nearest(&value, &known);
            self.problems.add(offset, Problem::UnknownValue { key, found: shown(&value), nearest, known });
        }
        chosen.map(|(_, choice)| *choice)
    }

    pub(super) fn duration(
        &mut self,
        key: &'static str,
        written: Option<Placed<String>>,
        range: &Range,
    ) -> Option<Duration> {
        let limit = |text| parse_duration(text).unwrap_or_default();
        self.parsed(key, written, |text| {
            let duration = parse_duration(text)?;
            let fits = (limit(range.least)..=limit(range.most)).contains(&duration);
            let out_of_range = InvalidValue::OutOfRange { least: range.least, most: range.most };
            if fits { Ok(duration) } else { Err(out_of_range) }
        })
    }

    pub(super) fn path(&mut self, key: &'static str, written: Option<Placed<String>>) -> Option<PathBuf> {
        let folder = self.folder;
        self.parsed(key, written, |text| if text.is_empty() { Err(InvalidValue::Empty) } else { Ok(folder.join(text)) })
    }

    fn paths(&mut self, key: &'static str, written: Option<Vec<Placed<String>>>) -> Vec<PathBuf> {
        written.unwrap_or_default().into_iter().filter_map(|path| self.path(key, Some(path))).collect()
    }

    pub(super) fn secret(&mut self, key: &'static str, written: Option<Placed<String>>) -> Option<SecretFile> {
        let folder = self.folder;
        self.parsed(key, written, |text| secret_file(text, folder))
    }
}
