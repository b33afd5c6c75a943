//! What a path is stored on.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::path::Path;

use cascade_core::{Error, ErrorKind, Result};
use nix::errno::Errno;
use nix::sys::statfs::statfs;

/// The kinds of file system that make a difference to a tier of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// Lustre: parallel, can be striped.
    Lustre,
    /// IBM Storage Scale (GPFS): parallel.
    Gpfs,
    /// `BeeGFS`: parallel.
    BeeGfs,
    /// `CephFS`: parallel.
    Ceph,
    /// NFS: shared, one server.
    Nfs,
    /// tmpfs, as on /dev/shm: memory.
    Tmpfs,
    /// ramfs or hugetlbfs: memory.
    Ram,
    /// ext2, ext3 or ext4.
    Ext,
    /// XFS.
    Xfs,
    /// Btrfs.
    Btrfs,
    /// ZFS.
    Zfs,
    /// overlayfs, the root of most containers: what is stored goes with the container.
    Overlay,
    /// A file system in user space; what lies behind it is not visible from here.
    Fuse,
    /// Another one, by the magic number of statfs(2).
    Other(u32),
}

/// Magic numbers of statfs(2): its manual page, linux/magic.h, and the headers of Lustre, GPFS, `BeeGFS` and ZFS.
const KINDS: [(u32, Kind); 14] = [
    (0x0BD0_0BD0, Kind::Lustre),
    (0x4750_4653, Kind::Gpfs),
    (0x1983_0326, Kind::BeeGfs),
    (0x00C3_6400, Kind::Ceph),
    (0x0000_6969, Kind::Nfs),
    (0x0102_1994, Kind::Tmpfs),
    (0x8584_58F6, Kind::Ram),
    (0x9584_58F6, Kind::Ram),
    (0x0000_EF53, Kind::Ext),
    (0x5846_5342, Kind::Xfs),
    (0x9123_683E, Kind::Btrfs),
    (0x2FC1_2FC1, Kind::Zfs),
    (0x794C_7630, Kind::Overlay),
    (0x6573_5546, Kind::Fuse),
];

impl Kind {
    /// The kind for a magic number of statfs(2).
    #[must_use]
    pub fn from_magic(magic: u32) -> Self {
        let known = KINDS.iter().find(|(number, _)| *number == magic);
        known.map_or(Self::Other(magic), |(_, kind)| *kind)
    }

    /// Whether the bytes are in this node's memory and gone when it restarts.
    #[must_use]
    pub const fn in_memory(self) -> bool {
        matches!(self, Self::Tmpfs | Self::Ram)
    }

    /// Whether other nodes normally see the same files.
    #[must_use]
    pub const fn shared(self) -> bool {
        matches!(self, Self::Lustre | Self::Gpfs | Self::BeeGfs | Self::Ceph | Self::Nfs)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lustre => "Lustre",
            Self::Gpfs => "GPFS",
            Self::BeeGfs => "BeeGFS",
            Self::Ceph => "CephFS",
            Self::Nfs => "NFS",
            Self::Tmpfs => "tmpfs (memory)",
            Self::Ram => "ramfs or hugetlbfs (memory)",
            Self::Ext => "ext2/3/4",
            Self::Xfs => "XFS",
            Self::Btrfs => "Btrfs",
            Self::Zfs => "ZFS",
            Self::Overlay => "overlayfs (container)",
            Self::Fuse => "FUSE",
            Self::Other(magic) => return write!(f, "unknown file system {magic:#010x}"),
        })
    }
}

/// A file system as statfs(2) describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileSystem {
    /// Its kind.
    pub kind: Kind,
    /// Transfer size that it prefers. On Lustre and NFS far larger than 4 KiB; not the alignment of direct I/O.
    pub block_bytes: u64,
    /// Size of all.
    pub total_bytes: u64,
    /// What this user may still write, without what is reserved for root. A user's quota is not in it.
    pub free_bytes: u64,
    /// Files that there can be; 0 where there is no such bound.
    pub total_files: u64,
    /// Files that may still be made.
    pub free_files: u64,
}

impl FileSystem {
    /// A file system of this kind without any bound, as tests need it.
    #[must_use]
    pub const fn unbounded(kind: Kind) -> Self {
        let most = u64::MAX;
        Self {
            kind,
            block_bytes: 4096,
            total_bytes: most,
            free_bytes: most,
            total_files: most,
            free_files: most,
        }
    }
}

/// Asks what the file or directory `path` is stored on. Follows symbolic links.
///
/// ```
/// let here = cascade_pfs::filesystem::probe(std::path::Path::new("."))?;
/// println!("{}: {} bytes free of {}", here.kind, here.free_bytes, here.total_bytes);
/// # Ok::<(), cascade_core::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::NotFound`] when there is no such path, [`ErrorKind::Permission`] when a directory on the way may
/// not be searched, [`ErrorKind::InvalidArgument`] when the path can be none, [`ErrorKind::System`] for the rest.
pub fn probe(path: &Path) -> Result<FileSystem> {
    ask_system(path).map_err(|errno| failed(path, errno))
}

/// As [`probe`], with the system's error.
pub(crate) fn ask(path: &Path) -> std::io::Result<FileSystem> {
    Ok(ask_system(path)?)
}

/// What an open file is on.
pub(crate) fn ask_file(file: BorrowedFd<'_>) -> std::io::Result<Kind> {
    Ok(Kind::from_magic(magic(nix::sys::statfs::fstatfs(file)?.filesystem_type().0)))
}

fn ask_system(path: &Path) -> std::result::Result<FileSystem, Errno> {
    let answer = loop {
        match statfs(path) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    let unit_bytes = bytes(answer.block_size());
    Ok(FileSystem {
        kind: Kind::from_magic(magic(answer.filesystem_type().0)),
        block_bytes: bytes(answer.optimal_transfer_size()),
        total_bytes: unit_bytes.saturating_mul(answer.blocks()),
        free_bytes: unit_bytes.saturating_mul(answer.blocks_available()),
        total_files: answer.files(),
        free_files: bytes(answer.files_free()),
    })
}

fn failed(path: &Path, errno: Errno) -> Error {
    let (kind, cure) = match errno {
        Errno::ENOENT => (ErrorKind::NotFound, "; create it first"),
        Errno::ENOTDIR => (ErrorKind::NotFound, "; a part of the path before the last is a file"),
        Errno::EACCES => (ErrorKind::Permission, "; a directory on the way may not be searched by this user"),
        Errno::EINVAL | Errno::ENAMETOOLONG | Errno::ELOOP => (ErrorKind::InvalidArgument, ""),
        _ => (ErrorKind::System, ""),
    };
    Error::new(kind, format!("cannot ask what {} is stored on{cure}", path.display())).with_source(errno)
}

/// The magic is 32 bits wide, but `f_type` is a signed word whose width and sign extension depend on the platform.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the low 32 bits are the magic")]
#[allow(clippy::unnecessary_cast, reason = "the type of f_type differs between platforms")]
const fn magic(f_type: nix::libc::__fsword_t) -> u32 {
    f_type as u32
}

/// A size that the kernel gives as a signed number; it is never negative.
fn bytes(size: impl TryInto<u64>) -> u64 {
    size.try_into().unwrap_or(0)
}

#[cfg(test)]
mod tests;
