//! Which way is the fastest on this device, for each length of runs: measured once, in some hundred milliseconds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cascade_core::memory::{Piece, SgList};

use super::ways::{CLASSES, Path, Way, Ways, class_bytes};
use super::{CopyEngine, Digested};
use crate::device::{Fault, Hbm, Pinned};

/// Bytes of each measured transfer.
const BYTES: usize = 16 << 20;
/// Transfers of each way; the fastest counts, the first warms up.
const REPETITIONS: usize = 4;
/// A call for each run is hopeless below.
const LEAST_DMA_BYTES: usize = 64 << 10;

/// The table of this device; the built-in one where there is no memory to measure with.
pub(super) fn measure(engine: &Arc<CopyEngine>) -> Result<Ways, Fault> {
    let mut ways = engine.ways();
    let memory = Hbm::new(&engine.device, BYTES)
        .and_then(|hbm| Ok((Arc::new(hbm), Arc::new(Pinned::new(&engine.device, BYTES)?))));
    let (hbm, pinned) = match memory {
        Ok(memory) => memory,
        Err(Fault::OutOfMemory) => return Ok(ways),
        Err(fault) => return Err(fault),
    };
    for path in [Path::In, Path::Out] {
        for class in 0..CLASSES {
            let run_bytes = class_bytes(class);
            let lists = || pages(&hbm, run_bytes).zip(pinned.piece(0, BYTES).map(SgList::from));
            let mut best: Option<(Duration, Way)> = None;
            for way in candidates(engine, run_bytes) {
                engine.force(Some(way));
                let time = time(engine, path, &lists);
                engine.force(None);
                let time = time?;
                if best.is_none_or(|(least, _)| time < least) {
                    best = Some((time, way));
                }
            }
            if let Some((_, way)) = best {
                ways.set(path, class, way);
            }
        }
    }
    Ok(ways)
}

fn candidates(engine: &CopyEngine, run_bytes: usize) -> Vec<Way> {
    let info = engine.device.info();
    let mut ways = Vec::new();
    if info.kernels_reach_host {
        ways.push(Way::Kernel { ctas: engine.options.copy_ctas });
    }
    if info.has_batched_copies && run_bytes >= LEAST_DMA_BYTES / 4 {
        ways.push(Way::Batch);
    }
    if run_bytes >= LEAST_DMA_BYTES || ways.is_empty() {
        ways.push(Way::Dma);
    }
    ways
}

/// Pages of the device in an order that no copy can join.
fn pages(hbm: &Arc<Hbm>, run_bytes: usize) -> Option<SgList> {
    let count = BYTES / run_bytes;
    let mut list = SgList::new();
    for index in 0..count {
        // An odd step visits every page of a power of two of them.
        let page: Option<Piece> = hbm.piece(index * 5 % count * run_bytes, run_bytes);
        list.push(page?);
    }
    Some(list)
}

type Lists<'a> = &'a dyn Fn() -> Option<(SgList, SgList)>;

fn time(engine: &Arc<CopyEngine>, path: Path, lists: Lists<'_>) -> Result<Duration, Fault> {
    let mut least = Duration::MAX;
    for _ in 0..REPETITIONS {
        let (device, host) = lists().ok_or(Fault::OutOfMemory)?;
        let (dst, src) = if path == Path::In { (device, host) } else { (host, device) };
        let start = Instant::now();
        engine.copy(dst, src, BYTES, Digested::Nothing)?;
        least = least.min(start.elapsed());
    }
    Ok(least)
}
