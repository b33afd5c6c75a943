//! This program again, as a process that takes part: told what to do on its standard input, line by line, and answering so.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use cascade_core::{Error, ErrorKind, Result};
use serde::Serialize;

/// How long a member may take to end by itself: it closes what it has in good order.
const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// A process that takes part.
#[derive(Debug)]
pub(crate) struct Member {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

fn ended() -> Error {
    Error::new(ErrorKind::System, "a process that takes part in the measurement ended early")
}

impl Member {
    /// Starts `command` and tells it its job, as one line of JSON.
    ///
    /// # Errors
    /// `System` when it cannot be started or does not listen.
    pub(crate) fn start(mut command: Command, job: &impl Serialize) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().map_err(|error| ended().with_source(error))?;
        let (orders, answers) = (child.stdin.take(), child.stdout.take().ok_or_else(ended)?);
        let mut member = Self { child, orders, answers: BufReader::new(answers) };
        let text = serde_json::to_string(job).map_err(|error| ended().with_source(error))?;
        member.say(&text)?;
        Ok(member)
    }

    /// Says one line to it.
    ///
    /// # Errors
    /// `System` when it does not listen any more.
    pub(crate) fn say(&mut self, line: &str) -> Result<()> {
        let orders = self.orders.as_mut().ok_or_else(ended)?;
        writeln!(orders, "{line}").and_then(|()| orders.flush()).map_err(|error| ended().with_source(error))
    }

    /// The next line that it says.
    ///
    /// # Errors
    /// `System` when it has ended.
    pub(crate) fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let read = self.answers.read_line(&mut line).map_err(|error| ended().with_source(error))?;
        if read == 0 { Err(ended()) } else { Ok(line.trim_end().to_owned()) }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Without orders it ends by itself; one that hangs is ended.
        drop(self.orders.take());
        let step = Duration::from_millis(10);
        for _ in 0..ENDS_WITHIN.as_millis() / step.as_millis() {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(step);
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
