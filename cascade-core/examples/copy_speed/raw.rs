//! The measured calls, on two buffers that own their memory.

use cascade_core::copy::{self, Direction, Kernel, StoreKind};
use cascade_core::digest::chunk_count;

/// Source and destination of all copies, and room for their digests.
pub(crate) struct Buffers {
    src: Vec<u8>,
    dst: Vec<u8>,
    digests: Vec<u64>,
}

impl Buffers {
    /// Touched buffers of `bytes` bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        Self { src: vec![1; bytes], dst: vec![2; bytes], digests: vec![0; chunk_count(bytes)] }
    }

    /// Pointers for a copy of `bytes` bytes, and its digests.
    fn parts(&mut self, bytes: usize) -> (*mut u8, *const u8, &mut [u64]) {
        let (dst, src) = (&mut self.dst[..bytes], &self.src[..bytes]);
        (dst.as_mut_ptr(), src.as_ptr(), &mut self.digests[..chunk_count(bytes)])
    }

    pub(crate) fn memcpy(&mut self, bytes: usize) {
        let (dst, src, _) = self.parts(bytes);
        // SAFETY: `parts` are two distinct buffers of at least that length.
        unsafe { src.copy_to_nonoverlapping(dst, bytes) };
        std::hint::black_box(&mut self.dst);
    }

    pub(crate) fn copy_only(&mut self, kernel: Kernel, store: StoreKind, bytes: usize) {
        let (dst, src, _) = self.parts(bytes);
        // SAFETY: `parts` are two distinct buffers of at least that length.
        unsafe { copy::copy_only(kernel, store, dst, src, bytes) };
    }

    pub(crate) fn copy_digest(&mut self, kernel: Kernel, store: StoreKind, bytes: usize) {
        let (dst, src, digests) = self.parts(bytes);
        // SAFETY: `parts` are two distinct buffers of at least that length.
        unsafe { copy::copy_digest(kernel, store, dst, src, bytes, digests) };
    }

    pub(crate) fn digest_only(&mut self, kernel: Kernel, bytes: usize) {
        let (_, src, digests) = self.parts(bytes);
        // SAFETY: `src` is a buffer of at least that length.
        unsafe { copy::digest_only(kernel, src, bytes, digests) };
    }

    pub(crate) fn copy_chunks(&mut self, direction: Direction, bytes: usize) {
        let (dst, src, digests) = self.parts(bytes);
        // SAFETY: `parts` are two distinct buffers of at least that length.
        unsafe { copy::copy_chunks(dst, src, bytes, direction, digests) };
    }
}
