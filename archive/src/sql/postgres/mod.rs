//! The archive's door for PostgreSQL clients: psql, psycopg, and whatever speaks through JDBC or Go's drivers. Read-only.
//!
//! # The guarantee
//!
//! * Whoever comes in reads, and nothing else: statements are a list of what is allowed ([`statement`]), what they parse to
//!   is judged again ([`question`]), and what is planned a third time by the engine's own options. Tables are those of the
//!   archive and what describes them; no function reads a file or an address.
//! * Each question sees one snapshot of each table, is planned over a context of its own, and is bounded and ended by the
//!   same code as `harrier sql`. It also ends when its client cancels it, goes away or has waited long enough.
//! * The door opens beyond loopback only with TLS and passwords ([`Door::bind`]); TLS that cannot be had is a refusal to
//!   start, never a connection in the clear. No password is in a log, an error or an argument.
//! * Everybody can speak to the port. Each thing that a client can make grow has a bound, which is a constant here, and
//!   something counts when it bites.
//!
//! # Why it is our own
//!
//! `datafusion-postgres` 0.19 takes the engine with all of its default features, its server asks for no password, goes on in
//! the clear where TLS fails, shares one context among all clients and stops no query. `pgwire` 0.42 beneath it panics on a
//! `Parse` message that is cut short. What is needed of the protocol is small: [`message`], [`reply`], [`scram`].

mod catalog;
mod connection;
mod failure;
mod message;
mod naming;
mod parameter;
mod portal;
mod question;
mod reply;
mod scram;
mod sign_in;
mod statement;
mod tls;
mod types;
mod value;
mod variables;
mod wire;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use ring::rand::{SecureRandom, SystemRandom};
use runtime::config::{PostgresConfig, SecretError, SecretFile};
use runtime::metrics::Metrics;
use runtime::shutdown::Shutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::{Limits, Sql};
use variables::Variables;

/// Clients that have signed in. A team of analysts with their tools; each holds some kilobytes while it says nothing.
pub const CONNECTIONS_MAX: usize = 64;

/// Connections that have not signed in: they cost a task and a few kilobytes, and may be anybody's.
pub const STRANGERS_MAX: usize = 32;

/// Questions carried out at once; others wait for their turn. Together they take what one `harrier sql` may.
pub const QUERIES_MAX: usize = 4;

/// How long somebody may take to sign in.
pub const SIGN_IN_WITHIN: Duration = Duration::from_secs(15);

/// How long a client may say nothing. Tools that keep connections open try them before they use them.
pub const IDLE_MAX: Duration = Duration::from_secs(60 * 60);

/// Longest message before anybody is known: PostgreSQL's own bound for the first, and more than SCRAM takes.
pub const STRANGER_BYTES_MAX: usize = 10_000;

/// Longest message of a client: the longest query, and as much again for values.
pub const MESSAGE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Statements of one simple query.
pub const STATEMENTS_MAX: usize = 100;

/// Prepared statements and portals of a connection, each, and what both hold of text and values. Drivers prepare what
/// they ask often: JDBC keeps 256.
pub const PREPARED_MAX: usize = 512;
pub const PORTALS_MAX: usize = 32;
pub const KEPT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Rows of one answer. Clients hold all of it; whoever needs more reads the files.
pub const ROWS_MAX: u64 = 10_000_000;

/// How long a refusal to sign in is kept back, so that guessing is slow: one guess a connection and so long.
const REFUSED_AFTER: Duration = Duration::from_secs(1);

/// How long to wait after an accept that failed, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How long clients have for their last answer once the end is asked for.
const GRACE: Duration = Duration::from_secs(5);

/// The door cannot be opened. For the operator.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DoorError {
    #[error("[postgres] listens on {address}, which is open to the network: it needs TLS and at least one user")]
    OpenToTheNetwork { address: SocketAddr },
    #[error("the password of {name} for PostgreSQL: {source}")]
    Password { name: String, source: SecretError },
    /// Clients normalise others in ways of their own.
    #[error("the password of {name} for PostgreSQL has characters beyond printable ASCII")]
    PasswordCharacters { name: String },
    #[error("the key for PostgreSQL: {0}")]
    Key(SecretError),
    #[error("the certificate or key for PostgreSQL cannot be used: {0}")]
    Tls(String),
    #[error("the system gives no random numbers")]
    Random,
    #[error("the system gives no threads: {0}")]
    Threads(std::io::Error),
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
}

impl DoorError {
    /// Whether it is the configuration that has to be changed.
    pub fn is_configuration(&self) -> bool {
        !matches!(self, DoorError::Listen { .. } | DoorError::Random | DoorError::Threads(_))
    }
}

/// Who asks: what questions may show of it.
#[derive(Clone, Debug, Default)]
struct Session {
    user: String,
    process: i32,
    variables: Variables,
}

/// Threads that carry out questions. It ends without waiting for them.
struct Engine(Option<Runtime>);

impl Engine {
    fn new() -> std::io::Result<Engine> {
        let runtime = tokio::runtime::Builder::new_multi_thread().thread_name("query").enable_all().build()?;
        Ok(Engine(Some(runtime)))
    }

    fn spawn(&self, work: BoxFuture<'static, ()>) -> JoinHandle<()> {
        match &self.0 {
            Some(runtime) => runtime.spawn(work),
            // Not reached: it is there until it is dropped.
            None => tokio::spawn(work),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// What all connections share.
struct Shared {
    sql: Sql,
    engine: Engine,
    time: Duration,
    users: HashMap<String, SecretFile>,
    tls: Option<TlsAcceptor>,
    metrics: Arc<Metrics>,
    connections: Arc<Semaphore>,
    queries: Arc<Semaphore>,
    /// By the number of the connection: what a request to cancel must know, and how it is passed on.
    cancels: Mutex<HashMap<i32, (i32, watch::Sender<u64>)>>,
    next_process: AtomicI32,
    /// Salts of names that nobody has follow from it.
    unknown_salts: [u8; 32],
    random: SystemRandom,
}

impl Shared {
    fn random<const N: usize>(&self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.random.fill(&mut bytes).ok().map(|()| bytes)
    }

    fn limit(&self, limit: &'static str) {
        self.metrics.postgres.limits_reached.with([limit]).add(1);
    }

    /// Ends the question that a connection is asking, if the secret is its own.
    fn cancel(&self, process: i32, secret: i32) {
        let cancels = self.cancels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, asked)) = cancels.get(&process)
            && scram::are_equal(&known.to_be_bytes(), &secret.to_be_bytes())
        {
            asked.send_modify(|count| *count += 1);
        }
    }
}

/// The open door.
pub struct Door {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Door").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Door {
    /// Listens where the configuration says, if it may. All that signing in needs is read once, to fail now and not at the
    /// first client.
    pub async fn bind(sql: Sql, config: &PostgresConfig, metrics: Arc<Metrics>) -> Result<Door, DoorError> {
        let is_guarded = config.tls.is_some() && !config.users.is_empty();
        if !config.listen.ip().is_loopback() && !is_guarded {
            return Err(DoorError::OpenToTheNetwork { address: config.listen });
        }
        for user in &config.users {
            sign_in::password(&user.name, &user.password)?;
        }
        let tls = config.tls.as_ref().map(tls::acceptor).transpose()?;
        let random = SystemRandom::new();
        let mut unknown_salts = [0; 32];
        random.fill(&mut unknown_salts).map_err(|_| DoorError::Random)?;
        let limits = sql.limits();
        let share = QUERIES_MAX as u64;
        let limits = Limits {
            memory_bytes: limits.memory_bytes / QUERIES_MAX,
            spill_bytes: limits.spill_bytes / share,
            time: config.timeout,
            rows: Some(ROWS_MAX),
        };
        let failed = |source| DoorError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let shared = Arc::new(Shared {
            sql: sql.with_limits(limits),
            engine: Engine::new().map_err(DoorError::Threads)?,
            time: config.timeout,
            users: config.users.iter().map(|user| (user.name.clone(), user.password.clone())).collect(),
            tls,
            metrics,
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            queries: Arc::new(Semaphore::new(QUERIES_MAX)),
            cancels: Mutex::default(),
            next_process: AtomicI32::new(1),
            unknown_salts,
            random,
        });
        Ok(Door { listener, address, shared })
    }

    /// Where it listens: the port that was found, if port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets clients in until the shutdown.
    pub async fn run(self, shutdown: Shutdown) {
        let strangers = Arc::new(Semaphore::new(STRANGERS_MAX));
        let mut tasks = JoinSet::new();
        loop {
            while let Some(ended) = tasks.try_join_next() {
                told(ended);
            }
            let Some(accepted) = shutdown.unless(self.listener.accept()).await else { break };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(event = "postgres_not_accepted", %error);
                    shutdown.sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(stranger) = strangers.clone().try_acquire_owned() else {
                self.shared.limit("strangers");
                turn_away(&stream);
                continue;
            };
            let client = sign_in::Client { stream, peer, stranger };
            tasks.spawn(sign_in::serve(client, self.shared.clone(), shutdown.clone()));
        }
        drop(self.listener);
        let all = async {
            while let Some(ended) = tasks.join_next().await {
                told(ended)
            }
        };
        if tokio::time::timeout(GRACE, all).await.is_err() {
            tracing::debug!("connections of PostgreSQL were cut after the grace period");
        }
    }
}

/// A connection that panicked is a defect of ours; the others go on.
fn told(ended: Result<(), tokio::task::JoinError>) {
    if ended.is_err() {
        tracing::error!(event = "postgres_connection_lost");
    }
}

/// Says that there is no room, to whoever still listens, and waits for nobody.
fn turn_away(stream: &TcpStream) {
    let mut replies = reply::Replies::default();
    replies.failure(&failure::Failure::fatal("53300", "too many connections are signing in: try again"));
    let _ = stream.try_write(replies.bytes());
}

/// A number for each connection, which a request to cancel names.
fn next_process(shared: &Shared) -> i32 {
    shared.next_process.fetch_add(1, Ordering::Relaxed) & i32::MAX
}
