//! The door for PostgreSQL clients: who is let in, what is refused, what has an end, and what strangers can do to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use archive::sql::Sql;
use archive::sql::postgres::{Door, DoorError, PORTALS_MAX, PREPARED_MAX, QUERIES_MAX, STRANGERS_MAX};
use runtime::config::{PostgresConfig, PostgresTls, PostgresUser, SecretFile};
use runtime::metrics::Metrics;
use runtime::shutdown::{self, Trigger};
use tokio::task::JoinSet;

use crate::compaction::compactor;
use crate::hostile_sql::{ENDLESS, FILES, REFUSED, archived};
use crate::postgres_client::{Client, message, startup};
use crate::world::{World, record};

/// Ends by itself within no time that a test has.
const LONG: &str = "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b";

/// An open door over a world.
struct Opened {
    world: World,
    address: SocketAddr,
    metrics: Arc<Metrics>,
    _trigger: Trigger,
}

fn config(world: &World) -> PostgresConfig {
    let file = world.folder.join("anna");
    std::fs::write(&file, "correct horse\n").unwrap();
    let anna = PostgresUser { name: "anna".into(), password: SecretFile::Path(file) };
    PostgresConfig { listen: "127.0.0.1:0".parse().unwrap(), users: vec![anna], ..PostgresConfig::default() }
}

async fn opened(world: World, config: PostgresConfig) -> Opened {
    let metrics = Metrics::new("test");
    let door = Door::bind(Sql::over(world.store()), &config, metrics.clone()).await.unwrap();
    let (address, (trigger, shutdown)) = (door.address(), shutdown::channel());
    tokio::spawn(door.run(shutdown));
    Opened { world, address, metrics, _trigger: trigger }
}

/// With nobody to sign in as, and little time.
async fn open(seconds: u64) -> Opened {
    let world = archived().await;
    let config = PostgresConfig { users: Vec::new(), timeout: Duration::from_secs(seconds), ..config(&world) };
    opened(world, config).await
}

impl Opened {
    async fn client(&self) -> Client {
        Client::sign_in(self.address, "somebody", "").await.unwrap()
    }

    fn limit(&self, limit: &str) -> u64 {
        self.metrics.postgres.limits_reached.with([limit]).value()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_opens_beyond_loopback_only_with_tls_and_passwords() {
    let world = archived().await;
    let guarded = config(&world);
    let bind = async |config: PostgresConfig| Door::bind(Sql::over(world.store()), &config, Metrics::new("test")).await;
    let listen = "0.0.0.0:0".parse().unwrap();
    let tls = Some(PostgresTls {
        certificate_file: world.folder.join("none.pem"),
        key_file: SecretFile::Path(world.folder.join("none.key")),
    });
    let open = |refused: Result<Door, DoorError>| matches!(refused, Err(DoorError::OpenToTheNetwork { .. }));
    assert!(open(bind(PostgresConfig { listen, users: Vec::new(), ..guarded.clone() }).await));
    assert!(open(bind(PostgresConfig { listen, ..guarded.clone() }).await));
    assert!(open(bind(PostgresConfig { listen, tls: tls.clone(), users: Vec::new(), ..guarded.clone() }).await));
    // On loopback as well: what cannot be encrypted as it is configured is not opened in the clear.
    let refused = bind(PostgresConfig { tls, ..guarded.clone() }).await.unwrap_err();
    assert!(refused.is_configuration(), "{refused}");
    std::fs::write(world.folder.join("anna"), "pässword").unwrap();
    let refused = bind(guarded).await.unwrap_err();
    assert!(refused.is_configuration() && !refused.to_string().contains("pässword"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_asked_for_and_a_wrong_one_is_told_like_a_wrong_name() {
    let world = archived().await;
    let config = config(&world);
    let door = opened(world, config).await;
    let mut anna = Client::sign_in(door.address, "anna", "correct horse").await.unwrap();
    assert_eq!(anna.query("SELECT current_user").await.one(), "anna");
    let sign_in = async |user, password| Client::sign_in(door.address, user, password).await.err();
    assert_eq!(sign_in("anna", "wrong horse").await.as_deref(), Some("28P01"));
    assert_eq!(sign_in("bert", "correct horse").await.as_deref(), Some("28P01"));
    assert_eq!(door.metrics.postgres.sign_ins_refused.value(), 2);
    // Replaced while the door is open.
    std::fs::write(door.world.folder.join("anna"), "battery staple").unwrap();
    assert_eq!(sign_in("anna", "correct horse").await.as_deref(), Some("28P01"));
    assert_eq!(sign_in("anna", "battery staple").await, None);
    // A question before the password is none.
    let mut stranger = Client::open(door.address).await;
    stranger.send(&startup(&[("user", "anna")])).await;
    stranger.send(&message(b"Q", b"SELECT raw FROM events\0")).await;
    assert!(stranger.answer().await.rows.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_change_or_read_anything_else_is_refused() {
    let door = open(20).await;
    let mut client = door.client().await;
    // What drivers send and nothing comes of, and what is no statement.
    let harmless = ["BEGIN", ""];
    for query in REFUSED.into_iter().chain(FILES).filter(|query| !harmless.contains(query)) {
        let answer = client.query(query).await;
        assert_ne!(answer.code(), "ok", "{query}");
        assert_ne!(answer.code(), "XX000", "{query}");
        let first = query.split(' ').next().unwrap();
        if ["CREATE", "DROP", "TRUNCATE", "ALTER", "INSERT", "UPDATE", "DELETE", "MERGE", "COPY"].contains(&first) {
            assert_eq!(answer.code(), "25006", "{query}");
        }
        // The same as prepared statements.
        client.send(&message(b"P", &[b"\0", query.as_bytes(), b"\0\0\0"].concat())).await;
        client.send(&message(b"B", b"\0\0\0\0\0\0\0\0")).await;
        client.send(&message(b"E", b"\0\0\0\0\0")).await;
        client.send(&message(b"S", b"")).await;
        assert_ne!(client.answer().await.code(), "ok", "prepared: {query}");
    }
    for query in [
        "WITH gone AS (DELETE FROM events RETURNING *) SELECT * FROM gone",
        "SELECT * INTO copied FROM events",
        "EXPLAIN ANALYZE INSERT INTO events SELECT * FROM events",
        "COPY events TO STDOUT",
        "COPY events FROM STDIN",
        "SELECT lo_import('/etc/passwd')",
        "SELECT pg_ls_dir('/')",
        "SET datafusion.catalog.location = '/etc'",
        "SET ROLE postgres",
        "SET SESSION AUTHORIZATION postgres",
        "DO $$ BEGIN END $$",
        "CREATE TEMP TABLE t (a int)",
        "GRANT ALL ON events TO public",
        "DECLARE c CURSOR FOR SELECT 1",
    ] {
        assert_ne!(client.query(query).await.code(), "ok", "{query}");
    }
    assert!(!std::path::Path::new("/tmp/harrier-must-not-exist.csv").exists());
    assert_eq!(client.query("SELECT id FROM events").await.one(), "a");
    assert_eq!(client.query("SELECT count(*) FROM pg_class WHERE relname = 'copied'").await.one(), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_no_end_is_ended() {
    let door = open(1).await;
    let mut client = door.client().await;
    for query in ENDLESS.into_iter().chain([LONG]) {
        let started = Instant::now();
        let answer = client.query(query).await;
        println!("{:?}: {:?}", started.elapsed(), answer.error);
        assert!(matches!(answer.code(), "57014" | "53400"), "{query}: {:?}", answer.error);
        assert!(started.elapsed() < Duration::from_secs(20), "{query}");
    }
    assert!(door.limit("query_time") > 0);
    client.query("SET statement_timeout = 50").await;
    assert_eq!(client.query(LONG).await.code(), "57014");
    client.query("RESET statement_timeout").await;
    assert_eq!(client.query("SELECT 1").await.one(), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_ends_when_it_is_cancelled_and_only_by_who_may() {
    let door = open(300).await;
    let mut client = door.client().await;
    let (process, secret) = client.key;
    let cancel = async |secret: i32| {
        let mut other = Client::open(door.address).await;
        let code = 80_877_102_i32.to_be_bytes();
        other.send(&message(b"", &[code, process.to_be_bytes(), secret.to_be_bytes()].concat())).await;
        assert_eq!(other.receive().await, None);
    };
    // Before a question it means none.
    cancel(secret).await;
    assert_eq!(client.query("SELECT 1").await.one(), "1");
    client.send(&message(b"Q", &[LONG.as_bytes(), b"\0"].concat())).await;
    cancel(secret.wrapping_add(1)).await;
    let early = tokio::time::timeout(Duration::from_millis(300), client.receive()).await;
    assert!(early.is_err(), "{early:?}");
    let asked = Instant::now();
    cancel(secret).await;
    assert_eq!(client.answer().await.code(), "57014");
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    assert_eq!(client.query("SELECT 2").await.one(), "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_of_clients_that_have_gone_end_and_give_their_turn_to_others() {
    let door = open(300).await;
    for _ in 0..QUERIES_MAX {
        let mut client = door.client().await;
        client.send(&message(b"Q", &[LONG.as_bytes(), b"\0"].concat())).await;
    }
    // All turns may be taken when this one begins; none is for longer than it takes to see that nobody waits.
    assert_eq!(door.client().await.query("SELECT 1").await.one(), "1");
}

/// Bytes without an order, from a seed.
fn noise(state: &mut u64, length: usize) -> Vec<u8> {
    let mut next = || {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state as u8
    };
    (0..length).map(|_| next()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_messages_end_a_connection_and_nothing_else() {
    let door = open(20).await;
    let mut state = 0x9E37_79B9_7F4A_7C15;
    let mut before = door.client().await;
    for round in 0..200 {
        let mut bytes = noise(&mut state, round % 60);
        if round % 3 == 0 {
            // A length that is true, so that what follows is read.
            bytes = message(b"", &bytes);
        }
        let mut stranger = Client::open(door.address).await;
        stranger.send(&bytes).await;
        tokio::io::AsyncWriteExt::shutdown(&mut stranger.stream).await.unwrap();
        while stranger.receive().await.is_some() {}
        let mut client = door.client().await;
        let kind = b"QPBDCEHSXpdcfF"[round % 14];
        client.send(&message(&[kind], &noise(&mut state, round % 50))).await;
        client.send(&noise(&mut state, 30)).await;
        tokio::io::AsyncWriteExt::shutdown(&mut client.stream).await.unwrap();
        while client.receive().await.is_some() {}
    }
    assert_eq!(before.query("SELECT count(*) FROM events").await.one(), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_can_make_grow_has_an_end() {
    let door = open(20).await;
    // A length is not believed.
    let mut stranger = Client::open(door.address).await;
    stranger.send(&i32::MAX.to_be_bytes()).await;
    assert_eq!(stranger.answer().await.code(), "08P01");
    assert_eq!(door.limit("stranger_bytes"), 1);
    let mut client = door.client().await;
    client.send(&[b"Q", &i32::MAX.to_be_bytes()[..]].concat()).await;
    assert_eq!(client.answer().await.code(), "08P01");
    assert_eq!(door.limit("message_bytes"), 1);

    let mut client = door.client().await;
    assert_eq!(client.query(&"SELECT 1;".repeat(101)).await.code(), "54000");
    assert_eq!(client.query(&format!("SELECT '{}'", "x".repeat(1 << 20))).await.code(), "54000");
    assert_eq!(client.query(&format!("SELECT 1{}", " + 1".repeat(1_000))).await.code(), "54001");
    for number in 0..=PREPARED_MAX {
        client.send(&message(b"P", format!("s{number}\0SHOW all\0\0\0").as_bytes())).await;
    }
    client.send(&message(b"S", b"")).await;
    assert_eq!(client.answer().await.code(), "53400");
    client.query("BEGIN").await;
    for number in 0..=PORTALS_MAX {
        client.send(&message(b"B", format!("p{number}\0s0\0\0\0\0\0\0\0").as_bytes())).await;
    }
    client.send(&message(b"S", b"")).await;
    assert_eq!(client.answer().await.code(), "53400");
    assert_eq!((door.limit("prepared"), door.limit("portals")), (1, 1));

    let mut strangers = Vec::new();
    for _ in 0..STRANGERS_MAX {
        strangers.push(Client::open(door.address).await);
    }
    // They are served in the order in which they came.
    let mut one_more = Client::open(door.address).await;
    assert_eq!(one_more.answer().await.code(), "53300");
    drop(strangers);
    let again = Instant::now();
    while Client::sign_in(door.address, "u", "").await.is_err() {
        assert!(again.elapsed() < Duration::from_secs(10), "those who have gone keep their places");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_each_see_one_snapshot_while_files_land_and_are_merged() {
    const BATCH: usize = 10;
    let world = World::new();
    let all: Vec<String> = (0..200).map(|number| record(&format!("r{number}"), "2026-11-22T10:00:00")).collect();
    let batches: Vec<Vec<(&str, char)>> =
        all.chunks(BATCH).map(|batch| batch.iter().map(|record| (record.as_str(), 'a')).collect()).collect();
    world.records(0, &batches[0]).await;
    world.drain().await;
    let config = PostgresConfig { users: Vec::new(), ..config(&world) };
    let door = opened(world, config).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let (mut client, is_over) = (door.client().await, is_over.clone());
        clients.spawn(async move {
            let (mut last, mut seen) = (0, 0);
            while !is_over.load(Ordering::Relaxed) {
                // Counted twice in one question: once as they lie, once after a join with themselves.
                let query = "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM events a JOIN events b USING (id)), \
                             (SELECT count(DISTINCT id) FROM events)";
                let answer = client.query(query).await;
                assert_eq!(answer.error, None);
                let counts = answer.rows[0].iter().map(|count| count.as_ref().unwrap().parse::<usize>().unwrap());
                let counts: Vec<usize> = counts.collect();
                assert_eq!((counts[0], counts[0]), (counts[1], counts[2]), "{counts:?}");
                assert_eq!(counts[0] % BATCH, 0, "half of a commit");
                assert!(counts[0] >= last, "back in time");
                (last, seen) = (counts[0], seen + usize::from(counts[0] != last));
            }
            seen
        });
    }
    for batch in &batches[1..] {
        door.world.records(0, batch).await;
        door.world.drain().await;
        compactor(&door.world).all().await.unwrap();
    }
    is_over.store(true, Ordering::Relaxed);
    let seen: Vec<usize> = clients.join_all().await;
    println!("states seen by each client: {seen:?}");
    assert!(seen.iter().sum::<usize>() > 8, "nobody saw anything change: {seen:?}");
    assert_eq!(door.client().await.query("SELECT count(*) FROM events").await.one(), "200");
}
