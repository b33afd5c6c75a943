//! One rank of the job: its arena, fabric and tier, and how it waits for the others without MPI.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cascade_core::batch::{Batch, Op, Outcome};
use cascade_core::memory::{HostBuffer, Piece};
use cascade_core::tier::{MissReason, PutMeta, Tier};
use cascade_mpi::{Fabric, FabricConfig, Home, MpiConfig, MpiTier};
use cascade_store::remote::{self, ArenaHome};
use cascade_store::{Store, StoreConfig};

use crate::content::{bytes_of, id_of, len_of};

/// Nothing takes longer, also where several ranks share a core with a build.
const LONG: Duration = Duration::from_secs(60);
const ARENA: &str = "256MiB";

/// The value of an option of this program.
pub(crate) fn option(name: &str) -> Option<String> {
    let arguments: Vec<String> = std::env::args().collect();
    arguments.iter().position(|a| a == name).and_then(|at| arguments.get(at + 1)).cloned()
}

pub(crate) struct Job {
    job: remote::Job,
    pub(crate) tier: Arc<MpiTier>,
    pub(crate) fabric: Arc<Fabric>,
    pub(crate) home: Arc<dyn Home>,
    /// Shared by all ranks.
    folder: PathBuf,
    path: String,
    /// How long the random scenario takes.
    pub(crate) seconds: u64,
    _arena_dir: tempfile::TempDir,
}

impl Job {
    pub(crate) fn start() -> Self {
        let path = option("--path").unwrap_or_else(|| "rma".into());
        let own = || tempfile::tempdir().unwrap().keep();
        let folder = option("--folder").map_or_else(own, PathBuf::from);
        let seconds = option("--seconds").and_then(|text| text.parse().ok()).unwrap_or(1);
        let arena_dir = tempfile::Builder::new()
            .prefix("cascade-ranks-")
            .tempdir_in(option("--arenas").as_deref().unwrap_or("/dev/shm"))
            .unwrap();
        let process = std::process::id();
        let config = StoreConfig::builder().without_environment().shm_path(arena_dir.path().join("arena"));
        let config = config.set("node", format!("n{process}")).unwrap().set("shm_capacity", ARENA).unwrap();
        let mut fabric =
            FabricConfig { buckets: 4096, windows: path != "message", ..FabricConfig::default() };
        // More ranks than cores, and builds beside them: a rank that waits for its turn is not dead.
        let is_faulty = option("--scenario").is_some_and(|name| name != "stop");
        fabric.patience.answer = Duration::from_secs(if is_faulty { 1 } else { 20 });
        // Ranks of one node map each other's arenas; on nodes of their own they cannot.
        let node = if path == "shm" { "one".to_owned() } else { format!("node {process}") };
        let tier = MpiConfig { lookup: LONG, fetch: LONG, ..MpiConfig::default() };
        let job = remote::Job::start(
            &config.resolve().unwrap(),
            remote::JobConfig { fabric, tier, node: Some(node.clone()) },
        )
        .unwrap();
        let home: Arc<dyn Home> = Arc::new(ArenaHome::new(job.store().arena().clone(), node));
        let (tier, fabric) = (Arc::clone(job.tier()), job.tier().fabric_handle());
        let job = Self { job, tier, fabric, home, folder, path, seconds, _arena_dir: arena_dir };
        if job.rank() == 0 {
            println!("ranks: {} of {}, path {}", job.ranks(), job.fabric.library(), job.fabric.path().name());
        }
        job
    }

    pub(crate) fn store(&self) -> &Store {
        self.job.store()
    }

    pub(crate) fn rank(&self) -> u32 {
        self.fabric.rank()
    }

    pub(crate) fn ranks(&self) -> u32 {
        self.fabric.ranks()
    }

    pub(crate) fn others(&self) -> impl Iterator<Item = u32> {
        let own = self.rank();
        (0..self.ranks()).filter(move |rank| *rank != own)
    }

    pub(crate) fn maps_neighbours(&self) -> bool {
        self.path == "shm"
    }

    fn one(&self, op: Op) -> Outcome {
        let outcomes = self.tier.submit(Batch::new(vec![op])).wait(Instant::now() + LONG).unwrap();
        outcomes[0]
    }

    pub(crate) fn put(&self, number: u64) -> Outcome {
        let from = Piece::shared(bytes_of(number).into()).into();
        self.one(Op::Store { id: id_of(number), from, meta: PutMeta::default() })
    }

    pub(crate) fn fetch(&self, number: u64) -> Result<Vec<u8>, MissReason> {
        let mut buffer = HostBuffer::zeroed(len_of(number));
        match self.one(Op::Fetch { id: id_of(number), into: buffer.piece().into() }) {
            Outcome::Fetched(_) => {
                Ok(buffer.bytes_mut().expect("nobody holds the buffer after the end").to_vec())
            }
            Outcome::Miss(why) => Err(why),
            other => panic!("a fetch ended with {other:?}"),
        }
    }

    pub(crate) fn delete(&self, number: u64) -> Outcome {
        self.one(Op::Delete { id: id_of(number) })
    }

    /// Publishes what was put, and lets the messages arrive: a rank that was read from has handled what came before.
    pub(crate) fn flush(&self) {
        self.tier.flush(Instant::now() + LONG).unwrap();
        std::thread::sleep(Duration::from_millis(300));
    }

    /// Waits until every rank is here.
    pub(crate) fn meet(&self, place: &str) {
        let mark = |rank: u32| self.folder.join(format!("{place} {rank}"));
        std::fs::write(mark(self.rank()), "").unwrap();
        let until = Instant::now() + 3 * LONG;
        while !(0..self.ranks()).all(|rank| mark(rank).exists()) {
            assert!(Instant::now() < until, "rank {} waits for others at {place:?}", self.rank());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// A file that all ranks see.
    pub(crate) fn shared(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Where a rank is gone there is no good order: MPI is not ended.
    pub(crate) fn leave(self) -> ! {
        println!("ranks: rank {}: {:?} {:?}", self.rank(), self.tier.mpi_stats(), self.fabric.stats());
        // Others may still read from here.
        let until = Instant::now() + LONG;
        let mark = |rank: u32| self.folder.join(format!("left {rank}"));
        std::fs::write(mark(self.rank()), "").unwrap();
        while !(0..self.ranks() - 1).all(|rank| mark(rank).exists()) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        drop(self._arena_dir);
        std::process::exit(0)
    }

    pub(crate) fn end(self) {
        self.meet("end");
        let stats = self.tier.mpi_stats();
        println!("ranks: rank {}: {stats:?} {:?}", self.rank(), self.fabric.stats());
        assert_eq!(self.fabric.stats().bad_messages, 0);
        if option("--scenario").is_none() {
            assert_eq!(self.tier.stats().quarantined_bytes, 0, "no transfer was abandoned");
        }
        let (began, rank) = (Instant::now(), self.rank());
        let Self { job, tier, fabric, home, .. } = self;
        drop((tier, fabric, home));
        let is_ended = job.stop(Duration::from_secs(20));
        println!("ranks: rank {rank} left after {:?}", began.elapsed());
        assert!(is_ended, "MPI ends in good order");
    }
}
