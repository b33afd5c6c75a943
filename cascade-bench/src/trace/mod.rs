//! `--suite trace`: requests of a trace or of stated distributions, replayed against policies of eviction.
//!
//! A request names a chain of blocks. A block counts as a hit only when all before it hit, and what missed is put. Policies are
//! those of [`cascade_core::policy`], driven as a tier drives them; beside them stand the optimum and an infinite cache.

mod cli;
mod command;
mod format;
mod optimum;
mod policies;
mod simulate;
mod synthetic;
#[cfg(test)]
mod tests;

pub use cli::{Arguments, is_wanted};
pub use command::run;
pub use format::{Request, Workload};
pub use optimum::{infinite, optimum};
pub use policies::Policy;
pub use simulate::{Outcome, simulate};
pub use synthetic::Family;
