//! Whole operations of the arena under random schedules: two owners, four threads, blocks that come and go, and in one test an
//! owner that dies. Shuttle knows no reorderings of memory (those are loom's), but it sees interleavings of thousands of steps.
//!
//! `CASCADE_SHUTTLE` sets the number of schedules of each test, `SHUTTLE_RANDOM_SEED` the seed; a failure prints its schedule.
#![cfg(shuttle)]
// Clippy's exemption for tests reaches `#[test]` functions only, not their helpers.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Instant;

use cascade_core::batch::{Batch, Op, Outcome};
use cascade_core::id::BlockId;
use cascade_core::lease::Lease;
use cascade_core::memory::{HostBuffer, Piece};
use cascade_core::reservation::Reserve;
use cascade_core::sync::Ordering;
use cascade_core::tier::{Addressable, Lookup, MissReason, OnExisting, PutMeta, Tier};
use cascade_shm::layout::Geometry;
use cascade_shm::ledger::Entry;
use cascade_shm::lock::Holder;
use cascade_shm::model::Map;
use cascade_shm::owner::Process;
use cascade_shm::{Arena, Audit};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner, thread};

/// Schedules of each test, half of them random, half by PCT.
const SCHEDULES: usize = 4000;
/// Changes of priority that PCT makes in a schedule.
const DEPTH: usize = 4;
const REGION: u64 = 256 << 10;
/// Longer than a region's unit, shorter than 64 KiB: blocks of one region.
const SMALL: usize = 6000;
/// Two large units, so it may cross regions.
const LARGE: usize = 70_000;

/// Where tests make their folders. A planted bug may end the process without destructors: who plants it gives a folder, and removes it.
fn memory() -> std::path::PathBuf {
    std::env::var_os("CASCADE_TEST_MEMORY").map_or_else(|| "/dev/shm".into(), Into::into)
}

struct Node {
    map: Arc<Map>,
    locks: tempfile::TempPath,
}

impl Node {
    fn new() -> Self {
        let geometry = Geometry {
            data_bytes: 2 * REGION,
            region_bytes: REGION,
            buckets: 1,
            owners: 4,
            ledger_entries: 64,
        };
        let node = Self {
            map: Arc::new(Map::modelled(geometry)),
            locks: tempfile::NamedTempFile::new_in(memory()).unwrap().into_temp_path(),
        };
        // Both regions are ready and empty.
        (0..2).for_each(|region| node.map.summaries()[region].store(1 << 62 | 64, Ordering::Relaxed));
        node
    }

    fn arena(&self) -> Arena {
        let file = File::options().read(true).write(true).open(&self.locks).unwrap();
        Arena::modelled(Arc::clone(&self.map), file, self.locks.to_path_buf()).unwrap()
    }

    /// An owner whose process is gone: it pins what is in slot 0, and had begun to claim the last one.
    fn dead(&self, row: u16) -> Holder {
        let pid_namespace = std::fs::metadata("/proc/self/ns/pid").unwrap().ino();
        let owner = &self.map.owners()[row as usize];
        let generation = owner.join(Process { pid: u64::MAX, started: 0, pid_namespace });
        owner.use_stripe(0);
        Entry::pin(0).store(&self.map.ledger(row)[0]);
        Entry::intent(7).store(&self.map.ledger(row)[1]);
        Holder { row, generation }
    }
}

/// Runs `work` under random schedules, then under those of PCT; reports as the loom models do.
fn check(work: fn()) {
    let schedules = std::env::var("CASCADE_SHUTTLE").map_or(SCHEDULES, |count| count.parse().unwrap());
    let seed = std::env::var("SHUTTLE_RANDOM_SEED").map_or(0x5eed, |seed| seed.parse().unwrap());
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    config.silence_warnings = true;
    let started = Instant::now();
    let random = RandomScheduler::new_from_seed(seed, schedules / 2);
    let mut done = Runner::new(random, config.clone()).run(work);
    done += Runner::new(PctScheduler::new_from_seed(seed, DEPTH, schedules / 2), config).run(work);
    let name = std::thread::current().name().unwrap_or("?").to_owned();
    let line = format!("{name}\tpct {DEPTH}\t{done}\t{:.1}\tseed {seed}\n", started.elapsed().as_secs_f64());
    print!("{line}");
    if let Some(path) = std::env::var_os("CASCADE_LOOM_REPORT") {
        let file = File::options().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).unwrap();
    }
    assert_eq!(done, schedules / 2 * 2, "every schedule was run to its end");
}

/// A block says which id and version it is in every byte.
fn content(name: u8, version: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![name ^ version << 4; len];
    bytes[0] = version;
    bytes
}

fn is_whole(name: u8, bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|version| bytes[1..].iter().all(|byte| *byte == name ^ *version << 4))
}

fn id(name: u8) -> BlockId {
    BlockId::named(&name.to_string())
}

fn one(arena: &Arena, op: Op) -> Outcome {
    arena.submit(Batch::new(vec![op])).wait(Instant::now()).unwrap()[0]
}

fn put(arena: &Arena, name: u8, version: u8, len: usize) -> Outcome {
    let from = Piece::shared(Arc::from(content(name, version, len))).into();
    let meta = PutMeta { on_existing: OnExisting::Replace, ..PutMeta::default() };
    one(arena, Op::Store { id: id(name), from, meta })
}

fn delete(arena: &Arena, name: u8) {
    let outcome = one(arena, Op::Delete { id: id(name) });
    assert!(matches!(outcome, Outcome::Deleted | Outcome::Miss(_)), "{outcome:?}");
}

/// A hit is whole and of its id; corruption is never seen, because nobody damages anything.
fn get(arena: &Arena, name: u8) -> Option<u8> {
    let mut buffer = HostBuffer::zeroed(LARGE);
    match one(arena, Op::Fetch { id: id(name), into: buffer.piece().into() }) {
        Outcome::Fetched(meta) => {
            let bytes = &buffer.bytes_mut().unwrap()[..meta.len as usize];
            assert!(is_whole(name, bytes), "other bytes than were put");
            Some(bytes[0])
        }
        Outcome::Miss(MissReason::Absent | MissReason::Evicting) => None,
        other => panic!("a fetch answers {other:?}"),
    }
}

fn lease(arena: &Arena, name: u8) -> Option<Lease> {
    match arena.lease(&id(name)) {
        Ok(lease) => Some(lease),
        Err(MissReason::Absent | MissReason::Evicting) => None,
        Err(other) => panic!("a lease answers {other:?}"),
    }
}

fn is_lease_whole(lease: &Lease, name: u8) -> bool {
    let mut bytes = vec![0; lease.len()];
    lease.read_at(0, &mut bytes) && is_whole(name, &bytes)
}

/// Nothing is held, and tables and slots agree; then all is deleted, and nothing is left.
fn end(arena: &Arena) {
    let audit = arena.audit().unwrap();
    let is_quiet = |audit: &Audit| {
        (audit.filling_slots, audit.leaving_slots, audit.retired_slots) == (0, 0, 0)
            && (audit.ledger_entries, audit.disagreements) == (0, 0)
    };
    assert!(is_quiet(&audit), "{audit:?}");
    arena.clear();
    let (stats, audit) = (arena.stats(), arena.audit().unwrap());
    assert!(is_quiet(&audit) && audit.sealed_slots == 0, "{audit:?}");
    assert_eq!((stats.blocks, stats.used_bytes, stats.corrupt), (0, 0, 0));
}

/// Four threads of two owners put, replace, delete, fetch and lease two names.
#[test]
fn two_owners_work_on_two_names() {
    check(|| {
        let node = Node::new();
        let arenas = [node.arena(), node.arena()];
        let threads = [0_u8, 1, 2, 3].map(|number| {
            let arena = arenas[usize::from(number) % 2].clone();
            thread::spawn(move || {
                let name = number / 2;
                put(&arena, name, number, SMALL);
                get(&arena, 1 - name);
                let lease = lease(&arena, name);
                if number % 2 == 0 {
                    delete(&arena, name);
                } else {
                    put(&arena, 1 - name, number + 4, SMALL + 4096);
                }
                assert!(lease.is_none_or(|lease| is_lease_whole(&lease, name)));
            })
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        end(&arenas[0]);
    });
}

/// An arena of eight large units, and more blocks than fit: putting evicts, leases hold on, spans cross regions.
#[test]
fn putting_into_a_full_arena_evicts_what_nobody_holds() {
    check(|| {
        let node = Node::new();
        let arenas = [node.arena(), node.arena()];
        (0..4).for_each(|name| assert_eq!(put(&arenas[0], name, 1, LARGE), Outcome::Stored));
        let held = lease(&arenas[1], 0).unwrap();
        let threads = [0_u8, 1, 2].map(|number| {
            let arena = arenas[usize::from(number) % 2].clone();
            thread::spawn(move || {
                put(&arena, 10 + number, number, LARGE);
                get(&arena, number + 1);
                get(&arena, 10 + (number + 1) % 3);
            })
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(is_lease_whole(&held, 0));
        assert!(get(&arenas[0], 0).is_some(), "what is leased is not evicted");
        drop(held);
        end(&arenas[0]);
    });
}

/// Who sees a new version never sees an older one again, though others replace and delete meanwhile.
#[test]
fn versions_only_go_forward() {
    check(|| {
        let node = Node::new();
        let arenas = [node.arena(), node.arena()];
        put(&arenas[0], 1, 1, SMALL);
        let writer = {
            let arena = arenas[0].clone();
            thread::spawn(move || {
                for version in 2..5 {
                    put(&arena, 1, version, SMALL);
                }
            })
        };
        let readers = [0, 1].map(|owner: usize| {
            let arena = arenas[owner].clone();
            thread::spawn(move || {
                let mut last = 0;
                for _ in 0..4 {
                    if let Some(seen) = get(&arena, 1) {
                        assert!(seen >= last, "version {seen} after {last}");
                        last = seen;
                    }
                }
            })
        });
        writer.join().unwrap();
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        end(&arenas[1]);
    });
}

/// An owner died with a pin, an intent and a region's lock; survivors recover it, evict and put at once.
#[test]
fn survivors_of_a_death_get_on_together() {
    check(|| {
        let node = Node::new();
        let arenas = [node.arena(), node.arena()];
        put(&arenas[0], 0, 1, SMALL);
        put(&arenas[0], 1, 1, SMALL);
        let dead = node.dead(2);
        std::mem::forget(node.map.region_locks()[0].try_acquire(dead));
        node.map.bitmap(0)[0].store(u64::MAX, Ordering::Relaxed);
        let threads = [0_u8, 1, 2].map(|number| {
            let arena = arenas[usize::from(number) % 2].clone();
            thread::spawn(move || match number {
                0 => arena.recover(),
                1 => {
                    delete(&arena, 0);
                    put(&arena, 0, 2, SMALL);
                }
                _ => {
                    get(&arena, 1);
                    put(&arena, 2, 1, LARGE);
                }
            })
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        arenas[1].recover();
        assert_eq!(arenas[0].audit().unwrap().live_owners, 2);
        end(&arenas[0]);
    });
}

/// Reservations that are filled, abandoned and sealed, while others look for the same names.
#[test]
fn reservations_are_seen_only_when_they_are_sealed() {
    check(|| {
        let node = Node::new();
        let arenas = [node.arena(), node.arena()];
        let fillers = [0_u8, 1, 2].map(|number| {
            let arena = arenas[usize::from(number) % 2].clone();
            thread::spawn(move || {
                let data = content(1, number, SMALL);
                let Reserve::Reserved(mut reservation) =
                    arena.reserve(&id(1), data.len() as u64, PutMeta::default())
                else {
                    return;
                };
                assert!(reservation.write_at(0, &data[..SMALL / 2]));
                if number != 1 {
                    assert!(reservation.write_at(SMALL / 2, &data[SMALL / 2..]));
                    let _ = reservation.seal();
                }
            })
        });
        let mut seen = [Lookup::Pending];
        arenas[1].lookup(&[id(1)], &mut seen);
        if matches!(seen[0], Lookup::Hit(_)) {
            // Nobody deletes, and there is room.
            assert!(get(&arenas[1], 1).is_some());
        }
        fillers.into_iter().for_each(|filler| filler.join().unwrap());
        get(&arenas[0], 1);
        end(&arenas[1]);
    });
}
