//! Models over whole parts of the arena: allocator, recovery of owners, verification, end of quarantine. As in `loom.rs`, and
//! in the memory of a model: a file on the heap, with real owner rows and file locks.
#![cfg(loom)]
// Clippy's exemption for tests reaches `#[test]` functions only, not their helpers.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../../cascade-core/tests/loom/counted.rs"]
mod counted;
#[path = "loom/node.rs"]
mod node;

use std::sync::Arc;
use std::time::Instant;

use cascade_core::batch::{Batch, Op, Outcome};
use cascade_core::id::BlockId;
use cascade_core::memory::Piece;
use cascade_core::sync::{AtomicU64, Ordering};
use cascade_core::tier::{Addressable, PutMeta, Tier};
use cascade_shm::Arena;
use cascade_shm::ledger::Entry;
use cascade_shm::lock::Holder;
use cascade_shm::model::{Core, dead_owners};
use cascade_shm::owner::RowState;
use cascade_shm::slot::State;
use loom::thread;

use crate::counted::model;
use crate::node::{Node, allocate, tables};

const UNIT: u64 = 4096;
const LARGE: u64 = 64 << 10;

/// Two take units of one region while a third gives some back. Fails when a lock is taken from a living holder.
#[test]
fn units_are_given_out_once_while_others_are_given_back() {
    model(2, || {
        let node = Node::new();
        let sessions = [node.join(), node.join(), node.join()];
        let slots = [0, 1, 2]
            .map(|owner| node.reserve(sessions[owner].core(), owner as u16, 0, &format!("block {owner}")));
        allocate(sessions[2].core(), UNIT, slots[2].0, 0).unwrap();
        let [first, second, third] = sessions;
        let taker = {
            let slot = slots[1].0;
            thread::spawn(move || (allocate(second.core(), 2 * UNIT, slot, 0), second))
        };
        let (slot, word) = slots[2];
        let freeing = node.advance(slot, word, State::Freeing);
        let giver = thread::spawn(move || {
            let core = third.core();
            (core.with_regions(|regions| regions.free(&core.index(), slot, freeing)), third)
        });
        let mine = allocate(first.core(), UNIT, slots[0].0, 0);
        let ((other, _second), (is_free, third)) = (taker.join().unwrap(), giver.join().unwrap());
        // Patience is short in a model: who met a lock tries again, as recovery would.
        let core = third.core();
        assert!(is_free || core.with_regions(|regions| regions.free(&core.index(), slot, freeing)));
        let used: u64 = [mine, other].into_iter().flatten().map(|extent| extent.len).sum();
        assert_eq!(tables(core), (0, used));
    });
}

/// A block that crosses regions against one that lies in the second of them. Fails when `take_span` does not look again.
#[test]
fn a_span_and_a_block_do_not_share_units() {
    model(3, || {
        let node = Node::new();
        let sessions = [node.join(), node.join()];
        let slots = [0, 1]
            .map(|owner| node.reserve(sessions[owner].core(), owner as u16, 0, &format!("block {owner}")));
        let [first, second] = sessions;
        let slot = slots[1].0;
        // Six of eight large units, and three: only one of them fits.
        let other = thread::spawn(move || (allocate(second.core(), 3 * LARGE, slot, 1), second));
        let mine = allocate(first.core(), 6 * LARGE, slots[0].0, 0);
        let (other, _second) = other.join().unwrap();
        assert!(mine.is_none() || other.is_none());
        let used: u64 = [mine, other].into_iter().flatten().map(|extent| extent.len).sum();
        assert_eq!(tables(first.core()), (0, used));
    });
}

/// The holder of a region's lock died in the middle of a change: whoever comes first rebuilds it, the others see it whole.
/// Fails without the rebuild.
#[test]
fn a_region_whose_holder_died_is_rebuilt_before_it_is_used() {
    model(3, || {
        let node = Node::new();
        let sessions = [node.join(), node.join()];
        let slots = [0, 1]
            .map(|owner| node.reserve(sessions[owner].core(), owner as u16, 0, &format!("block {owner}")));
        // Both have used the region before, so neither looks whether its tables are sound.
        let again = node.reserve(sessions[1].core(), 1, 1, "before");
        let kept = [(&sessions[0], slots[0].0), (&sessions[1], again.0)]
            .map(|(session, slot)| allocate(session.core(), UNIT, slot, 0).unwrap().len);
        let dead = node.dead(2);
        std::mem::forget(node.map.region_locks()[0].try_acquire(dead));
        // It had marked units for a block that never got them.
        node.map.bitmap(0)[0].store(u64::MAX, Ordering::Relaxed);
        let [first, second] = sessions;
        let slot = slots[1].0;
        let other = thread::spawn(move || (allocate(second.core(), UNIT, slot, 0), second));
        dead_owners(first.core());
        let (other, _second) = other.join().unwrap();
        let used = kept.iter().sum::<u64>() + other.map_or(0, |extent| extent.len);
        assert_eq!(tables(first.core()), (0, used));
        assert_eq!(node.map.owners()[2].state().0, RowState::Free);
    });
}

/// What the dead owner of row 2 leaves: a reservation with space, and the last pin of a retired block. Who joins recovers, so
/// the survivors are there before.
fn leave_remains(node: &Node, core: &Core) -> (Holder, [u32; 2]) {
    let dead = node.dead(2);
    let half = node.reserve(core, 2, 0, "half");
    allocate(core, UNIT, half.0, 0).unwrap();
    let (slot, word) = node.reserve(core, 2, 1, "retired");
    allocate(core, UNIT, slot, 0).unwrap();
    let sealed = node.advance(slot, word, State::Sealed);
    Entry::pin(slot).store(&node.map.ledger(2)[1]);
    node.advance(slot, sealed, State::Retired);
    (dead, [half.0, slot])
}

fn epoch(node: &Node) -> u64 {
    node.map.control().epoch.load(Ordering::Relaxed)
}

/// Two survivors notice the same death. Fails when the reap lock is taken from a living holder, and when recovery passes over
/// intents.
#[test]
fn a_dead_owner_is_recovered_once_by_two_survivors() {
    model(3, || {
        let node = Node::new();
        let [first, second] = [node.join(), node.join()];
        let (_, slots) = leave_remains(&node, first.core());
        let before = epoch(&node);
        let other = thread::spawn(move || {
            dead_owners(second.core());
            second
        });
        dead_owners(first.core());
        let _second = other.join().unwrap();
        assert_eq!((node.entries(2), node.map.owners()[2].state()), (0, (RowState::Free, 1)));
        // Freed once, and unverified once.
        assert!(
            slots
                .iter()
                .all(|slot| (node.word(*slot).state(), node.word(*slot).generation()) == (State::Free, 1))
        );
        assert_eq!(epoch(&node), before + 1);
        assert_eq!(tables(first.core()), (0, 0));
    });
}

/// Somebody joins, and takes the dead owner's row as soon as it is free, while a survivor still looks at it. Fails when a row
/// can be left in the name of another generation.
#[test]
fn who_takes_a_dead_owners_row_keeps_what_it_then_holds() {
    model(3, || {
        let node = Arc::new(Node::new());
        let [first, second] = [node.join(), node.join()];
        let (dead, _) = leave_remains(&node, first.core());
        let before = epoch(&node);
        let newcomer = {
            let node = Arc::clone(&node);
            thread::spawn(move || {
                // All other rows are taken: it recovers from the last row if need be.
                let session = node.join();
                assert_eq!(session.core().row(), 2);
                let held = node.reserve(session.core(), 2, 0, "new");
                (session, held)
            })
        };
        dead_owners(first.core());
        let (session, (slot, word)) = newcomer.join().unwrap();
        dead_owners(second.core());
        assert_eq!(node.map.owners()[2].state(), (RowState::Live, dead.generation + 1));
        assert_eq!((node.word(slot), node.entries(2)), (word, 1));
        assert_eq!(epoch(&node), before + 1);
        drop(session);
    });
}

fn put(arena: &Arena, name: &str, data: &[u8]) -> Outcome {
    let from = Piece::shared(Arc::from(data)).into();
    let op = Op::Store { id: BlockId::named(name), from, meta: PutMeta::default() };
    arena.submit(Batch::new(vec![op])).wait(Instant::now()).unwrap()[0]
}

/// The dead could write what others had sealed: once they are recovered, nothing is leased that was not verified since. Fails
/// when recovery does not count the epoch up.
#[test]
fn what_the_dead_damaged_is_not_leased_once_they_are_recovered() {
    model(3, || {
        let node = Node::new();
        let (survivor, arena) = (node.join(), node.arena());
        assert_eq!(put(&arena, "a", &[7; 100]), Outcome::Stored);
        assert!(arena.lease(&BlockId::named("a")).is_ok());
        node.dead(2);
        let slot = node.map.slots().iter().find(|slot| slot.word().state() == State::Sealed).unwrap();
        let memory = node.map.block(slot.extent().unwrap()).unwrap();
        assert!(memory.write_at(50, &[8]));
        let is_recovered = Arc::new(AtomicU64::new(0));
        let recovery = {
            let is_recovered = Arc::clone(&is_recovered);
            thread::spawn(move || {
                dead_owners(survivor.core());
                is_recovered.store(1, Ordering::Release);
                survivor
            })
        };
        for _ in 0..2 {
            let after = is_recovered.load(Ordering::Acquire) == 1;
            // Before, nobody could know.
            assert!(arena.lease(&BlockId::named("a")).is_err() || !after);
        }
        let survivor = recovery.join().unwrap();
        assert!(arena.lease(&BlockId::named("a")).is_err());
        assert_eq!(tables(survivor.core()), (0, 0));
    });
}

/// Space kept from use after a transfer that was given up is given back, while its id is put again. Fails when the end of the
/// quarantine frees without the region's lock.
#[test]
fn the_end_of_a_quarantine_frees_once_beside_a_new_put() {
    model(3, || {
        let node = Arc::new(Node::new());
        let [first, second] = [node.join(), node.join()];
        let (old, word) = node.reserve(first.core(), 0, 0, "a");
        allocate(first.core(), UNIT, old, 0).unwrap();
        let in_flight = node.advance(old, word, State::InFlight);
        let freeing = node.advance(old, in_flight, State::Freeing);
        let put = {
            let node = Arc::clone(&node);
            thread::spawn(move || {
                let (slot, word) = node.reserve(second.core(), 1, 0, "a");
                let extent = allocate(second.core(), UNIT, slot, 0);
                node.advance(slot, word, State::Sealed);
                (slot, extent, second)
            })
        };
        let core = first.core();
        let is_free = core.with_regions(|regions| regions.free(&core.index(), old, freeing));
        let (slot, extent, _second) = put.join().unwrap();
        assert!(is_free || core.with_regions(|regions| regions.free(&core.index(), old, freeing)));
        assert_eq!(node.word(slot).state(), State::Sealed);
        assert_eq!(tables(core), (0, extent.map_or(0, |extent| extent.len)));
    });
}
