//! Copies between device memory and host memory, and within device memory: which way, in which parts, with which digests.
//!
//! A transfer copies the bytes of one list to another; each list is host memory or device memory, in one piece or in many.
//! The device's copy engine takes long runs, one call for all or one for each; a kernel takes many short ones, where they lie or
//! by way of a buffer on the device. Digests are
//! computed by the device beside the copy. Host memory that is not registered goes through bounded staging.

mod calibrate;
mod cursor;
mod issue;
mod lane;
mod pages;
mod relay;
mod staging;
mod transfer;
mod walk;
mod ways;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cascade_core::memory::{Piece, SgList, Space};
use parking_lot::{Mutex, RwLock};

use crate::device::{Device, Fault, Registry, Stream};
use issue::Issue;
use lane::Lane;
use relay::Relays;
use staging::Staging;
pub use transfer::Transfer;
pub use ways::{Path, Way, Ways};

/// Whose digests a transfer computes: of device memory only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digested {
    /// None.
    Nothing,
    /// Of the source, beside the copy.
    Source,
    /// Of the destination, as parts of it arrive.
    Destination,
}

/// How an engine uses its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Thread blocks of the copy kernel: few, because the bus is the limit and the model needs the others.
    pub copy_ctas: u32,
    /// Thread blocks of the digest kernel; 0: one for each multiprocessor.
    pub digest_ctas: u32,
    /// Bytes of the pinned buffer of each direction that memory goes through which is not registered; made when it is first used.
    pub staging_bytes: usize,
    /// Bytes of each of the buffers of device memory that pages go through on their way, at most three, made when they are first
    /// used; they come on top of what a pool may take. Below 128 KiB: none.
    pub relay_bytes: usize,
    /// Whether to measure the ways at start; without, a table made on an H200 decides.
    pub calibrate: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            copy_ctas: 32,
            digest_ctas: 0,
            // H200: gets of pageable memory at 38 GB/s with half of it, 47 with this; puts the same.
            staging_bytes: 64 << 20,
            relay_bytes: 24 << 20,
            calibrate: true,
        }
    }
}

/// The copy engine of one device.
#[derive(Debug)]
pub struct CopyEngine {
    device: Arc<dyn Device>,
    options: Options,
    registry: Registry,
    lanes: Mutex<Vec<Lane>>,
    relays: Relays,
    /// To the device, and from it.
    staging: [Mutex<Option<Staging>>; 2],
    ways: RwLock<Ways>,
    lost: AtomicBool,
}

impl CopyEngine {
    /// An engine over `device`, calibrated as the options say.
    ///
    /// # Errors
    /// The device's refusal of a stream or of pinned memory.
    pub fn new(device: &Arc<dyn Device>, options: Options) -> Result<Arc<Self>, Fault> {
        let engine = Arc::new(Self {
            device: Arc::clone(device),
            options,
            registry: Registry::new(device),
            lanes: Mutex::default(),
            relays: Relays::default(),
            staging: [Mutex::new(None), Mutex::new(None)],
            ways: RwLock::new(Ways::new(options.copy_ctas)),
            lost: AtomicBool::new(false),
        });
        engine.give_back(Lane::new(device)?);
        if options.calibrate {
            let measured = calibrate::measure(&engine)?;
            *engine.ways.write() = measured;
        }
        Ok(engine)
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// Which host memory is registered, and where more is added.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The ways that short runs and long ones take.
    #[must_use]
    pub fn ways(&self) -> Ways {
        self.ways.read().clone()
    }

    /// Lets all transfers go one way, for measurements; `None` gives the choice back to the table.
    pub fn force(&self, way: Option<Way>) {
        self.ways.write().force(way);
    }

    /// Whether the device failed: nothing is tried any more.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Whether a transfer can reach every piece: host memory, memory of the device, or of one whose memory this one reaches.
    #[must_use]
    pub fn reaches(&self, list: &SgList) -> bool {
        let own = self.device.info().ordinal;
        list.pieces().iter().all(|piece| match piece.space() {
            Space::Host => true,
            Space::Device(ordinal) => ordinal == own || self.device.reaches_device(ordinal),
        })
    }

    /// Starts to copy the first `len` bytes of `src` to `dst`, both at least as long, `dst` writable, one of them device
    /// memory. With host memory that is not registered the copy is over when this returns; otherwise the host has only
    /// queued it. It starts after what `after` holds now.
    ///
    /// # Errors
    /// `Fault::NotRegistered` for lists that this engine cannot copy between, else the device's failure.
    pub fn start(
        self: &Arc<Self>,
        dst: SgList,
        src: SgList,
        len: usize,
        digested: Digested,
        after: Option<Stream>,
    ) -> Result<Transfer, Fault> {
        let fits = dst.len() >= len && src.len() >= len && dst.is_writable();
        let on_device = |list: &SgList| list.pieces().iter().any(|piece| piece.space() != Space::Host);
        if !fits || !self.reaches(&dst) || !self.reaches(&src) || !(on_device(&dst) || on_device(&src)) {
            return Err(Fault::NotRegistered);
        }
        if self.is_lost() {
            return Err(Fault::Failed { function: "an earlier call of this device", code: 0 });
        }
        let issue = Issue::new(self, dst, src, len, digested, after)?;
        let transfer = issue.run();
        if let Err(Fault::Failed { .. }) = &transfer {
            self.lost.store(true, Ordering::Relaxed);
        }
        transfer
    }

    /// Copies and waits; the digests that were asked for, where the device could compute them.
    ///
    /// # Errors
    /// As [`CopyEngine::start`].
    pub fn copy(
        self: &Arc<Self>,
        dst: SgList,
        src: SgList,
        len: usize,
        digested: Digested,
    ) -> Result<Option<Vec<u64>>, Fault> {
        self.start(dst, src, len, digested, None)?.wait()
    }

    /// The chunk digests of a piece of device memory.
    ///
    /// # Errors
    /// As [`CopyEngine::start`].
    pub fn digests(self: &Arc<Self>, piece: &Piece) -> Result<Option<Vec<u64>>, Fault> {
        let list = SgList::from(piece.clone());
        Issue::new(self, SgList::new(), list, piece.len(), Digested::Source, None)?.run_digest()?.wait()
    }

    fn take_lane(&self) -> Result<Lane, Fault> {
        let idle = self.lanes.lock().pop();
        idle.map_or_else(|| Lane::new(&self.device), Ok)
    }

    fn give_back(&self, lane: Lane) {
        self.lanes.lock().push(lane);
    }

    fn note(&self, fault: &Fault) {
        if matches!(fault, Fault::Failed { .. }) {
            self.lost.store(true, Ordering::Relaxed);
        }
    }

    fn digest_ctas(&self) -> u32 {
        match self.options.digest_ctas {
            0 => self.device.info().multiprocessors.max(1),
            ctas => ctas,
        }
    }
}

#[cfg(test)]
mod tests;
