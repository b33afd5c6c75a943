//! Cascade: cascade-py.
