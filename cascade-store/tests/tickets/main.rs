//! Batches that are submitted, and the queue that tells of their ends.

// Clippy's exemption for tests reaches `#[test]` functions only, not their helpers.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../../../cascade-core/tests/copy_fork/raw.rs"]
#[allow(dead_code)]
mod raw;
#[path = "../files/rig.rs"]
#[allow(dead_code)]
mod rig;

mod breaker;
mod queue;
mod submit;
mod ways;
