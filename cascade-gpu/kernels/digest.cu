// CRC-64/NVME of each 64 KiB of device memory, which lies in one piece or in pages of one length.
//
// A CRC is the remainder of a polynomial, so parts of it add up. A thread block takes a chunk; thread t takes the words
// t, t + T, t + 2T, .. counted so that the last row is full, and goes from row to row by one multiplication with x^(64 T):
// eight look-ups, one for each byte. At the end each thread's sum is multiplied with x^(64 (T - t)), and all are added.
// Neighbours read neighbouring words, and the tables lie in shared memory.

#include "memory.cuh"

#define THREADS 256
#define CHUNK 65536u
// Words of the result for a chunk, which the host adds up.
#define WORDS 8
// Rows whose words are loaded at once.
#define AHEAD 8
// Addresses of the pages that a chunk can touch: pages have 512 bytes or more.
#define MOST_PAGES 130

// What the host made, in this order.
struct Tables {
    u64 row[8][256];       // v << 8 b, times x^(64 THREADS)
    u64 column[THREADS];   // x^(64 (THREADS - t)), for thread t
    u64 byte[256];         // one more byte
    u64 by_x;              // the polynomial without x^64, reflected
};

__device__ __forceinline__ u64 times(u64 a, u64 b, u64 polynomial) {
    u64 product = 0;
#pragma unroll 8
    for (int i = 63; i >= 0; i--) {
        product ^= b & (0 - ((a >> i) & 1));
        b = (b >> 1) ^ (polynomial & (0 - (b & 1)));
    }
    return product;
}

extern "C" __global__ void __launch_bounds__(THREADS)
cascade_digest(const Tables *tables, u64 base, const u64 *pages, u64 page_bytes, u64 len, u64 *out) {
    __shared__ u64 row[8][256];
    __shared__ u64 addresses[MOST_PAGES];
    __shared__ u64 sums[THREADS / 32];
    const u32 t = threadIdx.x;
    for (u32 i = t; i < 8 * 256; i += THREADS) ((u64 *)row)[i] = ((const u64 *)tables->row)[i];
    const u64 column = tables->column[t];
    const u64 polynomial = tables->by_x;
    const u64 chunks = (len + CHUNK - 1) / CHUNK;
    for (u64 chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x) {
        const u64 first = chunk * CHUNK;
        const u32 bytes = (u32)(len - first < CHUNK ? len - first : CHUNK);
        const u32 words = bytes / 8;
        const u64 first_page = pages ? first / page_bytes : 0;
        const u32 skip = pages ? (u32)(first - first_page * page_bytes) : 0;
        const u32 page_len = page_bytes > 0xffffffffull ? 0xffffffffu : (u32)page_bytes;
        __syncthreads();
        if (pages) {
            const u64 last_page = (first + bytes - 1) / page_bytes;
            for (u32 i = t; i <= last_page - first_page; i += THREADS)
                addresses[i] = ((const volatile u64 *)pages)[first_page + i];
        } else if (t == 0) {
            addresses[0] = base + first;
        }
        __syncthreads();
        // Words before the first count as zeros, which change nothing.
        const u32 rows = (words + THREADS - 1) / THREADS;
        const u32 missing = rows * THREADS - words;
        u64 sum = 0;
        // Loads of several rows are under way before the first is used: a chunk has few threads to hide their latency.
        for (u32 r = 0; r < rows; r += AHEAD) {
            u64 words_ahead[AHEAD];
#pragma unroll
            for (u32 j = 0; j < AHEAD; j++) {
                const u32 k = (r + j) * THREADS + t;
                u64 word = 0;
                if (k >= missing && r + j < rows) {
                    const u32 i = k - missing;
                    u64 at;
                    if (pages) {
                        const u32 offset = i * 8 + skip;
                        const u32 page = offset / page_len;
                        at = addresses[page] + (offset - page * page_len);
                    } else {
                        at = addresses[0] + i * 8;
                    }
                    word = __ldcs((const u64 *)at);
                    if (i == 0) word = ~word;
                }
                words_ahead[j] = word;
            }
#pragma unroll
            for (u32 j = 0; j < AHEAD; j++) {
                if (r + j >= rows) break;
                const u64 s = sum;
                sum = row[0][s & 255] ^ row[1][(s >> 8) & 255] ^ row[2][(s >> 16) & 255] ^ row[3][(s >> 24) & 255]
                    ^ row[4][(s >> 32) & 255] ^ row[5][(s >> 40) & 255] ^ row[6][(s >> 48) & 255] ^ row[7][s >> 56]
                    ^ words_ahead[j];
            }
        }
        sum = times(sum, column, polynomial);
        for (int d = 16; d > 0; d >>= 1) sum ^= __shfl_xor_sync(0xffffffffu, sum, d);
        if ((t & 31) == 0) sums[t >> 5] = sum;
        __syncthreads();
        if (t == 0) {
            u64 state = words ? 0 : ~0ull;
            for (u32 i = 0; i < THREADS / 32; i++) state ^= sums[i];
            for (u32 i = words * 8; i < bytes; i++) {
                const u32 offset = i + skip;
                const u32 page = pages ? offset / page_len : 0;
                const u64 at = addresses[page] + (pages ? offset - page * page_len : i);
                state = tables->byte[(state ^ *(const volatile unsigned char *)at) & 255] ^ (state >> 8);
            }
            for (u32 i = 0; i < WORDS; i++) *(volatile u64 *)(out + chunk * WORDS + i) = i ? 0 : state;
        }
    }
}
