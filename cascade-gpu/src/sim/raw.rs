//! Memory of simulated devices, and the calls of the trait.

use std::alloc::{Layout, alloc, dealloc};
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use cascade_core::copy::{Direction, copy_plain};
use cascade_core::digest::{CHUNK_BYTES, crc64};
use parking_lot::{Mutex, RwLock};

use super::SimDevice;
use super::queue::Work;
use crate::device::{
    DIGEST_WORDS, Device, DigestJob, Event, Fault, Info, MoveJob, Run, ShareHandle, Side, Stream,
};

const PAGE: usize = 4096;

/// CUDA's number for an argument that is wrong.
const UNKNOWN: Fault = Fault::Failed { function: "simulated sharing", code: 1 };

/// What an address range is.
#[derive(Debug)]
struct Memory {
    len: usize,
    /// Where the bytes are: elsewhere for device memory, in place for host memory.
    bytes: usize,
    /// What gives the bytes back, where the node has them: also those that others have open.
    owner: Option<Arc<Bytes>>,
}

/// Bytes behind memory of a node.
#[derive(Debug)]
struct Bytes {
    address: NonNull<u8>,
    layout: Layout,
}

// SAFETY: an address, used only to give the memory back.
unsafe impl Send for Bytes {}
// SAFETY: as above.
unsafe impl Sync for Bytes {}

impl Bytes {
    fn new(len: usize) -> Result<Arc<Self>, Fault> {
        let layout = Layout::from_size_align(len.max(1), PAGE).map_err(|_| Fault::OutOfMemory)?;
        // SAFETY: the layout has at least one byte.
        let address = NonNull::new(unsafe { alloc(layout) }).ok_or(Fault::OutOfMemory)?;
        // SAFETY: just allocated with that length. Not zero: nobody may rely on what fresh memory holds.
        unsafe { address.as_ptr().write_bytes(0xD7, len) };
        Ok(Arc::new(Self { address, layout }))
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout; nobody has it open any more, and no work is left, by the trait's contract.
        unsafe { dealloc(self.address.as_ptr(), self.layout) };
    }
}

/// Device memory that was shared, by handle: what a driver keeps for all processes of a machine.
static SHARED: Mutex<Vec<(ShareHandle, Weak<Bytes>, usize)>> = Mutex::new(Vec::new());

/// All memory that the devices of a node know: their own by reserved addresses without memory behind them, pinned and
/// registered host memory by its own.
#[derive(Debug, Default)]
pub(super) struct Node {
    memory: RwLock<BTreeMap<usize, Memory>>,
    /// Devices that reach it.
    pub(super) devices: AtomicU32,
}

impl Node {
    /// Where the CPU finds `len` bytes at `address`; `None` when the device cannot reach all of them.
    fn find(&self, address: u64, len: u64) -> Option<NonNull<u8>> {
        let memory = self.memory.read();
        let (first, found) = memory.range(..=address as usize).next_back()?;
        let offset = address as usize - first;
        (offset as u64 + len <= found.len as u64).then(|| NonNull::new((found.bytes + offset) as *mut u8))?
    }

    fn reaches(&self, runs: &[Run]) -> bool {
        runs.iter().all(|run| self.find(run.dst, run.len).is_some() && self.find(run.src, run.len).is_some())
    }

    pub(super) fn copy(&self, run: &Run) {
        let (Some(dst), Some(src)) = (self.find(run.dst, run.len), self.find(run.src, run.len)) else {
            return;
        };
        // SAFETY: both ranges are known memory of that length, valid until the transfer's event by `Device::copy`'s contract.
        unsafe { copy_plain(dst.as_ptr(), src.as_ptr(), run.len as usize, Direction::Get) };
    }

    pub(super) fn flip(&self, address: u64) {
        if let Some(byte) = self.find(address, 1) {
            // SAFETY: as in `copy`.
            unsafe { *byte.as_ptr() ^= 1 };
        }
    }

    fn read(&self, address: u64, out: &mut [u8]) {
        if let Some(from) = self.find(address, out.len() as u64) {
            // SAFETY: as in `copy`; `out` is private.
            unsafe { copy_plain(out.as_mut_ptr(), from.as_ptr(), out.len(), Direction::Get) };
        }
    }

    pub(super) fn digest(&self, job: &DigestJob) {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        for (index, first) in (0..job.len).step_by(CHUNK_BYTES).enumerate() {
            let end = (first + CHUNK_BYTES as u64).min(job.len);
            chunk.clear();
            let mut at = first;
            while at < end {
                let (page, offset) = (at / job.page_bytes, at % job.page_bytes);
                let len = (job.page_bytes - offset).min(end - at);
                let mut base = job.base.to_le_bytes();
                if job.pages != 0 {
                    self.read(job.pages + 8 * page, &mut base);
                }
                let filled = chunk.len();
                chunk.resize(filled + len as usize, 0);
                self.read(u64::from_le_bytes(base) + offset, &mut chunk[filled..]);
                at += len;
            }
            self.write_digest(job.out, index, &chunk);
        }
    }

    /// The words of a chunk's digest, as several thread blocks leave them: no word alone says anything.
    fn write_digest(&self, out: u64, index: usize, chunk: &[u8]) {
        let Some(to) = self.find(out + (8 * DIGEST_WORDS * index) as u64, 8 * DIGEST_WORDS as u64) else {
            return;
        };
        let mut words = [0; DIGEST_WORDS];
        words[index % DIGEST_WORDS] = 0x5EED;
        words[DIGEST_WORDS - 1] ^= !crc64(chunk) ^ 0x5EED;
        for (at, word) in words.into_iter().enumerate() {
            // SAFETY: pinned memory of the job, aligned to 8 by its layout, and so many words of it.
            unsafe { to.cast::<u64>().as_ptr().add(at).write_volatile(word) };
        }
    }

    /// Copies, and digests what was read, from a multiple of 64 KiB on.
    pub(super) fn move_runs(&self, runs: &[Run], out: u64) {
        let mut bytes = Vec::new();
        for run in runs {
            let at = bytes.len();
            bytes.resize(at + run.len as usize, 0);
            self.read(run.src, &mut bytes[at..]);
            self.copy(run);
        }
        for (index, chunk) in bytes.chunks(CHUNK_BYTES).enumerate().filter(|_| out != 0) {
            self.write_digest(out, index, chunk);
        }
    }

    /// Address of byte `at` of a side, and bytes left in its page.
    fn place(&self, side: &Side, at: u64) -> (u64, u64) {
        if side.pages == 0 {
            return (side.base.wrapping_add(at), u64::MAX);
        }
        let (page, offset) = (at / side.page_bytes, at % side.page_bytes);
        let mut base = [0; 8];
        self.read(side.pages + 8 * page, &mut base);
        (u64::from_le_bytes(base) + offset, side.page_bytes - offset)
    }

    /// Bytes from `address` on that lie in one allocation or registration.
    fn left(&self, address: u64) -> u64 {
        let memory = self.memory.read();
        let found = memory.range(..=address as usize).next_back();
        found.map_or(0, |(first, found)| ((first + found.len) as u64).saturating_sub(address))
    }

    /// The runs of a copy by pages, which a kernel takes across the bounds of registrations; `None` when it cannot reach all.
    fn runs_of(&self, job: &MoveJob) -> Option<Vec<Run>> {
        let end = job.len.min((job.chunk + job.chunks) * CHUNK_BYTES as u64);
        let (mut at, mut runs) = (job.chunk * CHUNK_BYTES as u64, Vec::new());
        while at < end {
            let ((dst, a), (src, b)) = (self.place(&job.dst, at), self.place(&job.src, at));
            let len = a.min(b).min(end - at).min(self.left(dst)).min(self.left(src));
            if len == 0 || !(dst | src | len).is_multiple_of(16) {
                return None;
            }
            runs.push(Run { dst, src, len });
            at += len;
        }
        Some(runs)
    }

    /// An address of its own for bytes, which the CPU cannot touch there.
    fn show(&self, bytes: Arc<Bytes>, len: usize) -> Option<NonNull<u8>> {
        let address = reserve(len.max(1))?;
        let memory = Memory { len, bytes: bytes.address.as_ptr() as usize, owner: Some(bytes) };
        self.add(address.as_ptr() as usize, memory);
        Some(address)
    }

    fn add(&self, first: usize, memory: Memory) {
        self.memory.write().insert(first, memory);
    }

    fn remove(&self, address: NonNull<u8>) -> Option<Memory> {
        self.memory.write().remove(&(address.as_ptr() as usize))
    }
}

/// Addresses that nothing is behind: the CPU cannot touch them, as it cannot touch a device's.
fn reserve(len: usize) -> Option<NonNull<u8>> {
    // SAFETY: a new anonymous mapping without access, anywhere.
    let at = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if at == libc::MAP_FAILED { None } else { NonNull::new(at.cast()) }
}

// The contracts are the trait's; the addresses are looked up, and an unknown one does nothing.
impl Device for SimDevice {
    fn info(&self) -> &Info {
        &self.info
    }

    fn free_bytes(&self) -> Result<u64, Fault> {
        self.queues.check()?;
        Ok(self.memory_bytes - *self.used.lock())
    }

    fn allocate(&self, len: usize) -> Result<NonNull<u8>, Fault> {
        self.queues.check()?;
        let mut used = self.used.lock();
        if *used + len as u64 > self.memory_bytes {
            return Err(Fault::OutOfMemory);
        }
        let bytes = Bytes::new(len)?;
        let address = self.node.show(bytes, len).ok_or(Fault::OutOfMemory)?;
        *used += len as u64;
        self.allocations.fetch_add(1, Ordering::Relaxed);
        Ok(address)
    }

    unsafe fn free(&self, address: NonNull<u8>) {
        let Some(memory) = self.node.remove(address) else { return };
        *self.used.lock() -= memory.len as u64;
        self.allocations.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: reserved in `allocate` with this length; nothing was ever behind it.
        unsafe { libc::munmap(address.as_ptr().cast(), memory.len.max(1)) };
    }

    fn share(&self, address: NonNull<u8>) -> Result<ShareHandle, Fault> {
        self.queues.check()?;
        let memory = self.node.memory.read();
        let found = memory.get(&(address.as_ptr() as usize));
        let Some((bytes, len)) = found.and_then(|found| Some((found.owner.as_ref()?, found.len))) else {
            return Err(UNKNOWN);
        };
        let mut shared = SHARED.lock();
        shared.retain(|(_, bytes, _)| bytes.strong_count() > 0);
        let mut handle = ShareHandle([0x5A; 64]);
        let names = [bytes.address.as_ptr() as usize, std::process::id() as usize];
        for (to, name) in handle.0.chunks_exact_mut(8).zip(names) {
            to.copy_from_slice(&(name as u64).to_le_bytes());
        }
        shared.push((handle, Arc::downgrade(bytes), len));
        Ok(handle)
    }

    fn open_shared(&self, handle: &ShareHandle) -> Result<(NonNull<u8>, usize), Fault> {
        self.queues.check()?;
        let shared = SHARED.lock();
        let found = shared.iter().rev().find(|(known, ..)| known == handle);
        let (bytes, len) = found.and_then(|(_, bytes, len)| Some((bytes.upgrade()?, *len))).ok_or(UNKNOWN)?;
        let address = self.node.show(bytes, len).ok_or(Fault::OutOfMemory)?;
        self.allocations.fetch_add(1, Ordering::Relaxed);
        Ok((address, len))
    }

    unsafe fn close_shared(&self, address: NonNull<u8>) {
        let Some(memory) = self.node.remove(address) else { return };
        self.allocations.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: reserved in `show` with this length; nothing was ever behind it.
        unsafe { libc::munmap(address.as_ptr().cast(), memory.len.max(1)) };
    }

    fn reaches_device(&self, ordinal: u32) -> bool {
        ordinal < self.node.devices.load(Ordering::Relaxed)
    }

    fn pin(&self, len: usize) -> Result<NonNull<u8>, Fault> {
        self.queues.check()?;
        let bytes = Bytes::new(len)?;
        self.allocations.fetch_add(1, Ordering::Relaxed);
        let address = bytes.address;
        let first = address.as_ptr() as usize;
        self.node.add(first, Memory { len, bytes: first, owner: Some(bytes) });
        Ok(address)
    }

    unsafe fn unpin(&self, address: NonNull<u8>) {
        if self.node.remove(address).is_some() {
            self.allocations.fetch_sub(1, Ordering::Relaxed);
        }
    }

    unsafe fn register(&self, address: NonNull<u8>, len: usize) -> Result<(), Fault> {
        self.queues.check()?;
        self.allocations.fetch_add(1, Ordering::Relaxed);
        let first = address.as_ptr() as usize;
        self.node.add(first, Memory { len, bytes: first, owner: None });
        Ok(())
    }

    unsafe fn unregister(&self, address: NonNull<u8>) {
        if self.node.remove(address).is_some() {
            self.allocations.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn pinned_from(&self, address: usize) -> usize {
        let memory = self.node.memory.read();
        let Some((first, found)) = memory.range(..=address).next_back() else { return 0 };
        if found.bytes == *first { (first + found.len).saturating_sub(address) } else { 0 }
    }

    fn stream(&self) -> Result<Stream, Fault> {
        self.queues.add_stream().map(Stream)
    }

    fn end_stream(&self, stream: Stream) {
        self.queues.end_stream(stream.0);
    }

    fn record(&self, stream: Stream) -> Result<Event, Fault> {
        self.queues.record(stream.0).map(Event)
    }

    fn finish(&self, stream: Stream) -> Result<(), Fault> {
        self.queues.finish(stream.0)
    }

    fn end_event(&self, _event: Event) {
        // An event that has come, or whose device is lost, takes no room.
    }

    fn wait_for(&self, stream: Stream, event: Event) -> Result<(), Fault> {
        self.queues.push(stream.0, Work::Wait(event.0))
    }

    fn is_done(&self, event: Event) -> Result<bool, Fault> {
        self.queues.is_done(event.0)
    }

    unsafe fn copy(&self, stream: Stream, runs: &[Run]) -> Result<(), Fault> {
        if !self.node.reaches(runs) {
            return Err(Fault::NotRegistered);
        }
        self.queues.push(stream.0, Work::Copy(runs.to_vec()))
    }

    unsafe fn copy_batch(&self, stream: Stream, runs: &[Run]) -> Result<(), Fault> {
        // SAFETY: the same contract.
        unsafe { self.copy(stream, runs) }
    }

    unsafe fn copy_by_kernel(
        &self,
        stream: Stream,
        runs: &[Run],
        table: u64,
        _ctas: u32,
    ) -> Result<(), Fault> {
        // As a kernel does, it goes by the table, and not by the list beside it.
        let mut read = vec![Run::default(); runs.len()];
        let size = size_of_val(runs);
        let from = self.node.find(table, size as u64).ok_or(Fault::NotRegistered)?;
        // SAFETY: pinned memory of that size, and a vector of plain numbers.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), read.as_mut_ptr().cast::<u8>(), size) };
        if !self.node.reaches(&read) {
            return Err(Fault::NotRegistered);
        }
        self.queues.push(stream.0, Work::Copy(read))
    }

    unsafe fn move_pages(&self, stream: Stream, job: &MoveJob) -> Result<(), Fault> {
        if job.dst.is_nowhere() {
            let Side { base, pages, page_bytes } = job.src;
            let page_bytes = if pages == 0 { job.len } else { page_bytes };
            let digests = DigestJob { base, pages, page_bytes, len: job.len, out: job.out, ctas: job.ctas };
            return self.queues.push(stream.0, Work::Digest(digests));
        }
        let runs = self.node.runs_of(job).ok_or(Fault::NotRegistered)?;
        let out = if job.out == 0 { 0 } else { job.out + (8 * DIGEST_WORDS) as u64 * job.chunk };
        self.queues.push(stream.0, Work::Move(runs, out))
    }

    unsafe fn digest(&self, stream: Stream, job: &DigestJob) -> Result<(), Fault> {
        self.queues.push(stream.0, Work::Digest(*job))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Whatever owned memory still stands is left alone: its owners are gone without giving it back, and tests that count
        // find it in `held`.
        self.memory.get_mut().clear();
    }
}

/// How many ranges the device's node knows.
#[cfg(test)]
pub(super) fn known(device: &SimDevice) -> usize {
    device.node.memory.read().len()
}
