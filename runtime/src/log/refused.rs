//! What only an operator can change: each names the thing, what it is and what it should be.

/// Why Kafka, as it is set, cannot be the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    #[error(
        "the brokers refuse the sign-in ({reason}): check `sasl_mechanism` in [log.security], and `username` and `password_file` or `client_id` and `client_secret_file`"
    )]
    SignIn { reason: String },
    #[error("TLS with the brokers fails ({reason}): check `tls_ca_file` in [log.security] and the name in `brokers`")]
    Tls { reason: String },
    #[error(
        "Kafka does not permit {what}; harrier needs Read, Write, Describe, DescribeConfigs and Delete on its topics (Create where they do not exist), \
         Read on its groups, and Write on its transactional ids, all of which begin with `prefix`"
    )]
    Rights { what: String },
    #[error(
        "the topic {topic} has {found} partitions, but the configuration says `partitions = {wanted}`, and a log keeps its partitions"
    )]
    Partitions { topic: String, found: usize, wanted: u32 },
    #[error("the topic {topic} has {setting} = {found}; harrier needs {wanted}")]
    Setting { topic: String, setting: &'static str, found: String, wanted: String },
    #[error("there are too few brokers for `replication = {wanted}`: {reason}")]
    TooFewBrokers { wanted: u16, reason: String },
    #[error("the topic {topic} has {found} replicas a partition, but the configuration says `replication = {wanted}`")]
    Replicas { topic: String, found: usize, wanted: u16 },
    #[error(
        "a message of {bytes} bytes is larger than Kafka takes: raise max.message.bytes of the topic, or message.max.bytes of the brokers"
    )]
    TooLarge { bytes: usize },
    #[error("the option {key} in [log.options] {reason}")]
    Option { key: String, reason: String },
    #[error("{0}")]
    File(String),
}
