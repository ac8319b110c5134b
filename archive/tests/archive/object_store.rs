//! Stores that cannot hold an archive are refused, in a line that says what to change and no secret.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use archive::delta::{Changes, DeltaTable, Outcome};
use archive::table::EVENTS;
use archive::verify::{Kind, Verifier};
use archive::{Error, Store};
use chrono::Utc;
use runtime::config::{Config, ObjectStoreConfig, ObjectStoreKind, S3Access, SecretFile};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::s3;
use crate::world::{Place, World, record};

/// A server that answers every request alike. Returns where, and how many requests it has had.
async fn answering(answer: &'static str) -> (String, Arc<AtomicU64>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let requests = Arc::new(AtomicU64::new(0));
    let counted = requests.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let counted = counted.clone();
            tokio::spawn(async move {
                let mut request = [0; 16 * 1024];
                // A request of ours here is small: head and body come at once, or the body soon after.
                while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                    if request.starts_with(b"PUT") || request.starts_with(b"GET") {
                        counted.fetch_add(1, Ordering::Relaxed);
                        stream.write_all(answer.as_bytes()).await.unwrap();
                        // One request a connection.
                        return;
                    }
                }
            });
        }
    });
    (address, requests)
}

fn config(folder: &std::path::Path, address: &str, secret: &str) -> Config {
    let mut config = Config::for_data_dir(folder);
    std::fs::write(folder.join("secret"), secret).unwrap();
    let access = S3Access::Key { id: s3::ACCESS_KEY_ID.into(), secret: SecretFile::Path(folder.join("secret")) };
    config.archive.store = Some(ObjectStoreConfig {
        kind: ObjectStoreKind::S3 { region: None, access },
        bucket: "archive".into(),
        prefix: "a/b".into(),
        endpoint: Some(format!("http://{address}")),
        allow_http: true,
        tls_ca_file: None,
    });
    config
}

#[tokio::test]
async fn a_store_that_overwrites_what_it_has_is_refused_and_nothing_is_committed() {
    let folder = tempfile::tempdir().unwrap();
    let answer = "HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let (address, requests) = answering(answer).await;
    let store = Store::make(&config(folder.path(), &address, "s")).unwrap();
    let refused = store.check().await.unwrap_err();
    assert!(matches!(refused, Error::Overwrites { .. }) && refused.is_for_operator(), "{refused}");
    assert!(refused.to_string().starts_with("s3://archive/a/b cannot hold an archive: it overwrites"), "{refused}");
    assert!(!refused.retryable());
    assert_eq!(requests.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn who_commits_asks_first_also_where_nobody_has_at_the_start() {
    let store = awkward(Way::Overwrites);
    let mut table = DeltaTable::open(store, &EVENTS).await.unwrap();
    let refused = table.commit(Changes::default(), Utc::now()).await.unwrap_err();
    assert!(matches!(refused, Error::Overwrites { .. }), "{refused}");
    // And one that keeps it.
    let store = Store::over(Arc::new(object_store::memory::InMemory::new()), "memory".into());
    let mut table = DeltaTable::open(store, &EVENTS).await.unwrap();
    table.commit(Changes::default(), Utc::now()).await.unwrap();
}

#[tokio::test]
async fn a_refusal_is_for_the_operator_and_silence_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let answer = "HTTP/1.1 403 Forbidden\r\nContent-Length: 119\r\nConnection: close\r\n\r\n\
                  <?xml version=\"1.0\"?><Error><Code>InvalidAccessKeyId</Code><Message>No such key.</Message><Extra>abcdefghij</Extra></Error>";
    let (address, _) = answering(answer).await;
    let store = Store::make(&config(folder.path(), &address, s3::SECRET_ACCESS_KEY)).unwrap();
    let refused = store.check().await.unwrap_err();
    assert!(refused.is_for_operator(), "{refused}");
    assert!(refused.to_string().ends_with("the store answers InvalidAccessKeyId: No such key."), "{refused}");
    assert!(!format!("{refused} {refused:?}").contains(s3::SECRET_ACCESS_KEY));
    // A port that nobody listens on.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let config = config(folder.path(), &free, s3::SECRET_ACCESS_KEY);
    let silent = Store::make(&config).unwrap().check().await.unwrap_err();
    assert!(silent.retryable() && !silent.is_for_operator(), "{silent}");
    assert!(!format!("{silent} {silent:?}").contains(s3::SECRET_ACCESS_KEY));
}

#[tokio::test]
async fn a_key_is_read_where_it_is_needed_and_never_shown() {
    if !s3::is_there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("archive")).unwrap();
    let server = s3::Server::start(folder.path()).unwrap();
    let config = config(folder.path(), &server.address, "another key");
    let store = Store::make(&config).unwrap();
    let refused = store.check().await.unwrap_err();
    assert!(refused.is_for_operator() && refused.to_string().contains("SignatureDoesNotMatch"), "{refused}");
    assert!(!format!("{refused} {refused:?}").contains("another key"), "{refused:?}");
    assert!(matches!(Store::find(&config).await, Err(error) if error.is_for_operator()));
    // Replaced, it is picked up.
    std::fs::write(folder.path().join("secret"), s3::SECRET_ACCESS_KEY).unwrap();
    assert!(matches!(Store::find(&config).await, Err(Error::NoArchive { place }) if place == "s3://archive/a/b"));
    store.check().await.unwrap();
    store.check().await.unwrap();
    assert!(folder.path().join("archive/a/b/_put_if_absent").exists());
    assert!(!format!("{store:?}").contains(s3::SECRET_ACCESS_KEY));
    // No such bucket.
    let mut elsewhere = config.clone();
    elsewhere.archive.store.as_mut().unwrap().bucket = "nowhere".into();
    let missing = Store::make(&elsewhere).unwrap().check().await.unwrap_err();
    assert!(missing.is_for_operator() && missing.to_string().contains("NoSuchBucket"), "{missing}");
}

#[tokio::test]
async fn what_a_store_was_asked_with_belongs_to_the_archive_and_nothing_else_does() {
    if !Place::S3.is_there() {
        return;
    }
    let world = World::on(Place::S3);
    world.records(0, &[(&record("a", "2026-11-22T10:00:00"), 'a')]).await;
    world.drain().await;
    let verify = || async {
        let key = archive::signer::PublicKey::read(&world.folder.join(archive::signer::PUBLIC_KEY_FILE)).unwrap();
        let store = world.unsigned_store();
        Verifier { store, keys: vec![key], heads: Vec::new(), now: Utc::now() }.run().await.unwrap()
    };
    let report = verify().await;
    assert!(report.is_whole(), "{:?}", report.faults);
    std::fs::write(world.folder.join("archive/_put_if_absent"), "something else").unwrap();
    assert!(matches!(verify().await.faults[..], [ref fault] if matches!(fault.kind, Kind::Altered { .. })));
    std::fs::write(world.folder.join("archive/_other"), "x").unwrap();
    assert_eq!(verify().await.faults.len(), 2);
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_known_for_ones_own() {
    let store = awkward(Way::LosesAnswers);
    let mut table = DeltaTable::open(store.clone(), &EVENTS).await.unwrap();
    let step = |from| Changes { positions: vec![("log".into(), from, from + 1)], ..Changes::default() };
    for from in 0..3 {
        assert_eq!(table.commit(step(from), Utc::now()).await.unwrap(), Outcome::Committed);
    }
    let other = DeltaTable::open(store, &EVENTS).await.unwrap();
    assert_eq!((other.snapshot().version, other.snapshot().positions["log"]), (Some(2), 3), "each once");
}

/// How a store may be awkward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// It puts where it was asked not to.
    Overwrites,
    /// It puts, and the request is sent again because nobody hears of it.
    LosesAnswers,
}

/// A store in memory.
#[derive(Debug)]
struct Awkward(object_store::memory::InMemory, Way);

fn awkward(way: Way) -> Store {
    Store::over(Arc::new(Awkward(object_store::memory::InMemory::new(), way)), "memory".into())
}

impl std::fmt::Display for Awkward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Awkward")
    }
}

#[async_trait::async_trait]
impl object_store::ObjectStore for Awkward {
    async fn put_opts(
        &self,
        location: &object_store::path::Path,
        payload: object_store::PutPayload,
        options: object_store::PutOptions,
    ) -> object_store::Result<object_store::PutResult> {
        if self.1 == Way::Overwrites {
            return self.0.put_opts(location, payload, object_store::PutOptions::default()).await;
        }
        self.0.put_opts(location, payload.clone(), options.clone()).await?;
        self.0.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &object_store::path::Path,
        options: object_store::PutMultipartOptions,
    ) -> object_store::Result<Box<dyn object_store::MultipartUpload>> {
        self.0.put_multipart_opts(location, options).await
    }

    async fn get_opts(
        &self,
        location: &object_store::path::Path,
        options: object_store::GetOptions,
    ) -> object_store::Result<object_store::GetResult> {
        self.0.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: futures::stream::BoxStream<'static, object_store::Result<object_store::path::Path>>,
    ) -> futures::stream::BoxStream<'static, object_store::Result<object_store::path::Path>> {
        self.0.delete_stream(locations)
    }

    fn list(
        &self,
        prefix: Option<&object_store::path::Path>,
    ) -> futures::stream::BoxStream<'static, object_store::Result<object_store::ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(
        &self,
        prefix: Option<&object_store::path::Path>,
    ) -> object_store::Result<object_store::ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &object_store::path::Path,
        to: &object_store::path::Path,
        options: object_store::CopyOptions,
    ) -> object_store::Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}
