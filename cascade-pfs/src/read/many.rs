//! Many blocks at once: neighbours in a file are read together.

use std::io::Result;
use std::sync::Arc;

use cascade_core::memory::Piece;

use crate::buffer::Buffer;
use crate::core::Core;
use crate::engine::{Begin, Done, Transfer};
use crate::fs::{File, Way};
use crate::layout::PAGE_BYTES;
use crate::part::Part;
use crate::pieces::{head, total};
use crate::raw::MOST_PIECES;

use super::record::{Place, is_right, verify};
use super::{Fetch, Read, home, record};

/// Blocks up to this length are read together with their neighbours: for longer ones a call of their own costs nothing.
const SMALL_BYTES: u64 = 256 << 10;
/// Bytes of one call for several blocks.
const TOGETHER_BYTES: u64 = 1 << 20;
/// What may lie between neighbours: it is read and thrown away.
const GAP_BYTES: u64 = 16 << 10;

/// Reads blocks, which come in the order in which they stand.
pub(super) fn start(core: &Arc<Core>, found: Vec<Fetch>) {
    let mut together: Vec<Fetch> = Vec::new();
    for fetch in found {
        if !joins(core, &together, &fetch) {
            enter(core, std::mem::take(&mut together));
        }
        together.push(fetch);
    }
    enter(core, together);
}

fn end_of(fetch: &Fetch) -> u64 {
    fetch.record.offset.saturating_add(fetch.record.bytes())
}

/// Whether a block is read with those before it.
fn joins(core: &Core, together: &[Fetch], fetch: &Fetch) -> bool {
    let (Some(first), Some(last)) = (together.first(), together.last()) else { return true };
    let (a, b) = (&last.record, &fetch.record);
    let near = b.payload_at().checked_sub(end_of(last)).is_some_and(|gap| gap <= GAP_BYTES);
    let most = TOGETHER_BYTES.min(core.config.io_bytes as u64);
    let pieces: usize = together.iter().map(|fetch| fetch.asked.into.pieces().len() + 2).sum();
    home(a) == home(b)
        && near
        && a.meta.len.max(b.meta.len) <= SMALL_BYTES
        && end_of(fetch) - first.record.payload_at() <= most
        && pieces + fetch.asked.into.pieces().len() + 2 <= MOST_PIECES
        // A block that failed once is looked at alone.
        && last.attempt + fetch.attempt == 0
}

/// Waits for room, then reads blocks that stand side by side.
fn enter(core: &Arc<Core>, together: Vec<Fetch>) {
    match together.len() {
        0 => {}
        1 => together.into_iter().for_each(|fetch| alone(core, fetch)),
        _ => {
            let bytes = together.iter().map(|fetch| fetch.record.bytes()).sum();
            let starting = Arc::clone(core);
            core.gate.enter(bytes, move || side_by_side(&starting, together, bytes));
        }
    }
}

/// Reads one block.
fn alone(core: &Arc<Core>, fetch: Fetch) {
    core.counters.reads.add(1);
    let file = match core.segment(home(&fetch.record)) {
        Ok(file) => file,
        Err(error) => return fetch.ended(core, Read::failed(&error)),
    };
    let (ending, record, into) = (Arc::clone(core), fetch.record, fetch.asked.into.clone());
    let part = fetch.asked.part.clone();
    let end = move |read: Result<bool>| fetch.ended(&ending, Read::of(read));
    record::read(core, &file, &record, into, Some(&part), Box::new(end));
}

/// Reads several blocks by one transfer.
fn side_by_side(core: &Arc<Core>, together: Vec<Fetch>, bytes: u64) {
    let file = together.first().map(|fetch| core.segment(home(&fetch.record)));
    let Some(Ok(file)) = file else {
        core.gate.leave(bytes);
        return together.into_iter().for_each(|fetch| alone(core, fetch));
    };
    core.counters.reads.add(together.len() as u64);
    core.counters.merged.add(together.len() as u64);
    core.counters.calls.add(1);
    let transfer = transfer(core, file, together, bytes);
    core.engine.submit(transfer);
}

fn transfer(core: &Arc<Core>, file: Arc<dyn File>, together: Vec<Fetch>, bytes: u64) -> Transfer {
    let offset = together.first().map_or(0, |fetch| fetch.record.payload_at());
    let deadline = together.iter().filter_map(|fetch| fetch.asked.part.deadline()).max();
    // One late block does not end the others.
    let deadline = deadline.filter(|_| together.iter().all(|fetch| fetch.asked.part.deadline().is_some()));
    // Where one was answered while it waited, its memory is the caller's again: the others are read alone then.
    let part =
        |fetch: &Fetch| (fetch.asked.part.clone(), fetch.asked.into.pieces().iter().all(Piece::is_kept));
    let parts: Vec<(Part, bool)> = together.iter().map(part).collect();
    let begin: Begin = Box::new(move || parts.iter().all(|(part, kept)| part.begin_in(*kept)));
    let (mut pieces, mut at, mut places) = (Vec::new(), offset, Vec::with_capacity(together.len()));
    for fetch in together {
        let gap = usize::try_from(fetch.record.payload_at() - at).unwrap_or(0);
        if gap > 0 {
            pieces.push(Buffer::new(gap.next_multiple_of(PAGE_BYTES)).part(0, gap));
        }
        let len = usize::try_from(fetch.record.meta.len).unwrap_or(usize::MAX);
        let mut place = Place::new(core, head(fetch.asked.into.pieces(), len), file.is_direct());
        let start = fetch.record.payload_at();
        at = start + total(&place.pieces) as u64;
        pieces.append(&mut place.pieces);
        places.push((fetch, place, start - offset));
    }
    let arriving = Arc::clone(core);
    let done: Done = Box::new(move |result| {
        arriving.gate.leave(bytes);
        match result {
            // Who of them it was is seen alone.
            Err(_) => places.into_iter().for_each(|(fetch, place, _)| {
                drop(place);
                retry(&arriving, fetch);
            }),
            Ok(arrived) => verify(&arriving, arrived, move |core| {
                for (fetch, place, at) in places {
                    arrived_at(core, fetch, place, at, arrived as u64);
                }
            }),
        }
    });
    Transfer { file, way: Way::Read, pieces, offset, deadline, begin: Some(begin), done }
}

fn arrived_at(core: &Arc<Core>, fetch: Fetch, mut place: Place, at: u64, arrived: u64) {
    if arrived < at + fetch.record.meta.len {
        drop(place);
        return retry(core, fetch);
    }
    let right = place.digests(core).map(|digests| is_right(&fetch.record, digests.into_iter()));
    drop(place);
    match right {
        Ok(true) => fetch.ended(core, Read::Right),
        _ => retry(core, fetch),
    }
}

/// Reads a block alone that could not be read with others; opening its file may take long.
fn retry(core: &Arc<Core>, fetch: Fetch) {
    let other = Arc::clone(core);
    core.engine.run(move || alone(&other, fetch));
}
