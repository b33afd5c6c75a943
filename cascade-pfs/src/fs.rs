//! The seam between the tier and a file system: everything the tier ever asks of one, so that faults can be put in between.

mod real;
mod watch;

use std::fmt::Debug;
use std::io::Result;
use std::os::fd::RawFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cascade_core::memory::Piece;

use crate::filesystem::FileSystem;
use crate::stripe::Stripes;
pub use real::RealFs;

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To read what is there.
    Read,
    /// To read and write a file that must not exist yet; its mode is 0600.
    Create,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the file into memory.
    Read,
    /// From memory into the file.
    Write,
}

/// Makes of a transfer's result what the tier is told.
pub type Ending = Box<dyn FnOnce(Result<usize>) -> Result<usize> + Send>;

/// One call of a transfer as the kernel's queue (io_uring) takes it.
pub struct Queued {
    /// The open file; it stays open as long as the [`File`] does.
    pub descriptor: RawFd,
    /// What is moved: the pieces that were asked for, unless a layer moves fewer, or others in their place.
    pub pieces: Vec<Piece>,
    /// How long it is to be held back before the kernel gets it.
    pub pause: Duration,
    /// What is done with the result, once the kernel has let go of the pieces.
    pub ending: Option<Ending>,
}

impl Queued {
    /// The call as it was asked for.
    #[must_use]
    pub fn plain(descriptor: RawFd, pieces: &[Piece]) -> Self {
        Self { descriptor, pieces: pieces.to_vec(), pause: Duration::ZERO, ending: None }
    }
}

impl Debug for Queued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Queued({} pieces of descriptor {})", self.pieces.len(), self.descriptor)
    }
}

/// A file system. Errors are those of the system, with its numbers ([`std::io::Error::raw_os_error`]).
pub trait Fs: Send + Sync + Debug {
    /// Opens a file, past the page cache where `direct` asks for it and the file system allows it
    /// ([`File::is_direct`] says what became of it). Symbolic links are not followed.
    ///
    /// # Errors
    /// The system's.
    fn open(&self, path: &Path, access: Access, direct: bool) -> Result<Arc<dyn File>>;

    /// Names in a directory.
    ///
    /// # Errors
    /// The system's.
    fn list(&self, dir: &Path) -> Result<Vec<String>>;

    /// Removes a file. Who has it open may go on reading, except on file systems that answer `ESTALE`.
    ///
    /// # Errors
    /// The system's.
    fn remove(&self, path: &Path) -> Result<()>;

    /// Makes a directory with mode 0700; fine if it is there.
    ///
    /// # Errors
    /// The system's.
    fn make_dir(&self, dir: &Path) -> Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// The system's.
    fn sync_dir(&self, dir: &Path) -> Result<()>;

    /// What a directory is stored on.
    ///
    /// # Errors
    /// The system's.
    fn probe(&self, dir: &Path) -> Result<FileSystem>;

    /// A number that is another once names in the directory have changed, as the server has it now and not as this node
    /// remembers it.
    ///
    /// # Errors
    /// The system's; `Unsupported` where there is no such number, so that only a list tells.
    fn stamp(&self, dir: &Path) -> Result<u64>;

    /// Has the system tell what changes in a directory. `None` where it does not, or not for what other nodes do.
    fn watch(&self, _dir: &Path) -> Option<Box<dyn Watch>> {
        None
    }

    /// As [`Fs::open`] with [`Access::Create`], for a file that is spread over storage targets.
    ///
    /// # Errors
    /// The system's; `Unsupported`, with no file left behind, when it cannot be spread.
    fn create_striped(&self, path: &Path, direct: bool, stripes: Stripes) -> Result<Arc<dyn File>>;

    /// Makes a file without a name, to be given one by [`File::give_name`], with room set aside up to `len` as
    /// [`File::set_aside`] does it. Without a name it is gone with who has it open.
    ///
    /// # Errors
    /// The system's; `Unsupported` where files have names from the start, or [`File::set_aside`] would gain nothing.
    fn prepare(&self, dir: &Path, direct: bool, len: u64) -> Result<Arc<dyn File>> {
        let _ = (dir, direct, len);
        Err(std::io::ErrorKind::Unsupported.into())
    }

    /// Cuts a file to `len` bytes if nothing was ever written behind them: room that its writer had set aside goes back to the
    /// file system. `false`, and nothing changed, where something was, or where that cannot be told.
    ///
    /// # Errors
    /// The system's.
    fn trim(&self, path: &Path, len: u64) -> Result<bool> {
        let _ = (path, len);
        Ok(false)
    }

    /// Waits for writes that the kernel had already when their process was killed: afterwards they are in the file, or never will
    /// be. Nothing changed, and nothing waited for, where no process of this node can have such writes under way.
    ///
    /// # Errors
    /// The system's.
    fn settle(&self, path: &Path) -> Result<()> {
        let _ = path;
        Ok(())
    }

    /// Gives a file another name in the same file system.
    ///
    /// # Errors
    /// The system's.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;
}

/// What has changed in a directory since the last time it was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Names came or went, or some changes were lost: look at everything.
    pub names: bool,
    /// Names of files that were written to, each at least once.
    pub written: Vec<String>,
}

/// Changes in a directory, as the system tells them.
pub trait Watch: Send + Debug {
    /// What has changed since the last call; does not wait.
    ///
    /// # Errors
    /// The system's; the watch is of no use any more then.
    fn changes(&mut self) -> Result<Changes>;
}

/// An open file. Reads and writes name their place and may be short, as the system's are; `io` completes them.
pub trait File: Send + Sync + Debug {
    /// Whether reads and writes go past the page cache, and so take whole aligned pages only.
    fn is_direct(&self) -> bool;

    /// Whether the file system says that it takes direct reads and writes of whole pages: where it does not say, only trying tells.
    fn takes_direct(&self) -> bool {
        false
    }

    /// Reads into host pieces, from `offset` of the file on; gives the number of bytes, 0 at the end.
    ///
    /// # Errors
    /// The system's.
    fn read_at(&self, into: &[Piece], offset: u64) -> Result<usize>;

    /// Writes host pieces to `offset` of the file and on; gives the number of bytes.
    ///
    /// # Errors
    /// The system's.
    fn write_at(&self, from: &[Piece], offset: u64) -> Result<usize>;

    /// The same as [`File::read_at`] or [`File::write_at`], for the kernel's queue; `None` where there are only calls. Each
    /// call of a transfer asks once, so that a layer may let it fail, be short, wait, or move other bytes.
    fn queued(&self, way: Way, pieces: &[Piece]) -> Option<Result<Queued>> {
        let _ = (way, pieces);
        None
    }

    /// Makes the content durable (fdatasync). After an error nothing is known of what was written since the last success.
    ///
    /// # Errors
    /// The system's.
    fn sync(&self) -> Result<()>;

    /// Length in bytes, as the server has it now and not as this node remembers it.
    ///
    /// # Errors
    /// The system's.
    fn len_bytes(&self) -> Result<u64>;

    /// Cuts the file to `len` bytes.
    ///
    /// # Errors
    /// The system's.
    fn truncate(&self, len: u64) -> Result<()>;

    /// Has the file system set room aside up to `len`, which the file is as long as then, with zeros where nothing was written:
    /// writes below it go on side by side, those that lengthen a file one by one. Changes nothing of what is there.
    ///
    /// # Errors
    /// The system's; `Unsupported` where it would gain nothing, or takes the room at once.
    fn set_aside(&self, len: u64) -> Result<()> {
        let _ = len;
        Err(std::io::ErrorKind::Unsupported.into())
    }

    /// Gives a file of [`Fs::prepare`] its name, which must not exist yet.
    ///
    /// # Errors
    /// The system's; `Unsupported` for files that have one.
    fn give_name(&self, path: &Path) -> Result<()> {
        let _ = path;
        Err(std::io::ErrorKind::Unsupported.into())
    }

    /// Sets the time of the last change to now, by the file system's clock.
    ///
    /// # Errors
    /// The system's.
    fn touch(&self) -> Result<()>;

    /// Time of the last change, by the file system's clock.
    ///
    /// # Errors
    /// The system's.
    fn touched(&self) -> Result<SystemTime>;

    /// Takes the file's lock for as long as it is open; `false` when another open file has it.
    ///
    /// # Errors
    /// The system's, where locks are not supported.
    fn lock(&self) -> Result<bool>;

    /// Whether another open file has the lock.
    ///
    /// # Errors
    /// The system's, where locks are not supported.
    fn is_locked(&self) -> Result<bool>;
}
