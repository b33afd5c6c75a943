//! What one transfer needs of a device: two streams, and pinned memory for run tables, page tables and digests.

use std::sync::Arc;

use cascade_core::digest::CHUNK_BYTES;

use crate::device::{DIGEST_WORDS, Device, Fault, Pinned, Run, Stream};

/// Least bytes of each pinned buffer; they grow with the largest transfer and are used again.
const LEAST_BYTES: usize = 64 << 10;
/// The digests of this many bytes have room from the start: pinning more takes a while.
const LEAST_DIGESTED: usize = 256 << 20;

#[derive(Debug)]
pub(super) struct Lane {
    device: Arc<dyn Device>,
    /// Copies.
    pub(super) copies: Stream,
    /// Digests.
    pub(super) digests: Stream,
    pub(super) table: Pinned,
    pub(super) pages: Pinned,
    pub(super) out: Pinned,
}

impl Lane {
    pub(super) fn new(device: &Arc<dyn Device>) -> Result<Self, Fault> {
        let pinned = |bytes| Pinned::new(device, bytes);
        let digests = LEAST_DIGESTED / CHUNK_BYTES * 8 * DIGEST_WORDS;
        let (table, pages, out) = (pinned(LEAST_BYTES)?, pinned(LEAST_BYTES)?, pinned(digests)?);
        let copies = device.stream()?;
        let digests = device.stream().inspect_err(|_| device.end_stream(copies))?;
        Ok(Self { device: Arc::clone(device), copies, digests, table, pages, out })
    }

    /// Makes room for a table of `runs`, `pages` addresses and `digests` digests. No work of this lane is queued.
    pub(super) fn fit(&mut self, runs: usize, pages: usize, digests: usize) -> Result<(), Fault> {
        let device = &self.device;
        let grow = |buffer: &mut Pinned, bytes: usize| {
            if buffer.len() < bytes {
                *buffer = Pinned::new(device, bytes.next_power_of_two())?;
            }
            Ok(())
        };
        grow(&mut self.table, runs * size_of::<Run>())?;
        grow(&mut self.pages, pages * 8)?;
        grow(&mut self.out, digests * 8 * DIGEST_WORDS)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.device.end_stream(self.copies);
        self.device.end_stream(self.digests);
    }
}
