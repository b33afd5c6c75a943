//! Which pages of a file are in memory.

use std::fs::File;
use std::io::{Error, Result};
use std::os::fd::AsFd;

use nix::unistd::{SysconfVar, sysconf};

/// Bytes of `file` that are in the page cache (mincore over a mapping that is never touched).
pub(super) fn resident_bytes(file: &File) -> Result<u64> {
    let len = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    let Some(length) = std::num::NonZero::new(len) else { return Ok(0) };
    let page = sysconf(SysconfVar::PAGE_SIZE)?.and_then(|size| usize::try_from(size).ok()).unwrap_or(4096);
    let mut pages = vec![0_u8; len.div_ceil(page)];
    let (read, shared) = (nix::sys::mman::ProtFlags::PROT_READ, nix::sys::mman::MapFlags::MAP_SHARED);
    // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
    let map = unsafe { nix::sys::mman::mmap(None, length, read, shared, file.as_fd(), 0) }?;
    // SAFETY: the mapping is `len` bytes long, and `pages` has a byte for each page of it.
    let answer = unsafe { nix::libc::mincore(map.as_ptr(), len, pages.as_mut_ptr()) };
    let answer = if answer == 0 { Ok(()) } else { Err(Error::last_os_error()) };
    // SAFETY: mapped above, and never handed out.
    unsafe { nix::sys::mman::munmap(map, len) }?;
    answer?;
    Ok(pages.iter().filter(|page| **page & 1 != 0).count() as u64 * page as u64)
}
