//! Cascade: cascade-core.
