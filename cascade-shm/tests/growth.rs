//! Growth: what is stored meanwhile, and memory that runs out and comes back.

// Clippy's exemption for tests reaches `#[test]` functions only, not their helpers.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cascade_core::batch::{Batch, Op, Outcome};
use cascade_core::id::BlockId;
use cascade_core::memory::Piece;
use cascade_core::tier::{PutMeta, Tier};
use cascade_shm::{Arena, ArenaConfig};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("cascade-test-").tempdir_in("/dev/shm").unwrap()
}

fn put(arena: &Arena, name: &str, len: u64) -> Outcome {
    let from = Piece::shared(Arc::from(vec![name.len() as u8; len as usize])).into();
    let op = Op::Store { id: BlockId::named(name), from, meta: PutMeta::default() };
    arena.submit(Batch::new(vec![op])).wait(Instant::now()).unwrap()[0]
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let since = Instant::now();
    while !done() {
        assert!(since.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn puts_wait_for_pages_rather_than_drop_a_block() {
    let folder = folder();
    for janitor in [true, false] {
        let base = ArenaConfig::new(folder.path().join(janitor.to_string())).capacity(96 * MIB);
        let arena = Arena::open(&ArenaConfig { janitor, region_bytes: Some(MIB), ..base }).unwrap();
        let at_first = arena.stats().ready_bytes;
        // As many regions as no number of attempts would do.
        assert_eq!(put(&arena, "large", 80 * MIB), Outcome::Stored);
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let arena = &arena;
                scope.spawn(move || {
                    for number in 0..7 {
                        assert_eq!(put(arena, &format!("{thread} {number}"), MIB), Outcome::Stored);
                    }
                });
            }
        });
        let stats = arena.stats();
        assert_eq!((stats.evictions, stats.blocks), (0, 15), "from {at_first} ready: {stats:?}");
        assert!(arena.wait_ready(Instant::now() + PATIENCE));
        let growth = arena.growth();
        assert_eq!((growth.ready_bytes, growth.limit_bytes, growth.shortfalls), (96 * MIB, 96 * MIB, 0));
        assert_eq!(arena.stats().ready_bytes, 96 * MIB);
    }
}

/// Mounts a tmpfs of `bytes` at `dir`, seen by this thread and those that it starts; an error where that is not permitted.
fn mount_small(dir: &Path, bytes: u64) -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let options = format!("size={bytes},mode=0700");
    mount(Some("cascade"), dir, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
}

/// An arena of 32 MiB where 48 are; something else takes most of it, and gives it back.
fn run_short_and_go_on(dir: &Path) {
    let config = ArenaConfig { region_bytes: Some(4 * MIB), ..ArenaConfig::new(dir).capacity(32 * MIB) };
    drop(Arena::open(&ArenaConfig { janitor: false, ..config.clone() }).unwrap());
    let other = dir.join("other");
    let free = || {
        let stat = nix::sys::statvfs::statvfs(dir).unwrap();
        stat.blocks_available() * stat.fragment_size()
    };
    // Room for two regions and a half.
    std::fs::write(&other, vec![1; (free() - 10 * MIB) as usize]).unwrap();
    let arena = Arena::open(&config).unwrap();
    wait_until("growth comes to an end", || arena.growth().shortfalls == 1);
    let growth = arena.growth();
    assert_eq!((growth.ready_bytes, growth.limit_bytes), (8 * MIB, 8 * MIB), "{growth:?}");
    assert!(free() >= 2 * MIB, "what was touched in vain is given back: {}", free());
    for number in 0..20 {
        assert_eq!(put(&arena, &number.to_string(), MIB), Outcome::Stored);
    }
    assert!(arena.stats().evictions >= 12);
    std::fs::remove_file(&other).unwrap();
    wait_until("growth goes on when there is room", || arena.growth().ready_bytes == 32 * MIB);
    assert_eq!(put(&arena, "large", 30 * MIB), Outcome::Stored);
    assert_eq!(arena.audit().unwrap().disagreements, 0);
}

#[test]
fn growth_stops_where_memory_ends_and_goes_on_when_there_is_some_again() {
    let folder = folder();
    let dir = folder.path().join("small");
    std::fs::create_dir(&dir).unwrap();
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).unwrap();
    // A thread of its own: the mount is gone with it.
    let outcome = std::thread::scope(|scope| {
        let run = || mount_small(&dir, 48 * MIB).map(|()| run_short_and_go_on(&dir));
        scope.spawn(run).join().unwrap()
    });
    if let Err(error) = outcome {
        println!("not run: no file system can be mounted here ({error})");
    }
}
