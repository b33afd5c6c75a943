//! Host memory that is not registered: through two pinned buffers, one copied by the CPU while the device has the other.

use std::sync::Arc;

use cascade_core::memory::{SgList, Space};

use super::cursor::{Cursor, slice};
use super::issue::Issue;
use super::ways::Path;
use crate::device::{Event, Fault, Pinned};

/// Two buffers of one direction.
#[derive(Debug)]
pub(super) struct Staging {
    buffers: [Arc<Pinned>; 2],
}

/// One window of a list in one of the buffers.
#[derive(Debug)]
struct Window {
    from: usize,
    len: usize,
    end: Event,
}

/// Copies the whole transfer and returns when host memory is no longer touched.
pub(super) fn run(issue: &mut Issue, dst: &SgList, src: &SgList) -> Result<(), Fault> {
    let inward = issue.path == Path::In;
    let other = if inward { dst } else { src };
    if other.pieces().iter().any(|piece| piece.space() == Space::Host) {
        return Err(Fault::NotRegistered);
    }
    let engine = Arc::clone(&issue.transfer.engine);
    let mut guard = engine.staging[usize::from(!inward)].lock();
    let staging = match guard.as_mut() {
        Some(staging) => staging,
        None => {
            let buffer = || Pinned::new(&engine.device, engine.options.staging_bytes).map(Arc::new);
            guard.insert(Staging { buffers: [buffer()?, buffer()?] })
        }
    };
    let result = if inward { inwards(issue, staging, dst, src) } else { outwards(issue, staging, dst, src) };
    if result.is_err() {
        // What is queued may still use the buffers, which the next transfer would fill.
        let end = issue.mark();
        drop(end.and_then(|end| wait(issue, end)));
    }
    result
}

/// Windows of the transfer: where digests follow the parts, each begins at a step.
fn window_bytes(issue: &Issue, staging: &Staging) -> usize {
    let (most, step) = (staging.buffers[0].len(), issue.step());
    if step < most { most / step * step } else { most }
}

fn inwards(issue: &mut Issue, staging: &Staging, dst: &SgList, src: &SgList) -> Result<(), Fault> {
    let window = window_bytes(issue, staging);
    let whole_steps = window.is_multiple_of(issue.step()) || issue.len <= window;
    let mut busy: [Option<Event>; 2] = [None, None];
    let (mut from, mut turn) = (0, 0);
    while from < issue.len {
        let len = window.min(issue.len - from);
        let buffer = &staging.buffers[turn];
        if let Some(event) = busy[turn].take() {
            wait(issue, event)?;
        }
        if !buffer.fill(&slice(src, from, len)) {
            return Err(Fault::NotRegistered);
        }
        copy(issue, &slice(dst, from, len), &staged(buffer, len)?, len)?;
        if whole_steps {
            issue.arrived(from, from + len)?;
        }
        busy[turn] = Some(issue.mark()?);
        (from, turn) = (from + len, 1 - turn);
    }
    if !whole_steps {
        issue.arrived(0, issue.len)?;
    }
    // The buffers are the next transfer's when this returns.
    busy.into_iter().flatten().try_for_each(|event| wait(issue, event))
}

fn outwards(issue: &mut Issue, staging: &Staging, dst: &SgList, src: &SgList) -> Result<(), Fault> {
    let window = staging.buffers[0].len();
    let mut queued: [Option<Window>; 2] = [None, None];
    let (mut from, mut turn) = (0, 0);
    loop {
        if let Some(done) = queued[turn].take() {
            wait(issue, done.end)?;
            if !staging.buffers[turn].drain(done.len, &slice(dst, done.from, done.len)) {
                return Err(Fault::NotRegistered);
            }
        }
        if from < issue.len {
            let len = window.min(issue.len - from);
            let buffer = &staging.buffers[turn];
            copy(issue, &staged(buffer, len)?, &slice(src, from, len), len)?;
            queued[turn] = Some(Window { from, len, end: issue.mark()? });
            from += len;
        }
        turn = 1 - turn;
        if from >= issue.len && queued.iter().all(Option::is_none) {
            return Ok(());
        }
    }
}

fn staged(buffer: &Arc<Pinned>, len: usize) -> Result<SgList, Fault> {
    buffer.piece(0, len).map(SgList::from).ok_or(Fault::OutOfMemory)
}

/// Queues one window; the run table of the window before is still in use, so this one's follows it.
fn copy(issue: &mut Issue, dst: &SgList, src: &SgList, len: usize) -> Result<(), Fault> {
    let engine = Arc::clone(&issue.transfer.engine);
    let ranges = issue.ranges();
    let bounds = issue.bounds(&ranges, &engine);
    let pieces = dst.pieces().len().max(src.pieces().len());
    let way = engine.ways.read().choose(issue.path, pieces, len / pieces.max(1)).by_runs(pieces);
    issue.copy_part(&mut Cursor::new(dst, src, bounds), len, way)
}

pub(super) fn wait(issue: &Issue, event: Event) -> Result<(), Fault> {
    while !issue.transfer.engine.device.is_done(event)? {
        std::thread::yield_now();
    }
    Ok(())
}
