//! A forked child, as engines make them, neither hangs nor harms what its parent writes.

#![allow(clippy::unwrap_used)]

mod common;

use cascade_core::batch::{Batch, Op, Outcome};
use cascade_core::memory::{HostBuffer, Piece};
use cascade_core::testing::bytes::{content, id};
use cascade_core::tier::{Lookup, MissReason, Tier};
use cascade_pfs::{IoEngine, PfsConfig, PfsTier};
use common::*;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

/// What the child finds: 0 when all is as it should be.
fn look(tier: PfsTier) -> i32 {
    let store = Op::Store { id: id(2), from: Piece::shared(content(2, 1, 5000)).into(), meta: KEEP };
    let fetch = Op::Fetch { id: id(1), into: HostBuffer::zeroed(5000).piece().into() };
    let unavailable = vec![Outcome::Miss(MissReason::Unavailable); 2];
    if tier.submit(Batch::new(vec![store, fetch])).wait(soon()) != Some(unavailable) {
        return 1;
    }
    if lookup(&tier, 1) != Lookup::Miss(MissReason::Unavailable) || tier.flush(soon()).is_ok() {
        return 2;
    }
    drop(tier);
    0
}

#[test]
fn a_forked_child_finds_nothing_and_the_parent_goes_on() {
    for io_engine in [IoEngine::Pool, IoEngine::Auto] {
        forked(io_engine);
    }
}

fn forked(io_engine: IoEngine) {
    let folder = tempfile::tempdir().unwrap();
    let config = PfsConfig { io_engine, ..PfsConfig::new(folder.path(), 64 * MIB) };
    let tier = PfsTier::open(config).unwrap();
    assert_eq!(put(&tier, 1, 1, 5000), Outcome::Stored);
    // SAFETY: the child uses what survives a fork (glibc's allocator, the tier's handle, which knows that it was forked) and
    // ends by `_exit`, so no destructor of the parent's runs twice.
    let child = match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| look(tier.clone())));
            // SAFETY: ends the process without running anything of the parent's.
            unsafe { libc::_exit(found.unwrap_or(9)) }
        }
        ForkResult::Parent { child } => child,
    };
    let status = std::cell::Cell::new(WaitStatus::StillAlive);
    eventually("the child ends", || {
        status.set(waitpid(child, Some(WaitPidFlag::WNOHANG)).unwrap());
        status.get() != WaitStatus::StillAlive
    });
    assert_eq!(status.get(), WaitStatus::Exited(child, 0));
    assert_eq!(put(&tier, 4, 1, 5000), Outcome::Stored);
    expect(&tier, 1, 1, 5000);
    expect(&tier, 4, 1, 5000);
}
