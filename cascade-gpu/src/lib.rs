//! Cascade: cascade-gpu.
