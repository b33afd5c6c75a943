//! The store over its tiers.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cascade_core::batch::{Batch, Outcome, Refusal, Ticket, ticket};
use cascade_core::clock::SystemClock;
use cascade_core::id::BlockId;
use cascade_core::layer::{Breaker, BreakerConfig};
use cascade_core::lease::Lease;
use cascade_core::reservation::Reserve;
use cascade_core::tier::{BlockMeta, Lookup, MissReason, Tier};
use cascade_core::{Error, ErrorKind, Result};
use cascade_gpu::device::Device;
use cascade_pfs::PfsTier;
use cascade_pfs::fs::{Fs, RealFs};
use cascade_shm::Arena;

use crate::chain::Located;
use crate::config::{self, Demote, GpuConfig, StoreConfig};
use crate::counters;
use crate::files::Files;
use crate::gpu::{self, Gpu};
use crate::learn::Learner;
use crate::moves::demoter::{Demoter, Request};
use crate::moves::node;
use crate::moves::rise::Wanted;
use crate::moves::riser;
use crate::pins::{Pin, Pinned};
use crate::planner::{Plan, Recompute};
use crate::put::{Put, Reach};
use crate::raw;
use crate::remote::{self, Elsewhere, Remote};
use crate::seam::{BottomTier, TopTier};
use crate::spans::{self, span};
use crate::stats::StoreStats;
use crate::submits::Submits;
use crate::tiers::Tiers;

/// When a file system is given a rest, and for how long: a few failures are a disk's, or a peer's; a batch that takes so long is
/// sick, however much it moves.
const BREAKER: BreakerConfig = BreakerConfig {
    failures: 4,
    window: Duration::from_secs(600),
    timeout: Duration::from_secs(60),
    rest: Duration::from_secs(2),
};

/// How other nodes come to be asked.
type OpenRemote<'a> = Box<dyn FnOnce(&Arena) -> Result<Arc<dyn Remote>> + 'a>;

/// A store embedded in this process. Clones share it. A forked child has the arena, and no files.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) tiers: Arc<Tiers>,
    pub(crate) arena: Arena,
    pfs: Option<PfsTier>,
    config: StoreConfig,
    /// Before what follows, because what was submitted is done while the files are there.
    pub(crate) submits: Arc<Submits>,
    _background: Arc<Background>,
}

/// The threads that move blocks; they end, and what was put is in files, when the last clone of the store is dropped.
#[derive(Debug)]
struct Background {
    tiers: Arc<Tiers>,
    files: Option<Arc<Files>>,
    threads: Vec<JoinHandle<()>>,
    gpu: Option<(Arc<Gpu>, JoinHandle<()>)>,
    elsewhere: Option<Arc<Elsewhere>>,
    pid: u32,
}

impl Background {
    fn start(tiers: &Arc<Tiers>, arena: &Arena) -> Result<Self> {
        let (files, pid) = (tiers.files().cloned(), std::process::id());
        let elsewhere = tiers.elsewhere().cloned();
        let mut background = Self {
            tiers: Arc::clone(tiers),
            files: files.clone(),
            threads: Vec::new(),
            gpu: None,
            elsewhere: elsewhere.clone(),
            pid,
        };
        if let Some(files) = files {
            let demoter = Demoter::new(Arc::clone(tiers), Arc::clone(&files));
            background.threads.push(spawn("cascade-demote", move || demoter.work())?);
            let tiers = Arc::clone(tiers);
            background.threads.push(spawn("cascade-prefetch", move || riser::work(&tiers, &files))?);
        } else if let Some(elsewhere) = elsewhere {
            let tiers = Arc::clone(tiers);
            background.threads.push(spawn("cascade-prefetch", move || remote::work(&tiers, &elsewhere))?);
        }
        if let Some(gpu) = tiers.gpu().cloned() {
            let (tiers, arena, of) = (Arc::clone(tiers), arena.clone(), Arc::clone(&gpu));
            let thread = spawn("cascade-gpu", move || gpu::work(&tiers, &of, &arena))?;
            background.gpu = Some((gpu, thread));
        }
        Ok(background)
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(|error| {
        Error::new(ErrorKind::NoSpace, format!("cannot start the thread {name}")).with_source(error)
    })
}

impl Drop for Background {
    fn drop(&mut self) {
        if std::process::id() != self.pid {
            // A forked child has the handles of threads that it does not have.
            self.threads.drain(..).for_each(std::mem::forget);
            std::mem::forget(self.gpu.take());
            return;
        }
        // What devices have goes to the arena first, and from there to files.
        if let Some((gpu, thread)) = self.gpu.take() {
            gpu.sink.close();
            let _ = thread.join();
        }
        if let Some(elsewhere) = &self.elsewhere {
            elsewhere.rise.close();
        }
        if let Some(files) = &self.files {
            files.sink.close();
            files.rise.close();
        }
        for thread in self.threads.drain(..) {
            // It never panics; and if it did, there is nothing to tell anyone here.
            let _ = thread.join();
        }
        self.tiers.tell();
    }
}

impl Store {
    /// Opens the tiers that `config` names, making what is not there.
    ///
    /// # Errors
    /// As [`Arena::open`] and [`PfsTier::open`]; `Config`, showing both, when the arena is used with other files, or none.
    pub fn open(config: &StoreConfig) -> Result<Self> {
        Self::open_on(config, Arc::new(RealFs))
    }

    /// Opens the store with its files on a file system of the caller's, for tests.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_on(config: &StoreConfig, fs: Arc<dyn Fs>) -> Result<Self> {
        Self::open_guarded(config, fs, BREAKER)
    }

    /// [`Store::open_on`] with another idea of when that file system is sick.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_guarded(config: &StoreConfig, fs: Arc<dyn Fs>, guard: BreakerConfig) -> Result<Self> {
        Self::open_with(config, fs, guard, |config| Ok(gpu::open(config)), None)
    }

    /// Opens the store of a program that finds other nodes' blocks by itself: `remote` is asked for what the arena lacks, whatever the
    /// setting of that name says. It is made from the arena once that is there.
    ///
    /// # Errors
    /// As [`Store::open`], and what `remote` fails with.
    pub fn open_beside(
        config: &StoreConfig,
        remote: impl FnOnce(&Arena) -> Result<Arc<dyn Remote>>,
    ) -> Result<Self> {
        let open_gpu = |config: &GpuConfig| Ok(gpu::open(config));
        Self::open_with(config, Arc::new(RealFs), BREAKER, open_gpu, Some(Box::new(remote)))
    }

    /// Opens the store with its blocks of tier 1 on these devices, whatever `gpu_devices` says, for tests.
    ///
    /// # Errors
    /// As [`Store::open`], and `System` when a device cannot be used.
    pub fn open_with_devices(config: &StoreConfig, devices: &[Arc<dyn Device>]) -> Result<Self> {
        Self::open_with(
            config,
            Arc::new(RealFs),
            BREAKER,
            |config| gpu::open_on(config, devices).map(Some),
            None,
        )
    }

    fn open_with(
        config: &StoreConfig,
        fs: Arc<dyn Fs>,
        guard: BreakerConfig,
        open_gpu: impl FnOnce(&GpuConfig) -> Result<Option<Arc<Gpu>>>,
        open_remote: Option<OpenRemote<'_>>,
    ) -> Result<Self> {
        spans::begin();
        let _span = span!(INFO, "open").entered();
        // Files first: what is wrong with them is said before an arena is made.
        let (pfs, files) = match config.files() {
            None => (None, None),
            Some(wanted) => {
                let settings = wanted.pfs()?;
                let tier = PfsTier::open_on(settings.clone(), fs).map_err(|error| wanted.advise(error))?;
                let breaker = Breaker::new(guard, Arc::new(SystemClock::default()));
                let bottom = BottomTier::new(tier.clone()).guarded(breaker);
                // What may not be written is not tried, again and again.
                let demote = if tier.is_read_only() { Demote::Off } else { wanted.demote };
                let files = Files::new(bottom, settings, demote).acknowledging(wanted.acknowledge);
                (Some(tier), Some(files))
            }
        };
        let arena = Arena::open(&config.arena())?;
        config::agree(&arena, config.files())?;
        let top = TopTier::new(arena.clone());
        let files = match files {
            None => None,
            Some(files) => Some(Arc::new(files.moving_with(node::flights_of(top.path())?))),
        };
        let clock = Arc::new(SystemClock::default());
        let gpu = config.gpu().map(open_gpu).transpose()?.flatten();
        let remote = match open_remote {
            Some(open) => Some(open(&arena)?),
            None if config.asks_agent() => {
                Some(Arc::new(remote::Client::new(arena.path())) as Arc<dyn Remote>)
            }
            None => None,
        };
        let elsewhere = remote.map(|remote| Arc::new(Elsewhere::new(remote)));
        let board = counters::open(arena.path(), arena.superblock().incarnation);
        let tiers = Tiers::new(top, files, clock).counting(&board).below(gpu).beside(elsewhere);
        let tiers = Arc::new(tiers.learning(Learner::new(&arena)));
        let background = Background::start(&tiers, &arena)?;
        let submits = Arc::new(Submits::new(Arc::clone(&tiers), config.in_flight_bytes()));
        Ok(Self { tiers, arena, pfs, config: config.clone(), submits, _background: Arc::new(background) })
    }

    /// What is in force: every setting, its value and where it came from, as TOML.
    #[must_use]
    pub fn in_force(&self) -> String {
        self.config.in_force(&self.arena, self.tiers.files().map(|files| &files.config))
    }

    /// The arena, for what only tier 2 can do.
    #[must_use]
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// The tier of files, for what only tier 4 can do; `None` where there is none, and in a forked child.
    #[must_use]
    pub fn files(&self) -> Option<&PfsTier> {
        self.tiers.files().and(self.pfs.as_ref())
    }

    /// Stores `bytes`: `Stored`, `Exists`, or `Refused` with the reason.
    #[must_use]
    pub fn put(&self, id: &BlockId, bytes: &[u8], put: Put) -> Outcome {
        raw::single(self.put_batch(&[(*id, bytes)], put))
    }

    /// Stores many blocks; an outcome for each, in order.
    #[must_use]
    pub fn put_batch(&self, blocks: &[(BlockId, &[u8])], put: Put) -> Vec<Outcome> {
        let blocks: Vec<_> = blocks.iter().map(|(id, bytes)| (*id, *bytes, put.meta(id))).collect();
        raw::store(&blocks, |blocks| self.tiers.put(blocks, put.reach))
    }

    /// Copies a block into the front of `out`, from the highest tier that has it.
    ///
    /// A block that only the files have is read straight into `out`, or by way of the arena, where it then stays: if a tenth of
    /// the arena is free, or if it was fetched from files before.
    ///
    /// # Errors
    /// The reason for a miss; `Destination`, and nothing written, when `out` is shorter than the block.
    pub fn get(&self, id: &BlockId, out: &mut [u8]) -> std::result::Result<BlockMeta, MissReason> {
        self.get_batch(&mut [(*id, out)]).pop().unwrap_or(Err(MissReason::Unavailable))
    }

    /// Copies many blocks; an answer for each, in order.
    #[must_use]
    pub fn get_batch(
        &self,
        wanted: &mut [(BlockId, &mut [u8])],
    ) -> Vec<std::result::Result<BlockMeta, MissReason>> {
        raw::fetch(wanted, |wanted| self.tiers.fetch(&wanted, None))
    }

    /// Copies `out.len()` bytes of a block, from `offset` on: one layer's rows, say. From files only the chunks of 64 KiB that cover
    /// them are read, each verified by its own digest; nothing is brought up for it. From the arena they are copied as from a lease.
    ///
    /// # Errors
    /// The reason for a miss; `Destination` when the block is shorter than that, or `out` is empty.
    pub fn get_part(
        &self,
        id: &BlockId,
        offset: u64,
        out: &mut [u8],
    ) -> std::result::Result<BlockMeta, MissReason> {
        self.tiers.fetch_part(id, offset, out)
    }

    /// Hands over fetches, puts and deletes, and returns at once: two threads of the store work through them, each tier at its own
    /// speed. The ticket says of each what became of it; [`crate::CompletionQueue`] tells an event loop that it has ended.
    ///
    /// Neighbours of one kind are done together; a batch keeps their order, two batches may overtake each other. `reach` says when a
    /// put is acknowledged. While more bytes than `in_flight` are under way, `Throttled` is the answer, at once. What is cancelled, or
    /// has not begun at the batch's deadline, is not begun. Memory that is only lent stays in use until its operation has its outcome.
    #[must_use]
    pub fn submit_until(&self, batch: Batch, reach: Reach) -> Ticket {
        self.submits.submit(batch, reach)
    }

    /// Pins a block in the arena and gives its address, without a copy. A block that only the files have is read into the arena.
    ///
    /// # Errors
    /// The reason for a miss; `Throttled` when the arena has no room for a block that the files have.
    pub fn lease(&self, id: &BlockId) -> std::result::Result<Lease, MissReason> {
        self.tiers.lease(id)
    }

    /// Does a batch on this thread and returns when it is over: an outcome for each operation. The memory that it names is read and
    /// written until then, and not after. Unlike [`Store::submit_until`] it is not bounded by `in_flight`: who waits holds itself back.
    #[must_use]
    pub fn run_batch(&self, batch: Batch, reach: Reach) -> Vec<Outcome> {
        self.submits.run(batch, reach)
    }

    /// [`Store::lease`] for many: what the files have is read several at once.
    #[must_use]
    pub fn lease_batch(&self, ids: &[BlockId]) -> Vec<std::result::Result<Lease, MissReason>> {
        self.tiers.lease_batch(ids)
    }

    /// Keeps blocks in the arena, brought up where they are not there, until they are unpinned, deleted or replaced by this store, their
    /// time is over, or the store is closed; a process that dies pins nothing any more. A soft pin gives way before this store refuses a block
    /// for want of room, and a block that replaces a pinned one is not pinned. Leases of all processes together with pins stay
    /// within half of the arena: beyond, the answer is `Full`.
    #[must_use]
    pub fn pin(&self, ids: &[BlockId], pin: Pin) -> Vec<Pinned> {
        self.tiers.pin(ids, pin)
    }

    /// Lets go of pins of this store; whether there was one, for each.
    pub fn unpin(&self, ids: &[BlockId]) -> Vec<bool> {
        self.tiers.pins.unpin(ids)
    }

    /// Final memory for a block, to be filled in place and sealed. Sealing waits until it has come as far as `put` asks, and the
    /// setting `acknowledge`; where it could not, it is `Lost`, although it may be in the arena.
    #[must_use]
    pub fn reserve(&self, id: &BlockId, len: u64, put: Put) -> Reserve {
        self.tiers.reserve(id, len, put.meta(id), put.reach)
    }

    /// What is known of each id; never blocks, but to ask other nodes where the store has them: at most 200 ms.
    #[must_use]
    pub fn lookup(&self, ids: &[BlockId]) -> Vec<Lookup> {
        self.locate(ids).into_iter().map(|found| found.answer).collect()
    }

    /// What is known of each id, and the highest tier that has it; waits as [`Store::lookup`] does.
    #[must_use]
    pub fn locate(&self, ids: &[BlockId]) -> Vec<Located> {
        let span = span!(TRACE, "locate", blocks = ids.len(), hits = tracing::field::Empty).entered();
        let mut found = self.tiers.chain.locate(ids);
        span.record("hits", self.tiers.count.asked(&found));
        self.tiers.raise_names(ids, &mut found);
        self.tiers.learner.look_up(ids);
        found
    }

    /// Whether a block is there.
    #[must_use]
    pub fn contains(&self, id: &BlockId) -> bool {
        self.locate(std::slice::from_ref(id)).iter().any(|found| found.answer.is_hit())
    }

    /// How many of a chain's ids hit, in any tier, before the first that does not.
    #[must_use]
    pub fn longest_prefix(&self, ids: &[BlockId]) -> usize {
        self.locate(ids).iter().take_while(|found| found.answer.is_hit()).count()
    }

    /// Brings blocks that only other nodes or the files have into the arena, in the background. The ticket says of each block: `Stored` it
    /// is up now, `Exists` it was, or the reason for a miss. Nobody needs to wait for it.
    #[must_use]
    pub fn prefetch(&self, ids: &[BlockId]) -> Ticket {
        self.prefetch_until(ids, None)
    }

    /// [`Store::prefetch`], which gives up what is not there at `deadline`, or when the ticket is cancelled, as `Miss(Deadline)`.
    #[must_use]
    pub fn prefetch_until(&self, ids: &[BlockId], deadline: Option<Instant>) -> Ticket {
        let (ticket, completer) = ticket(ids.len());
        if let Some(files) = self.tiers.files() {
            // What is refused answers `Unavailable` when its completer is dropped.
            drop(files.rise.push([Wanted { ids: ids.to_vec(), deadline, completer }]));
        } else if let Some(elsewhere) = self.tiers.elsewhere() {
            drop(elsewhere.rise.push([Wanted { ids: ids.to_vec(), deadline, completer }]));
        } else {
            for (at, found) in self.locate(ids).into_iter().enumerate() {
                let outcome = match found.answer {
                    Lookup::Hit(_) => Outcome::Exists,
                    Lookup::Pending => Outcome::Miss(MissReason::Absent),
                    Lookup::Miss(why) => Outcome::Miss(why),
                };
                completer.complete(at, outcome);
            }
        }
        ticket
    }

    /// Copies blocks to files and takes them out of the arena, now. `Stored` for each that only the files have then; leases on
    /// them stay good.
    #[must_use]
    pub fn demote(&self, ids: &[BlockId]) -> Vec<Outcome> {
        self.tiers.demote(ids)
    }

    /// Forgets a block in every tier; whether it was there and is gone: not what files cannot forget now, which is hidden from this
    /// store alone, and tried again. In a forked child of a store with files nothing is forgotten.
    #[must_use]
    pub fn delete(&self, id: &BlockId) -> bool {
        raw::single(self.tiers.delete(std::slice::from_ref(id))) == Outcome::Deleted
    }

    /// Forgets every block in every tier, for all who share them.
    ///
    /// # Errors
    /// `Unsupported`, and nothing is forgotten, in a forked child of a store with files.
    pub fn clear(&self) -> Result<()> {
        let _span = span!(INFO, "clear").entered();
        self.is_whole("clear")?;
        self.tiers.clear();
        Ok(())
    }

    /// Whether all tiers can be reached that the store was opened with.
    fn is_whole(&self, what: &str) -> Result<()> {
        let why = || {
            format!("{what}: this process was forked from the one that opened the store, and has no files")
        };
        if self.tiers.is_cut_off() { Err(Error::new(ErrorKind::Unsupported, why())) } else { Ok(()) }
    }

    /// Returns when what was put before is as durable as the store is set to make it: with files, and unless `demote = off`, every
    /// block of the arena is in files then, and as durable there as `pfs_durability` asks.
    ///
    /// # Errors
    /// `Deadline` when it passed first, `NoSpace` or `System` when the files did not take everything; `Unsupported` in a forked child
    /// of a store with files.
    pub fn flush(&self, deadline: Instant) -> Result<()> {
        let _span = span!(INFO, "flush").entered();
        self.is_whole("flush")?;
        self.tiers.flush_devices(deadline)?;
        let Some(files) = self.tiers.files() else { return self.tiers.arena.flush(deadline) };
        if files.demote != Demote::Off {
            let (ticket, completer) = ticket(1);
            files.sink.push_waited(Request::All(completer));
            let outcome = ticket.wait(deadline);
            check_flush(outcome.and_then(|outcomes| outcomes.first().copied()), files)?;
        }
        files.flush(deadline)
    }

    /// Says how many tokens a block holds, for the tokens that [`Store::stats`] counts as saved from here on.
    pub fn set_block_tokens(&self, tokens: u64) {
        self.tiers.tally.set_block_tokens(tokens);
    }

    /// How much of a prefix to load: as many of the first `ids` (blocks of `block_tokens` each) as gain most over recomputing them,
    /// by what this store has measured of its tiers, call by call, and by `recompute`. None where recomputing all is quicker.
    ///
    /// # Errors
    /// `InvalidArgument` for blocks of no tokens, or a rate that is no positive number.
    pub fn plan(&self, ids: &[BlockId], block_tokens: u64, recompute: Recompute<'_>) -> Result<Plan> {
        self.tiers.plan(ids, block_tokens, recompute)
    }

    /// Notes that a prefill of `tokens` took so long: what [`Recompute::Learned`] goes by.
    pub fn observe_prefill(&self, tokens: u64, took: Duration) {
        self.tiers.observe_prefill(tokens, took);
    }

    /// Counters and gauges, tier by tier.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        self.tiers.stats()
    }
}

fn check_flush(outcome: Option<Outcome>, files: &Files) -> Result<()> {
    let error = |kind, what: &str| {
        Err(Error::new(kind, format!("flush to the files in {}: {what}", files.config.dir.display())))
    };
    match outcome {
        Some(Outcome::Stored) => Ok(()),
        None => error(ErrorKind::Deadline, "the deadline passed"),
        Some(Outcome::Refused(Refusal::Full)) => error(ErrorKind::NoSpace, "the file system is full"),
        Some(_) => {
            error(ErrorKind::System, "some blocks of the arena could not be written; they are still there")
        }
    }
}

/// The name of an outcome, as metrics, logs and Python write it.
#[must_use]
pub fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Stored => "stored",
        Outcome::Exists => "exists",
        Outcome::Fetched(_) => "fetched",
        Outcome::Deleted => "deleted",
        Outcome::Cancelled => "cancelled",
        Outcome::Miss(why) => why.name(),
        Outcome::Refused(why) => Refusal::name(why),
    }
}
