//! Eviction by samples: a policy for every [`Worth`], without lists.

use std::cmp::Ordering;

use super::pool::{Candidate, Pool, SAMPLES};
use super::standing::{Census, Shares, Standing};
use super::{Admission, Block, EvictionPolicy, Heat, Kind, Tick, Verdict, Worth};

/// Times [`SAMPLES`] blocks that are looked at, at most, while all that were seen are protected.
const PATIENCE: usize = 8;

#[derive(Clone, Copy, Debug)]
struct Resident {
    heat: Heat,
    standing: Standing,
    is_in_pool: bool,
}

/// Evicts the worst of [`SAMPLES`] random blocks and the [`POOL`](super::POOL) worst seen before.
#[derive(Debug)]
pub struct Sampled<W> {
    worth: W,
    slots: Vec<Option<Resident>>,
    census: Census,
    shares: Shares,
    admission: Admission,
    pool: Pool,
    random: u64,
    heats: Vec<Heat>,
}

impl<W: Worth> Sampled<W> {
    /// For a tier of `slots` blocks. `seed` decides which blocks are looked at.
    #[must_use]
    pub fn new(worth: W, slots: usize, shares: Shares, seed: u64) -> Self {
        let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Self {
            worth,
            slots: vec![None; slots],
            census: Census::default(),
            shares,
            admission: Admission::All,
            pool: Pool::default(),
            random,
            heats: Vec::new(),
        }
    }

    /// What blocks are worth.
    pub fn worth(&self) -> &W {
        &self.worth
    }

    /// With another rule of admission than [`Admission::All`].
    #[must_use]
    pub fn admitting(mut self, admission: Admission) -> Self {
        self.admission = admission;
        self
    }

    /// The state of a block of this request.
    fn heat(&self, block: &Block, now: Tick) -> Heat {
        let unknown = || Heat::new(now, 0, Kind::default(), block.position);
        self.heats.get(block.position).copied().unwrap_or_else(unknown)
    }

    fn set(&mut self, block: &Block, now: Tick) {
        let heat = self.heat(block, now);
        let Some(slot) = self.slots.get_mut(block.slot as usize) else { return };
        let old = slot.replace(Resident {
            heat,
            standing: block.standing,
            is_in_pool: slot.is_some_and(|old| old.is_in_pool),
        });
        if let Some(old) = old {
            self.census.remove(old.standing);
        }
        self.census.add(block.standing);
    }

    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn candidate(&self, slot: u32, now: Tick) -> Option<Candidate> {
        let resident = self.slots.get(slot as usize)?.as_ref()?;
        let standing = self.census.rank(resident.standing, self.shares, self.slots.len());
        let heat = resident.heat;
        let (worth, age, depth) = (self.worth.worth(heat, now), heat.age(now), heat.depth());
        (standing != Standing::HardPinned).then_some(Candidate { standing, worth, age, depth, slot })
    }

    fn mark(&mut self, slot: u32, is_in_pool: bool) {
        if let Some(Some(resident)) = self.slots.get_mut(slot as usize) {
            resident.is_in_pool = is_in_pool;
        }
    }

    /// Looks at the block in `slot`, if the pool does not have it; gives whether it may go as an ordinary one.
    fn look(&mut self, slot: u32, now: Tick) -> bool {
        let Some(candidate) = self.candidate(slot, now) else { return false };
        if !self.slots[slot as usize].is_some_and(|resident| resident.is_in_pool) {
            self.mark(slot, true);
            self.pool.add(candidate);
        }
        candidate.standing == Standing::Ordinary
    }

    /// Looks at random blocks until some are ordinary; at all of them when the tier is small, or nothing else helps.
    fn sample(&mut self, now: Tick) {
        let slots = self.slots.len() as u64;
        if slots > SAMPLES as u64 {
            for _ in 0..PATIENCE {
                let mut is_enough = false;
                for _ in 0..SAMPLES {
                    let slot = (self.next_random() % slots) as u32;
                    is_enough |= self.look(slot, now);
                }
                if is_enough {
                    return;
                }
            }
        }
        for slot in 0..slots as u32 {
            self.look(slot, now);
        }
    }
}

impl<W: Worth> EvictionPolicy for Sampled<W> {
    fn request(&mut self, chain: &[u64], now: Tick) {
        self.heats.clear();
        self.heats.extend_from_slice(self.worth.request(chain, now));
    }

    fn used(&mut self, block: &Block, now: Tick) {
        self.set(block, now);
    }

    fn inserted(&mut self, block: &Block, now: Tick) {
        self.set(block, now);
    }

    fn evict(&mut self, incoming: &Block, now: Tick) -> Verdict {
        let mut pool = std::mem::take(&mut self.pool);
        for slot in pool.refresh(|slot| self.candidate(slot, now)) {
            self.mark(slot, false);
        }
        self.pool = pool;
        self.sample(now);
        let mut pool = std::mem::take(&mut self.pool);
        let victim = pool.take(|slot| self.mark(slot, false));
        self.pool = pool;
        let Some(victim) = victim else { return Verdict::Pinned };
        let worth = self.worth.worth(self.heat(incoming, now), now);
        let is_worthy = match incoming.standing.cmp(&victim.standing) {
            Ordering::Less => self.admission == Admission::All,
            Ordering::Equal => self.admission.admits(worth, victim.worth),
            Ordering::Greater => true,
        };
        if !is_worthy {
            self.pool.add(victim);
            return Verdict::Refuse;
        }
        match self.slots.get_mut(victim.slot as usize).and_then(Option::take) {
            Some(resident) => self.census.remove(resident.standing),
            None => return Verdict::Pinned,
        }
        Verdict::Evict(victim.slot)
    }
}

/// Worth by time of the last use: LRU by samples.
#[derive(Clone, Debug, Default)]
pub struct Recency {
    heats: Vec<Heat>,
}

impl Worth for Recency {
    fn request(&mut self, chain: &[u64], now: Tick) -> &[Heat] {
        self.heats.clear();
        self.heats.extend((0..chain.len()).map(|depth| Heat::new(now, 0, Kind::default(), depth)));
        &self.heats
    }

    fn worth(&self, heat: Heat, now: Tick) -> f32 {
        -(heat.age(now) as f32)
    }
}

/// Worth by uses over age, and a 256th of that for blocks that were never used again: LFU with ageing, by samples.
#[derive(Clone, Debug)]
pub struct FrequencyByAge {
    ghosts: super::Ghosts,
    heats: Vec<Heat>,
}

impl FrequencyByAge {
    /// One who remembers about `keys` keys that have gone.
    #[must_use]
    pub fn new(keys: usize) -> Self {
        Self { ghosts: super::Ghosts::new(keys), heats: Vec::new() }
    }
}

impl Worth for FrequencyByAge {
    fn request(&mut self, chain: &[u64], now: Tick) -> &[Heat] {
        self.heats.clear();
        for (depth, key) in chain.iter().enumerate() {
            let fresh = Heat::new(now, 0, Kind::default(), depth);
            let heat = self.ghosts.get(*key).map_or(fresh, |old| old.used(now, Kind::default(), depth));
            self.ghosts.put(*key, heat, now);
            self.heats.push(heat);
        }
        &self.heats
    }

    fn worth(&self, heat: Heat, now: Tick) -> f32 {
        let uses = if heat.uses() == 0 { 1.0 / 256.0 } else { heat.uses() as f32 };
        uses / (heat.age(now) as f32 + 1.0)
    }
}
