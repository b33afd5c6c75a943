//! Random sequences against a model: puts, deletions, pressure, reopening, death of the process, loss of power.
//!
//! The model knows the version that was acknowledged last. A hit shows exactly that one, a miss is paid for by a counted
//! eviction; after a loss of power below durability *block* any version that was ever put may be there, and nothing else.
//! `CASCADE_SEQUENCES` and `CASCADE_IMAGES` set the numbers, `CASCADE_SEED` the first seed.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use cascade_core::batch::Outcome;
use cascade_core::testing::bytes::version_of;
use cascade_core::tier::{Lookup, Tier};
use cascade_pfs::testing::{MemFs, Random};
use cascade_pfs::{Durability, PfsConfig, PfsTier};
use common::*;

const KEYS: u64 = 12;
/// Keys of blocks that only press.
const PRESSURE: u64 = 1000;
const ROOM: usize = 100_000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().unwrap())
}

#[derive(Clone, Debug, Default)]
struct Model {
    /// Version acknowledged last, of what is neither deleted nor found missing.
    believed: BTreeMap<u64, u64>,
    /// Everything ever put.
    put: BTreeMap<u64, BTreeSet<u64>>,
    /// Keys of which a loss of power may have left any version, at a durability that does not keep everything.
    uncertain: BTreeSet<u64>,
    lost: u64,
    /// Evictions counted by handles that are gone.
    evictions: u64,
}

struct Runner {
    fs: MemFs,
    config: PfsConfig,
    tier: Option<PfsTier>,
    model: Model,
    random: Random,
    version: u64,
    /// Power was lost at a durability that does not keep everything.
    is_damaged: bool,
}

impl Runner {
    fn new(seed: u64, durability: Durability) -> Self {
        let mut random = Random::new(seed);
        let fs = if random.once_in(2) { MemFs::new().with_direct() } else { MemFs::new() };
        let config = PfsConfig {
            durability,
            io_bytes: 64 << 10,
            write_threads: 2,
            read_threads: 1,
            // A page and a few records, so that many logs are begun and given up.
            log_bytes: if random.once_in(2) { 4096 + 128 * 20 } else { 1 << 20 },
            ..config(if random.once_in(2) { MIB } else { 8 * MIB })
        };
        let tier = Some(open(&fs, &config));
        Self { fs, config, tier, model: Model::default(), random, version: 0, is_damaged: false }
    }

    fn tier(&self) -> &PfsTier {
        self.tier.as_ref().unwrap()
    }

    fn missing(&mut self, key: u64) {
        if self.model.believed.remove(&key).is_some() && !self.model.uncertain.contains(&key) {
            self.model.lost += 1;
        }
        let counted = self.model.evictions + self.tier().stats().evictions;
        assert!(self.model.lost <= counted, "key {key}: {} lost, {counted} evictions", self.model.lost);
    }

    fn put(&mut self, key: u64) {
        self.version += 1;
        let (version, keep) = (self.version, self.random.once_in(3));
        let most = if self.random.once_in(4) { ROOM as u64 } else { 9000 };
        let len = usize::try_from(16 + self.random.below(most - 16)).unwrap();
        self.model.put.entry(key).or_default().insert(version);
        match put_with(self.tier(), key, version, len, if keep { KEEP } else { REPLACE }) {
            Outcome::Stored => {
                if keep && self.model.believed.contains_key(&key) {
                    self.missing(key);
                }
                self.model.believed.insert(key, version);
                self.model.uncertain.remove(&key);
            }
            Outcome::Exists => {
                let there = self.model.believed.contains_key(&key) || self.model.uncertain.contains(&key);
                assert!(keep && there, "Exists for new bytes");
            }
            other => panic!("a put of key {key} was {other:?}"),
        }
    }

    fn get(&mut self, key: u64) {
        match get(self.tier(), key, ROOM) {
            Ok(bytes) => {
                let version = version_of(key, &bytes);
                let put = self.model.put.get(&key).zip(version).is_some_and(|(put, v)| put.contains(&v));
                assert!(put, "key {key}: bytes that were never put");
                if self.model.uncertain.contains(&key) {
                    return;
                }
                assert_eq!(version, self.model.believed.get(&key).copied(), "key {key}: another version");
            }
            Err(Outcome::Miss(_)) => self.missing(key),
            Err(other) => panic!("a fetch was {other:?}"),
        }
    }

    fn delete(&mut self, key: u64) {
        match delete(self.tier(), key) {
            Outcome::Deleted => {
                let believed = self.model.believed.remove(&key).is_some();
                assert!(self.model.uncertain.remove(&key) || believed, "deleted what was not there");
            }
            Outcome::Miss(_) => self.missing(key),
            other => panic!("a deletion was {other:?}"),
        }
    }

    fn check(&mut self) {
        (0..KEYS).for_each(|key| self.get(key));
        // What a log names and the loss of power took is found by its digest, by each handle anew.
        assert!(self.is_damaged || self.tier().stats().corrupt == 0, "nothing is damaged here");
        let files = self.tier().file_stats().file_bytes;
        assert!(files <= self.config.capacity_bytes, "{files} bytes of files");
    }

    /// The handle is gone with what it counted; the file system is `fs` from now on.
    fn reopen(&mut self, fs: MemFs) {
        self.model.evictions += self.tier().stats().evictions;
        self.tier = None;
        self.fs = fs;
        self.tier = Some(open(&self.fs, &self.config));
        // What does not fit is given up when there is something to write, so nothing is missing yet.
        self.check();
    }

    fn lose_power(&mut self) {
        let image = self.fs.crash(self.random.bits());
        if self.config.durability == Durability::Block {
            return self.reopen(image);
        }
        self.is_damaged = true;
        self.tier = None;
        self.fs = image;
        self.tier = Some(open(&self.fs, &self.config));
        self.model.uncertain = self.model.put.keys().copied().collect();
        (self.model.lost, self.model.evictions) = (0, 0);
        self.check();
    }

    fn step(&mut self) {
        let key = self.random.below(KEYS);
        match self.random.below(40) {
            0..=17 => self.put(key),
            18..=27 => self.get(key),
            28..=32 => self.delete(key),
            33 => {
                let first = PRESSURE + self.version;
                (first..first + 12).for_each(|key| self.put(key));
            }
            34 | 35 => self.tier().flush(soon()).unwrap(),
            36 => self.reopen(self.fs.clone()),
            37 => self.reopen(self.fs.image()),
            38 => self.lose_power(),
            _ => self.check(),
        }
    }
}

fn sequences(durability: Durability, salt: u64) {
    let first = number("CASCADE_SEED", 1);
    for seed in first..first + number("CASCADE_SEQUENCES", 150) {
        let mut runner = Runner::new(seed.wrapping_mul(3) + salt, durability);
        let steps = std::panic::AssertUnwindSafe(|| {
            (0..64).for_each(|_| runner.step());
            runner.check();
        });
        if let Err(panic) = std::panic::catch_unwind(steps) {
            eprintln!("CASCADE_SEED={seed} CASCADE_SEQUENCES=1 repeats this");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn sequences_at_durability_block() {
    sequences(Durability::Block, 0);
}

#[test]
fn sequences_at_durability_segment() {
    sequences(Durability::Segment, 1);
}

#[test]
fn sequences_at_durability_none() {
    sequences(Durability::None, 2);
}

/// At each step of a history the power may go: whatever is left then is right, and at durability *block* complete.
#[test]
fn crash_images() {
    let (images, mut taken) = (number("CASCADE_IMAGES", 2000), 0);
    let mut seed = number("CASCADE_SEED", 1);
    while taken < images {
        for durability in [Durability::Block, Durability::Segment, Durability::None] {
            let mut runner = Runner::new(seed, durability);
            for _ in 0..12 {
                for _ in 0..3 {
                    let key = runner.random.below(KEYS);
                    if runner.random.once_in(4) { runner.delete(key) } else { runner.put(key) }
                }
                for _ in 0..4 {
                    look_at(&runner, seed);
                    (seed, taken) = (seed + 1, taken + 1);
                }
            }
        }
    }
    println!("{taken} crash images");
}

fn look_at(runner: &Runner, seed: u64) {
    let tier = open(&runner.fs.crash(seed), &runner.config);
    for key in 0..KEYS {
        let got = get(&tier, key, ROOM);
        let version = got.as_ref().ok().map(|bytes| version_of(key, bytes).unwrap());
        let versions = runner.model.put.get(&key);
        assert!(version.is_none_or(|version| versions.is_some_and(|put| put.contains(&version))));
        if runner.config.durability == Durability::Block && runner.tier().stats().evictions == 0 {
            assert_eq!(version, runner.model.believed.get(&key).copied(), "seed {seed}, key {key}");
            assert!(version.is_some() || !matches!(lookup(&tier, key), Lookup::Hit(_)));
        }
    }
}
