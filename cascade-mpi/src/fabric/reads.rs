//! Reads under way. None is waited for: each is looked at in turns, and given up at its deadline.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use cascade_core::tier::MissReason;

use super::raw::{Destination, Mpi, Progress, Request};
use super::{Counters, Path, Read};
use crate::message::{Area, Message};
use crate::peers::{Peers, Verdict};

/// Bytes that one rank is asked for at a time, and reads.
const BYTES_UNDER_WAY: usize = 64 << 20;
const READS_UNDER_WAY: usize = 64;
/// Answers that may still come for nobody, at most; looked for in a turn.
const MOST_STRAYS: usize = 1024;
const STRAYS_AT_A_TIME: usize = 4;
/// Tags of answers; the standard promises tags up to this.
const TAGS: std::ops::Range<u32> = 16..32_000;

struct Active {
    read: Read,
    request: Request,
    tag: u32,
}

/// Given up, and MPI may still write to it.
struct Abandoned {
    _into: Destination,
    request: Option<Request>,
    tag: u32,
}

/// What a look at the reads led to.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// Something was begun or ended.
    pub(super) moved: bool,
    /// To be sent.
    pub(super) tell: Vec<(u32, Message)>,
}

/// All reads of this rank.
pub(super) struct Reads {
    path: Path,
    waiting: VecDeque<Read>,
    active: Vec<Active>,
    abandoned: Vec<Abandoned>,
    /// Answers that were given up and may still come, by rank and tag. Who sends one is done with it only when it is received.
    strays: VecDeque<(u32, u32)>,
    /// Strays that are being received.
    drained: Vec<Request>,
    next_tag: u32,
}

/// What is needed to look at reads.
pub(super) struct Around<'a> {
    pub(super) mpi: &'a Mpi,
    pub(super) peers: &'a mut Peers,
    pub(super) counters: &'a Counters,
    pub(super) now: Duration,
}

impl Reads {
    pub(super) fn new(path: Path) -> Self {
        Self {
            path,
            waiting: VecDeque::new(),
            active: Vec::new(),
            abandoned: Vec::new(),
            strays: VecDeque::new(),
            drained: Vec::new(),
            next_tag: TAGS.start,
        }
    }

    pub(super) fn path(&self) -> Path {
        self.path
    }

    pub(super) fn push(&mut self, reads: Vec<Read>) {
        self.waiting.extend(reads);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.active.is_empty()
    }

    /// The ranks that are being read from, each once.
    pub(super) fn ranks(&self) -> Vec<u32> {
        let mut ranks: Vec<u32> = self.active.iter().map(|active| active.read.rank).collect();
        ranks.sort_unstable();
        ranks.dedup();
        ranks
    }

    /// Whether MPI may still write somewhere.
    pub(super) fn is_clear(&self) -> bool {
        self.is_idle() && self.abandoned.is_empty() && self.drained.is_empty()
    }

    /// Whether there is anything to look after.
    pub(super) fn is_at_rest(&self) -> bool {
        self.is_clear() && self.strays.is_empty()
    }

    /// Begins what can be begun and ends what has ended.
    pub(super) fn look(&mut self, around: &mut Around<'_>) -> Looked {
        let mut looked = Looked::default();
        self.end(around, &mut looked);
        self.begin(around, &mut looked);
        self.abandoned.retain_mut(|given_up| match &mut given_up.request {
            Some(request) => around.mpi.test(request) == Progress::UnderWay,
            // MPI failed with it, and says nothing of it any more: its memory goes into quarantine, for as long as that keeps it.
            None => false,
        });
        self.drain(around.mpi);
        let abandoned = self.abandoned.len() as u64;
        around.counters.abandoned.store(abandoned, std::sync::atomic::Ordering::Relaxed);
        looked
    }

    /// Receives what comes for nobody. A stray that never comes, because its rank is gone or never heard the question, costs a look now
    /// and then until others take its place.
    fn drain(&mut self, mpi: &Mpi) {
        self.drained.retain_mut(|request| mpi.test(request) == Progress::UnderWay);
        for _ in 0..self.strays.len().min(STRAYS_AT_A_TIME) {
            let Some((rank, tag)) = self.strays.pop_front() else { return };
            match mpi.take_stray(rank, tag) {
                Some(request) => self.drained.push(request),
                None => self.strays.push_back((rank, tag)),
            }
        }
        while self.strays.len() > MOST_STRAYS {
            self.strays.pop_front();
        }
    }

    /// The other rank will not answer the read with this tag.
    pub(super) fn refuse(&mut self, rank: u32, tag: u32, mpi: &Mpi, counters: &Counters) {
        let is_meant = |active: &Active| active.tag == tag && active.read.rank == rank;
        let Some(at) = self.active.iter().position(is_meant) else { return };
        let active = self.active.swap_remove(at);
        self.abandon(active, MissReason::Unavailable, mpi, counters);
    }

    fn begin(&mut self, around: &mut Around<'_>, looked: &mut Looked) {
        for _ in 0..self.waiting.len() {
            let Some(read) = self.waiting.pop_front() else { return };
            if Instant::now() >= read.deadline {
                failed(read, MissReason::Deadline, around.counters);
                looked.moved = true;
                continue;
            }
            match around.peers.verdict(read.rank, around.now) {
                Verdict::Out => {
                    failed(read, MissReason::Unavailable, around.counters);
                    looked.moved = true;
                }
                verdict @ (Verdict::Ask | Verdict::Asked) => {
                    if verdict == Verdict::Ask {
                        looked.tell.push((read.rank, Message::Ping(0)));
                    }
                    self.waiting.push_back(read);
                }
                Verdict::Well if self.is_full(read.rank) => self.waiting.push_back(read),
                Verdict::Well => {
                    looked.moved = true;
                    self.begin_one(read, around, looked);
                }
            }
        }
    }

    fn is_full(&self, rank: u32) -> bool {
        let there = self.active.iter().filter(|active| active.read.rank == rank);
        let (count, bytes) =
            there.fold((0, 0), |(count, bytes), active| (count + 1, bytes + active.read.into.len()));
        count >= READS_UNDER_WAY || bytes >= BYTES_UNDER_WAY
    }

    fn begin_one(&mut self, read: Read, around: &mut Around<'_>, looked: &mut Looked) {
        let tag = self.take_tag(read.rank);
        let request = match self.path {
            Path::Rma => around.mpi.get(read.rank, read.area, read.offset, &read.into),
            Path::Message | Path::Alone => around.mpi.expect(read.rank, tag, &read.into),
        };
        let Some(request) = request else {
            around.peers.lost(read.rank);
            return failed(read, MissReason::Unavailable, around.counters);
        };
        if self.path == Path::Message {
            let len = u32::try_from(read.into.len()).unwrap_or(0);
            let (area, offset): (Area, u64) = (read.area, read.offset);
            looked.tell.push((read.rank, Message::Read { tag, area, offset, len }));
        }
        self.active.push(Active { read, request, tag });
    }

    /// A tag that nothing under way with `rank` has: an answer that comes too late must find its own place.
    fn take_tag(&mut self, rank: u32) -> u32 {
        loop {
            let tag = self.next_tag;
            self.next_tag = if tag + 1 < TAGS.end { tag + 1 } else { TAGS.start };
            let is_used = self.active.iter().any(|active| active.tag == tag && active.read.rank == rank)
                || self.abandoned.iter().any(|given_up| given_up.tag == tag)
                || self.strays.contains(&(rank, tag));
            if !is_used {
                return tag;
            }
        }
    }

    fn end(&mut self, around: &mut Around<'_>, looked: &mut Looked) {
        let mut at = 0;
        while let Some(active) = self.active.get_mut(at) {
            let progress = around.mpi.test(&mut active.request);
            let is_late = progress == Progress::UnderWay && Instant::now() >= active.read.deadline;
            if progress == Progress::UnderWay && !is_late {
                at += 1;
                continue;
            }
            looked.moved = true;
            let active = self.active.swap_remove(at);
            match progress {
                Progress::Done => {
                    around.peers.heard(active.read.rank, around.now);
                    ended(active.read, around.counters);
                }
                Progress::UnderWay => {
                    around.peers.silent(active.read.rank, around.now);
                    self.abandon(active, MissReason::Deadline, around.mpi, around.counters);
                }
                Progress::Failed(_) => {
                    around.peers.lost(active.read.rank);
                    let Active { read, tag, .. } = active;
                    let into = failed_but(read, MissReason::Unavailable, around.counters);
                    self.abandoned.push(Abandoned { _into: into, request: None, tag });
                }
            }
        }
    }

    fn abandon(&mut self, active: Active, why: MissReason, mpi: &Mpi, counters: &Counters) {
        let Active { read, mut request, tag } = active;
        if self.path == Path::Message {
            mpi.cancel(&mut request);
            if why == MissReason::Deadline {
                self.strays.push_back((read.rank, tag));
            }
        }
        let into = failed_but(read, why, counters);
        self.abandoned.push(Abandoned { _into: into, request: Some(request), tag });
    }
}

fn ended(read: Read, counters: &Counters) {
    use std::sync::atomic::Ordering::Relaxed;
    counters.reads.fetch_add(1, Relaxed);
    counters.read_bytes.fetch_add(read.into.len() as u64, Relaxed);
    let Read { into, done, number, .. } = read;
    // Whoever hears of it may use the memory as its own.
    drop(into);
    let _ = done.send((number, Ok(())));
}

fn failed(read: Read, why: MissReason, counters: &Counters) {
    drop(failed_but(read, why, counters));
}

/// Tells of a read that failed, and gives what must be kept.
fn failed_but(read: Read, why: MissReason, counters: &Counters) -> Destination {
    let count = if why == MissReason::Deadline { &counters.late_reads } else { &counters.failed_reads };
    count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let _ = read.done.send((read.number, Err(why)));
    read.into
}
