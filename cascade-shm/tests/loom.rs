//! Models of the shipped protocols: every interleaving of a few threads, with the reorderings that the memory model allows,
//! up to a bound on preemptions.
//!
//! A model that cannot fail proves nothing. Each was run once with the fence or check named at it taken out, and failed.
#![cfg(loom)]
// Clippy's exemption for tests reaches `#[test]` functions only, not their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../cascade-core/tests/loom/counted.rs"]
mod counted;

use std::time::Duration;

use cascade_core::id::BlockId;
use cascade_core::sync::{AtomicU64, Ordering};
use cascade_core::tier::Class;
use cascade_shm::index::{Claim, Found, Index, Key};
use cascade_shm::ledger::Entry;
use cascade_shm::lock::{Holder, Lock};
use cascade_shm::owner::OwnerRow;
use cascade_shm::protocol::{self, Pin, WhenPinned};
use cascade_shm::role::{Role, Standing};
use cascade_shm::slot::{Extent, Slot, State, Word};
use loom::sync::Arc;
use loom::thread;

use crate::counted::model;

/// One bucket, and a ledger entry for each thread that pins.
struct World {
    slots: Vec<Slot>,
    tags: Vec<AtomicU64>,
    cells: Vec<AtomicU64>,
}

impl World {
    fn new(cells: usize) -> Self {
        Self {
            slots: (0..8).map(|_| Slot::default()).collect(),
            tags: vec![AtomicU64::new(0)],
            cells: (0..cells).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn index(&self) -> Index<'_> {
        Index::new(&self.slots, &self.tags)
    }

    fn word(&self, slot: u32) -> Word {
        self.slots[slot as usize].word()
    }

    /// Claims `slot` for `key`; the word it is reserved with.
    fn claim(&self, key: &Key, slot: u32, owner: u16, replace: bool) -> Option<Word> {
        let free = self.word(slot);
        if free.state() != State::Free {
            return None;
        }
        match self.index().claim(key, slot, free, Class::Ordinary, owner, replace) {
            Some(Claim::Ours(reserved)) => Some(reserved),
            Some(Claim::Exists | Claim::Pending) | None => None,
        }
    }

    /// Fills a reserved slot with what [`World::check`] expects of `version`, and seals it.
    fn seal(&self, slot: u32, reserved: Word, version: u64) -> Word {
        let place = &self.slots[slot as usize];
        place.set_extent(Extent { offset: version * 4096, len: version }, 0, 0);
        place.set_root(version);
        let sealed = reserved.with(State::Sealed, 0);
        assert!(place.advance(reserved, sealed));
        sealed
    }

    fn put(&self, key: &Key, slot: u32, version: u64) -> Word {
        let reserved = self.claim(key, slot, 1, true).expect("nobody else claims it");
        self.seal(slot, reserved, version)
    }

    /// What a pinned or just sealed slot says is all of `version`.
    fn check(&self, slot: u32, version: u64) {
        let place = &self.slots[slot as usize];
        assert_eq!(place.extent(), Some(Extent { offset: version * 4096, len: version }));
        assert_eq!(place.root(), version);
    }

    /// Begins, scans and decides; the word the slot now has, `None` if it could not be begun.
    fn evict(&self, slot: u32, word: Word, owner: u16, when_pinned: WhenPinned) -> Option<Word> {
        let index = self.index();
        let begun = protocol::begin_evict(&index, slot, word, owner)?;
        let pinned = protocol::pinned(&[slot], self.cells.iter())[0];
        Some(protocol::decide(&index, slot, begun, pinned, when_pinned))
    }

    fn reclaim(&self, slot: u32, retired: Word, owner: u16) -> Option<Word> {
        protocol::reclaim(&self.index(), slot, retired, owner, || self.cells.iter())
    }

    /// Ends the life of a slot in state `Freeing`: its bytes are anyone's from now on.
    fn free(&self, slot: u32, freeing: Word) {
        let place = &self.slots[slot as usize];
        place.clear_extent();
        place.set_root(u64::MAX);
        self.index().release(slot, freeing);
    }

    fn count(&self, state: State) -> usize {
        self.slots.iter().filter(|slot| slot.word().state() == state).count()
    }
}

fn key(world: &World, name: &str) -> Key {
    world.index().key(&BlockId::named(name))
}

/// Another id with the tag of `name`, so that only the id itself tells them apart.
fn twin_tag(world: &World, name: &str) -> Key {
    let tag = |key: &Key| format!("{key:?}").split("tag: ").nth(1).map(str::to_owned);
    let wanted = tag(&key(world, name));
    (0..).map(|number| key(world, &format!("twin {number}"))).find(|other| tag(other) == wanted).unwrap()
}

/// Fails when `Slot::advance` publishes, or `Slot::word` reads, with `Relaxed`.
#[test]
fn who_finds_a_block_sealed_sees_all_that_was_written_before() {
    model(3, || {
        let world = Arc::new(World::new(0));
        let name = key(&world, "a");
        let reader = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                if let Found::Sealed(slot, word) = world.index().find(&name) {
                    assert_eq!((slot, word.generation()), (0, 0));
                    world.check(0, 7);
                }
            })
        };
        world.put(&name, 0, 7);
        reader.join().unwrap();
        assert!(matches!(world.index().find(&name), Found::Sealed(0, _)));
    });
}

/// Fails without the fence in `announce_pin`, without the one in `pinned`, and when `pin` does not look again.
#[test]
fn a_pinned_block_is_not_freed() {
    model(3, || {
        let world = Arc::new(World::new(2));
        let name = key(&world, "a");
        let sealed = world.put(&name, 0, 7);
        let readers = [0, 1].map(|cell| {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                let index = world.index();
                if protocol::pin(&index, 0, sealed, &world.cells[cell]) == Pin::Held {
                    world.check(0, 7);
                    assert_eq!(world.word(0).generation(), sealed.generation());
                    assert!(protocol::unpin(&index, 0, &world.cells[cell]).is_none());
                }
            })
        });
        if let Some(freeing) =
            world.evict(0, sealed, 1, WhenPinned::Keep).filter(|w| w.state() == State::Freeing)
        {
            world.free(0, freeing);
        }
        for reader in readers {
            reader.join().unwrap();
        }
        let left = world.word(0).state();
        assert!(left == State::Free || left == State::Sealed, "{left:?}");
    });
}

/// The entry is in a stripe that counts only from its first use on. Fails when `use_stripe` comes after the entry.
#[test]
fn a_pin_in_a_stripe_just_taken_counts() {
    model(3, || {
        let world = Arc::new(World::new(2));
        let row = Arc::new(OwnerRow::default());
        let name = key(&world, "a");
        let sealed = world.put(&name, 0, 7);
        let reader = {
            let (world, row) = (Arc::clone(&world), Arc::clone(&row));
            thread::spawn(move || {
                row.use_stripe(1);
                if protocol::pin(&world.index(), 0, sealed, &world.cells[1]) == Pin::Held {
                    world.check(0, 7);
                }
            })
        };
        let index = world.index();
        let begun = protocol::begin_evict(&index, 0, sealed, 1).unwrap();
        // Lazily, as a scan of the real ledgers: how far to look is read after the fence.
        let cells = std::iter::once(()).flat_map(|()| &world.cells[..row.stripes()]);
        let pinned = protocol::pinned(&[0], cells)[0];
        let decided = protocol::decide(&index, 0, begun, pinned, WhenPinned::Keep);
        if decided.state() == State::Freeing {
            world.free(0, decided);
        }
        reader.join().unwrap();
    });
}

/// Fails when `release` does not count the generation up.
#[test]
fn a_refilled_slot_is_not_taken_for_what_it_held() {
    model(2, || {
        let world = Arc::new(World::new(1));
        let name = key(&world, "a");
        let sealed = world.put(&name, 0, 7);
        let reader = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                let index = world.index();
                let Found::Sealed(slot, word) = index.find(&name) else { return };
                if protocol::pin(&index, slot, word, &world.cells[0]) == Pin::Held {
                    world.check(slot, 7 + word.generation());
                    assert!(protocol::unpin(&index, slot, &world.cells[0]).is_none());
                }
            })
        };
        if let Some(freeing) =
            world.evict(0, sealed, 1, WhenPinned::Keep).filter(|w| w.state() == State::Freeing)
        {
            world.free(0, freeing);
            world.put(&name, 0, 8);
        }
        reader.join().unwrap();
    });
}

/// As before, refilled with another id, and who refilled it pins the new block in the same slot.
#[test]
fn an_old_word_pins_nothing_once_the_slot_holds_another_id() {
    model(3, || {
        let world = Arc::new(World::new(2));
        let (old, new) = (key(&world, "a"), twin_tag(&world, "a"));
        let sealed = world.put(&old, 0, 7);
        let reader = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                let index = world.index();
                // It looked long ago.
                if protocol::pin(&index, 0, sealed, &world.cells[0]) == Pin::Held {
                    world.check(0, 7);
                    assert_eq!(world.word(0).generation(), 0);
                    assert!(protocol::unpin(&index, 0, &world.cells[0]).is_none());
                }
            })
        };
        if let Some(freeing) =
            world.evict(0, sealed, 1, WhenPinned::Keep).filter(|w| w.state() == State::Freeing)
        {
            world.free(0, freeing);
            let sealed = world.put(&new, 0, 8);
            assert_eq!(protocol::pin(&world.index(), 0, sealed, &world.cells[1]), Pin::Held);
            world.check(0, 8);
        }
        reader.join().unwrap();
    });
}

/// Fails without the fence in `word_if_id`, or without its second look at the generation.
#[test]
fn a_slot_that_changes_hands_is_not_found_under_the_wrong_id() {
    model(2, || {
        let world = Arc::new(World::new(0));
        let (old, new) = (key(&world, "a"), twin_tag(&world, "a"));
        let sealed = world.put(&old, 0, 7);
        let reader = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                if let Found::Sealed(_, word) = world.index().find(&new) {
                    assert_eq!(word.generation(), 1);
                }
                if let Found::Sealed(_, word) = world.index().find(&old) {
                    assert_eq!(word.generation(), 0);
                }
            })
        };
        let freeing = world.evict(0, sealed, 1, WhenPinned::Keep).unwrap();
        world.free(0, freeing);
        world.put(&new, 0, 8);
        reader.join().unwrap();
    });
}

/// Fails without the fence in `claim`, and when a claim does not wait for one in a higher slot to be decided.
#[test]
fn of_two_claims_on_one_id_at_most_one_is_confirmed() {
    model(3, || {
        let world = Arc::new(World::new(0));
        let name = key(&world, "a");
        let other = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.claim(&name, 1, 2, false).is_some())
        };
        let mine = world.claim(&name, 0, 1, false).is_some();
        let other = other.join().unwrap();
        assert!(!(mine && other));
        assert_eq!(world.count(State::Reserved), usize::from(mine) + usize::from(other));
        assert_eq!(world.count(State::Free), 8 - world.count(State::Reserved));
    });
}

/// Fails without the fence in `claim`, and when a claim does not wait for one in a higher slot to be decided.
#[test]
fn of_three_claims_on_one_id_at_most_one_is_confirmed() {
    model(2, || {
        let world = Arc::new(World::new(0));
        let name = key(&world, "a");
        let others = [1, 2].map(|slot| {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                // One of them goes on to seal: a claim that comes late then finds the block.
                world.claim(&name, slot, 1, false).map(|word| world.seal(slot, word, 7))
            })
        });
        world.claim(&name, 0, 3, false);
        for other in others {
            other.join().unwrap();
        }
        assert!(world.count(State::Reserved) + world.count(State::Sealed) <= 1);
    });
}

/// An eviction may yet back out, so a claim must not be confirmed beside it. Fails when `rivals` passes over `Evicting`.
#[test]
fn a_claim_beside_an_eviction_waits_for_its_end() {
    model(3, || {
        let world = Arc::new(World::new(1));
        let name = key(&world, "a");
        let sealed = world.put(&name, 3, 7);
        Entry::pin(3).store(&world.cells[0]);
        let evictor = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.evict(3, sealed, 1, WhenPinned::Keep))
        };
        assert_eq!(world.claim(&name, 0, 2, false), None);
        evictor.join().unwrap();
        assert_eq!((world.word(3).state(), world.count(State::Reserved)), (State::Sealed, 0));
    });
}

/// Fails when `reclaim` does not scan a second time, and without the fence in `unpin`.
#[test]
fn a_retired_block_goes_with_its_last_pin() {
    model(3, || {
        let world = Arc::new(World::new(1));
        let name = key(&world, "a");
        let sealed = world.put(&name, 0, 7);
        assert_eq!(protocol::pin(&world.index(), 0, sealed, &world.cells[0]), Pin::Held);
        let reader = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                world.check(0, 7);
                let retired = protocol::unpin(&world.index(), 0, &world.cells[0]);
                if let Some(freeing) = retired.and_then(|word| world.reclaim(0, word, 2)) {
                    world.free(0, freeing);
                }
            })
        };
        retire(&world, sealed);
        reader.join().unwrap();
        assert_eq!(world.word(0).state(), State::Free);
    });
}

/// Two hold it when it is retired: whoever is last reclaims it, and nobody does so twice. Fails as the one before.
#[test]
fn of_two_last_pins_exactly_one_reclaims() {
    model(2, || {
        let world = Arc::new(World::new(2));
        let name = key(&world, "a");
        let sealed = world.put(&name, 0, 7);
        for cell in &world.cells {
            assert_eq!(protocol::pin(&world.index(), 0, sealed, cell), Pin::Held);
        }
        let readers = [0, 1].map(|cell| {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                world.check(0, 7);
                let retired = protocol::unpin(&world.index(), 0, &world.cells[cell]);
                if let Some(freeing) = retired.and_then(|word| world.reclaim(0, word, 2 + cell as u16)) {
                    world.free(0, freeing);
                }
            })
        });
        retire(&world, sealed);
        for reader in readers {
            reader.join().unwrap();
        }
        // Exactly one freed it: the generation moved on by one.
        assert_eq!((world.word(0).state(), world.word(0).generation()), (State::Free, 1));
    });
}

fn retire(world: &World, sealed: Word) {
    let Some(decided) = world.evict(0, sealed, 1, WhenPinned::Retire) else { return };
    let freeing = match decided.state() {
        State::Retired => world.reclaim(0, decided, 1),
        _ => Some(decided),
    };
    if let Some(freeing) = freeing {
        world.free(0, freeing);
    }
}

/// A reader that comes too late announces a pin for a moment. Fails when `pin` takes that back without looking whether the
/// block was retired meanwhile.
#[test]
fn a_pin_taken_back_leaves_no_retired_block() {
    model(3, || {
        let world = Arc::new(World::new(1));
        let name = key(&world, "a");
        let sealed = world.put(&name, 0, 7);
        let reader = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                let index = world.index();
                let retired = match protocol::pin(&index, 0, sealed, &world.cells[0]) {
                    Pin::Held => protocol::unpin(&index, 0, &world.cells[0]),
                    Pin::Gone => None,
                    Pin::Reclaim(word) => Some(word),
                };
                if let Some(freeing) = retired.and_then(|word| world.reclaim(0, word, 2)) {
                    world.free(0, freeing);
                }
            })
        };
        retire(&world, sealed);
        reader.join().unwrap();
        assert_eq!(world.word(0).state(), State::Free);
    });
}

/// Whoever sees the new block and deletes it does not see the old one again. Fails when the new block is sealed before the old
/// one is hidden.
#[test]
fn a_replaced_block_is_not_seen_after_its_successor() {
    model(3, || {
        let world = Arc::new(World::new(0));
        let name = key(&world, "a");
        let old = world.put(&name, 1, 7);
        let reader = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                let Found::Sealed(0, word) = world.index().find(&name) else { return };
                let freeing = world.evict(0, word, 2, WhenPinned::Retire).unwrap();
                world.free(0, freeing);
                let after = world.index().find(&name);
                assert!(!matches!(after, Found::Sealed(..)), "{after:?}");
            })
        };
        let reserved = world.claim(&name, 0, 1, true).unwrap();
        let begun = protocol::begin_evict(&world.index(), 1, old, 1).unwrap();
        world.seal(0, reserved, 8);
        let pinned = protocol::pinned(&[1], world.cells.iter())[0];
        let freeing = protocol::decide(&world.index(), 1, begun, pinned, WhenPinned::Retire);
        world.free(1, freeing);
        reader.join().unwrap();
    });
}

/// Fails when the lock is taken or released with `Relaxed`, and when it can be taken from a living holder.
#[test]
fn a_dead_holders_lock_is_taken_over_by_one() {
    model(3, || {
        let dead = Holder { row: 9, generation: 1 };
        let lock = Arc::new((Lock::default(), AtomicU64::new(0), AtomicU64::new(0)));
        std::mem::forget(lock.0.try_acquire(dead));
        let enter = move |lock: &(Lock, AtomicU64, AtomicU64), row| {
            let me = Holder { row, generation: 1 };
            let Some(guard) = lock.0.acquire(me, &|holder| holder == dead, Duration::ZERO) else { return 0 };
            lock.2.fetch_add(u64::from(guard.recovered()), Ordering::Relaxed);
            // Not one step: two holders at once lose a count, and so does one that does not see the other's.
            let entered = lock.1.load(Ordering::Relaxed);
            lock.1.store(entered + 1, Ordering::Relaxed);
            1
        };
        let other = {
            let lock = Arc::clone(&lock);
            thread::spawn(move || enter(&lock, 1))
        };
        let entered = enter(&lock, 2) + other.join().unwrap();
        assert_eq!((lock.1.load(Ordering::Relaxed), lock.2.load(Ordering::Relaxed)), (entered, 1));
    });
}

/// Threads of one owner have the same name in the lock. Fails when an attempt that was too late releases it.
#[test]
fn threads_of_one_owner_exclude_each_other() {
    model(3, || {
        let lock = Arc::new((Lock::default(), AtomicU64::new(0)));
        let enter = |lock: &(Lock, AtomicU64)| {
            let me = Holder { row: 1, generation: 1 };
            let Some(_guard) = lock.0.acquire(me, &|_| false, Duration::ZERO) else { return 0 };
            let entered = lock.1.load(Ordering::Relaxed);
            lock.1.store(entered + 1, Ordering::Relaxed);
            1
        };
        let others = [1, 2].map(|_| {
            let lock = Arc::clone(&lock);
            thread::spawn(move || enter(&lock))
        });
        let mut entered = enter(&lock);
        entered += others.into_iter().map(|other| other.join().unwrap()).sum::<u64>();
        assert_eq!(lock.1.load(Ordering::Relaxed), entered);
    });
}

/// A janitor works and dies, or leaves; two others tend the role meanwhile. Fails when `try_take` exchanges what it did not look
/// at, when it takes the role from the living, and when `Guard` releases with `Relaxed`.
#[test]
fn the_janitors_role_goes_from_one_to_the_next_with_all_its_work() {
    for dies in [false, true] {
        model(3, move || {
            let first = Holder { row: 9, generation: 1 };
            // Lock; whether the first is dead; work done under the role.
            let world = Arc::new((Lock::default(), AtomicU64::new(0), AtomicU64::new(0)));
            let tend = move |world: &(Lock, AtomicU64, AtomicU64), row| {
                let is_dead = |holder| holder == first && world.1.load(Ordering::Acquire) == 1;
                let mut role = Role::new(&world.0, Holder { row, generation: 1 });
                if !matches!(role.tend(&is_dead), Standing::Held(_)) {
                    return 0;
                }
                // Not one step: two janitors at once lose a count, and so does one that does not see the last one's.
                let done = world.2.load(Ordering::Relaxed);
                world.2.store(done + 1, Ordering::Relaxed);
                assert_eq!(role.tend(&is_dead), Standing::Held(false), "held until it is given up");
                1
            };
            let mut role = Role::new(&world.0, first);
            assert_eq!(role.tend(&|_| false), Standing::Held(false));
            let others = [1, 2].map(|row| {
                let world = Arc::clone(&world);
                thread::spawn(move || tend(&world, row))
            });
            world.2.store(1, Ordering::Relaxed);
            if dies {
                std::mem::forget(role);
                world.1.store(1, Ordering::Release);
            } else {
                drop(role);
            }
            let done: u64 = others.into_iter().map(|other| other.join().unwrap()).sum();
            assert_eq!(world.2.load(Ordering::Relaxed), 1 + done);
            // Whoever comes last finds it free, or dead.
            assert_eq!(tend(&world, 3), 1);
        });
    }
}
