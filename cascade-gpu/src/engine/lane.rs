//! What one transfer needs of a device: two streams, and pinned memory for run tables, page tables and digests.

use std::sync::Arc;

use crate::device::{Device, Fault, Pinned, Run, Stream};

/// Least bytes of each pinned buffer; they grow with the largest transfer and are used again.
const LEAST_BYTES: usize = 64 << 10;

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
        let pinned = || Pinned::new(device, LEAST_BYTES);
        let (table, pages, out) = (pinned()?, pinned()?, pinned()?);
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
        grow(&mut self.out, digests * 8)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.device.end_stream(self.copies);
        self.device.end_stream(self.digests);
    }
}
