//! The pool's promises: each unit once, many callers at once, panics to the caller, nobody needed but the caller.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

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

/// A pool of this test's own, with one helper.
fn pool_of_one() -> &'static Pool {
    let pool = Box::leak(Box::new(Pool::new(0)));
    pool.start(1);
    pool
}

#[test]
fn a_helper_takes_part_and_again_after_it_parked() {
    let pool = pool_of_one();
    let caller = std::thread::current().id();
    for _ in 0..3 {
        pool.judge(Duration::ZERO);
        let helped = AtomicBool::new(false);
        pool.run(1, 2, &|_| {
            if std::thread::current().id() != caller {
                helped.store(true, Ordering::Relaxed);
            }
            let deadline = Instant::now() + Duration::from_secs(5);
            while !helped.load(Ordering::Relaxed) && Instant::now() < deadline {
                std::thread::yield_now();
            }
        });
        assert!(helped.load(Ordering::Relaxed));
        // Long enough for the helper to park; if it has not yet, the next turn shows less but does not fail.
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn copies_go_alone_after_a_stall_and_share_again() {
    let pool = Pool::new(0);
    let alone_after = |waited| {
        pool.judge(waited);
        (0..1000).take_while(|_| pool.rests()).count()
    };
    assert_eq!(alone_after(Duration::from_micros(100)), 0);
    let stall = Duration::from_millis(3);
    assert_eq!([1, 2, 4].map(|_| alone_after(stall)), [1, 2, 4]);
    (0..10).for_each(|_| pool.judge(stall));
    assert_eq!(alone_after(stall), super::MAX_REST);
    assert_eq!(alone_after(Duration::ZERO), 0);
    assert_eq!(alone_after(stall), 1);
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
fn a_panic_on_a_helper_is_made_good_by_the_caller() {
    let caller = std::thread::current().id();
    let (done, panicked) = (AtomicUsize::new(0), AtomicBool::new(false));
    pool_of_one().run(1, 64, &|_| {
        if std::thread::current().id() != caller {
            panicked.store(true, Ordering::Relaxed);
            std::panic::resume_unwind(Box::new("planted on the helper"));
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while !panicked.load(Ordering::Relaxed) && Instant::now() < deadline {
            std::thread::yield_now();
        }
        done.fetch_add(1, Ordering::Relaxed);
    });
    assert!(panicked.load(Ordering::Relaxed));
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
