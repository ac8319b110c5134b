//! What stands in the file: each key with its value and place, of the right type, and nothing decided yet.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::nearest::nearest;
use super::problem::{Problem, Problems, shown};
use super::value::InvalidValue;

/// A value and the offset it stands at.
#[derive(Clone, Debug)]
pub(super) struct Placed<T> {
    pub value: T,
    pub offset: usize,
}

/// The keys that a section has, with their places.
#[derive(Clone, Debug, Default)]
pub(super) struct Present(Vec<(&'static str, usize)>);

impl Present {
    pub fn has(&self, key: &str) -> bool {
        self.iter().any(|(name, _)| *name == key)
    }

    pub fn iter(&self) -> impl Iterator<Item = &(&'static str, usize)> {
        self.0.iter()
    }
}

type Text = Option<Placed<String>>;
type Texts = Option<Vec<Placed<String>>>;

/// The file.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub data_dir: Text,
    pub log: WrittenLog,
    pub tenants: Vec<WrittenTenant>,
    pub sinks: Vec<WrittenSink>,
    pub rules_paths: Texts,
    pub rules_tuning_file: Text,
    pub rules_places_file: Text,
    pub rules_watch_file: Text,
    pub http_listen: Text,
    pub poll_interval: Text,
    pub poll_timeout: Text,
    pub archive: WrittenArchive,
    pub holds: Vec<WrittenHold>,
    pub postgres: WrittenPostgres,
}

#[derive(Debug, Default)]
pub(super) struct WrittenPostgres {
    pub offset: usize,
    pub listen: Text,
    pub http_listen: Text,
    pub tls_certificate_file: Text,
    pub tls_key_file: Text,
    pub timeout: Text,
    pub users: Vec<WrittenUser>,
    /// The keys that are there, to tell half of a pair.
    pub present: Present,
}

#[derive(Debug)]
pub(super) struct WrittenUser {
    pub offset: usize,
    /// As for a tenant.
    pub present: Present,
    pub name: Text,
    pub password_file: Text,
}

#[derive(Debug, Default)]
pub(super) struct WrittenArchive {
    pub flush_interval: Text,
    pub keep: Text,
    pub keep_mail_items: Text,
    pub keep_sign_ins: Text,
    pub url: Text,
    pub endpoint: Text,
    pub allow_http: Option<Placed<bool>>,
    pub tls_ca_file: Text,
    pub region: Text,
    pub access_key_id: Text,
    pub secret_access_key_file: Text,
    pub role_arn: Text,
    pub web_identity_token_file: Text,
    pub account: Text,
    pub account_key_file: Text,
    pub client_id: Text,
    pub tenant_id: Text,
    pub federated_token_file: Text,
    pub service_account_file: Text,
    /// The keys that are there, to tell those that do nothing.
    pub present: Present,
}

#[derive(Debug)]
pub(super) struct WrittenHold {
    pub offset: usize,
    /// As for a tenant.
    pub present: Present,
    pub tenant: Text,
    pub from: Text,
    pub until: Text,
    pub reason: Text,
}

#[derive(Debug, Default)]
pub(super) struct WrittenLog {
    pub kind: Text,
    pub brokers: Texts,
    pub prefix: Text,
    pub partitions: Option<Placed<i64>>,
    pub replication: Option<Placed<i64>>,
    pub keep: Text,
    pub security: WrittenSecurity,
    /// Keys and values as they are, in the order of the keys.
    pub options: Vec<(Placed<String>, Placed<String>)>,
    /// The keys that are there, to tell those that do nothing.
    pub present: Present,
}

#[derive(Debug, Default)]
pub(super) struct WrittenSecurity {
    pub tls: Option<Placed<bool>>,
    pub tls_ca_file: Text,
    pub sasl_mechanism: Text,
    pub username: Text,
    pub password_file: Text,
    pub token_endpoint: Text,
    pub client_id: Text,
    pub client_secret_file: Text,
    pub scope: Text,
    pub offset: usize,
    pub present: Present,
}

#[derive(Debug)]
pub(super) struct WrittenTenant {
    pub offset: usize,
    /// The keys that are there, also those whose value was refused: they are not missing as well.
    pub present: Present,
    pub name: Text,
    pub tenant_id: Text,
    pub cloud: Text,
    pub client_id: Text,
    pub domains: Texts,
    pub client_secret_file: Text,
    pub client_certificate_file: Text,
    pub client_key_file: Text,
    pub client_assertion_algorithm: Text,
    pub federated_token_file: Text,
    pub content_types: Texts,
    pub publisher_id: Text,
    pub endpoints: Option<WrittenEndpoints>,
}

#[derive(Debug)]
pub(super) struct WrittenEndpoints {
    pub login: Text,
    pub management: Text,
    pub graph: Text,
    pub exchange: Text,
    pub reporting: Text,
}

#[derive(Debug)]
pub(super) struct WrittenSink {
    pub offset: usize,
    /// As for a tenant.
    pub present: Present,
    pub name: Text,
    pub kind: Text,
    pub url_file: Text,
    pub signing_secret_file: Text,
    pub allow_private_addresses: Option<Placed<bool>>,
    pub path: Text,
    pub min_level: Text,
    pub max_age: Text,
    pub archive_heads: Option<Placed<bool>>,
}

/// Reads the file's text. `None` if it is not TOML: what a half-read file lacks would only be noise.
pub(super) fn read(text: &str, problems: &mut Problems) -> Option<Written> {
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let offset = error.span().map_or(0, |span| span.start);
        problems.add(offset, Problem::Syntax { message: error.message().to_owned() });
    }
    if !errors.is_empty() {
        return None;
    }
    let mut root = Section::new("the configuration", 0, document.into_inner());
    let mut written = Written { data_dir: root.text("data_dir", problems), ..Written::default() };
    if let Some(mut log) = root.section("log", "[log]", problems) {
        written.log = log_section(&mut log, problems);
        log.end(problems);
    }
    written.tenants =
        root.sections("tenant", "[[tenant]]", problems).into_iter().map(|section| tenant(section, problems)).collect();
    written.sinks =
        root.sections("sink", "[[sink]]", problems).into_iter().map(|section| sink(section, problems)).collect();
    if let Some(mut rules) = root.section("rules", "[rules]", problems) {
        written.rules_paths = rules.texts("paths", problems);
        written.rules_tuning_file = rules.text("tuning_file", problems);
        written.rules_places_file = rules.text("places_file", problems);
        written.rules_watch_file = rules.text("watch_file", problems);
        rules.end(problems);
    }
    written.http_listen = root.only_text("http", "[http]", "listen", problems);
    if let Some(mut poll) = root.section("poll", "[poll]", problems) {
        written.poll_interval = poll.text("interval", problems);
        written.poll_timeout = poll.text("timeout", problems);
        poll.end(problems);
    }
    if let Some(section) = root.section("archive", "[archive]", problems) {
        written.archive = archive(section, problems);
    }
    written.holds =
        root.sections("hold", "[[hold]]", problems).into_iter().map(|section| hold(section, problems)).collect();
    if let Some(section) = root.section("postgres", "[postgres]", problems) {
        written.postgres = postgres(section, problems);
    }
    root.end(problems);
    Some(written)
}

fn postgres(mut section: Section<'_>, problems: &mut Problems) -> WrittenPostgres {
    let users = section.sections("user", "[[postgres.user]]", problems).into_iter().map(|mut section| {
        let (name, password_file) = (section.text("name", problems), section.text("password_file", problems));
        let (offset, present) = (section.offset, section.present.clone());
        section.end(problems);
        WrittenUser { offset, present, name, password_file }
    });
    let users = users.collect();
    let postgres = WrittenPostgres {
        offset: section.offset,
        listen: section.text("listen", problems),
        http_listen: section.text("http_listen", problems),
        tls_certificate_file: section.text("tls_certificate_file", problems),
        tls_key_file: section.text("tls_key_file", problems),
        timeout: section.text("timeout", problems),
        users,
        present: Present::default(),
    };
    let postgres = WrittenPostgres { present: section.present.clone(), ..postgres };
    section.end(problems);
    postgres
}

fn archive(mut section: Section<'_>, problems: &mut Problems) -> WrittenArchive {
    let archive = WrittenArchive {
        flush_interval: section.text("flush_interval", problems),
        keep: section.text("keep", problems),
        keep_mail_items: section.text("keep_mail_items", problems),
        keep_sign_ins: section.text("keep_sign_ins", problems),
        url: section.text("url", problems),
        endpoint: section.text("endpoint", problems),
        allow_http: section.boolean("allow_http", problems),
        tls_ca_file: section.text("tls_ca_file", problems),
        region: section.text("region", problems),
        access_key_id: section.text("access_key_id", problems),
        secret_access_key_file: section.text("secret_access_key_file", problems),
        role_arn: section.text("role_arn", problems),
        web_identity_token_file: section.text("web_identity_token_file", problems),
        account: section.text("account", problems),
        account_key_file: section.text("account_key_file", problems),
        client_id: section.text("client_id", problems),
        tenant_id: section.text("tenant_id", problems),
        federated_token_file: section.text("federated_token_file", problems),
        service_account_file: section.text("service_account_file", problems),
        present: Present::default(),
    };
    let archive = WrittenArchive { present: section.present.clone(), ..archive };
    section.end(problems);
    archive
}

fn log_section(log: &mut Section<'_>, problems: &mut Problems) -> WrittenLog {
    let security = log.section("security", "[log.security]", problems).map(|mut section| {
        let security = WrittenSecurity {
            tls: section.boolean("tls", problems),
            tls_ca_file: section.text("tls_ca_file", problems),
            sasl_mechanism: section.text("sasl_mechanism", problems),
            username: section.text("username", problems),
            password_file: section.text("password_file", problems),
            token_endpoint: section.text("token_endpoint", problems),
            client_id: section.text("client_id", problems),
            client_secret_file: section.text("client_secret_file", problems),
            scope: section.text("scope", problems),
            offset: section.offset,
            present: Present::default(),
        };
        let security = WrittenSecurity { present: section.present.clone(), ..security };
        section.end(problems);
        security
    });
    let options = log.section("options", "[log.options]", problems).map(|section| section.all(problems));
    let written = WrittenLog {
        kind: log.text("kind", problems),
        brokers: log.texts("brokers", problems),
        prefix: log.text("prefix", problems),
        partitions: log.integer("partitions", problems),
        replication: log.integer("replication", problems),
        keep: log.text("keep", problems),
        security: security.unwrap_or_default(),
        options: options.unwrap_or_default(),
        present: Present::default(),
    };
    WrittenLog { present: log.present.clone(), ..written }
}

fn tenant(mut section: Section<'_>, problems: &mut Problems) -> WrittenTenant {
    let endpoints = section.section("endpoints", "[tenant.endpoints]", problems).map(|mut section| {
        let endpoints = WrittenEndpoints {
            login: section.text("login", problems),
            management: section.text("management", problems),
            graph: section.text("graph", problems),
            exchange: section.text("exchange", problems),
            reporting: section.text("reporting", problems),
        };
        section.end(problems);
        endpoints
    });
    let tenant = WrittenTenant {
        offset: section.offset,
        present: Present::default(),
        name: section.text("name", problems),
        tenant_id: section.text("tenant_id", problems),
        cloud: section.text("cloud", problems),
        client_id: section.text("client_id", problems),
        domains: section.texts("domains", problems),
        client_secret_file: section.text("client_secret_file", problems),
        client_certificate_file: section.text("client_certificate_file", problems),
        client_key_file: section.text("client_key_file", problems),
        client_assertion_algorithm: section.text("client_assertion_algorithm", problems),
        federated_token_file: section.text("federated_token_file", problems),
        content_types: section.texts("content_types", problems),
        publisher_id: section.text("publisher_id", problems),
        endpoints,
    };
    let tenant = WrittenTenant { present: section.present.clone(), ..tenant };
    section.end(problems);
    tenant
}

fn hold(mut section: Section<'_>, problems: &mut Problems) -> WrittenHold {
    let hold = WrittenHold {
        offset: section.offset,
        present: Present::default(),
        tenant: section.text("tenant", problems),
        from: section.text("from", problems),
        until: section.text("until", problems),
        reason: section.text("reason", problems),
    };
    let hold = WrittenHold { present: section.present.clone(), ..hold };
    section.end(problems);
    hold
}

fn sink(mut section: Section<'_>, problems: &mut Problems) -> WrittenSink {
    let sink = WrittenSink {
        offset: section.offset,
        present: Present::default(),
        name: section.text("name", problems),
        kind: section.text("kind", problems),
        url_file: section.text("url_file", problems),
        signing_secret_file: section.text("signing_secret_file", problems),
        allow_private_addresses: section.boolean("allow_private_addresses", problems),
        path: section.text("path", problems),
        min_level: section.text("min_level", problems),
        max_age: section.text("max_age", problems),
        archive_heads: section.boolean("archive_heads", problems),
    };
    let sink = WrittenSink { present: section.present.clone(), ..sink };
    section.end(problems);
    sink
}

/// A table of the file. Keys are taken out one after the other; what is left at the end is unknown.
struct Section<'t> {
    title: &'static str,
    offset: usize,
    entries: Vec<(Spanned<toml::de::DeString<'t>>, Spanned<DeValue<'t>>)>,
    known: Vec<&'static str>,
    present: Present,
}

impl<'t> Section<'t> {
    fn new(title: &'static str, offset: usize, table: DeTable<'t>) -> Section<'t> {
        Section { title, offset, entries: table.into_iter().collect(), known: Vec::new(), present: Present::default() }
    }

    fn take(&mut self, key: &'static str) -> Option<Spanned<DeValue<'t>>> {
        self.known.push(key);
        let at = self.entries.iter().position(|(name, _)| name.get_ref() == key)?;
        let (name, value) = self.entries.swap_remove(at);
        self.present.0.push((key, name.span().start));
        Some(value)
    }

    fn text(&mut self, key: &'static str, problems: &mut Problems) -> Text {
        self.take(key).and_then(|value| text(key, value, problems))
    }

    fn texts(&mut self, key: &'static str, problems: &mut Problems) -> Texts {
        let value = self.take(key)?;
        let offset = value.span().start;
        match value.into_inner() {
            DeValue::Array(values) => Some(values.into_iter().filter_map(|value| text(key, value, problems)).collect()),
            other => wrong_type(key, "a list of texts", &other, offset, problems),
        }
    }

    fn integer(&mut self, key: &'static str, problems: &mut Problems) -> Option<Placed<i64>> {
        let value = self.take(key)?;
        let offset = value.span().start;
        match value.into_inner() {
            // A number beyond 64 bits becomes the largest, which is out of every range.
            DeValue::Integer(number) => {
                let value = i64::from_str_radix(number.as_str(), number.radix()).unwrap_or(i64::MAX);
                Some(Placed { value, offset })
            }
            other => wrong_type(key, "a whole number", &other, offset, problems),
        }
    }

    fn boolean(&mut self, key: &'static str, problems: &mut Problems) -> Option<Placed<bool>> {
        let value = self.take(key)?;
        let offset = value.span().start;
        match value.into_inner() {
            DeValue::Boolean(value) => Some(Placed { value, offset }),
            other => wrong_type(key, "true or false", &other, offset, problems),
        }
    }

    fn section(&mut self, key: &'static str, title: &'static str, problems: &mut Problems) -> Option<Section<'t>> {
        let value = self.take(key)?;
        let offset = value.span().start;
        match value.into_inner() {
            DeValue::Table(table) => Some(Section::new(title, offset, table)),
            other => wrong_type(key, title, &other, offset, problems),
        }
    }

    fn sections(&mut self, key: &'static str, title: &'static str, problems: &mut Problems) -> Vec<Section<'t>> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let offset = value.span().start;
        let DeValue::Array(values) = value.into_inner() else {
            problems.add(offset, Problem::WrongType { key: key.into(), expected: title, found: "a single table" });
            return Vec::new();
        };
        let section = |value: Spanned<DeValue<'t>>| {
            let offset = value.span().start;
            match value.into_inner() {
                DeValue::Table(table) => Some(Section::new(title, offset, table)),
                other => wrong_type(key, title, &other, offset, problems),
            }
        };
        values.into_iter().filter_map(section).collect()
    }

    /// Every key with its value as text: for a section whose keys are somebody else's.
    fn all(self, problems: &mut Problems) -> Vec<(Placed<String>, Placed<String>)> {
        let mut all = Vec::with_capacity(self.entries.len());
        for (name, value) in self.entries {
            let key = Placed { offset: name.span().start, value: name.into_inner().into_owned() };
            all.extend(text("options", value, problems).map(|value| (key, value)));
        }
        all.sort_by(|(one, _), (other, _)| one.value.cmp(&other.value));
        all
    }

    /// The one key of a section that has no other.
    fn only_text(
        &mut self,
        name: &'static str,
        title: &'static str,
        key: &'static str,
        problems: &mut Problems,
    ) -> Text {
        let mut section = self.section(name, title, problems)?;
        let text = section.text(key, problems);
        section.end(problems);
        text
    }

    fn end(self, problems: &mut Problems) {
        for (name, _) in self.entries {
            let offset = name.span().start;
            let key = name.into_inner();
            let in_file = format!("{key}_file");
            let problem = match self.known.iter().find(|known| **known == in_file) {
                Some(instead) => Problem::SecretInText { key: shown(&key), instead },
                None => Problem::UnknownKey {
                    section: self.title,
                    nearest: nearest(&key, &self.known),
                    key: shown(&key),
                    known: self.known.clone(),
                },
            };
            problems.add(offset, problem);
        }
    }
}

fn text(key: &'static str, value: Spanned<DeValue<'_>>, problems: &mut Problems) -> Text {
    let offset = value.span().start;
    match value.into_inner() {
        // Refused and not passed on as it is: somebody believes that it will be expanded.
        DeValue::String(value) if value.contains("${") => {
            problems.add(offset, Problem::Invalid { key, reason: InvalidValue::Variable.into() });
            None
        }
        DeValue::String(value) => Some(Placed { value: value.into_owned(), offset }),
        other => wrong_type(key, "a text in quotes", &other, offset, problems),
    }
}

fn wrong_type<T>(
    key: &'static str,
    expected: &'static str,
    found: &DeValue<'_>,
    offset: usize,
    problems: &mut Problems,
) -> Option<T> {
    let found = match found {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    problems.add(offset, Problem::WrongType { key: key.into(), expected, found });
    None
}
