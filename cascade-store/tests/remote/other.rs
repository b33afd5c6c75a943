//! Two nodes in one process: what one store has is what the other's agent finds elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use cascade_core::batch::Outcome;
use cascade_core::id::BlockId;
use cascade_core::tier::{Lookup, MissReason};
use cascade_store::remote::{Agent, Remote};
use cascade_store::{Put, Store, StoreConfig};
use parking_lot::Mutex;

pub(crate) fn id(number: u64) -> BlockId {
    BlockId::content(&number.to_le_bytes())
}

pub(crate) fn bytes(number: u64) -> Vec<u8> {
    (0..10_000 + number * 7001).map(|at| (at * 31 + number) as u8).collect()
}

/// Puts blocks that must be new.
pub(crate) fn fill(store: &Store, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        assert_eq!(store.put(&id(number), &bytes(number), Put::default()), Outcome::Stored);
    }
}

/// What finds blocks on the other node, and copies them to this one.
#[derive(Debug)]
pub(crate) struct Far {
    from: Store,
    to: Store,
    asked: AtomicU64,
    hangs: AtomicBool,
    fails: Mutex<Option<MissReason>>,
}

impl Far {
    pub(crate) fn fail_with(&self, why: Option<MissReason>) {
        *self.fails.lock() = why;
    }

    pub(crate) fn hang(&self, hangs: bool) {
        self.hangs.store(hangs, Relaxed);
    }

    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Relaxed)
    }

    fn copy(&self, id: &BlockId) -> Result<(), MissReason> {
        if let Some(why) = *self.fails.lock() {
            return Err(why);
        }
        let lease = self.from.lease(id)?;
        let mut bytes = vec![0; lease.len()];
        assert!(lease.read_at(0, &mut bytes));
        match self.to.put(id, &bytes, Put::default()) {
            Outcome::Stored | Outcome::Exists => Ok(()),
            _ => Err(MissReason::Throttled),
        }
    }
}

impl Remote for Far {
    fn locate(&self, ids: &[BlockId], _deadline: Instant) -> Vec<Lookup> {
        self.asked.fetch_add(1, Relaxed);
        let why = *self.fails.lock();
        why.map_or_else(|| self.from.lookup(ids), |why| vec![Lookup::Miss(why); ids.len()])
    }

    fn bring(&self, ids: &[BlockId], _deadline: Instant) -> Vec<Result<(), MissReason>> {
        self.asked.fetch_add(1, Relaxed);
        while self.hangs.load(Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        ids.iter().map(|id| self.copy(id)).collect()
    }
}

/// A client of an agent, the agent, and the other node.
pub(crate) struct Nodes {
    pub(crate) client: Store,
    pub(crate) other: Store,
    pub(crate) far: Arc<Far>,
    agent: Option<Agent>,
    _folder: tempfile::TempDir,
}

impl Nodes {
    /// `files`: where the client's are; none if that is empty.
    pub(crate) fn new(files: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("cascade-remote-").tempdir_in("/dev/shm").unwrap();
        let config = |node: &str, remote: &str| {
            let builder = StoreConfig::builder().without_environment().shm_path(folder.path().join(node));
            let builder = builder.shm_capacity("32MiB").unwrap().set("remote", remote).unwrap();
            let is_with_files = node == "here" && !files.is_empty();
            let builder = if is_with_files { builder.pfs_path(files) } else { builder };
            builder.resolve().unwrap()
        };
        let client = Store::open(&config("here", "agent")).unwrap();
        let own = Store::open(&config("here", "off")).unwrap();
        let other = Store::open(&config("there", "off")).unwrap();
        let (asked, hangs) = (AtomicU64::new(0), AtomicBool::new(false));
        let far = Far { from: other.clone(), to: own, asked, hangs, fails: Mutex::new(None) };
        let mut nodes = Self { client, other, far: Arc::new(far), agent: None, _folder: folder };
        nodes.start_agent();
        nodes
    }

    pub(crate) fn agent(&self) -> &Agent {
        self.agent.as_ref().unwrap()
    }

    pub(crate) fn end_agent(&mut self) {
        self.agent = None;
    }

    pub(crate) fn start_agent(&mut self) {
        let remote = Arc::clone(&self.far) as Arc<dyn Remote>;
        self.agent = Some(Agent::start(self.client.arena().path(), remote).unwrap());
    }
}
