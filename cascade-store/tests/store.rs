//! The store as a Rust program uses it.

// Clippy's exemption for tests reaches `#[test]` functions only, not their helpers.
#![allow(clippy::unwrap_used)]

use cascade_core::ErrorKind;
use cascade_core::batch::Outcome;
use cascade_core::id::BlockId;
use cascade_core::tier::MissReason;
use cascade_store::{Put, Store, StoreConfig};

fn place() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("cascade-test-").tempdir_in("/dev/shm").unwrap()
}

fn open(place: &tempfile::TempDir) -> Store {
    let builder = StoreConfig::builder().without_environment().shm_path(place.path().join("arena"));
    Store::open(&builder.shm_capacity("32MiB").unwrap().resolve().unwrap()).unwrap()
}

#[test]
fn names_replace_and_content_is_kept() {
    let place = place();
    let store = open(&place);
    let (name, content) = (BlockId::named("n"), BlockId::content(b"one"));
    for id in [name, content] {
        assert_eq!(store.put(&id, b"one", Put::default()), Outcome::Stored);
        assert_eq!(store.put(&id, b"one", Put::default()), Outcome::Exists);
    }
    assert_eq!(store.put(&name, b"other", Put::default()), Outcome::Stored);
    assert_eq!(store.put(&content, b"other", Put::default()), Outcome::Exists);
    let mut out = [0; 5];
    assert_eq!(store.get(&name, &mut out).unwrap().len, 5);
    assert_eq!(&out, b"other");
    assert_eq!(store.get(&content, &mut out[..2]), Err(MissReason::Destination));
    assert_eq!(&out, b"other", "a destination that is too short is not touched");
}

#[test]
fn the_longest_prefix_ends_at_the_first_miss() {
    let place = place();
    let store = open(&place);
    let ids: Vec<BlockId> = (0..6_u8).map(|number| BlockId::content(&[number])).collect();
    let blocks: Vec<(BlockId, &[u8])> = ids.iter().map(|id| (*id, &b"block"[..])).collect();
    assert!(store.put_batch(&blocks, Put::prefix()).iter().all(|outcome| *outcome == Outcome::Stored));
    assert_eq!(store.longest_prefix(&ids), 6);
    assert!(store.delete(&ids[3]) && !store.delete(&ids[3]));
    assert_eq!(store.longest_prefix(&ids), 3);
    assert!(store.contains(&ids[4]) && !store.contains(&ids[3]));
    store.clear().unwrap();
    assert_eq!((store.longest_prefix(&ids), store.stats().arena().blocks), (0, 0));
}

#[test]
fn settings_from_a_file_are_overridden_by_code_and_shown() {
    let place = place();
    let file = place.path().join("cascade.toml");
    let arena = place.path().join("arena");
    std::fs::write(&file, format!("shm_path = {arena:?}\nshm_capacity = \"64MiB\"\nshm_owners = 5\n"))
        .unwrap();
    let builder = StoreConfig::builder().without_environment().file(&file).shm_capacity("16MiB").unwrap();
    let store = Store::open(&builder.resolve().unwrap()).unwrap();
    let shown = store.in_force();
    assert!(shown.contains("shm_capacity = \"16MiB\"  # code"), "{shown}");
    assert!(shown.contains("shm_owners = 5  # file"), "{shown}");
    assert!(shown.contains("shm_leases = 1064  # default"), "{shown}");
    assert!(shown.contains("janitor = \"on\"  # default"), "{shown}");
}

#[test]
fn what_is_in_force_can_be_given_again() {
    let place = place();
    let builder = StoreConfig::builder().without_environment().shm_path(place.path().join("arena"));
    let odd = [("shm_capacity", "1025MiB"), ("shm_region", "1MiB"), ("janitor", "off")];
    let builder = odd.iter().fold(builder, |builder, (name, value)| builder.set(name, *value).unwrap());
    let store = Store::open(&builder.resolve().unwrap()).unwrap();
    let file = place.path().join("again.toml");
    std::fs::write(&file, store.in_force()).unwrap();
    let again = StoreConfig::builder().without_environment().file(&file).resolve().unwrap();
    assert_eq!(again.arena().capacity_bytes, Some(1025 << 20));
    Store::open(&again).unwrap();
}

#[test]
fn wrong_settings_say_which_and_why() {
    let place = place();
    let file = place.path().join("cascade.toml");
    for (text, expected) in [
        ("shm_capacty = 1", "there is no setting \"shm_capacty\""),
        ("shm_capacity = \"many\"", "shm_capacity"),
        ("janitor = \"perhaps\"", "\"on\" or \"off\""),
        ("eviction = \"fifo\"", "\"learned\" or \"lru\""),
        ("shm_owners = 0", "a whole number from 1"),
        ("shm_path = \"relative\"", "absolute"),
        ("shm_path = ", "not a valid configuration"),
    ] {
        std::fs::write(&file, text).unwrap();
        let error = StoreConfig::builder().without_environment().file(&file).resolve().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{text}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    let missing = StoreConfig::builder().without_environment().file(place.path().join("none")).resolve();
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
}
