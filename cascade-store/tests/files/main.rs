//! The store with a tier of files below the arena.

// Clippy's exemption for tests reaches `#[test]` functions only, not their helpers.
#![allow(clippy::unwrap_used, clippy::panic)]

mod borders;
mod failing;
mod killed;
mod moving;
mod naming;
mod opening;
mod parts;
mod racing;
mod recorded;
mod rig;
mod stale;
