//! After `fork` the child must not be taken for its parent.

mod raw;

pub use raw::{ForkGuard, epoch};

#[cfg(test)]
mod tests;
