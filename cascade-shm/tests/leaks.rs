//! Nothing that a process holds grows with the number of blocks that came and went: its heap is counted by an allocator of the
//! test's own, so that memory which is kept for later uses does not count.

// Clippy's exemption for tests reaches `#[test]` functions only, not their helpers.
#![allow(clippy::unwrap_used)]

#[path = "leaks/raw.rs"]
mod raw;

use std::sync::Arc;
use std::time::{Duration, Instant};

use cascade_core::batch::{Batch, Op, Outcome};
use cascade_core::id::BlockId;
use cascade_core::memory::{HostBuffer, Piece};
use cascade_core::reservation::Reserve;
use cascade_core::tier::{Addressable, OnExisting, PutMeta, Tier};
use cascade_shm::{Arena, ArenaConfig};

use crate::raw::Held;

const CYCLES: u64 = 50_000;
/// Until the arena is full and every list has its length.
const WARM_UP: u64 = 10_000;
/// What may differ by the moment: the janitor works beside us, and a list may be a little longer.
const SLACK_BYTES: i64 = 16 << 10;
const SLACK_PIECES: i64 = 16;
/// Lengths of blocks in turn: of both kinds of regions.
const LENS: [usize; 6] = [100, 4096, 30_000, 65_536, 70_000, 200_000];

struct Work {
    arena: Arena,
    source: Arc<[u8]>,
    buffer: HostBuffer,
}

impl Work {
    fn run(&self, op: Op) -> Outcome {
        self.arena.submit(Batch::new(vec![op])).wait(Instant::now()).unwrap()[0]
    }

    fn piece(&self, number: u64) -> cascade_core::memory::SgList {
        let len = LENS[number as usize % LENS.len()];
        Piece::shared(Arc::clone(&self.source)).part(0, len).unwrap().into()
    }

    /// A put, which evicts, and now and then everything else that a program does.
    fn cycle(&self, number: u64) {
        let id = BlockId::named(&number.to_string());
        let stored = self.run(Op::Store { id, from: self.piece(number), meta: PutMeta::default() });
        assert_eq!(stored, Outcome::Stored);
        let meta = PutMeta { on_existing: OnExisting::Replace, ..PutMeta::default() };
        match number % 8 {
            0 => drop(self.arena.lease(&id).unwrap()),
            1 => {
                let old = BlockId::named(&(number - 1).to_string());
                assert!(self.arena.lease_batch(&[id, old, id]).iter().any(Result::is_ok));
            }
            2 => drop(self.run(Op::Fetch { id, into: self.buffer.piece().into() })),
            3 => assert_eq!(self.run(Op::Delete { id }), Outcome::Deleted),
            4 => drop(self.run(Op::Store { id, from: self.piece(number + 1), meta })),
            5 => {
                // Given up half way.
                let reserved = self.arena.reserve(&BlockId::named("never"), 50_000, meta);
                assert!(matches!(reserved, Reserve::Reserved(_)));
            }
            6 => {
                // Retired under a lease, freed with it.
                let lease = self.arena.lease(&id).unwrap();
                assert_eq!(self.run(Op::Delete { id }), Outcome::Deleted);
                drop(lease);
            }
            _ => drop(self.arena.stats()),
        }
    }
}

/// One test: the allocator counts for all of the process.
#[test]
fn the_heap_does_not_grow() {
    with_what_came_and_went();
    with_handles_that_came_and_went();
}

fn with_what_came_and_went() {
    let folder = tempfile::Builder::new().prefix("cascade-leaks-").tempdir_in("/dev/shm").unwrap();
    let config = ArenaConfig::new(folder.path().join("arena")).capacity(32 << 20);
    let arena = Arena::open(&config).unwrap();
    assert!(arena.wait_ready(Instant::now() + Duration::from_secs(30)));
    let source: Arc<[u8]> = (0..200_000_u32).map(|at| at as u8).collect();
    let work = Work { arena, source, buffer: HostBuffer::zeroed(200_000) };
    (0..WARM_UP).for_each(|number| work.cycle(number));
    let before = Held::now();
    (WARM_UP..WARM_UP + CYCLES).for_each(|number| work.cycle(number));
    // The moment may be one of the janitor's: the least of some counts.
    let after = (0..20).map(|_| {
        std::thread::sleep(Duration::from_millis(5));
        Held::now()
    });
    let after = after.min_by_key(|held| held.bytes).unwrap();
    let evictions = work.arena.stats().evictions;
    println!("{CYCLES} cycles, {evictions} evictions: {before:?} before, {after:?} after");
    assert!(evictions > CYCLES / 4, "the test does what it is about");
    assert!(after.bytes - before.bytes <= SLACK_BYTES, "{before:?} before, {after:?} after");
    assert!(after.pieces - before.pieces <= SLACK_PIECES, "{before:?} before, {after:?} after");
}

/// What a process keeps that opens and closes the arena again and again.
fn with_handles_that_came_and_went() {
    let folder = tempfile::Builder::new().prefix("cascade-leaks-").tempdir_in("/dev/shm").unwrap();
    let config = ArenaConfig::new(folder.path().join("arena")).capacity(16 << 20);
    let use_it = || {
        let arena = Arena::open(&config).unwrap();
        let id = BlockId::named("one");
        let op =
            Op::Store { id, from: Piece::shared(Arc::from(vec![7; 5000])).into(), meta: PutMeta::default() };
        drop(arena.submit(Batch::new(vec![op])));
        drop(arena.lease(&id).unwrap());
    };
    (0..10).for_each(|_| use_it());
    let before = Held::now();
    (0..200).for_each(|_| use_it());
    let after = Held::now();
    println!("200 handles: {before:?} before, {after:?} after");
    assert!(after.bytes - before.bytes <= SLACK_BYTES, "{before:?} before, {after:?} after");
}
