//! What only Kafka can do wrong.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use runtime::config::Secret;
use runtime::log::kafka::{Kafka, Sasl, Security, Settings};
use runtime::log::{Consumer, Input, Log, LogError, Output, ReadLimit, Refused, Store, To, Topic, Txn};

use super::{PARTITIONS, broker, outputs, texts, to};

/// Settings for a log that no other test has.
pub fn settings(name: &str) -> Option<Settings> {
    let broker = broker::broker()?;
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    // Short sessions: whoever is gone is replaced soon.
    let options = [("session.timeout.ms", "3000"), ("heartbeat.interval.ms", "300")];
    Some(Settings {
        brokers: broker.addresses.clone(),
        prefix: format!("{}-{}", &name[..name.len().min(30)], since.as_nanos()),
        partitions: PARTITIONS,
        replication: 1,
        security: Security::default(),
        options: options.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        cache_folder: PathBuf::new(),
        brokers_within: Duration::from_secs(10),
    })
}

pub async fn open(settings: Settings) -> Result<Kafka, LogError> {
    tokio::task::spawn_blocking(move || Kafka::open(settings)).await.unwrap()
}

async fn refused(settings: Settings) -> String {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { cache_folder: folder.path().to_owned(), ..settings };
    match open(settings).await {
        Err(error) => error.to_string(),
        Ok(_) => "opened".to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_aborted_is_never_read() {
    let Some(settings) = settings("aborted") else { return };
    let folder = tempfile::tempdir().unwrap();
    let log = open(Settings { cache_folder: folder.path().to_owned(), ..settings.clone() }).await.unwrap();
    log.commit(outputs(vec![to(0, "before")])).await.unwrap();
    alter(&settings.brokers, &format!("{}.records", settings.prefix), "max.message.bytes", "1000000").await;
    // Noise that no compression makes small enough: the last message of the step is refused.
    let mut noise = vec![0_u8; 2_000_000];
    let mut state = 1_u64;
    for byte in &mut noise {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *byte = (state >> 56) as u8;
    }
    let noisy = |mut outputs: Vec<Output>| {
        outputs.push(Output { value: noise.clone(), ..to(1, "") });
        super::outputs(outputs)
    };
    // The setting takes its time to reach the broker's log.
    while log.commit(noisy(Vec::new())).await.is_ok() {}
    let error = log.commit(noisy(vec![to(0, "aborted"), to(1, "aborted")])).await.unwrap_err();
    assert!(matches!(error, LogError::Refused(Refused::TooLarge { bytes: 2_000_000 })), "{error}");
    log.commit(outputs(vec![to(0, "after")])).await.unwrap();
    assert_eq!(texts(&log, Topic::Records, 0).await, ["before", "after"]);
    log.settle().await.unwrap();
    let others = log.read(Topic::Records, 1, 0, ReadLimit { messages: 1000, bytes: 1 << 30 }).await.unwrap();
    assert!(others.iter().all(|message| message.value == noise));
}

/// The group has not noticed yet that this process was overtaken, so nothing but the broker stands in the way.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_fenced_changes_nothing_though_it_believes_in_its_lease() {
    use rdkafka::producer::{BaseProducer, Producer as _};
    let Some(settings) = settings("fenced") else { return };
    let (folder, other_folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let log = open(Settings { cache_folder: folder.path().to_owned(), ..settings.clone() }).await.unwrap();
    log.commit(outputs(vec![to(0, "a"), to(0, "b")])).await.unwrap();
    let lease = super::lease(Consumer::Match, 0, "zombie");
    super::hold(&log, &lease).await;
    let (first, second) = (super::after(&log, 1).await, super::after(&log, 2).await);
    let step = |from, next, text: &str| Txn {
        inputs: vec![super::input(from, next)],
        outputs: vec![Output { topic: Topic::Verdicts, to: To::Partition(0), value: text.as_bytes().to_vec() }],
        state: vec![super::row(b"k", Some(text.as_bytes()))],
        lease: None,
    };
    log.commit(step(0, first, "before")).await.unwrap();
    let successor: BaseProducer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", settings.brokers.join(","))
        .set("transactional.id", format!("{}-match-0", settings.prefix))
        .create()
        .unwrap();
    tokio::task::spawn_blocking(move || successor.init_transactions(Duration::from_secs(30)).unwrap()).await.unwrap();
    let refused = log.commit(step(first, second, "of the zombie")).await.unwrap_err();
    assert!(matches!(refused, LogError::LeaseLost { .. }), "{refused}");
    assert_eq!(texts(&log, Topic::Verdicts, 0).await, ["before"]);
    // What its holder has in memory is out of date, which it is told before it may go on.
    assert!(!log.acquire(&lease, Duration::from_secs(30)).await.unwrap());
    super::hold(&log, &lease).await;
    assert_eq!(log.scan(Store::Admit, 0, b"k").await.unwrap()[0].1, b"before");
    assert_eq!(log.committed(Consumer::Match, Topic::Records, 0).await.unwrap(), first);
    log.commit(step(first, second, "after")).await.unwrap();
    let other = open(Settings { cache_folder: other_folder.path().to_owned(), ..settings }).await.unwrap();
    assert_eq!(texts(&other, Topic::Verdicts, 0).await, ["before", "after"]);
    assert_eq!(other.committed(Consumer::Match, Topic::Records, 0).await.unwrap(), second);
}

/// Kafka forgets where a group stood once it has been silent for a week. We do not.
#[tokio::test(flavor = "multi_thread")]
async fn positions_outlive_what_kafka_remembers_of_the_group() {
    use rdkafka::admin::{AdminClient, AdminOptions};
    let Some(settings) = settings("forgotten") else { return };
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { cache_folder: folder.path().to_owned(), ..settings };
    let next = {
        let log = open(settings.clone()).await.unwrap();
        log.commit(outputs(vec![to(0, "a")])).await.unwrap();
        super::hold(&log, &super::lease(Consumer::Match, 0, "one")).await;
        let next = super::after(&log, 1).await;
        log.commit(Txn { inputs: vec![super::input(0, next)], ..Txn::default() }).await.unwrap();
        log.release(&super::lease(Consumer::Match, 0, "one")).await.unwrap();
        next
    };
    let admin: AdminClient<rdkafka::client::DefaultClientContext> =
        rdkafka::ClientConfig::new().set("bootstrap.servers", settings.brokers.join(",")).create().unwrap();
    let group = format!("{}-match", settings.prefix);
    // A group that somebody is still leaving is not empty yet.
    let began = std::time::Instant::now();
    while admin.delete_groups(&[&group], &AdminOptions::new()).await.unwrap()[0].is_err() {
        assert!(began.elapsed() < super::PATIENCE);
    }
    let log = open(settings).await.unwrap();
    assert_eq!(log.committed(Consumer::Match, Topic::Records, 0).await.unwrap(), next);
    super::hold(&log, &super::lease(Consumer::Match, 0, "two")).await;
    assert_eq!(log.committed(Consumer::Match, Topic::Records, 0).await.unwrap(), next);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_and_started_again_loses_and_doubles_nothing() {
    if broker::broker().is_none() {
        return;
    }
    let broker = tokio::task::spawn_blocking(|| broker::start("killed").unwrap()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let settings = settings("killed").unwrap();
    let settings = Settings { brokers: broker.addresses.clone(), cache_folder: folder.path().to_owned(), ..settings };
    let log = open(settings).await.unwrap();
    let expected: Vec<String> = (0..60).map(|n| n.to_string()).collect();
    let lease = super::lease(Consumer::Archive, 0, "one");
    super::hold(&log, &lease).await;
    let breaking = tokio::task::spawn_blocking(move || {
        for _ in 0..2 {
            broker.kill(1);
            broker.restart(1);
        }
        broker
    });
    let mut at = 0;
    while at < expected.len() {
        // Where it stands is kept with the step, so that it is known also after a step of which nobody knows.
        let step = Txn {
            inputs: vec![Input {
                consumer: Consumer::Archive,
                topic: Topic::Coverage,
                partition: 0,
                from: at as u64,
                next: at as u64 + 1,
            }],
            outputs: vec![to(0, &expected[at])],
            ..Txn::default()
        };
        match log.commit(step).await {
            Ok(_) => at += 1,
            Err(error) => {
                assert!(error.retryable() || error.must_reload(), "{error}");
                let began = std::time::Instant::now();
                while !log.acquire(&lease, Duration::from_secs(30)).await.is_ok_and(|held| held) {
                    assert!(began.elapsed() < 2 * super::PATIENCE, "{error}");
                }
                at = log.committed(Consumer::Archive, Topic::Coverage, 0).await.unwrap() as usize;
            }
        }
    }
    let _broker = breaking.await.unwrap();
    assert_eq!(texts(&log, Topic::Records, 0).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_opens_with_the_right_authority_and_with_no_other() {
    let Some(settings) = settings("tls") else { return };
    let broker = broker::broker().unwrap();
    let secure = |tls_ca_file| Settings {
        brokers: broker.addresses_tls.clone(),
        security: Security { tls: true, tls_ca_file, sasl: None },
        ..settings.clone()
    };
    assert_eq!(refused(secure(Some(broker.ca_file()))).await, "opened");
    let message = refused(secure(None)).await;
    assert!(message.contains("TLS with the brokers fails") && message.contains("tls_ca_file"), "{message}");
}

/// `{"alg":"none"}`, `{"sub":"harrier","iat":1700000000,"exp":4102444800}` and no signature: what a broker for
/// development takes.
const TOKEN: &str = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJoYXJyaWVyIiwiaWF0IjoxNzAwMDAwMDAwLCJleHAiOjQxMDI0NDQ4MDB9.";

/// An authority that has one token for whoever knows its secret.
fn token_endpoint() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let mut request = vec![0; 8192];
            let read = connection.read(&mut request).unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..read]).to_lowercase();
            // "harrier:hunting" in Basic authentication.
            let known = request.contains("authorization: basic agfycmllcjpodw50aw5n");
            let (status, body) = match known {
                true => ("200 OK", format!(r#"{{"access_token":"{TOKEN}","token_type":"Bearer","expires_in":3600}}"#)),
                false => ("401 Unauthorized", r#"{"error":"invalid_client"}"#.to_owned()),
            };
            let length = body.len();
            // A client that has gone is no concern of this one's.
            let _ = write!(
                connection,
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
        }
    });
    format!("http://{address}/token")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_signs_in_and_a_wrong_secret_is_said() {
    let Some(settings) = settings("token") else { return };
    let endpoint = token_endpoint();
    let with = |secret: &str| {
        let (endpoint, client_id, client_secret) = (endpoint.clone(), "harrier".into(), Secret::new(secret));
        let sasl = Some(Sasl::Token { endpoint, client_id, client_secret, scope: None });
        Settings {
            brokers: broker::broker().unwrap().addresses_sasl.clone(),
            security: Security { sasl, ..Security::default() },
            brokers_within: Duration::from_secs(20),
            ..settings.clone()
        }
    };
    assert_eq!(refused(with("hunting")).await, "opened");
    let message = refused(with("wrong")).await;
    assert!(message.contains("refuse the sign-in") && message.contains("client_secret_file"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_must_change_is_said_in_one_line() {
    let Some(good) = settings("refused") else { return };
    let sasl = |username: &str, password: &str| Settings {
        brokers: broker::broker().unwrap().addresses_sasl.clone(),
        security: Security {
            sasl: Some(Sasl::Password {
                mechanism: "SCRAM-SHA-256".into(),
                username: username.into(),
                password: Secret::new(password),
            }),
            ..Security::default()
        },
        ..good.clone()
    };
    let nobody =
        Settings { brokers: vec!["127.0.0.1:1".into()], brokers_within: Duration::from_secs(1), ..good.clone() };
    let message = refused(nobody).await;
    assert!(message.contains("no broker of 127.0.0.1:1 answers") && message.contains("refused"), "{message}");

    let message = refused(sasl("harrier", "wrong")).await;
    assert!(message.contains("refuse the sign-in") && message.contains("password_file"), "{message}");
    let message = refused(sasl("stranger", "strange")).await;
    assert!(message.contains("does not permit"), "{message}");
    assert_eq!(refused(sasl("harrier", "hunting")).await, "opened");

    let message = refused(Settings { partitions: PARTITIONS + 1, ..good.clone() }).await;
    assert!(message.contains("has 2 partitions") && message.contains("`partitions = 3`"), "{message}");
    let prefix = format!("{}-x", good.prefix);
    let message = refused(Settings { replication: 3, prefix: prefix.clone(), ..good.clone() }).await;
    assert!(message.contains("too few brokers for `replication = 3`"), "{message}");

    let tls = Settings { security: Security { tls: true, ..Security::default() }, ..good.clone() };
    let message = refused(Settings { brokers_within: Duration::from_secs(5), ..tls }).await;
    assert!(message.contains("TLS"), "{message}");
    for (setting, value, expected) in [
        ("max.message.bytes", "1000000", "max.message.bytes = 1000000; harrier needs at least 100000000"),
        ("cleanup.policy", "compact", "cleanup.policy = compact; harrier needs delete"),
        ("retention.ms", "604800000", "retention.ms = 604800000; harrier needs -1"),
    ] {
        let prefix = format!("{}-{}", good.prefix, setting.replace('.', "-"));
        create(&good.brokers, &format!("{prefix}.records"), setting, value).await;
        let message = refused(Settings { prefix, ..good.clone() }).await;
        assert!(message.contains(expected), "{message}");
        assert!(!message.contains('\n'));
    }
    let options = BTreeMap::from([("acks".to_owned(), "1".to_owned())]);
    let message = refused(Settings { options, ..good.clone() }).await;
    assert!(message.contains("acks") && message.contains("must stay `all`"), "{message}");
    let options = BTreeMap::from([("no.such.thing".to_owned(), "1".to_owned())]);
    let message = refused(Settings { options, ..good }).await;
    assert!(message.contains("no.such.thing"), "{message}");
}

/// Changes a topic as somebody else would.
async fn alter(brokers: &[String], name: &str, setting: &str, value: &str) {
    use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
    let admin: AdminClient<rdkafka::client::DefaultClientContext> =
        rdkafka::ClientConfig::new().set("bootstrap.servers", brokers.join(",")).create().unwrap();
    let change = AlterConfig::new(ResourceSpecifier::Topic(name)).set(setting, value);
    let altered = admin.alter_configs([&change], &AdminOptions::new()).await.unwrap();
    altered.into_iter().for_each(|altered| drop(altered.unwrap()));
}

/// Makes a topic as somebody else would.
async fn create(brokers: &[String], name: &str, setting: &str, value: &str) {
    use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
    let admin: AdminClient<rdkafka::client::DefaultClientContext> =
        rdkafka::ClientConfig::new().set("bootstrap.servers", brokers.join(",")).create().unwrap();
    let mut topic = NewTopic::new(name, PARTITIONS as i32, TopicReplication::Fixed(1))
        .set("message.timestamp.type", "LogAppendTime");
    for (key, default) in [("retention.ms", "-1"), ("retention.bytes", "-1"), ("max.message.bytes", "100000000")] {
        topic = topic.set(key, if key == setting { value } else { default });
    }
    if !["retention.ms", "max.message.bytes"].contains(&setting) {
        topic = topic.set(setting, value);
    }
    let made = admin.create_topics([&topic], &AdminOptions::new()).await.unwrap();
    made.into_iter().for_each(|made| drop(made.unwrap()));
    let client: rdkafka::consumer::BaseConsumer =
        rdkafka::ClientConfig::new().set("bootstrap.servers", brokers.join(",")).create().unwrap();
    // Until every broker shows it.
    use rdkafka::consumer::Consumer as _;
    while client.fetch_metadata(Some(name), Duration::from_secs(10)).unwrap().topics()[0].partitions().is_empty() {}
}
