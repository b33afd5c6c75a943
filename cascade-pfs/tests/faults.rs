//! Each call that the tier makes of a file system, failing in every way; and damage of every kind to what it wrote.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cascade_core::batch::{Outcome, Refusal};
use cascade_core::testing::bytes::{content, version_of};
use cascade_core::tier::{MissReason, Tier};
use cascade_pfs::fs::{Fs, RealFs};
use cascade_pfs::testing::{Call, Fault, FaultFs, MemFs, Random, Rule};
use cascade_pfs::{Durability, IoEngine, PfsConfig, PfsTier};
use common::*;

const KEYS: u64 = 14;
const ROOM: usize = 70_000;
const FAULTS: [Fault; 9] = [
    Fault::Errno(libc::EIO),
    Fault::Errno(libc::ENOSPC),
    Fault::Errno(libc::EDQUOT),
    Fault::Errno(libc::ESTALE),
    Fault::Errno(libc::ENOENT),
    Fault::Errno(libc::EINTR),
    Fault::Short(5000),
    Fault::Stall(Duration::from_millis(2)),
    Fault::Flip(70_001),
];

/// What opening, putting, reading, deleting, reclaiming and ending call, in order; tools rename (`sites.rs`).
const SITES: [(Call, &str); 29] = [
    (Call::Open, "log"),
    (Call::Open, "seg"),
    (Call::Open, "writer"),
    (Call::Create, "claim"),
    (Call::Create, "log"),
    (Call::Create, "seg"),
    (Call::Create, "writer"),
    (Call::List, ""),
    (Call::Remove, "claim"),
    (Call::Remove, "log"),
    (Call::Remove, "seg"),
    (Call::Remove, "writer"),
    (Call::MakeDir, ""),
    (Call::SyncDir, ""),
    (Call::Read, "log"),
    (Call::Read, "seg"),
    (Call::Read, "writer"),
    (Call::Write, "claim"),
    (Call::Write, "log"),
    (Call::Write, "seg"),
    (Call::Write, "writer"),
    (Call::Sync, "log"),
    (Call::Sync, "seg"),
    (Call::Len, "log"),
    (Call::Len, "seg"),
    (Call::Truncate, "seg"),
    (Call::SetAside, "seg"),
    (Call::Lock, "writer"),
    (Call::Stat, ""),
];

fn small(durability: Durability) -> PfsConfig {
    PfsConfig {
        durability,
        log_bytes: 4096 + 128 * 12,
        io_bytes: 64 << 10,
        write_threads: 2,
        read_threads: 1,
        ..config(MIB / 2)
    }
}

fn len(key: u64) -> usize {
    usize::try_from(100 + key * 4001).unwrap()
}

/// What was acknowledged: `None` where an operation had another end, so that any version may be there, or none.
type Acknowledged = BTreeMap<u64, Option<u64>>;

/// Uses everything: opening beside the remains of others, puts, replacing, deletion, reading, reclaim, flush.
/// Gives what was acknowledged, and how many blocks were given up and counted.
fn use_all(fs: &FaultFs, config: &PfsConfig) -> (Acknowledged, u64) {
    let mut acknowledged = Acknowledged::new();
    let Ok(tier) = PfsTier::open_on(config.clone(), Arc::new(fs.clone())) else { return (acknowledged, 0) };
    for version in 1..=2 {
        for key in 0..KEYS {
            let outcome = put(&tier, key, version, len(key));
            let right = [Refusal::Full, Refusal::Unavailable].map(Outcome::Refused);
            assert!(outcome == Outcome::Stored || right.contains(&outcome), "a put was {outcome:?}");
            acknowledged.insert(key, (outcome == Outcome::Stored).then_some(version));
        }
        (0..KEYS).for_each(|key| judge(&tier, key));
    }
    acknowledged.insert(3, None);
    let outcome = delete(&tier, 3);
    assert!(matches!(outcome, Outcome::Deleted | Outcome::Miss(_)), "a deletion was {outcome:?}");
    let _ = tier.flush(soon());
    (0..KEYS).for_each(|key| judge(&tier, key));
    let stats = tier.stats();
    (acknowledged, stats.evictions + stats.corrupt)
}

/// A fetch gives what was put, or a miss.
fn judge(tier: &PfsTier, key: u64) {
    match get(tier, key, ROOM) {
        Ok(bytes) => assert!(version_of(key, &bytes).is_some(), "key {key}: bytes that were never put"),
        Err(outcome) => assert!(matches!(outcome, Outcome::Miss(_)), "key {key}: {outcome:?}"),
    }
}

/// A file system with what a writer of yesterday has left.
fn with_remains(config: &PfsConfig) -> MemFs {
    let fs = MemFs::new().with_direct();
    let tier = open(&fs, config);
    (0..6).for_each(|key| assert_eq!(put(&tier, key, 9, len(key)), Outcome::Stored));
    assert_eq!(delete(&tier, 5), Outcome::Deleted);
    fs.image()
}

fn suffix_of(kind: &str) -> &'static str {
    match kind {
        "seg" => ".seg",
        "log" => ".log",
        "writer" => ".writer",
        "claim" => ".claim",
        _ => "",
    }
}

/// The rules for a site that is called so often: its first calls, one in the middle, and from one on all.
fn rules(call: Call, kind: &str, times: u64) -> impl Iterator<Item = Rule> {
    let suffix = suffix_of(kind);
    let moves = matches!(call, Call::Read | Call::Write);
    let fits = move |fault: &Fault| moves || !matches!(fault, Fault::Short(_) | Fault::Flip(_));
    let when = [(0, 1), (1, 1), (times / 2, 1), (0, u64::MAX), (times / 2, u64::MAX)];
    let at =
        move |fault| when.into_iter().map(move |(first, times)| Rule { call, suffix, first, times, fault });
    FAULTS.into_iter().filter(fits).flat_map(at)
}

#[test]
fn every_call_fails_in_every_way_and_no_byte_is_wrong() {
    let config = small(Durability::Block);
    let dry = FaultFs::new(Arc::new(with_remains(&config)));
    use_all(&dry, &config);
    let sites: Vec<(Call, String)> = dry.counts().into_keys().collect();
    assert_eq!(sites, SITES.map(|(call, kind)| (call, kind.to_owned())), "kinds of calls and of files");
    let (mut runs, mut injected) = (0, 0);
    for ((call, kind), times) in dry.counts() {
        for rule in rules(call, &kind, times) {
            let memory = with_remains(&config);
            let fs = FaultFs::new(Arc::new(memory.clone()));
            let _told = Told(rule);
            fs.set(&[rule]);
            let (acknowledged, given_up) = use_all(&fs, &config);
            runs += 1;
            injected += u64::from(fs.injected() > 0);
            fs.set(&[]);
            let flipped = matches!(rule.fault, Fault::Flip(_));
            aftermath(Arc::new(memory.image()), &config, &acknowledged, given_up, flipped);
        }
    }
    println!("{runs} runs, {injected} with a fault");
    assert!(runs > 500 && injected * 10 > runs * 9, "{injected} of {runs} runs met their fault");
}

/// As [`with_remains`], and whoever had adopted them has died too. What tells how long ago can be all there is: an identity is damaged.
fn with_remains_of_a_claimant(config: &PfsConfig, damaged: bool) -> MemFs {
    let fs = with_remains(config);
    let claimant = open(&fs, config);
    assert_eq!(put(&claimant, 6, 9, len(6)), Outcome::Stored);
    let image = fs.image();
    assert_eq!(names(&image, Path::new(DIR), ".claim").len(), 1);
    let writers = names(&image, Path::new(DIR), ".writer");
    assert_eq!(writers.len(), 2);
    for name in writers.iter().filter(|_| damaged) {
        image.damage(&Path::new(DIR).join(name), |file| file[100] ^= 1);
    }
    image
}

/// Nobody takes a claim for good whose claimant is dead, and no error on the way loses what either of the two had stored.
#[test]
fn a_dead_claimants_claim_is_taken_over_whatever_fails() {
    let config = PfsConfig { adopt_after: Duration::ZERO, ..small(Durability::Block) };
    for damaged in [false, true] {
        let dry = FaultFs::new(Arc::new(with_remains_of_a_claimant(&config, damaged)));
        let tier = PfsTier::open_on(config.clone(), Arc::new(dry.clone())).unwrap();
        assert_eq!(tier.file_stats().adopted, 2, "the dead claimant, and whom it had claimed");
        drop(tier);
        let (mut runs, mut injected) = (0, 0);
        for ((call, kind), times) in dry.counts() {
            let is_of_it = matches!(call, Call::Open | Call::Read | Call::Lock | Call::Touch | Call::Create);
            if !is_of_it || !["claim", "writer"].contains(&kind.as_str()) {
                continue;
            }
            for rule in rules(call, &kind, times) {
                let memory = with_remains_of_a_claimant(&config, damaged);
                let fs = FaultFs::new(Arc::new(memory.clone()));
                let _told = Told(rule);
                fs.set(&[rule]);
                if let Ok(tier) = PfsTier::open_on(config.clone(), Arc::new(fs.clone())) {
                    (0..7).for_each(|key| judge(&tier, key));
                }
                runs += 1;
                injected += u64::from(fs.injected() > 0);
                let tier = open(&memory.image(), &config);
                (0..7).filter(|key| *key != 5).for_each(|key| expect(&tier, key, 9, len(key)));
                assert!(get(&tier, 5, ROOM).is_err(), "what was deleted came back");
            }
        }
        println!("{runs} runs, {injected} with a fault");
        assert!(runs > 100 && injected * 10 > runs * 8, "{injected} of {runs} runs met their fault");
    }
}

/// The sign of life of a writer cannot be given: it is counted, and the writer goes on.
#[test]
fn a_writer_that_cannot_show_its_life_goes_on() {
    let config = small(Durability::Block);
    let fs = FaultFs::new(Arc::new(MemFs::new()));
    let tier = PfsTier::open_on(config, Arc::new(fs.clone())).unwrap();
    let rule = Rule {
        call: Call::Touch,
        suffix: ".writer",
        first: 0,
        times: u64::MAX,
        fault: Fault::Errno(libc::ESTALE),
    };
    fs.set(&[rule]);
    assert_eq!(put(&tier, 1, 1, 5000), Outcome::Stored);
    eventually("the sign of life was tried", || fs.injected() > 0);
    eventually("the error is counted", || tier.file_stats().io_errors > 0);
    assert_eq!(put(&tier, 2, 1, 5000), Outcome::Stored);
    (1..3).for_each(|key| expect(&tier, key, 1, 5000));
    fs.set(&[]);
    tier.flush(soon()).unwrap();
}

/// What a writer that died has left, in a folder of the file system.
fn copy_of_remains(config: &PfsConfig) -> tempfile::TempDir {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let remains = with_remains(config);
    for name in names(&remains, Path::new(DIR), "") {
        let bytes = remains.contents(&Path::new(DIR).join(&name)).unwrap();
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

/// The calls that go another way there: those on segments.
#[test]
fn every_call_of_a_queue_fails_in_every_way_and_no_byte_is_wrong() {
    if !has_uring() {
        return;
    }
    let remains = small(Durability::Block);
    let config = |folder: &tempfile::TempDir| PfsConfig {
        dir: folder.path().to_owned(),
        io_engine: IoEngine::Uring,
        ..remains.clone()
    };
    let (folder, dry) = (copy_of_remains(&remains), FaultFs::new(Arc::new(RealFs)));
    use_all(&dry, &config(&folder));
    let (mut runs, mut injected) = (0, 0);
    for ((call, kind), times) in dry.counts() {
        if kind != "seg" || !matches!(call, Call::Read | Call::Write | Call::Sync) {
            continue;
        }
        for rule in rules(call, &kind, times) {
            let (folder, fs) = (copy_of_remains(&remains), FaultFs::new(Arc::new(RealFs)));
            let _told = Told(rule);
            fs.set(&[rule]);
            let (acknowledged, given_up) = use_all(&fs, &config(&folder));
            runs += 1;
            injected += u64::from(fs.injected() > 0);
            let flipped = matches!(rule.fault, Fault::Flip(_));
            aftermath(Arc::new(RealFs), &config(&folder), &acknowledged, given_up, flipped);
        }
    }
    println!("{runs} runs, {injected} with a fault");
    assert!(runs > 100 && injected * 10 > runs * 9, "{injected} of {runs} runs met their fault");
}

/// Says what was injected when a check fails.
struct Told(Rule);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("with {:?}", self.0);
        }
    }
}

/// All is good again: a new writer finds only what was put, and can write.
fn aftermath(fs: Arc<dyn Fs>, config: &PfsConfig, acknowledged: &Acknowledged, given_up: u64, flipped: bool) {
    let tier = PfsTier::open_on(config.clone(), fs).unwrap();
    let mut lost = 0;
    for (key, version) in acknowledged {
        let got = get(&tier, *key, ROOM);
        if let (Some(version), Ok(bytes)) = (version, &got) {
            // A refused put in between may have come to be there; an older version may not, unless the newer was damaged.
            let found = version_of(*key, bytes);
            assert!(
                found.is_some_and(|found| flipped || (*version..9).contains(&found)),
                "key {key}: {found:?}"
            );
        }
        lost += u64::from(version.is_some() && got.is_err());
        judge(&tier, *key);
    }
    // What was acknowledged is there, or was given up and counted; but for bits that were flipped on the way to the medium.
    let counted = given_up + tier.stats().evictions;
    assert!(flipped || lost <= counted, "{lost} blocks are lost, {counted} counted");
    assert_eq!(put(&tier, 500, 1, 5000), Outcome::Stored);
    expect(&tier, 500, 1, 5000);
}

fn segments(fs: &MemFs) -> Vec<PathBuf> {
    names(fs, Path::new(DIR), ".seg").iter().map(|name| Path::new(DIR).join(name)).collect()
}

/// Three closed segments of one writer.
fn written() -> (MemFs, PfsConfig) {
    let (fs, config) = (MemFs::new(), PfsConfig { segment_bytes: Some(128 << 10), ..config(4 * MIB) });
    let tier = open(&fs, &config);
    (0..KEYS).for_each(|key| assert_eq!(put(&tier, key, 1, 20_000), Outcome::Stored));
    drop(tier);
    (fs, config)
}

/// Opens with logs, without logs (footers), and without either (headers): no wrong byte in any way.
fn look(fs: &MemFs, config: &PfsConfig) -> usize {
    let mut hits = 0;
    for way in 0..3 {
        let image = fs.image();
        if way > 0 {
            names(&image, Path::new(DIR), ".log").iter().for_each(|name| {
                image.remove(&Path::new(DIR).join(name)).unwrap();
            });
        }
        if way > 1 {
            segments(&image)
                .iter()
                .for_each(|path| image.damage(path, |file| file.truncate(file.len().saturating_sub(4096))));
        }
        let tier = open(&image, config);
        for key in 0..KEYS {
            match get(&tier, key, ROOM) {
                Ok(bytes) => {
                    assert!(*bytes == *content(key, 1, 20_000), "key {key}: other bytes");
                    hits += usize::from(way == 0);
                }
                Err(outcome) => {
                    assert!(
                        matches!(outcome, Outcome::Miss(MissReason::Absent | MissReason::Corrupt)),
                        "{outcome:?}"
                    );
                }
            }
        }
    }
    hits
}

#[test]
fn every_flipped_zeroed_swapped_or_replayed_range_is_noticed() {
    let (fs, config) = written();
    let all = usize::try_from(KEYS).unwrap();
    assert_eq!(look(&fs, &config), all);
    let paths = segments(&fs);
    assert!(paths.len() >= 3);
    let originals: Vec<Vec<u8>> = paths.iter().map(|path| fs.contents(path).unwrap()).collect();
    let mut random = Random::new(7);
    let mut noticed = 0;
    for round in 0..120 {
        let image = fs.image();
        let which = random.below(paths.len() as u64) as usize;
        let pages = (originals[which].len() / 4096) as u64;
        let (at, other) = ((random.below(pages) * 4096) as usize, (random.below(pages) * 4096) as usize);
        let donor = &originals[(which + 1) % paths.len()];
        let bit = random.below(4096 * 8) as usize;
        image.damage(&paths[which], |file| match round % 5 {
            0 => file[at + bit / 8] ^= 1 << (bit % 8),
            1 => file[at..at + 4096].fill(0),
            2 => {
                let page = file[at..at + 4096].to_vec();
                file.copy_within(other..other + 4096, at);
                file[other..other + 4096].copy_from_slice(&page);
            }
            // A page of another segment, or the whole of it, in this one's place.
            3 => file[at..at + 4096].copy_from_slice(&donor[at.min(donor.len() - 4096)..][..4096]),
            _ => file.clone_from(donor),
        });
        noticed += usize::from(look(&image, &config) < all);
    }
    assert!(noticed > 50, "only {noticed} of 120 damages cost a block: the test damages too little");
}

#[test]
fn a_file_may_end_anywhere() {
    let (fs, config) = written();
    for path in segments(&fs) {
        let len = fs.contents(&path).unwrap().len();
        for cut in (0..len).step_by(7919).chain([len - 1, 4095, 4096, 4097]) {
            let image = fs.image();
            image.damage(&path, |file| file.truncate(cut));
            look(&image, &config);
        }
    }
    for name in names(&fs, Path::new(DIR), ".log") {
        for cut in [0, 1, 4095, 4096, 4200, 4096 + 128 * 5] {
            let image = fs.image();
            image.damage(&Path::new(DIR).join(&name), |file| file.truncate(cut));
            assert_eq!(
                look(&image, &config),
                usize::try_from(KEYS).unwrap(),
                "footers tell what the log does not"
            );
        }
    }
}
