//! Hits by pointer, and what many blocks leave of device memory.

use std::time::Instant;

use cascade_core::memory::SgList;
use cascade_core::tier::Tier;
use cascade_core::{Error, ErrorKind, Result};

use super::rig::{Rig, failed};
use crate::report::Row;
use crate::stats::Latency;

const BLOCKS: usize = 1000;
const BLOCK_BYTES: usize = 64 << 10;
const LEASES: usize = 200_000;

fn part(rig: &Rig, at: usize, len: usize) -> Result<SgList> {
    let piece = rig.source.piece().part(at, len).map(SgList::from);
    piece.ok_or_else(|| Error::new(ErrorKind::System, "the source is shorter than a block"))
}

/// Time of a lease by pointer and its release, among 1,000 blocks.
pub(super) fn latency(rig: &Rig) -> Result<Row> {
    let ids: Vec<_> = (0..BLOCKS).map(|_| rig.fresh_id()).collect();
    for (index, id) in ids.iter().enumerate() {
        rig.store(*id, part(rig, index * 4096, BLOCK_BYTES)?)?;
    }
    let mut times = Vec::with_capacity(LEASES);
    for lease in 0..LEASES {
        let id = &ids[lease * 7919 % BLOCKS];
        let start = Instant::now();
        let leased = rig.tier.get_gpu_ptr(id);
        let address = leased.as_ref().map_or(0, |lease| lease.address());
        drop(leased);
        times.push(start.elapsed().as_secs_f64() * 1e6);
        if address == 0 {
            return Err(Error::new(ErrorKind::System, "a stored block has no address"));
        }
    }
    let mut row = Row::new("gpu", "lease", "pointer, with release", BLOCK_BYTES as u64);
    (row.n, row.blocks) = (LEASES, Some(BLOCKS as u64));
    row.latency_us = Latency::of(&times);
    rig.delete(&ids)?;
    Ok(row)
}

/// Puts blocks until the budget was filled many times over, then looks what is left of device memory.
pub(super) fn cycles(rig: &Rig, cycles: u64) -> Result<(Row, String)> {
    let len = 4 << 20;
    let source = part(rig, 0, len)?;
    let trimmed = rig.tier.trim();
    let before = rig.device.free_bytes().map_err(failed)?;
    let evicted = rig.tier.stats().evictions;
    let start = Instant::now();
    let mut ids = Vec::new();
    for _ in 0..cycles {
        let id = rig.fresh_id();
        rig.store(id, source.clone())?;
        let into = rig.target.piece().part(0, len).map(SgList::from);
        rig.fetch(id, into.unwrap_or_default())?;
        ids.push(id);
    }
    let seconds = start.elapsed().as_secs_f64();
    let evictions = rig.tier.stats().evictions - evicted;
    for some in ids.chunks(1024) {
        rig.delete(some)?;
    }
    let given_back = rig.tier.trim();
    let after = rig.device.free_bytes().map_err(failed)?;
    let mut row = Row::new("gpu", "cycle", "put, get, evict", len as u64);
    row.n = usize::try_from(cycles).unwrap_or(usize::MAX);
    row.verified = Some(before == after && rig.tier.stats().used_bytes == 0);
    let rate = cascade_core::units::gbps(2 * cycles * len as u64, seconds);
    let note = format!(
        "{cycles} blocks of {} MiB put and got at {rate:.1} GB/s, {evictions} evicted: {before} bytes of the device were free before, {after} after (slabs of {trimmed} and {given_back} bytes given back)",
        len >> 20
    );
    Ok((row, note))
}
