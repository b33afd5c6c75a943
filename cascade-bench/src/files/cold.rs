//! Files out of the page cache, and the proof of it.

use std::fs::File;
use std::io::Result;
use std::path::{Path, PathBuf};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::raw::resident_bytes;

/// All files below `folder`.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// Writes what is dirty of the files of `folder`, and drops them from the page cache; where this process may, the clean caches of
/// the whole machine too. Says how.
pub(crate) fn drop_caches(folder: &Path) -> Result<String> {
    // All of the file system at once: one call for thousands of files. Only clean pages can be dropped.
    nix::unistd::syncfs(File::open(folder)?)?;
    for path in files(folder)? {
        let file = File::open(path)?;
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    }
    // Refused to all but root, and where /proc is read-only.
    let all = std::fs::write("/proc/sys/vm/drop_caches", "1").is_ok();
    Ok(if all { "posix_fadvise and drop_caches" } else { "posix_fadvise" }.to_owned())
}

/// Bytes of the files of `folder` that are in the page cache; `None` where it cannot be asked.
pub(super) fn resident(folder: &Path) -> Option<u64> {
    let of = |path: PathBuf| File::open(path).and_then(|file| resident_bytes(&file)).ok();
    files(folder).ok()?.into_iter().map(of).sum()
}

/// Bytes that a process and its ended children had from and sent to devices; `None` where the system does not count.
pub(super) fn device_bytes(process: Option<u32>) -> Option<(u64, u64)> {
    let process = process.map_or_else(|| "self".to_owned(), |id| id.to_string());
    let text = std::fs::read_to_string(format!("/proc/{process}/io")).ok()?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))?;
        line.trim().parse::<u64>().ok()
    };
    Some((field("read_bytes")?, field("write_bytes")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_pages_are_seen_and_dropped() {
        // Not the system's folder for temporary files: that may be memory, which nothing is dropped from.
        let program = std::env::current_exe().unwrap();
        let folder = tempfile::tempdir_in(program.parent().unwrap()).unwrap();
        let below = folder.path().join("below");
        std::fs::create_dir(&below).unwrap();
        std::fs::write(below.join("file"), vec![1; 300_000]).unwrap();
        std::fs::write(folder.path().join("empty"), b"").unwrap();
        assert_eq!(files(folder.path()).unwrap().len(), 2);
        let pages = resident(folder.path()).unwrap();
        assert!(pages >= 300_000, "{pages}");
        assert!(drop_caches(folder.path()).unwrap().starts_with("posix_fadvise"));
        let left = resident(folder.path()).unwrap();
        let is_memory = nix::sys::statfs::statfs(folder.path()).unwrap().filesystem_type()
            == nix::sys::statfs::TMPFS_MAGIC;
        assert_eq!(left == 0, !is_memory, "{left} bytes stayed");
    }

    #[test]
    fn the_system_counts_bytes_of_devices_or_says_nothing() {
        if Path::new("/proc/self/io").exists() {
            let (read, written) = device_bytes(None).unwrap();
            assert!(device_bytes(None).unwrap() >= (read, written));
        }
        assert_eq!(device_bytes(Some(u32::MAX)), None);
    }
}
