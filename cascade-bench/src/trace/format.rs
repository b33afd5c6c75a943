//! Workloads: from a trace, a text of questions about documents, or a generator; and parts of them.

use std::collections::HashMap;
use std::path::Path;

use cascade_core::{Error, ErrorKind, Result};
use serde::Deserialize;

/// Tokens of a block of the Mooncake trace, and of those made here.
pub const BLOCK_TOKENS: u64 = 512;

/// One request: when, and the blocks of its prompt in order. Equal numbers are equal prefixes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Milliseconds since the workload began.
    pub at_ms: u64,
    /// Blocks, numbered densely from 0 on in the order in which they first appear.
    pub blocks: Vec<u32>,
}

/// Requests in the order in which they are served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// What it is.
    pub name: String,
    /// The requests.
    pub requests: Vec<Request>,
    /// Different blocks: all numbers are below.
    pub blocks: usize,
}

/// A line of the Mooncake format.
#[derive(Deserialize)]
struct Line {
    timestamp: f64,
    hash_ids: Vec<u64>,
}

/// A line of LooGLE: a document, and how many questions are asked about it.
#[derive(Deserialize)]
struct Document {
    input: String,
    qa_pairs: serde_json::Value,
}

/// Numbers blocks densely.
#[derive(Debug, Default)]
pub struct Numbering {
    numbers: HashMap<u64, u32>,
}

impl Numbering {
    /// The number of the block that is called `name`.
    pub fn number(&mut self, name: u64) -> u32 {
        let next = self.numbers.len() as u32;
        *self.numbers.entry(name).or_insert(next)
    }

    /// Blocks numbered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.numbers.len()
    }
}

impl Workload {
    /// Of requests whose blocks have any names.
    #[must_use]
    pub fn new(name: String, requests: impl IntoIterator<Item = (u64, Vec<u64>)>) -> Self {
        let mut numbering = Numbering::default();
        let mut requests: Vec<Request> = requests
            .into_iter()
            .map(|(at_ms, names)| {
                let blocks = names.into_iter().map(|name| numbering.number(name)).collect();
                Request { at_ms, blocks }
            })
            .collect();
        requests.retain(|request| !request.blocks.is_empty());
        Self { name, requests, blocks: numbering.len() }
    }

    /// Reads JSON lines: the Mooncake format (`timestamp` in ms, `hash_ids`), or documents with questions (`input`, `qa_pairs`).
    ///
    /// # Errors
    /// `NotFound` when the file cannot be read, `Format` with the number of the line that is neither.
    pub fn load(path: &Path, seed: u64) -> Result<Self> {
        let unreadable = |error| {
            Error::new(ErrorKind::NotFound, format!("cannot read the trace {}", path.display()))
                .with_source(error)
        };
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let name = path.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let is_documents = text.lines().next().is_some_and(|line| line.contains("\"qa_pairs\""));
        let wrong = |line: usize, error| {
            let what = "of the Mooncake format (timestamp, hash_ids) or a document (input, qa_pairs)";
            let context = format!("{}:{}: not a line {what}", path.display(), line + 1);
            Error::new(ErrorKind::Format, context).with_source(error)
        };
        if is_documents {
            let documents: Result<Vec<(usize, usize)>> =
                lines.map(|(line, text)| document(text).map_err(|error| wrong(line, error))).collect();
            return Ok(super::synthetic::documents(name, &documents?, seed));
        }
        let parse = |(line, text): (usize, &str)| {
            let parsed: Line = serde_json::from_str(text).map_err(|error| wrong(line, error))?;
            Ok((parsed.timestamp.max(0.0) as u64, parsed.hash_ids))
        };
        Ok(Self::new(name, lines.map(parse).collect::<Result<Vec<_>>>()?))
    }

    /// Requests from minute `from` until before minute `to`.
    #[must_use]
    pub fn minutes(&self, from: f64, to: f64) -> Self {
        let within = |request: &&Request| (from..to).contains(&(request.at_ms as f64 / 60_000.0));
        self.of(format!("{}, minutes {from} to {to}", self.name), self.requests.iter().filter(within))
    }

    /// Every `nth` request.
    #[must_use]
    pub fn every(&self, nth: usize) -> Self {
        self.of(format!("{}, every {nth}th", self.name), self.requests.iter().step_by(nth.max(1)))
    }

    /// The last request first.
    #[must_use]
    pub fn reversed(&self) -> Self {
        let end = self.requests.last().map_or(0, |request| request.at_ms);
        let mut reversed = self.of(format!("{}, reversed", self.name), self.requests.iter().rev());
        reversed.requests.iter_mut().for_each(|request| request.at_ms = end - request.at_ms.min(end));
        reversed
    }

    fn of<'a>(&self, name: String, requests: impl Iterator<Item = &'a Request>) -> Self {
        let names = |request: &Request| request.blocks.iter().map(|block| u64::from(*block)).collect();
        Self::new(name, requests.map(|request| (request.at_ms, names(request))))
    }

    /// Blocks named by all requests together.
    #[must_use]
    pub fn references(&self) -> u64 {
        self.requests.iter().map(|request| request.blocks.len() as u64).sum()
    }
}

/// Blocks of a document (a token is taken for four letters) and the number of its questions.
fn document(text: &str) -> serde_json::Result<(usize, usize)> {
    let document: Document = serde_json::from_str(text)?;
    let blocks = (document.input.len() as u64).div_ceil(4 * BLOCK_TOKENS) as usize;
    let questions = match &document.qa_pairs {
        serde_json::Value::Array(pairs) => pairs.len(),
        // LooGLE keeps the list as text: each pair has one key "Q".
        serde_json::Value::String(pairs) => pairs.matches("'Q'").count().max(pairs.matches("\"Q\"").count()),
        _ => 1,
    };
    Ok((blocks.max(1), questions.max(1)))
}
