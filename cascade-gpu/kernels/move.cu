// Copies and digests in one pass: each side one run or pages of one length, device memory or host memory that is registered.
//
// A thread block takes a chunk of 64 KiB, each warp 4 KiB of it, all of them under way at once; the bus is then never idle
// with few blocks. Where there are fewer chunks than blocks, a chunk is shared by 2, 4 or 8 of them: the time of one is what
// the host waits for. The digest is folded from the registers, so that no byte is read again. Without a destination nothing is
// copied. Everything is a multiple of 16.
//
// A CRC is the remainder of a polynomial, so parts of it add up. A thread has two words in each row of 512 bytes: it goes from
// row to row by one multiplication with x^(8 * 512), eight look-ups, and at the end to the end of the chunk.

#include "memory.cuh"

#define THREADS 512
#define CHUNK 65536u
#define ROW 512u
#define ROWS 8
// Words of the result for a chunk, which the host adds up: one for each block that may share it, zeros where fewer do.
#define WORDS 8
// Addresses of the pages that a chunk can touch: pages have 512 bytes or more.
#define MOST_PAGES 130

// What the host made, in this order.
struct Tables {
    u64 row[8][256];   // v << 8 b, times x^(8 ROW)
    u64 power[8193];   // x^(64 i)
    u64 by_x;          // the polynomial without x^64, reflected
};

// Where the bytes of one side are: at `base`, or in pages whose addresses lie in pinned memory.
struct Side {
    u64 base;
    const u64 *pages;
    u64 page_bytes;
};

__device__ __forceinline__ u64 times(u64 a, u64 b, u64 polynomial) {
    u64 product = 0;
#pragma unroll 8
    for (int i = 0; i < 64; i++) {
        product ^= b & (u64)((long long)a >> 63);
        a <<= 1;
        b = (b >> 1) ^ (polynomial & (0 - (b & 1)));
    }
    return product;
}

// Number of the first page of a chunk, and how much of it belongs to the chunk before.
__device__ __forceinline__ u64 first_page(const Side &side, u64 first, u32 *skip) {
    const u64 page = first / side.page_bytes;
    *skip = (u32)(first - page * side.page_bytes);
    return page;
}

// Address of page `index` of a chunk, where it has one.
__device__ __forceinline__ u64 page_of(const Side &side, u64 chunk, u64 len, u32 index) {
    const u64 first = chunk * CHUNK;
    if (!side.pages || first >= len || index >= MOST_PAGES) return 0;
    const u64 last = (len - first < CHUNK ? len : first + CHUNK) - 1;
    const u64 page = first / side.page_bytes + index;
    return page <= last / side.page_bytes ? ((const volatile u64 *)side.pages)[page] : 0;
}

__device__ __forceinline__ u64 address(const Side &side, const u64 *pages, u64 first, u32 skip, u32 at) {
    if (!side.pages) return side.base + first + at;
    const u32 page_len = (u32)side.page_bytes;
    const u32 offset = at + skip;
    const u32 page = offset / page_len;
    return pages[page] + (offset - page * page_len);
}

__device__ __forceinline__ u64 word(u32 low, u32 high) { return (u64)high << 32 | low; }

extern "C" __global__ void __launch_bounds__(THREADS)
cascade_move(const Tables *tables, Side dst, Side src, u64 len, u64 chunk, u64 chunks, u64 *out, u32 shift) {
    __shared__ u64 row[8][256];
    __shared__ u64 to[MOST_PAGES], from[MOST_PAGES];
    __shared__ u64 sums[THREADS / 32];
    const u32 t = threadIdx.x;
    const u32 warp = t >> 5, lane = t & 31;
    // A single row is not folded.
    if (out && shift < 3)
        for (u32 i = t; i < 8 * 256; i += THREADS) ((u64 *)row)[i] = ((const u64 *)tables->row)[i];
    const u64 polynomial = tables->by_x;
    const bool is_copied = dst.base || dst.pages;
    // A chunk is shared by 2^shift blocks, each warp of which has so many rows.
    const u32 rows = ROWS >> shift;
    const u64 end = chunks << shift;
    const bool is_dst = t < THREADS / 2;
    const Side mine = {0, is_dst ? dst.pages : src.pages, is_dst ? dst.page_bytes : src.page_bytes};
    const u32 index = t % (THREADS / 2);
    // The addresses of the next chunk are read while this one is copied: they lie across the bus too.
    u64 ahead = page_of(mine, chunk + (blockIdx.x >> shift), len, index);
    for (u64 item = blockIdx.x; item < end; item += gridDim.x) {
        const u64 here = chunk + (item >> shift);
        const u32 part = (u32)item & ((1u << shift) - 1);
        const u64 first = here * CHUNK;
        const u32 bytes = (u32)(len - first < CHUNK ? len - first : CHUNK);
        u32 skip_to = 0, skip_from = 0;
        if (dst.pages) first_page(dst, first, &skip_to);
        if (src.pages) first_page(src, first, &skip_from);
        __syncthreads();
        if (index < MOST_PAGES) (is_dst ? to : from)[index] = ahead;
        __syncthreads();
        ahead = page_of(mine, chunk + ((item + gridDim.x) >> shift), len, index);
        const u32 base = part * (CHUNK >> shift) + warp * (rows * ROW) + lane * 16;
        uint4 v[ROWS];
#pragma unroll
        for (u32 j = 0; j < ROWS; j++) {
            const u32 at = base + j * ROW;
            v[j] = make_uint4(0, 0, 0, 0);
            if (j < rows && at < bytes) v[j] = load16(address(src, from, first, skip_from, at));
        }
#pragma unroll
        for (u32 j = 0; j < ROWS; j++) {
            const u32 at = base + j * ROW;
            if (is_copied && j < rows && at < bytes) store16(address(dst, to, first, skip_to, at), v[j]);
        }
        if (!out) continue;
        u64 even = word(v[0].x, v[0].y), odd = word(v[0].z, v[0].w);
        if (base == 0) even = ~even;
        u32 last = base;
#pragma unroll
        for (u32 j = 1; j < ROWS; j++) {
            const u32 at = base + j * ROW;
            if (j >= rows || at >= bytes) break;
            const u64 s = even, u = odd;
            even = row[0][s & 255] ^ row[1][(s >> 8) & 255] ^ row[2][(s >> 16) & 255] ^ row[3][(s >> 24) & 255]
                 ^ row[4][(s >> 32) & 255] ^ row[5][(s >> 40) & 255] ^ row[6][(s >> 48) & 255] ^ row[7][s >> 56]
                 ^ word(v[j].x, v[j].y);
            odd = row[0][u & 255] ^ row[1][(u >> 8) & 255] ^ row[2][(u >> 16) & 255] ^ row[3][(u >> 24) & 255]
                ^ row[4][(u >> 32) & 255] ^ row[5][(u >> 40) & 255] ^ row[6][(u >> 48) & 255] ^ row[7][u >> 56]
                ^ word(v[j].z, v[j].w);
            last = at;
        }
        u64 sum = 0;
        if (base < bytes) {
            const u32 left = (bytes - last) / 8;
            sum = times(tables->power[left], even, polynomial) ^ times(tables->power[left - 1], odd, polynomial);
        }
        for (int d = 16; d > 0; d >>= 1) sum ^= __shfl_xor_sync(0xffffffffu, sum, d);
        if (lane == 0) sums[warp] = sum;
        __syncthreads();
        if (warp == 0) {
            u64 state = lane < THREADS / 32 ? sums[lane] : 0;
            for (int d = THREADS / 64; d > 0; d >>= 1) state ^= __shfl_xor_sync(0xffffffffu, state, d);
            if (lane < rows) *(volatile u64 *)(out + here * WORDS + part * rows + lane) = lane ? 0 : state;
        }
    }
}
