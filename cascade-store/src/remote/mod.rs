//! The memory of other nodes, as a store asks for it: between its arena and its files.
//!
//! A store knows a [`Remote`], and no MPI: the node's agent, asked through a socket ([`Client`]), or, with the feature `mpi`, the
//! tier itself where the program is the MPI job. Either brings blocks into the node's own arena, where they are like any other.

mod agent;
mod client;
mod elsewhere;
#[cfg(feature = "mpi")]
mod home;
#[cfg(feature = "mpi")]
mod job;
mod wire;

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::time::Instant;

use cascade_core::id::BlockId;
use cascade_core::tier::{Lookup, MissReason};

pub use agent::{Agent, AgentStats};
pub use client::Client;
pub(crate) use elsewhere::{Came, Elsewhere, work};
#[cfg(feature = "mpi")]
pub use home::ArenaHome;
#[cfg(feature = "mpi")]
pub use job::{Job, JobConfig};

/// Who finds blocks on other nodes, and brings them to this one.
pub trait Remote: Send + Sync + Debug {
    /// What other nodes are known to have; what is not known at `deadline` is a miss with its reason.
    fn locate(&self, ids: &[BlockId], deadline: Instant) -> Vec<Lookup>;

    /// Brings blocks into this node's arena: for each `Ok` when it is there, verified, or why it is not. Takes little longer than to
    /// `deadline`, whatever the others do.
    fn bring(&self, ids: &[BlockId], deadline: Instant) -> Vec<Result<(), MissReason>>;
}

/// The socket of a node's agent: beside its arena, for this user only.
#[must_use]
pub fn socket_path(arena: &Path) -> PathBuf {
    let name = arena.file_name().map(|name| name.to_string_lossy().replacen("arena.", "agent.", 1));
    arena.with_file_name(name.unwrap_or_else(|| "agent".into()))
}
