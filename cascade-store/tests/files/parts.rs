//! A part of a block, from the arena and from files, where it is verified by the digests of its chunks.

use cascade_core::tier::MissReason;
use cascade_store::Level;

use crate::rig::{Rig, block, level, put, soon};

const LEN: usize = 1 << 20;

#[test]
fn a_part_is_read_and_verified_from_either_tier() {
    let rig = Rig::new();
    let store = rig.open("16MiB", &[]);
    put(&store, 1, LEN);
    let (id, bytes) = block(1, LEN);
    let expect = |store: &cascade_store::Store| {
        for (offset, len) in [(0, 1), (70_000, 200_000), (LEN - 5000, 5000), (0, LEN)] {
            let mut out = vec![0; len];
            let meta = store.get_part(&id, offset as u64, &mut out).unwrap();
            assert!(meta.len == LEN as u64 && out == bytes[offset..offset + len], "{offset}, {len}");
        }
        for (offset, len) in [(LEN - 10, 11), (LEN, 1), (0, 0), (usize::MAX, 2)] {
            let mut out = vec![0; len];
            assert_eq!(store.get_part(&id, offset as u64, &mut out), Err(MissReason::Destination));
        }
        assert_eq!(store.get_part(&block(2, 1).0, 0, &mut [0]), Err(MissReason::Absent));
    };
    expect(&store);
    assert_eq!(store.stats().hits(Level::Arena), 4);
    store.flush(soon()).unwrap();
    drop(store);
    rig.lose_the_arena();
    let store = rig.open("16MiB", &[]);
    expect(&store);
    assert_eq!((store.stats().hits(Level::Arena), store.stats().hits(Level::Files)), (0, 4));
    assert_eq!(level(&store, &id), Some(Level::Files), "nothing was brought up for it");
    let segments = std::fs::read_dir(rig.pfs_path()).unwrap().map(|entry| entry.unwrap().path());
    // One bit, in the chunk that begins at 512 KiB of the payload, behind the pages of the segment and of the header.
    let place = 8192 + (512 << 10) + 17;
    for path in segments.filter(|path| path.extension().is_some_and(|end| end == "seg")) {
        let mut file = std::fs::read(&path).unwrap();
        if file.len() > LEN {
            file[place] ^= 1;
            std::fs::write(&path, file).unwrap();
        }
    }
    let mut out = vec![0; 1000];
    assert!(store.get_part(&id, 1000, &mut out).is_ok(), "another chunk is read");
    assert_eq!(store.get_part(&id, (512 << 10) + 100, &mut out), Err(MissReason::Corrupt));
    assert_eq!(store.get_part(&id, 1000, &mut out), Err(MissReason::Absent), "the block is dropped");
}
