//! The arena from outside: looking, scrubbing, removing.

// Clippy's exemption for tests reaches `#[test]` functions only, not their helpers.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use cascade_core::ErrorKind;
use cascade_core::batch::{Batch, Op, Outcome};
use cascade_core::id::BlockId;
use cascade_core::memory::Piece;
use cascade_core::tier::{Addressable, Class, PutMeta, Tier};
use cascade_shm::inspect::{Fault, Inspection, Snapshot, fault};
use cascade_shm::remove::{Removal, is_in_use, remove};
use cascade_shm::slot::State;
use cascade_shm::{Arena, ArenaConfig, Scrub};

const MIB: u64 = 1 << 20;

fn place() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("cascade-test-").tempdir_in("/dev/shm").unwrap()
}

fn config(place: &tempfile::TempDir) -> ArenaConfig {
    ArenaConfig::new(place.path().join("arena")).capacity(32 * MIB)
}

fn open(place: &tempfile::TempDir) -> Arena {
    let arena = Arena::open(&config(place)).unwrap();
    assert!(arena.wait_ready(Instant::now() + Duration::from_secs(30)));
    arena
}

fn put(arena: &Arena, name: &str, data: Vec<u8>, class: Class) {
    let meta = PutMeta { class, ..PutMeta::default() };
    let from = Piece::shared(Arc::from(data)).into();
    let batch = Batch::new(vec![Op::Store { id: BlockId::named(name), from, meta }]);
    assert_eq!(arena.submit(batch).wait(Instant::now()).unwrap(), [Outcome::Stored]);
}

fn look(path: &Path) -> Snapshot {
    Inspection::open(path).unwrap().unwrap().snapshot().unwrap()
}

/// Flips a byte of the payload that `marker` stands in.
fn damage(path: &Path, marker: &[u8]) {
    let all = std::fs::read(path).unwrap();
    let at = all.windows(marker.len()).position(|window| window == marker).unwrap();
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&[!marker[0]], at as u64).unwrap();
}

#[test]
fn a_snapshot_counts_what_the_arena_holds() {
    let place = place();
    let arena = open(&place);
    put(&arena, "small", vec![1; 5000], Class::Ordinary);
    put(&arena, "large", vec![2; 200_000], Class::Prefix);
    let lease = arena.lease(&BlockId::named("large")).unwrap();
    let seen = look(arena.path());
    assert_eq!((seen.ready_bytes, seen.limit_bytes), (32 * MIB, 32 * MIB));
    assert_eq!(seen.used_bytes, arena.stats().used_bytes);
    assert_eq!(seen.used_bytes, 8192 + 4 * 65_536);
    assert_eq!((seen.slots.ordinary.blocks, seen.slots.ordinary.payload_bytes), (1, 5000));
    assert_eq!((seen.slots.prefix.blocks, seen.slots.prefix.payload_bytes), (1, 200_000));
    assert_eq!((seen.slots.state(State::Sealed), seen.slots.verified), (2, 2));
    assert_eq!(seen.slots.states.iter().sum::<u64>(), seen.slots.total);
    assert_eq!((seen.regions.small, seen.regions.large, seen.regions.not_ready), (1, 1, 0));
    assert_eq!((seen.put_bytes, seen.evictions, seen.unclean_deaths, seen.shortfalls), (205_000, 0, 0, 0));
    let [owner] = &seen.owners[..] else { unreachable!("one owner, not {:?}", seen.owners) };
    assert_eq!((owner.alive, owner.pins, owner.process.pid), (true, 1, u64::from(std::process::id())));
    assert!(owner.since.is_some() && owner.command.is_some() && owner.stripes >= 1);
    drop(lease);
    assert_eq!(look(arena.path()).owners[0].pins, 0);
    let path = arena.path().to_owned();
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
    assert_eq!(look(&path).last_used, Some(long_ago));
    drop(arena);
    assert_eq!(look(&path).owners, []);
    assert!(look(&path).last_used.unwrap() > long_ago, "closing an arena is a use");
}

#[test]
fn looking_changes_no_byte_and_needs_no_right_to_write() {
    let place = place();
    let arena = open(&place);
    put(&arena, "block", vec![1; 5000], Class::Ordinary);
    let path = arena.path().to_owned();
    // Its janitor would write, too.
    drop(arena);
    let before = std::fs::read(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
    assert_eq!(look(&path).slots.state(State::Sealed), 1);
    assert!(std::fs::read(&path).unwrap() == before);
}

#[test]
fn visitors_neither_make_nor_grow_an_arena() {
    let place = place();
    assert!(Arena::attach(&config(&place)).unwrap().is_none());
    let path = config(&place).path();
    assert!(!path.exists() && Inspection::open(&path).unwrap().is_none());
    let small = config(&place).capacity(2048 * MIB);
    drop(Arena::open(&small).unwrap());
    let before = look(&path).ready_bytes;
    assert!(before < 2048 * MIB, "there is something left to grow");
    // As growth that died leaves it: a page that is not counted, for which an attach looks at all tables.
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[1], file.metadata().unwrap().len() - 1).unwrap();
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    file.set_modified(long_ago).unwrap();
    let visitor = Arena::attach(&config(&place)).unwrap().unwrap();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(visitor.ready_bytes(), before);
    drop(visitor);
    assert_eq!(look(&path).last_used, Some(long_ago), "a visit is no use");
}

#[test]
fn scrubbing_finds_planted_damage_and_drops_it_when_told() {
    let place = place();
    let arena = open(&place);
    let mut data: Vec<u8> = (0..300_000_u32).map(|i| (i * 31 >> 3) as u8).collect();
    data[150_000..150_008].copy_from_slice(b"planted!");
    put(&arena, "sound", vec![7; 100_000], Class::Ordinary);
    put(&arena, "damaged", data, Class::Ordinary);
    let scrub = |repair| {
        let mut found = Vec::new();
        assert!(arena.scrub(0..arena.slot_count(), repair, &mut |one| {
            found.push((one.id, one.found));
            true
        }));
        found.sort_by_key(|(id, _)| *id == BlockId::named("damaged"));
        found
    };
    let [sound, damaged] = [BlockId::named("sound"), BlockId::named("damaged")];
    assert_eq!(scrub(false), [(sound, Scrub::Sound), (damaged, Scrub::Sound)]);
    damage(arena.path(), b"planted!");
    assert_eq!(scrub(false), [(sound, Scrub::Sound), (damaged, Scrub::Damaged)]);
    assert_eq!(scrub(true), [(sound, Scrub::Sound), (damaged, Scrub::Dropped)]);
    assert_eq!(scrub(true), [(sound, Scrub::Sound)]);
    assert_eq!(arena.audit().unwrap().disagreements, 0);
    assert_eq!(look(arena.path()).owners[0].pins, 0, "every pin was given back");
}

#[test]
fn scrubbing_ends_when_told() {
    let place = place();
    let arena = open(&place);
    (0..9).for_each(|number| put(&arena, &format!("b{number}"), vec![number; 4096], Class::Ordinary));
    let mut seen = 0;
    let done = arena.scrub(0..arena.slot_count(), false, &mut |_| {
        seen += 1;
        seen < 3
    });
    assert_eq!((done, seen), (false, 3));
}

#[test]
fn an_arena_goes_only_when_nobody_holds_it() {
    let place = place();
    let arena = open(&place);
    let path = arena.path().to_owned();
    assert_eq!(is_in_use(&path).unwrap(), Some(true));
    assert_eq!(remove(&path).unwrap(), Removal::InUse);
    drop(arena);
    assert_eq!(is_in_use(&path).unwrap(), Some(false));
    let Removal::Removed(bytes) = remove(&path).unwrap() else { unreachable!("nobody holds it") };
    assert!(bytes >= 32 * MIB, "{bytes}");
    assert_eq!((remove(&path).unwrap(), is_in_use(&path).unwrap()), (Removal::Gone, None));
}

#[test]
fn what_is_no_arena_is_told_apart() {
    let place = place();
    let path = config(&place).path();
    drop(open(&place));
    let sound = std::fs::read(&path).unwrap();
    let write = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let refused = Inspection::open(&path).map_or_else(|error| Some(error.kind()), |_| None);
        (refused, fault(&path).unwrap())
    };
    let format = Some(ErrorKind::Format);
    assert_eq!(write(b"something else"), (format, Some(Fault::Foreign)));
    assert_eq!(write(&sound[..5000]), (format, Some(Fault::Damaged)));
    let mut flipped = sound.clone();
    flipped[30] ^= 1;
    assert_eq!(write(&flipped), (format, Some(Fault::Damaged)));
    let mut newer = sound.clone();
    newer[8..16].copy_from_slice(&[9, 0, 0, 0, 9, 0, 0, 0]);
    let sum = cascade_core::digest::crc64(&newer[..4088]);
    newer[4088..4096].copy_from_slice(&sum.to_le_bytes());
    assert_eq!(write(&newer), (format, Some(Fault::OtherFormat)));
    // What stores refuse, though its superblock is whole.
    assert_eq!(write(&sound).0, None);
    let geometry = Inspection::open(&path).unwrap().unwrap().superblock().geometry;
    let mut miscounted = sound.clone();
    miscounted[geometry.offsets().control as usize + 7] = 1;
    assert_eq!(write(&miscounted), (format, Some(Fault::Damaged)));
    assert_eq!(write(&sound).0, None);
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    let punch =
        nix::fcntl::FallocateFlags::FALLOC_FL_PUNCH_HOLE | nix::fcntl::FallocateFlags::FALLOC_FL_KEEP_SIZE;
    nix::fcntl::fallocate(&file, punch, geometry.offsets().slots as i64, 4096).unwrap();
    assert_eq!(Inspection::open(&path).unwrap_err().kind(), ErrorKind::Format);
    assert_eq!(fault(&path).unwrap(), Some(Fault::Damaged));
}
