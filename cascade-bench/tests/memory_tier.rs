//! A tiny real run over the in-memory tier, and the form of the document that comes out of it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy takes helpers outside of #[test] for production code"
)]

use std::sync::Arc;

use cascade_bench::report::{Report, Row, compare, table};
use cascade_bench::run::{Options, Pass, Stored, run};
use cascade_bench::tiers::{Opened, Wanted};
use cascade_core::memory_tier::MemoryTier;

fn measure(pass: &Pass, block: u64) -> Report {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        blocks: vec![block],
        reps: 1,
        dir: folder.path().to_owned(),
        lap_bytes: 4 << 20,
        capacity_bytes: Some(48 << 20),
        baseline: true,
        stored_blocks: vec![Stored { blocks: 1000, is_index_only: false }],
    };
    let open = |wanted: &Wanted| -> cascade_core::Result<Opened> {
        Ok(Opened { tier: Arc::new(MemoryTier::new(wanted.capacity_bytes)), index_bytes: None })
    };
    let mut steps = Vec::new();
    let mut progress = |done, all, _: &str| steps.push((done, all));
    let results = run(&options, pass, "memory", &open, &mut progress).unwrap();
    let (done, all) = *steps.last().unwrap();
    assert_eq!(done, all, "progress ends where it said");
    assert!(results.notes.iter().all(|note| note.starts_with("reading the clock")), "{:?}", results.notes);
    assert_eq!(results.failures, 0);
    Report::here(results.rows, results.notes)
}

fn row<'a>(report: &'a Report, system: &str, op: &str, path: &str, threads: usize) -> &'a Row {
    let is_it =
        |row: &&Row| row.system == system && row.op == op && row.path == path && row.threads == threads;
    report.results.iter().find(is_it).unwrap_or_else(|| panic!("no row {system} {op} {path} x{threads}"))
}

#[test]
fn a_tiny_run_measures_and_verifies_everything() {
    let report = measure(&Pass::Callers(vec![1, 2]), 1 << 20);
    assert!(report.results.iter().all(|row| row.verified == Some(true)), "{}", table(&report.results));
    for (op, path, threads) in
        [("put", "single", 1), ("put", "callers", 2), ("get", "single", 1), ("get", "callers", 2)]
    {
        let row = row(&report, "cascade", op, path, threads);
        let (gbps, ceiling) = (row.gbps.unwrap().median, row.ceiling.as_ref().unwrap().gbps);
        assert!((row.efficiency.unwrap() - gbps / ceiling).abs() < 1e-9);
    }
    for (op, path) in [("put", "write"), ("put", "rewrite"), ("get", "read"), ("get", "readinto")] {
        assert!(row(&report, "python-file", op, path, 1).gbps.unwrap().min > 0.0);
    }
    for (op, path) in [("lookup", "single"), ("lease", "batch1000"), ("release", "single")] {
        let row = row(&report, "cascade", op, path, 2);
        assert_eq!((row.blocks, row.gbps), (Some(1000), None));
        assert!(row.latency_us.unwrap().p50 > 0.0);
    }
    assert!(report.results.iter().any(|row| row.state == "first_touch" && row.system == "cascade"));
}

#[test]
fn the_document_reads_back_and_compares() {
    let report = measure(&Pass::Pool(2), 8 << 20);
    assert!(report.results.iter().all(|row| row.path == "pool" || row.system == "python-file"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    report.save(&path).unwrap();
    let read = Report::load(&path).unwrap();
    assert_eq!(table(&read.results), table(&report.results));
    assert_eq!((read.host, &read.commit), (report.host.clone(), &report.commit));
    let text = compare(&report, &Report::load(&path).unwrap());
    assert!(text.contains("1.00x rate"), "{text}");
    std::fs::write(&path, "{\"schema\":2}").unwrap();
    assert!(Report::load(&path).is_err());
}
