//! The arena as one process uses it.

// Clippy's exemption for tests reaches `#[test]` functions only, not their helpers.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use cascade_core::ErrorKind;
use cascade_core::batch::{Batch, Op, Outcome, Refusal};
use cascade_core::id::BlockId;
use cascade_core::memory::{HostBuffer, Piece};
use cascade_core::tier::{Addressable, Class, MissReason, OnExisting, PutMeta, Tier};
use cascade_shm::{Arena, ArenaConfig};

const MIB: u64 = 1 << 20;

/// Where tests make their folders. A planted bug may end the process without destructors: who plants it gives a folder, and removes it.
fn memory() -> std::path::PathBuf {
    std::env::var_os("CASCADE_TEST_MEMORY").map_or_else(|| "/dev/shm".into(), Into::into)
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::Builder::new().prefix("cascade-test-").tempdir_in(memory()).unwrap())
    }

    fn config(&self, capacity: u64) -> ArenaConfig {
        ArenaConfig::new(self.0.path().join("arena")).capacity(capacity)
    }
}

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    let mut out: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| next().to_le_bytes()).collect();
    out.truncate(len);
    out
}

fn put_with(arena: &Arena, name: &str, data: &[u8], meta: PutMeta) -> Outcome {
    let from = Piece::shared(Arc::from(data)).into();
    let batch = Batch::new(vec![Op::Store { id: BlockId::named(name), from, meta }]);
    arena.submit(batch).wait(Instant::now()).unwrap()[0]
}

fn put(arena: &Arena, name: &str, data: &[u8]) -> Outcome {
    put_with(arena, name, data, PutMeta::default())
}

fn get(arena: &Arena, name: &str, room: usize) -> Result<Vec<u8>, MissReason> {
    let mut buffer = HostBuffer::zeroed(room);
    let op = Op::Fetch { id: BlockId::named(name), into: buffer.piece().into() };
    match arena.submit(Batch::new(vec![op])).wait(Instant::now()).unwrap()[0] {
        Outcome::Fetched(meta) => Ok(buffer.bytes_mut().unwrap()[..meta.len as usize].to_vec()),
        Outcome::Miss(why) => Err(why),
        other => panic!("a fetch answers {other:?}"),
    }
}

#[test]
fn blocks_of_every_size_come_back_and_survive_the_handle() {
    let place = Place::new();
    let sizes = [1, 4095, 4096, 4097, 65_535, 65_536, 65_537, 300_000, 5 << 20, 20 << 20];
    {
        let arena = Arena::open(&place.config(64 * MIB)).unwrap();
        assert!(arena.is_new());
        for size in sizes {
            assert_eq!(put(&arena, &size.to_string(), &bytes(size as u64, size)), Outcome::Stored);
            assert_eq!(put(&arena, &size.to_string(), &bytes(9, size)), Outcome::Exists);
        }
    }
    let arena = Arena::open(&place.config(64 * MIB)).unwrap();
    assert!(!arena.is_new());
    for size in sizes {
        assert_eq!(get(&arena, &size.to_string(), size).unwrap(), bytes(size as u64, size));
        let lease = arena.lease(&BlockId::named(&size.to_string())).unwrap();
        let mut out = vec![0; size];
        assert!(lease.read_at(0, &mut out) && out == bytes(size as u64, size));
    }
    arena.clear();
    assert_eq!((arena.stats().blocks, arena.stats().used_bytes), (0, 0));
}

#[test]
fn a_full_arena_evicts_and_never_exceeds_itself() {
    let place = Place::new();
    let arena = Arena::open(&place.config(32 * MIB)).unwrap();
    for number in 0..400_u64 {
        let size = 1 + (number as usize * 7919) % 900_000;
        assert_eq!(put(&arena, &number.to_string(), &bytes(number, size)), Outcome::Stored, "{number}");
        assert!(arena.stats().used_bytes <= arena.stats().capacity_bytes);
    }
    let (mut hits, mut misses) = (0, 0);
    for number in 0..400_u64 {
        let size = 1 + (number as usize * 7919) % 900_000;
        match get(&arena, &number.to_string(), 900_000) {
            Ok(found) => {
                assert_eq!(found, bytes(number, size));
                hits += 1;
            }
            Err(why) => {
                assert_eq!(why, MissReason::Absent);
                misses += 1;
            }
        }
    }
    assert_eq!(arena.stats().evictions, misses, "every acknowledged block is a hit or a counted eviction");
    assert!(hits > 40, "{hits} of 400 remain");
}

#[test]
fn a_block_as_large_as_the_arena_fits_after_small_ones() {
    let place = Place::new();
    let arena = Arena::open(&place.config(32 * MIB)).unwrap();
    for number in 0..300_u64 {
        assert_eq!(put(&arena, &format!("small {number}"), &bytes(number, 20_000)), Outcome::Stored);
    }
    let all = bytes(1, 32 << 20);
    assert_eq!(put(&arena, "all", &all), Outcome::Stored);
    assert_eq!(get(&arena, "all", all.len()).unwrap(), all);
    assert_eq!(put(&arena, "more", &bytes(1, (32 << 20) + 1)), Outcome::Refused(Refusal::TooLarge));
    assert_eq!(put(&arena, "small again", &bytes(7, 20_000)), Outcome::Stored);
}

#[test]
fn what_is_leased_is_not_evicted_and_not_changed() {
    let place = Place::new();
    let arena = Arena::open(&place.config(16 * MIB)).unwrap();
    let mine = bytes(1, 3 << 20);
    put(&arena, "mine", &mine);
    let lease = arena.lease(&BlockId::named("mine")).unwrap();
    for number in 0..40_u64 {
        assert_eq!(put(&arena, &number.to_string(), &bytes(number, 2 << 20)), Outcome::Stored);
    }
    let replace = PutMeta { on_existing: OnExisting::Replace, ..PutMeta::default() };
    assert_eq!(put_with(&arena, "mine", &mine, replace), Outcome::Exists);
    assert_eq!(put_with(&arena, "mine", &bytes(2, 1 << 20), replace), Outcome::Stored);
    assert_eq!(get(&arena, "mine", 4 << 20).unwrap(), bytes(2, 1 << 20));
    let mut out = vec![0; 3 << 20];
    assert!(lease.read_at(0, &mut out) && out == mine, "the old bytes stay under the lease");
    drop(lease);
    arena.clear();
    assert_eq!(arena.stats().used_bytes, 0);
}

#[test]
fn prefix_blocks_outlive_ordinary_ones() {
    let place = Place::new();
    let arena = Arena::open(&place.config(16 * MIB)).unwrap();
    let prefix = PutMeta { class: Class::Prefix, ..PutMeta::default() };
    put_with(&arena, "system prompt", &bytes(1, 1 << 20), prefix);
    for number in 0..200_u64 {
        put(&arena, &number.to_string(), &bytes(number, 1 << 20));
    }
    assert!(get(&arena, "system prompt", 1 << 20).is_ok());
}

#[test]
fn a_scan_leaves_what_is_in_use() {
    let place = Place::new();
    let arena = Arena::open(&place.config(32 * MIB)).unwrap();
    for number in 0..8_u64 {
        put(&arena, &format!("hot {number}"), &bytes(number, 1 << 20));
        assert!(get(&arena, &format!("hot {number}"), 1 << 20).is_ok());
    }
    for number in 0..64_u64 {
        put(&arena, &format!("scan {number}"), &bytes(number, 1 << 20));
    }
    let kept = (0..8).filter(|number| get(&arena, &format!("hot {number}"), 1 << 20).is_ok()).count();
    assert_eq!(kept, 8, "a scan of twice the arena passes through");
}

#[test]
fn damage_is_a_miss_and_only_once() {
    use std::os::unix::fs::FileExt;
    let place = Place::new();
    let config = place.config(16 * MIB);
    let arena = Arena::open(&config).unwrap();
    let data = bytes(5, 1 << 20);
    put(&arena, "block", &data);
    let file = std::fs::File::options().read(true).write(true).open(arena.path()).unwrap();
    let all = std::fs::read(arena.path()).unwrap();
    let at = all.windows(64).position(|window| window == &data[700_000..700_064]).unwrap();
    file.write_all_at(&[!data[700_000]], at as u64).unwrap();
    assert_eq!(get(&arena, "block", 1 << 20), Err(MissReason::Corrupt));
    assert_eq!(get(&arena, "block", 1 << 20), Err(MissReason::Absent));
    assert_eq!(arena.stats().corrupt, 1);
    assert_eq!(put(&arena, "block", &data), Outcome::Stored);
    assert_eq!(get(&arena, "block", 1 << 20), Ok(data));
}

/// An extent in shared memory is not believed: one that lies outside of the area is damage, not an address.
#[test]
fn a_slot_that_lies_about_its_place_is_a_miss() {
    use std::os::unix::fs::FileExt;
    let place = Place::new();
    let arena = Arena::open(&place.config(16 * MIB)).unwrap();
    let data = bytes(6, 100_000);
    put(&arena, "block", &data);
    let file = std::fs::File::options().read(true).write(true).open(arena.path()).unwrap();
    let geometry = arena.superblock().geometry;
    let sealed = (0..geometry.buckets * 8).map(|slot| geometry.offsets().slots + slot * 64).find(|at| {
        let mut word = [0; 1];
        file.read_exact_at(&mut word, *at).unwrap();
        word[0] & 0xf == 5
    });
    // 2 PiB into the data area: no address.
    file.write_all_at(&(1_u64 << 39).to_le_bytes(), sealed.unwrap() + 48).unwrap();
    assert_eq!(get(&arena, "block", 100_000), Err(MissReason::Corrupt));
    assert_eq!(get(&arena, "block", 100_000), Err(MissReason::Absent));
    assert_eq!(put(&arena, "block", &data), Outcome::Stored);
    assert_eq!(get(&arena, "block", 100_000), Ok(data));
}

#[test]
fn wrong_places_and_numbers_are_refused_with_both_sides() {
    let place = Place::new();
    let missing = ArenaConfig::new(place.0.path().join("a/b"));
    assert_eq!(Arena::open(&missing).unwrap_err().kind(), ErrorKind::NotFound);
    let on_disk = ArenaConfig::new(std::env::temp_dir().join("cascade-not-memory"));
    let kind = Arena::open(&on_disk).unwrap_err().kind();
    assert!(kind == ErrorKind::Config || kind == ErrorKind::Permission, "{kind:?}");
    let huge = place.config(1 << 50);
    assert_eq!(Arena::open(&huge).unwrap_err().kind(), ErrorKind::NoSpace);
    let _arena = Arena::open(&place.config(16 * MIB)).unwrap();
    let error = Arena::open(&place.config(32 * MIB)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("16777216") && error.to_string().contains("33554432"), "{error}");
    assert!(
        Arena::open(&ArenaConfig::new(place.0.path().join("arena"))).is_ok(),
        "no capacity asked: any will do"
    );
}

#[test]
fn arenas_that_are_not_ours_alone_are_refused() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let config = place.config(16 * MIB);
    let path = Arena::open(&config).unwrap().path().to_owned();
    let set = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    set(0o640);
    assert_eq!(Arena::open(&config).unwrap_err().kind(), ErrorKind::Permission);
    set(0o600);
    std::fs::hard_link(&path, path.with_extension("link")).unwrap();
    assert_eq!(Arena::open(&config).unwrap_err().kind(), ErrorKind::Permission);
    std::fs::rename(path.with_extension("link"), &path).unwrap();
    std::fs::remove_file(path.with_extension("link")).unwrap();
    std::fs::rename(&path, path.with_extension("real")).unwrap();
    std::os::unix::fs::symlink(path.with_extension("real"), &path).unwrap();
    assert_eq!(Arena::open(&config).unwrap_err().kind(), ErrorKind::Permission);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, b"too short").unwrap();
    set(0o600);
    assert_eq!(Arena::open(&config).unwrap_err().kind(), ErrorKind::Format);
}

#[test]
fn threads_share_a_handle_and_blocks_stay_right() {
    let place = Place::new();
    let arena = Arena::open(&place.config(16 * MIB)).unwrap();
    assert!(arena.wait_ready(Instant::now() + Duration::from_secs(30)));
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let arena = &arena;
            scope.spawn(move || {
                for round in 0..400_u64 {
                    let number = (round * 7 + thread * 3) % 60;
                    let size = 1000 + number as usize * 9_000;
                    put(arena, &number.to_string(), &bytes(number, size));
                    if let Ok(found) = get(arena, &number.to_string(), size) {
                        assert!(found == bytes(number, size), "block {number} is wrong");
                    }
                    let lease = arena.lease(&BlockId::named(&(round % 60).to_string()));
                    if round % 5 == 0 {
                        let batch = Batch::new(vec![Op::Delete { id: BlockId::named(&number.to_string()) }]);
                        arena.submit(batch).wait(Instant::now()).unwrap();
                    }
                    if let Ok(lease) = lease {
                        let mut out = vec![0; lease.len()];
                        assert!(lease.read_at(0, &mut out));
                        assert!(out == bytes(round % 60, out.len()), "lease {} is wrong", round % 60);
                    }
                }
            });
        }
    });
    arena.clear();
    assert_eq!(arena.stats().used_bytes, 0);
}

#[test]
fn many_leases_are_held_at_once_and_one_too_many_is_throttled() {
    let place = Place::new();
    let config = ArenaConfig { leases: Some(100), ..place.config(16 * MIB) };
    let arena = Arena::open(&config).unwrap();
    put(&arena, "x", &bytes(1, 10));
    let id = BlockId::named("x");
    // Two stripes of 56.
    let leases: Vec<_> = (0..112).map(|_| arena.lease(&id).unwrap()).collect();
    assert_eq!(arena.lease(&id).unwrap_err(), MissReason::Throttled);
    for number in 0..40_u64 {
        let put = put(&arena, &number.to_string(), &bytes(number, 1 << 20));
        assert_eq!(put, Outcome::Refused(Refusal::Throttled), "a put holds an entry too");
    }
    drop(leases);
    let nearly_all: Vec<_> = (0..111).map(|_| arena.lease(&id).unwrap()).collect();
    for number in 0..40_u64 {
        let put = put(&arena, &number.to_string(), &bytes(number, 1 << 20));
        assert_eq!(put, Outcome::Stored, "evicting goes on when all but one entry are held");
    }
    drop(nearly_all);
    assert!(arena.lease(&id).is_ok());
}

#[test]
fn a_batch_of_leases_answers_each_id_and_pins_what_it_gives() {
    let place = Place::new();
    let arena = Arena::open(&place.config(16 * MIB)).unwrap();
    for number in (0..300_u64).filter(|number| number % 3 != 1) {
        assert_eq!(put(&arena, &number.to_string(), &bytes(number, 5000)), Outcome::Stored);
    }
    let ids: Vec<BlockId> = (0..300).map(|number| BlockId::named(&number.to_string())).collect();
    let leases = arena.lease_batch(&ids);
    assert_eq!((arena.stats().hits, arena.stats().misses), (200, 100));
    arena.clear();
    for (number, lease) in leases.iter().enumerate() {
        match lease {
            Ok(lease) => {
                let mut out = vec![0; 5000];
                assert!(lease.read_at(0, &mut out) && out == bytes(number as u64, 5000), "{number}");
            }
            Err(why) => assert_eq!((number % 3, *why), (1, MissReason::Absent)),
        }
    }
    drop(leases);
    assert_eq!(arena.stats().used_bytes, 0, "what was deleted under a lease goes with it");
}

#[test]
fn a_batch_beyond_the_ledger_is_throttled_at_its_end() {
    let place = Place::new();
    let arena = Arena::open(&ArenaConfig { leases: Some(100), ..place.config(16 * MIB) }).unwrap();
    put(&arena, "x", &bytes(1, 10));
    let leases = arena.lease_batch(&[BlockId::named("x"); 200]);
    assert!(leases[..112].iter().all(Result::is_ok));
    assert!(leases[112..].iter().all(|lease| lease.as_ref().is_err_and(|why| *why == MissReason::Throttled)));
}
