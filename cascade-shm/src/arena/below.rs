//! What a store with tiers below the arena needs: which blocks they lack, which of those go next, and a note where they have one.

use std::sync::Arc;

use cascade_core::digest;
use cascade_core::id::BlockId;
use cascade_core::lease::{Lease, LeaseHome};
use cascade_core::tier::{BlockMeta, MissReason};

use super::Arena;
use crate::evict::Judge;
use crate::grow;
use crate::index::Found;
use crate::protocol::{self, Pin};
use crate::seal::meta_of;
use crate::session::{Cell, Stripe};
use crate::slot::{Below, State, Word};

/// How full the arena is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Bytes of the data area in use, allocation rounding included.
    pub used_bytes: u64,
    /// Bytes that it may come to.
    pub capacity_bytes: u64,
}

/// A visible block that no tier below is known to have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cold {
    /// Its id.
    pub id: BlockId,
    /// What the arena knows of it.
    pub meta: BlockMeta,
    /// What it is worth keeping, as eviction sees it.
    pub worth: f64,
}

/// The visible blocks of an arena, by whether a tier below has them.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Some that no tier below is known to have, least worth first.
    pub cold: Vec<Cold>,
    /// Payload bytes of all those.
    pub alone_bytes: u64,
    /// Payload bytes of the others.
    pub kept_bytes: u64,
}

/// What became of a note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    /// It stands at the block.
    Done,
    /// The block is gone, or there is another in its place.
    Another,
    /// Somebody is at work on the block, or this handle holds as many leases as it may.
    Unknown,
}

/// Counters of a handle about the tiers below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BelowStats {
    /// Evictions of blocks that a tier below had: nothing was lost.
    pub kept_evictions: u64,
    /// Fetches and leases of blocks that had come up from below.
    pub risen_hits: u64,
}

impl Arena {
    /// How full the arena is. Counts bits: some microseconds for each GiB.
    #[must_use]
    pub fn fill(&self) -> Fill {
        let Some(session) = self.session() else { return Fill { used_bytes: 0, capacity_bytes: 0 } };
        let core = session.core();
        let capacity_bytes = grow::limit(core) * core.map().geometry().region_bytes;
        Fill { used_bytes: core.with_regions(|regions| regions.used_bytes()), capacity_bytes }
    }

    /// Looks at every slot. Of the blocks that no tier below has it gives the least worthy, as many as make `most_bytes`.
    #[must_use]
    pub fn survey(&self, most_bytes: u64) -> Survey {
        let mut survey = Survey::default();
        let Some(session) = self.session() else { return survey };
        let core = session.core();
        let judge = Judge::new(core, true);
        for slot in core.map().slots() {
            let word = slot.word();
            if word.state() != State::Sealed {
                continue;
            }
            let (id, kept, worth) = (slot.id(), slot.is_kept(), judge.worth(slot, word));
            let Some(meta) = meta_of(slot, word) else { continue };
            cascade_core::sync::fence(cascade_core::sync::Ordering::Acquire);
            if slot.word().generation() != word.generation() {
                continue;
            }
            if kept {
                survey.kept_bytes += meta.len;
            } else {
                survey.alone_bytes += meta.len;
                survey.cold.push(Cold { id, meta, worth });
            }
        }
        survey.cold.sort_unstable_by(|a, b| a.worth.total_cmp(&b.worth));
        let mut bytes = 0_u64;
        let within = survey.cold.iter().take_while(|cold| {
            let fits = bytes < most_bytes;
            bytes = bytes.saturating_add(cold.meta.len);
            fits
        });
        let count = within.count();
        survey.cold.truncate(count);
        survey
    }

    /// Ids and root digests of the blocks that a tier below is noted to have: by whoever copied them, whatever tier that was.
    #[must_use]
    pub fn kept(&self) -> Vec<(BlockId, u64)> {
        let slots = self.inner.map.slots().iter();
        let kept = slots.filter(|slot| slot.word().state() == State::Sealed && slot.is_kept());
        kept.map(|slot| (slot.id(), slot.root())).collect()
    }

    /// Pins a block to be copied to a tier below: its bytes are compared with its digest, and it counts neither as used nor as
    /// a hit.
    ///
    /// # Errors
    /// The reason for a miss; `Throttled` when this handle holds as many leases as it may.
    pub fn lease_to_copy(&self, id: &BlockId) -> Result<Lease, MissReason> {
        let throttled = |answer: &Result<Lease, MissReason>| matches!(answer, Err(MissReason::Throttled));
        self.on_stripe(|stripe| lease_to_copy(&stripe, id), throttled).unwrap_or(Err(MissReason::Unavailable))
    }

    /// Notes where else a block is, if it still is the one with this digest.
    pub fn note_below(&self, id: &BlockId, digest: u64, below: Below) -> Noted {
        let unknown = |answer: &Noted| *answer == Noted::Unknown;
        self.on_stripe(|stripe| note(&stripe, id, digest, below), unknown).unwrap_or(Noted::Unknown)
    }

    /// Counters about the tiers below.
    #[must_use]
    pub fn below_stats(&self) -> BelowStats {
        let mut stats = BelowStats::default();
        let stripes = self.session().map(crate::session::Session::stripes);
        for stripe in stripes.into_iter().flatten() {
            stripe.counters.add_below(&mut stats);
        }
        stats
    }
}

fn lease_to_copy(stripe: &Arc<Stripe>, id: &BlockId) -> Result<Lease, MissReason> {
    let (cell, number, word) = pin(stripe, id)?;
    let slot = stripe.core().index().slot(number).ok_or(MissReason::Absent)?;
    let block = slot.extent().and_then(|extent| stripe.core().map().block(extent));
    let found = block.zip(meta_of(slot, word));
    let right = found.filter(|(memory, meta)| {
        digest::root(id.as_bytes(), meta.len, memory.digests().into_iter()) == meta.digest
    });
    let Some((memory, meta)) = right else {
        stripe.release(cell.keep());
        super::ops::drop_corrupt(stripe, number, word);
        return Err(MissReason::Corrupt);
    };
    let home = Arc::clone(stripe) as Arc<dyn LeaseHome>;
    Ok(Lease::new(memory, meta, home, cell.keep()))
}

fn note(stripe: &Arc<Stripe>, id: &BlockId, digest: u64, below: Below) -> Noted {
    let index = stripe.core().index();
    let (cell, number, word) = match pin(stripe, id) {
        Ok(pinned) => pinned,
        Err(MissReason::Absent) => return Noted::Another,
        Err(_) => return Noted::Unknown,
    };
    let slot = index.slot(number);
    let same = slot.filter(|slot| meta_of(slot, word).is_some_and(|meta| meta.digest == digest));
    if let Some(slot) = same {
        slot.set_below(below);
    }
    stripe.release(cell.keep());
    if same.is_some() { Noted::Done } else { Noted::Another }
}

/// A pin on the visible block of `id`. `Absent` only when there is none, and none is being made.
fn pin<'a>(stripe: &'a Stripe, id: &BlockId) -> Result<(Cell<'a>, u32, Word), MissReason> {
    let index = stripe.core().index();
    let (number, word) = match index.find(&index.key(id)) {
        Found::Sealed(number, word) => (number, word),
        Found::Absent => return Err(MissReason::Absent),
        Found::Pending | Found::Evicting(..) => return Err(MissReason::Evicting),
    };
    let cell = stripe.take().ok_or(MissReason::Throttled)?;
    match protocol::pin(&index, number, word, cell.entry()) {
        Pin::Held => Ok((cell, number, word)),
        Pin::Gone => Err(MissReason::Evicting),
        Pin::Reclaim(retired) => {
            crate::evict::reclaim_retired(stripe, number, retired, cell);
            Err(MissReason::Evicting)
        }
    }
}
