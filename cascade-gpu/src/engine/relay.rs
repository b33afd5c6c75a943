//! Many pages through a buffer on the device: the copy engine moves long runs over the bus, and a kernel scatters or gathers them
//! at the speed of the device's own memory, with the digests in the same pass. No page crosses the bus by itself, so that short ones
//! cost no more than long ones, and the kernel runs for a fraction of the time.

use std::sync::Arc;

use cascade_core::digest::CHUNK_BYTES;
use cascade_core::memory::{Piece, SgList};
use parking_lot::Mutex;

use super::cursor::{Cursor, slice};
use super::issue::Issue;
use super::walk::{VECTOR, Walk};
use super::ways::{Path, Way};
use super::{CopyEngine, Digested};
use crate::device::{Device, Event, Fault, Hbm, MoveJob, Side, Stream, issue};

/// Parts of a relay: one is filled while the other is emptied. Within the device that takes a quarter of the time that the bus needs.
const SLOTS: usize = 2;
/// Relays of an engine at most; transfers beyond go by the kernel alone.
const MOST: usize = 3;
/// The host side is cut for every part: lists of more pieces go another way.
const MOST_HOST_PIECES: usize = 64;
/// The first part that leaves a device, and the last that arrives there, in chunks: nothing overlaps with its kernel.
const LEAST_CHUNKS: usize = 16;
/// Each part is so many times as long as the next one towards that: as much faster the kernel is. A part more costs 5 us.
const SHRINKS_BY: usize = 4;

/// A buffer on the device, of one transfer at a time.
#[derive(Debug)]
pub(super) struct Relay(Arc<Hbm>);

impl Relay {
    fn slot_bytes(&self) -> usize {
        self.0.len() / SLOTS / CHUNK_BYTES * CHUNK_BYTES
    }

    fn part(&self, number: usize, len: usize) -> Option<Piece> {
        self.0.piece(number % SLOTS * self.slot_bytes(), len)
    }
}

/// The relays of an engine.
#[derive(Debug, Default)]
pub(super) struct Relays {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Relay>,
    made: usize,
}

impl Relays {
    /// An idle one, else a new one; `None` where there may be no more, or the device has no memory for it.
    fn take(&self, device: &Arc<dyn Device>, bytes: usize) -> Option<Relay> {
        let mut state = self.state.lock();
        if let Some(relay) = state.idle.pop() {
            return Some(relay);
        }
        if state.made >= MOST || bytes < SLOTS * CHUNK_BYTES {
            return None;
        }
        let memory = Hbm::new(device, bytes).ok()?;
        state.made += 1;
        Some(Relay(Arc::new(memory)))
    }

    pub(super) fn give_back(&self, relay: Relay) {
        self.state.lock().idle.push(relay);
    }
}

/// Chunks of each part: as many as a slot has, and fewer and fewer where nothing overlaps.
fn parts(chunks: usize, slot: usize, path: Path) -> Vec<usize> {
    let (mut left, mut parts) = (chunks, Vec::new());
    while left > 0 {
        let rest = (left / SHRINKS_BY).max(LEAST_CHUNKS);
        let part = left.saturating_sub(rest).max(LEAST_CHUNKS).min(left).min(slot);
        parts.push(part);
        left -= part;
    }
    if path == Path::Out {
        parts.reverse();
    }
    parts
}

/// What stays the same from part to part.
struct Plan<'a> {
    engine: &'a CopyEngine,
    relay: Relay,
    host: &'a SgList,
    pages: Walk<'a>,
    ctas: u32,
}

/// Queues everything; `false` when these lists cannot go this way, and nothing is under way then.
pub(super) fn run(issue: &mut Issue, dst: &SgList, src: &SgList, ctas: u32) -> Result<bool, Fault> {
    let engine = Arc::clone(&issue.transfer.engine);
    let ranges = issue.ranges();
    let bounds = issue.bounds(&ranges, &engine);
    let (pages, host) = match issue.path {
        Path::In => (dst, src),
        Path::Out => (src, dst),
        Path::Within => return Ok(false),
    };
    let fits =
        host.pieces().len() <= MOST_HOST_PIECES && issue.len.is_multiple_of(VECTOR) && bounds.cover(host);
    let Some(pages) = Walk::new(pages, issue.len, 0, &bounds).filter(|_| fits) else { return Ok(false) };
    let Some(relay) = engine.relays.take(&engine.device, engine.options.relay_bytes) else {
        return Ok(false);
    };
    let parts = parts(issue.len.div_ceil(CHUNK_BYTES), relay.slot_bytes() / CHUNK_BYTES, issue.path);
    let mut plan = Plan { engine: &engine, relay, host, pages, ctas };
    let (mut chunk, mut free) = (0, [None; SLOTS]);
    let mut result = Ok(true);
    for (number, chunks) in parts.iter().enumerate() {
        let is_reused = number + SLOTS < parts.len();
        result = plan.part(issue, number, chunk, *chunks, &mut free[number % SLOTS], is_reused);
        if !matches!(result, Ok(true)) {
            break;
        }
        chunk += chunks;
    }
    issue.transfer.relay = Some(plan.relay);
    if let Ok(false) = result {
        // The same again by another way: what is queued must not come after it.
        issue.finish()?;
    }
    if let Ok(true) = result {
        issue.transfer.digested = (issue.digested != Digested::Nothing).then_some(issue.len);
    }
    result
}

impl Plan<'_> {
    /// Queues one part: `false` at a page that the kernel cannot walk. `free` is when its slot was emptied before.
    fn part(
        &mut self,
        issue: &mut Issue,
        number: usize,
        chunk: usize,
        chunks: usize,
        free: &mut Option<Event>,
        is_reused: bool,
    ) -> Result<bool, Fault> {
        let from = chunk * CHUNK_BYTES;
        let len = (chunks * CHUNK_BYTES).min(issue.len - from);
        let (device, inward) = (self.engine.device.as_ref(), issue.path == Path::In);
        let window = self.relay.part(number, len).ok_or(Fault::OutOfMemory)?;
        let Some(job) = self.job(issue, &window, from + len, chunk, chunks)? else { return Ok(false) };
        let Some(lane) = &issue.transfer.lane else { return Err(Fault::OutOfMemory) };
        let (filling, emptying) =
            if inward { (lane.copies, lane.digests) } else { (lane.digests, lane.copies) };
        if let Some(free) = free.take() {
            device.wait_for(filling, free)?;
        }
        let host = slice(self.host, from, len);
        let copy = |stream: Stream| {
            let (dst, src) =
                if inward { (window.clone().into(), host) } else { (host, window.clone().into()) };
            let ranges = self.engine.registry.ranges();
            let mut runs = Vec::new();
            if !Cursor::new(&dst, &src, issue.bounds(&ranges, self.engine)).take(len, usize::MAX, &mut runs) {
                return Err(Fault::NotRegistered);
            }
            issue::copy(device, stream, &runs, 0, Way::Dma)
        };
        let full = if inward {
            copy(filling)?;
            let full = device.record(filling)?;
            device
                .wait_for(emptying, full)
                .and_then(|()| issue::move_pages(device, emptying, &job))
                .map(|()| full)
        } else {
            issue::move_pages(device, filling, &job)?;
            let full = device.record(filling)?;
            device.wait_for(emptying, full).and_then(|()| copy(emptying)).map(|()| full)
        };
        issue.transfer.events.push(full?);
        if is_reused {
            let emptied = device.record(emptying)?;
            issue.transfer.events.push(emptied);
            *free = Some(emptied);
        }
        Ok(true)
    }

    /// The kernel's job for the pages up to byte `to`, whose addresses are put into the table.
    fn job(
        &mut self,
        issue: &mut Issue,
        window: &Piece,
        to: usize,
        chunk: usize,
        chunks: usize,
    ) -> Result<Option<MoveJob>, Fault> {
        let ranges = issue.ranges();
        let mut words = Vec::new();
        let Some(at) = self.pages.take(to, &issue.bounds(&ranges, self.engine), &mut words) else {
            return Ok(None);
        };
        let Some(lane) = &mut issue.transfer.lane else { return Err(Fault::OutOfMemory) };
        if !lane.pages.write_words(at, &words) {
            return Err(Fault::OutOfMemory);
        }
        let pages = self.pages.side(lane.pages.address());
        // The kernel counts from the first byte of the whole: the window lies where that byte would be, so many before it.
        let first = (chunk * CHUNK_BYTES) as u64;
        let window = Side { base: (window.as_ptr() as u64).wrapping_sub(first), pages: 0, page_bytes: 0 };
        let (dst, src) = if issue.path == Path::In { (pages, window) } else { (window, pages) };
        Ok(Some(MoveJob {
            dst,
            src,
            len: issue.len as u64,
            chunk: chunk as u64,
            chunks: chunks as u64,
            out: if issue.digested == Digested::Nothing { 0 } else { lane.out.address() },
            ctas: self.ctas,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_shrink_where_nothing_overlaps() {
        assert_eq!(parts(512, 192, Path::In), [192, 192, 96, 16, 16]);
        assert_eq!(parts(20, 192, Path::Out), [4, 16]);
        assert_eq!(parts(30, 8, Path::In), [8, 8, 8, 6]);
        for chunks in 1..700 {
            let parts = parts(chunks, 128, Path::Out);
            assert_eq!(parts.iter().sum::<usize>(), chunks);
            assert!(parts.iter().all(|part| (1..=128).contains(part)));
        }
    }
}
