//! Calls of a file system outside of puts and gets: those of the tools, each failing in every way; and whether faults can reach every
//! call that there is.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cascade_core::batch::Outcome;
use cascade_pfs::PfsConfig;
use cascade_pfs::fs::Fs;
use cascade_pfs::inspect::{inspect, leftovers};
use cascade_pfs::scrub::{Options, Progress, Report, What, scrub};
use cascade_pfs::testing::{Call, Fault, FaultFs, MemFs, Rule};
use common::*;

const KEYS: u64 = 14;
const LEN: usize = 20_000;
const ERRORS: [i32; 6] = [libc::EIO, libc::ENOSPC, libc::EDQUOT, libc::ESTALE, libc::ENOENT, libc::EACCES];

/// Segments of which one has a damaged block and one no sound one, and a writer who left a log of no use.
fn damaged() -> (MemFs, PfsConfig) {
    let (fs, config) = (MemFs::new(), PfsConfig { segment_bytes: Some(128 << 10), ..config(4 * MIB) });
    let tier = open(&fs, &config);
    (0..KEYS).for_each(|key| assert_eq!(put(&tier, key, 1, LEN), Outcome::Stored));
    drop(tier);
    let segments = names(&fs, Path::new(DIR), ".seg");
    assert!(segments.len() >= 3);
    fs.damage(&Path::new(DIR).join(&segments[0]), |file| file[4096 + 4096 + 7] ^= 1);
    let scratch = |file: &mut Vec<u8>| file.iter_mut().step_by(100).for_each(|byte| *byte ^= 0x55);
    fs.damage(&Path::new(DIR).join(&segments[1]), scratch);
    drop(open(&fs, &config));
    (fs.image(), config)
}

fn good(fs: &MemFs, config: &PfsConfig) -> BTreeSet<u64> {
    let tier = open(fs, config);
    (0..KEYS).filter(|key| get(&tier, *key, LEN).is_ok()).collect()
}

/// Everything that the tools do; what the scrub said.
fn use_tools(fs: &FaultFs) -> std::io::Result<Report> {
    let (dir, fs) = (Path::new(DIR), Arc::new(fs.clone()) as Arc<dyn Fs>);
    let options = Options { threads: 1, repair: true, adopt_after: Duration::ZERO, ..Options::default() };
    let report = scrub(dir, &fs, &options, &Progress::default());
    let _ = inspect(dir, &fs);
    let _ = leftovers(dir, &fs, Duration::ZERO, true);
    report
}

#[test]
fn tools_meet_every_error_and_take_nothing_good_with_them() {
    let (fs, config) = damaged();
    let sound = good(&fs.image(), &config);
    assert!(!sound.is_empty() && sound.len() < KEYS as usize);
    let dry = FaultFs::new(Arc::new(fs.image()));
    let expected = use_tools(&dry).unwrap();
    assert!(expected.lost > 1 && expected.moved == 1, "{expected:?}");
    let (mut runs, mut injected) = (0, 0);
    for ((call, kind), times) in dry.counts() {
        let suffix =
            ["seg", "log", "writer", "claim"].into_iter().find(|known| **known == kind).unwrap_or("");
        for (error, (first, times)) in ERRORS
            .into_iter()
            .flat_map(|error| [(0, 1), (1, 1), (times / 2, 1), (0, u64::MAX)].map(|when| (error, when)))
        {
            let rule = Rule { call, suffix, first, times, fault: Fault::Errno(error) };
            let memory = fs.image();
            let faults = FaultFs::new(Arc::new(memory.clone()));
            faults.set(&[rule]);
            let report = use_tools(&faults);
            runs += 1;
            injected += u64::from(faults.injected() > 0);
            // What could not be looked at is not said to be sound.
            if let Ok(report) = report {
                let is_all = report.sound == expected.sound && report.lost == expected.lost;
                let is_told = report.findings.iter().any(|f| matches!(f.what, What::Unreadable(_)));
                // A file that went while others work is no damage.
                let went = [libc::ENOENT, libc::ESTALE].contains(&error);
                assert!(
                    went || is_all || is_told || report.damages() > expected.damages(),
                    "{rule:?}: {report:?}"
                );
                assert!(report.sound <= expected.sound, "{rule:?}: {report:?}");
            }
            assert_eq!(good(&memory, &config), sound, "{rule:?}");
        }
    }
    println!("{runs} runs, {injected} with a fault");
    assert!(runs > 200 && injected * 10 > runs * 8, "{injected} of {runs} runs met their fault");
    assert!(dry.counts().keys().any(|(call, _)| *call == Call::Rename));
}

/// Functions of a block of source that begins with `head`, each with its text.
fn functions<'a>(source: &'a str, head: &str) -> Vec<(&'a str, &'a str)> {
    let (_, rest) = source.split_once(head).unwrap();
    let block = &rest[..rest.find("\n}\n").unwrap()];
    let parts = block.split("\n    fn ").skip(1);
    parts.map(|text| (text.split(['(', '<']).next().unwrap(), text)).collect()
}

/// A new call of the seam to file systems without a fault of its own fails here.
#[test]
fn faults_reach_every_call_of_the_seam() {
    let (seam, faults) = (include_str!("../src/fs.rs"), include_str!("../src/testing/fault.rs"));
    // Answered without the system, or only a hint; and told of changes, without which directories are listed.
    let exempt = ["is_direct", "takes_direct", "watch"];
    for (of, by) in
        [("pub trait Fs: ", "impl Fs for FaultFs"), ("pub trait File: ", "impl File for FaultFile")]
    {
        let (asked, met) = (functions(seam, of), functions(faults, by));
        assert!(asked.len() > 8);
        for (name, _) in asked.iter().filter(|(name, _)| !exempt.contains(name)) {
            let text = met.iter().find(|(met, _)| met == name).map(|(_, text)| *text);
            let meets = text.is_some_and(|text| text.contains("meet(") || text.contains("find("));
            assert!(meets, "{of}{name} has no fault in testing/fault.rs");
        }
    }
}
