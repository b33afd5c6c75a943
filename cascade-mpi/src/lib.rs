//! Tier 3 of Cascade: other nodes' shared memory, read one-sided over MPI RMA.
//!
//! Every rank of a job keeps a window over its node's memory and a part of the directory of who holds which block. Who looks for a
//! block reads one bucket of that directory; who fetches it reads it out of an owner's memory, and believes its digests alone.
//! Writes are messages. Nothing is collective after the start, and there is no master.
//!
//! Without the feature `mpi` there is no MPI in the build, and none is loaded. What is left is pure:
//!
//! * [`launch`]: who started this process and as which rank, read from the environment. A program built with
//!   one MPI and started by another's launcher runs as many separate worlds of one rank, each believing that
//!   it is alone; nothing in MPI itself reports that. [`launch::Launch::confirm`] does.
//! * [`route`]: which rank keeps what is known of a block;
//! * [`directory`]: the buckets that it keeps;
//! * [`message`]: what ranks tell each other;
//! * [`peers`]: who answers, and who is left alone for how long;
//! * [`choice`]: which owner of a block is asked first.
//!
//! With it: `Fabric`, the one thread that owns every call of MPI; `Home`, the seam to the tier whose memory a rank offers; and
//! `MpiTier`, the tier.

pub mod choice;
pub mod directory;
#[cfg(feature = "mpi")]
mod fabric;
#[cfg(feature = "mpi")]
mod home;
pub mod launch;
pub mod message;
pub mod peers;
pub mod route;
#[cfg(feature = "mpi")]
mod tier;

#[cfg(feature = "mpi")]
pub use fabric::{Fabric, FabricConfig, FabricStats, Path, Window};
#[cfg(feature = "mpi")]
pub use home::{HEAD_BYTES, Home, Place};
#[cfg(feature = "mpi")]
pub use tier::{MpiConfig, MpiStats, MpiTier};
