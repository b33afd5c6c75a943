//! A store over an arena in memory and files on a disk, and what the tests ask of it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cascade_core::batch::Outcome;
use cascade_core::id::BlockId;
use cascade_core::testing::bytes::content;
use cascade_store::{Level, Put, Store, StoreConfig, StoreConfigBuilder};

/// A folder that goes with the test, or another process's.
pub(crate) enum Folder {
    Own(tempfile::TempDir),
    Given(PathBuf),
}

impl Folder {
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Own(folder) => folder.path(),
            Self::Given(path) => path,
        }
    }
}

/// Folders of one test.
pub(crate) struct Rig {
    pub(crate) arena: Folder,
    pub(crate) files: Folder,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let arena = tempfile::Builder::new().prefix("cascade-test-").tempdir_in("/dev/shm").unwrap();
        Self { arena: Folder::Own(arena), files: Folder::Own(tempfile::tempdir().unwrap()) }
    }

    /// The folders of another process's test, which said where its arena is.
    pub(crate) fn at(files: &Path) -> Self {
        let arena = std::fs::read_link(files.join("memory")).unwrap();
        Self { arena: Folder::Given(arena), files: Folder::Given(files.to_owned()) }
    }

    /// Says beside the files where the arena is.
    pub(crate) fn link_arena(&self) {
        std::os::unix::fs::symlink(self.arena.path(), self.files.path().join("memory")).unwrap();
    }

    pub(crate) fn pfs_path(&self) -> PathBuf {
        self.files.path().join("tier")
    }

    pub(crate) fn settings(&self, shm_capacity: &str, more: &[(&str, &str)]) -> StoreConfigBuilder {
        let builder = StoreConfig::builder().without_environment().shm_path(self.arena.path().join("arena"));
        let builder = builder.shm_capacity(shm_capacity).unwrap().pfs_path(self.pfs_path());
        let builder = if more.iter().any(|(name, _)| *name == "pfs_capacity") {
            builder
        } else {
            builder.set("pfs_capacity", "1GiB").unwrap()
        };
        more.iter().fold(builder, |builder, (name, value)| builder.set(name, *value).unwrap())
    }

    pub(crate) fn open(&self, shm_capacity: &str, more: &[(&str, &str)]) -> Store {
        Store::open(&self.settings(shm_capacity, more).resolve().unwrap()).unwrap()
    }

    /// The node restarts, as far as the arena is concerned.
    pub(crate) fn lose_the_arena(&self) {
        std::fs::remove_dir_all(self.arena.path().join("arena")).unwrap();
    }
}

/// When a test gives up; sooner where it is known that it must.
pub(crate) fn soon() -> Instant {
    let seconds = std::env::var("CASCADE_TEST_PATIENCE_S").map_or(60, |text| text.parse().unwrap());
    Instant::now() + Duration::from_secs(seconds)
}

/// A block of a chain, as it were: its bytes follow from its number.
pub(crate) fn block(number: u64, len: usize) -> (BlockId, Vec<u8>) {
    let bytes = content(number, 1, len).to_vec();
    (BlockId::content(&number.to_le_bytes()), bytes)
}

pub(crate) fn put(store: &Store, number: u64, len: usize) -> Outcome {
    let (id, bytes) = block(number, len);
    store.put(&id, &bytes, Put::default())
}

pub(crate) fn expect(store: &Store, number: u64, len: usize) {
    let (id, bytes) = block(number, len);
    let mut out = vec![0; len];
    assert_eq!(store.get(&id, &mut out).map(|meta| meta.len), Ok(len as u64), "block {number}");
    assert!(out == bytes, "block {number} has other bytes");
}

pub(crate) fn level(store: &Store, id: &BlockId) -> Option<Level> {
    store.locate(std::slice::from_ref(id))[0].level
}

/// Waits until `holds`, which the store's threads must bring about.
pub(crate) fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = soon();
    while !holds() {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
