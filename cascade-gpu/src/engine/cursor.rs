//! Two lists, cut into runs that have one source and one destination each.

use cascade_core::memory::{Piece, SgList, Space};

use crate::device::{Device, Ranges, Run};

/// A place in a list.
#[derive(Debug)]
struct Place<'a> {
    pieces: &'a [Piece],
    offset: usize,
}

impl Place<'_> {
    /// Address and bytes left in the piece, where registrations end too.
    fn here(&self, bounds: &Bounds<'_>) -> Option<(usize, usize)> {
        let piece = self.pieces.first()?;
        let address = piece.as_ptr() as usize + self.offset;
        let left = piece.len() - self.offset;
        Some((address, left.min(bounds.from(piece, address))))
    }

    fn advance(&mut self, len: usize) {
        self.offset += len;
        if self.pieces.first().is_some_and(|piece| piece.len() == self.offset) {
            self.pieces = &self.pieces[1..];
            self.offset = 0;
        }
    }
}

/// Where a run of host memory must end.
#[derive(Debug)]
pub(super) struct Bounds<'a> {
    pub(super) ranges: &'a Ranges,
    pub(super) device: &'a dyn Device,
}

impl Bounds<'_> {
    /// Bytes from `address` on, in `piece`, that one copy may cover; 0 for host memory that is not registered.
    fn from(&self, piece: &Piece, address: usize) -> usize {
        match (piece.space(), self.ranges.from(address)) {
            (Space::Device(_), _) => usize::MAX,
            (Space::Host, 0) => self.device.pinned_from(address),
            (Space::Host, bytes) => bytes,
        }
    }

    /// Whether copies can reach the whole list without staging.
    pub(super) fn cover(&self, list: &SgList) -> bool {
        list.pieces().iter().all(|piece| self.reaches(piece))
    }

    /// Whether copies can reach the whole piece.
    pub(super) fn reaches(&self, piece: &Piece) -> bool {
        piece.space() != Space::Host
            || self.ranges.cover(piece)
            || self.device.pinned_from(piece.as_ptr() as usize) >= piece.len()
    }
}

/// Walks through both lists at once.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    dst: Place<'a>,
    src: Place<'a>,
    bounds: Bounds<'a>,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(dst: &'a SgList, src: &'a SgList, bounds: Bounds<'a>) -> Self {
        let place = |list: &'a SgList| Place { pieces: list.pieces(), offset: 0 };
        Self { dst: place(dst), src: place(src), bounds }
    }

    /// Appends the runs of the next `bytes` bytes to `out`, none longer than `longest`; neighbours become one run. `false`
    /// when a list ends before, or is not registered.
    pub(super) fn take(&mut self, mut bytes: usize, longest: usize, out: &mut Vec<Run>) -> bool {
        let mut may_join = false;
        while bytes > 0 {
            let (Some((dst, a)), Some((src, b))) = (self.dst.here(&self.bounds), self.src.here(&self.bounds))
            else {
                return false;
            };
            let len = a.min(b).min(bytes).min(longest);
            if len == 0 {
                return false;
            }
            let run = Run { dst: dst as u64, src: src as u64, len: len as u64 };
            match out.last_mut().filter(|last| may_join && follows(last, &run, longest)) {
                Some(last) => last.len += run.len,
                None => out.push(run),
            }
            // A run of host memory that ended with its registration stays apart from the next.
            may_join = self.ends_with_piece(len);
            self.dst.advance(len);
            self.src.advance(len);
            bytes -= len;
        }
        true
    }

    /// Whether the next `len` bytes end where no registration does.
    fn ends_with_piece(&self, len: usize) -> bool {
        [&self.dst, &self.src].into_iter().all(|place| {
            place.pieces.first().is_some_and(|piece| {
                let address = piece.as_ptr() as usize + place.offset;
                self.bounds.from(piece, address) > len
            })
        })
    }
}

fn follows(last: &Run, run: &Run, longest: usize) -> bool {
    last.dst + last.len == run.dst && last.src + last.len == run.src && last.len + run.len <= longest as u64
}

/// `len` bytes of `list` from `offset` on, which it has.
pub(super) fn slice(list: &SgList, offset: usize, len: usize) -> SgList {
    let mut part = SgList::new();
    let (mut skip, mut left) = (offset, len);
    for piece in list.pieces() {
        if left == 0 {
            break;
        }
        let from = skip.min(piece.len());
        let take = (piece.len() - from).min(left);
        skip -= from;
        left -= take;
        if let Some(piece) = piece.part(from, take) {
            part.push(piece);
        }
    }
    part
}

/// The first `len` bytes of `list`, which it has, in parts of `part` bytes; the last is what is left.
pub(super) fn cut(list: &SgList, len: usize, part: usize) -> Vec<SgList> {
    let mut parts = Vec::with_capacity(len.div_ceil(part.max(1)));
    let (mut left, mut open) = (len, SgList::new());
    for piece in list.pieces() {
        let mut at = 0;
        while at < piece.len() && left > 0 {
            let take = (part - open.len()).min(piece.len() - at).min(left);
            piece.part(at, take).into_iter().for_each(|piece| open.push(piece));
            (at, left) = (at + take, left - take);
            if open.len() == part || left == 0 {
                parts.push(std::mem::take(&mut open));
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_list_is_cut_into_parts_of_one_length() {
        let memory = Piece::shared(Arc::from(vec![0u8; 1000]));
        let mut list = SgList::new();
        for (at, len) in [(0, 10), (10, 0), (10, 290), (300, 700)] {
            memory.part(at, len).into_iter().for_each(|piece| list.push(piece));
        }
        let parts = cut(&list, 950, 300);
        let lens: Vec<_> = parts.iter().map(|part| (part.len(), part.pieces().len())).collect();
        assert_eq!(lens, [(300, 2), (300, 1), (300, 1), (50, 1)]);
        let first = memory.as_ptr() as usize;
        let starts: Vec<_> = parts.iter().map(|part| part.pieces()[0].as_ptr() as usize - first).collect();
        assert_eq!(starts, [0, 300, 600, 900]);
    }
}
