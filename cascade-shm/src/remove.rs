//! The end of an arena: its file goes only while nobody can be using it.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use cascade_core::{Error, ErrorKind, Result};

use crate::{file, process};

/// What became of a file that was to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It is gone, and gave back this many bytes of memory.
    Removed(u64),
    /// A process, or the fork of one, holds an owner row of it: nothing was done.
    InUse,
    /// It is not there, or is another file by now.
    Gone,
}

/// Whether a process, or the fork of one, holds an owner row of the arena at `path`; also says it of a file whose
/// superblock cannot be read. `None` when there is no such file.
///
/// # Errors
/// `Permission` for a file that is not a regular file of this user.
pub fn is_in_use(path: &Path) -> Result<Option<bool>> {
    Ok(file::look_any(path)?.map(|file| process::is_any_row_locked(&file)))
}

/// Removes the file at `path`, a regular file of this user, whatever it holds. While it goes, all its owner rows are locked:
/// who opens the arena at that moment waits, and then makes a new one.
///
/// # Errors
/// `Permission` for a file that is not a regular file of this user, `System` when it cannot be unlinked.
pub fn remove(path: &Path) -> Result<Removal> {
    let Some(file) = file::open_any(path)? else { return Ok(Removal::Gone) };
    if !process::lock_all_rows(&file) {
        return Ok(Removal::InUse);
    }
    if !is_at(&file, path) {
        return Ok(Removal::Gone);
    }
    let bytes = file.metadata().map_or(0, |metadata| metadata.blocks() * 512);
    std::fs::remove_file(path).map_err(|error| {
        Error::new(ErrorKind::System, format!("cannot remove {}", path.display())).with_source(error)
    })?;
    // Of no use without it; what cannot be removed is begun anew by the next arena.
    let _ = std::fs::remove_file(crate::trail::path_of(path));
    Ok(Removal::Removed(bytes))
}

/// Whether `path` still names `file`.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(named)) = (file.metadata(), std::fs::symlink_metadata(path)) else { return false };
    (open.dev(), open.ino()) == (named.dev(), named.ino())
}
