//! What librdkafka reports, as errors that say whose fault it is and whether to try again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::admin::AdminClient;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::settings::Settings;
use super::token::{NO_ANSWER, Tokens};
use crate::log::{LogError, Refused};

/// Events of one client that are taken note of between two questions.
pub(super) const EVENTS_AT_ONCE: u32 = 20;

/// What the clients of one log were told in the background. A call that waits in vain does not say why; this does.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    heard: Arc<Mutex<Heard>>,
    /// Where the sign-in takes tokens.
    tokens: Option<Arc<Tokens>>,
}

#[derive(Debug, Default)]
struct Heard {
    refused: Option<Refused>,
    last: Option<String>,
}

impl Faults {
    pub(super) fn new(settings: &Settings) -> Faults {
        let tokens = Tokens::of(settings.security.sasl.as_ref()).map(Arc::new);
        Faults { heard: Arc::default(), tokens }
    }

    /// Answers a client that asks for a token.
    pub(super) fn token(&self) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        let tokens = self.tokens.as_ref().ok_or("no token is configured")?;
        Ok(tokens.token()?)
    }

    /// Gives a client that nobody can poll its token.
    pub(super) fn provide(&self, admin: &AdminClient<Faults>) -> Result<(), LogError> {
        if self.tokens.is_none() {
            return Ok(());
        }
        let refused = |reason: String| LogError::from(Refused::SignIn { reason });
        let token = self.token().map_err(|error| match error.to_string() {
            reason if reason.contains(NO_ANSWER) => LogError::Broker(reason),
            reason => refused(reason),
        })?;
        kafka_token::set_token(admin.inner(), &token).map_err(refused)
    }

    /// Lets a client that nobody polls ask for its token. To be called before each question to it.
    pub(super) fn serve<C: ConsumerContext>(&self, consumer: &BaseConsumer<C>) {
        for _ in 0..if self.tokens.is_some() { EVENTS_AT_ONCE } else { 0 } {
            consumer.poll(Duration::ZERO);
        }
    }

    /// What an operator has to change, if that has become clear.
    pub(super) fn refused(&self) -> Option<Refused> {
        self.lock().refused.clone()
    }

    /// The last thing that went wrong, for a message.
    pub(super) fn last(&self) -> Option<String> {
        self.lock().last.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Faults {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.token()
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(event = "librdkafka", ?level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(event = "kafka_fault", error = %error, reason);
        let mut heard = self.lock();
        match error.rdkafka_error_code() {
            // librdkafka asks again after ten seconds.
            _ if reason.contains(NO_ANSWER) => heard.last = Some(short(reason)),
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) => {
                heard.refused = Some(Refused::SignIn { reason: short(reason) });
            }
            // A broker that is just stopping breaks handshakes off as well: only what says more is taken for a setting.
            _ if reason.contains("certificate") || reason.contains("PLAINTEXT broker listener") => {
                heard.refused = Some(Refused::Tls { reason: short(reason) });
            }
            Some(RDKafkaErrorCode::SSL) => heard.refused = Some(Refused::Tls { reason: short(reason) }),
            // Said after each of the brokers has said its own.
            Some(RDKafkaErrorCode::AllBrokersDown) => {}
            _ => heard.last = Some(short(reason)),
        }
    }
}

impl ConsumerContext for Faults {}

/// librdkafka begins with the broker's address and ends with how often and how long; the middle is what happened.
fn short(reason: &str) -> String {
    let middle = reason.split_once(": ").map_or(reason, |(_, rest)| rest);
    middle.split(" (after ").next().unwrap_or(middle).trim().to_owned()
}

/// The error of the log that an error of librdkafka is. `doing` completes "Kafka does not permit".
pub(super) fn fault(error: &KafkaError, doing: &str) -> LogError {
    match error.rdkafka_error_code() {
        Some(code) => of_code(code, doing).unwrap_or_else(|| LogError::Broker(format!("{doing}: {}", told(error)))),
        None => match error {
            KafkaError::ClientConfig(_, reason, key, _) => {
                Refused::Option { key: key.clone(), reason: format!("is not one that librdkafka takes: {reason}") }
                    .into()
            }
            KafkaError::ClientCreation(reason) if reason.contains("ssl") => {
                Refused::Tls { reason: reason.clone() }.into()
            }
            _ => LogError::Broker(format!("{doing}: {error}")),
        },
    }
}

/// As [`fault`], for a code by itself; nothing for codes that may pass.
pub(super) fn of_code(code: RDKafkaErrorCode, doing: &str) -> Option<LogError> {
    use RDKafkaErrorCode as Code;
    Some(match code {
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed => Refused::Rights { what: doing.to_owned() }.into(),
        Code::Authentication | Code::SaslAuthenticationFailed => Refused::SignIn { reason: code.to_string() }.into(),
        Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend => LogError::Broker(
            "fewer replicas are in sync than min.insync.replicas asks for: a broker is down or behind".to_owned(),
        ),
        _ => return None,
    })
}

/// What a transaction was told, which says more than its code.
fn told(error: &KafkaError) -> String {
    match error {
        KafkaError::Transaction(error) => error.string(),
        _ => error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| code.to_string()),
    }
}

/// Whether librdkafka, or a second question, gets over it without anybody's help: leaders move, topics are new.
pub(super) fn is_passing(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::BrokerTransportFailure
                | Code::AllBrokersDown
                | Code::OperationTimedOut
                | Code::NotLeaderForPartition
                | Code::LeaderNotAvailable
                | Code::UnknownTopicOrPartition
                | Code::UnknownPartition
                | Code::DestroyBroker
                | Code::OffsetNotAvailable
        )
    )
}

/// How long one question for the bounds of a partition may take.
const ASK: Duration = Duration::from_secs(10);

/// How long it is asked again. A broker that is busy shows topics some time before it has made them.
const ASKED_FOR: Duration = Duration::from_secs(30);

const ASK_AGAIN: Duration = Duration::from_millis(20);

/// Where a partition begins and ends, as the consumer sees it: what is not decided yet is beyond the end for one who
/// reads what is committed.
///
/// A client asks the broker that it takes for the leader. One that has seen the partition without a leader, and reads
/// nothing of it, would believe for up to fifteen minutes that there is none: so it is made to look.
pub(super) fn bounds(consumer: &BaseConsumer<Faults>, topic: &str, partition: u32) -> Result<(u64, u64), LogError> {
    let began = Instant::now();
    loop {
        consumer.context().serve(consumer);
        match consumer.fetch_watermarks(topic, partition as i32, ASK) {
            Ok((begins, end)) => return Ok((begins.max(0) as u64, end.max(0) as u64)),
            Err(error) if is_passing(&error) && began.elapsed() < ASKED_FOR => {
                std::thread::sleep(ASK_AGAIN);
                if let Err(error) = consumer.fetch_metadata(Some(topic), ASK) {
                    tracing::debug!(event = "metadata_not_had", topic, error = %error);
                }
            }
            Err(error) => return Err(fault(&error, &format!("to read the topic {topic}"))),
        }
    }
}
