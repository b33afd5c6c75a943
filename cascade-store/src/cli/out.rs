//! Output, and how a command ends.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use cascade_core::{Error, ErrorKind};
use serde::Serialize;

/// Why a command ended early.
#[derive(Debug)]
pub(super) enum Failure {
    /// Who reads the output has gone, which is no error: `cascade stat --watch | head`.
    Closed,
    /// What to tell the user.
    Error(Error),
}

/// The exit status of a command, or why there is none.
pub(super) type Done = Result<u8, Failure>;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::Closed;
        }
        Self::Error(Error::new(ErrorKind::System, "cannot write the output").with_source(error))
    }
}

/// The standard output.
#[derive(Debug)]
pub(super) struct Out {
    writer: BufWriter<Stdout>,
    terminal: bool,
}

impl Out {
    pub(super) fn standard() -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        Self { writer: BufWriter::new(stdout), terminal }
    }

    /// Whether a person sees it at once.
    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    pub(super) fn text(&mut self, text: &str) -> Result<(), Failure> {
        Ok(self.writer.write_all(text.as_bytes())?)
    }

    pub(super) fn line(&mut self, text: &str) -> Result<(), Failure> {
        Ok(writeln!(self.writer, "{text}")?)
    }

    /// One document on one line.
    pub(super) fn json(&mut self, document: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(document)
            .map_err(|error| Error::new(ErrorKind::System, "cannot write JSON").with_source(error))?;
        self.line(&text)
    }

    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.writer.flush()?)
    }
}
