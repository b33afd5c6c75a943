//! Tier 1 in the store: blocks in the memory of GPUs, above the arena. They are this process's alone, and every one of them is in
//! the arena too, or on its way there: what a device loses, or evicts, is never lost for it.
//!
//! A block whose id fixes its bytes (content, chain) is good wherever it lies. A *name* can be replaced by another process, so its
//! copy on a device is good only while the tiers below have the same bytes.

mod api;
mod open;
mod paths;
mod share;
mod worker;

use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use cascade_core::Result;
use cascade_core::batch::{Batch, Ticket};
use cascade_core::id::BlockId;
use cascade_core::memory::{SgList, Space};
use cascade_core::metrics::TierStats;
use cascade_core::tier::{Capability, Lookup, MissReason, Tier};
use cascade_gpu::engine::CopyEngine;
use cascade_gpu::tier::GpuTier;

use crate::moves::queue::Queue;
use crate::moves::seen::Seen;
pub(crate) use open::{open, open_on};
pub(crate) use worker::{Sinking, work};

/// Blocks that wait for their copy to the arena, at most.
const WAITING: usize = 1 << 14;
/// They are pinned until then: this share of the tier, one fourth, beyond which a put copies by itself.
const PINNED_SHARE: u64 = 4;

/// The tier of devices, and what the store keeps about it.
#[derive(Debug)]
pub(crate) struct Gpu {
    /// Left alone in a forked child, where CUDA must not be called.
    tier: ManuallyDrop<GpuTier>,
    engines: Vec<Arc<CopyEngine>>,
    /// For the thread that copies blocks to the arena.
    pub(crate) sink: Queue<Sinking>,
    /// Bytes that wait there.
    pub(crate) waiting: AtomicU64,
    pub(crate) seen: Seen,
    /// Whether other processes are told where blocks lie, and asked.
    pub(crate) is_shared: bool,
    said: AtomicBool,
    pid: u32,
}

impl Gpu {
    pub(crate) fn new(tier: GpuTier, is_shared: bool) -> Self {
        Self {
            engines: tier.engines(),
            tier: ManuallyDrop::new(tier),
            sink: Queue::new(WAITING),
            waiting: AtomicU64::new(0),
            seen: Seen::default(),
            is_shared,
            said: AtomicBool::new(false),
            pid: std::process::id(),
        }
    }

    /// Whether this process was forked from the one that opened the store: it has the arena, and no devices.
    pub(crate) fn is_forked(&self) -> bool {
        std::process::id() != self.pid
    }

    pub(crate) fn tier(&self) -> &GpuTier {
        &self.tier
    }

    /// The engine of the device that `list` lies on; `None` when that is none of this tier's, or several.
    pub(crate) fn engine_of(&self, list: &SgList) -> Option<&Arc<CopyEngine>> {
        let on = |piece: &cascade_core::memory::Piece| match piece.space() {
            Space::Device(ordinal) => Some(ordinal),
            Space::Host => None,
        };
        let ordinal = list.pieces().iter().find_map(on)?;
        let engine = self.engines.iter().find(|engine| engine.device().info().ordinal == ordinal)?;
        engine.reaches(list).then_some(engine)
    }

    pub(crate) fn engines(&self) -> &[Arc<CopyEngine>] {
        &self.engines
    }

    /// Whether another block of so many bytes may wait pinned.
    pub(crate) fn may_wait(&self, bytes: u64) -> bool {
        let limit = self.tier.capability().capacity_bytes / PINNED_SHARE;
        self.waiting.load(Ordering::Relaxed).saturating_add(bytes) <= limit
    }

    /// Says once that a device failed: what it held is served from below.
    pub(crate) fn watch(&self) {
        let lost = self.engines.iter().find(|engine| engine.is_lost());
        if let Some(engine) = lost
            && !self.said.swap(true, Ordering::Relaxed)
        {
            let info = engine.device().info();
            eprintln!(
                "cascade: GPU {} ({}) failed; its blocks are served from shared memory and files from now on. See nvidia-smi and the kernel's log",
                info.ordinal, info.name
            );
        }
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        if self.is_forked() {
            // Its engines too are the parent's.
            std::mem::take(&mut self.engines).into_iter().for_each(std::mem::forget);
            return;
        }
        self.engines.clear();
        crate::raw::drop_tier(&mut self.tier);
    }
}

impl Tier for Gpu {
    fn capability(&self) -> Capability {
        self.tier.capability()
    }

    fn lookup(&self, ids: &[BlockId], out: &mut [Lookup]) {
        if self.is_forked() {
            out.fill(Lookup::Miss(MissReason::Absent));
            return;
        }
        self.tier.lookup(ids, out);
        // What only this tier could say of a device that failed, those below know better; a name is theirs to answer for.
        for (id, answer) in ids.iter().zip(out) {
            let is_name = id.kind().replaceable();
            if is_name || matches!(answer, Lookup::Miss(_)) {
                *answer = Lookup::Miss(MissReason::Absent);
            }
        }
    }

    fn submit(&self, batch: Batch) -> Ticket {
        self.tier.submit(batch)
    }

    fn flush(&self, deadline: Instant) -> Result<()> {
        self.tier.flush(deadline)
    }

    fn stats(&self) -> TierStats {
        if self.is_forked() { TierStats::default() } else { self.tier.stats() }
    }
}
