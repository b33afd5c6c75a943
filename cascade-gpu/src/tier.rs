//! The tier: pools of one or several devices, chosen by the id.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Instant;

use cascade_core::Result;
use cascade_core::batch::{Batch, Op, Outcome, Refusal, Ticket};
use cascade_core::clock::{Clock, SystemClock};
use cascade_core::digest;
use cascade_core::id::BlockId;
use cascade_core::lease::{Lease, LeaseHome};
use cascade_core::memory::{Piece, SgList, Space};
use cascade_core::metrics::TierStats;
use cascade_core::reservation::{Reservation, ReservationHome, Reserve, Sealed};
use cascade_core::tier::{Addressable, Capability, Lookup, MissReason, PutMeta, Tier};
use cascade_core::{Error, ErrorKind};

use crate::device::{Device, Fault, Stream};
use crate::engine::{self, CopyEngine, Digested, Transfer};
use crate::lease::DeviceLease;
use crate::pool::{NoReservation, Placed, Pool, Token};
use crate::share::{Opened, SharedPlace};

/// Operations of a batch that are on their way at once.
const MOST_IN_FLIGHT: usize = 32;

/// How a tier uses its devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes of memory that the tier may take of each device; never more.
    pub budget_bytes: u64,
    /// Bytes that are taken at once: a slab. Blocks that are longer get one of their own.
    pub slab_bytes: usize,
    /// The copy engine's options.
    pub engine: engine::Options,
}

impl Options {
    /// The usual ones, with this budget for each device.
    #[must_use]
    pub fn new(budget_bytes: u64) -> Self {
        Self { budget_bytes, slab_bytes: 256 << 20, engine: engine::Options::default() }
    }
}

/// Blocks in the memory of devices. A clone is the same tier.
///
/// An operation on a batch is over when `submit` returns; within the batch, operations overlap.
#[derive(Clone, Debug)]
pub struct GpuTier {
    pools: Arc<[Arc<Pool>]>,
    /// Drawn anew for each tier: what a tier published itself it need not open.
    home: u64,
    opened: Arc<Opened>,
}

impl GpuTier {
    /// A tier over `devices`, at least one.
    ///
    /// # Errors
    /// `InvalidArgument` without a device or with a budget of nothing, `System` when a device refuses.
    pub fn new(devices: &[Arc<dyn Device>], options: &Options) -> Result<Self> {
        Self::with_clock(devices, options, &(Arc::new(SystemClock::default()) as Arc<dyn Clock>))
    }

    /// The same, with a clock of the caller's (it times the quarantine).
    ///
    /// # Errors
    /// As [`GpuTier::new`].
    pub fn with_clock(
        devices: &[Arc<dyn Device>],
        options: &Options,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self> {
        if devices.is_empty() || options.budget_bytes < 512 {
            let context =
                "a GPU tier needs a device and a budget: name at least one, and some MiB of its memory";
            return Err(Error::new(ErrorKind::InvalidArgument, context));
        }
        let pool = |device: &Arc<dyn Device>| {
            let engine = CopyEngine::new(device, options.engine).map_err(|fault| refused(device, fault))?;
            Ok(Pool::new(engine, options.budget_bytes, options.slab_bytes, Arc::clone(clock)))
        };
        let pools = devices.iter().map(pool).collect::<Result<_>>()?;
        let home = RandomState::new().hash_one(std::process::id());
        Ok(Self { pools, home, opened: Arc::default() })
    }

    /// The copy engine of the device that blocks of `id` are kept on.
    #[must_use]
    pub fn engine_of(&self, id: &BlockId) -> &Arc<CopyEngine> {
        &self.pool(id).engine
    }

    /// The copy engines, in the order of the devices.
    #[must_use]
    pub fn engines(&self) -> Vec<Arc<CopyEngine>> {
        self.pools.iter().map(|pool| Arc::clone(&pool.engine)).collect()
    }

    /// A block by its device address, without a copy.
    ///
    /// # Errors
    /// The reason, as a value, when there is nothing to pin.
    pub fn get_gpu_ptr(&self, id: &BlockId) -> std::result::Result<DeviceLease, MissReason> {
        let pool = self.pool(id);
        let placed = pool.lease(id)?;
        Ok(DeviceLease::new(Arc::clone(pool), placed))
    }

    /// [`Tier::submit`], with every copy behind what `stream` holds now: for pages that work on this stream, of the devices of
    /// all blocks in the batch, writes or reads.
    #[must_use]
    pub fn submit_after(&self, batch: Batch, stream: Stream) -> Ticket {
        self.run(batch, Some(stream))
    }

    /// Where a block lies, for other processes; `None` when it is not here, or the device shares nothing. It may be evicted at
    /// any time: who reads there compares what came.
    #[must_use]
    pub fn share(&self, id: &BlockId) -> Option<SharedPlace> {
        let (handle, offset, meta) = self.pool(id).share(id)?;
        Some(SharedPlace { home: self.home, handle, offset, len: meta.len, digest: meta.digest })
    }

    /// Copies a block from the device memory of another process to `into`, device memory, and compares what came with the
    /// place's digest; the copy is over when this returns.
    ///
    /// # Errors
    /// `Absent` when there is nothing to open, `Corrupt` when something else lies there by now, `Destination` when `into` is too
    /// short or pages that the device cannot digest, `Unavailable` when the device failed.
    pub fn fetch_shared(
        &self,
        id: &BlockId,
        place: &SharedPlace,
        into: SgList,
        after: Option<Stream>,
    ) -> std::result::Result<(), MissReason> {
        let on = |pool: &&Arc<Pool>| into.pieces().first().is_some_and(|piece| lies_on(piece, pool));
        let pool = self.pools.iter().find(on).ok_or(MissReason::Destination)?;
        let range = usize::try_from(place.offset).ok().zip(usize::try_from(place.len).ok());
        let is_other = place.home != self.home;
        let memory = self.opened.get(pool.engine.device(), place).filter(|_| is_other);
        let from = memory.zip(range).and_then(|(memory, (offset, len))| memory.piece(offset, len));
        let from = from.ok_or(MissReason::Absent)?;
        let len = from.len();
        if into.len() < len || !into.is_writable() || !pool.engine.reaches(&into) {
            return Err(MissReason::Destination);
        }
        let copied = pool.engine.start(into, from.into(), len, Digested::Destination, after);
        let digests = copied.and_then(Transfer::wait).map_err(|_| MissReason::Unavailable)?;
        let digests = digests.ok_or(MissReason::Destination)?;
        let is_same = digest::root(id.as_bytes(), place.len, digests.into_iter()) == place.digest;
        if is_same { Ok(()) } else { Err(MissReason::Corrupt) }
    }

    /// The caller's stream as the device of `pool` may use it: one of another device, that of `list`, is waited for here.
    fn after_on(&self, pool: &Pool, list: &SgList, after: Option<Stream>) -> Option<Stream> {
        let stream = after?;
        let other =
            list.pieces().iter().find_map(|piece| self.pools.iter().find(|pool| lies_on(piece, pool)));
        match other.filter(|other| !std::ptr::eq(Arc::as_ptr(other), pool)) {
            None => Some(stream),
            Some(other) => {
                // What the stream's work leaves, if it fails, is what is read: as on one device.
                let _ended = other.engine.device().finish(stream);
                None
            }
        }
    }

    /// Forgets every block; those that are pinned go with their last pin.
    pub fn clear(&self) {
        self.pools.iter().for_each(|pool| pool.clear());
    }

    /// Gives device memory that holds no block back; its bytes.
    #[must_use]
    pub fn trim(&self) -> u64 {
        self.pools.iter().map(|pool| pool.trim()).sum()
    }

    fn pool(&self, id: &BlockId) -> &Arc<Pool> {
        &self.pools[route(id, self.pools.len())]
    }

    fn run(&self, batch: Batch, after: Option<Stream>) -> Ticket {
        let deadline = batch.deadline;
        let mut outcomes = vec![Outcome::Cancelled; batch.ops.len()];
        let mut flying: Vec<(usize, Flying)> = Vec::new();
        let mut ids = HashSet::new();
        for (index, op) in batch.ops.into_iter().enumerate() {
            let (Op::Fetch { id, .. } | Op::Store { id, .. } | Op::Delete { id }) = &op;
            // Operations on one block keep their order.
            if !ids.insert(*id) || flying.len() >= MOST_IN_FLIGHT {
                land(&mut flying, &mut outcomes);
                ids.clear();
                let (Op::Fetch { id, .. } | Op::Store { id, .. } | Op::Delete { id }) = &op;
                ids.insert(*id);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                outcomes[index] = self.too_late(&op);
                continue;
            }
            match self.start(op, after) {
                Ok(started) => flying.push((index, started)),
                Err(outcome) => outcomes[index] = outcome,
            }
        }
        land(&mut flying, &mut outcomes);
        Ticket::ready(outcomes)
    }

    fn too_late(&self, op: &Op) -> Outcome {
        match op {
            Op::Store { id, .. } => self.pool(id).refuse(Refusal::Deadline),
            Op::Fetch { .. } | Op::Delete { .. } => Outcome::Miss(MissReason::Deadline),
        }
    }

    /// Starts an operation, or says at once what became of it.
    fn start(&self, op: Op, after: Option<Stream>) -> std::result::Result<Flying, Outcome> {
        match op {
            Op::Fetch { id, into } => self.fetch(&id, into, after),
            Op::Store { id, from, meta } => self.store(&id, from, meta, after),
            Op::Delete { id } => Err(self.pool(&id).delete(&id)),
        }
    }

    fn fetch(
        &self,
        id: &BlockId,
        into: SgList,
        after: Option<Stream>,
    ) -> std::result::Result<Flying, Outcome> {
        let lease = self.get_gpu_ptr(id).map_err(Outcome::Miss)?;
        let pool = self.pool(id);
        let len = usize::try_from(lease.meta().len).unwrap_or(usize::MAX);
        if into.len() < len || !into.is_writable() || !pool.engine.reaches(&into) {
            return Err(Outcome::Miss(MissReason::Destination));
        }
        let from = SgList::from(lease.piece().clone());
        let after = self.after_on(pool, &into, after);
        match pool.engine.start(into, from, len, Digested::Source, after) {
            Ok(transfer) => Ok(Flying::Fetch { transfer, lease, id: *id }),
            Err(_) => Err(Outcome::Miss(MissReason::Unavailable)),
        }
    }

    fn store(
        &self,
        id: &BlockId,
        from: SgList,
        meta: PutMeta,
        after: Option<Stream>,
    ) -> std::result::Result<Flying, Outcome> {
        let pool = self.pool(id);
        if !pool.engine.reaches(&from) {
            return Err(pool.refuse(Refusal::Memory));
        }
        let len = from.len();
        let placed = pool.reserve(id, len as u64, meta).map_err(|none| match none {
            NoReservation::Exists(_) => Outcome::Exists,
            NoReservation::Refused(why) => Outcome::Refused(why),
        })?;
        let into = SgList::from(placed.piece.clone());
        let after = self.after_on(pool, &from, after);
        match pool.engine.start(into, from, len, Digested::Destination, after) {
            Ok(transfer) => Ok(Flying::Store { transfer, pool: Arc::clone(pool), placed }),
            Err(_) => {
                // What was queued before the failure may still be written.
                pool.quarantine(placed.token.to_bits());
                Err(pool.refuse(Refusal::Unavailable))
            }
        }
    }
}

/// An operation whose copy the device has queued.
#[derive(Debug)]
enum Flying {
    Fetch { transfer: Transfer, lease: DeviceLease, id: BlockId },
    Store { transfer: Transfer, pool: Arc<Pool>, placed: Placed },
}

impl Flying {
    fn land(self) -> Outcome {
        match self {
            Self::Fetch { transfer, lease, id } => {
                let meta = lease.meta();
                let Ok(Some(digests)) = transfer.wait() else {
                    return Outcome::Miss(MissReason::Unavailable);
                };
                if digest::root(id.as_bytes(), meta.len, digests.into_iter()) == meta.digest {
                    lease.count_out();
                    return Outcome::Fetched(meta);
                }
                lease.drop_corrupt();
                Outcome::Miss(MissReason::Corrupt)
            }
            Self::Store { transfer, pool, placed } => {
                let token = placed.token.to_bits();
                let Ok(Some(digests)) = transfer.wait() else {
                    pool.quarantine(token);
                    return pool.refuse(Refusal::Unavailable);
                };
                match pool.seal(token, &digests) {
                    Sealed::Stored(_) => Outcome::Stored,
                    Sealed::Exists(_) => Outcome::Exists,
                    Sealed::Lost => pool.refuse(Refusal::Unavailable),
                }
            }
        }
    }
}

fn land(flying: &mut Vec<(usize, Flying)>, outcomes: &mut [Outcome]) {
    for (index, started) in flying.drain(..) {
        outcomes[index] = started.land();
    }
}

/// Which of `pools` devices keeps a block: every process that counts the same devices answers the same.
#[must_use]
pub fn route(id: &BlockId, pools: usize) -> usize {
    let [first, ..] = id.words();
    // The upper bits of a product are as uniform as the id.
    ((u128::from(first.wrapping_mul(0x9E37_79B9_7F4A_7C15)) * pools as u128) >> 64) as usize
}

fn lies_on(piece: &Piece, pool: &Pool) -> bool {
    piece.space() == Space::Device(pool.engine.device().info().ordinal)
}

fn refused(device: &Arc<dyn Device>, fault: Fault) -> Error {
    let info = device.info();
    let context = format!("GPU {} ({}) cannot be used", info.ordinal, info.name);
    Error::new(ErrorKind::System, context).with_source(fault)
}

impl Tier for GpuTier {
    fn capability(&self) -> Capability {
        Capability {
            name: "gpu",
            capacity_bytes: self.pools.iter().map(|pool| pool.budget_bytes).sum(),
            max_block_bytes: self.pools.iter().map(|pool| pool.budget_bytes).min().unwrap_or(0),
            persistent: false,
            shared: false,
            device: true,
            one_sided: false,
        }
    }

    fn lookup(&self, ids: &[BlockId], out: &mut [Lookup]) {
        assert_eq!(ids.len(), out.len(), "one answer for each id");
        for (id, answer) in ids.iter().zip(out) {
            *answer = self.pool(id).lookup(id);
        }
    }

    fn submit(&self, batch: Batch) -> Ticket {
        self.run(batch, None)
    }

    fn flush(&self, _deadline: Instant) -> Result<()> {
        // Every put is complete when `submit` returns, and device memory is as durable as it gets.
        Ok(())
    }

    fn stats(&self) -> TierStats {
        let mut sum = TierStats::default();
        for pool in self.pools.iter() {
            add(&mut sum, &pool.stats());
        }
        sum
    }
}

fn add(sum: &mut TierStats, more: &TierStats) {
    sum.capacity_bytes += more.capacity_bytes;
    sum.ready_bytes += more.ready_bytes;
    sum.used_bytes += more.used_bytes;
    sum.blocks += more.blocks;
    sum.puts += more.puts;
    sum.exists += more.exists;
    sum.refused += more.refused;
    sum.hits += more.hits;
    sum.misses += more.misses;
    sum.evictions += more.evictions;
    sum.corrupt += more.corrupt;
    sum.bytes_in += more.bytes_in;
    sum.bytes_out += more.bytes_out;
    sum.quarantined_bytes += more.quarantined_bytes;
    sum.waiting_blocks += more.waiting_blocks;
}

impl Addressable for GpuTier {
    fn reserve(&self, id: &BlockId, len: u64, meta: PutMeta) -> Reserve {
        let pool = self.pool(id);
        match pool.reserve(id, len, meta) {
            Ok(placed) => {
                let home = Arc::clone(pool) as Arc<dyn ReservationHome>;
                Reserve::Reserved(Reservation::new(placed.memory, home, placed.token.to_bits()))
            }
            Err(NoReservation::Exists(meta)) => Reserve::Exists(meta),
            Err(NoReservation::Refused(why)) => Reserve::Refused(why),
        }
    }

    fn lease(&self, id: &BlockId) -> std::result::Result<Lease, MissReason> {
        let pool = self.pool(id);
        let placed = pool.lease(id)?;
        let home = Arc::clone(pool) as Arc<dyn LeaseHome>;
        Ok(Lease::new(placed.memory, placed.meta, home, placed.token.to_bits()))
    }
}

impl LeaseHome for Pool {
    fn release(&self, token: u64) {
        Pool::release(self, Token::from_bits(token));
    }

    fn is_valid(&self, token: u64) -> bool {
        self.is_leased(Token::from_bits(token))
    }
}
