//! An engine's pages, scattered over device memory, from and to one run of registered host memory.

use cascade_core::Result;
use cascade_core::memory::{Piece, SgList};
use cascade_gpu::engine::{Digested, Way};

use super::Layout;
use super::rig::{Rig, failed};
use super::whole::hbm;
use crate::report::Row;

/// Bytes that a repetition moves, about.
const BYTES: usize = 256 << 20;
/// Between a page and the next that is used, so that no copy can join them.
const SPREAD: usize = 2;

/// Rows of a model: both directions, by the calibrated way and by each fixed one.
pub(super) fn model(rig: &Rig, layout: &Layout) -> Result<Vec<Row>> {
    let block = layout.page_bytes * layout.pages;
    let count = (BYTES / block).max(1) * layout.pages;
    let len = count * layout.page_bytes;
    let whole = hbm(rig)?;
    let pages = pages(&whole, layout.page_bytes, count);
    let mut rows = Vec::new();
    let ways = [
        None,
        Some(Way::Kernel { ctas: 16 }),
        Some(Way::Kernel { ctas: 32 }),
        Some(Way::Move { ctas: 16 }),
        Some(Way::Move { ctas: 32 }),
        Some(Way::Relay { ctas: 16 }),
        Some(Way::Relay { ctas: 32 }),
        Some(Way::Batch),
    ];
    for way in ways {
        if way == Some(Way::Batch) && !rig.device.info().has_batched_copies {
            continue;
        }
        rig.engine.force(way);
        let name = way.map_or_else(|| "calibrated".to_owned(), |way| way.to_string());
        let measured = both(rig, layout, &pages, len, &name, true);
        // What the digests cost.
        let bare = match way {
            Some(Way::Move { ctas: 32 } | Way::Relay { ctas: 32 }) => {
                both(rig, layout, &pages, len, &format!("{name} without digests"), false)
            }
            _ => Ok(Vec::new()),
        };
        rig.engine.force(None);
        rows.extend(measured?);
        rows.extend(bare?);
    }
    Ok(rows)
}

/// How long the host takes to hand a model's pages over, by either kernel.
pub(super) fn handing_over(rig: &Rig, layout: &Layout) -> Result<String> {
    let count = BYTES / layout.page_bytes;
    let (whole, len) = (hbm(rig)?, BYTES / layout.page_bytes * layout.page_bytes);
    let pages = pages(&whole, layout.page_bytes, count);
    let mut said = Vec::new();
    for way in [Way::Move { ctas: 32 }, Way::Relay { ctas: 32 }] {
        rig.engine.force(Some(way));
        let mut least = f64::MAX;
        for _ in 0..5 {
            let Some(from) = rig.source.piece().part(0, len) else { continue };
            let list = pages.clone();
            let start = std::time::Instant::now();
            let transfer = rig.engine.start(list, from.into(), len, Digested::Destination, None);
            least = least.min(start.elapsed().as_secs_f64() * 1e6);
            transfer.map_err(failed)?.wait().map_err(failed)?;
        }
        rig.engine.force(None);
        said.push(format!("{least:.0} us by {way}"));
    }
    Ok(format!("handing {count} pages of {} B over takes {}", layout.page_bytes, said.join(", ")))
}

fn both(
    rig: &Rig,
    layout: &Layout,
    pages: &SgList,
    len: usize,
    name: &str,
    is_digested: bool,
) -> Result<Vec<Row>> {
    let path = format!("{} {} B {name}", layout.name, layout.page_bytes);
    let row = |op| Row::new("gpu", op, &path, len as u64);
    let (source, target) = (rig.source.piece(), rig.target.piece());
    let (Some(from), Some(into)) = (source.part(0, len), target.part(0, len)) else { return Ok(Vec::new()) };
    let device = hbm(rig)?;
    let (Some(low), Some(high)) = (device.part(0, len), device.part(device.len() - len, len)) else {
        return Ok(Vec::new());
    };
    let what = "cuMemcpyAsync of registered memory, in one run";
    let digests = std::cell::RefCell::new(Vec::new());
    let copy = |dst: SgList, src: SgList, digested| {
        let digested = if is_digested { digested } else { Digested::Nothing };
        let got = rig.engine.copy(dst, src, len, digested).map_err(failed)?;
        *digests.borrow_mut() = got.unwrap_or_default();
        Ok(())
    };
    let expected = rig.source.digests(len);
    // The engine makes the list while its request waits in a queue: it is made before, and handed over.
    let lists = std::cell::RefCell::new(vec![pages.clone()]);
    let next = || lists.borrow_mut().pop().unwrap_or_default();
    let prepare = || {
        lists.borrow_mut().push(pages.clone());
        Ok(())
    };
    let mut put = rig.paired(
        row("load pages"),
        len as u64,
        what,
        || copy(next(), from.clone().into(), Digested::Destination),
        prepare,
        || rig.plain(&high, &from),
    )?;
    put.verified = is_digested.then(|| *digests.borrow() == expected);
    let mut get = rig.paired(
        row("save pages"),
        len as u64,
        what,
        || copy(into.clone().into(), next(), Digested::Source),
        prepare,
        || rig.plain(&into, &low),
    )?;
    // The ceiling wrote to the same place before; the last copy was ours.
    let is_right = !is_digested || *digests.borrow() == expected;
    get.verified = Some(is_right && Rig::same(&rig.source, &rig.target, len));
    Ok(vec![put, get])
}

/// `count` pages in an order of their own, with as much room between them.
fn pages(whole: &Piece, page_bytes: usize, count: usize) -> SgList {
    let stride = page_bytes * SPREAD;
    let places = whole.len() / stride;
    // A step that shares no factor with the number of places visits each once.
    let step = (places / 3..).find(|step| gcd(*step, places) == 1).unwrap_or(1);
    let mut list = SgList::new();
    for index in 0..count {
        whole.part(index * step % places * stride, page_bytes).into_iter().for_each(|page| list.push(page));
    }
    list
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::Arc;

    #[test]
    fn no_page_is_used_twice() {
        let memory = Piece::shared(Arc::from(vec![0u8; 1 << 20]));
        let list = pages(&memory, 4096, 128);
        let first: HashSet<usize> = list.pieces().iter().map(|page| page.as_ptr() as usize).collect();
        assert_eq!((first.len(), list.len()), (128, 128 * 4096));
    }
}
