//! Whole reads and writes over files whose calls may be interrupted or short.

use std::io::{Error, ErrorKind, Result};

use cascade_core::memory::Piece;

use crate::buffer::Buffer;
use crate::fs::File;
use crate::layout::PAGE_BYTES;
use crate::pieces::{rest, total};

/// Calls in a row that may move nothing, or be interrupted, before an operation is given up.
const MOST_IDLE_CALLS: u32 = 64;

/// Repeats `call(what is left, bytes done)` until all is done, or until it moves nothing.
fn repeat(pieces: &[Piece], direct: bool, call: impl Fn(&[Piece], u64) -> Result<usize>) -> Result<usize> {
    let (len, mut done, mut idle) = (total(pieces), 0, 0);
    let mut left = None;
    while done < len && idle < MOST_IDLE_CALLS {
        let moved = match call(left.as_deref().unwrap_or(pieces), done as u64) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                idle += 1;
                continue;
            }
            Err(error) => return Err(error),
            Ok(moved) => moved.min(len - done),
        };
        // Direct I/O goes on at a page boundary only; what was moved beyond it is moved again.
        let kept = if direct && done + moved < len { moved / PAGE_BYTES * PAGE_BYTES } else { moved };
        if kept == 0 {
            break;
        }
        (done, idle) = (done + kept, 0);
        left = Some(rest(pieces, done));
    }
    if idle == MOST_IDLE_CALLS {
        return Err(Error::from_raw_os_error(libc::EINTR));
    }
    Ok(done)
}

/// Writes all of `pieces` to `offset` and on.
///
/// # Errors
/// The system's; `WriteZero` when the file takes no more and does not say why. Some of the bytes may have been written.
pub fn write_all(file: &dyn File, pieces: &[Piece], offset: u64) -> Result<()> {
    let done = repeat(pieces, file.is_direct(), |left, done| file.write_at(left, offset + done))?;
    if done == total(pieces) { Ok(()) } else { Err(ErrorKind::WriteZero.into()) }
}

/// Reads from `offset` on until `pieces` are full or the file ends; gives the number of bytes.
///
/// # Errors
/// The system's.
pub fn read_up_to(file: &dyn File, pieces: &[Piece], offset: u64) -> Result<usize> {
    repeat(pieces, file.is_direct(), |left, done| file.read_at(left, offset + done))
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
