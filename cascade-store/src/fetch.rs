//! Copies of blocks for a caller, from all tiers at once: the files read while the arena is copied from.

use std::cell::Cell;
use std::collections::VecDeque;
use std::time::Instant;

use cascade_core::batch::{Batch, Op, Outcome, Ticket};
use cascade_core::id::BlockId;
use cascade_core::lease::Lease;
use cascade_core::memory::SgList;
use cascade_core::tier::{BlockMeta, Lookup, MissReason, Tier};

use crate::files::Files;
use crate::moves::count::add;
use crate::moves::rise::{How, Up};
use crate::raw;
use crate::remote::Came;
use crate::spans::span;
use crate::tally::{Part, Parts};
use crate::tiers::{Answer, Tiers};

/// Blocks that are copied from the arena between two looks at what the files have read,
const SLICE_BLOCKS: usize = 64;
/// and their bytes, about.
const SLICE_BYTES: usize = 8 << 20;

/// Bytes, about, of a batch that is read straight to the caller, and how many are under way at once.
const STRAIGHT_BYTES: usize = 32 << 20;
const STRAIGHT_BATCHES: usize = 3;

/// When a fetch is given up.
#[derive(Clone, Copy, Default)]
pub(crate) struct Until<'a> {
    /// What files have not read then is a miss.
    pub(crate) deadline: Option<Instant>,
    /// Whether nobody wants the rest any more; it is answered as if it were late.
    pub(crate) is_cancelled: Option<&'a dyn Fn() -> bool>,
}

impl Until<'_> {
    fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
            || self.is_cancelled.is_some_and(|is_cancelled| is_cancelled())
    }
}

/// A fetch under way: blocks, where they go, and what became of each.
struct Fetch<'a> {
    wanted: &'a [(BlockId, SgList)],
    answers: Vec<Cell<Answer<BlockMeta>>>,
    /// What other nodes had of it: it is in the arena.
    came: Came,
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

    /// Whether a lower tier may still have the block.
    fn lacks(&self, at: &usize) -> bool {
        let is_final = |why| matches!(why, MissReason::Destination | MissReason::Deadline);
        self.answers[*at].get().is_err_and(|why| !is_final(why))
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
        self.fetch_until(wanted, Until { deadline, is_cancelled: None })
    }

    /// [`Tiers::fetch`], which may be cancelled too.
    pub(crate) fn fetch_until(
        &self,
        wanted: &[(BlockId, SgList)],
        until: Until<'_>,
    ) -> Vec<Answer<BlockMeta>> {
        if wanted.iter().any(|(_, into)| !into.is_host()) {
            return wanted.iter().flat_map(|one| self.fetch_one(one, until)).collect();
        }
        let span = span!(DEBUG, "get", blocks = wanted.len(), hits = tracing::field::Empty).entered();
        let absent = Cell::new(Err(MissReason::Absent));
        let started = self.clock.now();
        let came = self.bring_wanted(wanted, until);
        let fetch = Fetch { wanted, answers: vec![absent; wanted.len()], came };
        let all: Vec<usize> = (0..wanted.len()).collect();
        let mut above = None;
        if let Some(files) = self.files() {
            above = Some(self.fetch_all(files, &fetch, all, until));
        } else {
            self.copy_up(&fetch, &all);
        }
        let took = self.clock.now().saturating_sub(started);
        let mut answers: Vec<_> = fetch.answers.iter().map(Cell::get).collect();
        let (mut all, mut remote) = (Part::default(), Part::default());
        for (at, meta) in answers.iter().enumerate().filter_map(|(at, answer)| Some((at, answer.ok()?))) {
            all.add(meta.len);
            if fetch.came.has(at) {
                remote.add(meta.len);
            }
        }
        let above = above.unwrap_or(all);
        let remote = Part { blocks: remote.blocks.min(above.blocks), bytes: remote.bytes.min(above.bytes) };
        let (arena, files) = (above.without(remote), all.without(above));
        add(&self.count.arena_hits, arena.blocks);
        add(&self.count.remote_hits, remote.blocks);
        add(&self.count.file_hits, files.blocks);
        self.tally.served(Parts { arena, remote, files }, Some(took));
        answers.iter_mut().enumerate().for_each(|(at, answer)| fetch.came.explain(at, answer));
        self.fetch_from_devices(wanted, &mut answers);
        span.record("hits", answers.iter().filter(|answer| answer.is_ok()).count());
        answers.iter().filter_map(|answer| answer.err()).for_each(|why| self.count.missed(why));
        self.learner.fetch(wanted.iter().map(|(id, _)| id));
        answers
    }

    /// Brings from other nodes what is wanted and not here.
    fn bring_wanted(&self, wanted: &[(BlockId, SgList)], until: Until<'_>) -> Came {
        if self.elsewhere().is_none() {
            return Came::default();
        }
        let ids: Vec<BlockId> = wanted.iter().map(|(id, _)| *id).collect();
        self.tally.phases.transfer(&*self.clock, || self.bring(&ids, until.deadline))
    }

    /// One of several, some of which go to device memory.
    fn fetch_one(&self, one: &(BlockId, SgList), until: Until<'_>) -> Vec<Answer<BlockMeta>> {
        let (id, into) = one;
        if into.is_host() {
            self.fetch_until(std::slice::from_ref(one), until)
        } else {
            vec![self.get_device(id, into, None)]
        }
    }

    /// Both tiers at once: what the arena lacks is asked of the files first, and the arena's is copied while they read.
    fn fetch_all(&self, files: &Files, fetch: &Fetch<'_>, all: Vec<usize>, until: Until<'_>) -> Part {
        let deadline = until.deadline;
        // One block is asked for where it most likely is.
        let split = || if all.len() > 1 { self.split(fetch, all) } else { (all, Vec::new()) };
        let (above, below) = self.tally.phases.lookup(&*self.clock, split);
        let (mut left, mut from_arena) = (&above[..], Part::default());
        let mut copy = || {
            let (slice, rest) = left.split_at(fetch.slice(left));
            left = rest;
            if left.len() + slice.len() < above.len() && until.is_over() {
                slice.iter().for_each(|at| fetch.answers[*at].set(Err(MissReason::Deadline)));
                return !slice.is_empty();
            }
            self.copy_up(fetch, slice);
            let hits = slice.iter().filter(|at| fetch.answers[**at].get().is_ok());
            hits.clone()
                .filter_map(|at| fetch.answers[*at].get().ok())
                .for_each(|meta| from_arena.add(meta.len));
            self.queue_sinking(files, files.sighted(hits.map(|at| fetch.wanted[*at].0)));
            !slice.is_empty()
        };
        if !below.is_empty() {
            let is_cancelled = until.is_cancelled;
            let mut how = How { deadline, is_cancelled, meanwhile: Some(&mut copy), ..How::default() };
            self.fetch_below(files, fetch, &below, &mut how);
        }
        while copy() {}
        let gone: Vec<usize> = above.iter().copied().filter(|at| fetch.lacks(at)).collect();
        if !gone.is_empty() {
            self.fetch_below(files, fetch, &gone, &mut How { deadline, ..How::default() });
        }
        from_arena
    }

    /// Copies what the arena has.
    fn copy_up(&self, fetch: &Fetch<'_>, places: &[usize]) {
        let copied = self.tally.phases.copy(&*self.clock, || raw::run(&self.arena, fetch.ops(places)));
        fetch.set(places, copied);
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
        let ways = || self.ways(files, fetch, left);
        let (straight, rising) = self.tally.phases.lookup(&*self.clock, ways);
        let mut reading = Straight::new(files, fetch, straight);
        reading.begin(how);
        let metas: Vec<(BlockId, BlockMeta)> =
            rising.iter().map(|(at, meta)| (fetch.wanted[*at].0, *meta)).collect();
        let mut refused = Vec::new();
        let into = |nth: usize| &fetch.wanted[rising[nth].0].1;
        let (deadline, is_cancelled) = (how.deadline, how.is_cancelled);
        let mut meanwhile = || how.meanwhile.as_mut().is_some_and(|work| work());
        let mut rise = How { deadline, is_cancelled, meanwhile: Some(&mut meanwhile), targets: Some(&into) };
        self.rise(files, &metas, &mut rise, |nth, risen| {
            let at = rising[nth].0;
            let (id, into) = &fetch.wanted[at];
            let copy = |up: &Up| self.tally.phases.copy(&*self.clock, || copied(id, &up.lease, into));
            match risen {
                Ok(up) if up.is_copied => fetch.answers[at].set(Ok(up.lease.meta())),
                Ok(up) => match copy(&up) {
                    Some(meta) => fetch.answers[at].set(Ok(meta)),
                    None => refused.push(at),
                },
                Err(MissReason::Deadline) => fetch.answers[at].set(Err(MissReason::Deadline)),
                Err(_) => refused.push(at),
            }
        });
        reading.left.extend(refused);
        reading.begin(how);
        while let Some((places, ticket)) = reading.under_way.pop_front() {
            how.use_the_time(&ticket);
            let read = self.tally.phases.transfer(&*self.clock, || raw::complete(&ticket));
            fetch.set(&places, read);
            reading.begin(how);
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
        let is_current = files.is_current_for(&ids);
        files.lookup(&ids, &mut found);
        if !is_current {
            found.fill(Lookup::Miss(MissReason::Unavailable));
        }
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

/// Blocks that are read from files to the caller, without a place in the arena; some batches at once.
struct Straight<'a> {
    files: &'a Files,
    fetch: &'a Fetch<'a>,
    left: VecDeque<usize>,
    under_way: VecDeque<(Vec<usize>, Ticket)>,
}

impl<'a> Straight<'a> {
    fn new(files: &'a Files, fetch: &'a Fetch<'a>, places: Vec<usize>) -> Self {
        Self { files, fetch, left: places.into(), under_way: VecDeque::new() }
    }

    /// Hands over as many batches as are to be under way; nothing more of what is given up.
    fn begin(&mut self, how: &How<'_>) {
        while self.under_way.len() < STRAIGHT_BATCHES && !self.left.is_empty() {
            if let Some(why) = how.given_up() {
                self.left.drain(..).for_each(|at| self.fetch.answers[at].set(Err(why)));
                return;
            }
            let (mut places, mut bytes) = (Vec::new(), 0);
            while bytes < STRAIGHT_BYTES
                && let Some(at) = self.left.pop_front()
            {
                bytes += self.fetch.wanted[at].1.len();
                places.push(at);
            }
            let batch = Batch { ops: self.fetch.ops(&places), deadline: how.deadline };
            let ticket = self.files.submit(batch);
            self.under_way.push_back((places, ticket));
        }
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
