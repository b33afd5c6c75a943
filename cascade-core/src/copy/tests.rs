//! Every kernel of this CPU against `crc-fast` and the bytes themselves.

use crc_fast::CrcAlgorithm::Crc64Nvme;
use proptest::prelude::*;

use super::raw::{copy_slice, private};
use super::{ChunkHasher, Direction, Kernel, StoreKind, plan};
use crate::digest::{CHUNK_BYTES, chunk_count};

/// Miri has no streaming stores, and runs these some 10,000 times slower.
#[cfg(not(miri))]
const STORES: [StoreKind; 2] = [StoreKind::Plain, StoreKind::Streaming];
#[cfg(miri)]
const STORES: [StoreKind; 1] = [StoreKind::Plain];

const GUARD: u8 = 0xA5;
const GUARD_BYTES: usize = 128;

/// Bytes that repeat nowhere near.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn oracle(data: &[u8]) -> Vec<u64> {
    data.chunks(CHUNK_BYTES).map(|chunk| crc_fast::checksum(Crc64Nvme, chunk)).collect()
}

/// A destination at a given offset from a cache line, between guard bytes.
struct Guarded {
    bytes: Vec<u8>,
    at: usize,
    len: usize,
}

impl Guarded {
    fn new(len: usize, misaligned: usize) -> Self {
        let bytes = vec![GUARD; len + 3 * GUARD_BYTES];
        let at = GUARD_BYTES + bytes.as_ptr().align_offset(64) + misaligned;
        Self { bytes, at, len }
    }

    fn inside(&mut self) -> &mut [u8] {
        &mut self.bytes[self.at..self.at + self.len]
    }

    fn check(&self, expected: &[u8]) {
        let (before, rest) = self.bytes.split_at(self.at);
        let (inside, after) = rest.split_at(self.len);
        assert!(inside == expected, "the copy differs");
        assert!(before.iter().chain(after).all(|byte| *byte == GUARD), "a guard byte was written");
    }
}

fn check_kernels(len: usize, src_misaligned: usize, dst_misaligned: usize) {
    let noise = noise(len + 128, len as u64);
    let from = noise.as_ptr().align_offset(64) + src_misaligned;
    let src = &noise[from..][..len.min(noise.len() - from)];
    let expected = oracle(src);
    for kernel in Kernel::available() {
        assert_eq!(private::digest_only(kernel, src), expected, "{kernel} digest");
        for store in STORES {
            let mut dst = Guarded::new(src.len(), dst_misaligned);
            let mut digests = vec![0; chunk_count(src.len())];
            copy_slice(kernel, store, dst.inside(), src, &mut digests);
            assert_eq!(digests, expected, "{kernel} {store}");
            dst.check(src);
            let mut dst = Guarded::new(src.len(), dst_misaligned);
            private::copy_only(kernel, store, dst.inside(), src);
            dst.check(src);
        }
    }
}

#[test]
fn every_short_length_and_the_edges() {
    let edges: &[usize] = if cfg!(miri) { &[] } else { &[4095, 4096, 65535, 65536, 65537, 131_072, 131_073] };
    for len in (0..if cfg!(miri) { 18 } else { 600 }).chain(edges.iter().copied()) {
        check_kernels(len, len % 7, len % 64);
    }
}

#[test]
fn a_kernel_that_the_cpu_lacks_is_replaced() {
    let src = noise(1000, 5);
    for kernel in Kernel::ALL {
        assert_eq!(private::digest_only(kernel, &src), oracle(&src), "{kernel}");
    }
}

#[test]
fn whole_blocks_by_the_plan() {
    let lens: &[usize] =
        if cfg!(miri) { &[0, 65_537] } else { &[0, 1, 4096, 300_000, 9 << 20, (33 << 20) + 12_345] };
    for &len in lens {
        let src = noise(len, 3);
        let expected = oracle(&src);
        assert_eq!(private::digest_chunks(&src), expected);
        for direction in [Direction::Put, Direction::Get] {
            let mut dst = Guarded::new(len, 16);
            assert_eq!(private::copy_chunks(dst.inside(), &src, direction), expected, "{len} {direction:?}");
            dst.check(&src);
            let mut dst = Guarded::new(len, 1);
            private::copy_plain(dst.inside(), &src, direction);
            dst.check(&src);
        }
    }
}

#[test]
fn the_plan_is_made_once() {
    assert!(std::ptr::eq(plan(), plan()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 48 }))]

    #[test]
    fn kernels_agree_with_the_oracle(
        len in 0..if cfg!(miri) { 600 } else { 300usize << 10 },
        src_misaligned in 0..64usize,
        dst_misaligned in 0..64usize,
    ) {
        check_kernels(len, src_misaligned, dst_misaligned);
    }

    #[test]
    fn pieces_give_the_digests_of_the_whole(
        len in 0..if cfg!(miri) { 600 } else { 300usize << 10 },
        mut cuts in prop::collection::vec(0..if cfg!(miri) { 600 } else { 300usize << 10 }, 0..20),
        misaligned in 0..64usize,
    ) {
        let src = noise(len, 9);
        cuts.retain(|cut| *cut < len);
        cuts.extend([0, len]);
        cuts.sort_unstable();
        for kernel in Kernel::available() {
            for store in STORES {
                let mut dst = Guarded::new(len, misaligned);
                let mut digests = Vec::new();
                let mut hasher = ChunkHasher::with(kernel, store.op(), |chunk, digest| {
                    assert_eq!(chunk, digests.len());
                    digests.push(digest);
                });
                for cut in cuts.windows(2) {
                    hasher.copy_slice(&mut dst.inside()[cut[0]..cut[1]], &src[cut[0]..cut[1]]);
                }
                prop_assert_eq!(hasher.finish(), len as u64);
                prop_assert_eq!(digests, oracle(&src));
                dst.check(&src);
            }
        }
    }
}
