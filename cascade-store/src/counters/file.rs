//! The file: found, begun, read.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::libc;

use super::Board;
use super::layout::{self, FILE_BYTES, START, STRIPE_BYTES, STRIPES, Totals, Wrong};
use super::raw::Stripe;

/// How often the lock of the folder is tried, each a millisecond apart: who holds it may be stopped. Then nothing is counted here.
const LOCK_ATTEMPTS: u32 = 200;

/// The file of the arena at `arena`.
pub(crate) fn path_of(arena: &Path) -> PathBuf {
    let name = arena.file_name().map(|name| name.to_string_lossy().replacen("arena.", "counters.", 1));
    arena.with_file_name(name.unwrap_or_else(|| "counters".into()))
}

/// What has the name of the file.
enum There {
    Ours(File),
    /// Of no use to anybody: it may go.
    Foreign,
    Nothing,
    /// Of another version, which may be at work with it; or it could not be looked at.
    LeftAlone,
}

/// What this process adds to, beside the arena at `arena`; what cannot be had is not counted there.
pub(crate) fn open(arena: &Path, incarnation: u64) -> Board {
    let stripe = file_for(arena, incarnation).and_then(|file| {
        let number = std::process::id() as usize % STRIPES;
        Stripe::map(&file, (START + number * STRIPE_BYTES) as u64)
    });
    if stripe.is_none() {
        tracing::warn!(target: "cascade", "nothing is counted for `cascade stat` in {}", path_of(arena).display());
    }
    Board(stripe.map(Arc::new))
}

fn file_for(arena: &Path, incarnation: u64) -> Option<File> {
    let path = path_of(arena);
    if let There::Ours(file) = there(&path, incarnation) {
        return Some(file);
    }
    // One at a time from here: who takes a foreign file away must not take what another has just put in its place.
    let folder = File::open(path.parent()?).ok()?;
    lock(&folder)?;
    match there(&path, incarnation) {
        There::Ours(file) => return Some(file),
        There::LeftAlone => return None,
        There::Foreign => std::fs::remove_file(&path).ok()?,
        There::Nothing => {}
    }
    begin(&path, incarnation)
}

fn there(path: &Path, incarnation: u64) -> There {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK);
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) => {
            return match error.raw_os_error() {
                Some(libc::ENOENT) => There::Nothing,
                // A link, a FIFO without a reader, a file that we may not write to: none of ours.
                Some(libc::ELOOP | libc::ENXIO | libc::EACCES) => There::Foreign,
                _ => There::LeftAlone,
            };
        }
    };
    let Ok(data) = file.metadata() else { return There::LeftAlone };
    let mut first = [0; 32];
    let is_read = data.is_file() && file.read_exact_at(&mut first, 0).is_ok();
    match layout::check(&first, data.len(), incarnation) {
        _ if !is_read => There::Foreign,
        Ok(()) => There::Ours(file),
        Err(Wrong::Version) => There::LeftAlone,
        Err(Wrong::Foreign | Wrong::Incarnation) => There::Foreign,
    }
}

/// A new file, whole before it has a name.
fn begin(path: &Path, incarnation: u64) -> Option<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE | libc::O_CLOEXEC);
    let file = options.open(path.parent()?).ok()?;
    nix::fcntl::posix_fallocate(&file, 0, i64::try_from(FILE_BYTES).ok()?).ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    file.write_all_at(&layout::header(incarnation, now), 0).ok()?;
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    nix::unistd::linkat(AT_FDCWD, own.as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW).ok()?;
    Some(file)
}

fn lock(folder: &File) -> Option<()> {
    for _ in 0..LOCK_ATTEMPTS {
        match folder.try_lock() {
            Ok(()) => return Some(()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
            Err(TryLockError::Error(_)) => return None,
        }
    }
    None
}

/// What all stores over the arena at `arena` have counted; changes nothing.
///
/// # Errors
/// Why that cannot be said, in words.
pub fn look(arena: &Path, incarnation: u64) -> Result<Totals, String> {
    let path = path_of(arena);
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK);
    let said = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            "no store that counts for others has been opened here since the arena was made".to_owned()
        }
        _ => format!("{} cannot be read: {error}", path.display()),
    };
    let file = options.open(&path).map_err(said)?;
    let mut bytes = Vec::new();
    if file.metadata().map_err(said)?.is_file() {
        // One byte more than it may have, so that a longer one is seen to be foreign.
        file.take(FILE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(said)?;
    }
    layout::parse(&bytes, incarnation).map_err(|what| format!("{what} ({})", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::Timed;

    #[test]
    fn what_was_counted_outlives_who_counted_and_not_the_arena() {
        let folder = tempfile::tempdir().unwrap();
        let arena = folder.path().join("arena.node");
        assert!(look(&arena, 7).unwrap_err().contains("no store"));
        let board = open(&arena, 7);
        let (hits, puts) = (board.counter("arena_hits"), board.timing(Timed::Put));
        hits.add(3);
        puts.record(Duration::from_micros(50));
        board.first_put();
        drop((board, hits, puts));
        // Another opening goes on where the first stopped, and has nothing of its own.
        let again = open(&arena, 7).counter("arena_hits");
        assert_eq!(again.get(), 0);
        again.add(1);
        let totals = look(&arena, 7).unwrap();
        assert_eq!((totals.get("arena_hits"), totals.put_latency().count()), (4, 1));
        assert!(totals.first_put().is_some());
        assert!(look(&arena, 8).unwrap_err().contains("earlier arena"));
        open(&arena, 8).counter("arena_hits").add(1);
        assert_eq!(look(&arena, 8).unwrap().get("arena_hits"), 1);
        // The old file has no name any more; who maps it writes to nobody's.
        again.add(1);
        assert_eq!(look(&arena, 8).unwrap().get("arena_hits"), 1);
    }

    #[test]
    fn what_is_foreign_is_replaced_and_never_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let arena = folder.path().join("arena.node");
        let (path, other) = (path_of(&arena), folder.path().join("other"));
        std::fs::write(&other, b"of somebody else").unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        assert!(look(&arena, 1).is_err());
        open(&arena, 1).counter("puts").add(1);
        assert_eq!(look(&arena, 1).unwrap().get("puts"), 1);
        assert_eq!(std::fs::read(&other).unwrap(), b"of somebody else");
        std::fs::write(&path, b"cut off").unwrap();
        assert!(look(&arena, 1).unwrap_err().contains("damaged"));
        open(&arena, 1).counter("puts").add(2);
        assert_eq!(look(&arena, 1).unwrap().get("puts"), 2);
        std::fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(look(&arena, 1).is_err(), "nobody waits for what is no file");
        use std::os::unix::fs::PermissionsExt;
        open(&arena, 1).counter("puts").add(1);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_of_another_version_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let arena = folder.path().join("arena.node");
        drop(open(&arena, 1));
        let path = path_of(&arena);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[8] = 9;
        std::fs::write(&path, &bytes).unwrap();
        let counter = open(&arena, 1).counter("puts");
        counter.add(1);
        assert_eq!((counter.get(), std::fs::read(&path).unwrap()), (1, bytes));
        assert!(look(&arena, 1).unwrap_err().contains("another version"));
    }

    #[test]
    fn all_who_open_at_once_count_in_one_file() {
        let folder = tempfile::tempdir().unwrap();
        for round in 0..50_u64 {
            let arena = folder.path().join(format!("arena.{round}"));
            if round % 2 == 1 {
                drop(open(&arena, round + 1000));
            }
            let start = std::sync::Barrier::new(4);
            let count = || {
                start.wait();
                open(&arena, round).counter("puts").add(1);
            };
            let count = &count;
            std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(count))));
            assert_eq!(look(&arena, round).unwrap().get("puts"), 4, "round {round}");
        }
    }
}
