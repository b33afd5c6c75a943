//! Stripes on a file system that says it is Lustre, with a program that takes the place of `lfs`. Lustre itself was never asked.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cascade_core::batch::Outcome;
use cascade_pfs::filesystem::{FileSystem, Kind};
use cascade_pfs::fs::{Access, File, Fs, RealFs};
use cascade_pfs::stripe::{ALL_TARGETS, Stripes};
use cascade_pfs::testing::MemFs;
use cascade_pfs::{PfsConfig, PfsTier};
use common::*;

/// The real file system of this machine, which says that it is Lustre.
#[derive(Debug)]
struct SaysLustre;

impl Fs for SaysLustre {
    fn open(&self, path: &Path, access: Access, direct: bool) -> std::io::Result<Arc<dyn File>> {
        RealFs.open(path, access, direct)
    }
    fn list(&self, dir: &Path) -> std::io::Result<Vec<String>> {
        RealFs.list(dir)
    }
    fn remove(&self, path: &Path) -> std::io::Result<()> {
        RealFs.remove(path)
    }
    fn make_dir(&self, dir: &Path) -> std::io::Result<()> {
        RealFs.make_dir(dir)
    }
    fn sync_dir(&self, dir: &Path) -> std::io::Result<()> {
        RealFs.sync_dir(dir)
    }
    fn probe(&self, _dir: &Path) -> std::io::Result<FileSystem> {
        Ok(FileSystem::unbounded(Kind::Lustre))
    }
    fn stamp(&self, dir: &Path) -> std::io::Result<u64> {
        RealFs.stamp(dir)
    }
    fn create_striped(&self, path: &Path, direct: bool, stripes: Stripes) -> std::io::Result<Arc<dyn File>> {
        RealFs.create_striped(path, direct, stripes)
    }
    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        RealFs.rename(from, to)
    }
}

/// A program that notes its arguments and ends with `status`.
fn fake_lfs(folder: &Path, status: u8) -> PathBuf {
    let (path, noted) = (folder.join("lfs"), folder.join("noted"));
    let script =
        format!("#!/bin/sh\necho \"$@\" >> {}\necho no targets here >&2\nexit {status}\n", noted.display());
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn striped(dir: &Path, lfs: PathBuf) -> PfsConfig {
    PfsConfig {
        stripe_count: Some(8),
        stripe_bytes: Some(1 << 20),
        lfs: Some(lfs),
        ..PfsConfig::new(dir, 64 * MIB)
    }
}

#[test]
fn the_directory_is_striped_by_one_call_of_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("tier");
    let config = striped(&dir, fake_lfs(folder.path(), 0));
    let tier = PfsTier::open_on(config.clone(), Arc::new(SaysLustre)).unwrap();
    for key in 0..30 {
        assert_eq!(put(&tier, key, 1, 1_000_000), Outcome::Stored);
    }
    (0..30).for_each(|key| expect(&tier, key, 1, 1_000_000));
    let stats = tier.file_stats();
    assert_eq!((stats.stripe_count, stats.stripe_bytes, tier.warning()), (8, 1 << 20, None));
    assert!(stats.segments > 1, "more than one file was made");
    let noted = std::fs::read_to_string(folder.path().join("noted")).unwrap();
    assert_eq!(noted, format!("setstripe -c 8 -S 1048576 {}\n", dir.display()));
    drop(tier);
    let all = PfsConfig { stripe_count: Some(ALL_TARGETS), stripe_bytes: None, ..config };
    drop(PfsTier::open_on(all, Arc::new(SaysLustre)).unwrap());
    let noted = std::fs::read_to_string(folder.path().join("noted")).unwrap();
    assert_eq!(noted.lines().last(), Some(format!("setstripe -c -1 -S 4194304 {}", dir.display()).as_str()));
}

#[test]
fn a_program_that_fails_leaves_a_message_and_files_without_stripes() {
    let folder = tempfile::tempdir().unwrap();
    let config = striped(&folder.path().join("tier"), fake_lfs(folder.path(), 3));
    let tier = PfsTier::open_on(config, Arc::new(SaysLustre)).unwrap();
    assert_eq!(put(&tier, 1, 1, 1_000_000), Outcome::Stored);
    expect(&tier, 1, 1, 1_000_000);
    let warning = tier.warning().unwrap();
    assert!(warning.contains("not striped") && warning.contains("no targets here"), "{warning}");
    assert_eq!(tier.file_stats().stripe_count, 0);
}

#[test]
fn without_the_program_each_segment_is_striped_as_it_is_made() {
    let fs = MemFs::new().on(Kind::Lustre);
    let config = PfsConfig { dir: DIR.into(), ..striped(Path::new(DIR), "/nowhere/lfs".into()) };
    let tier = open(&fs, &config);
    for key in 0..30 {
        assert_eq!(put(&tier, key, 1, 1_000_000), Outcome::Stored);
    }
    let segments = names(&fs, Path::new(DIR), ".seg");
    assert!(segments.len() > 1);
    for name in segments {
        assert_eq!(fs.stripes(&Path::new(DIR).join(name)), Some(Stripes { count: 8, bytes: 1 << 20 }));
    }
    assert_eq!(tier.warning(), None);
    // The system of this machine knows no stripes: the ioctl fails, and nothing is left of the attempt.
    let folder = tempfile::tempdir().unwrap();
    let config = striped(&folder.path().join("tier"), "/nowhere/lfs".into());
    let tier = PfsTier::open_on(config, Arc::new(SaysLustre)).unwrap();
    assert_eq!(put(&tier, 1, 1, 1_000_000), Outcome::Stored);
    expect(&tier, 1, 1, 1_000_000);
    assert!(tier.warning().is_some_and(|warning| warning.contains("not striped")), "{:?}", tier.warning());
}

#[test]
fn elsewhere_nothing_is_asked_for() {
    for (kind, count) in [(Kind::Ext, Some(8)), (Kind::Lustre, None)] {
        let fs = MemFs::new().on(kind);
        fs.refuse_stripes();
        let config = PfsConfig { stripe_count: count, lfs: Some("/nowhere/lfs".into()), ..config(16 * MIB) };
        let tier = open(&fs, &config);
        assert_eq!(put(&tier, 1, 1, 1000), Outcome::Stored);
        assert_eq!((tier.warning(), tier.file_stats().stripe_count), (None, 0), "{kind}");
    }
}
