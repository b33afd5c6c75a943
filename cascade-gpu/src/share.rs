//! Blocks of device memory that other processes of the node read: where one lies, as it is published, and memory of others that
//! this process has opened.
//!
//! What is published may be old: its owner evicts without asking. So a block is copied first, and what arrived is compared with
//! the digest that its id has by other means; anything else is a miss.

use std::collections::HashMap;
use std::sync::Arc;

use cascade_core::digest::crc64;
use parking_lot::Mutex;

use crate::device::{Device, Foreign, ShareHandle};

/// First word of a published place, with the version of its layout.
const MAGIC: u64 = u64::from_le_bytes(*b"CGPLACE1");
/// Memories of others that stay open, at most; beyond, all are closed and opened again as they are needed.
const MOST_OPEN: usize = 64;

/// Where a block lies in device memory, for other processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedPlace {
    /// The tier that has it, by a number drawn when it was made.
    pub home: u64,
    /// What the memory round it is opened with.
    pub handle: ShareHandle,
    /// First byte of the block in that memory.
    pub offset: u64,
    /// Bytes of the block.
    pub len: u64,
    /// The block's root digest.
    pub digest: u64,
}

impl SharedPlace {
    /// Bytes of a place as it is published.
    pub const BYTES: usize = 8 + 8 + 64 + 8 + 8 + 8 + 8;

    /// As it is published: words in little-endian order, the last a CRC-64 of those before.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.home.to_le_bytes());
        bytes[16..80].copy_from_slice(&self.handle.0);
        for (at, word) in [self.offset, self.len, self.digest].into_iter().enumerate() {
            bytes[80 + 8 * at..88 + 8 * at].copy_from_slice(&word.to_le_bytes());
        }
        let check = crc64(&bytes[..104]);
        bytes[104..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// What was published; `None` for anything else.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let word = |at: usize| bytes[at..].first_chunk().map(|word| u64::from_le_bytes(*word));
        let handle = ShareHandle(*bytes[16..].first_chunk()?);
        let is_right = word(0)? == MAGIC && word(104)? == crc64(&bytes[..104]);
        let place = Self { home: word(8)?, handle, offset: word(80)?, len: word(88)?, digest: word(96)? };
        is_right.then_some(place)
    }
}

/// A device by its ordinal, and what memory is opened with there.
type Key = (u32, ShareHandle);

/// Memory of others that is open, by device and handle; `None` for what could not be opened.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    all: Mutex<HashMap<Key, Option<Arc<Foreign>>>>,
}

impl Opened {
    /// The memory of a place, opened on `device`; `None` where its owner is gone or the device cannot reach it.
    pub(crate) fn get(&self, device: &Arc<dyn Device>, place: &SharedPlace) -> Option<Arc<Foreign>> {
        let mut all = self.all.lock();
        let key = (device.info().ordinal, place.handle);
        if all.len() >= MOST_OPEN && !all.contains_key(&key) {
            all.clear();
        }
        all.entry(key).or_insert_with(|| Foreign::open(device, &place.handle).ok().map(Arc::new)).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_what_was_published_or_nothing() {
        let handle = ShareHandle(std::array::from_fn(|at| at as u8));
        let place = SharedPlace { home: 7, handle, offset: 512, len: 1 << 20, digest: u64::MAX };
        let bytes = place.to_bytes();
        assert_eq!(SharedPlace::from_bytes(&bytes), Some(place));
        for at in 0..bytes.len() {
            let mut damaged = bytes;
            damaged[at] ^= 4;
            assert_eq!(SharedPlace::from_bytes(&damaged), None, "byte {at}");
        }
        assert_eq!(SharedPlace::from_bytes(&[0; SharedPlace::BYTES]), None);
    }
}
