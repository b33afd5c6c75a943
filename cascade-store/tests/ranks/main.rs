//! Ranks of a real MPI job, each with an arena of its own, that put, find, fetch and evict each other's blocks. Started by
//! `cargo xtask test --lane mpi` under `mpiexec`, several times with different `--path`; plain `cargo test` is a job of one rank.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test, though without the harness that clippy knows it by"
)]

mod content;
mod faults;
mod job;
mod random;
mod shared;
mod stop;

use std::sync::Arc;
use std::time::{Duration, Instant};

use cascade_core::batch::Outcome;
use cascade_core::memory_tier::MemoryTier;
use cascade_core::testing::conformance;
use cascade_core::tier::{Addressable, Lookup, MissReason, Tier};
use cascade_mpi::{MpiConfig, MpiTier};
use content::{bytes_of, id_of, len_of};
use job::Job;

/// Blocks that each rank puts in the first scenarios.
const BLOCKS: u64 = 24;

fn main() {
    let job = Job::start();
    if job::option("--scenario").is_some_and(|name| name == "stop") {
        stop::a_stopped_rank_makes_misses_and_nothing_else(&job);
        return job.end();
    }
    if job::option("--scenario").is_some_and(|name| ["faults", "kill"].contains(&name.as_str())) {
        faults::one_rank_fails_while_all_are_at_work(&job);
        return if faults::is_to_die() { job.leave() } else { job.end() };
    }
    everyone_finds_and_fetches_what_others_put(&job);
    what_was_deleted_is_found_nowhere(&job);
    random::everybody_puts_and_fetches_under_eviction(&job);
    shared::all_ranks_share_a_system_prompt(&job);
    the_tier_conforms(&job);
    job.end();
}

/// The ids of `rank`'s blocks.
fn blocks_of(rank: u32) -> impl Iterator<Item = u64> {
    (0..BLOCKS).map(move |number| u64::from(rank) << 32 | number)
}

fn everyone_finds_and_fetches_what_others_put(job: &Job) {
    for number in blocks_of(job.rank()) {
        assert_eq!(job.put(number), Outcome::Stored);
    }
    job.flush();
    job.meet("put");
    let others: Vec<u64> = job.others().flat_map(blocks_of).collect();
    let ids: Vec<_> = others.iter().map(|number| id_of(*number)).collect();
    let mut found = vec![Lookup::Pending; ids.len()];
    job.tier.lookup(&ids, &mut found);
    for (number, found) in others.iter().zip(&found) {
        assert!(
            matches!(found, Lookup::Hit(meta) if meta.len == len_of(*number) as u64),
            "{number:x}: {found:?}"
        );
    }
    for number in &others {
        assert_eq!(job.fetch(*number).as_deref(), Ok(&bytes_of(*number)[..]), "{number:x}");
    }
    let stats = job.tier.mpi_stats();
    let came = if job.maps_neighbours() { stats.mapped } else { stats.fetched };
    assert_eq!(came, others.len() as u64, "all came by the path that was asked for: {stats:?}");
    // What was fetched is here now, and nobody is asked again.
    for number in &others {
        assert_eq!(job.fetch(*number).as_deref(), Ok(&bytes_of(*number)[..]), "{number:x}");
    }
    let again = job.tier.mpi_stats();
    assert_eq!((again.fetched, again.mapped), (stats.fetched, stats.mapped));
    let absent = u64::MAX - u64::from(job.rank());
    assert_eq!(job.fetch(absent), Err(MissReason::Absent));
    job.meet("fetched");
}

fn what_was_deleted_is_found_nowhere(job: &Job) {
    let number = 0xde1e7e_u64 << 8 | u64::from(job.rank());
    assert_eq!(job.put(number), Outcome::Stored);
    job.flush();
    job.meet("to delete");
    // The last rank forgets what the first has: the directory is told, and only the first can still lease it.
    let next = (0xde1e7e_u64 << 8) | u64::from((job.rank() + 1) % job.ranks());
    assert_eq!(job.delete(next), Outcome::Deleted);
    job.meet("deleted");
    if job.ranks() > 1 {
        // A message to the directory may still be on its way.
        let beyond = (0xde1e7e_u64 << 8) | u64::from((job.rank() + 2) % job.ranks());
        let until = Instant::now() + Duration::from_secs(10);
        while job.ranks() > 2 && job.fetch(beyond).is_ok() {
            job.delete(beyond);
            assert!(Instant::now() < until, "a deleted block is still found");
        }
    }
    job.meet("looked");
}

/// Rank 0 goes through the suite while the others serve the directory.
fn the_tier_conforms(job: &Job) {
    if job.rank() == 0 {
        let config = MpiConfig { news_every: Duration::from_secs(5), ..MpiConfig::default() };
        let make = |capacity_bytes: u64| -> Arc<dyn Tier> {
            let local: Arc<dyn Addressable> = Arc::new(MemoryTier::new(capacity_bytes));
            let (fabric, home) = (Arc::clone(&job.fabric), Arc::clone(&job.home));
            Arc::new(MpiTier::over(fabric, home, local, config).unwrap())
        };
        conformance::tier(&make);
        println!("ranks: the tier conforms");
    }
    job.meet("conformed");
}
