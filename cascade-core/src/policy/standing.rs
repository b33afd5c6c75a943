//! What outranks worth: pins and prefix blocks, within bounds.

use crate::tier::Class;

/// How a block ranks before its worth is asked: the lowest standing goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// By its worth.
    #[default]
    Ordinary,
    /// A shared prefix: after all ordinary blocks, while such blocks keep to their share.
    Prefix,
    /// Asked to stay: after all others, while such blocks keep to their share.
    SoftPinned,
    /// Never goes.
    HardPinned,
}

impl From<Class> for Standing {
    fn from(class: Class) -> Self {
        match class {
            Class::Ordinary => Self::Ordinary,
            Class::Prefix => Self::Prefix,
        }
    }
}

/// How much of a tier protection may hold. Beyond its share a standing protects nobody: its blocks go by their worth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shares {
    /// Of prefix blocks, 0 to 1.
    pub prefix: f64,
    /// Of soft pins, 0 to 1.
    pub soft: f64,
}

impl Default for Shares {
    /// Four fifths of a tier, and a quarter of it.
    fn default() -> Self {
        Self { prefix: 0.8, soft: 0.25 }
    }
}

/// Blocks of each standing in a tier.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Census {
    held: [usize; 4],
}

impl Census {
    pub(super) fn add(&mut self, standing: Standing) {
        self.held[standing as usize] += 1;
    }

    pub(super) fn remove(&mut self, standing: Standing) {
        let held = &mut self.held[standing as usize];
        *held = held.saturating_sub(1);
    }

    /// How a block of `standing` ranks in a tier of `blocks`, bounds applied.
    pub(super) fn rank(&self, standing: Standing, shares: Shares, blocks: usize) -> Standing {
        let share = match standing {
            Standing::Ordinary | Standing::HardPinned => return standing,
            Standing::Prefix => shares.prefix,
            Standing::SoftPinned => shares.soft,
        };
        let is_within = self.held[standing as usize] as f64 <= share * blocks as f64;
        if is_within { standing } else { Standing::Ordinary }
    }
}
