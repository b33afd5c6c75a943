//! Rivals that are Python programs: each a process of its own, told what to do line by line (`rivals.py` says how).

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;

use cascade_core::Result;
use serde::{Deserialize, Serialize};

use super::cli::{Durability, Rival};
use super::system::{Data, Manner, Reading, System, Work, failed};

const SCRIPT: &str = include_str!("rivals.py");

#[derive(Serialize)]
struct Order<'a> {
    op: &'a str,
    folder: &'a Path,
    block: usize,
    blocks: usize,
    durability: &'a str,
    depth: usize,
}

#[derive(Debug, Default, Deserialize)]
struct Answer {
    ready: Option<String>,
    missing: Option<String>,
    error: Option<String>,
    seconds: Option<f64>,
    right: Option<bool>,
}

/// A rival, running. Clones are the same process.
#[derive(Clone, Debug)]
pub(super) struct Python {
    rival: Rival,
    about: String,
    depth: usize,
    process: Rc<RefCell<Process>>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// Its name in rows.
pub(super) fn name(rival: Rival) -> &'static str {
    match rival {
        Rival::Fio => "fio",
        Rival::Python => "python-files",
        Rival::Hdf5 => "hdf5",
        Rival::Vllm => "vllm-fs",
        Rival::None => "none",
    }
}

impl Python {
    /// Starts a rival; the reason where it cannot run.
    pub(super) fn start(rival: Rival, program: &Path, depth: usize) -> std::result::Result<Self, String> {
        let word = match rival {
            Rival::Hdf5 => "hdf5",
            Rival::Vllm => "vllm",
            _ => "python",
        };
        let no = |error: std::io::Error| format!("{} cannot be started: {error}", program.display());
        let mut command = Command::new(program);
        command.args(["-c", SCRIPT, word]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(no)?;
        let (orders, answers) = (child.stdin.take(), child.stdout.take());
        let answers = BufReader::new(answers.ok_or("it has no output")?);
        let mut process = Process { child, orders, answers };
        let answer = process.answer().map_err(|error| error.to_string())?;
        let about = answer.ready.ok_or(answer.missing.unwrap_or_else(|| "it said nothing".to_owned()))?;
        Ok(Self { rival, about, depth, process: Rc::new(RefCell::new(process)) })
    }

    fn order(&self, op: &str, work: &Work) -> Result<(f64, bool)> {
        let ended = || failed(format!("{} ended", name(self.rival)));
        let Work { block, blocks, ref folder, durability, .. } = *work;
        let order = Order { op, folder, block, blocks, durability: durability.name(), depth: self.depth };
        let line = serde_json::to_string(&order).map_err(|error| ended().with_source(error))?;
        let mut process = self.process.borrow_mut();
        let orders = process.orders.as_mut().ok_or_else(ended)?;
        writeln!(orders, "{line}").map_err(|error| ended().with_source(error))?;
        let answer = process.answer().map_err(|error| ended().with_source(error))?;
        if let Some(error) = answer.error {
            return Err(failed(format!("{}: {error}", name(self.rival))));
        }
        answer.seconds.zip(answer.right).ok_or_else(ended)
    }

    /// Whether it can make blocks durable so.
    pub(super) fn can(&self, durability: Durability) -> bool {
        self.rival != Rival::Vllm || durability != Durability::Block
    }
}

impl Process {
    fn answer(&mut self) -> std::io::Result<Answer> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }
}

impl System for Python {
    fn name(&self) -> &'static str {
        name(self.rival)
    }

    fn write(&mut self, work: &Work, _: &mut Data) -> Result<f64> {
        Ok(self.order("write", work)?.0)
    }

    fn read(&mut self, work: &Work, _: &mut Data) -> Result<Reading> {
        let (seconds, is_right) = self.order("read", work)?;
        Ok(Reading { seconds, is_right: Some(is_right) })
    }

    fn manners(&self) -> (Manner, Manner) {
        let (depth, direct) = match self.rival {
            // It chooses by itself, and does not say.
            Rival::Vllm => (self.depth, None),
            _ => (1, Some(false)),
        };
        let manner = Manner { engine: self.about.clone(), io_bytes: 0, depth, direct };
        (manner.clone(), manner)
    }

    fn process(&self) -> Option<u32> {
        Some(self.process.borrow().child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Without orders it ends by itself; one that hangs is ended.
        drop(self.orders.take());
        for _ in 0..100 {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
