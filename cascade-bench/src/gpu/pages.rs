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
    let ways = [None, Some(Way::Kernel { ctas: 16 }), Some(Way::Kernel { ctas: 32 }), Some(Way::Batch)];
    for way in ways {
        if way == Some(Way::Batch) && !rig.device.info().has_batched_copies {
            continue;
        }
        rig.engine.force(way);
        let measured = both(rig, layout, &pages, len, way);
        rig.engine.force(None);
        rows.extend(measured?);
    }
    Ok(rows)
}

fn both(rig: &Rig, layout: &Layout, pages: &SgList, len: usize, way: Option<Way>) -> Result<Vec<Row>> {
    let name = way.map_or_else(|| "calibrated".to_owned(), |way| way.to_string());
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
    put.verified = Some(*digests.borrow() == expected);
    let mut get = rig.paired(
        row("save pages"),
        len as u64,
        what,
        || copy(into.clone().into(), next(), Digested::Source),
        prepare,
        || rig.plain(&into, &low),
    )?;
    // The ceiling wrote to the same place before; the last copy was ours.
    get.verified = Some(*digests.borrow() == expected && Rig::same(&rig.source, &rig.target, len));
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
