//! What left the arena lately, and why: a small file beside it that people ask through `cascade why`, and nothing else depends on. Byte table
//! in docs/format.md.
//!
//! Each id has one place of 16 bytes, where a later one takes the place of an earlier one: memory is bounded, and what was forgotten
//! can be told from what never was.

#[cfg(not(any(loom, shuttle)))]
use std::fs::TryLockError;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
#[cfg(not(any(loom, shuttle)))]
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cascade_core::id::BlockId;

const MAGIC: [u8; 8] = *b"CASTRAIL";
const VERSION: u64 = 1;
/// Where the places begin.
const START: u64 = 4096;
const PLACE_BYTES: usize = 16;
/// Bytes of the places: a thousandth of the data area, so that a small arena has room for it too, and at most a mebibyte.
const LEAST: u64 = 4096;
const MOST: u64 = 1 << 20;
const SHARE: u64 = 1024;
/// How often the lock of the folder is tried, each a millisecond apart; then nothing is remembered.
#[cfg(not(any(loom, shuttle)))]
const LOCK_ATTEMPTS: u32 = 200;

/// Why a block left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Room was needed, and no tier below was known to have it.
    Evicted,
    /// Room was needed; a tier below had it.
    EvictedKept,
    /// It was deleted, or the arena was cleared.
    Deleted,
    /// Its bytes did not match its digest.
    Damaged,
}

impl Left {
    const ALL: [Self; 4] = [Self::Evicted, Self::EvictedKept, Self::Deleted, Self::Damaged];

    fn number(self) -> u8 {
        Self::ALL.iter().position(|why| *why == self).map_or(0, |at| at as u8 + 1)
    }

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }
}

/// What is remembered of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recall {
    /// It left last for this reason, then.
    Left(Left, SystemTime),
    /// It is not known to have left since then: what left before may be forgotten.
    NotSince(SystemTime),
}

/// The file, for those who write to it.
#[derive(Debug)]
pub struct Trail {
    #[cfg(not(any(loom, shuttle)))]
    words: crate::raw::Words,
}

/// The file of the arena at `arena`.
#[must_use]
pub fn path_of(arena: &Path) -> PathBuf {
    let name = arena.file_name().map(|name| name.to_string_lossy().replacen("arena.", "trail.", 1));
    arena.with_file_name(name.unwrap_or_else(|| "trail".into()))
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|part| part.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn header(file: &File, incarnation: u64) -> Option<SystemTime> {
    let mut bytes = [0; 32];
    file.read_exact_at(&mut bytes, 0).ok()?;
    let is_ours = bytes.starts_with(&MAGIC) && word(&bytes, 8) == VERSION && word(&bytes, 16) == incarnation;
    is_ours.then(|| UNIX_EPOCH + Duration::from_secs(word(&bytes, 24)))
}

/// Length of the file beside an arena with so much data.
#[cfg(not(any(loom, shuttle)))]
fn bytes_for(data_bytes: u64) -> u64 {
    START + (data_bytes / SHARE).clamp(LEAST, MOST).next_multiple_of(4096)
}

/// The place of an id in a file of `bytes`, and what stands there of it; `None` where it has no places.
fn place(id: &BlockId, bytes: u64) -> Option<(u64, u64)> {
    let [first, second, ..] = id.words();
    let places = bytes.saturating_sub(START) / PLACE_BYTES as u64;
    Some((START + first.checked_rem(places)? * PLACE_BYTES as u64, second))
}

/// 24 bits that tell a place that was written whole.
fn check(tag: u64, time: u32, why: u8) -> u64 {
    let mixed = (tag ^ (u64::from(time) << 8 | u64::from(why))).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed >> 40
}

/// What has the name of the file.
#[cfg(not(any(loom, shuttle)))]
enum There {
    Ours(Trail),
    Foreign,
    Nothing,
    /// It could not be looked at: no descriptors, no memory.
    Unknown,
}

/// Takes the lock of a folder, within bounds: who holds it may be stopped.
#[cfg(not(any(loom, shuttle)))]
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

#[cfg(not(any(loom, shuttle)))]
impl Trail {
    /// Opens the file beside the arena at `arena`, or begins another where it is of another arena. `None` where that cannot be done:
    /// then nothing is remembered.
    #[must_use]
    pub fn open(arena: &Path, incarnation: u64, data_bytes: u64) -> Option<Self> {
        let (bytes, path) = (bytes_for(data_bytes), path_of(arena));
        if let There::Ours(trail) = Self::there(&path, incarnation, bytes) {
            return Some(trail);
        }
        // One at a time from here: who takes a foreign file away must not take what another has just put in its place.
        let folder = File::open(path.parent()?).ok()?;
        lock(&folder)?;
        match Self::there(&path, incarnation, bytes) {
            There::Ours(trail) => return Some(trail),
            There::Foreign => std::fs::remove_file(&path).ok()?,
            There::Unknown => return None,
            There::Nothing => {}
        }
        Self::begin(&path, incarnation, bytes)
    }

    /// A new file, whole before it has a name: who opens it without the lock must not take it for a foreign one.
    fn begin(path: &Path, incarnation: u64, bytes: u64) -> Option<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE | libc::O_CLOEXEC);
        let file = options.open(path.parent()?).ok()?;
        let trail = Self::map(&file, bytes)?;
        let words = [u64::from_le_bytes(MAGIC), VERSION, incarnation, seconds()];
        for (place, word) in trail.words.all().iter().zip(words) {
            place.store(word.to_le(), Relaxed);
        }
        crate::file::publish(&file, path).ok()?.then_some(trail)
    }

    /// What has the name. A file that others may have mapped is never cut or written anew.
    fn there(path: &Path, incarnation: u64, bytes: u64) -> There {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK);
        let file = match options.open(path) {
            Ok(file) => file,
            Err(error) => {
                return match error.raw_os_error() {
                    Some(libc::ENOENT) => There::Nothing,
                    // A link, a FIFO without a reader, a file that we may not write to: none of ours.
                    Some(libc::ELOOP | libc::ENXIO | libc::EACCES) => There::Foreign,
                    _ => There::Unknown,
                };
            }
        };
        let is_whole = file.metadata().is_ok_and(|data| data.is_file() && data.len() == bytes);
        if !is_whole || header(&file, incarnation).is_none() {
            return There::Foreign;
        }
        Self::map(&file, bytes).map_or(There::Unknown, There::Ours)
    }

    fn map(file: &File, bytes: u64) -> Option<Self> {
        Some(Self { words: crate::raw::Words::new(file, bytes as usize / 8).ok()? })
    }

    /// Notes that a block left.
    pub fn note(&self, id: &BlockId, why: Left) {
        let words = self.words.all();
        let Some((at, tag)) = place(id, words.len() as u64 * 8) else { return };
        let time = seconds() as u32;
        let number = why.number();
        let rest = u64::from(time) | u64::from(number) << 32 | check(tag, time, number) << 40;
        if let [first, second, ..] = &words[at as usize / 8..] {
            // Two that write to one place at once leave something that does not match its check: nothing.
            first.store(tag.to_le(), Relaxed);
            second.store(rest.to_le(), Relaxed);
        }
    }
}

/// A model has no files.
#[cfg(any(loom, shuttle))]
impl Trail {
    /// None.
    #[must_use]
    pub fn open(_arena: &Path, _incarnation: u64, _data_bytes: u64) -> Option<Self> {
        None
    }

    /// Nothing.
    pub fn note(&self, _id: &BlockId, _why: Left) {}
}

/// What is remembered of `id` beside the arena at `arena`; `None` where nothing is recorded.
#[must_use]
pub fn recall(arena: &Path, incarnation: u64, id: &BlockId) -> Option<Recall> {
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open(path_of(arena))
        .ok()?;
    let begun = header(&file, incarnation)?;
    let ((at, tag), mut bytes) = (place(id, file.metadata().ok()?.len())?, [0; PLACE_BYTES]);
    // Beyond the end nothing was ever written.
    let _ = file.read_exact_at(&mut bytes, at);
    let (found, rest) = (word(&bytes, 0), word(&bytes, 8));
    let (time, number) = (rest as u32, (rest >> 32) as u8);
    let Some(why) = Left::from_number(number).filter(|_| check(found, time, number) == rest >> 40) else {
        return Some(Recall::NotSince(begun));
    };
    let then = UNIX_EPOCH + Duration::from_secs(time.into());
    // Another block has taken the place then; this one may have left before.
    Some(if found == tag { Recall::Left(why, then) } else { Recall::NotSince(then) })
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn what_left_last_is_remembered_and_what_was_forgotten_is_not_denied() {
        let folder = tempfile::tempdir().unwrap();
        let arena = folder.path().join("arena.node");
        let ids: Vec<BlockId> = (0..4000_u32).map(|number| BlockId::content(&number.to_le_bytes())).collect();
        assert_eq!(recall(&arena, 7, &ids[0]), None);
        let trail = Trail::open(&arena, 7, 1 << 30).unwrap();
        assert!(matches!(recall(&arena, 7, &ids[0]), Some(Recall::NotSince(_))));
        for (id, why) in ids.iter().zip(Left::ALL.iter().cycle()) {
            trail.note(id, *why);
        }
        let (mut kept, mut forgotten) = (0, 0);
        for (id, why) in ids.iter().zip(Left::ALL.iter().cycle()) {
            match recall(&arena, 7, id).unwrap() {
                Recall::Left(found, _) => {
                    assert_eq!(found, *why);
                    kept += 1;
                }
                Recall::NotSince(_) => forgotten += 1,
            }
        }
        assert!(kept > 3500 && forgotten < 500, "{kept} kept, {forgotten} forgotten");
        // Of another arena nothing is told.
        assert_eq!(recall(&arena, 8, &ids[0]), None);
        drop(Trail::open(&arena, 8, 1 << 30).unwrap());
        assert!(matches!(recall(&arena, 8, &ids[0]), Some(Recall::NotSince(_))));
    }

    #[test]
    fn all_who_open_at_once_write_to_one_record() {
        let folder = tempfile::tempdir().unwrap();
        for round in 0..100_u64 {
            let arena = folder.path().join(format!("arena.{round}"));
            if round % 2 == 1 {
                // All find the file of an arena that is gone.
                drop(Trail::open(&arena, round + 1000, 1 << 30).unwrap());
            }
            let start = std::sync::Barrier::new(4);
            let open = |number: u64| {
                start.wait();
                let trail = Trail::open(&arena, round, 1 << 30).unwrap();
                trail.note(&BlockId::content(&number.to_le_bytes()), Left::Evicted);
            };
            let open = &open;
            std::thread::scope(|scope| (0..4).for_each(|number| drop(scope.spawn(move || open(number)))));
            for number in 0..4_u64 {
                let recalled = recall(&arena, round, &BlockId::content(&number.to_le_bytes()));
                assert!(
                    matches!(recalled, Some(Recall::Left(Left::Evicted, _))),
                    "{number} in round {round}"
                );
            }
        }
    }

    #[test]
    fn what_is_foreign_is_replaced_and_not_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let arena = folder.path().join("arena.node");
        let (other, id) = (folder.path().join("other"), BlockId::named("a"));
        std::fs::write(&other, b"of somebody else").unwrap();
        std::os::unix::fs::symlink(&other, path_of(&arena)).unwrap();
        Trail::open(&arena, 1, 1 << 20).unwrap().note(&id, Left::Deleted);
        assert!(matches!(recall(&arena, 1, &id), Some(Recall::Left(Left::Deleted, _))));
        assert_eq!(std::fs::read(&other).unwrap(), b"of somebody else");
        std::fs::write(path_of(&arena), b"cut off").unwrap();
        drop(Trail::open(&arena, 1, 1 << 20).unwrap());
        assert!(matches!(recall(&arena, 1, &id), Some(Recall::NotSince(_))));
    }

    #[test]
    fn nobody_waits_for_what_is_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let arena = folder.path().join("arena.node");
        nix::unistd::mkfifo(&path_of(&arena), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(recall(&arena, 1, &BlockId::named("a")), None);
        drop(Trail::open(&arena, 1, 1 << 20).unwrap());
        assert!(recall(&arena, 1, &BlockId::named("a")).is_some());
    }

    #[test]
    fn damage_is_no_memory() {
        let folder = tempfile::tempdir().unwrap();
        let arena = folder.path().join("arena.node");
        let (trail, id) = (Trail::open(&arena, 1, 1 << 20).unwrap(), BlockId::named("a"));
        trail.note(&id, Left::Evicted);
        for at in 0..PLACE_BYTES as u64 {
            trail.note(&id, Left::Evicted);
            let at = place(&id, trail.words.all().len() as u64 * 8).unwrap().0 + at;
            trail.words.all()[at as usize / 8].fetch_xor(0x10 << (at % 8 * 8), Relaxed);
            assert!(matches!(recall(&arena, 1, &id), Some(Recall::NotSince(_))), "byte {at}");
        }
    }
}
