//! A log and an archive in a folder of their own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use archive::Store;
use archive::archiver::{Archiver, Settings};
use archive::signer::Signer;
use archive::sql::Sql;
use chrono::{DateTime, Utc};
use runtime::clock::Clock;
use runtime::log::embedded::Embedded;
use runtime::log::{Log, Output, To, Topic, Txn};
use runtime::metrics::Metrics;
use runtime::shutdown;
use schemas::envelope::{Envelope, Origin, Received};
use schemas::message::Verdicts;

pub const PARTITIONS: u32 = 2;

pub struct World {
    pub folder: PathBuf,
    pub log: Arc<dyn Log>,
    /// Deletes the folder in the end, if it is ours.
    _deleted: Option<tempfile::TempDir>,
}

impl World {
    pub fn new() -> World {
        let deleted = tempfile::tempdir().unwrap();
        let world = World::at(deleted.path());
        World { _deleted: Some(deleted), ..world }
    }

    /// In a folder that somebody else deletes.
    pub fn at(folder: &Path) -> World {
        std::fs::create_dir_all(folder.join("archive")).unwrap();
        let log: Arc<dyn Log> = Arc::new(Embedded::open(&folder.join("log.sqlite"), PARTITIONS).unwrap());
        World { folder: folder.to_owned(), log, _deleted: None }
    }

    pub fn store(&self) -> Store {
        Store::folder(&self.folder.join("archive")).unwrap().signed_by(Signer::open(&self.folder).unwrap())
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
        let sql = Sql::open(&self.folder).unwrap();
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
