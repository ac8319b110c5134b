//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemas::text::escape_controls;

use super::value::InvalidValue;

/// One thing that is wrong.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    #[error("cannot be read: {0}")]
    Unreadable(Arc<std::io::Error>),
    #[error("is larger than 4 MiB")]
    TooLarge,
    #[error("is not UTF-8 text")]
    NotUtf8,
    #[error("not TOML: {message}")]
    Syntax { message: String },
    #[error("unknown key `{key}` in {section}{}", meant(*nearest, known))]
    UnknownKey { section: &'static str, key: String, nearest: Option<&'static str>, known: Vec<&'static str> },
    /// A key whose name with `_file` is known.
    #[error("`{key}` would put a secret into this text: write it to a file and name that with `{instead}`")]
    SecretInText { key: String, instead: &'static str },
    #[error("`{key}` must be {expected}, not {found}")]
    WrongType { key: String, expected: &'static str, found: &'static str },
    #[error("{section} needs `{key}`")]
    Missing { section: &'static str, key: &'static str },
    #[error("`{key}` {}{}", unknown_value(found), meant(*nearest, known))]
    UnknownValue { key: &'static str, found: String, nearest: Option<&'static str>, known: Vec<&'static str> },
    #[error("`{key}`: {reason}")]
    Invalid { key: &'static str, reason: Arc<InvalidValue> },
    #[error("`{key}` does nothing where `kind` is \"{kind}\"")]
    NotForKind { key: &'static str, kind: &'static str },
    #[error("`{key}` does nothing without `url`")]
    WithoutUrl { key: &'static str },
    #[error("`{key}` does nothing where `url` begins with {scheme}")]
    NotForStore { key: &'static str, scheme: &'static str },
    #[error("another {what} is called \"{name}\", on line {first_line}")]
    Duplicate { what: &'static str, name: String, first_line: usize },
    #[error("the option `{key}` {reason}")]
    Option { key: String, reason: &'static str },
    /// A warning.
    #[error("what signs in to the brokers passes in the clear: set `tls = true` in [log.security]")]
    PasswordInTheClear,
    /// A warning.
    #[error("`endpoint` begins with http://: what is archived will pass in the clear")]
    ArchiveInTheClear,
    #[error("[[tenant]] needs a credential: `client_certificate_file`, `federated_token_file` or `client_secret_file`")]
    NoCredential,
    #[error("`{key}` is a second credential beside `{first}`: keep one")]
    SecondCredential { key: &'static str, first: &'static str },
    #[error("`{key}` does nothing without `client_certificate_file`")]
    WithoutCertificate { key: &'static str },
    #[error("no Management Activity API is documented for cloud \"china\": set `management` in [tenant.endpoints]")]
    ManagementUnknown,
    /// A warning.
    #[error("`listen` is open to the network: /metrics names tenants and rules, and asks for no password")]
    ListensToNetwork,
    #[error(
        "`listen` is open to the network: [postgres] needs `tls_certificate_file`, `tls_key_file` and a [[postgres.user]]"
    )]
    PostgresUnguarded,
    /// A warning.
    #[error("tenant \"{tenant}\" has no `domains`: rules cannot tell inside from outside")]
    NoDomains { tenant: String },
}

impl Problem {
    /// Whether harrier can run nevertheless.
    pub fn is_warning(&self) -> bool {
        matches!(
            self,
            Problem::ListensToNetwork
                | Problem::NoDomains { .. }
                | Problem::PasswordInTheClear
                | Problem::ArchiveInTheClear
        )
    }
}

fn meant(nearest: Option<&'static str>, known: &[&'static str]) -> String {
    match nearest {
        Some(nearest) => format!(": did you mean `{nearest}`?"),
        None => format!("; known are {}", known.join(", ")),
    }
}

fn unknown_value(found: &str) -> String {
    format!("cannot be \"{found}\"")
}

/// Line and column, from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

impl Place {
    fn of(text: &str, offset: usize) -> Place {
        let before = &text[..text.floor_char_boundary(offset)];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Place { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }
}

/// A problem with its place. Prints as `file:line:column: message`, which editors and terminals make a link of.
#[derive(Clone, Debug)]
pub struct ConfigProblem {
    pub file: PathBuf,
    /// `None` if it is about the file as a whole.
    pub place: Option<Place>,
    pub problem: Problem,
}

impl ConfigProblem {
    pub(super) fn of_file(file: &Path, problem: Problem) -> ConfigProblem {
        ConfigProblem { file: file.to_owned(), place: None, problem }
    }
}

impl PartialEq for ConfigProblem {
    /// By what is printed: causes such as I/O errors cannot be compared.
    fn eq(&self, other: &ConfigProblem) -> bool {
        self.to_string() == other.to_string()
    }
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(Place { line, column }) = self.place {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}", self.problem)
    }
}

/// Everything that keeps a configuration from being used, in the order of the file. Never empty.
#[derive(Clone, Debug)]
pub struct ConfigErrors(Vec<ConfigProblem>);

impl ConfigErrors {
    pub(super) fn new(errors: Vec<ConfigProblem>) -> ConfigErrors {
        ConfigErrors(errors)
    }

    pub fn errors(&self) -> &[ConfigProblem] {
        &self.0
    }
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, error) in self.0.iter().enumerate() {
            let line_break = if number == 0 { "" } else { "\n" };
            write!(f, "{line_break}{error}")?;
        }
        Ok(())
    }
}

/// Collects problems by their offset in the text.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<(usize, Problem)>);

impl Problems {
    pub fn add(&mut self, offset: usize, problem: Problem) {
        self.0.push((offset, problem));
    }

    /// Errors and warnings with their places, in the order of the file.
    pub fn placed(mut self, file: &Path, text: &str) -> (Vec<ConfigProblem>, Vec<ConfigProblem>) {
        self.0.sort_by_key(|(offset, _)| *offset);
        let placed = |(offset, problem): (usize, Problem)| ConfigProblem {
            file: file.to_owned(),
            place: Some(Place::of(text, offset)),
            problem,
        };
        let (warnings, errors) = self.0.into_iter().map(placed).partition(|placed| placed.problem.is_warning());
        (errors, warnings)
    }
}

/// The line of an offset, from 1.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    Place::of(text, offset).line
}

/// Text from the file as it may be shown: short, and without control characters.
pub(super) fn shown(text: &str) -> String {
    const CHARACTERS_MAX: usize = 60;
    let cut: String = text.chars().take(CHARACTERS_MAX).collect();
    let ellipsis = if cut.len() < text.len() { "..." } else { "" };
    format!("{}{ellipsis}", escape_controls(&cut))
}
