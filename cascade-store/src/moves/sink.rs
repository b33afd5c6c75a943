//! From the arena down: blocks are written to files straight from where they lie, under a lease.

use std::collections::HashSet;

use cascade_core::batch::{Batch, Op, Outcome, Refusal, Ticket};
use cascade_core::digest;
use cascade_core::id::BlockId;
use cascade_core::lease::Lease;
use cascade_core::planted::{self, Bug};
use cascade_core::tier::{BlockMeta, Lookup, MissReason, OnExisting, PutMeta, Tier};
use cascade_shm::{Below, Noted};

use super::changes::What;
use super::count::add;
use super::flights::{Flight, Kind};
use crate::files::Files;
use crate::raw;
use crate::tiers::Tiers;

/// Blocks of one batch to the files, at most.
const MOST_BLOCKS: usize = 64;
/// Bytes of one batch beyond which no further block is added, in a large arena.
const MOST_BYTES: u64 = 8 << 20;
/// How often a block is tried that others were moving.
const ATTEMPTS: usize = 4;
/// Attempts to take back the note of a copy, where somebody else is at work on the block.
const NOTE_ATTEMPTS: usize = 8;

#[derive(Debug)]
struct Block {
    id: BlockId,
    lease: Lease,
    flight: Flight,
}

/// Blocks on their way to the files.
#[derive(Debug)]
pub(crate) struct Wave {
    ticket: Ticket,
    blocks: Vec<Block>,
    /// Bytes of the arena that are pinned for it.
    pub(crate) bytes: u64,
}

impl Drop for Wave {
    fn drop(&mut self) {
        // The files read from under the leases.
        raw::complete(&self.ticket);
        // Nobody looked at the outcomes.
        for block in &self.blocks {
            block.flight.changes().changed(What::of(&block.id));
        }
    }
}

/// What became of a wave.
#[derive(Debug, Default)]
pub(crate) struct Sunk {
    /// Why blocks were refused, the last of them.
    pub(crate) refused: Option<Refusal>,
}

/// What a put of a block of the arena says of it in files: other bytes under its id, from another node or time, are older.
fn meta_of(lease: &Lease) -> PutMeta {
    let meta = lease.meta();
    PutMeta { class: meta.class, on_existing: OnExisting::Replace, tenant: meta.tenant, heat: None }
}

impl Tiers {
    /// Begins to copy the first of `ids`, as many as go together; gives the rest. What is gone, or on its way already, is left
    /// out. `is_alone`: the caller has no other wave under way.
    pub(crate) fn start_sink<'a>(
        &self,
        files: &Files,
        ids: &'a [BlockId],
        is_alone: bool,
    ) -> (Option<Wave>, &'a [BlockId]) {
        // They are pinned: whoever fills a small arena meanwhile must find room.
        let most_bytes = MOST_BYTES.min(self.arena.data_bytes() / 16);
        let (mut blocks, mut bytes, mut taken) = (Vec::new(), 0, 0);
        for id in ids {
            if blocks.len() >= MOST_BLOCKS || bytes >= most_bytes {
                break;
            }
            let Some(flight) = files.flights.begin(id, Kind::Sink) else {
                taken += 1;
                continue;
            };
            if !files.is_current(&flight) {
                // It goes with the next sweep, if the files can be read then.
                taken += 1;
                continue;
            }
            let lease = match self.arena.lease_to_copy(id) {
                // The rest goes when what is under way has given its leases back; if nothing is, with the next sweep.
                Err(MissReason::Throttled) if !is_alone || !blocks.is_empty() => break,
                lease => lease,
            };
            taken += 1;
            let Ok(lease) = lease else { continue };
            if is_there(files, id, &lease) {
                self.arena.note_below(id, lease.meta().digest, Below::Kept);
                continue;
            }
            bytes += lease.len() as u64;
            blocks.push(Block { id: *id, lease, flight });
        }
        let rest = ids.get(taken..).unwrap_or(&[]);
        if blocks.is_empty() {
            return (None, rest);
        }
        let op = |block: &Block| Op::Store {
            id: block.id,
            from: raw::leased(&block.lease),
            meta: meta_of(&block.lease),
        };
        let ticket = files.submit(Batch::new(blocks.iter().map(op).collect()));
        (Some(Wave { ticket, blocks, bytes }), rest)
    }

    /// Waits for a wave, and notes which blocks the files have now.
    pub(crate) fn finish_sink(&self, files: &Files, mut wave: Wave) -> Sunk {
        let outcomes = raw::complete(&wave.ticket);
        if wave.blocks.iter().any(|block| What::of(&block.id) == What::Names) {
            files.changed(What::Names);
        }
        let mut sunk = Sunk::default();
        for (block, outcome) in wave.blocks.drain(..).zip(outcomes) {
            match outcome {
                Outcome::Stored | Outcome::Exists => self.settle(files, &block),
                // Another handle of this process is storing it.
                Outcome::Refused(Refusal::Pending) => {}
                Outcome::Refused(why) => {
                    add(&self.count.demote_refused, 1);
                    sunk.refused = Some(why);
                }
                _ => sunk.refused = Some(Refusal::Unavailable),
            }
        }
        sunk
    }

    /// A block is in files: it is noted where it lies, if it is still what the arena has, and forgotten below if it is not.
    fn settle(&self, files: &Files, block: &Block) {
        let (id, meta) = (&block.id, block.lease.meta());
        if files.tier_meta(id).is_none_or(|found| found.digest != meta.digest) {
            // Forgotten meanwhile, or another node has put something newer; or the bytes were damaged in the arena while they were
            // copied, and the files, which know no other digest than theirs, would give them for good.
            if is_damaged(id, &block.lease) {
                self.give_up_copy(files, id, meta.digest);
            }
            return;
        }
        files.stored(id);
        let note = || self.arena.note_below(id, meta.digest, Below::Kept);
        let noted = (0..NOTE_ATTEMPTS).map(|_| note()).find(|noted| *noted != Noted::Unknown);
        match noted {
            Some(Noted::Done) => {
                add(&self.count.demoted, 1);
                add(&self.count.demoted_bytes, meta.len);
            }
            Some(Noted::Another) if planted::is(Bug::BlindSettle) => {}
            // Another process replaced or deleted it meanwhile, and knew nothing of this copy.
            Some(Noted::Another) => self.give_up_copy(files, id, meta.digest),
            // It is looked at again by the next sweep.
            Some(Noted::Unknown) | None => {}
        }
    }

    /// Forgets a copy of which the arena says that it is an older block, or one that is deleted.
    fn give_up_copy(&self, files: &Files, id: &BlockId, digest: u64) {
        add(&self.count.doubted, 1);
        files.forget(id);
        if self.above(id).is_some_and(|meta| meta.digest == digest) {
            // Somebody brought it up meanwhile.
            raw::run(&self.arena, vec![Op::Delete { id: *id }]);
        }
        self.take_note_back(id);
    }

    /// What the arena has under `id`.
    pub(crate) fn above(&self, id: &BlockId) -> Option<BlockMeta> {
        let mut above = [Lookup::Pending];
        self.arena.lookup(std::slice::from_ref(id), &mut above);
        if let Lookup::Hit(meta) = above[0] { Some(meta) } else { None }
    }

    /// The files have just forgotten what they had under `id`: if that was the copy of what the arena has by now, this is to be
    /// copied again.
    pub(crate) fn take_note_back(&self, id: &BlockId) {
        for _ in 0..NOTE_ATTEMPTS {
            let Some(meta) = self.above(id) else { return };
            if self.arena.note_below(id, meta.digest, Below::Absent) == Noted::Done {
                return;
            }
        }
    }

    /// Copies blocks to the files and waits for them: for each, why the files do not have it.
    pub(crate) fn sink_now(&self, files: &Files, ids: &[BlockId]) -> Vec<Result<(), Refusal>> {
        let (mut lacking, mut refused) = (ids.to_vec(), None);
        for _ in 0..ATTEMPTS {
            let mut left = &lacking[..];
            while !left.is_empty() {
                let (wave, rest) = self.start_sink(files, left, true);
                if let Some(wave) = wave {
                    refused = self.finish_sink(files, wave).refused.or(refused);
                }
                left = rest;
            }
            // What others were moving was left out, and what they did may have been something else.
            lacking.retain(|id| {
                files.flights.wait(id);
                files.meta(id).is_none()
            });
            if lacking.is_empty() || refused.is_some() {
                break;
            }
        }
        let why = refused.unwrap_or(Refusal::Unavailable);
        let lacking: HashSet<BlockId> = lacking.into_iter().collect();
        ids.iter().map(|id| if lacking.contains(id) { Err(why) } else { Ok(()) }).collect()
    }
}

/// Whether a leased block is not what was sealed.
fn is_damaged(id: &BlockId, lease: &Lease) -> bool {
    let digests = lease.memory().try_digests();
    digests.is_some_and(|digests| {
        digest::root(id.as_bytes(), lease.meta().len, digests.into_iter()) != lease.meta().digest
    })
}

/// Whether the files have the very block already.
fn is_there(files: &Files, id: &BlockId, lease: &Lease) -> bool {
    files.meta(id).is_some_and(|meta| meta.digest == lease.meta().digest)
}
