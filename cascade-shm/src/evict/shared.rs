//! The table of worth that all processes of an arena share: the one that was made from the most evidence.
//!
//! It is a hint. Words of two tables that were written at once mix, and give worths of one or the other.

use cascade_core::policy::{Tick, WorthTable};
use cascade_core::sync::{AtomicU64, Ordering};

use crate::raw::Map;
use crate::session::Core;

/// Ticks after which a table gives way to any other: four times the arena was put since.
const STALE: u32 = 1024;

/// Who wrote a table, when, and what from: evidence in bits 0-31, ticks in 32-47, owner row + 1 in 48-63; 0: there is none.
fn header(evidence: f64, tick: Tick, row: u16) -> u64 {
    let evidence = evidence.clamp(0.0, f64::from(u32::MAX)) as u64;
    evidence | u64::from(tick & 0xffff) << 32 | (u64::from(row) + 1).min(0xffff) << 48
}

/// Writes `table` where none is, or none that is better.
pub fn publish(core: &Core, table: &WorthTable, evidence: f64) {
    let Some((first, words)) = core.map().worth_words().split_first() else { return };
    let (now, old) = (core.now().tick(), first.load(Ordering::Relaxed));
    let new = header(evidence, now, core.row());
    let is_stale = now.wrapping_sub((old >> 32) as u32) & 0xffff > STALE;
    if old != 0 && old >> 48 != new >> 48 && old as u32 > new as u32 && !is_stale {
        return;
    }
    for (place, word) in words.iter().zip(table.words()) {
        place.store(word, Ordering::Relaxed);
    }
    first.store(new, Ordering::Release);
}

/// Whether anybody has learned anything.
#[inline]
pub fn is_there(map: &Map) -> bool {
    map.worth_words().first().is_some_and(|header| header.load(Ordering::Relaxed) != 0)
}

/// The words of the table; `None` where nobody has learned anything.
pub fn table(map: &Map) -> Option<&[AtomicU64]> {
    let (first, words) = map.worth_words().split_first()?;
    (first.load(Ordering::Acquire) != 0).then_some(words)
}
