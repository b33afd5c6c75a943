//! The superblock.

use cascade_core::digest;
use cascade_shm::layout::{Geometry, SUPERBLOCK_BYTES, Superblock, VERSION};

/// Parses the input as it is, and once more as if its writer had signed it.
pub fn parse(data: &[u8]) {
    let mut bytes = data.to_vec();
    // An error is as good as an answer; what must not happen is anything else.
    let _ = Superblock::parse(&bytes);
    bytes.resize(SUPERBLOCK_BYTES, 0);
    let sum = digest::crc64(&bytes[..SUPERBLOCK_BYTES - 8]);
    bytes[SUPERBLOCK_BYTES - 8..].copy_from_slice(&sum.to_le_bytes());
    let Ok(superblock) = Superblock::parse(&bytes) else { return };
    check_offsets(superblock.geometry);
    if superblock.version == VERSION && superblock.node.is_ascii() && superblock.writer.is_ascii() {
        assert_eq!(Superblock::parse(&superblock.encode()).ok(), Some(superblock));
    }
}

/// Every geometry that is accepted has areas that follow each other without overlap.
fn check_offsets(geometry: Geometry) {
    let o = geometry.offsets();
    let starts = [
        0,
        o.control,
        o.owners,
        o.ledgers,
        o.tags,
        o.slots,
        o.summaries,
        o.regions,
        o.bitmaps,
        o.residents,
        o.digests,
        o.data,
        o.total,
    ];
    assert!(starts.windows(2).all(|pair| pair[0] < pair[1]), "{geometry:?} {starts:?}");
    assert_eq!(o.total, o.data + geometry.data_bytes);
}

/// Superblocks of both formats, of a newer one, and with a required feature.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let geometry = Geometry {
        data_bytes: 64 << 20,
        region_bytes: 4 << 20,
        buckets: 128,
        owners: 16,
        ledger_entries: 128,
    };
    let sound = Superblock::new(geometry, 7, "nid001".into()).encode();
    let changed = |at: usize, byte: u8| {
        let mut bytes = sound.clone();
        bytes[at] = byte;
        bytes
    };
    vec![sound.clone(), changed(8, 1), changed(8, 3), changed(12, 3), changed(16, 4), b"CASCARNA".to_vec()]
}
