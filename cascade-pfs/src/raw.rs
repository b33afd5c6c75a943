//! All the `unsafe` of this crate: system calls on pieces, and copies between pieces and private memory.

use std::io::{Error, Result};
use std::os::fd::{AsRawFd, BorrowedFd};

use cascade_core::block::BlockMemory;
use cascade_core::copy;
use cascade_core::digest::{self, CHUNK_BYTES};
use cascade_core::memory::{Piece, SgList, Space};

use crate::stripe::Stripes;
use crate::survey::{DirectAlignment, Quota};

/// Pieces that one system call takes (`IOV_MAX` of Linux).
pub(crate) const MOST_PIECES: usize = 1024;

fn vectors(pieces: &[Piece]) -> Vec<libc::iovec> {
    let host = pieces.iter().take(MOST_PIECES).take_while(|piece| piece.space() == Space::Host);
    host.map(|piece| libc::iovec { iov_base: piece.as_ptr().cast(), iov_len: piece.len() }).collect()
}

fn answer(count: isize) -> Result<usize> {
    usize::try_from(count).map_err(|_| Error::last_os_error())
}

fn place(offset: u64) -> Result<i64> {
    i64::try_from(offset).map_err(|_| Error::from_raw_os_error(libc::EFBIG))
}

/// preadv(2).
pub(crate) fn read_at(file: BorrowedFd<'_>, into: &[Piece], offset: u64) -> Result<usize> {
    if !into.iter().all(Piece::is_writable) {
        return Err(Error::from_raw_os_error(libc::EFAULT));
    }
    let vectors = vectors(into);
    // SAFETY: the pieces are host memory, valid for writes until the operation completes (their constructors' contract), and
    // at most `MOST_PIECES` of them.
    answer(unsafe {
        libc::preadv(file.as_raw_fd(), vectors.as_ptr(), vectors.len() as libc::c_int, place(offset)?)
    })
}

/// pwritev(2).
pub(crate) fn write_at(file: BorrowedFd<'_>, from: &[Piece], offset: u64) -> Result<usize> {
    let vectors = vectors(from);
    // SAFETY: the pieces are host memory, valid for reads until the operation completes (their constructors' contract), and at
    // most `MOST_PIECES` of them.
    answer(unsafe {
        libc::pwritev(file.as_raw_fd(), vectors.as_ptr(), vectors.len() as libc::c_int, place(offset)?)
    })
}

/// What statx(2) says of a file, asked of the server where there is one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Status {
    pub(crate) len: u64,
    /// Time of the last change of content or names, nanoseconds since 1970.
    pub(crate) changed_ns: u64,
}

/// statx(2) with `AT_STATX_FORCE_SYNC`.
pub(crate) fn status(file: BorrowedFd<'_>) -> Result<Status> {
    let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_FORCE_SYNC;
    let mask = libc::STATX_SIZE | libc::STATX_MTIME;
    // SAFETY: all zeros is a value of this struct of numbers.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path is a terminated string, and `found` is valid for writes.
    let result = unsafe { libc::statx(file.as_raw_fd(), c"".as_ptr(), flags, mask, &raw mut found) };
    if result != 0 {
        return Err(Error::last_os_error());
    }
    let seconds = u64::try_from(found.stx_mtime.tv_sec).unwrap_or(0);
    let changed_ns = seconds.saturating_mul(1_000_000_000).saturating_add(found.stx_mtime.tv_nsec.into());
    Ok(Status { len: found.stx_size, changed_ns })
}

/// quotactl_fd(2) for this user; `None` where the file system keeps no quota, or the kernel does not tell.
pub(crate) fn quota(dir: BorrowedFd<'_>) -> Option<Quota> {
    // Q_GETQUOTA of USRQUOTA, as QCMD of linux/quota.h puts them together.
    const GET_USER_QUOTA: libc::c_uint = 0x0080_0007 << 8;
    // SAFETY: all zeros is a value of this struct of numbers.
    let mut found: libc::dqblk = unsafe { std::mem::zeroed() };
    let user = nix::unistd::getuid().as_raw();
    // SAFETY: `found` is the `if_dqblk` that this command writes, and valid for writes.
    let result = unsafe {
        libc::syscall(libc::SYS_quotactl_fd, dir.as_raw_fd(), GET_USER_QUOTA, user, &raw mut found)
    };
    // Limits count blocks of 1 KiB.
    (result == 0).then_some(Quota {
        used_bytes: found.dqb_curspace,
        limit_bytes: found.dqb_bhardlimit.saturating_mul(1024),
        used_files: found.dqb_curinodes,
        limit_files: found.dqb_ihardlimit,
    })
}

/// What direct I/O asks for, where the kernel tells and the file can be used so.
pub(crate) fn direct_alignment(file: BorrowedFd<'_>) -> Option<DirectAlignment> {
    // SAFETY: all zeros is a value of this struct of numbers.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    let (flags, mask) = (libc::AT_EMPTY_PATH, libc::STATX_DIOALIGN);
    // SAFETY: the path is a terminated string, and `found` is valid for writes.
    let result = unsafe { libc::statx(file.as_raw_fd(), c"".as_ptr(), flags, mask, &raw mut found) };
    let told = result == 0 && found.stx_mask & mask != 0 && found.stx_dio_offset_align != 0;
    told.then_some(DirectAlignment { memory: found.stx_dio_mem_align, offset: found.stx_dio_offset_align })
}

/// Flags of open(2) that leave the layout of a new file on Lustre to the ioctl below: those of old clients and of new ones.
/// They mean nothing for ordinary files elsewhere.
pub(crate) const DELAYED_LAYOUT: i32 = 0o100_000_000 | libc::O_NOCTTY | libc::O_ASYNC;

/// `struct lov_user_md_v1` of Lustre, without objects.
#[repr(C)]
struct Layout {
    magic: u32,
    pattern: u32,
    object: [u64; 2],
    stripe_bytes: u32,
    stripe_count: u16,
    first_target: u16,
}

/// Sets the layout of a file that was opened with [`DELAYED_LAYOUT`] and not written to (`LL_IOC_LOV_SETSTRIPE`).
pub(crate) fn set_stripes(file: BorrowedFd<'_>, stripes: Stripes) -> Result<()> {
    const SET_STRIPE: libc::c_ulong = 0x4008_669A;
    let layout = Layout {
        magic: 0x0BD1_0BD0,
        pattern: 1,
        object: [0; 2],
        stripe_bytes: stripes.bytes,
        stripe_count: stripes.count,
        first_target: u16::MAX,
    };
    // SAFETY: the kernel reads `lov_user_md_v1`, whose layout `Layout` has, and no objects follow where no target is named.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), SET_STRIPE as _, &raw const layout) };
    if result == 0 { Ok(()) } else { Err(Error::last_os_error()) }
}

fn memory(piece: &Piece, len: usize) -> Option<BlockMemory> {
    let ptr = std::ptr::NonNull::new(piece.as_ptr())?;
    let fits = piece.space() == Space::Host && len <= piece.len();
    // SAFETY: host memory of at least `len` bytes, valid by the piece's contract while the caller holds it. Only pieces that
    // say so are written through the value (`scatter_to`, `gather_to`).
    fits.then(|| unsafe { BlockMemory::new(ptr, len) })
}

/// Copies `list` into the writable piece `into`, which is at least as long, and gives the chunk digests of what arrived.
pub(crate) fn gather(list: &SgList, into: &Piece) -> Option<Vec<u64>> {
    let ready = list.is_host() && into.is_writable();
    memory(into, list.len()).filter(|_| ready).map(|memory| memory.gather(list))
}

/// Copies the first `len` bytes of `from` to the writable `list`, which is at least as long.
pub(crate) fn scatter(from: &Piece, len: usize, list: &SgList) -> Option<Vec<u64>> {
    let ready = list.is_host() && list.is_writable() && list.len() >= len;
    memory(from, len).filter(|_| ready).map(|memory| memory.scatter(list))
}

/// The digest of each 64 KiB chunk of the first `len` bytes of `list`, read where they lie.
pub(crate) fn digests(list: &[Piece], len: usize) -> Vec<u64> {
    let mut digests = vec![0; digest::chunk_count(len)];
    let mut at = 0;
    for piece in list {
        let usable = piece.len().min(len - at);
        if piece.space() != Space::Host || usable == 0 {
            continue;
        }
        digest_run(piece, usable, at, &mut digests);
        at += usable;
    }
    digests
}

/// Folds the first `len` bytes of `piece`, which stand at `at` in their block, into the digests of the block's chunks.
fn digest_run(piece: &Piece, len: usize, at: usize, digests: &mut [u64]) {
    let mut done = 0;
    while done < len {
        let (chunk, within) = ((at + done) / CHUNK_BYTES, (at + done) % CHUNK_BYTES);
        // Whole chunks at once, so that the copy pool may share them; what is left of a chunk alone.
        let part = match (len - done) / CHUNK_BYTES {
            whole if within == 0 && whole > 0 => whole * CHUNK_BYTES,
            _ => (CHUNK_BYTES - within).min(len - done),
        };
        let mut found = vec![0; digest::chunk_count(part)];
        // SAFETY: `done + part` is within the piece, which is readable host memory by its constructor's contract.
        unsafe { copy::digest_chunks(piece.as_ptr().add(done), part, &mut found) };
        for (offset, digest) in found.iter().enumerate() {
            let place = &mut digests[chunk + offset];
            *place = if within == 0 { *digest } else { digest::combine(*place, *digest, part as u64) };
        }
        done += part;
    }
}

/// The bytes of host pieces, one after the other.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn bytes_of(pieces: &[Piece]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in pieces {
        let mut part = vec![0; piece.len()];
        if let Some(memory) = memory(piece, piece.len()) {
            let _ = memory.read_at(0, &mut part);
        }
        bytes.append(&mut part);
    }
    bytes
}

/// Copies `bytes` to writable host pieces, as far as they reach; gives the number of bytes.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn fill(pieces: &[Piece], bytes: &[u8]) -> usize {
    let mut done = 0;
    for piece in pieces.iter().filter(|piece| piece.is_writable()) {
        let part = piece.len().min(bytes.len() - done);
        let written = memory(piece, part).is_some_and(|memory| memory.write_at(0, &bytes[done..done + part]));
        done += if written { part } else { 0 };
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Buffer;

    #[test]
    fn gathered_bytes_scatter_again() {
        let (list, buffer) = (SgList::from(Piece::shared(vec![3; 70_000].into())), Buffer::new(73_728));
        let digests = gather(&list, &buffer.piece()).unwrap();
        let back = SgList::from(Buffer::new(70_000).piece());
        assert_eq!(scatter(&buffer.piece(), 70_000, &back), Some(digests));
        assert_eq!(bytes_of(back.pieces()), vec![3; 70_000]);
        assert_eq!(scatter(&buffer.piece(), 70_001, &back), None);
        assert_eq!(gather(&list, &list.pieces()[0]), None, "not writable");
    }

    #[test]
    fn digests_of_scattered_pieces_are_those_of_the_whole() {
        let bytes: Vec<u8> = (0..300_000u32).map(|i| (i * 7 >> 3) as u8).collect();
        let whole = Piece::shared(bytes.clone().into());
        let expected: Vec<u64> = bytes.chunks(CHUNK_BYTES).map(digest::crc64).collect();
        for cuts in
            [vec![300_000], vec![1, 2, 65_533, 70_000], vec![65_536, 65_536], vec![131_072, 5, 100_000]]
        {
            let (mut pieces, mut at) = (Vec::new(), 0);
            for len in cuts.iter().copied().cycle() {
                let len = len.min(whole.len() - at);
                if len == 0 {
                    break;
                }
                pieces.extend(whole.part(at, len));
                at += len;
            }
            assert_eq!(digests(&pieces, 300_000), expected, "{cuts:?}");
            assert_eq!(
                digests(&pieces, 70_000),
                bytes[..70_000].chunks(CHUNK_BYTES).map(digest::crc64).collect::<Vec<_>>()
            );
            assert_eq!(bytes_of(&pieces), bytes);
        }
    }
}
