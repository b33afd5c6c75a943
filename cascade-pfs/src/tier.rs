//! The handle, and `Tier` for it.

use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cascade_core::batch::{Batch, Completer, Op, Outcome, Refusal, Ticket, ticket};
use cascade_core::id::BlockId;
use cascade_core::memory::SgList;
use cascade_core::metrics::TierStats;
use cascade_core::tier::{Capability, Lookup, MissReason, OnExisting, PutMeta, Tier};
use cascade_core::{Error, ErrorKind, Result};
use parking_lot::{Condvar, Mutex};

use crate::adopt;
use crate::catalog::Catalog;
use crate::config::{IoEngine, PfsConfig};
use crate::core::{Core, is_forbidden};
use crate::counters::PfsStats;
use crate::engine::{self, Engine};
use crate::follow::{self, Follow};
use crate::fs::{Fs, RealFs};
use crate::layout::record_bytes;
use crate::part::{Part, Pending};
use crate::queue::{Put, Request};
use crate::read::{self, Asked};
use crate::recover;
use crate::writer::{self, Log, Writer};

/// How often a writer shows that it lives, and looks for others that do not.
const CARE_EVERY: Duration = Duration::from_secs(5);
/// How long closing waits for a thread that hangs in a call of the system.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// How long [`PfsTier::catch_up`] waits for the following thread, which may hang in a call of the system.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Told {
    stopped: bool,
    /// Number of the last call that wants the index read on, and of the last one for which that is done.
    asked: u64,
    done: u64,
    /// The last for which it was tried.
    tried: u64,
}

/// Tells the following thread to end, or to read on now.
#[derive(Debug, Default)]
struct Stop {
    told: Mutex<Told>,
    changed: Condvar,
    caught_up: Condvar,
}

impl Stop {
    /// Waits for the next look, or somebody who asks; the number of who asked last, `None` at the end.
    fn next(&self, every: Duration) -> Option<u64> {
        let mut told = self.told.lock();
        if !told.stopped && told.asked == told.tried {
            self.changed.wait_for(&mut told, every);
        }
        told.tried = told.asked;
        (!told.stopped).then_some(told.asked)
    }

    fn done(&self, asked: u64) {
        let mut told = self.told.lock();
        if told.done < asked {
            told.done = asked;
            self.caught_up.notify_all();
        }
    }

    /// Has the following thread read on, and waits for it; whether it did.
    fn catch_up(&self) -> bool {
        let until = Instant::now() + CATCH_UP_WITHIN;
        let mut told = self.told.lock();
        told.asked += 1;
        let mine = told.asked;
        self.changed.notify_all();
        while told.done < mine && !told.stopped {
            if self.caught_up.wait_until(&mut told, until).timed_out() {
                break;
            }
        }
        told.done >= mine
    }
}

struct Handle {
    core: Arc<Core>,
    writer: Option<JoinHandle<()>>,
    follower: Option<JoinHandle<()>>,
    clock: Option<JoinHandle<()>>,
    stop: Arc<Stop>,
    /// The process whose threads these are: a forked child has none of them.
    pid: u32,
}

/// Tier 4: blocks in segment files of a directory that many processes and nodes share. Clones are the same handle. A forked
/// child finds everything unavailable here.
///
/// ```
/// use std::time::{Duration, Instant};
/// use cascade_core::batch::{Batch, Op, Outcome};
/// use cascade_core::{id::BlockId, memory::{HostBuffer, Piece}, tier::{PutMeta, Tier}};
/// use cascade_pfs::{PfsConfig, PfsTier};
///
/// let folder = tempfile::tempdir()?;
/// let tier = PfsTier::open(PfsConfig::new(folder.path().join("tier"), 1 << 30))?;
/// let id = BlockId::named("greeting");
/// let put = Op::Store { id, from: Piece::shared(b"hello"[..].into()).into(), meta: PutMeta::default() };
/// let soon = || Instant::now() + Duration::from_secs(10);
/// assert_eq!(tier.submit(Batch::new(vec![put])).wait(soon()), Some(vec![Outcome::Stored]));
///
/// let mut buffer = HostBuffer::zeroed(5);
/// let fetch = Op::Fetch { id, into: buffer.piece().into() };
/// assert!(matches!(tier.submit(Batch::new(vec![fetch])).wait(soon()).as_deref(), Some([Outcome::Fetched(_)])));
/// assert_eq!(buffer.bytes_mut().map(|bytes| bytes.to_vec()), Some(b"hello".to_vec()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct PfsTier {
    handle: Arc<Handle>,
}

impl fmt::Debug for PfsTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PfsTier({})", self.handle.core.config.dir.display())
    }
}

fn failed(config: &PfsConfig, what: &str, error: std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::Unsupported {
        let what = format!("{error}; set io_engine = \"auto\" or \"pool\"");
        return Error::new(ErrorKind::Unsupported, what).with_source(error);
    }
    let kind = match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => ErrorKind::NotFound,
        Some(libc::EACCES | libc::EPERM | libc::EROFS) => ErrorKind::Permission,
        Some(libc::ENOSPC | libc::EDQUOT | libc::EAGAIN | libc::ENOMEM) => ErrorKind::NoSpace,
        _ => ErrorKind::System,
    };
    Error::new(kind, format!("cannot {what} {}", config.dir.display())).with_source(error)
}

/// Whether there is anything to be read: who may not write to an empty directory has named the wrong one.
fn holds_files(core: &Core) -> bool {
    follow::listed(core).is_ok_and(|names| !names.is_empty())
}

/// Makes this process a writer, with its log; `None` where it may only read.
fn begin(core: &Core) -> Result<Option<Log>> {
    match writer::begin(core) {
        Ok(log) => Ok(Some(log)),
        Err(error) if is_forbidden(&error) && holds_files(core) => {
            core.read_only(&error);
            Ok(None)
        }
        Err(error) => Err(failed(&core.config, "begin to write in", error)),
    }
}

impl PfsTier {
    /// Opens the tier in a directory of this machine's file systems.
    ///
    /// Where this process may read files of others in the directory and not write to it, the tier has no writer and adopts nothing: blocks are
    /// fetched, puts, and deletions of what is there, are refused as [`Refusal::ReadOnly`] and counted. It says so once.
    ///
    /// # Errors
    /// `Config` for numbers out of their bounds; `NotFound`, `Permission`, `NoSpace` or `System` when the directory cannot be
    /// made or this writer's files cannot be made in it; `Unsupported` when `io_engine` asks for io_uring, which does not work
    /// here. What is damaged there is no error: it is left out.
    pub fn open(config: PfsConfig) -> Result<Self> {
        Self::open_on(config, Arc::new(RealFs))
    }

    /// Opens the tier on a file system of the caller's.
    ///
    /// # Errors
    /// As [`PfsTier::open`].
    pub fn open_on(config: PfsConfig, fs: Arc<dyn Fs>) -> Result<Self> {
        config.check()?;
        fs.make_dir(&config.dir).map_err(|error| failed(&config, "make the directory", error))?;
        let engine =
            Engine::start(&config, fs.as_ref()).map_err(|error| failed(&config, "start I/O in", error))?;
        let core = Arc::new(Core::new(config, fs, engine));
        core.stripe();
        let log = begin(&core)?;
        let mut follow = Follow::new(&core);
        let names = recover::load(&core, &mut follow);
        adopt::adopt_dead(&core, &follow, &names);
        let no_thread = |error| failed(&core.config, "start threads for", error);
        let writer = log.map(|log| Writer::new(Arc::clone(&core), log));
        let mut handle = Handle {
            core: Arc::clone(&core),
            writer: None,
            follower: None,
            clock: None,
            stop: Arc::default(),
            pid: std::process::id(),
        };
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.to_owned()).spawn(work)
        };
        if let Some(writer) = writer {
            let work = Box::new(move || writer.work());
            handle.writer = Some(spawn("cascade-pfs-log", work).map_err(no_thread)?);
        }
        let timed = Arc::clone(&core);
        let work = Box::new(move || timed.clock.work(&timed.counters, || timed.engine.cancel_late()));
        handle.clock = Some(spawn("cascade-pfs-clock", work).map_err(no_thread)?);
        let (following, stop) = (Arc::clone(&core), Arc::clone(&handle.stop));
        let work = Box::new(move || keep_following(&following, follow, &stop));
        handle.follower = Some(spawn("cascade-pfs-follow", work).map_err(no_thread)?);
        Ok(Self { handle: Arc::new(handle) })
    }

    /// Copies `into.len()` bytes of a block, from `offset` on, into `into`: one layer's rows, say. Waits for the file system.
    /// Only the chunks of 64 KiB that cover them are read, and each is verified by its own digest.
    /// `Miss(Destination)` when the block is shorter than that, `Miss(Absent)` also while it is being written: a whole fetch
    /// waits for that.
    #[must_use]
    pub fn fetch_part(&self, id: &BlockId, offset: u64, into: &SgList) -> Outcome {
        self.fetch_part_until(id, offset, into, None)
    }

    /// [`PfsTier::fetch_part`], given up as `Miss(Deadline)` at `deadline`; `into` is the caller's again then, and what it
    /// holds is undefined.
    #[must_use]
    pub fn fetch_part_until(
        &self,
        id: &BlockId,
        offset: u64,
        into: &SgList,
        deadline: Option<Instant>,
    ) -> Outcome {
        if self.is_forked() {
            return Outcome::Miss(MissReason::Unavailable);
        }
        read::fetch_part(&self.handle.core, id, offset, into, deadline)
    }

    /// Registers writable host memory with io_uring, such as an arena whose pages exist: large transfers from and to one
    /// piece of it then cost the kernel less. It is pinned, and an operation on it lasts, in the sense of the piece's promise,
    /// until the tier is closed. Without it, and after an error, everything works the same.
    ///
    /// # Errors
    /// `Unsupported` where the tier does not use io_uring, `NoSpace` when that is more than may be locked (`ulimit -l`) or
    /// the kernel's table is full, `System` else. What came before stays registered.
    pub fn register(&self, memory: &SgList) -> Result<()> {
        let failed = |error: std::io::Error| {
            let (kind, why) = match error.raw_os_error() {
                _ if error.kind() == std::io::ErrorKind::Unsupported => {
                    (ErrorKind::Unsupported, self.core().engine.choice().why)
                }
                Some(libc::ENOMEM) => {
                    (ErrorKind::NoSpace, "it is more than may be locked: raise `ulimit -l`")
                }
                Some(libc::ENOSPC) => (ErrorKind::NoSpace, "too many runs of memory are registered"),
                _ => (ErrorKind::System, "the kernel refuses it"),
            };
            let what = format!("cannot register {} bytes with io_uring: {why}", memory.len());
            Error::new(kind, what).with_source(error)
        };
        if self.is_forked() {
            return Err(failed(std::io::ErrorKind::Unsupported.into()));
        }
        memory
            .pieces()
            .iter()
            .try_for_each(|piece| self.core().engine.register(piece.clone()))
            .map_err(failed)
    }

    /// Has the index take note of what others have logged up to now, and waits for that, a second at most; whether it did. Of the
    /// processes of this node everything is known then that they were answered before; of other nodes what their file
    /// system shows here.
    #[must_use]
    pub fn catch_up(&self) -> bool {
        !self.is_forked() && self.handle.stop.catch_up()
    }

    /// Counters of files and calls.
    #[must_use]
    pub fn file_stats(&self) -> PfsStats {
        let core = &self.handle.core;
        let counters = &core.counters;
        let ((segments, file_bytes, _), index_bytes) = {
            let catalog = core.catalog.read();
            (catalog.owned(), catalog.bytes() as u64)
        };
        PfsStats {
            metadata: counters.metadata.get(),
            index_bytes,
            direct: core.is_direct(),
            read_only: core.is_read_only(),
            buffered_files: counters.buffered.get(),
            engine: if core.engine.choice().ring { IoEngine::Uring } else { IoEngine::Pool },
            engine_reason: core.engine.choice().why,
            registered_bytes: core.engine.registered_bytes(),
            stripe_count: core.stripes().map_or(0, |stripes| stripes.count),
            stripe_bytes: core.stripes().map_or(0, |stripes| stripes.bytes),
            file_bytes,
            segments,
            creates: counters.creates.get(),
            removes: counters.removes.get(),
            syncs: counters.syncs.get(),
            writes: counters.writes.get(),
            reads: counters.reads.get(),
            read_transfers: counters.calls.get(),
            merged: counters.merged.get(),
            deadlines: counters.deadlines.get(),
            poisoned: counters.poisoned.get(),
            no_space: counters.no_space.get(),
            io_errors: counters.io_errors.get(),
            lost_files: counters.lost_files.get(),
            kept: counters.kept.get(),
            adopted: counters.adopted.get(),
            other_version: core.others().len() as u64,
        }
    }

    /// Whether the directory can only be read by this process.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.core().is_read_only()
    }

    /// What is not as it was configured, for a person: why nothing is written, files are not striped, or are of a version that is not
    /// read.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        self.handle.core.warning()
    }

    /// Whether this process was forked from the one that opened the tier: it has none of its threads.
    fn is_forked(&self) -> bool {
        std::process::id() != self.handle.pid
    }

    /// What the index says; `None` in a forked child, whose lock a thread of the parent may have held.
    pub(crate) fn catalog<T>(&self, ask: impl FnOnce(&Catalog) -> T) -> Option<T> {
        (!self.is_forked()).then(|| ask(&self.core().catalog.read()))
    }

    fn core(&self) -> &Arc<Core> {
        &self.handle.core
    }

    fn store(&self, id: BlockId, from: SgList, meta: PutMeta, part: Part) {
        let core = self.core();
        let bytes = match self.admit(&id, &from, meta) {
            Ok(bytes) => bytes,
            Err(outcome) => {
                drop(from);
                part.complete(&core.counters, outcome);
                return;
            }
        };
        let request = Request::Put(Put { id, from, meta, moved: None, part: Some(part) });
        if let Err(Request::Put(Put { from, part: Some(part), .. })) = core.queue.push(request, bytes) {
            drop(from);
            let waiting = core.catalog.write().end(&id);
            part.complete(&core.counters, Outcome::Refused(Refusal::Throttled));
            read::fetch(core, waiting);
        }
    }

    fn delete(&self, id: BlockId, part: Part) {
        let core = self.core();
        if !core.is_read_only() {
            // A request that is refused answers `Unavailable` when its part is dropped with the batch.
            return drop(core.queue.push(Request::Delete { id, part }, 0));
        }
        let is_there = core.catalog.read().find(&id).is_some();
        let absent = Outcome::Miss(MissReason::Absent);
        part.complete(&core.counters, if is_there { Outcome::Refused(Refusal::ReadOnly) } else { absent });
    }

    /// Bytes of the record of a put that may be queued, or the answer to one that may not.
    fn admit(&self, id: &BlockId, from: &SgList, meta: PutMeta) -> std::result::Result<u64, Outcome> {
        let (core, len) = (self.core(), from.len() as u64);
        let refuse = |why| Err(Outcome::Refused(why));
        if core.is_read_only() {
            return refuse(Refusal::ReadOnly);
        }
        if len == 0 {
            return refuse(Refusal::Empty);
        }
        let Some(bytes) = record_bytes(len).filter(|_| len <= core.config.max_block_bytes()) else {
            return refuse(Refusal::TooLarge);
        };
        if !from.is_host() {
            return refuse(Refusal::Memory);
        }
        let mut catalog = core.catalog.write();
        if meta.on_existing == OnExisting::Keep && catalog.find(id).is_some() {
            return Err(Outcome::Exists);
        }
        if catalog.begin(id) { Ok(bytes) } else { refuse(Refusal::Pending) }
    }
}

fn keep_following(core: &Core, mut follow: Follow, stop: &Stop) {
    let mut cared = Instant::now();
    loop {
        let Some(asked) = stop.next(core.config.follow_every) else { return };
        // Who asks while a log cannot be read is told that it was not, when its time is over.
        if follow.poll(core) {
            stop.done(asked);
        }
        if cared.elapsed() >= CARE_EVERY {
            cared = Instant::now();
            let names = follow.look(core);
            if core.show_life().is_err() {
                core.counters.io_errors.add(1);
            }
            adopt::adopt_dead(core, &follow, &names);
        }
    }
}

impl Tier for PfsTier {
    fn capability(&self) -> Capability {
        let config = &self.core().config;
        Capability {
            name: "pfs",
            capacity_bytes: config.capacity_bytes,
            max_block_bytes: config.max_block_bytes(),
            persistent: true,
            shared: true,
            device: false,
            one_sided: true,
        }
    }

    fn lookup(&self, ids: &[BlockId], out: &mut [Lookup]) {
        assert_eq!(ids.len(), out.len(), "one answer for each id");
        // A thread of the parent may have held the lock when this process was forked.
        if self.is_forked() {
            return out.fill(Lookup::Miss(MissReason::Unavailable));
        }
        let catalog = self.core().catalog.read();
        for (id, answer) in ids.iter().zip(out) {
            *answer = catalog.lookup(id);
        }
    }

    fn submit(&self, batch: Batch) -> Ticket {
        let (ticket, completer): (Ticket, Completer) = ticket(batch.ops.len());
        // The threads stayed with the parent; dropping the completer answers that nothing is to be had here.
        if self.is_forked() {
            return ticket;
        }
        let core = self.core();
        let pending = Pending::new(completer, batch.deadline, &batch.ops, &core.clock);
        let mut fetches = Vec::new();
        for (index, op) in batch.ops.into_iter().enumerate() {
            let part = pending.part(index);
            if let Some(outcome) = part.given_up() {
                drop(op);
                part.complete(&core.counters, outcome);
                continue;
            }
            match op {
                Op::Fetch { id, into } => fetches.push(Asked { id, into, part }),
                Op::Store { id, from, meta } => self.store(id, from, meta, part),
                Op::Delete { id } => self.delete(id, part),
            }
        }
        read::fetch(core, fetches);
        ticket
    }

    fn flush(&self, deadline: Instant) -> Result<()> {
        let error = |kind, what: &str| {
            Err(Error::new(kind, format!("flush of {}: {what}", self.core().config.dir.display())))
        };
        if self.is_forked() {
            return error(
                ErrorKind::Unsupported,
                "this process was forked from the one that opened the tier",
            );
        }
        if self.is_read_only() {
            // Nothing of this handle waits.
            return Ok(());
        }
        let (ticket, completer) = ticket(1);
        // A refused request drops the completer, which answers.
        let _ = self.core().queue.push(Request::Flush(completer), 0);
        match ticket.wait(deadline).as_deref() {
            None => error(ErrorKind::Deadline, "the deadline passed"),
            Some([Outcome::Stored]) => Ok(()),
            Some([Outcome::Refused(Refusal::Full)]) => error(ErrorKind::NoSpace, "the file system is full"),
            Some(_) => {
                error(ErrorKind::System, "blocks that were acknowledged may not survive a loss of power")
            }
        }
    }

    fn stats(&self) -> TierStats {
        let (core, counters) = (self.core(), &self.core().counters);
        let (blocks, (_, _, live)) = {
            let catalog = core.catalog.read();
            (catalog.len() as u64, catalog.owned())
        };
        TierStats {
            capacity_bytes: core.config.capacity_bytes,
            ready_bytes: core.config.capacity_bytes,
            used_bytes: live,
            blocks,
            puts: counters.puts.get(),
            exists: counters.exists.get(),
            refused: counters.refused.get(),
            hits: counters.hits.get(),
            misses: counters.misses.get(),
            evictions: counters.evictions.get(),
            corrupt: counters.corrupt.get(),
            bytes_in: counters.bytes_in.get(),
            bytes_out: counters.bytes_out.get(),
            ..TierStats::default()
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if std::process::id() != self.pid {
            // The threads are not here to be waited for, and the files are the parent's.
            return;
        }
        self.stop.told.lock().stopped = true;
        self.stop.changed.notify_all();
        self.stop.caught_up.notify_all();
        self.core.queue.close();
        let deadline = Instant::now() + CLOSE_WITHIN;
        for thread in [self.writer.take(), self.follower.take()].into_iter().flatten() {
            engine::join(thread, deadline);
        }
        self.core.engine.close(deadline);
        self.core.clock.close();
        self.clock.take().into_iter().for_each(|thread| engine::join(thread, deadline));
    }
}
