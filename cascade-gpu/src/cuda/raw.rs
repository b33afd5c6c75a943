//! Calls of the CUDA driver.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::{NonNull, null_mut};

use cudarc::driver::sys::{
    self, CUcontext, CUdevice_attribute, CUevent, CUfunction, CUmodule, CUpointer_attribute, CUresult,
    CUstream,
};

use parking_lot::Mutex;

use super::kernels;
use crate::device::{DIGEST_WORDS, Device, DigestJob, Event, Fault, Info, MoveJob, Run, ShareHandle, Stream};
use crate::driver;

/// Of `cuMemHostAlloc` and `cuMemHostRegister`: good for every context, and at an address of the device.
const PORTABLE_AND_MAPPED: u32 = 1 | 2;
/// Of `cuStreamCreate`: does not wait for the default stream.
const NON_BLOCKING: u32 = 1;
/// Of `cuEventCreate`: no time is taken.
const WITHOUT_TIME: u32 = 2;
/// `CU_MEMORYTYPE_HOST`.
const HOST_MEMORY: u32 = 1;
/// Of `cuIpcOpenMemHandle`: memory of another device may be opened.
const LAZY_PEER_ACCESS: u32 = 1;
/// Runs that one call for many takes: its arrays are made anew each time.
const BATCH_RUNS: usize = 16_384;

fn check(function: &'static str, result: CUresult) -> Result<(), Fault> {
    match result {
        CUresult::CUDA_SUCCESS => Ok(()),
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => Err(Fault::OutOfMemory),
        other => Err(Fault::Failed { function, code: other as u32 }),
    }
}

/// A GPU.
#[derive(Debug)]
pub(super) struct CudaDevice {
    info: Info,
    device: i32,
    context: CUcontext,
    modules: [CUmodule; 3],
    copy: CUfunction,
    digest: CUfunction,
    mover: CUfunction,
    /// Tables of the kernels that digest: `digest`'s and `mover`'s.
    tables: [u64; 2],
    /// Other devices by their ordinal, once somebody asked for them: their contexts, where their memory is reached.
    peers: Mutex<HashMap<u32, Option<Peer>>>,
}

/// Another device, whose context is retained.
#[derive(Debug)]
struct Peer(i32);

impl Drop for Peer {
    fn drop(&mut self) {
        // SAFETY: retained once in `CudaDevice::peer`.
        unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.0) };
    }
}

// SAFETY: handles of the driver, which any thread may use.
unsafe impl Send for CudaDevice {}
// SAFETY: as above; the driver's calls are safe to make from several threads.
unsafe impl Sync for CudaDevice {}

/// The device's context is current until this is dropped.
struct Current;

impl Drop for Current {
    fn drop(&mut self) {
        let mut popped = null_mut();
        // SAFETY: pushed by `CudaDevice::enter` on this thread.
        unsafe { sys::cuCtxPopCurrent_v2(&raw mut popped) };
    }
}

impl CudaDevice {
    /// Opens a device that the probe found: the library is there and initialised.
    pub(super) fn open(probed: &driver::Device) -> Result<Self, Fault> {
        // SAFETY: looks for the library only. Without it every call below would panic.
        if !unsafe { sys::is_culib_present() } {
            return Err(Fault::Failed { function: "loading libcuda", code: 3 });
        }
        let (mut device, mut context) = (0, null_mut());
        let ordinal = i32::try_from(probed.ordinal).unwrap_or(i32::MAX);
        // SAFETY: places for the results live through the calls; the driver checks the ordinal.
        unsafe {
            check("cuInit", sys::cuInit(0))?;
            check("cuDeviceGet", sys::cuDeviceGet(&raw mut device, ordinal))?;
            check("cuDevicePrimaryCtxRetain", sys::cuDevicePrimaryCtxRetain(&raw mut context, device))?;
        }
        let info = Info {
            ordinal: probed.ordinal,
            name: probed.name.clone(),
            multiprocessors: probed.multiprocessors,
            kernels_reach_host: has(
                device,
                CUdevice_attribute::CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM,
            ),
            has_batched_copies: has_function(c"cuMemcpyBatchAsync"),
        };
        let mut opened = Self {
            info,
            device,
            context,
            modules: [null_mut(); 3],
            copy: null_mut(),
            digest: null_mut(),
            mover: null_mut(),
            tables: [0; 2],
            peers: Mutex::default(),
        };
        opened.load()?;
        Ok(opened)
    }

    fn load(&mut self) -> Result<(), Fault> {
        let _current = self.enter()?;
        (self.modules[0], self.copy) = function(kernels::COPY, c"cascade_copy")?;
        (self.modules[1], self.digest) = function(kernels::DIGEST, c"cascade_digest")?;
        (self.modules[2], self.mover) = function(kernels::MOVE, c"cascade_move")?;
        for (table, words) in self.tables.iter_mut().zip([kernels::digest_tables(), kernels::move_tables()]) {
            let bytes = size_of_val(words.as_slice());
            // SAFETY: a place for the result; the copy reads a vector of that size and is over when the call returns.
            unsafe {
                check("cuMemAlloc", sys::cuMemAlloc_v2(table, bytes))?;
                check("cuMemcpyHtoD", sys::cuMemcpyHtoD_v2(*table, words.as_ptr().cast(), bytes))?;
            }
        }
        Ok(())
    }

    /// Lets this device reach the memory of another, where the hardware can.
    fn peer(&self, ordinal: u32) -> Result<Peer, Fault> {
        let (mut device, mut can, mut context) = (0, 0, null_mut());
        let ordinal = i32::try_from(ordinal).unwrap_or(i32::MAX);
        // SAFETY: places for the results; the driver checks the ordinal.
        unsafe {
            check("cuDeviceGet", sys::cuDeviceGet(&raw mut device, ordinal))?;
            let asked = sys::cuDeviceCanAccessPeer(&raw mut can, self.device, device);
            check("cuDeviceCanAccessPeer", asked)?;
        }
        if can == 0 {
            return Err(Fault::Failed { function: "cuDeviceCanAccessPeer", code: 217 });
        }
        // SAFETY: a place for the result; the context is released when the peer is dropped.
        let retained = unsafe { sys::cuDevicePrimaryCtxRetain(&raw mut context, device) };
        check("cuDevicePrimaryCtxRetain", retained)?;
        let peer = Peer(device);
        let _current = self.enter()?;
        // SAFETY: a context that is retained.
        match unsafe { sys::cuCtxEnablePeerAccess(context, 0) } {
            // Others of this process use the same contexts.
            CUresult::CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED => Ok(peer),
            other => check("cuCtxEnablePeerAccess", other).map(|()| peer),
        }
    }

    fn enter(&self) -> Result<Current, Fault> {
        // SAFETY: the context is retained for as long as the device lives.
        check("cuCtxPushCurrent", unsafe { sys::cuCtxPushCurrent_v2(self.context) })?;
        Ok(Current)
    }
}

fn has(device: i32, attribute: CUdevice_attribute) -> bool {
    let mut value = 0;
    // SAFETY: a place for the result; an attribute that the driver does not know is an error.
    let result = unsafe { sys::cuDeviceGetAttribute(&raw mut value, attribute, device) };
    result == CUresult::CUDA_SUCCESS && value != 0
}

/// Whether the driver is new enough to have the function: calling one that it lacks would panic.
fn has_function(name: &CStr) -> bool {
    // SAFETY: the library is there (`open` looked); the symbol is only looked for.
    unsafe { sys::culib().get::<*const c_void>(name.to_bytes_with_nul()).is_ok() }
}

fn function(ptx: &str, name: &CStr) -> Result<(CUmodule, CUfunction), Fault> {
    let text =
        CString::new(ptx).map_err(|_| Fault::Failed { function: "the text of a kernel", code: 218 })?;
    let (mut module, mut function) = (null_mut(), null_mut());
    // SAFETY: places for the results, terminated texts; the caller made the context current.
    unsafe {
        check("cuModuleLoadData", sys::cuModuleLoadData(&raw mut module, text.as_ptr().cast()))?;
        check("cuModuleGetFunction", sys::cuModuleGetFunction(&raw mut function, module, name.as_ptr()))?;
    }
    Ok((module, function))
}

/// Launches `function` with `blocks` blocks of `threads` threads.
///
/// # Safety
/// `arguments` point to values of the kernel's parameter types, in order, and the kernel's accesses are sound.
unsafe fn launch(
    function: CUfunction,
    stream: Stream,
    blocks: u32,
    threads: u32,
    arguments: &mut [*mut c_void],
) -> Result<(), Fault> {
    let stream = stream.0 as CUstream;
    // SAFETY: the caller's contract; the driver copies the arguments before it returns.
    let result = unsafe {
        sys::cuLaunchKernel(
            function,
            blocks,
            1,
            1,
            threads,
            1,
            1,
            0,
            stream,
            arguments.as_mut_ptr(),
            null_mut(),
        )
    };
    check("cuLaunchKernel", result)
}

fn argument<T>(value: &mut T) -> *mut c_void {
    std::ptr::from_mut(value).cast()
}

fn non_null(function: &'static str, address: *mut c_void) -> Result<NonNull<u8>, Fault> {
    NonNull::new(address.cast()).ok_or(Fault::Failed { function, code: 0 })
}

impl Device for CudaDevice {
    fn info(&self) -> &Info {
        &self.info
    }

    fn free_bytes(&self) -> Result<u64, Fault> {
        let _current = self.enter()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: places for the results.
        check("cuMemGetInfo", unsafe { sys::cuMemGetInfo_v2(&raw mut free, &raw mut total) })?;
        Ok(free as u64)
    }

    fn allocate(&self, len: usize) -> Result<NonNull<u8>, Fault> {
        let _current = self.enter()?;
        let mut address = 0;
        // SAFETY: a place for the result.
        check("cuMemAlloc", unsafe { sys::cuMemAlloc_v2(&raw mut address, len) })?;
        non_null("cuMemAlloc", address as *mut c_void)
    }

    unsafe fn free(&self, address: NonNull<u8>) {
        if let Ok(_current) = self.enter() {
            // SAFETY: the caller's contract. A failure means that the device is gone, and its memory with it.
            unsafe { sys::cuMemFree_v2(address.as_ptr() as u64) };
        }
    }

    fn share(&self, address: NonNull<u8>) -> Result<ShareHandle, Fault> {
        let _current = self.enter()?;
        let mut handle = sys::CUipcMemHandle { reserved: [0; 64] };
        // SAFETY: a place for the result; the driver checks the address.
        let result = unsafe { sys::cuIpcGetMemHandle(&raw mut handle, address.as_ptr() as u64) };
        check("cuIpcGetMemHandle", result)?;
        Ok(ShareHandle(handle.reserved.map(|byte| byte as u8)))
    }

    fn open_shared(&self, handle: &ShareHandle) -> Result<(NonNull<u8>, usize), Fault> {
        let _current = self.enter()?;
        let handle = sys::CUipcMemHandle { reserved: handle.0.map(|byte| byte as c_char) };
        let (mut address, mut first, mut len) = (0, 0, 0);
        // SAFETY: places for the results; the driver checks the handle, and its flag lets it enable access to another device.
        unsafe {
            let opened = sys::cuIpcOpenMemHandle_v2(&raw mut address, handle, LAZY_PEER_ACCESS);
            check("cuIpcOpenMemHandle", opened)?;
            let asked = sys::cuMemGetAddressRange_v2(&raw mut first, &raw mut len, address);
            if asked != CUresult::CUDA_SUCCESS {
                sys::cuIpcCloseMemHandle(address);
            }
            check("cuMemGetAddressRange", asked)?;
        }
        Ok((non_null("cuIpcOpenMemHandle", address as *mut c_void)?, len))
    }

    unsafe fn close_shared(&self, address: NonNull<u8>) {
        if let Ok(_current) = self.enter() {
            // SAFETY: the caller's contract.
            unsafe { sys::cuIpcCloseMemHandle(address.as_ptr() as u64) };
        }
    }

    fn reaches_device(&self, ordinal: u32) -> bool {
        ordinal == self.info.ordinal
            || self.peers.lock().entry(ordinal).or_insert_with(|| self.peer(ordinal).ok()).is_some()
    }

    fn pin(&self, len: usize) -> Result<NonNull<u8>, Fault> {
        let _current = self.enter()?;
        let mut address = null_mut();
        // SAFETY: a place for the result.
        let result = unsafe { sys::cuMemHostAlloc(&raw mut address, len, PORTABLE_AND_MAPPED) };
        check("cuMemHostAlloc", result)?;
        non_null("cuMemHostAlloc", address)
    }

    unsafe fn unpin(&self, address: NonNull<u8>) {
        if let Ok(_current) = self.enter() {
            // SAFETY: the caller's contract.
            unsafe { sys::cuMemFreeHost(address.as_ptr().cast()) };
        }
    }

    unsafe fn register(&self, address: NonNull<u8>, len: usize) -> Result<(), Fault> {
        let _current = self.enter()?;
        let at = address.as_ptr().cast();
        // SAFETY: the caller's contract: mapped memory of that length.
        check("cuMemHostRegister", unsafe { sys::cuMemHostRegister_v2(at, len, PORTABLE_AND_MAPPED) })
    }

    unsafe fn unregister(&self, address: NonNull<u8>) {
        if let Ok(_current) = self.enter() {
            // SAFETY: the caller's contract.
            unsafe { sys::cuMemHostUnregister(address.as_ptr().cast()) };
        }
    }

    fn pinned_from(&self, address: usize) -> usize {
        let Ok(_current) = self.enter() else { return 0 };
        let at = address as u64;
        let (mut kind, mut first, mut len) = (0u32, 0u64, 0usize);
        let mut what = [
            CUpointer_attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
            CUpointer_attribute::CU_POINTER_ATTRIBUTE_RANGE_START_ADDR,
            CUpointer_attribute::CU_POINTER_ATTRIBUTE_RANGE_SIZE,
        ];
        let mut to = [argument(&mut kind), argument(&mut first), argument(&mut len)];
        // SAFETY: each place is of its attribute's type, as cuda.h says; of unknown addresses the driver writes zeros.
        let asked = unsafe { sys::cuPointerGetAttributes(3, what.as_mut_ptr(), to.as_mut_ptr(), at) };
        let known = asked == CUresult::CUDA_SUCCESS && kind == HOST_MEMORY;
        if known { (first as usize + len).saturating_sub(address) } else { 0 }
    }

    fn stream(&self) -> Result<Stream, Fault> {
        let _current = self.enter()?;
        let mut stream = null_mut();
        // SAFETY: a place for the result.
        check("cuStreamCreate", unsafe { sys::cuStreamCreate(&raw mut stream, NON_BLOCKING) })?;
        Ok(Stream(stream as u64))
    }

    fn end_stream(&self, stream: Stream) {
        if let Ok(_current) = self.enter() {
            // SAFETY: a stream of `stream`; the driver lets its work end first.
            unsafe { sys::cuStreamDestroy_v2(stream.0 as CUstream) };
        }
    }

    fn record(&self, stream: Stream) -> Result<Event, Fault> {
        let _current = self.enter()?;
        let mut event = null_mut();
        // SAFETY: a place for the result; the stream lives through the call.
        unsafe {
            check("cuEventCreate", sys::cuEventCreate(&raw mut event, WITHOUT_TIME))?;
            let recorded = check("cuEventRecord", sys::cuEventRecord(event, stream.0 as CUstream));
            if recorded.is_err() {
                sys::cuEventDestroy_v2(event);
            }
            recorded.map(|()| Event(event as u64))
        }
    }

    fn finish(&self, stream: Stream) -> Result<(), Fault> {
        let _current = self.enter()?;
        // SAFETY: the stream lives through the call.
        check("cuStreamSynchronize", unsafe { sys::cuStreamSynchronize(stream.0 as CUstream) })
    }

    fn end_event(&self, event: Event) {
        if let Ok(_current) = self.enter() {
            // SAFETY: an event of `record`, ended once; the driver keeps what is still needed of it.
            unsafe { sys::cuEventDestroy_v2(event.0 as CUevent) };
        }
    }

    fn wait_for(&self, stream: Stream, event: Event) -> Result<(), Fault> {
        let _current = self.enter()?;
        // SAFETY: both live through the call.
        let result = unsafe { sys::cuStreamWaitEvent(stream.0 as CUstream, event.0 as CUevent, 0) };
        check("cuStreamWaitEvent", result)
    }

    fn is_done(&self, event: Event) -> Result<bool, Fault> {
        let _current = self.enter()?;
        // SAFETY: an event of `record` that is not ended.
        match unsafe { sys::cuEventQuery(event.0 as CUevent) } {
            CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            other => check("cuEventQuery", other).map(|()| true),
        }
    }

    unsafe fn copy(&self, stream: Stream, runs: &[Run]) -> Result<(), Fault> {
        let _current = self.enter()?;
        for run in runs {
            // SAFETY: the caller's contract; addresses are unified, so the driver knows which side is where.
            let result =
                unsafe { sys::cuMemcpyAsync(run.dst, run.src, run.len as usize, stream.0 as CUstream) };
            check("cuMemcpyAsync", result)?;
        }
        Ok(())
    }

    unsafe fn copy_batch(&self, stream: Stream, runs: &[Run]) -> Result<(), Fault> {
        let _current = self.enter()?;
        for runs in runs.chunks(BATCH_RUNS) {
            let mut dsts: Vec<u64> = runs.iter().map(|run| run.dst).collect();
            let mut srcs: Vec<u64> = runs.iter().map(|run| run.src).collect();
            let mut lens: Vec<usize> = runs.iter().map(|run| run.len as usize).collect();
            let nowhere =
                sys::CUmemLocation { type_: sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_INVALID, id: 0 };
            let mut attributes = sys::CUmemcpyAttributes {
                srcAccessOrder: sys::CUmemcpySrcAccessOrder::CU_MEMCPY_SRC_ACCESS_ORDER_STREAM,
                srcLocHint: nowhere,
                dstLocHint: nowhere,
                flags: 0,
            };
            let (mut first, mut failed) = (0usize, 0usize);
            // SAFETY: the caller's contract for the runs; the arrays are as long as the count and live through the call.
            let result = unsafe {
                sys::cuMemcpyBatchAsync(
                    dsts.as_mut_ptr(),
                    srcs.as_mut_ptr(),
                    lens.as_mut_ptr(),
                    runs.len(),
                    &raw mut attributes,
                    &raw mut first,
                    1,
                    &raw mut failed,
                    stream.0 as CUstream,
                )
            };
            check("cuMemcpyBatchAsync", result)?;
        }
        Ok(())
    }

    unsafe fn copy_by_kernel(
        &self,
        stream: Stream,
        runs: &[Run],
        table: u64,
        ctas: u32,
    ) -> Result<(), Fault> {
        let _current = self.enter()?;
        let (mut table, mut count) = (table, runs.len() as u64);
        let mut arguments = [argument(&mut table), argument(&mut count)];
        // SAFETY: the kernel's parameters are a pointer and a u64; it touches what the table says, by the caller's contract.
        unsafe { launch(self.copy, stream, ctas.max(1), kernels::COPY_THREADS, &mut arguments) }
    }

    unsafe fn move_pages(&self, stream: Stream, job: &MoveJob) -> Result<(), Fault> {
        let _current = self.enter()?;
        let wanted = u32::try_from(job.chunks).unwrap_or(u32::MAX).max(1);
        // Blocks that would be idle share the chunks of others: one for each word of a digest at most.
        let mut shift = (job.ctas / wanted).max(1).ilog2().min(DIGEST_WORDS.ilog2());
        let blocks = wanted.saturating_mul(1 << shift).min(job.ctas).max(1);
        let (mut tables, mut dst, mut src) = (self.tables[1], job.dst, job.src);
        let (mut len, mut chunk, mut chunks, mut out) = (job.len, job.chunk, job.chunks, job.out);
        let mut arguments = [
            argument(&mut tables),
            argument(&mut dst),
            argument(&mut src),
            argument(&mut len),
            argument(&mut chunk),
            argument(&mut chunks),
            argument(&mut out),
            argument(&mut shift),
        ];
        // SAFETY: the kernel's parameters are these eight, the sides as `Side` lays them out; it touches what the job says, by
        // the caller's contract.
        unsafe { launch(self.mover, stream, blocks, kernels::COPY_THREADS, &mut arguments) }
    }

    unsafe fn digest(&self, stream: Stream, job: &DigestJob) -> Result<(), Fault> {
        let _current = self.enter()?;
        let chunks = job.len.div_ceil(cascade_core::digest::CHUNK_BYTES as u64);
        let blocks = u32::try_from(chunks).unwrap_or(u32::MAX).min(job.ctas).max(1);
        let (mut tables, mut base, mut pages) = (self.tables[0], job.base, job.pages);
        let (mut page_bytes, mut len, mut out) = (job.page_bytes, job.len, job.out);
        let mut arguments = [
            argument(&mut tables),
            argument(&mut base),
            argument(&mut pages),
            argument(&mut page_bytes),
            argument(&mut len),
            argument(&mut out),
        ];
        // SAFETY: the kernel's parameters are these six; it reads the pages and writes the digests of the caller's contract.
        unsafe { launch(self.digest, stream, blocks, kernels::DIGEST_THREADS, &mut arguments) }
    }
}

impl Drop for CudaDevice {
    fn drop(&mut self) {
        if let Ok(_current) = self.enter() {
            // SAFETY: made by `load` or null, which the driver refuses; whoever used the device has dropped what it owned.
            unsafe {
                for table in self.tables {
                    sys::cuMemFree_v2(table);
                }
                for module in self.modules {
                    sys::cuModuleUnload(module);
                }
            }
        }
        // SAFETY: retained once in `open`.
        unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}
