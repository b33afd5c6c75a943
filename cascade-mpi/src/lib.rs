//! Tier 3 of Cascade: other nodes' shared memory, read one-sided over MPI RMA.
//!
//! The tier will keep a window over the node's arena, a directory of who holds which block, and one thread
//! that owns every MPI call. **None of that is here yet.** What this crate holds today is what the tier and
//! `cascade doctor` need before MPI is initialised:
//!
//! * [`launch`]: who started this process and as which rank, read from the environment. A program built with
//!   one MPI and started by another's launcher runs as many separate worlds of one rank, each believing that
//!   it is alone; nothing in MPI itself reports that. [`launch::Launch::confirm`] does.
//!
//! There is no MPI in the build and none is loaded: the crate is safe to use where MPI is absent.

pub mod launch;
