//! Blocks that every rank can make by itself: what a fetch must give is known without asking.

use cascade_core::id::BlockId;

/// The id of block `number`.
pub(crate) fn id_of(number: u64) -> BlockId {
    BlockId::content(&number.to_le_bytes())
}

/// Bytes of block `number`: from 1 to some MiB, whole pages and not.
pub(crate) fn len_of(number: u64) -> usize {
    match number % 8 {
        0 => 4096,
        1 => 65536,
        2 => 100_001,
        3 => 1,
        4 => 300_000,
        5 => 1 << 20,
        6 => (4 << 20) + 4097,
        _ => 9 << 20,
    }
}

/// The content of block `number`.
pub(crate) fn bytes_of(number: u64) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len_of(number) + 8);
    while bytes.len() < len_of(number) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len_of(number));
    bytes
}
