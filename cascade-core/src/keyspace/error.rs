//! What can be wrong with a key space.

use std::error::Error;
use std::fmt;
use std::ops::Range;

use super::{MAX_FIELD_BYTES, MIN_SECRET_BYTES};

/// Why a key space cannot be built. The text names the field and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeySpaceError {
    /// A required field was not given, or is empty or zero.
    Missing {
        /// The field.
        field: &'static str,
    },
    /// A text or secret beyond [`MAX_FIELD_BYTES`].
    TooLong {
        /// The field.
        field: &'static str,
        /// Its length.
        length_bytes: usize,
    },
    /// A range that is empty or reaches beyond the model.
    OutOfRange {
        /// The field.
        field: &'static str,
        /// The range that was given.
        range: Range<u32>,
        /// What it must lie within, from 0.
        limit: u32,
    },
    /// A secret short enough to be found by trying.
    WeakSecret {
        /// Its length.
        length_bytes: usize,
    },
}

impl fmt::Display for KeySpaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { field } => {
                write!(
                    f,
                    "key space: {field} is missing, empty or zero; blocks that differ in it would collide"
                )
            }
            Self::TooLong { field, length_bytes } => {
                write!(
                    f,
                    "key space: {field} has {length_bytes} bytes, at most {MAX_FIELD_BYTES} are allowed"
                )
            }
            Self::OutOfRange { field, range, limit } => write!(
                f,
                "key space: {field} {}..{} must not be empty and must lie within 0..{limit}",
                range.start, range.end
            ),
            Self::WeakSecret { length_bytes } => write!(
                f,
                "key space: the tenant's secret has {length_bytes} bytes, give at least {MIN_SECRET_BYTES} random ones"
            ),
        }
    }
}

impl Error for KeySpaceError {}

impl From<KeySpaceError> for crate::Error {
    fn from(error: KeySpaceError) -> Self {
        Self::new(crate::ErrorKind::InvalidArgument, error.to_string())
    }
}
