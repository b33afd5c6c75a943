//! Cascade: cascade-store.
