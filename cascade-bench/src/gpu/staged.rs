//! Pageable memory through a staging buffer of several lengths: what the default is chosen from.

use std::sync::Arc;

use cascade_core::batch::Op;
use cascade_core::tier::PutMeta;
use cascade_core::{Error, ErrorKind, Result};
use cascade_gpu::engine;
use cascade_gpu::tier::{GpuTier, Options};

use super::rig::{Rig, one};
use crate::report::Row;

const BLOCK: usize = 256 << 20;
const LENGTHS: [usize; 4] = [16 << 20, 32 << 20, 64 << 20, 128 << 20];
const CEILING: &str = "cuMemcpyAsync of registered memory";

/// Both ways for each length, against copies of registered memory.
pub(super) fn rows(rig: &Rig) -> Result<Vec<Row>> {
    let rows = LENGTHS.iter().map(|length| both(rig, *length));
    rows.collect::<Result<Vec<_>>>().map(|rows| rows.concat())
}

fn both(rig: &Rig, length: usize) -> Result<Vec<Row>> {
    let engine = engine::Options { calibrate: false, staging_bytes: length, ..engine::Options::default() };
    let tier =
        GpuTier::new(&[Arc::clone(&rig.device)], &Options { engine, ..Options::new(2 * BLOCK as u64) })?;
    let missing = || Error::new(ErrorKind::System, "less memory than a block");
    let [from, to] = [&rig.private[0], &rig.private[1]].map(|region| region.piece().part(0, BLOCK));
    let (from, to) = from.zip(to).ok_or_else(missing)?;
    let whole = super::whole::hbm(rig)?.part(0, BLOCK).ok_or_else(missing)?;
    let [source, target] = [&rig.source, &rig.target].map(|region| region.piece().part(0, BLOCK));
    let (source, target) = source.zip(target).ok_or_else(missing)?;
    let path = format!("pageable by {} MiB", length >> 20);
    let id = rig.fresh_id();
    let put = rig.paired(
        Row::new("gpu", "put", &path, BLOCK as u64),
        BLOCK as u64,
        CEILING,
        || one(&tier, Op::Store { id, from: from.clone().into(), meta: PutMeta::default() }),
        || one(&tier, Op::Delete { id }),
        || rig.plain(&whole, &source),
    )?;
    one(&tier, Op::Store { id, from: from.clone().into(), meta: PutMeta::default() })?;
    let mut get = rig.paired(
        Row::new("gpu", "get", &path, BLOCK as u64),
        BLOCK as u64,
        CEILING,
        || one(&tier, Op::Fetch { id, into: to.clone().into() }),
        || Ok(()),
        || rig.plain(&target, &whole),
    )?;
    get.verified = Some(Rig::same(&rig.private[0], &rig.private[1], BLOCK));
    Ok(vec![put, get])
}
