//! The best plain copy of this machine between the same kinds of memory, by the same number of threads.

use cascade_core::copy::Direction;

use crate::memory::{Method, Part, Region, copy};
use crate::report::Ceiling;
use crate::shape::Shape;
use crate::stats::Spread;
use crate::team::timed;
use crate::units::gbps;

/// One way to copy, with the rates that it reached.
#[derive(Debug)]
pub(crate) struct Candidate {
    method: Method,
    threads: usize,
    rates: Vec<f64>,
}

/// All ways for `threads` threads. One block shared by several threads is copied in equal parts by threads that wait for each
/// other only at the end of the lap, and by Cascade's own pool without digests.
pub(crate) fn candidates(direction: Direction, threads: usize, callers: usize) -> Vec<Candidate> {
    let candidate = |method, threads| Candidate { method, threads, rates: Vec::new() };
    let mut candidates: Vec<_> =
        Method::available().into_iter().map(|method| candidate(method, threads)).collect();
    if threads > callers {
        candidates.push(candidate(Method::Pool(direction), callers));
    }
    candidates
}

struct Copier<'a> {
    target: Part<'a>,
    source: Part<'a>,
}

impl Candidate {
    /// Copies as many bytes as a lap of `shape`, in blocks as large, between `private` and `shared` memory in `direction`.
    pub(crate) fn lap(
        &mut self,
        private: &mut Region,
        shared: &mut Region,
        direction: Direction,
        shape: &Shape,
    ) {
        let (private, shared) = (private.split(self.threads), shared.split(self.threads));
        let (target, source) = match direction {
            Direction::Put => (shared, private),
            Direction::Get => (private, shared),
        };
        let mut copiers: Vec<_> =
            target.into_iter().zip(source).map(|(target, source)| Copier { target, source }).collect();
        let block = share(shape, self.threads);
        // The turns that puts and gets take: private memory in its places, the tier's through the whole lap.
        let (targets, sources) = match direction {
            Direction::Put => (shape.blocks, shape.places),
            Direction::Get => (shape.places, shape.blocks),
        };
        let method = self.method;
        let (time, _) = timed(&mut copiers, |copier| {
            for index in 0..shape.blocks {
                let (to, from) = (index % targets * block, index % sources * block);
                copy(method, &mut copier.target, to, &copier.source, from, block);
            }
        });
        self.rates.push(gbps((shape.blocks * block * self.threads) as u64, time.as_secs_f64()));
    }
}

/// What each of `threads` threads copies of a block: all of it, or its part when they are more than the callers.
fn share(shape: &Shape, threads: usize) -> usize {
    match threads / shape.callers {
        0 | 1 => shape.block,
        parts => (shape.block / parts) & !63,
    }
}

/// The candidate with the highest median.
pub(crate) fn best(candidates: &[Candidate]) -> Option<Ceiling> {
    let median = |candidate: &Candidate| Spread::of(&candidate.rates).map(|spread| spread.median);
    let rated = candidates.iter().filter_map(|candidate| Some((candidate, median(candidate)?)));
    let (best, gbps) = rated.max_by(|a, b| a.1.total_cmp(&b.1))?;
    let threads = if best.threads == 1 { String::new() } else { format!(", {} threads", best.threads) };
    Some(Ceiling { what: format!("{}{threads}", best.method), gbps })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffers::Buffers;

    #[test]
    fn every_way_is_measured_and_the_best_median_wins() {
        let folder = tempfile::tempdir().unwrap();
        let shape = Shape { block: 100_000, callers: 1, blocks: 3, places: 2 };
        let mut buffers = Buffers::new(folder.path(), &[shape]).unwrap();
        let mut candidates = candidates(Direction::Put, 2, 1);
        for candidate in &mut candidates {
            candidate.lap(&mut buffers.source, &mut buffers.shared, Direction::Put, &shape);
            candidate.lap(&mut buffers.target, &mut buffers.shared, Direction::Get, &shape);
            assert!(candidate.rates.len() == 2 && candidate.rates.iter().all(|rate| *rate > 0.0));
            candidate.rates = vec![1.0, 2.0, 9.0];
        }
        candidates[1].rates = vec![3.0, 3.0, 3.0];
        let best = best(&candidates).unwrap();
        assert_eq!(best.gbps, 3.0);
        assert!(best.what.ends_with(", 2 threads"), "{best:?}");
    }

    #[test]
    fn threads_share_a_block_only_when_they_are_more_than_the_callers() {
        let shape = Shape { block: 1000, callers: 2, blocks: 1, places: 1 };
        assert_eq!(share(&shape, 2), 1000);
        assert_eq!(share(&Shape { callers: 1, ..shape }, 2), 448);
    }
}
