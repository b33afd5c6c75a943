//! Copies of blocks for a caller, from all tiers at once: the files read while the arena is copied from.

use std::cell::Cell;
use std::time::Instant;

use cascade_core::batch::{Batch, Op, Outcome};
use cascade_core::id::BlockId;
use cascade_core::lease::Lease;
use cascade_core::memory::SgList;
use cascade_core::tier::{BlockMeta, Lookup, MissReason, Tier};

use crate::files::Files;
use crate::moves::count::add;
use crate::moves::rise::How;
use crate::raw;
use crate::tally::Part;
use crate::tiers::{Answer, Tiers};

/// Blocks that are copied from the arena between two looks at what the files have read,
const SLICE_BLOCKS: usize = 64;
/// and their bytes, about.
const SLICE_BYTES: usize = 8 << 20;

/// A fetch under way: blocks, where they go, and what became of each.
struct Fetch<'a> {
    wanted: &'a [(BlockId, SgList)],
    answers: Vec<Cell<Answer<BlockMeta>>>,
}

impl Fetch<'_> {
    fn op(&self, at: usize) -> Op {
        let (id, into) = &self.wanted[at];
        Op::Fetch { id: *id, into: into.clone() }
    }

    fn ops(&self, places: &[usize]) -> Vec<Op> {
        places.iter().map(|at| self.op(*at)).collect()
    }

    fn set(&self, places: &[usize], outcomes: Vec<Outcome>) {
        places.iter().zip(outcomes).for_each(|(at, outcome)| self.answers[*at].set(answer(outcome)));
    }

    fn hits(&self) -> u64 {
        self.answers.iter().filter(|answer| answer.get().is_ok()).count() as u64
    }

    /// Whether a lower tier may still have the block.
    fn lacks(&self, at: &usize) -> bool {
        matches!(self.answers[*at].get(), Err(why) if why != MissReason::Destination)
    }

    /// How many of `places`, from the front, make a slice.
    fn slice(&self, places: &[usize]) -> usize {
        let mut bytes = 0;
        let fits = |at: &&usize| {
            let is_in = bytes < SLICE_BYTES;
            bytes += self.wanted[**at].1.len();
            is_in
        };
        places.iter().take(SLICE_BLOCKS).take_while(fits).count()
    }
}

impl Tiers {
    /// Copies blocks to lists, each from the highest tier that has it. What files have not read at `deadline` is a miss.
    pub(crate) fn fetch(
        &self,
        wanted: &[(BlockId, SgList)],
        deadline: Option<Instant>,
    ) -> Vec<Answer<BlockMeta>> {
        if wanted.iter().any(|(_, into)| !into.is_host()) {
            return wanted.iter().flat_map(|one| self.fetch_one(one, deadline)).collect();
        }
        let absent = Cell::new(Err(MissReason::Absent));
        let fetch = Fetch { wanted, answers: vec![absent; wanted.len()] };
        let all: Vec<usize> = (0..wanted.len()).collect();
        let (started, mut above) = (self.clock.now(), None);
        if let Some(files) = self.files() {
            above = Some(self.fetch_all(files, &fetch, all, deadline));
        } else {
            fetch.set(&all, raw::run(&self.arena, fetch.ops(&all)));
            add(&self.count.arena_hits, fetch.hits());
        }
        let took = self.clock.now().saturating_sub(started);
        let mut answers: Vec<_> = fetch.answers.iter().map(Cell::get).collect();
        let mut all = Part::default();
        answers.iter().flatten().for_each(|meta| all.add(meta.len));
        let above = above.unwrap_or(all);
        let below = Part { blocks: all.blocks - above.blocks, bytes: all.bytes - above.bytes };
        self.tally.served(above, below, Some(took));
        self.fetch_from_devices(wanted, &mut answers);
        answers.iter().filter_map(|answer| answer.err()).for_each(|why| self.count.missed(why));
        self.learner.fetch(wanted.iter().map(|(id, _)| id));
        answers
    }

    /// One of several, some of which go to device memory.
    fn fetch_one(&self, one: &(BlockId, SgList), deadline: Option<Instant>) -> Vec<Answer<BlockMeta>> {
        let (id, into) = one;
        if into.is_host() {
            self.fetch(std::slice::from_ref(one), deadline)
        } else {
            vec![self.get_device(id, into, None)]
        }
    }

    /// Both tiers at once: what the arena lacks is asked of the files first, and the arena's is copied while they read.
    fn fetch_all(
        &self,
        files: &Files,
        fetch: &Fetch<'_>,
        all: Vec<usize>,
        deadline: Option<Instant>,
    ) -> Part {
        // One block is asked for where it most likely is.
        let (above, below) = if all.len() > 1 { self.split(fetch, all) } else { (all, Vec::new()) };
        let (mut left, mut from_arena) = (&above[..], Part::default());
        let mut copy = || {
            let (slice, rest) = left.split_at(fetch.slice(left));
            left = rest;
            fetch.set(slice, raw::run(&self.arena, fetch.ops(slice)));
            let hits = slice.iter().filter(|at| fetch.answers[**at].get().is_ok());
            hits.clone()
                .filter_map(|at| fetch.answers[*at].get().ok())
                .for_each(|meta| from_arena.add(meta.len));
            self.queue_sinking(files, files.sighted(hits.map(|at| fetch.wanted[*at].0)));
            !slice.is_empty()
        };
        if !below.is_empty() {
            let mut how = How { deadline, is_cancelled: None, meanwhile: Some(&mut copy) };
            self.fetch_below(files, fetch, &below, &mut how);
        }
        while copy() {}
        add(&self.count.arena_hits, from_arena.blocks);
        let gone: Vec<usize> = above.iter().copied().filter(|at| fetch.lacks(at)).collect();
        if !gone.is_empty() {
            self.fetch_below(files, fetch, &gone, &mut How { deadline, ..How::default() });
        }
        add(&self.count.file_hits, fetch.hits() - from_arena.blocks);
        from_arena
    }

    /// Which blocks the arena may have, and which only others can have.
    fn split(&self, fetch: &Fetch<'_>, all: Vec<usize>) -> (Vec<usize>, Vec<usize>) {
        let ids: Vec<BlockId> = fetch.wanted.iter().map(|(id, _)| *id).collect();
        let mut seen = vec![Lookup::Pending; ids.len()];
        self.arena.lookup(&ids, &mut seen);
        let (mut above, mut below) = (Vec::new(), Vec::new());
        for (at, seen) in all.into_iter().zip(seen) {
            if let Lookup::Miss(why) = seen {
                fetch.answers[at].set(Err(why));
                below.push(at);
            } else {
                above.push(at);
            }
        }
        (above, below)
    }

    /// Fetches from files what the arena lacks: by way of the arena what is worth a place there, else straight.
    fn fetch_below(&self, files: &Files, fetch: &Fetch<'_>, left: &[usize], how: &mut How<'_>) {
        let deadline = how.deadline;
        let (straight, rising) = self.ways(files, fetch, left);
        let read = |places: &[usize]| {
            (!places.is_empty()).then(|| files.submit(Batch { ops: fetch.ops(places), deadline }))
        };
        let reading = read(&straight);
        let metas: Vec<(BlockId, BlockMeta)> =
            rising.iter().map(|(at, meta)| (fetch.wanted[*at].0, *meta)).collect();
        let mut refused = Vec::new();
        self.rise(files, &metas, how, |nth, risen| {
            let at = rising[nth].0;
            let (id, into) = &fetch.wanted[at];
            match risen {
                Ok(lease) => match copied(id, &lease, into) {
                    Some(meta) => fetch.answers[at].set(Ok(meta)),
                    None => refused.push(at),
                },
                Err(MissReason::Deadline) => fetch.answers[at].set(Err(MissReason::Deadline)),
                Err(_) => refused.push(at),
            }
        });
        let again = read(&refused);
        for (places, ticket) in [(straight, reading), (refused, again)] {
            let Some(ticket) = ticket else { continue };
            how.use_the_time(&ticket);
            fetch.set(&places, raw::complete(&ticket));
        }
    }

    /// What is read straight to the caller, and what goes by way of the arena.
    fn ways(
        &self,
        files: &Files,
        fetch: &Fetch<'_>,
        left: &[usize],
    ) -> (Vec<usize>, Vec<(usize, BlockMeta)>) {
        let ids: Vec<BlockId> = left.iter().map(|at| fetch.wanted[*at].0).collect();
        let mut found = vec![Lookup::Pending; ids.len()];
        files.lookup(&ids, &mut found);
        let (mut straight, mut rising) = (Vec::new(), Vec::new());
        for (at, found) in left.iter().zip(found) {
            let ((id, into), answer) = (&fetch.wanted[*at], &fetch.answers[*at]);
            match found {
                Lookup::Hit(meta)
                    if meta.len > into.len() as u64 || !into.is_host() || !into.is_writable() =>
                {
                    answer.set(Err(MissReason::Destination));
                }
                Lookup::Hit(meta) if self.is_worth_a_place(files, id) => rising.push((*at, meta)),
                Lookup::Hit(_) => straight.push(*at),
                Lookup::Miss(why) if answer.get() == Err(MissReason::Absent) => answer.set(Err(why)),
                Lookup::Miss(_) | Lookup::Pending => {}
            }
        }
        (straight, rising)
    }
}

fn answer(outcome: Outcome) -> Answer<BlockMeta> {
    match outcome {
        Outcome::Fetched(meta) => Ok(meta),
        Outcome::Miss(why) => Err(why),
        _ => Err(MissReason::Unavailable),
    }
}

/// Copies a leased block out, verified on the way.
fn copied(id: &BlockId, lease: &Lease, into: &SgList) -> Option<BlockMeta> {
    let digests = lease.scatter(into)?;
    let root = cascade_core::digest::root(id.as_bytes(), lease.meta().len, digests.into_iter());
    (root == lease.meta().digest).then(|| lease.meta())
}
