//! The process that is killed: puts, replaces, leases, reads and deletes blocks until it dies.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cascade_core::batch::{Batch, Op, Outcome, Refusal};
use cascade_core::lease::Lease;
use cascade_core::memory::{HostBuffer, Piece};
use cascade_core::reservation::{Reserve, Sealed};
use cascade_core::tier::{Addressable, MissReason, OnExisting, PutMeta, Tier};
use cascade_shm::{Arena, ArenaConfig};

use crate::block::{self, IDS, MOST_BYTES, Random};
use crate::raw;
use crate::report::{open_files, wait_for_files};

/// What a process did, as it writes it down for its parent: steps, blocks stored, and blocks verified byte for byte.
#[derive(Clone, Copy, Default, Debug)]
pub struct Progress {
    pub steps: u64,
    pub stored: u64,
    pub verified: u64,
}

impl Progress {
    pub fn read(path: &Path) -> Self {
        let mut bytes = [0; 24];
        let read = std::fs::File::open(path).and_then(|file| file.read_exact_at(&mut bytes, 0));
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        if read.is_ok() {
            Self { steps: word(0), stored: word(8), verified: word(16) }
        } else {
            Self::default()
        }
    }

    fn write(self, file: &std::fs::File) {
        let words = [self.steps, self.stored, self.verified];
        file.write_all_at(&words.map(u64::to_le_bytes).concat(), 0).unwrap();
    }
}

/// Owner rows of an arena whose rows are to be all taken.
pub const FEW_ROWS: u16 = 3;

pub struct Worker {
    config: ArenaConfig,
    /// Open descriptors before the arena was opened.
    files: usize,
    arena: Option<Arena>,
    random: Random,
    leases: Vec<(u64, Lease)>,
    buffer: HostBuffer,
    pub progress: Progress,
}

impl Worker {
    pub fn open(config: &ArenaConfig, seed: u64) -> Self {
        let files = open_files();
        let arena = Some(Arena::open(config).unwrap());
        let buffer = HostBuffer::zeroed(MOST_BYTES);
        let config = config.clone();
        Self {
            config,
            files,
            arena,
            random: Random(seed | 1),
            leases: Vec::new(),
            buffer,
            progress: Progress::default(),
        }
    }

    pub fn arena(&self) -> &Arena {
        self.arena.as_ref().unwrap()
    }

    fn run(&self, op: Op) -> Outcome {
        self.arena().submit(Batch::new(vec![op])).wait(Instant::now()).unwrap()[0]
    }

    fn put(&mut self, number: u64) {
        let data = block::bytes(number, self.random.next() >> 32);
        let replace = self.random.below(2) == 0;
        let on_existing = if replace { OnExisting::Replace } else { OnExisting::Keep };
        let meta = PutMeta { on_existing, ..PutMeta::default() };
        let op = Op::Store { id: block::id(number), from: Piece::shared(Arc::from(data)).into(), meta };
        match self.run(op) {
            Outcome::Stored => self.progress.stored += 1,
            Outcome::Exists => {}
            // Others hold the id, or everything that was looked at is pinned: worth asking again.
            Outcome::Refused(Refusal::Pending | Refusal::Full | Refusal::Unavailable) => {}
            // So much is in quarantine that no more may be filled.
            Outcome::Refused(Refusal::Throttled) => {}
            other => panic!("a put answers {other:?}"),
        }
    }

    /// A put in two halves, as a copy engine makes it.
    fn put_by_halves(&mut self, number: u64) {
        let data = block::bytes(number, self.random.next() >> 32);
        let meta = PutMeta { on_existing: OnExisting::Replace, ..PutMeta::default() };
        let Reserve::Reserved(mut place) = self.arena().reserve(&block::id(number), data.len() as u64, meta)
        else {
            return;
        };
        let half = data.len() / 2;
        assert!(place.write_at(0, &data[..half]));
        cascade_shm::kill::point("put.half_copied");
        assert!(place.write_at(half, &data[half..]));
        self.progress.stored += u64::from(matches!(place.seal(), Sealed::Stored(_)));
    }

    /// A put by hardware, given up in a third of the cases.
    fn put_by_transfer(&mut self, number: u64) {
        let data = block::bytes(number, self.random.next() >> 32);
        let reserved = self.arena().reserve(&block::id(number), data.len() as u64, PutMeta::default());
        let Reserve::Reserved(place) = reserved else { return };
        let flight = place.start_transfer().unwrap();
        if self.random.below(3) == 0 {
            return;
        }
        let mut place = flight.complete().unwrap();
        assert!(place.write_at(0, &data));
        self.progress.stored += u64::from(matches!(place.seal(), Sealed::Stored(_)));
    }

    /// Two puts at once that replace one block: the second finds the first at it.
    fn put_twice(&mut self, number: u64) {
        self.put(number);
        let meta = PutMeta { on_existing: OnExisting::Replace, ..PutMeta::default() };
        let first = self.arena().reserve(&block::id(number), 100, meta);
        let second = self.arena().reserve(&block::id(number), 100, meta);
        let both = matches!((&first, &second), (Reserve::Reserved(_), Reserve::Reserved(_)));
        assert!(!both, "two reservations of one id");
    }

    fn get(&mut self, number: u64) {
        let op = Op::Fetch { id: block::id(number), into: self.buffer.piece().into() };
        match self.run(op) {
            Outcome::Fetched(meta) => {
                block::verify(number, &self.buffer.bytes_mut().unwrap()[..meta.len as usize]);
                self.progress.verified += 1;
            }
            Outcome::Miss(MissReason::Absent | MissReason::Evicting) => {}
            other => panic!("a fetch answers {other:?}"),
        }
    }

    fn lease(&mut self, number: u64) {
        match self.arena().lease(&block::id(number)) {
            Ok(lease) => self.leases.push((number, lease)),
            Err(MissReason::Absent | MissReason::Evicting) => {}
            Err(why) => panic!("a lease answers {why:?}"),
        }
    }

    fn lease_batch(&mut self, first: u64) {
        let numbers: Vec<u64> = (0..8).map(|step| (first + step) % IDS).collect();
        let ids: Vec<_> = numbers.iter().map(|number| block::id(*number)).collect();
        for (number, lease) in numbers.into_iter().zip(self.arena().lease_batch(&ids)) {
            match lease {
                Ok(lease) => self.leases.push((number, lease)),
                Err(MissReason::Absent | MissReason::Evicting) => {}
                Err(why) => panic!("a lease of a batch answers {why:?}"),
            }
        }
    }

    /// Ends all that it holds. What is in quarantine would stay in its owner row until the process ends.
    pub fn let_go(&mut self) {
        while !self.leases.is_empty() {
            self.release();
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.arena().stats().quarantined_bytes > 0 {
            assert!(Instant::now() < deadline, "quarantine does not end");
            std::thread::sleep(Duration::from_millis(5));
            // Each put looks whether something has been kept for long enough.
            drop(self.arena().reserve(&block::id(IDS), 1, PutMeta::default()));
        }
    }

    /// Leaves the arena, with nothing left of it in this process, and joins it again.
    fn reopen(&mut self) {
        self.let_go();
        self.arena = None;
        wait_for_files(self.files);
        self.arena = Some(Arena::open(&self.config).unwrap());
    }

    /// Ends the oldest lease: the block under it is as it was, whatever happened to its name.
    fn release(&mut self) {
        let (number, lease) = self.leases.remove(0);
        let mut found = vec![0; lease.len()];
        assert!(lease.read_at(0, &mut found));
        block::verify(number, &found);
        self.progress.verified += 1;
    }

    pub fn step(&mut self) {
        self.progress.steps += 1;
        let number = self.random.below(IDS);
        match self.random.below(64) {
            0..=21 => self.put(number),
            22..=29 => self.put_by_halves(number),
            30..=33 => self.put_by_transfer(number),
            34..=35 => self.put_twice(number),
            36..=45 => self.get(number),
            46..=52 => self.lease(number),
            53..=54 => self.lease_batch(number),
            // Where rows are few, each must keep its own.
            55 if self.config.owners > Some(FEW_ROWS) => self.reopen(),
            56..=59 => {
                self.run(Op::Delete { id: block::id(number) });
            }
            _ => {
                // Retired under our own lease, and reclaimed with it.
                self.lease(number);
                self.run(Op::Delete { id: block::id(number) });
                let held = self.leases.len();
                self.leases.rotate_right(held.min(1));
            }
        }
        while self.leases.len() > 6 || self.leases.len() > self.random.below(6) as usize {
            self.release();
        }
    }

    /// Reads every block.
    pub fn read_all(&mut self) {
        (0..IDS).for_each(|number| self.get(number));
    }
}

/// Works until it is killed, or until its parent is gone.
pub fn work(config: &ArenaConfig, progress: &Path, seed: u64, forks: bool) {
    let file = std::fs::File::create(progress).unwrap();
    let mut worker = Worker::open(config, seed);
    let parent = std::os::unix::process::parent_id();
    for step in 0_u64.. {
        worker.step();
        worker.progress.write(&file);
        if step == 3 && forks {
            let child = raw::sleeping_child(&config.dir);
            std::fs::write(progress.with_extension("child"), child.to_string()).unwrap();
        }
        if std::os::unix::process::parent_id() != parent {
            return;
        }
    }
}
