//! What the model believes of each block.

use std::collections::BTreeMap;

use crate::lease::Lease;
use crate::testing::bytes::content;

/// Version and length of a block's contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) version: u64,
    pub(super) len: usize,
}

/// A block that was acknowledged and not deleted since.
#[derive(Clone, Copy, Debug)]
struct Belief {
    contents: Contents,
    /// Whether its absence must be a counted eviction; not after a crash or the end of a tier that is not persistent.
    owed: bool,
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) lease: Lease,
    pub(super) key: u64,
    pub(super) contents: Contents,
}

impl Held {
    pub(super) fn check(&self) -> Result<(), String> {
        let Self { lease, key, contents } = self;
        let mut got = vec![0; contents.len];
        let readable = lease.is_valid() && lease.len() == contents.len && lease.read_at(0, &mut got);
        let same = readable && *got == *content(*key, contents.version, contents.len);
        same.then_some(()).ok_or_else(|| format!("the lease of key {key} ({contents:?}) lost its bytes (I1)"))
    }
}

#[derive(Debug, Default)]
pub(super) struct Model {
    beliefs: BTreeMap<u64, Belief>,
    pub(super) held: Vec<Held>,
    lost: u64,
    /// Evictions counted by handles that are closed.
    evictions_before: u64,
}

impl Model {
    pub(super) fn contents(&self, key: u64) -> Option<Contents> {
        self.beliefs.get(&key).map(|belief| belief.contents)
    }

    pub(super) fn keys(&self) -> Vec<u64> {
        self.beliefs.keys().copied().collect()
    }

    pub(super) fn stored(&mut self, key: u64, contents: Contents) {
        self.beliefs.insert(key, Belief { contents, owed: true });
    }

    pub(super) fn deleted(&mut self, key: u64) {
        self.beliefs.remove(&key);
    }

    /// The block may be gone, uncounted.
    pub(super) fn damaged(&mut self, key: u64) {
        if let Some(belief) = self.beliefs.get_mut(&key) {
            belief.owed = false;
        }
    }

    /// Whether the block may be gone, uncounted.
    pub(super) fn is_doubted(&self, key: u64) -> bool {
        self.beliefs.get(&key).is_some_and(|belief| !belief.owed)
    }

    /// The block was seen: it is owed from now on.
    pub(super) fn seen(&mut self, key: u64) -> Result<Contents, String> {
        let belief = self.beliefs.get_mut(&key);
        let belief = belief.ok_or_else(|| {
            format!("key {key} is a hit, and it was deleted, found missing before, or never sealed (I2)")
        })?;
        belief.owed = true;
        Ok(belief.contents)
    }

    /// The block was missing: it must stay so, and an eviction must account for it. `evictions` is the open handle's count.
    pub(super) fn missing(&mut self, key: u64, evictions: u64) -> Result<(), String> {
        let owed = self.beliefs.remove(&key).is_some_and(|belief| belief.owed);
        self.lost += u64::from(owed);
        let (lost, counted) = (self.lost, self.evictions_before + evictions);
        let paid = lost <= counted;
        paid.then_some(()).ok_or_else(|| {
            format!("key {key} is missing: {lost} blocks lost, {counted} evictions counted (I3)")
        })
    }

    /// A handle is gone that had counted `evictions`; `kept` says whether its blocks must still be there.
    pub(super) fn closed(&mut self, evictions: u64, kept: bool) {
        self.evictions_before += evictions;
        for belief in self.beliefs.values_mut() {
            belief.owed &= kept;
        }
    }
}
