//! SIEVE: a hand moves from the oldest to the newest; what was used since it last came by is spared once.

use crate::policy::{Block, EvictionPolicy, Tick, Verdict};

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Node {
    older: u32,
    newer: u32,
    is_used: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Sieve {
    nodes: Vec<Node>,
    oldest: u32,
    newest: u32,
    hand: u32,
}

impl Default for Sieve {
    fn default() -> Self {
        Self { nodes: Vec::new(), oldest: NONE, newest: NONE, hand: NONE }
    }
}

impl Sieve {
    fn unlink(&mut self, slot: u32) {
        let Node { older, newer, .. } = self.nodes[slot as usize];
        match self.nodes.get_mut(older as usize) {
            Some(node) => node.newer = newer,
            None => self.oldest = newer,
        }
        match self.nodes.get_mut(newer as usize) {
            Some(node) => node.older = older,
            None => self.newest = older,
        }
    }
}

impl EvictionPolicy for Sieve {
    fn request(&mut self, _: &[u64], _: Tick) {}

    fn used(&mut self, block: &Block, _: Tick) {
        if let Some(node) = self.nodes.get_mut(block.slot as usize) {
            node.is_used = true;
        }
    }

    fn inserted(&mut self, block: &Block, _: Tick) {
        let slot = block.slot as usize;
        if self.nodes.len() <= slot {
            self.nodes.resize(slot + 1, Node { older: NONE, newer: NONE, is_used: false });
        }
        self.nodes[slot] = Node { older: self.newest, newer: NONE, is_used: false };
        match self.nodes.get_mut(self.newest as usize) {
            Some(node) => node.newer = block.slot,
            None => self.oldest = block.slot,
        }
        self.newest = block.slot;
    }

    fn evict(&mut self, _: &Block, _: Tick) -> Verdict {
        let mut hand = if self.hand == NONE { self.oldest } else { self.hand };
        while let Some(node) = self.nodes.get_mut(hand as usize) {
            if !std::mem::take(&mut node.is_used) {
                self.hand = node.newer;
                self.unlink(hand);
                return Verdict::Evict(hand);
            }
            hand = if node.newer == NONE { self.oldest } else { node.newer };
        }
        Verdict::Pinned
    }
}
