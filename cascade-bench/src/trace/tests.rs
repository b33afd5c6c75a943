use std::io::Write;

use cascade_core::policy::lists::Lru;
use clap::{CommandFactory, Parser, ValueEnum};

use super::cli::Arguments;
use super::*;

fn workload(chains: &[&[u64]]) -> Workload {
    let requests = chains.iter().enumerate().map(|(at, chain)| (at as u64 * 60_000, chain.to_vec()));
    Workload::new("test".to_owned(), requests)
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn a_block_counts_only_with_all_before_it() {
    // With room for three, the second request pushes out 1, the least recently used: 2 and 3 are then there for nothing.
    let workload = workload(&[&[1, 2, 3], &[9], &[1, 2, 3]]);
    let outcome = simulate(&workload, 3, &mut Lru::default());
    assert_eq!((outcome.references, outcome.hits), (7, 0));
    assert_eq!(simulate(&workload, 4, &mut Lru::default()).hits, 3);
    assert_eq!(optimum(&workload, 3).hits, 3, "who knows what comes does not keep 9");
    assert_eq!(optimum(&workload, 2).hits, 2, "and of a chain its beginning");
    assert_eq!(infinite(&workload).hits, 3);
}

#[test]
fn a_replay_adds_up_and_no_policy_beats_the_optimum() {
    for family in [Family::Chat, Family::Documents, Family::Loop] {
        let workload = family.workload(3).minutes(0.0, 4.0);
        for capacity in [50, 1000] {
            let best = optimum(&workload, capacity).hits;
            assert!(best <= infinite(&workload).hits);
            for policy in Policy::value_variants() {
                let Some(mut built) = policy.build(capacity, 1) else { continue };
                let outcome = simulate(&workload, capacity, built.as_mut());
                let parts = outcome.hits + outcome.orphans + outcome.puts + outcome.refused;
                assert_eq!(parts, workload.references(), "{policy}: {outcome:?}");
                assert!(outcome.hits <= best, "{policy} at {capacity}: {} of {best}", outcome.hits);
                assert!(outcome.puts - outcome.evictions <= capacity as u64, "{policy}: {outcome:?}");
            }
        }
    }
}

#[test]
fn the_default_is_no_worse_than_lru_and_mostly_better() {
    let (mut better, mut runs) = (0, 0);
    for family in [Family::Chat, Family::Scan, Family::Drift] {
        let workload = family.workload(11).minutes(0.0, 20.0);
        for capacity in [1000, 5000] {
            let run = |policy: Policy| {
                let mut policy = policy.build(capacity, 1).unwrap();
                simulate(&workload, capacity, policy.as_mut()).hit_rate()
            };
            let (ours, lru) = (run(Policy::Default), run(Policy::Lru));
            assert!(ours > lru - 0.002, "{} at {capacity}: {ours} against {lru}", workload.name);
            better += usize::from(ours > lru + 0.002);
            runs += 1;
        }
    }
    assert!(better * 2 > runs, "better in {better} of {runs}");
}

#[test]
fn a_replay_with_the_same_seed_is_the_same() {
    let run = || {
        let workload = Family::Agents.workload(5).minutes(0.0, 2.0);
        let mut policy = Policy::Default.build(300, 9).unwrap();
        (workload.requests.len(), simulate(&workload, 300, policy.as_mut()))
    };
    assert_eq!(run(), run());
    assert_ne!(Family::Chat.workload(1), Family::Chat.workload(2));
}

#[test]
fn families_make_requests_within_the_hour() {
    for family in Family::value_variants() {
        let workload = family.workload(1);
        assert!(workload.requests.len() > 3000, "{}: {}", workload.name, workload.requests.len());
        assert!(workload.requests.is_sorted_by_key(|request| request.at_ms), "{}", workload.name);
        let blocks = workload.requests.iter().flat_map(|request| &request.blocks);
        assert!(blocks.clone().all(|block| (*block as usize) < workload.blocks), "{}", workload.name);
        assert_eq!(blocks.max().map(|most| *most as usize + 1), Some(workload.blocks));
    }
}

#[test]
fn traces_and_documents_are_read_and_what_is_neither_is_named() {
    let mooncake = "{\"timestamp\": 0, \"input_length\": 9, \"output_length\": 1, \"hash_ids\": [7, 5]}\n\n\
                    {\"timestamp\": 1500, \"hash_ids\": [7, 6]}\n";
    let read = Workload::load(file(mooncake).path(), 1).unwrap();
    assert_eq!((read.requests.len(), read.blocks, read.references()), (2, 3, 4));
    assert_eq!(read.requests[1], Request { at_ms: 1500, blocks: vec![0, 2] });
    let document =
        format!("{{\"input\": \"{}\", \"qa_pairs\": \"[{{'Q': 1}}, {{'Q': 2}}]\"}}", "x".repeat(5000));
    let read = Workload::load(file(&document).path(), 1).unwrap();
    assert_eq!((read.requests.len(), read.references()), (2, 8), "three blocks and a question, twice");
    let wrong = file("{\"timestamp\": 0, \"hash_ids\": [1]}\n{\"timestamp\": 0}\n");
    let error = Workload::load(wrong.path(), 1).unwrap_err();
    assert!(error.to_string().contains(":2:"), "{error}");
    assert!(Workload::load(std::path::Path::new("/nowhere.jsonl"), 1).is_err());
}

#[test]
fn parts_of_a_workload() {
    let whole = workload(&[&[1, 2], &[3], &[1, 2, 4]]);
    assert_eq!(whole.minutes(1.0, 3.0).requests.len(), 2);
    assert_eq!(whole.every(2).references(), 5);
    let reversed = whole.reversed();
    assert_eq!(reversed.requests[0], Request { at_ms: 0, blocks: vec![0, 1, 2] });
    assert_eq!(reversed.requests[2], Request { at_ms: 120_000, blocks: vec![0, 1] });
}

#[test]
fn the_command_line_of_the_suite() {
    Arguments::command().debug_assert();
    let parse = |words: &str| Arguments::try_parse_from(words.split_whitespace());
    let base = "cascade-bench --suite trace --synthetic chat";
    let arguments =
        parse(&format!("{base} --capacity 1e3,50000 --minutes 20-60 --policy default,lru")).unwrap();
    assert_eq!((arguments.capacity, arguments.minutes), (vec![1000, 50_000], Some((20.0, 60.0))));
    for wrong in ["--capacity 0", "--minutes 5", "--minutes 9-3", "--policy best", "--every 0", "--trace x"] {
        assert!(parse(&format!("{base} {wrong}")).is_err(), "{wrong}");
    }
    assert!(parse("cascade-bench --suite trace").is_err(), "requests have to come from somewhere");
}

#[test]
fn a_run_writes_what_it_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (json, plot) = (path("new.json"), path("new.svg"));
    let base =
        "cascade-bench --suite trace --synthetic documents --minutes 0-2 --capacity 200,400 --seed 1,2";
    let words = format!("{base} --policy default,lru,belady --json {json} --plot {plot}");
    run(&Arguments::try_parse_from(words.split_whitespace()).unwrap()).unwrap();
    let report = crate::report::Report::load(std::path::Path::new(&json)).unwrap();
    let replays: Vec<_> = report.results.iter().map(|row| row.replay.clone().unwrap()).collect();
    assert_eq!((replays.len(), report.results[0].n), (6, 2));
    assert_eq!(replays[1].gap_closed, Some(0.0));
    assert_eq!(replays[2].gap_closed, Some(1.0));
    assert!(std::fs::read_to_string(&plot).unwrap().contains("belady"));
    let nothing = format!("{base} --minutes 900-901").replace("--minutes 0-2 ", "");
    assert!(run(&Arguments::try_parse_from(nothing.split_whitespace()).unwrap()).is_err());
}

#[test]
fn a_store_serves_the_same_requests_with_their_bytes() {
    let folder = tempfile::Builder::new().prefix("cascade-test-").tempdir_in("/dev/shm").unwrap();
    let workload = Family::Documents.workload(2).minutes(0.0, 0.5);
    let plan = |name: &str, blocks, files| Plan {
        memory: folder.path().join(name),
        files,
        block_bytes: 4096,
        blocks,
        eviction: "learned",
    };
    let enough = replay(&workload, &plan("enough", 16_384, None), &mut |_| ()).unwrap();
    assert_eq!((enough.moved.wrong, enough.moved.refused, enough.outcome.evictions), (0, 0, 0));
    assert_eq!(enough.outcome.hits, infinite(&workload).hits, "what fits is never lost");
    assert_eq!(enough.moved.from_arena, enough.outcome.hits);
    let parts = enough.outcome.hits + enough.outcome.puts + enough.outcome.orphans;
    assert_eq!(parts, workload.references());
}

#[test]
fn an_arena_hits_like_the_simulation_and_by_the_policy_that_is_asked_for() {
    let folder = tempfile::Builder::new().prefix("cascade-test-").tempdir_in("/dev/shm").unwrap();
    let workload = Family::Loop.workload(2).minutes(0.0, 20.0);
    let run = |policy: Policy| {
        let eviction = policy.setting().unwrap();
        let plan = Plan {
            memory: folder.path().join(eviction),
            files: None,
            block_bytes: 4096,
            blocks: 2048,
            eviction,
        };
        let real = replay(&workload, &plan, &mut |_| ()).unwrap();
        let mut simulated = policy.build(real.capacity, 1).unwrap();
        let simulated = simulate(&workload, real.capacity, simulated.as_mut()).hit_rate();
        println!("{policy}: {} real, {simulated} simulated", real.outcome.hit_rate());
        assert!(real.moved.wrong == 0 && real.moved.refused == 0);
        (real.outcome.hit_rate(), simulated)
    };
    let ((ours, simulated), (lru, _)) = (run(Policy::Default), run(Policy::Lru));
    assert!(ours > simulated * 0.7, "{ours} of {simulated}");
    assert!(ours > lru, "{ours} against {lru}");
}
