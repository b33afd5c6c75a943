//! AVX-512 with VPCLMULQDQ: four lanes of 512 bits.

mod raw;

pub(crate) use raw::run;
