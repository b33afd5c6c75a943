//! What publishing adds to a put: the same puts into an arena that nobody else reads, in turns.

use std::time::{Duration, Instant};

use cascade_core::tier::Tier;
use cascade_core::{Error, ErrorKind, Result};

use super::job::{Rank, id};
use super::{Results, Shape, row};
use crate::report::Ceiling;
use crate::shm::{Temporary, make};
use crate::stats::Spread;
use crate::tiers::Wanted;
use crate::units::gbps;

/// Rank 0 puts; entries go to all ranks.
pub(super) fn run(rank: &Rank, shape: &Shape, reps: usize, results: &mut Results) -> Result<()> {
    let measured = if rank.rank() == 0 { measure(rank, shape, reps, results) } else { Ok(()) };
    rank.meet(&format!("puts {}", shape.first))?;
    measured
}

fn measure(rank: &Rank, shape: &Shape, reps: usize, results: &mut Results) -> Result<()> {
    let capacity_bytes = (shape.bytes() * 2 + (64 << 20)).next_multiple_of(64 << 20);
    let wanted = Wanted { capacity_bytes, slots: None, touched: true, threads: 1, index_only: None };
    let beside: Temporary = make(rank.scratch.path(), &wanted)?;
    let (mut published, mut local, mut next) = (Vec::new(), Vec::new(), shape.first + (1 << 30));
    for rep in 0..=reps {
        let numbers: Vec<u64> = (next..next + shape.count as u64).collect();
        next += shape.count as u64;
        let theirs = lap(rank, &*rank.tier, &numbers, shape)?;
        rank.forget(&numbers);
        let own = lap(rank, &beside.arena, &numbers, shape)?;
        numbers.iter().for_each(|number| {
            super::job::one(&beside.arena, cascade_core::batch::Op::Delete { id: id(*number) });
        });
        if rep > 0 {
            published.push(gbps(shape.bytes(), theirs.as_secs_f64()));
            local.push(gbps(shape.bytes(), own.as_secs_f64()));
        }
    }
    let mut row = row(rank, "put", rank.fabric().path().name(), shape.block as u64);
    let own = Spread::of(&local);
    let ceiling = own
        .map(|own| Ceiling { what: "a put into an arena that nobody else reads".into(), gbps: own.median });
    row.set_rate(Spread::of(&published), ceiling);
    row.n = published.len();
    if let Some(remote) = &mut row.remote {
        remote.ceiling = own;
    }
    results.rows.push(row);
    Ok(())
}

fn lap(rank: &Rank, tier: &dyn Tier, numbers: &[u64], shape: &Shape) -> Result<Duration> {
    let began = Instant::now();
    for number in numbers {
        rank.put(tier, *number, shape.block)?;
    }
    // Until all is told.
    let deadline = Instant::now() + Duration::from_secs(60);
    tier.flush(deadline).map_err(|error| {
        Error::new(ErrorKind::Deadline, "what was put was not published in a minute").with_source(error)
    })?;
    Ok(began.elapsed())
}
