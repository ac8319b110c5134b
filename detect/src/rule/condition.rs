//! What a detection rule selects.

/// A compiled detection.
#[derive(Clone, Debug)]
pub struct Detection {}
