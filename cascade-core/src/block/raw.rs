//! Copies between block memory and lists, with the digests computed in the same pass.

use std::ptr::NonNull;

use super::{DeviceAccess, chunks};
use crate::copy::{self, ChunkHasher, Direction};
use crate::memory::{Piece, SgList, Space};

/// Address and length of one block in a tier. Copies are bounded; the bytes are raw shared memory, never a safe slice.
#[derive(Clone, Copy, Debug)]
pub struct BlockMemory {
    ptr: NonNull<u8>,
    len: usize,
    /// The way to it; `None` for memory that the CPU reads and writes. A thin pointer: a lease is made by the thousand.
    device: Option<&'static DeviceAccess>,
}

// SAFETY: an address with its constructor's promise; whoever holds it may use it from any thread.
unsafe impl Send for BlockMemory {}
// SAFETY: as above; the owner of the block (lease or reservation) orders writers against readers.
unsafe impl Sync for BlockMemory {}

impl BlockMemory {
    /// The block at `ptr`.
    ///
    /// # Safety
    /// `ptr` must be valid for reads and writes of `len` bytes for as long as the value and its copies are used, and the
    /// holder must own the right to what it calls: a lease reads a sealed block, a reservation writes one nobody else sees.
    #[must_use]
    pub unsafe fn new(ptr: NonNull<u8>, len: usize) -> Self {
        Self { ptr, len, device: None }
    }

    /// The block at the address `ptr` of a device, which only `device` reads and writes.
    ///
    /// # Safety
    /// As for [`BlockMemory::new`], for the device's copy engines in place of the CPU.
    #[must_use]
    pub unsafe fn on_device(ptr: NonNull<u8>, len: usize, device: &'static DeviceAccess) -> Self {
        Self { ptr, len, device: Some(device) }
    }

    /// Where the block is.
    #[must_use]
    pub fn space(&self) -> Space {
        self.device.map_or(Space::Host, |device| Space::Device(device.ordinal))
    }

    /// First byte. Not for the CPU to touch unless [`BlockMemory::space`] is the host.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.ptr.as_ptr()
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the block holds no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes as a slice.
    ///
    /// # Safety
    /// The block is in host memory, and nobody may write the block while the slice lives: true of a leased block as long as every process that maps the
    /// memory keeps to the protocol.
    #[must_use]
    pub unsafe fn as_slice<'a>(&self) -> &'a [u8] {
        // SAFETY: valid for reads by `new`'s contract; the caller vouches for the absence of writers and for the lifetime.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }

    /// Copies `out.len()` bytes from `offset` on; `false`, and nothing written, when that reaches beyond the block.
    #[must_use]
    pub fn read_at(&self, offset: usize, out: &mut [u8]) -> bool {
        if !self.holds(offset, out.len()) {
            return false;
        }
        if self.device.is_some() {
            // SAFETY: a valid slice, exclusive to this call, which ends when the copy has.
            let into = unsafe { Piece::host_write(out.as_mut_ptr(), out.len()) };
            return self.through(offset, out.len(), &into.into(), Direction::Get);
        }
        // SAFETY: `holds` checked the range of the source, `out` is a valid slice, and private memory overlaps no tier's.
        unsafe {
            copy::copy_plain(out.as_mut_ptr(), self.ptr.as_ptr().add(offset), out.len(), Direction::Get)
        };
        true
    }

    /// Copies `bytes` to `offset`; `false`, and nothing written, when that reaches beyond the block.
    #[must_use]
    pub fn write_at(&self, offset: usize, bytes: &[u8]) -> bool {
        if !self.holds(offset, bytes.len()) {
            return false;
        }
        if self.device.is_some() {
            // SAFETY: a valid slice that nobody writes while it is borrowed; the call ends when the copy has.
            let from = unsafe { Piece::host_read(bytes.as_ptr(), bytes.len()) };
            return self.through(offset, bytes.len(), &from.into(), Direction::Put);
        }
        // SAFETY: as in `read_at`, with the roles exchanged.
        unsafe {
            copy::copy_plain(self.ptr.as_ptr().add(offset), bytes.as_ptr(), bytes.len(), Direction::Put)
        };
        true
    }

    /// The digest of each 64 KiB chunk; `None` when the block's device failed.
    #[must_use]
    pub fn try_digests(&self) -> Option<Vec<u64>> {
        if let Some(device) = self.device {
            return device.access.digests(&self.part(0, self.len)?);
        }
        Some(self.digests())
    }

    /// The digest of each 64 KiB chunk of a block in host memory.
    ///
    /// # Panics
    /// For a block in device memory, which [`BlockMemory::try_digests`] is for.
    #[must_use]
    pub fn digests(&self) -> Vec<u64> {
        assert!(self.device.is_none(), "the CPU reads host memory only");
        let mut digests = vec![0; chunks(self.len as u64)];
        // SAFETY: the block is readable for `len` bytes and `digests` has one entry for each chunk.
        unsafe { copy::digest_chunks(self.ptr.as_ptr(), self.len, &mut digests) };
        digests
    }

    /// Fills a block in host memory from `list` (host pieces, as long as the block) and gives the chunk digests of what was
    /// copied.
    ///
    /// # Panics
    /// When the list is another, or for a block in device memory, which [`BlockMemory::try_gather`] is for.
    #[must_use]
    pub fn gather(&self, list: &SgList) -> Vec<u64> {
        let right = list.len() == self.len && list.is_host() && self.device.is_none();
        assert!(right, "the caller checks length and space");
        self.transfer(list, Direction::Put)
    }

    /// Copies a block in host memory to `list` (host pieces, at least as long) and gives the chunk digests of what was
    /// copied.
    ///
    /// # Panics
    /// When the list is another, or for a block in device memory, which [`BlockMemory::try_scatter`] is for.
    #[must_use]
    pub fn scatter(&self, list: &SgList) -> Vec<u64> {
        let right = list.len() >= self.len && list.is_host() && list.is_writable() && self.device.is_none();
        assert!(right, "the caller checks length and space");
        self.transfer(list, Direction::Get)
    }

    /// Whether its bytes can be copied from or to `list`: host memory always, other memory by a block of a device only.
    #[must_use]
    pub fn reaches(&self, list: &SgList) -> bool {
        self.device.is_some() || list.is_host()
    }

    /// Fills the block from `list` (reachable pieces, as long as the block) and gives the chunk digests of what was copied;
    /// `None` when the block's device failed.
    #[must_use]
    pub fn try_gather(&self, list: &SgList) -> Option<Vec<u64>> {
        assert!(list.len() == self.len && self.reaches(list), "the caller checks length and space");
        match self.device {
            Some(_) => self.through(0, self.len, list, Direction::Put).then(|| self.try_digests()).flatten(),
            None => Some(self.transfer(list, Direction::Put)),
        }
    }

    /// Copies the block to `list` (reachable pieces, at least as long) and gives the chunk digests of what was copied;
    /// `None` when the block's device failed.
    #[must_use]
    pub fn try_scatter(&self, list: &SgList) -> Option<Vec<u64>> {
        assert!(
            list.len() >= self.len && self.reaches(list) && list.is_writable(),
            "the caller checks length and space"
        );
        match self.device {
            Some(_) => self.through(0, self.len, list, Direction::Get).then(|| self.try_digests()).flatten(),
            None => Some(self.transfer(list, Direction::Get)),
        }
    }

    /// `len` bytes from `offset` on, as a piece of device memory; `None` for host memory.
    fn part(&self, offset: usize, len: usize) -> Option<Piece> {
        let device = self.device?.ordinal;
        // SAFETY: valid for `self.len` bytes by the constructor's contract; the piece lives within a call on this block.
        unsafe { Piece::device(device, self.ptr, self.len) }.part(offset, len)
    }

    fn through(&self, offset: usize, len: usize, list: &SgList, direction: Direction) -> bool {
        let Some(device) = self.device else { return false };
        if len == 0 {
            return true;
        }
        self.part(offset, len).is_some_and(|part| device.access.copy(&part, list, direction))
    }

    fn holds(&self, offset: usize, len: usize) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.len)
    }

    fn transfer(&self, list: &SgList, direction: Direction) -> Vec<u64> {
        let mut digests = vec![0; chunks(self.len as u64)];
        if let [piece] = list.pieces() {
            let (dst, src) = ends(self.ptr.as_ptr(), piece.as_ptr(), direction);
            // SAFETY: both sides are valid for `len` bytes (block by `new`, piece by its constructor) and do not overlap.
            unsafe { copy::copy_chunks(dst, src, self.len, direction, &mut digests) };
            return digests;
        }
        let mut hasher = ChunkHasher::new(direction, self.len, |chunk, digest| digests[chunk] = digest);
        let mut done = 0;
        for piece in list.pieces() {
            let part = piece.len().min(self.len - done);
            // SAFETY: `done + part <= len`, so the block side is in range; the piece side by its constructor.
            unsafe {
                let (dst, src) = ends(self.ptr.as_ptr().add(done), piece.as_ptr(), direction);
                hasher.copy_update(dst, src, part);
            }
            done += part;
        }
        hasher.finish();
        digests
    }
}

/// Destination and source of a copy between a block and a piece.
fn ends(block: *mut u8, piece: *mut u8, direction: Direction) -> (*mut u8, *const u8) {
    match direction {
        Direction::Put => (block, piece),
        Direction::Get => (piece, block),
    }
}
