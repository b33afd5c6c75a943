//! One policy at one capacity.

use cascade_core::policy::{Block, EvictionPolicy, Standing, Tick, Verdict};
use serde::{Deserialize, Serialize};

use super::format::Workload;

/// Ticks of the policy's clock while a tier's worth of blocks is put, as in an arena.
const TICKS: u64 = 256;
const ABSENT: u32 = u32::MAX;

/// What a replay counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Blocks named.
    pub references: u64,
    /// Blocks here, with all before them.
    pub hits: u64,
    /// Blocks here that were of no use, because one before them was not.
    pub orphans: u64,
    /// Blocks put.
    pub puts: u64,
    /// Blocks evicted.
    pub evictions: u64,
    /// Blocks not let in.
    pub refused: u64,
}

impl Outcome {
    /// Hits of all blocks named, 0 to 1.
    #[must_use]
    pub fn hit_rate(&self) -> f64 {
        self.hits as f64 / self.references.max(1) as f64
    }
}

/// A uniform key for the block with this number.
#[must_use]
pub fn key(block: u32) -> u64 {
    let mut mixed = u64::from(block).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ mixed >> 31
}

struct Tier {
    slot_of: Vec<u32>,
    block_in: Vec<u32>,
    capacity: usize,
}

/// Replays `workload` through one tier of `capacity` blocks.
pub fn simulate(workload: &Workload, capacity: usize, policy: &mut dyn EvictionPolicy) -> Outcome {
    let capacity = capacity.max(1);
    let mut tier =
        Tier { slot_of: vec![ABSENT; workload.blocks], block_in: Vec::with_capacity(capacity), capacity };
    let mut outcome = Outcome::default();
    let mut keys = Vec::new();
    for request in &workload.requests {
        let now = (u128::from(outcome.puts) * u128::from(TICKS) / capacity as u128) as Tick;
        keys.clear();
        keys.extend(request.blocks.iter().map(|block| key(*block)));
        policy.request(&keys, now);
        serve(&mut tier, &request.blocks, &keys, now, policy, &mut outcome);
    }
    outcome
}

fn serve(
    tier: &mut Tier,
    blocks: &[u32],
    keys: &[u64],
    now: Tick,
    policy: &mut dyn EvictionPolicy,
    outcome: &mut Outcome,
) {
    let mut is_prefix = true;
    for (position, number) in blocks.iter().enumerate() {
        outcome.references += 1;
        let slot = tier.slot_of[*number as usize];
        let block = Block { slot, key: keys[position], position, standing: Standing::Ordinary };
        if slot != ABSENT {
            let count = if is_prefix { &mut outcome.hits } else { &mut outcome.orphans };
            *count += 1;
            policy.used(&block, now);
            continue;
        }
        is_prefix = false;
        let slot = if tier.block_in.len() < tier.capacity {
            tier.block_in.push(ABSENT);
            tier.block_in.len() as u32 - 1
        } else {
            match policy.evict(&block, now) {
                Verdict::Evict(slot) => slot,
                Verdict::Refuse | Verdict::Pinned => {
                    // What comes after a block that is not here could never hit.
                    let rest = blocks.len() - position;
                    outcome.refused += rest as u64;
                    outcome.references += rest as u64 - 1;
                    return;
                }
            }
        };
        let old = std::mem::replace(&mut tier.block_in[slot as usize], *number);
        if old != ABSENT {
            tier.slot_of[old as usize] = ABSENT;
            outcome.evictions += 1;
        }
        tier.slot_of[*number as usize] = slot;
        outcome.puts += 1;
        policy.inserted(&Block { slot, ..block }, now);
    }
}
