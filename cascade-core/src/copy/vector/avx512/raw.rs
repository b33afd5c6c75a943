//! Primitives of the 512-bit kernel.

use core::arch::x86_64::*;

use crate::copy::vector::raw::vector_kernel;
use crate::copy::vector::{finish_lane, fold_constants};

type Vector = __m512i;

vector_kernel!("avx512f,vpclmulqdq,pclmulqdq", 64, 4);

#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load(src: *const u8) -> Vector {
    // SAFETY: `run` passes 64 readable bytes.
    unsafe { _mm512_loadu_si512(src.cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn store(dst: *mut u8, vector: Vector) {
    // SAFETY: `run` passes 64 writable bytes.
    unsafe { _mm512_storeu_si512(dst.cast(), vector) }
}

#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn stream(dst: *mut u8, vector: Vector) {
    // SAFETY: `run` passes 64 writable bytes at a multiple of 64; the caller of the kernel issues the fence.
    unsafe { _mm512_stream_si512(dst.cast(), vector) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn first(state: u64) -> Vector {
    _mm512_zextsi128_si512(_mm_cvtsi64_si128(state as i64))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add(a: Vector, b: Vector) -> Vector {
    _mm512_xor_si512(a, b)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn constants<const BYTES: usize>() -> Vector {
    let [low, high] = const { fold_constants(BYTES) };
    _mm512_set_epi64(high, low, high, low, high, low, high, low)
}

#[inline]
#[target_feature(enable = "avx512f,vpclmulqdq")]
fn fold(lane: Vector, constants: Vector, next: Vector) -> Vector {
    const XOR3: i32 = 0x96;
    let low = _mm512_clmulepi64_epi128::<0x00>(lane, constants);
    let high = _mm512_clmulepi64_epi128::<0x11>(lane, constants);
    _mm512_ternarylogic_epi64::<XOR3>(low, high, next)
}

#[inline]
#[target_feature(enable = "avx512f,vpclmulqdq")]
fn reduce(lane: Vector) -> u64 {
    let [l48, h48] = const { fold_constants(48) };
    let [l32, h32] = const { fold_constants(32) };
    let [l16, h16] = const { fold_constants(16) };
    // The last quarter stays where it is, and the first three are moved onto it.
    let by = _mm512_set_epi64(0, 0, h16, l16, h32, l32, h48, l48);
    let last = _mm512_maskz_mov_epi64(0b1100_0000, lane);
    let moved = fold(lane, by, last);
    let half = _mm256_xor_si256(_mm512_castsi512_si256(moved), _mm512_extracti64x4_epi64::<1>(moved));
    let all = _mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half));
    finish_lane(_mm_cvtsi128_si64(all) as u64, _mm_extract_epi64::<1>(all) as u64)
}
