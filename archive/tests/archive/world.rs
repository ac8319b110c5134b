//! A log and an archive in a folder of their own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use archive::Store;
use archive::archiver::{Archiver, Settings};
use archive::signer::Signer;
use archive::sql::Sql;
use chrono::{DateTime, Utc};
use runtime::clock::Clock;
use runtime::config::{Config, ObjectStoreConfig, ObjectStoreKind, S3Access, SecretFile};
use runtime::log::embedded::Embedded;
use runtime::log::{Log, Output, To, Topic, Txn};
use runtime::metrics::Metrics;
use runtime::shutdown;
use schemas::envelope::{Envelope, Origin, Received};
use schemas::message::Verdicts;

use crate::s3;

pub const PARTITIONS: u32 = 2;

/// Names the server to a process that is started for a world on one.
pub const ADDRESS: &str = "HARRIER_TEST_S3";

/// What an archive lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Folder,
    S3,
}

impl Place {
    /// Whether there is such a place here; where not, it is said.
    pub fn is_there(self) -> bool {
        self == Place::Folder || s3::is_there()
    }
}

pub struct World {
    pub folder: PathBuf,
    address: Option<String>,
    _server: Option<s3::Server>,
    pub log: Arc<dyn Log>,
    /// Deletes the folder in the end, if it is ours.
    _deleted: Option<tempfile::TempDir>,
}

impl World {
    pub fn new() -> World {
        World::on(Place::Folder)
    }

    /// On S3 the archive's folder is the bucket: its objects are files there as well.
    pub fn on(place: Place) -> World {
        let deleted = tempfile::tempdir().unwrap();
        let world = World::at(deleted.path(), None);
        let server = (place == Place::S3).then(|| s3::Server::start(deleted.path()).unwrap());
        let address = server.as_ref().map(|server| server.address.clone());
        World { _deleted: Some(deleted), _server: server, address, ..world }
    }

    /// In a folder that somebody else deletes.
    pub fn at(folder: &Path, address: Option<String>) -> World {
        std::fs::create_dir_all(folder.join("archive")).unwrap();
        // Before two ask for it at once.
        Signer::open(folder).unwrap();
        let log: Arc<dyn Log> = Arc::new(Embedded::open(&folder.join("log.sqlite"), PARTITIONS).unwrap());
        World { folder: folder.to_owned(), address, _server: None, log, _deleted: None }
    }

    /// Where the server of this world listens, if it has one.
    pub fn address(&self) -> Option<&str> {
        self.address.as_deref()
    }

    pub fn config(&self) -> Config {
        let mut config = Config::for_data_dir(&self.folder);
        config.archive.store = self.address.as_ref().map(|address| {
            let secret = self.folder.join("secret");
            std::fs::write(&secret, s3::SECRET_ACCESS_KEY).unwrap();
            let access = S3Access::Key { id: s3::ACCESS_KEY_ID.into(), secret: SecretFile::Path(secret) };
            ObjectStoreConfig {
                kind: ObjectStoreKind::S3 { region: None, access },
                bucket: "archive".into(),
                prefix: String::new(),
                endpoint: Some(format!("http://{address}")),
                allow_http: true,
                tls_ca_file: None,
            }
        });
        config
    }

    pub fn store(&self) -> Store {
        self.unsigned_store().signed_by(Signer::open(&self.folder).unwrap())
    }

    pub fn unsigned_store(&self) -> Store {
        Store::make(&self.config()).unwrap()
    }

    pub fn archiver(&self, settings: Settings) -> Archiver {
        Archiver::new(self.log.clone(), self.store(), Clock::system(), settings, Metrics::new("test"))
    }

    /// Archives all that is in the log.
    pub async fn drain(&self) {
        let (trigger, shutdown) = shutdown::channel();
        trigger.stop();
        self.archiver(Settings::default()).run(shutdown).await.unwrap();
    }

    pub async fn put(&self, outputs: Vec<Output>) {
        self.log.commit(Txn { outputs, ..Txn::default() }).await.unwrap();
    }

    /// Records of one partition with their verdicts, as match would commit them.
    pub async fn records(&self, partition: u32, records: &[(&str, char)]) {
        let from = self.log.end(Topic::Records, partition).await.unwrap();
        let mut outputs: Vec<Output> = records
            .iter()
            .map(|(record, _)| Output { topic: Topic::Records, to: To::Partition(partition), value: envelope(record) })
            .collect();
        let codes = records.iter().map(|(_, code)| code).collect();
        let verdicts = Verdicts { partition, from, codes, gaps: Vec::new() };
        outputs.push(json(Topic::Verdicts, To::Partition(partition), &verdicts));
        self.put(outputs).await;
    }

    pub async fn lines(&self, query: &str) -> Vec<String> {
        let sql = Sql::over(self.store());
        let bytes = sql.query_ndjson(query, &[]).await.unwrap();
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }
}

pub fn json<T: serde::Serialize>(topic: Topic, to: To, message: &T) -> Output {
    Output { topic, to, value: serde_json::to_vec(message).unwrap() }
}

pub fn moment(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

pub fn envelope(record: &str) -> Vec<u8> {
    let origin = Origin {
        tenant: "t1".parse().unwrap(),
        source: "import".into(),
        content_type: String::new(),
        blob_id: "f:1".into(),
        received: moment("2026-11-22T10:00:00Z"),
        notify: true,
    };
    Envelope::Record(Received { origin, bytes: record.as_bytes().to_vec() }).encode()
}

pub fn record(id: &str, time: &str) -> String {
    format!(
        r#"{{ "CreationTime":"{time}",  "Id":"{id}","Operation":"New-InboxRule","Parameters":[{{"Name":"ForwardTo","Value":"x@y.example"}}] }}"#
    )
}
