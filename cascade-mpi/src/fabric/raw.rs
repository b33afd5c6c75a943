//! Every call of MPI, and the memory that MPI may touch. An [`Mpi`] stays on the thread that made it.

use std::any::Any;
use std::ffi::{c_char, c_int, c_void};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use cascade_core::block::BlockMemory;
use cascade_core::lease::Lease;
use cascade_core::memory::{Piece, SgList};
use cascade_core::reservation::{InFlight, Reservation};
use cascade_core::{Error, ErrorKind, Result};
use mpi::ffi;

use crate::message::Area;

/// Tag of [`Message`](crate::message::Message)s. Payloads have other tags.
pub(super) const CONTROL: c_int = 1;

/// Memory that a rank offers to all others for as long as its job lives.
#[derive(Clone, Debug)]
pub struct Window {
    start: NonNull<u8>,
    len: usize,
    _keep: Arc<dyn Any + Send + Sync>,
}

// SAFETY: an address with its constructor's promise; what it keeps alive may be shared between threads.
unsafe impl Send for Window {}
// SAFETY: as above.
unsafe impl Sync for Window {}

impl Window {
    /// `len` bytes from `start` on.
    ///
    /// # Safety
    /// Valid for reads for as long as `keep` lives, with all pages there. Whoever writes to it meanwhile knows that others read: what they
    /// read is believed only under digests.
    #[must_use]
    pub unsafe fn new(start: NonNull<u8>, len: usize, keep: Arc<dyn Any + Send + Sync>) -> Self {
        Self { start, len, _keep: keep }
    }

    /// Memory of words.
    #[must_use]
    pub fn of_table(table: &Arc<crate::directory::Table>) -> Self {
        let words = table.words();
        // SAFETY: the words are part of the table, which is kept; they are atomics, so they may change while others read.
        unsafe { Self::new(NonNull::from(words).cast(), size_of_val(words), Arc::clone(table) as Arc<_>) }
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn part(&self, offset: u64, len: u32) -> Option<*const u8> {
        let offset = usize::try_from(offset).ok()?;
        let fits = offset.checked_add(len as usize).is_some_and(|end| end <= self.len);
        // SAFETY: within the window, checked above.
        fits.then(|| unsafe { self.start.as_ptr().add(offset) }.cast_const())
    }
}

/// A reservation that MPI fills in parts. It goes into quarantine when it is dropped before it was completed.
#[derive(Debug)]
pub(crate) struct Transfer {
    memory: BlockMemory,
    held: InFlight,
}

impl Transfer {
    pub(crate) fn start(reservation: Reservation) -> Option<Arc<Self>> {
        let held = reservation.start_transfer()?;
        Some(Arc::new(Self { memory: held.memory()?, held }))
    }

    /// `len` bytes from `offset` on, to be filled; `None` beyond the end.
    pub(crate) fn part(self: &Arc<Self>, offset: usize, len: usize) -> Option<Destination> {
        let end = offset.checked_add(len)?;
        if end > self.memory.len() {
            return None;
        }
        // SAFETY: within the reserved block (checked), whose holder is kept by the destination: nobody else sees it.
        let piece = unsafe { Piece::host_write(self.memory.as_ptr().add(offset), len) };
        Some(Destination { piece, _keep: Some(Arc::clone(self)) })
    }

    /// Digests of the chunks in a part that has landed; `offset` is a multiple of the chunk.
    pub(crate) fn digests(&self, offset: usize, len: usize) -> Vec<u64> {
        let len = len.min(self.memory.len().saturating_sub(offset));
        let start = self.memory.as_ptr().wrapping_add(offset);
        let Some(start) = NonNull::new(start).filter(|_| len > 0) else { return Vec::new() };
        // SAFETY: within the reserved block, by the line above; it is only read, and the transfer outlives the value.
        unsafe { BlockMemory::new(start, len) }.digests()
    }

    /// Nothing is under way any more: the reservation again. `None` while somebody holds a destination.
    pub(crate) fn complete(self: Arc<Self>) -> Option<Reservation> {
        Arc::try_unwrap(self).ok()?.held.complete()
    }
}

/// Memory that MPI may write to. Kept until MPI is done with it, whoever waits for that or not.
#[derive(Debug)]
pub(crate) struct Destination {
    piece: Piece,
    _keep: Option<Arc<Transfer>>,
}

impl Destination {
    /// A private buffer; `None` for one that is not kept alive by its piece.
    pub(crate) fn private(piece: Piece) -> Option<Self> {
        (piece.is_kept() && piece.is_writable()).then_some(Self { piece, _keep: None })
    }

    pub(crate) fn len(&self) -> usize {
        self.piece.len()
    }
}

/// Digests of the chunks in a part of a private buffer; `at` is a multiple of the chunk.
pub(crate) fn digests(whole: &Piece, at: usize, len: usize) -> Vec<u64> {
    let part = whole.part(at, len).filter(|part| part.is_kept() && !part.is_empty());
    let Some((part, start)) = part.and_then(|part| NonNull::new(part.as_ptr()).map(|start| (part, start)))
    else {
        return Vec::new();
    };
    // SAFETY: within a buffer that the part keeps; it is only read.
    unsafe { BlockMemory::new(start, part.len()) }.digests()
}

/// Copies a private buffer to `into`; `false` when that is too short or cannot be reached.
pub(crate) fn copy_out(whole: &Piece, into: &SgList) -> bool {
    let fits = whole.is_kept() && into.len() >= whole.len() && into.is_host() && into.is_writable();
    let Some(start) = NonNull::new(whole.as_ptr()).filter(|_| fits) else { return false };
    // SAFETY: a buffer that the piece keeps, which nobody writes to while it is borrowed; it is only read.
    unsafe { BlockMemory::new(start, whole.len()) }.try_scatter(into).is_some()
}

/// Fills a reservation with a leased block of the same length, digests computed in the same pass.
pub(crate) fn fill(reservation: &mut Reservation, lease: &Lease) -> bool {
    let memory = lease.memory();
    // SAFETY: a leased block is not written to, and the list lives no longer than the lease is borrowed.
    let list = SgList::from(unsafe { Piece::host_read(memory.as_ptr(), memory.len()) });
    reservation.gather(&list)
}

/// Something that MPI works on.
#[derive(Debug)]
pub(super) struct Request {
    handle: ffi::MPI_Request,
    /// What is sent, kept until it is.
    _bytes: Vec<u8>,
}

/// How far a [`Request`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Done,
    UnderWay,
    /// MPI's code.
    Failed(i32),
}

/// MPI, initialised by this thread.
#[derive(Debug)]
pub(super) struct Mpi {
    pub(super) rank: u32,
    pub(super) size: u32,
    /// Directory and arena of every rank.
    windows: Option<[ffi::MPI_Win; 2]>,
    /// Stays on its thread.
    _here: PhantomData<*mut ()>,
}

fn check(what: &str, code: c_int) -> Result<()> {
    if code == 0 {
        return Ok(());
    }
    Err(Error::new(ErrorKind::System, format!("{what} failed with code {code} of the MPI library")))
}

impl Mpi {
    /// Initialises MPI for this thread alone.
    ///
    /// # Errors
    /// `Config` when somebody else in this process has initialised it.
    pub(super) fn start() -> Result<Self> {
        let (mut flag, mut provided, mut rank, mut size) = (0, 0, 0, 0);
        // SAFETY: valid places for the answers; these two may be called at any time.
        unsafe { check("MPI_Initialized", ffi::MPI_Initialized(&mut flag))? };
        if flag != 0 {
            let what = "MPI was initialised in this process by somebody else; open Cascade first, or run the node agent";
            return Err(Error::new(ErrorKind::Config, what));
        }
        // SAFETY: not initialised before (asked above); places for the answers are valid; a communicator of all ranks then exists.
        unsafe {
            let wanted = ffi::RSMPI_THREAD_FUNNELED;
            check(
                "MPI_Init_thread",
                ffi::MPI_Init_thread(ptr::null_mut(), ptr::null_mut(), wanted, &mut provided),
            )?;
            let world = ffi::RSMPI_COMM_WORLD;
            check("MPI_Comm_set_errhandler", ffi::MPI_Comm_set_errhandler(world, ffi::RSMPI_ERRORS_RETURN))?;
            check("MPI_Comm_rank", ffi::MPI_Comm_rank(world, &mut rank))?;
            check("MPI_Comm_size", ffi::MPI_Comm_size(world, &mut size))?;
        }
        let (rank, size) = (u32::try_from(rank).unwrap_or(0), u32::try_from(size).unwrap_or(1));
        Ok(Self { rank, size, windows: None, _here: PhantomData })
    }

    /// What the library says it is, its first line.
    pub(super) fn library(&self) -> String {
        let mut text = vec![0_u8; ffi::MPI_MAX_LIBRARY_VERSION_STRING as usize];
        let mut len = 0;
        // SAFETY: the buffer is as long as the standard demands.
        let code = unsafe { ffi::MPI_Get_library_version(text.as_mut_ptr().cast::<c_char>(), &mut len) };
        text.truncate(if code == 0 { usize::try_from(len).unwrap_or(0) } else { 0 });
        let text = String::from_utf8_lossy(&text);
        text.lines()
            .next()
            .unwrap_or_default()
            .trim_end_matches('\0')
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// What every rank says, `mine.len()` bytes each, in their order. Collective.
    pub(super) fn gather(&self, mine: &[u8]) -> Result<Vec<u8>> {
        let mut all = vec![0_u8; mine.len() * self.size as usize];
        let count = c_int::try_from(mine.len()).unwrap_or(0);
        let (from, to) = (mine.as_ptr().cast::<c_void>(), all.as_mut_ptr().cast::<c_void>());
        // SAFETY: `from` holds `count` bytes and `to` as many for each rank.
        let code = unsafe {
            let byte = ffi::RSMPI_UINT8_T;
            ffi::MPI_Allgather(from, count, byte, to, count, byte, ffi::RSMPI_COMM_WORLD)
        };
        check("MPI_Allgather", code)?;
        Ok(all)
    }

    /// Makes the windows and locks them for good. Collective; `false` on every rank where one cannot, or where the public and
    /// private copies of a window are not the same memory.
    pub(super) fn open_windows(&mut self, directory: &Window, arena: &Window) -> Result<bool> {
        let made = self.window(directory).zip(self.window(arena)).map(|(a, b)| [a, b]);
        let all = self.gather(&[u8::from(made.is_some())])?;
        if all.contains(&0) {
            return Ok(false);
        }
        let Some(windows) = made else { return Ok(false) };
        for window in windows {
            // SAFETY: made above; every rank locks it once, for sharing.
            check("MPI_Win_lock_all", unsafe {
                ffi::MPI_Win_lock_all(ffi::MPI_MODE_NOCHECK as c_int, window)
            })?;
        }
        self.windows = Some(windows);
        Ok(true)
    }

    fn window(&self, memory: &Window) -> Option<ffi::MPI_Win> {
        let mut window = MaybeUninit::uninit();
        let start = memory.start.as_ptr().cast::<c_void>();
        let len = ffi::MPI_Aint::try_from(memory.len).ok()?;
        // SAFETY: the memory is valid for `len` bytes and kept by the fabric for as long as MPI runs.
        let window = unsafe {
            let world = ffi::RSMPI_COMM_WORLD;
            if ffi::MPI_Win_create(start, len, 1, ffi::RSMPI_INFO_NULL, world, window.as_mut_ptr()) != 0 {
                return None;
            }
            let window = window.assume_init();
            ffi::MPI_Win_set_errhandler(window, ffi::RSMPI_ERRORS_RETURN);
            window
        };
        let (mut model, mut flag) = (ptr::null_mut::<c_int>(), 0);
        // SAFETY: the attribute of every window that says its memory model is a pointer to a number.
        let model = unsafe {
            let place = ptr::from_mut(&mut model).cast::<c_void>();
            let code = ffi::MPI_Win_get_attr(window, ffi::MPI_WIN_MODEL as c_int, place, &mut flag);
            if code == 0 && flag != 0 && !model.is_null() { *model } else { -1 }
        };
        // Handles are integers in MPICH and what descends from it, pointers in Open MPI; so are the constants' values apart.
        let unified = if size_of::<ffi::MPI_Win>() == size_of::<c_int>() { 2 } else { 0 };
        (model == unified).then_some(window)
    }

    /// A message that has arrived: who sent it, and its length.
    pub(super) fn probe(&self) -> Option<(u32, usize)> {
        let (mut flag, mut status, mut len) = (0, MaybeUninit::<ffi::MPI_Status>::uninit(), 0);
        // SAFETY: valid places; the status is read only where the call filled it.
        unsafe {
            let world = ffi::RSMPI_COMM_WORLD;
            let code = ffi::MPI_Iprobe(ffi::RSMPI_ANY_SOURCE, CONTROL, world, &mut flag, status.as_mut_ptr());
            if code != 0 || flag == 0 {
                return None;
            }
            if ffi::MPI_Get_count(status.as_ptr(), ffi::RSMPI_UINT8_T, &mut len) != 0 {
                return None;
            }
            Some((u32::try_from(status.assume_init().MPI_SOURCE).ok()?, usize::try_from(len).ok()?))
        }
    }

    /// The message that [`Mpi::probe`] told of.
    pub(super) fn receive(&self, from: u32, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0_u8; len];
        let (count, from) = (c_int::try_from(len).ok()?, c_int::try_from(from).ok()?);
        let (byte, status) = (Self::byte(), Self::no_status());
        // SAFETY: the buffer is as long as the message that is there.
        let code = unsafe {
            ffi::MPI_Recv(
                bytes.as_mut_ptr().cast(),
                count,
                byte,
                from,
                CONTROL,
                ffi::RSMPI_COMM_WORLD,
                status,
            )
        };
        (code == 0).then_some(bytes)
    }

    /// Begins to send a message.
    pub(super) fn send(&self, to: u32, bytes: Vec<u8>) -> Option<Request> {
        let start = bytes.as_ptr();
        self.send_from(to, CONTROL, start, bytes.len(), bytes)
    }

    /// Begins to send a part of a window; `None` for one that is not there.
    pub(super) fn send_part(
        &self,
        to: u32,
        tag: u32,
        window: &Window,
        offset: u64,
        len: u32,
    ) -> Option<Request> {
        let start = window.part(offset, len)?;
        self.send_from(to, c_int::try_from(tag).ok()?, start, len as usize, Vec::new())
    }

    fn send_from(&self, to: u32, tag: c_int, start: *const u8, len: usize, keep: Vec<u8>) -> Option<Request> {
        let (to, count) = (c_int::try_from(to).ok()?, c_int::try_from(len).ok()?);
        let mut handle = MaybeUninit::uninit();
        // SAFETY: `start` is valid for `len` bytes until the request is done: the request keeps the bytes of a message (whose place
        // on the heap does not move with it), the fabric keeps its windows.
        let code = unsafe {
            let world = ffi::RSMPI_COMM_WORLD;
            ffi::MPI_Isend(start.cast(), count, Self::byte(), to, tag, world, handle.as_mut_ptr())
        };
        // SAFETY: filled by a call that succeeded.
        (code == 0).then(|| Request { handle: unsafe { handle.assume_init() }, _bytes: keep })
    }

    /// Begins to read out of a window of `from`. The caller keeps `into` until the request is done.
    pub(super) fn get(&self, from: u32, area: Area, offset: u64, into: &Destination) -> Option<Request> {
        let window = self.windows?[usize::from(area == Area::Arena)];
        let (from, count) = (c_int::try_from(from).ok()?, c_int::try_from(into.len()).ok()?);
        let at = ffi::MPI_Aint::try_from(offset).ok()?;
        let (byte, mut handle) = (Self::byte(), MaybeUninit::uninit());
        // SAFETY: a destination is valid for writes, by nobody else, for as long as it lives, and lives until the request is done.
        let code = unsafe {
            let start = into.piece.as_ptr().cast::<c_void>();
            ffi::MPI_Rget(start, count, byte, from, at, count, byte, window, handle.as_mut_ptr())
        };
        // SAFETY: filled by a call that succeeded.
        (code == 0).then(|| Request { handle: unsafe { handle.assume_init() }, _bytes: Vec::new() })
    }

    /// Reads out of a window of `from` and waits for the end, however long that takes: for measurements, of ranks that live.
    pub(super) fn get_now(&self, from: u32, area: Area, offset: u64, into: &Destination) -> bool {
        let Some(windows) = self.windows else { return false };
        let window = windows[usize::from(area == Area::Arena)];
        let (Ok(from), Ok(count)) = (c_int::try_from(from), c_int::try_from(into.len())) else {
            return false;
        };
        let Ok(at) = ffi::MPI_Aint::try_from(offset) else { return false };
        let byte = Self::byte();
        // SAFETY: a destination is valid for writes, by nobody else, for as long as it lives: beyond the flush, which ends the get.
        unsafe {
            let start = into.piece.as_ptr().cast::<c_void>();
            ffi::MPI_Get(start, count, byte, from, at, count, byte, window) == 0
                && ffi::MPI_Win_flush(from, window) == 0
        }
    }

    /// Gets ready for an answer with `tag` from `from`. The caller keeps `into` until the request is done.
    pub(super) fn expect(&self, from: u32, tag: u32, into: &Destination) -> Option<Request> {
        let (from, tag) = (c_int::try_from(from).ok()?, c_int::try_from(tag).ok()?);
        let count = c_int::try_from(into.len()).ok()?;
        let mut handle = MaybeUninit::uninit();
        // SAFETY: as in `get`.
        let code = unsafe {
            let start = into.piece.as_ptr().cast::<c_void>();
            ffi::MPI_Irecv(start, count, Self::byte(), from, tag, ffi::RSMPI_COMM_WORLD, handle.as_mut_ptr())
        };
        // SAFETY: filled by a call that succeeded.
        (code == 0).then(|| Request { handle: unsafe { handle.assume_init() }, _bytes: Vec::new() })
    }

    /// Begins to receive an answer with `tag` that nobody waits for any more, if it is there: until then its sender is not done with it.
    pub(super) fn take_stray(&self, from: u32, tag: u32) -> Option<Request> {
        let (rank, tag) = (c_int::try_from(from).ok()?, c_int::try_from(tag).ok()?);
        let (mut flag, mut status, mut count) = (0, MaybeUninit::<ffi::MPI_Status>::uninit(), 0);
        let mut handle = MaybeUninit::uninit();
        // SAFETY: valid places; the status is read only where the call filled it; the request keeps the buffer, which is as long as the
        // message that is there and does not move with it.
        unsafe {
            let world = ffi::RSMPI_COMM_WORLD;
            if ffi::MPI_Iprobe(rank, tag, world, &mut flag, status.as_mut_ptr()) != 0 || flag == 0 {
                return None;
            }
            if ffi::MPI_Get_count(status.as_ptr(), ffi::RSMPI_UINT8_T, &mut count) != 0 {
                return None;
            }
            let mut bytes = vec![0_u8; usize::try_from(count).ok()?];
            let start = bytes.as_mut_ptr().cast();
            let code = ffi::MPI_Irecv(start, count, Self::byte(), rank, tag, world, handle.as_mut_ptr());
            (code == 0).then(|| Request { handle: handle.assume_init(), _bytes: bytes })
        }
    }

    /// How far a request is. Not to be asked again once it is done or failed.
    pub(super) fn test(&self, request: &mut Request) -> Progress {
        let mut flag = 0;
        // SAFETY: a request that is under way, of this thread.
        let code = unsafe { ffi::MPI_Test(&mut request.handle, &mut flag, Self::no_status()) };
        match (code, flag) {
            (0, 0) => Progress::UnderWay,
            (0, _) => Progress::Done,
            (code, _) => Progress::Failed(code),
        }
    }

    /// Asks that an expected answer be given up: it still has to be tested until it is done.
    pub(super) fn cancel(&self, request: &mut Request) {
        // SAFETY: a receive that is under way, of this thread.
        let _ = unsafe { ffi::MPI_Cancel(&mut request.handle) };
    }

    /// Ends MPI in good order. Collective: only when every rank is known to do the same.
    pub(super) fn end(mut self) -> Result<()> {
        for mut window in self.windows.take().into_iter().flatten() {
            // SAFETY: made and locked by `open_windows`; nothing is under way.
            unsafe {
                check("MPI_Win_unlock_all", ffi::MPI_Win_unlock_all(window))?;
                check("MPI_Win_free", ffi::MPI_Win_free(&mut window))?;
            }
        }
        // SAFETY: initialised by this thread, which calls nothing of MPI after this.
        check("MPI_Finalize", unsafe { ffi::MPI_Finalize() })
    }

    fn byte() -> ffi::MPI_Datatype {
        // SAFETY: a constant of the library.
        unsafe { ffi::RSMPI_UINT8_T }
    }

    fn no_status() -> *mut ffi::MPI_Status {
        // SAFETY: a constant of the library.
        unsafe { ffi::RSMPI_STATUS_IGNORE }
    }
}
