//! Batches over both tiers, bounded, cancelled, late.

use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Instant;

use cascade_core::batch::{Batch, Op, Outcome, Refusal, Ticket};
use cascade_core::memory::{HostBuffer, Piece};
use cascade_core::tier::{MissReason, PutMeta, Tier};
use cascade_store::{Level, Reach, Store};

use crate::raw::Child;
use crate::rig::{Rig, block, eventually, level, soon};

const LEN: usize = 100_000;

fn store_op(number: u64, len: usize) -> Op {
    let (id, bytes) = block(number, len);
    Op::Store { id, from: Piece::shared(bytes.into()).into(), meta: PutMeta::default() }
}

fn put_all(store: &Store, numbers: std::ops::Range<u64>, len: usize, reach: Reach) -> Vec<Outcome> {
    let ops = numbers.map(|number| store_op(number, len)).collect();
    store.submit_until(Batch::new(ops), reach).wait(soon()).unwrap()
}

fn fetch(store: &Store, numbers: std::ops::Range<u64>, len: usize) -> (Vec<HostBuffer>, Ticket) {
    let buffers: Vec<HostBuffer> = numbers.clone().map(|_| HostBuffer::zeroed(len)).collect();
    let op = |(number, buffer): (u64, &HostBuffer)| Op::Fetch {
        id: block(number, 1).0,
        into: buffer.piece().into(),
    };
    let ticket = store.submit(Batch::new(numbers.zip(&buffers).map(op).collect()));
    (buffers, ticket)
}

/// Keeps every thread that works through batches busy until what it returns is dropped.
fn hold_threads(store: &Store) -> mpsc::Sender<()> {
    let (release, held) = mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    let (inside, is_inside) = mpsc::channel();
    let (own, mut count) = (thread::current().id(), 0);
    while count < 2 {
        let (held, inside) = (Arc::clone(&held), inside.clone());
        let ticket = store.submit(Batch::new(vec![Op::Delete { id: block(u64::MAX, 1).0 }]));
        ticket.on_end(move || {
            // It had ended before it was watched: nothing is held, and another is tried.
            let is_held = thread::current().id() != own;
            inside.send(is_held).unwrap();
            if is_held {
                // Ends with an error when the sender is dropped; one waits inside the lock and the other for it.
                let _ = held.lock().unwrap().recv();
            }
        });
        count += usize::from(is_inside.recv().unwrap());
    }
    release
}

#[test]
fn a_batch_over_both_tiers_comes_with_an_outcome_for_each() {
    let rig = Rig::new();
    let store = rig.open("64MiB", &[]);
    assert_eq!(put_all(&store, 0..40, LEN, Reach::Files), [Outcome::Stored; 40]);
    assert_eq!(put_all(&store, 0..40, LEN, Reach::Found), [Outcome::Exists; 40]);
    let below: Vec<_> = (20..40).map(|number| block(number, 1).0).collect();
    assert_eq!(store.demote(&below), [Outcome::Stored; 20]);
    assert!(below.iter().all(|id| level(&store, id) == Some(Level::Files)));

    let (buffers, ticket) = fetch(&store, 0..41, LEN);
    let outcomes = ticket.wait(soon()).unwrap();
    assert_eq!(outcomes[40], Outcome::Miss(MissReason::Absent));
    for (number, mut buffer) in buffers.into_iter().enumerate().take(40) {
        assert!(matches!(outcomes[number], Outcome::Fetched(meta) if meta.len == LEN as u64));
        let bytes = buffer.bytes_mut().expect("nobody holds the memory of a ticket that has ended");
        assert!(bytes == block(number as u64, LEN).1, "block {number} has other bytes");
    }
    let stats = store.stats();
    assert_eq!((stats.hits(Level::Arena), stats.hits(Level::Files)), (20, 20));
}

#[test]
fn operations_of_a_batch_are_done_in_their_order() {
    let rig = Rig::new();
    let store = rig.open("32MiB", &[]);
    let (id, bytes) = block(1, LEN);
    let (mut first, mut last) = (HostBuffer::zeroed(LEN), HostBuffer::zeroed(LEN));
    let fetch = |buffer: &HostBuffer| Op::Fetch { id, into: buffer.piece().into() };
    let ops = vec![fetch(&last), store_op(1, LEN), fetch(&first), Op::Delete { id }, fetch(&last)];
    let outcomes = store.submit(Batch::new(ops)).wait(soon()).unwrap();
    let absent = Outcome::Miss(MissReason::Absent);
    assert!(matches!(
        outcomes[..],
        [a, Outcome::Stored, Outcome::Fetched(_), Outcome::Deleted, b] if a == absent && b == absent
    ));
    assert!(first.bytes_mut().unwrap() == bytes && last.bytes_mut().unwrap().iter().all(|byte| *byte == 0));
}

#[test]
fn bytes_under_way_are_bounded_and_beyond_them_is_throttled() {
    let rig = Rig::new();
    let store = rig.open("32MiB", &[("in_flight", "1MiB")]);
    let release = hold_threads(&store);
    let many = (0..20).map(|number| store_op(number, LEN)).collect();
    let (puts, (_buffers, more)) = (store.submit(Batch::new(many)), fetch(&store, 0..1, LEN));
    assert_eq!(more.wait(Instant::now()), Some(vec![Outcome::Miss(MissReason::Throttled)]), "at once");
    assert!(!puts.poll(), "those that were let in wait");
    drop(release);
    let outcomes = puts.wait(soon()).unwrap();
    let refused = Outcome::Refused(Refusal::Throttled);
    assert!(outcomes[..10].iter().all(|outcome| *outcome == Outcome::Stored), "{outcomes:?}");
    assert!(outcomes[10..].iter().all(|outcome| *outcome == refused), "{outcomes:?}");
    assert_eq!(store.stats().moves.throttled, 11);
    // A single block is always let in once nothing is under way.
    eventually("the bytes are given back", || {
        put_all(&store, 30..31, 2 << 20, Reach::Found) == [Outcome::Stored]
    });
}

#[test]
fn what_is_cancelled_or_late_before_it_begins_is_not_begun() {
    let rig = Rig::new();
    let store = rig.open("32MiB", &[]);
    let release = hold_threads(&store);
    let cancelled = store.submit(Batch::new(vec![store_op(1, LEN), store_op(2, LEN)]));
    let late = Batch { ops: vec![store_op(3, LEN)], deadline: Some(Instant::now()) };
    let late = store.submit(late);
    cancelled.cancel();
    assert!(cancelled.wait(Instant::now()).is_none());
    drop(release);
    assert_eq!(cancelled.wait(soon()), Some(vec![Outcome::Cancelled; 2]));
    assert_eq!(late.wait(soon()), Some(vec![Outcome::Refused(Refusal::Deadline)]));
    assert!((1..4).all(|number| !store.contains(&block(number, 1).0)));
}

#[test]
fn a_store_that_is_closed_does_what_was_submitted() {
    let rig = Rig::new();
    let store = rig.open("32MiB", &[]);
    let tickets: Vec<Ticket> =
        (0..50).map(|number| store.submit(Batch::new(vec![store_op(number, LEN)]))).collect();
    drop(store);
    assert!(tickets.iter().all(|ticket| ticket.wait(Instant::now()) == Some(vec![Outcome::Stored])));
    let store = rig.open("32MiB", &[]);
    assert_eq!(store.longest_prefix(&(0..50).map(|number| block(number, 1).0).collect::<Vec<_>>()), 50);
}

#[test]
fn a_forked_child_has_its_batch_done_before_submit_returns() {
    let rig = Rig::new();
    let store = rig.open("32MiB", &[]);
    assert_eq!(put_all(&store, 0..4, LEN, Reach::Found), [Outcome::Stored; 4]);
    let child = Child::fork(|| {
        let (buffers, ticket) = fetch(&store, 0..4, LEN);
        let is_done = ticket.poll();
        let mut numbers = 0..;
        is_done
            && buffers.into_iter().all(|mut buffer| {
                let number = numbers.next().unwrap();
                buffer.bytes_mut().is_some_and(|bytes| bytes == block(number, LEN).1)
            })
    });
    assert_eq!(child.status_before(soon()), Some(0));
}
