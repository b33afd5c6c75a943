//! Which way is the fastest on this device, for each length of runs: measured once, in some hundred milliseconds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cascade_core::memory::{Piece, SgList};

use super::ways::{CLASSES, Kind, Path, Way, Ways, class_bytes};
use super::{CopyEngine, Digested};
use crate::device::{Fault, Hbm, Pinned};

type Lists<'a> = &'a dyn Fn() -> Option<(SgList, SgList)>;

/// Bytes of measured transfers of few and of many runs; one run has at most the latter.
const BYTES: [(Kind, usize); 2] = [(Kind::Short, 4 << 20), (Kind::Long, MOST_BYTES)];
const MOST_BYTES: usize = 32 << 20;
/// The longest one run that is measured.
const LONGEST: usize = 16 << 20;
/// Least runs of a transfer of many.
const LEAST_RUNS: usize = 4;
/// Transfers of each way; the fastest counts, the first warms up.
const REPETITIONS: usize = 4;
/// A call for each run is hopeless below.
const LEAST_DMA_BYTES: usize = 64 << 10;

/// The table of this device; the built-in one where there is no memory to measure with.
pub(super) fn measure(engine: &Arc<CopyEngine>) -> Result<Ways, Fault> {
    let mut ways = engine.ways();
    let memory = Hbm::new(&engine.device, MOST_BYTES)
        .and_then(|hbm| Ok((Arc::new(hbm), Arc::new(Pinned::new(&engine.device, MOST_BYTES)?))));
    let (hbm, pinned) = match memory {
        Ok(memory) => memory,
        Err(Fault::OutOfMemory) => return Ok(ways),
        Err(fault) => return Err(fault),
    };
    for (path, class) in
        [Path::In, Path::Out].into_iter().flat_map(|path| (0..CLASSES).map(move |class| (path, class)))
    {
        let run_bytes = class_bytes(class);
        for (kind, bytes) in BYTES {
            let lists =
                || pages(&hbm, run_bytes, bytes / run_bytes).zip(pinned.piece(0, bytes).map(SgList::from));
            if run_bytes * LEAST_RUNS <= bytes
                && let Some(way) = fastest(engine, path, &candidates(engine, run_bytes, kind), &lists)?
            {
                ways.set(path, class, way, kind);
            }
        }
        let one =
            || hbm.piece(0, run_bytes).map(SgList::from).zip(pinned.piece(0, run_bytes).map(SgList::from));
        if run_bytes <= LONGEST
            && let Some(way) = fastest(engine, path, &of_one_run(engine, path, run_bytes), &one)?
        {
            ways.set(path, class, way, Kind::Single);
        }
    }
    Ok(ways)
}

/// The candidate that took the least time.
fn fastest(
    engine: &Arc<CopyEngine>,
    path: Path,
    candidates: &[Way],
    lists: Lists<'_>,
) -> Result<Option<Way>, Fault> {
    let mut best: Option<(Duration, Way)> = None;
    for way in candidates {
        engine.force(Some(*way));
        let time = time(engine, path, lists);
        engine.force(None);
        // A relay gains with the length, and more than is measured goes its way; it also needs the multiprocessors least.
        let time = if matches!(way, Way::Relay { .. }) { time? * 97 / 100 } else { time? };
        if best.is_none_or(|(least, _)| time < least) {
            best = Some((time, *way));
        }
    }
    Ok(best.map(|(_, way)| way))
}

/// The ways for one run.
fn of_one_run(engine: &CopyEngine, path: Path, run_bytes: usize) -> Vec<Way> {
    let mut ways = vec![Way::Dma];
    let ctas = engine.options.copy_ctas;
    if engine.device.info().kernels_reach_host {
        ways.push(Way::Move { ctas });
        if path == Path::In && run_bytes > super::issue::LEAST_PART_BYTES {
            ways.push(Way::Tail { ctas });
        }
    }
    ways
}

fn candidates(engine: &CopyEngine, run_bytes: usize, kind: Kind) -> Vec<Way> {
    let info = engine.device.info();
    let most = engine.options.copy_ctas;
    let mut ways = vec![Way::Relay { ctas: most }];
    if info.kernels_reach_host {
        ways.push(Way::Move { ctas: most });
        if kind == Kind::Short {
            ways.extend([Way::Move { ctas: most.div_ceil(2) }, Way::Kernel { ctas: most }]);
        }
    }
    if info.has_batched_copies && run_bytes >= LEAST_DMA_BYTES / 4 {
        ways.push(Way::Batch);
    }
    if run_bytes >= LEAST_DMA_BYTES || !info.kernels_reach_host {
        ways.push(Way::Dma);
    }
    ways
}

/// Pages of the device in an order that no copy can join.
fn pages(hbm: &Arc<Hbm>, run_bytes: usize, count: usize) -> Option<SgList> {
    let mut list = SgList::new();
    for index in 0..count {
        // An odd step visits every page of a power of two of them.
        let page: Option<Piece> = hbm.piece(index * 5 % count * run_bytes, run_bytes);
        list.push(page?);
    }
    Some(list)
}

fn time(engine: &Arc<CopyEngine>, path: Path, lists: Lists<'_>) -> Result<Duration, Fault> {
    let mut least = Duration::MAX;
    for _ in 0..REPETITIONS {
        let (device, host) = lists().ok_or(Fault::OutOfMemory)?;
        let len = device.len().min(host.len());
        // As the tier does it: digests of what lies, or is to lie, in the device's memory.
        let (dst, src, digested) = if path == Path::In {
            (device, host, Digested::Destination)
        } else {
            (host, device, Digested::Source)
        };
        let start = Instant::now();
        engine.copy(dst, src, len, digested)?;
        least = least.min(start.elapsed());
    }
    Ok(least)
}
