//! The pieces' copies.

use super::ChunkHasher;

impl<F: FnMut(usize, u64)> ChunkHasher<F> {
    /// Copies the next `len` bytes of the block from `src` to `dst`.
    ///
    /// # Safety
    /// `src` is readable and `dst` writable for `len` bytes; they do not overlap. Other threads and processes may
    /// write to `src` meanwhile; the digests are then those of the bytes that arrived in `dst`.
    ///
    /// ```
    /// use cascade_core::copy::{ChunkHasher, Direction};
    /// let (head, tail, mut block) = ([1u8; 100], [2u8; 50], [0u8; 150]);
    /// let mut digests = Vec::new();
    /// let mut hasher = ChunkHasher::new(Direction::Put, 150, |_, digest| digests.push(digest));
    /// // SAFETY: the pieces are that long, and fit the block one after the other.
    /// unsafe {
    ///     hasher.copy_update(block.as_mut_ptr(), head.as_ptr(), 100);
    ///     hasher.copy_update(block.as_mut_ptr().add(100), tail.as_ptr(), 50);
    /// }
    /// assert_eq!(hasher.finish(), 150);
    /// assert_eq!(digests, [cascade_core::digest::crc64(&block)]);
    /// ```
    pub unsafe fn copy_update(&mut self, dst: *mut u8, src: *const u8, len: usize) {
        let mut at = 0;
        while at < len {
            let piece = self.chunk_rest().min(len - at);
            // SAFETY: `at + piece` is within `len`, which the caller vouches for.
            let state = unsafe { (self.copy)(dst.add(at), src.add(at), piece, self.state) };
            self.count(piece, state);
            at += piece;
        }
    }

    /// [`ChunkHasher::copy_update`] for private memory.
    #[cfg(test)]
    pub(crate) fn copy_slice(&mut self, dst: &mut [u8], src: &[u8]) {
        assert_eq!(dst.len(), src.len());
        // SAFETY: two slices of that length, one of them exclusive, so they do not overlap.
        unsafe { self.copy_update(dst.as_mut_ptr(), src.as_ptr(), src.len()) };
    }
}
