//! Blocks that describe themselves: every byte follows from the id and the version in the first sixteen.

use cascade_core::id::BlockId;

/// Ids in use: few, so that processes meet.
pub const IDS: u64 = 160;
/// No block is longer.
pub const MOST_BYTES: usize = 600_000;

/// xorshift: reproducible from its seed.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

pub fn id(number: u64) -> BlockId {
    BlockId::named(&format!("block {number}"))
}

/// The bytes of `version` of block `number`; a third of them small.
pub fn bytes(number: u64, version: u64) -> Vec<u8> {
    let mut random = Random(number << 32 ^ version.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let most = if random.below(3) == 0 { 60_000 } else { MOST_BYTES as u64 };
    let len = 16 + random.below(most - 16) as usize;
    let mut bytes = Vec::with_capacity(len + 8);
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&version.to_le_bytes());
    while bytes.len() < len {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Panics unless `found` is, byte for byte, some version of block `number`.
pub fn verify(number: u64, found: &[u8]) {
    let word = |at: usize| u64::from_le_bytes(found[at..at + 8].try_into().unwrap());
    assert!(found.len() >= 16 && word(0) == number, "block {number}: another block's bytes");
    assert!(found == bytes(number, word(8)), "block {number}: wrong bytes in version {}", word(8));
}

/// Bytes that a block of `len` bytes takes in the arena.
pub fn rounded(len: u64) -> u64 {
    len.next_multiple_of(if len <= 64 * 1024 { 4096 } else { 64 * 1024 })
}
