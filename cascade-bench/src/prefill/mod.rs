//! An arena whose index is as full as with millions of blocks, which share a little data: slots are claimed and sealed in the
//! arena's own tables by the index's own code. Lookups, leases and their bytes are then those of any arena; only evicting would
//! find bitmaps that say nothing of these blocks.

mod raw;

use std::fs::File;
use std::os::unix::fs::FileExt;

use cascade_core::digest::{crc64, root};
use cascade_core::id::BlockId;
use cascade_core::tier::Class;
use cascade_core::{Error, ErrorKind, Result};
use cascade_shm::Arena;
use cascade_shm::index::{Claim, Index};
use cascade_shm::slot::{Extent, State};

use crate::lap::FreshIds;
use crate::latency::BLOCK_BYTES;
use raw::Tables;

/// Where the control area counts epochs, and how slots note them (docs/format.md).
const EPOCH_AT: u64 = 16;
const EPOCHS: u64 = 63;
/// Ids made at once.
const IDS: u64 = 100_000;

/// Lets the index of `arena`, new and untouched, name the first `blocks` ids of a run, as blocks of zeros. An id whose buckets are
/// full is left out.
pub(crate) fn fill(arena: &Arena, blocks: u64) -> Result<()> {
    let failed = |error: std::io::Error| {
        let context = format!("cannot map the tables of {}", arena.path().display());
        Error::new(ErrorKind::System, context).with_source(error)
    };
    let file = File::options().read(true).write(true).open(arena.path()).map_err(failed)?;
    let tables = Tables::of(&file, &arena.superblock().geometry).map_err(failed)?;
    let mut epoch = [0; 8];
    file.read_exact_at(&mut epoch, arena.superblock().geometry.offsets().control + EPOCH_AT)
        .map_err(failed)?;
    let epoch = (u64::from_le_bytes(epoch) % EPOCHS) as u8 + 1;
    let pages = arena.ready_bytes() / BLOCK_BYTES;
    let zeros = crc64(&[0; BLOCK_BYTES as usize]);
    let mut ids = FreshIds::default();
    for first in (0..blocks).step_by(IDS as usize) {
        for (number, id) in (first..).zip(ids.take(IDS.min(blocks - first) as usize)) {
            name(&tables.index(), &id, number % pages * BLOCK_BYTES, zeros, epoch);
        }
    }
    Ok(())
}

fn name(index: &Index<'_>, id: &BlockId, offset: u64, chunk: u64, epoch: u8) {
    let key = index.key(id);
    let Some((number, free)) = index.free_slot(&key) else { return };
    let claimed = index.claim(&key, number, free, Class::Ordinary, 0, false);
    let (Some(Claim::Ours(reserved)), Some(slot)) = (claimed, index.slot(number)) else { return };
    slot.set_extent(Extent { offset, len: BLOCK_BYTES }, 0, 0);
    slot.set_root(root(id.as_bytes(), BLOCK_BYTES, std::iter::once(chunk)));
    slot.set_verified(epoch);
    slot.advance(reserved, reserved.with(State::Sealed, 0));
}

#[cfg(test)]
mod tests {
    use cascade_core::tier::Addressable;
    use cascade_shm::ArenaConfig;

    use super::*;

    #[test]
    fn every_block_is_found_leased_and_matches_its_digest() {
        let folder = tempfile::Builder::new().prefix("cascade-test-").tempdir_in("/dev/shm").unwrap();
        let config = ArenaConfig { slots: Some(4000), ..ArenaConfig::new(folder.path().join("arena")) };
        let arena = Arena::open(&config.capacity(4 << 20)).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        assert!(arena.wait_ready(deadline));
        fill(&arena, 3000).unwrap();
        assert_eq!(arena.audit().unwrap().sealed_slots, 3000);
        let mut bytes = vec![1; BLOCK_BYTES as usize];
        for id in FreshIds::default().take(3000) {
            let lease = arena.lease(&id).unwrap();
            assert!(lease.read_at(0, &mut bytes) && bytes.iter().all(|byte| *byte == 0));
            // A fetch verifies always; a lease trusts what was verified before.
            let buffer = cascade_core::memory::HostBuffer::zeroed(BLOCK_BYTES as usize);
            let op = cascade_core::batch::Op::Fetch { id, into: buffer.piece().into() };
            let ticket = cascade_core::tier::Tier::submit(&arena, cascade_core::batch::Batch::new(vec![op]));
            let outcome = ticket.wait(deadline).unwrap()[0];
            assert!(matches!(outcome, cascade_core::batch::Outcome::Fetched(_)), "{outcome:?}");
        }
    }
}
