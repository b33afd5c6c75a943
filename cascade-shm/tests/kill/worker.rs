//! The process that is killed: puts, replaces, leases, reads and deletes blocks until it dies.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use cascade_core::batch::{Batch, Op, Outcome, Refusal};
use cascade_core::lease::Lease;
use cascade_core::memory::{HostBuffer, Piece};
use cascade_core::reservation::{Reserve, Sealed};
use cascade_core::tier::{Addressable, MissReason, OnExisting, PutMeta, Tier};
use cascade_shm::{Arena, ArenaConfig};

use crate::block::{self, IDS, MOST_BYTES, Random};
use crate::raw;

/// What a process did, as it writes it down for its parent: blocks stored, and blocks verified byte for byte.
#[derive(Clone, Copy, Default, Debug)]
pub struct Progress {
    pub stored: u64,
    pub verified: u64,
}

impl Progress {
    pub fn read(path: &Path) -> Self {
        let mut bytes = [0; 16];
        let read = std::fs::File::open(path).and_then(|file| file.read_exact_at(&mut bytes, 0));
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        if read.is_ok() { Self { stored: word(0), verified: word(8) } } else { Self::default() }
    }

    fn write(self, file: &std::fs::File) {
        let bytes = [self.stored.to_le_bytes(), self.verified.to_le_bytes()].concat();
        file.write_all_at(&bytes, 0).unwrap();
    }
}

pub struct Worker {
    arena: Arena,
    random: Random,
    leases: Vec<(u64, Lease)>,
    buffer: HostBuffer,
    pub progress: Progress,
}

impl Worker {
    pub fn open(config: &ArenaConfig, seed: u64) -> Self {
        let arena = Arena::open(config).unwrap();
        let buffer = HostBuffer::zeroed(MOST_BYTES);
        Self { arena, random: Random(seed | 1), leases: Vec::new(), buffer, progress: Progress::default() }
    }

    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    fn run(&self, op: Op) -> Outcome {
        self.arena.submit(Batch::new(vec![op])).wait(Instant::now()).unwrap()[0]
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
            other => panic!("a put answers {other:?}"),
        }
    }

    /// A put in two halves, as a copy engine makes it.
    fn put_by_halves(&mut self, number: u64) {
        let data = block::bytes(number, self.random.next() >> 32);
        let meta = PutMeta { on_existing: OnExisting::Replace, ..PutMeta::default() };
        let Reserve::Reserved(mut place) = self.arena.reserve(&block::id(number), data.len() as u64, meta)
        else {
            return;
        };
        let half = data.len() / 2;
        assert!(place.write_at(0, &data[..half]));
        cascade_shm::kill::point("put.half_copied");
        assert!(place.write_at(half, &data[half..]));
        self.progress.stored += u64::from(matches!(place.seal(), Sealed::Stored(_)));
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
        match self.arena.lease(&block::id(number)) {
            Ok(lease) => self.leases.push((number, lease)),
            Err(MissReason::Absent | MissReason::Evicting) => {}
            Err(why) => panic!("a lease answers {why:?}"),
        }
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
        let number = self.random.below(IDS);
        match self.random.below(16) {
            0..=5 => self.put(number),
            6..=7 => self.put_by_halves(number),
            8..=11 => self.get(number),
            12..=13 => self.lease(number),
            14 => {
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
        if self.leases.len() > self.random.below(6) as usize {
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
            let child = raw::sleeping_child();
            std::fs::write(progress.with_extension("child"), child.to_string()).unwrap();
        }
        if std::os::unix::process::parent_id() != parent {
            return;
        }
    }
}
