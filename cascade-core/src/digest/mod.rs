//! CRC-64/NVME of blocks: one digest for each 64 KiB chunk, and a root digest over identity, length and chunks.
//!
//! CRC-64/NVME: polynomial `0xAD93D23594C93659`, reflected in and out, initial value and final XOR all ones; the
//! digest of `b"123456789"` is `0xAE8B14860A799888`. CRCs combine ([`combine`]), so parts of a block may be digested
//! apart, in any order, by different threads or devices.
//!
//! A digest finds torn, stale and misdirected bytes. It is no identity: two blocks with equal digests may differ.

pub(crate) mod tables;

use tables::{INVERT, multiply, x_to_bytes};

/// Bytes that one chunk digest covers; the last chunk of a block may be shorter.
pub const CHUNK_BYTES: usize = 65536;

/// Number of chunk digests of a block of `len` bytes: 0 for an empty block.
pub const fn chunk_count(len: usize) -> usize {
    len.div_ceil(CHUNK_BYTES)
}

/// CRC-64/NVME of `data`.
///
/// ```
/// assert_eq!(cascade_core::digest::crc64(b"123456789"), 0xAE8B_1486_0A79_9888);
/// ```
pub fn crc64(data: &[u8]) -> u64 {
    crate::copy::advance(INVERT, data) ^ INVERT
}

/// CRC-64/NVME of the concatenation of two parts with the digests `a` and `b`, where the second is `len_b` bytes long.
///
/// ```
/// use cascade_core::digest::{combine, crc64};
/// assert_eq!(combine(crc64(b"1234"), crc64(b"56789"), 5), crc64(b"123456789"));
/// ```
pub fn combine(a: u64, b: u64, len_b: u64) -> u64 {
    multiply(a, x_to_bytes(len_b)) ^ b
}

/// Root digest of a block: CRC-64/NVME over these bytes, in this order, without padding.
///
/// | bytes | content |
/// |---|---|
/// | 0-31 | `id` |
/// | 32-39 | `len`, the block's length in bytes, u64 little-endian |
/// | 40 + 8 i | digest of chunk i, u64 little-endian |
///
/// The id and the length are inside, so a block that landed in another block's slot, or was cut short, does not verify.
pub fn root(id: &[u8; 32], len: u64, chunks: impl Iterator<Item = u64>) -> u64 {
    // Digests are gathered so that the vector kernels get whole cache lines, not words.
    let mut gathered = [0u8; 1024];
    gathered[..32].copy_from_slice(id);
    gathered[32..40].copy_from_slice(&len.to_le_bytes());
    let mut filled = 40;
    let mut state = INVERT;
    for digest in chunks {
        if filled + 8 > gathered.len() {
            state = crate::copy::advance(state, &gathered[..filled]);
            filled = 0;
        }
        gathered[filled..filled + 8].copy_from_slice(&digest.to_le_bytes());
        filled += 8;
    }
    crate::copy::advance(state, &gathered[..filled]) ^ INVERT
}
