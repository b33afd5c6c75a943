//! Which kill point needs what, and the order in which a lane visits them.

use cascade_shm::kill::POINTS;

use crate::block::Random;

/// What must be there before a process can come to a point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Setting {
    /// No arena.
    Nothing,
    /// An arena whose owner rows are all taken by the dead.
    FullRows,
    /// A dead owner that nobody has recovered, killed at one of these points.
    Remains(&'static [&'static str]),
    /// Passed once, when a process attaches or leaves.
    Once,
    /// Passed again and again.
    Often,
}

/// In the middle of what recovery must undo or finish.
const HALF_DONE: &[&str] = &[
    "put.allocated",
    "flight.started",
    "quarantine.kept",
    "replace.hidden",
    "lease.held",
    "unpin.retired",
    "evict.scanned",
    "retire.decided",
    "reclaim.begun",
    "free.cleared",
];
/// In the middle of a change to a region: its lock is held.
pub const IN_A_REGION: &[&str] =
    &["alloc.locked", "alloc.half", "alloc.marked", "free.locked", "free.cleared", "free.half"];

/// What `point` needs.
pub fn setting(point: &str) -> Setting {
    match point.split_once('.').unwrap() {
        ("create" | "grow", _) => Setting::Nothing,
        ("attach", "last_row") => Setting::FullRows,
        ("attach" | "leave", _) => Setting::Once,
        ("recover" | "janitor", _) => Setting::Remains(HALF_DONE),
        ("rebuild", _) => Setting::Remains(IN_A_REGION),
        _ => Setting::Often,
    }
}

/// Rounds, each with the points to visit in it: every point `times` times, those that need a new arena first in theirs.
pub fn rounds(random: &mut Random, times: usize) -> Vec<Vec<&'static str>> {
    let all = POINTS.iter().flat_map(|point| std::iter::repeat_n(*point, times));
    let is_first = |point: &&str| matches!(setting(point), Setting::Nothing | Setting::FullRows);
    let (mut firsts, mut others): (Vec<_>, Vec<_>) = all.partition(is_first);
    shuffle(random, &mut firsts);
    shuffle(random, &mut others);
    let mut rounds: Vec<Vec<&str>> = firsts.into_iter().map(|point| vec![point]).collect();
    // Where rows are few, there is no room for the others.
    let mut longer: Vec<_> =
        rounds.iter_mut().filter(|round| setting(round[0]) == Setting::Nothing).collect();
    let count = longer.len();
    for (at, point) in others.into_iter().enumerate() {
        longer[at % count].push(point);
    }
    rounds
}

fn shuffle<T>(random: &mut Random, items: &mut [T]) {
    for at in (1..items.len()).rev() {
        items.swap(at, random.below(at as u64 + 1) as usize);
    }
}
