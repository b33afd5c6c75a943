//! The machine's file system with every call counted: what a metadata server and its disks would be asked for.

use std::io::Result;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use cascade_core::memory::Piece;
use cascade_pfs::filesystem::FileSystem;
use cascade_pfs::fs::{Access, File, Fs, RealFs, Watch};
use cascade_pfs::stripe::Stripes;

use crate::report::Calls;

#[derive(Debug, Default)]
struct Counts {
    creates: AtomicU64,
    opens: AtomicU64,
    removes: AtomicU64,
    lists: AtomicU64,
    attributes: AtomicU64,
    syncs: AtomicU64,
    writes: AtomicU64,
    reads: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The file system. Clones count together.
#[derive(Clone, Debug, Default)]
pub(super) struct CountingFs(Arc<Counts>);

#[derive(Debug)]
struct CountingFile {
    file: Arc<dyn File>,
    counts: Arc<Counts>,
}

impl CountingFs {
    /// What was called so far.
    pub(super) fn calls(&self) -> Calls {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = &self.0;
        Calls {
            creates: of(&counts.creates),
            opens: of(&counts.opens),
            removes: of(&counts.removes),
            lists: of(&counts.lists),
            attributes: of(&counts.attributes),
            syncs: of(&counts.syncs),
            writes: of(&counts.writes),
            reads: of(&counts.reads),
        }
    }
}

impl Fs for CountingFs {
    fn open(&self, path: &Path, access: Access, direct: bool) -> Result<Arc<dyn File>> {
        let file = RealFs.open(path, access, direct);
        count(if access == Access::Create { &self.0.creates } else { &self.0.opens });
        Ok(Arc::new(CountingFile { file: file?, counts: Arc::clone(&self.0) }))
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>> {
        count(&self.0.lists);
        RealFs.list(dir)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        count(&self.0.removes);
        RealFs.remove(path)
    }

    fn make_dir(&self, dir: &Path) -> Result<()> {
        count(&self.0.lists);
        RealFs.make_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        count(&self.0.syncs);
        RealFs.sync_dir(dir)
    }

    fn probe(&self, dir: &Path) -> Result<FileSystem> {
        count(&self.0.attributes);
        RealFs.probe(dir)
    }

    fn stamp(&self, dir: &Path) -> Result<u64> {
        count(&self.0.attributes);
        RealFs.stamp(dir)
    }

    // What the kernel of this node tells costs the file system nothing.
    fn watch(&self, dir: &Path) -> Option<Box<dyn Watch>> {
        RealFs.watch(dir)
    }

    fn create_striped(&self, path: &Path, direct: bool, stripes: Stripes) -> Result<Arc<dyn File>> {
        let file = RealFs.create_striped(path, direct, stripes);
        count(&self.0.creates);
        Ok(Arc::new(CountingFile { file: file?, counts: Arc::clone(&self.0) }))
    }

    fn prepare(&self, dir: &Path, direct: bool, len: u64) -> Result<Arc<dyn File>> {
        let file = RealFs.prepare(dir, direct, len);
        // It is opened, and room is set aside.
        count(&self.0.attributes);
        count(&self.0.attributes);
        Ok(Arc::new(CountingFile { file: file?, counts: Arc::clone(&self.0) }))
    }

    fn trim(&self, path: &Path, len: u64) -> Result<bool> {
        count(&self.0.attributes);
        RealFs.trim(path, len)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        count(&self.0.attributes);
        RealFs.rename(from, to)
    }
}

impl File for CountingFile {
    fn is_direct(&self) -> bool {
        self.file.is_direct()
    }

    fn read_at(&self, into: &[Piece], offset: u64) -> Result<usize> {
        count(&self.counts.reads);
        self.file.read_at(into, offset)
    }

    fn write_at(&self, from: &[Piece], offset: u64) -> Result<usize> {
        count(&self.counts.writes);
        self.file.write_at(from, offset)
    }

    fn sync(&self) -> Result<()> {
        count(&self.counts.syncs);
        self.file.sync()
    }

    fn len_bytes(&self) -> Result<u64> {
        count(&self.counts.attributes);
        self.file.len_bytes()
    }

    fn truncate(&self, len: u64) -> Result<()> {
        count(&self.counts.attributes);
        self.file.truncate(len)
    }

    fn set_aside(&self, len: u64) -> Result<()> {
        count(&self.counts.attributes);
        self.file.set_aside(len)
    }

    fn give_name(&self, path: &Path) -> Result<()> {
        count(&self.counts.creates);
        self.file.give_name(path)
    }

    fn touch(&self) -> Result<()> {
        count(&self.counts.attributes);
        self.file.touch()
    }

    fn touched(&self) -> Result<SystemTime> {
        count(&self.counts.attributes);
        self.file.touched()
    }

    fn lock(&self) -> Result<bool> {
        count(&self.counts.attributes);
        self.file.lock()
    }

    fn is_locked(&self) -> Result<bool> {
        count(&self.counts.attributes);
        self.file.is_locked()
    }
}
