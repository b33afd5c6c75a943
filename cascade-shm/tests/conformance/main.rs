//! The conformance suite of `cascade-core` over the arena.

// Clippy's exemption for tests reaches `#[test]` functions only, not their helpers.
#![allow(clippy::unwrap_used)]

mod two_owners;

use std::sync::Arc;

use cascade_core::testing::conformance;
use cascade_core::tier::Addressable;
use cascade_shm::{Arena, ArenaConfig};

/// Makes an empty arena for each check; its folder goes when the next one is asked for.
fn suite(config: impl Fn(ArenaConfig) -> ArenaConfig) {
    suite_over(config, |config| Arc::new(Arena::open(config).unwrap()));
}

/// Where tests make their folders. A planted bug may end the process without destructors: who plants it gives a folder, and removes it.
fn memory() -> std::path::PathBuf {
    std::env::var_os("CASCADE_TEST_MEMORY").map_or_else(|| "/dev/shm".into(), Into::into)
}

fn suite_over(
    config: impl Fn(ArenaConfig) -> ArenaConfig,
    open: impl Fn(&ArenaConfig) -> Arc<dyn Addressable>,
) {
    let folder = tempfile::Builder::new().prefix("cascade-test-").tempdir_in(memory()).unwrap();
    let next = std::cell::Cell::new(0);
    conformance::addressable(&|capacity_bytes| {
        let number = next.replace(next.get() + 1);
        // The check before is over: its arena is closed, and its memory is wanted back.
        let _ = std::fs::remove_dir_all(folder.path().join(format!("arena-{}", number - 1)));
        let dir = folder.path().join(format!("arena-{number}"));
        open(&config(ArenaConfig::new(dir).capacity(capacity_bytes)))
    });
}

#[test]
fn the_arena_conforms() {
    suite(|config| config);
}

#[test]
fn an_arena_of_few_large_regions_conforms() {
    suite(|config| {
        let capacity_bytes = config.capacity_bytes.unwrap_or(0).max(32 << 20);
        ArenaConfig { region_bytes: Some(8 << 20), ..config.capacity(capacity_bytes) }
    });
}

#[test]
fn an_arena_with_more_room_than_slots_conforms() {
    suite(|config| {
        let capacity_bytes = config.capacity_bytes.unwrap_or(0).max(32 << 20);
        ArenaConfig { slots: Some(1024), ..config.capacity(capacity_bytes) }
    });
}

#[test]
fn an_arena_with_few_owners_and_ledger_entries_conforms() {
    suite(|config| ArenaConfig { owners: Some(1), leases: Some(128), ..config });
}

#[test]
fn two_owners_of_one_arena_conform() {
    suite_over(|config| config, |config| Arc::new(two_owners::TwoOwners::open(config)));
}
