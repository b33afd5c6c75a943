//! The store: what a program uses, over the tiers that it has.
//!
//! Embedded in the caller's process it needs nothing but shared memory: tier 2, the node's arena. With `pfs_path` it has
//! tier 4 below it, segment files that other nodes and later jobs share.
//!
//! ```no_run
//! use cascade_core::id::BlockId;
//! use cascade_store::{Put, Store, StoreConfig};
//!
//! let config = StoreConfig::builder()
//!     .shm_path("/dev/shm/cascade").shm_capacity("2GiB")?
//!     .pfs_path("/scratch/me/cascade").resolve()?;
//! let store = Store::open(&config)?;
//! let id = BlockId::named("a block");
//! assert_eq!(store.put(&id, b"its bytes", Put::default()), cascade_core::batch::Outcome::Stored);
//! let mut out = [0; 9];
//! assert_eq!(store.get(&id, &mut out).map(|meta| meta.len), Ok(9));
//! # Ok::<(), cascade_core::Error>(())
//! ```

mod as_tier;
mod chain;
#[cfg(feature = "cli")]
pub mod cli;
mod completion;
mod config;
pub mod counters;
mod fetch;
mod files;
mod gpu;
mod learn;
mod moves;
mod observed;
mod part;
mod phases;
mod pins;
mod planner;
mod prefix;
mod put;
mod raw;
pub mod remote;
mod reserve;
mod seam;
#[cfg(test)]
mod sim;
mod spans;
mod stats;
mod store;
mod submits;
mod tally;
mod tiers;

pub use chain::{Level, Located};
pub use completion::{Completion, CompletionQueue};
pub use config::{
    Demote, FilesConfig, GpuCapacity, GpuConfig, GpuDevices, Origin, StoreConfig, StoreConfigBuilder,
};
pub use moves::count::MoveStats;
pub use phases::GetTime;
pub use pins::{Pin, PinStats, Pinned};
pub use planner::{Plan, Recompute};
pub use prefix::Prefix;
pub use put::{Put, Reach};
pub use stats::StoreStats;
pub use store::{Store, outcome_name};
pub use tally::Origin as ServedFrom;
