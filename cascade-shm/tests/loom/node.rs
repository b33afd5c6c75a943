//! A small arena in the memory of a model, its owners real sessions with real file locks.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use cascade_core::id::BlockId;
use cascade_core::tier::Class;
use cascade_shm::Arena;
use cascade_shm::index::Claim;
use cascade_shm::layout::Geometry;
use cascade_shm::ledger::Entry;
use cascade_shm::lock::Holder;
use cascade_shm::model::{Core, Map, Rule, Session, Tenancy};
use cascade_shm::owner::{OwnerRow, Process};
use cascade_shm::slot::{Extent, State, Word};

/// Bytes of a region: 64 small units, or 4 large ones.
pub(crate) const REGION: u64 = 256 << 10;

/// Two regions, one bucket, three owners and the one for recovery.
fn geometry() -> Geometry {
    Geometry { data_bytes: 2 * REGION, region_bytes: REGION, buckets: 1, owners: 4, ledger_entries: 64 }
}

pub(crate) struct Node {
    pub(crate) map: Arc<Map>,
    locks: tempfile::TempPath,
}

impl Node {
    pub(crate) fn new() -> Self {
        let node = Self {
            map: Arc::new(Map::modelled(geometry())),
            locks: tempfile::NamedTempFile::new().unwrap().into_temp_path(),
        };
        node.join().core().with_regions(|regions| (0..2).for_each(|region| regions.open(region)));
        node
    }

    /// An owner.
    pub(crate) fn join(&self) -> Session {
        Session::join(&self.map, Rule::default(), &|| Ok(self.file())).unwrap()
    }

    fn file(&self) -> File {
        File::options().read(true).write(true).open(&self.locks).unwrap()
    }

    /// An owner with a whole handle.
    pub(crate) fn arena(&self) -> Arena {
        Arena::modelled(Arc::clone(&self.map), self.file(), self.locks.to_path_buf()).unwrap()
    }

    /// An owner that is dead: its process is gone, and nobody has its file lock.
    pub(crate) fn dead(&self, row: u16) -> Holder {
        let pid_namespace = std::fs::metadata("/proc/self/ns/pid").unwrap().ino();
        let process = Process { pid: u64::MAX, started: 0, pid_namespace };
        let owner: &OwnerRow = &self.map.owners()[row as usize];
        let generation = owner.join(process);
        owner.use_stripe(0);
        Holder { row, generation }
    }

    /// Reserves a slot for `name` in the name of `row`, whose ledger entry `entry` says so.
    pub(crate) fn reserve(&self, core: &Core, row: u16, entry: usize, name: &str) -> (u32, Word) {
        let index = core.index();
        let key = index.key(&BlockId::named(name));
        let (slot, free) = index.free_slot(&key).unwrap();
        Entry::intent(slot).store(&self.map.ledger(row)[entry]);
        match index.claim(&key, slot, free, Class::Ordinary, row, false) {
            Some(Claim::Ours(word)) => (slot, word),
            other => panic!("nobody else claims {name}: {other:?}"),
        }
    }

    /// Moves a slot that `row` owns on, and gives the word it has then.
    pub(crate) fn advance(&self, slot: u32, word: Word, state: State) -> Word {
        let has_owner = !matches!(state, State::Sealed | State::Retired);
        let to = word.with(state, if has_owner { word.owner() } else { 0 });
        assert!(self.map.slots()[slot as usize].advance(word, to));
        to
    }

    pub(crate) fn word(&self, slot: u32) -> Word {
        self.map.slots()[slot as usize].word()
    }

    pub(crate) fn entries(&self, row: u16) -> usize {
        self.map.ledger(row).iter().filter(|cell| Entry::load(cell) != Entry::EMPTY).count()
    }
}

pub(crate) fn allocate(core: &Core, len: u64, slot: u32, start: usize) -> Option<Extent> {
    let whose = Tenancy { slot, tenant: 0, past: 0 };
    core.with_regions(|regions| regions.allocate(len, whose, start))
}

/// Units that the tables and the slots disagree on, and bytes in use.
pub(crate) fn tables(core: &Core) -> (u64, u64) {
    core.with_regions(|regions| (regions.disagreements(), regions.used_bytes()))
}
