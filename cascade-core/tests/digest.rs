//! Digests: golden vectors, the oracle, and the arithmetic of parts.

use cascade_core::digest::{CHUNK_BYTES, chunk_count, combine, crc64, root};
use crc_fast::CrcAlgorithm::Crc64Nvme;
use proptest::prelude::*;

/// The definition: one bit at a time, most significant power first, on reflected input.
fn by_definition(data: &[u8]) -> u64 {
    let mut state = u64::MAX;
    for byte in data {
        state ^= u64::from(byte.reverse_bits()) << 56;
        for _ in 0..8 {
            state = (state << 1) ^ if state >> 63 == 1 { 0xAD93_D235_94C9_3659 } else { 0 };
        }
    }
    !state.reverse_bits()
}

#[test]
fn golden_vectors() {
    assert_eq!(crc64(b""), 0);
    assert_eq!(crc64(b"123456789"), 0xAE8B_1486_0A79_9888);
    assert_eq!(crc64(&[0; 32]), 0xCF34_7343_4D4E_CF3B);
    assert_eq!(crc64(&[0xFF; 4096]), 0xC0DD_BA73_02EC_A3AC);
    assert_eq!(by_definition(b"123456789"), 0xAE8B_1486_0A79_9888);
}

#[test]
fn root_is_the_crc_of_its_documented_bytes() {
    let id: [u8; 32] = std::array::from_fn(|i| i as u8);
    for chunks in [0, 1, 2, 122, 123, 124, 5000u64] {
        let digests = || (0..chunks).map(|chunk| chunk.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let len = chunks * CHUNK_BYTES as u64;
        let mut bytes = id.to_vec();
        bytes.extend(len.to_le_bytes());
        digests().for_each(|digest| bytes.extend(digest.to_le_bytes()));
        assert_eq!(root(&id, len, digests()), by_definition(&bytes), "{chunks} chunks");
    }
}

#[test]
fn root_golden_vectors() {
    let id: [u8; 32] = std::array::from_fn(|i| i as u8);
    assert_eq!(root(&id, 0, std::iter::empty()), 0x6531_3DD2_B7E4_7378);
    assert_eq!(root(&id, 9, [0xAE8B_1486_0A79_9888].into_iter()), 0x000B_5534_0AA5_1EA7);
}

#[test]
fn chunks_are_counted() {
    assert_eq!([0, 1, 65_536, 65_537].map(chunk_count), [0, 1, 1, 2]);
}

proptest! {
    #[test]
    fn agrees_with_the_definition_and_the_oracle(data in prop::collection::vec(any::<u8>(), 0..3000)) {
        prop_assert_eq!(crc64(&data), by_definition(&data));
        prop_assert_eq!(crc64(&data), crc_fast::checksum(Crc64Nvme, &data));
    }

    #[test]
    fn parts_combine(data in prop::collection::vec(any::<u8>(), 0..2000), cut in any::<prop::sample::Index>()) {
        let (a, b) = data.split_at(cut.index(data.len() + 1));
        prop_assert_eq!(combine(crc64(a), crc64(b), b.len() as u64), crc64(&data));
    }

    #[test]
    fn lengths_beyond_memory_combine(a in any::<u64>(), b in any::<u64>(), n in 0..u64::MAX / 2) {
        // Appending n zeros twice is appending 2 n zeros; the digest of no bytes is 0.
        let once = |crc: u64, n| combine(crc, 0, n);
        prop_assert_eq!(once(once(a, n), n), once(a, 2 * n));
        prop_assert_eq!(combine(a, b, n) ^ combine(a, 0, n), b);
    }
}
