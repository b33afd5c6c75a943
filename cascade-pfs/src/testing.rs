//! File systems for tests, behind the feature `testing`.
//!
//! * [`MemFs`]: files in memory that know what was synced: [`MemFs::crash`] gives an image in which everything else was
//!   dropped, torn or reordered; a bound on its bytes answers `ENOSPC`;
//! * [`FaultFs`]: any file system, with calls that fail, are cut short, wait, or flip a bit.

mod fault;
mod memory;
mod random;

pub use fault::{Call, Fault, FaultFs, Rule};
pub use memory::MemFs;
pub use random::Random;

#[cfg(test)]
mod tests;
