//! A part of a block: the chunks of 64 KiB that cover it, verified by the digests in front of the block.

use std::io::{Error, ErrorKind, Result};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use cascade_core::batch::Outcome;
use cascade_core::digest::CHUNK_BYTES;
use cascade_core::id::BlockId;
use cascade_core::memory::SgList;
use cascade_core::tier::MissReason;

use crate::buffer::Buffer;
use crate::core::Core;
use crate::engine::Transfer;
use crate::fs::{File, Way};
use crate::layout::{PAGE_BYTES, Record};
use crate::pieces::{head, list, rest};
use crate::raw;

use super::record::{header, header_len};
use super::{ATTEMPTS, Read, home, lose};

/// Copies `into.len()` bytes of a block, from `offset` on, into `into`; gives up at `deadline`. This thread, none of the
/// engine's, waits.
pub(crate) fn fetch_part(
    core: &Arc<Core>,
    id: &BlockId,
    offset: u64,
    into: &SgList,
    deadline: Option<Instant>,
) -> Outcome {
    let outcome = attempts(core, id, offset, into, deadline);
    match outcome {
        Outcome::Fetched(_) => core.counters.hits.add(1),
        _ => core.counters.misses.add(1),
    }
    core.counters.deadlines.add(u64::from(outcome == Outcome::Miss(MissReason::Deadline)));
    outcome
}

fn attempts(
    core: &Arc<Core>,
    id: &BlockId,
    offset: u64,
    into: &SgList,
    deadline: Option<Instant>,
) -> Outcome {
    let is_late = || deadline.is_some_and(|deadline| Instant::now() >= deadline);
    for attempt in 0..ATTEMPTS {
        if is_late() {
            return Outcome::Miss(MissReason::Deadline);
        }
        let Some(record) = core.catalog.read().find(id) else { return Outcome::Miss(MissReason::Absent) };
        let end = offset.checked_add(into.len() as u64);
        let within = !into.is_empty() && end.is_some_and(|end| end <= record.meta.len);
        if !within || !into.is_host() || !into.is_writable() {
            return Outcome::Miss(MissReason::Destination);
        }
        core.counters.reads.add(1);
        match Read::of(once(core, &record, offset, into, deadline)) {
            Read::Right => {
                core.catalog.read().touch(id);
                core.counters.bytes_out.add(into.len() as u64);
                return Outcome::Fetched(record.meta);
            }
            Read::Undirected if core.refuse_direct() => {}
            Read::Failed | Read::Undirected if is_late() => return Outcome::Miss(MissReason::Deadline),
            Read::Failed | Read::Undirected => {
                core.counters.io_errors.add(1);
                return Outcome::Miss(MissReason::Unavailable);
            }
            Read::Wrong | Read::Lost if attempt == 0 => {}
            Read::Wrong => {
                if core.drop_corrupt(&record) {
                    return Outcome::Miss(MissReason::Corrupt);
                }
            }
            Read::Lost => lose(core, &record),
        }
        core.close(home(&record));
    }
    Outcome::Miss(MissReason::Evicting)
}

/// A transfer into memory of its own, which it keeps if nobody waits for its end.
fn begin(
    core: &Arc<Core>,
    file: &Arc<dyn File>,
    offset: u64,
    len: usize,
    deadline: Option<Instant>,
) -> mpsc::Receiver<Result<Buffer>> {
    let (send, receive) = mpsc::sync_channel(1);
    let pages = len.next_multiple_of(PAGE_BYTES);
    let buffer = core.buffer(pages);
    // Through the page cache exactly what is there: the last page of a file may be short.
    let pieces = vec![buffer.part(0, if file.is_direct() { pages } else { len })];
    let (file, starting) = (Arc::clone(file), Arc::clone(core));
    let done = Box::new(move |result: Result<usize>| {
        starting.gate.leave(pages as u64);
        let read =
            result.and_then(|n| if n < len { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(buffer) });
        // Nobody listens any more when the deadline has passed.
        let _ = send.send(read);
    });
    let transfer = Transfer { file, way: Way::Read, pieces, offset, deadline, begin: None, done };
    let starting = Arc::clone(core);
    core.counters.calls.add(1);
    core.gate.enter(pages as u64, move || starting.engine.submit(transfer));
    receive
}

fn receive(core: &Core, from: &mpsc::Receiver<Result<Buffer>>, deadline: Option<Instant>) -> Result<Buffer> {
    let read = match deadline {
        None => from.recv().ok(),
        Some(deadline) => from.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok(),
    };
    read.unwrap_or_else(|| {
        // Nobody waits for it any more.
        core.engine.cancel_late();
        Err(ErrorKind::TimedOut.into())
    })
}

fn once(
    core: &Arc<Core>,
    record: &Record,
    offset: u64,
    into: &SgList,
    deadline: Option<Instant>,
) -> Result<bool> {
    let size = |bytes: u64| usize::try_from(bytes).map_err(|_| Error::from(ErrorKind::OutOfMemory));
    let (file, chunk) = (core.segment(home(record))?, CHUNK_BYTES as u64);
    let (end, first) = (offset + into.len() as u64, offset / chunk * chunk);
    let last = end.next_multiple_of(chunk).min(record.meta.len);
    let head_bytes = header_len(record)?;
    let front = begin(core, &file, record.offset, head_bytes, deadline);
    let step = core.config.io_bytes;
    let mut runs = Vec::new();
    let mut from = first;
    while from < last {
        let len = size(last - from)?.min(step);
        runs.push((from, len, begin(core, &file, record.payload_at() + from, len, deadline)));
        from += len as u64;
    }
    let mut front = receive(core, &front, deadline)?;
    let digests = header(record, &mut front);
    core.give_back(front);
    let Some(digests) = digests else { return Ok(false) };
    let mut done = 0;
    for (from, len, run) in runs {
        let buffer = receive(core, &run, deadline)?;
        let number = size(from / chunk)?;
        let found = raw::digests(&[buffer.part(0, len)], len);
        if digests.get(number..number + found.len()) != Some(&found[..]) {
            return Ok(false);
        }
        let (begin, to) = (offset.max(from), end.min(from + len as u64));
        let (skip, part) = (size(begin - from)?, size(to - begin)?);
        let place = list(head(&rest(into.pieces(), done), part));
        raw::scatter(&buffer.part(skip, part), part, &place).ok_or(ErrorKind::InvalidInput)?;
        done += part;
        core.give_back(buffer);
    }
    Ok(true)
}
