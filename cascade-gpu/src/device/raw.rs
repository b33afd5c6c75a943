//! The trait of devices, with the contracts of its calls, and the calls that the engine makes.

use std::fmt::Debug;
use std::ptr::NonNull;

use super::{Event, Fault, Info, Run, ShareHandle, Side};

/// A queue of work of a device, in order. A stream of the tier, or of the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream(pub(crate) u64);

impl Stream {
    /// A stream of the caller's: a `CUstream` (or `cudaStream_t`) as an integer, 0 for the default stream.
    ///
    /// # Safety
    /// It must be a stream of the device that it is used with, and live until the call that takes it has returned.
    #[must_use]
    pub unsafe fn of_caller(handle: u64) -> Self {
        Self(handle)
    }
}

/// What to digest: `len` bytes that lie in pages of `page_bytes` each, the last one perhaps shorter.
#[derive(Clone, Copy, Debug)]
pub struct DigestJob {
    /// Address of the only page; used when `pages` is 0.
    pub base: u64,
    /// Address of a table of page addresses in pinned memory, 0 when there is one page only.
    pub pages: u64,
    /// Bytes of a page, a multiple of 8.
    pub page_bytes: u64,
    /// Bytes in all.
    pub len: u64,
    /// Address in pinned memory of [`DIGEST_WORDS`](super::DIGEST_WORDS) words for each 64 KiB.
    pub out: u64,
    /// The most thread blocks to use.
    pub ctas: u32,
}

/// What to copy by pages, with digests in the same pass: chunks of 64 KiB of two sides of one length.
#[derive(Clone, Copy, Debug)]
pub struct MoveJob {
    /// To where. Nowhere for a job from chunk 0 on that only digests.
    pub dst: Side,
    /// From where.
    pub src: Side,
    /// Bytes of each side in all, a multiple of 16.
    pub len: u64,
    /// The first chunk to copy.
    pub chunk: u64,
    /// How many.
    pub chunks: u64,
    /// Address in pinned memory of [`DIGEST_WORDS`](super::DIGEST_WORDS) words for each chunk of the whole; 0: no digests.
    pub out: u64,
    /// The most thread blocks to use.
    pub ctas: u32,
}

/// A device. Calls that queue work return at once; a stream's work runs in order, streams run beside each other.
pub trait Device: Send + Sync + Debug {
    /// What it is.
    fn info(&self) -> &Info;

    /// Bytes of device memory that are free, of all processes.
    ///
    /// # Errors
    /// The driver's refusal.
    fn free_bytes(&self) -> Result<u64, Fault>;

    /// `len` bytes of device memory, aligned to 512.
    ///
    /// # Errors
    /// `OutOfMemory`, or the driver's refusal.
    fn allocate(&self, len: usize) -> Result<NonNull<u8>, Fault>;

    /// Gives memory of [`Device::allocate`] back.
    ///
    /// # Safety
    /// `address` came from this device, is freed once, and no work that touches it is queued or running.
    unsafe fn free(&self, address: NonNull<u8>);

    /// What other processes open the allocation at `address`, of [`Device::allocate`], with.
    ///
    /// # Errors
    /// The driver's refusal.
    fn share(&self, address: NonNull<u8>) -> Result<ShareHandle, Fault>;

    /// Opens what another process shared: where this device reaches it, and its length. It stays there until it is closed.
    ///
    /// # Errors
    /// The driver's refusal, of a handle of this process too.
    fn open_shared(&self, handle: &ShareHandle) -> Result<(NonNull<u8>, usize), Fault>;

    /// Closes memory of [`Device::open_shared`].
    ///
    /// # Safety
    /// It is closed once, and no work that touches it is queued or running.
    unsafe fn close_shared(&self, address: NonNull<u8>);

    /// Whether copies by this device reach the memory of the device that this process calls `ordinal`.
    fn reaches_device(&self, ordinal: u32) -> bool;

    /// `len` bytes of host memory that device and CPU reach at the same address.
    ///
    /// # Errors
    /// `OutOfMemory`, or the driver's refusal.
    fn pin(&self, len: usize) -> Result<NonNull<u8>, Fault>;

    /// Gives memory of [`Device::pin`] back.
    ///
    /// # Safety
    /// As for [`Device::free`].
    unsafe fn unpin(&self, address: NonNull<u8>);

    /// Registers host memory for copies at full speed, for every device of the process.
    ///
    /// # Safety
    /// The memory stays mapped until it is unregistered.
    ///
    /// # Errors
    /// `OutOfMemory` (a limit on locked memory too), or the driver's refusal.
    unsafe fn register(&self, address: NonNull<u8>, len: usize) -> Result<(), Fault>;

    /// Takes a registration back.
    ///
    /// # Safety
    /// `address` was registered, and no work that touches it is queued or running.
    unsafe fn unregister(&self, address: NonNull<u8>);

    /// Bytes from `address` on that somebody else registered or pinned; 0 when none did.
    fn pinned_from(&self, address: usize) -> usize;

    /// A stream of its own.
    ///
    /// # Errors
    /// The driver's refusal.
    fn stream(&self) -> Result<Stream, Fault>;

    /// Ends a stream of [`Device::stream`], after its work.
    fn end_stream(&self, stream: Stream);

    /// An event, recorded on `stream` behind the work that it has.
    ///
    /// # Errors
    /// The driver's refusal.
    fn record(&self, stream: Stream) -> Result<Event, Fault>;

    /// Waits until all work of `stream` is over.
    ///
    /// # Errors
    /// The failure of the device: then nothing runs any more.
    fn finish(&self, stream: Stream) -> Result<(), Fault>;

    /// Destroys an event.
    fn end_event(&self, event: Event);

    /// Lets later work of `stream` wait for `event`.
    ///
    /// # Errors
    /// The driver's refusal.
    fn wait_for(&self, stream: Stream, event: Event) -> Result<(), Fault>;

    /// Whether `event` has come.
    ///
    /// # Errors
    /// The failure of the device or of work before the event.
    fn is_done(&self, event: Event) -> Result<bool, Fault>;

    /// Queues a copy by the device's copy engine for each run.
    ///
    /// # Safety
    /// Each run's sides stay valid, the sources unwritten and the destinations untouched, until an event recorded behind
    /// has come. Host sides lie within one registration each.
    ///
    /// # Errors
    /// The driver's refusal; some of the runs may have been queued.
    unsafe fn copy(&self, stream: Stream, runs: &[Run]) -> Result<(), Fault>;

    /// The same by one call for all runs; only where [`Info::has_batched_copies`].
    ///
    /// # Safety
    /// As for [`Device::copy`].
    ///
    /// # Errors
    /// As for [`Device::copy`].
    unsafe fn copy_batch(&self, stream: Stream, runs: &[Run]) -> Result<(), Fault>;

    /// The same by a kernel of `ctas` thread blocks; only where [`Info::kernels_reach_host`] for host sides.
    ///
    /// # Safety
    /// As for [`Device::copy`]; `table` is the address of a copy of `runs` in pinned memory, kept for as long.
    ///
    /// # Errors
    /// As for [`Device::copy`].
    unsafe fn copy_by_kernel(&self, stream: Stream, runs: &[Run], table: u64, ctas: u32)
    -> Result<(), Fault>;

    /// Queues a copy by pages, by a kernel; only where [`Info::kernels_reach_host`] for host sides. Tables must hold the pages
    /// of the job's chunks.
    ///
    /// # Safety
    /// Both sides stay valid, the source unwritten and the destination untouched, and so do the tables and `out`, until an
    /// event recorded behind has come.
    ///
    /// # Errors
    /// As for [`Device::copy`].
    unsafe fn move_pages(&self, stream: Stream, job: &MoveJob) -> Result<(), Fault>;

    /// Queues the digests of device memory.
    ///
    /// # Safety
    /// The pages and the pinned memory of `job` stay valid until an event recorded behind has come.
    ///
    /// # Errors
    /// The driver's refusal.
    unsafe fn digest(&self, stream: Stream, job: &DigestJob) -> Result<(), Fault>;
}

/// The calls that [`crate::engine`] makes.
pub(crate) mod issue {
    use super::{Device, DigestJob, Fault, MoveJob, Run, Stream};
    use crate::engine::Way;

    /// Queues `runs`, which come from the lists of a transfer, by `way`.
    ///
    /// The transfer owns the lists and its lane, and is not dropped before its last event has come or its device failed:
    /// that is what makes this safe to call from the engine.
    pub(crate) fn copy(
        device: &dyn Device,
        stream: Stream,
        runs: &[Run],
        table: u64,
        way: Way,
    ) -> Result<(), Fault> {
        if runs.is_empty() {
            return Ok(());
        }
        // SAFETY: the pieces' constructors promise memory that is valid until the operation is over, and the transfer keeps
        // pieces and table until then; the engine has cut the runs at registrations.
        unsafe {
            match way {
                Way::Dma | Way::Tail { .. } => device.copy(stream, runs),
                Way::Batch => device.copy_batch(stream, runs),
                Way::Kernel { ctas } | Way::Move { ctas } | Way::Relay { ctas } => {
                    device.copy_by_kernel(stream, runs, table, ctas)
                }
            }
        }
    }

    /// Queues a copy by pages between the lists of a transfer, whose tables lie in its lane.
    pub(crate) fn move_pages(device: &dyn Device, stream: Stream, job: &MoveJob) -> Result<(), Fault> {
        // SAFETY: as above; the engine has looked that host memory is registered.
        unsafe { device.move_pages(stream, job) }
    }

    /// Queues digests of pages that a transfer owns, into its lane.
    pub(crate) fn digest(device: &dyn Device, stream: Stream, job: &DigestJob) -> Result<(), Fault> {
        // SAFETY: as above.
        unsafe { device.digest(stream, job) }
    }
}
