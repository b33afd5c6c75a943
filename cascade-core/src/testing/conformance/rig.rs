//! A tier under test, with the questions that the checks ask it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::rule;
use crate::batch::{Batch, Op, Outcome};
use crate::id::BlockId;
use crate::memory::{HostBuffer, Piece, SgList};
use crate::metrics::TierStats;
use crate::testing::bytes;
use crate::tier::{BlockMeta, Class, Lookup, OnExisting, PutMeta, Tier};

/// A batch that takes longer than this hangs (invariant I6).
const HANG: Duration = Duration::from_secs(30);

pub(super) const KEEP: PutMeta =
    PutMeta { class: Class::Ordinary, on_existing: OnExisting::Keep, tenant: 0, heat: None };
pub(super) const REPLACE: PutMeta = PutMeta { on_existing: OnExisting::Replace, ..KEEP };
pub(super) const PREFIX: PutMeta = PutMeta { class: Class::Prefix, ..KEEP };

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;

/// A list that reads `content`.
pub(super) fn reading(content: &Arc<[u8]>) -> SgList {
    Piece::shared(Arc::clone(content)).into()
}

/// Bytes that no content has at its ends: what a destination holds before a fetch.
pub(super) fn dirty(len: usize) -> (HostBuffer, Vec<u8>) {
    let mut buffer = HostBuffer::zeroed(len);
    if let Some(bytes) = buffer.bytes_mut() {
        bytes.fill(0xA5);
    }
    (buffer, vec![0xA5; len])
}

/// What `buffer` holds once no operation has a piece of it.
pub(super) fn holds(mut buffer: HostBuffer) -> Result<Vec<u8>, String> {
    let bytes = buffer.bytes_mut().ok_or("the tier still holds a list after its ticket completed")?;
    Ok(bytes.to_vec())
}

pub(super) struct Rig<T: ?Sized> {
    pub(super) tier: Arc<T>,
}

impl<T: Tier + ?Sized> Rig<T> {
    pub(super) fn new(tier: Arc<T>) -> Self {
        Self { tier }
    }

    pub(super) fn capacity_bytes(&self) -> u64 {
        self.tier.capability().capacity_bytes
    }

    pub(super) fn stats(&self) -> TierStats {
        self.tier.stats()
    }

    pub(super) fn run(&self, ops: Vec<Op>) -> Result<Vec<Outcome>, String> {
        self.run_batch(Batch::new(ops))
    }

    pub(super) fn run_batch(&self, batch: Batch) -> Result<Vec<Outcome>, String> {
        let asked = batch.ops.len();
        let outcomes = self.tier.submit(batch).wait(Instant::now() + HANG);
        let outcomes =
            outcomes.ok_or_else(|| format!("a batch of {asked} did not complete in {HANG:?} (I6)"))?;
        rule!(outcomes.len() == asked, "{} outcomes for {asked} operations", outcomes.len());
        Ok(outcomes)
    }

    pub(super) fn one(&self, op: Op) -> Result<Outcome, String> {
        let outcomes = self.run(vec![op])?;
        outcomes.first().copied().ok_or_else(|| "no outcome".to_owned())
    }

    pub(super) fn put(&self, id: &BlockId, content: &Arc<[u8]>, meta: PutMeta) -> Result<Outcome, String> {
        self.one(Op::Store { id: *id, from: reading(content), meta })
    }

    /// Puts a block that must be stored.
    pub(super) fn stored(&self, id: &BlockId, content: &Arc<[u8]>, meta: PutMeta) -> Result<(), String> {
        let outcome = self.put(id, content, meta)?;
        rule!(
            outcome == Outcome::Stored,
            "a put of {} new bytes must be Stored, was {outcome:?}",
            content.len()
        );
        Ok(())
    }

    /// Fetches into `len` bytes; the bytes come back whatever the outcome.
    pub(super) fn get(&self, id: &BlockId, len: usize) -> Result<(Outcome, Vec<u8>), String> {
        let (buffer, _) = dirty(len);
        let outcome = self.one(Op::Fetch { id: *id, into: buffer.piece().into() })?;
        Ok((outcome, holds(buffer)?))
    }

    /// Fetches a block that must be there with exactly these bytes.
    pub(super) fn expect(&self, id: &BlockId, content: &[u8], when: &str) -> Result<BlockMeta, String> {
        let (outcome, got) = self.get(id, content.len())?;
        let Outcome::Fetched(meta) = outcome else {
            return Err(format!("{when}: a stored block must be fetched (I3), was {outcome:?}"));
        };
        rule!(got == content, "{when}: other bytes than were put (I1), {} of them", content.len());
        check_meta(id, content, &meta)?;
        Ok(meta)
    }

    /// Fetches a block that may be gone: whether it is there, with exactly these bytes.
    pub(super) fn is_there(&self, id: &BlockId, content: &[u8], when: &str) -> Result<bool, String> {
        match self.lookup(id) {
            Lookup::Hit(_) => self.expect(id, content, when).map(|_| true),
            Lookup::Miss(_) => Ok(false),
            Lookup::Pending => Err(format!("{when}: Pending, and nobody is writing")),
        }
    }

    pub(super) fn delete(&self, id: &BlockId) -> Result<Outcome, String> {
        self.one(Op::Delete { id: *id })
    }

    pub(super) fn lookup(&self, id: &BlockId) -> Lookup {
        let mut out = [Lookup::Pending];
        self.tier.lookup(std::slice::from_ref(id), &mut out);
        out[0]
    }

    /// Stores fresh blocks of `len` bytes until `total` bytes went in; each must be stored. Their keys come back.
    pub(super) fn fill(&self, first_key: u64, len: u64, total: u64) -> Result<std::ops::Range<u64>, String> {
        let keys = first_key..first_key + total.div_ceil(len);
        for key in keys.clone() {
            let content = bytes::content(key, 0, usize::try_from(len).unwrap_or(usize::MAX));
            self.stored(&bytes::id(key), &content, KEEP)?;
        }
        Ok(keys)
    }

    /// Invariant I4 as the tier reports it.
    pub(super) fn within_capacity(&self, when: &str) -> Result<(), String> {
        let stats = self.stats();
        let (used, capacity) = (stats.used_bytes, stats.capacity_bytes);
        rule!(used <= capacity, "{when}: {used} bytes in use of a capacity of {capacity} (I4)");
        Ok(())
    }

    /// Invariant I5: nothing in use.
    pub(super) fn is_empty(&self, when: &str) -> Result<(), String> {
        let stats = self.stats();
        rule!(stats.used_bytes == 0, "{when}: {} bytes still in use (I5)", stats.used_bytes);
        rule!(stats.blocks == 0, "{when}: {} blocks still counted (I5)", stats.blocks);
        Ok(())
    }
}

pub(super) fn check_meta(id: &BlockId, content: &[u8], meta: &BlockMeta) -> Result<(), String> {
    rule!(
        meta.len == content.len() as u64,
        "the length of {} bytes is reported as {}",
        content.len(),
        meta.len
    );
    let root = bytes::root(id, content);
    rule!(
        meta.digest == root,
        "the digest of {} bytes is {root:016x}, reported {:016x}",
        content.len(),
        meta.digest
    );
    Ok(())
}
