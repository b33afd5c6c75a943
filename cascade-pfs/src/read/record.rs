//! One record: where its bytes go to, and whether they are the right ones.

use std::io::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cascade_core::digest;
use cascade_core::memory::{Piece, SgList};
use cascade_core::planted::{self, Bug};
use parking_lot::Mutex;

use crate::buffer::Buffer;
use crate::core::Core;
use crate::engine::{Begin, Done, Transfer};
use crate::fs::{File, Way};
use crate::io;
use crate::layout::{PAGE_BYTES, Record, header_bytes};
use crate::part::Part;
use crate::pieces::{are_pages, cut, head, list, rest, total};
use crate::raw;

/// What is told whether a record was read as it was put.
pub(super) type End = Box<dyn FnOnce(Result<bool>) + Send>;

/// Bytes that are verified on the thread that hears of their arrival; more are handed to another.
const AT_ONCE_BYTES: usize = 128 << 10;

/// Memory for a run of payload bytes as a file wants it.
#[derive(Debug)]
pub(super) struct Place {
    /// What is read into: the caller's memory, as far as it can be.
    pub(super) pieces: Vec<Piece>,
    /// The caller's memory.
    group: Vec<Piece>,
    /// Where the bytes from `at` on arrive, which the caller's memory does not take as they are.
    copied: Option<(Buffer, usize)>,
}

impl Place {
    /// For `group`, in a file that is `direct` or not.
    pub(super) fn new(core: &Core, group: Vec<Piece>, direct: bool) -> Self {
        if !direct {
            return Self { pieces: group.clone(), group, copied: None };
        }
        let len = total(&group);
        let mut pieces = head(&group, len / PAGE_BYTES * PAGE_BYTES);
        let at = if are_pages(&pieces) { total(&pieces) } else { 0 };
        if at == len {
            return Self { pieces, group, copied: None };
        }
        // Not aligned, or the last page is longer than what the caller has room for.
        pieces.truncate(if at == 0 { 0 } else { pieces.len() });
        let pages = (len - at).next_multiple_of(PAGE_BYTES);
        let buffer = if at == 0 && pages > PAGE_BYTES { core.buffer(pages) } else { Buffer::new(pages) };
        pieces.push(buffer.part(0, pages));
        Self { pieces, group, copied: Some((buffer, at)) }
    }

    /// Digests of the chunks of what has arrived, all of it now in the caller's memory.
    pub(super) fn digests(&mut self, core: &Core) -> Result<Vec<u64>> {
        let len = total(&self.group);
        self.pieces.clear();
        let Some((buffer, at)) = self.copied.take() else { return Ok(raw::digests(&self.group, len)) };
        let digests = raw::scatter(&buffer.part(0, len - at), len - at, &list(rest(&self.group, at)));
        core.give_back(buffer);
        let digests = digests.ok_or(ErrorKind::InvalidInput)?;
        Ok(if at == 0 { digests } else { raw::digests(&self.group, len) })
    }
}

/// A record that is read by several transfers.
struct Reading {
    record: Record,
    digests: Vec<Mutex<Result<Vec<u64>>>>,
    left: AtomicUsize,
    end: Mutex<Option<End>>,
}

impl Reading {
    fn ended(&self, number: usize, digests: Result<Vec<u64>>) {
        if let Some(place) = self.digests.get(number) {
            *place.lock() = digests;
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let all: Result<Vec<Vec<u64>>> =
            self.digests.iter().map(|place| std::mem::replace(&mut *place.lock(), Ok(Vec::new()))).collect();
        let right = all.map(|all| is_right(&self.record, all.into_iter().flatten()));
        if let Some(end) = self.end.lock().take() {
            end(right);
        }
    }
}

/// Whether these are the digests of what was put.
pub(super) fn is_right(record: &Record, digests: impl Iterator<Item = u64>) -> bool {
    digest::root(record.id.as_bytes(), record.meta.len, digests) == record.meta.digest
        || planted::is(Bug::SkipDigest)
}

/// Calls `work` here where it is quick, else on another thread.
pub(super) fn verify(core: &Arc<Core>, bytes: usize, work: impl FnOnce(&Arc<Core>) + Send + 'static) {
    if bytes <= AT_ONCE_BYTES {
        return work(core);
    }
    let other = Arc::clone(core);
    core.engine.run(move || work(&other));
}

/// Reads the payload of a record into `into`, several parts of a long one at once, each verified while others arrive.
pub(super) fn read(
    core: &Arc<Core>,
    file: &Arc<dyn File>,
    record: &Record,
    into: SgList,
    part: Option<&Part>,
    end: End,
) {
    let Ok(len) = usize::try_from(record.meta.len) else { return end(Err(ErrorKind::OutOfMemory.into())) };
    // Whole chunks in each group but the last: `io_bytes` is a multiple of them.
    let groups = cut(&head(into.pieces(), len), core.config.io_bytes);
    let kept = into.pieces().iter().all(Piece::is_kept);
    // Whoever ends last gives the memory back, and that is not this thread.
    drop(into);
    let reading = Arc::new(Reading {
        record: *record,
        digests: groups.iter().map(|_| Mutex::new(Ok(Vec::new()))).collect(),
        left: AtomicUsize::new(groups.len()),
        end: Mutex::new(Some(end)),
    });
    let mut offset = record.payload_at();
    for (number, group) in groups.into_iter().enumerate() {
        let (bytes, reading) = (total(&group), Arc::clone(&reading));
        let mut transfer = group_of(core, file, group, offset, move |digests| {
            reading.ended(number, digests);
        });
        transfer.deadline = part.and_then(Part::deadline);
        transfer.begin = part.cloned().map(|part| Box::new(move || part.begin_in(kept)) as Begin);
        offset += bytes as u64;
        let starting = Arc::clone(core);
        core.gate.enter(bytes as u64, move || starting.engine.submit(transfer));
    }
}

/// The transfer that fills `group` and tells the digests of its chunks.
fn group_of(
    core: &Arc<Core>,
    file: &Arc<dyn File>,
    group: Vec<Piece>,
    offset: u64,
    then: impl FnOnce(Result<Vec<u64>>) + Send + 'static,
) -> Transfer {
    let bytes = total(&group);
    let mut place = Place::new(core, group, file.is_direct());
    let pieces = std::mem::take(&mut place.pieces);
    let arriving = Arc::clone(core);
    let done: Done = Box::new(move |result| {
        arriving.gate.leave(bytes as u64);
        match result {
            Err(error) => {
                drop(place);
                then(Err(error));
            }
            Ok(arrived) if arrived < bytes => {
                drop(place);
                then(Err(ErrorKind::UnexpectedEof.into()));
            }
            Ok(_) => verify(&arriving, bytes, move |core| {
                let digests = place.digests(core);
                drop(place);
                then(digests);
            }),
        }
    });
    core.counters.calls.add(1);
    Transfer { file: Arc::clone(file), way: Way::Read, pieces, offset, deadline: None, begin: None, done }
}

/// Reads the payload of a record into `into` by calls of this thread; whether it is what was put.
pub(crate) fn verified(core: &Core, file: &dyn File, record: &Record, into: &SgList) -> Result<bool> {
    let len = usize::try_from(record.meta.len).map_err(|_| Error::from(ErrorKind::OutOfMemory))?;
    let mut offset = record.payload_at();
    let mut digests = Vec::new();
    for group in cut(&head(into.pieces(), len), core.config.io_bytes) {
        let bytes = total(&group) as u64;
        let mut place = Place::new(core, group, file.is_direct());
        if (io::read_up_to(file, &place.pieces, offset)? as u64) < bytes {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        digests.append(&mut place.digests(core)?);
        offset += bytes;
    }
    Ok(is_right(record, digests.into_iter()))
}

/// Reads the header of a block and believes it only if it is the one that the index speaks of.
pub(super) fn header(record: &Record, bytes: &mut Buffer) -> Option<Vec<u64>> {
    let parsed = Record::parse(bytes.bytes(), record.writer, record.segment, record.offset).ok();
    parsed.filter(|(found, _)| found == record).map(|(_, digests)| digests)
}

/// Bytes of the header in front of a record.
pub(super) fn header_len(record: &Record) -> Result<usize> {
    usize::try_from(header_bytes(record.meta.len)).map_err(|_| ErrorKind::OutOfMemory.into())
}
