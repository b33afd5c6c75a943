//! The store in a simulation: the very code of puts, gets, moves and the demoter, over tiers and locks that only exist here,
//! by two processes of which one runs at a time, with a clock that moves when somebody waits. One seed decides everything: who does what, what fails, who is killed where, and
//! what another process does between any two calls that the store makes to a tier. The same seed gives the same run, to the last call.
//!
//! `CASCADE_SIM_SEEDS` sets the number of seeds, `CASCADE_SEED` the first; a failure prints its seed and the last steps.

#![allow(clippy::unwrap_used, clippy::panic)]

mod bottom;
mod locks;
mod model;
mod run;
mod top;
mod turns;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::Demote;

/// Steps of one run.
const STEPS: u64 = 150;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().unwrap())
}

/// What a run did: told by the tests, and equal for equal seeds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Told {
    steps: u64,
    calls: u64,
    nested: u64,
    waits: u64,
    kills: u64,
    losses: u64,
    faults: u64,
    hits: u64,
    excused: u64,
    simulated_s: u64,
    trace: u64,
}

fn one(seed: u64) -> Told {
    let mode = [Demote::Through, Demote::Through, Demote::Back, Demote::Off][(seed % 4) as usize];
    let sim = run::Sim::new(seed, mode);
    let done = catch_unwind(AssertUnwindSafe(|| sim.run(STEPS)));
    if done.is_err() {
        panic!(
            "seed {seed} ({mode:?}) broke; again with `CASCADE_SEED={seed} CASCADE_SIM_SEEDS=1 cargo test -p cascade-store --lib \
             the_store_holds_under_every_seed`\n{}",
            sim.world.log()
        );
    }
    sim.told()
}

#[test]
fn the_store_holds_under_every_seed() {
    let (first, count) = (number("CASCADE_SEED", 1), number("CASCADE_SIM_SEEDS", 400));
    let mut sum = Told::default();
    for told in (first..first + count).map(one) {
        sum.steps += told.steps;
        sum.calls += told.calls;
        sum.nested += told.nested;
        sum.waits += told.waits;
        sum.trace ^= told.trace;
        sum.kills += told.kills;
        sum.losses += told.losses;
        sum.faults += told.faults;
        sum.hits += told.hits;
        sum.excused += told.excused;
        sum.simulated_s += told.simulated_s;
    }
    println!("{count} seeds: {sum:?}");
    if count >= 20 {
        let happened = [sum.nested, sum.waits, sum.kills, sum.losses, sum.faults, sum.hits, sum.excused];
        assert!(happened.iter().all(|count| *count > 0), "something never happened: {sum:?}");
    }
}

/// Seeds that once broke: a block that files could not forget took the newer one with it that another process had copied down.
#[test]
fn seeds_that_once_broke_hold() {
    for seed in [7896, 23_594] {
        one(seed);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [3, 4, 5, 6] {
        assert_eq!(one(seed), one(seed), "seed {seed}");
    }
    assert_ne!(one(3).trace, one(7).trace);
}
