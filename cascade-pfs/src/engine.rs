//! How bytes move: by calls of a pool's threads, or through the kernel's queue, with the same results.

mod choice;
mod pool;
mod raw;
mod ring;

use std::fmt;
use std::io;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use cascade_core::memory::Piece;

use crate::config::{IoEngine, PfsConfig};
use crate::fs::{File, Fs, Way};
use crate::io::by_calls;

pub(crate) use choice::Choice;
pub(crate) use pool::{Pool, join};
use ring::Ring;

/// What is told the end of a transfer.
pub(crate) type Done = Box<dyn FnOnce(io::Result<usize>) + Send>;

/// Asked before the first byte of a transfer moves: whether its memory may be touched, from then on until its end.
pub(crate) type Begin = Box<dyn FnOnce() -> bool + Send>;

/// Bytes that are to move. Whole: it goes on until all is moved, nothing more moves, or an error.
pub(crate) struct Transfer {
    pub(crate) file: Arc<dyn File>,
    pub(crate) way: Way,
    pub(crate) pieces: Vec<Piece>,
    pub(crate) offset: u64,
    /// When the kernel may be asked to give it up. It ends when the kernel has let go of the pieces, and not before.
    pub(crate) deadline: Option<Instant>,
    pub(crate) begin: Option<Begin>,
    /// Told the number of bytes once the pieces are dropped. Runs on a thread that others wait for: quick work only.
    pub(crate) done: Done,
}

impl fmt::Debug for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transfer({:?} of {} pieces at {})", self.way, self.pieces.len(), self.offset)
    }
}

impl Transfer {
    fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// The transfer, if it may begin; else it has ended.
    fn begun(mut self) -> Option<Self> {
        if !self.is_late() && self.begin.take().is_none_or(|begin| begin()) {
            return Some(self);
        }
        self.end(Err(io::Error::from_raw_os_error(libc::ECANCELED)));
        None
    }

    /// Moves the bytes by calls of this thread.
    fn run(self) {
        let Some(this) = self.begun() else { return };
        let result = by_calls(this.file.as_ref(), this.way, &this.pieces, this.offset);
        this.end(result);
    }

    fn end(self, result: io::Result<usize>) {
        // The pieces are the caller's again before it hears of it.
        drop(self.pieces);
        drop(self.file);
        (self.done)(result);
    }
}

/// The threads and the queue of one tier.
#[derive(Debug)]
pub(crate) struct Engine {
    ring: Option<Ring>,
    readers: Arc<Pool>,
    writers: Arc<Pool>,
    choice: Choice,
}

impl Engine {
    /// Starts what the setting, the process and the file system of the directory call for.
    ///
    /// # Errors
    /// The system's, when it gives no threads; `Unsupported` when a queue is asked for and there is none.
    pub(crate) fn start(config: &PfsConfig, fs: &dyn Fs) -> io::Result<Self> {
        let readers = Arc::new(Pool::new("cascade-pfs-read", config.read_threads)?);
        let writers = Arc::new(Pool::new("cascade-pfs-write", config.write_threads)?);
        let mut choice = Choice::make(config.io_engine, fs, &config.dir)?;
        let ring = match choice.ring.then(|| Ring::start(Arc::clone(&readers))).transpose() {
            Err(error) if config.io_engine == IoEngine::Uring => return Err(error),
            // Too little memory that may be locked, say: the pool does as well.
            Err(_) => None,
            Ok(ring) => ring,
        };
        if choice.ring && ring.is_none() {
            choice = Choice::pool("io_uring could not be set up");
        }
        Ok(Self { ring, readers, writers, choice })
    }

    /// What was chosen, and why.
    pub(crate) fn choice(&self) -> Choice {
        self.choice
    }

    fn ring_for(&self, file: &dyn File) -> Option<&Ring> {
        // Through the page cache a queue would copy on its one thread.
        self.ring.as_ref().filter(|_| file.is_direct() || self.choice.always)
    }

    /// Starts a transfer.
    pub(crate) fn submit(&self, transfer: Transfer) {
        let left = match self.ring_for(transfer.file.as_ref()) {
            Some(ring) => ring.submit(transfer),
            None => Some(transfer),
        };
        match left {
            None => {}
            Some(transfer) if transfer.way == Way::Read => self.readers.run(move || transfer.run()),
            Some(transfer) => self.writers.run(move || transfer.run()),
        }
    }

    /// Moves bytes while this thread, which must be none of the engine's, waits.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn wait(
        &self,
        file: &Arc<dyn File>,
        way: Way,
        pieces: Vec<Piece>,
        offset: u64,
    ) -> io::Result<usize> {
        if self.ring_for(file.as_ref()).is_none() {
            return by_calls(file.as_ref(), way, &pieces, offset);
        }
        let (send, receive) = mpsc::sync_channel(1);
        let done = Box::new(move |result| {
            let _ = send.send(result);
        });
        self.submit(Transfer {
            file: Arc::clone(file),
            way,
            pieces,
            offset,
            deadline: None,
            begin: None,
            done,
        });
        receive.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))
    }

    /// Work beside the transfers: verification, what may wait for the file system.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) {
        self.readers.run(job);
    }

    /// Work on the way to the file: copies to where direct I/O takes them from.
    pub(crate) fn run_write(&self, job: impl FnOnce() + Send + 'static) {
        self.writers.run(job);
    }

    /// Lets the kernel hold the pages of `memory`.
    ///
    /// # Errors
    /// The system's; `Unsupported` where there is no queue.
    pub(crate) fn register(&self, memory: Piece) -> io::Result<()> {
        match &self.ring {
            Some(ring) => ring.register(memory),
            None => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    pub(crate) fn registered_bytes(&self) -> u64 {
        self.ring.as_ref().map_or(0, Ring::registered_bytes)
    }

    /// Asks the kernel to give up what is under way beyond its deadline.
    pub(crate) fn cancel_late(&self) {
        if let Some(ring) = &self.ring {
            ring.cancel_late();
        }
    }

    /// Ends the threads, once what they have is done; does not wait for ever.
    pub(crate) fn close(&self, deadline: Instant) {
        self.writers.close(deadline);
        if let Some(ring) = &self.ring {
            ring.close(deadline);
        }
        self.readers.close(deadline);
    }
}
