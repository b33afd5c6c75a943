//! Blocks between the arena and the tiers below it.

pub(crate) mod changes;
pub(crate) mod count;
pub(crate) mod demoter;
pub(crate) mod flights;
pub(crate) mod node;
pub(crate) mod queue;
mod raw;
pub(crate) mod rise;
pub(crate) mod riser;
pub(crate) mod seen;
pub(crate) mod sink;
