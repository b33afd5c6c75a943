//! The completion queue.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cascade_core::ErrorKind;
use cascade_core::batch::{Outcome, Ticket, ticket};
use cascade_store::CompletionQueue;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::raw::Child;
use crate::rig::soon;

/// Whether the descriptor is readable, waiting up to `patience_ms`.
fn is_readable(queue: &CompletionQueue, patience_ms: u16) -> bool {
    let mut fds = [PollFd::new(queue.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::from(patience_ms)).unwrap() == 1
}

#[test]
fn the_descriptor_is_readable_while_something_is_to_be_drained() {
    let queue = CompletionQueue::new(8).unwrap();
    let pairs: Vec<_> = (0..3).map(|_| ticket(1)).collect();
    for (token, (ticket, _)) in pairs.iter().enumerate() {
        queue.add(ticket, token as u64).unwrap();
    }
    assert!(!is_readable(&queue, 0) && queue.drain(8).unwrap().is_empty());
    let (_tickets, mut completers): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    completers.pop().unwrap().complete(0, Outcome::Stored);
    drop(completers.remove(0));
    assert!(is_readable(&queue, 0));
    assert_eq!(queue.drain(1).unwrap()[0].token, 2, "in the order of their ends");
    assert!(is_readable(&queue, 0), "one is left");
    assert_eq!(queue.drain(8).unwrap()[0].token, 0);
    assert!(!is_readable(&queue, 0));
    queue.add(&Ticket::ready(vec![Outcome::Exists]), 9).unwrap();
    assert!(is_readable(&queue, 0), "a ticket that had ended is told of at once");
    assert_eq!(queue.len().unwrap(), 2);
}

#[test]
fn a_queue_is_bounded_by_what_is_not_drained() {
    let queue = CompletionQueue::new(2).unwrap();
    let (under_way, completer) = ticket(1);
    queue.add(&under_way, 0).unwrap();
    queue.add(&Ticket::ready(Vec::new()), 1).unwrap();
    assert_eq!(queue.add(&under_way, 2).unwrap_err().kind(), ErrorKind::NoSpace);
    drop(completer);
    assert_eq!(queue.drain(1).unwrap().len(), 1);
    queue.add(&under_way, 2).unwrap();
    assert_eq!(CompletionQueue::new(0).unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[test]
fn closing_wakes_who_waits_and_the_event_loop() {
    let queue = CompletionQueue::new(2).unwrap();
    let (under_way, completer) = ticket(1);
    queue.add(&under_way, 5).unwrap();
    let started = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            started.store(true, Ordering::Relaxed);
            queue.wait(soon()).unwrap()
        });
        let polling = scope.spawn(|| is_readable(&queue, 60_000));
        while !started.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        queue.close().unwrap();
        assert!(waiting.join().unwrap().is_empty() && polling.join().unwrap());
    });
    assert_eq!(queue.add(&under_way, 6).unwrap_err().kind(), ErrorKind::InvalidArgument);
    drop(completer);
    assert_eq!(queue.wait(Instant::now()).unwrap()[0].token, 5, "what was under way is still told of");
    assert!(is_readable(&queue, 0) && queue.is_closed().unwrap());
}

#[test]
fn no_end_is_lost_between_threads() {
    const EACH: u64 = 2000;
    let queue = CompletionQueue::new(64).unwrap();
    let mut seen = [0_u8; 3 * EACH as usize];
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let queue = &queue;
            scope.spawn(move || {
                for number in 0..EACH {
                    let (ticket, completer) = ticket(1);
                    while queue.add(&ticket, thread * EACH + number).is_err() {
                        std::thread::yield_now();
                    }
                    completer.complete(0, Outcome::Stored);
                }
            });
        }
        let mut count = 0;
        while count < seen.len() {
            // By descriptor alone, as an event loop does.
            assert!(is_readable(&queue, 60_000), "{count} were told of, and the descriptor is silent");
            for done in queue.drain(16).unwrap() {
                assert_eq!(done.outcomes, [Outcome::Stored]);
                seen[usize::try_from(done.token).unwrap()] += 1;
                count += 1;
            }
        }
    });
    assert!(seen.iter().all(|times| *times == 1) && !is_readable(&queue, 0));
}

#[test]
fn a_forked_child_is_told_that_the_queue_is_not_its_own() {
    let queue = CompletionQueue::new(2).unwrap();
    queue.add(&Ticket::ready(Vec::new()), 1).unwrap();
    let child = Child::fork(|| {
        let refused = [queue.drain(1).err(), queue.wait(Instant::now()).err(), queue.close().err()];
        let is_clear = |error: Option<cascade_core::Error>| {
            error.is_some_and(|error| {
                error.kind() == ErrorKind::Unsupported && error.context().contains("forked child")
            })
        };
        let own = CompletionQueue::new(1);
        let is_own = own.is_ok_and(|own| {
            own.add(&Ticket::ready(Vec::new()), 3).is_ok()
                && own.wait(Instant::now() + Duration::from_secs(1)).is_ok_and(|ended| ended.len() == 1)
        });
        refused.into_iter().all(is_clear) && is_own
    });
    assert_eq!(child.status_before(soon()), Some(0));
    assert_eq!(queue.drain(2).unwrap().len(), 1, "the parent's notice is still there");
}
