//! The table kernel, slice-by-8: one word at a time.

use crate::copy::op::{DIGEST, PLAIN, STREAM};
use crate::digest::tables::{step_byte, step_word};

/// Bytes of a cache line, the unit of streaming stores.
const LINE_BYTES: usize = 64;

/// Bytes from `dst` up to the next cache line.
#[inline]
pub(crate) fn line_gap(dst: *const u8) -> usize {
    dst.addr().wrapping_neg() % LINE_BYTES
}

/// Copies with ordinary stores (if `OP` stores at all) and digests `len` bytes.
///
/// # Safety
/// `src` is readable and, if `OP` stores, `dst` writable for `len` bytes; they do not overlap.
#[inline]
pub(crate) unsafe fn piece<const OP: u8>(dst: *mut u8, src: *const u8, len: usize, mut state: u64) -> u64 {
    let mut at = 0;
    // SAFETY: all offsets are below `len`, and no access asks for alignment. Each byte is read once, into a local,
    // and stored before it is digested: `dst` may alias anything for the compiler, so it cannot read again.
    unsafe {
        while at + 8 <= len {
            let word = src.add(at).cast::<u64>().read_unaligned();
            if OP & (PLAIN | STREAM) != 0 {
                dst.add(at).cast::<u64>().write_unaligned(word);
            }
            if OP & DIGEST != 0 {
                state = step_word(state, u64::from_le(word));
            }
            at += 8;
        }
        while at < len {
            let byte = src.add(at).read();
            if OP & (PLAIN | STREAM) != 0 {
                dst.add(at).write(byte);
            }
            if OP & DIGEST != 0 {
                state = step_byte(state, byte);
            }
            at += 1;
        }
    }
    state
}

/// Copies and digests `len` bytes as `OP` says; returns the digest state after them.
///
/// # Safety
/// As [`piece`].
pub(crate) unsafe fn run<const OP: u8>(
    mut dst: *mut u8,
    mut src: *const u8,
    mut len: usize,
    mut state: u64,
) -> u64 {
    // SAFETY: offsets stay below `len`; the head makes `dst` line-aligned, which the streaming word store needs.
    unsafe {
        if OP & STREAM != 0 {
            let head = line_gap(dst).min(len);
            state = piece::<OP>(dst, src, head, state);
            (dst, src, len) = (dst.wrapping_add(head), src.wrapping_add(head), len - head);
            while len >= 8 {
                let word = src.cast::<u64>().read_unaligned();
                stream_word(dst, word);
                if OP & DIGEST != 0 {
                    state = step_word(state, u64::from_le(word));
                }
                (dst, src, len) = (dst.add(8), src.add(8), len - 8);
            }
        }
        piece::<OP>(dst, src, len, state)
    }
}

/// # Safety
/// `dst` is writable for 8 bytes and a multiple of 8.
#[inline]
unsafe fn stream_word(dst: *mut u8, word: u64) {
    // SAFETY: as the function's; on x86_64 the caller of the kernel issues the fence.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        core::arch::x86_64::_mm_stream_si64(dst.cast(), word as i64);
        #[cfg(not(target_arch = "x86_64"))]
        dst.cast::<u64>().write(word);
    }
}

/// Bytes between what a streaming copy reads and what it asks for ahead: hardware prefetchers stop at each page, and the
/// fold keeps the core from running ahead by itself. On an EPYC (Zen 4), one thread, 1 MiB: 57 us instead of 69.
const AHEAD_BYTES: usize = 2048;

/// Brings `bytes` bytes, some way behind `src`, into the cache; where they lie need not be readable.
#[inline]
pub(crate) fn fetch_ahead(src: *const u8, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..bytes).step_by(LINE_BYTES) {
        // SAFETY: a prefetch reads nothing architecturally and cannot fault, wherever it points.
        unsafe {
            use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(src.wrapping_add(AHEAD_BYTES + line).cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (src, bytes);
}

/// Orders streaming stores before every later store of this thread, so that a seal published after it covers them.
pub(crate) fn stream_fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SFENCE has no precondition; every x86_64 CPU has it.
    unsafe {
        core::arch::x86_64::_mm_sfence();
    }
}
