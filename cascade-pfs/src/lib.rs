//! Tier 4 of Cascade: append-only segments on a parallel file system.
//!
//! The tier keeps a few large segment files a node, written directly from the arena and readable by every rank and every later
//! job. **Reading and writing blocks is not here yet.** What there is:
//!
//! * [`filesystem`]: which file system a path is on (Lustre, NFS, memory ...), its block size and what is free.
//!   A "disk" that is memory loses the tier with the node, and only Lustre can be striped;
//! * [`layout`]: the bytes of segments, footers and index logs;
//! * [`fs`]: the seam to a file system, [`io`] and [`buffer`]: whole transfers of aligned pages;
//! * `testing` (feature): file systems with faults and crashes.

pub mod buffer;
pub mod filesystem;
pub mod fs;
pub mod io;
pub mod layout;
mod raw;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
