//! The kernel's queue (io_uring), made safe: what the kernel may touch is owned here until it has let go of it.

use std::io::{Error, ErrorKind, Result};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use cascade_core::memory::{Piece, Space};
use io_uring::squeue::Entry;
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, opcode};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::fs::{File, Way};
use crate::raw::MOST_PIECES;

/// Bytes of one piece that one call moves at most: lengths are 32 bits wide there.
const MOST_BYTES: usize = 1 << 30;
/// The number that the wake-up has in place of a flight's.
const WAKE: u64 = u64::MAX;
/// The number of cancellations, whose own results say nothing.
const CANCEL: u64 = u64::MAX - 1;
/// Runs of memory that may be registered, and the bytes of the longest that the kernel takes.
const RUNS: usize = 512;
const RUN_BYTES: usize = 1 << 30;
/// Cancellations at once; there is room for them beside all flights.
const CANCELS: usize = 32;

/// A call that the kernel has.
struct Flight<T> {
    vectors: Box<[libc::iovec]>,
    /// Kept so that memory and file outlast the call.
    _pieces: Vec<Piece>,
    _file: Arc<dyn File>,
    tag: T,
}

/// A ring whose calls carry a `T` each. Used by one thread, which also made it.
pub(super) struct Queue<T> {
    ring: IoUring,
    flights: Vec<Option<Flight<T>>>,
    free: Vec<usize>,
    wake: Arc<EventFd>,
    /// Where the wake-up's counter is read to.
    counter: Box<[u8; 8]>,
    /// The kernel has a read of the wake-up.
    listening: bool,
    cancels: usize,
    /// Memory whose pages the kernel holds already, in the order of its table.
    registered: Vec<Piece>,
}

fn old() -> Error {
    ErrorKind::Unsupported.into()
}

fn build(entries: u32) -> Result<IoUring> {
    // The child of a fork does not even see the queue's memory.
    let modern = IoUring::builder().dontfork().setup_single_issuer().setup_coop_taskrun().build(entries);
    modern.or_else(|error| match error.raw_os_error() {
        Some(libc::EINVAL) => IoUring::builder().dontfork().build(entries),
        _ => Err(error),
    })
}

impl<T> Queue<T> {
    /// A queue for `most` calls at once.
    ///
    /// # Errors
    /// The system's; `Unsupported` where the kernel lacks what is needed.
    pub(super) fn new(most: usize) -> Result<Self> {
        let entries = u32::try_from(most + CANCELS + 1).map_err(|_| old())?;
        let ring = build(entries.next_power_of_two())?;
        let params = ring.params();
        if !(params.is_feature_nodrop() && params.is_feature_submit_stable() && params.is_feature_ext_arg()) {
            return Err(old());
        }
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        let needed = [
            opcode::Read::CODE,
            opcode::Write::CODE,
            opcode::Readv::CODE,
            opcode::Writev::CODE,
            opcode::ReadFixed::CODE,
            opcode::WriteFixed::CODE,
            opcode::AsyncCancel::CODE,
        ];
        if !needed.iter().all(|code| probe.is_supported(*code)) {
            return Err(old());
        }
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?;
        Ok(Self {
            ring,
            flights: (0..most).map(|_| None).collect(),
            free: (0..most).rev().collect(),
            wake: Arc::new(wake),
            counter: Box::default(),
            listening: false,
            cancels: 0,
            registered: Vec::new(),
        })
    }

    /// Lets the kernel hold the pages of `memory`, so that a transfer of one piece there does not look them up.
    ///
    /// # Errors
    /// The system's: `ENOMEM` when that is more than may be locked, `EINVAL` where the kernel has no such table.
    pub(super) fn register(&mut self, memory: &Piece) -> Result<()> {
        if memory.space() != Space::Host || !memory.is_writable() {
            return Err(Error::from_raw_os_error(libc::EFAULT));
        }
        if self.registered.is_empty() {
            // A second try meets the table of the first.
            let made = self.ring.submitter().register_buffers_sparse(RUNS as u32);
            made.or_else(
                |error| if error.raw_os_error() == Some(libc::EBUSY) { Ok(()) } else { Err(error) },
            )?;
        }
        let mut at = 0;
        while at < memory.len() {
            let len = RUN_BYTES.min(memory.len() - at);
            let run = memory.part(at, len).filter(|_| self.registered.len() < RUNS);
            let run = run.ok_or_else(|| Error::from_raw_os_error(libc::ENOSPC))?;
            let vector = libc::iovec { iov_base: run.as_ptr().cast(), iov_len: len };
            // SAFETY: the piece vouches for the memory, and is kept until the ring is gone.
            unsafe {
                let number = self.registered.len() as u32;
                self.ring.submitter().register_buffers_update(number, &[vector], None)?;
            }
            self.registered.push(run);
            at += len;
        }
        Ok(())
    }

    /// Where in the kernel's table a run of memory is.
    fn registered(&self, vectors: &[libc::iovec]) -> Option<u16> {
        let [one] = vectors else { return None };
        let from = one.iov_base as usize;
        let holds = |run: &Piece| {
            let start = run.as_ptr() as usize;
            start <= from && from + one.iov_len <= start + run.len()
        };
        self.registered.iter().position(holds).and_then(|number| u16::try_from(number).ok())
    }

    /// What another thread writes to when this one is to look at its mail.
    pub(super) fn waker(&self) -> Arc<EventFd> {
        Arc::clone(&self.wake)
    }

    /// Calls that there is room for.
    pub(super) fn room(&self) -> usize {
        self.free.len()
    }

    /// Calls that the kernel has.
    pub(super) fn under_way(&self) -> usize {
        self.flights.len() - self.free.len()
    }

    /// The tags of what the kernel has, each with a number for [`Queue::cancel`].
    pub(super) fn flying(&self) -> impl Iterator<Item = (usize, &T)> {
        self.flights.iter().enumerate().filter_map(|(number, flight)| Some((number, &flight.as_ref()?.tag)))
    }

    /// Bytes of memory that the kernel holds.
    pub(super) fn registered_bytes(&self) -> u64 {
        self.registered.iter().map(|run| run.len() as u64).sum()
    }

    /// Gives a call to the kernel; gives the tag back, with the reason, where that cannot be.
    pub(super) fn start(
        &mut self,
        way: Way,
        file: Arc<dyn File>,
        descriptor: RawFd,
        pieces: Vec<Piece>,
        offset: u64,
        tag: T,
    ) -> std::result::Result<(), (T, Error)> {
        let host = pieces.iter().take(MOST_PIECES).take_while(|piece| piece.space() == Space::Host);
        let vector = |piece: &Piece| libc::iovec {
            iov_base: piece.as_ptr().cast(),
            iov_len: piece.len().min(MOST_BYTES),
        };
        // What follows a piece that is cut is not part of this call.
        let whole = host.clone().take_while(|piece| piece.len() <= MOST_BYTES).count();
        let vectors: Box<[libc::iovec]> = host.take((whole + 1).min(pieces.len())).map(vector).collect();
        if way == Way::Read && !pieces.iter().all(Piece::is_writable) {
            return Err((tag, Error::from_raw_os_error(libc::EFAULT)));
        }
        let Some(number) = self.free.pop() else { return Err((tag, ErrorKind::WouldBlock.into())) };
        let place = self.registered(&vectors);
        let entry = entry(way, descriptor, &vectors, place, offset).user_data(number as u64);
        self.flights[number] = Some(Flight { vectors, _pieces: pieces, _file: file, tag });
        self.push(&entry);
        Ok(())
    }

    /// Asks the kernel to give up a call. Its end is told as any other.
    pub(super) fn cancel(&mut self, number: usize) {
        if self.cancels < CANCELS && self.flights.get(number).is_some_and(Option::is_some) {
            self.cancels += 1;
            self.push(&opcode::AsyncCancel::new(number as u64).build().user_data(CANCEL));
        }
    }

    fn push(&mut self, entry: &Entry) {
        // There is room for every flight, cancellation and the wake-up; what is there but not handed over makes room.
        loop {
            // SAFETY: what the entry points to (vectors, pieces, counter) is owned by `self` until its completion was seen,
            // and `Drop` waits for completions before it lets go of anything.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return;
            }
            let _ = self.ring.submit();
        }
    }

    /// Hands over what was started and waits until something ended, somebody woke this thread, or `most` passed.
    pub(super) fn wait(&mut self, most: Option<Duration>) {
        if !self.listening {
            self.listening = true;
            let (place, len) = (self.counter.as_mut_ptr(), self.counter.len() as u32);
            let entry = opcode::Read::new(Fd(self.wake.as_raw_fd()), place, len).build().user_data(WAKE);
            self.push(&entry);
        }
        let timeout = most.map(|most| Timespec::new().sec(most.as_secs()).nsec(most.subsec_nanos()));
        let waited = match &timeout {
            None => self.ring.submit_and_wait(1),
            Some(timeout) => self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(timeout)),
        };
        match waited.map_err(|error| error.raw_os_error()) {
            Ok(_) | Err(Some(libc::ETIME | libc::EINTR | libc::EBUSY)) => {}
            // No memory for a request just now: it stays in the queue.
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }

    /// What has ended: its tag, and what the call gave.
    pub(super) fn ended(&mut self) -> Vec<(T, Result<usize>)> {
        let mut ended = Vec::new();
        for completion in self.ring.completion() {
            match completion.user_data() {
                WAKE => self.listening = false,
                CANCEL => self.cancels -= 1,
                number => {
                    let number = number as usize;
                    let Some(flight) = self.flights.get_mut(number).and_then(Option::take) else { continue };
                    self.free.push(number);
                    drop(flight.vectors);
                    let code = completion.result();
                    let result = usize::try_from(code).map_err(|_| Error::from_raw_os_error(-code));
                    ended.push((flight.tag, result));
                }
            }
        }
        ended
    }

    /// Makes one transfer, to see that the kernel lets this process.
    pub(super) fn try_out(&mut self) -> Result<()> {
        self.wake.write(1)?;
        for _ in 0..100 {
            self.wait(Some(Duration::from_millis(10)));
            let _ = self.ended();
            if !self.listening {
                return if *self.counter == 1u64.to_ne_bytes() { Ok(()) } else { Err(old()) };
            }
        }
        Err(old())
    }
}

fn entry(way: Way, descriptor: RawFd, vectors: &[libc::iovec], place: Option<u16>, offset: u64) -> Entry {
    let (fd, count) = (Fd(descriptor), vectors.len() as u32);
    if let ([one], Some(place)) = (vectors, place) {
        let (ptr, len) = (one.iov_base.cast(), one.iov_len as u32);
        return match way {
            Way::Read => opcode::ReadFixed::new(fd, ptr, len, place).offset(offset).build(),
            Way::Write => opcode::WriteFixed::new(fd, ptr.cast_const(), len, place).offset(offset).build(),
        };
    }
    match (way, vectors) {
        (Way::Read, [one]) => {
            opcode::Read::new(fd, one.iov_base.cast(), one.iov_len as u32).offset(offset).build()
        }
        (Way::Write, [one]) => {
            opcode::Write::new(fd, one.iov_base.cast(), one.iov_len as u32).offset(offset).build()
        }
        (Way::Read, _) => opcode::Readv::new(fd, vectors.as_ptr(), count).offset(offset).build(),
        (Way::Write, _) => opcode::Writev::new(fd, vectors.as_ptr(), count).offset(offset).build(),
    }
}

impl<T> Drop for Queue<T> {
    fn drop(&mut self) {
        // The kernel may write to what is in flight: it is kept until the kernel has done with it, however long that takes.
        while self.under_way() > 0 {
            self.wait(None);
            let _ = self.ended();
        }
        // The read of the wake-up points to memory of this value too.
        while self.listening {
            let _ = self.wake.write(1);
            let timeout = Timespec::new().sec(1);
            let _ = self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timeout));
            let _ = self.ended();
        }
    }
}
