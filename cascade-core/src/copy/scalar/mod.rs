//! Table kernel for any CPU, and the heads and tails of the vector kernels.

pub(crate) mod raw;
