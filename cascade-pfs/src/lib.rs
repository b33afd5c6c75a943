//! Cascade: cascade-pfs.
