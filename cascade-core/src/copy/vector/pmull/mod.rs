//! aarch64 NEON with PMULL: eight lanes of 128 bits.

mod raw;

pub(crate) use raw::run;
