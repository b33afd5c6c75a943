//! The pool's promises: each unit once, many callers at once, panics to the caller, nobody needed but the caller.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use super::{Pool, raw, run};

#[test]
fn each_unit_is_done_once() {
    for units in [0, 1, 2, 17, 1000] {
        let calls: Vec<_> = (0..units).map(|_| AtomicUsize::new(0)).collect();
        run(3, units, &|unit| {
            calls[unit].fetch_add(1, Ordering::Relaxed);
        });
        assert!(calls.iter().all(|calls| calls.load(Ordering::Relaxed) == 1));
    }
}

#[test]
fn a_helper_takes_part() {
    let caller = std::thread::current().id();
    let helped = AtomicBool::new(false);
    run(2, 2, &|_| {
        if std::thread::current().id() != caller {
            helped.store(true, Ordering::Relaxed);
        }
        // The caller's unit lasts until a helper has come, or this test has waited too long.
        for _ in 0..5000 {
            if helped.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    assert!(helped.load(Ordering::Relaxed));
}

#[test]
fn eight_callers_at_once() {
    let barrier = Barrier::new(8);
    std::thread::scope(|scope| {
        for caller in 0..8u64 {
            let barrier = &barrier;
            scope.spawn(move || {
                let src = crate::copy::tests::noise(9 << 20, caller);
                let expected = crate::copy::raw::private::digest_only(crate::copy::Kernel::Scalar, &src);
                barrier.wait();
                for _ in 0..3 {
                    let mut dst = vec![0; src.len()];
                    let direction = crate::copy::Direction::Put;
                    let digests = crate::copy::raw::private::copy_chunks(&mut dst, &src, direction);
                    assert!(dst == src && digests == expected);
                }
            });
        }
    });
}

#[test]
fn a_panic_in_a_unit_is_the_callers() {
    let done = AtomicUsize::new(0);
    let result = catch_unwind(AssertUnwindSafe(|| {
        run(2, 64, &|unit| {
            assert_ne!(unit, 40, "planted");
            done.fetch_add(1, Ordering::Relaxed);
        });
    }));
    assert!(result.is_err());
    assert_eq!(done.load(Ordering::Relaxed), 63);
    each_unit_is_done_once();
}

#[test]
fn a_panic_on_a_helper_alone_is_made_good() {
    let caller = std::thread::current().id();
    let done = AtomicUsize::new(0);
    run(2, 64, &|_| {
        std::thread::sleep(Duration::from_micros(200));
        assert_eq!(std::thread::current().id(), caller, "planted on the helper");
        done.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(done.load(Ordering::Relaxed), 64);
}

#[test]
fn no_helper_and_a_held_lock_do_not_hang_the_caller() {
    let pool = Pool::new(0);
    let _held = pool.lock();
    let done = AtomicUsize::new(0);
    let offered = AtomicUsize::new(0);
    raw::run_shared(
        100,
        4,
        &|_| {
            done.fetch_add(1, Ordering::Relaxed);
        },
        |job: &Arc<raw::Job>| {
            pool.offer(job);
            offered.fetch_add(1, Ordering::Relaxed);
        },
    );
    assert_eq!((done.into_inner(), offered.into_inner()), (100, 1));
}
