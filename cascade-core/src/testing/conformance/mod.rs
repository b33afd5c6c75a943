//! One suite for every tier: named checks, each a rule of the contract.
//!
//! A check makes its own tier with `make(capacity_bytes)`; a tier may round the capacity up and reports what it has. The
//! tiers must be empty, and nobody else may use them. [`tier`] and [`addressable`] panic with every rule that was broken;
//! the `*_report` functions give the same as values.

mod batches;
mod leasing;
mod moving;
mod putting;
mod reserving;
mod rig;
mod space;
mod threads;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::tier::{Addressable, Tier};

/// Outcome of a check: what was broken, in words.
type Verdict = Result<(), String>;

/// Ends the check with a message unless the condition holds.
macro_rules! rule {
    ($holds:expr, $($words:tt)+) => {
        if !$holds {
            return Err(format!($($words)+));
        }
    };
}
use rule;

/// Makes an empty tier of at least so many bytes.
pub type MakeTier<'a> = &'a dyn Fn(u64) -> Arc<dyn Tier>;
/// Makes an empty addressable tier of at least so many bytes.
pub type MakeAddressable<'a> = &'a dyn Fn(u64) -> Arc<dyn Addressable>;

/// A rule that a tier broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Name of the check.
    pub check: &'static str,
    /// What was expected and what happened.
    pub rule: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.rule)
    }
}

/// A name and the check behind it.
type Check<M> = (&'static str, fn(M) -> Verdict);

/// Panics with every rule that a tier breaks.
///
/// # Panics
/// When a check fails; the message has one line for each.
pub fn tier(make: MakeTier<'_>) {
    demand(&tier_report(make));
}

/// Panics with every rule that an addressable tier breaks, those of [`tier`] included.
///
/// # Panics
/// When a check fails; the message has one line for each.
pub fn addressable(make: MakeAddressable<'_>) {
    demand(&addressable_report(make));
}

/// Every rule of a tier that is broken; empty for a tier that conforms.
#[must_use]
pub fn tier_report(make: MakeTier<'_>) -> Vec<Broken> {
    run(tier_checks(), make)
}

/// Every rule of an addressable tier that is broken, those of [`tier_report`] included.
#[must_use]
pub fn addressable_report(make: MakeAddressable<'_>) -> Vec<Broken> {
    let mut broken = tier_report(&|capacity_bytes| make(capacity_bytes) as Arc<dyn Tier>);
    broken.extend(run(addressable_checks(), make));
    broken
}

fn tier_checks<'a>() -> Vec<Check<MakeTier<'a>>> {
    vec![
        ("round trip of every size", moving::round_trip),
        ("scattered and misaligned lists", moving::scattered),
        ("a destination that is too short", moving::short_destination),
        ("a destination that cannot be written", moving::read_only_destination),
        ("a longer destination keeps its tail", moving::longer_destination),
        ("an empty block", putting::empty),
        ("a block that is too large", putting::too_large),
        ("the first seal wins", putting::first_seal_wins),
        ("replace", putting::replace),
        ("replace by another length", putting::replace_length),
        ("delete, then miss", putting::delete),
        ("outcomes in order", batches::order),
        ("one id twice in a batch", batches::duplicates),
        ("a deadline in the past", batches::late),
        ("nothing asked", batches::nothing),
        ("flush", batches::flush),
        ("statistics", space::statistics),
        ("eviction under pressure", space::pressure),
        ("eviction with blocks of many sizes", space::mixed_pressure),
        ("eviction with many small blocks", space::small_pressure),
        ("prefix blocks outlive ordinary ones", space::classes),
        ("nothing is left after deleting all", space::emptied),
        ("four threads", threads::store),
    ]
}

fn addressable_checks<'a>() -> Vec<Check<MakeAddressable<'a>>> {
    vec![
        ("a lease reads its block", leasing::reads),
        ("a lease outlives delete", leasing::over_delete),
        ("a lease outlives replace", leasing::over_replace),
        ("leases bound what can be evicted", leasing::pinned_full),
        ("released leases give everything back", leasing::released),
        ("many leases in a batch", leasing::batch),
        ("reserve, fill, seal", reserving::seal),
        ("pending while reserved", reserving::pending),
        ("a dropped reservation gives its space back", reserving::dropped),
        ("reservations never exceed the capacity", reserving::bounded),
        ("reserve on what is stored", reserving::exists),
        ("a completed transfer", reserving::transfer),
        ("an abandoned transfer", reserving::abandoned),
        ("four threads with leases", threads::lease),
    ]
}

fn run<M: Copy>(checks: Vec<Check<M>>, make: M) -> Vec<Broken> {
    let mut broken = Vec::new();
    for (check, holds) in checks {
        // A panic inside the tier breaks the contract like a wrong answer, and the other checks still have their say.
        let verdict = catch_unwind(AssertUnwindSafe(|| holds(make)))
            .unwrap_or_else(|panic| Err(format!("the tier panicked: {}", message(panic.as_ref()))));
        if let Err(rule) = verdict {
            broken.push(Broken { check, rule });
        }
    }
    broken
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("(no message)")
}

fn demand(broken: &[Broken]) {
    let lines: Vec<String> = broken.iter().map(Broken::to_string).collect();
    assert!(broken.is_empty(), "{} checks failed:\n{}", broken.len(), lines.join("\n"));
}
