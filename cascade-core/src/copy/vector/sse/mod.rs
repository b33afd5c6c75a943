//! SSE with PCLMULQDQ: eight lanes of 128 bits.

mod raw;

pub(crate) use raw::run;
