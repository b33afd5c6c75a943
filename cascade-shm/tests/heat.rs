//! What goes first: prefix blocks within their share stay, LRU and learned worth differ, and an arena whose slots mean something else
//! is used as it is.

// Clippy's exemption for tests reaches `#[test]` functions only, not their helpers.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cascade_core::batch::{Batch, Op, Outcome};
use cascade_core::digest;
use cascade_core::id::BlockId;
use cascade_core::memory::Piece;
use cascade_core::policy::{Heat, Kind, Learned, Worth};
use cascade_core::tier::{Addressable, Class, Lookup, PutMeta, Tier};
use cascade_shm::layout::SUPERBLOCK_BYTES;
use cascade_shm::{Arena, ArenaConfig, Eviction};

const MIB: u64 = 1 << 20;
const BLOCK: usize = 4096;
/// Blocks that fit.
const BLOCKS: u64 = 4 * MIB / BLOCK as u64;

fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("cascade-test-").tempdir_in("/dev/shm").unwrap()
}

fn config(folder: &tempfile::TempDir, eviction: Eviction) -> ArenaConfig {
    let config = ArenaConfig::new(folder.path().join("arena")).capacity(4 * MIB);
    ArenaConfig { region_bytes: Some(MIB), slots: Some(4096), eviction, ..config }
}

fn open(config: &ArenaConfig) -> Arena {
    let arena = Arena::open(config).unwrap();
    assert!(arena.wait_ready(Instant::now() + Duration::from_secs(30)));
    arena
}

fn id(kind: &str, number: u64) -> BlockId {
    BlockId::named(&format!("{kind} {number}"))
}

fn put_as(arena: &Arena, id: BlockId, class: Class, heat: Option<Heat>) {
    let from = Piece::shared(Arc::from(vec![7_u8; BLOCK])).into();
    let op = Op::Store { id, from, meta: PutMeta { class, heat, ..PutMeta::default() } };
    assert_eq!(arena.submit(Batch::new(vec![op])).wait(Instant::now()).unwrap()[0], Outcome::Stored);
}

fn put(arena: &Arena, id: BlockId) {
    put_as(arena, id, Class::Ordinary, None);
}

fn held(arena: &Arena, kind: &str, numbers: std::ops::Range<u64>) -> u64 {
    let ids: Vec<BlockId> = numbers.map(|number| id(kind, number)).collect();
    let mut out = vec![Lookup::Pending; ids.len()];
    arena.lookup(&ids, &mut out);
    out.iter().filter(|found| found.is_hit()).count() as u64
}

#[test]
fn prefix_blocks_stay_within_their_share_and_beyond_it_go_by_their_worth() {
    let folder = folder();
    let arena = open(&config(&folder, Eviction::Learned));
    let half = BLOCKS / 2;
    (0..half).for_each(|number| put_as(&arena, id("prefix", number), Class::Prefix, None));
    (0..10 * BLOCKS).for_each(|number| put(&arena, id("other", number)));
    assert_eq!(held(&arena, "prefix", 0..half), half, "a half of the arena is within the share");
    (half..4 * BLOCKS).for_each(|number| put_as(&arena, id("prefix", number), Class::Prefix, None));
    (0..4 * BLOCKS).for_each(|number| put(&arena, id("more", number)));
    let (prefix, more) = (held(&arena, "prefix", 0..4 * BLOCKS), held(&arena, "more", 0..4 * BLOCKS));
    println!("{prefix} prefix blocks and {more} others of {BLOCKS}");
    assert!((BLOCKS * 7 / 10..BLOCKS * 9 / 10).contains(&prefix), "protection ends at four fifths");
    assert!(more > BLOCKS / 10, "others find room beside any number of prefix blocks");
}

#[test]
fn under_lru_what_was_used_last_stays() {
    let folder = folder();
    let arena = open(&config(&folder, Eviction::Lru));
    assert!(!arena.is_learning());
    (0..BLOCKS).for_each(|number| put(&arena, id("a", number)));
    (0..BLOCKS / 2).for_each(|number| put(&arena, id("b", number)));
    let used: Vec<u64> = (0..BLOCKS).filter(|number| arena.lease(&id("a", *number)).is_ok()).collect();
    assert!((BLOCKS / 3..BLOCKS * 2 / 3).contains(&(used.len() as u64)));
    (0..BLOCKS / 3).for_each(|number| put(&arena, id("c", number)));
    let lost = used.iter().filter(|number| held(&arena, "a", **number..**number + 1) == 0).count();
    println!(
        "{lost} of {} that were used last are gone, {} of b",
        used.len(),
        BLOCKS / 2 - held(&arena, "b", 0..BLOCKS / 2)
    );
    assert!(lost * 20 < used.len(), "the others were there to go");
}

/// Half of all blocks are of chains that come back, the others are never seen again; all are equally old.
fn teach(arena: &Arena) -> (Kind, Kind) {
    let mut learned = Learned::new(1 << 14);
    let (again, never) = (Kind::of(3, 8, 8, 0), Kind::of(3, 8, 0, 0));
    for round in 0..200_u64 {
        for chain in 0..10 {
            let chain: Vec<u64> = (0..8).map(|depth| (chain << 8 | depth) + 1).collect();
            learned.request(&chain, round as u32 * 4);
            let scan: Vec<u64> = (0..8).map(|depth| 1 << 40 | round << 20 | chain[0] << 4 | depth).collect();
            learned.request(&scan, round as u32 * 4);
        }
    }
    arena.publish_worth(learned.table(), learned.evidence());
    (again, never)
}

#[test]
fn what_is_learned_decides_and_later_handles_go_by_it() {
    let folder = folder();
    let first = open(&config(&folder, Eviction::Learned));
    assert!(first.is_learning());
    let (again, never) = teach(&first);
    let second = open(&config(&folder, Eviction::Learned));
    drop(first);
    let tick = second.tick();
    for number in 0..BLOCKS / 2 {
        put_as(&second, id("again", number), Class::Ordinary, Some(Heat::new(tick, 3, again, 3)));
        put_as(&second, id("never", number), Class::Ordinary, None);
        second.note_heats(&[id("never", number)], &[Heat::new(tick, 0, never, 3)]);
    }
    (0..BLOCKS / 2).for_each(|number| {
        put_as(&second, id("new", number), Class::Ordinary, Some(Heat::new(tick, 0, never, 3)));
    });
    let (again, never) = (held(&second, "again", 0..BLOCKS / 2), held(&second, "never", 0..BLOCKS / 2));
    println!("{again} blocks that come back and {never} others are left of {}", BLOCKS / 2);
    assert!(again > BLOCKS * 9 / 20 && never < BLOCKS / 10);
}

#[test]
fn an_arena_without_heats_is_used_by_the_counts_of_its_slots() {
    let folder = folder();
    let config = config(&folder, Eviction::Learned);
    drop(Arena::open(&config).unwrap());
    let file = std::fs::File::options().read(true).write(true).open(config.path()).unwrap();
    let mut superblock = vec![0; SUPERBLOCK_BYTES];
    file.read_exact_at(&mut superblock, 0).unwrap();
    superblock[144..152].fill(0);
    let features = |arena: &Arena| arena.superblock().optional_features;
    let sum = digest::crc64(&superblock[..SUPERBLOCK_BYTES - 8]);
    superblock[SUPERBLOCK_BYTES - 8..].copy_from_slice(&sum.to_le_bytes());
    file.write_all_at(&superblock, 0).unwrap();
    let arena = open(&config);
    assert!(!arena.is_learning() && features(&arena) == 0);
    teach(&arena);
    let used = BLOCKS / 4;
    for number in 0..used {
        put_as(&arena, id("used", number), Class::Ordinary, Some(Heat::from_bits(u32::MAX)));
        arena.note_heats(&[id("used", number)], &[Heat::from_bits(u32::MAX)]);
        assert!(arena.lease(&id("used", number)).is_ok());
    }
    (0..2 * BLOCKS).for_each(|number| put(&arena, id("scan", number)));
    assert_eq!(held(&arena, "used", 0..used), used, "a scan displaces nothing that was used");
    let mut header = [0; 8];
    let table = arena.superblock().geometry.offsets().data - 4096;
    file.read_exact_at(&mut header, table).unwrap();
    assert_eq!(header, [0; 8], "nobody wrote a table there");
}
