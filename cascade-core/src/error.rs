//! One error type: a kind for code, a context for people, and the source.

use std::error::Error as StdError;
use std::fmt;

/// Result of an operation that can be misused or misconfigured.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, for code to match on.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// An argument is outside its documented range.
    InvalidArgument,
    /// A destination is too small for the block.
    TooShort,
    /// The configuration is wrong, or differs from what an existing arena was made with.
    Config,
    /// A file, directory or device is not there.
    NotFound,
    /// The system refuses access.
    Permission,
    /// Something on disk or in shared memory is damaged, foreign or of another version.
    Format,
    /// There is no room: memory, disk, rows or descriptors.
    NoSpace,
    /// The operation cannot be done on this machine or by this tier.
    Unsupported,
    /// The deadline passed.
    Deadline,
    /// The system answered with an error that has no kind of its own.
    System,
}

impl ErrorKind {
    /// The name of this kind as metrics and logs write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidArgument => "invalid_argument",
            Self::TooShort => "too_short",
            Self::Config => "config",
            Self::NotFound => "not_found",
            Self::Permission => "permission",
            Self::Format => "format",
            Self::NoSpace => "no_space",
            Self::Unsupported => "unsupported",
            Self::Deadline => "deadline",
            Self::System => "system",
        }
    }
}

/// An error with what was tried, on what, and what to do about it.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    context: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `context` names the path, rank or device, what was tried, and what to do.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None }
    }

    /// The same, with the error that caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The kind, for code.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The context, for people.
    #[must_use]
    pub fn context(&self) -> &str {
        &self.context
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
