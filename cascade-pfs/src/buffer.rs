//! Private memory in whole aligned pages, as direct I/O wants it.

use cascade_core::memory::{HostBuffer, Piece};

use crate::layout::PAGE_BYTES;

/// A buffer that begins at a page boundary. While an operation holds a piece of it, its bytes are out of reach.
#[derive(Debug)]
pub struct Buffer {
    memory: HostBuffer,
    start: usize,
    len: usize,
}

impl Buffer {
    /// `len` zero bytes.
    #[must_use]
    pub fn new(len: usize) -> Self {
        let memory = HostBuffer::zeroed(len + PAGE_BYTES);
        let address = memory.piece().as_ptr() as usize;
        Self { memory, start: address.next_multiple_of(PAGE_BYTES) - address, len }
    }

    /// A buffer that holds `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut buffer = Self::new(bytes.len());
        if let Some(place) = buffer.bytes_mut() {
            place.copy_from_slice(bytes);
        }
        buffer
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the buffer holds no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// `len` bytes from `from` on, for an operation. Empty where that reaches beyond the end.
    #[must_use]
    pub fn part(&self, from: usize, len: usize) -> Piece {
        let within = from.checked_add(len).is_some_and(|end| end <= self.len);
        let part = self.memory.piece().part(self.start + from, len).filter(|_| within);
        part.unwrap_or_else(|| Piece::shared(Vec::new().into()))
    }

    /// The whole buffer, for an operation.
    #[must_use]
    pub fn piece(&self) -> Piece {
        self.part(0, self.len)
    }

    /// The bytes, when no operation holds a piece any more.
    pub fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        let (start, end) = (self.start, self.start + self.len);
        self.memory.bytes_mut()?.get_mut(start..end)
    }

    /// What the buffer holds; empty while an operation holds a piece.
    #[must_use]
    pub fn bytes(&mut self) -> &[u8] {
        self.bytes_mut().map_or(&[], |bytes| bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_out_of_reach_while_in_use() {
        for len in [0, 1, 4096, 100_000] {
            let mut buffer = Buffer::of(&vec![9; len]);
            assert_eq!(buffer.piece().as_ptr() as usize % PAGE_BYTES, 0, "{len}");
            assert_eq!(buffer.piece().len(), len);
            let piece = buffer.piece();
            assert!(buffer.bytes_mut().is_none());
            drop(piece);
            assert_eq!(buffer.bytes_mut().map(|bytes| bytes.to_vec()), Some(vec![9; len]));
            assert!(buffer.part(len, 1).is_empty());
        }
    }
}
