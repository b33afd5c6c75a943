//! The store: what a program uses, over the tiers that it has.
//!
//! Embedded in the caller's process it needs nothing but shared memory. Today's store has tier 2, the node's arena; the
//! calls are those that the whole chain of tiers will answer.
//!
//! ```no_run
//! use cascade_core::id::BlockId;
//! use cascade_store::{Put, Store, StoreConfig};
//!
//! let config = StoreConfig::builder().shm_path("/dev/shm/cascade").shm_capacity("2GiB")?.resolve()?;
//! let store = Store::open(&config)?;
//! let id = BlockId::named("a block");
//! assert_eq!(store.put(&id, b"its bytes", Put::default()), cascade_core::batch::Outcome::Stored);
//! let mut out = [0; 9];
//! assert_eq!(store.get(&id, &mut out).map(|meta| meta.len), Ok(9));
//! # Ok::<(), cascade_core::Error>(())
//! ```

#[cfg(feature = "cli")]
pub mod cli;
mod config;
mod raw;
mod store;

pub use config::{Origin, StoreConfig, StoreConfigBuilder};
pub use store::{Put, Store, outcome_name};
