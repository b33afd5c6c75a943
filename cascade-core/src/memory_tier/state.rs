//! Tables of the in-memory tier, used under its lock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::raw::Slab;
use crate::batch::{Outcome, Refusal};
use crate::block::BlockMemory;
use crate::digest;
use crate::id::BlockId;
use crate::metrics::TierStats;
use crate::quarantine::Quarantine;
use crate::reservation::Sealed;
use crate::tier::{BlockMeta, Lookup, MissReason, OnExisting, PutMeta};

#[derive(Debug)]
struct Stored {
    slab: Arc<Slab>,
    meta: BlockMeta,
    touched: u64,
}

#[derive(Debug)]
struct Pending {
    id: BlockId,
    slab: Arc<Slab>,
    len: u64,
    meta: PutMeta,
}

#[derive(Debug)]
pub(super) enum NoReservation {
    Exists(BlockMeta),
    Refused(Refusal),
}

#[derive(Debug)]
pub(super) struct State {
    stored: HashMap<BlockId, Stored>,
    pending: HashMap<u64, Pending>,
    leases: HashMap<u64, Arc<Slab>>,
    quarantine: Quarantine<Arc<Slab>>,
    capacity_bytes: u64,
    next: u64,
    pub(super) stats: TierStats,
}

impl State {
    pub(super) fn new(capacity_bytes: u64, grace: Duration) -> Self {
        Self {
            stored: HashMap::new(),
            pending: HashMap::new(),
            leases: HashMap::new(),
            quarantine: Quarantine::new(grace, capacity_bytes / 4),
            capacity_bytes,
            next: 0,
            stats: TierStats::default(),
        }
    }

    pub(super) fn lookup(&self, id: &BlockId) -> Lookup {
        if let Some(stored) = self.stored.get(id) {
            return Lookup::Hit(stored.meta);
        }
        if self.is_pending(id) { Lookup::Pending } else { Lookup::Miss(MissReason::Absent) }
    }

    pub(super) fn reserve(
        &mut self,
        id: &BlockId,
        len: u64,
        meta: PutMeta,
        now: Duration,
    ) -> Result<(BlockMemory, u64), NoReservation> {
        while self.quarantine.pop_expired(now).is_some() {}
        let refused = self.check(id, len, meta)?;
        if let Some(why) = refused {
            self.stats.refused += 1;
            return Err(NoReservation::Refused(why));
        }
        let Some(slab) = usize::try_from(len).ok().and_then(Slab::new).map(Arc::new) else {
            self.stats.refused += 1;
            return Err(NoReservation::Refused(Refusal::Full));
        };
        let memory = slab.memory(usize::try_from(len).unwrap_or(0));
        let token = self.token();
        self.pending.insert(token, Pending { id: *id, slab, len, meta });
        Ok((memory, token))
    }

    /// Why `id` cannot be reserved now, after making room for it.
    fn check(&mut self, id: &BlockId, len: u64, meta: PutMeta) -> Result<Option<Refusal>, NoReservation> {
        if len == 0 {
            return Ok(Some(Refusal::Empty));
        }
        if let (Some(stored), OnExisting::Keep) = (self.stored.get(id), meta.on_existing) {
            self.stats.exists += 1;
            return Err(NoReservation::Exists(stored.meta));
        }
        if len > self.capacity_bytes {
            return Ok(Some(Refusal::TooLarge));
        }
        if self.is_pending(id) {
            return Ok(Some(Refusal::Pending));
        }
        if self.quarantine.is_full() {
            return Ok(Some(Refusal::Throttled));
        }
        Ok((!self.make_room(len)).then_some(Refusal::Full))
    }

    pub(super) fn seal(&mut self, token: u64, digests: &[u64]) -> Sealed {
        let Some(pending) = self.pending.remove(&token) else { return Sealed::Lost };
        let root = digest::root(pending.id.as_bytes(), pending.len, digests.iter().copied());
        let meta = BlockMeta {
            len: pending.len,
            digest: root,
            class: pending.meta.class,
            tenant: pending.meta.tenant,
        };
        if let Some(old) = self.stored.get(&pending.id)
            && old.meta.digest == root
        {
            self.stats.exists += 1;
            return Sealed::Exists(old.meta);
        }
        let touched = self.token();
        self.stored.insert(pending.id, Stored { slab: pending.slab, meta, touched });
        self.stats.puts += 1;
        self.stats.bytes_in += meta.len;
        Sealed::Stored(meta)
    }

    pub(super) fn abandon(&mut self, token: u64) {
        self.pending.remove(&token);
    }

    pub(super) fn quarantine(&mut self, token: u64, now: Duration) {
        if let Some(pending) = self.pending.remove(&token) {
            self.quarantine.push(now, pending.len, pending.slab);
        }
    }

    pub(super) fn lease(&mut self, id: &BlockId) -> Result<(BlockMemory, BlockMeta, u64), MissReason> {
        let token = self.token();
        let Some(stored) = self.stored.get_mut(id) else {
            self.stats.misses += 1;
            return Err(MissReason::Absent);
        };
        stored.touched = token;
        self.stats.hits += 1;
        let memory = stored.slab.memory(usize::try_from(stored.meta.len).unwrap_or(0));
        self.leases.insert(token, Arc::clone(&stored.slab));
        Ok((memory, stored.meta, token))
    }

    pub(super) fn release(&mut self, token: u64) {
        self.leases.remove(&token);
    }

    pub(super) fn is_leased(&self, token: u64) -> bool {
        self.leases.contains_key(&token)
    }

    pub(super) fn delete(&mut self, id: &BlockId) -> Outcome {
        match self.stored.remove(id) {
            Some(_) => Outcome::Deleted,
            None => Outcome::Miss(MissReason::Absent),
        }
    }

    /// Forgets the block whose bytes did not match `digest`; a block that replaced it meanwhile stays.
    pub(super) fn drop_corrupt(&mut self, id: &BlockId, digest: u64) {
        if self.stored.get(id).is_some_and(|stored| stored.meta.digest == digest) {
            self.stored.remove(id);
            self.stats.corrupt += 1;
        }
    }

    pub(super) fn refuse(&mut self, why: Refusal) -> Outcome {
        self.stats.refused += 1;
        Outcome::Refused(why)
    }

    pub(super) fn snapshot(&self) -> TierStats {
        TierStats {
            capacity_bytes: self.capacity_bytes,
            ready_bytes: self.capacity_bytes,
            used_bytes: self.used_bytes(),
            blocks: self.stored.len() as u64,
            quarantined_bytes: self.quarantine.bytes(),
            ..self.stats
        }
    }

    fn is_pending(&self, id: &BlockId) -> bool {
        self.pending.values().any(|pending| pending.id == *id)
    }

    /// Everything that holds memory: blocks, reservations, quarantine, and blocks forgotten while leased.
    fn used_bytes(&self) -> u64 {
        let stored: u64 = self.stored.values().map(|stored| stored.meta.len).sum();
        let pending: u64 = self.pending.values().map(|pending| pending.len).sum();
        stored + pending + self.quarantine.bytes() + self.orphaned_bytes()
    }

    fn orphaned_bytes(&self) -> u64 {
        let mut orphans: HashMap<*const Slab, u64> = HashMap::new();
        for slab in self.leases.values() {
            orphans.insert(Arc::as_ptr(slab), slab.len());
        }
        for stored in self.stored.values() {
            orphans.remove(&Arc::as_ptr(&stored.slab));
        }
        orphans.values().sum()
    }

    /// Evicts until `len` bytes fit. Nothing is evicted when that could not be enough: a refused put costs no block.
    fn make_room(&mut self, len: u64) -> bool {
        let evictable = self.stored.values().filter(|stored| Arc::strong_count(&stored.slab) == 1);
        let evictable: u64 = evictable.map(|stored| stored.meta.len).sum();
        if self.used_bytes() - evictable + len > self.capacity_bytes {
            return false;
        }
        while self.used_bytes() + len > self.capacity_bytes {
            let victim = self
                .stored
                .iter()
                .filter(|(_, stored)| Arc::strong_count(&stored.slab) == 1)
                .min_by_key(|(_, stored)| (stored.meta.class, stored.touched))
                .map(|(id, _)| *id);
            let Some(id) = victim else { return false };
            self.stored.remove(&id);
            self.stats.evictions += 1;
        }
        true
    }

    fn token(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}
