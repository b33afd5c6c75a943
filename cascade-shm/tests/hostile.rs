//! What is found in place of an arena: used when it is a whole arena of ours, in a format that this code reads; refused with
//! a message that names the path, what was found and what to do when it is anything else.

// Clippy's exemption for tests reaches `#[test]` functions only, not their helpers.
#![allow(clippy::unwrap_used, clippy::panic)]

// Each test uses a part of it.
#[allow(dead_code)]
#[path = "hostile/image.rs"]
mod image;
#[path = "hostile/use_it.rs"]
mod use_it;

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use cascade_core::{Error, ErrorKind};
use cascade_shm::{Arena, ArenaConfig};

use crate::image::{Image, NODE, SHAPE};
use crate::use_it::{bytes, get, put};

/// Where tests make their folders. A planted bug may end the process without destructors: who plants it gives a folder, and removes it.
fn memory() -> std::path::PathBuf {
    std::env::var_os("CASCADE_TEST_MEMORY").map_or_else(|| "/dev/shm".into(), Into::into)
}

/// A place for one arena on shared memory.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::Builder::new().prefix("cascade-hostile-").tempdir_in(memory()).unwrap())
    }

    fn dir(&self) -> PathBuf {
        self.0.path().join("arena")
    }

    fn config(&self) -> ArenaConfig {
        ArenaConfig { node: Some(NODE.into()), ..ArenaConfig::new(self.dir()) }.capacity(SHAPE.data_bytes)
    }

    fn path(&self) -> PathBuf {
        self.config().path()
    }

    /// With `image` at its path.
    fn with(image: &Image) -> Self {
        let place = Self::new();
        place.make_dir();
        image.write(&place.path());
        place
    }

    fn make_dir(&self) {
        std::fs::create_dir(self.dir()).unwrap();
        std::fs::set_permissions(self.dir(), Permissions::from_mode(0o700)).unwrap();
    }

    /// Opens the arena, which must be refused with the path of what is wrong and each of `parts` in the message.
    fn refused(&self, kind: ErrorKind, parts: &[&str]) -> Error {
        let error = Arena::open(&self.config()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(self.dir().to_str().unwrap()), "no path in: {text}");
        assert!(parts.iter().all(|part| text.contains(part)), "not all of {parts:?} in: {text}");
        assert_eq!(error.kind(), kind, "{text}");
        error
    }
}

fn image_with_blocks(version: u32) -> Image {
    let mut image = Image::empty(version);
    image.add("small", &bytes(1, 5000), 0, 3);
    image.add("large", &bytes(2, 200_000), 1, 2);
    image
}

#[test]
fn arenas_of_every_readable_format_are_used_as_they_are() {
    for version in [1, 2] {
        let place = Place::with(&image_with_blocks(version));
        let before = std::fs::read(place.path()).unwrap();
        for round in 0..2 {
            let arena = Arena::open(&place.config()).unwrap();
            assert!(!arena.is_new());
            assert_eq!(arena.superblock().version, version);
            assert_eq!(arena.audit().unwrap().disagreements, 0);
            assert_eq!(get(&arena, "small", 5000).unwrap(), bytes(1, 5000));
            assert_eq!(get(&arena, "large", 200_000).unwrap(), bytes(2, 200_000));
            for number in 0..40 {
                put(&arena, &format!("{round} {number}"), &bytes(number, 90_000));
                get(&arena, &format!("{round} {number}"), 90_000).unwrap();
                get(&arena, "small", 5000).unwrap();
                get(&arena, "large", 200_000).unwrap();
            }
            assert_eq!(arena.audit().unwrap().disagreements, 0);
        }
        let after = std::fs::read(place.path()).unwrap();
        assert_eq!(before[..4096], after[..4096], "nothing is converted in place");
    }
}

#[test]
fn a_format_that_is_not_read_is_refused_by_name() {
    for version in [0, 3, u32::MAX] {
        let place = Place::with(&image_with_blocks(version));
        let format = format!("format {version} ");
        place.refused(ErrorKind::Format, &[&format, "formats 1 to 2", "cascade gc", "arena.hostile"]);
    }
    let mut image = image_with_blocks(2);
    image.put(16, 1 << 5);
    image.sign();
    Place::with(&image).refused(ErrorKind::Format, &["features: bit 5", "format 2"]);
    let mut image = image_with_blocks(2);
    image.put(144, 1 << 5);
    image.put_u32(8, 9);
    image.sign();
    let arena = Arena::open(&Place::with(&image).config()).unwrap();
    assert_eq!(
        arena.superblock().version,
        9,
        "a newer one that says it can be read, with a feature to ignore"
    );
}

#[test]
fn files_that_are_no_arena_are_refused() {
    let cases: [(&str, Vec<u8>, &str); 5] = [
        ("empty", vec![], "has 0 bytes"),
        ("short", b"CASCARNA".to_vec(), "has 8 bytes"),
        ("foreign", vec![0x7f; 10_000], "not a Cascade arena"),
        ("zeros", vec![0; 8 << 20], "not a Cascade arena"),
        ("text", b"hello\n".repeat(1000), "not a Cascade arena"),
    ];
    for (name, content, part) in cases {
        let place = Place::with(&Image { bytes: content.clone() });
        place.refused(ErrorKind::Format, &[part]);
        assert_eq!(std::fs::read(place.path()).unwrap(), content, "{name}: what is not ours stays as it is");
    }
}

#[test]
fn damaged_and_truncated_arenas_are_refused() {
    let whole = image_with_blocks(2);
    for len in [4096, 8192, SHAPE.at("slots"), SHAPE.at("data"), whole.bytes.len() - 1, whole.bytes.len() + 1]
    {
        let mut image = image_with_blocks(2);
        image.bytes.resize(len, 0);
        Place::with(&image).refused(ErrorKind::Format, &["its superblock says", "remove it"]);
    }
    let mut image = image_with_blocks(2);
    image.bytes[100] ^= 1;
    Place::with(&image).refused(ErrorKind::Format, &["is damaged", "digest", "remove it"]);
    let mut image = image_with_blocks(2);
    image.put(32, 3 << 20);
    image.sign();
    Place::with(&image).refused(ErrorKind::Format, &["is damaged", "region_bytes is impossible"]);
    for word in [SHAPE.at("control"), SHAPE.at("control") + 8] {
        let mut image = image_with_blocks(2);
        image.put(word, 1 << 40);
        Place::with(&image).refused(ErrorKind::Format, &["is damaged", "regions"]);
    }
}

#[test]
fn an_arena_with_missing_pages_is_refused() {
    for (from, len) in [("slots", 4096), ("data", 1 << 20), ("digests", 4096)] {
        let place = Place::with(&image_with_blocks(2));
        let file = std::fs::File::options().write(true).open(place.path()).unwrap();
        let punch = nix::fcntl::FallocateFlags::FALLOC_FL_PUNCH_HOLE
            | nix::fcntl::FallocateFlags::FALLOC_FL_KEEP_SIZE;
        nix::fcntl::fallocate(&file, punch, SHAPE.at(from) as i64, len).unwrap();
        place.refused(ErrorKind::Format, &["is damaged", "need"]);
    }
    // Cut off and made as long as before: the length says nothing.
    let place = Place::with(&image_with_blocks(2));
    let file = std::fs::File::options().write(true).open(place.path()).unwrap();
    let len = file.metadata().unwrap().len();
    file.set_len(len / 2).unwrap();
    file.set_len(len).unwrap();
    place.refused(ErrorKind::Format, &["is damaged", "need"]);
}

#[test]
fn an_arena_of_another_node_is_refused() {
    let mut image = image_with_blocks(2);
    image.bytes[80..87].copy_from_slice(b"another");
    image.sign();
    Place::with(&image).refused(ErrorKind::Format, &["\"another\"", "\"hostile\""]);
}

#[test]
fn what_others_can_reach_is_refused_with_the_cure() {
    for mode in [0o640, 0o604, 0o660, 0o666, 0o610, 0o601] {
        let place = Place::with(&image_with_blocks(2));
        std::fs::set_permissions(place.path(), Permissions::from_mode(mode)).unwrap();
        let cure = format!("chmod go-rwx {}", place.path().display());
        place.refused(ErrorKind::Permission, &[&format!("{mode:04o}"), &cure]);
    }
    for mode in [0o750, 0o705, 0o770, 0o777, 0o1777, 0o711] {
        let place = Place::with(&image_with_blocks(2));
        std::fs::set_permissions(place.dir(), Permissions::from_mode(mode)).unwrap();
        let cure = format!("chmod go-rwx {}", place.dir().display());
        place.refused(ErrorKind::Permission, &[&format!("{mode:04o}"), &cure]);
    }
    let place = Place::with(&image_with_blocks(2));
    std::fs::hard_link(place.path(), place.dir().join("other")).unwrap();
    place.refused(ErrorKind::Permission, &["2 hard links"]);
}

#[test]
fn links_fifos_and_folders_in_place_of_the_file_are_refused() {
    let place = Place::with(&image_with_blocks(2));
    let elsewhere = place.dir().join("elsewhere");
    std::fs::rename(place.path(), &elsewhere).unwrap();
    symlink(&elsewhere, place.path()).unwrap();
    place.refused(ErrorKind::Permission, &["a symbolic link to", "elsewhere"]);
    std::fs::remove_file(place.path()).unwrap();
    symlink("/nowhere/at/all", place.path()).unwrap();
    place.refused(ErrorKind::Permission, &["a symbolic link to /nowhere/at/all"]);
    std::fs::remove_file(place.path()).unwrap();
    nix::unistd::mkfifo(&place.path(), nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR)
        .unwrap();
    place.refused(ErrorKind::Permission, &["a FIFO"]);
    std::fs::remove_file(place.path()).unwrap();
    std::fs::create_dir(place.path()).unwrap();
    place.refused(ErrorKind::Permission, &["a directory", "a regular file is needed"]);
    std::fs::remove_dir(place.path()).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(place.path()).unwrap();
    place.refused(ErrorKind::Permission, &["a socket"]);
}

#[test]
fn what_stands_in_place_of_the_directory_is_refused() {
    let place = Place::new();
    std::fs::write(place.dir(), b"a file").unwrap();
    place.refused(ErrorKind::Permission, &["a regular file", "a directory is needed"]);
    std::fs::remove_file(place.dir()).unwrap();
    std::fs::create_dir(place.0.path().join("real")).unwrap();
    symlink(place.0.path().join("real"), place.dir()).unwrap();
    place.refused(ErrorKind::Permission, &["a symbolic link to"]);
    std::fs::remove_file(place.dir()).unwrap();
    symlink("/nowhere/at/all", place.dir()).unwrap();
    place.refused(ErrorKind::Permission, &["a symbolic link to /nowhere/at/all"]);
    std::fs::remove_file(place.dir()).unwrap();
    nix::unistd::mkfifo(&place.dir(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    place.refused(ErrorKind::Permission, &["a FIFO"]);
    let config = ArenaConfig { node: Some(NODE.into()), ..ArenaConfig::new(place.dir().join("below")) };
    let error = Arena::open(&config).unwrap_err().to_string();
    assert!(error.contains("its parent must be a directory"), "{error}");
    let config = ArenaConfig { node: Some(NODE.into()), ..ArenaConfig::new(place.0.path().join("a/b")) };
    assert_eq!(Arena::open(&config).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn what_another_user_made_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        println!("not run: only root can give a file to another user");
        return;
    }
    let nobody = Some(nix::unistd::Uid::from_raw(65_534));
    let place = Place::with(&image_with_blocks(2));
    nix::unistd::chown(&place.path(), nobody, None).unwrap();
    place.refused(ErrorKind::Permission, &["arena.hostile belongs to uid 65534", "use another directory"]);
    let place = Place::with(&image_with_blocks(2));
    nix::unistd::chown(&place.dir(), nobody, None).unwrap();
    place.refused(ErrorKind::Permission, &["directory", "belongs to uid 65534"]);
    let place = Place::with(&image_with_blocks(2));
    std::fs::remove_file(place.path()).unwrap();
    let null = nix::sys::stat::makedev(1, 3);
    let mode = nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR;
    match nix::sys::stat::mknod(&place.path(), nix::sys::stat::SFlag::S_IFCHR, mode, null) {
        Ok(()) => {
            place.refused(ErrorKind::Permission, &["a character device"]);
        }
        Err(error) => println!("not run: no device can be made here ({error})"),
    }
}

#[test]
fn a_directory_is_made_for_this_user_alone_whatever_the_umask() {
    let place = Place::new();
    let arena = Arena::open(&place.config()).unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&place.dir()), mode(arena.path())), (0o700, 0o600));
}
