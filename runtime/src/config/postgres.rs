//! `[postgres]`: the archive's door for PostgreSQL clients.
//!
//! # The guarantee
//!
//! It is open to the network only where it is guarded: by TLS, and by a password for everybody. Half of it is an error of
//! the configuration, which no command runs with.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::HTTP_PORT_DEFAULT;
use super::build::{Builder, Named, Range};
use super::problem::Problem;
use super::secret::SecretFile;
use super::value::InvalidValue;
use super::written::{WrittenPostgres, WrittenUser};

/// Port of the door for PostgreSQL clients, on loopback only unless it is guarded.
pub const POSTGRES_PORT_DEFAULT: u16 = 5432;

/// More than this is a query that nobody waits for, and holds one of few turns.
const TIMEOUT: Range = Range { least: "1s", most: "24h" };

/// `[postgres]`: the archive's door for PostgreSQL clients, which `harrier run --role sql` opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresConfig {
    pub listen: SocketAddr,
    /// The operators' server of that process, which runs beside one that has `[http]`.
    pub http_listen: SocketAddr,
    /// Without it the door opens on loopback only.
    pub tls: Option<PostgresTls>,
    /// How long one question may take.
    pub timeout: Duration,
    /// Who may sign in. With none, whoever can reach loopback may read.
    pub users: Vec<PostgresUser>,
}

/// `tls_certificate_file` and `tls_key_file`, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresTls {
    pub certificate_file: PathBuf,
    pub key_file: SecretFile,
}

/// `[[postgres.user]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresUser {
    pub name: String,
    pub password: SecretFile,
}

impl Default for PostgresConfig {
    /// PostgreSQL's own port, and the one after that of `[http]`.
    fn default() -> Self {
        PostgresConfig {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, POSTGRES_PORT_DEFAULT)),
            http_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, HTTP_PORT_DEFAULT + 1)),
            tls: None,
            timeout: Duration::from_secs(15 * 60),
            users: Vec::new(),
        }
    }
}

impl Builder<'_> {
    pub(super) fn postgres(&mut self, written: WrittenPostgres) -> PostgresConfig {
        let default = PostgresConfig::default();
        let pair = ["tls_certificate_file", "tls_key_file"];
        let has_pair = pair.iter().any(|key| written.present.has(key));
        if has_pair {
            self.require("[postgres]", written.offset, &written.present, &pair);
        }
        let users: Vec<Named<PostgresUser>> = written.users.into_iter().filter_map(|user| self.user(user)).collect();
        // Half of the pair is a problem of its own.
        let is_guarded = has_pair && !users.is_empty();
        let address = |text: &str| text.parse::<SocketAddr>().map_err(|_| InvalidValue::Listen);
        let offset = written.listen.as_ref().map_or(written.offset, |listen| listen.offset);
        let listen = self.parsed("listen", written.listen, address).unwrap_or(default.listen);
        if !listen.ip().is_loopback() && !is_guarded {
            self.problem(offset, Problem::PostgresUnguarded);
        }
        let offset = written.http_listen.as_ref().map_or(written.offset, |listen| listen.offset);
        let http_listen = self.parsed("http_listen", written.http_listen, address).unwrap_or(default.http_listen);
        if !http_listen.ip().is_loopback() {
            self.problem(offset, Problem::ListensToNetwork);
        }
        let certificate_file = self.path("tls_certificate_file", written.tls_certificate_file);
        let key_file = self.secret("tls_key_file", written.tls_key_file);
        let tls = certificate_file
            .zip(key_file)
            .map(|(certificate_file, key_file)| PostgresTls { certificate_file, key_file });
        let timeout = self.duration("timeout", written.timeout, &TIMEOUT).unwrap_or(default.timeout);
        PostgresConfig { listen, http_listen, tls, timeout, users: self.distinct("user", users) }
    }

    fn user(&mut self, written: WrittenUser) -> Option<Named<PostgresUser>> {
        self.require("[[postgres.user]]", written.offset, &written.present, &["name", "password_file"]);
        let offset = written.name.as_ref().map_or(written.offset, |name| name.offset);
        let name = self.parsed("name", written.name, user_name);
        let password = self.secret("password_file", written.password_file);
        let (name, password) = (name?, password?);
        Some(Named { name: name.clone(), offset, value: PostgresUser { name, password } })
    }
}

/// A name that needs no quotes in any client.
fn user_name(text: &str) -> Result<String, InvalidValue> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    if (1..=63).contains(&text.len()) && text.bytes().all(fits) {
        Ok(text.to_owned())
    } else {
        Err(InvalidValue::UserName)
    }
}
