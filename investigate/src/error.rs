//! Why a question has no answer.

use archive::sql::QueryError;

/// An error of an investigation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The archive answered in a shape we did not ask for: a defect of ours.
    #[error("the archive answered in an unexpected shape: {0}")]
    Shape(#[from] serde_json::Error),
    #[error("there is no finding {0}")]
    NoFinding(String),
}
