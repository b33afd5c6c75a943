//! Copies that digest on the way: from a private buffer into shared memory ([`Direction::Put`]) and back
//! ([`Direction::Get`]), one pass over the bytes, one CRC-64/NVME for each 64 KiB chunk.
//!
//! The memory may be shared with other processes and change at any time, so everything here takes raw pointers and
//! never makes a reference to it. Each byte is loaded once: a digest is always that of the bytes that were *stored*,
//! also if the source changed under the copy. A private destination whose digests match is therefore right.
//!
//! - [`copy_chunks`], [`digest_chunks`], [`copy_plain`]: whole blocks; kernel, kind of stores and number of threads by
//!   the process's [`plan()`].
//! - [`ChunkHasher`]: a block gathered from, or scattered to, many pieces.
//! - [`share`]: other work with blocks, by the threads that share large copies.
//! - [`copy_digest`], [`copy_only`]: one thread, kernel and stores by the caller, to measure and to test.
//!
//! Streaming stores do not read the destination first and leave the caches alone: the best choice for large blocks that
//! this CPU does not read next. All of them are ordered before any later store of the calling thread when a function
//! returns (for [`ChunkHasher`], when it is finished or dropped), so a block may be published at once.
//!
//! # Environment
//!
//! | variable | value |
//! |---|---|
//! | `CASCADE_COPY_KERNEL` | `auto`, `avx512`, `avx2`, `sse`, `pmull` or `scalar`; with `:streaming` or `:plain` behind it, all stores are of that kind |
//! | `CASCADE_COPY_THREADS` | threads that share a large copy, the caller included: 1 to 17; default: one for each CPU |
//!
//! They are read once, before the first copy. What cannot be used is named in the printed plan and has no effect.

mod calibrate;
mod hasher;
mod kernel;
pub(crate) mod op;
mod plan;
mod pool;
mod published;
mod raw;
mod scalar;
mod settings;
#[cfg(test)]
mod tests;
mod vector;

pub use hasher::ChunkHasher;
pub use kernel::{Direction, Kernel, StoreKind};
pub use plan::{CopyPlan, plan};
pub(crate) use raw::advance;
pub use raw::{copy_chunks, copy_digest, copy_only, copy_plain, digest_chunks, digest_only, share};
