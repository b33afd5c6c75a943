//! A file in memory, at an address that huge pages can stand at: a mapping shows the huge pages of its file only where address and
//! offset agree on their place within one.

use std::fs::File;
use std::io;
use std::num::NonZero;
use std::os::raw::c_int;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use super::HUGE_BYTES;

/// Puts pages together into huge ones, where they are; since Linux 6.1. Its number is the same on every architecture.
const MADV_COLLAPSE: c_int = 25;

/// What the system can be asked about a part of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advice {
    /// Huge pages, please, where the file system gives them on demand.
    HugePage,
    /// Make the pages exist, now.
    Populate,
    /// Put the pages that exist together into huge ones, now.
    Collapse,
}

/// A shared mapping of a whole file, which may be written to.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread; what is read and written through it is its user's to order.
unsafe impl Send for Mapping {}
// SAFETY: as above; this type itself never touches the mapped bytes.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes of `file`, at a multiple of [`HUGE_BYTES`].
    pub(super) fn new(file: &File, len: usize) -> io::Result<Self> {
        let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
        let bytes = NonZero::new(len).ok_or_else(invalid)?;
        let room = len.next_multiple_of(HUGE_BYTES).checked_add(HUGE_BYTES).and_then(NonZero::new);
        let room = room.ok_or_else(invalid)?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping where the system chooses, of pages that nobody can touch.
        let reserved = unsafe { mmap_anonymous(None, room, ProtFlags::PROT_NONE, flags) }?;
        let ahead = reserved.addr().get().next_multiple_of(HUGE_BYTES) - reserved.addr().get();
        // SAFETY: `ahead < HUGE_BYTES`, so within what was reserved.
        let start = unsafe { reserved.byte_add(ahead) };
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_FIXED;
        // SAFETY: `len` bytes from `start` on are within what was reserved a moment ago and nobody else knows of.
        let mapped = unsafe { mmap(Some(start.addr()), bytes, access, flags, file, 0) };
        let end = len.next_multiple_of(HUGE_BYTES);
        // What is left of the reservation before and behind; all of it when there is no mapping.
        let rest = match &mapped {
            Ok(_) => [(0, ahead), (ahead + end, room.get() - ahead - end)],
            Err(_) => [(0, room.get()), (0, 0)],
        };
        for (from, bytes) in rest.into_iter().filter(|(_, bytes)| *bytes > 0) {
            // SAFETY: within the reservation, outside of the mapping of the file, and touched by nobody. If it fails, addresses
            // stay reserved that nobody needs.
            let _ = unsafe { munmap(reserved.byte_add(from), bytes) };
        }
        Ok(Self { start: mapped?.cast(), len })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn as_mut_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Asks the system for `advice` on `bytes` bytes from `offset` on, both in whole pages.
    pub(super) fn advise(&self, advice: Advice, offset: usize, bytes: usize) -> io::Result<()> {
        if offset.checked_add(bytes).is_none_or(|end| end > self.len) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let advice = match advice {
            Advice::HugePage => libc::MADV_HUGEPAGE,
            Advice::Populate => libc::MADV_POPULATE_WRITE,
            Advice::Collapse => MADV_COLLAPSE,
        };
        // SAFETY: within the mapping (checked). None of these changes what is read from it.
        let done = unsafe { libc::madvise(self.start.as_ptr().add(offset).cast(), bytes, advice) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let whole = self.len.next_multiple_of(HUGE_BYTES);
        // SAFETY: ours, mapped by `new` with the reservation up to the next multiple, and nobody borrows from it any more.
        let _ = unsafe { munmap(self.start.cast(), whole) };
    }
}

/// A small file of words beside the arena, mapped.
#[derive(Debug)]
pub struct Words {
    mapping: Mapping,
}

impl Words {
    /// Maps the first `count` words of `file`, whose pages are made to exist first.
    ///
    /// # Errors
    /// No room for the pages; the system's reasons.
    pub fn new(file: &File, count: usize) -> io::Result<Self> {
        nix::fcntl::posix_fallocate(file, 0, (count * 8) as libc::off_t)?;
        Ok(Self { mapping: Mapping::new(file, count * 8)? })
    }

    /// The words.
    #[must_use]
    pub fn all(&self) -> &[AtomicU64] {
        let (start, count) = (self.mapping.as_mut_ptr().cast(), self.mapping.len() / 8);
        // SAFETY: a mapping begins at a page and lives as long as `self`; its pages were allocated, and nobody of ours makes such a
        // file shorter; words of any content are valid, and all who map it use them as atomics.
        unsafe { std::slice::from_raw_parts(start, count) }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_mapping_begins_where_a_huge_page_can_and_ends_with_itself() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(3 << 20).unwrap();
        for len in [4096, 2 << 20, 3 << 20] {
            let mapping = Mapping::new(&file, len).unwrap();
            assert_eq!((mapping.as_mut_ptr().addr() % HUGE_BYTES, mapping.len()), (0, len));
            mapping.advise(Advice::Populate, len - 4096, 4096).unwrap();
            let beyond = mapping.advise(Advice::Populate, len - 4096, 8192).unwrap_err();
            assert_eq!(beyond.raw_os_error(), Some(libc::EINVAL));
            let inode = format!(" {} ", file.metadata().unwrap().ino());
            let is_mapped = || std::fs::read_to_string("/proc/self/maps").unwrap().contains(&inode);
            assert!(is_mapped());
            drop(mapping);
            assert!(!is_mapped());
        }
        assert!(Mapping::new(&file, 0).is_err());
    }
}
