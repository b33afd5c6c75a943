//! Tier 4 of Cascade: append-only segments on a parallel file system.
//!
//! [`PfsTier`] keeps a few large segment files a writer, written directly from the caller's memory, and reads those of every
//! writer, of this job and of earlier ones:
//!
//! * a put is appended to the open segment, in writes of some MiB that many puts share, and acknowledged as durable as
//!   [`Durability`] says; the index log tells the others;
//! * a fetch reads straight into the caller's memory where that is aligned for direct I/O, and is verified there;
//! * capacity is kept by giving up whole segments; blocks that were read, or are of a shared prefix, are written again first;
//! * the death of a process loses nothing that was acknowledged, and its segments are adopted by another.
//!
//! Beside it:
//!
//! * [`filesystem`]: which file system a path is on (Lustre, NFS, memory ...), its block size and what is free.
//!   A "disk" that is memory loses the tier with the node, and only Lustre can be striped;
//! * [`layout`]: the bytes of segments, footers and index logs;
//! * [`scrub`]: every byte of a directory against its digests; [`inspect`]: who writes there, and what there is;
//! * [`survey`]: what a directory is good for, and how soon others see what is stored there;
//! * [`stripe`]: spreading files over the storage targets of Lustre;
//! * [`fs`]: the seam to a file system, [`io`] and [`buffer`]: whole transfers of aligned pages;
//! * `testing` (feature): file systems with faults and crashes.

mod adopt;
pub mod buffer;
mod catalog;
pub mod config;
mod core;
mod counters;
mod engine;
mod enumerate;
pub mod filesystem;
mod follow;
pub mod fs;
mod gate;
pub mod inspect;
pub mod io;
pub mod layout;
mod names;
mod part;
mod pieces;
mod process;
mod queue;
mod raw;
mod read;
mod recover;
pub mod scrub;
pub mod stripe;
pub mod survey;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod tier;
mod writer;

pub use config::{Durability, IoEngine, PfsConfig};
pub use counters::PfsStats;
pub use tier::PfsTier;
