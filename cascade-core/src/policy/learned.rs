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
        self.ghosts.heats().for_each(|heat| seen.end(heat, heat.age(now), false));
        self.table = seen.worth();
        self.since = 0;
    }
}

impl Worth for Learned {
    fn request(&mut self, chain: &[u64], now: Tick) -> &[Heat] {
        let interval = (self.seen / 8).clamp(SOLVE_EVERY, SOLVE_AT_MOST.max(self.ghosts.capacity() / 8));
        if self.since >= interval {
            self.solve(now);
        }
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
        self.seen += chain.len();
        self.since += chain.len();
        &self.heats
    }

    fn worth(&self, heat: Heat, now: Tick) -> f32 {
        self.table.worth(heat, now)
    }
}
