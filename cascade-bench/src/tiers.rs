//! How a measurement gets the tier that it measures.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cascade_core::tier::Addressable;
use cascade_core::{Error, ErrorKind, Result};

use crate::report::available_memory_bytes;
use crate::units::format_size;

/// What a measurement asks of a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Bytes for payload.
    pub capacity_bytes: u64,
    /// Blocks that it should be able to name; `None` leaves that to the tier.
    pub slots: Option<u64>,
    /// Whether every page must have been touched before it is handed out.
    pub touched: bool,
    /// Threads that use it at once, each with leases of its own.
    pub threads: usize,
    /// Blocks of zeros, of 4 KiB, that its index is to name already, all with the same few pages of data: the index is as large as
    /// with data of their own. Their ids are the first ones of a run, in order.
    pub index_only: Option<u64>,
}

/// A tier to measure.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The tier.
    pub tier: Arc<dyn Addressable>,
    /// Bytes of its index, for data of [`Wanted::capacity_bytes`]; `None` where that is not known.
    pub index_bytes: Option<u64>,
}

/// Makes a tier, empty but for [`Wanted::index_only`].
pub type Open<'a> = &'a dyn Fn(&Wanted) -> Result<Opened>;

const PREFIX: &str = "cascade-bench-";

/// A folder of this run alone, in memory; removed with what is in it when dropped. Folders that killed runs left behind
/// are removed on the way.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// A new folder in `parent`.
    ///
    /// # Errors
    /// `System` when it cannot be made.
    pub fn new(parent: &Path) -> Result<Self> {
        sweep(parent);
        let path = parent.join(format!("{PREFIX}{}", std::process::id()));
        let failed = |error: std::io::Error| {
            let context = format!("cannot make the folder {}; --dir names another place", path.display());
            Error::new(ErrorKind::System, context).with_source(error)
        };
        std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
        Ok(Self { path })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing can be done about a folder that stays; the next run sweeps it.
        drop(std::fs::remove_dir_all(&self.path));
    }
}

fn sweep(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|id| id.parse::<u32>().ok());
        if process.is_some_and(|id| !Path::new(&format!("/proc/{id}")).exists()) {
            drop(std::fs::remove_dir_all(entry.path()));
        }
    }
}

/// Bytes free for this user in the file system of `folder`.
///
/// # Errors
/// `System` when the system does not tell.
pub fn free_bytes(folder: &Path) -> Result<u64> {
    let failed = |error| {
        let context = format!("cannot ask how much space there is in {}", folder.display());
        Error::new(ErrorKind::System, context).with_source(std::io::Error::from(error))
    };
    let state = nix::sys::statvfs::statvfs(folder).map_err(failed)?;
    Ok(state.blocks_available() * state.fragment_size())
}

/// Makes sure that `shared` bytes fit into `folder`, and these together with `private` bytes into memory.
///
/// # Errors
/// `NoSpace`, saying how much is needed and how much there is.
pub fn check_room(folder: &Path, shared: u64, private: u64) -> Result<()> {
    let free = free_bytes(folder)?;
    let complain = |needed, place: String, free| {
        let advice = "free some, or ask for smaller blocks (--block), fewer --blocks, less --capacity, fewer --threads or another --dir";
        let context =
            format!("{} needed {place}, {} free there: {advice}", format_size(needed), format_size(free));
        Err(Error::new(ErrorKind::NoSpace, context))
    };
    if shared > free {
        return complain(shared, format!("in {}", folder.display()), free);
    }
    match available_memory_bytes() {
        Some(memory) if shared + private > memory => {
            complain(shared + private, "of memory".to_owned(), memory)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_is_refused_with_both_figures() {
        let folder = tempfile::tempdir().unwrap();
        let error = check_room(folder.path(), 1 << 60, 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert!(error.to_string().starts_with("1048576TiB needed in "), "{error}");
        check_room(folder.path(), 4096, 4096).unwrap();
    }

    #[test]
    fn a_place_that_is_not_there_is_not_made() {
        let parent = tempfile::tempdir().unwrap().path().join("gone");
        assert!(Scratch::new(&parent).unwrap_err().to_string().contains("--dir names another place"));
        assert!(!parent.exists());
    }

    #[test]
    fn a_scratch_folder_goes_and_takes_those_of_dead_runs_along() {
        let parent = tempfile::tempdir().unwrap();
        // Above the largest process id of Linux.
        let dead = parent.path().join(format!("{PREFIX}4194999"));
        std::fs::create_dir(&dead).unwrap();
        let scratch = Scratch::new(parent.path()).unwrap();
        std::fs::write(scratch.path().join("file"), b"x").unwrap();
        assert!(!dead.exists());
        drop(scratch);
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
