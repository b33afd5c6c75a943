//! A forked child waits for tickets of its own, whatever the parent's other threads were waiting for at the fork.

#[allow(dead_code)]
#[path = "copy_fork/raw.rs"]
mod raw;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cascade_core::batch::ticket;
use raw::Child;

/// Waits of the parent's threads that a fork may cut in two.
const CHILDREN: usize = 300;

/// Tickets that a child waits for: locks at as many addresses, since which of them a fork may cut in two goes by address.
const TICKETS: usize = 64;

fn wait_in_vain(tickets: usize, most: Duration) -> bool {
    let tickets: Vec<_> = (0..tickets).map(|_| ticket(1)).collect();
    tickets.iter().all(|(ticket, _)| ticket.wait(Instant::now() + most).is_none())
}

#[test]
fn a_childs_waits_end() {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    assert!(wait_in_vain(1, Duration::from_micros(1)));
                }
            });
        }
        let hung = (0..CHILDREN).find(|_| {
            let child = Child::fork(|| wait_in_vain(TICKETS, Duration::from_micros(1)));
            child.status_before(Instant::now() + Duration::from_secs(5)) != Some(0)
        });
        stop.store(true, Ordering::Relaxed);
        assert_eq!(hung, None, "the number of the child whose wait never ended");
    });
}
