//! Arenas of huge pages. What this machine does not permit (a mount, a pool of huge pages) is said, and not run.

// Clippy's exemption for tests reaches `#[test]` functions only, not their helpers.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cascade_core::ErrorKind;
use cascade_core::batch::{Batch, Op, Outcome};
use cascade_core::id::BlockId;
use cascade_core::memory::{HostBuffer, Piece};
use cascade_core::tier::{PutMeta, Tier};
use cascade_shm::{Arena, ArenaConfig, Huge};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

const MIB: u64 = 1 << 20;
const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

fn run(arena: &Arena, op: Op) -> Outcome {
    arena.submit(Batch::new(vec![op])).wait(Instant::now()).unwrap()[0]
}

fn put_and_get(arena: &Arena, number: usize, len: usize) {
    let id = BlockId::named(&number.to_string());
    let data: Arc<[u8]> = (0..len).map(|at| (at * 31 + number) as u8).collect();
    let from = Piece::shared(Arc::clone(&data)).into();
    assert_eq!(run(arena, Op::Store { id, from, meta: PutMeta::default() }), Outcome::Stored);
    let mut buffer = HostBuffer::zeroed(len);
    assert!(matches!(run(arena, Op::Fetch { id, into: buffer.piece().into() }), Outcome::Fetched(_)));
    assert!(buffer.bytes_mut().unwrap() == &data[..]);
}

/// Kilobytes that a line of `smaps` says of the mapping of `path`.
fn mapped(path: &Path, what: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let metadata = std::fs::metadata(path).unwrap();
    let (major, minor) = (nix::sys::stat::major(metadata.dev()), nix::sys::stat::minor(metadata.dev()));
    let place = format!(" {major:02x}:{minor:02x} {} ", metadata.ino());
    let mut is_ours = false;
    let mut total = 0;
    for line in text.lines() {
        let first = line.split(' ').next().unwrap_or_default();
        if !first.ends_with(':') {
            is_ours = line.contains(&place);
        } else if is_ours && first == what {
            total += line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
        }
    }
    total
}

/// An arena of 32 MiB in `dir`: filled, read, opened again, removed.
fn use_arena(dir: &Path, huge: Huge, smaps: &str) {
    let config = ArenaConfig::new(dir).capacity(32 * MIB);
    let arena = Arena::open(&config).unwrap();
    assert!(arena.wait_ready(Instant::now() + Duration::from_secs(30)));
    let growth = arena.growth();
    assert_eq!((growth.huge, growth.page_bytes, growth.ready_bytes), (huge, 2 * MIB, 32 * MIB), "{growth:?}");
    for number in 0..60 {
        put_and_get(&arena, number, 1 + number * 30_000);
    }
    assert!(arena.stats().evictions > 0);
    put_and_get(&arena, 1000, 31 << 20);
    let in_huge = mapped(arena.path(), smaps);
    assert!(in_huge >= 32 << 10, "{in_huge} KiB of the arena are mapped by huge pages");
    assert_eq!(arena.audit().unwrap().disagreements, 0);
    drop(arena);
    let arena = Arena::open(&config).unwrap();
    assert!(!arena.is_new() && arena.stats().blocks == 1);
    std::fs::remove_file(arena.path()).unwrap();
}

/// Runs `work` in a directory where `kind` is mounted with `options`, in a thread with mounts of its own; says so when it cannot.
fn mounted(kind: &'static str, options: &str, work: impl FnOnce(&Path) + Send) {
    let folder = tempfile::Builder::new().prefix("cascade-huge-").tempdir_in("/dev/shm").unwrap();
    let dir = folder.path().join("huge");
    std::fs::create_dir(&dir).unwrap();
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).unwrap();
    let none: Option<&str> = None;
    let outcome = std::thread::scope(|scope| {
        let run = || {
            unshare(CloneFlags::CLONE_NEWNS)?;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
            mount(Some("cascade"), &dir, Some(kind), MsFlags::empty(), Some(options))?;
            work(&dir);
            Ok(())
        };
        scope.spawn(run).join().unwrap()
    });
    if let Err(error) = outcome {
        let error: nix::Error = error;
        println!("not run: {kind} with {options} cannot be mounted here ({error})");
    }
}

#[test]
fn a_tmpfs_with_huge_pages_gives_them() {
    for option in ["always", "within_size", "advise"] {
        mounted("tmpfs", &format!("size=128m,mode=0700,huge={option}"), |dir| {
            use_arena(dir, Huge::Tmpfs, "ShmemPmdMapped:");
        });
    }
}

#[test]
fn a_tmpfs_without_huge_pages_says_so() {
    let folder = tempfile::Builder::new().prefix("cascade-huge-").tempdir_in("/dev/shm").unwrap();
    mounted("tmpfs", "size=128m,mode=0700,huge=never", |dir| {
        let arena = Arena::open(&ArenaConfig::new(dir).capacity(16 * MIB)).unwrap();
        assert_eq!((arena.growth().huge, arena.growth().page_bytes), (Huge::None, 4096));
    });
    drop(folder);
}

/// Sets the pool's size for as long as it lives.
struct Pool(u64);

impl Pool {
    fn of(pages: u64) -> Option<Self> {
        let path = format!("{POOL}/nr_hugepages");
        let read = || std::fs::read_to_string(&path).ok()?.trim().parse::<u64>().ok();
        let before = read()?;
        std::fs::write(&path, (before + pages).to_string()).ok()?;
        let pool = Self(before);
        (read()? == before + pages).then_some(pool)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        std::fs::write(format!("{POOL}/nr_hugepages"), self.0.to_string()).unwrap();
    }
}

#[test]
fn an_arena_on_hugetlbfs_is_made_of_the_pool_and_says_when_that_is_too_small() {
    let Some(_pool) = Pool::of(40) else {
        println!("not run: no pool of 40 huge pages can be had here");
        return;
    };
    mounted("hugetlbfs", "pagesize=2M,mode=0700", |dir| {
        let error = Arena::open(&ArenaConfig::new(dir).capacity(200 * MIB)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
        assert!(error.to_string().contains("nr_hugepages"), "{error}");
        let small = ArenaConfig { region_bytes: Some(MIB), ..ArenaConfig::new(dir).capacity(32 * MIB) };
        assert_eq!(Arena::open(&small).unwrap_err().kind(), ErrorKind::Config);
        use_arena(dir, Huge::Hugetlbfs, "Private_Hugetlb:");
    });
}
