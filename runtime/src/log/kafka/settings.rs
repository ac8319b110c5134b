//! How the brokers are reached, and which settings of librdkafka an operator may not touch.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::config::Secret;
use crate::log::Refused;
use crate::log::options::refusal;

/// Largest message. A record of 32 MiB, or a dead letter of 16 MiB that JSON has made longer, compressed. Brokers take
/// requests of at most 100 MiB (`socket.request.max.bytes`).
pub(super) const MESSAGE_BYTES_MAX: usize = 100_000_000;

/// Before compression: a dead letter of nothing but control characters is six times as long in JSON.
const MESSAGE_BYTES_UNPACKED_MAX: usize = 128 * 1024 * 1024;

/// What a cursor holds ready. A process of all roles has ten a partition.
const PREFETCH_KIBIBYTES: usize = 4 * 1024;

/// How long a broker is looked for at the start.
pub const BROKERS_WITHIN: Duration = Duration::from_secs(30);

/// How the log is reached.
#[derive(Clone, Debug)]
pub struct Settings {
    pub brokers: Vec<String>,
    /// Every topic, group and transactional id begins with it.
    pub prefix: String,
    pub partitions: u32,
    pub replication: u16,
    pub security: Security,
    /// Settings of librdkafka as they are.
    pub options: BTreeMap<String, String>,
    /// Where copies of the state lie. They are made again from the topics: nothing in it needs to be kept.
    pub cache_folder: PathBuf,
    /// How long to look for a broker at the start: brokers and harrier may have been started together.
    pub brokers_within: Duration,
}

/// How connections are protected and signed in.
#[derive(Clone, Debug, Default)]
pub struct Security {
    pub tls: bool,
    /// The authority that signed the brokers' certificates; the system's own where it is not given.
    pub tls_ca_file: Option<PathBuf>,
    pub sasl: Option<Sasl>,
}

#[derive(Clone, Debug)]
pub enum Sasl {
    /// `SCRAM-SHA-256`, `SCRAM-SHA-512` or `PLAIN`.
    Password { mechanism: String, username: String, password: Secret },
    /// `OAUTHBEARER`: see [`token`](super::token).
    Token { endpoint: String, client_id: String, client_secret: Secret, scope: Option<String> },
}

impl Sasl {
    fn set(&self, config: &mut ClientConfig) {
        match self {
            Sasl::Password { mechanism, username, password } => {
                config.set("sasl.mechanisms", mechanism);
                config.set("sasl.username", username).set("sasl.password", password.expose());
            }
            Sasl::Token { .. } => {
                config.set("sasl.mechanisms", "OAUTHBEARER");
            }
        }
    }
}

impl Settings {
    pub(super) fn name(&self, rest: &str) -> String {
        format!("{}.{rest}", self.prefix)
    }

    /// The name of a group, or the stem of a transactional id.
    pub(super) fn identity(&self, rest: &str) -> String {
        format!("{}-{rest}", self.prefix)
    }

    /// What all clients share. The operator's options come first, so that none can replace what follows.
    fn client(&self) -> Result<ClientConfig, Refused> {
        let mut config = ClientConfig::new();
        config.set("socket.keepalive.enable", "true").set("session.timeout.ms", "10000");
        config.set("heartbeat.interval.ms", "2000").set("transaction.timeout.ms", "15000");
        config.set("reconnect.backoff.max.ms", "2000");
        for (key, value) in &self.options {
            if let Some(reason) = refusal(key) {
                return Err(Refused::Option { key: key.clone(), reason: reason.to_owned() });
            }
            config.set(key, value);
        }
        config.set("bootstrap.servers", self.brokers.join(","));
        config.set("client.id", "harrier").set("allow.auto.create.topics", "false");
        config.set("message.max.bytes", MESSAGE_BYTES_UNPACKED_MAX.to_string());
        config.set(
            "security.protocol",
            match (self.security.tls, &self.security.sasl) {
                (false, None) => "plaintext",
                (true, None) => "ssl",
                (false, Some(_)) => "sasl_plaintext",
                (true, Some(_)) => "sasl_ssl",
            },
        );
        if let Some(file) = &self.security.tls_ca_file {
            config.set("ssl.ca.location", file.to_string_lossy());
        }
        if let Some(sasl) = &self.security.sasl {
            sasl.set(&mut config);
        }
        config.set_log_level(RDKafkaLogLevel::Warning);
        Ok(config)
    }

    /// A consumer that belongs to a group by name only: it reads by offset.
    pub(super) fn reading(&self) -> Result<ClientConfig, Refused> {
        let mut config = self.client()?;
        self.consuming(&mut config, &self.identity("reader"));
        // A gap must be seen, never jumped over.
        config.set("auto.offset.reset", "error").set("enable.partition.eof", "true");
        config.set("fetch.wait.max.ms", "100").set("fetch.min.bytes", "1");
        config.set("queued.max.messages.kbytes", PREFETCH_KIBIBYTES.to_string());
        Ok(config)
    }

    /// As [`Settings::reading`], for reading to the end once: the end is told at once.
    pub(super) fn replaying(&self) -> Result<ClientConfig, Refused> {
        let mut config = self.reading()?;
        config.set("fetch.wait.max.ms", "10").set("queued.max.messages.kbytes", "65536");
        Ok(config)
    }

    /// A consumer that asks where partitions end, also for what is not decided yet.
    pub(super) fn asking_undecided(&self) -> Result<ClientConfig, Refused> {
        let mut config = self.reading()?;
        config.set("isolation.level", "read_uncommitted");
        Ok(config)
    }

    /// A member of a group, or who asks how far a group has come.
    pub(super) fn member(&self, group: &str) -> Result<ClientConfig, Refused> {
        let mut config = self.client()?;
        self.consuming(&mut config, group);
        config.set("partition.assignment.strategy", "cooperative-sticky");
        // Members fetch nothing; where nothing was committed there is nothing to be reset.
        config.set("auto.offset.reset", "latest").set("queued.min.messages", "1");
        Ok(config)
    }

    fn consuming(&self, config: &mut ClientConfig, group: &str) {
        config.set("group.id", group).set("isolation.level", "read_committed");
        config.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
        config.set("fetch.max.bytes", MESSAGE_BYTES_UNPACKED_MAX.to_string());
        config.set("receive.message.max.bytes", (MESSAGE_BYTES_UNPACKED_MAX + 16 * 1024 * 1024).to_string());
    }

    /// Who writes. No two processes may ever use one `transactional_id` at a time: the later fences the earlier.
    pub(super) fn producing(&self, transactional_id: &str) -> Result<ClientConfig, Refused> {
        let mut config = self.client()?;
        if !self.options.contains_key("compression.type") {
            config.set("compression.type", "zstd").set("compression.level", "1");
        }
        if !self.options.contains_key("linger.ms") {
            // A step is flushed as a whole: waiting for more only delays it.
            config.set("linger.ms", "1");
        }
        config.set("transactional.id", transactional_id).set("enable.idempotence", "true").set("acks", "all");
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::options::DENIED;

    #[test]
    fn an_option_cannot_take_away_a_guarantee() {
        let mut settings = Settings {
            brokers: vec!["127.0.0.1:1".into()],
            prefix: "harrier".into(),
            partitions: 1,
            replication: 1,
            security: Security::default(),
            options: BTreeMap::from([("linger.ms".into(), "7".into())]),
            cache_folder: PathBuf::new(),
            brokers_within: BROKERS_WITHIN,
        };
        assert_eq!(settings.producing("x").unwrap().get("linger.ms"), Some("7"));
        for (key, _) in DENIED {
            settings.options = BTreeMap::from([((*key).to_owned(), "0".to_owned())]);
            assert!(matches!(settings.reading(), Err(Refused::Option { .. })), "{key}");
        }
    }
}
