//! The conformance suite over the tiers and layers of this crate.

use std::sync::Arc;

use cascade_core::memory_tier::MemoryTier;
use cascade_core::testing::conformance;

#[test]
fn memory_tier_conforms() {
    conformance::addressable(&|capacity_bytes| Arc::new(MemoryTier::new(capacity_bytes)));
}
