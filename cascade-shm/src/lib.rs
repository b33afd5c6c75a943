//! Tier 2: the node's shared-memory arena.
//!
//! One file on tmpfs, mapped by every process of the node that uses the store. It survives their death: each slot says all
//! of its block, each owner's ledger says all that it holds, and everything else is derived. Lookups take no lock and no
//! system call; a lease is a pointer into the mapping and a note in the holder's own ledger.
//!
//! * [`Arena`], [`ArenaConfig`]: what a program uses; `Tier` and `Addressable` of `cascade-core`;
//! * `layout`, `slot`, `ledger`, `owner`: the bytes (docs/format.md);
//! * `index`, `protocol`: how slots change hands (modelled with loom in `tests/loom.rs`);
//! * `region`, `evict`: where blocks lie, and which go;
//! * `recover`, `process`: who is dead, and what they left;
//! * `role`, `janitor`, `grow`: what one of all handles does in the background;
//! * [`inspect`], [`remove`]: an arena seen from outside, and its end.

pub mod index;
pub mod kill;
pub mod layout;
pub mod ledger;
pub mod lock;
pub mod owner;
pub mod protocol;
mod raw;
pub mod role;
pub mod slot;

#[cfg(not(loom))]
mod arena;
#[cfg(not(loom))]
mod config;
#[cfg(not(loom))]
mod evict;
#[cfg(not(loom))]
mod file;
#[cfg(not(loom))]
mod grow;
#[cfg(not(loom))]
pub mod inspect;
#[cfg(not(loom))]
mod janitor;
#[cfg(not(loom))]
mod numa;
#[cfg(not(loom))]
mod process;
#[cfg(not(loom))]
mod recover;
#[cfg(not(loom))]
mod region;
#[cfg(not(loom))]
pub mod remove;
#[cfg(not(loom))]
mod seal;
#[cfg(not(loom))]
mod session;

#[cfg(not(loom))]
pub use arena::{Arena, Audit, Growth, Scrub, Scrubbed};
#[cfg(not(loom))]
pub use config::ArenaConfig;
