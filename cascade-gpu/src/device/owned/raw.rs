//! Owned device and pinned memory.

use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};

use cascade_core::block::{BlockMemory, DeviceAccess};
use cascade_core::copy::{Direction, copy_plain};
use cascade_core::memory::{Piece, SgList};

use super::super::{DIGEST_WORDS, Device, Fault, Run, ShareHandle};

/// Device memory. Whoever drops it knows that no work on it is left: the pool frees a slab that has no block.
#[derive(Debug)]
pub struct Hbm {
    device: Arc<dyn Device>,
    address: NonNull<u8>,
    len: usize,
    /// What other processes open it with, once somebody asked.
    shared: OnceLock<Option<ShareHandle>>,
}

// SAFETY: an address of device memory, which the CPU does not touch; access is ordered by streams.
unsafe impl Send for Hbm {}
// SAFETY: as above.
unsafe impl Sync for Hbm {}

impl Hbm {
    /// `len` bytes of `device`.
    ///
    /// # Errors
    /// What the device answers.
    pub fn new(device: &Arc<dyn Device>, len: usize) -> Result<Self, Fault> {
        let address = device.allocate(len)?;
        Ok(Self { device: Arc::clone(device), address, len, shared: OnceLock::new() })
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Device address of the first byte.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address.as_ptr() as u64
    }

    /// `len` bytes from `offset` on, kept alive by the piece; `None` beyond the end.
    #[must_use]
    pub fn piece(self: &Arc<Self>, offset: usize, len: usize) -> Option<Piece> {
        // SAFETY: the memory is of this device and that long, and the piece keeps it alive.
        let whole = unsafe { Piece::device(self.device.info().ordinal, self.address, self.len) };
        whole.kept_by(Arc::clone(self) as Arc<_>).part(offset, len)
    }

    /// What other processes open this memory with; `None` where the device shares nothing.
    pub(crate) fn share(&self) -> Option<ShareHandle> {
        *self.shared.get_or_init(|| self.device.share(self.address).ok())
    }

    /// Whether other processes may have it open.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared.get().is_some_and(Option::is_some)
    }

    /// The block at `offset`; its lease or reservation keeps this memory. `None` beyond the end.
    pub(crate) fn block(
        &self,
        offset: usize,
        len: usize,
        access: &'static DeviceAccess,
    ) -> Option<BlockMemory> {
        if offset.checked_add(len)? > self.len {
            return None;
        }
        // SAFETY: within the allocation, which the pool keeps for as long as a lease or reservation stands.
        Some(unsafe { BlockMemory::on_device(self.address.add(offset), len, access) })
    }
}

impl Drop for Hbm {
    fn drop(&mut self) {
        // CUDA does not say what becomes of another process that reads memory which its owner freed: it goes with this process.
        if self.is_shared() {
            return;
        }
        // SAFETY: allocated in `new`, freed once; pieces and the pool's slots keep this value while work may be queued.
        unsafe { self.device.free(self.address) };
    }
}

/// Device memory of another process, open here. It stays readable when that process frees it or ends, and then holds anything.
#[derive(Debug)]
pub struct Foreign {
    device: Arc<dyn Device>,
    address: NonNull<u8>,
    len: usize,
}

// SAFETY: as for `Hbm`; this process only reads there.
unsafe impl Send for Foreign {}
// SAFETY: as above.
unsafe impl Sync for Foreign {}

impl Foreign {
    /// Opens what another process shared, for copies by `device`.
    ///
    /// # Errors
    /// What the device answers: a handle that is none, an owner that is gone, a device that cannot reach it.
    pub fn open(device: &Arc<dyn Device>, handle: &ShareHandle) -> Result<Self, Fault> {
        let (address, len) = device.open_shared(handle)?;
        Ok(Self { device: Arc::clone(device), address, len })
    }

    /// `len` bytes from `offset` on, to read, kept open by the piece; `None` beyond the end.
    #[must_use]
    pub fn piece(self: &Arc<Self>, offset: usize, len: usize) -> Option<Piece> {
        // SAFETY: mapped for this device and that long, by what the device said, and the piece keeps it open. Its owner may
        // write there at any time: what is read is compared before it counts.
        let whole = unsafe { Piece::device(self.device.info().ordinal, self.address, self.len) };
        whole.kept_by(Arc::clone(self) as Arc<_>).part(offset, len)
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        // SAFETY: opened in `open`, closed once; pieces keep this value while work may be queued.
        unsafe { self.device.close_shared(self.address) };
    }
}

/// Pinned host memory, which CPU and device reach.
#[derive(Debug)]
pub struct Pinned {
    device: Arc<dyn Device>,
    address: NonNull<u8>,
    len: usize,
}

// SAFETY: plain memory; the engine's lanes and staging give it to one transfer at a time.
unsafe impl Send for Pinned {}
// SAFETY: as above.
unsafe impl Sync for Pinned {}

impl Pinned {
    /// `len` bytes for `device`.
    ///
    /// # Errors
    /// What the device answers.
    pub fn new(device: &Arc<dyn Device>, len: usize) -> Result<Self, Fault> {
        Ok(Self { device: Arc::clone(device), address: device.pin(len)?, len })
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Address of the first byte, for device and CPU.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address.as_ptr() as u64
    }

    /// `len` bytes from `offset` on, kept alive by the piece; `None` beyond the end.
    #[must_use]
    pub fn piece(self: &Arc<Self>, offset: usize, len: usize) -> Option<Piece> {
        // SAFETY: the memory is that long and the piece keeps it alive; who may write when is the engine's order of copies.
        let whole = unsafe { Piece::host_write(self.address.as_ptr(), self.len) };
        whole.kept_by(Arc::clone(self) as Arc<_>).part(offset, len)
    }

    /// Writes `runs` from the run numbered `at` on; `false` beyond the end.
    pub(crate) fn write_runs(&mut self, at: usize, runs: &[Run]) -> bool {
        let Some(end) = at.checked_add(runs.len()).and_then(|end| end.checked_mul(size_of::<Run>())) else {
            return false;
        };
        if end > self.len {
            return false;
        }
        // SAFETY: within the memory, which is aligned to pages; `&mut` and the lane's event exclude other users.
        unsafe {
            let to = self.address.as_ptr().cast::<Run>().add(at);
            std::ptr::copy_nonoverlapping(runs.as_ptr(), to, runs.len());
        }
        true
    }

    /// Writes words from `at` on, counted in words; `false` beyond the end.
    pub(crate) fn write_words(&mut self, at: usize, words: &[u64]) -> bool {
        if at.checked_add(words.len()).is_none_or(|end| end > self.len / 8) {
            return false;
        }
        // SAFETY: as in `write_runs`.
        unsafe {
            let to = self.address.as_ptr().cast::<u64>().add(at);
            std::ptr::copy_nonoverlapping(words.as_ptr(), to, words.len());
        }
        true
    }

    /// Copies the whole of `list`, host memory, to `at` and behind; `false` beyond the end, or when it is no host memory.
    /// Nobody else uses these bytes meanwhile.
    pub(crate) fn fill(&self, mut at: usize, list: &SgList) -> bool {
        if at.checked_add(list.len()).is_none_or(|end| end > self.len) || !list.is_host() {
            return false;
        }
        for piece in list.pieces() {
            // SAFETY: within the memory, which only the engine's order of copies lets anyone touch; the piece by its
            // constructor's contract.
            unsafe {
                let to = self.address.as_ptr().add(at);
                copy_plain(to, piece.as_ptr(), piece.len(), Direction::Put);
            }
            at += piece.len();
        }
        true
    }

    /// Copies the bytes from `at` on to the whole of `list`, host memory; `false` beyond the end, or when it is no host memory.
    pub(crate) fn drain(&self, mut at: usize, list: &SgList) -> bool {
        let is_within = at.checked_add(list.len()).is_some_and(|end| end <= self.len);
        if !is_within || !list.is_host() || !list.is_writable() {
            return false;
        }
        for piece in list.pieces() {
            // SAFETY: as in `fill`.
            unsafe {
                let from = self.address.as_ptr().add(at);
                copy_plain(piece.as_ptr(), from, piece.len(), Direction::Get);
            }
            at += piece.len();
        }
        true
    }

    /// The digests of the first `count` chunks, at most all: of each the device wrote [`DIGEST_WORDS`] words, whose sum is the
    /// state before its last inversion.
    pub(crate) fn digests(&self, count: usize) -> Vec<u64> {
        let first = self.address.as_ptr().cast::<u64>();
        let chunk = |chunk: usize| {
            // SAFETY: within the memory; the device wrote it before an event that has come. Volatile, because the device is no
            // thread that the compiler knows of.
            let word = |at: usize| unsafe { first.add(chunk * DIGEST_WORDS + at).read_volatile() };
            !(0..DIGEST_WORDS).fold(0, |sum, at| sum ^ word(at))
        };
        (0..count.min(self.len / (8 * DIGEST_WORDS))).map(chunk).collect()
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: pinned in `new`, given back once; transfers keep their lane and pieces keep this value while work may be queued.
        unsafe { self.device.unpin(self.address) };
    }
}
