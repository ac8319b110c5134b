//! Which settings of librdkafka an operator may not pass on: those that would break a guarantee, load code, or hold a
//! secret.

/// Settings that would break a guarantee, load code, or hold a secret; with what there is instead.
pub(crate) const DENIED: &[(&str, &str)] = &[
    ("bootstrap.servers", "has a key of its own: `brokers`"),
    ("metadata.broker.list", "has a key of its own: `brokers`"),
    ("security.protocol", "follows from [log.security]"),
    ("sasl.mechanism", "has a key of its own: `sasl_mechanism` in [log.security]"),
    ("sasl.mechanisms", "has a key of its own: `sasl_mechanism` in [log.security]"),
    ("sasl.username", "has a key of its own: `username` in [log.security]"),
    ("sasl.password", "is a secret: use `password_file` in [log.security]"),
    ("sasl.oauthbearer.method", "is not needed: harrier fetches tokens itself, see [log.security]"),
    ("sasl.oauthbearer.client.secret", "is a secret: use `client_secret_file` in [log.security]"),
    ("sasl.oauthbearer.client.credentials.client.secret", "is a secret: use `client_secret_file` in [log.security]"),
    ("sasl.oauthbearer.assertion.private.key.passphrase", "is a secret, which this file must not hold"),
    ("sasl.oauthbearer.assertion.private.key.pem", "is a secret, which this file must not hold"),
    ("enable.sasl.oauthbearer.unsecure.jwt", "would sign in with a token that anybody can write"),
    ("ssl.key.password", "is a secret, which this file must not hold"),
    ("ssl.key.pem", "is a secret: use ssl.key.location"),
    ("ssl.keystore.password", "is a secret, which this file must not hold"),
    ("ssl.ca.location", "has a key of its own: `tls_ca_file` in [log.security]"),
    ("enable.ssl.certificate.verification", "must stay on"),
    ("ssl.endpoint.identification.algorithm", "must stay on"),
    ("plugin.library.paths", "would load code"),
    ("transactional.id", "is what fences a process that was overtaken"),
    ("enable.idempotence", "must stay on: nothing is to be written twice"),
    ("acks", "must stay `all`: what is acknowledged must not be lost"),
    ("request.required.acks", "must stay `all`: what is acknowledged must not be lost"),
    ("max.in.flight", "is set by what keeps the order"),
    ("max.in.flight.requests.per.connection", "is set by what keeps the order"),
    ("isolation.level", "must stay read_committed"),
    ("group.id", "is what decides who works on what"),
    ("group.instance.id", "would give two processes one name"),
    ("group.protocol", "is set by what harrier was tested with"),
    ("partition.assignment.strategy", "is set by what harrier was tested with"),
    ("enable.auto.commit", "must stay off: positions move with their effects"),
    ("auto.commit.interval.ms", "must stay off: positions move with their effects"),
    ("enable.auto.offset.store", "must stay off: positions move with their effects"),
    ("auto.offset.reset", "must stay `error`: a gap is never jumped over"),
    ("enable.partition.eof", "is what tells the end of a partition"),
    ("allow.auto.create.topics", "must stay off: topics need settings of their own"),
    ("partitioner", "is never asked: harrier names the partition of every message"),
    ("message.max.bytes", "is set by the largest record"),
    ("receive.message.max.bytes", "is set by the largest record"),
    ("fetch.max.bytes", "is set by the largest record"),
    ("max.poll.interval.ms", "is not what bounds a step"),
    ("test.mock.num.brokers", "would be no broker at all"),
];

/// Whether an option may be passed on; if not, why.
pub fn refusal(key: &str) -> Option<&'static str> {
    DENIED.iter().find(|(denied, _)| *denied == key).map(|(_, reason)| *reason)
}
