//! What is measured: systems that write blocks to files and read them back, and the memory that they share.

use std::path::PathBuf;

use cascade_core::{Error, ErrorKind, Result};

use super::cli::Durability;
use crate::memory::{self, Region};

/// Blocks to be written to, and read from, a folder that is there and empty before the writing.
#[derive(Clone, Debug)]
pub(super) struct Work {
    /// Bytes of a block.
    pub(super) block: usize,
    /// How many.
    pub(super) blocks: usize,
    /// Where.
    pub(super) folder: PathBuf,
    /// When it is durable.
    pub(super) durability: Durability,
    /// Number of the repetition.
    pub(super) rep: usize,
}

impl Work {
    pub(super) fn bytes(&self) -> u64 {
        (self.block * self.blocks) as u64
    }
}

/// The bytes of the blocks, one behind the other, and as much memory to read them to.
#[derive(Debug)]
pub(super) struct Data {
    pub(super) source: Region,
    pub(super) target: Region,
}

impl Data {
    /// For laps of `bytes`.
    pub(super) fn new(bytes: u64) -> Result<Self> {
        let bytes = bytes as usize;
        Ok(Self { source: memory::random(bytes, 0x9e37_79b9_7f4a_7c15)?, target: memory::private(bytes)? })
    }
}

/// How a system makes its calls.
#[derive(Clone, Debug, Default)]
pub(super) struct Manner {
    pub(super) engine: String,
    pub(super) io_bytes: u64,
    pub(super) depth: usize,
    pub(super) direct: Option<bool>,
}

/// A reading that has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub(super) seconds: f64,
    /// Whether the bytes were those that were written; `None` where the system does not look.
    pub(super) is_right: Option<bool>,
}

/// Writes and reads files.
pub(super) trait System {
    /// Its name in rows.
    fn name(&self) -> &'static str;

    /// What tells its rows from those of the same name and durability.
    fn variant(&self) -> String {
        String::new()
    }

    /// Writes the blocks; gives the seconds until all of them are acknowledged, and durable as asked.
    fn write(&mut self, work: &Work, data: &mut Data) -> Result<f64>;

    /// Called after caches were dropped and before the clock starts, such as to open a handle.
    fn prepare(&mut self, _work: &Work) -> Result<()> {
        Ok(())
    }

    /// Reads the blocks.
    fn read(&mut self, work: &Work, data: &mut Data) -> Result<Reading>;

    /// How it wrote, and how it read.
    fn manners(&self) -> (Manner, Manner);

    /// The process that reads, where it is neither this one nor one that has ended.
    fn process(&self) -> Option<u32> {
        None
    }
}

/// An error of kind `System`.
pub(super) fn failed(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::System, what)
}
