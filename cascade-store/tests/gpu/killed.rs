//! Processes that put from and get to devices are killed at random, and those that survive never see a wrong byte.
//!
//! On simulated devices a few; `CASCADE_GPU_KILLED=240` runs so many on the first GPU of a machine, several at once.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cascade_core::batch::Outcome;
use cascade_core::id::BlockId;
use cascade_core::memory::{HostBuffer, Piece, SgList};
use cascade_core::testing::bytes::{content, version_of};
use cascade_core::tier::MissReason;
use cascade_gpu::device::Hbm;
use cascade_gpu::engine::{CopyEngine, Digested};
use cascade_store::{Put, Store, StoreConfig};

const KEYS: u64 = 40;
/// Where a process is, as it writes into its file before each step.
const STEPS: [&str; 4] = ["elsewhere", "put from a device", "copy down", "get to a device"];

fn len_of(key: u64) -> usize {
    // From 64 KiB to 8 MiB, and an odd length now and then.
    (64 << 10 << (key % 8)) - if key.is_multiple_of(5) { 13 } else { 0 }
}

/// Even keys have one content for ever, odd ones are names that are replaced.
fn id_of(key: u64) -> BlockId {
    if key.is_multiple_of(2) {
        BlockId::content(&key.to_le_bytes())
    } else {
        BlockId::named(&format!("killed {key}"))
    }
}

fn is_right(key: u64, bytes: &[u8]) -> bool {
    version_of(key, bytes).is_some_and(|version| key % 2 == 1 || version == 1)
}

fn open(place: &Path, devices: &str) -> Store {
    let builder = StoreConfig::builder().without_environment().shm_path(place.join("arena"));
    let builder = builder.shm_capacity("128MiB").unwrap().set("gpu_devices", devices).unwrap();
    Store::open(&builder.set("gpu_capacity", "48MiB").unwrap().resolve().unwrap()).unwrap()
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        (self.0 >> 33) % bound
    }
}

/// Device memory that a framework would have, and a way to write and read it.
struct Own {
    engine: Arc<CopyEngine>,
    memory: Arc<Hbm>,
}

impl Own {
    fn new(store: &Store) -> Self {
        let engine = Arc::clone(&store.gpu().unwrap().engines()[0]);
        let memory = Arc::new(Hbm::new(engine.device(), len_of(7)).unwrap());
        Self { engine, memory }
    }

    /// The first `len` bytes, as pages where they are many enough.
    fn list(&self, len: usize) -> SgList {
        let page = 32 << 10;
        if !len.is_multiple_of(page) {
            return self.memory.piece(0, len).unwrap().into();
        }
        let (mut list, count) = (SgList::new(), len / page);
        (0..count).for_each(|index| list.push(self.memory.piece((index ^ 1) % count * page, page).unwrap()));
        list
    }

    fn fill(&self, bytes: &Arc<[u8]>) {
        let from = Piece::shared(Arc::clone(bytes)).into();
        self.engine.copy(self.list(bytes.len()), from, bytes.len(), Digested::Nothing).unwrap();
    }

    fn read(&self, len: usize) -> Vec<u8> {
        let mut buffer = HostBuffer::zeroed(len);
        self.engine.copy(buffer.piece().into(), self.list(len), len, Digested::Nothing).unwrap();
        buffer.bytes_mut().unwrap().to_vec()
    }
}

/// What a process that will be killed does, for ever.
#[test]
#[ignore = "a child of the test below"]
fn child() {
    let place = PathBuf::from(std::env::var_os("CASCADE_KILLED_PLACE").unwrap());
    let seed: u64 = std::env::var("CASCADE_KILLED_SEED").unwrap().parse().unwrap();
    let store = open(&place, &std::env::var("CASCADE_KILLED_DEVICES").unwrap());
    let own = Own::new(&store);
    let step_file = File::create(place.join(format!("step.{seed}"))).unwrap();
    let step = |step: u8| step_file.write_all_at(&[step], 0).unwrap();
    let mut random = Random(seed);
    let mut contents: HashMap<(u64, u64), Arc<[u8]>> = HashMap::new();
    println!("\nready");
    for round in 0.. {
        let key = random.below(KEYS);
        let (id, len) = (id_of(key), len_of(key));
        match random.below(4) {
            0 => {
                let version = if key % 2 == 1 { 2 + round % 3 } else { 1 };
                own.fill(contents.entry((key, version)).or_insert_with(|| content(key, version, len)));
                // Again and again, so that most of the time is spent on the way.
                for _ in 0..8 {
                    step(1);
                    let outcome = store.put_device(&[(id, own.list(len))], Put::default(), None)[0];
                    assert!(!matches!(outcome, Outcome::Miss(_)), "{outcome:?}");
                    step(2);
                    drop(store.flush(Instant::now() + Duration::from_secs(20)));
                    step(0);
                    let _gone = random.below(8) > 0 && store.delete(&id);
                }
            }
            1 if random.below(4) == 0 => {
                let _gone = store.delete(&id);
            }
            _ => {
                let mut got = Err(MissReason::Absent);
                for _ in 0..4 {
                    // Straight from the arena most of the time.
                    if random.below(4) > 0 {
                        store.gpu().unwrap().clear();
                    }
                    step(3);
                    got = store.get_device(&[(id, own.list(len))], None).remove(0);
                    step(0);
                }
                assert!(got.is_err() || is_right(key, &own.read(len)), "key {key} came wrong to the device");
            }
        }
        step(0);
    }
}

/// How a test runs.
struct Lane {
    place: PathBuf,
    devices: &'static str,
    kills: u64,
    at_once: u64,
    begun: AtomicU64,
    steps: [AtomicU64; STEPS.len()],
}

impl Lane {
    fn spawn(&self, seed: u64) -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "killed::child", "--ignored", "--nocapture", "--test-threads=1"]);
        command.env("CASCADE_KILLED_PLACE", &self.place).env("CASCADE_KILLED_SEED", seed.to_string());
        command.env("CASCADE_KILLED_DEVICES", self.devices);
        command.stdout(Stdio::piped()).spawn().unwrap()
    }

    /// Kills one process after the other.
    fn kill(&self) {
        loop {
            let seed = self.begun.fetch_add(1, Ordering::Relaxed);
            if seed >= self.kills {
                return;
            }
            let mut child = self.spawn(seed);
            let lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let is_ready = lines.map_while(Result::ok).any(|line| line == "ready");
            std::thread::sleep(Duration::from_micros(Random(seed).below(250_000)));
            child.kill().unwrap();
            let status = child.wait().unwrap();
            // One that ended by itself found something wrong.
            assert!(is_ready && status.code().is_none(), "process {seed}: {status:?}");
            let mut step = [0];
            let file = File::open(self.place.join(format!("step.{seed}"))).unwrap();
            let _known = file.read_at(&mut step, 0).unwrap();
            self.steps[usize::from(step[0])].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Reads everything again and again, by the host and by a device of its own; hits of each.
    fn survive(&self, is_over: &AtomicBool) -> [u64; 2] {
        let store = open(&self.place, self.devices);
        let own = Own::new(&store);
        let (mut hits, mut seen) = ([0; 2], [0; STEPS.len()]);
        for key in (0..KEYS).cycle() {
            if key == 0 && is_over.load(Ordering::Relaxed) && hits.iter().all(|hits| *hits > 0) {
                break;
            }
            let (id, len) = (id_of(key), len_of(key));
            let mut out = vec![0; len];
            match store.get(&id, &mut out) {
                Ok(meta) => {
                    assert!(meta.len == len as u64 && is_right(key, &out), "key {key} is wrong");
                    hits[0] += 1;
                }
                Err(why) => seen[usize::from(why == MissReason::Corrupt)] += 1,
            }
            store.gpu().unwrap().clear();
            if store.get_device(&[(id, own.list(len))], None).remove(0).is_ok() {
                assert!(is_right(key, &own.read(len)), "key {key} is wrong on the device");
                hits[1] += 1;
            } else if !store.contains(&id) && key.is_multiple_of(3) {
                // Something is there to be found also when nobody lives long enough to put.
                own.fill(&content(key, 1, len));
                let _there = store.put_device(&[(id, own.list(len))], Put::default(), None);
            }
        }
        assert!(!store.gpu().unwrap().engines()[0].is_lost(), "the survivor's device works");
        println!("misses of survivors: {} absent or busy, {} corrupt", seen[0], seen[1]);
        // Nothing that the dead held keeps the survivor from working.
        store.clear().unwrap();
        own.fill(&content(0, 1, len_of(0)));
        assert_eq!(
            store.put_device(&[(id_of(0), own.list(len_of(0)))], Put::default(), None),
            [Outcome::Stored]
        );
        hits
    }
}

#[test]
fn survivors_of_killed_processes_see_no_wrong_byte() {
    let place = tempfile::Builder::new().prefix("cascade-test-").tempdir_in("/dev/shm").unwrap();
    let kills = std::env::var("CASCADE_GPU_KILLED").ok().map(|kills| kills.parse().unwrap());
    let (devices, kills, at_once) = kills.map_or(("simulated", 10, 2), |kills| ("0", kills, 6));
    let lane = Lane {
        place: place.path().to_owned(),
        devices,
        kills,
        at_once,
        begun: AtomicU64::new(0),
        steps: Default::default(),
    };
    let (is_over, start) = (AtomicBool::new(false), Instant::now());
    // The survivor is there first: the arena must not lose its only owner.
    let _first = open(&lane.place, devices);
    let hits = std::thread::scope(|scope| {
        let survivor = scope.spawn(|| lane.survive(&is_over));
        let killers: Vec<_> = (0..lane.at_once).map(|_| scope.spawn(|| lane.kill())).collect();
        let killed: Vec<_> = killers.into_iter().map(|killer| killer.join()).collect();
        is_over.store(true, Ordering::Relaxed);
        let hits = survivor.join().unwrap();
        killed.into_iter().for_each(|killed| killed.unwrap());
        hits
    });
    for (name, count) in STEPS.iter().zip(&lane.steps) {
        println!("killed during {name}: {}", count.load(Ordering::Relaxed));
    }
    println!(
        "{kills} processes killed on device {devices} in {:.0} s; survivors: {} gets to the host and {} to a device, all right",
        start.elapsed().as_secs_f64(),
        hits[0],
        hits[1]
    );
}
