//! Primitives of the 128-bit x86 kernel.

use core::arch::x86_64::*;

use crate::copy::vector::raw::vector_kernel;
use crate::copy::vector::{finish_lane, fold_constants};

type Vector = __m128i;

vector_kernel!("sse4.1,pclmulqdq", 16, 8);

#[inline]
#[target_feature(enable = "sse4.1")]
unsafe fn load(src: *const u8) -> Vector {
    // SAFETY: `run` passes 16 readable bytes.
    unsafe { _mm_loadu_si128(src.cast()) }
}

#[inline]
#[target_feature(enable = "sse4.1")]
unsafe fn store(dst: *mut u8, vector: Vector) {
    // SAFETY: `run` passes 16 writable bytes.
    unsafe { _mm_storeu_si128(dst.cast(), vector) }
}

#[inline]
#[target_feature(enable = "sse4.1")]
unsafe fn stream(dst: *mut u8, vector: Vector) {
    // SAFETY: `run` passes 16 writable bytes at a multiple of 16; the caller of the kernel issues the fence.
    unsafe { _mm_stream_si128(dst.cast(), vector) }
}

#[inline]
#[target_feature(enable = "sse4.1")]
fn first(state: u64) -> Vector {
    _mm_cvtsi64_si128(state as i64)
}

#[inline]
#[target_feature(enable = "sse4.1")]
fn add(a: Vector, b: Vector) -> Vector {
    _mm_xor_si128(a, b)
}

#[inline]
#[target_feature(enable = "sse4.1")]
fn constants<const BYTES: usize>() -> Vector {
    let [low, high] = const { fold_constants(BYTES) };
    _mm_set_epi64x(high, low)
}

#[inline]
#[target_feature(enable = "sse4.1,pclmulqdq")]
fn fold(lane: Vector, constants: Vector, next: Vector) -> Vector {
    let low = _mm_clmulepi64_si128::<0x00>(lane, constants);
    let high = _mm_clmulepi64_si128::<0x11>(lane, constants);
    add(add(low, high), next)
}

#[inline]
#[target_feature(enable = "sse4.1")]
fn reduce(lane: Vector) -> u64 {
    finish_lane(_mm_cvtsi128_si64(lane) as u64, _mm_extract_epi64::<1>(lane) as u64)
}
