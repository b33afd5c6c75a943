//! Memory that is given back when it is dropped.

mod raw;

pub use raw::{Foreign, Hbm, Pinned};
