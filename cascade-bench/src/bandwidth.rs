//! Puts and gets in a warm tier, and puts into pages that were never touched, each beside its ceiling.

use std::sync::Arc;

use cascade_core::Result;
use cascade_core::copy::Direction;
use cascade_core::id::BlockId;
use cascade_core::tier::Addressable;

use crate::baseline::{Python, Way};
use crate::buffers::Buffers;
use crate::ceiling::{Candidate, best, candidates};
use crate::lap::{self, FreshIds, Lap};
use crate::report::Row;
use crate::shape::Shape;
use crate::stats::{Latency, Spread};
use crate::tiers::Open;
use crate::units::format_size;

/// What all measurements of one run share.
pub(crate) struct Bench<'a> {
    /// Makes tiers.
    pub(crate) open: Open<'a>,
    /// The tier's name in rows.
    pub(crate) tier_name: &'a str,
    /// Repetitions.
    pub(crate) reps: usize,
    /// Copy memory.
    pub(crate) buffers: Buffers,
    /// Names of blocks.
    pub(crate) ids: FreshIds,
    /// The baseline, where it is wanted and there.
    pub(crate) python: Option<Python>,
    /// What a reader of the rows must know.
    pub(crate) notes: Vec<String>,
}

/// How callers and copying threads are put together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drive {
    /// `single`, `callers` or `pool`.
    pub(crate) path: &'static str,
    /// Threads that copy, in all.
    pub(crate) threads: usize,
    /// Whether the baseline is measured beside it: once is enough.
    pub(crate) baseline: bool,
}

#[derive(Default)]
struct Samples {
    rates: Vec<f64>,
    each_us: Vec<f64>,
}

impl Samples {
    fn add(&mut self, lap: Lap) {
        self.rates.push(lap.gbps);
        self.each_us.extend(lap.each_us);
    }

    fn row(&self, bench: &Bench<'_>, op: &str, shape: &Shape, drive: Drive, ways: &[Candidate]) -> Row {
        let mut row = Row::new(bench.tier_name, op, drive.path, shape.block as u64);
        row.threads = drive.threads;
        row.n = self.rates.len();
        row.latency_us = Latency::of(&self.each_us);
        row.set_rate(Spread::of(&self.rates), best(ways));
        row
    }
}

impl Bench<'_> {
    /// Puts fresh blocks into `tier`, which evicts old ones for them, then gets the last of them.
    pub(crate) fn hot(
        &mut self,
        tier: &Arc<dyn Addressable>,
        shape: &Shape,
        drive: Drive,
    ) -> Result<Vec<Row>> {
        self.fill(tier, shape)?;
        let (mut puts, mut ways) =
            (Samples::default(), candidates(Direction::Put, drive.threads, shape.callers));
        let mut baseline = if drive.baseline { Way::puts() } else { Vec::new() };
        let mut ids = Vec::new();
        for _ in 0..self.reps {
            ids = self.ids.lap(shape);
            puts.add(lap::put(tier.as_ref(), &mut self.buffers, shape, &ids)?);
            self.compare(&mut ways, &mut baseline, Direction::Put, shape)?;
        }
        let mut put = puts.row(self, "put", shape, drive, &ways);
        self.restore(tier.as_ref(), shape, &ids)?;
        put.verified = Some(lap::is_stored(tier.as_ref(), &mut self.buffers, shape, &ids));
        let mut rows = vec![put];
        rows.extend(baseline.iter().filter_map(|way| way.row(self.tier_name, shape)));

        let (mut gets, mut ways) =
            (Samples::default(), candidates(Direction::Get, drive.threads, shape.callers));
        let mut baseline = if drive.baseline { Way::gets() } else { Vec::new() };
        let mut is_right = true;
        for rep in 0..self.reps {
            let is_last = rep + 1 == self.reps;
            if is_last {
                lap::wipe(&mut self.buffers);
            }
            gets.add(lap::get(tier.as_ref(), &mut self.buffers, shape, &ids)?);
            is_right &= !is_last || lap::is_fetched(&mut self.buffers, shape);
            self.compare(&mut ways, &mut baseline, Direction::Get, shape)?;
        }
        let mut get = gets.row(self, "get", shape, drive, &ways);
        get.verified = Some(is_right);
        rows.push(get);
        rows.extend(baseline.iter().filter_map(|way| way.row(self.tier_name, shape)));
        Ok(rows)
    }

    /// Puts into tiers that were made a moment ago, beside copies into mappings that were.
    pub(crate) fn first_touch(&mut self, shape: &Shape, drive: Drive) -> Result<Row> {
        let mut puts = Samples::default();
        let mut ways = candidates(Direction::Put, drive.threads, shape.callers);
        let mut is_right = true;
        for _ in 0..self.reps {
            let tier = (self.open)(&shape.wanted(false))?.tier;
            let ids = self.ids.lap(shape);
            puts.add(lap::put(tier.as_ref(), &mut self.buffers, shape, &ids)?);
            self.restore(tier.as_ref(), shape, &ids)?;
            is_right &= lap::is_stored(tier.as_ref(), &mut self.buffers, shape, &ids);
            // Its memory goes back before the next mapping is made.
            drop(tier);
            for way in &mut ways {
                let mut fresh = self.buffers.fresh(shape.shared_bytes())?;
                way.lap(&mut self.buffers.source, &mut fresh, Direction::Put, shape);
            }
        }
        let mut row = puts.row(self, "put", shape, drive, &ways);
        "first_touch".clone_into(&mut row.state);
        row.verified = Some(is_right);
        Ok(row)
    }

    /// Fills the tier with blocks of this shape, so that every measured put evicts one of its own kind.
    fn fill(&mut self, tier: &Arc<dyn Addressable>, shape: &Shape) -> Result<()> {
        let laps = tier.capability().capacity_bytes.div_ceil(shape.lap_bytes());
        for _ in 0..laps {
            let ids = self.ids.lap(shape);
            lap::put(tier.as_ref(), &mut self.buffers, shape, &ids)?;
        }
        Ok(())
    }

    /// Makes sure that all blocks of the last lap are there, and notes those that were not.
    fn restore(&mut self, tier: &dyn Addressable, shape: &Shape, ids: &[Vec<BlockId>]) -> Result<()> {
        let evicted = lap::restore(tier, &mut self.buffers, shape, ids)?;
        if evicted > 0 {
            let (blocks, size) = (shape.blocks * shape.callers, format_size(shape.block as u64));
            let note = format!(
                "{evicted} of the last {blocks} blocks of {size} were evicted and put again to be read"
            );
            self.notes.push(note);
        }
        Ok(())
    }

    fn compare(
        &mut self,
        ways: &mut [Candidate],
        baseline: &mut [Way],
        direction: Direction,
        shape: &Shape,
    ) -> Result<()> {
        let private = match direction {
            Direction::Put => &mut self.buffers.source,
            Direction::Get => &mut self.buffers.target,
        };
        for way in ways {
            way.lap(private, &mut self.buffers.shared, direction, shape);
        }
        if let Some(python) = &mut self.python {
            for way in baseline {
                python.lap(way, shape)?;
            }
        }
        Ok(())
    }
}
