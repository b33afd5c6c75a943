//! The loop that all vector kernels share.

/// Defines `run::<OP>(dst, src, len, state) -> state` from the primitives of the module that invokes it: `Vector`,
/// `load`, `store`, `stream`, `fold(lane, constants, next)`, `constants(bytes)`, `first(state)`, `add`, `reduce`.
///
/// `$width`: bytes of a vector; `$lanes`: independent folds, to hide the multiplier's latency.
macro_rules! vector_kernel {
    ($features:literal, $width:literal, $lanes:literal) => {
        /// Copies and digests `len` bytes as `OP` says; returns the digest state after them.
        ///
        /// # Safety
        /// The CPU has the features of this kernel. `src` is readable and, if `OP` stores, `dst` writable for `len`
        /// bytes; they do not overlap.
        #[target_feature(enable = $features)]
        pub(crate) unsafe fn run<const OP: u8>(
            mut dst: *mut u8,
            mut src: *const u8,
            mut len: usize,
            mut state: u64,
        ) -> u64 {
            use crate::copy::op::{DIGEST, STREAM};
            use crate::copy::scalar::raw::{line_gap, piece};
            // SAFETY: every access is at an offset below `len` of the caller's ranges, by the checks on `len` before
            // it; the head makes `dst` line-aligned, which `stream` needs, and the strides keep it so.
            unsafe {
                if OP & STREAM != 0 {
                    let head = line_gap(dst).min(len);
                    state = piece::<OP>(dst, src, head, state);
                    (dst, src, len) = (dst.wrapping_add(head), src.wrapping_add(head), len - head);
                }
                if len >= $width {
                    let mut lane;
                    (lane, dst, src, len) = strides::<OP>(dst, src, len, state);
                    while len >= $width {
                        let next = pass::<OP>(dst, src);
                        if OP & DIGEST != 0 {
                            lane = fold(lane, constants::<$width>(), next);
                        }
                        (dst, src, len) = (dst.add($width), src.add($width), len - $width);
                    }
                    if OP & DIGEST != 0 {
                        state = reduce(lane);
                    }
                }
                piece::<OP>(dst, src, len, state)
            }
        }

        /// Loads one vector and stores it as `OP` says.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn pass<const OP: u8>(dst: *mut u8, src: *const u8) -> Vector {
            use crate::copy::op::{PLAIN, STREAM};
            // SAFETY: by the contract of `run`, whose offsets these are.
            unsafe {
                let vector = load(src);
                if OP & PLAIN != 0 {
                    store(dst, vector);
                }
                if OP & STREAM != 0 {
                    stream(dst, vector);
                }
                vector
            }
        }

        /// Takes whole strides of all lanes, or one vector where there is none; returns the merged lane and the rest.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn strides<const OP: u8>(
            mut dst: *mut u8,
            mut src: *const u8,
            mut len: usize,
            state: u64,
        ) -> (Vector, *mut u8, *const u8, usize) {
            use crate::copy::op::{DIGEST, STREAM};
            use crate::copy::scalar::raw::fetch_ahead;
            const STRIDE: usize = $width * $lanes;
            // SAFETY: `run` has checked that there is one vector; the strides are counted against `len`.
            unsafe {
                let mut lanes = [first(state); $lanes];
                lanes[0] = add(lanes[0], pass::<OP>(dst, src));
                if len < STRIDE {
                    return (lanes[0], dst.add($width), src.add($width), len - $width);
                }
                for (i, lane) in lanes.iter_mut().enumerate().skip(1) {
                    *lane = pass::<OP>(dst.add(i * $width), src.add(i * $width));
                }
                (dst, src, len) = (dst.add(STRIDE), src.add(STRIDE), len - STRIDE);
                while len >= STRIDE {
                    if OP & STREAM != 0 {
                        fetch_ahead(src, STRIDE);
                    }
                    for (i, lane) in lanes.iter_mut().enumerate() {
                        let next = pass::<OP>(dst.add(i * $width), src.add(i * $width));
                        if OP & DIGEST != 0 {
                            *lane = fold(*lane, constants::<STRIDE>(), next);
                        }
                    }
                    (dst, src, len) = (dst.add(STRIDE), src.add(STRIDE), len - STRIDE);
                }
                let mut merged = lanes[0];
                if OP & DIGEST != 0 {
                    for lane in &lanes[1..] {
                        merged = fold(merged, constants::<$width>(), *lane);
                    }
                }
                (merged, dst, src, len)
            }
        }
    };
}

pub(super) use vector_kernel;
