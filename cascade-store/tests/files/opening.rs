//! Settings, and what is wrong with them.

use cascade_core::ErrorKind;
use cascade_store::{Demote, Store, StoreConfig};

use crate::rig::{Rig, expect, put};

#[test]
fn settings_of_files_are_shown_and_can_be_given_again() {
    let rig = Rig::new();
    let more = [
        ("demote", "back"),
        ("pfs_durability", "block"),
        ("pfs_direct", "off"),
        ("pfs_segment", "4MiB"),
        ("pfs_io_engine", "pool"),
        ("pfs_stripe_count", "8"),
        ("pfs_stripe_size", "1MiB"),
    ];
    let store = rig.open("32MiB", &more);
    let shown = store.in_force();
    for line in [
        "pfs_capacity = \"1GiB\"  # code",
        "pfs_segment = \"4MiB\"  # code",
        "pfs_durability = \"block\"  # code",
        "pfs_direct = \"off\"  # code",
        "pfs_io_engine = \"pool\"  # code",
        "pfs_stripe_count = 8  # code",
        "pfs_stripe_size = \"1MiB\"  # code",
        "demote = \"back\"  # code",
    ] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    drop(store);
    let file = rig.files.path().join("again.toml");
    std::fs::write(&file, shown).unwrap();
    let again = StoreConfig::builder().without_environment().file(&file).resolve().unwrap();
    assert_eq!(again.files().map(|files| files.demote), Some(Demote::Back));
    Store::open(&again).unwrap();
}

#[test]
fn without_a_path_there_are_no_files_and_what_is_in_force_says_so() {
    let rig = Rig::new();
    let builder = StoreConfig::builder().without_environment().shm_path(rig.arena.path().join("arena"));
    let config = builder.clone().shm_capacity("16MiB").unwrap().resolve().unwrap();
    let store = Store::open(&config).unwrap();
    assert!(store.files().is_none() && store.in_force().contains("pfs_path = \"\"  # default"));
    let file = rig.files.path().join("again.toml");
    std::fs::write(&file, store.in_force()).unwrap();
    assert!(StoreConfig::builder().without_environment().file(&file).resolve().unwrap().files().is_none());
    let error = builder.set("pfs_capacity", "1GiB").unwrap().resolve().unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("pfs_path"), "{error}");
}

#[test]
fn the_default_capacity_follows_from_what_is_free() {
    let rig = Rig::new();
    let builder = StoreConfig::builder().without_environment().pfs_path(rig.pfs_path());
    let builder = builder.shm_path(rig.arena.path().join("arena")).shm_capacity("16MiB").unwrap();
    let store = Store::open(&builder.resolve().unwrap()).unwrap();
    let capacity =
        store.files().map(|files| cascade_core::tier::Tier::capability(files).capacity_bytes).unwrap();
    let free = cascade_pfs::filesystem::probe(rig.files.path()).unwrap().free_bytes;
    assert!(capacity > free / 4 && capacity <= 1 << 40, "{capacity} of {free}");
    assert!(store.in_force().contains("demote = \"through\"  # default"));
}

#[test]
fn files_that_cannot_be_opened_are_an_error_that_names_them() {
    let rig = Rig::new();
    for (path, more, kind, what) in [
        ("/proc/none/tier".into(), ("demote", "off"), ErrorKind::NotFound, "/proc/none"),
        (rig.pfs_path(), ("pfs_segment", "1GiB"), ErrorKind::Config, "segment_bytes"),
        (
            rig.pfs_path(),
            ("pfs_durability", "always"),
            ErrorKind::Config,
            "\"none\" or \"segment\" or \"block\"",
        ),
        (rig.pfs_path(), ("demote", "sometimes"), ErrorKind::Config, "demote = \"sometimes\" (from code)"),
        (rig.pfs_path(), ("pfs_stripe_size", "5GiB"), ErrorKind::Config, "less than 4GiB"),
        (rig.pfs_path(), ("pfs_stripe_size", "1000"), ErrorKind::Config, "64 KiB"),
        ("relative".into(), ("demote", "off"), ErrorKind::Config, "absolute"),
    ] {
        let builder = rig.settings("16MiB", &[more]).pfs_path(&path);
        let error = builder.resolve().and_then(|config| Store::open(&config)).unwrap_err();
        assert!(
            error.kind() == kind && error.to_string().contains(what),
            "{path:?}: {:?}: {error}",
            error.kind()
        );
        assert!(
            !rig.arena.path().join("arena").exists(),
            "no arena is made for a store that cannot be opened"
        );
    }
    // Somebody's file stands where the directory is to be.
    std::fs::write(rig.pfs_path(), "a file").unwrap();
    let error = Store::open(&rig.settings("16MiB", &[]).resolve().unwrap()).unwrap_err();
    assert!(error.to_string().contains("tier"), "{error}");
}

#[test]
fn two_stores_of_one_node_share_both_tiers() {
    let rig = Rig::new();
    let (first, second) = (rig.open("32MiB", &[]), rig.open("32MiB", &[]));
    assert_eq!(put(&first, 1, 100_000), cascade_core::batch::Outcome::Stored);
    expect(&second, 1, 100_000);
}
