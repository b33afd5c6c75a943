//! A file read from front to back in large calls.

use std::io::{Error, ErrorKind, Result};

use crate::buffer::Buffer;
use crate::fs::File;
use crate::io;
use crate::layout::PAGE_BYTES;

const WINDOW: usize = 4 << 20;

/// A window on a file.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    file: &'a dyn File,
    len: u64,
    buffer: Buffer,
    start: u64,
    filled: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a dyn File, len: u64) -> Self {
        Self { file, len, buffer: Buffer::new(WINDOW), start: 0, filled: 0 }
    }

    /// `len` bytes, at most a window, from `at` on; both whole pages but at the end of the file.
    ///
    /// # Errors
    /// The system's; `UnexpectedEof` behind the end of the file.
    pub(super) fn bytes(&mut self, at: u64, len: usize) -> Result<&[u8]> {
        let end = at.checked_add(len as u64).filter(|end| *end <= self.len && len <= WINDOW);
        let Some(end) = end else { return Err(ErrorKind::UnexpectedEof.into()) };
        let within = at >= self.start && end <= self.start + self.filled as u64;
        if !within {
            self.fill(at)?;
        }
        let from = usize::try_from(at - self.start).map_err(|_| Error::from(ErrorKind::UnexpectedEof))?;
        self.buffer.bytes().get(from..from + len).ok_or_else(|| ErrorKind::UnexpectedEof.into())
    }

    fn fill(&mut self, at: u64) -> Result<()> {
        let (start, left) = (at / PAGE_BYTES as u64 * PAGE_BYTES as u64, self.len.saturating_sub(at));
        let want = usize::try_from(left).unwrap_or(WINDOW).min(WINDOW).next_multiple_of(PAGE_BYTES);
        self.filled = io::read_up_to(self.file, &[self.buffer.part(0, want)], start)?;
        self.start = start;
        Ok(())
    }
}
