//! Behaviour added round a tier: metrics, verification, faults, throttles, breakers.

use std::sync::Arc;

use crate::tier::Tier;

/// Wraps a tier into another with the same contract. A layer may lose a block; it may never change one.
pub trait Layer {
    /// The wrapped tier.
    fn wrap(&self, inner: Arc<dyn Tier>) -> Arc<dyn Tier>;
}

/// Applies `layers` from the inside out.
#[must_use]
pub fn stack(tier: Arc<dyn Tier>, layers: &[&dyn Layer]) -> Arc<dyn Tier> {
    layers.iter().fold(tier, |inner, layer| layer.wrap(inner))
}
