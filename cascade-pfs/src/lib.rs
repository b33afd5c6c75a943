//! Tier 4 of Cascade: append-only segments on a parallel file system.
//!
//! The tier will keep a few large segment files a node, written directly from the arena and readable by every
//! rank and every later job. **None of that is here yet.** What this crate holds today is what the tier and
//! `cascade doctor` ask about a directory before anything is written there:
//!
//! * [`filesystem`]: which file system a path is on (Lustre, NFS, memory ...), its block size and what is free.
//!   A "disk" that is memory loses the tier with the node, and only Lustre can be striped.

pub mod filesystem;
