//! Cascade: cascade-core.

pub mod chain;
pub mod copy;
pub mod digest;
pub mod id;
pub mod keyspace;
