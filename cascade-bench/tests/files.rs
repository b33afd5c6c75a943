//! The program as it is called for the tier of files, small: every kind of rows comes out, and what cannot run here says so.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers outside of #[test] for production code")]

use std::process::Command;

use cascade_bench::report::{Report, Row};

fn measured(words: &str) -> (Report, String) {
    // On the disk that the program was built on: the folder for temporary files may be memory.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (json, plot) = (folder.path().join("report.json"), folder.path().join("plot.svg"));
    let mut program = Command::new(env!("CARGO_BIN_EXE_cascade-bench"));
    program
        .args(["--tier", "pfs", "--quick", "--dir"])
        .arg(folder.path())
        .args(words.split(' '))
        .arg("--json")
        .arg(&json);
    if words.contains("bandwidth") {
        program.arg("--plot").arg(&plot);
    }
    let output = program.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let names = std::fs::read_dir(folder.path()).unwrap();
    let left: Vec<_> = names.filter_map(|entry| entry.unwrap().file_name().into_string().ok()).collect();
    assert!(left.iter().all(|name| name == "report.json" || name == "plot.svg"), "{left:?}");
    (Report::load(&json).unwrap(), said)
}

fn rows<'a>(report: &'a Report, system: &str, op: &str) -> Vec<&'a Row> {
    report.results.iter().filter(|row| row.system == system && row.op == op).collect()
}

#[test]
fn rates_come_out_beside_those_of_others() {
    let (report, said) = measured(
        "--rows bandwidth --block 64KiB --lap 2MiB --reps 2 --cold --rivals fio,python,vllm --python python3",
    );
    for path in ["none", "end", "block"] {
        for system in ["cascade", "plain-loop", "python-files"] {
            let put = rows(&report, system, "put").into_iter().find(|row| row.path == path).unwrap();
            let files = put.files.as_ref().unwrap();
            assert_eq!((put.n, files.durability.as_str()), (2, path), "{said}");
            assert!(put.gbps.unwrap().min > 0.0 && files.of_plain.is_some() && files.made.unwrap().files > 0);
        }
    }
    let get = rows(&report, "cascade", "get")[0];
    let origin = get.files.as_ref().unwrap().origin.as_ref().unwrap();
    assert_eq!(get.verified, Some(true), "{said}");
    assert_eq!(get.state == "cold", origin.is_cold(), "{said}");
    assert!(get.efficiency.is_some() && get.ceiling.is_some());
    // A program that is not there is a row that says so, and a note that says why.
    for (system, name) in [("fio", "fio"), ("vllm-fs", "vllm")] {
        let rows = rows(&report, system, "put");
        let ran = rows.iter().all(|row| row.n == 2);
        let is_told = report.notes.iter().any(|note| note.contains("not run") && note.contains(system));
        assert!(!rows.is_empty() && (ran || is_told), "{name}: {said}");
        assert!(ran || rows.iter().any(|row| row.state == "not run" && row.gbps.is_none()));
    }
}

#[test]
fn files_are_few_openings_find_all_and_processes_see_each_other() {
    let (report, said) = measured("--rows counts,open,concurrency --lap 2MiB --reps 1");
    let put = report.results.iter().find(|row| row.op == "put" && row.path == "counts").unwrap();
    let made = put.files.as_ref().unwrap().made.unwrap();
    assert_eq!((put.verified, made.files_limit), (Some(true), Some(6)), "{said}");
    let calls = made.calls.unwrap();
    assert!((1..=6).contains(&made.files) && calls.creates == made.files && calls.writes > 0, "{made:?}");
    let open = rows(&report, "cascade", "open")[0];
    assert_eq!((open.blocks, open.verified), (Some(1000), Some(true)), "{said}");
    let seen = rows(&report, "cascade", "visible");
    assert_eq!(seen.len(), 3, "{said}");
    assert!(seen.iter().all(|row| row.verified == Some(true) && row.latency_us.is_some()), "{said}");
    let shared = report.results.iter().filter(|row| row.ranks > 1 && row.gbps.is_some());
    assert_eq!(shared.filter(|row| row.verified == Some(true)).count(), 6, "{said}");
}
