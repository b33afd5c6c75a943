//! The program `cascade`, run as users run it.

// Clippy's exemption for tests reaches `#[test]` functions only, not their helpers.
#![allow(clippy::unwrap_used, clippy::panic)]

mod child;
mod doctor;
mod files;
mod gc;
mod readme;
mod rig;
mod stat;
mod verify;
mod why;
