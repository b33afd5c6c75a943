//! Processes killed by SIGKILL, at every named point of the code and at random times, while others use the same arena.
//!
//! After each kill the survivors and a process that comes anew go on storing and reading; every byte that anyone reads is
//! checked; and when the last one is gone, nothing of them is left. `CASCADE_KILLS` sets about how many kills there are (every
//! point gets a fiftieth of them), `CASCADE_SECONDS` for how long to repeat that, `CASCADE_SEED` the seed.

// Clippy's exemption for tests reaches `#[test]` functions only, not their helpers.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "kill/block.rs"]
mod block;
#[path = "kill/points.rs"]
mod points;
#[path = "kill/raw.rs"]
mod raw;
#[path = "kill/report.rs"]
mod report;
#[path = "kill/round.rs"]
mod round;
#[path = "kill/worker.rs"]
mod worker;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cascade_shm::kill::POINTS;

use crate::block::Random;
use crate::report::{Progress, number, open_files, wait_for_files};
use crate::round::{Count, Round, config};

/// The body of a worker process; in a normal run of the tests there is nothing to do.
#[test]
fn worker_process() {
    let Some(folder) = std::env::var_os("CASCADE_KILL_FOLDER").map(PathBuf::from) else { return };
    let progress = PathBuf::from(std::env::var_os("CASCADE_KILL_PROGRESS").unwrap());
    let seed = number("CASCADE_SEED", 1);
    let config = config(&folder, number("CASCADE_KILL_ROWS", 0) as u16);
    worker::work(&config, &progress, seed, seed.is_multiple_of(3));
}

#[test]
fn whoever_is_killed_the_others_go_on_and_nothing_is_left() {
    let (kills, seed) = (number("CASCADE_KILLS", 1000) as usize, number("CASCADE_SEED", 0x5eed));
    let times = kills.div_ceil(50);
    println!("seed {seed}, {} points, {times} times each", POINTS.len());
    let mut random = Random(seed | 1);
    let mut count = Count::default();
    let until = Instant::now() + Duration::from_secs(number("CASCADE_SECONDS", 0));
    let (files, mut progress) = (open_files(), Progress::new());
    loop {
        for points in points::rounds(&mut random, times) {
            run_round(&mut random, &mut count, &points);
            wait_for_files(files);
            progress.say(count.kills());
        }
        if Instant::now() >= until {
            break;
        }
    }
    println!("kills at each point:");
    for (point, kills) in &count.by_point {
        println!("  {point:20} {kills:6}");
    }
    let rare: Vec<_> =
        POINTS.iter().filter(|point| count.by_point.get(*point).is_none_or(|n| *n < times as u64)).collect();
    assert!(rare.is_empty(), "fewer than {times} kills at {rare:?}");
    assert!(count.verified > 0, "nothing was read");
    println!("{} blocks verified byte for byte", count.verified);
    let extra = [("points", POINTS.len() as f64), ("blocks_verified", count.verified as f64)];
    report::passed("kill", count.kills(), "kills", &extra);
}

/// A new arena: a death at each of `points` in turn, while up to four processes are at work, and some at random times.
fn run_round(random: &mut Random, count: &mut Count, points: &[&'static str]) {
    let workers = 1 + random.below(4) as usize;
    let mut round = Round::new(random, count, points[0]);
    for (at, point) in points.iter().enumerate() {
        if at > 0 {
            round.fill_up(workers);
        }
        round.kill_at(point);
        round.check_progress(point);
        if at % 4 == 3 {
            round.kill_at_random();
            round.check_progress("a random kill");
        }
    }
    round.finish();
}

/// A point that the table does not name would never be visited.
#[test]
fn every_point_of_the_code_is_in_the_table_and_the_other_way_round() {
    let mut found = BTreeSet::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("src"), root.join("tests/kill")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(path).unwrap();
            let calls = text.split("kill::point(\"").skip(1);
            found.extend(calls.map(|rest| rest.split('"').next().unwrap().to_owned()));
        }
    }
    let listed: BTreeSet<String> = POINTS.iter().map(|point| (*point).to_owned()).collect();
    assert_eq!(found, listed);
    assert_eq!(listed.len(), POINTS.len(), "a point is listed twice");
}
