//! Cascade: cascade-shm.
