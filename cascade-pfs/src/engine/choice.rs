//! Whether the kernel's queue (io_uring) works here, and whether it is the better way.

use std::io;
use std::path::Path;
use std::sync::OnceLock;

use crate::config::IoEngine;
use crate::filesystem::Kind;
use crate::fs::Fs;

use super::raw::Queue;

/// What moves the bytes of a tier, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Whether there is a queue.
    pub(crate) ring: bool,
    /// Whether the queue also takes what goes through the page cache.
    pub(crate) always: bool,
    pub(crate) why: &'static str,
}

impl Choice {
    pub(crate) fn pool(why: &'static str) -> Self {
        Self { ring: false, always: false, why }
    }

    fn ring(always: bool, why: &'static str) -> Self {
        Self { ring: true, always, why }
    }

    /// By the setting, by what works in this process, and by the file system that `dir` is on.
    ///
    /// # Errors
    /// `Unsupported`, naming the cause, when the queue is asked for and does not work here.
    pub(crate) fn make(engine: IoEngine, fs: &dyn Fs, dir: &Path) -> io::Result<Self> {
        match (engine, works()) {
            (IoEngine::Pool, _) => Ok(Self::pool("as configured")),
            (IoEngine::Uring, Ok(())) => Ok(Self::ring(true, "as configured")),
            (IoEngine::Uring, Err(why)) => {
                Err(io::Error::new(io::ErrorKind::Unsupported, format!("io_engine = uring: {why}")))
            }
            (IoEngine::Auto, Err(why)) => Ok(Self::pool(why)),
            (IoEngine::Auto, Ok(())) => Ok(fs
                .probe(dir)
                .map_or_else(|_| Self::pool("the file system is unknown"), |found| rule(found.kind))),
        }
    }
}

/// The rule where both ways work. Local disks answer more small reads the more of them are asked at once, and a queue asks
/// without a thread each. The clients of parallel file systems are written for calls of threads, and where bytes lie in
/// memory a transfer is a copy, which threads share and one queue would not.
fn rule(kind: Kind) -> Choice {
    match kind {
        Kind::Ext | Kind::Xfs | Kind::Btrfs | Kind::Overlay => {
            Choice::ring(false, "a local disk with direct I/O")
        }
        Kind::Tmpfs | Kind::Ram => Choice::pool("the files are in memory"),
        Kind::Lustre | Kind::Gpfs | Kind::BeeGfs | Kind::Ceph | Kind::Nfs => {
            Choice::pool("a shared file system")
        }
        _ => Choice::pool("a file system that io_uring was not measured on"),
    }
}

/// Whether this process may use the queue: tried once, by a transfer.
fn works() -> Result<(), &'static str> {
    static WORKS: OnceLock<Result<(), &'static str>> = OnceLock::new();
    *WORKS.get_or_init(|| {
        let tried = Queue::<()>::new(4).and_then(|mut queue| queue.try_out());
        tried.map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => {
                "io_uring is forbidden here (kernel.io_uring_disabled, or a seccomp filter as of containers)"
            }
            Some(libc::ENOSYS) => "this kernel has no io_uring, or a seccomp filter hides it",
            Some(libc::ENOMEM) => "io_uring may lock too little memory (ulimit -l)",
            _ if error.kind() == io::ErrorKind::Unsupported => {
                "this kernel's io_uring is too old (5.11 is needed)"
            }
            _ => "io_uring does not work here",
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_and_memory_file_systems_get_the_pool() {
        for kind in [Kind::Lustre, Kind::Nfs, Kind::Tmpfs, Kind::Fuse, Kind::Other(1)] {
            assert!(!rule(kind).ring, "{kind:?}");
        }
        assert!(rule(Kind::Ext).ring && !rule(Kind::Ext).always);
        let pool = Choice::make(IoEngine::Pool, &crate::fs::RealFs, Path::new("/")).unwrap();
        assert_eq!((pool.ring, pool.why), (false, "as configured"));
    }
}
