//! The memory that a run copies between, made once for all its block sizes.

use std::path::{Path, PathBuf};

use cascade_core::Result;

use crate::memory::{self, Region};
use crate::shape::Shape;

/// Private and shared memory, touched.
#[derive(Debug)]
pub(crate) struct Buffers {
    /// Where puts read.
    pub(crate) source: Region,
    /// Where gets write.
    pub(crate) target: Region,
    /// A plain mapping like the tier's own, for the ceiling.
    pub(crate) shared: Region,
    folder: PathBuf,
}

impl Buffers {
    /// For all of `shapes`; the shared part is a file in `folder`.
    pub(crate) fn new(folder: &Path, shapes: &[Shape]) -> Result<Self> {
        let (private, shared) = needs(shapes);
        Ok(Self {
            source: memory::random(private as usize, 0x9e37_79b9_7f4a_7c15)?,
            target: memory::private(private as usize)?,
            shared: memory::shared(folder, shared as usize, false)?,
            folder: folder.to_owned(),
        })
    }

    /// A shared mapping without a page.
    pub(crate) fn fresh(&self, bytes: u64) -> Result<Region> {
        memory::shared(&self.folder, bytes as usize, true)
    }
}

/// Bytes of private memory on each side, and of shared memory, that `shapes` need.
pub(crate) fn needs(shapes: &[Shape]) -> (u64, u64) {
    let private = shapes.iter().map(|shape| shape.private_bytes() as u64).max().unwrap_or(0);
    (private.max(4096), shapes.iter().map(Shape::shared_bytes).max().unwrap_or(0).max(4096))
}
