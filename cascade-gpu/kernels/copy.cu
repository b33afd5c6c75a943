// Copies of a table of runs: what one call of the driver for each run would do, in one launch. Source and destination are
// device memory or host memory that is registered; every alignment and length is right, 16 bytes is fast.

#include "memory.cuh"

struct Run {
    u64 dst;
    u64 src;
    u64 len;
};

// One warp copies one run, eight vectors of each lane under way at once.
__device__ void copy16(u64 dst, u64 src, u64 len, u32 lane) {
    const u64 step = 32 * 16;
    u64 at = (u64)lane * 16;
    for (; at + 7 * step < len; at += 8 * step) {
        uint4 v[8];
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = load16(src + at + i * step);
#pragma unroll
        for (int i = 0; i < 8; i++) store16(dst + at + i * step, v[i]);
    }
    for (; at < len; at += step) store16(dst + at, load16(src + at));
}

template <typename T>
__device__ void copy_words(u64 dst, u64 src, u64 len, u32 lane) {
    const u64 step = 32 * sizeof(T);
    u64 at = (u64)lane * sizeof(T);
    for (; at + 3 * step < len; at += 4 * step) {
        T v[4];
#pragma unroll
        for (int i = 0; i < 4; i++) v[i] = *(const volatile T *)(src + at + i * step);
#pragma unroll
        for (int i = 0; i < 4; i++) *(T *)(dst + at + i * step) = v[i];
    }
    for (; at < len; at += step) *(T *)(dst + at) = *(const volatile T *)(src + at);
}

extern "C" __global__ void __launch_bounds__(512) cascade_copy(const Run *runs, u64 count) {
    const u32 lane = threadIdx.x & 31;
    const u64 warps = (u64)gridDim.x * (blockDim.x >> 5);
    const u64 warp = (u64)(threadIdx.x >> 5) * gridDim.x + blockIdx.x;
    for (u64 i = warp; i < count; i += warps) {
        // The table may lie in host memory: one lane for each word, one read of the bus for the run.
        u64 word = lane < 3 ? ((const volatile u64 *)(runs + i))[lane] : 0;
        u64 dst = __shfl_sync(0xffffffffu, word, 0);
        u64 src = __shfl_sync(0xffffffffu, word, 1);
        u64 len = __shfl_sync(0xffffffffu, word, 2);
        u64 bits = dst | src | len;
        if ((bits & 15) == 0) copy16(dst, src, len, lane);
        else if ((bits & 7) == 0) copy_words<u64>(dst, src, len, lane);
        else if ((bits & 3) == 0) copy_words<u32>(dst, src, len, lane);
        else copy_words<unsigned char>(dst, src, len, lane);
    }
}
