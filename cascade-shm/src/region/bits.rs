//! Bitmaps of used units.

use cascade_core::sync::{AtomicU64, Ordering};

/// First run of `need` clear bits among the first `len`, or else the length of the longest run.
pub(super) fn find_run(words: &[AtomicU64], len: usize, need: usize) -> Result<usize, usize> {
    let mut longest = 0;
    for (start, run) in free_runs(words, len) {
        if run >= need {
            return Ok(start);
        }
        longest = longest.max(run);
    }
    Err(longest)
}

/// Whether `count` bits from `start` on are clear, and among the first `len`.
pub(super) fn is_free(words: &[AtomicU64], len: usize, start: usize, count: usize) -> bool {
    let end = start.saturating_add(count);
    end <= len && next(words, start, end, true).is_none()
}

/// Runs of clear bits among the first `len`, as (start, length).
pub(super) fn free_runs(words: &[AtomicU64], len: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = next(words, at, len, false)?;
        let end = next(words, start, len, true).unwrap_or(len);
        at = end;
        Some((start, end - start))
    })
}

/// The first bit from `from` on that is `set`.
fn next(words: &[AtomicU64], from: usize, len: usize, set: bool) -> Option<usize> {
    let mut at = from;
    while at < len {
        let word = words.get(at / 64)?.load(Ordering::Relaxed);
        let wanted = if set { word } else { !word } >> (at % 64);
        if wanted != 0 {
            let found = at + wanted.trailing_zeros() as usize;
            return (found < len).then_some(found);
        }
        at = (at / 64 + 1) * 64;
    }
    None
}

/// Whether bit `at` is set.
pub(super) fn is_set(words: &[AtomicU64], at: usize) -> bool {
    words.get(at / 64).is_some_and(|word| word.load(Ordering::Relaxed) >> (at % 64) & 1 == 1)
}

/// Sets or clears `count` bits from `start` on.
pub(super) fn set(words: &[AtomicU64], start: usize, count: usize, value: bool) {
    let mut at = start;
    let end = start + count;
    while at < end {
        let bits = (64 - at % 64).min(end - at);
        let mask = if bits == 64 { u64::MAX } else { ((1 << bits) - 1) << (at % 64) };
        let Some(word) = words.get(at / 64) else { return };
        let old = word.load(Ordering::Relaxed);
        word.store(if value { old | mask } else { old & !mask }, Ordering::Relaxed);
        at += bits;
    }
}

/// Number of set bits.
pub(super) fn count(words: &[AtomicU64]) -> u64 {
    words.iter().map(|word| u64::from(word.load(Ordering::Relaxed).count_ones())).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_are_those_of_a_plain_scan(pattern in proptest::collection::vec(any::<bool>(), 1..300), need in 1..80_usize) {
            let words: Vec<AtomicU64> = (0..5).map(|_| AtomicU64::new(u64::MAX)).collect();
            for (at, used) in pattern.iter().enumerate() {
                set(&words, at, 1, *used);
            }
            let len = pattern.len();
            let naive = (0..len).find(|start| {
                start + need <= len && pattern[*start..start + need].iter().all(|used| !used)
            });
            prop_assert_eq!(find_run(&words, len, need).ok(), naive);
            for start in 0..len + 2 {
                let expected = start + need <= len && pattern[start..start + need].iter().all(|used| !used);
                prop_assert_eq!(is_free(&words, len, start, need), expected);
            }
            let free: usize = free_runs(&words, len).map(|(_, run)| run).sum();
            prop_assert_eq!(free, pattern.iter().filter(|used| !**used).count());
        }

        #[test]
        fn set_touches_its_range_only(start in 0..200_usize, count in 0..120_usize) {
            let words: Vec<AtomicU64> = (0..5).map(|_| AtomicU64::new(0)).collect();
            set(&words, start, count, true);
            for at in 0..320 {
                let bit = words[at / 64].load(Ordering::Relaxed) >> (at % 64) & 1 == 1;
                prop_assert_eq!(bit, (start..start + count).contains(&at));
            }
            set(&words, start, count, false);
            prop_assert_eq!(super::count(&words), 0);
        }
    }
}
