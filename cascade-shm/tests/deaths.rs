//! Owners that die with all that they can hold, and owners that only seem to be dead.
//!
//! `CASCADE_DEATHS` sets the number of deaths, `CASCADE_SECONDS` for how long to go on.

// Clippy's exemption for tests reaches `#[test]` functions only, not their helpers.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "kill/block.rs"]
#[allow(dead_code, reason = "the kill lane uses all of it")]
mod block;
#[path = "deaths/owner.rs"]
mod owner;
#[path = "deaths/raw.rs"]
mod raw;
#[path = "kill/report.rs"]
mod report;
#[path = "deaths/rig.rs"]
mod rig;
#[path = "deaths/seeming.rs"]
mod seeming;
#[path = "kill/times.rs"]
mod times;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use cascade_core::batch::{Op, Outcome};
use cascade_core::memory::HostBuffer;
use nix::sys::signal::Signal;

use crate::owner::{BASE, FLYING, OWN, RESERVED, SEALED};
use crate::report::number;
use crate::rig::{Owner, Rig};
use crate::times::Times;

/// What is aimed at, and what is grossly more.
const GOAL_MS: f64 = 100.0;
const GROSS_MS: f64 = 1000.0;

/// The body of an owner process; in a normal run of the tests there is nothing to do.
#[test]
fn owner_process() {
    let Some(mode) = std::env::var("CASCADE_DEATH_MODE").ok() else { return };
    owner::work(&mode, &PathBuf::from(std::env::var_os("CASCADE_DEATH_FOLDER").unwrap()));
}

/// Why there can be no owners in other pid namespaces here.
fn no_namespaces() -> Option<&'static str> {
    let unshared = std::process::Command::new("unshare").args(["--pid", "--fork", "true"]).output();
    match unshared {
        Ok(output) if output.status.success() => None,
        Ok(_) => Some("`unshare --pid` needs root"),
        Err(_) => Some("there is no `unshare`"),
    }
}

#[test]
fn every_dead_owner_is_reclaimed_whole() {
    let deaths = number("CASCADE_DEATHS", 500) as usize;
    let until = Instant::now() + Duration::from_secs(number("CASCADE_SECONDS", 0));
    let mut kinds = vec!["hold", "full", "forked"];
    match no_namespaces() {
        None => kinds.push("namespace"),
        Some(why) => println!("owners in a pid namespace of their own: not run, {why}"),
    }
    let rig = Rig::new();
    let (mut times, files) = (Vec::new(), report::open_files());
    let mut progress = report::Progress::new();
    while times.len() < deaths || Instant::now() < until {
        times.push(one_death(&rig, kinds[times.len() % kinds.len()]));
        report::wait_for_files(files);
        progress.say(times.len() as u64);
    }
    let count = times.len() as u64;
    let times = Times::new(times);
    times.print("from SIGKILL to the last ledger entry reclaimed");
    println!("goal: {GOAL_MS} ms; {}", if times.max() <= GOAL_MS { "kept" } else { "missed" });
    let extra = [("p50_ms", times.quantile(0.5)), ("p99_ms", times.quantile(0.99)), ("max_ms", times.max())];
    report::passed("deaths", count, "owner deaths", &extra);
    assert!(times.max() < GROSS_MS, "reclaiming took up to {:.0} ms", times.max());
}

fn one_death(rig: &Rig, kind: &str) -> Duration {
    let mut owner = Owner::spawn(&mut match kind {
        "namespace" => owner::start_in_namespace("hold", &rig.path()),
        kind => owner::start(kind, &rig.path()),
    });
    let child: i32 = owner.hear("ready ").parse().unwrap();
    // It does hold what is to be reclaimed.
    let (held, _) = rig.now();
    assert_eq!(
        (held.live_owners, held.filling_slots, held.retired_slots),
        (3, RESERVED + FLYING, 2),
        "{held:?}"
    );
    let least = if kind == "full" { 1000 } else { BASE + SEALED + 2 + RESERVED + FLYING };
    assert!(held.ledger_entries >= least, "{held:?}");
    let since = Instant::now();
    owner.signal(Signal::SIGKILL);
    let took = rig.reclaimed(since);
    owner.reap();
    if child != 0 {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child), Signal::SIGKILL).unwrap();
    }
    // What it had sealed is there, whole; and without it the arena is as before.
    let buffer = HostBuffer::zeroed(block::MOST_BYTES);
    for number in (OWN..OWN + SEALED).chain([times_number(kind)]) {
        let op = Op::Fetch { id: block::id(number), into: buffer.piece().into() };
        assert!(matches!(owner::run(&rig.survivors[0], op), Outcome::Fetched(_)), "block {number} is gone");
    }
    for number in OWN..OWN + SEALED {
        assert_eq!(owner::delete(&rig.survivors[1], number), Outcome::Deleted);
    }
    assert_eq!(rig.now(), rig.before, "what an owner ({kind}) left");
    took
}

/// A block of the survivors that the owner had leased.
fn times_number(kind: &str) -> u64 {
    kind.len() as u64 % BASE
}
