//! What all measurements of a device share: the tier, host memory of each kind, and laps.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cascade_core::batch::{Batch, Op, Outcome};
use cascade_core::id::BlockId;
use cascade_core::memory::{Piece, SgList};
use cascade_core::tier::{PutMeta, Tier};
use cascade_core::units::gbps;
use cascade_core::{Error, ErrorKind, Result};
use cascade_gpu::cuda;
use cascade_gpu::device::{Device, Fault, Hbm, Stream};
use cascade_gpu::engine::CopyEngine;
use cascade_gpu::tier::{GpuTier, Options as TierOptions};

use super::{MODELS, Options, raw};
use crate::memory::{self, Region};
use crate::report::{Ceiling, Row};
use crate::stats::Spread;

/// Bytes that a lap moves at least.
const LAP_BYTES: u64 = 256 << 20;
/// Nothing takes longer on a device that works.
const HANG: Duration = Duration::from_secs(60);

pub(super) struct Rig {
    pub(super) device: Arc<dyn Device>,
    pub(super) engine: Arc<CopyEngine>,
    pub(super) tier: GpuTier,
    /// Registered host memory with random bytes, as an arena is: shared, touched.
    pub(super) source: Arc<Region>,
    /// The same, to copy to.
    pub(super) target: Arc<Region>,
    /// Memory of this process that is not registered, with the same bytes as the source and to copy to.
    pub(super) private: [Arc<Region>; 2],
    /// Device memory outside of the tier.
    pub(super) hbm: Arc<Hbm>,
    pub(super) stream: Stream,
    pub(super) reps: usize,
    ids: AtomicU64,
    start_notes: Vec<String>,
}

pub(super) fn failed(fault: Fault) -> Error {
    Error::new(ErrorKind::System, "the device failed").with_source(fault)
}

impl Rig {
    pub(super) fn new(options: &Options) -> Result<Self> {
        let device = cuda::open(options.device)?;
        let largest = options.blocks.iter().copied().max().unwrap_or(1).max(LAP_BYTES);
        let model = MODELS.iter().map(|model| LAP_BYTES + (model.page_bytes * model.pages) as u64).max();
        let bytes = usize::try_from(largest.max(model.unwrap_or(0))).unwrap_or(usize::MAX);
        let start = Instant::now();
        let tier = GpuTier::new(&[Arc::clone(&device)], &TierOptions::new(4 * bytes as u64))?;
        let opened = start.elapsed();
        let engine = tier.engines().remove(0);
        let mut source = memory::shared(&options.dir, bytes, false)?;
        source.split(1).iter_mut().for_each(|part| part.fill_random(11));
        let source = Arc::new(source);
        let target = Arc::new(memory::shared(&options.dir, bytes, false)?);
        let private = [Arc::new(memory::random(bytes, 11)?), Arc::new(memory::private(bytes)?)];
        let start = Instant::now();
        for region in [&source, &target] {
            engine.registry().add_in_background(&region.piece(), Arc::clone(region) as Arc<_>);
        }
        engine.registry().finish().map_err(failed)?;
        let registered = start.elapsed();
        let hbm = Arc::new(Hbm::new(&device, 2 * bytes).map_err(failed)?);
        let stream = device.stream().map_err(failed)?;
        let info = device.info();
        let start_notes = vec![
            format!(
                "device: {} with {} multiprocessors; driver {:?}",
                info.name,
                info.multiprocessors,
                driver()
            ),
            format!("opening the tier and calibrating took {:.0} ms", opened.as_secs_f64() * 1e3),
            format!("registering {} MiB took {:.0} ms", (2 * bytes) >> 20, registered.as_secs_f64() * 1e3),
            format!("ways: {}", engine.ways()),
        ];
        let ids = AtomicU64::new(0);
        let reps = options.reps;
        Ok(Self { device, engine, tier, source, target, private, hbm, stream, reps, ids, start_notes })
    }

    pub(super) fn notes(&self) -> Vec<String> {
        self.start_notes.clone()
    }

    pub(super) fn fresh_id(&self) -> BlockId {
        BlockId::from_words([self.ids.fetch_add(1, Ordering::Relaxed), 2, 3, 4])
    }

    /// Blocks of a lap.
    pub(super) fn laps(bytes: u64) -> usize {
        usize::try_from(LAP_BYTES.div_ceil(bytes.max(1))).unwrap_or(1).clamp(1, 4096)
    }

    pub(super) fn run(&self, ops: Vec<Op>) -> Result<Vec<Outcome>> {
        run_on(&self.tier, ops)
    }

    pub(super) fn store(&self, id: BlockId, from: SgList) -> Result<()> {
        one(&self.tier, Op::Store { id, from, meta: PutMeta::default() })
    }

    pub(super) fn fetch(&self, id: BlockId, into: SgList) -> Result<()> {
        one(&self.tier, Op::Fetch { id, into })
    }

    pub(super) fn delete(&self, ids: &[BlockId]) -> Result<()> {
        self.run(ids.iter().map(|id| Op::Delete { id: *id }).collect()).map(drop)
    }

    /// One copy by the driver.
    pub(super) fn plain(&self, dst: &Piece, src: &Piece) -> Result<()> {
        raw::plain(self.device.as_ref(), self.stream, dst, src).map_err(failed)
    }

    /// Runs both in turns and makes a row of them; `prepare` and `clean` are not timed.
    pub(super) fn paired(
        &self,
        mut row: Row,
        bytes: u64,
        what: &str,
        mut ours: impl FnMut() -> Result<()>,
        mut clean: impl FnMut() -> Result<()>,
        mut ceiling: impl FnMut() -> Result<()>,
    ) -> Result<Row> {
        let (mut rates, mut ceilings) = (Vec::new(), Vec::new());
        // The first pair warms up.
        for rep in 0..=self.reps {
            let best = rate(bytes, &mut ceiling)?;
            let rate = rate(bytes, &mut ours)?;
            clean()?;
            if rep > 0 {
                rates.push(rate);
                ceilings.push(best);
            }
        }
        let ceiling =
            Spread::of(&ceilings).map(|spread| Ceiling { what: what.to_owned(), gbps: spread.median });
        row.n = self.reps;
        row.set_rate(Spread::of(&rates), ceiling);
        Ok(row)
    }

    /// Whether the first `len` bytes of both regions are the same.
    pub(super) fn same(a: &Region, b: &Region, len: usize) -> bool {
        a.same(b, len)
    }
}

fn run_on(tier: &GpuTier, ops: Vec<Op>) -> Result<Vec<Outcome>> {
    let outcomes = tier.submit(Batch::new(ops)).wait(Instant::now() + HANG);
    outcomes.ok_or_else(|| Error::new(ErrorKind::Deadline, "the device did not answer"))
}

/// One operation, which must do what it was asked for.
pub(super) fn one(tier: &GpuTier, op: Op) -> Result<()> {
    match run_on(tier, vec![op])?.first() {
        Some(Outcome::Stored | Outcome::Fetched(_) | Outcome::Deleted) => Ok(()),
        other => Err(Error::new(ErrorKind::System, format!("an operation of the benchmark was {other:?}"))),
    }
}

fn rate(bytes: u64, work: &mut impl FnMut() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(gbps(bytes, start.elapsed().as_secs_f64()))
}

fn driver() -> Option<(u32, u32)> {
    cascade_gpu::driver::probe().ok().map(|driver| driver.cuda_version)
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.device.end_stream(self.stream);
    }
}
