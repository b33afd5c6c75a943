//! The fabric: one thread that owns every call of MPI, and the handle by which others ask it.
//!
//! It reads out of windows of other ranks, delivers messages, serves its own rank's part of the directory, and makes the progress
//! that reads by others need. It never waits for one rank: everything under way is looked at in turns, with a deadline of its own.

mod barrier;
mod card;
mod measure;
mod raw;
mod reads;
mod thread;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use cascade_core::tier::MissReason;
use cascade_core::{Error, ErrorKind, Result};
use parking_lot::Mutex;

use crate::choice::Standing;
use crate::directory::{Owner, Table};
use crate::home::Home;
use crate::message::{Area, Message};
use crate::peers::{Patience, Peers};
use crate::route::Route;

pub(crate) use card::Card;
use measure::RawReads;
pub use raw::Window;
pub(crate) use raw::{Destination, Transfer, copy_out, digests, fill};

/// How bytes come from other ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// One-sided, out of windows.
    Rma,
    /// By messages, which the other rank answers: where no windows can be made.
    Message,
    /// There is no other rank.
    Alone,
}

impl Path {
    /// The name as reports write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rma => "rma",
            Self::Message => "message",
            Self::Alone => "alone",
        }
    }
}

/// How a fabric is started; the same on every rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FabricConfig {
    /// Buckets of the directory on each rank, of 512 bytes and four blocks: one for each block that a rank will have is ample.
    pub buckets: usize,
    /// Whether windows are made at all.
    pub windows: bool,
    /// How long others may be silent.
    pub patience: Patience,
}

impl Default for FabricConfig {
    fn default() -> Self {
        Self { buckets: 1 << 16, windows: true, patience: Patience::default() }
    }
}

/// What the fabric has done.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) reads: AtomicU64,
    pub(crate) read_bytes: AtomicU64,
    pub(crate) late_reads: AtomicU64,
    pub(crate) failed_reads: AtomicU64,
    pub(crate) abandoned: AtomicU64,
    pub(crate) messages: AtomicU64,
    pub(crate) bad_messages: AtomicU64,
    pub(crate) unsent: AtomicU64,
}

/// What the fabric has done since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FabricStats {
    /// Reads that were answered: buckets, heads, and parts of payloads.
    pub reads: u64,
    /// Their bytes.
    pub read_bytes: u64,
    /// Reads that were given up at their deadline.
    pub late_reads: u64,
    /// Reads that MPI or the other rank refused, or that were never begun because the rank does not answer.
    pub failed_reads: u64,
    /// Of these, reads that MPI may still be working on: their memory is out of use until it is done.
    pub abandoned: u64,
    /// Messages that arrived.
    pub messages: u64,
    /// Messages that arrived and made no sense.
    pub bad_messages: u64,
    /// Messages that were not sent because their receiver does not answer.
    pub unsent: u64,
    /// Ranks that are left alone now.
    pub ranks_out: u64,
}

/// What became of a read.
pub(crate) type ReadEnd = std::result::Result<(), MissReason>;

/// A read out of a window of another rank.
pub(crate) struct Read {
    pub(crate) rank: u32,
    pub(crate) area: Area,
    pub(crate) offset: u64,
    pub(crate) into: Destination,
    pub(crate) deadline: Instant,
    /// Told when it has ended, by number; when it has ended well, the destination is no longer held.
    pub(crate) done: Sender<(usize, ReadEnd)>,
    pub(crate) number: usize,
}

enum Ask {
    Read(Vec<Read>),
    Tell(u32, Message),
    Raw(RawReads),
    Stop(Duration, Sender<bool>),
}

/// What handles and thread share.
#[derive(Debug)]
struct Shared {
    table: Arc<Table>,
    peers: Mutex<Peers>,
    counters: Counters,
    began: Instant,
    ended: AtomicBool,
    /// The thread looks without ever resting.
    is_awake: AtomicBool,
    meetings: barrier::Meetings,
}

/// What is known once every rank has started.
#[derive(Debug)]
struct Started {
    rank: u32,
    library: String,
    path: Path,
    cards: Vec<Card>,
}

/// The handle on this process's fabric. There is one for each process, and one home for each fabric.
#[derive(Debug)]
pub struct Fabric {
    asks: Sender<Ask>,
    thread: Thread,
    join: Mutex<Option<JoinHandle<()>>>,
    shared: Arc<Shared>,
    started: Started,
    route: Route,
    process: u32,
    /// Nobody asks while it is being stopped.
    stopping: RwLock<bool>,
}

impl Fabric {
    /// Initialises MPI on a thread of its own and joins the other ranks. Collective: every rank of the job does it once. The window of
    /// `home` must be there, all of it.
    ///
    /// # Errors
    /// `Config` when this process was started by a launcher of another MPI, or when somebody else has initialised MPI, or when ranks
    /// differ in their settings; each with the cure. `System` for what the library reports.
    pub fn start(config: FabricConfig, home: &Arc<dyn Home>) -> Result<Self> {
        let (asks, asked) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let home = Arc::clone(home);
        let run = move || thread::run(config, &home, &asked, &tell);
        let join = std::thread::Builder::new().name("cascade-fabric".into()).spawn(run);
        let join =
            join.map_err(|error| Error::new(ErrorKind::System, "no thread for MPI").with_source(error))?;
        let ended = || Error::new(ErrorKind::System, "the thread of MPI ended while it was starting");
        let (started, shared) = told.recv().map_err(|_| ended())??;
        let route = Route::new(u32::try_from(started.cards.len()).unwrap_or(1), shared.table.buckets());
        Ok(Self {
            asks,
            thread: join.thread().clone(),
            join: Mutex::new(Some(join)),
            shared,
            started,
            route,
            process: std::process::id(),
            stopping: RwLock::new(false),
        })
    }

    /// This rank.
    #[must_use]
    pub fn rank(&self) -> u32 {
        self.started.rank
    }

    /// Ranks of the job.
    #[must_use]
    pub fn ranks(&self) -> u32 {
        self.route.ranks()
    }

    /// How bytes come from other ranks, really.
    #[must_use]
    pub fn path(&self) -> Path {
        self.started.path
    }

    /// What the MPI library calls itself.
    #[must_use]
    pub fn library(&self) -> &str {
        &self.started.library
    }

    /// Counters of now.
    #[must_use]
    pub fn stats(&self) -> FabricStats {
        let (counters, get) = (&self.shared.counters, |of: &AtomicU64| of.load(Ordering::Relaxed));
        FabricStats {
            reads: get(&counters.reads),
            read_bytes: get(&counters.read_bytes),
            late_reads: get(&counters.late_reads),
            failed_reads: get(&counters.failed_reads),
            abandoned: get(&counters.abandoned),
            messages: get(&counters.messages),
            bad_messages: get(&counters.bad_messages),
            unsent: get(&counters.unsent),
            ranks_out: self.shared.peers.lock().out(self.shared.began.elapsed()),
        }
    }

    /// This rank's part of the directory.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.shared.table
    }

    /// Leaves in good order: says goodbye, serves until all others have too or `patience` is over, and ends MPI. `false` when it was not
    /// ended: some rank never said goodbye, or the library hangs in its end. The process should then leave by `exit`, and not wait.
    #[must_use]
    pub fn stop(&self, patience: Duration) -> bool {
        {
            let mut stopping = self.stopping.write().unwrap_or_else(PoisonError::into_inner);
            if std::mem::replace(&mut *stopping, true) || self.is_gone() {
                return false;
            }
        }
        let (tell, told) = mpsc::channel();
        if self.asks.send(Ask::Stop(patience, tell)).is_err() {
            return false;
        }
        self.thread.unpark();
        // The library's own end may hang: it gets as long again.
        let is_ended = told.recv_timeout(patience * 2 + Duration::from_secs(1)).unwrap_or(false);
        if is_ended && let Some(join) = self.join.lock().take() {
            let _ = join.join();
        }
        is_ended
    }

    pub(crate) fn route(&self) -> Route {
        self.route
    }

    pub(crate) fn card(&self, rank: u32) -> Option<&Card> {
        self.started.cards.get(rank as usize)
    }

    /// Whether `rank` does not answer, or is not there.
    pub(crate) fn is_out(&self, rank: u32) -> bool {
        self.is_gone() || self.shared.peers.lock().is_out(rank, self.shared.began.elapsed())
    }

    /// What is known of `rank` as an owner of blocks.
    pub(crate) fn standing(&self, rank: u32) -> Standing {
        let (peers, now) = (self.shared.peers.lock(), self.shared.began.elapsed());
        let is_out = peers.is_out(rank, now);
        Standing { is_near: false, is_out, readers: peers.readers(rank, now) }
    }

    /// Begins reads. Each is told of once; one that cannot even be begun at once.
    pub(crate) fn read(&self, reads: Vec<Read>) {
        let stopping = self.stopping.read().unwrap_or_else(PoisonError::into_inner);
        if *stopping || self.is_gone() {
            return refuse(reads);
        }
        if let Err(mpsc::SendError(Ask::Read(reads))) = self.asks.send(Ask::Read(reads)) {
            refuse(reads);
        }
        self.thread.unpark();
    }

    /// Tells the rank that keeps the entry, or notes it here if that is this one.
    pub(crate) fn tell(&self, rank: u32, message: Message) {
        if rank == self.rank() {
            thread::note(&self.shared.table, self.route, rank, message);
            return;
        }
        let stopping = self.stopping.read().unwrap_or_else(PoisonError::into_inner);
        if !*stopping && !self.is_gone() {
            // A thread that has ended tells nobody, as a rank that does not answer is told nothing.
            let _ = self.asks.send(Ask::Tell(rank, message));
            self.thread.unpark();
        }
    }

    /// Says of an owner that it has a block no longer.
    pub(crate) fn retract(&self, id: &cascade_core::id::BlockId, owner: Owner) {
        self.tell(self.route.of(id).rank, Message::Retract(vec![(*id, owner)]));
    }

    /// In a forked child there is no thread of MPI.
    pub(crate) fn is_gone(&self) -> bool {
        self.process != std::process::id() || self.shared.ended.load(Ordering::Relaxed)
    }
}

fn refuse(reads: Vec<Read>) {
    for read in reads {
        // Whoever does not listen any more has given up.
        let _ = read.done.send((read.number, Err(MissReason::Unavailable)));
    }
}

impl Drop for Fabric {
    fn drop(&mut self) {
        let _ = self.stop(Duration::from_secs(5));
    }
}
