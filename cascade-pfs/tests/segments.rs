//! Segments that follow each other: what is written to one while the one before is closed, what each is when a call fails, and
//! the room that was set aside for them.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cascade_core::ErrorKind;
use cascade_core::batch::{Batch, Op, Outcome, Refusal};
use cascade_core::memory::{HostBuffer, Piece};
use cascade_core::testing::bytes::{content, id};
use cascade_core::tier::{Lookup, MissReason, Tier};
use cascade_pfs::testing::{Call, Fault, FaultFs, MemFs, Rule};
use cascade_pfs::{Durability, PfsConfig, PfsTier};
use common::*;

const KEYS: u64 = 24;

/// Segments of a few blocks each, and calls so short that most blocks take several.
fn small(durability: Durability) -> PfsConfig {
    PfsConfig {
        durability,
        segment_bytes: Some(256 << 10),
        io_bytes: 64 << 10,
        write_threads: 2,
        read_threads: 1,
        ..config(32 * MIB)
    }
}

fn len(key: u64) -> usize {
    [5000, 30_000, 70_001, 140_000][(key % 4) as usize]
}

fn store(key: u64) -> Op {
    Op::Store { id: id(key), from: Piece::shared(content(key, 1, len(key))).into(), meta: KEEP }
}

fn rule(call: Call, suffix: &'static str, first: u64, fault: Fault) -> Rule {
    Rule { call, suffix, first, times: 1, fault }
}

fn open_on(fs: &FaultFs, config: &PfsConfig) -> PfsTier {
    PfsTier::open_on(config.clone(), Arc::new(fs.clone())).unwrap()
}

fn stored(tier: &PfsTier, keys: std::ops::Range<u64>) -> Vec<Outcome> {
    run(tier, keys.map(store).collect())
}

fn bytes_of(fs: &MemFs, suffix: &str) -> Vec<usize> {
    let paths = names(fs, Path::new(DIR), suffix);
    paths.iter().map(|name| fs.contents(&Path::new(DIR).join(name)).unwrap().len()).collect()
}

/// Everything at once, so that several segments have writes under way, with one call that fails: whatever was acknowledged is
/// there now, after the death of the process, and after a loss of power.
#[test]
fn what_is_acknowledged_while_segments_overlap_survives_any_call_that_fails() {
    let config = small(Durability::Block);
    let calls =
        [(Call::Write, 40), (Call::Sync, 12), (Call::Truncate, 8), (Call::SetAside, 8), (Call::Create, 8)];
    let faults = [Fault::Errno(libc::EIO), Fault::Errno(libc::ENOSPC), Fault::Short(5000)];
    let (mut met, mut refused) = (0, 0);
    for (call, times) in calls {
        for (first, fault) in (0..times).flat_map(|first| faults.map(|fault| (first, fault))) {
            if matches!(fault, Fault::Short(_)) && call != Call::Write {
                continue;
            }
            let memory = MemFs::new().with_direct();
            let fs = FaultFs::new(Arc::new(memory.clone()));
            fs.set(&[rule(call, ".seg", first, fault)]);
            let tier = open_on(&fs, &config);
            let outcomes = stored(&tier, 0..KEYS);
            met += fs.injected();
            let what = format!("{call:?} {first} {fault:?}");
            for (image, seed) in [(memory.clone(), None), (memory.image(), None)]
                .into_iter()
                .chain((0..3).map(|seed| (memory.crash(first * 7 + seed), Some(seed))))
            {
                let other = open(&image, &config);
                for (key, outcome) in (0..KEYS).zip(&outcomes) {
                    match (get(&other, key, 140_000), outcome) {
                        (Ok(bytes), _) => assert!(*bytes == *content(key, 1, len(key)), "{what}, key {key}"),
                        (Err(found), Outcome::Stored) => {
                            panic!("{what}, {seed:?}: key {key} is lost: {found:?}")
                        }
                        (Err(_), Outcome::Refused(_)) => refused += 1,
                        (Err(_), other) => panic!("{what}: a put was {other:?}"),
                    }
                }
            }
            fs.set(&[]);
            assert_eq!(put(&tier, 500, 1, 5000), Outcome::Stored, "{what}: the writer goes on");
            assert!(tier.file_stats().file_bytes <= config.capacity_bytes);
        }
    }
    assert!(met > 150 && refused > 100, "{met} faults, {refused} blocks refused: the test does too little");
}

#[test]
fn blocks_of_the_next_segment_are_acknowledged_while_one_is_being_closed() {
    let memory = MemFs::new().with_direct();
    let fs = FaultFs::new(Arc::new(memory.clone()));
    let config = small(Durability::Segment);
    let tier = open_on(&fs, &config);
    // The first sync of a segment is that of its closing.
    fs.set(&[rule(Call::Sync, ".seg", 0, Fault::Hold)]);
    assert_eq!(stored(&tier, 0..12), [Outcome::Stored; 12]);
    eventually("a segment is being closed", || fs.held() == 1);
    assert!(names(&memory, Path::new(DIR), ".seg").len() > 1);
    (0..12).for_each(|key| expect(&tier, key, 1, len(key)));
    let early = tier.flush(Instant::now() + Duration::from_millis(50));
    assert_eq!(early.unwrap_err().kind(), ErrorKind::Deadline, "a flush waits for it");
    fs.release();
    tier.flush(soon()).unwrap();
    for seed in 0..20 {
        let tier = open(&memory.crash(seed), &config);
        (0..12).for_each(|key| expect(&tier, key, 1, len(key)));
    }
}

#[test]
fn a_segment_that_could_not_be_closed_is_told_by_the_next_flush() {
    let memory = MemFs::new().with_direct();
    let fs = FaultFs::new(Arc::new(memory.clone()));
    let tier = open_on(&fs, &small(Durability::Segment));
    fs.set(&[rule(Call::Sync, ".seg", 0, Fault::Errno(libc::EIO))]);
    assert_eq!(stored(&tier, 0..12), [Outcome::Stored; 12]);
    assert_eq!(tier.flush(soon()).unwrap_err().kind(), ErrorKind::System);
    assert_eq!(tier.file_stats().poisoned, 1);
    tier.flush(soon()).unwrap();
    (0..12).for_each(|key| expect(&tier, key, 1, len(key)));
}

/// A log whose sync failed is not synced again, even where no other can be begun just then.
#[test]
fn a_log_that_could_not_be_synced_is_never_believed_again() {
    let fs = FaultFs::new(Arc::new(MemFs::new()));
    let tier = open_on(&fs, &small(Durability::Segment));
    assert_eq!(stored(&tier, 0..3), [Outcome::Stored; 3]);
    fs.set(&[
        rule(Call::Sync, ".log", 0, Fault::Errno(libc::EIO)),
        rule(Call::Create, ".writer", 0, Fault::Errno(libc::EIO)),
    ]);
    for _ in 0..2 {
        assert_eq!(tier.flush(soon()).unwrap_err().kind(), ErrorKind::System);
    }
    assert_eq!(fs.injected(), 2);
    tier.flush(soon()).unwrap();
    assert_eq!(stored(&tier, 3..6), [Outcome::Stored; 3]);
    (0..6).for_each(|key| expect(&tier, key, 1, len(key)));
}

/// A disk with room for some blocks, and not for a segment: what ext4 gave of it before it was full goes back, else the log had
/// no room.
#[test]
fn a_segment_that_has_no_room_set_aside_takes_no_more_than_it_needs() {
    let memory = MemFs::new().with_direct();
    let tier = open(&memory, &small(Durability::Block));
    let before = memory.used_bytes();
    memory.set_limit(Some(before + 100_000));
    assert_eq!(put(&tier, 9, 1, 30_000), Outcome::Stored);
    assert!(memory.used_bytes() < before + 50_000, "{} of {before}", memory.used_bytes());
    assert_eq!(delete(&tier, 9), Outcome::Deleted, "the log has room");
    assert_eq!(put(&tier, 10, 1, 140_000), Outcome::Refused(Refusal::Full));
    assert_eq!(lookup(&tier, 10), Lookup::Miss(MissReason::Absent));
    memory.set_limit(None);
    assert_eq!(put(&tier, 10, 1, 140_000), Outcome::Stored);
    expect(&tier, 10, 1, 140_000);
}

#[test]
fn the_room_of_a_writer_that_was_killed_goes_back_when_it_is_adopted() {
    let config = small(Durability::Block);
    let memory = MemFs::new().with_direct();
    let tier = open(&memory, &config);
    assert_eq!(put(&tier, 0, 1, 5000), Outcome::Stored);
    let killed = memory.image();
    assert_eq!(bytes_of(&killed, ".seg"), [256 << 10], "room is set aside");
    let other = open(&killed, &config);
    assert_eq!(bytes_of(&killed, ".seg"), [4096 + 4096 + 8192]);
    assert_eq!(other.file_stats().file_bytes, 4096 + 4096 + 8192, "and it counts no more");
    expect(&other, 0, 1, 5000);
    // One that was killed before its first record was whole; and one with something behind the last record stays as it is.
    for (first, left) in [(4096, 4096), (100_000, 256 << 10)] {
        let killed = memory.image();
        let [log, segment] =
            [".log", ".seg"].map(|end| Path::new(DIR).join(names(&killed, Path::new(DIR), end).remove(0)));
        killed.damage(&log, |bytes| bytes.truncate(4096));
        killed.damage(&segment, |bytes| {
            bytes[4096..].fill(0);
            bytes[first] = u8::from(first > 4096);
        });
        let other = open(&killed, &config);
        assert_eq!(bytes_of(&killed, ".seg"), [left]);
        assert_eq!(other.file_stats().file_bytes, left as u64, "what is there counts");
    }
}

#[test]
fn a_poisoned_segment_keeps_no_room() {
    let memory = MemFs::new().with_direct();
    let fs = FaultFs::new(Arc::new(memory.clone()));
    let tier = open_on(&fs, &small(Durability::Segment));
    assert_eq!(put(&tier, 0, 1, 5000), Outcome::Stored);
    fs.set(&[rule(Call::Sync, ".seg", 0, Fault::Errno(libc::EIO))]);
    assert_eq!(tier.flush(soon()).unwrap_err().kind(), ErrorKind::System);
    // The next block begins another segment.
    assert_eq!(put(&tier, 1, 1, 5000), Outcome::Stored);
    tier.flush(soon()).unwrap();
    let mut lens = bytes_of(&memory, ".seg");
    lens.sort_unstable();
    assert_eq!(lens, [4096 + 4096 + 8192, 256 << 10]);
    assert_eq!(tier.file_stats().file_bytes, lens.iter().sum::<usize>() as u64, "and what is there counts");
    expect(&tier, 0, 1, 5000);
}

#[test]
fn the_file_of_the_next_segment_is_made_while_blocks_are_written() {
    let memory = MemFs::new().with_direct();
    let fs = FaultFs::new(Arc::new(memory.clone()));
    let config = small(Durability::None);
    // The first time it is for the first segment, the second for the one that follows.
    fs.set(&[rule(Call::SetAside, ".seg", 1, Fault::Hold)]);
    let tier = open_on(&fs, &config);
    assert_eq!(stored(&tier, 0..2), [Outcome::Stored; 2]);
    assert_eq!(fs.held(), 0, "less than half is written");
    assert_eq!(put(&tier, 100, 1, 100_000), Outcome::Stored);
    eventually("the next file is being made", || fs.held() == 1);
    assert_eq!(put(&tier, 101, 1, 5000), Outcome::Stored, "nobody waits for it");
    assert_eq!(bytes_of(&memory, ".seg"), [256 << 10], "and nobody sees it");
    fs.release();
    eventually("it takes room", || memory.used_bytes() > 512 << 10);
    let killed = memory.image();
    assert!(killed.used_bytes() < 300 << 10, "who dies leaves nothing: {}", killed.used_bytes());
    assert_eq!(put(&tier, 102, 1, 100_000), Outcome::Stored);
    let others = names(&memory, Path::new(DIR), ".seg").len();
    let asked = fs.counts()[&(Call::SetAside, "seg".to_owned())];
    assert_eq!((others, asked), (2, 2), "the second segment has the file that was made");
    expect(&tier, 102, 1, 100_000);
    drop(tier);
    assert!(memory.used_bytes() < 400 << 10, "what was not needed is gone: {}", memory.used_bytes());
    let again = open(&memory, &config);
    for (key, len) in [(100, 100_000), (101, 5000), (102, 100_000)] {
        expect(&again, key, 1, len);
    }
}

#[test]
fn files_that_have_no_name_yet_stay_within_the_capacity() {
    let memory = MemFs::new().with_direct();
    let config = PfsConfig { capacity_bytes: 5 * (256 << 10), ..small(Durability::None) };
    let tier = open(&memory, &config);
    let (mut ahead, mut evicted) = (0, 0);
    for key in 0..200 {
        assert_eq!(put(&tier, key, 1, len(key)), Outcome::Stored);
        // A file that is made or closed beside this changes what is counted.
        let logs: usize = [".log", ".writer"].map(|end| bytes_of(&memory, end).iter().sum()).iter().sum();
        let segments: usize = bytes_of(&memory, ".seg").iter().sum();
        let nameless = memory.used_bytes().saturating_sub((logs + segments) as u64);
        ahead += u64::from(nameless > 0);
        assert!(segments as u64 + nameless <= config.capacity_bytes, "{segments} and {nameless}");
        evicted = tier.stats().evictions;
    }
    assert!(ahead > 10 && evicted > 100, "{ahead}, {evicted}: the test does too little");
}

#[test]
fn a_fetch_of_a_block_that_is_being_written_waits_for_it() {
    let fs = FaultFs::new(Arc::new(MemFs::new()));
    let tier = open_on(&fs, &small(Durability::None));
    assert_eq!(put(&tier, 0, 1, 5000), Outcome::Stored);
    for (key, fault) in [(1, None), (3, Some(Fault::Errno(libc::EIO)))] {
        let second = fault.map(|fault| rule(Call::Write, ".seg", 1, fault));
        fs.set(
            &[Some(rule(Call::Write, ".seg", 0, Fault::Hold)), second]
                .map(Option::into_iter)
                .into_iter()
                .flatten()
                .collect::<Vec<_>>(),
        );
        let writing = tier.submit(Batch::new(vec![store(key)]));
        eventually("it is written", || fs.held() == 1);
        assert_eq!(lookup(&tier, key), Lookup::Pending);
        let mut buffer = HostBuffer::zeroed(140_000);
        let fetch = |into: Piece, deadline| Batch {
            ops: vec![Op::Fetch { id: id(key), into: into.into() }],
            deadline,
        };
        let waits = tier.submit(fetch(buffer.piece(), None));
        let late = HostBuffer::zeroed(140_000);
        let soon_over = Some(Instant::now() + Duration::from_millis(20));
        let late = tier.submit(fetch(late.piece(), soon_over)).wait(soon());
        assert_eq!(late, Some(vec![Outcome::Miss(MissReason::Deadline)]));
        assert!(!waits.poll(), "it is neither here nor absent");
        fs.release();
        let (written, fetched) = (writing.wait(soon()).unwrap(), waits.wait(soon()).unwrap());
        match fault {
            None => {
                assert_eq!(written, [Outcome::Stored]);
                assert!(matches!(fetched[0], Outcome::Fetched(_)), "{fetched:?}");
                assert!(buffer.bytes_mut().unwrap()[..len(key)] == *content(key, 1, len(key)));
            }
            Some(_) => {
                assert_eq!(written, [Outcome::Refused(Refusal::Unavailable)]);
                assert_eq!(fetched, [Outcome::Miss(MissReason::Absent)]);
            }
        }
    }
}

/// A put under way when its process was killed: the kernel has the write yet. Whoever looks first finds the block; or nobody ever does.
#[test]
fn a_late_write_of_a_killed_process_is_waited_for_before_anybody_says_that_there_is_no_such_block() {
    let (fs, config) = (MemFs::new(), config(4 * MIB));
    let tier = open(&fs, &config);
    (0..2).for_each(|key| assert_eq!(put(&tier, key, 1, 20_000), Outcome::Stored));
    let image = fs.image();
    let path = |suffix| Path::new(DIR).join(&names(&image, Path::new(DIR), suffix)[0]);
    let (segment, log) = (path(".seg"), path(".log"));
    let whole = image.contents(&segment).unwrap();
    let (record, second) = (4096 + 20_480, 4096 + 4096 + 20_480);
    assert_eq!(whole.len(), second + record);
    // Its acknowledgement was not logged, and its bytes are not there yet.
    image.damage(&log, |file| file.truncate(file.len() - 128));
    image.damage(&segment, |file| file.truncate(second));
    image.leave_late(&segment, second as u64, &whole[second..]);
    assert_eq!(image.contents(&segment).unwrap().len(), second);
    let found = |fs: &MemFs| {
        let tier = open(fs, &config);
        expect(&tier, 0, 1, 20_000);
        get(&tier, 1, 20_000).is_ok_and(|bytes| *bytes == *content(1, 1, 20_000))
    };
    let first = found(&image);
    image.land();
    assert_eq!(found(&image), first, "a block came to light after an answer that it is not there");
    assert!(first, "a write that was waited for is there");
}
