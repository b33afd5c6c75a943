//! Files of another version of the format in the directory: named, counted, and left alone by everything.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cascade_core::batch::Outcome;
use cascade_core::digest;
use cascade_core::tier::{Lookup, MissReason, Tier};
use cascade_pfs::fs::Fs;
use cascade_pfs::inspect::{inspect, leftovers};
use cascade_pfs::scrub::{Options, Progress, What, scrub};
use cascade_pfs::testing::MemFs;
use cascade_pfs::{Durability, PfsConfig};
use common::*;

const KEYS: u64 = 12;
const LEN: usize = 50_000;
const ENDS: [&str; 3] = [".writer", ".log", ".seg"];

fn config() -> PfsConfig {
    PfsConfig {
        segment_bytes: Some(256 << 10),
        adopt_after: Duration::ZERO,
        durability: Durability::Block,
        ..common::config(MIB)
    }
}

/// The first page says so, under a digest that is right.
fn change_version(bytes: &mut [u8], (version, oldest_reader): (u32, u32)) {
    bytes[8..12].copy_from_slice(&version.to_le_bytes());
    bytes[12..16].copy_from_slice(&oldest_reader.to_le_bytes());
    let sum = digest::crc64(&bytes[..4088]);
    bytes[4088..4096].copy_from_slice(&sum.to_le_bytes());
}

fn files(fs: &MemFs, ends: &[&str]) -> BTreeMap<PathBuf, Vec<u8>> {
    let of = |end: &&str| names(fs, Path::new(DIR), end);
    let paths = ends.iter().flat_map(of).map(|name| Path::new(DIR).join(name));
    paths.map(|path| (path.clone(), fs.contents(&path).unwrap())).collect()
}

/// What a writer left behind that was killed, with files that end so in another version.
fn left(ends: &[&str], version: (u32, u32)) -> (MemFs, BTreeMap<PathBuf, Vec<u8>>) {
    let fs = MemFs::new().with_direct();
    let tier = open(&fs, &config());
    (0..KEYS).for_each(|key| assert_eq!(put(&tier, key, 1, LEN), Outcome::Stored));
    let image = fs.image();
    for path in files(&image, ends).keys() {
        image.damage(path, |bytes| change_version(bytes, version));
    }
    let all = files(&image, &ENDS);
    (image, all)
}

#[test]
fn the_files_of_a_dead_writer_of_another_version_are_left_alone() {
    for version in [(2, 2), (0, 0)] {
        for ends in [&ENDS[..], &[".seg"], &[".writer"], &[".log", ".seg"]] {
            let (fs, before) = left(ends, version);
            let tier = open(&fs, &config());
            if ends.contains(&".log") {
                for key in 0..KEYS {
                    assert_eq!(lookup(&tier, key), Lookup::Miss(MissReason::Absent), "{ends:?}");
                }
            }
            let others = files(&fs, ends).keys().filter(|path| before.contains_key(*path)).count() as u64;
            let counted = tier.file_stats().other_version;
            assert!((1..=others).contains(&counted), "{ends:?}: {counted} of {others}");
            if ends.len() == ENDS.len() {
                assert_eq!(counted, others);
            }
            let told = tier.warning().unwrap();
            let what = format!(
                "of format version {} (for readers from {} on); this program reads version 1",
                version.0, version.1
            );
            assert!(told.contains(&what) && told.contains(DIR), "{told}");
            // More than the capacity: what this writer owns goes, and nothing else.
            for key in 100..160 {
                assert_eq!(put(&tier, key, 1, LEN), Outcome::Stored);
            }
            assert!(tier.stats().evictions > 20);
            drop(tier);
            let now = files(&fs, &ENDS);
            for (path, bytes) in &before {
                assert!(now.get(path) == Some(bytes), "{ends:?}: {} is not what it was", path.display());
            }
        }
    }
}

#[test]
fn tools_name_files_of_another_version_and_leave_them_alone() {
    let (fs, before) = left(&ENDS, (2, 2));
    let shared: Arc<dyn Fs> = Arc::new(fs.clone());
    let seen = inspect(Path::new(DIR), &shared).unwrap();
    assert_eq!((seen.others.len(), seen.writers[0].other_version), (before.len(), before.len() as u64));
    for repair in [false, true] {
        let options = Options { threads: 1, repair, adopt_after: Duration::ZERO, ..Options::default() };
        let report = scrub(Path::new(DIR), &shared, &options, &Progress::default()).unwrap();
        assert_eq!((report.damages(), report.lost, report.moved), (0, 0, 0), "{:?}", report.findings);
        let named = report.findings.iter().filter(|finding| finding.what == What::OtherVersion).count();
        assert_eq!(named, before.len(), "{:?}", report.findings);
    }
    for path in files(&fs, &[".seg"]).keys().filter(|path| before.contains_key(*path)) {
        fs.remove(path).unwrap();
    }
    let found = leftovers(Path::new(DIR), &shared, Duration::ZERO, true).unwrap();
    let names: Vec<&str> = found.iter().map(|leftover| leftover.name.as_str()).collect();
    let theirs = |name: &&&str| before.contains_key(&Path::new(DIR).join(name));
    assert_eq!(names.iter().filter(theirs).count(), 0, "{names:?}: its log may forget something");
}

#[test]
fn a_living_writer_of_another_version_is_named_too() {
    let fs = MemFs::new().with_direct();
    let writer = open(&fs, &config());
    assert_eq!(put(&writer, 1, 1, LEN), Outcome::Stored);
    for path in files(&fs, &ENDS).keys() {
        fs.damage(path, |bytes| change_version(bytes, (3, 2)));
    }
    let tier = open(&fs, &config());
    assert!(tier.file_stats().other_version >= 2 && tier.warning().is_some());
    assert_eq!(lookup(&tier, 1), Lookup::Miss(MissReason::Absent));
    assert_eq!(put(&tier, 1, 2, LEN), Outcome::Stored);
    expect(&tier, 1, 2, LEN);
}
