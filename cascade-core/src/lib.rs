//! What every tier of Cascade shares: identity, digests, copy kernels, the tier traits, leases and reservations.
//!
//! This crate does no I/O and knows nothing of shared memory, CUDA, MPI or files. A tier crate depends on it alone:
//!
//! * [`id`], [`keyspace`], [`chain`]: what a block is called; [`digest`], [`copy`]: its digests and how bytes move;
//! * [`tier`]: [`Tier`](tier::Tier) and [`Addressable`](tier::Addressable), batch-first, with
//!   [`Capability`](tier::Capability) as a value;
//! * [`batch`]: operations, outcomes for each block, and [`Ticket`](batch::Ticket)s;
//! * [`memory`]: [`SgList`](memory::SgList), typed pieces of host or device memory;
//! * [`lease`] and [`reservation`]: the life of a block, `reserve -> fill -> seal -> lease -> evict`;
//! * [`layer`]: behaviour added round a tier;
//! * [`memory_tier`]: the in-memory tier, first to pass the conformance suite;
//! * `testing` (feature): the conformance suite, the model oracle and the fault layer; [`planted`] (feature): bugs that the
//!   tests must notice.
//!
//! A miss, a full tier and a dead peer are values, never errors: see [`tier::MissReason`] and [`batch::Refusal`].

pub mod batch;
pub mod block;
pub mod budget;
pub mod chain;
pub mod clock;
pub mod copy;
pub mod digest;
pub mod error;
pub mod id;
pub mod keyspace;
pub mod layer;
pub mod lease;
pub mod memory;
pub mod memory_tier;
pub mod metrics;
pub mod planted;
pub mod policy;
pub mod quarantine;
pub mod reservation;
pub mod sync;
#[cfg(feature = "testing")]
pub mod testing;
pub mod tier;
pub mod units;

pub use error::{Error, ErrorKind, Result};
