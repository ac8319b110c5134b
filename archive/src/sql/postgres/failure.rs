//! Why a client was given no answer: a code that programs read (SQLSTATE) and a line that people read.
//!
//! What a query is about may be said to whoever asked it. What a store or a disk says is not: it may name places and
//! accounts, so it goes to the log and the client is told where to look.

use arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;

use super::super::QueryError;
use super::message::Malformed;

/// Whether the connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    Error,
    Fatal,
}

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct Failure {
    pub severity: Severity,
    pub code: &'static str,
    pub message: String,
}

impl Failure {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Failure {
        Failure { severity: Severity::Error, code, message: message.into() }
    }

    pub(super) fn fatal(code: &'static str, message: impl Into<String>) -> Failure {
        Failure { severity: Severity::Fatal, code, message: message.into() }
    }

    pub(super) fn read_only(what: &str) -> Failure {
        Failure::new("25006", format!("{what} is refused: the archive is read-only"))
    }

    pub(super) fn not_offered(what: &str) -> Failure {
        Failure::new("0A000", format!("{what} is not offered here"))
    }
}

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Failure {
        Failure::fatal("08P01", malformed.to_string())
    }
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Failure {
        let code = match &error {
            QueryError::TooLong { .. } => "54000",
            QueryError::TooDeep { .. } => "54001",
            QueryError::Parameter(_) => "22023",
            QueryError::Archive(_) => "58030",
            QueryError::Query(error) => code(error.find_root()),
        };
        if matches!(code, "58030" | "XX000") {
            tracing::error!(event = "postgres_query_failed", error = %error);
            return Failure::new(code, "the archive could not be read, or the engine failed: see harrier's log");
        }
        Failure::new(code, error.to_string())
    }
}

fn code(error: &DataFusionError) -> &'static str {
    match error {
        DataFusionError::SQL(..) => "42601",
        DataFusionError::SchemaError(error, _) => match **error {
            SchemaError::FieldNotFound { .. } => "42703",
            SchemaError::AmbiguousReference { .. } => "42702",
            _ => "42000",
        },
        DataFusionError::Plan(text) if text.starts_with("table '") => "42P01",
        DataFusionError::Plan(text) if text.starts_with("Invalid function") => "42883",
        DataFusionError::Plan(text) if text.contains("not supported: ") => "25006",
        DataFusionError::Plan(_) | DataFusionError::Configuration(_) => "42000",
        DataFusionError::NotImplemented(_) => "0A000",
        DataFusionError::ResourcesExhausted(_) => "53400",
        DataFusionError::Execution(_) => "22000",
        DataFusionError::ArrowError(error, _) => match **error {
            ArrowError::DivideByZero => "22012",
            ArrowError::CastError(_) | ArrowError::ParseError(_) => "22P02",
            ArrowError::ArithmeticOverflow(_) => "22003",
            ArrowError::ComputeError(_) | ArrowError::InvalidArgumentError(_) => "22000",
            _ => "XX000",
        },
        DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) | DataFusionError::ParquetError(_) => "58030",
        _ => "XX000",
    }
}
