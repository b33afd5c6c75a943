//! Blocks that another device of the node keeps, into the memory of this one, beside the driver's own copy between the two.

use std::sync::Arc;

use cascade_core::batch::Op;
use cascade_core::memory::SgList;
use cascade_core::tier::PutMeta;
use cascade_core::{Error, ErrorKind, Result};
use cascade_gpu::device::{Device, Hbm};
use cascade_gpu::tier::{GpuTier, Options};
use cascade_gpu::{cuda, driver, engine};

use super::raw;
use super::rig::{Rig, failed, one};
use super::whole::hbm;
use crate::report::Row;

const BLOCKS: [usize; 3] = [8 << 20, 64 << 20, 512 << 20];
/// Copies of a lap.
const LAP: usize = 4;

/// Rows of gets from the next device, or why there are none.
pub(super) fn rows(rig: &Rig) -> Result<std::result::Result<Vec<Row>, String>> {
    let own = rig.device.info().ordinal;
    let count = driver::probe().map_or(0, |driver| u32::try_from(driver.devices.len()).unwrap_or(0));
    if count < 2 {
        return Ok(Err("one device".to_owned()));
    }
    let other = cuda::open((own + 1) % count)?;
    if !other.reaches_device(own) {
        return Ok(Err(format!("device {} does not reach {own}: nothing to measure", (own + 1) % count)));
    }
    let rows = BLOCKS
        .iter()
        .filter(|block| **block <= rig.source.piece().len())
        .map(|block| row(rig, &other, *block));
    rows.collect::<Result<_>>().map(Ok)
}

/// Rows without figures, which say why there are none.
pub(super) fn not_run(why: &str) -> Vec<Row> {
    let row = |block: &usize| Row::new("gpu", "peer get", &format!("not run: {why}"), *block as u64);
    BLOCKS.iter().map(row).collect()
}

fn row(rig: &Rig, other: &Arc<dyn Device>, block: usize) -> Result<Row> {
    let engine = engine::Options { calibrate: false, ..engine::Options::default() };
    let options = Options { engine, ..Options::new(2 * block as u64) };
    let tier = GpuTier::new(&[Arc::clone(other)], &options)?;
    let missing = || Error::new(ErrorKind::System, "less memory than a block");
    let from = rig.source.piece().part(0, block).ok_or_else(missing)?;
    let into = hbm(rig)?.part(0, block).ok_or_else(missing)?;
    let id = rig.fresh_id();
    one(&tier, Op::Store { id, from: from.into(), meta: PutMeta::default() })?;
    let fetch = || one(&tier, Op::Fetch { id, into: SgList::from(into.clone()) });
    let source = Arc::new(Hbm::new(other, block).map_err(failed)?).piece(0, block).ok_or_else(missing)?;
    let stream = other.stream().map_err(failed)?;
    let mut row = rig.paired(
        Row::new("gpu", "peer get", "from the next device", block as u64),
        (LAP * block) as u64,
        "cuMemcpyAsync between the devices",
        || (0..LAP).try_for_each(|_| fetch()),
        || Ok(()),
        || (0..LAP).try_for_each(|_| raw::plain(other.as_ref(), stream, &into, &source).map_err(failed)),
    )?;
    other.end_stream(stream);
    fetch()?;
    let got = rig.engine.digests(&into).map_err(failed)?;
    row.verified = Some(got.as_deref() == Some(&rig.source.digests(block)[..]));
    Ok(row)
}
