//! A store over simulated devices, and device memory to put from and get to.

use std::path::PathBuf;
use std::sync::Arc;

use cascade_core::batch::Outcome;
use cascade_core::id::BlockId;
use cascade_core::memory::{HostBuffer, Piece, SgList};
use cascade_core::tier::MissReason;
use cascade_gpu::device::{Device, Hbm, Pinned, Run, Stream};
use cascade_gpu::engine::{self, CopyEngine, Digested};
use cascade_gpu::sim::SimDevice;
use cascade_store::{Put, Store, StoreConfig, StoreConfigBuilder};

pub(crate) const MIB: usize = 1 << 20;

pub(crate) struct Rig {
    pub(crate) sims: Vec<Arc<SimDevice>>,
    /// The caller's own engine, on device 0: what a framework would be.
    engine: Arc<CopyEngine>,
    capacity: String,
    files: Option<PathBuf>,
    place: tempfile::TempDir,
    _disk: tempfile::TempDir,
}

impl Rig {
    pub(crate) fn new(devices: u32, capacity: &str, has_files: bool) -> Self {
        let sims = SimDevice::node(devices, 64 << 20);
        let place = tempfile::Builder::new().prefix("cascade-test-").tempdir_in("/dev/shm").unwrap();
        let disk = tempfile::tempdir().unwrap();
        let first: Arc<dyn Device> = sims[0].clone();
        let options =
            engine::Options { staging_bytes: 256 << 10, calibrate: false, ..engine::Options::default() };
        let engine = CopyEngine::new(&first, options).unwrap();
        let files = has_files.then(|| disk.path().join("files"));
        // The engine has its buffers before what a store leaves is counted.
        let rig = Self { sims, engine, capacity: capacity.to_owned(), files, place, _disk: disk };
        assert_eq!(rig.read(&rig.on_device(&[1; 600_000]).pieces()[0], 600_000), [1; 600_000]);
        rig
    }

    pub(crate) fn builder(&self, capacity: Option<&str>) -> StoreConfigBuilder {
        let mut builder =
            StoreConfig::builder().without_environment().shm_path(self.place.path().join("arena"));
        builder = builder.shm_capacity("64MiB").unwrap();
        if let Some(files) = &self.files {
            builder = builder.pfs_path(files).set("pfs_capacity", "128MiB").unwrap();
            builder = builder.set("pfs_segment", "16MiB").unwrap();
        }
        match capacity {
            Some(capacity) => builder.set("gpu_capacity", capacity).unwrap(),
            None => builder,
        }
    }

    pub(crate) fn open(&self) -> Store {
        let config = self.builder(Some(&self.capacity)).set("gpu_devices", "simulated").unwrap();
        let devices: Vec<Arc<dyn Device>> =
            self.sims.iter().map(|sim| Arc::clone(sim) as Arc<dyn Device>).collect();
        Store::open_with_devices(&config.resolve().unwrap(), &devices).unwrap()
    }

    /// Another store on the same arena and files.
    pub(crate) fn open_without_devices(&self) -> Store {
        Store::open(&self.builder(None).resolve().unwrap()).unwrap()
    }

    pub(crate) fn held(&self) -> u64 {
        self.sims.iter().map(|sim| sim.held()).sum()
    }

    /// What the rig itself has of the devices.
    pub(crate) fn own(&self) -> u64 {
        let before = self.held();
        // One lane of three buffers, and a buffer for each direction.
        assert!(before <= 5, "{before}");
        5
    }

    pub(crate) fn fresh(&self, len: usize) -> SgList {
        let device: Arc<dyn Device> = self.sims[0].clone();
        Arc::new(Hbm::new(&device, len).unwrap()).piece(0, len).unwrap().into()
    }

    /// Device memory with these bytes.
    pub(crate) fn on_device(&self, bytes: &[u8]) -> SgList {
        let list = self.fresh(bytes.len());
        let from = Piece::shared(bytes.into());
        self.engine.copy(list.clone(), from.into(), bytes.len(), Digested::Nothing).unwrap();
        list
    }

    pub(crate) fn read(&self, piece: &Piece, len: usize) -> Vec<u8> {
        let mut buffer = HostBuffer::zeroed(len);
        self.engine.copy(buffer.piece().into(), piece.clone().into(), len, Digested::Nothing).unwrap();
        buffer.bytes_mut().unwrap().to_vec()
    }

    pub(crate) fn put(&self, store: &Store, id: &BlockId, bytes: &[u8]) -> Outcome {
        store.put_device(&[(*id, self.on_device(bytes))], Put::default(), None)[0]
    }

    /// Into device memory.
    pub(crate) fn get(&self, store: &Store, id: &BlockId, len: usize) -> Result<Vec<u8>, MissReason> {
        let into = self.fresh(len);
        let meta = store.get_device(&[(*id, into.clone())], None).remove(0)?;
        assert_eq!(meta.len, len as u64);
        Ok(self.read(&into.pieces()[0], len))
    }

    /// Into pages of device memory, in an order of their own.
    pub(crate) fn get_pages(
        &self,
        store: &Store,
        id: &BlockId,
        page: usize,
        count: usize,
    ) -> Result<Vec<u8>, MissReason> {
        let whole = self.fresh(page * count);
        let place = |index: usize| whole.pieces()[0].part(index * 7 % count * page, page).unwrap();
        let mut list = SgList::new();
        (0..count).for_each(|index| list.push(place(index)));
        let _meta = store.get_device(&[(*id, list)], None).remove(0)?;
        Ok((0..count).flat_map(|index| self.read(&place(index), page)).collect())
    }

    pub(crate) fn get_host(&self, store: &Store, id: &BlockId, len: usize) -> Result<Vec<u8>, MissReason> {
        let mut out = vec![0; len];
        store.get(id, &mut out).map(|_| out)
    }

    /// Pinned host memory with these bytes.
    pub(crate) fn pinned(&self, bytes: &[u8]) -> Arc<Pinned> {
        let device: Arc<dyn Device> = self.sims[0].clone();
        let pinned = Arc::new(Pinned::new(&device, bytes.len()).unwrap());
        let into = pinned.piece(0, bytes.len()).unwrap();
        self.engine.copy(into.into(), self.on_device(bytes), bytes.len(), Digested::Nothing).unwrap();
        pinned
    }

    /// Queues a copy of pinned memory to device memory on a stream of the caller's; both must live until it is over.
    pub(crate) fn fill_on(&self, stream: Stream, list: &SgList, from: &Pinned) {
        let dst = list.pieces()[0].as_ptr() as u64;
        let run = Run { dst, src: from.address(), len: from.len() as u64 };
        // SAFETY: both sides outlive the event that the caller waits for.
        unsafe { self.sims[0].copy(stream, &[run]).unwrap() };
    }
}
