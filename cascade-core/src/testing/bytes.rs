//! Contents that say of themselves which block and version they are, so that any returned bytes can be judged.

use std::sync::Arc;

use crate::digest::{self, CHUNK_BYTES};
use crate::id::BlockId;

/// Contents of this many bytes or more name their key and version; shorter ones only match when asked for by both.
pub const HEADER_BYTES: usize = 16;

/// The contents of version `version` of block `key`: key and version as u64 little-endian, then a stream seeded by both.
#[must_use]
pub fn content(key: u64, version: u64, len: usize) -> Arc<[u8]> {
    let mut bytes = vec![0; len.next_multiple_of(8).max(HEADER_BYTES)];
    let mut state = mix(key ^ mix(version));
    // One multiplication a word: the tests of a tier make gigabytes of this.
    for (at, word) in bytes.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        *word = match at {
            0 => key.to_le_bytes(),
            1 => version.to_le_bytes(),
            _ => {
                state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
                (state ^ (state >> 32)).to_le_bytes()
            }
        };
    }
    bytes.truncate(len);
    Arc::from(bytes)
}

/// The version that `bytes` are of block `key`; `None` when they are no version of it, or too short to say.
#[must_use]
pub fn version_of(key: u64, bytes: &[u8]) -> Option<u64> {
    let words = bytes.get(..HEADER_BYTES)?.as_chunks::<8>().0;
    let version = u64::from_le_bytes(*words.get(1)?);
    (*content(key, version, bytes.len()) == *bytes).then_some(version)
}

/// The id under which these tests keep block `key`.
#[must_use]
pub fn id(key: u64) -> BlockId {
    BlockId::named(&format!("conformance block {key}"))
}

/// The root digest that a tier must report for `bytes` under `id`.
#[must_use]
pub fn root(id: &BlockId, bytes: &[u8]) -> u64 {
    digest::root(id.as_bytes(), bytes.len() as u64, bytes.chunks(CHUNK_BYTES).map(digest::crc64))
}

/// SplitMix64's finaliser.
pub(super) fn mix(mut state: u64) -> u64 {
    state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_name_their_version_and_nothing_else_does() {
        for len in [HEADER_BYTES, 17, 100, 70_000] {
            let bytes = content(3, 9, len);
            assert_eq!(bytes.len(), len);
            assert_eq!(version_of(3, &bytes), Some(9));
            assert_eq!(version_of(4, &bytes), None);
            if len > HEADER_BYTES {
                let mut damaged = bytes.to_vec();
                damaged[len - 1] ^= 1;
                assert_eq!(version_of(3, &damaged), None, "{len} bytes");
            }
        }
        assert_eq!(version_of(3, &content(3, 9, 15)), None);
        assert_ne!(content(1, 1, 40)[16..], content(1, 2, 40)[16..]);
    }
}
