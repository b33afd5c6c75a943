//! The conformance suite of `cascade-core` over the tier of files.

// Clippy's exemption for tests reaches `#[test]` functions only, not their helpers.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::sync::Arc;

use cascade_core::testing::conformance;
use cascade_pfs::fs::{Fs, RealFs};
use cascade_pfs::testing::MemFs;
use cascade_pfs::{Durability, IoEngine, PfsConfig, PfsTier};

fn suite(root: &Path, fs: impl Fn() -> Arc<dyn Fs>, change: impl Fn(&mut PfsConfig)) {
    let next = std::cell::Cell::new(0);
    conformance::tier(&|capacity_bytes| {
        let number = next.replace(next.get() + 1);
        let _ = std::fs::remove_dir_all(root.join(format!("tier-{}", number - 1)));
        let mut config = PfsConfig::new(root.join(format!("tier-{number}")), capacity_bytes);
        change(&mut config);
        Arc::new(PfsTier::open_on(config, fs()).unwrap())
    });
}

#[test]
fn files_in_memory_conform() {
    suite(Path::new("/none"), || Arc::new(MemFs::new()), |_| ());
}

#[test]
fn aligned_files_in_memory_conform_at_durability_block() {
    let small = |config: &mut PfsConfig| {
        (config.durability, config.io_bytes) = (Durability::Block, 128 << 10);
    };
    suite(Path::new("/none"), || Arc::new(MemFs::new().with_direct()), small);
}

#[test]
fn files_on_disk_conform_by_calls_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    suite(folder.path(), || Arc::new(RealFs), |config| config.io_engine = IoEngine::Pool);
}

#[test]
fn files_on_disk_conform_by_io_uring() {
    let folder = tempfile::tempdir().unwrap();
    if common::has_uring() {
        suite(folder.path(), || Arc::new(RealFs), |config| config.io_engine = IoEngine::Uring);
    }
}

#[test]
fn files_in_shared_memory_conform_by_io_uring_with_few_bytes_under_way() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let few = |config: &mut PfsConfig| {
        (config.io_engine, config.io_bytes) = (IoEngine::Uring, 128 << 10);
        (config.read_in_flight_bytes, config.direct) = (1, false);
    };
    if common::has_uring() {
        suite(folder.path(), || Arc::new(RealFs), few);
    }
}

#[test]
fn files_on_disk_through_the_page_cache_conform_without_durability() {
    let folder = tempfile::tempdir().unwrap();
    suite(
        folder.path(),
        || Arc::new(RealFs),
        |config| (config.direct, config.durability) = (false, Durability::None),
    );
}

#[test]
fn files_in_shared_memory_conform() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    suite(folder.path(), || Arc::new(RealFs), |config| config.write_threads = 1);
}
