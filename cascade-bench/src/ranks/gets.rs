//! Blocks of other ranks, brought here, in turns with a plain loop over the same bytes.

use std::time::{Duration, Instant};

use cascade_core::batch::{Op, Outcome};
use cascade_core::memory::HostBuffer;
use cascade_core::{Error, ErrorKind, Result};
use cascade_mpi::Home;
use cascade_mpi::message::Area;

use super::cli::Way;
use super::job::{Rank, id, one, unexpected};
use super::{Results, Shape, ceiling_name, path_taken, row};
use crate::report::{Ceiling, Row};
use crate::stats::{Latency, Spread};
use crate::units::gbps;

/// A raw loop takes no longer; its rank is taken for dead then.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes of the destination of the raw loop, at most and but for one block.
const RAW_BYTES: usize = 1 << 30;
const OPS: [&str; 3] = ["get", "lease", "prefetch"];

/// Everyone puts, rank 0 measures.
pub(super) fn run(rank: &Rank, shape: &Shape, reps: usize, results: &mut Results) -> Result<()> {
    if rank.ranks() < 2 {
        results.notes.push("one rank alone has nobody to get from: no gets".into());
        return Ok(());
    }
    put_all(rank, shape)?;
    rank.meet(&format!("put {}", shape.first))?;
    let measured = if rank.rank() == 0 { Measure::new(rank, shape)?.run(reps, results) } else { Ok(()) };
    // The others serve until it is done, however it ended.
    rank.meet(&format!("got {}", shape.first))?;
    rank.fabric().stay_awake(false);
    measured?;
    rank.forget(&shape.numbers());
    rank.meet(&format!("forgotten {}", shape.first))
}

/// Puts this rank's blocks, and says where they lie.
fn put_all(rank: &Rank, shape: &Shape) -> Result<()> {
    let mut places = Vec::new();
    for at in (0..shape.count).filter(|at| shape.owner(*at) == rank.rank() && rank.rank() > 0) {
        rank.put(&*rank.tier, shape.number(at), shape.block)?;
        let place = rank.home.place(&id(shape.number(at)));
        let place = place.ok_or_else(|| unexpected("put", "a block that is not there"))?;
        places.push(place.offset.to_string());
    }
    rank.flush()?;
    rank.say(&format!("places {}", shape.first), &places.join(" "))?;
    rank.say("share", &rank.share())?;
    // A raw loop is no reason to rest: a plain program would wait in the library, too.
    rank.fabric().stay_awake(true);
    Ok(())
}

struct Measure<'a> {
    rank: &'a Rank,
    shape: &'a Shape,
    /// By owner.
    places: Vec<Vec<(u64, usize)>>,
    /// Where gets and raw loops write: touched.
    into: HostBuffer,
    raw: Vec<f64>,
}

impl<'a> Measure<'a> {
    fn new(rank: &'a Rank, shape: &'a Shape) -> Result<Self> {
        let mut places = vec![Vec::new()];
        for owner in 1..rank.ranks() {
            let text = rank.said(&format!("places {}", shape.first), owner)?;
            let offsets = text.split(' ').filter_map(|offset| offset.parse().ok());
            places.push(offsets.map(|offset| (offset, shape.block)).collect());
        }
        let bytes = (shape.count * shape.block).min(RAW_BYTES.max(shape.block));
        let mut into = HostBuffer::zeroed(bytes);
        if let Some(bytes) = into.bytes_mut() {
            bytes.fill(1);
        }
        Ok(Self { rank, shape, places, into, raw: Vec::new() })
    }

    fn run(mut self, reps: usize, results: &mut Results) -> Result<()> {
        let mut rates = [const { Vec::<f64>::new() }; 3];
        let mut times = [const { Vec::<f64>::new() }; 3];
        let (mut verified, mut path) = ([true; 3], "none");
        let before = self.rank.fabric().stats();
        // One round more, which warms up and does not count.
        for rep in 0..=reps {
            let raw = self.raw_lap()?;
            for (at, op) in OPS.iter().enumerate() {
                self.rank.forget(&self.shape.numbers());
                let stats = self.rank.tier.mpi_stats();
                let (time, single) = self.lap(op)?;
                path = path_taken(self.rank, stats);
                verified[at] &= self.is_right();
                if rep > 0 {
                    rates[at].push(gbps(self.shape.bytes(), time.as_secs_f64()));
                    times[at].extend(single);
                }
            }
            if rep > 0 {
                self.raw.push(gbps(self.shape.bytes(), raw.as_secs_f64()));
            }
        }
        let after = self.rank.fabric().stats();
        if (after.late_reads, after.failed_reads) != (before.late_reads, before.failed_reads) {
            results.notes.push(format!("reads that ended badly: {after:?}"));
        }
        for (at, op) in OPS.iter().enumerate() {
            results.rows.push(self.row(op, path, &rates[at], &times[at], verified[at]));
        }
        Ok(())
    }

    fn row(&self, op: &str, path: &str, rates: &[f64], times: &[f64], verified: bool) -> Row {
        let mut row = row(self.rank, op, path, self.shape.block as u64);
        let raw = Spread::of(&self.raw);
        let ceiling = raw.map(|raw| Ceiling { what: ceiling_name(self.rank), gbps: raw.median });
        row.set_rate(Spread::of(rates), ceiling);
        (row.n, row.latency_us, row.verified) = (rates.len(), Latency::of(times), Some(verified));
        if let Some(remote) = &mut row.remote {
            remote.ceiling = raw;
        }
        row
    }

    /// All blocks by a plain loop.
    fn raw_lap(&self) -> Result<Duration> {
        if self.rank.way == Way::Shm {
            return self.mapped_lap();
        }
        let mut sum = Duration::ZERO;
        for (owner, places) in self.places.iter().enumerate().filter(|(_, places)| !places.is_empty()) {
            let fabric = self.rank.fabric();
            let times = fabric.raw_reads(owner as u32, Area::Arena, places.clone(), &self.into, PATIENCE);
            let times = times.ok_or_else(|| Error::new(ErrorKind::System, "MPI refused a plain read"))?;
            sum += times.iter().sum::<Duration>();
        }
        Ok(sum)
    }

    fn mapped_lap(&self) -> Result<Duration> {
        let mut into = vec![1_u8; self.shape.bytes().min(RAW_BYTES.max(self.shape.block) as u64) as usize];
        let (mut sum, places) = (Duration::ZERO, into.len() / self.shape.block);
        for owner in 1..self.rank.ranks() {
            let tier = self.rank.home.neighbour(&self.rank.said("share", owner)?);
            let tier = tier.ok_or_else(|| unexpected("mapping", "no arena of the other rank"))?;
            let here: Vec<usize> =
                (0..self.shape.count).filter(|at| self.shape.owner(*at) == owner).collect();
            let leases = here.iter().map(|at| tier.lease(&id(self.shape.number(*at))));
            let leases: Vec<_> =
                leases.collect::<std::result::Result<_, _>>().map_err(|why| unexpected("lease", why))?;
            let began = Instant::now();
            for (at, lease) in leases.iter().enumerate() {
                let from = at % places * self.shape.block;
                if !lease.read_at(0, &mut into[from..from + self.shape.block]) {
                    return Err(unexpected("plain copy", "a block that is shorter"));
                }
            }
            sum += began.elapsed();
        }
        Ok(sum)
    }

    /// All blocks by `op`: the whole time, and that of each in microseconds.
    fn lap(&self, op: &str) -> Result<(Duration, Vec<f64>)> {
        let ids: Vec<_> = self.shape.numbers().into_iter().map(id).collect();
        let places = self.into.piece().len() / self.shape.block;
        let began = Instant::now();
        if op == "prefetch" {
            let brought = self.rank.tier.prefetch(&ids);
            let time = began.elapsed();
            if let Some(why) = brought.iter().find_map(|brought| brought.err()) {
                return Err(unexpected(op, why));
            }
            return Ok((time, Vec::new()));
        }
        let mut times = Vec::with_capacity(ids.len());
        for (at, id) in ids.iter().enumerate() {
            let started = Instant::now();
            if op == "lease" {
                self.rank.tier.lease(id).map_err(|why| unexpected(op, why))?;
            } else {
                let part = self.into.piece().part(at % places * self.shape.block, self.shape.block);
                let part = part.ok_or_else(|| unexpected(op, "too short a buffer"))?;
                let outcome = one(&*self.rank.tier, Op::Fetch { id: *id, into: part.into() });
                if !matches!(outcome, Outcome::Fetched(_)) {
                    return Err(unexpected(op, outcome));
                }
            }
            times.push(started.elapsed().as_secs_f64() * 1e6);
        }
        Ok((began.elapsed(), times))
    }

    /// Whether what came is what was put: all blocks that are here now.
    fn is_right(&mut self) -> bool {
        let (rank, shape) = (self.rank, self.shape);
        shape.numbers().into_iter().all(|number| rank.is_here(number, shape.block, &mut self.into))
    }
}
