//! Configuration: files, and settings as the environment and programs give them.

use std::path::PathBuf;
use std::sync::OnceLock;

use cascade_store::StoreConfig;

use crate::Input;

const NAMES: [&str; 16] = [
    "shm_path",
    "shm_capacity",
    "shm_slots",
    "shm_region",
    "shm_owners",
    "shm_leases",
    "node",
    "no_such",
    "pfs_path",
    "pfs_capacity",
    "pfs_segment",
    "pfs_durability",
    "pfs_direct",
    "pfs_io_engine",
    "pfs_stripe_size",
    "demote",
];

fn folder() -> &'static PathBuf {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let made = || {
            tempfile::Builder::new().prefix("cascade-fuzz-").tempdir_in(crate::memory()).expect("/dev/shm")
        };
        FOLDER.get_or_init(made).path().to_owned()
    })
}

/// The first byte says how many settings follow; what remains is the file.
pub fn resolve(data: &[u8]) {
    let mut input = Input(data);
    let mut builder = StoreConfig::builder().without_environment();
    for _ in 0..input.byte() % 8 {
        let name = NAMES[usize::from(input.byte()) % NAMES.len()];
        let value = input.text();
        builder = match builder.clone().set(name, value) {
            Ok(set) => set,
            Err(_) => builder,
        };
    }
    let file = folder().join("cascade.toml");
    std::fs::write(&file, input.0).expect("/dev/shm");
    let Ok(config) = builder.file(&file).resolve() else { return };
    if let Some(Ok(pfs)) = config.files().map(cascade_store::FilesConfig::pfs) {
        // Free space decides where no capacity is given, so only one that is may be relied on.
        let _ = (pfs.check(), pfs.target_bytes());
        assert!(pfs.dir.is_absolute(), "{pfs:?}");
    }
    let mut arena = config.arena();
    assert!(arena.dir.is_absolute(), "{arena:?}");
    let name = arena.node_name();
    assert!(!name.contains('/') && name.len() <= 64, "{name:?} is part of a file name");
    assert_eq!(arena.path().parent(), Some(arena.dir.as_path()));
    // Where the numbers of an arena are decided; nothing is made.
    arena.dir = folder().clone();
    if let Ok(geometry) = arena.geometry() {
        assert_eq!(geometry.check().ok(), Some(geometry));
        let _ = arena.check_existing(&geometry);
    }
}

/// Files with each setting, and settings from code.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let files = [
        "\0pfs_path = \"/tmp/blocks\"\npfs_capacity = \"1GiB\"\npfs_segment = 65536\ndemote = \"back\"\n",
        "\0shm_path = \"/dev/shm/cascade\"\nshm_capacity = \"1GiB\"\nshm_slots = 4096\n",
        "\0shm_region = \"64MiB\"\nshm_owners = 255\nshm_leases = 1024\nnode = \"nid001\"\n",
        "\0shm_capacity = 1073741824\n[table]\nx = 1\n",
        "\0shm_capacity = \"18446744073709551615\"\nshm_region = \"0\"\n",
        "\u{2}\u{1}\u{4}2GiB\u{3}\u{5}1 MiBnode = \"x\"",
    ];
    files.iter().map(|file| file.as_bytes().to_vec()).collect()
}
