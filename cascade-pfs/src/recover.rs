//! What a tier finds when it is opened: logs, and for segments that no log knows to the end, footers or headers.

use std::collections::HashSet;
use std::io::Result;

use crate::adopt;
use crate::buffer::Buffer;
use crate::core::{Core, is_lost};
use crate::follow::Follow;
use crate::fs::{Access, File};
use crate::io;
use crate::layout::{PAGE_BYTES, PREFIX_BYTES, Record, Trailer, WriterId, header_bytes, parse_index};
use crate::names::{Name, SegmentId};
use crate::pieces::list;
use crate::queue::Request;

/// Fills the catalog of a tier that is being opened.
pub(crate) fn load(core: &Core, follow: &mut Follow) -> Vec<Name> {
    let names = follow.look(core);
    let present: HashSet<SegmentId> = segments(&names).collect();
    let mut living: HashSet<WriterId> = HashSet::new();
    let mut dead: HashSet<WriterId> = HashSet::new();
    let mut others: HashSet<WriterId> = HashSet::new();
    for id in present.iter().copied() {
        let known = {
            let catalog = core.catalog.read();
            catalog.is_dropped(id) || catalog.segments.get(&id).is_some_and(|segment| segment.closed)
        };
        if known || living.contains(&id.writer) {
            continue;
        }
        if others.contains(&id.writer) {
            core.reads_other(Name::Segment(id));
            continue;
        }
        // A writer that lives tells what there is to know by its log, and one of another version to its like.
        if core.reads_other(Name::Writer(id.writer)) {
            others.insert(id.writer);
            core.reads_other(Name::Segment(id));
            continue;
        }
        if !dead.contains(&id.writer) && !adopt::is_dead(core, follow, id.writer) {
            living.insert(id.writer);
            continue;
        }
        dead.insert(id.writer);
        if let Err(error) = scan(core, id)
            && !is_lost(&error)
        {
            core.counters.io_errors.add(1);
        }
    }
    // After the scans: a log may lag behind where the blocks of a removed segment went. A writer that lives may have made the
    // segment since the names were read.
    let missing: Vec<SegmentId> =
        core.catalog.read().segments.keys().filter(|id| !present.contains(id)).copied().collect();
    for id in missing {
        if dead.contains(&id.writer) || adopt::is_dead(core, follow, id.writer) {
            let mut catalog = core.catalog.write();
            for resident in catalog.residents(id) {
                hide(core, &resident.record);
            }
            catalog.drop_segment(id);
        }
    }
    names
}

/// A log names a block that is not there: an older version of it is not to come back when that log is gone.
fn hide(core: &Core, record: &Record) {
    let _ = core.queue.push(Request::Hide(*record), 0);
}

/// The segments among `names`.
pub(crate) fn segments(names: &[Name]) -> impl Iterator<Item = SegmentId> {
    names.iter().filter_map(|name| match name {
        Name::Segment(id) => Some(*id),
        _ => None,
    })
}

/// Takes note of the records of a segment that has no living writer.
pub(crate) fn scan(core: &Core, id: SegmentId) -> Result<()> {
    core.counters.metadata.add(4);
    // A block that comes to light after somebody has said that there is none would come back from the dead.
    // Who may only read cannot wait for it, and finds such a block the next time it opens, or never.
    if !core.is_read_only()
        && core.fs.settle(&core.path(Name::Segment(id))).is_err_and(|error| !is_lost(&error))
    {
        core.counters.io_errors.add(1);
    }
    let file = core.fs.open(&core.path(Name::Segment(id)), Access::Read, false)?;
    let len = file.len_bytes()?;
    // The log may have outlived what it speaks of.
    {
        let mut catalog = core.catalog.write();
        let beyond = catalog.residents(id).into_iter().map(|resident| resident.record);
        for record in beyond.filter(|record| record.offset.saturating_add(record.bytes()) > len) {
            catalog.remove(&record);
            hide(core, &record);
        }
    }
    let mut page = Buffer::new(PAGE_BYTES);
    let read = io::read_up_to(file.as_ref(), &[page.piece()], 0)?;
    // Footer and headers say themselves where they belong; only what another version wrote is left alone.
    if read < PAGE_BYTES || core.is_other(Name::Segment(id), page.bytes()) {
        return Ok(());
    }
    if let Some(records) = footer(file.as_ref(), id, len)? {
        let mut catalog = core.catalog.write();
        records.into_iter().for_each(|record| catalog.put(record));
        if let Some(segment) = catalog.segments.get_mut(&id) {
            (segment.closed, segment.file_bytes) = (true, len);
        }
        return Ok(());
    }
    headers(core, file.as_ref(), id, len)
}

fn footer(file: &dyn File, id: SegmentId, len: u64) -> Result<Option<Vec<Record>>> {
    let Some(last) = len.checked_sub(PAGE_BYTES as u64).filter(|at| *at > 0) else { return Ok(None) };
    let mut page = io::read_bytes(file, last, PAGE_BYTES)?;
    let Ok(trailer) = Trailer::parse(page.bytes(), id.writer, id.number, len) else { return Ok(None) };
    let Ok(index_len) = usize::try_from(trailer.index_bytes()) else { return Ok(None) };
    let mut index = io::read_bytes(file, trailer.index_at, index_len)?;
    Ok(parse_index(index.bytes(), &trailer, id.writer, id.number).ok())
}

/// Walks the headers from where the log ended, up to the first record that is not whole.
fn headers(core: &Core, file: &dyn File, id: SegmentId, len: u64) -> Result<()> {
    let known = core.catalog.read().segments.get(&id).map_or(0, |segment| segment.known_to);
    let mut at = if known <= len { known.max(PAGE_BYTES as u64) } else { PAGE_BYTES as u64 };
    while let Some(record) = record_at(file, id, at, len)? {
        // What no log tells may have been cut off in the middle: it is read once, whole.
        if !is_whole(core, file, &record)? {
            break;
        }
        at += record.bytes();
        core.catalog.write().put(record);
    }
    // Also where no record is: it takes room.
    core.catalog.write().segments.entry(id).or_default().file_bytes = len;
    Ok(())
}

/// The record whose header stands at `at`, if it is good and within the file.
pub(crate) fn record_at(file: &dyn File, id: SegmentId, at: u64, len: u64) -> Result<Option<Record>> {
    let room = len.saturating_sub(at);
    if room < PAGE_BYTES as u64 {
        return Ok(None);
    }
    let mut page = io::read_bytes(file, at, PAGE_BYTES)?;
    let prefix = page.bytes().get(..PREFIX_BYTES).unwrap_or(&[]);
    let announced = Record::announced(prefix).ok().filter(|bytes| *bytes <= room);
    let Some(bytes) = announced.and_then(|bytes| usize::try_from(bytes).ok()) else { return Ok(None) };
    let mut header = if bytes > PAGE_BYTES { io::read_bytes(file, at, bytes)? } else { page };
    let parsed = Record::parse(header.bytes(), id.writer, id.number, at).ok();
    Ok(parsed.map(|(record, _)| record).filter(|record| record.bytes() <= room))
}

fn is_whole(core: &Core, file: &dyn File, record: &Record) -> Result<bool> {
    // `record_at` has seen that the file is as long as the record says, so this is memory for bytes that exist.
    let Ok(len) = usize::try_from(record.meta.len) else { return Ok(false) };
    let buffer = Buffer::new(len);
    debug_assert!(header_bytes(record.meta.len) >= PAGE_BYTES as u64);
    crate::read::verified(core, file, record, &list(vec![buffer.piece()]))
}
