//! A forked child has none of its parent's helper threads: its copies must neither hang nor go wrong.

mod raw;

use std::time::{Duration, Instant};

use raw::{Child, copy};

const BLOCK_BYTES: usize = 64 << 20;

#[test]
fn a_child_copies_after_the_parent_warmed_the_pool() {
    // Two helpers, also where there is one CPU.
    raw::set_copy_threads("3");
    assert_eq!(cascade_core::copy::plan().threads, 3);

    let src: Vec<u8> = (0..BLOCK_BYTES).map(|at| ((at * 31) >> 7) as u8).collect();
    let mut dst = vec![0; BLOCK_BYTES];
    let expected = copy(&mut dst, &src);
    assert!(dst == src);

    for _ in 0..5 {
        dst.fill(0);
        let child = Child::fork(|| copy(&mut dst, &src) == expected && dst == src && thread_count() > 1);
        let deadline = Instant::now() + Duration::from_secs(60);
        assert_eq!(child.status_before(deadline), Some(0), "exit status of the child; None: it hung");
    }
    assert_eq!(copy(&mut dst, &src), expected, "the parent copies on");
}

/// Threads of this process: the child's first copy has started helpers of its own.
fn thread_count() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}
