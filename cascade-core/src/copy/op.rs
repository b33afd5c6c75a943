//! What a kernel does with each vector; the values are or-ed into the kernels' `OP` parameter.

/// Fold it into the digest state.
pub(crate) const DIGEST: u8 = 1;
/// Store it.
pub(crate) const PLAIN: u8 = 2;
/// Store it past the caches.
pub(crate) const STREAM: u8 = 4;
