//! Cascade: cascade-bench.
