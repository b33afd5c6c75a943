//! An engine on each node of a real SLURM job, beside the node's agent, without MPI: puts blocks of its own, then gets those of all others.
//! Started by `cargo xtask test --lane slurm`, in a script that `cargo xtask slurm` wrote; anywhere else there is nothing to run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test, though without the harness that clippy knows it by"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use cascade_core::batch::Outcome;
use cascade_core::id::BlockId;
use cascade_store::{Level, Put, Store, StoreConfig};

const LONG: Duration = Duration::from_secs(60);
const BLOCKS: u64 = 4;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn bytes(number: u64) -> Vec<u8> {
    (0..100_000 + number * 7_001).map(|at| (at * 31 + number * 7) as u8).collect()
}

fn id(number: u64) -> BlockId {
    BlockId::content(&bytes(number))
}

/// Until the directory has heard of it.
fn get_soon(store: &Store, number: u64) {
    let mut out = vec![0; bytes(number).len()];
    let until = Instant::now() + LONG;
    while let Err(why) = store.get(&id(number), &mut out) {
        assert!(Instant::now() < until, "block {number} is still a miss: {why:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(out == bytes(number), "wrong bytes for {number}");
}

/// Leaves a word for the others in the shared folder, and waits until all have. No agent goes before everybody is done.
fn meet(folder: &Path, what: &str, rank: u64, ranks: u64) {
    std::fs::write(folder.join(format!("{what}.{rank}")), "").unwrap();
    let until = Instant::now() + LONG;
    while (0..ranks).any(|rank| !folder.join(format!("{what}.{rank}")).exists()) {
        assert!(Instant::now() < until, "some node did not get to {what:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn main() {
    if std::env::args().any(|arg| arg == "--list") {
        // Who lists tests, as cargo nextest does, finds none here: this is a program of a job.
        return;
    }
    let (Some(rank), Some(ranks), Some(folder)) =
        (number("SLURM_PROCID"), number("SLURM_NTASKS"), std::env::args().nth(1))
    else {
        println!(
            "nodes: NOT RUN: this is no task of a SLURM job; `cargo xtask test --lane slurm` runs this in one"
        );
        return;
    };
    let folder = Path::new(&folder);
    let store = Store::open(&StoreConfig::builder().resolve().unwrap()).unwrap();
    let own = rank * BLOCKS..(rank + 1) * BLOCKS;
    for number in own.clone() {
        assert_eq!(store.put(&id(number), &bytes(number), Put::default()), Outcome::Stored);
    }
    meet(folder, "stored", rank, ranks);
    (0..ranks * BLOCKS).for_each(|number| get_soon(&store, number));
    let stats = store.stats();
    let (node, remote) = (std::env::var("SLURMD_NODENAME").unwrap_or_default(), stats.hits(Level::Remote));
    assert_eq!(remote, (ranks - 1) * BLOCKS, "each block of another node came from there once");
    println!("{{\"rank\":{rank},\"node\":\"{node}\",\"own\":{BLOCKS},\"remote\":{remote}}}");
    meet(folder, "done", rank, ranks);
}
