//! What the tier needs of a device: memory, streams, events, copies, digests. Implemented by the CUDA driver
//! ([`crate::cuda`]), and by a device in host memory ([`crate::sim`]) that is asynchronous like a real one.

mod owned;
mod raw;
mod registry;

use std::fmt;

pub use owned::{Foreign, Hbm, Pinned};
pub(crate) use raw::issue;
pub use raw::{Device, DigestJob, MoveJob, Stream};
pub(crate) use registry::Ranges;
pub use registry::Registry;

/// One copy of `len` bytes from address `src` to address `dst`; both may be host or device addresses. The layout is the
/// one that the copy kernel reads.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// First byte of the destination.
    pub dst: u64,
    /// First byte of the source.
    pub src: u64,
    /// Bytes to copy.
    pub len: u64,
}

/// One side of a copy by pages: at `base`, or in pages of one length whose addresses a table in pinned memory holds. The layout
/// is the one that the kernel reads.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// Address of the first byte; used when `pages` is 0.
    pub base: u64,
    /// Address of the table of page addresses, 0 when all lies in one piece.
    pub pages: u64,
    /// Bytes of a page, a multiple of 16.
    pub page_bytes: u64,
}

impl Side {
    /// Nowhere: the destination of a job that only digests.
    #[must_use]
    pub const fn is_nowhere(&self) -> bool {
        self.base == 0 && self.pages == 0
    }
}

/// Words that a device writes for the digest of a chunk, one for each thread block that may share it. Their sum (XOR) is the state
/// of the CRC before its last inversion.
pub const DIGEST_WORDS: usize = 8;

/// What another process opens an allocation of device memory with. It says nothing about who may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShareHandle(pub [u8; 64]);

/// A moment on a stream. Made and destroyed by its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event(pub(crate) u64);

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Number that CUDA calls it by in this process.
    pub ordinal: u32,
    /// Product name.
    pub name: String,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Whether kernels reach registered host memory at its own address.
    pub kernels_reach_host: bool,
    /// Whether many copies can be handed to the driver in one call.
    pub has_batched_copies: bool,
}

/// A device that refused or failed. The tier turns it into misses and refusals.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// No memory left on the device, or none that can be pinned.
    OutOfMemory,
    /// Host memory of a copy is not registered with the device.
    NotRegistered,
    /// A call was refused, or the device is gone.
    Failed {
        /// The call.
        function: &'static str,
        /// The driver's number for the error.
        code: u32,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory => f.write_str("the device has no memory left: give the pool a smaller budget"),
            Self::NotRegistered => f.write_str("host memory of a copy is not registered with the device"),
            Self::Failed { function, code } => {
                write!(f, "{function} failed with {code}; see nvidia-smi and the kernel's log")
            }
        }
    }
}

impl std::error::Error for Fault {}
