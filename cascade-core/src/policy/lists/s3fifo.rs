//! S3-FIFO: a small queue of a tenth for what is new, a main queue, and a ghost queue of keys.

use std::collections::{HashMap, VecDeque};

use crate::policy::{Block, EvictionPolicy, Tick, Verdict};

/// Uses that are counted, at most.
const MOST_USES: u8 = 3;

/// See the module.
#[derive(Debug)]
pub struct S3Fifo {
    slots: Vec<(u64, u8)>,
    small: VecDeque<u32>,
    main: VecDeque<u32>,
    ghosts: VecDeque<u64>,
    /// How often a key is in `ghosts`.
    known: HashMap<u64, u32>,
}

impl S3Fifo {
    /// For a tier of `slots` blocks.
    #[must_use]
    pub fn new(slots: usize) -> Self {
        Self {
            slots: vec![(0, 0); slots],
            small: VecDeque::new(),
            main: VecDeque::new(),
            ghosts: VecDeque::new(),
            known: HashMap::new(),
        }
    }

    fn remember(&mut self, key: u64) {
        self.ghosts.push_back(key);
        *self.known.entry(key).or_default() += 1;
        if self.ghosts.len() <= self.slots.len() * 9 / 10 {
            return;
        }
        let Some(old) = self.ghosts.pop_front() else { return };
        match self.known.get_mut(&old) {
            Some(times) if *times > 1 => *times -= 1,
            _ => {
                self.known.remove(&old);
            }
        }
    }

    fn take_main(&mut self) -> Option<u32> {
        while let Some(slot) = self.main.pop_front() {
            let uses = &mut self.slots[slot as usize].1;
            if *uses == 0 {
                return Some(slot);
            }
            *uses -= 1;
            self.main.push_back(slot);
        }
        None
    }

    fn take_small(&mut self) -> Option<u32> {
        while let Some(slot) = self.small.pop_front() {
            let (key, uses) = &mut self.slots[slot as usize];
            if *uses <= 1 {
                let key = *key;
                self.remember(key);
                return Some(slot);
            }
            *uses = 0;
            self.main.push_back(slot);
        }
        None
    }
}

impl EvictionPolicy for S3Fifo {
    fn request(&mut self, _: &[u64], _: Tick) {}

    fn used(&mut self, block: &Block, _: Tick) {
        if let Some((_, uses)) = self.slots.get_mut(block.slot as usize) {
            *uses = (*uses + 1).min(MOST_USES);
        }
    }

    fn inserted(&mut self, block: &Block, _: Tick) {
        let Some(slot) = self.slots.get_mut(block.slot as usize) else { return };
        *slot = (block.key, 0);
        if self.known.contains_key(&block.key) {
            self.main.push_back(block.slot);
        } else {
            self.small.push_back(block.slot);
        }
    }

    fn evict(&mut self, _: &Block, _: Tick) -> Verdict {
        let is_small_full = self.small.len() >= (self.slots.len() / 10).max(1);
        let slot = if is_small_full {
            self.take_small().or_else(|| self.take_main())
        } else {
            self.take_main().or_else(|| self.take_small())
        };
        slot.map_or(Verdict::Pinned, Verdict::Evict)
    }
}
