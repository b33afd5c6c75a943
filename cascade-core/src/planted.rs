//! Bugs that a build with the feature `planted` has on demand, to prove that the tests would notice them.
//!
//! `CASCADE_PLANTED` names the one bug of a process. Each stands in one line at the place of the check that it breaks. Without
//! the feature [`is`] is constantly false, so the line is not there. `cargo xtask soak --lane negative` runs them all.

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Copies and first leases are not compared with the digest.
    SkipDigest,
    /// A freed slot keeps its generation.
    NoGenerationBump,
    /// Publishing a slot's state orders nothing before it.
    NoReleaseOnAdvance,
    /// No full fence between announcing a pin and looking again.
    NoPinFence,
    /// No full fence between beginning to evict and scanning the ledgers.
    NoScanFence,
    /// A pin is not confirmed by a second look at the slot.
    NoLookAfterPin,
    /// A released lease leaves its pin in the ledger.
    LeakedPin,
    /// A claim is confirmed without looking for rivals.
    NoRecheckAfterClaim,
    /// Eviction frees without looking at the ledgers.
    FreeBeforeScan,
    /// A retired block that was pinned is not looked at again.
    NoScanAfterRetire,
    /// An id is compared without looking at the generation again.
    NoSecondLook,
    /// An extent read from shared memory is not held against the area.
    TrustLength,
    /// Freed units stay marked in the bitmap.
    LostBitmapClear,
    /// A region is not rebuilt when its holder died.
    NoRebuild,
    /// An attempt at a lock that came too late releases it.
    LateRelease,
    /// A lock is taken from a holder that lives.
    LockFromTheLiving,
    /// The death of an owner does not make blocks unverified.
    NoEpochBump,
    /// Recovery looks at pins only.
    IgnoreIntents,
    /// Recovery empties a ledger entry before its slot is done.
    EntryBeforeSlot,
    /// An eviction is not counted.
    UncountedEviction,
    /// A new block is sealed before the one that it replaces is hidden.
    SealBeforeHide,
    /// Space that hardware may still write is given back at once.
    NoQuarantine,
    /// An arena that others may write is opened.
    TrustMode,
    /// A forked child uses what its parent holds.
    NoForkCheck,
    /// A failed fdatasync counts as done.
    SwallowedSync,
    /// What the kernel may still write to is answered for when its deadline passes.
    EarlyAnswer,
    /// A scrub does not look at what stands between a payload and the end of its page.
    UnseenPadding,
    /// What rises from files is sealed without a look at its digest.
    TrustedRise,
    /// What was copied to files is noted without a look at what the arena has by then.
    BlindSettle,
    /// A block that replaces is sealed while the files still have the older one.
    LateForget,
    /// Processes of a node change and move a name without regard to each other.
    NoNameLock,
    /// A process believes its index of the files, whatever others of its node have changed since it was read on.
    StaleIndex,
    /// What is deleted is not deleted in files.
    DeleteAbove,
    /// What the files refused is not looked for again.
    NoSweep,
    /// What the files forget late goes on being noted as a copy that they have.
    LateNote,
    /// A breaker counts failures and never opens.
    NeverOpens,
    /// A breaker stays half open although the batch that was let through went well.
    NeverCloses,
    /// A budget lets in whatever comes.
    NoBudget,
    /// A budget does not get back what it let in.
    SpentBudget,
}

impl Bug {
    /// Every bug.
    pub const ALL: [Self; 39] = [
        Self::SkipDigest,
        Self::NoGenerationBump,
        Self::NoReleaseOnAdvance,
        Self::NoPinFence,
        Self::NoScanFence,
        Self::NoLookAfterPin,
        Self::LeakedPin,
        Self::NoRecheckAfterClaim,
        Self::FreeBeforeScan,
        Self::NoScanAfterRetire,
        Self::NoSecondLook,
        Self::TrustLength,
        Self::LostBitmapClear,
        Self::NoRebuild,
        Self::LateRelease,
        Self::LockFromTheLiving,
        Self::NoEpochBump,
        Self::IgnoreIntents,
        Self::EntryBeforeSlot,
        Self::UncountedEviction,
        Self::SealBeforeHide,
        Self::NoQuarantine,
        Self::TrustMode,
        Self::NoForkCheck,
        Self::SwallowedSync,
        Self::EarlyAnswer,
        Self::UnseenPadding,
        Self::TrustedRise,
        Self::BlindSettle,
        Self::LateForget,
        Self::NoNameLock,
        Self::StaleIndex,
        Self::DeleteAbove,
        Self::NoSweep,
        Self::LateNote,
        Self::NeverOpens,
        Self::NeverCloses,
        Self::NoBudget,
        Self::SpentBudget,
    ];

    /// Its name in `CASCADE_PLANTED`: that of the variant in lower case with hyphens.
    #[must_use]
    pub fn name(self) -> String {
        let mut name = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_ascii_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }
}

// A build that is fast enough to be used must not have bugs that anybody can switch on.
#[cfg(all(feature = "planted", not(debug_assertions)))]
const _: () = assert!(
    option_env!("CASCADE_PLANTED_BUILD").is_some(),
    "the feature `planted` plants bugs: without debug assertions it is built with CASCADE_PLANTED_BUILD=1 only"
);

/// Whether this process has `bug`.
///
/// # Panics
/// When `CASCADE_PLANTED` names no bug: a control that plants nothing would prove nothing.
#[cfg(feature = "planted")]
#[must_use]
#[allow(clippy::panic)]
pub fn is(bug: Bug) -> bool {
    static PLANTED: std::sync::OnceLock<Option<Bug>> = std::sync::OnceLock::new();
    let planted = PLANTED.get_or_init(|| {
        let name = std::env::var("CASCADE_PLANTED").ok()?;
        let bug = Bug::ALL.into_iter().find(|bug| bug.name() == name);
        let bug = bug.unwrap_or_else(|| panic!("CASCADE_PLANTED={name} names no bug"));
        eprintln!("this process has the planted bug {name}");
        Some(bug)
    });
    *planted == Some(bug)
}

/// Whether this process has `bug`: never in this build.
#[cfg(not(feature = "planted"))]
#[inline(always)]
#[must_use]
pub const fn is(_bug: Bug) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bugs_are_listed_once_and_named_by_their_variants() {
        assert_eq!(Bug::NoPinFence.name(), "no-pin-fence");
        let names: std::collections::BTreeSet<String> = Bug::ALL.iter().map(|bug| bug.name()).collect();
        assert_eq!(names.len(), Bug::ALL.len());
        assert_eq!(
            Bug::ALL.last(),
            Some(&Bug::SpentBudget),
            "the last variant is listed, so none was forgotten"
        );
    }

    #[cfg(not(feature = "planted"))]
    #[test]
    fn an_ordinary_build_has_none() {
        assert!(Bug::ALL.iter().all(|bug| !is(*bug)));
    }
}
