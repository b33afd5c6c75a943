//! Memory that operations read and write: typed pieces in lists, never a bare integer.

mod raw;

use std::any::Any;
use std::sync::Arc;

pub use raw::{HostBuffer, Piece};

/// Where a piece lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    /// Memory of this process that the CPU reads and writes.
    Host,
    /// Memory of the CUDA device with this ordinal.
    Device(u32),
}

/// A list of pieces, in order: an engine's scattered pages need no packing.
#[derive(Clone, Debug, Default)]
pub struct SgList {
    pieces: Vec<Piece>,
    len: usize,
}

impl SgList {
    /// An empty list.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a piece. An empty piece is left out.
    pub fn push(&mut self, piece: Piece) {
        if !piece.is_empty() {
            self.len += piece.len();
            self.pieces.push(piece);
        }
    }

    /// The pieces in order.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// What keeps the pieces' memory alive, one for neighbours that share it: all that an operation must hold once the list has
    /// been read. A list of pages has one owner, and a hundred thousand references to it.
    #[must_use]
    pub fn into_owners(self) -> Vec<Arc<dyn Any + Send + Sync>> {
        let mut owners: Vec<Arc<dyn Any + Send + Sync>> = Vec::new();
        for owner in self.pieces.into_iter().filter_map(Piece::into_owner) {
            if owners.last().is_none_or(|last| !Arc::ptr_eq(last, &owner)) {
                owners.push(owner);
            }
        }
        owners
    }

    /// Sum of the pieces' lengths in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the list holds no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the CPU can reach every piece.
    #[must_use]
    pub fn is_host(&self) -> bool {
        self.pieces.iter().all(|piece| piece.space() == Space::Host)
    }

    /// Whether every piece may be written.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.pieces.iter().all(Piece::is_writable)
    }
}

impl From<Piece> for SgList {
    fn from(piece: Piece) -> Self {
        let mut list = Self::new();
        list.push(piece);
        list
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_list_adds_up_and_leaves_empty_pieces_out() {
        let mut list = SgList::new();
        list.push(Piece::shared(Arc::from(&b"abc"[..])));
        list.push(Piece::shared(Arc::from(&b""[..])));
        assert_eq!((list.len(), list.pieces().len()), (3, 1));
        assert!(list.is_host() && !list.is_writable());
    }

    #[test]
    fn a_part_lies_within_its_piece() {
        let piece = Piece::shared(Arc::from(&b"abcdef"[..]));
        let part =
            piece.part(2, 3).map(|part| (part.as_ptr() as usize - piece.as_ptr() as usize, part.len()));
        assert_eq!(part, Some((2, 3)));
        assert!(piece.part(6, 0).is_some_and(|end| end.is_empty()));
        assert!(piece.part(4, 3).is_none() && piece.part(usize::MAX, 2).is_none());
    }

    #[test]
    fn a_buffer_in_use_gives_no_access() {
        let mut buffer = HostBuffer::zeroed(8);
        let piece = buffer.piece();
        assert!(buffer.bytes_mut().is_none(), "an operation may be writing");
        drop(piece);
        assert_eq!(buffer.bytes_mut().map(|bytes| bytes.len()), Some(8));
    }
}
