//! What no policy can beat.

use std::collections::BTreeSet;

use super::format::Workload;
use super::simulate::Outcome;

const NEVER: u32 = u32::MAX;

/// The most hits that any policy could have: after each request the blocks stay that are used soonest (Belady, 1966), of one
/// request the shallower ones; what is never used again is not kept. A block is used no sooner than those before it in its chain, so
/// no chain is cut in its middle.
#[must_use]
pub fn optimum(workload: &Workload, capacity: usize) -> Outcome {
    let next = next_uses(workload);
    let mut kept: BTreeSet<(u32, u32, u32)> = BTreeSet::new();
    let mut of_block: Vec<Option<(u32, u32, u32)>> = vec![None; workload.blocks];
    let mut outcome = Outcome::default();
    for (request, next) in workload.requests.iter().zip(&next) {
        let mut is_prefix = true;
        for block in &request.blocks {
            outcome.references += 1;
            let held = of_block[*block as usize].take();
            is_prefix &= held.is_some_and(|held| kept.remove(&held));
            outcome.hits += u64::from(is_prefix);
        }
        for (depth, (block, next)) in request.blocks.iter().zip(next).enumerate() {
            if *next != NEVER {
                let held = (*next, depth as u32, *block);
                kept.insert(held);
                of_block[*block as usize] = Some(held);
            }
        }
        while kept.len() > capacity {
            let Some(last) = kept.pop_last() else { break };
            of_block[last.2 as usize] = None;
        }
    }
    outcome
}

/// For each block of each request the number of the next request that names it.
fn next_uses(workload: &Workload) -> Vec<Vec<u32>> {
    let mut soonest = vec![NEVER; workload.blocks];
    let mut next: Vec<Vec<u32>> = Vec::with_capacity(workload.requests.len());
    for (number, request) in workload.requests.iter().enumerate().rev() {
        next.push(request.blocks.iter().map(|block| soonest[*block as usize]).collect());
        request.blocks.iter().for_each(|block| soonest[*block as usize] = number as u32);
    }
    next.reverse();
    next
}

/// A cache that forgets nothing.
#[must_use]
pub fn infinite(workload: &Workload) -> Outcome {
    let mut seen = vec![false; workload.blocks];
    let mut outcome = Outcome::default();
    for request in &workload.requests {
        let mut is_prefix = true;
        for block in &request.blocks {
            outcome.references += 1;
            is_prefix &= std::mem::replace(&mut seen[*block as usize], true);
            outcome.hits += u64::from(is_prefix);
        }
    }
    outcome.puts = outcome.references - outcome.hits;
    outcome
}
