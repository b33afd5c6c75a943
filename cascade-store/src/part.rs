//! Parts of blocks: one layer's rows, say.

use std::time::{Duration, Instant};

use cascade_core::batch::Outcome;
use cascade_core::id::BlockId;
use cascade_core::memory::SgList;
use cascade_core::tier::{Addressable, BlockMeta, Lookup, MissReason};

use crate::chain::Level;
use crate::files::Files;
use crate::moves::count::add;
use crate::raw;
use crate::remote::Came;
use crate::tally;
use crate::tiers::{Answer, Tiers};

/// How long a part of a block may take to come from files: they are not asked again and again by somebody who waits for ever.
const WITHIN: Duration = Duration::from_secs(60);
/// How often a block that is replaced meanwhile is asked for.
const ATTEMPTS: usize = 3;

impl Tiers {
    /// Copies `out.len()` bytes of a block, from `offset` on: from the arena where it is there, else the chunks of the file that
    /// cover them. Nothing moves up for it, but a whole block of another node.
    pub(crate) fn fetch_part(&self, id: &BlockId, offset: u64, out: &mut [u8]) -> Answer<BlockMeta> {
        let started = self.clock.now();
        let (answer, level) = self.part_from(id, offset, out);
        match answer {
            Ok(_) => {
                let (part, mut parts) =
                    (tally::Part { blocks: 1, bytes: out.len() as u64 }, tally::Parts::default());
                let (part_of, count) = match level {
                    Level::Files => (&mut parts.files, &self.count.file_hits),
                    Level::Remote => (&mut parts.remote, &self.count.remote_hits),
                    _ => (&mut parts.arena, &self.count.arena_hits),
                };
                *part_of = part;
                add(count, 1);
                self.tally.served(parts, Some(self.clock.now().saturating_sub(started)));
            }
            Err(why) => self.count.missed(why),
        }
        self.learner.fetch(std::iter::once(id));
        answer
    }

    /// From the first that has it, and who that is.
    fn part_from(&self, id: &BlockId, offset: u64, out: &mut [u8]) -> (Answer<BlockMeta>, Level) {
        let (mut answer, mut level) = (self.part_above(id, offset, out), Level::Arena);
        let mut came = Came::default();
        if answer == Err(MissReason::Absent) {
            came = self.bring(std::slice::from_ref(id), None);
            if came.has(0) {
                (answer, level) = (self.part_above(id, offset, out), Level::Remote);
            }
        }
        if answer.is_err_and(|why| why != MissReason::Destination)
            && let Some(files) = self.files()
        {
            (answer, level) = (part_below(files, id, offset, out), Level::Files);
        }
        came.explain(0, &mut answer);
        (answer, level)
    }

    fn part_above(&self, id: &BlockId, offset: u64, out: &mut [u8]) -> Answer<BlockMeta> {
        let lease = self.arena.lease(id)?;
        let at = usize::try_from(offset).map_err(|_| MissReason::Destination)?;
        let is_within = !out.is_empty() && at.checked_add(out.len()).is_some_and(|end| end <= lease.len());
        if is_within && lease.read_at(at, out) { Ok(lease.meta()) } else { Err(MissReason::Destination) }
    }
}

fn part_below(files: &Files, id: &BlockId, offset: u64, out: &mut [u8]) -> Answer<BlockMeta> {
    let deadline = Instant::now() + WITHIN;
    for _ in 0..ATTEMPTS {
        // Another process may have replaced or deleted it.
        if !files.is_current_for(std::slice::from_ref(id)) {
            return Err(MissReason::Unavailable);
        }
        let there = match files.find(id) {
            Lookup::Hit(there) => there,
            Lookup::Miss(why) => return Err(why),
            Lookup::Pending => return Err(MissReason::Absent),
        };
        if files.is_shut() {
            return Err(MissReason::Unavailable);
        }
        let read = |into: &SgList| files.tier.fetch_part(id, offset, into, deadline);
        match raw::into_slice(out, read) {
            // What is hidden from this store may be read while another takes its place.
            Outcome::Fetched(meta) if meta.digest == there.digest => return Ok(meta),
            Outcome::Fetched(_) => {}
            Outcome::Miss(why) => return Err(why),
            _ => return Err(MissReason::Unavailable),
        }
    }
    Err(MissReason::Evicting)
}
