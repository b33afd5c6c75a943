//! Blocks of log-normal sizes come and go: the data area stays full, and nothing is left over or grows. The long run, of a
//! million blocks and more, is the space row of `cargo xtask bench --tier shm`.

// Clippy's exemption for tests reaches `#[test]` functions only, not their helpers.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cascade_core::batch::{Batch, Op, Outcome};
use cascade_core::id::BlockId;
use cascade_core::memory::Piece;
use cascade_core::tier::{Addressable, MissReason, OnExisting, PutMeta, Tier};
use cascade_shm::{Arena, ArenaConfig, Audit};

const MIB: u64 = 1 << 20;
const CAPACITY: u64 = 128 * MIB;
const LARGEST: u64 = 2 * MIB;
/// Least share of the data area that is used at any time, also when one of the 16 regions has just changed between small and large
/// blocks.
const USED: f64 = 0.85;
/// Most that one put may free: little more than a region.
const FREED: f64 = 0.1;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::Builder::new().prefix("cascade-test-").tempdir_in("/dev/shm").unwrap())
    }

    fn arena(&self, capacity: u64) -> Arena {
        let arena = Arena::open(&ArenaConfig::new(self.0.path().join("arena")).capacity(capacity)).unwrap();
        assert!(arena.wait_ready(Instant::now() + Duration::from_secs(60)));
        arena
    }
}

/// splitmix64: the numbers after `state`.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// The length of block `number`: log-normal with median 64 KiB and sigma 1.5, drawn again outside of 4 KiB to 2 MiB.
fn length(number: u64) -> usize {
    let mut state = number;
    let mut unit = || (next(&mut state) >> 11) as f64 / (1_u64 << 53) as f64;
    loop {
        let normal = (-2.0 * (1.0 - unit()).ln()).sqrt() * (std::f64::consts::TAU * unit()).cos();
        let length = 65_536.0 * (1.5 * normal).exp();
        if (4096.0..=LARGEST as f64).contains(&length) {
            return length as usize;
        }
    }
}

/// Every block is a run of these bytes that begins at its number.
fn source() -> Arc<[u8]> {
    let mut state = 1;
    (0..(8 * MIB) / 8).flat_map(|_| next(&mut state).to_le_bytes()).collect()
}

fn put(arena: &Arena, number: u64, source: &[u8], replace: bool) -> Outcome {
    let (at, len) = ((number % MIB) as usize, length(number));
    let on_existing = if replace { OnExisting::Replace } else { OnExisting::Keep };
    let op = Op::Store {
        id: id(number),
        from: Piece::shared(Arc::from(&source[at..at + len])).into(),
        meta: PutMeta { on_existing, ..PutMeta::default() },
    };
    arena.submit(Batch::new(vec![op])).wait(Instant::now()).unwrap()[0]
}

fn id(number: u64) -> BlockId {
    BlockId::named(&number.to_string())
}

/// Whether block `number` is there; its bytes must be right.
fn is_right(arena: &Arena, number: u64, source: &[u8]) -> bool {
    match arena.lease(&id(number)) {
        Ok(lease) => {
            let mut bytes = vec![0; lease.len()];
            assert!(lease.read_at(0, &mut bytes));
            let at = (number % MIB) as usize;
            assert!(bytes == source[at..at + length(number)], "block {number} is wrong");
            true
        }
        Err(MissReason::Absent) => false,
        Err(why) => panic!("block {number}: {why:?}"),
    }
}

fn used(arena: &Arena) -> f64 {
    arena.stats().used_bytes as f64 / arena.stats().capacity_bytes as f64
}

/// Nothing is at work, so nothing but sealed blocks may be there.
fn assert_sound(arena: &Arena, when: &str) {
    let audit = arena.audit().unwrap();
    let expected = Audit {
        free_slots: audit.free_slots,
        sealed_slots: arena.stats().blocks,
        live_owners: audit.live_owners,
        ..Audit::default()
    };
    assert_eq!(audit, expected, "{when}");
}

impl Place {
    /// Descriptors of this process that are open on the arena.
    fn open_files(&self) -> usize {
        let is_here = |entry: &std::fs::DirEntry| {
            std::fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(self.0.path()))
        };
        std::fs::read_dir("/proc/self/fd").unwrap().flatten().filter(is_here).count()
    }
}

#[test]
fn the_data_area_stays_full_and_every_block_is_a_hit_or_a_counted_eviction() {
    let place = Place::new();
    let (arena, source) = (place.arena(CAPACITY), source());
    let (filled, puts) = (3_000, 20_000);
    let mut shares = Vec::new();
    for number in 0..puts {
        assert_eq!(put(&arena, number, &source, false), Outcome::Stored, "{number}");
        if number > filled {
            shares.push(used(&arena));
        }
        if number == filled {
            assert_sound(&arena, "when it had been filled");
        }
    }
    let freed = shares.windows(2).map(|pair| pair[0] - pair[1]).fold(0.0, f64::max);
    assert!(freed <= FREED, "one put freed {freed:.3} of the data area");
    let least = shares.iter().copied().fold(1.0, f64::min);
    let mean = shares.iter().sum::<f64>() / shares.len() as f64;
    assert!(mean >= 0.95 && least >= USED, "{mean:.3} of the data area was used, at one time {least:.3}");
    let there = (0..puts).filter(|number| is_right(&arena, *number, &source)).count() as u64;
    assert_eq!((arena.stats().blocks, arena.stats().evictions), (there, puts - there));
    assert_sound(&arena, "after the last put");
    arena.clear();
    assert_eq!((arena.stats().used_bytes, arena.stats().blocks), (0, 0));
    assert_sound(&arena, "when it had been cleared");
}

#[test]
fn threads_that_put_replace_delete_and_lease_leave_nothing_behind() {
    let place = Place::new();
    let (arena, source) = (place.arena(CAPACITY), source());
    for number in 0..3_000 {
        put(&arena, number, &source, false);
    }
    let files = place.open_files();
    let taken = AtomicU64::new(3_000);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let number = taken.fetch_add(1, Ordering::Relaxed);
                    if number >= 15_000 {
                        return;
                    }
                    assert_eq!(
                        put(&arena, number, &source, number.is_multiple_of(7)),
                        Outcome::Stored,
                        "{number}"
                    );
                    let older = number - number % 500;
                    // Held while it is replaced or deleted, and while others evict beside it.
                    let lease = arena.lease(&id(older));
                    match number % 50 {
                        0 => drop(put(&arena, older, &source, true)),
                        1 => {
                            let op = Op::Delete { id: id(number - 1) };
                            arena.submit(Batch::new(vec![op])).wait(Instant::now()).unwrap();
                        }
                        _ => {}
                    }
                    if let Ok(lease) = lease {
                        let mut bytes = vec![0; lease.len().min(5000)];
                        let at = (older % MIB) as usize;
                        assert!(lease.read_at(0, &mut bytes) && bytes == source[at..at + bytes.len()]);
                    }
                }
            });
        }
    });
    assert_sound(&arena, "after the threads");
    assert!(used(&arena) >= USED, "only {:.3} of the data area is used", used(&arena));
    // The janitor's helper threads each have a descriptor for as long as they work.
    let deadline = Instant::now() + Duration::from_secs(10);
    while place.open_files() > files {
        assert!(Instant::now() < deadline, "{files} descriptors became {}: they leak", place.open_files());
        std::thread::sleep(Duration::from_millis(5));
    }
    let there = (0..15_000).filter(|number| is_right(&arena, *number, &source)).count() as u64;
    assert_eq!(arena.stats().blocks, there);
}

#[test]
fn a_workload_that_changes_its_sizes_still_fills_the_arena() {
    let place = Place::new();
    let (arena, source) = (place.arena(CAPACITY), source());
    let mut number = 0;
    // Small blocks alone, large ones alone, and small ones again: regions change their kind.
    for round in 0..6 {
        let is_wanted = |number: u64| (length(number) > 65_536) == (round % 2 == 1);
        let mut bytes = 0;
        while bytes < 2 * CAPACITY {
            number += 1;
            if is_wanted(number) {
                assert_eq!(put(&arena, number, &source, false), Outcome::Stored, "{number}");
                bytes += length(number) as u64;
            }
        }
        assert!(used(&arena) >= USED, "only {:.3} of the data area is used in round {round}", used(&arena));
    }
    assert_sound(&arena, "after the last round");
}
