//! The plain loop: threads that write or read one file with direct I/O and nothing else. What this machine does for a program
//! that checks no byte and finds nothing again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use cascade_core::Result;
use cascade_pfs::buffer::Buffer;
use cascade_pfs::fs::{Access, File, Fs, RealFs};
use cascade_pfs::io::{read_all, write_all};

use super::cli::Durability;
use super::system::{Data, Manner, Reading, System, Work, failed};
use crate::team::timed;

/// The loop, with calls of these lengths.
#[derive(Debug)]
pub(super) struct Plain {
    write: (u64, usize),
    read: (u64, usize),
    direct: Option<bool>,
}

/// One thread of the loop.
struct Lane {
    first: u64,
    buffer: Buffer,
}

impl Plain {
    /// With calls of so many bytes, and so many at once, to write and to read.
    pub(super) fn new(write: (u64, usize), read: (u64, usize)) -> Self {
        Self { write, read, direct: None }
    }

    fn path(work: &Work) -> PathBuf {
        work.folder.join("plain")
    }
}

fn lanes(io_bytes: u64, depth: usize) -> Vec<Lane> {
    let lane = |first| {
        let mut buffer = Buffer::new(io_bytes as usize);
        buffer.bytes_mut().into_iter().for_each(|bytes| bytes.fill(0xa5));
        Lane { first, buffer }
    };
    (0..depth as u64).map(lane).collect()
}

/// Calls `call(place, buffer)` for all of `bytes` in pieces of `io_bytes`, the lanes in turns; gives the seconds that `end`, called
/// last, is part of.
fn drive(
    bytes: u64,
    (io_bytes, depth): (u64, usize),
    call: impl Fn(u64, &Buffer) -> std::io::Result<()> + Sync,
    end: impl FnOnce() -> std::io::Result<()>,
) -> Result<f64> {
    let mut lanes = lanes(io_bytes, depth);
    let start = Instant::now();
    let (_, results) = timed(&mut lanes, |lane| {
        (lane.first..bytes / io_bytes)
            .step_by(depth)
            .try_for_each(|index| call(index * io_bytes, &lane.buffer))
    });
    let all: std::io::Result<()> = results.into_iter().collect();
    all.and_then(|()| end()).map_err(|error| failed("the plain loop failed").with_source(error))?;
    Ok(start.elapsed().as_secs_f64())
}

impl System for Plain {
    fn name(&self) -> &'static str {
        "plain-loop"
    }

    fn write(&mut self, work: &Work, _: &mut Data) -> Result<f64> {
        let file = opened(&Self::path(work), Access::Create)?;
        self.direct = Some(file.is_direct());
        let call = |place, buffer: &Buffer| {
            write_all(file.as_ref(), &[buffer.piece()], place)?;
            if work.durability == Durability::Block { file.sync() } else { Ok(()) }
        };
        let end = || if work.durability == Durability::End { file.sync() } else { Ok(()) };
        drive(work.bytes(), self.write, call, end)
    }

    fn read(&mut self, work: &Work, _: &mut Data) -> Result<Reading> {
        let file = opened(&Self::path(work), Access::Read)?;
        let call = |place, buffer: &Buffer| read_all(file.as_ref(), &[buffer.piece()], place);
        let seconds = drive(work.bytes(), self.read, call, || Ok(()))?;
        Ok(Reading { seconds, is_right: None })
    }

    fn manners(&self) -> (Manner, Manner) {
        let manner = |verb, (io_bytes, depth): (u64, usize)| Manner {
            engine: format!("{depth} threads, {verb}"),
            io_bytes,
            depth,
            direct: self.direct,
        };
        (manner("pwrite", self.write), manner("pread", self.read))
    }
}

fn opened(path: &std::path::Path, access: Access) -> Result<Arc<dyn File>> {
    let context = || failed(format!("cannot open {}", path.display()));
    RealFs.open(path, access, true).map_err(|error| context().with_source(error))
}
