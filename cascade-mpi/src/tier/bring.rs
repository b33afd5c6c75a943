//! Finding a block in the directory, and bringing it here.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use cascade_core::batch::Op;
use cascade_core::digest::{CHUNK_BYTES, root};
use cascade_core::id::BlockId;
use cascade_core::memory::{HostBuffer, SgList};
use cascade_core::reservation::{Reserve, Sealed};
use cascade_core::tier::{Addressable, MissReason, OnExisting, PutMeta};
use parking_lot::Mutex;

use super::stats::Counters;
use super::{MpiConfig, local};
use crate::choice::{Standing, in_order};
use crate::directory::{BUCKET_BYTES, Bucket, Entry, Owner};
use crate::fabric::{Destination, Fabric, Read, ReadEnd, Transfer, copy_out, digests, fill};
use crate::home::{HEAD_BYTES, Home};
use crate::message::Area;

/// Bytes of one read, at most and at least: digests of one part are computed while the next is under way, so a block is read in
/// eight, and only the last eighth's are computed when all has come.
const PART_BYTES: std::ops::RangeInclusive<usize> = 256 << 10..=4 << 20;
const PARTS: usize = 8;
/// How often a bucket is read that is being written.
const BUCKET_ATTEMPTS: usize = 8;
/// How long a waiting thread looks before it sleeps: an answer of the same machine is often there by then.
const SPIN: Duration = Duration::from_micros(30);

type Answer<T> = Result<T, MissReason>;
/// The mapped tier of another rank, or that there is none; `None` until it was asked for.
type Neighbour = Option<Option<Arc<dyn Addressable>>>;

/// A fetched block.
pub(super) enum Brought {
    /// It is in the home.
    Home,
    /// There was no room for it; verified.
    Loose(Loose),
}

/// A block in memory of its own.
pub(super) struct Loose(HostBuffer);

impl Loose {
    /// Copies it; `false` when `into` is too short.
    pub(super) fn copy_to(&self, into: &SgList) -> bool {
        copy_out(&self.0.piece(), into)
    }
}

/// The other ranks, as this one sees them.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) fabric: Arc<Fabric>,
    pub(super) home: Arc<dyn Home>,
    pub(super) config: MpiConfig,
    pub(super) counters: Counters,
    local: Arc<dyn Addressable>,
    /// By rank.
    neighbours: Mutex<Vec<Neighbour>>,
}

/// Waits for reads, which are told of by number.
struct Ends {
    tell: Sender<(usize, ReadEnd)>,
    told: Receiver<(usize, ReadEnd)>,
}

impl Ends {
    fn new() -> Self {
        let (tell, told) = mpsc::channel();
        Self { tell, told }
    }

    /// The next that has ended. The fabric ends every read at its deadline, so this takes no longer.
    fn next(&self, deadline: Instant) -> Option<(usize, ReadEnd)> {
        let began = Instant::now();
        while began.elapsed() < SPIN {
            if let Ok(end) = self.told.try_recv() {
                return Some(end);
            }
            std::hint::spin_loop();
        }
        // A thread of MPI that is stuck inside the library tells nobody.
        let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(100);
        self.told.recv_timeout(left).ok()
    }
}

impl Remote {
    pub(super) fn new(
        fabric: Arc<Fabric>,
        home: Arc<dyn Home>,
        local: Arc<dyn Addressable>,
        config: MpiConfig,
    ) -> Self {
        let neighbours = Mutex::new(vec![None; fabric.ranks() as usize]);
        Self { fabric, home, config, counters: Counters::default(), local, neighbours }
    }

    /// What the directory says of one id.
    pub(super) fn entry(&self, id: &BlockId, deadline: Instant) -> Answer<Entry> {
        let found = self.entries(std::slice::from_ref(id), deadline).pop();
        found.unwrap_or(Err(MissReason::Unavailable))?.ok_or(MissReason::Absent)
    }

    /// What the directory says: one read for each id whose entry another rank keeps, all under way at once.
    pub(super) fn entries(&self, ids: &[BlockId], deadline: Instant) -> Vec<Answer<Option<Entry>>> {
        let mut answers: Vec<Answer<Option<Entry>>> = vec![Err(MissReason::Unavailable); ids.len()];
        let mut left: Vec<usize> = (0..ids.len()).collect();
        for attempt in 0..BUCKET_ATTEMPTS {
            left = self.ask(ids, &left, deadline, &mut answers);
            if left.is_empty() {
                break;
            }
            self.counters.torn_buckets.fetch_add(left.len() as u64, Relaxed);
            if attempt > 1 {
                std::thread::sleep(Duration::from_micros(50 << attempt));
            }
        }
        answers
    }

    /// Asks for the ids at `wanted`, and gives those whose bucket was being written.
    fn ask(
        &self,
        ids: &[BlockId],
        wanted: &[usize],
        deadline: Instant,
        answers: &mut [Answer<Option<Entry>>],
    ) -> Vec<usize> {
        let (ends, mut buffers, mut reads) = (Ends::new(), Vec::new(), Vec::new());
        for at in wanted {
            let place = self.fabric.route().of(&ids[*at]);
            if place.rank == self.fabric.rank() {
                answers[*at] = Ok(self.fabric.table().find(place.bucket, &ids[*at]));
                continue;
            }
            let buffer = HostBuffer::zeroed(BUCKET_BYTES);
            let Some(into) = Destination::private(buffer.piece()) else { continue };
            let (offset, number) = (place.bucket * BUCKET_BYTES as u64, buffers.len());
            let (rank, area, done) = (place.rank, Area::Directory, ends.tell.clone());
            reads.push(Read { rank, area, offset, into, deadline, done, number });
            buffers.push((*at, place, buffer));
        }
        let (count, mut torn) = (reads.len(), Vec::new());
        if count > 0 {
            self.fabric.read(reads);
        }
        for _ in 0..count {
            let Some((number, end)) = ends.next(deadline) else { break };
            let Some((at, place, buffer)) = buffers.get_mut(number) else { continue };
            if let Err(why) = end {
                answers[*at] = Err(why);
                continue;
            }
            let bytes = buffer.bytes_mut().and_then(|bytes| <&[u8; BUCKET_BYTES]>::try_from(&*bytes).ok());
            match bytes.map(|bytes| Bucket::parse(bytes, *place)) {
                Some(Ok(bucket)) => answers[*at] = Ok(bucket.find(&ids[*at]).cloned()),
                _ => torn.push(*at),
            }
        }
        torn
    }

    /// Whether somebody who has the block may be asked.
    pub(super) fn is_reachable(&self, entry: &Entry) -> bool {
        let own = self.fabric.rank();
        entry.owners.iter().any(|owner| owner.rank != own && !self.fabric.is_out(owner.rank))
    }

    /// Brings a block here, from the first owner who has it.
    pub(super) fn bring(&self, entry: &Entry, deadline: Instant) -> Answer<Brought> {
        let mut why = MissReason::Absent;
        for owner in &self.in_order(entry) {
            if owner.rank == self.fabric.rank() {
                // It was asked before, and does not have it: evicted.
                self.is_stale(entry, owner);
                continue;
            }
            let mapped = self.neighbour(owner.rank);
            let brought = match &mapped {
                Some(neighbour) => self.map(&**neighbour, entry),
                None => self.read(entry, owner, deadline),
            };
            match brought {
                Ok(brought) => {
                    let bytes = entry.meta.len;
                    let (blocks, sum) = match mapped {
                        Some(_) => (&self.counters.mapped, &self.counters.mapped_bytes),
                        None => (&self.counters.fetched, &self.counters.fetched_bytes),
                    };
                    blocks.fetch_add(1, Relaxed);
                    sum.fetch_add(bytes, Relaxed);
                    let is_loose = matches!(brought, Brought::Loose(_));
                    self.counters.loose.fetch_add(u64::from(is_loose), Relaxed);
                    return Ok(brought);
                }
                Err(MissReason::Absent) => self.is_stale(entry, owner),
                Err(reason) => {
                    let count = match reason {
                        MissReason::Deadline => &self.counters.late,
                        MissReason::Corrupt => &self.counters.mismatched,
                        _ => &self.counters.unreachable,
                    };
                    count.fetch_add(1, Relaxed);
                    why = reason;
                }
            }
        }
        Err(why)
    }

    /// As [`in_order`] says.
    fn in_order(&self, entry: &Entry) -> Vec<Owner> {
        in_order(self.fabric.rank(), &entry.owners, |rank| Standing {
            is_near: self.neighbour(rank).is_some(),
            ..self.fabric.standing(rank)
        })
    }

    fn is_stale(&self, entry: &Entry, owner: &Owner) {
        self.counters.stale.fetch_add(1, Relaxed);
        self.fabric.retract(&entry.id, *owner);
    }

    /// The tier of another rank of this node, mapped when it is first asked for.
    fn neighbour(&self, rank: u32) -> Option<Arc<dyn Addressable>> {
        if !self.config.map_neighbours || rank == self.fabric.rank() {
            return None;
        }
        let card =
            self.fabric.card(rank).filter(|card| !card.node.is_empty() && card.node == self.home.node())?;
        let mut neighbours = self.neighbours.lock();
        let place = neighbours.get_mut(rank as usize)?;
        place.get_or_insert_with(|| self.home.neighbour(&card.share)).clone()
    }

    /// Copies a block out of mapped memory.
    fn map(&self, neighbour: &dyn Addressable, entry: &Entry) -> Answer<Brought> {
        let lease = neighbour.lease(&entry.id)?;
        // Whatever it has under the id now is what is wanted: it may be newer than the directory.
        let meta = lease.meta();
        let mut reservation = match self.local.reserve(&entry.id, meta.len, self.put_meta(entry)) {
            Reserve::Reserved(reservation) => reservation,
            Reserve::Exists(_) => return Ok(Brought::Home),
            Reserve::Refused(_) => {
                let loose = HostBuffer::zeroed(lease.len());
                let digests = lease.scatter(&loose.piece().into()).ok_or(MissReason::Unavailable)?;
                let is_whole = root(entry.id.as_bytes(), meta.len, digests.into_iter()) == meta.digest;
                return is_whole.then_some(Brought::Loose(Loose(loose))).ok_or(MissReason::Corrupt);
            }
        };
        if !fill(&mut reservation, &lease) {
            return Err(MissReason::Unavailable);
        }
        match reservation.seal() {
            Sealed::Stored(sealed) if sealed.digest == meta.digest => Ok(Brought::Home),
            // Damaged there, and now here: it goes again.
            Sealed::Stored(_) => {
                local(&self.local, Op::Delete { id: entry.id });
                Err(MissReason::Corrupt)
            }
            Sealed::Exists(_) => Ok(Brought::Home),
            Sealed::Lost => Err(MissReason::Unavailable),
        }
    }

    fn put_meta(&self, entry: &Entry) -> PutMeta {
        let (class, tenant) = (entry.meta.class, entry.meta.tenant);
        PutMeta { class, tenant, on_existing: OnExisting::Keep, heat: None }
    }

    /// Reads a block out of the window of `owner`.
    fn read(&self, entry: &Entry, owner: &Owner, deadline: Instant) -> Answer<Brought> {
        let card = self.fabric.card(owner.rank).ok_or(MissReason::Absent)?;
        let is_within = owner.offset.checked_add(entry.meta.len).is_some_and(|end| end <= card.window_bytes);
        if card.incarnation as u32 != owner.incarnation || !is_within {
            return Err(MissReason::Absent);
        }
        let len = usize::try_from(entry.meta.len).map_err(|_| MissReason::Destination)?;
        match self.local.reserve(&entry.id, entry.meta.len, self.put_meta(entry)) {
            Reserve::Exists(_) => Ok(Brought::Home),
            Reserve::Reserved(reservation) => {
                let transfer = Transfer::start(reservation).ok_or(MissReason::Unavailable)?;
                let parts = |at: usize, len: usize| transfer.part(at, len);
                let landed = self.parts(entry, owner, deadline, &parts, &|at, len| transfer.digests(at, len));
                // Given back where nothing is under way any more, whatever came; else it goes into quarantine.
                let reservation = transfer.complete();
                let digests = landed?;
                let reservation = reservation.ok_or(MissReason::Unavailable)?;
                match reservation.seal_with(digests) {
                    Sealed::Stored(_) | Sealed::Exists(_) => Ok(Brought::Home),
                    Sealed::Lost => Err(MissReason::Unavailable),
                }
            }
            Reserve::Refused(_) => {
                let loose = HostBuffer::zeroed(len);
                let whole = loose.piece();
                let parts = |at: usize, len: usize| Destination::private(whole.part(at, len)?);
                let landed = |at: usize, len: usize| digests(&whole, at, len);
                self.parts(entry, owner, deadline, &parts, &landed)?;
                drop(whole);
                Ok(Brought::Loose(Loose(loose)))
            }
        }
    }

    /// Reads head and payload, digesting each part as it lands. The digests, once they are those of the entry's block and its owner's
    /// slot still stands.
    fn parts(
        &self,
        entry: &Entry,
        owner: &Owner,
        deadline: Instant,
        part: &dyn Fn(usize, usize) -> Option<Destination>,
        digests_of: &dyn Fn(usize, usize) -> Vec<u64>,
    ) -> Answer<Vec<u64>> {
        let len = entry.meta.len as usize;
        let (ends, mut head) = (Ends::new(), HostBuffer::zeroed(HEAD_BYTES));
        let step = part_bytes(len);
        let mut reads = Vec::with_capacity(len / step + 2);
        let read = |offset, into, number| {
            let (rank, area, done) = (owner.rank, Area::Arena, ends.tell.clone());
            Read { rank, area, offset, into, deadline, done, number }
        };
        for at in (0..len).step_by(step) {
            let into = part(at, step.min(len - at)).ok_or(MissReason::Unavailable)?;
            reads.push(read(owner.offset + at as u64, into, reads.len()));
        }
        let count = reads.len();
        let heads_at = self.fabric.card(owner.rank).map_or(0, |card| card.heads_at);
        let into = Destination::private(head.piece()).ok_or(MissReason::Unavailable)?;
        reads.push(read(heads_at + u64::from(owner.slot) * HEAD_BYTES as u64, into, count));
        self.fabric.read(reads);
        let mut digests = vec![0_u64; cascade_core::block::chunks(entry.meta.len)];
        // All are waited for, also when one has failed: what none of them holds can be used again.
        let mut failed = None;
        for _ in 0..=count {
            let Some((number, end)) = ends.next(deadline) else {
                failed = failed.or(Some(MissReason::Deadline));
                break;
            };
            failed = failed.or(end.err());
            if number == count || failed.is_some() {
                continue;
            }
            let at = number * step;
            let landed = digests_of(at, step.min(len - at));
            let first = at / CHUNK_BYTES;
            digests[first..first + landed.len()].copy_from_slice(&landed);
        }
        if let Some(why) = failed {
            return Err(why);
        }
        let head = head.bytes_mut().and_then(|bytes| <&[u8; HEAD_BYTES]>::try_from(&*bytes).ok());
        if !head.is_some_and(|head| self.home.judge(head, &entry.id, owner)) {
            return Err(MissReason::Absent);
        }
        let is_whole =
            root(entry.id.as_bytes(), entry.meta.len, digests.iter().copied()) == entry.meta.digest;
        is_whole.then_some(digests).ok_or(MissReason::Corrupt)
    }
}

/// Bytes of one read of a block, whole chunks.
fn part_bytes(len: usize) -> usize {
    (len / PARTS).clamp(*PART_BYTES.start(), *PART_BYTES.end()).next_multiple_of(CHUNK_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read_in_whole_chunks_and_few_parts() {
        for len in [0, 1, 4096, 64 << 10, 300_000, 1 << 20, 5_000_001, 80 << 20, 3 << 30] {
            let step = part_bytes(len);
            assert!(step.is_multiple_of(CHUNK_BYTES) && PART_BYTES.contains(&step), "{len}: {step}");
            assert!(len.div_ceil(step) <= PARTS || step == *PART_BYTES.end(), "{len}: {step}");
        }
    }
}
