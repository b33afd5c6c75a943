//! `--suite trace`: requests of a trace or of stated distributions, replayed against policies of eviction.
//!
//! A request names a chain of blocks. A block counts as a hit only when all before it hit, and what missed is put. Policies are
//! those of [`cascade_core::policy`], driven as a tier drives them; beside them stand the optimum and an infinite cache. With `--real` the same
//! requests go through a store, with bytes.

mod cli;
mod command;
mod format;
mod optimum;
mod policies;
mod real;
mod simulate;
mod synthetic;
#[cfg(test)]
mod tests;

pub use cli::Arguments;
pub use command::run;
pub use format::{Request, Workload};
pub use optimum::{infinite, optimum};
pub use policies::Policy;
pub use real::{Moved, Plan, Replayed, replay};
pub use simulate::{Outcome, simulate};
pub use synthetic::Family;
