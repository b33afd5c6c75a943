//! Model of the budget: every interleaving of threads that take and give back.
#![cfg(loom)]

use cascade_core::budget::Budget;
use cascade_core::sync::{AtomicU64, Ordering};
use loom::sync::Arc;
use loom::thread;

#[path = "loom/counted.rs"]
mod counted;

#[test]
fn no_two_are_let_in_that_do_not_fit_together() {
    counted::model(3, || {
        let shared = Arc::new((Budget::new(100), AtomicU64::new(0)));
        let threads: Vec<_> = [60, 70]
            .into_iter()
            .map(|bytes| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    let (budget, inside) = &*shared;
                    if budget.take(bytes) {
                        assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0, "two are inside");
                        inside.fetch_sub(1, Ordering::Relaxed);
                        budget.give(bytes);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap_or_else(|_| panic!("a thread failed")));
        assert_eq!(shared.0.used(), 0);
        assert!(shared.0.take(1000), "alone, anything is let in");
    });
}
