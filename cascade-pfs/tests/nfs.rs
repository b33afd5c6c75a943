//! Nodes whose clients remember what they saw and keep what they write, as those of NFS do: names until the server is asked,
//! lengths and content until it is asked or the file is opened anew, writes through the page cache until they are synced.
//! The tests of this crate pass over NFS itself too, with `TMPDIR` on a mount; what was measured there is in docs/format.md.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::io::Result;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use cascade_core::batch::Outcome;
use cascade_core::memory::Piece;
use cascade_core::tier::Tier;
use cascade_pfs::buffer::Buffer;
use cascade_pfs::filesystem::{FileSystem, Kind};
use cascade_pfs::fs::{Access, File, Fs};
use cascade_pfs::stripe::Stripes;
use cascade_pfs::testing::MemFs;
use cascade_pfs::{PfsConfig, PfsTier};
use common::*;

/// One node's client of the server.
#[derive(Debug)]
struct Client {
    server: MemFs,
    names: Mutex<Option<Vec<String>>>,
}

#[derive(Debug)]
struct Cached {
    server: MemFs,
    path: PathBuf,
    on_server: Arc<dyn File>,
    /// What this node has of the file.
    cache: MemFs,
    in_cache: Arc<dyn File>,
    access: Access,
}

impl Client {
    fn of(server: &MemFs) -> Arc<dyn Fs> {
        Arc::new(Self { server: server.clone(), names: Mutex::default() })
    }
}

impl Cached {
    fn refresh(&self) {
        let now = self.server.contents(&self.path).unwrap_or_default();
        self.cache.damage(&self.path, |bytes| *bytes = now);
    }
}

impl Fs for Client {
    fn open(&self, path: &Path, access: Access, direct: bool) -> Result<Arc<dyn File>> {
        if access == Access::Create {
            *self.names.lock().unwrap() = None;
        }
        let on_server = self.server.open(path, access, direct)?;
        if on_server.is_direct() {
            return Ok(on_server);
        }
        let cache = MemFs::new();
        let in_cache = cache.open(path, Access::Create, false)?;
        let file =
            Cached { server: self.server.clone(), path: path.to_owned(), on_server, cache, in_cache, access };
        if access == Access::Read {
            file.refresh();
        }
        Ok(Arc::new(file))
    }
    fn list(&self, dir: &Path) -> Result<Vec<String>> {
        let mut names = self.names.lock().unwrap();
        if names.is_none() {
            *names = Some(self.server.list(dir)?);
        }
        Ok(names.clone().unwrap())
    }
    fn remove(&self, path: &Path) -> Result<()> {
        *self.names.lock().unwrap() = None;
        self.server.remove(path)
    }
    fn make_dir(&self, dir: &Path) -> Result<()> {
        self.server.make_dir(dir)
    }
    fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.server.sync_dir(dir)
    }
    fn probe(&self, _dir: &Path) -> Result<FileSystem> {
        Ok(FileSystem::unbounded(Kind::Nfs))
    }
    fn stamp(&self, dir: &Path) -> Result<u64> {
        *self.names.lock().unwrap() = None;
        self.server.stamp(dir)
    }
    fn create_striped(&self, _path: &Path, _direct: bool, _stripes: Stripes) -> Result<Arc<dyn File>> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.server.rename(from, to)
    }
}

impl File for Cached {
    fn is_direct(&self) -> bool {
        false
    }
    fn read_at(&self, into: &[Piece], offset: u64) -> Result<usize> {
        self.in_cache.read_at(into, offset)
    }
    fn write_at(&self, from: &[Piece], offset: u64) -> Result<usize> {
        self.in_cache.write_at(from, offset)
    }
    fn sync(&self) -> Result<()> {
        let bytes = self.cache.contents(&self.path).unwrap();
        if !bytes.is_empty() {
            self.on_server.write_at(&[Buffer::of(&bytes).piece()], 0)?;
        }
        self.on_server.sync()
    }
    fn len_bytes(&self) -> Result<u64> {
        if self.access == Access::Read {
            self.refresh();
        }
        self.in_cache.len_bytes()
    }
    fn truncate(&self, len: u64) -> Result<()> {
        self.in_cache.truncate(len)?;
        self.on_server.truncate(len)
    }
    fn touch(&self) -> Result<()> {
        self.on_server.touch()
    }
    fn touched(&self) -> Result<SystemTime> {
        self.on_server.touched()
    }
    fn lock(&self) -> Result<bool> {
        self.on_server.lock()
    }
    fn is_locked(&self) -> Result<bool> {
        self.on_server.is_locked()
    }
}

#[test]
fn blocks_are_seen_by_other_nodes_through_all_that_clients_remember() {
    // With direct I/O for the data, and without.
    for server in [MemFs::new().with_direct(), MemFs::new()] {
        let config = PfsConfig { io_bytes: 64 << 10, ..config(16 * MIB) };
        let open = || PfsTier::open_on(config.clone(), Client::of(&server)).unwrap();
        let (a, b) = (open(), open());
        for key in 0..20 {
            let (from, to) = if key % 2 == 0 { (&a, &b) } else { (&b, &a) };
            assert_eq!(put(from, key, 1, 30_000), Outcome::Stored);
            eventually("the other node finds it", || lookup(to, key).is_hit());
            expect(to, key, 1, 30_000);
        }
        assert_eq!(delete(&a, 3), Outcome::Deleted);
        eventually("the other node hears of a deletion", || !lookup(&b, 3).is_hit());
        let c = open();
        assert_eq!(put(&c, 100, 1, 30_000), Outcome::Stored);
        eventually("a new writer is found", || lookup(&a, 100).is_hit());
        expect(&a, 100, 1, 30_000);
        drop((a, b, c));
        let last = open();
        assert_eq!((last.stats().blocks, last.stats().corrupt), (20, 0));
        expect(&last, 19, 1, 30_000);
    }
}
