//! Memory that runs out while the arena grows: a smaller arena, and nobody is ended by SIGBUS.

// Clippy's exemption for tests reaches `#[test]` functions only, not their helpers.
#![allow(clippy::unwrap_used, clippy::panic)]

// Each test uses a part of it.
#[allow(dead_code)]
#[path = "hostile/image.rs"]
mod image;
#[path = "hostile/use_it.rs"]
mod use_it;

use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use cascade_core::batch::Outcome;
use cascade_core::tier::Tier;
use cascade_shm::{Arena, ArenaConfig};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::image::{Image, NODE, SHAPE};
use crate::use_it::{bytes, get, put};

/// Mounts a tmpfs of `bytes` at `dir`, seen by this thread and those that it starts; an error where that is not permitted.
fn mount_small(dir: &Path, bytes: usize) -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let options = format!("size={bytes},mode=0700");
    mount(Some("cascade"), dir, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
}

/// An arena with one ready region of four, in a file system that has room for two and a half.
fn check(dir: &Path) {
    let config = ArenaConfig { node: Some(NODE.into()), ..ArenaConfig::new(dir) };
    let mut image = Image::empty(2);
    image.put(SHAPE.at("control"), 1);
    for region in 1..4 {
        image.put(SHAPE.at("summaries") + region * 8, 0);
    }
    let (whole, ready) = (image.bytes.len(), SHAPE.at("data") + SHAPE.region_bytes as usize);
    image.bytes.truncate(ready);
    image.write(&config.path());
    let file = std::fs::File::options().write(true).mode(0o600).open(config.path()).unwrap();
    file.set_len(whole as u64).unwrap();

    let arena = Arena::open(&config).unwrap();
    // Puts that need the pages wait for them, and evict where there are none to be had.
    for number in 0..60 {
        assert_eq!(put(&arena, &number.to_string(), &bytes(number, 150_000)), Outcome::Stored);
        assert_eq!(get(&arena, &number.to_string(), 150_000).unwrap(), bytes(number, 150_000));
    }
    assert!(arena.wait_ready(Instant::now() + Duration::from_secs(5)), "growth has come to its end");
    let stats = arena.stats();
    assert_eq!(stats.capacity_bytes, 2 * SHAPE.region_bytes, "what exists is what is counted");
    assert_eq!(arena.ready_bytes(), 2 * SHAPE.region_bytes);
    assert!(stats.used_bytes <= stats.capacity_bytes && stats.evictions > 0, "{stats:?}");
    assert_eq!(arena.audit().unwrap().disagreements, 0);
    let too_large = put(&arena, "too large", &vec![1; 3 * SHAPE.region_bytes as usize]);
    assert!(matches!(too_large, Outcome::Refused(_)), "{too_large:?}");
    drop(arena);
    let arena = Arena::open(&config).unwrap();
    let found = (0..60).filter(|number| get(&arena, &number.to_string(), 150_000).is_ok()).count();
    assert!(found > 0);
}

#[test]
fn a_full_file_system_makes_a_smaller_arena() {
    let folder = tempfile::Builder::new().prefix("cascade-full-").tempdir_in("/dev/shm").unwrap();
    let dir = folder.path().join("small");
    std::fs::create_dir(&dir).unwrap();
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).unwrap();
    let data = SHAPE.at("data");
    let size = data + SHAPE.region_bytes as usize * 5 / 2;
    // A thread of its own: the mount is gone with it.
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| mount_small(&dir, size).map(|()| check(&dir))).join().unwrap()
    });
    if let Err(error) = outcome {
        println!("not run: no file system can be mounted here ({error})");
    }
}
