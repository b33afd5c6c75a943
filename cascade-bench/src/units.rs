//! Sizes and rates: those of `cascade-core`, where every crate finds them.

pub use cascade_core::units::{format_size, gbps, parse_size, parse_sizes};
