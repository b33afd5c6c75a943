//! Cascade: cascade-core.

pub mod chain;
pub mod id;
pub mod keyspace;
