//! The 28 bits that a slot keeps of a block's past.

use super::Tick;

/// Uses that are counted, at most.
const MOST_USES: u32 = 15;
/// Depths that are told apart, at most.
const MOST_DEPTH: u32 = 31;

/// What kind of request named a block last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kind {
    /// How much of the chain was known: 0 nothing, 1 less than a quarter, 2 less than three quarters, 3 more: a conversation
    /// that went on.
    pub known: u8,
    /// Whether the block was the last of the chain.
    pub is_tail: bool,
}

impl Kind {
    /// Kinds that there are.
    pub const COUNT: usize = 8;

    /// Of the block at `position` in a chain of `len` blocks whose first `known` were seen before, the first `common` of them
    /// so often that they say nothing of this request.
    #[must_use]
    pub fn of(position: usize, len: usize, known: usize, common: usize) -> Self {
        let (own, of) = (known.saturating_sub(common), len.saturating_sub(common));
        let known = match own {
            0 => 0,
            little if 4 * little < of => 1,
            some if 4 * some < 3 * of => 2,
            _ => 3,
        };
        Self { known, is_tail: position + 1 == len }
    }

    /// A number below [`Kind::COUNT`].
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.known & 3) << 1 | usize::from(self.is_tail)
    }

    fn from_index(index: u32) -> Self {
        Self { known: (index >> 1 & 3) as u8, is_tail: index & 1 == 1 }
    }
}

/// A block's past: touch 16 bits, uses 4, kind 3, depth 5.
///
/// ```
/// use cascade_core::policy::{Heat, Kind};
/// let heat = Heat::new(70_000, 2, Kind::of(3, 8, 5, 0), 3);
/// assert_eq!((heat.age(70_005), heat.uses(), heat.kind().known, heat.depth()), (5, 2, 2, 3));
/// assert!(heat.bits() < 1 << 28);
/// assert_eq!(Heat::from_bits(heat.bits()), heat);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Heat(u32);

impl Heat {
    /// Bits that it takes.
    pub const BITS: u32 = 28;

    /// Last touched at `now`, used `uses` times after it was first put, at `depth` blocks from its chain's beginning.
    #[must_use]
    pub fn new(now: Tick, uses: u32, kind: Kind, depth: usize) -> Self {
        let kind = kind.index() as u32;
        Self(now & 0xffff | uses.min(MOST_USES) << 16 | kind << 20 | coarse(depth) << 23)
    }

    /// From the bits of a slot; higher ones are dropped.
    #[must_use]
    pub fn from_bits(bits: u32) -> Self {
        Self(bits & ((1 << Self::BITS) - 1))
    }

    /// For a slot.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Ticks since the last touch; wraps after 65,536.
    #[must_use]
    pub fn age(self, now: Tick) -> u32 {
        now.wrapping_sub(self.0) & 0xffff
    }

    /// Uses since the block was first put, at most 15.
    #[must_use]
    pub fn uses(self) -> u32 {
        self.0 >> 16 & 15
    }

    /// The kind of request that touched it last.
    #[must_use]
    pub fn kind(self) -> Kind {
        Kind::from_index(self.0 >> 20 & 7)
    }

    /// Depth in the chain on a coarse scale: exact to 16, then in quarters of octaves, to 31. Of blocks that are worth the
    /// same the deepest goes first.
    #[must_use]
    pub fn depth(self) -> u32 {
        self.0 >> 23 & MOST_DEPTH
    }

    /// Whether so many uses were seen that more are not counted.
    #[must_use]
    pub fn is_common(self) -> bool {
        self.uses() == MOST_USES
    }

    /// The same block, touched at `now` without being used.
    #[must_use]
    pub fn at(self, now: Tick) -> Self {
        Self(self.0 & !0xffff | now & 0xffff)
    }

    /// After one more use by a request that says nothing of its chain: kind and depth stay.
    #[must_use]
    pub fn again(self, now: Tick) -> Self {
        let more = u32::from(!self.is_common()) << 16;
        Self(self.at(now).0 + more)
    }

    /// This state of a block of which somebody else saw `other`: the more uses count.
    #[must_use]
    pub fn beside(self, other: Self) -> Self {
        Self(self.0 & !(MOST_USES << 16) | self.uses().max(other.uses()) << 16)
    }

    /// After one more use.
    #[must_use]
    pub fn used(self, now: Tick, kind: Kind, depth: usize) -> Self {
        Self::new(now, self.uses() + 1, kind, depth)
    }
}

/// 0..=16 as they are, then four steps an octave, at most 31.
fn coarse(depth: usize) -> u32 {
    let depth = u32::try_from(depth).unwrap_or(u32::MAX);
    if depth < 16 {
        return depth;
    }
    let octave = depth.ilog2();
    (16 + (octave - 4) * 4 + (depth >> (octave - 2) & 3)).min(MOST_DEPTH)
}
