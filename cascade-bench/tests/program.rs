//! The program as it is called, with the rows that take processes and an arena of their own.

use std::process::Command;

use cascade_bench::report::{Report, Row};

#[test]
fn rows_of_latency_space_and_contention_come_out_and_are_right() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("report.json");
    let words = "--tier shm --rows latency,space,contention --blocks 1e3,2e4:index --cycles 3000 --reps 1 --threads 1,2";
    let output = Command::new(env!("CARGO_BIN_EXE_cascade-bench"))
        .args(words.split(' '))
        .args(["--capacity", "128MiB", "--json"])
        .arg(&json)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let report = Report::load(&json).unwrap();
    assert!(report.results.iter().all(|row| row.verified == Some(true)), "{said}");
    let rows = |is_it: &dyn Fn(&Row) -> bool| report.results.iter().filter(|row| is_it(row)).count();
    // Lookup, lease and release, one by one and by the batch, with one thread and two.
    assert_eq!(rows(&|row| row.blocks == Some(1000) && row.state == "hot" && row.index_bytes.is_some()), 12);
    assert_eq!(
        rows(&|row| row.state == "index_only" && row.index_bytes.is_some_and(|bytes| bytes < 100.0)),
        12
    );
    for (threads, ranks, path) in [(1, 1, "processes1"), (8, 8, "processes8"), (16, 1, "threads16")] {
        for keys in ["hot", "zipf0.99"] {
            let is_it = |row: &Row| {
                let throughput = row.throughput.is_some_and(|all| all.member_per_second.min > 0.0);
                row.path == format!("{path} {keys}")
                    && (row.threads, row.ranks) == (threads, ranks)
                    && throughput
            };
            assert_eq!(rows(&is_it), 1, "{path} {keys}");
        }
    }
    for threads in [1, 2] {
        let is_it =
            |row: &Row| row.threads == threads && row.space.as_ref().is_some_and(|space| space.puts == 3000);
        assert_eq!(rows(&is_it), 1, "space x{threads}");
    }
}

#[test]
fn more_threads_than_cores_have_leases_enough() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("report.json");
    let words = "--tier shm --rows latency --blocks 2e3 --reps 1 --threads 24 --json";
    let output =
        Command::new(env!("CARGO_BIN_EXE_cascade-bench")).args(words.split(' ')).arg(&json).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let report = Report::load(&json).unwrap();
    assert!(report.results.iter().any(|row| row.op == "lease" && row.path == "batch1000"));
    assert!(report.results.iter().all(|row| row.verified == Some(true)));
}

#[test]
fn what_does_not_fit_is_not_run_and_noted_with_its_need() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("report.json");
    let words = "--tier shm --rows latency --blocks 1e11 --threads 1 --json";
    let program =
        Command::new(env!("CARGO_BIN_EXE_cascade-bench")).args(words.split(' ')).arg(&json).status();
    assert!(program.unwrap().success());
    let report = Report::load(&json).unwrap();
    assert!(report.results.is_empty());
    assert!(
        report.notes.iter().any(|note| note.contains("100000000000 blocks not run: ")),
        "{:?}",
        report.notes
    );
}

#[test]
fn a_plot_without_rates_is_refused_before_anything_is_measured() {
    let words = "--tier shm --rows latency --plot /dev/null";
    let output = Command::new(env!("CARGO_BIN_EXE_cascade-bench")).args(words.split(' ')).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("add bandwidth"));
}
