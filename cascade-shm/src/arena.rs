//! The arena as a program holds it.

mod audit;
mod below;
mod expose;
mod heat;
pub mod note;
mod ops;
mod pinned;
mod scrub;

use std::cell::RefCell;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering as Local};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use cascade_core::metrics::TierStats;
use cascade_core::sync::Ordering;
use cascade_core::{Error, ErrorKind, Result};

pub use audit::Audit;
pub use below::{BelowStats, Cold, Fill, Noted, Survey};
pub use expose::{Exposed, is_visible};
pub use scrub::{Scrub, Scrubbed};

use crate::collapse::{self, HugePages};
use crate::config::ArenaConfig;
use crate::file;
use crate::grow;
use crate::hugepage::{Huge, Medium};
use crate::janitor::Janitor;
use crate::layout::{HEAT, Superblock};
use crate::numa::Nodes;
use crate::process::fork_epoch;
use crate::raw::Map;
use crate::session::{Rule, Session, Stripe};
use crate::slot::{Meaning, State};
use crate::trail::Trail;

/// How deep a process may fork and still use the handle that its ancestor opened.
const FORK_DEPTH: usize = 16;
/// Attempts to attach while others make and remove arenas at the same path.
const OPEN_ATTEMPTS: usize = 8;

/// A handle on the node's arena. Clones share it; threads use it at once; a forked child that uses it joins anew.
#[derive(Clone, Debug)]
pub struct Arena {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    map: Arc<Map>,
    file: File,
    path: PathBuf,
    superblock: Superblock,
    created: bool,
    visits: bool,
    opened_epoch: u64,
    has_janitor: bool,
    rule: Rule,
    /// One for each generation of forks.
    joined: [OnceLock<Option<Joined>>; FORK_DEPTH],
    next_stripe: AtomicUsize,
    number: usize,
}

/// How a handle comes to its arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Made,
    Found,
    /// Only to look after it: it does not grow for this.
    Visited,
}

/// This process as an owner. Its janitor goes before what it works on.
#[derive(Debug)]
struct Joined {
    _janitor: Option<Janitor>,
    session: Session,
}

impl Joined {
    fn new(
        map: &Arc<Map>,
        file: &File,
        path: &Path,
        (rule, incarnation): (Rule, u64),
        has_janitor: bool,
    ) -> Result<Self> {
        let session = Session::join(map, rule, &|| file::open_again(path, file))?;
        if !cfg!(any(loom, shuttle))
            && let Some(trail) = Trail::open(path, incarnation, map.geometry().data_bytes)
        {
            let _ = session.core().trail.set(trail);
        }
        let start = |file| Janitor::start(session.core(), session.stripes(), file);
        let janitor = if has_janitor { file.try_clone().ok().and_then(start) } else { None };
        Ok(Self { _janitor: janitor, session })
    }
}

/// How far an arena has grown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    /// Bytes of the data area whose pages exist.
    pub ready_bytes: u64,
    /// Bytes that growth may still reach: less than `data_bytes` after memory ran out.
    pub limit_bytes: u64,
    /// Bytes that the arena was made for.
    pub data_bytes: u64,
    /// Times that growth stopped for want of memory, since the arena was made.
    pub shortfalls: u64,
    /// Memory nodes that regions are spread over in turn, as this process may use them.
    pub nodes: usize,
    /// Where its pages come from.
    pub huge: Huge,
    /// Bytes of a page; of the largest that there may be where huge pages are not certain.
    pub page_bytes: u64,
    /// What was put together into huge pages where the file system hands out ordinary ones.
    pub huge_pages: HugePages,
}

/// Which stripe of which handle a thread uses.
type Seat = (usize, u64, Weak<Stripe>);

thread_local! {
    static SEATS: RefCell<Vec<Seat>> = const { RefCell::new(Vec::new()) };
}

impl Arena {
    /// Opens the arena that `config` names, making it if it is not there.
    ///
    /// # Errors
    /// `Config` when it is there with other numbers, `Permission` and `Format` when it cannot be trusted, `NoSpace` when
    /// there is no room for it, `NotFound` when the parent of its directory is missing.
    pub fn open(config: &ArenaConfig) -> Result<Self> {
        file::prepare_dir(&config.dir)?;
        let path = config.path();
        for _ in 0..OPEN_ATTEMPTS {
            if let Some((file, superblock)) = file::attach(&path, &config.node_name())? {
                config.check_existing(&superblock.geometry)?;
                match Self::start(config, file, superblock, Start::Found) {
                    Ok(arena) if arena.inner.is_linked() => return Ok(arena),
                    // Removed between being found and being joined: nobody else would ever see it.
                    Ok(_) => continue,
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                }
            }
            let (file, superblock) = file::create(config)?;
            let map = Map::new(&file, superblock.geometry)?;
            Self::make_tables(config, &file, &map)?;
            crate::kill::point("create.tables");
            // Through the mapping: hugetlbfs has no other way to write.
            map.write_start(&superblock.encode());
            map.control().limit_regions.store(superblock.geometry.regions() as u64, Ordering::Release);
            if file::publish(&file, &path)? {
                crate::kill::point("create.named");
                return Self::start(config, file, superblock, Start::Made);
            }
        }
        let what = format!("the arena {} appears and disappears: another program removes it", path.display());
        Err(Error::new(ErrorKind::System, what))
    }

    /// Makes the pages of the tables exist, huge where the system does that.
    fn make_tables(config: &ArenaConfig, file: &File, map: &Map) -> Result<()> {
        let bytes = map.data_start();
        let done = collapse::is_wanted(file).then(|| map.make_huge(0, bytes));
        // Before anything is written to them.
        file::allocate_tables(config, file, map.geometry())?;
        if let Some(done) = done {
            collapse::count(map, bytes, &done);
        }
        Ok(())
    }

    /// Joins the arena that `config` names if it is there, and neither makes nor grows one: for those who look after arenas.
    ///
    /// # Errors
    /// As [`Arena::open`].
    pub fn attach(config: &ArenaConfig) -> Result<Option<Self>> {
        file::prepare_dir(&config.dir)?;
        let last_used = std::fs::metadata(config.path()).and_then(|metadata| metadata.modified());
        let Some((file, superblock)) = file::attach(&config.path(), &config.node_name())? else {
            return Ok(None);
        };
        let arena = Self::start(config, file, superblock, Start::Visited)?;
        if let Ok(last_used) = last_used {
            // Checking that the pages exist may have changed it; a visit is no use.
            let _ = arena.inner.file.set_modified(last_used);
        }
        Ok(arena.inner.is_linked().then_some(arena))
    }

    fn start(config: &ArenaConfig, file: File, superblock: Superblock, start: Start) -> Result<Self> {
        let map = Arc::new(Map::new(&file, superblock.geometry)?);
        let medium = Medium::of_file(&file);
        if medium.is_asked {
            map.ask_huge();
        }
        let arena = Self::join(map, file, superblock, config.path(), config, start)?;
        if start != Start::Visited {
            note_use(&arena.inner.file);
        }
        Ok(arena)
    }

    /// A handle, with an owner row of its own, on the memory of a model; `file`, which is at `path`, has its locks.
    ///
    /// # Errors
    /// As [`Arena::open`].
    #[cfg(any(loom, shuttle))]
    pub fn modelled(map: Arc<Map>, file: File, path: PathBuf) -> Result<Self> {
        let superblock = Superblock::new(*map.geometry(), 0, String::new());
        let config = ArenaConfig { janitor: false, ..ArenaConfig::new("") };
        Self::join(map, file, superblock, path, &config, Start::Found)
    }

    fn join(
        map: Arc<Map>,
        file: File,
        superblock: Superblock,
        path: PathBuf,
        config: &ArenaConfig,
        start: Start,
    ) -> Result<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let has_janitor = config.janitor && start != Start::Visited;
        let is_heat = superblock.optional_features & HEAT != 0;
        let meaning = if is_heat { Meaning::Heat } else { Meaning::Count };
        let rule = Rule { meaning, eviction: config.eviction };
        let joined = Joined::new(&map, &file, &path, (rule, superblock.incarnation), has_janitor)?;
        let inner = Inner {
            map,
            file,
            path,
            superblock,
            created: start == Start::Made,
            visits: start == Start::Visited,
            opened_epoch: fork_epoch(),
            has_janitor,
            rule,
            joined: [const { OnceLock::new() }; FORK_DEPTH],
            next_stripe: AtomicUsize::new(0),
            number: NUMBER.fetch_add(1, Local::Relaxed),
        };
        let stored = inner.joined[0].set(Some(joined));
        debug_assert!(stored.is_ok(), "a new handle has joined nothing yet");
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The arena's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// What it was made with.
    #[must_use]
    pub fn superblock(&self) -> &Superblock {
        &self.inner.superblock
    }

    /// Whether this handle made it; else it was there.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.inner.created
    }

    pub(crate) fn map(&self) -> &Arc<Map> {
        &self.inner.map
    }

    /// Bytes of the data area whose pages exist.
    #[must_use]
    pub fn ready_bytes(&self) -> u64 {
        let ready = self.inner.map.control().ready_regions.load(Ordering::Acquire);
        ready.min(self.inner.map.geometry().regions() as u64) * self.inner.map.geometry().region_bytes
    }

    /// How far the arena has grown.
    #[must_use]
    pub fn growth(&self) -> Growth {
        let (control, geometry) = (self.inner.map.control(), self.inner.map.geometry());
        let limit = control.limit_regions.load(Ordering::Acquire).min(geometry.regions() as u64);
        let medium = Medium::of_file(&self.inner.file);
        Growth {
            ready_bytes: self.ready_bytes(),
            limit_bytes: limit * geometry.region_bytes,
            data_bytes: geometry.data_bytes,
            shortfalls: control.shortfalls.load(Ordering::Relaxed),
            nodes: Nodes::of_machine().count(),
            huge: medium.huge,
            page_bytes: medium.page_bytes,
            huge_pages: {
                let words = [&control.huge_bytes, &control.huge_refusals, &control.huge_error];
                HugePages::new(words.map(|word| word.load(Ordering::Relaxed)), geometry.offsets().total)
            },
        }
    }

    /// Waits until all pages exist; `false` when `deadline` passed first.
    #[must_use]
    pub fn wait_ready(&self, deadline: Instant) -> bool {
        let Some(session) = self.session() else { return false };
        loop {
            let whole = grow::limit(session.core()) * self.inner.map.geometry().region_bytes;
            if self.ready_bytes() >= whole {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            if !self.inner.has_janitor && !self.inner.visits {
                grow::step(session.core(), &self.inner.file, grow::ready(session.core()));
            } else {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }

    /// Recovers what owners that died left behind; also done when the arena is opened and when room is short.
    pub fn recover(&self) {
        if let Some(session) = self.session() {
            session.recover();
        }
    }

    /// Process id, in its own namespace, of the arena's janitor; `None` when nobody living has the role.
    #[must_use]
    pub fn janitor_pid(&self) -> Option<u64> {
        let core = self.session()?.core();
        let holder = core.map().control().janitor.holder().filter(|holder| !core.is_dead(*holder))?;
        Some(core.map().owners()[holder.row as usize].process().pid)
    }

    fn session(&self) -> Option<&Session> {
        let inner = &*self.inner;
        let depth = usize::try_from(fork_epoch() - inner.opened_epoch).ok()?;
        let how = (inner.rule, inner.superblock.incarnation);
        let join = || Joined::new(&inner.map, &inner.file, &inner.path, how, inner.has_janitor).ok();
        Some(&inner.joined.get(depth)?.get_or_init(join).as_ref()?.session)
    }

    /// The stripe of this thread.
    fn stripe(&self) -> Option<Arc<Stripe>> {
        let (number, epoch) = (self.inner.number, fork_epoch());
        let seated = SEATS.with(|seats| {
            let seats = seats.try_borrow().ok()?;
            let seat = seats.iter().find(|seat| (seat.0, seat.1) == (number, epoch))?;
            seat.2.upgrade()
        });
        seated.or_else(|| self.take_seat(number, epoch))
    }

    fn take_seat(&self, number: usize, epoch: u64) -> Option<Arc<Stripe>> {
        let stripes = self.session()?.stripes();
        let next = self.inner.next_stripe.fetch_add(1, Local::Relaxed) % stripes.len();
        let stripe = Arc::clone(stripes.get(next)?);
        SEATS.with(|seats| {
            if let Ok(mut seats) = seats.try_borrow_mut() {
                seats.retain(|seat| seat.2.strong_count() > 0 && seat.0 != number);
                seats.push((number, epoch, Arc::downgrade(&stripe)));
            }
        });
        Some(stripe)
    }

    fn gather_stats(&self) -> TierStats {
        let map = &self.inner.map;
        let mut stats = TierStats::default();
        let Some(session) = self.session() else { return stats };
        for stripe in session.stripes() {
            stripe.counters.add_to(&mut stats);
        }
        let core = session.core();
        stats.capacity_bytes = grow::limit(core) * map.geometry().region_bytes;
        stats.ready_bytes = self.ready_bytes();
        stats.used_bytes = core.with_regions(|regions| regions.used_bytes());
        let sealed =
            |slot: &&crate::slot::Slot| matches!(slot.word().state(), State::Sealed | State::Evicting);
        stats.blocks = map.slots().iter().filter(sealed).count() as u64;
        stats.quarantined_bytes = core.quarantine.bytes();
        stats.waiting_blocks = core.waiting.len() as u64;
        stats
    }
}

impl Inner {
    /// Whether the file still has its name.
    fn is_linked(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        self.file.metadata().is_ok_and(|metadata| metadata.nlink() > 0)
    }
}

/// The file's time says when a store last opened or closed the arena: writes through mappings do not change it.
fn note_use(file: &File) {
    // Only `cascade gc --older-than` goes by it.
    let _ = file.set_modified(std::time::SystemTime::now());
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.visits {
            note_use(&self.file);
        }
    }
}
