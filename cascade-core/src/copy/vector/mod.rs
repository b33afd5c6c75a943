//! Vector kernels: carry-less multiplication folds the digest while the bytes are on their way.
//!
//! A fold keeps the message so far as a remainder in one register for each of several independent lanes; a lane is
//! moved over the bytes to come by two multiplications with powers of x, then the new bytes are added. At the end the
//! lanes are merged and the last 16 bytes go through the tables. Each vector is loaded once, so the digest is that of
//! the bytes that were stored, also when the source changes meanwhile.

mod raw;

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) mod pmull;
#[cfg(target_arch = "x86_64")]
pub(crate) mod sse;

/// Multipliers `[for the low word, for the high word]` that move a 128-bit lane over `bytes` bytes.
///
/// The low word holds the higher powers, hence the 64; the product of two reflected words is off by one power.
const fn fold_constants(bytes: usize) -> [i64; 2] {
    use crate::digest::tables::x_to;
    [x_to(8 * bytes + 63) as i64, x_to(8 * bytes - 1) as i64]
}

/// The state after the 16 bytes of a fully folded lane.
#[inline]
fn finish_lane(low: u64, high: u64) -> u64 {
    use crate::digest::tables::step_word;
    step_word(step_word(0, low), high)
}
