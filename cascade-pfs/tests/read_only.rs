//! Directories that a process can read and not write to: a prefix cache that others filled, on a mount that is read-only.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use cascade_core::batch::{Outcome, Refusal};
use cascade_core::tier::{MissReason, Tier};
use cascade_core::{ErrorKind, Result};
use cascade_pfs::fs::{Fs, RealFs};
use cascade_pfs::inspect::{inspect, leftovers};
use cascade_pfs::scrub::{Options, Progress, scrub};
use cascade_pfs::testing::{Call, Fault, FaultFs, MemFs, Rule};
use cascade_pfs::{PfsConfig, PfsTier};
use common::*;

const REFUSED: Outcome = Outcome::Refused(Refusal::ReadOnly);
/// Calls that change something.
const CHANGES: [Call; 8] = [
    Call::Create,
    Call::Remove,
    Call::Write,
    Call::Truncate,
    Call::SetAside,
    Call::Touch,
    Call::Rename,
    Call::Sync,
];

/// `fs`, of which nothing can be changed.
fn forbidden(fs: &MemFs, error: i32) -> FaultFs {
    let faults = FaultFs::new(Arc::new(fs.clone()));
    let rule = |call| Rule { call, suffix: "", first: 0, times: u64::MAX, fault: Fault::Errno(error) };
    faults.set(&CHANGES.map(rule));
    faults
}

fn reader(fs: &FaultFs, config: &PfsConfig) -> Result<PfsTier> {
    PfsTier::open_on(config.clone(), Arc::new(fs.clone()))
}

/// Whatever is asked of a reader: what is there it gives, and it changes nothing.
fn use_reader(tier: &PfsTier, there: &[u64], len: usize) {
    assert!(tier.is_read_only() && tier.file_stats().read_only);
    assert!(tier.warning().unwrap().contains("can only be read"), "{:?}", tier.warning());
    there.iter().for_each(|key| expect(tier, *key, 1, len));
    assert_eq!(put(tier, there[0], 2, len), REFUSED);
    assert_eq!(put(tier, 1000, 1, len), REFUSED);
    assert_eq!(delete(tier, there[0]), REFUSED);
    assert_eq!(delete(tier, 1000), Outcome::Miss(MissReason::Absent));
    tier.flush(soon()).unwrap();
    there.iter().for_each(|key| expect(tier, *key, 1, len));
    assert_eq!(get(tier, 1000, len), Err(Outcome::Miss(MissReason::Absent)));
    let (stats, files) = (tier.stats(), tier.file_stats());
    assert_eq!((stats.refused, stats.puts, stats.corrupt, stats.evictions), (2, 0, 0, 0));
    assert_eq!((files.creates, files.removes, files.adopted, files.io_errors), (0, 0, 0, 0));
}

#[test]
fn who_may_only_read_reads_and_is_refused_the_rest() {
    let (fs, config) = (MemFs::new(), config(4 * MIB));
    let writer = open(&fs, &config);
    (0..8).for_each(|key| assert_eq!(put(&writer, key, 1, 30_000), Outcome::Stored));
    for error in [libc::EROFS, libc::EACCES, libc::EPERM] {
        let before = fs.list(Path::new(DIR)).unwrap();
        let tier = reader(&forbidden(&fs, error), &config).unwrap();
        use_reader(&tier, &[0, 3, 7], 30_000);
        // What a writer that lives puts from here on is found too, and what it deletes is not.
        let key = 100 + u64::from(error.unsigned_abs());
        assert_eq!(put(&writer, key, 1, 5000), Outcome::Stored);
        eventually("the reader follows", || lookup(&tier, key).is_hit());
        expect(&tier, key, 1, 5000);
        assert_eq!(delete(&writer, key), Outcome::Deleted);
        eventually("the reader follows", || !lookup(&tier, key).is_hit());
        drop(tier);
        assert_eq!(fs.list(Path::new(DIR)).unwrap(), before, "something was made or removed");
    }
}

#[test]
fn a_killed_writers_last_blocks_are_found_by_who_may_only_read() {
    let (fs, config) = (MemFs::new(), config(4 * MIB));
    let writer = open(&fs, &config);
    (0..4).for_each(|key| assert_eq!(put(&writer, key, 1, 30_000), Outcome::Stored));
    let image = fs.image();
    // Killed before the log told of the last two.
    let log = Path::new(DIR).join(&names(&image, Path::new(DIR), ".log")[0]);
    image.damage(&log, |file| file.truncate(file.len() - 2 * 128));
    let faults = forbidden(&image, libc::EROFS);
    use_reader(&reader(&faults, &config).unwrap(), &[0, 1, 2, 3], 30_000);
}

#[test]
fn what_cannot_be_read_either_is_an_error() {
    let (fs, config) = (MemFs::new(), config(4 * MIB));
    let faults = forbidden(&fs, libc::EACCES);
    let rule = |call| Rule { call, suffix: "", first: 0, times: u64::MAX, fault: Fault::Errno(libc::EACCES) };
    faults.set(&[rule(Call::Create), rule(Call::List)]);
    assert_eq!(reader(&faults, &config).unwrap_err().kind(), ErrorKind::Permission);
    // Nor is a reader who cannot write for another reason than that it may not.
    faults.set(&[Rule { fault: Fault::Errno(libc::ENOSPC), ..rule(Call::Create) }]);
    assert_eq!(reader(&faults, &config).unwrap_err().kind(), ErrorKind::NoSpace);
}

/// The part of the next test that runs where the directory is mounted read-only.
#[test]
fn within_a_read_only_mount() {
    let Some(dir) = std::env::var_os("CASCADE_READ_ONLY_DIR").map(PathBuf::from) else { return };
    assert!(std::fs::write(dir.join("probe"), "").is_err(), "the mount is not read-only");
    let tier = PfsTier::open(PfsConfig::new(&dir, 64 * MIB)).unwrap();
    use_reader(&tier, &[0, 1, 2, 3], 100_000);
    drop(tier);
    let fs = Arc::new(RealFs) as Arc<dyn Fs>;
    let report = scrub(&dir, &fs, &Options::default(), &Progress::default()).unwrap();
    assert_eq!((report.sound, report.lost, report.damages()), (4, 0, 0), "{report:?}");
    let options = Options { repair: true, ..Options::default() };
    assert_eq!(scrub(&dir, &fs, &options, &Progress::default()).unwrap().damages(), 0);
    assert_eq!(inspect(&dir, &fs).unwrap().writers.len(), 1);
    leftovers(&dir, &fs, std::time::Duration::ZERO, true).unwrap();
    println!("within");
}

#[test]
fn a_read_only_mount_is_read_and_verified() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("tier");
    let writer = PfsTier::open(PfsConfig::new(&dir, 64 * MIB)).unwrap();
    (0..4).for_each(|key| assert_eq!(put(&writer, key, 1, 100_000), Outcome::Stored));
    drop(writer);
    let mount = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" || exit 77; \
                 CASCADE_READ_ONLY_DIR=\"$0\" exec \"$1\" --exact --nocapture within_a_read_only_mount";
    let is_root = nix::unistd::geteuid().is_root();
    let own = if is_root { "-m" } else { "-rm" };
    let mut child = Command::new("unshare");
    child.args([own, "sh", "-c", mount]).arg(&dir).arg(std::env::current_exe().unwrap());
    let output = match child.output() {
        Ok(output) => output,
        Err(error) => return println!("skipped: no read-only mount could be made: unshare: {error}"),
    };
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // `unshare` ends with 1 where it is not allowed to, the script with 77 where mounts are not.
    if matches!(output.status.code(), Some(77)) || said.starts_with("unshare:") {
        return println!("skipped: no read-only mount could be made: {said}");
    }
    assert!(output.status.success() && said.contains("within"), "{said}");
    assert_eq!(said.matches("cascade-pfs: ").count(), 1, "it is said once: {said}");
}
