//! One timed round of puts or gets, by some callers at once, and the check of its bytes.

use std::time::Instant;

use cascade_core::batch::Outcome;
use cascade_core::id::BlockId;
use cascade_core::tier::{Lookup, Tier};
use cascade_core::{Error, ErrorKind, Result};

use crate::buffers::Buffers;
use crate::memory::{Part, fetch, store};
use crate::shape::Shape;
use crate::team::timed;
use crate::units::gbps;

/// Rounds of putting evicted blocks again.
const RESTORE_ROUNDS: usize = 8;

/// What a round took.
#[derive(Debug)]
pub(crate) struct Lap {
    /// Rate of all callers together.
    pub(crate) gbps: f64,
    /// Each operation, in microseconds.
    pub(crate) each_us: Vec<f64>,
}

/// Ids that were never used before in this run.
#[derive(Debug, Default)]
pub(crate) struct FreshIds {
    used: u64,
}

impl FreshIds {
    /// As many as a lap of `shape` stores, for each caller.
    pub(crate) fn lap(&mut self, shape: &Shape) -> Vec<Vec<BlockId>> {
        (0..shape.callers).map(|_| self.take(shape.blocks)).collect()
    }

    /// `count` ids.
    pub(crate) fn take(&mut self, count: usize) -> Vec<BlockId> {
        let first = self.used;
        self.used += count as u64;
        (first..self.used).map(|number| BlockId::named(&format!("bench-{number}"))).collect()
    }
}

struct Caller<'a> {
    ids: &'a [BlockId],
    part: Part<'a>,
}

/// Puts every block once, each caller one after another.
pub(crate) fn put(
    tier: &dyn Tier,
    buffers: &mut Buffers,
    shape: &Shape,
    ids: &[Vec<BlockId>],
) -> Result<Lap> {
    let Shape { block, places, .. } = *shape;
    let mut callers = callers(buffers.source.split(shape.callers), ids);
    run(&mut callers, shape, |caller, index| {
        let outcomes =
            store(tier, std::slice::from_ref(&caller.ids[index]), &caller.part, index, places, block);
        match outcomes[..] {
            [Outcome::Stored] => Ok(()),
            _ => Err(unexpected("put", block, &outcomes)),
        }
    })
}

/// Gets every block once, each caller one after another.
pub(crate) fn get(
    tier: &dyn Tier,
    buffers: &mut Buffers,
    shape: &Shape,
    ids: &[Vec<BlockId>],
) -> Result<Lap> {
    let Shape { block, places, .. } = *shape;
    let mut callers = callers(buffers.target.split(shape.callers), ids);
    run(&mut callers, shape, |caller, index| {
        match fetch(tier, &caller.ids[index], &mut caller.part, index % places * block, block) {
            Outcome::Fetched(meta) if meta.len == block as u64 => Ok(()),
            outcome => Err(unexpected("get", block, &[outcome])),
        }
    })
}

/// Puts again what the tier has evicted of the blocks that [`put`] stored: a full bucket of the index can push out a young
/// block. Gives how many; afterwards all of them are there.
pub(crate) fn restore(
    tier: &dyn Tier,
    buffers: &mut Buffers,
    shape: &Shape,
    ids: &[Vec<BlockId>],
) -> Result<usize> {
    let Shape { block, places, .. } = *shape;
    let sources = buffers.source.split(shape.callers);
    let mut evicted = 0;
    for _ in 0..RESTORE_ROUNDS {
        let mut absent = 0;
        for (ids, source) in ids.iter().zip(&sources) {
            let mut answers = vec![Lookup::Pending; ids.len()];
            tier.lookup(ids, &mut answers);
            for index in (0..ids.len()).filter(|index| !answers[*index].is_hit()) {
                let outcomes = store(tier, std::slice::from_ref(&ids[index]), source, index, places, block);
                if outcomes[..] != [Outcome::Stored] {
                    return Err(unexpected("put", block, &outcomes));
                }
                absent += 1;
            }
        }
        if absent == 0 {
            return Ok(evicted);
        }
        evicted += absent;
    }
    let context = format!("blocks of {block} bytes are evicted as fast as they are put: {evicted} so far");
    Err(Error::new(ErrorKind::NoSpace, context))
}

/// Whether the tier gives back what [`put`] stored, byte for byte.
pub(crate) fn is_stored(tier: &dyn Tier, buffers: &mut Buffers, shape: &Shape, ids: &[Vec<BlockId>]) -> bool {
    let Shape { block, places, .. } = *shape;
    let sources = buffers.source.split(shape.callers);
    let mut targets = callers(buffers.target.split(shape.callers), ids);
    let is_right = |(target, source): (&mut Caller<'_>, &Part<'_>)| {
        (0..target.ids.len()).all(|index| {
            let got = fetch(tier, &target.ids[index], &mut target.part, 0, block);
            matches!(got, Outcome::Fetched(meta) if meta.len == block as u64)
                && target.part.equals(0, source, index % places * block, block)
        })
    };
    targets.iter_mut().zip(&sources).all(is_right)
}

/// Whether the private buffers hold what the last [`get`] should have brought: place by place the source's bytes, because
/// puts and gets take turns in the same places. Wiped before with [`wipe`], so that old bytes cannot pass.
pub(crate) fn is_fetched(buffers: &mut Buffers, shape: &Shape) -> bool {
    let bytes = shape.places * shape.block;
    let targets = buffers.target.split(shape.callers);
    let sources = buffers.source.split(shape.callers);
    targets.iter().zip(&sources).all(|(target, source)| target.equals(0, source, 0, bytes))
}

/// Overwrites the destination of gets.
pub(crate) fn wipe(buffers: &mut Buffers) {
    buffers.target.split(1).iter_mut().for_each(|part| part.fill(0x5a));
}

fn callers<'a>(parts: Vec<Part<'a>>, ids: &'a [Vec<BlockId>]) -> Vec<Caller<'a>> {
    parts.into_iter().zip(ids).map(|(part, ids)| Caller { ids, part }).collect()
}

fn run(
    callers: &mut [Caller<'_>],
    shape: &Shape,
    operation: impl Fn(&mut Caller<'_>, usize) -> Result<()> + Sync,
) -> Result<Lap> {
    let (time, each) = timed(callers, |caller| -> Result<Vec<f64>> {
        let mut each = Vec::with_capacity(caller.ids.len());
        let mut last = Instant::now();
        for index in 0..caller.ids.len() {
            operation(caller, index)?;
            let now = Instant::now();
            each.push((now - last).as_secs_f64() * 1e6);
            last = now;
        }
        Ok(each)
    });
    let each: Result<Vec<_>> = each.into_iter().collect();
    Ok(Lap { gbps: gbps(shape.lap_bytes(), time.as_secs_f64()), each_us: each?.concat() })
}

pub(crate) fn unexpected(op: &str, block: usize, outcomes: &[Outcome]) -> Error {
    let context = format!("{op} of blocks of {block} bytes: the tier answered {outcomes:?}");
    Error::new(ErrorKind::Unsupported, context)
}

#[cfg(test)]
mod tests {
    use cascade_core::memory_tier::MemoryTier;

    use super::*;

    #[test]
    fn what_was_evicted_is_put_again_and_wrong_bytes_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let shape = Shape { block: 4096, callers: 2, blocks: 4, places: 2 };
        let mut buffers = Buffers::new(folder.path(), &[shape]).unwrap();
        let (tier, mut fresh) = (MemoryTier::new(1 << 20), FreshIds::default());
        let ids = fresh.lap(&shape);
        assert_eq!(put(&tier, &mut buffers, &shape, &ids[..]).unwrap().each_us.len(), 8);
        assert_eq!(restore(&tier, &mut buffers, &shape, &ids).unwrap(), 0);
        assert!(is_stored(&tier, &mut buffers, &shape, &ids));

        // Half of the room: four of the eight are gone, and all can never be there.
        let small = MemoryTier::new(4 * 4096);
        put(&small, &mut buffers, &shape, &ids).unwrap();
        assert!(!is_stored(&small, &mut buffers, &shape, &ids));
        assert_eq!(restore(&small, &mut buffers, &shape, &ids).unwrap_err().kind(), ErrorKind::NoSpace);

        let other = fresh.lap(&shape);
        assert_eq!(restore(&tier, &mut buffers, &shape, &other).unwrap(), 8);
        get(&tier, &mut buffers, &shape, &other).unwrap();
        assert!(is_fetched(&mut buffers, &shape));
        wipe(&mut buffers);
        assert!(!is_fetched(&mut buffers, &shape));
        buffers.source.split(1)[0].fill(3);
        assert!(!is_stored(&tier, &mut buffers, &shape, &other));
    }
}
