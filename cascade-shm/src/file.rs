//! The arena's file: made whole or not at all, trusted only when it is ours.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use cascade_core::planted::{self, Bug};
use cascade_core::{Error, ErrorKind, Result};
use nix::sys::statfs::{HUGETLBFS_MAGIC, TMPFS_MAGIC, statfs};

use crate::config::ArenaConfig;
use crate::layout::{SUPERBLOCK_BYTES, Superblock};

fn system(what: String) -> impl FnOnce(std::io::Error) -> Error {
    move |error| {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::PermissionDenied => ErrorKind::Permission,
            std::io::ErrorKind::StorageFull => ErrorKind::NoSpace,
            _ => ErrorKind::System,
        };
        Error::new(kind, what).with_source(error)
    }
}

/// Makes the directory if it is missing, and checks that it is ours alone.
///
/// # Errors
/// `NotFound` when its parent is missing, `Permission` when others could reach into it, `Config` when it is not in memory.
pub fn prepare_dir(dir: &Path) -> Result<()> {
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => {
            let what = format!("cannot make the arena's directory {}: its parent must exist", dir.display());
            return Err(system(what)(error));
        }
    }
    let metadata =
        std::fs::symlink_metadata(dir).map_err(system(format!("cannot stat {}", dir.display())))?;
    check_ours(dir, &metadata, metadata.is_dir(), "a directory")?;
    let kind = statfs(dir)
        .map_err(|error| {
            Error::new(ErrorKind::System, format!("cannot stat {}", dir.display())).with_source(error)
        })?
        .filesystem_type();
    if kind != TMPFS_MAGIC && kind != HUGETLBFS_MAGIC {
        let what = format!("{} is not on tmpfs or hugetlbfs: give a directory under /dev/shm", dir.display());
        return Err(Error::new(ErrorKind::Config, what));
    }
    Ok(())
}

fn check_ours(path: &Path, metadata: &std::fs::Metadata, right_type: bool, type_name: &str) -> Result<()> {
    let uid = nix::unistd::geteuid().as_raw();
    let mode = metadata.mode() & 0o777;
    let refuse = |what: String| Err(Error::new(ErrorKind::Permission, what));
    if !right_type {
        return refuse(format!(
            "{} is not {type_name} (a symbolic link is refused): remove it",
            path.display()
        ));
    }
    if metadata.uid() != uid {
        let owner = metadata.uid();
        return refuse(format!(
            "{} belongs to uid {owner}, not to this user ({uid}): use another",
            path.display()
        ));
    }
    if mode & 0o077 != 0 && !planted::is(Bug::TrustMode) {
        let cure = format!("chmod go-rwx {}", path.display());
        return refuse(format!("{} has mode {mode:04o}, open to others: `{cure}`", path.display()));
    }
    Ok(())
}

/// Opens the arena's file again, for a lock of its own.
///
/// # Errors
/// As for any open.
pub fn open(path: &Path) -> Result<File> {
    File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)
        .map_err(system(format!("cannot open the arena {}", path.display())))
}

/// Opens the arena if it is there; `None` if it is not.
///
/// # Errors
/// `Permission` for a file that is not ours alone, `Format` for one that is not an arena.
pub fn attach(path: &Path) -> Result<Option<(File, Superblock)>> {
    attach_by(path, open)
}

/// As [`attach`], with a descriptor that can only read.
///
/// # Errors
/// As [`attach`].
pub fn look(path: &Path) -> Result<Option<(File, Superblock)>> {
    attach_by(path, open_to_read)
}

fn open_to_read(path: &Path) -> Result<File> {
    // Without O_NONBLOCK a pipe that took the file's place would make us wait for its writer.
    File::options()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open(path)
        .map_err(system(format!("cannot open the arena {}", path.display())))
}

/// Opens a regular file of this user to read, whatever it holds and whatever its mode; `None` if it is not there.
///
/// # Errors
/// `Permission` when it is something else, or somebody else's.
pub fn look_any(path: &Path) -> Result<Option<File>> {
    open_any_by(path, open_to_read)
}

/// As [`look_any`], to read and write.
///
/// # Errors
/// As [`look_any`].
pub fn open_any(path: &Path) -> Result<Option<File>> {
    open_any_by(path, open)
}

fn open_any_by(path: &Path, open: fn(&Path) -> Result<File>) -> Result<Option<File>> {
    let is_ours = |metadata: &std::fs::Metadata| {
        let ours = metadata.is_file() && metadata.uid() == nix::unistd::geteuid().as_raw();
        let what = || format!("{} is not a regular file of this user", path.display());
        if ours { Ok(()) } else { Err(Error::new(ErrorKind::Permission, what())) }
    };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(system(format!("cannot stat {}", path.display()))(error)),
        Ok(metadata) => is_ours(&metadata)?,
    }
    let file = open(path)?;
    is_ours(&file.metadata().map_err(system(format!("cannot stat {}", path.display())))?)?;
    Ok(Some(file))
}

fn attach_by(path: &Path, open: fn(&Path) -> Result<File>) -> Result<Option<(File, Superblock)>> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(system(format!("cannot stat {}", path.display()))(error)),
        Ok(metadata) => check_ours(path, &metadata, metadata.is_file(), "a regular file")?,
    }
    let file = open(path)?;
    let metadata = file.metadata().map_err(system(format!("cannot stat {}", path.display())))?;
    check_ours(path, &metadata, metadata.is_file(), "a regular file")?;
    if metadata.nlink() != 1 {
        let what = format!("{} has {} hard links: remove it", path.display(), metadata.nlink());
        return Err(Error::new(ErrorKind::Permission, what));
    }
    let mut bytes = vec![0; SUPERBLOCK_BYTES];
    file.read_exact_at(&mut bytes, 0).map_err(|error| {
        Error::new(ErrorKind::Format, format!("{} is too short to be an arena: remove it", path.display()))
            .with_source(error)
    })?;
    let superblock = Superblock::parse(&bytes).map_err(|error| {
        Error::new(error.kind(), format!("the arena {} {}", path.display(), error.context()))
    })?;
    Ok(Some((file, superblock)))
}

/// Makes an arena without a name, to be published by [`publish`]: a crash before that leaves nothing behind.
///
/// # Errors
/// `NoSpace` when there is no memory for its tables.
pub fn create(config: &ArenaConfig) -> Result<(File, Superblock)> {
    let geometry = config.geometry()?;
    let offsets = geometry.offsets();
    let superblock = Superblock::new(geometry, random()?, config.node_name());
    let dir = &config.dir;
    let file = File::options()
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_TMPFILE | libc::O_CLOEXEC)
        .open(dir)
        .map_err(system(format!("cannot make a file in {}", dir.display())))?;
    let full = || format!("no room for the arena's tables ({} bytes) in {}", offsets.data, dir.display());
    file.set_len(offsets.total).map_err(system(full()))?;
    nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::empty(), 0, offsets.data as i64)
        .map_err(|error| system(full())(error.into()))?;
    file.write_all_at(&superblock.encode(), 0).map_err(system(full()))?;
    Ok((file, superblock))
}

/// Gives a new arena its name. `false`: somebody else was faster.
///
/// # Errors
/// As for any link.
pub fn publish(file: &File, path: &Path) -> Result<bool> {
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    let follow = nix::fcntl::AtFlags::AT_SYMLINK_FOLLOW;
    match nix::unistd::linkat(nix::fcntl::AT_FDCWD, own.as_str(), nix::fcntl::AT_FDCWD, path, follow) {
        Ok(()) => Ok(true),
        Err(nix::errno::Errno::EEXIST) => Ok(false),
        Err(error) => Err(system(format!("cannot name the arena {}", path.display()))(error.into())),
    }
}

fn random() -> Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")
        .and_then(|file| std::io::Read::read_exact(&mut &file, &mut bytes))
        .map_err(system("cannot read /dev/urandom".into()))?;
    Ok(u64::from_le_bytes(bytes))
}
