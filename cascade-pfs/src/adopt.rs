//! Who lives, and what becomes of the segments of those who do not.

use std::collections::BTreeSet;
use std::io::Result;

use crate::buffer::Buffer;
use crate::core::{Core, is_lost};
use crate::follow::Follow;
use crate::fs::Access;
use crate::inspect;
use crate::io;
use crate::layout::{Damage, Identity, PAGE_BYTES, WriterId};
use crate::names::{Name, SegmentId};
use crate::process;
use crate::queue::Request;
use crate::recover;

/// Whether a writer certainly writes no more. In doubt it lives.
pub(crate) fn is_dead(core: &Core, follow: &Follow, writer: WriterId) -> bool {
    !core.is_me(writer) && (follow.has_ended(writer) || is_gone(core, writer).unwrap_or(false))
}

fn is_gone(core: &Core, writer: WriterId) -> Result<bool> {
    // Opening, the lock, and two times.
    core.counters.metadata.add(4);
    // Who only reads has no file of its own to compare times with.
    let Some((me, life)) = core.me() else {
        return Ok(inspect::life(core, writer)?.is_over(core.config.adopt_after));
    };
    let file = match core.fs.open(&core.path(Name::Writer(writer)), Access::Read, false) {
        // Made first and removed among the last: whoever has none is on its way out.
        Err(error) if is_lost(&error) => return Ok(true),
        other => other?,
    };
    let mut page = Buffer::new(PAGE_BYTES);
    let read = io::read_up_to(file.as_ref(), &[page.piece()], 0)?;
    let identity = Identity::parse(page.bytes().get(..read).unwrap_or(&[]));
    if let Ok(other) = &identity
        && process::is_neighbour(&me, other)
    {
        // A lock that is free is as good as a death certificate, and so is a process that is not there; a lock alone stays
        // held by forked children, a pid alone is used again.
        return Ok(matches!(file.is_locked(), Ok(false)) || process::is_gone(&me, other));
    }
    if matches!(file.is_locked(), Ok(true)) {
        return Ok(false);
    }
    // Both times are the file system's, so that clocks of nodes do not matter.
    let age = life.touched()?.duration_since(file.touched()?).unwrap_or_default();
    Ok(age > core.config.adopt_after)
}

/// Takes over the segments of every dead writer that nobody living has claimed.
pub(crate) fn adopt_dead(core: &Core, follow: &Follow, names: &[Name]) {
    if core.is_read_only() {
        return;
    }
    let writers: BTreeSet<WriterId> = names.iter().map(Name::writer).collect();
    for writer in writers {
        if is_dead(core, follow, writer) && claim(core, follow, names, writer).unwrap_or(false) {
            adopt(core, names, writer);
        }
    }
}

/// Claims a dead writer; `false` when a living one has.
fn claim(core: &Core, follow: &Follow, names: &[Name], writer: WriterId) -> Result<bool> {
    let Some((me, _)) = core.me() else { return Ok(false) };
    let claims = names.iter().filter_map(|name| match name {
        Name::Claim(of, number) if *of == writer => Some(*number),
        _ => None,
    });
    let last = claims.max();
    if let Some(number) = last {
        let file = core.fs.open(&core.path(Name::Claim(writer, number)), Access::Read, false)?;
        let mut page = Buffer::new(PAGE_BYTES);
        let read = io::read_up_to(file.as_ref(), &[page.piece()], 0)?;
        match Identity::parse(page.bytes().get(..read).unwrap_or(&[])) {
            Ok(claimant) if !is_dead(core, follow, claimant.writer) => return Ok(false),
            Ok(_) => {}
            Err(Damage::Version) => {
                core.is_other(Name::Claim(writer, number), page.bytes());
                return Ok(false);
            }
            // Being written, or never finished: its age tells.
            Err(_) => {
                let age = life_age(core, file.as_ref())?;
                if age <= core.config.adopt_after {
                    return Ok(false);
                }
            }
        }
    }
    // What it wrote cannot be judged here, and so neither be kept nor given up. That its log has ended says nothing.
    let mut files = names.iter().filter(|name| name.writer() == writer);
    if files.any(|name| core.reads_other(*name)) {
        return Ok(false);
    }
    let name = Name::Claim(writer, last.map_or(0, |number| number.wrapping_add(1)));
    core.counters.metadata.add(1);
    // Of two that try, one makes the file.
    let Ok(file) = core.fs.open(&core.path(name), Access::Create, false) else { return Ok(false) };
    core.counters.creates.add(1);
    io::write_all(file.as_ref(), &[Buffer::of(&me.to_page()).piece()], 0)?;
    Ok(true)
}

fn life_age(core: &Core, file: &dyn crate::fs::File) -> Result<std::time::Duration> {
    let Some((_, life)) = core.me() else { return Ok(std::time::Duration::ZERO) };
    Ok(life.touched()?.duration_since(file.touched()?).unwrap_or_default())
}

fn adopt(core: &Core, names: &[Name], writer: WriterId) {
    let mut left = 0;
    for id in recover::segments(names).filter(|id| id.writer == writer) {
        let (dropped, known) = {
            let catalog = core.catalog.read();
            (catalog.is_dropped(id), catalog.segments.get(&id).is_some_and(|segment| segment.closed))
        };
        if dropped {
            // Its writer died before it came to this.
            core.counters.metadata.add(1);
            if core.fs.remove(&core.path(Name::Segment(id))).is_ok() {
                core.counters.removes.add(1);
            }
            continue;
        }
        if !known && recover::scan(core, id).is_err() {
            core.counters.io_errors.add(1);
        }
        cut(core, id);
        core.catalog.write().segments.entry(id).or_default().owned = true;
        left += 1;
    }
    core.counters.adopted.add(1);
    if left == 0 {
        // Refused only while the tier is being closed; then the next one does it.
        let _ = core.queue.push(Request::Bury(writer), 0);
    }
}

/// Gives back the room that a dead writer had set aside behind what it wrote: it would count against this writer's capacity.
fn cut(core: &Core, id: SegmentId) {
    let mut last = None;
    while let Some(end) = room_behind(core, id).filter(|end| Some(*end) != last) {
        core.counters.metadata.add(2);
        match core.fs.trim(&core.path(Name::Segment(id)), end) {
            Ok(true) => {
                if let Some(segment) = core.catalog.write().segments.get_mut(&id) {
                    segment.file_bytes = end;
                }
            }
            // A write that the kernel had already when its process was killed may have come to its end only now: it is found here,
            // and not by who opens next, after this writer has said that there is no such block.
            Ok(false) if recover::scan(core, id).is_ok() => {}
            _ => core.counters.io_errors.add(1),
        }
        last = Some(end);
    }
}

/// Where the records of a segment that is not closed end, if there is something behind them.
fn room_behind(core: &Core, id: SegmentId) -> Option<u64> {
    let catalog = core.catalog.read();
    let segment = catalog.segments.get(&id).filter(|segment| !segment.closed)?;
    let end = segment.known_to.max(PAGE_BYTES as u64);
    (end < segment.file_bytes).then_some(end)
}
