//! The default: worth learned from how long blocks stay unused.

use super::ghost::Ghosts;
use super::heat::{Heat, Kind};
use super::survival::Survival;
use super::worth::WorthTable;
use super::{Tick, Worth};

/// Blocks seen before the first look at what was learned, and between two at least.
const SOLVE_EVERY: usize = 512;
/// Blocks seen between two looks, at most.
const SOLVE_AT_MOST: usize = 1 << 15;
/// Keys that are looked at, at most, for how long they have waited by now.
const STILL_WAITING: usize = 1 << 16;
/// What was learned fades by half while this many times the blocks that are remembered go by.
const HALF_LIFE: f64 = 8.0;

/// See [`policy`](super). Pure: the same calls give the same worth.
#[derive(Clone, Debug)]
pub struct Learned {
    ghosts: Ghosts,
    survival: Survival,
    table: WorthTable,
    seen: usize,
    since: usize,
    looks: u64,
    heats: Vec<Heat>,
}

impl Learned {
    /// Keys that are remembered for a tier of `blocks` blocks: enough to see the uses that a tier of several times the size
    /// would have had. 16 bytes each.
    #[must_use]
    pub fn memory_for(blocks: usize) -> usize {
        blocks.saturating_mul(4).clamp(1 << 17, 1 << 24)
    }

    /// One who remembers about `keys` keys and has seen nothing.
    #[must_use]
    pub fn new(keys: usize) -> Self {
        Self {
            ghosts: Ghosts::new(keys),
            survival: Survival::default(),
            table: WorthTable::default(),
            seen: 0,
            since: 0,
            looks: 0,
            heats: Vec::new(),
        }
    }

    /// What was learned, as of the last look.
    #[must_use]
    pub fn table(&self) -> &WorthTable {
        &self.table
    }

    fn see(&mut self, key: u64, kind: Kind, depth: usize, now: Tick) -> Heat {
        let heat = match self.ghosts.get(key) {
            None => Heat::new(now, 0, kind, depth),
            Some(old) => {
                self.survival.end(old, old.age(now), true);
                old.used(now, kind, depth)
            }
        };
        if let Some(gone) = self.ghosts.put(key, heat, now) {
            self.survival.end(gone, gone.age(now), false);
        }
        heat
    }

    fn solve(&mut self, now: Tick) {
        self.survival.fade((-(self.since as f64) / (HALF_LIFE * self.ghosts.capacity() as f64)).exp2());
        // Those that still wait have waited so long.
        let mut seen = self.survival.clone();
        let (waiting, each) = self.ghosts.heats(STILL_WAITING);
        waiting.for_each(|heat| seen.wait(heat, heat.age(now), each));
        self.table = seen.worth();
        self.since = 0;
        self.looks += 1;
    }

    /// Lets the memory grow until there is room for `keys` keys.
    pub fn allow(&mut self, keys: usize) {
        self.ghosts.allow(keys);
    }

    /// Looks at what was learned, so far: it goes up when [`Learned::table`] has changed.
    #[must_use]
    pub fn looks(&self) -> u64 {
        self.looks
    }

    /// How much was seen, what is old counting less: who has seen more knows better.
    #[must_use]
    pub fn evidence(&self) -> f64 {
        self.survival.evidence()
    }

    /// The chain is looked up, and will be fetched or put next: a request. No state is given where it was looked up in this
    /// tick before, and nothing came of it: somebody asks again and again.
    pub fn look_up(&mut self, chain: &[u64], now: Tick) -> &[Heat] {
        let last = chain.last().and_then(|key| self.ghosts.named(*key));
        if last.is_some_and(|heat| heat.age(now) == 0) {
            return &[];
        }
        if !self.see_alone(chain, now) {
            self.request(chain, now);
        }
        chain.iter().for_each(|key| self.ghosts.name(*key));
        &self.heats
    }

    /// Blocks of the chain are fetched or leased. A request, unless a look-up announced it: then no state is given.
    pub fn fetch(&mut self, chain: &[u64], now: Tick) -> &[Heat] {
        match chain.last() {
            Some(last) if self.ghosts.answer(*last, now).is_none() => {}
            _ => return &[],
        }
        if self.see_alone(chain, now) { &self.heats } else { self.request(chain, now) }
    }

    /// One block alone, seen before, says nothing of its chain: what is known of that stays. `false` for anything else.
    fn see_alone(&mut self, chain: &[u64], now: Tick) -> bool {
        let &[key] = chain else { return false };
        let Some(old) = self.ghosts.get(key) else { return false };
        self.count(1, now);
        self.survival.end(old, old.age(now), true);
        self.ghosts.put(key, old.again(now), now);
        self.heats.clear();
        self.heats.push(old.again(now));
        true
    }

    /// Blocks of a chain are put; what no look-up announced is seen here for the first time. Gives the state of each.
    pub fn put(&mut self, chain: &[u64], now: Tick) -> &[Heat] {
        self.heats.clear();
        let mut fresh = 0;
        for (position, key) in chain.iter().enumerate() {
            let heat = match self.ghosts.answer(*key, now) {
                Some(heat) => heat,
                None => {
                    fresh += 1;
                    self.see(*key, Kind::of(position, chain.len(), 0, 0), position, now)
                }
            };
            self.heats.push(heat);
        }
        self.count(fresh, now);
        &self.heats
    }

    /// Counts blocks seen, and looks at what was learned when that is due.
    fn count(&mut self, blocks: usize, now: Tick) {
        let interval = (self.seen / 8).clamp(SOLVE_EVERY, SOLVE_AT_MOST.max(self.ghosts.capacity() / 8));
        if self.since >= interval {
            self.solve(now);
        }
        self.seen += blocks;
        self.since += blocks;
    }
}

impl Worth for Learned {
    fn request(&mut self, chain: &[u64], now: Tick) -> &[Heat] {
        self.count(chain.len(), now);
        let (mut known, mut common) = (0, 0);
        for heat in chain.iter().map_while(|key| self.ghosts.get(*key)) {
            known += 1;
            common += usize::from(heat.is_common());
        }
        self.heats.clear();
        for (position, key) in chain.iter().enumerate() {
            let heat = self.see(*key, Kind::of(position, chain.len(), known, common), position, now);
            self.heats.push(heat);
        }
        &self.heats
    }

    fn worth(&self, heat: Heat, now: Tick) -> f32 {
        self.table.worth(heat, now)
    }
}
