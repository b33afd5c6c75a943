//! Two processes on one node, step by step.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cascade_core::batch::{Outcome, ticket};
use cascade_core::clock::Clock;
use cascade_core::id::BlockId;
use cascade_core::memory::{HostBuffer, Piece};
use cascade_core::testing::bytes::{content, version_of};
use cascade_core::tier::{BlockMeta, MissReason};
use cascade_pfs::PfsConfig;
use parking_lot::Mutex;

use super::Told;
use super::bottom::SimBottom;
use super::locks::{Held, SimBytes, SimPage};
use super::model::Model;
use super::top::SimTop;
use super::world::{Faults, Killed, World, short};
use crate::Demote;
use crate::files::Files;
use crate::moves::changes::Changes;
use crate::moves::demoter::{Demoter, Request};
use crate::moves::flights::Flights;
use crate::moves::node::Locks;
use crate::moves::riser;
use crate::put::{Put, Reach};
use crate::seam::{BottomTier, TopTier};
use crate::tiers::Tiers;

const KEYS: u64 = 24;
/// The largest block.
const ROOM: u64 = 6000;

/// One process that has the store open.
struct Process {
    tiers: Arc<Tiers>,
    files: Arc<Files>,
    demoter: Mutex<Demoter>,
    bottom: SimBottom,
}

pub(super) struct Sim {
    pub(super) world: Arc<World>,
    shared: Arc<Shared>,
    _folder: tempfile::TempDir,
}

/// What both processes, and the checks, work on.
struct Shared {
    world: Arc<World>,
    top: SimTop,
    bottom: SimBottom,
    mode: Demote,
    processes: [Mutex<Option<Arc<Process>>>; 2],
    held: Held,
    page: Arc<SimPage>,
    model: Mutex<Model>,
    steps: AtomicU64,
    kills: AtomicU64,
    losses: AtomicU64,
    hits: AtomicU64,
    excused: AtomicU64,
    /// Copies that processes which are gone have given up, and what is missing on account of that.
    doubted: AtomicU64,
    unexplained: Mutex<BTreeSet<(u64, u64)>>,
}

/// Even keys are names, whose blocks are replaced; odd ones are of contents, whose first put wins.
fn id_of(key: u64) -> BlockId {
    if key.is_multiple_of(2) {
        BlockId::named(&format!("simulated {key}"))
    } else {
        BlockId::content(&key.to_le_bytes())
    }
}

/// Every version has a length of its own.
fn bytes_of(key: u64, version: u64) -> Arc<[u8]> {
    let len = 100 + (key * 977 + version * 331) % (ROOM - 100);
    content(key, version, usize::try_from(len).unwrap())
}

fn doubted(process: &Arc<Process>) -> u64 {
    process.tiers.count.moves().doubted
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Shared {
    fn open(&self, which: usize) -> Arc<Process> {
        let config = PfsConfig::new(PathBuf::from("/simulated"), super::bottom::CAPACITY);
        let (world, held) = (self.world.clone(), self.held.clone());
        let locks = Locks::on(SimBytes { world, held, process: which });
        let bottom = self.bottom.opened();
        let files = Files::new(BottomTier::new(bottom.clone()), config, self.mode);
        let files = Arc::new(
            files.moving_with(Arc::new(Flights::with_locks(locks, Changes::on(Some(self.page.clone()))))),
        );
        let clock: Arc<dyn Clock> = self.world.clock.clone();
        let tiers = Arc::new(Tiers::new(TopTier::new(self.top.clone()), Some(files.clone()), clock));
        let demoter = Demoter::new(tiers.clone(), files.clone());
        demoter.check_notes();
        Arc::new(Process { tiers, files, demoter: Mutex::new(demoter), bottom })
    }

    fn process(&self, which: usize) -> Arc<Process> {
        let mut place = self.processes[which].lock();
        if place.is_none() {
            self.world.note(|| format!("process {which} opens the store"));
            *place = Some(self.open(which));
        }
        place.clone().unwrap()
    }

    /// A process is gone, and the system has taken back its locks.
    fn kill(&self, which: usize) {
        self.world.note(|| format!("process {which} is killed"));
        count(&self.kills);
        self.held.lock().retain(|_, holder| *holder != which);
        let process = self.processes[which].lock().take();
        self.doubted.fetch_add(process.as_ref().map_or(0, doubted), Ordering::Relaxed);
        self.model.lock().killed(which);
    }

    /// Acts until it is done or killed.
    fn live(&self, which: usize) {
        let Err(broken) = catch_unwind(AssertUnwindSafe(|| self.act(which))) else { return };
        if broken.downcast_ref::<Killed>().is_none() {
            std::panic::resume_unwind(broken);
        }
        let in_hand = self.world.in_hand.lock().clone();
        let contents = in_hand.into_iter().filter(|id| !id.kind().replaceable());
        self.world.unordered.lock().extend(contents.map(|id| (id, BTreeSet::new())));
        self.kill(which);
    }

    fn act(&self, which: usize) {
        let process = self.process(which);
        let mut key = self.world.below(KEYS);
        if let Some(hot) = self.world.hot()
            && self.world.once_in(2)
        {
            key = (0..KEYS).find(|key| id_of(*key) == hot).unwrap_or(key);
        }
        match self.world.below(20) {
            0..=6 => self.put(&process, which, key),
            7..=10 => self.get(&process, which, key),
            11..=12 => self.lease(&process, which, key),
            13 => self.delete(&process, which, key),
            14 => self.prefetch(&process, which),
            15 => {
                let id = id_of(key);
                let outcomes = process.tiers.demote(&[id]);
                self.world.note(|| format!("{which} demotes {}: {outcomes:?}", short(&id)));
            }
            _ => self.turn(&process, which),
        }
    }

    fn put(&self, process: &Process, which: usize, key: u64) {
        let id = id_of(key);
        let is_name = id.kind().replaceable();
        let version = if is_name { self.model.lock().version() } else { 1 };
        let reach = [Reach::Found, Reach::Found, Reach::Files, Reach::Durable][self.world.below(4) as usize];
        let put = if self.world.once_in(5) { Put::prefix() } else { Put::default() };
        let place = self.model.lock().begin(which, key, version);
        let before = self.world.excuses.lock().remove(&id);
        let from = Piece::shared(bytes_of(key, version)).into();
        let outcome = crate::raw::single(process.tiers.put(vec![(id, from, put.meta(&id))], reach));
        self.world.note(|| format!("{which} puts {} = {version} until {reach:?}: {outcome:?}", short(&id)));
        let is_done = matches!(outcome, Outcome::Stored | Outcome::Exists);
        // One that was lost since, and counted, is taken for there until the index tells of it.
        let is_kept = is_done && !(outcome == Outcome::Exists && process.bottom.is_misled(&id));
        if let (false, Some(before)) = (is_kept, before) {
            self.world.excuses.lock().entry(id).or_insert(before);
        }
        self.model.lock().end(key, place, is_done);
    }

    fn get(&self, process: &Process, which: usize, key: u64) {
        let (id, since) = (id_of(key), self.model.lock().reading());
        let is_behind = process.bottom.is_behind(&id);
        let mut buffer = HostBuffer::zeroed(usize::try_from(ROOM).unwrap());
        let answer = process.tiers.fetch(&[(id, buffer.piece().into())], None).pop().unwrap();
        self.world.note(|| format!("{which} gets {}: {:?}", short(&id), answer.map(|meta| meta.len)));
        let answer =
            answer.map(|meta| buffer.bytes_mut().unwrap()[..usize::try_from(meta.len).unwrap()].to_vec());
        self.judge(key, since, is_behind || process.bottom.is_behind(&id), answer);
    }

    fn lease(&self, process: &Process, which: usize, key: u64) {
        let (id, since) = (id_of(key), self.model.lock().reading());
        let is_behind = process.bottom.is_behind(&id);
        let answer = process.tiers.lease(&id).map(|lease| {
            let mut bytes = vec![0; lease.len()];
            assert!(lease.read_at(0, &mut bytes));
            bytes
        });
        self.world.note(|| format!("{which} leases {}: {:?}", short(&id), answer.as_ref().map(Vec::len)));
        self.judge(key, since, is_behind || process.bottom.is_behind(&id), answer);
    }

    /// Holds what was read against what may be read.
    fn judge(&self, key: u64, since: u64, is_behind: bool, answer: Result<Vec<u8>, MissReason>) {
        let id = id_of(key);
        let may = self.model.lock().may_see(key, since);
        let mut digest = None;
        let found = match answer {
            Ok(bytes) => {
                let version =
                    version_of(key, &bytes).unwrap_or_else(|| panic!("key {key}: wrong bytes (I1)"));
                digest = crate::raw::root_of(&id, &Piece::shared(bytes.into()).into());
                version
            }
            Err(MissReason::Absent) => 0,
            // It may be there, and cannot be had now, or arrived damaged: the reason says so.
            Err(_) => return,
        };
        count(if found > 0 { &self.hits } else { &self.excused });
        if found > 0 && id.kind().replaceable() {
            self.model.lock().saw(key, found);
        }
        // That others have copied contents to files is not waited for: until the index tells of it, they may be a miss.
        if found == 0 && !id.kind().replaceable() && is_behind {
            return;
        }
        // Contents are the same in every version: between a copy and the look at what the arena has by then, it is there for others.
        let is_copied = !id.kind().replaceable() && self.world.is_being_copied(&id);
        let is_late = self.world.unordered.lock().get(&id).is_some_and(|late| {
            !id.kind().replaceable() || digest.is_some_and(|digest| late.contains(&digest))
        });
        if (is_copied || is_late) && (found == 0 || self.model.lock().ever(key).contains(&found)) {
            return;
        }
        let is_excused =
            found == 0 && (self.world.excuses.lock().contains_key(&id) || self.is_counted(key, &may));
        assert!(
            may.contains(&found) || is_excused,
            "key {key} ({}): found version {found}, may be {may:?}, and nobody counted a loss (I2, I3)",
            short(&id)
        );
    }

    /// Whether the store has counted as many losses in doubt as there are blocks that nothing else explains.
    fn is_counted(&self, key: u64, may: &[u64]) -> bool {
        if may.contains(&0) {
            return true;
        }
        let mut unexplained = self.unexplained.lock();
        unexplained.insert((key, may.iter().copied().max().unwrap_or(0)));
        let now =
            self.processes.iter().filter_map(|process| process.lock().as_ref().map(doubted)).sum::<u64>();
        unexplained.len() as u64 <= self.doubted.load(Ordering::Relaxed) + now
    }

    fn delete(&self, process: &Process, which: usize, key: u64) {
        let id = id_of(key);
        let place = self.model.lock().begin(which, key, 0);
        let outcome = crate::raw::single(process.tiers.delete(&[id]));
        self.world.note(|| format!("{which} deletes {}: {outcome:?}", short(&id)));
        let is_done = matches!(outcome, Outcome::Deleted | Outcome::Miss(MissReason::Absent));
        self.model.lock().end(key, place, is_done);
    }

    fn prefetch(&self, process: &Process, which: usize) {
        let ids: Vec<BlockId> = (0..3).map(|_| id_of(self.world.below(KEYS))).collect();
        let (ticket, completer) = ticket(ids.len());
        riser::bring_up(
            &process.tiers,
            Some(&process.files),
            &crate::moves::rise::Wanted { ids, completer, deadline: None },
        );
        let outcomes = crate::raw::complete(&ticket);
        self.world.note(|| format!("{which} prefetches: {outcomes:?}"));
    }

    /// The demoter works until nothing of its own is under way.
    fn turn(&self, process: &Process, which: usize) {
        self.world.note(|| format!("the demoter of {which} turns"));
        let mut demoter = process.demoter.lock();
        for _ in 0..1 + self.world.below(4) {
            demoter.turn(Duration::ZERO);
        }
        while demoter.finish_one() {}
    }

    /// Everything goes down now, if nothing fails any more.
    fn settle(&self) {
        *self.world.faults.lock() = Faults::default();
        for which in 0..2 {
            let process = self.process(which);
            self.world.clock.advance(Duration::from_secs(6));
            if self.mode == Demote::Off {
                continue;
            }
            let (ticket, completer) = ticket(1);
            process.files.sink.push_waited(Request::All(completer));
            for _ in 0..200 {
                if ticket.poll() {
                    break;
                }
                self.turn(&process, which);
                self.world.clock.advance(Duration::from_secs(1));
            }
            assert!(ticket.poll(), "the demoter of {which} never answered");
            // A look without requests forgets what is hidden.
            self.turn(&process, which);
            let outcome = crate::raw::single(crate::raw::complete(&ticket));
            assert_eq!(outcome, Outcome::Stored, "with a sound medium everything goes down");
        }
        if self.mode != Demote::Off {
            let is_lacking = |(id, meta): &(BlockId, BlockMeta)| {
                self.bottom.meta(id).is_none_or(|below| below.digest != meta.digest)
            };
            let blocks = self.top.blocks();
            let mut lacking = blocks.iter().filter(|block| is_lacking(block)).map(|(id, _)| *id);
            // The files gave up what did not fit, and counted it.
            let owed = lacking.find(|id| !self.world.excuses.lock().contains_key(id));
            assert_eq!(owed.map(|id| short(&id)), None, "is not in files after a flush");
        }
    }
}

impl Sim {
    pub(super) fn new(seed: u64, mode: Demote) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let world = Arc::new(World::new(seed));
        let shared = Arc::new(Shared {
            world: world.clone(),
            top: SimTop::new(world.clone(), folder.path().join("arena.simulated")),
            bottom: SimBottom::new(world.clone()),
            mode,
            processes: Default::default(),
            held: Held::default(),
            page: Arc::default(),
            model: Mutex::default(),
            steps: AtomicU64::new(0),
            kills: AtomicU64::new(0),
            losses: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            excused: AtomicU64::new(0),
            doubted: AtomicU64::new(0),
            unexplained: Mutex::default(),
        });
        Self { world, shared, _folder: folder }
    }

    pub(super) fn run(&self, steps: u64) {
        for _ in 0..steps {
            count(&self.shared.steps);
            self.step();
        }
        self.shared.settle();
        for key in 0..KEYS {
            for which in 0..2 {
                let process = self.shared.process(which);
                self.shared.get(&process, which, key);
            }
        }
    }

    fn step(&self) {
        let (world, shared) = (&self.world, &self.shared);
        match world.below(40) {
            0 => self.change_faults(),
            1 => shared.kill(usize::from(world.once_in(2))),
            2 if world.once_in(4) => self.lose(),
            3..=5 => world.clock.advance(Duration::from_millis(world.below(6000))),
            _ => {
                let which = usize::from(world.once_in(3));
                let other = Arc::clone(shared);
                // Both have it open before one acts while the other does.
                drop((shared.process(0), shared.process(1)));
                world.step(Box::new(move || other.live(1 - which)), || shared.live(which));
            }
        }
    }

    fn change_faults(&self) {
        let on = || self.world.once_in(3);
        let faults = Faults { full: on(), writes: on(), reads: on(), deletes: on(), slow: on() };
        let faults = if self.world.once_in(2) { Faults::default() } else { faults };
        self.world.note(|| format!("{faults:?}"));
        *self.world.faults.lock() = faults;
    }

    /// The node goes down: with it the arena, and what nothing has made durable.
    fn lose(&self) {
        self.shared.kill(0);
        self.shared.kill(1);
        self.world.note(|| "the node goes down".to_owned());
        count(&self.shared.losses);
        self.shared.page.lose();
        self.shared.top.lose();
        self.shared.bottom.lose();
    }

    pub(super) fn told(&self) -> Told {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Told {
            steps: get(&self.shared.steps),
            calls: get(&self.world.calls),
            nested: get(&self.world.nested),
            waits: get(&self.world.waits),
            kills: get(&self.shared.kills),
            losses: get(&self.shared.losses),
            faults: get(&self.world.injected),
            hits: get(&self.shared.hits),
            excused: get(&self.shared.excused),
            simulated_s: self.world.clock.now().as_secs(),
            trace: self.world.trace(),
        }
    }
}
