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
//! * `role`, `janitor`, `grow`, `collapse`: what one of all handles does in the background;
//! * [`inspect`], [`remove`]: an arena seen from outside, and its end.

// A model opens no file and starts no thread.
#![cfg_attr(any(loom, shuttle), allow(dead_code, unused_imports))]

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

mod arena;
mod collapse;
mod config;
mod evict;
mod file;
mod grow;
mod hugepage;
pub mod inspect;
mod janitor;
mod numa;
mod process;
mod recover;
mod region;
pub mod remove;
mod seal;
mod session;
pub mod trail;

pub use arena::note::NOTE_MOST;
pub use arena::{
    Arena, Audit, BelowStats, Cold, Exposed, Fill, Growth, Noted, Scrub, Scrubbed, Survey, is_visible,
};
pub use collapse::HugePages;
pub use config::{ArenaConfig, Eviction};
pub use hugepage::Huge;
pub use slot::Below;

/// What the models build their arenas from.
#[cfg(any(loom, shuttle))]
pub mod model {
    pub use crate::raw::Map;
    pub use crate::recover::dead_owners;
    pub use crate::region::{Kind, Regions, Tenancy};
    pub use crate::session::{Core, Rule, Session, Stripe};
}
