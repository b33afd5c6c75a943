//! What the tests of the tier share.

// Each test uses its own part of this, and clippy's exemption for tests reaches `#[test]` functions only.
#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cascade_core::batch::{Batch, Op, Outcome};
use cascade_core::memory::{HostBuffer, Piece};
use cascade_core::testing::bytes::{content, id};
use cascade_core::tier::{Class, Lookup, OnExisting, PutMeta, Tier};
use cascade_pfs::fs::Fs;
use cascade_pfs::testing::MemFs;
use cascade_pfs::{IoEngine, PfsConfig, PfsTier};

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const KEEP: PutMeta =
    PutMeta { class: Class::Ordinary, on_existing: OnExisting::Keep, tenant: 0, heat: None };
pub(crate) const REPLACE: PutMeta = PutMeta { on_existing: OnExisting::Replace, ..KEEP };
/// Where the tier is on a file system in memory.
pub(crate) const DIR: &str = "/tier";

pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

pub(crate) fn config(capacity_bytes: u64) -> PfsConfig {
    PfsConfig { follow_every: Duration::from_millis(10), ..PfsConfig::new(DIR, capacity_bytes) }
}

pub(crate) fn open(fs: &MemFs, config: &PfsConfig) -> PfsTier {
    PfsTier::open_on(config.clone(), Arc::new(fs.clone())).unwrap()
}

/// Whether io_uring works in this process; says why it does not.
pub(crate) fn has_uring() -> bool {
    let folder = tempfile::tempdir().unwrap();
    let config = PfsConfig { io_engine: IoEngine::Uring, ..PfsConfig::new(folder.path(), 64 * MIB) };
    let opened = PfsTier::open(config);
    if let Err(error) = &opened {
        assert_eq!(error.kind(), cascade_core::ErrorKind::Unsupported, "{error:?}");
        println!("skipped: {error:?}");
    }
    opened.is_ok()
}

pub(crate) fn run(tier: &PfsTier, ops: Vec<Op>) -> Vec<Outcome> {
    let outcomes = tier.submit(Batch::new(ops)).wait(soon());
    outcomes.unwrap_or_else(|| panic!("a batch that does not complete hangs"))
}

pub(crate) fn put_with(tier: &PfsTier, key: u64, version: u64, len: usize, meta: PutMeta) -> Outcome {
    let from = Piece::shared(content(key, version, len)).into();
    run(tier, vec![Op::Store { id: id(key), from, meta }])[0]
}

pub(crate) fn put(tier: &PfsTier, key: u64, version: u64, len: usize) -> Outcome {
    put_with(tier, key, version, len, REPLACE)
}

pub(crate) fn delete(tier: &PfsTier, key: u64) -> Outcome {
    run(tier, vec![Op::Delete { id: id(key) }])[0]
}

/// The block's bytes, or why there are none.
pub(crate) fn get(tier: &PfsTier, key: u64, room: usize) -> Result<Vec<u8>, Outcome> {
    let mut buffer = HostBuffer::zeroed(room);
    match run(tier, vec![Op::Fetch { id: id(key), into: buffer.piece().into() }])[0] {
        Outcome::Fetched(meta) => {
            Ok(buffer.bytes_mut().unwrap()[..usize::try_from(meta.len).unwrap()].to_vec())
        }
        other => Err(other),
    }
}

pub(crate) fn expect(tier: &PfsTier, key: u64, version: u64, len: usize) {
    let got = get(tier, key, len);
    assert!(
        got.as_ref().is_ok_and(|bytes| **bytes == *content(key, version, len)),
        "block {key}, version {version}, {len} bytes: {:?}",
        got.map(|bytes| bytes.len())
    );
}

pub(crate) fn lookup(tier: &PfsTier, key: u64) -> Lookup {
    let mut out = [Lookup::Pending];
    tier.lookup(&[id(key)], &mut out);
    out[0]
}

/// Waits until `holds`, which others must bring about.
pub(crate) fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = soon();
    while !holds() {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Names in the tier's directory that end so, in order.
pub(crate) fn names(fs: &dyn Fs, dir: &Path, suffix: &str) -> Vec<String> {
    let mut names = fs.list(dir).unwrap();
    names.retain(|name| name.ends_with(suffix));
    names.sort();
    names
}
