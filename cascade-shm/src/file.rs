//! The arena's file: made whole or not at all, trusted only when it is ours.

use std::fs::{File, Metadata};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use cascade_core::planted::{self, Bug};
use cascade_core::{Error, ErrorKind, Result};
use nix::sys::statfs::{HUGETLBFS_MAGIC, TMPFS_MAGIC, statfs};

use crate::config::ArenaConfig;
use crate::layout::{Geometry, SUPERBLOCK_BYTES, Superblock};

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
            let what = format!(
                "cannot make the arena's directory {}: its parent must be a directory that exists and that this user may \
                 write to",
                dir.display()
            );
            return Err(system(what)(error));
        }
    }
    let metadata =
        std::fs::symlink_metadata(dir).map_err(system(format!("cannot stat {}", dir.display())))?;
    let what = format!("the arena's directory {}", dir.display());
    check_ours(&what, dir, &metadata, Wanted::Directory)?;
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

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Directory,
    File,
}

/// Checks that what is at `path` (a symbolic link itself, not its target) is of the right type, ours, and ours alone.
fn check_ours(what: &str, path: &Path, metadata: &Metadata, wanted: Wanted) -> Result<()> {
    let refuse = |why: String| Err(Error::new(ErrorKind::Permission, format!("{what} {why}")));
    let (is_right, name) = match wanted {
        Wanted::Directory => (metadata.is_dir(), "a directory"),
        Wanted::File => (metadata.is_file(), "a regular file"),
    };
    if !is_right {
        let found = type_name(path, metadata);
        return refuse(format!("is {found}, and {name} is needed: move it away, or use another directory"));
    }
    let (uid, owner) = (nix::unistd::geteuid().as_raw(), metadata.uid());
    if owner != uid {
        return refuse(format!(
            "belongs to uid {owner}, not to this user ({uid}), and is not trusted: use another directory"
        ));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 && !planted::is(Bug::TrustMode) {
        let cure = format!("chmod go-rwx {}", path.display());
        return refuse(format!("has mode {mode:04o}, open to group or others: `{cure}`"));
    }
    if wanted == Wanted::File && metadata.nlink() > 1 {
        let links = metadata.nlink();
        return refuse(format!(
            "has {links} hard links, so that others may reach it: remove all but this one"
        ));
    }
    Ok(())
}

fn type_name(path: &Path, metadata: &Metadata) -> String {
    let kind = metadata.file_type();
    let names = [
        (kind.is_dir(), "a directory"),
        (kind.is_file(), "a regular file"),
        (kind.is_fifo(), "a FIFO"),
        (kind.is_socket(), "a socket"),
        (kind.is_char_device(), "a character device"),
        (kind.is_block_device(), "a block device"),
    ];
    if kind.is_symlink() {
        let target = std::fs::read_link(path).unwrap_or_default();
        return format!("a symbolic link to {}", target.display());
    }
    names.into_iter().find(|(is, _)| *is).map_or("of an unknown type", |(_, name)| name).into()
}

/// Opens the arena's file again, for a lock of its own.
///
/// # Errors
/// `NotFound` when the arena at `path` is not `file` any more: a lock on another file would protect nothing.
pub fn open_again(path: &Path, file: &File) -> Result<File> {
    let again = open(path)?;
    let identity = |file: &File| file.metadata().map(|metadata| (metadata.dev(), metadata.ino())).ok();
    if identity(&again).is_some_and(|found| identity(file) == Some(found)) {
        return Ok(again);
    }
    let what = format!("the arena {} was removed and made anew: open it again", path.display());
    Err(Error::new(ErrorKind::NotFound, what))
}

fn open(path: &Path) -> Result<File> {
    File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)
        .map_err(system(format!("cannot open the arena {}", path.display())))
}

/// Opens the arena of node `node` if it is there; `None` if it is not.
///
/// # Errors
/// `Permission` for a file that is not ours alone, `Format` for one that is not a whole arena of this node, in a format that
/// this code reads; `NoSpace` when its tables have lost pages and there is no memory for new ones.
pub fn attach(path: &Path, node: &str) -> Result<Option<(File, Superblock)>> {
    let Some((file, superblock)) = attach_by(path, open)? else { return Ok(None) };
    if superblock.node != node {
        let why = format!("was made by node {:?}, and this is node {node:?}", superblock.node);
        return Err(refusal(path, why));
    }
    check_backed(path, &file, &superblock.geometry)?;
    Ok(Some((file, superblock)))
}

fn refusal(path: &Path, why: String) -> Error {
    let what =
        format!("the arena {} {why}: remove it when no process uses it (`cascade gc`)", path.display());
    Error::new(ErrorKind::Format, what)
}

/// The arena with a descriptor that can only read, of whatever node and however long it is; `None` if it is not there.
///
/// # Errors
/// `Permission` for a file that is not ours alone, `Format` for one that is not an arena in a format that this code reads.
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
    let is_ours = |metadata: &Metadata| {
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
    let what = format!("the arena {}", path.display());
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(system(format!("cannot stat {}", path.display()))(error)),
        // Before it is opened: opening a device can have effects.
        Ok(metadata) => check_ours(&what, path, &metadata, Wanted::File)?,
    }
    let file = open(path)?;
    let metadata = file.metadata().map_err(system(format!("cannot stat {}", path.display())))?;
    // Again on what was opened: it may have been exchanged since.
    check_ours(&what, path, &metadata, Wanted::File)?;
    let mut bytes = vec![0; SUPERBLOCK_BYTES];
    file.read_exact_at(&mut bytes, 0).map_err(|error| {
        refusal(path, format!("has {} bytes, too few for an arena", metadata.len())).with_source(error)
    })?;
    let superblock = Superblock::parse(&bytes)
        .map_err(|error| Error::new(error.kind(), format!("{what} {}", error.context())))?;
    Ok(Some((file, superblock)))
}

/// Pages that do not exist would be made at their first use, and without memory for them that use ends the process.
fn check_backed(path: &Path, file: &File, geometry: &Geometry) -> Result<()> {
    let offsets = geometry.offsets();
    let Backing { found, needed } = check_whole(path, file, geometry)?;
    // More pages than are counted (growth is at work, or died over it) could hide some that are missing in the tables.
    if found > needed && found < offsets.total {
        let tables = offsets.data as i64;
        nix::fcntl::fallocate(file, nix::fcntl::FallocateFlags::empty(), 0, tables)
            .map_err(|error| system("no memory for the tables of the arena".into())(error.into()))?;
    }
    Ok(())
}

/// Bytes of an arena that exist, and those that must.
#[derive(Clone, Copy, Debug)]
pub struct Backing {
    found: u64,
    needed: u64,
}

/// Looks whether an arena is as long as it says, counts no more regions than it has, and has the pages of those that it counts.
///
/// # Errors
/// `Format` when it is not so, `System` when the file cannot be looked at.
pub fn check_whole(path: &Path, file: &File, geometry: &Geometry) -> Result<Backing> {
    let refuse = |why: String| refusal(path, why);
    let offsets = geometry.offsets();
    let regions = geometry.regions() as u64;
    let metadata = || file.metadata().map_err(system(format!("cannot stat {}", path.display())));
    let (found, needed) = (metadata()?.len(), offsets.total);
    if found != needed {
        return Err(refuse(format!("has {found} bytes, and its superblock says {needed}")));
    }
    let mut counters = [0; 16];
    // Read, not mapped: a missing page reads as zeros.
    file.read_exact_at(&mut counters, offsets.control)
        .map_err(|error| refuse("cannot be read".into()).with_source(error))?;
    let [ready, limit] = [0, 8].map(|at| {
        counters.get(at..at + 8).and_then(|part| part.try_into().ok()).map_or(u64::MAX, u64::from_le_bytes)
    });
    if ready > regions || limit > regions {
        let most = ready.max(limit);
        return Err(refuse(format!("is damaged: it counts {most} regions, and was made with {regions}")));
    }
    // After the counters: growth makes pages before it counts them.
    let (needed, found) = (offsets.data + ready * geometry.region_bytes, metadata()?.blocks() * 512);
    if found < needed {
        return Err(refuse(format!(
            "is damaged: {found} bytes of it exist, and its tables and {ready} regions need {needed}"
        )));
    }
    Ok(Backing { found, needed })
}

/// Makes an arena without a name and without its superblock, to be published by [`publish`]: a crash before that leaves nothing
/// behind.
///
/// # Errors
/// As for any file.
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
    file.set_len(offsets.total).map_err(system(no_room(config, &geometry)))?;
    Ok((file, superblock))
}

/// Makes what exists of the pages of its tables all of them.
///
/// # Errors
/// `NoSpace` when there is no memory for them.
pub fn allocate_tables(config: &ArenaConfig, file: &File, geometry: &Geometry) -> Result<()> {
    nix::fcntl::fallocate(file, nix::fcntl::FallocateFlags::empty(), 0, geometry.offsets().data as i64)
        .map_err(|error| system(no_room(config, geometry))(error.into()))
}

fn no_room(config: &ArenaConfig, geometry: &Geometry) -> String {
    format!("no room for the arena's tables ({} bytes) in {}", geometry.offsets().data, config.dir.display())
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
