//! Long blocks: their bytes are on their way before their digests are known.

use std::io::ErrorKind;
use std::sync::Arc;

use cascade_core::digest;
use cascade_core::memory::{Piece, SgList};
use cascade_core::tier::BlockMeta;

use crate::buffer::Buffer;
use crate::layout::{PAGE_BYTES, Record, header_bytes};
use crate::pieces::{head, list, rest, total};
use crate::queue::Put;
use crate::raw;

use super::Writer;
use super::run::{Draft, Progress, Run, Waiting, groups};

/// The pieces of a record whose header is not filled in yet.
struct Outline {
    header: Buffer,
    pieces: Vec<Piece>,
}

fn outline(from: &SgList) -> Option<Outline> {
    let len = from.len();
    let header = Buffer::new(usize::try_from(header_bytes(len as u64)).ok()?);
    let whole = len / PAGE_BYTES * PAGE_BYTES;
    let mut pieces = head(from.pieces(), whole);
    if whole < len {
        let last = Buffer::new(PAGE_BYTES);
        raw::gather(&list(rest(from.pieces(), whole)), &last.part(0, len - whole))?;
        pieces.push(last.piece());
    }
    Some(Outline { header, pieces })
}

impl Writer {
    /// Whether a block is long enough that its digests would keep the disk waiting: it takes several calls. Where a block of
    /// this id is known the digests come first, because the bytes may be the same.
    pub(super) fn is_long(&self, put: &Put, bytes: u64) -> bool {
        let io_bytes = self.core.config.io_bytes as u64;
        bytes >= io_bytes.saturating_add(io_bytes / 2) && self.core.catalog.read().find(&put.id).is_none()
    }

    /// Writes a block behind the draft, which is launched before it, as a run of its own: all calls but the first are under way
    /// while the digests are made, and the first, which begins with the header, follows. The put is given back where that
    /// cannot be, and nothing was written.
    pub(super) fn place_long(&mut self, draft: &mut Draft, put: Put) -> Option<Put> {
        let Some(Outline { header: mut page, pieces }) = outline(&put.from) else { return Some(put) };
        self.launch(std::mem::take(draft));
        let Some(open) = self.open.as_mut() else { return Some(put) };
        open.set_aside(&self.core);
        let (id, len, start) = (put.id, put.from.len() as u64, open.end);
        let first = open.take_first();
        let (segment, file) = (open.id, Arc::clone(&open.file));
        // Where each call begins depends on what stands before the payload.
        let before = first.as_ref().map_or(0, Buffer::len) + page.len();
        let at = start + page.len() as u64 - before as u64;
        let blank = Buffer::new(before);
        let mut all = vec![blank.piece()];
        all.extend(pieces);
        let bytes = total(&all) as u64;
        let mut groups = groups(&self.core, &all, at, bytes).into_iter();
        drop((all, blank));
        let begin = groups.next().unwrap_or_default();
        let progress = Arc::new(Progress::of(1 + groups.len()));
        let mut offset = at + total(&begin) as u64;
        for group in groups {
            let len = total(&group) as u64;
            self.start(&file, group, offset, &progress);
            offset += len;
        }
        let digests = raw::digests(put.from.pieces(), put.from.len());
        let root = digest::root(id.as_bytes(), len, digests.iter().copied());
        let sequence = put.moved.unwrap_or_else(|| self.core.catalog.write().next_sequence());
        let meta = BlockMeta { len, digest: root, class: put.meta.class, tenant: put.meta.tenant };
        let record =
            Record { writer: segment.writer, segment: segment.number, offset: start, sequence, id, meta };
        let filled = page.bytes_mut().map(|bytes| record.write(&digests, bytes)).is_some();
        let mut beginning: Vec<Piece> = first.iter().map(Buffer::piece).collect();
        beginning.push(page.piece());
        beginning.extend(rest(&begin, before));
        match filled {
            true => self.start(&file, beginning, at, &progress),
            false => progress.ended(Err(ErrorKind::OutOfMemory.into())),
        }
        self.segment_mut(segment).into_iter().for_each(|open| open.end += record.bytes());
        let waiting = vec![Waiting { record, part: put.part, from: put.from }];
        self.runs.push_back(Run { segment, waiting, start, progress });
        self.look_ahead();
        None
    }
}
