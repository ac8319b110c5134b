//! From the first byte to a connection that may ask: encryption, who it is, the password.
//!
//! Nobody is known here. All of it happens within [`SIGN_IN_WITHIN`], a message is at most [`STRANGER_BYTES_MAX`] long, and
//! whoever is refused is told the same, whether the name or the password was wrong.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use runtime::config::{Secret, SecretFile};
use runtime::shutdown::Shutdown;
use schemas::text::escape_controls;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::timeout;

use super::connection::Connection;
use super::failure::Failure;
use super::message::{Message, Startup, VERSION_MAJOR, sasl_begin};
use super::scram::{Exchange, MECHANISM, Verifier};
use super::variables::Variables;
use super::wire::{Ended, Wire};
use super::{DoorError, REFUSED_AFTER, SIGN_IN_WITHIN, STRANGER_BYTES_MAX, Session, Shared, next_process};

/// Codes of the sign-in: done, SASL asked for, SASL goes on, SASL ends.
const AUTHENTICATED: i32 = 0;
const SASL: i32 = 10;
const SASL_CONTINUES: i32 = 11;
const SASL_ENDS: i32 = 12;

/// Attempts at encryption before the start itself: TLS and GSSAPI, each once.
const OFFERS_MAX: usize = 3;

/// Longest name of a user, in bytes: PostgreSQL's.
const NAME_BYTES_MAX: usize = 63;

/// Bytes of a connection, encrypted or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Somebody at the door.
pub(super) struct Client {
    pub stream: TcpStream,
    pub peer: SocketAddr,
    pub stranger: OwnedSemaphorePermit,
}

/// A client that may ask.
struct SignedIn {
    wire: Wire<Box<dyn Stream>>,
    session: Session,
    cancels: watch::Receiver<u64>,
    room: OwnedSemaphorePermit,
}

/// A connection's place, given back however it ends.
struct Open {
    shared: Arc<Shared>,
    process: i32,
    _room: OwnedSemaphorePermit,
}

impl Open {
    fn new(shared: Arc<Shared>, process: i32, room: OwnedSemaphorePermit) -> Open {
        shared.metrics.postgres.connections.add(1.0);
        Open { shared, process, _room: room }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.metrics.postgres.connections.add(-1.0);
        self.shared.cancels.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.process);
    }
}

/// Why somebody is not let in.
enum NotIn {
    Ended(Ended),
    Refused(Failure),
}

impl From<Ended> for NotIn {
    fn from(ended: Ended) -> NotIn {
        NotIn::Ended(ended)
    }
}

impl From<Failure> for NotIn {
    fn from(failure: Failure) -> NotIn {
        NotIn::Refused(failure)
    }
}

/// Takes a client in, and serves it until it goes.
pub(super) async fn serve(client: Client, shared: Arc<Shared>, shutdown: Shutdown) {
    let Client { stream, peer, stranger } = client;
    // A delay of packets is only that.
    let _ = stream.set_nodelay(true);
    let signing_in = timeout(SIGN_IN_WITHIN, sign_in(stream, peer, &shared));
    let Some(signed_in) = shutdown.unless(signing_in).await else { return };
    drop(stranger);
    match signed_in {
        Ok(Some(SignedIn { wire, session, cancels, room })) => {
            let process = session.process;
            let _open = Open::new(shared.clone(), process, room);
            let user = escape_controls(&session.user);
            tracing::info!(event = "postgres_signed_in", user, address = %peer, process);
            let ended = Connection::new(wire, session, cancels, shared, peer).run(&shutdown).await;
            tracing::info!(event = "postgres_signed_out", process, ended);
        }
        Ok(None) => {}
        Err(_) => shared.limit("sign_in_time"),
    }
}

async fn sign_in(stream: TcpStream, peer: SocketAddr, shared: &Shared) -> Option<SignedIn> {
    let mut wire: Wire<Box<dyn Stream>> = Wire::new(Box::new(stream));
    let mut is_encrypted = false;
    for _ in 0..OFFERS_MAX {
        let startup = match wire.startup(STRANGER_BYTES_MAX).await {
            Ok(startup) => startup,
            Err(ended) => {
                turned_away(&mut wire, ended.into(), peer, shared).await;
                return None;
            }
        };
        match (startup, &shared.tls) {
            (Startup::Tls, Some(acceptor)) if !is_encrypted => {
                wire.byte(b'S').await.ok()?;
                let stream = acceptor.accept(wire.into_inner().ok()?).await;
                let stream =
                    stream.inspect_err(|error| tracing::debug!(%error, "no TLS with a client of PostgreSQL")).ok()?;
                wire = Wire::new(Box::new(stream));
                is_encrypted = true;
            }
            (Startup::Tls | Startup::Gss, _) => wire.byte(b'N').await.ok()?,
            (Startup::Cancel { process, secret }, _) => {
                shared.cancel(process, secret);
                return None;
            }
            (Startup::Login { major, minor, parameters }, tls) => {
                let is_clear = tls.is_some() && !is_encrypted;
                return match let_in(&mut wire, is_clear, major, minor, parameters, shared).await {
                    Ok((session, cancels, room)) => Some(SignedIn { wire, session, cancels, room }),
                    Err(why) => {
                        turned_away(&mut wire, why, peer, shared).await;
                        None
                    }
                };
            }
        }
    }
    None
}

async fn turned_away(wire: &mut Wire<Box<dyn Stream>>, why: NotIn, peer: SocketAddr, shared: &Shared) {
    let failure = match why {
        NotIn::Ended(ended) => {
            if matches!(ended, Ended::TooLong { .. }) {
                shared.limit("stranger_bytes");
            }
            ended.failure()
        }
        NotIn::Refused(failure) => {
            tracing::warn!(event = "postgres_turned_away", address = %peer, code = failure.code, reason = failure.message);
            Some(failure)
        }
    };
    wire.farewell(failure.as_ref()).await;
}

async fn let_in(
    wire: &mut Wire<Box<dyn Stream>>,
    is_clear: bool,
    major: i32,
    minor: i32,
    parameters: Vec<(String, String)>,
    shared: &Shared,
) -> Result<(Session, watch::Receiver<u64>, OwnedSemaphorePermit), NotIn> {
    if major != VERSION_MAJOR {
        return Err(Failure::fatal("0A000", "only version 3 of the protocol is spoken here").into());
    }
    if is_clear {
        return Err(Failure::fatal("28000", "a connection without TLS is not taken: set sslmode=require").into());
    }
    let unknown: Vec<&str> =
        parameters.iter().map(|(name, _)| name.as_str()).filter(|name| name.starts_with("_pq_.")).collect();
    if minor > 0 || !unknown.is_empty() {
        wire.replies.negotiate(&unknown);
    }
    let (user, variables) = wishes(&parameters)?;
    if !shared.users.is_empty() {
        authenticate(wire, &user, shared).await?;
    }
    let Ok(room) = shared.connections.clone().try_acquire_owned() else {
        shared.limit("connections");
        return Err(Failure::fatal("53300", "too many connections: close one, or try again").into());
    };
    let secret = shared.random::<4>().ok_or_else(|| Failure::fatal("58000", "no random numbers"))?;
    let (process, secret) = (next_process(shared), i32::from_be_bytes(secret));
    let (asked, cancels) = watch::channel(0);
    shared.cancels.lock().unwrap_or_else(PoisonError::into_inner).insert(process, (secret, asked));
    wire.replies.authentication(AUTHENTICATED, &[]);
    for (name, value) in variables.reported() {
        wire.replies.parameter(name, value);
    }
    wire.replies.parameter("is_superuser", "off");
    wire.replies.parameter("session_authorization", &user);
    wire.replies.key(process, secret);
    Ok((Session { user, process, variables }, cancels, room))
}

/// Who it is, and what it wants set.
fn wishes(parameters: &[(String, String)]) -> Result<(String, Variables), Failure> {
    let mut variables = Variables::default();
    let mut user = None;
    let fatal = |failure: Failure| Failure::fatal(failure.code, failure.message);
    for (name, value) in parameters {
        match name.as_str() {
            "user" => user = Some(value.clone()),
            // There is one database, whatever it is called.
            "database" => {}
            "replication" if matches!(value.as_str(), "false" | "off" | "no" | "0") => {}
            "replication" => return Err(Failure::fatal("0A000", "replication is not offered here")),
            "options" => {
                for (name, value) in options(value)? {
                    variables.set(&name, &value).map_err(fatal)?;
                }
            }
            name if name.starts_with("_pq_.") => {}
            name => drop(variables.set(name, value).map_err(fatal)?),
        }
    }
    let user = user.filter(|user| !user.is_empty() && user.len() <= NAME_BYTES_MAX);
    let user = user.ok_or_else(|| Failure::fatal("28000", "a user has a name of up to 63 bytes"))?;
    Ok((user, variables))
}

/// `-c name=value --name=value`, as libpq passes on.
fn options(text: &str) -> Result<Vec<(String, String)>, Failure> {
    let mut options = Vec::new();
    let mut words = text.split_whitespace();
    while let Some(word) = words.next() {
        let option = match word.strip_prefix("--").or_else(|| word.strip_prefix("-c")) {
            Some("") => words.next(),
            option => option,
        };
        let (name, value) = option
            .and_then(|option| option.split_once('='))
            .ok_or_else(|| Failure::fatal("42601", "options are of the form -c name=value"))?;
        options.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(options)
}

/// The password of a user, as it is now.
pub(super) fn password(name: &str, file: &SecretFile) -> Result<Secret, DoorError> {
    let password = file.read().map_err(|source| DoorError::Password { name: name.to_owned(), source })?;
    let is_printable = password.expose().bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if is_printable { Ok(password) } else { Err(DoorError::PasswordCharacters { name: name.to_owned() }) }
}

async fn authenticate(wire: &mut Wire<Box<dyn Stream>>, user: &str, shared: &Shared) -> Result<(), NotIn> {
    wire.replies.authentication(SASL, format!("{MECHANISM}\0\0").as_bytes());
    wire.flush().await?;
    let Message::Password(first) = wire.message(STRANGER_BYTES_MAX).await? else { return Err(wrong_message()) };
    let (mechanism, first) = sasl_begin(&first).map_err(Failure::from)?;
    if mechanism != MECHANISM {
        return Err(Failure::fatal("28000", "SCRAM-SHA-256 is the one way to sign in").into());
    }
    let (verifier, is_known) = verifier(user, shared)?;
    let nonce = shared.random::<18>().ok_or_else(|| Failure::fatal("58000", "no random numbers"))?;
    let exchange = Exchange::begin(first, &verifier, &STANDARD.encode(nonce));
    let exchange = exchange.map_err(|refused| Failure::fatal("28000", refused.to_string()))?;
    wire.replies.authentication(SASL_CONTINUES, exchange.challenge());
    wire.flush().await?;
    let Message::Password(last) = wire.message(STRANGER_BYTES_MAX).await? else { return Err(wrong_message()) };
    match exchange.end(&last, &verifier) {
        Ok(proof) if is_known => {
            wire.replies.authentication(SASL_ENDS, proof.as_bytes());
            Ok(())
        }
        _ => {
            shared.metrics.postgres.sign_ins_refused.add(1);
            tokio::time::sleep(REFUSED_AFTER).await;
            Err(Failure::fatal("28P01", "the password is wrong, or nobody has this name").into())
        }
    }
}

fn wrong_message() -> NotIn {
    Failure::fatal("08P01", "a password was expected").into()
}

/// What a password is compared with. For a name that nobody has: the same work, a salt that does not change, and a password
/// that nobody knows.
fn verifier(user: &str, shared: &Shared) -> Result<(Verifier, bool), Failure> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &shared.unknown_salts);
    let tag = hmac::sign(&key, user.as_bytes());
    let mut salt = [0; 16];
    salt.copy_from_slice(&tag.as_ref()[..16]);
    let Some(file) = shared.users.get(user) else {
        return Ok((Verifier::new(&STANDARD.encode(tag), salt), false));
    };
    let password = password(user, file).map_err(|error| {
        tracing::error!(event = "postgres_password_unreadable", %error);
        Failure::fatal("58000", "nobody can sign in as this user now: see harrier's log")
    })?;
    Ok((Verifier::new(password.expose(), salt), true))
}
