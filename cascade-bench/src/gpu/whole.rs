//! Blocks in one piece: registered memory, pageable memory, both ways at once, and the digest kernel.

use std::sync::Arc;

use cascade_core::Result;
use cascade_core::batch::{Op, Outcome};
use cascade_core::id::BlockId;
use cascade_core::memory::{Piece, SgList};
use cascade_core::tier::PutMeta;
use cascade_core::{Error, ErrorKind};
use cascade_gpu::engine::Way;

use super::rig::{Rig, failed};
use crate::memory::Region;
use crate::report::{Ceiling, Row};
use crate::stats::Spread;

const PINNED: &str = "cuMemcpyAsync of registered memory";
const PAGEABLE: &str = "cuMemcpyAsync of pageable memory";
/// What the prototype in C++ did with pageable memory, blocks of 512 MiB, on an H100, in GB/s. It is not measured here.
const PROTOTYPE: [(&str, f64); 2] = [("put", 8.3), ("get", 13.4)];
const PROTOTYPE_BYTES: u64 = 512 << 20;
const CITED: &str = "a constant, not measured in this run: the prototype in C++, pageable, 512 MiB, on an H100; the goal is 3 times it";

/// `count` pieces of `bytes` of a region, the same again when it is at its end.
fn parts(whole: &Piece, bytes: usize, count: usize) -> Vec<Piece> {
    let fit = (whole.len() / bytes).max(1);
    (0..count).filter_map(|index| whole.part(index % fit * bytes, bytes)).collect()
}

/// Host memory from which and to which blocks go.
#[derive(Clone, Copy)]
struct Hosts<'a> {
    path: &'a str,
    from: &'a Arc<Region>,
    to: &'a Arc<Region>,
    ceiling: &'a str,
}

pub(super) fn registered(rig: &Rig, block: u64) -> Result<Vec<Row>> {
    let hosts = Hosts { path: "registered", from: &rig.source, to: &rig.target, ceiling: PINNED };
    let mut rows = one_way(rig, block, &hosts)?;
    if Rig::laps(block) > 1 {
        rows.push(batch(rig, block, true)?);
        rows.push(batch(rig, block, false)?);
    }
    // What calibration chose from.
    for way in [Way::Dma, Way::Move { ctas: 32 }, Way::Tail { ctas: 32 }] {
        rig.engine.force(Some(way));
        let path = format!("registered {way}");
        let measured = one_way(rig, block, &Hosts { path: &path, ..hosts });
        rig.engine.force(None);
        rows.extend(measured?);
    }
    Ok(rows)
}

pub(super) fn pageable(rig: &Rig, block: u64) -> Result<Vec<Row>> {
    let [from, to] = &rig.private;
    let mut rows = one_way(rig, block, &Hosts { path: "pageable", from, to, ceiling: PAGEABLE })?;
    if block == PROTOTYPE_BYTES {
        let cited: Vec<Row> = rows.iter().filter_map(beside_the_prototype).collect();
        rows.extend(cited);
    }
    Ok(rows)
}

/// The rate of a row beside the prototype's, which is a constant.
fn beside_the_prototype(row: &Row) -> Option<Row> {
    let (_, gbps) = PROTOTYPE.iter().find(|(op, _)| *op == row.op)?;
    let mut cited = Row::new("gpu", &row.op, "pageable, prototype cited", row.block_bytes);
    (cited.n, cited.verified) = (row.n, row.verified);
    cited.set_rate(row.gbps, Some(Ceiling { what: CITED.to_owned(), gbps: *gbps }));
    Some(cited)
}

/// Puts and gets one after the other, each waited for.
fn one_way(rig: &Rig, block: u64, hosts: &Hosts<'_>) -> Result<Vec<Row>> {
    let bytes = usize::try_from(block).unwrap_or(usize::MAX);
    let count = Rig::laps(block);
    let moved = block * count as u64;
    let device = parts(&hbm(rig)?, bytes, count);
    let from = parts(&hosts.from.piece(), bytes, count);
    let to = parts(&hosts.to.piece(), bytes, count);
    let stored = std::cell::RefCell::new(Vec::<BlockId>::new());
    let mut put = rig.paired(
        Row::new("gpu", "put", hosts.path, block),
        moved,
        hosts.ceiling,
        || {
            from.iter().try_for_each(|piece| {
                let id = rig.fresh_id();
                stored.borrow_mut().push(id);
                rig.store(id, piece.clone().into())
            })
        },
        || rig.delete(&stored.take()),
        || device.iter().zip(&from).try_for_each(|(dst, src)| rig.plain(dst, src)),
    )?;
    let ids: Vec<BlockId> = from.iter().map(|_| rig.fresh_id()).collect();
    ids.iter().zip(&from).try_for_each(|(id, piece)| rig.store(*id, piece.clone().into()))?;
    let mut get = rig.paired(
        Row::new("gpu", "get", hosts.path, block),
        moved,
        hosts.ceiling,
        || ids.iter().zip(&to).try_for_each(|(id, piece)| rig.fetch(*id, piece.clone().into())),
        || Ok(()),
        || to.iter().zip(&device).try_for_each(|(dst, src)| rig.plain(dst, src)),
    )?;
    // The ceiling's copies went to the same place: what is compared is what the tier brought at last.
    ids.iter().zip(&to).try_for_each(|(id, piece)| rig.fetch(*id, piece.clone().into()))?;
    let checked = bytes.saturating_mul(count).min(hosts.from.piece().len() / bytes * bytes);
    let same = Rig::same(hosts.from, hosts.to, checked);
    (put.verified, get.verified) = (Some(same), Some(same));
    rig.delete(&ids)?;
    Ok(vec![put, get])
}

/// A lap as one batch, in which blocks overlap.
fn batch(rig: &Rig, block: u64, inward: bool) -> Result<Row> {
    let bytes = usize::try_from(block).unwrap_or(usize::MAX);
    let count = Rig::laps(block);
    let moved = block * count as u64;
    let device = parts(&hbm(rig)?, bytes, count);
    let region = if inward { &rig.source } else { &rig.target };
    let host = parts(&region.piece(), bytes, count);
    let ids: Vec<BlockId> = host.iter().map(|_| rig.fresh_id()).collect();
    let store = |id: &BlockId, from: &Piece| Op::Store {
        id: *id,
        from: from.clone().into(),
        meta: PutMeta::default(),
    };
    let all = |ops: Vec<Op>, right: fn(&Outcome) -> bool| match rig.run(ops)?.iter().all(right) {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::System, "a batch of the benchmark was refused")),
    };
    let row = Row::new("gpu", if inward { "put" } else { "get" }, &format!("registered batch{count}"), block);
    if inward {
        let put = || {
            all(ids.iter().zip(&host).map(|(id, from)| store(id, from)).collect(), |o| *o == Outcome::Stored)
        };
        let plain = || device.iter().zip(&host).try_for_each(|(dst, src)| rig.plain(dst, src));
        return rig.paired(row, moved, PINNED, put, || rig.delete(&ids), plain);
    }
    let source = parts(&rig.source.piece(), bytes, count);
    all(ids.iter().zip(&source).map(|(id, from)| store(id, from)).collect(), |o| *o == Outcome::Stored)?;
    let get = || {
        let ops = ids.iter().zip(&host).map(|(id, into)| Op::Fetch { id: *id, into: into.clone().into() });
        all(ops.collect(), |outcome| matches!(outcome, Outcome::Fetched(_)))
    };
    let plain = || host.iter().zip(&device).try_for_each(|(dst, src)| rig.plain(dst, src));
    let row = rig.paired(row, moved, PINNED, get, || Ok(()), plain);
    rig.delete(&ids)?;
    row
}

/// A thread that puts beside one that gets, blocks of this size.
pub(super) fn both_ways(rig: &Rig, block: u64) -> Result<Vec<Row>> {
    if block < 8 << 20 {
        return Ok(Vec::new());
    }
    let bytes = usize::try_from(block).unwrap_or(usize::MAX);
    let (from, to) = (parts(&rig.source.piece(), bytes, 1), parts(&rig.target.piece(), bytes, 1));
    let count = 4;
    let there = rig.fresh_id();
    rig.store(there, from.iter().cloned().fold(SgList::new(), pushed))?;
    let second = rig.device.stream().map_err(failed)?;
    let device = parts(&hbm(rig)?, bytes, 2);
    let ours = || {
        together(
            || {
                (0..count).try_for_each(|_| {
                    from.iter().try_for_each(|piece| {
                        let id = rig.fresh_id();
                        rig.store(id, piece.clone().into())?;
                        rig.delete(&[id])
                    })
                })
            },
            || {
                (0..count)
                    .try_for_each(|_| to.iter().try_for_each(|piece| rig.fetch(there, piece.clone().into())))
            },
        )
    };
    let plain = || {
        let back = |dst: &Piece, src: &Piece| {
            super::raw::plain(rig.device.as_ref(), second, dst, src).map_err(failed)
        };
        together(
            || {
                (0..count)
                    .try_for_each(|_| device[..1].iter().zip(&from).try_for_each(|(d, s)| rig.plain(d, s)))
            },
            || (0..count).try_for_each(|_| to.iter().zip(&device[1..]).try_for_each(|(d, s)| back(d, s))),
        )
    };
    let row = Row { threads: 2, ..Row::new("gpu", "put+get", "registered", block) };
    let row = rig.paired(row, 2 * count * block, PINNED, ours, || Ok(()), plain);
    rig.device.end_stream(second);
    rig.delete(&[there])?;
    Ok(vec![row?])
}

fn pushed(mut list: SgList, piece: Piece) -> SgList {
    list.push(piece);
    list
}

fn together(one: impl Fn() -> Result<()> + Sync, two: impl Fn() -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let second = scope.spawn(&two);
        let first = one();
        let second =
            second.join().unwrap_or_else(|_| Err(Error::new(ErrorKind::System, "a thread panicked")));
        first.and(second)
    })
}

/// The digest kernel alone.
pub(super) fn digests(rig: &Rig) -> Result<Row> {
    let bytes = 256 << 20;
    let source = parts(&rig.source.piece(), bytes, 1);
    let device = parts(&hbm(rig)?, bytes, 1);
    device.iter().zip(&source).try_for_each(|(dst, src)| rig.plain(dst, src))?;
    let mut rates = Vec::new();
    let mut got = Vec::new();
    for _ in 0..=rig.reps {
        let start = std::time::Instant::now();
        for piece in &device {
            got = rig.engine.digests(piece).map_err(failed)?.unwrap_or_default();
        }
        rates.push(cascade_core::units::gbps(bytes as u64, start.elapsed().as_secs_f64()));
    }
    let mut row = Row::new("gpu", "digest", "device", bytes as u64);
    row.n = rig.reps;
    row.set_rate(Spread::of(&rates[1..]), None);
    row.verified = Some(got == rig.source.digests(bytes));
    Ok(row)
}

pub(super) fn hbm(rig: &Rig) -> Result<Piece> {
    let piece = rig.hbm.piece(0, rig.hbm.len());
    piece.ok_or_else(|| Error::new(ErrorKind::System, "no device memory"))
}
