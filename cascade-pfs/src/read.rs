//! Blocks out of segments, verified where they arrive.

use std::io::{Error, ErrorKind, Result};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use cascade_core::batch::Outcome;
use cascade_core::digest::{self, CHUNK_BYTES};
use cascade_core::id::BlockId;
use cascade_core::memory::{Piece, SgList};
use cascade_core::tier::{BlockMeta, MissReason};

use parking_lot::Mutex;

use crate::buffer::Buffer;
use crate::core::{Core, is_lost};
use crate::fs::File;
use crate::io;
use crate::layout::{PAGE_BYTES, Record, header_bytes};
use crate::names::SegmentId;
use crate::pieces::{are_pages, cut, head, list, rest, total};
use crate::raw;

/// Times that a block is looked for: it may be moved, and its file removed, while it is read.
const ATTEMPTS: u32 = 4;

/// Calls at once for one block.
const LANES: usize = 4;

/// What came of one attempt.
enum Read {
    Right,
    Wrong,
    Lost,
    Failed,
}

/// Copies a block into `into`.
pub(crate) fn fetch(core: &Core, id: &BlockId, into: &SgList) -> Outcome {
    attempts(core, id, |meta| meta.len, into, |core, file, record| verified(core, file, record, into))
}

/// Copies exactly this block, whose length `into` has, wherever the index has it by now; whether it is right.
pub(crate) fn exactly(core: &Core, record: &Record, into: &SgList) -> bool {
    matches!(once(core, record, &|core, file, record| verified(core, file, record, into)), Read::Right)
}

/// Reads the payload of a record into `into`; whether it is what was put.
pub(crate) fn verified(core: &Core, file: &dyn File, record: &Record, into: &SgList) -> Result<bool> {
    let len = usize::try_from(record.meta.len).map_err(|_| Error::from(ErrorKind::OutOfMemory))?;
    let digests = payload(core, file, record.payload_at(), len, into)?;
    let root = digest::root(record.id.as_bytes(), record.meta.len, digests.into_iter());
    Ok(root == record.meta.digest)
}

/// Copies `into.len()` bytes of a block, from `offset` on, into `into`. Chunks of 64 KiB that hold them are read and verified.
pub(crate) fn fetch_part(core: &Core, id: &BlockId, offset: u64, into: &SgList) -> Outcome {
    let part = |core: &Core, file: &dyn File, record: &Record| part_of(core, file, record, offset, into);
    let within = |meta: &BlockMeta| match offset.checked_add(into.len() as u64) {
        Some(end) if end <= meta.len && !into.is_empty() => 0,
        _ => u64::MAX,
    };
    attempts(core, id, within, into, part)
}

fn attempts(
    core: &Core,
    id: &BlockId,
    needed: impl Fn(&BlockMeta) -> u64,
    into: &SgList,
    read: impl Fn(&Core, &dyn File, &Record) -> Result<bool>,
) -> Outcome {
    let miss = |reason| {
        core.counters.misses.add(1);
        Outcome::Miss(reason)
    };
    for attempt in 0..ATTEMPTS {
        let Some(record) = core.catalog.read().find(id) else { return miss(MissReason::Absent) };
        if needed(&record.meta) > into.len() as u64 || !into.is_host() || !into.is_writable() {
            return miss(MissReason::Destination);
        }
        core.counters.reads.add(1);
        match once(core, &record, &read) {
            Read::Right => {
                core.catalog.read().touch(id);
                core.counters.hits.add(1);
                core.counters.bytes_out.add(record.meta.len.min(into.len() as u64));
                return Outcome::Fetched(record.meta);
            }
            Read::Failed => {
                core.counters.io_errors.add(1);
                return miss(MissReason::Unavailable);
            }
            // Once more, from a file that is opened anew: a server may have shown an old state.
            Read::Wrong | Read::Lost if attempt == 0 => {}
            Read::Wrong => {
                if core.drop_corrupt(&record) {
                    return miss(MissReason::Corrupt);
                }
            }
            Read::Lost => lose(core, &record),
        }
        core.close(home(&record));
    }
    miss(MissReason::Evicting)
}

fn home(record: &Record) -> SegmentId {
    SegmentId { writer: record.writer, number: record.segment }
}

fn once(core: &Core, record: &Record, read: &impl Fn(&Core, &dyn File, &Record) -> Result<bool>) -> Read {
    match core.segment(home(record)).and_then(|file| read(core, file.as_ref(), record)) {
        Ok(true) => Read::Right,
        Ok(false) => Read::Wrong,
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Read::Wrong,
        Err(error) if is_lost(&error) => Read::Lost,
        Err(_) => Read::Failed,
    }
}

/// The file of a block that has not moved is gone: so are all that were in it.
fn lose(core: &Core, record: &Record) {
    let mut catalog = core.catalog.write();
    if catalog.find(&record.id) == Some(*record) {
        let gone = catalog.drop_segment(home(record));
        core.counters.evictions.add(gone);
        core.counters.lost_files.add(1);
    }
}

/// Reads `len` bytes at `at` into the first `len` bytes of `into`; gives the digests of what arrived.
fn payload(core: &Core, file: &dyn File, at: u64, len: usize, into: &SgList) -> Result<Vec<u64>> {
    // Whole chunks in each group but the last: `io_bytes` is a multiple of them.
    let groups = cut(&head(into.pieces(), len), core.config.io_bytes);
    let digests: Vec<Mutex<Result<Vec<u64>>>> = groups.iter().map(|_| Mutex::new(Ok(Vec::new()))).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let (Some(group), Some(place)) = (groups.get(number), digests.get(number)) else { return };
            let offset = at + number as u64 * core.config.io_bytes as u64;
            *place.lock() = read_group(core, file, group, offset);
        }
    };
    // A long block is read by several calls at once, and one part is verified while the next arrives.
    thread::scope(|scope| {
        for _ in 1..groups.len().min(LANES) {
            // Without another thread this one does the work.
            let _ = thread::Builder::new().name("cascade-pfs-lane".into()).spawn_scoped(scope, work);
        }
        work();
    });
    let mut all = Vec::new();
    for group in digests {
        all.append(&mut group.into_inner()?);
    }
    Ok(all)
}

/// Fills `group` from `offset` on; gives the digests of its chunks.
fn read_group(core: &Core, file: &dyn File, group: &[Piece], offset: u64) -> Result<Vec<u64>> {
    let len = total(group);
    if !file.is_direct() {
        io::read_all(file, group, offset)?;
        return Ok(raw::digests(group, len));
    }
    let whole = head(group, len / PAGE_BYTES * PAGE_BYTES);
    if !are_pages(&whole) {
        return bounced(core, file, group, offset);
    }
    let done = total(&whole);
    if done == len {
        io::read_all(file, group, offset)?;
        return Ok(raw::digests(group, len));
    }
    // The last page is longer than what the caller has room for.
    let page = Buffer::new(PAGE_BYTES);
    let mut pages = whole;
    pages.push(page.piece());
    io::read_all(file, &pages, offset)?;
    raw::scatter(&page.piece(), len - done, &list(rest(group, done))).ok_or(ErrorKind::InvalidInput)?;
    Ok(raw::digests(group, len))
}

/// As [`read_group`], by way of a buffer: the destination is not aligned as direct I/O wants it.
fn bounced(core: &Core, file: &dyn File, group: &[Piece], offset: u64) -> Result<Vec<u64>> {
    let len = total(group);
    let pages = len.next_multiple_of(PAGE_BYTES);
    let buffer = core.buffer(pages);
    io::read_all(file, &[buffer.part(0, pages)], offset)?;
    let digests = raw::scatter(&buffer.piece(), len, &list(group.to_vec()));
    core.give_back(buffer);
    Ok(digests.ok_or(ErrorKind::InvalidInput)?)
}

/// Reads the header of a block and believes it only if it is the one that the index speaks of.
pub(crate) fn header(file: &dyn File, record: &Record) -> Result<Option<Vec<u64>>> {
    let len = usize::try_from(header_bytes(record.meta.len)).map_err(|_| ErrorKind::OutOfMemory)?;
    let mut bytes = io::read_bytes(file, record.offset, len)?;
    let parsed = Record::parse(bytes.bytes(), record.writer, record.segment, record.offset).ok();
    Ok(parsed.filter(|(found, _)| found == record).map(|(_, digests)| digests))
}

fn part_of(core: &Core, file: &dyn File, record: &Record, offset: u64, into: &SgList) -> Result<bool> {
    let Some(digests) = header(file, record)? else { return Ok(false) };
    let chunk = CHUNK_BYTES as u64;
    let (end, mut from) = (offset + into.len() as u64, offset / chunk * chunk);
    let mut done = 0;
    while from < end {
        let to = (from + core.config.io_bytes as u64).min(end.next_multiple_of(chunk)).min(record.meta.len);
        let len = usize::try_from(to - from).map_err(|_| ErrorKind::OutOfMemory)?;
        let buffer = core.buffer(len.next_multiple_of(PAGE_BYTES));
        let pages = buffer.part(0, len.next_multiple_of(PAGE_BYTES));
        io::read_all(file, std::slice::from_ref(&pages), record.payload_at() + from)?;
        let first = usize::try_from(from / chunk).map_err(|_| ErrorKind::OutOfMemory)?;
        let found = raw::digests(std::slice::from_ref(&pages), len);
        if digests.get(first..first + found.len()) != Some(&found[..]) {
            return Ok(false);
        }
        let skip = usize::try_from(offset.max(from) - from).map_err(|_| ErrorKind::OutOfMemory)?;
        let part = usize::try_from(end.min(to) - offset.max(from)).map_err(|_| ErrorKind::OutOfMemory)?;
        let place = list(head(&rest(into.pieces(), done), part));
        raw::scatter(&buffer.part(skip, part), part, &place).ok_or(ErrorKind::InvalidInput)?;
        (done, from) = (done + part, to);
        drop(pages);
        core.give_back(buffer);
    }
    Ok(true)
}
