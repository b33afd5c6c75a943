//! The memory of other nodes: the arena as what a rank of an MPI job offers, and asks in their name.

mod home;

pub use home::ArenaHome;
