//! What leaves a full tier: eviction as pure functions of what was seen, with time passed in.
//!
//! **What is maximised.** A request names a chain of blocks, and a block counts as a hit only when all before it hit. So
//! a block whose parent is gone is worth nothing, and the deepest of a chain should go first.
//!
//! **The default, [`Learned`].** It learns how long blocks stay unused before they are used again, and evicts the block
//! whose *Gittins index* is lowest. Blocks fall into classes `c`: uses so far, and how much of the request that last named
//! the block was known, not counting what all requests share. For each class, over ages `a` (ticks since the last use) in half octaves:
//!
//! * hazard `h(c, a) = uses at that age / block-ticks spent at that age`, counted also for blocks that were evicted long
//!   ago, from a bounded memory of keys ([`Ghosts`]); what was not used again yet is counted as such (censored);
//! * little evidence is shrunk to the hazards of all blocks with as many uses, those to the hazards of all blocks, and
//!   those to `h` falling as `1/a`, under which the order of eviction is that of LRU: who has seen nothing, behaves as LRU;
//! * worth `w(c, a) = max over b > a of P(used before b) / E[ticks until used or b]`: hits for each tick of space, at the
//!   best moment to give up. It looks past the pause between two turns of a conversation, in which plain hazards are low.
//!
//! No number in it is that of a workload, and no table depends on the tier's size.
//!
//! Everything a tier must keep of a block fits the 28 bits of [`Heat`]; the victim is sought among [`SAMPLES`] random
//! blocks and the [`POOL`] worst seen before ([`Sampled`]), so no tier needs lists. Prefix blocks and soft pins outrank
//! that within a bound ([`Standing`], [`Shares`]).
//!
//! Sources: the index is J. C. Gittins' (*Bandit processes and dynamic allocation indices*, 1979); hits for each tick of
//! space as an order of eviction, by classes and sampled: LHD (Beckmann, Chen, Cidon, *LHD: Improving Cache Hit Rate by
//! Maximizing Hit Density*, NSDI 2018); the pool of candidates: Redis. For comparison: [`lists`].

mod ghost;
mod heat;
mod learned;
pub mod lists;
mod pool;
mod sampled;
mod standing;
mod survival;
mod worth;

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;

pub use ghost::Ghosts;
pub use heat::{Heat, Kind};
pub use learned::Learned;
pub use pool::{Candidate, POOL, Pool, SAMPLES};
pub use sampled::{FrequencyByAge, Recency, Sampled};
pub use standing::{Shares, Standing};
pub use survival::Survival;
pub use worth::WorthTable;

/// Coarse time that only moves forward, in any unit: blocks written, or seconds. A policy compares ages alone.
/// A [`Heat`] keeps its low 16 bits, so a unit of some hundredth of the tier lasts for hundreds of its turnovers.
pub type Tick = u32;

/// A block that a request names, and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Where the tier keeps it: below the tier's number of slots.
    pub slot: u32,
    /// What it is called: any 64 uniform bits of its id.
    pub key: u64,
    /// Its place in the request's chain, from 0.
    pub position: usize,
    /// How it ranks before its worth is asked.
    pub standing: Standing,
}

/// Decides which blocks of one tier go. The tier tells it of each request, and of each block that comes and goes.
pub trait EvictionPolicy: std::fmt::Debug {
    /// A request over the blocks `chain`, in order, of which `used` and `inserted` will tell next.
    fn request(&mut self, chain: &[u64], now: Tick);

    /// A block of this request was already here.
    fn used(&mut self, block: &Block, now: Tick);

    /// A block of this request was put where there was room.
    fn inserted(&mut self, block: &Block, now: Tick);

    /// Chooses a block to go for `incoming` (whose slot means nothing yet), and forgets it.
    fn evict(&mut self, incoming: &Block, now: Tick) -> Verdict;
}

/// How room is made for a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The block in this slot goes.
    Evict(u32),
    /// The new block is worth less than what would go for it: it is not let in.
    Refuse,
    /// All are pinned for good.
    Pinned,
}

/// What a block is worth, from what its slot says. All that a tier needs that keeps [`Heat`]s in its slots.
pub trait Worth: std::fmt::Debug {
    /// A request over the blocks `chain`, in order; gives for each the state that its slot should have from now on.
    fn request(&mut self, chain: &[u64], now: Tick) -> &[Heat];

    /// Worth of keeping a block in state `heat`; only its order matters.
    fn worth(&self, heat: Heat, now: Tick) -> f32;
}

/// Whether a block is let into a full tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// Always: a put is never refused for what it may be worth.
    #[default]
    All,
    /// When it is worth at least what would go for it: for tiers whose writes wear or cost, such as files.
    Worthier,
}

impl Admission {
    /// Whether a block that is worth `incoming` may displace one that is worth `least`.
    #[must_use]
    pub fn admits(self, incoming: f32, least: f32) -> bool {
        self == Self::All || incoming >= least
    }
}
