//! What only Kafka can do wrong.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use runtime::config::Secret;
use runtime::log::kafka::{Kafka, Sasl, Security, Settings};
use runtime::log::{Log, LogError, Refused, Topic};

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
    let mut step = outputs(vec![to(0, "aborted"), to(1, "aborted")]);
    step.outputs.push(runtime::log::Output { value: noise, ..to(0, "") });
    let error = log.commit(step).await.unwrap_err();
    assert!(matches!(error, LogError::Refused(Refused::TooLarge { bytes: 2_000_000 })), "{error}");
    log.commit(outputs(vec![to(0, "after")])).await.unwrap();
    assert_eq!(texts(&log, Topic::Records, 0).await, ["before", "after"]);
    assert_eq!(texts(&log, Topic::Records, 1).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_must_change_is_said_in_one_line() {
    let Some(good) = settings("refused") else { return };
    let sasl = |username: &str, password: &str| Settings {
        brokers: broker::broker().unwrap().addresses_sasl.clone(),
        security: Security {
            sasl: Some(Sasl {
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
