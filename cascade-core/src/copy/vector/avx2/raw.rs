//! Primitives of the 256-bit kernel.

use core::arch::x86_64::*;

use crate::copy::vector::raw::vector_kernel;
use crate::copy::vector::{finish_lane, fold_constants};

type Vector = __m256i;

vector_kernel!("avx2,vpclmulqdq,pclmulqdq", 32, 8);

#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load(src: *const u8) -> Vector {
    // SAFETY: `run` passes 32 readable bytes.
    unsafe { _mm256_loadu_si256(src.cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
unsafe fn store(dst: *mut u8, vector: Vector) {
    // SAFETY: `run` passes 32 writable bytes.
    unsafe { _mm256_storeu_si256(dst.cast(), vector) }
}

#[inline]
#[target_feature(enable = "avx2")]
unsafe fn stream(dst: *mut u8, vector: Vector) {
    // SAFETY: `run` passes 32 writable bytes at a multiple of 32; the caller of the kernel issues the fence.
    unsafe { _mm256_stream_si256(dst.cast(), vector) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn first(state: u64) -> Vector {
    _mm256_zextsi128_si256(_mm_cvtsi64_si128(state as i64))
}

#[inline]
#[target_feature(enable = "avx2")]
fn add(a: Vector, b: Vector) -> Vector {
    _mm256_xor_si256(a, b)
}

#[inline]
#[target_feature(enable = "avx2")]
fn constants<const BYTES: usize>() -> Vector {
    let [low, high] = const { fold_constants(BYTES) };
    _mm256_set_epi64x(high, low, high, low)
}

#[inline]
#[target_feature(enable = "avx2,vpclmulqdq")]
fn fold(lane: Vector, constants: Vector, next: Vector) -> Vector {
    let low = _mm256_clmulepi64_epi128::<0x00>(lane, constants);
    let high = _mm256_clmulepi64_epi128::<0x11>(lane, constants);
    add(add(low, high), next)
}

#[inline]
#[target_feature(enable = "avx2,vpclmulqdq")]
fn reduce(lane: Vector) -> u64 {
    let [low, high] = const { fold_constants(16) };
    // The second half stays where it is, and the first is moved onto it.
    let moved = fold(lane, _mm256_set_epi64x(0, 0, high, low), _mm256_setzero_si256());
    let last = _mm256_extracti128_si256::<1>(lane);
    let all = _mm_xor_si128(_mm256_castsi256_si128(moved), last);
    finish_lane(_mm_cvtsi128_si64(all) as u64, _mm_extract_epi64::<1>(all) as u64)
}
