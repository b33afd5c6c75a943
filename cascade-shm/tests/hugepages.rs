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

/// Whether the system puts pages of shared memory together when it is asked to; else why not.
fn collapses() -> Result<(), String> {
    let policy = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
    let policy = policy.map_err(|error| format!("no huge pages of shared memory ({error})"))?;
    if policy.contains("[deny]") {
        return Err("shmem_enabled is deny".into());
    }
    let release = nix::sys::utsname::uname().unwrap().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (6, 1) { Err(format!("Linux {release} has no MADV_COLLAPSE")) } else { Ok(()) }
}

/// Waits until all of the arena is in huge pages, as far as the system makes them; `false` when it refuses some.
fn wait_huge(arena: &Arena) -> bool {
    let deadline = Instant::now() + Duration::from_secs(30);
    let whole = std::fs::metadata(arena.path()).unwrap().len() / (2 * MIB) * (2 * MIB);
    loop {
        let huge = arena.growth().huge_pages;
        if huge.bytes >= whole {
            return true;
        }
        if huge.refusals > 0 {
            println!("the system refused {} huge pages: {}", huge.refusals, huge.reason().unwrap());
            return false;
        }
        assert!(Instant::now() < deadline, "{huge:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Reads a byte of each page through a mapping as any process that attaches has it.
fn look_at_all(arena: &Arena) {
    let lease = cascade_core::tier::Addressable::lease(arena, &BlockId::named("1000")).unwrap();
    let mut bytes = vec![0; lease.len()];
    assert!(lease.read_at(0, &mut bytes));
}

#[test]
fn ordinary_pages_are_put_together() {
    if let Err(why) = collapses() {
        println!("not run: {why}");
        return;
    }
    let folder = tempfile::Builder::new().prefix("cascade-huge-").tempdir_in("/dev/shm").unwrap();
    let config = ArenaConfig::new(folder.path().join("arena")).capacity(64 * MIB);
    let arena = Arena::open(&config).unwrap();
    assert!(arena.wait_ready(Instant::now() + Duration::from_secs(30)));
    if arena.growth().huge != Huge::None {
        println!("not run: /dev/shm gives huge pages by itself");
        return;
    }
    let is_whole = wait_huge(&arena);
    put_and_get(&arena, 1000, 63 << 20);
    let (in_huge, all) =
        (mapped(arena.path(), "ShmemPmdMapped:"), arena.superblock().geometry.offsets().total);
    println!("{in_huge} of {} KiB are mapped by huge pages", all >> 10);
    assert!(in_huge << 10 <= all);
    assert!(!is_whole || in_huge << 10 == all / (2 * MIB) * (2 * MIB), "{in_huge} KiB");
    // Another mapping, which finds them made: faults give it huge pages at once, without a janitor of its own.
    let janitor = false;
    let second = Arena::open(&ArenaConfig { janitor, ..config.clone() }).unwrap();
    let before = mapped(arena.path(), "ShmemPmdMapped:");
    look_at_all(&second);
    let grown = mapped(arena.path(), "ShmemPmdMapped:") - before;
    assert!(!is_whole || grown >= 60 << 10, "the second mapping has {grown} KiB in huge pages");
    assert_eq!(second.audit().unwrap().disagreements, 0);
}

/// An arena whose pages are ordinary ones, because it was made where the system made no others: the janitor sees to it.
#[test]
fn the_janitor_puts_together_what_is_there() {
    if let Err(why) = collapses() {
        println!("not run: {why}");
        return;
    }
    let folder = tempfile::Builder::new().prefix("cascade-huge-").tempdir_in("/dev/shm").unwrap();
    let config = ArenaConfig::new(folder.path().join("arena")).capacity(64 * MIB);
    let arena = Arena::open(&config).unwrap();
    assert!(arena.wait_ready(Instant::now() + Duration::from_secs(30)));
    if arena.growth().huge != Huge::None {
        println!("not run: /dev/shm gives huge pages by itself");
        return;
    }
    put_and_get(&arena, 1000, 30 << 20);
    let path = arena.path().to_owned();
    drop(arena);
    // Written anew, as by a program of before: ordinary pages.
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, &bytes).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let words = bytes[4096 + 336..4096 + 344].to_vec();
    assert_ne!(words, [0; 8], "it says how much of it is huge");
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0; 24], 4096 + 336).unwrap();
    let arena = Arena::open(&config).unwrap();
    if wait_huge(&arena) {
        let in_huge = mapped(&path, "ShmemPmdMapped:") << 10;
        assert!(in_huge >= 64 * MIB, "{in_huge} bytes are mapped by huge pages");
    }
    look_at_all(&arena);
    assert_eq!((arena.stats().blocks, arena.audit().unwrap().disagreements), (1, 0));
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
