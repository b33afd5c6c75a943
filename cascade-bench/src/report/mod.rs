//! The benchmark document: what was measured, on what, by which commit. One JSON document, schema 1.

mod compare;
mod extra;
mod files;
mod host;
mod table;

use std::path::Path;

use cascade_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::stats::{Latency, Spread};

pub use compare::compare;
pub use extra::{Census, Phases, Ranked, Replay, Routing, Space, Throughput};
pub use files::{Calls, Files, Made, Opening, Origin};
pub use host::{Host, available_memory_bytes, source_state};
pub use table::table;

/// Version of the document's form.
pub const SCHEMA: u32 = 1;

/// The document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Always [`SCHEMA`].
    pub schema: u32,
    /// Commit of the sources; `None` outside of a repository.
    pub commit: Option<String>,
    /// Whether the sources differed from that commit.
    #[serde(default)]
    pub dirty: bool,
    /// The machine.
    pub host: Host,
    /// What was measured.
    pub results: Vec<Row>,
    /// What was left out or failed, and why.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// The best that the machine did in the same run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ceiling {
    /// How it was reached.
    pub what: String,
    /// Median in GB/s.
    pub gbps: f64,
}

/// One measurement. GB is 1e9 bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// `cascade`, or the baseline's name.
    pub system: String,
    /// `shm`, `gpu`, `mpi`, `pfs`, `store`.
    pub tier: String,
    /// `put`, `get`, `lookup`, `lease`, `release`.
    pub op: String,
    /// How the operation was driven, such as `single`, `callers`, `pool`, `batch1000`.
    pub path: String,
    /// Bytes of one block.
    pub block_bytes: u64,
    /// Threads that took part in all.
    pub threads: usize,
    /// Processes that took part.
    pub ranks: usize,
    /// `hot`, `cold` or `first_touch`.
    pub state: String,
    /// Blocks stored while the latency of lookups was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<u64>,
    /// Repetitions.
    pub n: usize,
    /// Payload rate; `None` for operations that move no payload.
    pub gbps: Option<Spread>,
    /// Time of single operations (of whole batches where `path` says so).
    pub latency_us: Option<Latency>,
    /// What to compare with.
    pub ceiling: Option<Ceiling>,
    /// Median over the ceiling's median.
    pub efficiency: Option<f64>,
    /// Whether the bytes were right; `None` where none were checked.
    pub verified: Option<bool>,
    /// Bytes of tags, slots, bitmaps, residents and digests for each block stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index_bytes: Option<f64>,
    /// Operations by many at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput: Option<Throughput>,
    /// The space that was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space: Option<Space>,
    /// Where the time of a batch goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phases: Option<Phases>,
    /// How files were written or read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Files>,
    /// How long opening takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opening: Option<Opening>,
    /// What is said of other ranks' memory besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<Ranked>,
    /// How evenly ranks are loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routing: Option<Routing>,
    /// Requests replayed.
    #[serde(default, flatten, skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay>,
    /// Bytes that the requests moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<crate::trace::Moved>,
    /// What more blocks than the arena holds did to prefix blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pressure: Option<crate::oversubscription::Pressure>,
}

impl Row {
    /// A row of Cascade without figures.
    #[must_use]
    pub fn new(tier: &str, op: &str, path: &str, block_bytes: u64) -> Self {
        Self {
            system: "cascade".to_owned(),
            tier: tier.to_owned(),
            op: op.to_owned(),
            path: path.to_owned(),
            block_bytes,
            threads: 1,
            ranks: 1,
            state: "hot".to_owned(),
            blocks: None,
            n: 0,
            gbps: None,
            latency_us: None,
            ceiling: None,
            efficiency: None,
            verified: None,
            index_bytes: None,
            throughput: None,
            space: None,
            phases: None,
            files: None,
            opening: None,
            remote: None,
            routing: None,
            replay: None,
            moved: None,
            pressure: None,
        }
    }

    /// Sets the rate, the ceiling and, from both, the efficiency.
    pub fn set_rate(&mut self, gbps: Option<Spread>, ceiling: Option<Ceiling>) {
        self.efficiency = match (&gbps, &ceiling) {
            (Some(gbps), Some(ceiling)) if ceiling.gbps > 0.0 => Some(gbps.median / ceiling.gbps),
            _ => None,
        };
        self.gbps = gbps;
        self.ceiling = ceiling;
    }
}

impl Report {
    /// A report of this machine and these sources.
    #[must_use]
    pub fn here(results: Vec<Row>, notes: Vec<String>) -> Self {
        let (commit, dirty) = source_state();
        Self { schema: SCHEMA, commit, dirty, host: Host::detect(), results, notes }
    }

    /// Reads a report.
    ///
    /// # Errors
    /// `NotFound` when the file cannot be read, `Format` when it is not a report of this schema.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Error::new(ErrorKind::NotFound, format!("cannot read the report {}", path.display()))
                .with_source(error)
        })?;
        let context = || format!("{} is not a benchmark report of schema {SCHEMA}", path.display());
        let report: Self = serde_json::from_str(&text)
            .map_err(|error| Error::new(ErrorKind::Format, context()).with_source(error))?;
        if report.schema == SCHEMA { Ok(report) } else { Err(Error::new(ErrorKind::Format, context())) }
    }

    /// Writes the report.
    ///
    /// # Errors
    /// `System` when the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let failed = || Error::new(ErrorKind::System, format!("cannot write the report {}", path.display()));
        let text = serde_json::to_string_pretty(self).map_err(|error| failed().with_source(error))?;
        std::fs::write(path, text + "\n").map_err(|error| failed().with_source(error))
    }
}
