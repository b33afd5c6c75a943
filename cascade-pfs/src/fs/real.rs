//! The system's files.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{Error, ErrorKind, Result};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use cascade_core::memory::Piece;
use nix::fcntl::{
    AT_FDCWD, AtFlags, FallocateFlags, FcntlArg, PosixFadviseAdvice, fallocate, fcntl, posix_fadvise,
};
use nix::unistd::{Whence, linkat, lseek};

use super::watch::DirWatch;
use super::{Access, File, Fs, Queued, Watch, Way};
use crate::core::is_forbidden;
use crate::filesystem::{self, FileSystem, Kind};
use crate::raw;
use crate::stripe::Stripes;
use crate::survey::DirectAlignment;

/// The file systems of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFs;

#[derive(Debug)]
struct RealFile {
    file: std::fs::File,
    direct: bool,
}

fn open(path: &Path, access: Access, flags: i32) -> Result<std::fs::File> {
    let mut options = OpenOptions::new();
    options.read(true).mode(0o600).custom_flags(flags | libc::O_NOFOLLOW | libc::O_CLOEXEC);
    if access == Access::Create {
        return options.write(true).create_new(true).open(path);
    }
    // A pipe of that name is opened without waiting for who writes into it.
    let file =
        options.custom_flags(flags | libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK).open(path)?;
    // As for a symbolic link: it is not the file that was made here.
    let is_ours = file.metadata()?.is_file();
    if is_ours { Ok(file) } else { Err(Error::from_raw_os_error(libc::ELOOP)) }
}

impl Fs for RealFs {
    fn open(&self, path: &Path, access: Access, direct: bool) -> Result<Arc<dyn File>> {
        if direct {
            match open(path, access, libc::O_DIRECT) {
                Ok(file) => return Ok(Arc::new(RealFile { file, direct: true })),
                // A file system without direct I/O. Some of them leave the created file behind.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) && access == Access::Create => {
                    let _ = std::fs::remove_file(path);
                }
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Arc::new(RealFile { file: open(path, access, 0)?, direct: false }))
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>> {
        // A name that is no text is none of ours.
        let name = |entry: Result<std::fs::DirEntry>| match entry {
            Ok(entry) => entry.file_name().into_string().ok().map(Ok),
            Err(error) => Some(Err(error)),
        };
        std::fs::read_dir(dir)?.filter_map(name).collect()
    }

    fn remove(&self, path: &Path) -> Result<()> {
        std::fs::remove_file(path)
    }

    fn make_dir(&self, dir: &Path) -> Result<()> {
        match DirBuilder::new().mode(0o700).create(dir) {
            // Some file systems ask for the right to make it first.
            Err(error)
                if (error.kind() == ErrorKind::AlreadyExists || is_forbidden(&error)) && dir.is_dir() =>
            {
                Ok(())
            }
            other => other,
        }
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        std::fs::File::open(dir)?.sync_all()
    }

    fn probe(&self, dir: &Path) -> Result<FileSystem> {
        filesystem::ask(dir)
    }

    fn stamp(&self, dir: &Path) -> Result<u64> {
        Ok(raw::status(std::fs::File::open(dir)?.as_fd())?.changed_ns)
    }

    fn watch(&self, dir: &Path) -> Option<Box<dyn Watch>> {
        // Elsewhere other nodes write, of which this kernel hears nothing.
        let local = |kind| {
            matches!(kind, Kind::Ext | Kind::Xfs | Kind::Btrfs | Kind::Tmpfs | Kind::Zfs | Kind::Overlay)
        };
        let found = filesystem::ask(dir).ok().filter(|found| local(found.kind));
        found.and_then(|_| DirWatch::new(dir).ok()).map(|watch| Box::new(watch) as Box<dyn Watch>)
    }

    fn create_striped(&self, path: &Path, direct: bool, stripes: Stripes) -> Result<Arc<dyn File>> {
        let (flags, direct) = if direct { (libc::O_DIRECT, true) } else { (0, false) };
        let file = open(path, Access::Create, flags | raw::DELAYED_LAYOUT)?;
        if let Err(error) = raw::set_stripes(file.as_fd(), stripes) {
            let _ = std::fs::remove_file(path);
            return Err(Error::new(ErrorKind::Unsupported, error));
        }
        Ok(Arc::new(RealFile { file, direct }))
    }

    fn prepare(&self, dir: &Path, direct: bool, len: u64) -> Result<Arc<dyn File>> {
        let flags = libc::O_TMPFILE | libc::O_CLOEXEC | if direct { libc::O_DIRECT } else { 0 };
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).mode(0o600).custom_flags(flags).open(dir)?;
        let file = RealFile { file, direct };
        file.set_aside(len)?;
        Ok(Arc::new(file))
    }

    fn trim(&self, path: &Path, len: u64) -> Result<bool> {
        let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC;
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
        // Nobody sets room aside elsewhere, and here locks and boots tell for certain that its writer is dead: one that only seems
        // so may write between the two steps below.
        if !has_aside(filesystem::ask_file(file.as_fd())?) {
            return Ok(false);
        }
        let place = i64::try_from(len).map_err(|_| Error::from_raw_os_error(libc::EFBIG))?;
        // Room that was read through the page cache, as by who looks for the last record, counts as data while it is there.
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        match lseek(&file, place, Whence::SeekData) {
            // No data from there to the end of the file.
            Err(nix::errno::Errno::ENXIO) if file.metadata()?.len() > len => file.set_len(len).map(|()| true),
            Ok(_) | Err(nix::errno::Errno::ENXIO | nix::errno::Errno::EINVAL) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn settle(&self, path: &Path) -> Result<()> {
        let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC;
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
        if !has_aside(filesystem::ask_file(file.as_fd())?) {
            return Ok(());
        }
        // Asks for room that is there already, and so changes nothing; but ext4 and XFS let direct writes that are under way come to
        // their end before they look. The end of a process does not wait for them.
        fallocate(&file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, FIRST_PAGE).map_err(Error::from)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        std::fs::rename(from, to)
    }
}

/// Bytes of a segment that are always there.
const FIRST_PAGE: i64 = 4096;

/// Whether room can be set aside, and is taken only as it is written to: memory would be filled with zeros, and servers may do the
/// same with their disks.
fn has_aside(kind: Kind) -> bool {
    matches!(kind, Kind::Ext | Kind::Xfs)
}

fn lock(kind: i32) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 1, l_pid: 0 }
}

impl File for RealFile {
    fn is_direct(&self) -> bool {
        self.direct
    }

    fn takes_direct(&self) -> bool {
        let page = FIRST_PAGE as u32;
        let fits = |unit: DirectAlignment| unit.memory <= page && unit.offset <= page;
        self.direct && raw::direct_alignment(self.file.as_fd()).is_some_and(fits)
    }

    fn read_at(&self, into: &[Piece], offset: u64) -> Result<usize> {
        raw::read_at(self.file.as_fd(), into, offset)
    }

    fn write_at(&self, from: &[Piece], offset: u64) -> Result<usize> {
        raw::write_at(self.file.as_fd(), from, offset)
    }

    fn queued(&self, _way: Way, pieces: &[Piece]) -> Option<Result<Queued>> {
        Some(Ok(Queued::plain(self.file.as_raw_fd(), pieces)))
    }

    fn sync(&self) -> Result<()> {
        self.file.sync_data()
    }

    fn len_bytes(&self) -> Result<u64> {
        Ok(raw::status(self.file.as_fd())?.len)
    }

    fn truncate(&self, len: u64) -> Result<()> {
        self.file.set_len(len)
    }

    fn set_aside(&self, len: u64) -> Result<()> {
        if !has_aside(filesystem::ask_file(self.file.as_fd())?) {
            return Err(ErrorKind::Unsupported.into());
        }
        let len = i64::try_from(len).map_err(|_| Error::from_raw_os_error(libc::EFBIG))?;
        fallocate(&self.file, FallocateFlags::empty(), 0, len).map_err(Error::from)
    }

    fn give_name(&self, path: &Path) -> Result<()> {
        // By way of /proc: naming a descriptor itself takes a privilege.
        let shown = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        linkat(AT_FDCWD, shown.as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW).map_err(Error::from)
    }

    fn touch(&self) -> Result<()> {
        // UTIME_NOW, so that on a shared file system the time is the server's.
        let now = nix::sys::time::TimeSpec::UTIME_NOW;
        nix::sys::stat::futimens(&self.file, &now, &now).map_err(Error::from)
    }

    fn touched(&self) -> Result<SystemTime> {
        self.file.metadata()?.modified()
    }

    fn lock(&self) -> Result<bool> {
        match fcntl(self.file.as_fd(), FcntlArg::F_OFD_SETLK(&lock(libc::F_WRLCK))) {
            Ok(_) => Ok(true),
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn is_locked(&self) -> Result<bool> {
        let mut found = lock(libc::F_WRLCK);
        fcntl(self.file.as_fd(), FcntlArg::F_OFD_GETLK(&mut found)).map_err(Error::from)?;
        Ok(i32::from(found.l_type) != libc::F_UNLCK)
    }
}

#[cfg(test)]
mod tests {
    use cascade_core::memory::HostBuffer;

    use super::*;
    use crate::buffer::Buffer;

    #[test]
    fn what_is_no_file_is_not_opened_and_nobody_waits_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let [pipe, dir, link, null] = ["pipe", "dir", "link", "null"].map(|name| folder.path().join(name));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::create_dir(&dir).unwrap();
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        for (path, direct) in [(&pipe, false), (&pipe, true), (&dir, false), (&link, false)] {
            let error = RealFs.open(path, Access::Read, direct).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ELOOP), "{}", path.display());
        }
        assert_eq!(RealFs.open(&null, Access::Read, false).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    }

    #[test]
    fn where_nobody_sets_room_aside_nothing_is_cut() {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = folder.path().join("a");
        let file = RealFs.open(&path, Access::Create, false).unwrap();
        file.truncate(1 << 20).unwrap();
        assert!(file.set_aside(1 << 20).is_err());
        assert!(!RealFs.trim(&path, 4096).unwrap(), "its writer may only seem to be dead");
        assert_eq!(file.len_bytes().unwrap(), 1 << 20);
    }

    #[test]
    fn files_are_written_locked_and_read() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, fs) = (folder.path().join("tier"), RealFs);
        fs.make_dir(&dir).unwrap();
        fs.make_dir(&dir).unwrap();
        let path = dir.join("a");
        let file = fs.open(&path, Access::Create, true).unwrap();
        assert_eq!(
            fs.open(&path, Access::Create, true).unwrap_err().raw_os_error(),
            Some(libc::EEXIST),
            "two writers never share a file"
        );
        let mut page = Buffer::new(4096);
        page.bytes_mut().unwrap().fill(3);
        assert_eq!(file.write_at(&[page.piece(), page.piece()], 4096).unwrap(), 8192);
        file.sync().unwrap();
        file.touch().unwrap();
        assert!(file.touched().unwrap().elapsed().unwrap().as_secs() < 60);
        assert_eq!(file.len_bytes().unwrap(), 12_288);
        file.truncate(8192).unwrap();
        let again = fs.open(&path, Access::Read, false).unwrap();
        assert!(file.lock().unwrap() && again.is_locked().unwrap() && !file.is_locked().unwrap());
        if file.set_aside(1 << 20).is_ok() {
            assert_eq!(file.len_bytes().unwrap(), 1 << 20);
            assert!(!fs.trim(&path, 4096).unwrap(), "something stands behind it");
            assert_eq!(file.len_bytes().unwrap(), 1 << 20);
            // Who looks for the last record reads what is behind it.
            let looked = HostBuffer::zeroed(12_288);
            assert_eq!(again.read_at(&[looked.piece()], 4096).unwrap(), 12_288);
            assert!(fs.trim(&path, 8192).unwrap(), "nothing was ever written there");
            assert_eq!(file.len_bytes().unwrap(), 8192);
            assert!(!fs.trim(&path, 8192).unwrap());
            file.truncate(8192).unwrap();
        }
        let mut read = HostBuffer::zeroed(10_000);
        assert_eq!(again.read_at(&[read.piece()], 4000).unwrap(), 4192);
        let bytes = read.bytes_mut().unwrap();
        assert!(bytes[..96] == [0; 96] && bytes[96..4192] == [3; 4096]);
        if let Ok(nameless) = fs.prepare(&dir, false, 1 << 20) {
            assert_eq!(fs.list(&dir).unwrap(), ["a"]);
            let taken = nameless.give_name(&path).unwrap_err();
            assert_eq!(taken.raw_os_error(), Some(libc::EEXIST), "two writers never share a file");
            nameless.give_name(&dir.join("b")).unwrap();
            nameless.write_at(&[page.piece()], 4096).unwrap();
            let named = fs.open(&dir.join("b"), Access::Read, false).unwrap();
            assert_eq!(named.len_bytes().unwrap(), 1 << 20);
            fs.remove(&dir.join("b")).unwrap();
        }
        drop(file);
        assert!(!again.is_locked().unwrap());
        assert_eq!(fs.list(&dir).unwrap(), ["a"]);
        fs.sync_dir(&dir).unwrap();
        // A client of NFS keeps a file that is removed while it is open, under another name.
        drop(again);
        fs.remove(&path).unwrap();
        assert!(fs.list(&dir).unwrap().is_empty());
        std::os::unix::fs::symlink(folder.path(), &path).unwrap();
        assert_eq!(fs.open(&path, Access::Read, false).unwrap_err().raw_os_error(), Some(libc::ELOOP));
    }
}
