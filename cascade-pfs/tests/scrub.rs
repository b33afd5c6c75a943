//! A scrub finds every changed byte of a segment, and a repair puts the damage out of use and nothing else.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cascade_core::batch::Outcome;
use cascade_core::tier::{Lookup, Tier};
use cascade_pfs::PfsConfig;
use cascade_pfs::fs::Fs;
use cascade_pfs::inspect::{Life, inspect, leftovers};
use cascade_pfs::scrub::{Options, Progress, QUARANTINE, Report, What, scrub};
use cascade_pfs::testing::{MemFs, Random};
use common::*;

const KEYS: u64 = 14;
const LEN: usize = 20_000;

/// Some closed segments of one writer.
fn written() -> (MemFs, PfsConfig) {
    let (fs, config) = (MemFs::new(), PfsConfig { segment_bytes: Some(128 << 10), ..config(4 * MIB) });
    let tier = open(&fs, &config);
    (0..KEYS).for_each(|key| assert_eq!(put(&tier, key, 1, LEN), Outcome::Stored));
    drop(tier);
    (fs.image(), config)
}

fn look(fs: &MemFs, repair: bool) -> Report {
    let options = Options { threads: 1, repair, ..Options::default() };
    scrub(Path::new(DIR), &(Arc::new(fs.clone()) as Arc<dyn Fs>), &options, &Progress::default()).unwrap()
}

fn segments(fs: &MemFs) -> Vec<PathBuf> {
    names(fs, Path::new(DIR), ".seg").iter().map(|name| Path::new(DIR).join(name)).collect()
}

fn without_logs(fs: &MemFs) -> MemFs {
    let image = fs.image();
    for name in names(&image, Path::new(DIR), ".log") {
        image.remove(&Path::new(DIR).join(name)).unwrap();
    }
    image
}

#[test]
fn what_is_sound_is_sound() {
    let (fs, _) = written();
    for fs in [fs.clone(), without_logs(&fs)] {
        let report = look(&fs, true);
        assert!(report.findings.is_empty() && report.is_complete, "{:?}", report.findings);
        assert_eq!((report.sound, report.lost, report.segments), (KEYS, 0, segments(&fs).len() as u64));
        let bytes: usize = segments(&fs).iter().map(|path| fs.contents(path).unwrap().len()).sum();
        assert_eq!(report.bytes, bytes as u64);
    }
}

#[test]
fn every_changed_range_of_a_segment_is_found() {
    let (fs, _) = written();
    let paths = segments(&fs);
    assert!(paths.len() >= 3);
    let originals: Vec<Vec<u8>> = paths.iter().map(|path| fs.contents(path).unwrap()).collect();
    let (mut random, mut changed) = (Random::new(11), 0);
    for base in [fs.clone(), without_logs(&fs)] {
        for (which, original) in originals.iter().enumerate() {
            let donor = &originals[(which + 1) % originals.len()];
            for at in (0..original.len()).step_by(512) {
                let mut file = original.clone();
                let page = at / 4096 * 4096;
                let len = 1 + random.below(512) as usize;
                match random.below(6) {
                    0 | 1 => file[at + random.below(512) as usize] ^= 1 << random.below(8),
                    2 => file[at..at + len].fill(0),
                    3 => file.copy_within(
                        page..page + 4096,
                        random.below((original.len() / 4096) as u64) as usize * 4096,
                    ),
                    4 => file[at..at + len].copy_from_slice(&donor[at.min(donor.len() - len)..][..len]),
                    _ => {
                        let other = random.below((file.len() - len) as u64) as usize;
                        let range = file[at..at + len].to_vec();
                        file.copy_within(other..other + len, at);
                        file[other..other + len].copy_from_slice(&range);
                    }
                }
                if file == *original {
                    continue;
                }
                changed += 1;
                let image = base.image();
                image.damage(&paths[which], |bytes| *bytes = file);
                let report = look(&image, false);
                assert!(report.damages() > 0, "segment {which}, at {at}: {report:?}");
            }
        }
    }
    println!("{changed} changes, each found");
    assert!(changed > 1000);
}

#[test]
fn whole_files_that_are_cut_swapped_or_gone_are_found() {
    let (fs, _) = written();
    let paths = segments(&fs);
    let first = fs.contents(&paths[0]).unwrap();
    for cut in [0, 1, 4095, 4096, 4097, 50_000, first.len() - 4096, first.len() - 1] {
        let image = fs.image();
        image.damage(&paths[0], |file| file.truncate(cut));
        assert!(look(&image, false).damages() > 0, "cut to {cut}");
    }
    let image = fs.image();
    image.damage(&paths[0], |file| file.extend([0; 4096]));
    assert!(look(&image, false).damages() > 0, "a page more");
    let image = fs.image();
    let other = fs.contents(&paths[1]).unwrap();
    image.damage(&paths[0], |file| *file = other);
    let report = look(&image, false);
    assert!(report.lost > 0 && report.lost < KEYS, "{report:?}");
    let image = fs.image();
    image.remove(&paths[0]).unwrap();
    let report = look(&image, false);
    assert!(report.lost > 0 && report.findings.iter().all(|finding| finding.what == What::Missing));
}

#[test]
fn a_repair_hides_damaged_blocks_and_nothing_else() {
    let (fs, config) = written();
    let path = segments(&fs).remove(0);
    // The payload of the first block, the padding behind the second, the header of the third.
    let record = 4096 + 20_480;
    fs.damage(&path, |file| {
        file[4096 + 4096 + 7] ^= 1;
        file[4096 + 2 * record - 1] = 9;
        file[4096 + 2 * record + 60] ^= 1;
    });
    let tier = open(&fs, &config);
    let report = look(&fs, false);
    let found: Vec<&str> = report.findings.iter().map(|finding| finding.what.name()).collect();
    assert_eq!((found, report.lost), (vec!["payload", "padding", "header"], 1));
    assert!(lookup(&tier, 0).is_hit(), "nothing was done");
    let report = look(&fs, true);
    assert_eq!(report.findings.iter().filter(|finding| finding.is_repaired).count(), 1);
    eventually("who follows logs does not offer it", || !lookup(&tier, 0).is_hit());
    (1..KEYS).for_each(|key| expect(&tier, key, 1, LEN));
    assert_eq!(tier.stats().corrupt, 0, "it was not found by a fetch");
    drop(tier);
    // Known by now, and no reason to write another log.
    let files = names(&fs, Path::new(DIR), "").len();
    let report = look(&fs, true);
    assert_eq!((report.lost, report.damages(), names(&fs, Path::new(DIR), "").len()), (0, 2, files));
    // Also without the log that said so first: whoever opens takes it over.
    let tier = open(&fs, &config);
    assert!(!lookup(&tier, 0).is_hit());
    (1..KEYS).for_each(|key| expect(&tier, key, 1, LEN));
    assert_eq!(put(&tier, 0, 2, LEN), Outcome::Stored);
    expect(&tier, 0, 2, LEN);
}

#[test]
fn a_segment_without_a_sound_block_is_moved_away() {
    let (fs, config) = written();
    let path = segments(&fs).remove(1);
    fs.damage(&path, |file| file.iter_mut().step_by(100).for_each(|byte| *byte ^= 0x55));
    let lost = look(&fs, false).lost;
    let report = look(&fs, true);
    assert_eq!((report.moved, report.lost), (1, lost));
    assert!(!segments(&fs).contains(&path) && segments(&fs).len() >= 2);
    let moved = Path::new(DIR).join(QUARANTINE).join(path.file_name().unwrap());
    assert!(fs.contents(&moved).is_some());
    let tier = open(&fs, &config);
    assert_eq!(tier.stats().blocks, KEYS - lost);
    assert_eq!(look(&fs, false).damages(), 0);
}

#[test]
fn a_log_that_is_damaged_within_is_found_and_what_it_forgot_is_said_again() {
    let (fs, config) = written();
    let tier = open(&fs, &config);
    (0..4).for_each(|key| assert_eq!(put(&tier, 100 + key, 1, LEN), Outcome::Stored));
    assert_eq!(delete(&tier, 1), Outcome::Deleted);
    drop(tier);
    let image = fs.image();
    let logs = names(&image, Path::new(DIR), ".log");
    let log = logs
        .iter()
        .map(|name| Path::new(DIR).join(name))
        .min_by_key(|path| image.contents(path).unwrap().len());
    image.damage(&log.unwrap(), |file| file[4096 + 130] ^= 1);
    let report = look(&image, true);
    assert!(report.findings.iter().any(|finding| matches!(finding.what, What::LogRecord(_))), "{report:?}");
    let tier = open(&image, &config);
    assert_eq!(lookup(&tier, 1), Lookup::Miss(cascade_core::tier::MissReason::Absent));
    (2..KEYS).for_each(|key| expect(&tier, key, 1, LEN));
    (0..4).for_each(|key| expect(&tier, 100 + key, 1, LEN));
}

#[test]
fn what_the_death_of_a_writer_leaves_is_no_damage_and_what_lives_is_left_alone() {
    let (fs, config) = (MemFs::new(), PfsConfig { segment_bytes: Some(256 << 10), ..config(4 * MIB) });
    let tier = open(&fs, &config);
    (0..5).for_each(|key| assert_eq!(put(&tier, key, 1, LEN), Outcome::Stored));
    let report = look(&fs, true);
    assert_eq!((report.findings.len(), report.sound), (0, 5), "{report:?}");
    let image = fs.image();
    let path = segments(&image).remove(0);
    image.damage(&path, |file| file.extend([7; 10_000]));
    let log = Path::new(DIR).join(names(&image, Path::new(DIR), ".log").remove(0));
    image.damage(&log, |file| file.extend([7; 100]));
    let report = look(&image, true);
    let mut found: Vec<&str> = report.findings.iter().map(|finding| finding.what.name()).collect();
    found.sort_unstable();
    assert_eq!((found, report.damages(), report.sound), (vec!["log_tail", "tail"], 0, 5));
}

#[test]
fn an_inspection_tells_who_lives_and_gc_takes_what_nobody_needs() {
    let (fs, config) = written();
    let fs: Arc<dyn Fs> = Arc::new(fs);
    let dir = Path::new(DIR);
    let seen = inspect(dir, &fs).unwrap();
    assert_eq!(seen.writers.len(), 1);
    let writer = &seen.writers[0];
    assert_eq!((writer.life, writer.blocks), (Life::Ended, KEYS));
    assert!(writer.segments >= 3);
    assert!(writer.live_bytes > 0 && writer.file_bytes > writer.live_bytes && writer.log_bytes > 4096);
    let tier = cascade_pfs::PfsTier::open_on(config, Arc::clone(&fs)).unwrap();
    assert_eq!(delete(&tier, 1), Outcome::Deleted);
    assert_eq!(put(&tier, 50, 1, LEN), Outcome::Stored);
    let seen = inspect(dir, &fs).unwrap();
    let lives: Vec<Life> = seen.writers.iter().map(|writer| writer.life).collect();
    assert_eq!(lives, [Life::Lives, Life::Ended]);
    assert_eq!(seen.writers[1].claimed_by, Some(seen.writers[0].writer));
    assert_eq!(seen.writers.iter().map(|writer| writer.blocks).sum::<u64>(), KEYS);
    let hour = std::time::Duration::from_secs(3600);
    assert_eq!(leftovers(dir, &fs, hour, true).unwrap(), [], "everything is of use");
    drop(tier);
    for name in fs.list(dir).unwrap().iter().filter(|name| name.ends_with(".seg")) {
        fs.remove(&dir.join(name)).unwrap();
    }
    let found = leftovers(dir, &fs, hour, false).unwrap();
    assert_eq!(found.len(), 5, "{found:?}");
    assert!(leftovers(dir, &fs, hour, true).unwrap().iter().all(|file| file.is_removed));
    assert!(fs.list(dir).unwrap().is_empty());
}

#[test]
fn a_put_that_came_too_late_leaves_no_damage() {
    use cascade_core::batch::{Batch, Op};
    use cascade_core::memory::Piece;
    use cascade_core::testing::bytes::{content, id};
    use cascade_pfs::testing::{Call, Fault, FaultFs, Rule};
    use std::time::{Duration, Instant};
    let (memory, config) = (MemFs::new(), config(4 * MIB));
    let fs = FaultFs::new(Arc::new(memory.clone()));
    let tier = cascade_pfs::PfsTier::open_on(config.clone(), Arc::new(fs.clone())).unwrap();
    assert_eq!(put(&tier, 0, 1, LEN), Outcome::Stored);
    let stall = Fault::Stall(Duration::from_millis(300));
    fs.set(&[Rule { call: Call::Write, suffix: ".seg", first: 0, times: 1, fault: stall }]);
    let store = Op::Store { id: id(1), from: Piece::shared(content(1, 1, LEN)).into(), meta: KEEP };
    let batch =
        Batch { deadline: Some(Instant::now() + Duration::from_millis(100)), ..Batch::new(vec![store]) };
    let late = tier.submit(batch).wait(soon()).unwrap();
    assert!(matches!(late[0], Outcome::Refused(_)), "{late:?}");
    assert_eq!(put(&tier, 2, 1, LEN), Outcome::Stored);
    drop(tier);
    for image in [memory.image(), without_logs(&memory)] {
        let report = look(&image, false);
        assert!(report.findings.is_empty(), "{:?}", report.findings);
        let tier = open(&image, &config);
        expect(&tier, 0, 1, LEN);
        expect(&tier, 2, 1, LEN);
        assert!(!lookup(&tier, 1).is_hit());
    }
}
