//! AVX2 with VPCLMULQDQ: eight lanes of 256 bits.

mod raw;

pub(crate) use raw::run;
