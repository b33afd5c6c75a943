//! All ranks at once: each reads blocks of the next; and one prompt that all share.

use std::time::{Duration, Instant};

use cascade_core::Result;
use cascade_core::batch::Outcome;
use cascade_core::memory::HostBuffer;
use cascade_core::tier::Class;
use cascade_store::{Level, Put};

use super::cli::Arguments;
use super::job::{Rank, id, unexpected};
use super::{Results, path_taken, row};
use crate::report::Row;
use crate::stats::Spread;
use crate::units::gbps;

const PROMPT: std::ops::Range<u64> = 9 << 50..(9 << 50) + 20;
const PROMPT_BLOCK: usize = 1 << 20;

/// What is scaled: bytes of each rank, or of all together.
const SCALES: [&str; 2] = ["weak", "strong"];

/// Collective.
pub(super) fn run(
    rank: &Rank,
    arguments: &Arguments,
    results: &mut Results,
    progress: &mut dyn FnMut(usize, usize, &str),
) -> Result<()> {
    let reps = arguments.reps as usize;
    for (number, block) in arguments.block.0.iter().enumerate() {
        for (scale, name) in SCALES.iter().enumerate() {
            if results.is_first {
                progress(2 * number + scale, 2 * arguments.block.0.len() + 1, name);
            }
            let all = arguments.lap / block.max(&1);
            let count = if scale == 0 { all } else { all / u64::from(rank.ranks()) };
            let part = Part {
                name,
                block: *block as usize,
                count: count.clamp(1, 512),
                first: (10 + number as u64 * 2 + scale as u64) << 48,
            };
            part.run(rank, reps, results)?;
        }
    }
    prompt(rank, reps, results)
}

struct Part {
    name: &'static str,
    block: usize,
    /// Blocks of each rank.
    count: u64,
    first: u64,
}

impl Part {
    fn of(&self, rank: u32) -> impl Iterator<Item = u64> + use<> {
        let first = self.first + (u64::from(rank) << 32);
        first..first + self.count
    }

    fn run(&self, rank: &Rank, reps: usize, results: &mut Results) -> Result<()> {
        for number in self.of(rank.rank()) {
            rank.put(&*rank.tier, number, self.block)?;
        }
        rank.flush()?;
        let next = (rank.rank() + 1) % rank.ranks();
        let numbers: Vec<u64> = self.of(next).collect();
        let mut into = HostBuffer::zeroed(self.block);
        let (mut rates, mut verified, mut path) = (Vec::new(), true, "none");
        for rep in 0..=reps {
            if next != rank.rank() {
                rank.forget(&numbers);
            }
            let place = format!("{} {} {rep}", self.name, self.first);
            rank.meet(&place)?;
            let (before, began) = (rank.tier.mpi_stats(), Instant::now());
            for number in &numbers {
                rank.tier.lease(&id(*number)).map_err(|why| unexpected("lease", why))?;
            }
            let slowest = slowest(rank, &format!("{place} time"), began.elapsed())?;
            path = path_taken(rank, before);
            verified &= numbers.iter().all(|number| rank.is_here(*number, self.block, &mut into));
            if rep > 0 {
                let bytes = u64::from(rank.ranks()) * self.count * self.block as u64;
                rates.push(gbps(bytes, slowest.as_secs_f64()));
            }
        }
        verified = all_say(rank, &format!("{} {} right", self.name, self.first), verified)?;
        if results.is_first {
            // Alone a rank leases what it has.
            let path = if rank.ranks() == 1 { "alone" } else { path };
            let row = row(rank, "lease", path, self.block as u64);
            results.rows.push(measured(row, self.name, &rates, verified));
        }
        rank.forget(&numbers);
        rank.forget(&self.of(rank.rank()).collect::<Vec<_>>());
        rank.meet(&format!("{} {} over", self.name, self.first))
    }
}

fn measured(mut row: Row, state: &str, rates: &[f64], verified: bool) -> Row {
    row.set_rate(Spread::of(rates), None);
    (row.n, row.state, row.verified) = (rates.len(), state.into(), Some(verified));
    row
}

/// The longest time of all ranks. Collective.
fn slowest(rank: &Rank, name: &str, time: Duration) -> Result<Duration> {
    rank.say(name, &time.as_nanos().to_string())?;
    rank.meet(name)?;
    let mut slowest = Duration::ZERO;
    for of in 0..rank.ranks() {
        let nanos = rank.said(name, of)?.parse().unwrap_or(u64::MAX);
        slowest = slowest.max(Duration::from_nanos(nanos));
    }
    Ok(slowest)
}

/// Whether all ranks say yes. Collective.
fn all_say(rank: &Rank, name: &str, yes: bool) -> Result<bool> {
    rank.say(name, &yes.to_string())?;
    rank.meet(name)?;
    let all: Result<Vec<String>> = (0..rank.ranks()).map(|of| rank.said(name, of)).collect();
    Ok(all?.iter().all(|said| said == "true"))
}

/// Rank 0 puts a prompt; the others get it through their stores: from afar, then from here.
fn prompt(rank: &Rank, reps: usize, results: &mut Results) -> Result<()> {
    if rank.ranks() < 2 {
        results.notes.push("one rank alone shares no prompt".into());
        return Ok(());
    }
    let numbers: Vec<u64> = PROMPT.collect();
    let store = rank.job.store();
    if rank.rank() == 0 {
        let bytes = prompt_bytes(rank);
        for (number, bytes) in numbers.iter().zip(&bytes) {
            let put = store.put(&id(*number), bytes, Put { class: Class::Prefix, ..Put::default() });
            if put != Outcome::Stored {
                return Err(unexpected("put", put));
            }
        }
    }
    rank.flush()?;
    let (mut rates, mut verified) = ([Vec::new(), Vec::new()], true);
    let mut out = vec![1_u8; PROMPT_BLOCK];
    let mut remote = 0;
    for rep in 0..=reps {
        if rank.rank() > 0 {
            rank.forget(&numbers);
        }
        rank.meet(&format!("prompt {rep}"))?;
        for (again, rates) in rates.iter_mut().enumerate() {
            let (hits, began) = (store.stats().hits(Level::Remote), Instant::now());
            let mut time = Duration::ZERO;
            if rank.rank() > 0 {
                for number in &numbers {
                    store.get(&id(*number), &mut out).map_err(|why| unexpected("get", why))?;
                    verified &= rank.is_content(*number, &out);
                }
                time = began.elapsed();
                remote += if again == 0 { store.stats().hits(Level::Remote) - hits } else { 0 };
            }
            let slowest = slowest(rank, &format!("prompt {rep} {again} time"), time)?;
            if rep > 0 {
                let bytes = u64::from(rank.ranks() - 1) * (numbers.len() * PROMPT_BLOCK) as u64;
                rates.push(gbps(bytes, slowest.as_secs_f64()));
            }
        }
    }
    let expected = if rank.rank() == 0 { 0 } else { numbers.len() as u64 * (reps as u64 + 1) };
    let is_remote = all_say(rank, "prompt from afar", remote == expected)?;
    verified = all_say(rank, "prompt right", verified)?;
    if results.is_first {
        if !is_remote {
            results
                .notes
                .push("prompt_first: not every block came from another rank in every repetition".into());
        }
        let path = if rank.way == super::cli::Way::Shm { "shm" } else { rank.fabric().path().name() };
        for (op, path, rates) in [("prompt_first", path, &rates[0]), ("prompt_again", "arena", &rates[1])] {
            results.rows.push(measured(row(rank, op, path, PROMPT_BLOCK as u64), "hot", rates, verified));
        }
    }
    Ok(())
}

fn prompt_bytes(rank: &Rank) -> Vec<Vec<u8>> {
    PROMPT.map(|number| rank.content_of(number, PROMPT_BLOCK).to_vec()).collect()
}
