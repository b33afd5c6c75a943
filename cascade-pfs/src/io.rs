//! Whole reads and writes over files whose calls may be interrupted or short.

use std::io::{Error, ErrorKind, Result};

use cascade_core::memory::Piece;

use crate::buffer::Buffer;
use crate::fs::{File, Way};
use crate::layout::PAGE_BYTES;
use crate::pieces::{rest, total};

/// Calls in a row that may move nothing, or be interrupted, before an operation is given up.
const MOST_IDLE_CALLS: u32 = 64;

/// How far a transfer is; says after each call whether another one is needed.
#[derive(Debug)]
pub(crate) struct Steps {
    len: usize,
    done: usize,
    idle: u32,
    direct: bool,
}

/// What comes after a call.
#[derive(Debug)]
pub(crate) enum Step {
    /// Another call, from [`Steps::done`] on.
    Again,
    /// All is moved, nothing more moves, or an error.
    Ended(Result<usize>),
}

impl Steps {
    pub(crate) fn new(len: usize, direct: bool) -> Self {
        Self { len, done: 0, idle: 0, direct }
    }

    /// Bytes that are moved for good.
    pub(crate) fn done(&self) -> usize {
        self.done
    }

    pub(crate) fn after(&mut self, result: Result<usize>) -> Step {
        let moved = match result {
            // A queue that would not wait says `WouldBlock`; it means the same.
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {
                self.idle += 1;
                let given_up = self.idle == MOST_IDLE_CALLS;
                return if given_up { Step::Ended(Err(errno(libc::EINTR))) } else { Step::Again };
            }
            Err(error) => return Step::Ended(Err(error)),
            Ok(moved) => moved.min(self.len - self.done),
        };
        // Direct I/O goes on at a page boundary only; what was moved beyond it is moved again.
        let cut = self.direct && self.done + moved < self.len;
        let kept = if cut { moved / PAGE_BYTES * PAGE_BYTES } else { moved };
        (self.done, self.idle) = (self.done + kept, 0);
        if kept == 0 || self.done == self.len { Step::Ended(Ok(self.done)) } else { Step::Again }
    }
}

fn errno(number: i32) -> Error {
    Error::from_raw_os_error(number)
}

/// Moves all of `pieces`, or as much as goes, by calls of this thread; gives the number of bytes.
pub(crate) fn by_calls(file: &dyn File, way: Way, pieces: &[Piece], offset: u64) -> Result<usize> {
    let mut steps = Steps::new(total(pieces), file.is_direct());
    let mut left = None;
    if steps.len == 0 {
        return Ok(0);
    }
    loop {
        let (now, at) = (left.as_deref().unwrap_or(pieces), offset + steps.done() as u64);
        let result = match way {
            Way::Read => file.read_at(now, at),
            Way::Write => file.write_at(now, at),
        };
        match steps.after(result) {
            Step::Ended(result) => return result,
            Step::Again => left = Some(rest(pieces, steps.done())),
        }
    }
}

/// What a write of `len` bytes came to.
pub(crate) fn wrote(result: Result<usize>, len: usize) -> Result<()> {
    if result? == len { Ok(()) } else { Err(ErrorKind::WriteZero.into()) }
}

/// Writes all of `pieces` to `offset` and on.
///
/// # Errors
/// The system's; `WriteZero` when the file takes no more and does not say why. Some of the bytes may have been written.
pub fn write_all(file: &dyn File, pieces: &[Piece], offset: u64) -> Result<()> {
    wrote(by_calls(file, Way::Write, pieces, offset), total(pieces))
}

/// Reads from `offset` on until `pieces` are full or the file ends; gives the number of bytes.
///
/// # Errors
/// The system's.
pub fn read_up_to(file: &dyn File, pieces: &[Piece], offset: u64) -> Result<usize> {
    by_calls(file, Way::Read, pieces, offset)
}

/// Fills all of `pieces` from `offset` on.
///
/// # Errors
/// The system's; `UnexpectedEof` when the file ends before.
pub fn read_all(file: &dyn File, pieces: &[Piece], offset: u64) -> Result<()> {
    let done = read_up_to(file, pieces, offset)?;
    if done == total(pieces) { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
}

/// Reads `len` bytes at `offset` into memory of their own.
///
/// # Errors
/// As [`read_all`].
pub fn read_bytes(file: &dyn File, offset: u64, len: usize) -> Result<Buffer> {
    let buffer = Buffer::new(len);
    read_all(file, &[buffer.piece()], offset)?;
    Ok(buffer)
}
