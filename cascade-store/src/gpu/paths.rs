//! What goes from and to devices: puts and gets of device memory, leases by pointer, and blocks between devices and the arena.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use cascade_core::batch::{Batch, Op, Outcome, Refusal, ticket};
use cascade_core::digest;
use cascade_core::id::BlockId;
use cascade_core::lease::Lease;
use cascade_core::memory::SgList;
use cascade_core::reservation::{Reservation, Reserve, Sealed};
use cascade_core::tier::{BlockMeta, Lookup, MissReason, OnExisting, PutMeta, Tier};
use cascade_core::{Error, ErrorKind};
use cascade_gpu::device::Stream;
use cascade_gpu::engine::{CopyEngine, Digested};
use cascade_gpu::lease::DeviceLease;

use super::{Gpu, Sinking};
use crate::chain::{Level, Located};
use crate::moves::count::add;
use crate::moves::flights::Kind;
use crate::put::{Block, Reach};
use crate::raw;
use crate::tiers::{Answer, Tiers};

/// How often a block is looked at that is just being looked at for eviction.
const EVICTION_LOOKS: usize = 64;
/// A fetch to a device keeps the block there while less than this share of the tier, in percent, is in use.
const ROOMY_PERCENT: u64 = 90;

impl Tiers {
    /// Stores a block whose bytes are in device memory, after what `after` holds now. It is on the device when this returns, and
    /// in the arena soon: at once for a name, which other processes may replace, and for a put that asks for more.
    pub(crate) fn put_device(&self, block: &Block, reach: Reach, after: Option<Stream>) -> Outcome {
        let (id, from, meta) = block;
        let Some((gpu, engine)) = self.gpu().and_then(|gpu| Some((gpu, gpu.engine_of(from)?))) else {
            return Outcome::Refused(Refusal::Memory);
        };
        let reach = self.files().map_or(reach, |files| reach.max(files.least));
        if reach > Reach::Found && self.files().is_none() {
            return Outcome::Refused(Refusal::Unavailable);
        }
        let outcome = if meta.on_existing == OnExisting::Replace {
            // Nobody finds the older one on a device once the newer is in the arena: their digests differ.
            let outcome = self.put_straight(engine, block, after);
            if matches!(outcome, Outcome::Stored | Outcome::Exists) {
                self.keep_copy(gpu, block, after);
            }
            outcome
        } else {
            self.put_fixed(gpu, engine, block, reach, after)
        };
        gpu.watch();
        self.after_put(&[*id], vec![outcome], reach).pop().unwrap_or(outcome)
    }

    /// A block whose id fixes its bytes: to the device, and from there to the arena.
    fn put_fixed(
        &self,
        gpu: &Gpu,
        engine: &Arc<CopyEngine>,
        block: &Block,
        reach: Reach,
        after: Option<Stream>,
    ) -> Outcome {
        let (id, from, meta) = block;
        if self.chain.locate(&[*id]).iter().any(|found| found.answer.is_hit()) {
            return Outcome::Exists;
        }
        let store = Op::Store { id: *id, from: from.clone(), meta: *meta };
        match submit(gpu, store, after) {
            Outcome::Stored | Outcome::Exists => {}
            // No room, another device, or a device that failed: the arena has a place.
            _ => return self.put_straight(engine, block, after),
        }
        let Ok(lease) = gpu.tier().get_gpu_ptr(id) else { return self.put_straight(engine, block, after) };
        let len = lease.meta().len;
        if reach == Reach::Found && gpu.may_wait(len) {
            gpu.waiting.fetch_add(len, Ordering::Relaxed);
            let refused = gpu.sink.push([Sinking::Put(*id, Box::new(lease))]);
            let Some(Sinking::Put(_, lease)) = refused.into_iter().next() else { return Outcome::Stored };
            gpu.waiting.fetch_sub(len, Ordering::Relaxed);
            // If the arena has no room for it, it is on the device all the same.
            let _ = self.sink_leased(gpu, id, &lease);
            return Outcome::Stored;
        }
        match self.sink_leased(gpu, id, &lease) {
            Err(why) if reach > Reach::Found => Outcome::Refused(why),
            // The device has it, and counts that nobody else does.
            _ => Outcome::Stored,
        }
    }

    /// From device memory into the arena, without a place on the device.
    fn put_straight(&self, engine: &Arc<CopyEngine>, block: &Block, after: Option<Stream>) -> Outcome {
        let (id, from, meta) = block;
        let is_name = meta.on_existing == OnExisting::Replace;
        let files = self.files();
        // As `replace` does it for host memory: the files forget an older block before the new one can be seen.
        let flight = files.filter(|_| is_name).map(|files| files.flights.begin_after(id, Kind::Change));
        if let (Some(files), Some(flight)) = (files, &flight) {
            files.is_current(flight);
        }
        // What cannot be read now is as good as not there.
        if !is_name && files.is_some_and(|files| files.meta_now(id).is_some() && !files.is_shut()) {
            return Outcome::Exists;
        }
        let reservation = match self.arena.reserve(id, from.len() as u64, *meta) {
            Reserve::Reserved(reservation) => reservation,
            Reserve::Exists(_) => return Outcome::Exists,
            Reserve::Refused(why) => return Outcome::Refused(why),
        };
        let filled = match fill(engine, reservation, from, after) {
            Ok(filled) => filled,
            Err(why) => return Outcome::Refused(why),
        };
        if let Some(files) = files.filter(|_| is_name) {
            // First, so that the older block is copied again if this process is killed before the newer one is sealed.
            self.take_note_back(id);
            let (_, is_hidden) = files.forget(id);
            add(&self.count.hidden, u64::from(is_hidden));
        }
        match filled.seal() {
            Sealed::Stored(new) => {
                if let Some(files) = files.filter(|_| is_name) {
                    self.forget_older(files, id, new.digest);
                }
                Outcome::Stored
            }
            Sealed::Exists(same) => {
                if is_name {
                    self.arena.note_below(id, same.digest, cascade_shm::Below::Absent);
                }
                Outcome::Exists
            }
            Sealed::Lost => Outcome::Refused(Refusal::Unavailable),
        }
    }

    /// Keeps a copy of a name on the device, if it has room.
    fn keep_copy(&self, gpu: &Gpu, block: &Block, after: Option<Stream>) {
        let (id, from, meta) = block;
        submit(gpu, Op::Store { id: *id, from: from.clone(), meta: *meta }, after);
        self.publish_place(gpu, id);
    }

    /// Copies a block that is pinned on a device to the arena, if it is not there.
    pub(crate) fn sink_leased(&self, gpu: &Gpu, id: &BlockId, lease: &DeviceLease) -> Result<(), Refusal> {
        let meta = lease.meta();
        let put =
            PutMeta { class: meta.class, on_existing: OnExisting::Keep, tenant: meta.tenant, heat: None };
        // Deleted since it was put: pinned, and not to be found any more.
        let is_deleted = || on_device(gpu, id) != Some(meta) && !gpu.tier().engine_of(id).is_lost();
        if is_deleted() || self.files().is_some_and(|files| files.meta_now(id).is_some()) {
            return Ok(());
        }
        let refuse = |why| {
            add(&self.count.hbm_refused, 1);
            Err(why)
        };
        let reservation = match self.arena.reserve(id, meta.len, put) {
            Reserve::Reserved(reservation) => reservation,
            Reserve::Exists(_) | Reserve::Refused(Refusal::Pending) => return Ok(()),
            Reserve::Refused(why) => return refuse(why),
        };
        let from = SgList::from(lease.piece().clone());
        let sealed = fill(gpu.tier().engine_of(id), reservation, &from, None).map(Filled::seal);
        gpu.watch();
        match sealed {
            Ok(Sealed::Stored(sealed)) if sealed.digest == meta.digest => {
                if is_deleted() {
                    // Whoever deleted it meanwhile may have asked the arena before it was there.
                    raw::run(&self.arena, vec![Op::Delete { id: *id }]);
                    return Ok(());
                }
                add(&self.count.hbm_demoted, 1);
                add(&self.count.hbm_demoted_bytes, meta.len);
                self.publish_place(gpu, id);
                if let Some(files) = self.files()
                    && files.demote == crate::config::Demote::Through
                {
                    self.queue_sinking(files, [*id]);
                }
                Ok(())
            }
            // What arrived is not what was put: it is not to be found.
            Ok(Sealed::Stored(_)) => {
                raw::run(&self.arena, vec![Op::Delete { id: *id }]);
                refuse(Refusal::Unavailable)
            }
            Ok(Sealed::Exists(_)) => Ok(()),
            Ok(Sealed::Lost) => refuse(Refusal::Unavailable),
            Err(why) => refuse(why),
        }
    }

    /// Copies a block to device memory, after what `after` holds now; the copy is over when this returns.
    pub(crate) fn get_device(&self, id: &BlockId, into: &SgList, after: Option<Stream>) -> Answer<BlockMeta> {
        let missed = |why| {
            self.count.missed(why);
            Err(why)
        };
        let Some((gpu, engine)) = self.gpu().and_then(|gpu| Some((gpu, gpu.engine_of(into)?))) else {
            return missed(MissReason::Destination);
        };
        if self.is_on_device(gpu, id) {
            let fetched = submit(gpu, Op::Fetch { id: *id, into: into.clone() }, after);
            gpu.watch();
            match fetched {
                Outcome::Fetched(meta) => {
                    add(&self.count.hbm_hits, 1);
                    return Ok(meta);
                }
                Outcome::Miss(MissReason::Destination) if reaches(gpu, id, into) => {
                    return missed(MissReason::Destination);
                }
                _ => {}
            }
        }
        if let Some(meta) = self.fetch_from_others(gpu, id, into, after) {
            add(&self.count.hbm_shared, 1);
            return Ok(meta);
        }
        // Counts what serves it, and a miss.
        let lease = self.lease(id)?;
        if into.len() < lease.len() || !into.is_writable() {
            return missed(MissReason::Destination);
        }
        let is_kept = (gpu.seen.again(id) || is_roomy(gpu)) && self.rise_to_device(gpu, id, &lease).is_ok();
        if is_kept && reaches(gpu, id, into) {
            let fetched = submit(gpu, Op::Fetch { id: *id, into: into.clone() }, after);
            if let Outcome::Fetched(meta) = fetched {
                return Ok(meta);
            }
        }
        let arrived = unpack(engine, id, &lease, into, after);
        gpu.watch();
        arrived.or_else(missed)
    }

    /// Pins a block on its device, brought up from the arena or from files where it is not there.
    pub(crate) fn get_gpu_ptr(&self, id: &BlockId) -> Answer<DeviceLease> {
        let missed = |why| {
            self.count.missed(why);
            Err(why)
        };
        let Some(gpu) = self.gpu() else { return missed(MissReason::Unavailable) };
        if self.is_on_device(gpu, id)
            && let Ok(lease) = gpu.tier().get_gpu_ptr(id)
        {
            add(&self.count.hbm_hits, 1);
            return Ok(lease);
        }
        let lease = self.lease(id)?;
        let risen = self.rise_to_device(gpu, id, &lease);
        gpu.watch();
        risen.and_then(|()| gpu.tier().get_gpu_ptr(id)).or_else(missed)
    }

    /// From the arena to the device that keeps blocks of this id.
    fn rise_to_device(&self, gpu: &Gpu, id: &BlockId, lease: &Lease) -> Result<(), MissReason> {
        let meta = lease.meta();
        let on_existing = if id.kind().replaceable() { OnExisting::Replace } else { OnExisting::Keep };
        let put = PutMeta { class: meta.class, on_existing, tenant: meta.tenant, heat: None };
        let stored = submit(gpu, Op::Store { id: *id, from: raw::leased(lease), meta: put }, None);
        let found = on_device(gpu, id);
        if matches!(stored, Outcome::Stored | Outcome::Exists) && !self.is_below_still(id, meta) {
            // Deleted or replaced while it was copied; who did so may have asked the device before it was there.
            submit(gpu, Op::Delete { id: *id }, None);
            return Err(MissReason::Absent);
        }
        match stored {
            Outcome::Stored | Outcome::Exists if found.is_some_and(|found| found.digest == meta.digest) => {
                add(&self.count.hbm_promoted, 1);
                add(&self.count.hbm_promoted_bytes, meta.len);
                self.publish_place(gpu, id);
                Ok(())
            }
            Outcome::Stored | Outcome::Exists => {
                submit(gpu, Op::Delete { id: *id }, None);
                Err(MissReason::Corrupt)
            }
            Outcome::Refused(Refusal::Unavailable) => Err(MissReason::Unavailable),
            _ => {
                add(&self.count.hbm_refused, 1);
                Err(MissReason::Throttled)
            }
        }
    }

    /// Whether a block that the caller has leased is still to be found in the arena: a pinned one is not evicted, so it is unless
    /// it was deleted or replaced.
    fn is_below_still(&self, id: &BlockId, meta: BlockMeta) -> bool {
        let mut out = [Lookup::Pending];
        for _ in 0..EVICTION_LOOKS {
            self.arena.lookup(std::slice::from_ref(id), &mut out);
            match out[0] {
                Lookup::Hit(found) => return found.digest == meta.digest,
                // Somebody looks whether it can go, and will find the pin.
                Lookup::Miss(MissReason::Evicting) | Lookup::Pending => std::thread::yield_now(),
                Lookup::Miss(_) => return false,
            }
        }
        false
    }

    /// Whether the device has the block, and what it has is what is to be found under this id now.
    pub(crate) fn is_on_device(&self, gpu: &Gpu, id: &BlockId) -> bool {
        let Some(found) = on_device(gpu, id) else { return false };
        if !id.kind().replaceable() {
            return true;
        }
        // The chain without the devices, which do not answer for names.
        let below = self.chain.locate(std::slice::from_ref(id));
        let is_same = below.iter().any(|below| matches!(below.answer, Lookup::Hit(meta) if meta == found));
        if !is_same {
            submit(gpu, Op::Delete { id: *id }, None);
        }
        is_same
    }

    /// Names that a device has too: the tiers below have said what is current.
    pub(crate) fn raise_names(&self, ids: &[BlockId], found: &mut [Located]) {
        let Some(gpu) = self.gpu() else { return };
        for (id, found) in ids.iter().zip(found).filter(|(id, _)| id.kind().replaceable()) {
            if let (Lookup::Hit(meta), Some(there)) = (found.answer, on_device(gpu, id))
                && there == meta
            {
                found.level = Some(Level::Device);
            }
        }
    }

    /// The pinned block of a device that nobody below can answer for; a name is below wherever it is good.
    fn alone_on_device<'a>(&'a self, id: &BlockId) -> Option<(&'a Arc<Gpu>, DeviceLease)> {
        let gpu = self.gpu()?;
        let lease = if id.kind().replaceable() { None } else { gpu.tier().get_gpu_ptr(id).ok() };
        lease.map(|lease| (gpu, lease))
    }

    /// Completes a fetch to host memory by what only devices have.
    pub(crate) fn fetch_from_devices(&self, wanted: &[(BlockId, SgList)], answers: &mut [Answer<BlockMeta>]) {
        let lacking =
            |answer: &Answer<BlockMeta>| matches!(answer, Err(why) if *why != MissReason::Destination);
        for ((id, into), answer) in wanted.iter().zip(answers).filter(|(_, answer)| lacking(answer)) {
            let Some((gpu, _lease)) = self.alone_on_device(id) else { continue };
            match submit(gpu, Op::Fetch { id: *id, into: into.clone() }, None) {
                Outcome::Fetched(meta) => {
                    add(&self.count.hbm_hits, 1);
                    *answer = Ok(meta);
                }
                Outcome::Miss(MissReason::Destination) => *answer = Err(MissReason::Destination),
                _ => gpu.watch(),
            }
        }
    }

    /// Completes leases by what only devices have: it goes to the arena.
    pub(crate) fn lease_from_devices(&self, ids: &[BlockId], leases: &mut [Answer<Lease>]) {
        for (id, lease) in ids.iter().zip(leases).filter(|(_, lease)| lease.is_err()) {
            if let Some((gpu, there)) = self.alone_on_device(id)
                && self.sink_leased(gpu, id, &there).is_ok()
                && let Ok(below) = self.arena.lease(id)
            {
                add(&self.count.hbm_hits, 1);
                *lease = Ok(below);
            }
        }
    }

    /// Copies blocks that only devices have to the arena, and forgets them on the devices.
    pub(crate) fn lower_all(&self, ids: &[BlockId]) {
        for id in ids {
            let is_below =
                self.alone_on_device(id).is_none_or(|(gpu, lease)| self.sink_leased(gpu, id, &lease).is_ok());
            if is_below {
                self.forget_on_devices(std::slice::from_ref(id));
            }
        }
    }

    /// Forgets blocks on devices; whether each was there.
    pub(crate) fn forget_on_devices(&self, ids: &[BlockId]) -> Vec<bool> {
        let Some(gpu) = self.gpu() else { return vec![false; ids.len()] };
        ids.iter().map(|id| submit(gpu, Op::Delete { id: *id }, None) == Outcome::Deleted).collect()
    }

    /// Forgets every block on devices.
    pub(crate) fn clear_devices(&self) {
        if let Some(gpu) = self.gpu() {
            gpu.tier().clear();
        }
    }

    /// Waits until everything that was put from device memory is in the arena.
    pub(crate) fn flush_devices(&self, deadline: Instant) -> cascade_core::Result<()> {
        let Some(gpu) = self.gpu() else { return Ok(()) };
        let (ticket, completer) = ticket(1);
        gpu.sink.push_waited(Sinking::All(completer));
        let failed = |kind, what: &str| Err(Error::new(kind, format!("flush of device memory: {what}")));
        match ticket.wait(deadline).map(raw::single) {
            Some(Outcome::Stored) => Ok(()),
            None => failed(ErrorKind::Deadline, "the deadline passed"),
            Some(Outcome::Refused(Refusal::Full)) => failed(ErrorKind::NoSpace, "the arena is full"),
            Some(_) => failed(ErrorKind::System, "some blocks could not be copied to the arena"),
        }
    }
}

/// Whether the device that keeps this id's blocks reaches a list.
fn reaches(gpu: &Gpu, id: &BlockId, list: &SgList) -> bool {
    gpu.tier().engine_of(id).reaches(list)
}

fn is_roomy(gpu: &Gpu) -> bool {
    let stats = gpu.tier().stats();
    stats.used_bytes < stats.capacity_bytes / 100 * ROOMY_PERCENT
}

fn on_device(gpu: &Gpu, id: &BlockId) -> Option<BlockMeta> {
    let mut out = [Lookup::Pending];
    gpu.tier().lookup(std::slice::from_ref(id), &mut out);
    if let [Lookup::Hit(meta)] = out { Some(meta) } else { None }
}

fn submit(gpu: &Gpu, op: Op, after: Option<Stream>) -> Outcome {
    let batch = Batch::new(vec![op]);
    let ticket = match after {
        Some(stream) => gpu.tier().submit_after(batch, stream),
        None => gpu.tier().submit(batch),
    };
    raw::single(raw::complete(&ticket))
}

/// A reservation of the arena with its bytes, and the digests that the device computed.
struct Filled {
    reservation: Reservation,
    digests: Option<Vec<u64>>,
}

impl Filled {
    fn seal(self) -> Sealed {
        match self.digests {
            Some(digests) => self.reservation.seal_with(digests),
            // Pages that the device cannot walk: the CPU computes what it finds.
            None => self.reservation.seal(),
        }
    }
}

/// Fills a reservation of the arena from device memory.
fn fill(
    engine: &Arc<CopyEngine>,
    reservation: Reservation,
    from: &SgList,
    after: Option<Stream>,
) -> Result<Filled, Refusal> {
    let len = reservation.len();
    // Until the device says that it is done, nobody else may have the memory, also if we die.
    let in_flight = reservation.start_transfer().ok_or(Refusal::Unavailable)?;
    let memory = in_flight.memory().ok_or(Refusal::Unavailable)?;
    let copied = engine.start(raw::in_flight(memory), from.clone(), len, Digested::Source, after);
    // A failure leaves the reservation in flight: its place is not used again before nothing can write there.
    let digests = copied.and_then(|transfer| transfer.wait()).map_err(|_| Refusal::Unavailable)?;
    let reservation = in_flight.complete().ok_or(Refusal::Unavailable)?;
    Ok(Filled { reservation, digests })
}

/// Copies a block of the arena to device memory and compares what arrived.
fn unpack(
    engine: &Arc<CopyEngine>,
    id: &BlockId,
    lease: &Lease,
    into: &SgList,
    after: Option<Stream>,
) -> Answer<BlockMeta> {
    let meta = lease.meta();
    let copied = engine.start(into.clone(), raw::leased(lease), lease.len(), Digested::Destination, after);
    let digests = copied.and_then(|transfer| transfer.wait()).map_err(|_| MissReason::Unavailable)?;
    // Pages that the device cannot walk are not compared; the block was, when it was leased.
    let is_same = digests
        .is_none_or(|digests| digest::root(id.as_bytes(), meta.len, digests.into_iter()) == meta.digest);
    if is_same { Ok(meta) } else { Err(MissReason::Corrupt) }
}
