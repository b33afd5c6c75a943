//! What the threads of one tier share.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use cascade_core::memory::Piece;
use parking_lot::{Mutex, RwLock};

use crate::buffer::Buffer;
use crate::catalog::Catalog;
use crate::config::PfsConfig;
use crate::counters::Counters;
use crate::engine::{Done, Engine, Transfer};
use crate::filesystem::Kind;
use crate::fs::{Access, File, Fs, Way};
use crate::gate::Gate;
use crate::layout::{Identity, OtherVersion, PAGE_BYTES, Record, WriterId};
use crate::names::{Name, SegmentId};
use crate::part::Clock;
use crate::pieces::{are_pages, list, total};
use crate::queue::{Queue, Request};
use crate::stripe::{self, Stripes, Striping};
use crate::{io as whole, raw};

/// Segments kept open for reading.
const OPEN_FILES: usize = 256;
/// Reads that may wait for others; beyond, they are throttled.
const MOST_WAITING: usize = 1 << 16;
/// Bounce buffers kept.
const BUFFERS: usize = 16;

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: PfsConfig,
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) catalog: RwLock<Catalog>,
    pub(crate) counters: Counters,
    pub(crate) queue: Queue,
    pub(crate) engine: Engine,
    /// Reads under way.
    pub(crate) gate: Gate,
    pub(crate) clock: Arc<Clock>,
    /// Who this process has been, the last of them now. Their identity files stay open, and so locked, until the end.
    lives: Mutex<Vec<(Identity, Arc<dyn File>)>>,
    /// Why this process has no writer, where it may only read.
    read_only: OnceLock<String>,
    /// Whether direct I/O is asked for: not any more once the file system has refused it.
    direct: AtomicBool,
    /// Whether what is written reaches the others only when it is synced.
    pushes: bool,
    /// How new files are spread, and why not as they should be.
    striping: Mutex<(Striping, Option<String>)>,
    /// Files of another version of the format, by their names.
    others: Mutex<BTreeMap<String, OtherVersion>>,
    files: Mutex<HashMap<SegmentId, Arc<dyn File>>>,
    buffers: Mutex<Vec<Buffer>>,
}

impl Core {
    pub(crate) fn new(config: PfsConfig, fs: Arc<dyn Fs>, engine: Engine) -> Self {
        let pushes = fs.probe(&config.dir).is_ok_and(|found| found.kind == Kind::Nfs);
        Self {
            fs,
            pushes,
            catalog: RwLock::default(),
            counters: Counters::default(),
            queue: Queue::new(config.in_flight_bytes),
            engine,
            gate: Gate::new(config.read_in_flight_bytes, MOST_WAITING),
            clock: Arc::default(),
            lives: Mutex::default(),
            read_only: OnceLock::new(),
            direct: AtomicBool::new(config.direct),
            striping: Mutex::default(),
            others: Mutex::default(),
            files: Mutex::default(),
            buffers: Mutex::default(),
            config,
        }
    }

    /// Whether others see bytes that went through the page cache only once they are synced: a client of NFS keeps them to
    /// itself until then.
    pub(crate) fn pushes(&self) -> bool {
        self.pushes
    }

    /// This process is `me` from now on; `life` is the identity file.
    pub(crate) fn lives(&self, me: &Identity, life: Arc<dyn File>) {
        self.lives.lock().push((me.clone(), life));
    }

    /// Who this process is now, with its identity file.
    pub(crate) fn me(&self) -> Option<(Identity, Arc<dyn File>)> {
        self.lives.lock().last().cloned()
    }

    /// Nothing is written from here on, because the file system does not let this process; says so.
    pub(crate) fn read_only(&self, why: &io::Error) {
        let dir = self.config.dir.display();
        let why =
            format!("{dir} can only be read ({why}): blocks are read from it, and none is stored or deleted");
        eprintln!("cascade-pfs: {why}");
        let _ = self.read_only.set(why);
        self.queue.close();
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only.get().is_some()
    }

    /// Shows that everyone whom this process has been lives.
    ///
    /// # Errors
    /// The system's; the others are shown nevertheless.
    pub(crate) fn show_life(&self) -> io::Result<()> {
        let lives: Vec<Arc<dyn File>> = self.lives.lock().iter().map(|(_, life)| Arc::clone(life)).collect();
        self.counters.metadata.add(lives.len() as u64);
        let shown: Vec<io::Result<()>> = lives.iter().map(|life| life.touch()).collect();
        shown.into_iter().collect()
    }

    /// Nothing is left of whom this process has been before.
    pub(crate) fn end_life(&self, writer: WriterId) {
        let mut lives = self.lives.lock();
        if lives.last().is_some_and(|(me, _)| me.writer != writer) {
            lives.retain(|(me, _)| me.writer != writer);
        }
    }

    /// Whether a writer is, or was, this process.
    pub(crate) fn is_me(&self, writer: WriterId) -> bool {
        self.lives.lock().iter().any(|(me, _)| me.writer == writer)
    }

    pub(crate) fn path(&self, name: Name) -> PathBuf {
        self.config.dir.join(name.to_string())
    }

    pub(crate) fn is_direct(&self) -> bool {
        self.direct.load(Ordering::Relaxed)
    }

    /// Files are opened through the page cache from here on; whether they were not before.
    pub(crate) fn refuse_direct(&self) -> bool {
        let was = self.direct.swap(false, Ordering::Relaxed);
        if was {
            self.buffered();
        }
        was
    }

    /// Arranges the configured stripes.
    pub(crate) fn stripe(&self) {
        self.counters.metadata.add(1);
        *self.striping.lock() = stripe::arrange(&self.config, self.fs.as_ref());
    }

    /// How new segments are spread; `None` where the file system decides.
    pub(crate) fn stripes(&self) -> Option<Stripes> {
        self.striping.lock().0.stripes()
    }

    /// Why files are not written, not striped as configured, or not read.
    pub(crate) fn warning(&self) -> Option<String> {
        let striping = self.striping.lock().1.clone();
        let others = self.others.lock();
        let other = others.first_key_value().map(|(name, other)| {
            let all = if others.len() > 1 {
                format!(", as are {} others", others.len() - 1)
            } else {
                String::new()
            };
            format!("{} is {other}; it is left alone{all}", self.config.dir.join(name).display())
        });
        // Nothing that is not written is striped.
        let told = [self.read_only.get().cloned().or(striping), other];
        let told: Vec<String> = told.into_iter().flatten().collect();
        (!told.is_empty()).then(|| told.join("; "))
    }

    /// Looks whether the file that begins with `page` is of another version, and notes it; says so the first time.
    pub(crate) fn is_other(&self, name: Name, page: &[u8]) -> bool {
        let Some(other) = OtherVersion::of(page) else { return false };
        let mut others = self.others.lock();
        if others.is_empty() {
            eprintln!("cascade-pfs: {} is {other}; it is left alone", self.path(name).display());
        }
        others.insert(name.to_string(), other);
        true
    }

    /// The same for a file that was not read yet; one that cannot be read is none.
    pub(crate) fn reads_other(&self, name: Name) -> bool {
        if self.others.lock().contains_key(&name.to_string()) {
            return true;
        }
        self.counters.metadata.add(1);
        let mut page = Buffer::new(PAGE_BYTES);
        let read = self
            .fs
            .open(&self.path(name), Access::Read, false)
            .and_then(|file| whole::read_up_to(file.as_ref(), &[page.piece()], 0));
        read.is_ok_and(|read| self.is_other(name, page.bytes().get(..read).unwrap_or(&[])))
    }

    /// Files of another version, as far as this handle came upon them.
    pub(crate) fn others(&self) -> BTreeMap<String, OtherVersion> {
        self.others.lock().clone()
    }

    /// Makes the file of a segment.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn create(&self, id: SegmentId) -> io::Result<Arc<dyn File>> {
        self.counters.metadata.add(1);
        let path = self.path(Name::Segment(id));
        let each = match self.striping.lock().0 {
            Striping::Each(stripes) => Some(stripes),
            _ => None,
        };
        if let Some(stripes) = each {
            match self.fs.create_striped(&path, self.is_direct(), stripes) {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    *self.striping.lock() =
                        (Striping::Free, Some(stripe::unstriped(&self.config.dir, &error)));
                }
                other => return other,
            }
        }
        self.fs.open(&path, Access::Create, self.is_direct())
    }

    /// The open file of a segment.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn segment(&self, id: SegmentId) -> io::Result<Arc<dyn File>> {
        if let Some(file) = self.files.lock().get(&id) {
            return Ok(Arc::clone(file));
        }
        self.counters.metadata.add(1);
        let direct = self.is_direct();
        let file = self.fs.open(&self.path(Name::Segment(id)), Access::Read, direct)?;
        self.opened(file.as_ref(), direct);
        let mut files = self.files.lock();
        if files.len() >= OPEN_FILES
            && let Some(other) = files.keys().next().copied()
        {
            files.remove(&other);
        }
        files.insert(id, Arc::clone(&file));
        Ok(file)
    }

    /// The file of a segment, if it is open already.
    pub(crate) fn open_segment(&self, id: SegmentId) -> Option<Arc<dyn File>> {
        self.files.lock().get(&id).map(Arc::clone)
    }

    /// Counts a file for which direct I/O was refused, and says so the first time.
    pub(crate) fn opened(&self, file: &dyn File, direct: bool) {
        if direct && !file.is_direct() {
            self.buffered();
        }
    }

    fn buffered(&self) {
        if self.counters.buffered.add_first() {
            eprintln!(
                "cascade-pfs: {} refuses direct I/O; its files go through the page cache",
                self.config.dir.display()
            );
        }
    }

    /// Closes the file of a segment, once nobody reads it.
    pub(crate) fn close(&self, id: SegmentId) {
        self.files.lock().remove(&id);
    }

    /// Drops a block that was found damaged, if it still is the newest of its id.
    pub(crate) fn drop_corrupt(&self, record: &Record) -> bool {
        let is_it = self.catalog.write().remove(record);
        if is_it {
            self.counters.corrupt.add(1);
            // Refused only while the tier is being closed: then the next one finds the damage again.
            let _ = self.queue.push(Request::Hide(*record), 0);
        }
        is_it
    }

    /// A buffer of at least `len` bytes, for [`Core::give_back`].
    pub(crate) fn buffer(&self, len: usize) -> Buffer {
        // A small one is made as fast as it is found.
        if len < self.config.io_bytes / 8 {
            return Buffer::new(len);
        }
        let kept = self.buffers.lock().pop().filter(|buffer| buffer.len() >= len);
        kept.unwrap_or_else(|| Buffer::new(len.max(self.config.io_bytes)))
    }

    pub(crate) fn give_back(&self, buffer: Buffer) {
        let mut buffers = self.buffers.lock();
        if buffers.len() < BUFFERS && buffer.len() >= self.config.io_bytes {
            buffers.push(buffer);
        }
    }

    /// Writes whole pages, by way of a buffer where direct I/O cannot take them from where they are. `done` hears of the end
    /// when the pieces are let go.
    pub(crate) fn write_later(
        self: &Arc<Self>,
        file: &Arc<dyn File>,
        pieces: Vec<Piece>,
        offset: u64,
        done: impl FnOnce(io::Result<()>) + Send + 'static,
    ) {
        self.counters.writes.add(1);
        let (file, len) = (Arc::clone(file), total(&pieces));
        let ended: Done = Box::new(move |result| done(whole::wrote(result, len)));
        if !file.is_direct() || are_pages(&pieces) {
            let way = Way::Write;
            return self.engine.submit(Transfer {
                file,
                way,
                pieces,
                offset,
                deadline: None,
                begin: None,
                done: ended,
            });
        }
        let core = Arc::clone(self);
        self.engine.run_write(move || {
            let buffer = core.buffer(len);
            if raw::gather(&list(pieces), &buffer.part(0, len)).is_none() {
                return ended(Err(io::Error::from_raw_os_error(libc::EFAULT)));
            }
            let (pieces, lender) = (vec![buffer.part(0, len)], Arc::clone(&core));
            let done = Box::new(move |result| {
                lender.give_back(buffer);
                ended(result);
            });
            core.engine.submit(Transfer {
                file,
                way: Way::Write,
                pieces,
                offset,
                deadline: None,
                begin: None,
                done,
            });
        });
    }

    /// Writes whole aligned pages while this thread waits.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn write(&self, file: &Arc<dyn File>, pieces: Vec<Piece>, offset: u64) -> io::Result<()> {
        self.counters.writes.add(1);
        let len = total(&pieces);
        whole::wrote(self.engine.wait(file, Way::Write, pieces, offset), len)
    }
}

/// Whether an error says that the file system, or a quota on it, is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG))
}

/// Whether an error says that this process may not write there.
pub(crate) fn is_forbidden(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM | libc::EROFS))
}

/// Whether an error says that the file is not there any more, or is none: a link, a pipe or a directory has its name.
pub(crate) fn is_lost(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESTALE | libc::ELOOP))
}

/// Whether a call was not taken as it was: some file systems open a file for direct I/O and then refuse it.
pub(crate) fn is_invalid(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))
}
