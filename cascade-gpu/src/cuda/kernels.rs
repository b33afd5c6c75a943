//! The kernels, as PTX that the driver compiles for its device, and the tables of the digest kernel.

use cascade_core::digest::combine;

/// PTX of `kernels/copy.cu`.
pub(super) const COPY: &str = include_str!("../../kernels/copy.ptx");
/// PTX of `kernels/digest.cu`.
pub(super) const DIGEST: &str = include_str!("../../kernels/digest.ptx");

/// PTX of `kernels/move.cu`.
pub(super) const MOVE: &str = include_str!("../../kernels/move.ptx");

/// Threads of a block of the copy kernel, and of the one that copies by pages.
pub(super) const COPY_THREADS: u32 = 512;
/// Threads of a block of the digest kernel, `THREADS` there.
pub(super) const DIGEST_THREADS: u32 = 256;

/// x^0, and the polynomial without its x^64 term, both bit-reflected.
const ONE: u64 = 1 << 63;
const POLYNOMIAL: u64 = 0x9A6C_9329_AC4B_C9B5;

/// `struct Tables` of the digest kernel, as words.
pub(super) fn digest_tables() -> Vec<u64> {
    let threads = u64::from(DIGEST_THREADS);
    let mut words = Vec::with_capacity(8 * 256 + 256 + 256 + 1);
    for byte in 0..8 {
        words.extend((0..256u64).map(|value| combine(value << (8 * byte), 0, 8 * threads)));
    }
    words.extend((0..threads).map(|thread| combine(ONE, 0, 8 * (threads - thread))));
    words.extend((0..256u64).map(|value| combine(value, 0, 1)));
    words.push(POLYNOMIAL);
    words
}

/// Bytes between the words that one thread of the kernel that copies by pages folds, `ROW` there.
const ROW_BYTES: u64 = 512;
/// Words of a chunk.
const CHUNK_WORDS: u64 = 8192;

/// `struct Tables` of the kernel that copies by pages, as words.
pub(super) fn move_tables() -> Vec<u64> {
    let mut words = Vec::with_capacity(8 * 256 + 8193 + 1);
    for byte in 0..8 {
        words.extend((0..256u64).map(|value| combine(value << (8 * byte), 0, ROW_BYTES)));
    }
    words.push(ONE);
    for _ in 0..CHUNK_WORDS {
        let last = words.last().copied().unwrap_or(ONE);
        words.push(combine(last, 0, 8));
    }
    words.push(POLYNOMIAL);
    words
}

#[cfg(test)]
mod tests {
    use cascade_core::digest::crc64;

    use super::*;

    /// What the digest kernel does, word for word, for a chunk in one piece.
    fn by_rows(tables: &[u64], bytes: &[u8]) -> u64 {
        let threads = DIGEST_THREADS as usize;
        let (row, column, byte) = (&tables[..2048], &tables[2048..2304], &tables[2304..2560]);
        let words: Vec<u64> = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let rows = words.len().div_ceil(threads);
        let missing = rows * threads - words.len();
        let mut state = if words.is_empty() { !0 } else { 0 };
        for (thread, column) in column.iter().enumerate() {
            let mut sum = 0u64;
            for at in (0..rows).map(|r| r * threads + thread) {
                let word = match at.checked_sub(missing) {
                    None => 0,
                    Some(0) => !words[0],
                    Some(index) => words[index],
                };
                let bytes = sum.to_le_bytes().into_iter().enumerate();
                sum = bytes.fold(word, |next, (b, v)| next ^ row[256 * b + v as usize]);
            }
            state ^= times(sum, *column, tables[2560]);
        }
        for tail in &bytes[words.len() * 8..] {
            state = byte[((state ^ u64::from(*tail)) & 255) as usize] ^ (state >> 8);
        }
        !state
    }

    fn times(a: u64, mut b: u64, polynomial: u64) -> u64 {
        let mut product = 0;
        for bit in (0..64).rev() {
            product ^= b & 0u64.wrapping_sub(a >> bit & 1);
            b = (b >> 1) ^ (polynomial & 0u64.wrapping_sub(b & 1));
        }
        product
    }

    #[test]
    fn rows_and_columns_add_up_to_the_digest() {
        let tables = digest_tables();
        assert_eq!(tables.len(), 2561);
        let bytes: Vec<u8> = (0..65_536u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for len in [1, 7, 8, 9, 63, 2047, 2048, 2049, 4096, 10_000, 65_535, 65_536] {
            assert_eq!(by_rows(&tables, &bytes[..len]), crc64(&bytes[..len]), "{len} bytes");
        }
    }

    /// What the kernel that copies by pages does, word for word, when 2^shift blocks share a chunk.
    fn by_warps(tables: &[u64], bytes: &[u8], shift: usize) -> u64 {
        let (row, power, polynomial) = (&tables[..2048], &tables[2048..2048 + 8193], tables[2048 + 8193]);
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let fold = |sum: u64, next: u64| {
            let bytes = sum.to_le_bytes().into_iter().enumerate();
            bytes.fold(next, |next, (b, v)| next ^ row[256 * b + v as usize])
        };
        let (rows, threads) = (8 >> shift, COPY_THREADS as usize);
        let mut state = 0;
        for (part, thread) in (0..1 << shift).flat_map(|part| (0..threads).map(move |thread| (part, thread)))
        {
            let base = part * (65_536 >> shift) + thread / 32 * rows * 512 + thread % 32 * 16;
            if base >= bytes.len() {
                continue;
            }
            let (mut even, mut odd, mut last) = (word(base), word(base + 8), base);
            if base == 0 {
                even = !even;
            }
            for at in (1..rows).map(|j| base + j * 512).take_while(|at| *at < bytes.len()) {
                (even, odd, last) = (fold(even, word(at)), fold(odd, word(at + 8)), at);
            }
            let left = (bytes.len() - last) / 8;
            state ^= times(power[left], even, polynomial) ^ times(power[left - 1], odd, polynomial);
        }
        !state
    }

    #[test]
    fn warps_add_up_to_the_digest() {
        let tables = move_tables();
        assert_eq!(tables.len(), 2048 + 8193 + 1);
        let bytes: Vec<u8> = (0..65_536u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
        for len in [16, 32, 496, 512, 528, 4096, 4112, 10_000, 32_768, 65_520, 65_536] {
            for shift in 0..4 {
                assert_eq!(
                    by_warps(&tables, &bytes[..len], shift),
                    crc64(&bytes[..len]),
                    "{len} bytes, {shift}"
                );
            }
        }
    }

    /// The first line of each PTX names the sources and the text that it was made of: `cargo xtask kernels` writes it.
    #[test]
    fn the_ptx_is_of_these_sources() {
        let all = [
            (COPY, &include_bytes!("../../kernels/copy.cu")[..]),
            (DIGEST, &include_bytes!("../../kernels/digest.cu")[..]),
            (MOVE, &include_bytes!("../../kernels/move.cu")[..]),
        ];
        for (ptx, source) in all {
            let (head, text) = ptx.split_once('\n').unwrap();
            let source = [&include_bytes!("../../kernels/memory.cuh")[..], source].concat();
            let expected = format!("// source {:016x}, text {:016x}", crc64(&source), crc64(text.as_bytes()));
            assert_eq!(head, expected, "the PTX is stale or edited: run `cargo xtask kernels`");
        }
    }
}
