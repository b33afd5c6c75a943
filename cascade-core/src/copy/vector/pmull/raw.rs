//! Primitives of the 128-bit aarch64 kernel.

use core::arch::aarch64::*;
use core::arch::asm;

use crate::copy::vector::raw::vector_kernel;
use crate::copy::vector::{finish_lane, fold_constants};

type Vector = uint64x2_t;

vector_kernel!("neon,aes", 16, 8);

#[inline]
#[target_feature(enable = "neon")]
unsafe fn load(src: *const u8) -> Vector {
    // SAFETY: `run` passes 16 readable bytes; the byte load has no alignment to keep.
    unsafe { vreinterpretq_u64_u8(vld1q_u8(src)) }
}

#[inline]
#[target_feature(enable = "neon")]
unsafe fn store(dst: *mut u8, vector: Vector) {
    // SAFETY: `run` passes 16 writable bytes; the byte store has no alignment to keep.
    unsafe { vst1q_u8(dst, vreinterpretq_u8_u64(vector)) }
}

#[inline]
#[target_feature(enable = "neon")]
unsafe fn stream(dst: *mut u8, vector: Vector) {
    let (low, high) = (vgetq_lane_u64::<0>(vector), vgetq_lane_u64::<1>(vector));
    // SAFETY: `run` passes 16 writable bytes; STNP is an ordinary store with a hint and needs no fence of its own.
    unsafe {
        asm!("stnp {low}, {high}, [{dst}]", low = in(reg) low, high = in(reg) high, dst = in(reg) dst, options(nostack, preserves_flags));
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn first(state: u64) -> Vector {
    vcombine_u64(vcreate_u64(state), vcreate_u64(0))
}

#[inline]
#[target_feature(enable = "neon")]
fn add(a: Vector, b: Vector) -> Vector {
    veorq_u64(a, b)
}

#[inline]
#[target_feature(enable = "neon")]
fn constants<const BYTES: usize>() -> Vector {
    let [low, high] = const { fold_constants(BYTES) };
    vcombine_u64(vcreate_u64(low as u64), vcreate_u64(high as u64))
}

#[inline]
#[target_feature(enable = "neon,aes")]
fn fold(lane: Vector, constants: Vector, next: Vector) -> Vector {
    let low = vmull_p64(vgetq_lane_u64::<0>(lane), vgetq_lane_u64::<0>(constants));
    let high = vmull_high_p64(vreinterpretq_p64_u64(lane), vreinterpretq_p64_u64(constants));
    add(add(vreinterpretq_u64_p128(low), vreinterpretq_u64_p128(high)), next)
}

#[inline]
#[target_feature(enable = "neon")]
fn reduce(lane: Vector) -> u64 {
    finish_lane(vgetq_lane_u64::<0>(lane), vgetq_lane_u64::<1>(lane))
}
