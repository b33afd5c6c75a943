//! After SIGKILL of every process: how long who comes anew needs from attaching to a full arena to its first hit, verified.
//!
//! The arena has 2 GiB and log-normal blocks of 64 KiB to 16 MiB. Each process that was measured goes on to put, and is killed
//! over it. `CASCADE_ATTACHES` sets how often, `CASCADE_SECONDS` for how long to go on, `CASCADE_MIB` the size.

// Clippy's exemption for tests reaches `#[test]` functions only, not their helpers.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "kill/block.rs"]
#[allow(dead_code, reason = "the kill lane uses all of it")]
mod block;
#[path = "kill/report.rs"]
mod report;
#[path = "kill/times.rs"]
mod times;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cascade_core::lease::Lease;
use cascade_core::reservation::Reserve;
use cascade_core::tier::{Addressable, PutMeta, Tier};
use cascade_shm::{Arena, ArenaConfig};

use crate::block::{Random, id};
use crate::report::number;
use crate::times::Times;

/// What is aimed at, and what is grossly more.
const GOAL_MS: f64 = 100.0;
const GROSS_MS: f64 = 1000.0;
const LEAST_BYTES: f64 = 65_536.0;
const MOST_BYTES: f64 = 16_777_216.0;
/// Leases that a process holds when it is killed.
const HELD: usize = 50;

fn config(folder: &Path, mib: u64) -> ArenaConfig {
    ArenaConfig::new(folder.join("arena")).capacity(mib << 20)
}

/// The length of block `number`: log-normal around 1 MiB, cut at both ends.
fn length(number: u64) -> usize {
    let mut random = Random(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    random.next();
    // The sum of twelve uniform numbers is close to normal, with variance 1.
    let normal = (0..12).map(|_| random.below(1 << 20) as f64 / f64::from(1 << 20)).sum::<f64>() - 6.0;
    (1_048_576.0 * (1.2 * normal).exp()).clamp(LEAST_BYTES, MOST_BYTES) as usize
}

/// The bytes that all blocks begin with, but for their first eight: the block's number.
fn pattern() -> Vec<u8> {
    let mut random = Random(77);
    (0..MOST_BYTES as usize / 8).flat_map(|_| random.next().to_le_bytes()).collect()
}

fn put(arena: &Arena, pattern: &[u8], number: u64) {
    let len = length(number);
    if let Reserve::Reserved(mut place) = arena.reserve(&id(number), len as u64, PutMeta::default()) {
        assert!(place.write_at(0, &number.to_le_bytes()) && place.write_at(8, &pattern[8..len]));
        assert!(matches!(place.seal(), cascade_core::reservation::Sealed::Stored(_)));
    }
}

fn check(lease: &Lease, pattern: &[u8], number: u64) {
    let mut found = vec![0; lease.len()];
    assert!(lease.read_at(0, &mut found));
    assert_eq!(found.len(), length(number));
    assert!(found[..8] == number.to_le_bytes() && found[8..] == pattern[8..found.len()], "wrong bytes");
}

/// The body of a process; in a normal run of the tests there is nothing to do.
#[test]
fn attaching_process() {
    let Some(folder) = std::env::var_os("CASCADE_HIT_FOLDER").map(PathBuf::from) else { return };
    let (first, blocks) = (number("CASCADE_HIT_FIRST", 0), number("CASCADE_HIT_BLOCKS", 0));
    let pattern = pattern();
    let started = Instant::now();
    let arena = Arena::open(&config(&folder, number("CASCADE_MIB", 0))).unwrap();
    let attached = started.elapsed();
    let hit = (0..blocks).rev().find_map(|number| Some((number, arena.lease(&id(number)).ok()?)));
    let took = started.elapsed();
    if let Some((number, lease)) = &hit {
        check(lease, &pattern, *number);
    } else {
        assert_eq!(blocks, 0, "a full arena has none of its blocks");
    }
    let mut next = first;
    while blocks == 0 && arena.stats().evictions == 0 {
        put(&arena, &pattern, next);
        next += 1;
    }
    let known = if blocks == 0 { next } else { blocks };
    let leases = (0..known).rev().filter_map(|number| arena.lease(&id(number)).ok());
    let held: Vec<Lease> = leases.take(HELD).collect();
    println!("\nready {} {} {next}", attached.as_micros(), took.as_micros());
    // Until it is killed.
    loop {
        put(&arena, &pattern, next);
        next += 1;
        assert_eq!(held.len(), HELD);
    }
}

/// Starts a process and waits until it has measured: attach and first hit, and the number of its next block.
fn start(folder: &Path, mib: u64, first: u64, blocks: u64) -> (Child, [u64; 3]) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "attaching_process", "--nocapture", "--test-threads=1"]);
    command.env("CASCADE_HIT_FOLDER", folder).env("CASCADE_MIB", mib.to_string());
    command.env("CASCADE_HIT_FIRST", first.to_string()).env("CASCADE_HIT_BLOCKS", blocks.to_string());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let said = lines.into_iter().find_map(|line| Some(line.strip_prefix("ready ")?.to_owned()));
    let numbers: Vec<u64> = said.unwrap().split(' ').map(|part| part.parse().unwrap()).collect();
    (child, numbers.try_into().unwrap())
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Size of the arena: as asked for, or what the machine has room for.
fn fitting_mib() -> u64 {
    let wanted = number("CASCADE_MIB", 2048);
    let stat = nix::sys::statvfs::statvfs("/dev/shm").unwrap();
    let free = stat.blocks_available() * stat.fragment_size() / 3 * 2 >> 20;
    if free < wanted {
        println!("/dev/shm has no room for {wanted} MiB: run with {free} MiB");
    }
    wanted.min(free)
}

#[test]
fn the_first_hit_after_everybody_was_killed_comes_at_once() {
    if std::env::var_os("CASCADE_HIT_FOLDER").is_some() {
        return;
    }
    let attaches = number("CASCADE_ATTACHES", 20) as usize;
    let until = Instant::now() + Duration::from_secs(number("CASCADE_SECONDS", 0));
    let mib = fitting_mib();
    let folder = tempfile::Builder::new().prefix("cascade-hit-").tempdir_in("/dev/shm").unwrap();
    let (filler, [_, _, blocks]) = start(folder.path(), mib, 0, 0);
    let (other, _) = start(folder.path(), mib, 1 << 32, blocks);
    let mut living = vec![filler, other];
    let (mut attached, mut hit) = (Vec::new(), Vec::new());
    let mut progress = report::Progress::new();
    while hit.len() < attaches || Instant::now() < until {
        living.drain(..).for_each(kill);
        // Far from the numbers of those before, and the newest of the first process are looked for.
        let first = (hit.len() as u64 + 2) << 32;
        let (child, [attach_us, hit_us, _]) = start(folder.path(), mib, first, blocks);
        attached.push(Duration::from_micros(attach_us));
        hit.push(Duration::from_micros(hit_us));
        std::thread::sleep(Duration::from_millis(20));
        living.push(child);
        progress.say(hit.len() as u64);
    }
    living.drain(..).for_each(kill);
    let count = hit.len() as u64;
    let (attached, hit) = (Times::new(attached), Times::new(hit));
    println!("an arena of {mib} MiB with {blocks} blocks, log-normal");
    attached.print("attach");
    hit.print("attach to first verified hit");
    println!("goal: {GOAL_MS} ms; {}", if hit.max() <= GOAL_MS { "kept" } else { "missed" });
    let extra = [("mib", mib as f64), ("p50_ms", hit.quantile(0.5)), ("max_ms", hit.max())];
    report::passed("first-hit", count, "attaches", &extra);
    assert!(hit.max() < GROSS_MS, "the first hit took up to {:.0} ms", hit.max());
}
