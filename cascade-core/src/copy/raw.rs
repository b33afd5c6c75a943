//! Dispatch, splitting by chunk, and work for several threads.

use crate::copy::kernel::{Direction, Kernel, StoreKind};
use crate::copy::op::{DIGEST, PLAIN, STREAM};
use crate::copy::{plan, pool, scalar, vector};
use crate::digest::tables::INVERT;
use crate::digest::{CHUNK_BYTES, chunk_count};

/// What one thread takes at once of a shared copy: long enough to hide the claim, short enough to balance.
const UNIT_BYTES: usize = 16 * CHUNK_BYTES;

/// A kernel for one operation: `(dst, src, len, digest state) -> digest state`.
pub(crate) type Routine = unsafe fn(*mut u8, *const u8, usize, u64) -> u64;

macro_rules! of_kernel {
    ($run:path, $op:expr) => {{
        use $run as run;
        const DIGEST_PLAIN: u8 = DIGEST | PLAIN;
        const DIGEST_STREAM: u8 = DIGEST | STREAM;
        match $op {
            DIGEST_PLAIN => run::<DIGEST_PLAIN> as Routine,
            DIGEST_STREAM => run::<DIGEST_STREAM> as Routine,
            DIGEST => run::<DIGEST> as Routine,
            STREAM => run::<STREAM> as Routine,
            _ => system_copy as Routine,
        }
    }};
}

/// The routine of `kernel` for `op`; the scalar one where this CPU lacks the kernel.
pub(crate) fn routine(kernel: Kernel, op: u8) -> Routine {
    match kernel {
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx512 if kernel.is_supported() => of_kernel!(vector::avx512::run, op),
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx2 if kernel.is_supported() => of_kernel!(vector::avx2::run, op),
        #[cfg(target_arch = "x86_64")]
        Kernel::Sse if kernel.is_supported() => of_kernel!(vector::sse::run, op),
        #[cfg(target_arch = "aarch64")]
        Kernel::Pmull if kernel.is_supported() => of_kernel!(vector::pmull::run, op),
        _ => of_kernel!(scalar::raw::run, op),
    }
}

/// Plain copy without a digest: nothing beats the C library's.
///
/// # Safety
/// As the kernels: both ranges valid for `len` bytes, no overlap.
unsafe fn system_copy(dst: *mut u8, src: *const u8, len: usize, state: u64) -> u64 {
    // SAFETY: the function's contract is that of the copy.
    unsafe { src.copy_to_nonoverlapping(dst, len) };
    state
}

/// Digest state after `data`.
pub(crate) fn advance(state: u64, data: &[u8]) -> u64 {
    let run = routine(Kernel::widest(), DIGEST);
    // SAFETY: `data` is readable; without a store in the operation the destination is never touched.
    unsafe { run(data.as_ptr().cast_mut(), data.as_ptr(), data.len(), state) }
}

/// One copy, to be done in parts by any thread.
#[derive(Clone, Copy)]
struct Task {
    routine: Routine,
    op: u8,
    dst: *mut u8,
    src: *const u8,
    len: usize,
    /// One place for each chunk; null if there is no digest in `op`.
    digests: *mut u64,
}

// SAFETY: the pointers are the caller's, valid until `run` returns, and threads work on disjoint parts of them.
unsafe impl Sync for Task {}

impl Task {
    /// Does the whole task, with up to `threads` threads.
    ///
    /// # Safety
    /// The ranges are valid as [`copy_digest`] says for `op`; `digests` has a place for each chunk.
    unsafe fn run(self, threads: usize) {
        let units = self.len.div_ceil(UNIT_BYTES);
        if threads <= 1 || units <= 1 {
            // SAFETY: the caller's contract; one part is the whole.
            unsafe { self.part(0, self.len) };
            return;
        }
        // The whole task is captured, not its pointers one by one: only the task is `Sync`.
        let task = &self;
        pool::run(threads, units, &move |unit| {
            let from = unit * UNIT_BYTES;
            // SAFETY: the caller's contract; units are disjoint, and the pool returns when all are done.
            unsafe { task.part(from, (from + UNIT_BYTES).min(task.len)) };
        });
    }

    /// Does the bytes `from..to`; `from` is a multiple of the chunk size.
    ///
    /// # Safety
    /// As [`Task::run`]; no other thread works on these bytes.
    unsafe fn part(&self, from: usize, to: usize) {
        // SAFETY: offsets stay within `len`, chunk indices within the digests' places, by the contract.
        unsafe {
            if self.op & DIGEST == 0 {
                (self.routine)(self.dst.add(from), self.src.add(from), to - from, 0);
            } else {
                for at in (from..to).step_by(CHUNK_BYTES) {
                    let len = (to - at).min(CHUNK_BYTES);
                    let state = (self.routine)(self.dst.add(at), self.src.add(at), len, INVERT);
                    self.digests.add(at / CHUNK_BYTES).write(state ^ INVERT);
                }
            }
        }
        if self.op & STREAM != 0 {
            scalar::raw::stream_fence();
        }
    }
}

/// Copies `len` bytes and writes the CRC-64/NVME of each 64 KiB chunk to `chunk_digests`. Kernel, kind of stores and
/// threads are those of [`plan`](crate::copy::plan()).
///
/// # Panics
/// If `chunk_digests.len()` is not `len.div_ceil(65536)`.
///
/// # Safety
/// `src` is readable and `dst` writable for `len` bytes until the call returns; they do not overlap. Other threads and
/// processes may write to `src` meanwhile; the digests are then those of the bytes that arrived in `dst`.
///
/// ```
/// use cascade_core::copy::{Direction, copy_chunks};
/// let (src, mut dst, mut digests) = (vec![7u8; 70_000], vec![0u8; 70_000], [0u64; 2]);
/// // SAFETY: both buffers are that long and distinct.
/// unsafe { copy_chunks(dst.as_mut_ptr(), src.as_ptr(), src.len(), Direction::Put, &mut digests) };
/// assert_eq!(dst, src);
/// assert_eq!(digests[1], cascade_core::digest::crc64(&src[65_536..]));
/// ```
pub unsafe fn copy_chunks(
    dst: *mut u8,
    src: *const u8,
    len: usize,
    direction: Direction,
    chunk_digests: &mut [u64],
) {
    let plan = plan::plan();
    let op = DIGEST | plan.store_kind(direction, len).op();
    // SAFETY: the caller's contract.
    unsafe { start(plan.kernel, op, dst, src, len, chunk_digests, plan.threads_for(len)) };
}

/// Writes the CRC-64/NVME of each 64 KiB chunk of `len` bytes to `out`, with as many threads as the plan says.
///
/// # Panics
/// If `out.len()` is not `len.div_ceil(65536)`.
///
/// # Safety
/// `src` is readable for `len` bytes until the call returns.
pub unsafe fn digest_chunks(src: *const u8, len: usize, out: &mut [u64]) {
    let plan = plan::plan();
    // SAFETY: the caller's contract; the operation does not store.
    unsafe { start(plan.kernel, DIGEST, src.cast_mut(), src, len, out, plan.threads_for(len)) };
}

/// Copies `len` bytes without a digest; kind of stores and threads as the plan says.
///
/// # Safety
/// As [`copy_chunks`].
pub unsafe fn copy_plain(dst: *mut u8, src: *const u8, len: usize, direction: Direction) {
    let plan = plan::plan();
    let op = plan.store_kind(direction, len).op();
    let task = Task { routine: routine(plan.kernel, op), op, dst, src, len, digests: std::ptr::null_mut() };
    // SAFETY: the caller's contract; without a digest there are no places to write one to.
    unsafe { task.run(plan.threads_for(len)) };
}

/// Calls `work` once for each unit of `0..units`, in that order, on this thread and on those that share large copies: as many
/// as a copy of `bytes` bytes would get. A unit may wait for earlier ones and for a device, but for no later one, because one
/// thread may have to do them all.
pub fn share(bytes: usize, units: usize, work: &(dyn Fn(usize) + Sync)) {
    pool::run_patient(plan::plan().threads_for(bytes), units, work);
}

/// As [`copy_chunks`] on the calling thread alone, with the kernel and stores given. A kernel that this CPU lacks is
/// replaced by [`Kernel::Scalar`].
///
/// # Panics
/// If `chunk_digests.len()` is not `len.div_ceil(65536)`.
///
/// # Safety
/// As [`copy_chunks`].
pub unsafe fn copy_digest(
    kernel: Kernel,
    store: StoreKind,
    dst: *mut u8,
    src: *const u8,
    len: usize,
    chunk_digests: &mut [u64],
) {
    // SAFETY: the caller's contract.
    unsafe { start(kernel, DIGEST | store.op(), dst, src, len, chunk_digests, 1) };
}

/// As [`copy_plain`] on the calling thread alone, with the kernel and stores given.
///
/// # Safety
/// As [`copy_chunks`].
pub unsafe fn copy_only(kernel: Kernel, store: StoreKind, dst: *mut u8, src: *const u8, len: usize) {
    let op = store.op();
    let task = Task { routine: routine(kernel, op), op, dst, src, len, digests: std::ptr::null_mut() };
    // SAFETY: the caller's contract.
    unsafe { task.run(1) };
}

/// As [`digest_chunks`] on the calling thread alone, with the kernel given.
///
/// # Panics
/// If `out.len()` is not `len.div_ceil(65536)`.
///
/// # Safety
/// As [`digest_chunks`].
pub unsafe fn digest_only(kernel: Kernel, src: *const u8, len: usize, out: &mut [u64]) {
    // SAFETY: the caller's contract; the operation does not store.
    unsafe { start(kernel, DIGEST, src.cast_mut(), src, len, out, 1) };
}

/// # Safety
/// The ranges are valid as [`copy_chunks`] says; `dst` need not be if `op` does not store.
unsafe fn start(
    kernel: Kernel,
    op: u8,
    dst: *mut u8,
    src: *const u8,
    len: usize,
    digests: &mut [u64],
    threads: usize,
) {
    assert_eq!(digests.len(), chunk_count(len), "one digest for each chunk of {len} bytes");
    let task = Task { routine: routine(kernel, op), op, dst, src, len, digests: digests.as_mut_ptr() };
    // SAFETY: the caller's contract, and the places were counted above.
    unsafe { task.run(threads) };
}

/// [`copy_digest`] for private memory.
///
/// # Panics
/// If the lengths differ or `chunk_digests.len()` is not that of the chunks.
pub(crate) fn copy_slice(
    kernel: Kernel,
    store: StoreKind,
    dst: &mut [u8],
    src: &[u8],
    chunk_digests: &mut [u64],
) {
    assert_eq!(dst.len(), src.len(), "a copy keeps the length");
    // SAFETY: two slices of that length, one of them exclusive, so they do not overlap.
    unsafe { copy_digest(kernel, store, dst.as_mut_ptr(), src.as_ptr(), src.len(), chunk_digests) };
}

/// [`copy_chunks`], [`digest_chunks`], [`copy_plain`] and [`copy_only`] for private memory.
#[cfg(test)]
pub(crate) mod private {
    use super::{Direction, Kernel, StoreKind};
    use crate::digest::chunk_count;

    pub(crate) fn copy_chunks(dst: &mut [u8], src: &[u8], direction: Direction) -> Vec<u64> {
        assert_eq!(dst.len(), src.len());
        let mut digests = vec![0; chunk_count(src.len())];
        // SAFETY: two slices of that length, one of them exclusive, so they do not overlap.
        unsafe { super::copy_chunks(dst.as_mut_ptr(), src.as_ptr(), src.len(), direction, &mut digests) };
        digests
    }

    pub(crate) fn digest_chunks(src: &[u8]) -> Vec<u64> {
        let mut digests = vec![0; chunk_count(src.len())];
        // SAFETY: a readable slice of that length.
        unsafe { super::digest_chunks(src.as_ptr(), src.len(), &mut digests) };
        digests
    }

    pub(crate) fn copy_plain(dst: &mut [u8], src: &[u8], direction: Direction) {
        assert_eq!(dst.len(), src.len());
        // SAFETY: two slices of that length, one of them exclusive, so they do not overlap.
        unsafe { super::copy_plain(dst.as_mut_ptr(), src.as_ptr(), src.len(), direction) };
    }

    pub(crate) fn copy_only(kernel: Kernel, store: StoreKind, dst: &mut [u8], src: &[u8]) {
        assert_eq!(dst.len(), src.len());
        // SAFETY: two slices of that length, one of them exclusive, so they do not overlap.
        unsafe { super::copy_only(kernel, store, dst.as_mut_ptr(), src.as_ptr(), src.len()) };
    }

    pub(crate) fn digest_only(kernel: Kernel, src: &[u8]) -> Vec<u64> {
        let mut digests = vec![0; chunk_count(src.len())];
        // SAFETY: a readable slice of that length.
        unsafe { super::digest_only(kernel, src.as_ptr(), src.len(), &mut digests) };
        digests
    }
}
